//! The Redis broker: the log in streams, live frames over pub/sub, one atomic function library.
//!
//! | key or channel | type | what |
//! |---|---|---|
//! | `tidegate:{p}:clock` | hash | last id given out, `born`, run id of the process that wrote last, seams, settings and rules |
//! | `tidegate:{p}:log:<topic>` | stream | `prev`, `type`, `data`, and `end` or `gap` |
//! | `tidegate:{p}:heads` | hash | topic to last id, and `end` |
//! | `tidegate:{p}:idem:<topic>:<key>` | string | id, with expiry |
//! | `tidegate:{p}:ingest` | hash | epochs and positions of ingest |
//! | `tidegate:{p}:live:<topic>`, `tidegate:{p}:tick` | pub/sub | frames, ticks |
//! | `tidegate:ingest` | pub/sub | `start` and `done` among the ears |
//! | `tidegate:inbox` | stream | XADD ingestion |
//! | `tidegate:replicas`, `tidegate:subscribers:<replica>` | hash | heartbeats |
//!
//! `p` is the partition's number. Commands go through a pool with explicit timeouts; the
//! subscription has a connection of its own (`live`), so that Redis dropping a slow subscriber
//! takes no command along.

mod access;
pub(crate) mod decode;
mod library;
mod live;
mod master;
mod pubsub;
mod sentinel;

pub use access::{Access, Identity};
pub(crate) use library::words as library_words;
pub use live::run as run_live;
pub use pubsub::{PubSub, Push};
pub use sentinel::follow_master;

use super::{BrokerError, Fleet, LivePath, Publication, Retention, Rule, TopicState};
use crate::id::Id;
use crate::log::{Followed, History, ReadRequest, Reading};
use crate::metrics::{Metrics, Role};
use crate::swap::Swap;
use crate::topic::{PartitionNo, Topic};
use deadpool_redis::{Connection, HookError, Pool, PoolError};
use library::{Library, VERSION};
use master::Master;
use redis::{Cmd, ConnectionInfo, RedisError, RedisResult, Value};
use sentinel::Word;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// A connection with a command on it that is not answered. Dropped like that (the answer did not
/// come, or nobody waits for it any more) it leaves the pool: whoever got it next would wait, too.
struct Unanswered(Option<Connection>);

impl Drop for Unanswered {
    fn drop(&mut self) {
        drop(self.0.take().map(Connection::take));
    }
}

/// How Redis is reached and used.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it is, and who we are to it.
    pub access: Access,
    /// Begins every key, channel and function.
    pub prefix: String,
    /// Ordering domains.
    pub partitions: PartitionNo,
    /// Command connections.
    pub pool_size: usize,
    /// Time for a connection to stand.
    pub connect_timeout: Duration,
    /// Time for a command's answer.
    pub command_timeout: Duration,
    /// Longest pause between attempts.
    pub backoff_max: Duration,
    /// Bytes of pushes that may wait.
    pub live_queue_bytes: usize,
    /// Run although keys may be evicted.
    pub allow_eviction: bool,
    /// This replica's name.
    pub replica: String,
    /// What the log keeps.
    pub retention: Retention,
    /// Replicas of Redis that must have what is published before it is answered; 0 for none.
    pub wait_replicas: usize,
    /// Time for them to confirm it.
    pub wait_timeout: Duration,
}

/// Refusals after which the gateway does something about it.
const EXPECTED: [&str; 3] = ["Function not found", "TGNOCLOCK", "already exists"];
/// The same refusal is said again after this time.
const SAY_AGAIN: Duration = Duration::from_secs(10);
/// Between two looks for function libraries that nobody uses.
const TIDY_EVERY: Duration = Duration::from_secs(600);
/// Different ones that are said in this time.
const SAID_MAX: usize = 16;
/// The `maxmemory-policy` by which keys stay.
const NO_EVICTION: &str = "noeviction";

/// Live events that may wait for the hub; the bound in bytes is `live_queue_bytes`.
const LIVE_QUEUE: usize = 8192;

/// A log in Redis. Cloning shares the pool.
#[derive(Clone, Debug)]
pub struct Redis(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// None until sentinels have named one.
    master: watch::Sender<Option<Arc<Master>>>,
    /// Rung when a command fails: the master may be another one.
    doubts: watch::Sender<()>,
    settings: Settings,
    /// What the log keeps now.
    retention: Swap<Retention>,
    library: Library,
    metrics: Arc<Metrics>,
    /// This server was found fit for these settings, and not found unfit since.
    prepared: AtomicBool,
    /// What Redis refused, and when that was said last.
    refused: Mutex<HashMap<String, Instant>>,
    /// When libraries that nobody uses are looked for again.
    tidy_at: Mutex<Instant>,
}

