//! Publishers: they send at a steady rate, one after the other within a way, and keep what they were
//! told about each event.
//!
//! A way that can be repeated without harm (it carries a key) is repeated until it is answered.
//! A raw `PUBLISH` cannot be, so after an error nobody knows what became of it.

mod pipe;
mod sender;

pub use pipe::burst;
pub use sender::Sender;

use crate::clock::Clock;
use crate::event::{Event, Key, Shape, Way};
use crate::id::Id;
use rand::rngs::StdRng;
use std::time::Duration;
use tokio::time::{Instant, interval};

/// What a publisher was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was taken, under this id in the log if one was given.
    Accepted(Option<Id>),
    /// A raw publish had so many receivers.
    Heard(u64),
    /// It was refused, or there was no answer: it may or may not be published.
    Unknown,
}

impl Fate {
    /// Whether the event is owed to every subscriber of its topic.
    #[must_use]
    pub const fn is_owed(self) -> bool {
        match self {
            Self::Accepted(_) => true,
            Self::Heard(receivers) => receivers > 0,
            Self::Unknown => false,
        }
    }
}

/// An event, and what its publisher was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The event.
    pub event: Event,
    /// What became of it.
    pub fate: Fate,
    /// How often it was sent.
    pub tries: u32,
}

/// How much is published in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    /// The way.
    pub way: Way,
    /// Events a second.
    pub per_second: u32,
    /// Events sent at once.
    pub at_once: u32,
}

/// Five ways and two forms of one of them, in hundredths of the whole rate.
const PORTIONS: [(Way, u32, u32); 6] = [
    (Way::Raw, 30, 1),
    (Way::Function, 25, 1),
    (Way::Inbox, 20, 1),
    (Way::Post, 15, 1),
    (Way::Batch, 9, 5),
    // A process for each event.
    (Way::Cli, 1, 1),
];

impl Portion {
    /// How many events that is.
    #[must_use]
    pub fn total(&self, time: Duration) -> u32 {
        let total = (time * self.per_second).as_secs();
        u32::try_from(total).unwrap_or(u32::MAX)
    }
}

/// How far a publisher may fall behind.
const LAG_MAX: Duration = Duration::from_secs(40);

/// A whole rate, shared among the ways; those that are left out leave their share out.
#[must_use]
pub fn portions(per_second: u32, ways: &[Way]) -> Vec<Portion> {
    let portion = |(way, hundredths, at_once): (Way, u32, u32)| Portion {
        way,
        per_second: (per_second * hundredths / 100).max(1),
        at_once,
    };
    let taken = PORTIONS.into_iter().filter(|(way, ..)| ways.contains(way));
    taken.map(portion).collect()
}

/// Publishes a portion for `time`, on all topics in random turn. Who has fallen behind too far gives up.
pub async fn publish(
    portion: Portion,
    time: Duration,
    shape: Shape,
    mut sender: Sender,
    clock: Clock,
    mut rng: StdRng,
) -> Vec<Record> {
    let total = portion.total(time);
    let until = Instant::now() + time + LAG_MAX;
    let mut records = Vec::new();
    // What falls behind while a replica is away is made up for afterwards.
    let mut beat = interval(Duration::from_secs(1) * portion.at_once / portion.per_second);
    let mut number = 0;
    while number < total && Instant::now() < until {
        beat.tick().await;
        let until = total.min(number + portion.at_once);
        let sent_us = clock.micros();
        let events: Vec<Event> = (number..until)
            .map(|number| {
                let key = Key {
                    way: portion.way,
                    number,
                };
                shape.draw(key, sent_us, &mut rng)
            })
            .collect();
        number = until;
        records.extend(sender.send(events).await);
    }
    records
}

/// Publishes the last event of each topic, through the function.
pub async fn markers(
    shape: Shape,
    mut sender: Sender,
    clock: Clock,
    mut rng: StdRng,
) -> Vec<Record> {
    let mut records = Vec::new();
    for topic in 0..shape.topics {
        let key = Key {
            way: Way::Marker,
            number: u32::try_from(topic).unwrap_or(u32::MAX),
        };
        let event = shape.event(key, topic, clock.micros(), &mut rng);
        records.extend(sender.send(vec![event]).await);
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_make_up_the_rate() {
        for rate in [100, 300, 500] {
            assert_eq!(
                portions(rate, &Way::ALL)
                    .iter()
                    .map(|portion| portion.per_second)
                    .sum::<u32>(),
                rate
            );
        }
    }

    #[test]
    fn what_nobody_heard_is_not_owed() {
        assert!(!Fate::Heard(0).is_owed());
        assert!(Fate::Heard(3).is_owed());
        assert!(!Fate::Unknown.is_owed());
    }
}
