//! Metrics, in Prometheus' text format. Labels come from closed sets, and every child exists from
//! the start, so that a first gap is seen as a step from zero.
//!
//! Children are made once and kept at hand: counting an event is one atomic addition, without a
//! look-up by label. `docs/metrics.md` says what moves each metric and what to look at then;
//! `tests/it/metrics.rs` holds it against what is exposed.

mod machine;

use crate::sse::GapReason;
use machine::Machine;
use prometheus::core::Collector;
use prometheus::{
    Counter, CounterVec, Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter,
    IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client went, or its connection broke.
    Client,
    /// It took nothing for `server.write_timeout`, or did not answer signs of life.
    Timeout,
    /// `?limit=` or `?max_age=` was reached.
    Limit,
    /// `stream.age_max`.
    Age,
    /// All of its topics have ended.
    Ended,
    /// This replica is going.
    Drain,
    /// It was held longer than `repair.time`.
    Held,
}

impl CloseReason {
    const ALL: [Self; 7] = [
        Self::Client,
        Self::Timeout,
        Self::Limit,
        Self::Age,
        Self::Ended,
        Self::Drain,
        Self::Held,
    ];

    /// The word in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Timeout => "timeout",
            Self::Limit => "limit",
            Self::Age => "age",
            Self::Ended => "ended",
            Self::Drain => "drain",
            Self::Held => "held",
        }
    }
}

/// Which connection to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The pool of command connections.
    Commands,
    /// The subscription that carries live frames.
    Live,
    /// The ear.
    Ear,
}

impl Role {
    const ALL: [Self; 3] = [Self::Commands, Self::Live, Self::Ear];

    /// The word in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Commands => "commands",
            Self::Live => "live",
            Self::Ear => "ear",
        }
    }
}

/// Why a command, or an attempt to connect, failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisErrorKind {
    /// No answer, or no connection.
    Unavailable,
    /// `maxmemory` is reached.
    OutOfMemory,
    /// A right or a setting.
    Refused,
}

impl RedisErrorKind {
    const ALL: [Self; 3] = [Self::Unavailable, Self::OutOfMemory, Self::Refused];

    /// The word in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::OutOfMemory => "out_of_memory",
            Self::Refused => "refused",
        }
    }
}

/// Which way a stream goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayOut {
    /// On a socket that a thread of the engine owns.
    Socket,
    /// As an ordinary HTTP body.
    Body,
}

impl WayOut {
    const ALL: [Self; 2] = [Self::Socket, Self::Body];

    /// The word in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Body => "body",
        }
    }
}

/// Every metric of this process, with its children at hand.
#[derive(Debug)]
#[expect(
    missing_docs,
    reason = "the help text of each metric stands below, once"
)]
pub struct Metrics {
    registry: Registry,
    machine: Machine,
    open_connections: Family<IntGauge>,
    behind: Family<IntGauge>,
    pub connections_limit: IntGauge,
    opened: IntCounter,
    closed: Family<IntCounter>,
    age: Histogram,
    pub start: Histogram,
    refused: Family<IntCounter>,
    published: Family<IntCounter>,
    publish_refused: Family<IntCounter>,
    pub publish_time: Histogram,
    pub publishes_in_flight: IntGauge,
    pub delivered: IntCounter,
    pub sent_bytes: IntCounter,
    pub heartbeats: IntCounter,
    pub latency: Histogram,
    live_latency: Histogram,
    clock_offset: Gauge,
    pub sweep: Histogram,
    replays: Family<IntCounter>,
    pub replay_events: Histogram,
    gaps: Family<IntCounter>,
    pub topics: IntGauge,
    pub window_bytes: IntGauge,
    redis_up: Family<IntGauge>,
    redis_reconnects: Family<IntCounter>,
    redis_errors: Vec<Family<IntCounter>>,
    redis_round_trip: Family<Histogram>,
    redis_pool: Family<IntGauge>,
    pub repair_reads: IntCounter,
    pub log_reads: IntCounter,
    pub ticks: IntCounter,
    pub live_overflows: IntCounter,
    pub unreadable: IntCounter,
    pub unlogged_skipped: IntCounter,
    pub unreplicated: IntCounter,
    pub redis_memory: IntGauge,
    pub redis_memory_max: IntGauge,
    pub redis_may_evict: IntGauge,
    pub redis_replicas: IntGauge,
    pub replicas: IntGauge,
    pub ingest_heard: IntCounter,
    ingest_refused: Family<IntCounter>,
    ingest_appends: Family<IntCounter>,
    pub ingest_owed: IntGauge,
    pub ingest_lag: Gauge,
    ingest_appender: IntGauge,
    ingest_takeovers: IntCounter,
    pub ingest_inbox: IntGauge,
    pub accept_errors: IntCounter,
    pub sockets: IntGauge,
    pub sockets_limit: IntGauge,
    pub ready: IntGauge,
    pub draining: IntGauge,
    pub config_hash: IntGauge,
    config_reloads: Family<IntCounter>,
    config_refused: IntGauge,
}

