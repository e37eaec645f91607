//! Channels of others that are heard besides `ingest.channel`, and what topics they are.
//!
//! Of Redis' patterns only `*` is taken. So what Redis delivers and what is computed here from a channel's name
//! cannot differ, and whether a map hears a channel can be told by an ear that has another map.

use super::raw::{Item, NoEvent, Unfit};
use crate::event::EventType;
use crate::topic::{BadTopic, Topic};
use memchr::memmem;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A channel, or a pattern of channels in which each `*` stands for any text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChannelPattern(Box<str>);

/// Why a text is no pattern of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadChannel {
    /// Nothing, or more than [`ChannelPattern::BYTES_MAX`].
    #[error("a channel has 1 to 255 bytes")]
    Length,
    /// A letter that is no plain one to Redis, or that parts patterns in what ears tell one another.
    #[error(
        "of Redis' patterns only * is taken: it has none of ? [ ] \\ and comma, no white space and no control character"
    )]
    Forbidden,
    /// More than [`ChannelPattern::STARS_MAX`], or two side by side.
    #[error("it has at most 8 stars, and something between any two")]
    Stars,
}

impl ChannelPattern {
    /// Longest pattern, in bytes.
    pub const BYTES_MAX: usize = 255;
    /// Most stars: Redis matches each publish against each pattern.
    pub const STARS_MAX: usize = 8;

    /// Checks a pattern.
    ///
    /// # Errors
    /// [`BadChannel`] says which rule is broken.
    pub fn parse(text: &str) -> Result<Self, BadChannel> {
        if text.is_empty() || text.len() > Self::BYTES_MAX {
            return Err(BadChannel::Length);
        }
        let forbidden = |c: char| c.is_whitespace() || c.is_control() || "?[]\\,".contains(c);
        if text.contains(forbidden) {
            return Err(BadChannel::Forbidden);
        }
        if text.matches('*').count() > Self::STARS_MAX || text.contains("**") {
            return Err(BadChannel::Stars);
        }
        Ok(Self(text.into()))
    }

    /// The pattern, as Redis takes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How many stars it has; without one it is a plain channel.
    #[must_use]
    pub fn stars(&self) -> usize {
        self.0.matches('*').count()
    }

    /// Whether it hears a channel.
    #[must_use]
    pub fn fits(&self, channel: &[u8]) -> bool {
        self.taken(channel).is_some()
    }

    /// Whether it hears all that another one hears. Its letters have no star, so that only a star takes one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.fits(other.0.as_bytes())
    }

    /// Whether there is a channel that begins so and that it hears.
    #[must_use]
    pub fn reaches(&self, begin: &str) -> bool {
        match self.0.split_once('*') {
            None => self.0.starts_with(begin),
            Some((head, _)) => head.starts_with(begin) || begin.starts_with(head),
        }
    }

    /// What each star stands for in a channel, as little as may be and the last one all the rest; none if it does
    /// not fit.
    fn taken<'a>(&self, channel: &'a [u8]) -> Option<Vec<&'a [u8]>> {
        let mut pieces = self.0.split('*').map(str::as_bytes);
        let mut rest = channel.strip_prefix(pieces.next().unwrap_or_default())?;
        let Some(end) = pieces.next_back() else {
            return rest.is_empty().then(Vec::new);
        };
        let mut taken = Vec::new();
        for piece in pieces {
            let at = memmem::find(rest, piece)?;
            let (star, after) = rest.split_at(at);
            taken.push(star);
            rest = after.get(piece.len()..)?;
        }
        taken.push(rest.strip_suffix(end)?);
        Some(taken)
    }
}

/// A topic with stars of a channel in it: `{1}` is what the first one stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicTemplate(Box<[Part]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    /// Counted from 0.
    Star(usize),
}

/// Why a text is no topic for the channels of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    /// A brace that is not part of `{1}` and the like.
    #[error("a brace is part of {{1}}, {{2}} and so on, the text of the first star, the second")]
    Brace,
    /// A star that the channel does not have.
    #[error("{{{0}}} is the text of a star that the channel does not have")]
    NoStar(usize),
    /// Whatever the stars stand for.
    #[error(transparent)]
    Topic(BadTopic),
}

impl TopicTemplate {
    /// Checks a topic for channels with so many stars.
    ///
    /// # Errors
    /// [`BadTemplate`] says which rule is broken.
    pub fn parse(text: &str, stars: usize) -> Result<Self, BadTemplate> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (number, after) = after.split_once('}').ok_or(BadTemplate::Brace)?;
            let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
            let number: usize = number
                .parse()
                .ok()
                .filter(|number| is_number && *number > 0)
                .ok_or(BadTemplate::Brace)?;
            if number > stars {
                return Err(BadTemplate::NoStar(number));
            }
            parts.extend([Part::Text(before.into()), Part::Star(number - 1)]);
            rest = after;
        }
        parts.push(Part::Text(rest.into()));
        let is_brace = |part: &Part| matches!(part, Part::Text(text) if text.contains('}'));
        if parts.iter().any(is_brace) {
            return Err(BadTemplate::Brace);
        }
        let template = Self(parts.into());
        let letters = vec![&b"x"[..]; stars];
        let topic = template.fill(&letters).unwrap_or_default();
        Topic::parse_logged(&topic).map_err(BadTemplate::Topic)?;
        Ok(template)
    }

    /// The topic's name, whatever it is worth; none if a star stands for what is no text.
    fn fill(&self, stars: &[&[u8]]) -> Option<String> {
        let texts = self.0.iter().map(|part| match part {
            Part::Text(text) => Some(&**text),
            Part::Star(at) => std::str::from_utf8(stars.get(*at)?).ok(),
        });
        texts.collect()
    }
}

