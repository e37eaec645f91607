//! The function libraries on the server: loaded, told the settings, called, and removed when they
//! are used no more.
//!
//! A server may lose them at any time: FUNCTION FLUSH, FLUSHALL, a failover to one that was empty, a
//! replica of another build that takes this one's for unused. So nothing is remembered but that they
//! were there once: a call that finds its function missing brings it.

use super::error::CommandError;
use super::library::VERSION;
use super::{Redis, decode};
use crate::broker::{BrokerError, Retention, Rule};
use crate::metrics::{RedisSave, Role};
use crate::topic::PartitionNo;
use redis::{Cmd, Value};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks for function libraries that nobody uses.
const TIDY_EVERY: Duration = Duration::from_secs(600);
/// The `maxmemory-policy` by which keys stay.
const NO_EVICTION: &str = "noeviction";
/// The status of a save that did not fail.
const SAVED: &str = "ok";

impl Redis {
    /// `FCALL <prefix>_<hash>_<name> 0`: a function that may write.
    pub(super) fn write_function(&self, name: &str) -> Cmd {
        let mut cmd = redis::cmd("FCALL");
        cmd.arg(self.0.library.function(name)).arg(0);
        cmd
    }

    /// The same of one partition.
    pub(super) fn function(&self, name: &str, partition: PartitionNo) -> Cmd {
        let mut cmd = self.write_function(name);
        cmd.arg(partition);
        cmd
    }

    /// `FCALL_RO <prefix>_<hash>_<name> 0`: a function that only reads.
    pub(super) fn read_function(&self, name: &str) -> Cmd {
        let mut cmd = redis::cmd("FCALL_RO");
        cmd.arg(self.0.library.function(name)).arg(0);
        cmd
    }

    /// Calls a function; loads the library or begins the clock if the server has lost them.
    pub(super) async fn call(&self, cmd: &Cmd) -> Result<Value, CommandError> {
        self.call_by(|| self.timed(self.command(cmd))).await
    }

    /// The same for what goes another way than [`Redis::command`].
    ///
    /// # Cancel safety
    /// Dropped while something is brought, some of it may be there; whoever calls next brings the
    /// rest. Dropped later, the function may or may not have run.
    pub(super) async fn call_by<T, F: Future<Output = Result<T, CommandError>>>(
        &self,
        command: impl Fn() -> F,
    ) -> Result<T, CommandError> {
        self.be_prepared().await?;
        match command().await {
            // The function has not run, so that running it now is no repeat. What was brought may be
            // gone again by then; that is the caller's to know, since it need not end.
            Err(why) if Box::pin(self.bring(&why)).await? => command().await,
            answer => answer,
        }
    }

    /// Takes the time of a function.
    pub(super) async fn timed<T>(&self, function: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let answer = function.await;
        self.metrics()
            .redis_answered(Role::Commands, began.elapsed());
        answer
    }

