//! What is published: events that tell by themselves who sent them, where, and when.

use rand::Rng;
use std::fmt;

/// How an event was published. Its name is the event's type on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// Raw `PUBLISH`, thousands in one pipe.
    Pipe,
    /// Raw `PUBLISH`, one by one.
    Raw,
    /// `FCALL tidegate_publish`.
    Function,
    /// `XADD tidegate:inbox`.
    Inbox,
    /// `POST /events/{topic}`.
    Post,
    /// `POST /events`, NDJSON.
    Batch,
    /// `tidegate publish`.
    Cli,
    /// The last event of a topic, by the function, once everything else has settled.
    Marker,
}

impl Way {
    /// Every way.
    pub const ALL: [Self; 8] = [
        Self::Pipe,
        Self::Raw,
        Self::Function,
        Self::Inbox,
        Self::Post,
        Self::Batch,
        Self::Cli,
        Self::Marker,
    ];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pipe => "pipe",
            Self::Raw => "raw",
            Self::Function => "function",
            Self::Inbox => "inbox",
            Self::Post => "post",
            Self::Batch => "batch",
            Self::Cli => "cli",
            Self::Marker => "marker",
        }
    }

    /// Whether it is plain pub/sub, of which the publisher learns only how many heard it.
    #[must_use]
    pub const fn is_raw(self) -> bool {
        matches!(self, Self::Pipe | Self::Raw)
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|way| way.as_str() == text)
    }
}

/// Names one event among all: the way, and its number there. A marker's number is its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its way.
    pub way: Way,
    /// Its number; a producer counts from 0.
    pub number: u32,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.way.as_str(), self.number)
    }
}

/// One event as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its name.
    pub key: Key,
    /// Its topic, an index.
    pub topic: usize,
    /// When it was sent, by the run's clock.
    pub sent_us: u64,
    /// The payload: `way/number/topic/sent/padding`.
    pub data: String,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            topic,
            sent_us,
            ..
        } = self;
        write!(f, "{key} of {}, sent at {sent_us} us", topic_name(*topic))
    }
}

/// What the events of a run look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Topics.
    pub topics: usize,
    /// The longest padding: frames of many lengths, so that cuts fall everywhere.
    pub padding_max: usize,
}

impl Shape {
    /// An event of any topic that is sent now.
    #[must_use]
    pub fn draw(&self, key: Key, sent_us: u64, rng: &mut impl Rng) -> Event {
        let topic = rng.random_range(0..self.topics);
        self.event(key, topic, sent_us, rng)
    }

    /// An event of a topic that is sent now.
    #[must_use]
    pub fn event(&self, key: Key, topic: usize, sent_us: u64, rng: &mut impl Rng) -> Event {
        let length = rng.random_range(0..=self.padding_max);
        let padding: String = (0..length)
            .map(|_| char::from(rng.random_range(b'a'..=b'z')))
            .collect();
        Event {
            key,
            topic,
            sent_us,
            data: format!("{key}/{}/{sent_us}/{padding}", topic_name(topic)),
        }
    }

    /// About how many bytes an event has on a stream: an id, a type, and a payload of middle length.
    #[must_use]
    pub fn block_bytes(&self) -> u64 {
        80 + self.padding_max as u64 / 2
    }
}

/// Reads back whose payload it is and when it was sent.
#[must_use]
pub fn read_payload(data: &str) -> Option<(Key, u64)> {
    let mut parts = data.split('/');
    let way = Way::parse(parts.next()?)?;
    let number = parts.next()?.parse().ok()?;
    let _topic = parts.next()?;
    let sent_us = parts.next()?.parse().ok()?;
    Some((Key { way, number }, sent_us))
}

/// The name of a topic.
#[must_use]
pub fn topic_name(index: usize) -> String {
    format!("fault{index}")
}

/// Begins the names of topics to whose logs others write, and is the type of what they write.
pub const FOREIGN: &str = "alien";

/// The name of a topic to whose log others write.
#[must_use]
pub fn foreign_name(index: usize) -> String {
    format!("{FOREIGN}{index}")
}

/// Which topic has this name.
#[must_use]
pub fn topic_index(name: &str) -> Option<usize> {
    name.strip_prefix("fault")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};

    #[test]
    fn a_payload_names_its_event() {
        let key = Key {
            way: Way::Inbox,
            number: 17,
        };
        let shape = Shape {
            topics: 5,
            padding_max: 50,
        };
        let event = shape.event(key, 3, 12345, &mut StdRng::seed_from_u64(1));
        assert_eq!(read_payload(&event.data), Some((key, 12345)));
        assert!(event.data.starts_with("inbox/17/fault3/12345/"));
        for foreign in ["", "hello", "fax/1/fault0/5/", "raw/x/fault0/5/", "raw/1"] {
            assert_eq!(read_payload(foreign), None, "{foreign}");
        }
    }
}
