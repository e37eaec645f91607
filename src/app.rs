//! Start and stop: builds the parts, owns their tasks, and ends them in order.
//!
//! Start: everything is judged before a socket opens; then the log is approached, the listeners
//! are bound, and the addresses said. Redis may be away: the replica starts, is not ready, takes
//! streams and waits.
//!
//! Stop: not ready; after `drain.wait`, streams are cut in slices over `drain.time`; the ears append what they owe;
//! connections finish the request they are at; every task is joined.

mod supervisor;

use self::supervisor::{Inherited, State};
use crate::broker::redis::{Redis, Settings, follow_master, run_live};
use crate::broker::{Broker, LivePath, Memory};
use crate::config::{Config, Engine};
use crate::follow::fleet;
use crate::follow::reads::Reads;
use crate::follow::{FollowSettings, Follower};
use crate::http::accept::Listener;
use crate::http::{Auth, Gateway, Rules, ops_router, router};
use crate::hub::Hub;
use crate::ingest::{inbox, link};
use crate::metrics::Metrics;
use crate::stream::body::Bodies;
use crate::stream::registry::OpenStreams;
use crate::stream::settings::{Drain, StreamSettings};
use crate::stream::sockets::{Sockets, Threads};
use crate::swap::Swap;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Between two looks whether the streams are gone.
const LOOK: Duration = Duration::from_millis(20);
/// Time for requests that have begun, and then for tasks to end once they were told. Whoever stops a replica has
/// patience for both: deploy/ and docs/ name the sum.
const JOIN: Duration = Duration::from_secs(8);

/// A running replica.
#[derive(Debug)]
pub struct App {
    gateway: Arc<Gateway>,
    sockets: Option<Arc<Sockets>>,
    drain_wait: Duration,
    drain_time: Duration,
    hand_over: bool,
    /// Ends the tasks behind the streams: follower, live path, ears.
    background: CancellationToken,
    /// Ends the listeners and idle connections.
    listeners: CancellationToken,
    tasks: TaskTracker,
    connections: TaskTracker,
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
        say_limits(config, &metrics);
        metrics.listens_at(address);

        let tasks = TaskTracker::new();
        let background = CancellationToken::new();
        let (broker, path) = open_broker(config, &metrics, &tasks, &background)?;
        let hub = Hub::new(broker.partitions(), config.window);
        let reached = Arc::new(AtomicBool::new(false));
        let parts = Parts {
            config,
            hub: &hub,
            broker: &broker,
            metrics: &metrics,
            tasks: &tasks,
            stop: &background,
        };
        parts.spawn(path, reached.clone());

