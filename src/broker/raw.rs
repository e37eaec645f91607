//! What ingest asks of a log: raw publishes by their numbers, and entries of the inbox.

use crate::event::EventType;
use crate::topic::Topic;
use std::sync::Arc;

/// A raw publish that can become an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The topic, from the channel.
    pub topic: Topic,
    /// The type, after `#` in the channel.
    pub event_type: EventType,
    /// The payload.
    pub data: String,
}

/// A raw publish that can become none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// Why.
    pub why: NoEvent,
    /// The beginning of its channel.
    pub channel: String,
    /// Bytes of the payload.
    pub size: usize,
}

/// Why a raw publish cannot be an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoEvent {
    /// The channel names no topic that events are published to.
    Topic,
    /// What follows `#` in the channel is no type.
    Type,
    /// The payload is larger than `publish.event_bytes_max`.
    Size,
    /// The payload is not UTF-8.
    Utf8,
}

impl NoEvent {
    /// The word in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Type => "type",
            Self::Size => "size",
            Self::Utf8 => "UTF-8",
        }
    }
}

/// Bytes of a channel that are told.
const SHOWN: usize = 80;

impl Unfit {
    pub(super) fn new(why: NoEvent, channel: &[u8], payload: &[u8]) -> Self {
        Self {
            why,
            channel: String::from_utf8_lossy(channel.get(..SHOWN).unwrap_or(channel)).into_owned(),
            size: payload.len(),
        }
    }
}

impl Item {
    /// Reads a raw publish on `<base>` or `<base>:<topic>[#<type>]`.
    ///
    /// # Errors
    /// Why it cannot be an event; it is counted all the same, since every ear counts alike.
    pub fn read(
        base: &str,
        channel: &[u8],
        payload: &[u8],
        bytes_max: usize,
    ) -> Result<Self, Unfit> {
        Self::try_read(base, channel, payload, bytes_max)
            .map_err(|why| Unfit::new(why, channel, payload))
    }

    fn try_read(
        base: &str,
        channel: &[u8],
        payload: &[u8],
        bytes_max: usize,
    ) -> Result<Self, NoEvent> {
        let name = name_of(base, channel).ok_or(NoEvent::Topic)?;
        let (topic, event_type) = name.split_once('#').unwrap_or((name, ""));
        let topic = Topic::parse_logged(topic).map_err(|_| NoEvent::Topic)?;
        let event_type = EventType::parse(event_type).map_err(|_| NoEvent::Type)?;
        let data = Self::data(payload, bytes_max)?;
        Ok(Self {
            topic,
            event_type,
            data,
        })
    }

    pub(super) fn data(payload: &[u8], bytes_max: usize) -> Result<String, NoEvent> {
        if payload.len() > bytes_max {
            return Err(NoEvent::Size);
        }
        let data = std::str::from_utf8(payload).map_err(|_| NoEvent::Utf8)?;
        Ok(data.to_owned())
    }

    /// Bytes of its texts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.topic.as_str().len() + self.event_type.as_str().len() + self.data.len()
    }
}

/// What a channel says after its base; the base itself if it says no more.
fn name_of<'a>(base: &'a str, channel: &'a [u8]) -> Option<&'a str> {
    let channel = std::str::from_utf8(channel).ok()?;
    match channel.strip_prefix(base)? {
        "" => Some(base),
        rest => rest.strip_prefix(':'),
    }
}

/// Channels that the same ears of an epoch hear: one bit for each map that has them, in the order in which the
/// epoch names its maps. Each class is counted for itself, so that all ears that hear a channel count it alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(u32);

impl Class {
    /// `ingest.channel` and what is below it: every ear hears that, whatever its map.
    pub const COMMON: Self = Self(0);
    /// Most maps that an epoch can have.
    pub const MAPS_MAX: usize = 32;

    /// The class of what these maps have, by their places.
    #[must_use]
    pub fn of(maps: impl Iterator<Item = usize>) -> Self {
        Self(maps.fold(0, |bits, place| bits | 1 << place))
    }

    /// The class of this number.
    #[must_use]
    pub const fn numbered(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// How far classes of an epoch have come: the number of the last publish of each.
pub type Positions = Vec<(Class, u64)>;

/// One append: publishes of one epoch in the order in which they were heard. The numbers of each class follow
/// one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The epoch.
    pub epoch: Arc<str>,
    /// The name of the map by which it was counted.
    pub map: Arc<str>,
    /// Goes on although earlier numbers or epochs are missing.
    pub force: bool,
    /// The epoch has just so many of each class that this map has.
    pub end: Option<Positions>,
    /// The classes of the items: of each the number of its first item, and the rolling hash before it.
    pub classes: Vec<(Class, u64, u32)>,
    /// The class, the rolling hash after it, and the item, or what it is instead.
    pub items: Vec<(Class, u32, Result<Item, Unfit>)>,
}

impl Append {
    /// Names the number at which a class begins, and the hash before it; the first word counts.
    pub fn begin(&mut self, class: Class, first: u64, before: u32) {
        if !self.classes.iter().any(|(known, ..)| *known == class) {
            self.classes.push((class, first, before));
        }
    }
}

/// The log's answer to an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything up to these numbers is in the log.
    Logged(Positions),
    /// The epoch is forgotten.
    Stale,
    /// An earlier epoch is not finished.
    Wait,
    /// An earlier number is missing.
    Hole,
    /// Another ear heard something else: one of the two is wrong.
    Diverged,
    /// Whether it was done is unknown.
    Unknown,
}

/// What an append has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The log's answer.
    pub outcome: Outcome,
    /// Items that became events.
    pub logged: usize,
    /// Items that did not.
    pub refused: usize,
    /// Some of those that the log refused, each with its topic and the reason.
    pub refusals: Vec<Refusal>,
}

/// What has become of some entries of the inbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InboxMove {
    /// Entries that became events.
    pub logged: usize,
    /// Those that did not, and are gone.
    pub refused: Vec<Refusal>,
    /// Entries that the inbox still holds.
    pub left: i64,
    /// Up to which entry it was looked, if there may be more.
    pub more_after: Option<String>,
    /// The first of the entries that stay where they are, since Redis failed at them, and why.
    pub failed: Option<String>,
    /// The greatest id that the inbox had come to, after which it was begun anew.
    pub begun_anew_at: Option<String>,
}

/// Why the log did not take something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The beginning of its topic.
    pub topic: String,
    /// What it is called: the first word of an error of the functions.
    pub code: String,
    /// The reason in words.
    pub why: String,
}

impl Refusal {
    /// Whether it can be an event at no time.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        matches!(self.code.as_str(), "TGINVALID" | "TGLARGE")
    }
}
