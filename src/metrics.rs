//! Metrics, in Prometheus' text format. Labels come from closed sets, and every child exists from
//! the start, so that a first gap is seen as a step from zero.
//!
//! Children are made once and kept at hand: counting an event is one atomic addition, and no label is
//! hashed for it. `docs/metrics.md` says what moves each metric and what to look at then;
//! `tests/it/metrics.rs` holds it against what is exposed.

mod labels;
mod machine;
mod register;

pub use labels::{
    AddressLimit, AppendOutcome, AuthRefusal, Behind, CloseReason, Discarded, IngestRefusal,
    KeySetFetch, KeySetState, PoolState, ProxyRefusal, PublishRefusal, RedisFailure, RedisSave,
    Refusal, ReloadOutcome, ReplaySource, RequestRefusal, Role, Source, TicketOutcome, WayOut,
};

use crate::sse::GapReason;
use machine::Machine;
use prometheus::{
    Encoder, Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
};
use register::{Family, Register};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Every metric of this process, with its children at hand.
#[derive(Debug)]
#[expect(
    missing_docs,
    reason = "the help text of each metric stands below, once"
)]
pub struct Metrics {
    registry: Registry,
    machine: Machine,
    open_connections: Family<WayOut, IntGauge>,
    behind: Family<Behind, IntGauge>,
    pub connections_limit: IntGauge,
    opened: IntCounter,
    closed: Family<CloseReason, IntCounter>,
    age: Histogram,
    pub start: Histogram,
    refused: Family<Refusal, IntCounter>,
    published: Family<Source, IntCounter>,
    publish_refused: Family<PublishRefusal, IntCounter>,
    pub publish_time: Histogram,
    pub publishes_in_flight: IntGauge,
    pub publish_bodies: IntGauge,
    pub publish_bodies_bytes: IntGauge,
    pub delivered: IntCounter,
    pub sent_bytes: IntCounter,
    pub heartbeats: IntCounter,
    pub threads_standing: IntGauge,
    pub latency: Histogram,
    live_latency: Histogram,
    clock_offset: Gauge,
    pub sweep: Histogram,
    replays: Family<ReplaySource, IntCounter>,
    pub replay_events: Histogram,
    gaps: Family<GapReason, IntCounter>,
    pub topics: IntGauge,
    pub window_bytes: IntGauge,
    pub window_evicted: IntCounter,
    pub page_bytes: IntGauge,
    pub page_waits: IntCounter,
    pub answer_bytes: IntGauge,
    pub answers_given_up: IntCounter,
    redis_up: Family<Role, IntGauge>,
    redis_reconnects: Family<Role, IntCounter>,
    redis_errors: Family<Role, Family<RedisFailure, IntCounter>>,
    redis_round_trip: Family<Role, Histogram>,
    redis_pool: Family<PoolState, IntGauge>,
    pub repair_reads: IntCounter,
    pub log_reads: IntCounter,
    pub ticks: IntCounter,
    pub live_overflows: IntCounter,
    pub unreadable: IntCounter,
    pub ids_ahead: IntCounter,
    pub unlogged_skipped: IntCounter,
    pub unreplicated: IntCounter,
    pub redis_memory: IntGauge,
    pub redis_memory_max: IntGauge,
    pub redis_may_evict: IntGauge,
    pub redis_replicas: IntGauge,
    redis_save_failed: Family<RedisSave, IntGauge>,
    pub replicas: IntGauge,
    pub ingest_heard: IntCounter,
    ingest_refused: Family<IngestRefusal, IntCounter>,
    ingest_appends: Family<AppendOutcome, IntCounter>,
    pub ingest_owed: IntGauge,
    pub ingest_owed_bytes: IntGauge,
    pub ingest_lag: Gauge,
    ingest_appender: IntGauge,
    ingest_takeovers: IntCounter,
    pub ingest_inbox: IntGauge,
    pub accept_errors: IntCounter,
    pub addresses: IntGauge,
    pub addresses_beyond: IntCounter,
    address_limited: Family<AddressLimit, IntCounter>,
    proxy_refused: Family<ProxyRefusal, IntCounter>,
    requests_refused: Family<RequestRefusal, IntCounter>,
    auth_refused: Family<AuthRefusal, IntCounter>,
    pub tokens_known: IntGauge,
    key_sets: Family<KeySetState, IntGauge>,
    key_set_fetches: Family<KeySetFetch, IntCounter>,
    key_sets_age: Gauge,
    key_sets_waiting: IntGauge,
    pub denied: IntGauge,
    pub denied_read_age: Gauge,
    tickets: Family<TicketOutcome, IntCounter>,
    published_by: IntCounterVec,
    pub forwarded_without_key: IntGauge,
    discarded: Family<Discarded, IntCounter>,
    pub http2_floods: IntCounter,
    pub sockets: IntGauge,
    pub sockets_limit: IntGauge,
    pub ready: IntGauge,
    pub draining: IntGauge,
    pub config_hash: IntGauge,
    config_reloads: Family<ReloadOutcome, IntCounter>,
    config_refused: IntGauge,
    pub redis_access_refused: IntGauge,
}

