//! `ingest`: what is heard of publishes that come straight to Redis.

use super::source::Source;
use crate::broker::channels::{ChannelMap, ChannelPattern, Mapping, TopicTemplate};

/// Ingest of raw publishes and of the inbox.
#[derive(Clone, Debug)]
pub struct Ingest {
    /// Whether this replica may be an ear.
    pub enabled: bool,
    /// The channel `<name>` and the pattern `<name>:*` are heard.
    pub channel: String,
    /// Channels of others that are heard besides.
    pub map: ChannelMap,
    /// How many replicas hear raw publishes: so many may die at once, less one, without a loss.
    pub ears: usize,
    /// Raw publishes that may be owed.
    pub owed_max: usize,
    /// Bytes of them.
    pub owed_bytes_max: usize,
}

/// Entries of the map, at most.
const MAP_MAX: usize = 64;

impl Ingest {
    /// `prefix` begins the channels that the gateway itself publishes to.
    pub(super) fn take(s: &mut Source, prefix: &str) -> Self {
        let channel: String = s.get("ingest.channel", "events");
        let ingest = Self {
            enabled: s.flag("ingest.enabled", "true"),
            map: map(s, prefix, &channel),
            channel,
            ears: s.count("ingest.ears", "3"),
            owed_max: s.count("ingest.owed_max", "100000"),
            owed_bytes_max: s.count("ingest.owed_bytes_max", "67108864"),
        };
        let special = ['*', '?', '[', ']', '\\', ' ', '#', ','];
        if ingest.channel.is_empty() || ingest.channel.contains(special) {
            s.fault(
                "ingest.channel",
                "must be a plain name without spaces and none of * ? [ ] \\ # ,",
            );
        }
        if ingest.channel.split(':').next() == Some(prefix) {
            let what = format!(
                "must not begin with redis.prefix, {prefix:?}: the gateway would hear its own publishes, and publish them again for ever"
            );
            s.fault("ingest.channel", &what);
        }
        ingest
    }
}

/// The entries, each checked, and none that could never be the first that fits.
fn map(s: &mut Source, prefix: &str, base: &str) -> ChannelMap {
    let entries = s.tables("ingest.map", |entry| mapping(entry, prefix, base));
    s.settle("ingest.map", &format!("{entries:?}"));
    if entries.is_empty() {
        return ChannelMap::default();
    }
    if entries.len() > MAP_MAX {
        let what = format!(
            "must be at most {MAP_MAX} entries: Redis matches each publish against each pattern"
        );
        s.fault("ingest.map", &what);
    }
    for (at, entry) in entries.iter().enumerate() {
        let mut earlier = entries.iter().take(at);
        if let Some(first) = earlier.find(|first| first.channel.covers(&entry.channel)) {
            let (first, never) = (first.channel.as_str(), entry.channel.as_str());
            let what = format!(
                "{never:?} is never the first entry that fits: {first:?} before it has all its channels"
            );
            s.fault("ingest.map", &what);
        }
    }
    ChannelMap::new(entries)
}

fn mapping(s: &mut Source, prefix: &str, base: &str) -> Option<Mapping> {
    let (channel, topic): (String, String) = (s.get("channel", ""), s.get("topic", ""));
    let type_field: Option<String> = s.optional("type_field");
    let channel = match ChannelPattern::parse(&channel) {
        Ok(channel) => channel,
        Err(why) => {
            s.fault("channel", &format!("{channel:?} cannot be heard: {why}"));
            return None;
        }
    };
    if let Some(what) = hears_too_much(&channel, prefix, base) {
        s.fault(
            "channel",
            &format!("{:?} would hear {what}", channel.as_str()),
        );
    }
    let stars = channel.stars();
    match TopicTemplate::parse(&topic, stars) {
        Ok(topic) => Some(Mapping {
            channel,
            topic,
            type_field: type_field.map(Into::into),
        }),
        Err(why) => {
            s.fault("topic", &format!("{topic:?} makes no topic: {why}"));
            None
        }
    }
}

/// What must not be heard, if a pattern hears some of it.
fn hears_too_much(channel: &ChannelPattern, prefix: &str, base: &str) -> Option<String> {
    if channel.reaches(&format!("{prefix}:")) {
        return Some(format!(
            "what the gateway publishes itself below redis.prefix, \"{prefix}:\", and publish it again, without end"
        ));
    }
    if channel.fits(base.as_bytes()) || channel.reaches(&format!("{base}:")) {
        return Some(format!(
            "ingest.channel, {base:?} and \"{base}:*\", which is heard already"
        ));
    }
    channel.reaches("__").then(|| {
        "what Redis publishes itself, \"__keyspace@0__:...\" and the like: each write of the gateway would be an event, \
         and a write again"
            .to_owned()
    })
}
