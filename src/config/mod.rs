//! Configuration: a TOML file, the environment over it, flags over both.
//!
//! Every key is documented in `deploy/tidegate.toml`, and `tests/config.rs` holds that file against
//! this code. All faults are reported at once, before any socket opens.

mod source;

pub use source::{Faults, Flags};

use crate::broker::Retention;
use crate::hub::window::WindowBounds;
use crate::topic::PartitionNo;
use secrecy::SecretString;
use source::Source;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What a config must say, word for word, to let anyone publish beyond loopback.
pub const OPEN_PUBLISHING: &str = "anyone who can reach this address may publish";

/// Everything that can be configured, checked.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each section is a type of its own, documented there")]
pub struct Config {
    pub server: Server,
    pub ops: Ops,
    pub replica: Replica,
    pub redis: RedisConfig,
    pub log: Log,
    pub window: WindowBounds,
    pub stream: Stream,
    pub repair: Repair,
    pub publish: Publish,
    pub ingest: Ingest,
    pub limits: Limits,
    pub auth: Auth,
    pub drain: Drain,
    pub logging: Logging,
}

/// The main listener.
#[derive(Clone, Debug)]
pub struct Server {
    /// Address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Connections that may wait to be accepted. A reconnect storm overflows 128, tokio's default.
    pub backlog: u32,
    /// Time for a request's head to arrive.
    pub header_timeout: Duration,
    /// Time for which written bytes may stay unacknowledged (`TCP_USER_TIMEOUT`).
    pub write_timeout: Duration,
    /// Bytes of buffer for each connection in each direction.
    pub buffer_bytes: usize,
    /// Sockets at most; more wait to be accepted.
    pub connections_max: usize,
}

/// The operator's listener.
#[derive(Clone, Debug)]
pub struct Ops {
    /// Address for health and metrics; none shares the main listener.
    pub listen: Option<SocketAddr>,
}

/// This process.
#[derive(Clone, Debug)]
pub struct Replica {
    /// Its name among the replicas.
    pub name: String,
}

/// Where the log lives, and how it is reached.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// None keeps the log in memory.
    pub url: Option<SecretString>,
    /// Begins every key, channel and function.
    pub prefix: String,
    /// Ordering domains.
    pub partitions: PartitionNo,
    /// Command connections.
    pub pool_size: usize,
    /// Time for a connection to stand.
    pub connect_timeout: Duration,
    /// Time for a command's answer, waiting for a connection included.
    pub command_timeout: Duration,
    /// Longest pause between two attempts to reconnect.
    pub backoff_max: Duration,
    /// How far the clock leaps when another process takes the log over.
    pub leap: Duration,
    /// How long a topic without subscribers stays subscribed.
    pub unsubscribe_after: Duration,
    /// Bytes of live frames that may wait in memory.
    pub live_queue_bytes: usize,
    /// Silence on the live path after which it is probed.
    pub tick_after: Duration,
    /// Run although Redis may evict keys.
    pub allow_eviction: bool,
}

/// What the log keeps.
#[derive(Clone, Debug)]
pub struct Log {
    /// Entries a topic.
    pub events_max: usize,
    /// Age of an entry.
    pub age_max: Duration,
}

/// How streams behave.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Pause between two heartbeats.
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

/// Repair of holes.
#[derive(Clone, Debug)]
pub struct Repair {
    /// A stream that is held longer is cut.
    pub time: Duration,
    /// Reads for repair at the same time.
    pub reads_max: usize,
}

/// Publishing.
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
}

/// Ingest of raw publishes and of the inbox.
#[derive(Clone, Debug)]
pub struct Ingest {
    /// Whether this replica may be an ear.
    pub enabled: bool,
    /// The channel `<name>` and the pattern `<name>:*` are heard.
    pub channel: String,
    /// Ears of the fleet.
    pub ears: usize,
    /// Raw publishes that may be owed.
    pub owed_max: usize,
}

/// Limits of requests.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open streams.
    pub streams_max: usize,
    /// Topics of one stream.
    pub topics_per_stream_max: usize,
    /// Topics of the log; 0 for no limit.
    pub topics_max: usize,
    /// Reads of the log for streams at the same time.
    pub replays_max: usize,
    /// Events of `?last=` and of one page of `GET /topics/{topic}/events`.
    pub history_events_max: usize,
}

/// Who may publish.
#[derive(Clone, Debug)]
pub struct Auth {
    /// The key that publishers send as `Authorization: Bearer`.
    pub publish_key: Option<SecretString>,
}

