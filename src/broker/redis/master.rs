//! Which node is the master, and how commands go to it.
//!
//! | what happens | what follows |
//! |---|---|
//! | sentinels name another server (`go_on_at`) | a new node in its place; what the old one answers from then on is not believed; subscriptions count as lost |
//! | a server answers that it is a replica (`Demoted`) | a new node of the same address: without sentinels it may be the master again, and whatever stands there is asked for its role anew |
//! | a command has no answer (`Lost`), or Redis cannot do it now | sentinels are asked at once (`doubts`) |
//!
//! A node that was replaced lives until the last command on it is done. The same server by another user is no other node
//! (`rotation`).

use super::error::CommandError;
use super::node::{Masters, Node, PoolCounts, Ways};
use super::pubsub::PubSub;
use super::sentinel::Word;
use super::{Redis, decode};
use crate::broker::BrokerError;
use crate::metrics::{RedisFailure, Role};
use redis::{Cmd, ConnectionInfo, Value};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The same refusal is said again after this time.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// How long a refusal counts while other commands succeed.
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// Different ones that are said in this time.
const SAID_MAX: usize = 16;

impl Redis {
    /// One command on a connection of its own, within `redis.command_timeout` altogether.
    ///
    /// # Cancel safety
    /// Dropped before the answer, it may or may not have been done.
    pub(super) async fn command(&self, cmd: &Cmd) -> Result<Value, CommandError> {
        let limit = self.settings().command_timeout;
        self.at_master(limit, |ways| async move { ways.command(cmd).await })
            .await
    }

    /// A publish, together with those that others send at the same time, within
    /// `redis.command_timeout` altogether.
    ///
    /// # Cancel safety
    /// As [`Redis::command`].
    pub(super) async fn publish_on_lane(&self, cmd: &Cmd) -> Result<Value, CommandError> {
        let limit = self.settings().command_timeout;
        self.at_master(limit, |ways| async move { ways.publish(cmd).await })
            .await
    }

    /// Has the master do something within `limit`, and takes note of how it went.
    pub(super) async fn at_master<T, F>(
        &self,
        limit: Duration,
        ask: impl FnOnce(Arc<Ways>) -> F,
    ) -> Result<T, CommandError>
    where
        F: Future<Output = Result<T, CommandError>>,
    {
        let answer = tokio::time::timeout(limit, self.try_at_master(ask)).await;
        let answer = answer.unwrap_or_else(|_| Err(CommandError::too_late()));
        self.note(&answer);
        answer
    }

    async fn try_at_master<T, F>(&self, ask: impl FnOnce(Arc<Ways>) -> F) -> Result<T, CommandError>
    where
        F: Future<Output = Result<T, CommandError>>,
    {
        let mut masters = self.0.master.subscribe();
        let node = named(&mut masters).await;
        // Dropped here (its time is over, or the caller is gone), the node's guards see to its
        // connections.
        let answer = ask(node.ways()).await;
        // Another one was named while this one was asked: what it has written will be thrown away,
        // and what it has read may be old.
        if masters.has_changed().unwrap_or_default() {
            let why = "the answer is that of a master that was replaced";
            return Err(BrokerError::Unavailable(why.into()).into());
        }
        if matches!(answer, Err(CommandError::Demoted(_))) {
            // Others may be told the same at the same time. The first makes a new node, by which
            // theirs is no longer the master, and they end above.
            tracing::warn!("this Redis has become a replica; all connections to it are made anew");
            self.begin_anew(node.ways().info().clone());
        }
        answer
    }

    /// Takes note of how a command went.
    fn note<T>(&self, answer: &Result<T, CommandError>) {
        let why = match answer {
            // The last four are no failures: `functions` does something about each.
            Ok(_)
            | Err(
                CommandError::NoFunction
                | CommandError::NoClock(_)
                | CommandError::LibraryExists
                | CommandError::NoLibrary,
            ) => None,
            Err(why) => Some(BrokerError::from(why.clone())),
        };
        let is_away = matches!(why, Some(BrokerError::Unavailable(_)));
        if is_away {
            self.0.doubts.send_replace(());
        }
        let is_refused = matches!(
            why,
            Some(BrokerError::Refused(_) | BrokerError::OutOfMemory)
        );
        let works = !is_away && !self.is_refusing(is_refused);
        self.metrics().redis_up(Role::Commands, works);
        if let Some(why) = &why {
            self.count_error(Role::Commands, why);
            if let BrokerError::Refused(why) = why {
                self.say_refused(why);
            }
        }
    }