/// One entry of the map: channels, and what becomes of what is published there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// What is heard.
    pub channel: ChannelPattern,
    /// The topic of its events.
    pub topic: TopicTemplate,
    /// The member of a JSON object that is an event's type.
    pub type_field: Option<Box<str>>,
}

/// All channels of others that are heard. Of several entries that fit a channel the first one holds.
///
/// Cloning shares the entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelMap(Arc<[Mapping]>);

impl ChannelMap {
    /// A map of these entries, in this order.
    #[must_use]
    pub fn new(entries: Vec<Mapping>) -> Self {
        Self(entries.into())
    }

    /// Whether it hears nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is heard, in the order of the entries.
    pub fn channels(&self) -> impl Iterator<Item = &ChannelPattern> {
        self.0.iter().map(|entry| &entry.channel)
    }

    /// What it hears, without what becomes of it.
    #[must_use]
    pub fn heard(&self) -> Heard {
        Heard::of(self.channels().cloned().collect())
    }

    /// The entry that a delivery is for: Redis delivers a publish once for the channel and once for each pattern
    /// that fits, and all but one of these are for nobody.
    #[must_use]
    pub fn entry_of(&self, channel: &[u8], pattern: Option<&[u8]>) -> Option<&Mapping> {
        let entry = self.0.iter().find(|entry| entry.channel.fits(channel))?;
        let through = (entry.channel.stars() > 0).then(|| entry.channel.as_str().as_bytes());
        (through == pattern && !is_of_a_gateway(channel)).then_some(entry)
    }
}

/// Whether a channel has the form of those that gateways themselves publish to, whatever their prefix. Two fleets
/// on one Redis could else publish what each has from the other, without end.
fn is_of_a_gateway(channel: &[u8]) -> bool {
    let Some(colon) = memchr::memchr(b':', channel) else {
        return false;
    };
    let (prefix, rest) = channel.split_at(colon);
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_';
    prefix.iter().all(plain) && (rest == b":ingest" || is_of_a_partition(rest))
}

/// Whether it goes on with a partition, and `live` or `tick`.
fn is_of_a_partition(rest: &[u8]) -> bool {
    let Some(number) = rest.strip_prefix(b":{") else {
        return false;
    };
    let digits = number.iter().take_while(|byte| byte.is_ascii_digit());
    let tail = number.get(digits.count()..).unwrap_or_default();
    tail.starts_with(b"}:live:") || tail == b"}:tick"
}

impl Mapping {
    /// Reads a raw publish on a channel that fits.
    ///
    /// # Errors
    /// As [`Item::read`].
    pub fn read(&self, channel: &[u8], payload: &[u8], bytes_max: usize) -> Result<Item, Unfit> {
        let read = || {
            let stars = self.channel.taken(channel).ok_or(NoEvent::Topic)?;
            let topic = self.topic.fill(&stars).ok_or(NoEvent::Topic)?;
            let topic = Topic::parse_logged(&topic).map_err(|_| NoEvent::Topic)?;
            let data = Item::data(payload, bytes_max)?;
            let field = self.type_field.as_deref();
            let event_type = field.map(|field| type_in(&data, field));
            Ok(Item {
                topic,
                event_type: event_type.unwrap_or_default(),
                data,
            })
        };
        read().map_err(|why| Unfit::new(why, channel, payload))
    }
}

/// The type that a JSON object names in this member; none if it is no object, or the member no text that is a type.
fn type_in(data: &str, field: &str) -> EventType {
    let mut json = serde_json::Deserializer::from_str(data);
    let found = Member(field).deserialize(&mut json);
    let whole = json.end();
    match (found, whole) {
        (Ok(Some(text)), Ok(())) => EventType::parse(&text).unwrap_or_default(),
        _ => EventType::default(),
    }
}

/// The text of one member of an object; of several of its name the last.
struct Member<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = members.next_key::<Cow<'de, str>>()? {
            if name == self.0 {
                let value: serde_json::Value = members.next_value()?;
                found = value.as_str().map(str::to_owned);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Which channels a map hears: all that ears must know of one another's maps.
///
/// As a word it is a name made of the patterns, `=`, and the patterns with commas between. Cloning shares them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    name: Arc<str>,
    patterns: Arc<[ChannelPattern]>,
}

impl Default for Heard {
    fn default() -> Self {
        Self::of(Vec::new())
    }
}

impl Heard {
    /// The name of a map that hears nothing.
    pub const NOTHING: &'static str = "-";

    fn of(mut patterns: Vec<ChannelPattern>) -> Self {
        patterns.sort();
        patterns.dedup();
        let text = joined(&patterns);
        let name = if patterns.is_empty() {
            Self::NOTHING.to_owned()
        } else {
            format!("{:08x}", crc32fast::hash(text.as_bytes()))
        };
        Self {
            name: name.into(),
            patterns: patterns.into(),
        }
    }

    /// Reads a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let (name, patterns) = word.split_once('=')?;
        let patterns = patterns.split(',').map(ChannelPattern::parse);
        let heard = Self::of(patterns.collect::<Result<_, _>>().ok()?);
        (*heard.name == *name).then_some(heard)
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The patterns, with commas between.
    #[must_use]
    pub fn patterns(&self) -> String {
        joined(&self.patterns)
    }

    /// Whether it is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a channel is among them.
    #[must_use]
    pub fn has(&self, channel: &[u8]) -> bool {
        self.patterns.iter().any(|pattern| pattern.fits(channel))
    }
}

fn joined(patterns: &[ChannelPattern]) -> String {
    let texts: Vec<&str> = patterns.iter().map(ChannelPattern::as_str).collect();
    texts.join(",")
}

#[cfg(test)]
mod tests;
