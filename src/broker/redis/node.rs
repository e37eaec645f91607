//! One server of Redis: the ways to it, and how commands go over them.
//!
//! Other credentials take the place of the ones before (`Node::rekey`), and nothing is cut for it: new connections are
//! made by them, what is under way on old ones ends there, and subscriptions say who they are now on the connection that
//! they have.

use super::Settings;
use super::access::Access;
use super::error::CommandError;
use super::lane::Lane;
use crate::broker::BrokerError;
use deadpool_redis::{
    Connection, Hook, HookError, Manager, Pool, PoolConfig, PoolError, Runtime, Timeouts,
};
use redis::aio::MultiplexedConnection;
use redis::{
    Client, Cmd, ConnectionInfo, ErrorKind, ProtocolVersion, RedisError, Role, ServerErrorKind,
    Value,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A server. It knows the ways to one address and nothing of other servers: who the master is, and
/// what to do when it changes, is the affair of `master`.
#[derive(Debug)]
pub(super) struct Node(watch::Sender<Arc<Ways>>);

/// The ways to a server, by one user.
#[derive(Debug)]
pub(super) struct Ways {
    settings: Arc<Settings>,
    access: Arc<Access>,
    info: ConnectionInfo,
    /// Connections for commands.
    pool: Pool,
    /// Makes connections for commands, outside of the pools.
    commands: Client,
    /// Where publishers go together.
    lane: Lane,
    /// Connections of publishers that wait for replicas of Redis: they may all wait, and nothing
    /// else does.
    waiting: Pool,
    /// Makes connections for pushes.
    pushes: Client,
}

/// Changes whenever another server, or the same one anew, becomes the master. None until sentinels
/// have named one.
pub(super) type Masters = watch::Receiver<Option<Arc<Node>>>;

/// How many connections a node has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PoolCounts {
    pub(super) busy: usize,
    pub(super) idle: usize,
    /// Tasks that wait for one.
    pub(super) waiting: usize,
}

impl Node {
    /// Prepares the ways to a server; connects to nothing yet.
    pub(super) fn new(
        access: &Arc<Access>,
        info: ConnectionInfo,
        settings: &Arc<Settings>,
    ) -> Result<Self, String> {
        let ways = Ways::new(access, info, settings)?;
        Ok(Self(watch::Sender::new(Arc::new(ways))))
    }

    /// The ways as they are now.
    pub(super) fn ways(&self) -> Arc<Ways> {
        self.0.borrow().clone()
    }

    /// The ways as they are now, and later.
    pub(super) fn follow(&self) -> watch::Receiver<Arc<Ways>> {
        self.0.subscribe()
    }

    /// The same server is reached in another way from now on: by another user or password, or other certificates.
    pub(super) fn rekey(&self, access: &Arc<Access>, info: ConnectionInfo) -> Result<(), String> {
        let ways = Ways::new(access, info, &self.ways().settings)?;
        self.0.send_replace(Arc::new(ways));
        Ok(())
    }
}

impl Ways {
    fn new(
        access: &Arc<Access>,
        info: ConnectionInfo,
        settings: &Arc<Settings>,
    ) -> Result<Self, String> {
        let pool = pool(settings, info.clone(), settings.command_timeout)?;
        let patience = settings.command_timeout + settings.wait_timeout;
        let waiting = self::pool(settings, info.clone(), patience)?;
        let client = |info| Client::open(info).map_err(|why: RedisError| why.category().to_owned());
        let (commands, pushes) = (client(info.clone())?, client(with_resp3(&info))?);
        Ok(Self {
            settings: settings.clone(),
            access: access.clone(),
            info,
            pool,
            commands,
            lane: Lane::new(settings.command_timeout / 2),
            waiting,
            pushes,
        })
    }

    /// Says who we are, on a connection that stands; none without a password.
    pub(super) fn auth(&self) -> Option<Cmd> {
        let user = self.info.redis_settings();
        let mut auth = redis::cmd("AUTH");
        auth.arg(user.username()).arg(user.password()?);
        Some(auth)
    }

    /// `host:port`.
    pub(super) fn address(&self) -> String {
        self.info.addr().to_string()
    }

    /// The way there.
    pub(super) fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    /// Makes connections for pushes.
    pub(super) fn pushes(&self) -> &Client {
        &self.pushes
    }

    /// One command, on a connection that it has to itself.
    ///
    /// # Cancel safety
    /// Dropped before the answer, it may or may not have been done, and the connection is closed.
    pub(super) async fn command(&self, cmd: &Cmd) -> Result<Value, CommandError> {
        let mut connection = Exclusive::of(self, &self.pool).await?;
        let answer = connection.ask(cmd).await;
        connection.give_back(&answer);
        answer
    }

    /// Two commands, one after the other on one connection: a write, and the wait for replicas of
    /// Redis that confirm it. If the write is refused, nothing waits.
    ///
    /// # Cancel safety
    /// As [`Ways::command`].
    pub(super) async fn write_and_wait(
        &self,
        write: &Cmd,
        wait: &Cmd,
    ) -> Result<(Value, Value), CommandError> {
        let mut connection = Exclusive::of(self, &self.waiting).await?;
        let answers = async {
            let written = connection.ask(write).await?;
            Ok((written, connection.ask(wait).await?))
        };
        let answers = answers.await;
        connection.give_back(&answers);
        answers
    }

    /// A publish, together with those that others send at the same time.
    ///
    /// # Cancel safety
    /// Dropped before the answer, it may or may not have been done; the others are not concerned.
    pub(super) async fn publish(&self, cmd: &Cmd) -> Result<Value, CommandError> {
        let mut seat = self.lane.seat(self.connect()).await?;
        let answer = cmd.query_async(&mut seat.connection).await;
        let answer = answer.map_err(CommandError::from);
        if answer.as_ref().is_err_and(CommandError::ends_connection) {
            seat.lost();
        } else {
            seat.answered();
        }
        answer
    }

