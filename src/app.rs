//! Start and stop: builds the parts, owns their tasks, and ends them in order.
//!
//! Start: everything is judged before a socket opens; then the log is approached, the listeners
//! are bound, and the addresses said. Redis may be away: the replica starts, is not ready, takes
//! streams and waits.
//!
//! Stop: not ready; after `drain.wait`, streams are cut in slices over `drain.time`; the ears append what they owe;
//! connections finish the request they are at; every task is joined.

mod background;
mod broker;
pub(crate) mod descriptors;
pub(crate) mod jwks;
mod supervisor;

use self::background::Background;
use self::jwks::Fetching;
use self::supervisor::{Inherited, State};
use crate::auth::jwks::KeySets;
use crate::auth::{Authority, Revocations};
use crate::config::{Config, Engine, Origins};
use crate::follow::denials::Denials;
use crate::follow::reads::Reads;
use crate::http::accept::Listener;
use crate::http::{Answers, Auth, Gateway, Guard, Intake, Rules, ops_router, router};
use crate::hub::Hub;
use crate::limits::Addresses;
use crate::limits::places::Places;
use crate::metrics::Metrics;
use crate::stream::registry::OpenStreams;
use crate::stream::settings::{Drain, StreamSettings};
use crate::stream::sockets::{Patience, Sockets, Threads};
use crate::swap::Swap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Between two checks whether the streams are gone.
const CHECK_EVERY: Duration = Duration::from_millis(20);
/// Time for requests that have begun, and then for tasks to end once they were told. Whoever stops a replica has
/// patience for both: deploy/ and docs/ name the sum.
const JOIN: Duration = Duration::from_secs(8);
/// Of the first of these, what streams may take that were cut at the end of `drain.time`.
const LAST_CUTS: Duration = Duration::from_secs(1);

/// A replica that runs: its parts, and whoever can end them. Dropped without [`App::stop`], its tasks
/// go on.
#[derive(Debug)]
pub struct App {
    gateway: Arc<Gateway>,
    drain_wait: Duration,
    drain_time: Duration,
    hand_over: bool,
    /// Ends the tasks behind the streams: follower, live path, ears.
    background: CancellationToken,
    /// Ends the listeners and idle connections.
    listeners: CancellationToken,
    tasks: TaskTracker,
    connections: TaskTracker,
    fetching: Fetching,
    address: SocketAddr,
}

impl App {
    /// Starts a replica.
    ///
    /// # Errors
    /// One sentence about what cannot be had: an address, or a broker.
    pub fn start(config: &Config) -> Result<Self, String> {
        let metrics = Metrics::new();
        let mut inherited = Inherited::take()?;
        let mut listen = |address| match inherited.claim(address) {
            Some(socket) => Listener::adopt(socket, &config.server, metrics.clone()),
            None => Listener::bind(address, &config.server, metrics.clone()),
        };
        let main = listen(config.server.listen)?;
        let ops = config.ops.listen.map(&mut listen).transpose()?;
        inherited.nothing_left()?;
        let address = main.address().map_err(|why| why.to_string())?;
        descriptors::take(config.server.connections_max);
        say_limits(config, &metrics);
        metrics.listens_at(address);

        let tasks = TaskTracker::new();
        let background = CancellationToken::new();
        let (broker, path) = broker::open(config, &metrics, &tasks, &background)?;
        let hub = Hub::new(broker.partitions(), config.window);
        let open_streams = OpenStreams::new(metrics.clone(), config.logging.stream_lines_max);
        let reached = Arc::new(AtomicBool::new(false));
        let behind = Background {
            config,
            hub: &hub,
            broker: &broker,
            metrics: &metrics,
            open_streams: &open_streams,
            tasks: &tasks,
            stop: &background,
        };
        behind.spawn(path, reached.clone());

        let each_max = config.address_limits().replays_max;
        let reads = Reads::new(
            hub.clone(),
            broker.clone(),
            metrics.clone(),
            tasks.clone(),
            [(); 2].map(|()| Places::new(config.limits.replays_max, each_max, metrics.clone())),
            config.limits.page_bytes_max,
        );
        let authority = authority(config, &KeySets::default());
        let denials = Denials::new(Arc::new(Revocations::new(
            authority.clone(),
            config.stream.age_max,
        )));
        let streams = Arc::new(stream_settings(config, denials.revocations(), &metrics));
        tasks.spawn(denials.clone().run(
            broker.clone(),
            hub.clone(),
            metrics.clone(),
            background.clone(),
        ));
        let sockets = start_sockets(config.engine, &streams, &reads)?;
        let intake = Intake::new(&config.publish, metrics.clone());
        let answers = Answers::new(config.limits.answer_bytes_max, metrics.clone());
        let gateway = Arc::new(Gateway {
            hub,
            broker,
            reads,
            denials,
            streams,
            addresses: Addresses::new(metrics.clone()),
            metrics,
            rules: Swap::new(rules(config, authority)),
            publish: config.publish.clone(),
            publishing: Semaphore::new(config.publish.in_flight_max),
            intake,
            answers,
            body_timeout: config.server.body_timeout,
            open_wait: config.stream.open_wait,
            open_streams,
            bodies: Arc::default(),
            sockets: sockets.clone(),
            reached,
            leaving: AtomicBool::new(false),
        });
        let judged = gateway.clone();
        let fetching = Fetching::new(
            Arc::new(move || judge_streams(&judged)),
            gateway.metrics.clone(),
            tasks.clone(),
            &background,
        );
        fetching.begin(&key_sets(&gateway), &config.auth.jwks);
        let (stop, bodies) = (background.clone(), gateway.bodies.clone());
        tasks.spawn(async move { stop.run_until_cancelled(bodies.watch()).await });
        let listeners = CancellationToken::new();
        let connections = TaskTracker::new();
        if let Some(ops) = ops {
            let address = ops.address().map_err(|why| why.to_string())?;
            tracing::info!(%address, "operations listening");
            let guard = Guard::new(
                gateway.clone(),
                &config.server,
                &Origins::default(),
                address,
                true,
            );
            tasks.spawn(ops.for_operators().serve(
                ops_router(gateway.clone(), guard),
                listeners.clone(),
                connections.clone(),
            ));
        }
        let guard = Guard::new(
            gateway.clone(),
            &config.server,
            &config.cors.origins,
            address,
            false,
        );
        let routes = router(gateway.clone(), guard, config.ops.listen.is_none());
        let main = main.with_sockets(sockets);
        tasks.spawn(main.serve(routes, listeners.clone(), connections.clone()));
        tracing::info!(%address, replica = config.replica.name, "listening");
        if supervisor::is_there() {
            tasks.spawn(supervisor::tell(
                state_of(gateway.clone()),
                background.clone(),
            ));
        }
        Ok(Self {
            gateway,
            drain_wait: config.drain.wait,
            drain_time: config.drain.time,
            hand_over: config.drain.hand_over,
            background,
            listeners,
            tasks,
            connections,
            fetching,
            address,
        })
    }