/// The orderly stop.
#[derive(Clone, Debug)]
pub struct Drain {
    /// Streams are cut over this time.
    pub time: Duration,
}

/// Logs on standard error.
#[derive(Clone, Debug)]
pub struct Logging {
    /// Lines as JSON.
    pub json: bool,
    /// A filter such as `info` or `tidegate=debug`.
    pub level: String,
}

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// [`Faults`], all of them.
    pub fn load(flags: &Flags) -> Result<Self, Faults> {
        let mut source = Source::read(flags)?;
        let config = Self::take(&mut source);
        config.check(&mut source);
        source.finish()?;
        Ok(config)
    }

    /// The keys that exist, in the order in which they are read.
    #[must_use]
    pub fn keys() -> Vec<&'static str> {
        let mut source = Source::default();
        let config = Self::take(&mut source);
        config.check(&mut source);
        source.into_keys()
    }

    fn take(s: &mut Source) -> Self {
        let file_key = s.file("auth.publish_key_file");
        Self {
            server: Server {
                listen: s.address("server.listen", "127.0.0.1:8081"),
                backlog: s.get("server.backlog", "4096"),
                header_timeout: s.duration("server.header_timeout", "10s"),
                write_timeout: s.duration("server.write_timeout", "60s"),
                buffer_bytes: s.get("server.buffer_bytes", "16384"),
                connections_max: s.get("server.connections_max", "60000"),
            },
            ops: Ops {
                listen: s.optional("ops.listen"),
            },
            replica: Replica {
                name: s.optional("replica.name").unwrap_or_else(random_name),
            },
            redis: RedisConfig {
                url: s.optional::<String>("redis.url").map(SecretString::from),
                prefix: s.get("redis.prefix", "tidegate"),
                partitions: s.get("redis.partitions", "1"),
                pool_size: s.get("redis.pool_size", "8"),
                connect_timeout: s.duration("redis.connect_timeout", "2s"),
                command_timeout: s.duration("redis.command_timeout", "2s"),
                backoff_max: s.duration("redis.backoff_max", "1s"),
                leap: s.duration("redis.leap", "2s"),
                unsubscribe_after: s.duration("redis.unsubscribe_after", "30s"),
                live_queue_bytes: s.get("redis.live_queue_bytes", "67108864"),
                tick_after: s.duration("redis.tick_after", "15s"),
                allow_eviction: s.get("redis.allow_eviction", "false"),
            },
            log: Log {
                events_max: s.get("log.events_max", "10000"),
                age_max: s.duration("log.age_max", "24h"),
            },
            window: WindowBounds {
                events_max: s.get("window.events_max", "1024"),
                bytes_max: s.get("window.bytes_max", "1048576"),
            },
            stream: Stream {
                heartbeat: s.duration("stream.heartbeat", "15s"),
                retry: s.duration("stream.retry", "3s"),
                age_max: s.duration("stream.age_max", "1h"),
                open_event: s.get("stream.open_event", "true"),
                open_wait: s.duration("stream.open_wait", "2s"),
            },
            repair: Repair {
                time: s.duration("repair.time", "5s"),
                reads_max: s.get("repair.reads_max", "4"),
            },
            publish: Publish {
                idempotency_window: s.duration("publish.idempotency_window", "10m"),
                event_bytes_max: s.get("publish.event_bytes_max", "65536"),
                batch_events_max: s.get("publish.batch_events_max", "1000"),
                batch_bytes_max: s.get("publish.batch_bytes_max", "4194304"),
                in_flight_max: s.get("publish.in_flight_max", "256"),
            },
            ingest: Ingest {
                enabled: s.get("ingest.enabled", "true"),
                channel: s.get("ingest.channel", "events"),
                ears: s.get("ingest.ears", "3"),
                owed_max: s.get("ingest.owed_max", "100000"),
            },
            limits: Limits {
                streams_max: s.get("limits.streams_max", "50000"),
                topics_per_stream_max: s.get("limits.topics_per_stream_max", "64"),
                topics_max: s.get("limits.topics_max", "0"),
                replays_max: s.get("limits.replays_max", "32"),
                history_events_max: s.get("limits.history_events_max", "1000"),
            },
            auth: Auth {
                publish_key: s.optional::<String>("auth.publish_key").or(file_key).map(SecretString::from),
            },
            drain: Drain {
                time: s.duration("drain.time", "20s"),
            },
            logging: Logging {
                json: s.choice("logging.format", &["text", "json"]) == "json",
                level: s.get("logging.level", "info"),
            },
        }
    }

    /// Relations between fields.
    fn check(&self, s: &mut Source) {
        let open = s.optional::<String>("auth.open_publishing");
        let is_open = open.as_deref() == Some(OPEN_PUBLISHING);
        if open.is_some() && !is_open {
            s.fault("auth.open_publishing", &format!("must be exactly \"{OPEN_PUBLISHING}\""));
        }
        if !self.server.listen.ip().is_loopback() && self.auth.publish_key.is_none() && !is_open {
            s.fault(
                "server.listen",
                &format!("{} is beyond loopback: set auth.publish_key or auth.publish_key_file, or say auth.open_publishing = \"{OPEN_PUBLISHING}\"", self.server.listen),
            );
        }
        let positive: [(&str, Duration); 9] = [
            ("server.header_timeout", self.server.header_timeout),
            ("server.write_timeout", self.server.write_timeout),
            ("redis.connect_timeout", self.redis.connect_timeout),
            ("redis.command_timeout", self.redis.command_timeout),
            ("redis.tick_after", self.redis.tick_after),
            ("log.age_max", self.log.age_max),
            ("stream.heartbeat", self.stream.heartbeat),
            ("stream.age_max", self.stream.age_max),
            ("repair.time", self.repair.time),
        ];
        for (key, _) in positive.into_iter().filter(|(_, value)| value.is_zero()) {
            s.fault(key, "must be longer than zero");
        }
        let counts: [(&str, usize); 11] = [
            ("server.connections_max", self.server.connections_max),
            ("redis.pool_size", self.redis.pool_size),
            ("redis.partitions", usize::from(self.redis.partitions)),
            ("log.events_max", self.log.events_max),
            ("window.events_max", self.window.events_max),
            ("repair.reads_max", self.repair.reads_max),
            ("publish.batch_events_max", self.publish.batch_events_max),
            ("publish.in_flight_max", self.publish.in_flight_max),
            ("limits.streams_max", self.limits.streams_max),
            ("limits.topics_per_stream_max", self.limits.topics_per_stream_max),
            ("limits.replays_max", self.limits.replays_max),
        ];
        for (key, _) in counts.into_iter().filter(|(_, value)| *value == 0) {
            s.fault(key, "must be at least 1");
        }
        if self.server.buffer_bytes < 8192 {
            s.fault("server.buffer_bytes", "must be at least 8192");
        }
        if self.publish.batch_events_max > 1000 {
            s.fault("publish.batch_events_max", "must be at most 1000: a batch is one atomic step, and everything else waits for it");
        }
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !self.redis.prefix.starts_with(|c: char| c.is_ascii_lowercase()) || !self.redis.prefix.chars().all(plain) {
            s.fault("redis.prefix", "must be lower-case letters, digits and _, a letter first: it names functions, too");
        }
        if self.ingest.channel.is_empty() || self.ingest.channel.contains(['*', '?', '[', ']', '\\', ' ', '#', ',']) {
            s.fault("ingest.channel", "must be a plain name without spaces and none of * ? [ ] \\ # ,");
        }
        if self.replica.name.is_empty() || self.replica.name.len() > 64 || self.replica.name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            s.fault("replica.name", "must be 1 to 64 bytes without spaces");
        }
        if let Some(url) = &self.redis.url {
            if let Err(why) = crate::broker::redis::check_url(url) {
                s.fault("redis.url", &why);
            }
        } else if self.redis.partitions != 1 {
            s.fault("redis.partitions", "must be 1 without redis.url");
        }
        if self.logging.level.parse::<tracing_subscriber::EnvFilter>().is_err() {
            s.fault("logging.level", "must be a level or a filter, such as info or tidegate=debug");
        }
    }

    /// What a log keeps by this config.
    #[must_use]
    pub fn retention(&self) -> Retention {
        Retention {
            events_max: self.log.events_max,
            age_ms: millis(self.log.age_max),
            event_bytes_max: self.publish.event_bytes_max,
            topics_max: self.limits.topics_max,
            idempotency_ms: millis(self.publish.idempotency_window),
            leap_ms: millis(self.redis.leap),
        }
    }
}

/// Whole milliseconds.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Names a replica that was not given a name.
fn random_name() -> String {
    format!("r{:08x}", rand::random::<u32>())
}

/// Where the flags and the environment point to a file.
impl Flags {
    /// Flags that name only a file.
    #[must_use]
    pub fn file(path: PathBuf) -> Self {
        Self {
            file: Some(path),
            ..Self::default()
        }
    }
}
