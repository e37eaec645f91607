//! The sections: fields, defaults, and what they must satisfy.

use super::address::PerAddress;
use super::redis::names_redis;
use super::source::Source;
use crate::broker::{Bounds, Rule};
use crate::hub::window::{WindowBounds, Windows};
use crate::time::millis;
use crate::topic::Pattern;
use std::net::SocketAddr;
use std::time::Duration;

/// `ops`: a listener of its own for what operators ask, so that clients cannot.
#[derive(Clone, Debug)]
pub struct Ops {
    /// Address for what operators ask; none shares the main listener.
    pub listen: Option<SocketAddr>,
}

/// `replica`: what this process is called.
#[derive(Clone, Debug)]
pub struct Replica {
    /// Its name among the replicas: two with the same name count as one. Random if none is given.
    pub name: String,
}

/// `log`: what is kept of each topic, and how safe it is before a publish is answered.
#[derive(Clone, Debug)]
pub struct Log {
    /// Entries that each topic keeps; older ones go.
    pub events_max: usize,
    /// Age at which an entry goes.
    pub age_max: Duration,
    /// What is kept of some topics.
    pub overrides: Vec<Rule>,
    /// Replicas of Redis that must confirm a publish over HTTP.
    pub wait_replicas: usize,
    /// Time for them to do so.
    pub wait_timeout: Duration,
}

/// `stream`: what subscribers notice of a stream besides its events.
#[derive(Clone, Debug)]
pub struct Stream {
    /// A stream is silent for no longer than this: shorter than the idle time-outs of all proxies.
    pub heartbeat: Duration,
    /// Reconnection time told to clients, plus or minus half.
    pub retry: Duration,
    /// Life of a stream, minus up to a quarter.
    pub age_max: Duration,
    /// Whether streams begin with `tidegate.open`.
    pub open_event: bool,
    /// How long a head may wait for the subscription.
    pub open_wait: Duration,
}

/// `engine`: who writes streams.
#[derive(Clone, Copy, Debug)]
pub struct Engine {
    /// Streams over plain HTTP/1.1 are written by threads that own the sockets.
    pub sockets: bool,
    /// How many threads; 0 for one a core.
    pub threads: usize,
    /// With one thread for each core that the process may use, each stays on its core.
    pub pin: bool,
    /// A thread that makes no turn for so long counts as standing.
    pub stall_after: Duration,
    /// Then the process ends; zero to go on.
    pub stall_max: Duration,
}

/// `repair`: what is done when a live frame is missing.
#[derive(Clone, Debug)]
pub struct Repair {
    /// A stream that is held longer is cut.
    pub time: Duration,
    /// Reads for repair at the same time.
    pub reads_max: usize,
}

/// `publish`: what publishers over HTTP may do.
#[derive(Clone, Debug)]
pub struct Publish {
    /// How long idempotency keys are remembered.
    pub idempotency_window: Duration,
    /// Bytes of one event's data.
    pub event_bytes_max: usize,
    /// Events of one NDJSON batch.
    pub batch_events_max: usize,
    /// Bytes of one NDJSON batch.
    pub batch_bytes_max: usize,
    /// Requests that may publish at the same time.
    pub in_flight_max: usize,
    /// Bodies that may be read and worked on at the same time.
    pub bodies_max: usize,
    /// Bytes of memory that all of them may take.
    pub bodies_bytes_max: usize,
}

/// `limits`: how much of everything there may be. Beyond each a request is refused.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Streams that are open on this replica.
    pub streams_max: usize,
    /// Topics that one stream may name.
    pub topics_per_stream_max: usize,
    /// Types of events that one stream may ask for.
    pub types_per_stream_max: usize,
    /// Bytes of their names together.
    pub types_bytes_max: usize,
    /// Topics that this replica follows at the same time.
    pub feeds_max: usize,
    /// Topics of the log; 0 for no limit.
    pub topics_max: usize,
    /// Reads of the log for streams at the same time.
    pub replays_max: usize,
    /// Bytes of pages of the log in memory; beyond it reads wait a little.
    pub page_bytes_max: usize,
    /// Bytes of answers of `GET /topics` and below that wait for their clients; beyond it some are given up.
    pub answer_bytes_max: usize,
    /// Events of `?last=` and of one page of `GET /topics/{topic}/events`.
    pub history_events_max: usize,
    /// What one address may take of it.
    pub address: PerAddress,
}