    /// Whether Redis refuses commands, or did a moment ago: some succeed beside those that it refuses for want of
    /// a right, of memory, or of a disk. `now_too`: it has refused this one.
    fn is_refusing(&self, now_too: bool) -> bool {
        let until = self.0.refused_until.lock();
        let mut until = until.unwrap_or_else(PoisonError::into_inner);
        if now_too {
            *until = Some(Instant::now() + REFUSED_FOR);
        }
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Counts what a connection of this role failed for.
    pub(crate) fn count_error(&self, role: Role, why: &BrokerError) {
        let kind = match why {
            BrokerError::Unavailable(_) => RedisFailure::Unavailable,
            BrokerError::OutOfMemory => RedisFailure::OutOfMemory,
            BrokerError::Refused(_) => RedisFailure::Refused,
            _ => return,
        };
        self.metrics().redis_error(role, kind);
    }

    /// Tells the operator what Redis does not do, whoever wanted it: once, and again after a while.
    fn say_refused(&self, why: &str) {
        let now = Instant::now();
        let refused = self.0.refused.lock();
        let mut refused = refused.unwrap_or_else(PoisonError::into_inner);
        refused.retain(|_, said| now.duration_since(*said) < SAY_AGAIN);
        if refused.len() < SAID_MAX && !refused.contains_key(why) {
            refused.insert(why.to_owned(), now);
            tracing::warn!(why, "Redis refused a command");
        }
    }

    /// Sets the metrics of how many command connections are in use.
    pub(in crate::broker) fn count_connections(&self) {
        let node = self.0.master.borrow().clone();
        let counts = node
            .map(|node| node.ways().pool_counts())
            .unwrap_or_default();
        let PoolCounts {
            busy,
            idle,
            waiting,
        } = counts;
        self.metrics().redis_pool(busy, idle, waiting);
    }

    /// A connection for pushes, of its own.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`].
    pub async fn subscribe_connection(&self) -> Result<PubSub, BrokerError> {
        let settings = self.settings();
        let mut masters = self.0.master.subscribe();
        let named = tokio::time::timeout(settings.command_timeout, named(&mut masters)).await;
        let node =
            named.map_err(|_| BrokerError::Unavailable("no sentinel has named a master".into()))?;
        let ways = node.ways();
        let connecting = PubSub::connect(
            node.follow(),
            settings.connect_timeout,
            settings.command_timeout,
            settings.live_queue_bytes,
            masters,
        );
        connecting.await.map_err(|why| {
            self.0.doubts.send_replace(());
            ways.unreachable(&why).into()
        })
    }

    /// The process that a connection leads to.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`].
    pub async fn run_id_of(&self, pubsub: &mut PubSub) -> Result<Box<str>, BrokerError> {
        let info = pubsub.ask(redis::cmd("INFO").arg("server")).await?;
        let info = decode::text(&info).map_err(|_| self.unreadable())?;
        let run = decode::field(info, "run_id").map(Into::into);
        run.ok_or_else(|| self.unreadable())
    }

    /// The process that a connection leads to, and the history of what it holds: a master that was a
    /// replica meanwhile is the same process, with what the other one had (`run_id`, `master_replid` of
    /// [INFO](https://redis.io/docs/latest/commands/info/)).
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`].
    pub(super) async fn run_of(&self, pubsub: &mut PubSub) -> Result<Box<str>, BrokerError> {
        let mut ask = redis::cmd("INFO");
        let info = pubsub.ask(ask.arg("server").arg("replication")).await?;
        let info = decode::text(&info).map_err(|_| self.unreadable())?;
        let run = decode::field(info, "run_id").ok_or_else(|| self.unreadable())?;
        let history = decode::field(info, "master_replid").unwrap_or_default();
        Ok(format!("{run} {history}").into())
    }

    /// Told when a command has failed: the master may be another one.
    pub(super) fn doubts(&self) -> watch::Receiver<()> {
        self.0.doubts.subscribe()
    }

    /// The master is there from now on; connections to another one count as lost.
    pub(super) fn go_on_at(&self, word: &Word) {
        let settings = self.settings();
        let access = self.0.access.borrow().clone();
        let info = access.server_at(&word.host, word.port, settings.silence());
        let before = self.0.master.borrow().clone();
        let before = before.map(|master| master.ways().address());
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
    pub(super) fn begin_anew(&self, info: ConnectionInfo) {
        let access = self.0.access.borrow().clone();
        match Node::new(&access, info, &self.0.settings) {
            Ok(node) => drop(self.0.master.send_replace(Some(Arc::new(node)))),
            Err(why) => tracing::error!(why, "Redis cannot be used any more"),
        }
    }
}

/// The master, once there is one.
async fn named(masters: &mut Masters) -> Arc<Node> {
    loop {
        if let Some(node) = &*masters.borrow_and_update() {
            return node.clone();
        }
        if masters.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
