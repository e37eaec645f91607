//! Scenarios: a cluster, publishers, subscribers, a script of faults, and what they explain.
//!
//! A scenario is data. A new one is a new entry of [`ALL`]: its sizes, what is done to which part
//! and how often, and what is expected beyond the promise. The promise itself is the same for all:
//! nothing lost, repeated or out of order.

mod list;

pub use list::{ALL, LARGE};

use crate::abuse::Abuse;
use crate::cluster::Verb;
use crate::event::{Event, Shape, Way};
use crate::link;
use crate::run::Done;
use crate::subscriber::Stay;
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
    /// What Redis is like.
    pub redis: Setup,
    /// Settings of the gateway, by their environment names.
    pub gateway: &'static [(&'static str, &'static str)],
    /// The ways of publishing; the others are left out.
    pub ways: &'static [Way],
    /// How many topics that others write to are in every second stream, too.
    pub foreign: usize,
    /// What is done.
    pub script: Script,
    /// What that explains.
    pub expectation: Expectation,
}

/// What Redis is like, and how it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// One server.
    Plain,
    /// Replicas reach it through links that can be cut.
    Linked,
    /// Its clock can be moved.
    Clock,
    /// A master and a replica, under three sentinels.
    Sentinels,
    /// One server, and a second build of the gateway. All replicas begin with that one.
    TwoBuilds,
}

/// A scenario by its name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}

/// How large a scenario is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// What events look like.
    pub shape: Shape,
    /// Subscribers.
    pub subscribers: usize,
    /// Each of so many topics at least, and at most.
    pub topics_each: (usize, usize),
    /// Raw publishes in one pipe, before anything else.
    pub burst: u32,
    /// Events a second after that, by all ways.
    pub per_second: u32,
    /// For how long.
    pub time: Duration,
    /// No more faults than these, whatever the script says.
    pub faults_max: u32,
    /// Subscribers wait no longer than this after a cut, whatever the stream asks for.
    pub retry_max: Duration,
    /// What the kernel keeps for a subscriber that does not read; none leaves it to the kernel.
    pub receive_buffer: Option<u32>,
    /// Subscribers drop their streams after up to so long; none means after a number of bytes.
    pub stay_max: Option<Duration>,
    /// They come back after up to so long.
    pub away_max: Duration,
}

impl Size {
    /// When streams of `topics` topics are dropped.
    #[must_use]
    pub fn stay(&self, topics: usize) -> Stay {
        let bytes = || Stay::Bytes(self.drop_bytes(topics));
        self.stay_max.map_or_else(bytes, Stay::Time)
    }

    /// Streams of `topics` topics are dropped after up to so many bytes, so that a subscriber drops
    /// two dozen times, and hardly ever less than a dozen.
    fn drop_bytes(&self, topics: usize) -> u64 {
        let events = u64::from(self.burst) + u64::from(self.per_second) * self.time.as_secs();
        let of_topic = events * self.shape.block_bytes() / self.shape.topics.max(1) as u64;
        of_topic * topics as u64 / 12
    }
}

/// The same fault several times, while events are published.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    /// How often.
    pub times: u32,
    /// The fault: what is done, and how many milliseconds after its beginning. The last of it mends
    /// what the first of it broke.
    pub fault: &'static [(u64, Deed)],
}

/// One step of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When, from the moment at which steady publishing begins.
    pub at: Duration,
    /// What.
    pub deed: Deed,
}

