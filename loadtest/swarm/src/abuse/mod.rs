//! Clients that mean no good, beside others that do.
//!
//! Each [`Kind`] is what a stranger can do with no more than an address, or with the rights of a publisher in Redis.
//! It goes on for a part of a run that the fault runner plays and judges ([`crate::run`]), in which good publishers and
//! good subscribers are at work from beginning to end. So the promise is checked event by event, and what the good ones
//! wait is compared with what they waited before it began.
//!
//! ```text
//! prepare: what the kind needs is published, or put in place
//! run:     good ones alone ............ quiet
//!          good ones, and the kind .... abused: memory, Redis and what is refused are watched
//! verdict: nothing lost, nothing repeated, p99 abused within a multiple of p99 quiet
//! ```

mod crowd;
mod over_http;
mod over_http2;
mod over_redis;
mod prepare;
mod row;
mod watch;

pub use prepare::{Ground, prepare};
pub use row::{Row, Table};
pub use watch::{Seen, Watch};

use crate::cluster::Cluster;
use crate::event::{Shape, Way};
use crate::scenario::{Deed, Expectation, LARGE, Scenario, Script, Setup, Size};
use std::time::Duration;
use tokio::time::Instant;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `GET /topics?limit=1`, where there are very many.
    TopicsList,
    /// `?last=1000` of 64 topics.
    LastOfMany,
    /// 64 topics with a cursor far back.
    OldCursors,
    /// Names that nobody published to, 64 a stream, always others.
    Names,
    /// Readers of 64 topics that stop reading.
    StoppedReaders,
    /// Bodies that never come to their end.
    UnfinishedBodies,
    /// Bodies that are refused before they are read: a bad key, no such path, from a page of another origin, under a head
    /// with too many fields.
    RefusedBodies,
    /// Connections of HTTP/2 on which nothing is asked.
    IdleHttp2,
    /// SETTINGS, PING and `WINDOW_UPDATE` without end.
    Http2Floods,
    /// Paths that a proxy reads in another way than the replica.
    DotPaths,
    /// Requests that a browser sends for a page of somebody else.
    CrossSite,
    /// Live frames and ticks from far ahead of the clock.
    ForgedFrames,
    /// The greatest id that an inbox can have, and entries as large as Redis takes.
    InboxPoison,
    /// Raw publishes as large as Redis takes, and larger ones.
    HugePublish,
    /// Topics that are published to once.
    TopicChurn,
    /// A replica whose standard error is a pipe that nobody reads.
    StalledLog,
}

/// Every kind.
pub const ALL: [Kind; 16] = [
    Kind::TopicsList,
    Kind::LastOfMany,
    Kind::OldCursors,
    Kind::Names,
    Kind::StoppedReaders,
    Kind::UnfinishedBodies,
    Kind::RefusedBodies,
    Kind::IdleHttp2,
    Kind::Http2Floods,
    Kind::DotPaths,
    Kind::CrossSite,
    Kind::ForgedFrames,
    Kind::InboxPoison,
    Kind::HugePublish,
    Kind::TopicChurn,
    Kind::StalledLog,
];

/// What publishers of a run with a bad key send; the others are refused.
const PUBLISH_KEY: &str = "the-good-ones-know-it";