/// Label values of `refused`.
const REFUSALS: [&str; 3] = ["bad_request", "draining", "limit"];
/// Label values of `published`.
const SOURCES: [&str; 3] = ["http", "raw", "inbox"];
/// Label values of `publish_refused`.
const PUBLISH_REFUSALS: [&str; 7] = [
    "invalid",
    "too_large",
    "ended",
    "unauthorized",
    "unavailable",
    "limit",
    "internal",
];
/// Label values of `ingest_refused`.
const INGEST_REFUSALS: [&str; 3] = ["invalid", "log", "unowned"];
/// Label values of `ingest_appends`.
const APPENDS: [&str; 6] = ["ok", "stale", "wait", "hole", "diverged", "error"];
/// Label values of `redis_pool`.
const POOL: [&str; 3] = ["busy", "idle", "waiting"];
/// Latency: half a millisecond to ten seconds, roughly doubling.
const LATENCY: [f64; 14] = [
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.25, 0.5, 1.0, 3.0, 10.0,
];
/// Work inside the process and round trips to Redis begin far below: 50 µs.
const SHORT: [f64; 15] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128,
    0.25, 1.0, 5.0,
];
/// A stream lives from a second to a day.
const AGE: [f64; 11] = [
    1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 21_600.0, 86_400.0,
];
/// Events of one replay.
const EVENTS: [f64; 6] = [1.0, 10.0, 100.0, 1000.0, 10_000.0, 100_000.0];

