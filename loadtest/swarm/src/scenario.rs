//! Scenarios: a cluster, publishers, subscribers, a script of faults, and what may come of it.
//!
//! A new scenario is a new entry of [`ALL`]: its sizes, a function that draws its script, and what
//! is expected beyond the promise, which is the same for all: nothing lost, repeated or out of order.

use crate::cluster::Verb;
use rand::Rng;
use rand::rngs::StdRng;
use std::time::Duration;

/// Each subscriber drops and resumes at least so often, or the run proves nothing.
pub const RESUMES_MIN: usize = 5;

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What happens, in one line.
    pub about: &'static str,
    /// How large it is.
    pub full: Size,
    /// How large it is when every change is checked with it; none if it is not.
    pub short: Option<Size>,
    /// Draws when what is done to which part, while events are published for so long.
    pub script: fn(&mut StdRng, Duration) -> Vec<Step>,
    /// What the faults explain.
    pub expectation: Expectation,
}

/// What the faults of a scenario explain, and would be an offence elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expectation {
    /// Reasons for which gaps may be told.
    pub gaps: &'static [&'static str],
}

/// How large a scenario is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Topics.
    pub topics: usize,
    /// Subscribers, each of one to three topics.
    pub subscribers: usize,
    /// Raw publishes in one pipe, before anything else.
    pub burst: u32,
    /// Events a second after that, by all ways.
    pub per_second: u32,
    /// For how long.
    pub time: Duration,
    /// Subscribers wait no longer than this after a cut, whatever the stream asks for.
    pub retry_max: Duration,
}

/// One step of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When, from the moment at which steady publishing begins.
    pub at: Duration,
    /// What.
    pub deed: Deed,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Chooses the replica that suffers from here on.
    Choose(Victim),
    /// Does something to a part.
    Part(Verb, Whom),
}

/// A part of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The replica that was chosen last.
    Victim,
    /// A part by its name.
    Named(&'static str),
}

/// Which replica is the victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The one whose ear appends raw publishes at that moment.
    Appender,
    /// Any other.
    Other,
}

/// Every scenario.
pub const ALL: [Scenario; 1] = [Scenario {
    name: "replica-kill",
    about: "one of three replicas is killed with SIGKILL and started again, under load",
    full: Size {
        topics: 5,
        subscribers: 30,
        burst: 10_000,
        per_second: 500,
        time: Duration::from_secs(20),
        retry_max: Duration::from_secs(5),
    },
    short: Some(Size {
        topics: 5,
        subscribers: 12,
        burst: 2_000,
        per_second: 300,
        time: Duration::from_secs(5),
        retry_max: Duration::from_secs(1),
    }),
    script: replica_kill,
    expectation: Expectation { gaps: &[] },
}];

/// A scenario by its name.
#[must_use]
pub fn named(name: &str) -> Option<Scenario> {
    ALL.into_iter().find(|scenario| scenario.name == name)
}

fn replica_kill(rng: &mut StdRng, time: Duration) -> Vec<Step> {
    let kill = time.mul_f64(rng.random_range(0.15..0.35));
    let away = time.mul_f64(rng.random_range(0.1..0.3));
    let victim = if rng.random_bool(0.5) {
        Victim::Appender
    } else {
        Victim::Other
    };
    vec![
        Step {
            at: kill,
            deed: Deed::Choose(victim),
        },
        Step {
            at: kill,
            deed: Deed::Part(Verb::Kill, Whom::Victim),
        },
        Step {
            at: kill + away,
            deed: Deed::Part(Verb::Start, Whom::Victim),
        },
    ]
}

impl Size {
    /// About how many bytes of blocks a topic has, all told.
    fn bytes_of_topic(&self) -> u64 {
        /// An id, a type, and a payload of middle length.
        const BLOCK: u64 = 140;
        let events = u64::from(self.burst) + u64::from(self.per_second) * self.time.as_secs();
        events * BLOCK / self.topics.max(1) as u64
    }

    /// Streams of `topics` topics are dropped after up to so many bytes, so that a subscriber drops
    /// two dozen times, and hardly ever less than a dozen.
    #[must_use]
    pub fn drop_bytes(&self, topics: usize) -> u64 {
        self.bytes_of_topic() * topics as u64 / 12
    }
}
