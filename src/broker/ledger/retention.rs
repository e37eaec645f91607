//! What a log keeps, by topic.

use crate::topic::{Pattern, Topic};

/// What is kept of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Entries.
    pub events_max: usize,
    /// Age of an entry, in milliseconds.
    pub age_ms: u64,
}

/// What is kept of the topics that fit a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The topics.
    pub topics: Pattern,
    /// None: they are not logged. Their events are sent live and have no id.
    pub bounds: Option<Bounds>,
}

/// How much a ledger keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// What is kept of a topic that fits no rule.
    pub bounds: Bounds,
    /// Rules for some topics: the first that fits holds.
    pub rules: Vec<Rule>,
    /// Bytes of one event's data.
    pub event_bytes_max: usize,
    /// Topics; 0 for no limit.
    pub topics_max: usize,
    /// How long an idempotency key is remembered, in milliseconds.
    pub idempotency_ms: u64,
    /// How far the clock leaps when another process takes the log over, in milliseconds.
    pub leap_ms: u64,
}

impl Retention {
    /// What is kept of a topic; none if it is not logged.
    #[must_use]
    pub fn of(&self, topic: &Topic) -> Option<Bounds> {
        if topic.is_reserved() {
            return None;
        }
        let rule = self.rules.iter().find(|rule| rule.topics.fits(topic));
        rule.map_or(Some(self.bounds), |rule| rule.bounds)
    }

    /// What decides how old an event may become.
    pub(super) fn ages(&self) -> (u64, Vec<(&Pattern, Option<u64>)>) {
        let age = |rule: &Rule| rule.bounds.map(|bounds| bounds.age_ms);
        let rules = self.rules.iter().map(|rule| (&rule.topics, age(rule)));
        (self.bounds.age_ms, rules.collect())
    }

    /// The least of all ages.
    pub(super) fn least_age_ms(&self) -> u64 {
        let rules = self.rules.iter().filter_map(|rule| rule.bounds);
        rules.fold(self.bounds.age_ms, |least, bounds| least.min(bounds.age_ms))
    }
}