impl Metrics {
    /// Registers everything.
    ///
    /// # Panics
    /// If two metrics share a name, which the first start of any test would show.
    #[must_use]
    #[expect(clippy::expect_used, reason = "names are constants of this function")]
    pub fn new() -> Arc<Self> {
        let registry = Registry::new();
        let process = prometheus::process_collector::ProcessCollector::for_self();
        registry
            .register(Box::new(process))
            .expect("registered once");
        let r = Register(&registry);
        let info: IntGaugeVec = r.add(IntGaugeVec::new(
            Register::opts("build_info", "Always 1; which build this is."),
            &["version", "revision"],
        ));
        info.with_label_values(&[
            env!("CARGO_PKG_VERSION"),
            option_env!("TIDEGATE_REVISION").unwrap_or("unknown"),
        ])
        .set(1);
        let ways = WayOut::ALL.map(WayOut::as_str);
        let reasons = GapReason::ALL.map(GapReason::as_str);
        let closes = CloseReason::ALL.map(CloseReason::as_str);
        let roles = Role::ALL.map(Role::as_str);
        let pushes = [Role::Live, Role::Ear].map(Role::as_str);
        let trips = [Role::Commands, Role::Live].map(Role::as_str);
        let metrics = Self {
            machine: Machine::new(&r),
            open_connections: r.gauges("open_connections", "Streams that are open now, by the way out: on a socket of the engine's own, or as an ordinary body (HTTP/2, limit, max_age).", "way", &ways),
            behind: r.gauges("streams_behind", "Streams that are behind now: blocked, their socket takes no more (streams written by the engine's threads only), or reading, they wait for a page of the log.", "state", &["blocked", "reading"]),
            connections_limit: r.gauge("connections_limit", "limits.streams_max: streams beyond it are refused."),
            opened: r.counter("connections_opened_total", "Streams opened. Far above the number open: a reconnect storm."),
            closed: r.counters("connections_closed_total", "Streams closed, by reason. Many by held: holes are not repaired in time.", "reason", &closes),
            age: r.histogram("connection_age_seconds", "How long streams were open, told when they close.", &AGE),
            start: r.histogram("connection_start_seconds", "From a stream's request to its head. stream.open_wait at most; slow: Redis does not confirm subscriptions, or reads for replays wait.", &SHORT),
            refused: r.counters("connections_refused_total", "Streams refused, by reason. Any by limit: raise limits.streams_max or add a replica.", "reason", &REFUSALS),
            published: r.counters("events_published_total", "Events this replica has put into the log, or sent live only, by where they came from. Publishes straight through the function are not seen by a replica.", "source", &SOURCES),
            publish_refused: r.counters("publish_refused_total", "Publishes refused over HTTP, by reason.", "reason", &PUBLISH_REFUSALS),
            publish_time: r.histogram("publish_duration_seconds", "From a publish over HTTP that was read to the log's answer, whichever.", &SHORT),
            publishes_in_flight: r.gauge("publishes_in_flight", "Publishes over HTTP that wait for the log. publish.in_flight_max at most; beyond it they are answered 503."),
            delivered: r.counter("events_delivered_total", "Events written to streams, gaps not counted."),
            sent_bytes: r.counter("sent_bytes_total", "Bytes of stream bodies handed to sockets."),
            heartbeats: r.counter("heartbeats_sent_total", "Heartbeats written. Flat while streams are open: the timers stand still."),
            latency: r.histogram("delivery_latency_seconds", "From an event's id to the socket, for live events, one sample a write. Clocks of Redis and this machine count.", &LATENCY),
            live_latency: r.histogram("live_latency_seconds", "From an event's id until this replica has heard its frame: the part of the delivery latency that is Redis and the network.", &LATENCY),
            clock_offset: r.add(Gauge::with_opts(Register::opts("clock_offset_seconds", "This machine's clock less that of Redis, as of the last tick or read, one round trip included. Latencies are off by as much."))),
            sweep: r.histogram("fanout_sweep_seconds", "One sweep of a thread over the streams that were rung, from the first look to the last write. Long: the last stream of the sweep waits so long.", &SHORT),
            replays: r.counters("replays_total", "Streams that resumed or asked for history, by where the events came from.", "outcome", &["window", "log"]),
            replay_events: r.histogram("replay_events", "Events that a stream which resumed or asked for history was shown before it was live.", &EVENTS),
            gaps: r.counters("gaps_total", "Gaps told to streams, by reason. bad_cursor is the client's fault, everything else is loss or retention.", "reason", &reasons),
            topics: r.gauge("topics", "Topics that streams on this replica read."),
            window_bytes: r.gauge("window_bytes", "Bytes of encoded events held in memory."),
            redis_up: r.gauges("redis_up", "1 while the connections of this role work. ear is 1 only on replicas that listen.", "role", &roles),
            redis_reconnects: r.counters("redis_reconnects_total", "Connections lost and made again, by role.", "role", &pushes),
            redis_errors: r.errors("redis_errors_total", "Commands and attempts to connect that failed, by role of the connection and kind.", &roles),
            redis_round_trip: r.histograms("redis_round_trip_seconds", "commands: a function's answer, waiting for a connection of the pool included. live: a tick, from asking for it until it is heard.", "role", &trips, &SHORT),
            redis_pool: r.gauges("redis_pool", "Command connections to Redis that are busy or idle, and tasks that wait for one.", "state", &POOL),
            repair_reads: r.counter("repair_reads_total", "Reads of the log that mend a feed: at a first subscription, after a reconnect, at a hole."),
            log_reads: r.counter("log_reads_total", "Pages of the log read for streams behind their window."),
            ticks: r.counter("ticks_total", "Ticks asked for: silence probed, or a held stream helped on."),
            live_overflows: r.counter("live_overflows_total", "Times that the live queue was full and the subscription was begun anew. Rising: this replica cannot keep up."),
            unreadable: r.counter("unreadable_frames_total", "Live frames or log entries that are not Tidegate's. Any: something else writes to its keys."),
            unlogged_skipped: r.counter("unlogged_events_skipped_total", "Events of topics that are not logged and that a stream never saw, because it was behind by more than a window. Many: readers are slow."),
            unreplicated: r.counter("unreplicated_publishes_total", "Publishes over HTTP that fewer than log.wait_replicas replicas of Redis confirmed in time, answered 503. Any: replicas are away or slow."),
            redis_memory: r.gauge("redis_memory_bytes", "Memory that Redis uses, the log and all else in it. Near redis_memory_max_bytes: publishing will be refused."),
            redis_memory_max: r.gauge("redis_memory_max_bytes", "maxmemory of Redis; 0 without a limit."),
            redis_may_evict: r.gauge("redis_may_evict", "1 while maxmemory-policy is another than noeviction. 1: the log may be lost key by key."),
            redis_replicas: r.gauge("redis_replicas", "Replicas of Redis that are connected to it. Fewer than log.wait_replicas: publishing over HTTP is answered 503."),
            replicas: r.gauge("replicas", "Replicas of Tidegate that this one hears of, itself included. Fewer than are scraped: they do not share one Redis, prefix or partition."),
            ingest_heard: r.counter("ingest_heard_total", "Raw publishes that this ear has counted."),
            ingest_refused: r.counters("ingest_refused_total", "Raw publishes and inbox entries that did not become events: not valid, refused by the log (ended, too large), or owed and given up.", "reason", &INGEST_REFUSALS),
            ingest_appends: r.counters("ingest_appends_total", "Appends by this ear, by answer. ok is normal, wait and hole pass, diverged must not be.", "outcome", &APPENDS),
            ingest_owed: r.gauge("ingest_owed", "Raw publishes counted by this ear and not yet known to be logged. Growing: appends fail."),
            ingest_lag: r.add(Gauge::with_opts(Register::opts("ingest_lag_seconds", "Age of the oldest raw publish that this ear owes to the log; 0 if it owes none."))),
            ingest_appender: r.gauge("ingest_appender", "1 on the ear that appends at once; the others give it time. One in the fleet, for a moment none or two."),
            ingest_takeovers: r.counter("ingest_takeovers_total", "Times that this ear became the one that appends. Rising without deploys: ears die or are slow."),
            ingest_inbox: r.gauge("ingest_inbox_entries", "Entries in the inbox as this ear last saw it. Growing: they are not moved."),
            accept_errors: r.counter("accept_errors_total", "Connections that could not be accepted, mostly for want of descriptors."),
            sockets: r.gauge("sockets", "Client connections, streams and others."),
            sockets_limit: r.gauge("sockets_limit", "server.connections_max: connections beyond it wait to be accepted."),
            ready: r.gauge("ready", "1 when /readyz answers 200."),
            draining: r.gauge("draining", "1 from SIGTERM on."),
            config_reloads: r.counters("config_reloads_total", "Times that SIGHUP had the configuration read again, by what became of it.", "outcome", &["taken", "refused"]),
            config_refused: r.gauge("config_refused", "1 from a reload that was refused until one is taken: the file is at fault, and the log says where. The replica goes on as it was, and would not start again."),
            config_hash: r.gauge("config_hash", "Hash of the configuration in force, without secrets and what is a replica's own (its name and addresses). It differs within the fleet: replicas run with different settings."),
            registry: registry.clone(),
        };
        Arc::new(metrics)
    }