        let gateway = Arc::new(Gateway {
            reads: Reads::new(
                hub.clone(),
                broker.clone(),
                metrics.clone(),
                tasks.clone(),
                config.limits.replays_max,
            ),
            streams: Arc::new(stream_settings(config, &metrics)),
            rules: Swap::new(rules(config)),
            publish: config.publish.clone(),
            publishing: Semaphore::new(config.publish.in_flight_max),
            open_wait: config.stream.open_wait,
            bodies: Arc::new(Bodies::default()),
            open_streams: OpenStreams::new(metrics.clone(), config.logging.stream_lines_max),
            sockets: OnceLock::new(),
            reached,
            leaving: AtomicBool::new(false),
            hub,
            broker,
            metrics,
        });
        let sockets = start_sockets(config.engine, &gateway)?;
        if let Some(sockets) = &sockets {
            gateway.sockets.get_or_init(|| sockets.clone());
        }
        tasks.spawn(say_left_out(
            gateway.open_streams.clone(),
            background.clone(),
        ));
        let listeners = CancellationToken::new();
        let connections = TaskTracker::new();
        if let Some(ops) = ops {
            tracing::info!(address = %ops.address().map_err(|why| why.to_string())?, "operations listening");
            tasks.spawn(ops.serve(
                ops_router(gateway.clone()),
                listeners.clone(),
                connections.clone(),
            ));
        }
        let routes = router(gateway.clone(), config.ops.listen.is_none());
        let main = main.with_sockets(sockets.clone());
        tasks.spawn(main.serve(routes, listeners.clone(), connections.clone()));
        tracing::info!(%address, replica = config.replica.name, "listening");
        if supervisor::is_there() {
            let (stop, tell) = (
                background.clone(),
                supervisor::tell(state_of(gateway.clone())),
            );
            tasks.spawn(async move { stop.run_until_cancelled(tell).await });
        }
        Ok(Self {
            gateway,
            drain_wait: config.drain.wait,
            drain_time: config.drain.time,
            hand_over: config.drain.hand_over,
            background,
            sockets,
            listeners,
            tasks,
            connections,
            address,
        })
    }

    /// The main listener's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Goes on with what of a newer configuration can change while streams are open.
    pub fn reload(&self, config: &Config) {
        let gateway = &self.gateway;
        say_limits(config, &gateway.metrics);
        gateway.rules.set(rules(config));
        gateway.reads.set_places(config.limits.replays_max);
        gateway
            .open_streams
            .set_lines_max(config.logging.stream_lines_max);
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
        tracing::info!(streams = self.open_streams(), "draining");
        self.gateway.streams.drain.begin(began);
        self.gateway.hub.wake_all_streams();
        if self.hand_over {
            // Another process accepts on these sockets.
            self.listeners.cancel();
        }
        while self.open_streams() > 0 && began.elapsed() < self.drain_time {
            tokio::time::sleep(LOOK).await;
        }
        let left = self.open_streams();
        if left > 0 {
            tracing::warn!(streams = left, "streams are still open after the drain");
        }
        if let Some(sockets) = &self.sockets {
            sockets.stop();
        }
        self.listeners.cancel();
        self.connections.close();
        self.tasks.close();
        // Requests that have begun still need what goes on behind them.
        let ended = tokio::time::timeout(JOIN, self.connections.wait()).await;
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

    fn open_streams(&self) -> usize {
        self.gateway.open_streams.count()
    }
}

/// For whoever supervises this process.
fn state_of(gateway: Arc<Gateway>) -> impl Fn() -> State {
    move || State {
        ready: gateway.reached.load(Ordering::Acquire),
        draining: gateway.is_leaving(),
        streams: gateway.open_streams.count(),
    }
}