impl Kind {
    /// Its name on the command line, and what it does, in one line.
    #[must_use]
    pub const fn described(self) -> (&'static str, &'static str) {
        match self {
            Self::TopicsList => ("topics-list", "lists topics, one at a time, of very many"),
            Self::LastOfMany => ("last-of-many", "the last 1000 events of 64 topics"),
            Self::OldCursors => ("old-cursors", "64 topics with a cursor far back"),
            Self::Names => ("names", "names that nobody published to, 64 a stream"),
            Self::StoppedReaders => ("stopped-readers", "readers of 64 topics that stop reading"),
            Self::UnfinishedBodies => (
                "unfinished-bodies",
                "batches of which a part comes, and no more",
            ),
            Self::RefusedBodies => (
                "refused-bodies",
                "bodies of 1 MB with a bad key, to a bad path, from a page of another origin, with too many fields",
            ),
            Self::IdleHttp2 => (
                "idle-http2",
                "connections of HTTP/2 on which nothing is asked",
            ),
            Self::Http2Floods => (
                "http2-floods",
                "SETTINGS, PING and WINDOW_UPDATE without end",
            ),
            Self::DotPaths => (
                "dot-paths",
                "paths that a proxy reads in another way than the replica",
            ),
            Self::CrossSite => (
                "cross-site",
                "writes from pages of another origin, and under a name that is not ours",
            ),
            Self::ForgedFrames => (
                "forged-frames",
                "live frames and ticks from far ahead of the clock",
            ),
            Self::InboxPoison => (
                "inbox-poison",
                "the greatest id of the inbox, and entries as large as Redis takes",
            ),
            Self::HugePublish => (
                "huge-publish",
                "raw publishes as large as Redis takes, and larger",
            ),
            Self::TopicChurn => ("topic-churn", "topics that are published to once"),
            Self::StalledLog => (
                "stalled-log",
                "a replica whose standard error nobody reads, and streams that fill it",
            ),
        }
    }

    /// A kind by its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|kind| kind.described().0 == name)
    }

    /// Settings of the gateway, by their environment names.
    const fn gateway(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::RefusedBodies => &[("TIDEGATE__AUTH__PUBLISH_KEY", PUBLISH_KEY)],
            Self::StalledLog => STALLED_LOG,
            _ => &[],
        }
    }

    /// A publish that can be repeated is taken with so many tries.
    const fn tries_max(self) -> u32 {
        match self {
            // The inbox takes nothing until the gateway has begun it anew: a second, and a try each 0.1 s.
            Self::InboxPoison => 40,
            _ => 2,
        }
    }
}

/// A pipe is filled within seconds.
const STALLED_LOG: &[(&str, &str)] = &[
    ("TIDEGATE__LOGGING__LEVEL", "debug"),
    ("TIDEGATE__LOGGING__QUEUE_BYTES", "16384"),
];

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// For how long.
    pub time: Duration,
    /// Topics of `topics-list`.
    pub topics: usize,
    /// Events of each of the 64 topics that are read from far back.
    pub events: usize,
    /// How many clients do it side by side.
    pub clients: usize,
}

/// What the table is made with.
pub const FULL: Scale = Scale {
    time: Duration::from_secs(15),
    topics: 100_000,
    events: 1000,
    clients: 8,
};
/// For every change.
pub const SHORT: Scale = Scale {
    time: Duration::from_millis(1200),
    topics: 2000,
    events: 40,
    clients: 2,
};

/// In which a script begins, good ones are alone, and are so again after it.
const BEFORE: Duration = Duration::from_secs(29);
/// Good ones alone, before the first kind.
const QUIET: Duration = Duration::from_secs(8);
const QUIET_SHORT: Duration = Duration::from_secs(3);
/// Until the good ones are done with what a kind has left behind.
const REST_MS: u64 = 300;

/// The good ones of the table: 500 events a second, 200 subscribers.
const GOOD: Size = Size {
    time: BEFORE,
    ..LARGE
};

/// A kind, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abuse {
    /// What.
    pub kind: Kind,
    /// How much.
    pub scale: Scale,
}

/// One kind on a cluster of its own, at the size of the table.
#[must_use]
pub fn alone(kind: Kind, scale: Scale) -> (&'static Scenario, Size) {
    let size = Size {
        time: BEFORE + scale.time,
        ..GOOD
    };
    let (name, about) = kind.described();
    let gateway = kind.gateway();
    let scenario = scenario((name, about), gateway, &[kind], (QUIET, scale), size);
    (scenario, size)
}

/// Kinds one after the other on one cluster, small.
#[must_use]
pub fn in_turn(kinds: &[Kind], scale: Scale) -> (&'static Scenario, Size) {
    let count = u32::try_from(kinds.len()).unwrap_or(u32::MAX);
    let pause = Duration::from_millis(REST_MS);
    let abused = (scale.time + pause) * count;
    let size = Size {
        shape: Shape {
            topics: 10,
            padding_max: 120,
        },
        subscribers: 40,
        per_second: 150,
        // The script begins within the first third and a bit.
        time: (abused + QUIET_SHORT).mul_f64(1.6) + Duration::from_secs(4),
        retry_max: Duration::from_secs(1),
        ..GOOD
    };
    let name = ("abuse", "kinds of abuse, one after the other");
    let scenario = scenario(name, STALLED_LOG, kinds, (QUIET_SHORT, scale), size);
    (scenario, size)
}