    /// The configuration was read again, and taken or refused.
    pub fn reloaded(&self, taken: bool) {
        let outcome = if taken { "taken" } else { "refused" };
        self.config_reloads.of(outcome, IntCounter::inc);
        self.config_refused.set(i64::from(!taken));
    }

    /// Where clients connect: its accept queue is looked at.
    pub fn listens_at(&self, address: SocketAddr) {
        self.machine.listens_at(address);
    }

    /// A stream whose socket takes no more, for as long as the answer lives.
    #[must_use]
    pub fn blocked(&self) -> Counted {
        self.behind("blocked")
    }

    /// A stream that waits for a page of the log, for as long as the answer lives.
    #[must_use]
    pub fn reading(&self) -> Counted {
        self.behind("reading")
    }

    fn behind(&self, state: &'static str) -> Counted {
        let mut counted = Counted(None);
        self.behind.of(state, |gauge| {
            gauge.inc();
            counted.0 = Some(gauge.clone());
        });
        counted
    }

    /// A stream was opened.
    pub fn opened(&self, way: WayOut) {
        self.opened.inc();
        self.open_connections.of(way.as_str(), IntGauge::inc);
    }

    /// A stream ended.
    pub fn closed(&self, way: WayOut, reason: CloseReason, age: Duration) {
        self.open_connections.of(way.as_str(), IntGauge::dec);
        self.closed.of(reason.as_str(), IntCounter::inc);
        self.age.observe(age.as_secs_f64());
    }