    /// A connection for the lane. It comes from no pool: what stands idle there may be as silent as
    /// the one that it is to replace.
    async fn connect(&self) -> Result<MultiplexedConnection, CommandError> {
        let config = self.settings.connection(self.settings.command_timeout);
        let connecting = async {
            let mut connection = self
                .commands
                .get_multiplexed_async_connection_with_config(&config)
                .await?;
            check_role(&mut connection).await?;
            Ok::<_, RedisError>(connection)
        };
        connecting.await.map_err(|why| self.unreachable(&why))
    }

    /// How many of the command connections are in use.
    pub(super) fn pool_counts(&self) -> PoolCounts {
        let mut counts = PoolCounts::default();
        for status in [&self.pool, &self.waiting].map(Pool::status) {
            counts.busy += status.size.saturating_sub(status.available);
            counts.idle += status.available;
            counts.waiting += status.waiting;
        }
        counts
    }

    fn no_connection(&self, why: PoolError) -> CommandError {
        match why {
            PoolError::Backend(why) | PoolError::PostCreateHook(HookError::Backend(why)) => {
                self.unreachable(&why)
            }
            other => CommandError::Lost(other.to_string()),
        }
    }

    /// Why a connection does not come to stand, and where to look.
    pub(super) fn unreachable(&self, why: &RedisError) -> CommandError {
        match CommandError::from(why) {
            CommandError::Lost(why)
            | CommandError::Demoted(why)
            | CommandError::Broker(BrokerError::Unavailable(why)) => {
                CommandError::Lost(self.with_hint(why))
            }
            other => other,
        }
    }

    fn with_hint(&self, why: String) -> String {
        match self.access.hint(&why) {
            Some(hint) => format!("{why} ({hint})"),
            None => why,
        }
    }
}

/// A connection that one caller has to itself. It goes back to its pool only when everything that
/// was asked on it is answered. Dropped before that (the answer did not come, or nobody waits for it
/// any more) it leaves the pool: whoever got it next would wait for that answer, too.
struct Exclusive(Option<Connection>);

impl Exclusive {
    /// Waits for one. The pool asks those that stand idle for a sign of life, one after the other;
    /// if one takes long over it, the others are as old and not worth the time.
    async fn of(ways: &Ways, pool: &Pool) -> Result<Self, CommandError> {
        let mut getting = std::pin::pin!(pool.get());
        let soon = ways.settings.command_timeout / 4;
        let connection = if let Ok(connection) = tokio::time::timeout(soon, &mut getting).await {
            connection
        } else {
            // If all are in use, and it is that which takes time, none stands idle.
            pool.retain(|_, _| false);
            getting.await
        };
        let connection = connection.map_err(|why| ways.no_connection(why))?;
        Ok(Self(Some(connection)))
    }

    async fn ask(&mut self, cmd: &Cmd) -> Result<Value, CommandError> {
        match &mut self.0 {
            Some(connection) => Ok(cmd.query_async(connection).await?),
            None => Err(CommandError::Lost("the connection was given back".into())),
        }
    }

    fn give_back<T>(mut self, answer: &Result<T, CommandError>) {
        if !answer.as_ref().is_err_and(CommandError::ends_connection) {
            drop(self.0.take());
        }
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        drop(self.0.take().map(Connection::take));
    }
}

/// Connections for commands that are answered within `response`.
fn pool(settings: &Settings, info: ConnectionInfo, response: Duration) -> Result<Pool, String> {
    let manager = Manager::new_with_config(info, settings.connection(response))
        .map_err(|why| why.category().to_owned())?;
    Pool::builder(manager)
        .config(PoolConfig::new(settings.pool_size))
        .runtime(Runtime::Tokio1)
        .post_create(Hook::async_fn(|connection, _| {
            Box::pin(async { check_role(connection).await.map_err(HookError::Backend) })
        }))
        .timeouts(Timeouts {
            wait: Some(settings.command_timeout),
            create: Some(settings.connect_timeout),
            // Time must be left for another one.
            recycle: Some(settings.command_timeout / 2),
        })
        .build()
        .map_err(|why| why.to_string())
}

/// RESP3, because pushes then come in order with the answers that confirm them.
fn with_resp3(info: &ConnectionInfo) -> ConnectionInfo {
    let settings = info.redis_settings().clone();
    info.clone()
        .set_redis_settings(settings.set_protocol(ProtocolVersion::RESP3))
}

/// Refuses a connection whose user may not call functions, for reading or for writing. It asks for one that is not
/// there: who has the right is told that.
pub(super) async fn check_rights(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    for call in ["FCALL_RO", "FCALL"] {
        let mut cmd = redis::cmd(call);
        cmd.arg("tidegate_is_this_allowed").arg(0);
        match cmd.query_async::<redis::Value>(connection).await {
            Err(why) if why.code() == Some("NOPERM") => return Err(why),
            Err(why) if why.is_io_error() || why.is_timeout() => return Err(why),
            _ => {}
        }
    }
    Ok(())
}

/// Refuses a connection that does not lead to a master: it would read what is old, and write nothing.
pub(super) async fn check_role(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    match redis::cmd("ROLE").query_async(connection).await? {
        Role::Primary { .. } => Ok(()),
        _ => Err((
            ErrorKind::Server(ServerErrorKind::ReadOnly),
            "this is a replica, not the master",
        )
            .into()),
    }
}