/// `drain`: the orderly stop.
#[derive(Clone, Debug)]
pub struct Drain {
    /// Not ready for so long before the first is cut.
    pub wait: Duration,
    /// Streams are cut over this time.
    pub time: Duration,
    /// Another process accepts on the same sockets meanwhile.
    pub hand_over: bool,
}

/// `logging`: what is said on standard error, and how.
#[derive(Clone, Debug)]
pub struct Logging {
    /// Each line is a JSON object; text for people otherwise.
    pub json: bool,
    /// A filter such as `info` or `tidegate=debug`.
    pub level: String,
    /// Lines a second about streams that have ended.
    pub stream_lines_max: usize,
    /// Bytes of lines that may wait to be read; more are dropped.
    pub queue_bytes: usize,
}

impl Ops {
    pub(super) fn take(s: &mut Source) -> Self {
        Self {
            listen: s.optional("ops.listen"),
        }
    }
}

impl Replica {
    pub(super) fn take(s: &mut Source) -> Self {
        let name: String = s.optional("replica.name").unwrap_or_else(random_name);
        if name.len() > 64 || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            s.fault("replica.name", "must be 1 to 64 bytes without spaces");
        }
        Self { name }
    }
}

/// Names a replica that was not given a name.
fn random_name() -> String {
    format!("r{:08x}", rand::random::<u32>())
}

impl Log {
    pub(super) fn take(s: &mut Source) -> Self {
        let mut log = Self {
            events_max: s.count("log.events_max", "10000"),
            age_max: s.positive("log.age_max", "24h"),
            overrides: Vec::new(),
            wait_replicas: s.get("log.wait_replicas", "0"),
            wait_timeout: s.positive("log.wait_timeout", "1s"),
        };
        if log.wait_replicas > 0 && !names_redis(s) {
            s.fault("log.wait_replicas", "must be 0 without redis.url");
        }
        log.overrides = s.tables("log.overrides", |entry| log.rule(entry));
        s.settle("log.overrides", &format!("{:?}", log.overrides));
        if log.overrides.len() > OVERRIDES_MAX {
            s.fault(
                "log.overrides",
                &format!("must be at most {OVERRIDES_MAX}: each publish checks all of them"),
            );
        }
        log
    }

    /// One of the overrides; what it does not say is as it is for all.
    fn rule(&self, s: &mut Source) -> Option<Rule> {
        let topics: String = s.get("topics", "");
        let is_logged = s.flag("log", "true");
        let says = |s: &Source, key| !is_logged && s.has(key);
        for key in ["events_max", "age_max"] {
            if says(s, key) {
                s.fault(key, "has no meaning with log = false");
            }
        }
        let events_max = s.count("events_max", &self.events_max.to_string());
        let age_max = s.positive("age_max", &format!("{}ms", millis(self.age_max)));
        let bounds = is_logged.then_some(Bounds {
            events_max,
            age_ms: millis(age_max),
        });
        match Pattern::parse(&topics) {
            Ok(topics) => Some(Rule { topics, bounds }),
            Err(why) => {
                s.fault("topics", &format!("{topics:?} is not a pattern: {why}"));
                None
            }
        }
    }
}

/// Overrides of what is kept, at most.
const OVERRIDES_MAX: usize = 64;

/// Bounds of each topic's window, and of all together.
pub(super) fn window(s: &mut Source) -> Windows {
    let windows = Windows {
        each: WindowBounds {
            events_max: s.count("window.events_max", "1024"),
            bytes_max: s.get("window.bytes_max", "1048576"),
        },
        total_bytes_max: s.count("window.total_bytes_max", "268435456"),
    };
    if windows.total_bytes_max < windows.each.bytes_max {
        s.fault(
            "window.total_bytes_max",
            "must be at least window.bytes_max: it bounds all windows together",
        );
    }
    windows
}

impl Stream {
    pub(super) fn take(s: &mut Source) -> Self {
        Self {
            heartbeat: s.positive("stream.heartbeat", "15s"),
            retry: s.duration("stream.retry", "3s"),
            age_max: s.positive("stream.age_max", "1h"),
            open_event: s.flag("stream.open_event", "true"),
            open_wait: s.duration("stream.open_wait", "2s"),
        }
    }
}