/// Latency: half a millisecond to ten seconds, roughly doubling.
const LATENCY: [f64; 14] = [
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.25, 0.5, 1.0, 3.0, 10.0,
];
/// Work inside the process and round trips to Redis begin far below: 50 µs.
const SHORT: [f64; 15] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128,
    0.25, 1.0, 5.0,
];
/// Who publishes and has no name of its own.
const PUBLISHER_KINDS: [&str; 3] = ["anyone", "publish_key", "token"];
/// A stream lives from a second to a day.
const AGE: [f64; 11] = [
    1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 21_600.0, 86_400.0,
];
/// Events that one stream was shown before it was live.
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
        let published_by: IntCounterVec = r.add(IntCounterVec::new(
            Register::opts("published_by_total", "Events published over HTTP, by publisher: a name of auth.publishers, publish_key, token, or anyone where nothing is asked."),
            &["publisher"],
        ));
        for name in PUBLISHER_KINDS {
            published_by.with_label_values(&[name]);
        }
        let metrics = Self {
            machine: Machine::new(&r),
            open_connections: r.gauges("open_connections", "Streams that are open now, by the way out: on a socket that one of the stream threads owns, or as an ordinary body (HTTP/2, limit, max_age).", "way"),
            behind: r.gauges("streams_behind", "Streams that are behind now: blocked, their socket takes no more (streams on sockets of the stream threads only), or reading, they wait for a page of the log.", "state"),
            connections_limit: r.gauge("connections_limit", "limits.streams_max: streams beyond it are refused."),
            opened: r.counter("connections_opened_total", "Streams opened. Far above the number open: a reconnect storm."),
            closed: r.counters("connections_closed_total", "Streams closed, by reason. Many by held: holes are not repaired in time.", "reason"),
            age: r.histogram("connection_age_seconds", "How long streams were open, told when they close.", &AGE),
            start: r.histogram("connection_start_seconds", "From a stream's request to its head. stream.open_wait at most; slow: Redis does not confirm subscriptions, or reads for replays wait.", &SHORT),
            refused: r.counters("connections_refused_total", "Streams refused, by reason. Any by limit: raise limits.streams_max or add a replica.", "reason"),
            published: r.counters("events_published_total", "Events this replica has put into the log, or sent live only, by where they came from. Publishes straight through the function are not seen by a replica.", "source"),
            publish_refused: r.counters("publish_refused_total", "Publishes refused over HTTP, by reason.", "reason"),
            publish_time: r.histogram("publish_duration_seconds", "From a publish over HTTP that was read to the log's answer, whichever.", &SHORT),
            publishes_in_flight: r.gauge("publishes_in_flight", "Publishes over HTTP that wait for the log. publish.in_flight_max at most; beyond it they are answered 503."),
            publish_bodies: r.gauge("publish_bodies", "Publishes over HTTP whose bodies come or are worked on. publish.bodies_max at most; beyond it they are answered 503."),
            publish_bodies_bytes: r.gauge("publish_bodies_bytes", "Memory that these bodies take together. publish.bodies_bytes_max at most; beyond it they are answered 503."),
            delivered: r.counter("events_delivered_total", "Events written to streams, gaps not counted."),
            sent_bytes: r.counter("sent_bytes_total", "Bytes of stream bodies handed to sockets."),
            heartbeats: r.counter("heartbeats_sent_total", "Heartbeats written. Flat while streams are open: the timers stand still."),
            threads_standing: r.gauge("stream_threads_standing", "Threads that write streams and have not gone on for engine.stall_after. Above 0: their streams are silent, /healthz answers 503, and the process ends after engine.stall_max."),
            latency: r.histogram("delivery_latency_seconds", "From an event's id to the socket, for live events, one sample a write. Clocks of Redis and this machine count.", &LATENCY),
            live_latency: r.histogram("live_latency_seconds", "From an event's id until this replica has heard its frame: the part of the delivery latency that is Redis and the network.", &LATENCY),
            clock_offset: r.add(Gauge::with_opts(Register::opts("clock_offset_seconds", "This machine's clock less that of Redis, as of the last tick or read, one round trip included. Latencies are off by as much."))),
            sweep: r.histogram("fanout_sweep_seconds", "One sweep of a thread over the streams that were woken, from the first turn to the last write. Long: the last stream of the sweep waits so long.", &SHORT),
            replays: r.counters("replays_total", "Streams that resumed or asked for history, by where the events came from.", "outcome"),
            replay_events: r.histogram("replay_events", "Events that a stream which resumed or asked for history was shown before it was live.", &EVENTS),
            gaps: r.counters("gaps_total", "Gaps told to streams, by reason. bad_cursor is the client's fault, everything else is loss or retention.", "reason"),
            topics: r.gauge("topics", "Topics that streams on this replica read."),
            window_bytes: r.gauge("window_bytes", "Bytes of events in memory, of all topics: windows, and what waits until a topic is read. window.total_bytes_max bounds it."),
            window_evicted: r.counter("window_evicted_events_total", "Events that left a window because all windows were at window.total_bytes_max. Readers that are behind read them from the log."),
            page_bytes: r.gauge("page_bytes", "Bytes of pages of the log in memory, for streams that are being shown them."),
            page_waits: r.counter("page_waits_total", "Reads of the log that waited because limits.page_bytes_max was reached."),
            answer_bytes: r.gauge("answer_bytes", "Bytes of answers of GET /topics and what lies below it that wait for their clients."),
            answers_given_up: r.counter("answers_given_up_total", "Answers of GET /topics and what lies below it that broke off because limits.answer_bytes_max was reached."),
            redis_up: r.gauges("redis_up", "1 while the connections of this role work. ear is 1 only on replicas that listen.", "role"),
            redis_reconnects: r.counters_of("redis_reconnects_total", "Connections lost and made again, by role.", "role", &[Role::Live, Role::Ear]),
            redis_errors: r.counters_by("redis_errors_total", "Commands and attempts to connect that failed, by role of the connection and kind.", ["role", "kind"]),
            redis_round_trip: r.histograms_of("redis_round_trip_seconds", "commands: a function's answer, waiting for a connection of the pool included. live: a tick, from asking for it until it is heard.", "role", &[Role::Commands, Role::Live], &SHORT),
            redis_pool: r.gauges("redis_pool", "Command connections to Redis that are busy or idle, and tasks that wait for one.", "state"),
            repair_reads: r.counter("repair_reads_total", "Reads of the log that open or repair a feed: at a first subscription, after a reconnect, at a hole."),
            log_reads: r.counter("log_reads_total", "Pages of the log read for streams behind their window."),
            ticks: r.counter("ticks_total", "Ticks asked for: silence probed, or a held stream helped on."),
            live_overflows: r.counter("live_overflows_total", "Times that the live queue was full and the subscription was begun anew. Rising: this replica cannot keep up."),
            ids_ahead: r.counter("ids_ahead_total", "Ids on the live path that were more than a minute ahead of Redis' clock. They are not believed, and the log is asked. Any: somebody else publishes to live channels, or Redis' clock was put forward."),
            unreadable: r.counter("unreadable_frames_total", "Live frames or log entries that are not Tidegate's. Any: something else writes to its keys."),
            unlogged_skipped: r.counter("unlogged_events_skipped_total", "Events of topics that are not logged and that a stream never saw, because it was behind by more than a window. Many: readers are slow."),
            unreplicated: r.counter("unreplicated_publishes_total", "Publishes over HTTP that fewer than log.wait_replicas replicas of Redis confirmed in time, answered 503. Any: replicas are away or slow."),
            redis_memory: r.gauge("redis_memory_bytes", "Memory that Redis uses, the log and all else in it. Near redis_memory_max_bytes: publishing will be refused."),
            redis_memory_max: r.gauge("redis_memory_max_bytes", "maxmemory of Redis; 0 without a limit."),
            redis_may_evict: r.gauge("redis_may_evict", "1 while maxmemory-policy is another than noeviction. 1: the log may be lost key by key."),
            redis_replicas: r.gauge("redis_replicas", "Replicas of Redis that are connected to it. Fewer than log.wait_replicas: publishing over HTTP is answered 503."),
            redis_save_failed: r.gauges("redis_save_failed", "1 while Redis' last try to save what it holds has failed, by the way it saves. 1: what comes after it is lost if Redis restarts.", "save"),
            replicas: r.gauge("replicas", "Replicas of Tidegate that this one hears of, itself included. Fewer than are scraped: they do not share one Redis, prefix or partition."),
            ingest_heard: r.counter("ingest_heard_total", "Raw publishes that this ear has counted."),
            ingest_refused: r.counters("ingest_refused_total", "Raw publishes and inbox entries that did not become events: not valid, refused by the log (ended, too large), owed and given up, or heard by an ear that owes as much as it may.", "reason"),
            ingest_appends: r.counters("ingest_appends_total", "Appends by this ear, by answer. ok is normal, wait and hole pass, diverged must not be.", "outcome"),
            ingest_owed: r.gauge("ingest_owed", "Raw publishes counted by this ear and not yet known to be logged. Growing: appends fail."),
            ingest_owed_bytes: r.gauge("ingest_owed_bytes", "Bytes that they take in memory, about. At ingest.owed_bytes_max the ear hears no more until half of it is logged."),
            ingest_lag: r.add(Gauge::with_opts(Register::opts("ingest_lag_seconds", "Age of the oldest raw publish that this ear owes to the log; 0 if it owes none."))),
            ingest_appender: r.gauge("ingest_appender", "1 on the ear that appends at once; the others give it time. One in the fleet, for a moment none or two."),
            ingest_takeovers: r.counter("ingest_takeovers_total", "Times that this ear became the one that appends. Rising without deploys: ears die or are slow."),
            ingest_inbox: r.gauge("ingest_inbox_entries", "Entries in the inbox as this ear last saw it. Growing: they are not moved."),
            accept_errors: r.counter("accept_errors_total", "Connections that could not be accepted, mostly for want of descriptors."),
            addresses: r.gauge("addresses", "Addresses of clients that are known: they hold something, or did so within seconds. limits.address.entries_max at most."),
            addresses_beyond: r.counter("addresses_beyond_total", "Streams and publishes that were not limited by address, since limits.address.entries_max were known. Any: strangers with many addresses, or the table is too small."),
            address_limited: r.counters("address_limited_total", "Times that an address had as much as one may, by the limit. replays: a read of the log waited. The others: a stream or a publish was refused.", "limit"),
            proxy_refused: r.counters("proxy_protocol_refused_total", "Connections refused for want of a PROXY header from a trusted proxy (server.proxy_protocol), by reason.", "reason"),
            requests_refused: r.counters("requests_refused_total", "Requests refused for what they are, before any handler saw them, by reason. cross_site and host: a page that a browser shows would publish or read here.", "reason"),
            auth_refused: r.counters("auth_refused_total", "Requests that had not the right to what they asked for, by reason. Many by expired: pages that do not fetch new tokens. By key or signature: keys that were replaced at one side only, or somebody who tries.", "reason"),
            tokens_known: r.gauge("tokens_known", "Tokens that were verified and are remembered until they end. auth.tokens_known_max at most; at it, some are verified again."),
            key_sets: r.gauges("jwks_sets", "Key sets of auth.keys with a url, by how they stand: fresh, stale (the last fetch failed, and the last good set serves), away (nothing serves). Any away: whoever has a token of theirs is told to come back.", "state"),
            key_set_fetches: r.counters("jwks_refreshes_total", "Fetches of key sets, by what they came to. failed: the log says why.", "outcome"),
            key_sets_age: r.add(Gauge::with_opts(Register::opts("jwks_age_seconds", "Since the oldest key set that serves was asked for; 0 if none does. auth.jwks_refresh as a rule, auth.jwks_stale_max at most."))),
            key_sets_waiting: r.gauge("jwks_tokens_waiting", "Tokens of unknown keys that wait until key sets are fetched. auth.jwks_unknown_max at most, twice for each address. Many: a key was replaced, or somebody makes them up."),
            denied: r.gauge("denied_entries", "What was taken back and is kept: subjects, tokens, and topics whose streams were ended. auth.denied_max at most; at it, POST /disconnect is answered 507."),
            denied_read_age: r.add(Gauge::with_opts(Register::opts("denied_read_age_seconds", "How long ago this replica has read what was taken back. Above a second: streams that come with a token show nothing until it reads again."))),
            tickets: r.counters("tickets_total", "Tickets, by what became of them. made without used: pages that fetch tickets and open no stream. limit: one owner has auth.tickets_each_max that nobody has used. away: the log is away, so none could be kept.", "outcome"),
            published_by,
            forwarded_without_key: r.gauge("forwarded_without_key", "1 once a request came from beyond this machine through a proxy, while the gateway listens on loopback and has no publish key. Writes of that kind are refused."),
            discarded: r.counters("discarded_bodies_total", "Bodies of requests that were answered before they were read, by what became of the rest. bytes and time: the connection was closed, and its client may not have seen the answer.", "outcome"),
            http2_floods: r.counter("http2_floods_total", "Connections of HTTP/2 that were closed because more frames that ask for nothing came than server.http2_control_frames_max allows."),
            sockets: r.gauge("sockets", "Client connections, streams and others."),
            sockets_limit: r.gauge("sockets_limit", "server.connections_max: connections beyond it wait to be accepted."),
            ready: r.gauge("ready", "1 when /readyz answers 200."),
            draining: r.gauge("draining", "1 from SIGTERM on."),
            config_reloads: r.counters("config_reloads_total", "Times that SIGHUP had the configuration read again, by what became of it.", "outcome"),
            config_refused: r.gauge("config_refused", "1 from a reload that was refused until one is taken: the file is at fault, and the log says where. The replica goes on as it was, and would not start again."),
            redis_access_refused: r.gauge("redis_access_refused", "1 while what a reload says of the way to Redis (redis.url and its relatives) does not work: a password is wrong, or nobody is there. The replica goes on as before and tries again; the log says why."),
            config_hash: r.gauge("config_hash", "Hash of the configuration in force, without secrets and what is a replica's own (its name and addresses). It differs within the fleet: replicas run with different settings."),
            registry: registry.clone(),
        };
        Arc::new(metrics)
    }

    /// The configuration was read again, and taken or refused.
    pub fn reloaded(&self, taken: bool) {
        let outcome = if taken {
            ReloadOutcome::Taken
        } else {
            ReloadOutcome::Refused
        };
        self.config_reloads.inc(outcome);
        self.config_refused.set(i64::from(!taken));
    }

    /// Where clients connect: the accept queue of this address is told at each scrape.
    pub fn listens_at(&self, address: SocketAddr) {
        self.machine.listens_at(address);
    }

    /// A stream is behind, for as long as the answer lives.
    #[must_use]
    pub fn behind(&self, why: Behind) -> Counted {
        let gauge = self.behind.of(why).cloned();
        if let Some(gauge) = &gauge {
            gauge.inc();
        }
        Counted(gauge)
    }

    /// A stream was opened; it counts as open until [`Metrics::closed`].
    pub fn opened(&self, way: WayOut) {
        self.opened.inc();
        self.open_connections.inc(way);
    }

    /// A stream ended, after this time and for this reason.
    pub fn closed(&self, way: WayOut, reason: CloseReason, age: Duration) {
        self.open_connections.dec(way);
        self.closed.inc(reason);
        self.age.observe(age.as_secs_f64());
    }

    /// A stream goes on by another way out.
    pub fn goes_by(&self, before: WayOut, way: WayOut) {
        self.open_connections.dec(before);
        self.open_connections.inc(way);
    }

    /// A stream was refused before it was opened.
    pub fn refused(&self, reason: Refusal) {
        self.refused.inc(reason);
    }

    /// An address had as much as one may.
    pub fn address_limited(&self, limit: AddressLimit) {
        self.address_limited.inc(limit);
    }

    /// A connection did not begin with the PROXY protocol, as it must.
    pub fn proxy_refused(&self, reason: ProxyRefusal) {
        self.proxy_refused.inc(reason);
    }

    /// Events went into the log.
    pub fn published(&self, source: Source, events: usize) {
        self.published.add(source, events as u64);
    }

    /// A publish over HTTP was refused.
    pub fn publish_refused(&self, reason: PublishRefusal) {
        self.publish_refused.inc(reason);
    }

    /// A request has not the right to what it asks for.
    pub fn auth_refused(&self, reason: AuthRefusal) {
        self.auth_refused.inc(reason);
    }

    /// A key set was fetched, or was not.
    pub fn key_set_fetched(&self, outcome: KeySetFetch) {
        self.key_set_fetches.inc(outcome);
    }

    /// How all key sets stand that are fetched, how old the oldest is that serves, and how many tokens wait for them.
    pub fn key_sets(&self, states: &[KeySetState], oldest: Duration, waiting: usize) {
        for state in [KeySetState::Fresh, KeySetState::Stale, KeySetState::Away] {
            let count = states.iter().filter(|it| **it == state).count();
            self.key_sets
                .set(state, i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.key_sets_age.set(oldest.as_secs_f64());
        self.key_sets_waiting
            .set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    /// A ticket was given out or used, or could not be given out.
    pub fn ticket(&self, outcome: TicketOutcome) {
        self.tickets.inc(outcome);
    }

    /// So many events were published over HTTP in this name: that of a publisher, or one of `PUBLISHER_KINDS`.
    pub fn published_by(&self, name: &str, count: usize) {
        let events = self.published_by.with_label_values(&[name]);
        events.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// A request was refused before any handler saw it.
    pub fn request_refused(&self, reason: RequestRefusal) {
        self.requests_refused.inc(reason);
    }

    /// The rest of a body that nobody had read is gone.
    pub fn discarded(&self, outcome: Discarded) {
        self.discarded.inc(outcome);
    }

    /// A stream began with a cursor or with history.
    pub fn replayed(&self, from: ReplaySource) {
        self.replays.inc(from);
    }

    /// A stream was told of a gap.
    pub fn gap(&self, reason: GapReason) {
        self.gaps.inc(reason);
    }

    /// Connections of a role work, or not.
    pub fn redis_up(&self, role: Role, up: bool) {
        self.redis_up.set(role, i64::from(up));
    }

    /// A connection is made again; `role` is the live one or the ear's.
    pub fn redis_reconnected(&self, role: Role) {
        self.redis_reconnects.inc(role);
    }

    /// A command failed, or an attempt to connect.
    pub fn redis_error(&self, role: Role, kind: RedisFailure) {
        if let Some(errors) = self.redis_errors.of(role) {
            errors.inc(kind);
        }
    }

    /// Redis has answered; `role` is that of commands or the live one.
    pub fn redis_answered(&self, role: Role, after: Duration) {
        if let Some(trip) = self.redis_round_trip.of(role) {
            trip.observe(after.as_secs_f64());
        }
    }

    /// A live frame was heard, of an event that was given its id at this time.
    pub fn heard(&self, id_ms: u64) {
        self.live_latency.observe(seconds_since(id_ms).max(0.0));
    }

    /// Redis has said what time it is.
    pub fn clock_read(&self, now_ms: u64) {
        self.clock_offset.set(seconds_since(now_ms));
    }

    /// Whether the last try of Redis to save in this way has failed. Returns whether it has only now begun to.
    pub fn redis_save(&self, save: RedisSave, failed: bool) -> bool {
        let before = self.redis_save_failed.of(save).map_or(0, IntGauge::get);
        self.redis_save_failed.set(save, i64::from(failed));
        failed && before == 0
    }

    /// How the pool of command connections stands.
    pub fn redis_pool(&self, busy: usize, idle: usize, waiting: usize) {
        let states = [PoolState::Busy, PoolState::Idle, PoolState::Waiting];
        for (state, connections) in states.into_iter().zip([busy, idle, waiting]) {
            let connections = i64::try_from(connections).unwrap_or(i64::MAX);
            self.redis_pool.set(state, connections);
        }
    }

    /// Raw publishes or inbox entries did not become events.
    pub fn ingest_refused(&self, reason: IngestRefusal, count: usize) {
        self.ingest_refused.add(reason, count as u64);
    }

    /// Redis has answered an append of this ear, or has not.
    pub fn ingest_append(&self, outcome: AppendOutcome) {
        self.ingest_appends.inc(outcome);
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
        self.machine.sample();
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