    /// A stream goes on by another way out.
    pub fn goes_by(&self, before: WayOut, way: WayOut) {
        self.open_connections.of(before.as_str(), IntGauge::dec);
        self.open_connections.of(way.as_str(), IntGauge::inc);
    }

    /// Streams that are open now.
    #[must_use]
    pub fn open_connections(&self) -> u64 {
        let open = self.open_connections.children.iter();
        let open = open.map(|(_, gauge)| gauge.get()).sum::<i64>();
        u64::try_from(open).unwrap_or_default()
    }

    /// A stream was refused; `reason` is one of `bad_request`, `draining`, `limit`.
    pub fn refused(&self, reason: &'static str) {
        self.refused.of(reason, IntCounter::inc);
    }

    /// Events went into the log; `source` is one of `http`, `raw`, `inbox`.
    pub fn published(&self, source: &'static str, events: usize) {
        self.published
            .of(source, |counter| counter.inc_by(events as u64));
    }

    /// A publish over HTTP was refused.
    pub fn publish_refused(&self, reason: &'static str) {
        self.publish_refused.of(reason, IntCounter::inc);
    }

    /// A stream began with a cursor or with history; `outcome` is `window` or `log`.
    pub fn replayed(&self, outcome: &'static str) {
        self.replays.of(outcome, IntCounter::inc);
    }

    /// A stream was told of a gap.
    pub fn gap(&self, reason: GapReason) {
        self.gaps.of(reason.as_str(), IntCounter::inc);
    }

    /// Connections of a role work, or not.
    pub fn redis_up(&self, role: Role, up: bool) {
        self.redis_up
            .of(role.as_str(), |gauge| gauge.set(i64::from(up)));
    }

    /// A connection is made again; `role` is the live one or the ear's.
    pub fn redis_reconnected(&self, role: Role) {
        self.redis_reconnects.of(role.as_str(), IntCounter::inc);
    }

    /// A command failed, or an attempt to connect.
    pub fn redis_error(&self, role: Role, kind: RedisErrorKind) {
        if let Some(errors) = self.redis_errors.get(role as usize) {
            errors.of(kind.as_str(), IntCounter::inc);
        }
    }

    /// Redis has answered; `role` is that of commands or the live one.
    pub fn redis_answered(&self, role: Role, after: Duration) {
        self.redis_round_trip
            .of(role.as_str(), |trip| trip.observe(after.as_secs_f64()));
    }

    /// A live frame was heard, of an event that was given its id at this time.
    pub fn heard(&self, id_ms: u64) {
        self.live_latency.observe(seconds_since(id_ms).max(0.0));
    }

    /// Redis has said what time it is.
    pub fn clock_read(&self, now_ms: u64) {
        self.clock_offset.set(seconds_since(now_ms));
    }

    /// How the pool of command connections stands.
    pub fn redis_pool(&self, busy: usize, idle: usize, waiting: usize) {
        for (state, connections) in POOL.into_iter().zip([busy, idle, waiting]) {
            let connections = i64::try_from(connections).unwrap_or(i64::MAX);
            self.redis_pool.of(state, |gauge| gauge.set(connections));
        }
    }

    /// Raw publishes or inbox entries did not become events.
    pub fn ingest_refused(&self, reason: &'static str, count: usize) {
        self.ingest_refused
            .of(reason, |counter| counter.inc_by(count as u64));
    }

    /// An append was answered.
    pub fn ingest_append(&self, outcome: &'static str) {
        self.ingest_appends.of(outcome, IntCounter::inc);
    }

    /// Whether this ear is the one that appends at once.
    pub fn ingest_appends_first(&self, first: bool) {
        if first && self.ingest_appender.get() == 0 {
            self.ingest_takeovers.inc();
        }
        self.ingest_appender.set(i64::from(first));
    }