    /// Where clients connect; with `server.listen = "…:0"` the port that was taken.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Goes on with what of a newer configuration can change while streams are open.
    pub fn reload(&self, config: &Config) {
        let gateway = &self.gateway;
        say_limits(config, &gateway.metrics);
        // Sets that are fetched already serve on.
        let authority = authority(config, &key_sets(gateway));
        gateway.rules.set(rules(config, authority));
        // After the rules: a stream that is admitted meanwhile has not seen this edition.
        judge_streams(gateway);
        self.fetching.begin(&key_sets(gateway), &config.auth.jwks);
        // Whether it is so by the new rules is seen again by the next request.
        gateway.metrics.forwarded_without_key.set(0);
        let each_max = config.address_limits().replays_max;
        gateway
            .reads
            .set_places(config.limits.replays_max, each_max);
        gateway
            .reads
            .set_page_bytes_max(config.limits.page_bytes_max);
        gateway
            .answers
            .set_bytes_max(config.limits.answer_bytes_max);
        gateway
            .open_streams
            .set_lines_max(config.logging.stream_lines_max);
        if let Some(access) = config.redis.access.clone() {
            gateway.broker.reach_by(access);
        }
        let retention = config.retention();
        if *gateway.streams.retention.get() != retention {
            gateway.streams.retention.set(retention.clone());
            let broker = gateway.broker.clone();
            self.tasks
                .spawn(async move { broker.retain(retention).await });
        }
    }