fn scenario(
    (name, about): (&'static str, &'static str),
    gateway: &'static [(&'static str, &'static str)],
    kinds: &[Kind],
    (quiet, scale): (Duration, Scale),
    size: Size,
) -> &'static Scenario {
    let first = u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX);
    let each = u64::try_from(scale.time.as_millis()).unwrap_or(u64::MAX) + REST_MS;
    let step = |(kind, at)| (at, Deed::Abuse(Abuse { kind, scale }));
    let times = (0..).map(|number| first + number * each);
    let fault: Vec<_> = kinds.iter().copied().zip(times).map(step).collect();
    let tries_max = kinds.iter().map(|kind| kind.tries_max()).max();
    // Scenarios live as long as the program: there are some dozens at most.
    Box::leak(Box::new(Scenario {
        name,
        about,
        full: size,
        short: None,
        redis: Setup::Plain,
        gateway,
        ways: &Way::ALL,
        foreign: 0,
        script: Script {
            times: 1,
            fault: Vec::leak(fault),
        },
        expectation: Expectation {
            tries_max,
            ..Expectation::default()
        },
    }))
}

/// Does it for its time, and says what came of it.
///
/// # Errors
/// The gateway took what it must refuse, or nothing could be done.
pub async fn misbehave(Abuse { kind, scale }: Abuse, cluster: &Cluster) -> Result<String, String> {
    let until = Instant::now() + scale.time;
    match kind {
        Kind::TopicsList => over_http::list_topics(cluster, scale, until).await,
        Kind::LastOfMany => over_http::read_last(cluster, scale, until).await,
        Kind::OldCursors => over_http::read_from_far_back(cluster, scale, until).await,
        Kind::Names => over_http::ask_for_names(cluster, scale, until).await,
        Kind::StoppedReaders => over_http::stop_reading(cluster, scale, until).await,
        Kind::UnfinishedBodies => over_http::leave_unfinished(cluster, scale, until).await,
        Kind::RefusedBodies => over_http::send_unwanted(cluster, scale, until).await,
        Kind::IdleHttp2 => over_http2::say_nothing(cluster, scale, until).await,
        Kind::Http2Floods => over_http2::flood(cluster, scale, until).await,
        Kind::DotPaths => over_http::ask_for_paths(cluster, scale, until).await,
        Kind::CrossSite => over_http::write_from_elsewhere(cluster, scale, until).await,
        Kind::ForgedFrames => over_redis::forge_frames(cluster, until).await,
        Kind::InboxPoison => over_redis::poison_inbox(cluster, until).await,
        Kind::HugePublish => over_redis::publish_huge(cluster, until).await,
        Kind::TopicChurn => over_redis::churn_topics(cluster, scale, until).await,
        Kind::StalledLog => over_http::fill_log(cluster, scale, until).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;
    use std::collections::HashSet;

    #[test]
    fn kinds_are_told_apart_and_each_is_played() {
        let names: HashSet<&str> = ALL.iter().map(|kind| kind.described().0).collect();
        assert_eq!(names.len(), ALL.len());
        for kind in ALL {
            assert_eq!(Kind::named(kind.described().0), Some(kind));
        }
        assert_eq!(Kind::named("nice"), None);
    }

    #[test]
    fn the_last_kind_ends_while_events_are_published() {
        let sizes = [
            alone(Kind::Names, FULL),
            in_turn(&ALL, SHORT),
            in_turn(&[Kind::Names], SHORT),
        ];
        for (scenario, size) in sizes {
            for seed in 0..100 {
                let steps = scenario.script.draw(&mut StdRng::seed_from_u64(seed), size);
                let last = steps.last().unwrap();
                let Deed::Abuse(Abuse { scale, .. }) = last.deed else {
                    panic!("{last:?}");
                };
                assert!(last.at + scale.time < size.time, "{last:?} {:?}", size.time);
            }
        }
    }
}
