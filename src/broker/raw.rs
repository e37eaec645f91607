//! What ingest asks of a log: raw publishes by their numbers, and entries of the inbox.

use crate::event::EventType;
use crate::topic::Topic;
use std::collections::BTreeMap;
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

impl Item {
    /// Reads a raw publish on `<base>` or `<base>:<topic>[#<type>]`.
    ///
    /// None if it cannot be an event; it is counted all the same, since every ear counts alike.
    #[must_use]
    pub fn read(base: &str, channel: &[u8], payload: &[u8], bytes_max: usize) -> Option<Self> {
        let channel = std::str::from_utf8(channel).ok()?;
        let name = match channel.strip_prefix(base)? {
            "" => base,
            rest => rest.strip_prefix(':')?,
        };
        let (topic, event_type) = name.split_once('#').unwrap_or((name, ""));
        if payload.len() > bytes_max {
            return None;
        }
        Some(Self {
            topic: Topic::parse_logged(topic).ok()?,
            event_type: EventType::parse(event_type).ok()?,
            data: std::str::from_utf8(payload).ok()?.to_owned(),
        })
    }
}

/// One append: numbers `first`, `first + 1`, … of `epoch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The epoch.
    pub epoch: Arc<str>,
    /// Goes on although earlier numbers or epochs are missing.
    pub force: bool,
    /// The epoch has just so many.
    pub end: Option<u64>,
    /// The number of the first item.
    pub first: u64,
    /// The rolling hash before the first item.
    pub before: u32,
    /// The rolling hash after each, and the item, none if it is no event.
    pub items: Vec<(u32, Option<Item>)>,
}

/// The log's answer to an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything up to this number is in the log.
    Logged(u64),
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

/// An entry of the inbox, as it was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxEntry {
    /// Its id in the inbox.
    pub entry: String,
    /// `topic`, `event`, `data`, `end`, `key`; what is missing is empty.
    pub fields: BTreeMap<String, Vec<u8>>,
}