    /// The exposition, and its content type.
    #[must_use]
    pub fn text(&self) -> (String, &'static str) {
        self.machine.look();
        let mut text = Vec::new();
        let encoder = TextEncoder::new();
        if let Err(why) = encoder.encode(&self.registry.gather(), &mut text) {
            tracing::warn!(%why, "metrics cannot be written");
        }
        (
            String::from_utf8_lossy(&text).into_owned(),
            "text/plain; version=0.0.4; charset=utf-8",
        )
    }
}

/// One of those that a gauge counts, for as long as it lives.
#[derive(Debug)]
pub struct Counted(Option<IntGauge>);

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(gauge) = &self.0 {
            gauge.dec();
        }
    }
}

/// Seconds from a time until now by this machine's clock; negative if it lies ahead.
fn seconds_since(ms: u64) -> f64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    now.as_secs_f64() - Duration::from_millis(ms).as_secs_f64()
}

/// A metric with one label: a child for each of its values, made once.
#[derive(Debug)]
struct Family<M> {
    children: Vec<(&'static str, M)>,
}

impl<M> Family<M> {
    fn new(values: &[&'static str], child: impl Fn(&'static str) -> M) -> Self {
        let children = values.iter().map(|value| (*value, child(value)));
        Self {
            children: children.collect(),
        }
    }

    /// Does something with the child of a value. There are a handful: looking through them is
    /// cheaper than hashing.
    fn of(&self, value: &str, with: impl FnOnce(&M)) {
        let child = self.children.iter().find(|(known, _)| *known == value);
        debug_assert!(child.is_some(), "{value} is not in the label's closed set");
        if let Some((_, child)) = child {
            with(child);
        }
    }
}

/// Makes and registers metrics named `tidegate_<name>`.
struct Register<'a>(&'a Registry);

#[expect(
    clippy::expect_used,
    reason = "names are constants; the first start of any test shows a clash"
)]
impl Register<'_> {
    fn add<M: Collector + Clone + 'static>(&self, metric: prometheus::Result<M>) -> M {
        let metric = metric.expect("a valid name");
        self.0
            .register(Box::new(metric.clone()))
            .expect("registered once");
        metric
    }

    fn opts(name: &str, help: &str) -> Opts {
        Opts::new(format!("tidegate_{name}"), help)
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::with_opts(Self::opts(name, help)))
    }

    fn gauges(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: &[&'static str],
    ) -> Family<IntGauge> {
        let gauges = self.add(IntGaugeVec::new(Self::opts(name, help), &[label]));
        Family::new(values, |value| gauges.with_label_values(&[value]))
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::with_opts(Self::opts(name, help)))
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: &[&'static str],
    ) -> Family<IntCounter> {
        let counters = self.add(IntCounterVec::new(Self::opts(name, help), &[label]));
        Family::new(values, |value| counters.with_label_values(&[value]))
    }

    /// One family of kinds for each role.
    fn errors(&self, name: &str, help: &str, roles: &[&str]) -> Vec<Family<IntCounter>> {
        let opts = Self::opts(name, help);
        let counters = self.add(IntCounterVec::new(opts, &["role", "kind"]));
        let kinds = RedisErrorKind::ALL.map(RedisErrorKind::as_str);
        let of = |role| Family::new(&kinds, |kind| counters.with_label_values(&[role, kind]));
        roles.iter().map(|role| of(*role)).collect()
    }

    /// A counter of seconds, which may be fractions.
    fn seconds(&self, name: &str, help: &str) -> Counter {
        self.add(Counter::with_opts(Self::opts(name, help)))
    }

    fn seconds_of(&self, name: &str, help: &str, label: &str) -> CounterVec {
        self.add(CounterVec::new(Self::opts(name, help), &[label]))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let opts = HistogramOpts::from(Self::opts(name, help)).buckets(buckets.to_vec());
        self.add(Histogram::with_opts(opts))
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: &[&'static str],
        buckets: &[f64],
    ) -> Family<Histogram> {
        let opts = HistogramOpts::from(Self::opts(name, help)).buckets(buckets.to_vec());
        let histograms = self.add(HistogramVec::new(opts, &[label]));
        Family::new(values, |value| histograms.with_label_values(&[value]))
    }
}