impl Script {
    /// Draws when each step is taken. Each fault begins in the first third of its share of the time.
    pub fn draw(&self, rng: &mut StdRng, size: Size) -> Vec<Step> {
        let (time, times) = (size.time, self.times.min(size.faults_max));
        let share = time.mul_f64(0.95) / times.max(1);
        let of_fault = |number: u32| {
            let begin =
                time.mul_f64(0.05) + share * number + share.mul_f64(rng.random_range(0.0..0.3));
            self.fault.iter().map(move |(after, deed)| Step {
                at: begin + Duration::from_millis(*after),
                deed: *deed,
            })
        };
        (0..times).flat_map(of_fault).collect()
    }
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Chooses who suffers from here on.
    Choose(Victim),
    /// Does something to parts of the cluster.
    Part(Verb, Whom),
    /// Sends a command to Redis.
    Redis(&'static [&'static str]),
    /// Cuts so many bytes off the end of what Redis has on disk.
    Forget(usize),
    /// The clock of Redis is wrong by so many seconds from here on.
    Clock(i64),
    /// Waits until the sentinels have put another server in the victim's place.
    Failover,
    /// Changes the links between replicas and Redis.
    Link(link::State, Whom),
    /// Has replies of Redis to all replicas come late, or never, by these rules from here on. A run in which a rule
    /// was never followed proves nothing.
    Replies(&'static [link::Rule]),
    /// Deletes all topics.
    Delete,
    /// Replicas that are started from here on are of this build.
    Build(Build),
    /// So many subscribers in a hundred do not read, until this is said with another number.
    StopReaders(usize),
    /// Raw publishes in one pipe.
    Burst(u32),
    /// Clients misbehave.
    Abuse(Abuse),
}

impl Deed {
    /// Whether Redis may forget something by it, or ears may be cut.
    #[must_use]
    pub const fn may_lose(self) -> bool {
        matches!(
            self,
            Self::Part(..)
                | Self::Redis(_)
                | Self::Forget(_)
                | Self::Failover
                | Self::Link(..)
                | Self::Choose(_)
        )
    }
}

/// A build of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// The one that the runner was given, or a stand-in.
    Old,
    /// The one under test.
    New,
}

/// Parts of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The part that was chosen last.
    Victim,
    /// The server that follows the victim, a master.
    Standby,
    /// All replicas.
    Replicas,
    /// A part by its name.
    Named(&'static str),
}

/// Which part is the victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The one whose ear appends raw publishes at that moment.
    Appender,
    /// Whichever replica is drawn.
    Any,
    /// The Redis that takes writes, once another can take its place.
    Master,
}

/// What the faults of a scenario explain, and would be an offence elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expectation {
    /// Reasons for which gaps may be told.
    pub gaps: &'static [&'static str],
    /// The log may forget what was acknowledged so shortly before a deed. Who has not seen it is told of a
    /// gap there.
    pub log_forgets: Option<Duration>,
    /// All ears may be cut at once. A raw publish is taken once an ear has counted it; one that was sent so
    /// shortly before or after a deed may be lost, by everyone alike, or be logged after a later one.
    pub ears_lost_within: Option<Duration>,
    /// Topics are deleted. What was deleted need not have been seen, and may be shown on streams that were opened no
    /// later than this after the answer.
    pub deleted_within: Option<Duration>,
    /// Each publish that can be repeated is taken with this try at the latest.
    pub tries_max: Option<u32>,
    /// Replicas may end by themselves, and are started again. Elsewhere none may.
    pub replicas_end: bool,
}

impl Expectation {
    /// Whether an acknowledged event may be missing in the log.
    #[must_use]
    pub fn explains_unlogged(&self, event: &Event, deeds: &[Done]) -> bool {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let is_near = |before: Option<Duration>, after: Option<Duration>| {
            let (before, after) = (before.map(micros), after.map_or(0, micros));
            deeds.iter().filter(|deed| deed.may_lose).any(|deed| {
                let from = before.map_or(u64::MAX, |before| deed.from_us.saturating_sub(before));
                (from..=deed.to_us.saturating_add(after)).contains(&event.sent_us)
            })
        };
        let raw = self.ears_lost_within.filter(|_| event.key.way.is_raw());
        is_near(self.log_forgets, None) || is_near(raw, raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use std::collections::HashSet;

    #[test]
    fn names_are_told_apart() {
        let names: HashSet<&str> = ALL.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn scripts_end_while_events_are_published() {
        for scenario in ALL {
            for size in [Some(scenario.full), scenario.short].into_iter().flatten() {
                for seed in 0..100 {
                    let steps = scenario.script.draw(&mut StdRng::seed_from_u64(seed), size);
                    assert!(
                        steps.is_sorted_by_key(|step| step.at),
                        "{}: faults overlap",
                        scenario.name
                    );
                    assert!(
                        steps.last().unwrap().at < size.time,
                        "{}: too long",
                        scenario.name
                    );
                }
            }
        }
    }
}