impl Engine {
    pub(super) fn take(s: &mut Source) -> Self {
        let engine = Self {
            sockets: s.flag("engine.sockets", "true"),
            threads: s.get("engine.threads", "0"),
            pin: s.flag("engine.pin", "true"),
            stall_after: s.duration("engine.stall_after", "5s"),
            stall_max: s.duration("engine.stall_max", "30s"),
        };
        // A thread without work gives a sign once a second, and is looked at once a second.
        if engine.stall_after < Duration::from_secs(3) {
            s.fault("engine.stall_after", "must be at least 3s");
        } else if !engine.stall_max.is_zero() && engine.stall_max < engine.stall_after {
            s.fault(
                "engine.stall_max",
                "must be zero, or at least engine.stall_after",
            );
        }
        engine
    }

    /// How many threads to start; 0 if streams go out as ordinary bodies.
    #[must_use]
    pub fn count(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        match (self.sockets, self.threads) {
            (false, _) => 0,
            (true, 0) => cores(),
            (true, threads) => threads,
        }
    }
}

impl Repair {
    pub(super) fn take(s: &mut Source) -> Self {
        Self {
            time: s.positive("repair.time", "5s"),
            reads_max: s.count("repair.reads_max", "4"),
        }
    }
}

impl Publish {
    pub(super) fn take(s: &mut Source) -> Self {
        let publish = Self {
            idempotency_window: s.duration("publish.idempotency_window", "10m"),
            event_bytes_max: s.get("publish.event_bytes_max", "65536"),
            batch_events_max: s.count("publish.batch_events_max", "1000"),
            batch_bytes_max: s.get("publish.batch_bytes_max", "4194304"),
            in_flight_max: s.count("publish.in_flight_max", "256"),
            bodies_max: s.count("publish.bodies_max", "1024"),
            bodies_bytes_max: s.count("publish.bodies_bytes_max", "67108864"),
        };
        if publish.bodies_bytes_max < publish.batch_bytes_max.max(publish.event_bytes_max) {
            s.fault(
                "publish.bodies_bytes_max",
                "must be at least publish.batch_bytes_max and publish.event_bytes_max: one body must fit",
            );
        }
        if publish.batch_events_max > 1000 {
            s.fault(
                "publish.batch_events_max",
                "must be at most 1000: a batch is one atomic step, and everything else waits for it",
            );
        }
        publish
    }
}

impl Limits {
    pub(super) fn take(s: &mut Source) -> Self {
        let limits = Self {
            streams_max: s.count("limits.streams_max", "50000"),
            topics_per_stream_max: s.count("limits.topics_per_stream_max", "64"),
            types_per_stream_max: s.count("limits.types_per_stream_max", "64"),
            types_bytes_max: s.count("limits.types_bytes_max", "4096"),
            feeds_max: s.count("limits.feeds_max", "200000"),
            topics_max: s.get("limits.topics_max", "0"),
            replays_max: s.count("limits.replays_max", "32"),
            page_bytes_max: s.count("limits.page_bytes_max", "67108864"),
            answer_bytes_max: s.count("limits.answer_bytes_max", "33554432"),
            history_events_max: s.count("limits.history_events_max", "1000"),
            address: PerAddress::take(s),
        };
        if limits.feeds_max < limits.topics_per_stream_max {
            s.fault(
                "limits.feeds_max",
                "must be at least limits.topics_per_stream_max: otherwise such a stream could never open",
            );
        }
        limits
    }
}

impl Drain {
    pub(super) fn take(s: &mut Source) -> Self {
        Self {
            wait: s.duration("drain.wait", "0s"),
            time: s.duration("drain.time", "20s"),
            hand_over: s.flag("drain.hand_over", "false"),
        }
    }
}

impl Logging {
    pub(super) fn take(s: &mut Source) -> Self {
        let logging = Self {
            json: s.choice("logging.format", &["text", "json"]) == "json",
            level: s.get("logging.level", "info"),
            stream_lines_max: s.get("logging.stream_lines_max", "100"),
            queue_bytes: s.get("logging.queue_bytes", "1048576"),
        };
        // The longest lines are some kilobytes.
        if logging.queue_bytes < 16_384 {
            s.fault("logging.queue_bytes", "must be at least 16384");
        }
        if logging
            .level
            .parse::<tracing_subscriber::EnvFilter>()
            .is_err()
        {
            s.fault(
                "logging.level",
                "must be a level or a filter, such as info or tidegate=debug",
            );
        }
        logging
    }
}