    /// The metrics of this process.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.gateway.metrics
    }

    /// Drains and ends. Takes `drain.wait`, `drain.time` and twice the time of `JOIN` at most.
    pub async fn stop(self) {
        self.gateway.leaving.store(true, Ordering::Release);
        if !self.drain_wait.is_zero() && !self.hand_over {
            let wait_ms = crate::time::millis(self.drain_wait);
            tracing::info!(wait_ms, "not ready any more, and waiting for the balancer");
            tokio::time::sleep(self.drain_wait).await;
        }
        let began = Instant::now();
        self.gateway.streams.drain.begin(began);
        self.gateway.hub.wake_all_streams();
        tracing::info!(streams = self.open_streams(), "draining");
        if self.hand_over {
            // Another process accepts on these sockets.
            self.listeners.cancel();
        }
        let patience = self.drain_time.saturating_add(LAST_CUTS);
        while self.open_streams() > 0 && began.elapsed() < patience {
            tokio::time::sleep(CHECK_EVERY).await;
        }
        let left = self.open_streams();
        if left > 0 {
            tracing::warn!(streams = left, "streams are still open after the drain");
        }
        self.listeners.cancel();
        self.connections.close();
        self.tasks.close();
        // Requests that have begun still need what goes on behind them.
        let patience = self.drain_time.saturating_add(JOIN);
        let patience = patience.saturating_sub(began.elapsed()).min(JOIN);
        let ended = tokio::time::timeout(patience, async {
            self.stop_sockets().await;
            self.connections.wait().await;
        });
        let ended = ended.await;
        self.background.cancel();
        let joined = tokio::time::timeout(JOIN, self.tasks.wait()).await;
        if ended.is_err() || joined.is_err() {
            tracing::warn!(
                tasks = self.tasks.len(),
                connections = self.connections.len(),
                "some tasks did not end in time"
            );
        }
        tracing::info!(
            duration_ms = crate::time::millis(began.elapsed()),
            "stopped"
        );
    }

    /// Ends the threads that write streams, on a thread that may wait for one that stands.
    async fn stop_sockets(&self) {
        if let Some(sockets) = self.gateway.sockets.clone() {
            // It does not panic, and is not aborted.
            drop(tokio::task::spawn_blocking(move || sockets.stop()).await);
        }
    }

    fn open_streams(&self) -> usize {
        self.gateway.open_streams.count()
    }
}

/// For whoever supervises this process.
fn state_of(gateway: Arc<Gateway>) -> impl Fn() -> State {
    move || State {
        ready: gateway.is_not_ready().is_none(),
        draining: gateway.is_leaving(),
        stands: gateway.standing().is_some(),
        streams: gateway.open_streams.count(),
    }
}

/// What metrics are held against.
fn say_limits(config: &Config, metrics: &Metrics) {
    for publisher in config.auth.settings.publishers.iter() {
        metrics.published_by(&publisher.name, 0);
    }
    for file in &config.auth.readable_by_all {
        tracing::warn!(
            file,
            "every user of this machine may read this secret; chmod o-r"
        );
    }
    let gauge = |limit: usize| i64::try_from(limit).unwrap_or(i64::MAX);
    metrics
        .connections_limit
        .set(gauge(config.limits.streams_max));
    metrics
        .sockets_limit
        .set(gauge(config.server.connections_max));
    metrics.config_hash.set(config.hash().into());
}

/// None if streams go out as ordinary bodies.
fn start_sockets(
    engine: Engine,
    streams: &Arc<StreamSettings>,
    reads: &Reads,
) -> Result<Option<Arc<Sockets>>, String> {
    let threads = Threads {
        count: engine.count(),
        pinned: engine.pin,
    };
    if threads.count == 0 {
        return Ok(None);
    }
    let runtime = tokio::runtime::Handle::current();
    let patience = Patience {
        stands_after: engine.stall_after,
        ends_after: Some(engine.stall_max).filter(|time| !time.is_zero()),
    };
    Sockets::start(threads, patience, streams, reads, &runtime)
        .map(|sockets| Some(Arc::new(sockets)))
        .map_err(|why| format!("no threads for streams: {why}"))
}

/// Ends the streams whose rights are gone by the rules in force.
fn judge_streams(gateway: &Gateway) {
    let in_force = || gateway.rules.get().auth.authority.clone();
    gateway.denials.revocations().judge_by(in_force);
    gateway.hub.wake_all_streams();
}

/// The key sets that are fetched.
fn key_sets(gateway: &Gateway) -> KeySets {
    gateway.rules.get().auth.authority.tokens().sets.clone()
}

/// Who may do what by a configuration, with what was fetched before of the same key sets.
fn authority(config: &Config, fetched: &KeySets) -> Authority {
    let mut settings = config.auth.settings.clone();
    settings.tokens.sets = settings.tokens.sets.taking_over(fetched);
    Authority::new(settings)
}

fn rules(config: &Config, authority: Authority) -> Rules {
    Rules {
        auth: Auth {
            authority,
            is_open: config.auth.open_publishing,
            cookie: config.auth.cookie.clone(),
            query_token: config.auth.query_token,
            denied_max: config.auth.denied_max,
            ticket_life: config.auth.ticket_life,
            tickets_each_max: config.auth.tickets_each_max,
        },
        limits: config.limits.clone(),
        address: config.address_limits(),
    }
}

fn stream_settings(
    config: &Config,
    revocations: &Arc<Revocations>,
    metrics: &Arc<Metrics>,
) -> StreamSettings {
    StreamSettings {
        replica: config.replica.name.clone(),
        heartbeat: config.stream.heartbeat,
        retry: config.stream.retry,
        age_max: config.stream.age_max,
        open_event: config.stream.open_event,
        repair_time: config.repair.time,
        retention: Swap::new(config.retention()),
        drain: Arc::new(Drain::new(config.drain.time)),
        revocations: revocations.clone(),
        metrics: metrics.clone(),
    }
}