impl Redis {
    /// Prepares the pool; connects to nothing yet.
    ///
    /// # Errors
    /// A sentence, if the URL cannot be used.
    pub fn open(settings: Settings, metrics: Arc<Metrics>) -> Result<Self, String> {
        let server = settings.access.server(silence(&settings));
        let master = server
            .map(|info| Master::new(info, &settings))
            .transpose()?;
        let library = Library::new(&settings.prefix);
        Ok(Self(Arc::new(Shared {
            master: watch::Sender::new(master.map(Arc::new)),
            doubts: watch::Sender::new(()),
            retention: Swap::new(settings.retention.clone()),
            settings,
            library,
            metrics,
            prepared: AtomicBool::new(false),
            refused: Mutex::default(),
            tidy_at: Mutex::new(Instant::now()),
        })))
    }

    /// The ends of a live path, and what [`run_live`] needs to keep it going.
    #[must_use]
    pub fn live_path() -> (
        LivePath,
        mpsc::Sender<super::Live>,
        mpsc::Receiver<super::Interest>,
    ) {
        let (live, events) = mpsc::channel(LIVE_QUEUE);
        let (interest, wanted) = mpsc::channel(64);
        (LivePath { events, interest }, live, wanted)
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The metrics of this process.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// A connection for pushes, of its own.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`].
    pub async fn subscribe_connection(&self) -> Result<PubSub, BrokerError> {
        let settings = self.settings();
        let mut masters = self.0.master.subscribe();
        let named = tokio::time::timeout(settings.command_timeout, named(&mut masters)).await;
        let master =
            named.map_err(|_| BrokerError::Unavailable("no sentinel has named a master".into()))?;
        let connecting = PubSub::connect(
            &master.pushes,
            settings.connect_timeout,
            settings.command_timeout,
            settings.live_queue_bytes,
            masters,
        );
        connecting.await.map_err(|why| {
            self.0.doubts.send_replace(());
            self.unreachable(&why)
        })
    }

    /// Rings when a command has failed.
    fn doubts(&self) -> watch::Receiver<()> {
        self.0.doubts.subscribe()
    }

    /// The master is there from now on; connections to another one count as lost.
    fn go_on_at(&self, word: &Word) {
        let settings = self.settings();
        let info = settings
            .access
            .server_at(&word.host, word.port, silence(settings));
        let before = self.0.master.borrow().clone();
        let before = before.map(|master| master.address());
        let master = info.addr().to_string();
        if before.as_ref() == Some(&master) {
            return;
        }
        match before {
            None => tracing::info!(master, "sentinels name the master"),
            Some(before) => tracing::warn!(master, before, "sentinels name another master"),
        }
        self.begin_anew(info);
    }

    /// Gives up all connections.
    fn begin_anew(&self, info: ConnectionInfo) {
        match Master::new(info, self.settings()) {
            Ok(master) => drop(self.0.master.send_replace(Some(Arc::new(master)))),
            Err(why) => tracing::error!(why, "Redis cannot be used any more"),
        }
    }

    /// Why a connection does not come to stand.
    fn unreachable(&self, why: &RedisError) -> BrokerError {
        match failed(why) {
            BrokerError::Unavailable(why) => {
                BrokerError::Unavailable(match self.settings().access.hint(&why) {
                    Some(hint) => format!("{why} ({hint})"),
                    None => why,
                })
            }
            other => other,
        }
    }

    /// The process that a connection leads to.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`].
    pub async fn run_id_of(&self, pubsub: &mut PubSub) -> Result<Box<str>, BrokerError> {
        let info: Value = redis::cmd("INFO")
            .arg("server")
            .query_async(&mut pubsub.commands)
            .await
            .map_err(|why| failed(&why))?;
        run_id(&info).ok_or_else(|| self.unreadable())
    }

    pub(crate) fn key(&self, tail: &str) -> String {
        format!("{}:{tail}", self.settings().prefix)
    }

    /// Makes a server ready for this version: functions, partitions, settings. Safe to repeat.
    ///
    /// # Errors
    /// [`BrokerError::Refused`] if this server cannot be used as it is configured.
    pub async fn prepare(&self) -> Result<(), BrokerError> {
        let done = self.try_prepare().await;
        match &done {
            Ok(()) => self.0.prepared.store(true, Ordering::Release),
            Err(BrokerError::Refused(_)) => self.0.prepared.store(false, Ordering::Release),
            Err(_) => {}
        }
        done
    }

    /// Nothing is asked of a server that must not be used as this replica is configured: with other
    /// partitions, what it publishes would be read by nobody.
    async fn be_prepared(&self) -> Result<(), BrokerError> {
        if self.0.prepared.load(Ordering::Acquire) {
            return Ok(());
        }
        match self.prepare().await {
            Err(BrokerError::Refused(why)) => Err(BrokerError::Unavailable(why)),
            done => done,
        }
    }

    async fn try_prepare(&self) -> Result<(), BrokerError> {
        self.refuse_cluster().await?;
        let policy = self.look().await?;
        if policy != NO_EVICTION && !self.settings().allow_eviction {
            return Err(BrokerError::Refused(format!(
                "maxmemory-policy is {policy}, so keys of the log may be evicted: set it to noeviction, or redis.allow_eviction = true"
            )));
        }
        self.load_library().await?;
        let meta = self.key("meta");
        let wanted = self.settings().partitions.to_string();
        self.command(
            redis::cmd("HSETNX")
                .arg(&meta)
                .arg("partitions")
                .arg(&wanted),
        )
        .await?;
        let stored = self
            .command(redis::cmd("HGET").arg(&meta).arg("partitions"))
            .await?;
        if decode::text(&stored) != Ok(wanted.as_str()) {
            let stored = decode::text(&stored).unwrap_or("something else");
            return Err(BrokerError::Refused(format!(
                "{meta} says {stored} partitions, and redis.partitions is {wanted}"
            )));
        }
        for partition in 0..self.settings().partitions {
            self.configure(partition).await?;
        }
        Ok(())
    }

    /// The log's functions touch keys of all topics of a partition, and the fleet's: one server must have them all.
    async fn refuse_cluster(&self) -> Result<(), BrokerError> {
        let info = self.command(redis::cmd("INFO").arg("cluster")).await?;
        let info = decode::text(&info).map_err(|_| self.unreadable())?;
        if decode::field(info, "cluster_enabled") == Some("1") {
            return Err(BrokerError::Refused(
                "Redis Cluster is not supported: run one master with replicas (cluster-enabled no), and Sentinel for failovers".into(),
            ));
        }
        Ok(())
    }

    /// Keeps other bounds from now on; if Redis is away, from the next command on.
    pub(super) async fn retain(&self, retention: Retention) {
        self.0.retention.set(retention);
        if let Err(why) = self.prepare().await {
            self.0.prepared.store(false, Ordering::Release);
            tracing::warn!(%why, "what the log keeps is not changed yet");
        }
    }

    /// Looks at how Redis stands: its memory, its replicas, and whether it may evict keys, which is
    /// said whenever it begins. Returns `maxmemory-policy`.
    ///
    /// # Errors
    /// As [`super::Broker::read`].
    pub async fn look(&self) -> Result<String, BrokerError> {
        let mut cmd = redis::cmd("INFO");
        let info = self.command(cmd.arg("memory").arg("replication")).await?;
        let info = decode::text(&info).map_err(|_| self.unreadable())?;
        let number = |name| decode::field(info, name).and_then(|text| text.parse().ok());
        let metrics = self.metrics();
        metrics
            .redis_memory
            .set(number("used_memory").unwrap_or_default());
        metrics
            .redis_memory_max
            .set(number("maxmemory").unwrap_or_default());
        metrics
            .redis_replicas
            .set(number("connected_slaves").unwrap_or_default());
        let policy = decode::field(info, "maxmemory_policy").unwrap_or(NO_EVICTION);
        let evicts = i64::from(policy != NO_EVICTION);
        if metrics.redis_may_evict.get() < evicts {
            tracing::warn!(
                policy,
                "Redis may evict keys of the log when its memory is full: set maxmemory-policy to noeviction"
            );
        }
        metrics.redis_may_evict.set(evicts);
        Ok(policy.to_owned())
    }

    async fn configure(&self, partition: PartitionNo) -> Result<(), BrokerError> {
        let retention = self.0.retention.get();
        let mut cmd = self.function("configure", partition);
        cmd.arg(retention.bounds.events_max)
            .arg(retention.bounds.age_ms)
            .arg(retention.leap_ms);
        cmd.arg(retention.idempotency_ms)
            .arg(retention.event_bytes_max)
            .arg(retention.topics_max)
            .arg(rules_text(&retention.rules));
        self.command(&cmd).await.map(|_| ())
    }

    /// Loads what is missing: the library of this build, and the public one if there is none or an
    /// older one.
    async fn load_library(&self) -> Result<(), BrokerError> {
        let library = &self.0.library;
        let load = redis::cmd("FUNCTION")
            .arg("LOAD")
            .arg(&library.internal)
            .to_owned();
        match self.command(&load).await {
            Err(BrokerError::Refused(why)) if why.contains("already exists") => {}
            Err(BrokerError::Refused(why)) if why.contains("unknown command") => {
                return Err(BrokerError::Refused(
                    "this server has no functions: Redis 7.0 or newer is needed".into(),
                ));
            }
            loaded => drop(loaded?),
        }
        if self
            .public_version()
            .await?
            .is_none_or(|version| version < VERSION)
        {
            let mut load = redis::cmd("FUNCTION");
            load.arg("LOAD").arg("REPLACE").arg(&library.public);
            self.command(&load).await?;
        }
        Ok(())
    }

    /// The version of the public functions that Redis has.
    async fn public_version(&self) -> Result<Option<u32>, BrokerError> {
        let version = redis::cmd("FCALL_RO")
            .arg(self.0.library.public_version())
            .arg(0)
            .to_owned();
        match self.command(&version).await {
            Ok(version) => Ok(code_of(&version).map(|(version, _)| version)),
            Err(BrokerError::Refused(why)) if why.contains("Function not found") => Ok(None),
            Err(why) => Err(why),
        }
    }

    /// Removes libraries that no replica has used for a while. A replica that has slept longer
    /// loads its own again when it finds it missing.
    async fn remove_unused_libraries(&self) -> Result<(), BrokerError> {
        let library = &self.0.library;
        let mut list = redis::cmd("FUNCTION");
        list.arg("LIST")
            .arg("LIBRARYNAME")
            .arg(format!("{}_*", self.settings().prefix));
        let found = self.command(&list).await?;
        let mut unused = redis::cmd("FCALL");
        unused
            .arg(library.function("libraries"))
            .arg(0)
            .arg(&library.name);
        for name in library_names(&found).filter(|name| library.is_internal(name)) {
            unused.arg(name);
        }
        let unused = self.call(0, &unused).await?;
        for name in decode::list(&unused).map_err(|_| self.unreadable())? {
            let name = decode::text(name).map_err(|_| self.unreadable())?;
            let mut delete = redis::cmd("FUNCTION");
            match self.command(delete.arg("DELETE").arg(name)).await {
                Ok(_) => tracing::info!(
                    library = name,
                    "a function library that no replica uses any more is removed"
                ),
                // Another replica was quicker.
                Err(BrokerError::Refused(why)) if why.contains("Library not found") => {}
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// `FCALL <prefix>_<hash>_<name> 0 <partition>`.
    pub(crate) fn function(&self, name: &str, partition: PartitionNo) -> Cmd {
        let mut cmd = redis::cmd("FCALL");
        cmd.arg(self.0.library.function(name)).arg(0).arg(partition);
        cmd
    }

    /// Calls a function; loads the library or begins the clock if the server has lost them.
    pub(crate) async fn call(
        &self,
        _: PartitionNo,
        cmd: &Cmd,
    ) -> Result<Value, BrokerError> {
        self.call_by(|| self.command(cmd)).await
    }

    async fn call_by<F: Future<Output = Result<Value, BrokerError>>>(
        &self,
        command: impl Fn() -> F,
    ) -> Result<Value, BrokerError> {
        self.be_prepared().await?;
        let began = Instant::now();
        match command().await {
            Err(why) if self.supply(&why).await? => command().await,
            answer => {
                self.0
                    .metrics
                    .redis_answered(Role::Commands, began.elapsed());
                answer
            }
        }
    }

    /// Brings what a function failed for want of: the library, or the clock. False if it was
    /// something else.
    async fn supply(&self, why: &BrokerError) -> Result<bool, BrokerError> {
        match why {
            BrokerError::Refused(why) if why.contains("Function not found") => {
                self.load_library().await?;
            }
            BrokerError::Refused(why) if why.starts_with("TGNOCLOCK") => {
                for partition in why.split(' ').filter_map(|word| word.parse().ok()) {
                    self.configure(partition).await?;
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Calls a function that publishes. If `log.wait_replicas` asks for it, it is done only when so
    /// many replicas have it: [WAIT](https://redis.io/docs/latest/commands/wait/), on the same
    /// connection.
    async fn call_publish(&self, cmd: &Cmd) -> Result<Value, BrokerError> {
        let settings = self.settings();
        if settings.wait_replicas == 0 {
            return self.call_by(|| self.command_on_lane(cmd)).await;
        }
        self.be_prepared().await?;
        let mut wait = redis::cmd("WAIT");
        wait.arg(settings.wait_replicas)
            .arg(settings.wait_timeout.as_millis().max(1));
        let both = [cmd, &wait];
        let timeout = settings.command_timeout + settings.wait_timeout;
        let answers = match self
            .commands(|master| &master.waiting, &both, timeout)
            .await
        {
            Err(why) if self.supply(&why).await? => {
                self.commands(|master| &master.waiting, &both, timeout)
                    .await?
            }
            answers => answers?,
        };
        let Ok([answer, replicas]) = <[Value; 2]>::try_from(answers) else {
            return Err(self.unreadable());
        };
        let replicas = decode::number(&replicas).map_err(|_| self.unreadable())?;
        let wanted = settings.wait_replicas as u64;
        if replicas < wanted {
            self.metrics().unreplicated.inc();
            return Err(BrokerError::Unreplicated { replicas, wanted });
        }
        Ok(answer)
    }

    /// One command, within `redis.command_timeout` altogether.
    pub(crate) async fn command(&self, cmd: &Cmd) -> Result<Value, BrokerError> {
        let timeout = self.settings().command_timeout;
        let cmds = [cmd];
        let answers = self.commands(|master| &master.pool, &cmds, timeout);
        answers.await?.pop().ok_or_else(|| self.unreadable())
    }

    /// Commands on one connection, one after the other until one fails.
    async fn commands(
        &self,
        pool: fn(&Master) -> &Pool,
        cmds: &[&Cmd],
        timeout: Duration,
    ) -> Result<Vec<Value>, BrokerError> {
        let answer = tokio::time::timeout(timeout, self.try_commands(pool, cmds)).await;
        self.note(answer.unwrap_or_else(|_| Err(too_late())))
    }

    /// A short command, together with those that others send at the same time.
    async fn command_on_lane(&self, cmd: &Cmd) -> Result<Value, BrokerError> {
        self.note(self.try_on_lane(cmd).await)
    }

    /// Takes note of how a command went.
    fn note<T>(&self, answer: Result<T, BrokerError>) -> Result<T, BrokerError> {
        let is_away = matches!(answer, Err(BrokerError::Unavailable(_)));
        if is_away {
            self.0.doubts.send_replace(());
        }
        self.0.metrics.redis_up(Role::Commands, !is_away);
        if let Err(why) = &answer {
            self.count_error(Role::Commands, why);
            if let BrokerError::Refused(why) = why {
                self.say_refused(why);
            }
        }
        answer
    }

    /// Counts what a connection of this role failed for.
    pub(crate) fn count_error(&self, role: Role, why: &BrokerError) {
        let kind = match why {
            BrokerError::Unavailable(_) => "unavailable",
            BrokerError::OutOfMemory => "out_of_memory",
            BrokerError::Refused(_) => "refused",
            _ => return,
        };
        self.0.metrics.redis_error(role, kind);
    }

    /// Looks at how many of the command connections are in use.
    pub(crate) fn count_pool(&self) {
        let pools = self.0.master.borrow().clone();
        let stands = pools
            .iter()
            .flat_map(|master| [&master.pool, &master.waiting]);
        let (mut all, mut idle, mut waiting) = (0, 0, 0);
        for status in stands.map(Pool::status) {
            all += status.size;
            idle += status.available;
            waiting += status.waiting;
        }
        self.0
            .metrics
            .redis_pool(all.saturating_sub(idle), idle, waiting);
    }

    async fn try_commands(
        &self,
        pool: fn(&Master) -> &Pool,
        cmds: &[&Cmd],
    ) -> Result<Vec<Value>, BrokerError> {
        let mut masters = self.0.master.subscribe();
        let master = named(&mut masters).await;
        let connection = pool(&master).get().await;
        let connection = connection.map_err(|why| self.no_connection(why))?;
        let mut unanswered = Unanswered(None);
        let answers = ask(unanswered.0.insert(connection), cmds).await;
        self.check_master(&masters, &master, &answers)?;
        if !answers.as_ref().is_err_and(is_lost) {
            unanswered.0 = None;
        }
        answers.map_err(|why| failed(&why))
    }

    async fn try_on_lane(&self, cmd: &Cmd) -> Result<Value, BrokerError> {
        let until = Instant::now() + self.settings().command_timeout;
        let in_time = |_| too_late();
        let mut masters = self.0.master.subscribe();
        let master = tokio::time::timeout_at(until, named(&mut masters))
            .await
            .map_err(in_time)?;
        let (_under_way, first) = master.lane.enter();
        let (number, mut connection) =
            tokio::time::timeout_at(until, master.lane.connection(&master.pool, first))
                .await
                .map_err(in_time)?
                .map_err(|why| self.no_connection(why))?;
        let answer = tokio::time::timeout_at(until, cmd.query_async(&mut connection)).await;
        if answer
            .as_ref()
            .map_or(true, |answer| answer.as_ref().is_err_and(is_lost))
        {
            // Whoever came next would wait in vain, too.
            master.lane.leave(number).await;
        }
        let answer = answer.map_err(in_time)?;
        self.check_master(&masters, &master, &answer)?;
        answer.map_err(|why| failed(&why))
    }

    fn no_connection(&self, why: PoolError) -> BrokerError {
        match why {
            PoolError::Backend(why) | PoolError::PostCreateHook(HookError::Backend(why)) => {
                self.unreachable(&why)
            }
            other => BrokerError::Unavailable(other.to_string()),
        }
    }

    /// Whether the server that has answered is still the master.
    fn check_master<T>(
        &self,
        masters: &watch::Receiver<Option<Arc<Master>>>,
        master: &Master,
        answer: &RedisResult<T>,
    ) -> Result<(), BrokerError> {
        if masters.has_changed().unwrap_or_default() {
            let why = "the answer is that of a master that was replaced";
            return Err(BrokerError::Unavailable(why.into()));
        }
        if answer.as_ref().is_err_and(is_of_replica) {
            tracing::warn!("this Redis has become a replica; all connections to it are made anew");
            self.begin_anew(master.info.clone());
        }
        Ok(())
    }

    /// Tells the operator what Redis does not do, whoever wanted it: once, and again after a while.
    fn say_refused(&self, why: &str) {
        if EXPECTED.iter().any(|text| why.contains(text)) {
            return;
        }
        let now = Instant::now();
        let mut refused = self
            .0
            .refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        refused.retain(|_, said| now.duration_since(*said) < SAY_AGAIN);
        if refused.len() < SAID_MAX && !refused.contains_key(why) {
            refused.insert(why.to_owned(), now);
            tracing::warn!(why, "Redis refused a command");
        }
    }

    pub(crate) fn unreadable(&self) -> BrokerError {
        self.0.metrics.unreadable.inc();
        BrokerError::Refused("the answer cannot be read".into())
    }

    pub(super) async fn publish(
        &self,
        batch: &[Publication],
    ) -> Result<Vec<Option<Id>>, BrokerError> {
        let mut cmd = redis::cmd("FCALL");
        cmd.arg(self.0.library.function("publish")).arg(0);
        for item in batch {
            cmd.arg(item.topic.partition(self.partitions()))
                .arg(item.topic.as_str())
                .arg(item.event_type.as_str())
                .arg(&item.data)
                .arg(if item.end { "end" } else { "" })
                .arg(item.idempotency_key.as_deref().unwrap_or_default());
        }
        let answer = self.call_publish(&cmd).await?;
        let ids = decode::list(&answer).map_err(|_| self.unreadable())?;
        let ids = ids.iter().map(decode::maybe_id).collect::<Result<Vec<_>, _>>();
        ids.ok()
            .filter(|ids| ids.len() == batch.len())
            .ok_or_else(|| self.unreadable())
    }

    pub(super) async fn read(
        &self,
        partition: PartitionNo,
        requests: &[ReadRequest],
    ) -> Result<Reading, BrokerError> {
        let mut cmd = redis::cmd("FCALL_RO");
        cmd.arg(self.0.library.function("read"))
            .arg(0)
            .arg(partition);
        for request in requests {
            cmd.arg(request.topic.as_str())
                .arg(request.after.to_string())
                .arg(request.limit);
        }
        let answer = self.call(partition, &cmd).await?;
        let (reading, foreign) =
            decode::reading(&answer, requests).map_err(|_| self.unreadable())?;
        self.0.metrics.unreadable.inc_by(foreign as u64);
        Ok(reading)
    }

    pub(super) async fn history(
        &self,
        topics: &[Topic],
        history: History,
    ) -> Result<Vec<(PartitionNo, Id)>, BrokerError> {
        let mut cmd = redis::cmd("FCALL_RO");
        cmd.arg(self.0.library.function("history")).arg(0);
        match history {
            History::Earliest => cmd.arg("earliest").arg(0),
            History::Since { ms } => cmd.arg("since").arg(ms),
            History::Last { events } => cmd.arg("last").arg(events),
        };
        for topic in topics {
            cmd.arg(topic.partition(self.partitions()))
                .arg(topic.as_str());
        }
        let answer = self.call(0, &cmd).await?;
        let positions = decode::list(&answer).and_then(|found| {
            let pairs = found.chunks_exact(2).map(|pair| match pair {
                [partition, position] => Ok((
                    decode::number(partition)?
                        .try_into()
                        .map_err(|_| decode::Unreadable)?,
                    decode::id(position)?,
                )),
                _ => Err(decode::Unreadable),
            });
            pairs.collect()
        });
        positions.map_err(|_| self.unreadable())
    }

    pub(super) async fn delete(&self, topic: &Topic) -> Result<Option<Id>, BrokerError> {
        let partition = topic.partition(self.partitions());
        let mut cmd = self.function("delete", partition);
        cmd.arg(topic.as_str());
        match self.call(partition, &cmd).await? {
            Value::Nil => Ok(None),
            value => decode::id(&value).map(Some).map_err(|_| self.unreadable()),
        }
    }

    pub(super) async fn tick(&self, partition: PartitionNo) -> Result<Id, BrokerError> {
        let answer = self
            .call(partition, &self.function("tick", partition))
            .await?;
        let (Ok([last, configured]), true) = (decode::list(&answer), true) else {
            return Err(self.unreadable());
        };
        if decode::number(configured) != Ok(1) {
            self.prepare().await?;
        }
        decode::id(last).map_err(|_| self.unreadable())
    }

    pub(super) async fn report(
        &self,
        partition: PartitionNo,
        followed: Followed,
        topics: &[(Topic, Id)],
    ) -> Result<(), BrokerError> {
        let known = |id: Option<Id>| id.map(|id| id.to_string()).unwrap_or_default();
        let mut cmd = self.function("report", partition);
        cmd.arg(followed.heard.to_string())
            .arg(known(followed.born))
            .arg(known(followed.seam));
        for (topic, id) in topics {
            cmd.arg(topic.as_str()).arg(id.to_string());
        }
        self.call(partition, &cmd).await.map(|_| ())
    }

    pub(super) async fn topics(
        &self,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Topic>, BrokerError> {
        let mut cmd = redis::cmd("FCALL_RO");
        cmd.arg(self.0.library.function("topics"))
            .arg(0)
            .arg(after)
            .arg(limit);
        for partition in 0..self.partitions() {
            cmd.arg(partition);
        }
        let answer = self.call(0, &cmd).await?;
        let names = decode::list(&answer).map_err(|_| self.unreadable())?;
        Ok(names
            .iter()
            .filter_map(|name| Topic::parse(decode::text(name).ok()?).ok())
            .collect())
    }

    pub(super) async fn topic(&self, topic: &Topic) -> Result<Option<TopicState>, BrokerError> {
        let partition = topic.partition(self.partitions());
        let mut cmd = redis::cmd("FCALL_RO");
        cmd.arg(self.0.library.function("topic"))
            .arg(0)
            .arg(partition);
        cmd.arg(topic.as_str()).arg(&self.settings().replica);
        let answer = self.call(partition, &cmd).await?;
        let Ok([first, last, length, ended, elsewhere]) = decode::list(&answer) else {
            return Err(self.unreadable());
        };
        let number = |value| decode::number(value).map_err(|_| self.unreadable());
        let range = decode::id(first).ok().zip(decode::id(last).ok());
        let state = TopicState {
            range,
            length: number(length)?,
            ended: number(ended)? == 1,
            subscribers_elsewhere: number(elsewhere)?,
        };
        Ok((state.range.is_some() || state.subscribers_elsewhere > 0).then_some(state))
    }

    pub(super) async fn heartbeat(
        &self,
        streams: u64,
        subscribers: &[(Topic, u64)],
    ) -> Result<Fleet, BrokerError> {
        let mut cmd = redis::cmd("FCALL");
        cmd.arg(self.0.library.function("heartbeat"))
            .arg(0)
            .arg(&self.0.library.name);
        cmd.arg(&self.settings().replica).arg(streams);
        for (topic, count) in subscribers {
            cmd.arg(topic.as_str()).arg(*count);
        }
        let answer = self.call(0, &cmd).await?;
        if self.is_time_to_tidy()
            && let Err(why) = self.remove_unused_libraries().await
        {
            tracing::debug!(%why, "function libraries that nobody uses are not removed yet");
        }
        let [fresh, replicas @ ..] = decode::list(&answer).map_err(|_| self.unreadable())? else {
            return Err(self.unreadable());
        };
        let pairs = replicas.chunks_exact(2).filter_map(|pair| match pair {
            [name, count] => Some((
                decode::text(name).ok()?.to_owned(),
                decode::number(count).ok()?,
            )),
            _ => None,
        });
        Ok(Fleet {
            streams: pairs.collect(),
            forgotten: decode::number(fresh) == Ok(1),
        })
    }

    fn is_time_to_tidy(&self) -> bool {
        let mut at = self
            .0
            .tidy_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let due = *at <= now;
        if due {
            *at = now + TIDY_EVERY;
        }
        due
    }

    /// Takes this replica off the list, at a clean stop.
    ///
    /// # Errors
    /// As [`super::Broker::read`].
    pub async fn farewell(&self) -> Result<(), BrokerError> {
        let replica = &self.settings().replica;
        self.command(redis::cmd("HDEL").arg(self.key("replicas")).arg(replica))
            .await?;
        self.command(redis::cmd("DEL").arg(self.key(&format!("subscribers:{replica}"))))
            .await
            .map(|_| ())
    }

    pub(super) fn partitions(&self) -> PartitionNo {
        self.settings().partitions
    }
}

/// Nothing more comes from a connection that failed like this.
fn is_lost(why: &RedisError) -> bool {
    why.is_unrecoverable_error() || why.is_timeout()
}

fn too_late() -> BrokerError {
    BrokerError::Unavailable("no answer in time".into())
}

async fn ask(connection: &mut Connection, cmds: &[&Cmd]) -> RedisResult<Vec<Value>> {
    let mut answers = Vec::with_capacity(cmds.len());
    for cmd in cmds {
        answers.push(cmd.query_async(connection).await?);
    }
    Ok(answers)
}

/// The rules as the functions read them: `EVENTS_MAX AGE_MS PATTERN`, one a line; no events for
/// topics that are not logged.
fn rules_text(rules: &[Rule]) -> String {
    let lines = rules.iter().map(|rule| {
        let (events_max, age_ms) = rule
            .bounds
            .map_or((0, 0), |bounds| (bounds.events_max, bounds.age_ms));
        format!("{events_max} {age_ms} {}\n", rule.topics.as_str())
    });
    lines.collect()
}

/// The names in an answer of `FUNCTION LIST`.
fn library_names(found: &Value) -> impl Iterator<Item = &str> {
    let libraries = decode::list(found).unwrap_or_default();
    libraries.iter().filter_map(|library| {
        let fields: Vec<(&Value, &Value)> = match library {
            Value::Map(fields) => fields.iter().map(|(name, value)| (name, value)).collect(),
            Value::Array(fields) => fields.chunks_exact(2).filter_map(|pair| pair.first().zip(pair.last())).collect(),
            _ => return None,
        };
        let mut names = fields.into_iter().filter(|(name, _)| decode::text(name) == Ok("library_name"));
        decode::text(names.next()?.1).ok()
    })
}

fn run_id(info: &Value) -> Option<Box<str>> {
    decode::field(decode::text(info).ok()?, "run_id").map(Into::into)
}

pub(crate) fn code_of(value: &Value) -> Option<(u32, &str)> {
    let Ok([version, code]) = decode::list(value) else {
        return None;
    };
    Some((
        u32::try_from(decode::number(version).ok()?).ok()?,
        decode::text(code).ok()?,
    ))
}

/// For how long bytes may stay unacknowledged.
fn silence(settings: &Settings) -> Duration {
    settings.command_timeout * 4
}

/// The master, once there is one.
async fn named(masters: &mut watch::Receiver<Option<Arc<Master>>>) -> Arc<Master> {
    loop {
        if let Some(master) = &*masters.borrow_and_update() {
            return master.clone();
        }
        if masters.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Whether the server was the master and is no more. What it reads from then on may be old.
fn is_of_replica(why: &RedisError) -> bool {
    matches!(why.code(), Some("READONLY" | "UNBLOCKED" | "MASTERDOWN"))
}

fn failed(why: &RedisError) -> BrokerError {
    let detail = why.detail().unwrap_or_default();
    let count = detail.trim().parse().unwrap_or_default();
    match why.code() {
        Some("TGENDED") => BrokerError::Ended(detail.to_owned()),
        Some("TGFOREIGN") => BrokerError::Foreign(detail.to_owned()),
        Some("TGUNLOGGED") => BrokerError::Unlogged(detail.to_owned()),
        Some("TGLARGE") => BrokerError::TooLarge(count),
        Some("TGTOPICS") => BrokerError::TooManyTopics(count),
        Some("OOM") => BrokerError::OutOfMemory,
        Some(
            "UNBLOCKED" | "READONLY" | "MASTERDOWN" | "NOREPLICAS" | "LOADING" | "BUSY"
            | "TRYAGAIN" | "MISCONF",
        ) => BrokerError::Unavailable(why.to_string()),
        Some("NOAUTH") => BrokerError::Refused("Redis wants a user; redis.url names none".into()),
        Some(code) if code == "NOPERM" || IN_FUNCTIONS.iter().any(|no| detail.starts_with(no)) => {
            BrokerError::Refused(format!(
                "the Redis user lacks a right: {detail} (deploy/redis/users.acl has all of them, ACL LOG names this one)"
            ))
        }
        Some(code) => BrokerError::Refused(format!("{code} {detail}")),
        None if matches!(why.kind(), redis::ErrorKind::AuthenticationFailed) => {
            BrokerError::Refused("the user or the password in redis.url is wrong".into())
        }
        None => BrokerError::Unavailable(why.to_string()),
    }
}

/// How Redis begins to say that a function did what its caller may not: 7.0, and later ones.
const IN_FUNCTIONS: [&str; 2] = [
    "The user executing the script can't",
    "ACL failure in script",
];