    /// Brings what a function failed for want of: the library, or clocks. False if it was something
    /// else.
    async fn bring(&self, why: &CommandError) -> Result<bool, CommandError> {
        match why {
            CommandError::NoFunction => self.load_libraries().await?,
            CommandError::NoClock(partitions) => {
                for partition in partitions {
                    self.configure(*partition).await?;
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
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
            // A server that is away for a moment is still the one that was found fit.
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
        // Boxed, as is what follows a failure below: rare, and larger than every call.
        match Box::pin(self.prepare()).await {
            Err(BrokerError::Refused(why)) => Err(BrokerError::Unavailable(why)),
            done => done,
        }
    }

    async fn try_prepare(&self) -> Result<(), BrokerError> {
        self.refuse_cluster().await?;
        let policy = self.inspect_server().await?;
        if policy != NO_EVICTION && !self.settings().allow_eviction {
            return Err(BrokerError::Refused(format!(
                "maxmemory-policy is {policy}, so keys of the log may be evicted: set it to noeviction, or redis.allow_eviction = true"
            )));
        }
        // Before the functions that people call, which place topics by it.
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
        self.load_libraries().await?;
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
    pub(in crate::broker) async fn retain(&self, retention: Retention) {
        self.0.retention.set(retention);
        if let Err(why) = self.prepare().await {
            self.0.prepared.store(false, Ordering::Release);
            tracing::warn!(%why, "what the log keeps is not changed yet");
        }
    }

    /// Asks how the server stands: its memory, its replicas, whether it can save, and whether it may
    /// evict keys. What is wrong is said whenever it begins. Returns `maxmemory-policy`.
    pub(in crate::broker) async fn inspect_server(&self) -> Result<String, BrokerError> {
        let mut cmd = redis::cmd("INFO");
        cmd.arg("memory").arg("replication").arg("persistence");
        let info = self.command(&cmd).await?;
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
        self.note_failed_saves(info);
        Ok(policy.to_owned())
    }

    /// Of each way to save, whether the last try failed. A server that does not say so has not failed:
    /// managed ones may leave the section out.
    fn note_failed_saves(&self, info: &str) {
        for (save, field) in [
            (RedisSave::Snapshot, "rdb_last_bgsave_status"),
            (RedisSave::Append, "aof_last_write_status"),
            (RedisSave::Rewrite, "aof_last_bgrewrite_status"),
        ] {
            let status = decode::field(info, field).unwrap_or(SAVED);
            if self.metrics().redis_save(save, status != SAVED) {
                tracing::warn!(
                    save = save.as_str(),
                    "Redis fails to save what it holds: a restart of it would lose events; its log says why"
                );
            }
        }
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
        self.command(&cmd).await?;
        Ok(())
    }

    /// Loads what is missing: the library of this build, and the public one if there is none or an
    /// older one.
    async fn load_libraries(&self) -> Result<(), BrokerError> {
        let library = &self.0.library;
        let mut load = redis::cmd("FUNCTION");
        match self.command(load.arg("LOAD").arg(&library.internal)).await {
            // Its name says what it holds.
            Ok(_) | Err(CommandError::LibraryExists) => {}
            Err(CommandError::UnknownCommand(_)) => {
                return Err(BrokerError::Refused(
                    "this server has no functions: Redis 7.0 or newer is needed".into(),
                ));
            }
            Err(why) => return Err(why.into()),
        }
        let version = self.public_version().await?;
        if version.is_none_or(|version| version < VERSION) {
            let mut load = redis::cmd("FUNCTION");
            load.arg("LOAD").arg("REPLACE").arg(&library.public);
            self.command(&load).await?;
        }
        Ok(())
    }

    /// The version of the public functions that Redis has.
    async fn public_version(&self) -> Result<Option<u32>, BrokerError> {
        let mut version = redis::cmd("FCALL_RO");
        version.arg(self.0.library.public_version()).arg(0);
        match self.command(&version).await {
            Ok(version) => Ok(code_of(&version).map(|(version, _)| version)),
            Err(CommandError::NoFunction) => Ok(None),
            Err(why) => Err(why.into()),
        }
    }

    /// Once in a while, removes libraries that no replica has used for long. One that has slept longer
    /// loads its own again when it finds it missing.
    pub(super) async fn tidy_libraries(&self) {
        if self.is_time_to_tidy()
            && let Err(why) = Box::pin(self.remove_unused_libraries()).await
        {
            tracing::debug!(%why, "function libraries that nobody uses are not removed yet");
        }
    }

    fn is_time_to_tidy(&self) -> bool {
        let now = Instant::now();
        let at = self.0.tidy_at.lock();
        let mut at = at.unwrap_or_else(PoisonError::into_inner);
        let is_due = *at <= now;
        if is_due {
            *at = now + TIDY_EVERY;
        }
        is_due
    }

    async fn remove_unused_libraries(&self) -> Result<(), BrokerError> {
        let library = &self.0.library;
        let mut list = redis::cmd("FUNCTION");
        list.arg("LIST").arg("LIBRARYNAME");
        list.arg(format!("{}_*", self.settings().prefix));
        let found = self.command(&list).await?;
        let mut unused = self.write_function("libraries");
        unused.arg(&library.name);
        for name in library_names(&found).filter(|name| library.is_internal(name)) {
            unused.arg(name);
        }
        let unused = self.call(&unused).await?;
        for name in decode::list(&unused).map_err(|_| self.unreadable())? {
            let name = decode::text(name).map_err(|_| self.unreadable())?;
            let mut delete = redis::cmd("FUNCTION");
            match self.command(delete.arg("DELETE").arg(name)).await {
                Ok(_) => tracing::info!(
                    library = name,
                    "a function library that no replica uses any more is removed"
                ),
                // Another replica was quicker.
                Err(CommandError::NoLibrary) => {}
                Err(why) => return Err(why.into()),
            }
        }
        Ok(())
    }
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

/// What the version function of a library has answered: its version and its build.
pub(crate) fn code_of(value: &Value) -> Option<(u32, &str)> {
    let Ok([version, code]) = decode::list(value) else {
        return None;
    };
    Some((
        u32::try_from(decode::number(version).ok()?).ok()?,
        decode::text(code).ok()?,
    ))
}

/// The names in an answer of `FUNCTION LIST`.
fn library_names(found: &Value) -> impl Iterator<Item = &str> {
    let libraries = decode::list(found).unwrap_or_default();
    libraries.iter().filter_map(|library| {
        let fields: Vec<(&Value, &Value)> = match library {
            Value::Map(fields) => fields.iter().map(|(name, value)| (name, value)).collect(),
            Value::Array(fields) => fields
                .chunks_exact(2)
                .filter_map(|pair| pair.first().zip(pair.last()))
                .collect(),
            _ => return None,
        };
        let is_name = |(name, _): &(&Value, &Value)| decode::text(name) == Ok("library_name");
        decode::text(fields.into_iter().find(is_name)?.1).ok()
    })
}
