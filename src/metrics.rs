//! Metrics, in Prometheus' text format. Labels come from closed sets, and every child exists from
//! the start, so that a first gap is seen as a step from zero.
//!
//! The help texts are the documentation: what moves the metric, and what a bad value looks like.

use crate::sse::GapReason;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use std::sync::Arc;

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client went, or its connection broke.
    Client,
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
    const ALL: [Self; 6] = [
        Self::Client,
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

/// Every metric of this process, with its children at hand.
#[derive(Debug)]
#[expect(
    missing_docs,
    reason = "the help text of each metric stands below, once"
)]
pub struct Metrics {
    registry: Registry,
    pub open_connections: IntGauge,
    pub opened: IntCounter,
    closed: IntCounterVec,
    refused: IntCounterVec,
    published: IntCounterVec,
    publish_refused: IntCounterVec,
    pub delivered: IntCounter,
    pub sent_bytes: IntCounter,
    pub heartbeats: IntCounter,
    replays: IntCounterVec,
    gaps: IntCounterVec,
    redis_up: IntGaugeVec,
    redis_reconnects: IntCounterVec,
    redis_errors: IntCounterVec,
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
    pub latency: Histogram,
    pub topics: IntGauge,
    pub window_bytes: IntGauge,
    pub ingest_heard: IntCounter,
    ingest_refused: IntCounterVec,
    ingest_appends: IntCounterVec,
    pub ingest_owed: IntGauge,
    pub accept_errors: IntCounter,
    pub sockets: IntGauge,
    pub ready: IntGauge,
    pub draining: IntGauge,
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
/// Label values of `redis_errors`.
const ERRORS: [&str; 3] = ["unavailable", "out_of_memory", "refused"];
/// Delivery latency: half a millisecond to ten seconds, roughly doubling.
const LATENCY: [f64; 14] = [
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.25, 0.5, 1.0, 3.0, 10.0,
];

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
        let info = r.gauges(
            "build_info",
            "Always 1; which build this is.",
            &["version", "revision"],
        );
        info.with_label_values(&[
            env!("CARGO_PKG_VERSION"),
            option_env!("TIDEGATE_REVISION").unwrap_or("unknown"),
        ])
        .set(1);
        let reasons: Vec<&str> = GapReason::ALL
            .iter()
            .map(|reason| reason.as_str())
            .collect();
        let closes: Vec<&str> = CloseReason::ALL
            .iter()
            .map(|reason| reason.as_str())
            .collect();
        let roles: Vec<&str> = Role::ALL.iter().map(|role| role.as_str()).collect();
        let metrics = Self {
            open_connections: r.gauge("open_connections", "Streams that are open now."),
            opened: r.counter("connections_opened_total", "Streams opened. Far above the number open: a reconnect storm."),
            closed: r.counters("connections_closed_total", "Streams closed, by reason. Many by held: holes are not repaired in time.", "reason", &closes),
            refused: r.counters("connections_refused_total", "Streams refused, by reason. Any by limit: raise limits.streams_max or add a replica.", "reason", &REFUSALS),
            published: r.counters("events_published_total", "Events this replica has put into the log, or sent live only, by where they came from. Publishes straight through the function are not seen by a replica.", "source", &SOURCES),
            publish_refused: r.counters("publish_refused_total", "Publishes refused over HTTP, by reason.", "reason", &PUBLISH_REFUSALS),
            delivered: r.counter("events_delivered_total", "Events written to streams, gaps not counted."),
            sent_bytes: r.counter("sent_bytes_total", "Bytes of stream bodies handed to sockets."),
            heartbeats: r.counter("heartbeats_sent_total", "Heartbeats written. Flat while streams are open: the timers stand still."),
            replays: r.counters("replays_total", "Streams that resumed or asked for history, by where the events came from.", "outcome", &["window", "log"]),
            gaps: r.counters("gaps_total", "Gaps told to streams, by reason. bad_cursor is the client's fault, everything else is loss or retention.", "reason", &reasons),
            redis_up: r.gauges_of("redis_up", "1 while the connections of this role work. ear is 1 only on replicas that listen.", "role", &roles),
            redis_reconnects: r.counters("redis_reconnects_total", "Connections lost and made again, by role.", "role", &["live", "ear"]),
            redis_errors: r.counters("redis_errors_total", "Commands that failed, by kind.", "kind", &ERRORS),
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
            latency: r.histogram("delivery_latency_seconds", "From an event's id to the socket, for live events, one sample a write. Clocks of Redis and this machine count.", &LATENCY),
            topics: r.gauge("topics", "Topics that streams on this replica read."),
            window_bytes: r.gauge("window_bytes", "Bytes of encoded events held in memory."),
            ingest_heard: r.counter("ingest_heard_total", "Raw publishes that this ear has counted."),
            ingest_refused: r.counters("ingest_refused_total", "Raw publishes and inbox entries that did not become events: not valid, refused by the log (ended, too large), or owed and given up.", "reason", &INGEST_REFUSALS),
            ingest_appends: r.counters("ingest_appends_total", "Appends by this ear, by answer. ok is normal, wait and hole pass, diverged must not be.", "outcome", &APPENDS),
            ingest_owed: r.gauge("ingest_owed", "Raw publishes counted by this ear and not yet known to be logged. Growing: appends fail."),
            accept_errors: r.counter("accept_errors_total", "Connections that could not be accepted, mostly for want of descriptors."),
            sockets: r.gauge("sockets", "Client connections, streams and others."),
            ready: r.gauge("ready", "1 when /readyz answers 200."),
            draining: r.gauge("draining", "1 from SIGTERM on."),
            registry: registry.clone(),
        };
        Arc::new(metrics)
    }

    /// A stream ended.
    pub fn closed(&self, reason: CloseReason) {
        self.open_connections.dec();
        self.closed.with_label_values(&[reason.as_str()]).inc();
    }

    /// A stream was refused; `reason` is one of `bad_request`, `draining`, `limit`.
    pub fn refused(&self, reason: &'static str) {
        debug_assert!(REFUSALS.contains(&reason));
        self.refused.with_label_values(&[reason]).inc();
    }

    /// Events went into the log; `source` is one of `http`, `raw`, `inbox`.
    pub fn published(&self, source: &'static str, events: usize) {
        debug_assert!(SOURCES.contains(&source));
        self.published
            .with_label_values(&[source])
            .inc_by(events as u64);
    }

    /// A publish over HTTP was refused.
    pub fn publish_refused(&self, reason: &'static str) {
        debug_assert!(PUBLISH_REFUSALS.contains(&reason));
        self.publish_refused.with_label_values(&[reason]).inc();
    }

    /// A stream began with a cursor or with history; `outcome` is `window` or `log`.
    pub fn replayed(&self, outcome: &'static str) {
        self.replays.with_label_values(&[outcome]).inc();
    }

    /// A stream was told of a gap.
    pub fn gap(&self, reason: GapReason) {
        self.gaps.with_label_values(&[reason.as_str()]).inc();
    }

    /// Connections of a role work, or not.
    pub fn redis_up(&self, role: Role, up: bool) {
        self.redis_up
            .with_label_values(&[role.as_str()])
            .set(i64::from(up));
    }

    /// Whether connections of a role work.
    #[must_use]
    pub fn is_redis_up(&self, role: Role) -> bool {
        self.redis_up.with_label_values(&[role.as_str()]).get() == 1
    }

    /// A connection is made again; `role` is the live one or the ear's.
    pub fn redis_reconnected(&self, role: Role) {
        self.redis_reconnects
            .with_label_values(&[role.as_str()])
            .inc();
    }

    /// A command failed.
    pub fn redis_error(&self, kind: &'static str) {
        debug_assert!(ERRORS.contains(&kind));
        self.redis_errors.with_label_values(&[kind]).inc();
    }

    /// Raw publishes or inbox entries did not become events.
    pub fn ingest_refused(&self, reason: &'static str, count: usize) {
        debug_assert!(INGEST_REFUSALS.contains(&reason));
        self.ingest_refused
            .with_label_values(&[reason])
            .inc_by(count as u64);
    }

    /// An append was answered.
    pub fn ingest_append(&self, outcome: &'static str) {
        debug_assert!(APPENDS.contains(&outcome));
        self.ingest_appends.with_label_values(&[outcome]).inc();
    }

    /// The exposition, and its content type.
    #[must_use]
    pub fn text(&self) -> (String, &'static str) {
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

/// Makes and registers metrics named `tidegate_<name>`.
struct Register<'a>(&'a Registry);

#[expect(
    clippy::expect_used,
    reason = "names are constants; the first start of any test shows a clash"
)]
impl Register<'_> {
    fn add<M: prometheus::core::Collector + Clone + 'static>(
        &self,
        metric: prometheus::Result<M>,
    ) -> M {
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

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Self::opts(name, help), labels))
    }

    fn gauges_of(&self, name: &str, help: &str, label: &str, values: &[&str]) -> IntGaugeVec {
        let gauges = self.gauges(name, help, &[label]);
        for value in values {
            gauges.with_label_values(&[*value]).set(0);
        }
        gauges
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::with_opts(Self::opts(name, help)))
    }

    fn counters(&self, name: &str, help: &str, label: &str, values: &[&str]) -> IntCounterVec {
        let counters = self.add(IntCounterVec::new(Self::opts(name, help), &[label]));
        for value in values {
            counters.with_label_values(&[*value]).reset();
        }
        counters
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let opts = HistogramOpts::from(Self::opts(name, help)).buckets(buckets.to_vec());
        self.add(Histogram::with_opts(opts))
    }
}