fn open_broker(
    config: &Config,
    metrics: &Arc<Metrics>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(Arc<Broker>, LivePath), String> {
    let Some(access) = &config.redis.access else {
        tracing::warn!("no redis.url: the log is kept in memory and is gone with this process");
        let (memory, path, answers) = Memory::open(config.retention());
        let stop = stop.clone();
        tasks.spawn(async move { stop.run_until_cancelled(answers).await });
        return Ok((Arc::new(Broker::Memory(Box::new(memory))), path));
    };
    let settings = Settings {
        access: access.clone(),
        prefix: config.redis.prefix.clone(),
        partitions: config.redis.partitions,
        pool_size: config.redis.pool_size,
        connect_timeout: config.redis.connect_timeout,
        command_timeout: config.redis.command_timeout,
        backoff_max: config.redis.backoff_max,
        live_queue_bytes: config.redis.live_queue_bytes,
        allow_eviction: config.redis.allow_eviction,
        replica: config.replica.name.clone(),
        retention: config.retention(),
        wait_replicas: config.log.wait_replicas,
        wait_timeout: config.log.wait_timeout,
    };
    let redis = Redis::open(settings, metrics.clone())?;
    let (path, live, wanted) = Redis::live_path();
    let (until, master) = (stop.clone(), follow_master(redis.clone()));
    tasks.spawn(async move { until.run_until_cancelled(master).await });
    let (stop, follower) = (stop.clone(), redis.clone());
    tasks.spawn(async move {
        let live = Box::pin(run_live(follower, live, wanted));
        stop.run_until_cancelled(live).await
    });
    Ok((Arc::new(Broker::Redis(redis)), path))
}

/// Says once a second what the log has left out; for the last time at the stop.
async fn say_left_out(open: Arc<OpenStreams>, stop: CancellationToken) {
    let mut beat = tokio::time::interval(Duration::from_secs(1));
    while stop.run_until_cancelled(beat.tick()).await.is_some() {
        open.say_left_out();
    }
    open.say_left_out();
}

/// What metrics are held against.
fn say_limits(config: &Config, metrics: &Metrics) {
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
fn start_sockets(engine: Engine, gateway: &Gateway) -> Result<Option<Arc<Sockets>>, String> {
    let threads = Threads {
        count: engine.count(),
        pinned: engine.pin,
    };
    if threads.count == 0 {
        return Ok(None);
    }
    let runtime = tokio::runtime::Handle::current();
    Sockets::start(threads, &gateway.streams, &gateway.reads, &runtime)
        .map(|sockets| Some(Arc::new(sockets)))
        .map_err(|why| format!("no threads for streams: {why}"))
}

/// What goes on behind the requests.
struct Parts<'a> {
    config: &'a Config,
    hub: &'a Arc<Hub>,
    broker: &'a Arc<Broker>,
    metrics: &'a Arc<Metrics>,
    tasks: &'a TaskTracker,
    stop: &'a CancellationToken,
}

impl Parts<'_> {
    fn spawn(&self, path: LivePath, reached: Arc<AtomicBool>) {
        let follower = Follower::new(
            self.hub.clone(),
            self.broker.clone(),
            self.metrics.clone(),
            follow_settings(self.config),
            reached,
        );
        self.tasks.spawn(follower.run(path, self.stop.clone()));
        let (replicas, others) = watch::channel(Arc::from([]));
        self.tasks.spawn(fleet::run(
            self.hub.clone(),
            self.broker.clone(),
            self.metrics.clone(),
            self.config.replica.name.clone(),
            replicas,
            self.stop.clone(),
        ));
        self.spawn_ingest(&others);
    }

    fn spawn_ingest(&self, replicas: &fleet::Replicas) {
        let config = self.config;
        let (Broker::Redis(redis), true) = (&**self.broker, config.ingest.enabled) else {
            return;
        };
        let settings = link::EarSettings {
            name: config.replica.name.clone(),
            channel: config.ingest.channel.clone(),
            ears: config.ingest.ears,
            owed_max: config.ingest.owed_max,
            event_bytes_max: config.publish.event_bytes_max,
        };
        self.tasks.spawn(link::run(
            redis.clone(),
            settings,
            replicas.clone(),
            self.stop.clone(),
        ));
        self.tasks.spawn(inbox::run(
            redis.clone(),
            config.replica.name.clone(),
            config.ingest.ears,
            replicas.clone(),
            self.stop.clone(),
        ));
    }
}

fn rules(config: &Config) -> Rules {
    Rules {
        auth: Auth::new(config.auth.publish_key.clone()),
        limits: config.limits.clone(),
    }
}

fn follow_settings(config: &Config) -> FollowSettings {
    FollowSettings {
        reads_max: config.repair.reads_max,
        tick_after: config.redis.tick_after,
        deaf_after: config.repair.time,
        keep: config.redis.unsubscribe_after,
    }
}

fn stream_settings(config: &Config, metrics: &Arc<Metrics>) -> StreamSettings {
    StreamSettings {
        replica: config.replica.name.clone(),
        heartbeat: config.stream.heartbeat,
        retry: config.stream.retry,
        age_max: config.stream.age_max,
        open_event: config.stream.open_event,
        repair_time: config.repair.time,
        retention: Swap::new(config.retention()),
        drain: Arc::new(Drain::new(config.drain.time)),
        metrics: metrics.clone(),
    }
}
