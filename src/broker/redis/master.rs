//! The server that takes writes, and the ways to it.

use super::Settings;
use deadpool_redis::{
    Connection, Hook, HookError, Manager, Pool, PoolConfig, PoolError, Runtime, Timeouts,
};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, ProtocolVersion, RedisError, Role,
    ServerErrorKind,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// A server that is the master, or was until a failover.
#[derive(Debug)]
pub(super) struct Master {
    pub(super) info: ConnectionInfo,
    /// Connections for commands.
    pub(super) pool: Pool,
    /// Where publishers go together.
    pub(super) lane: Lane,
    /// Connections of publishers that wait for replicas of Redis: they may all wait, and nothing
    /// else does.
    pub(super) waiting: Pool,
    /// Makes connections for pushes.
    pub(super) pushes: Client,
}

impl Master {
    /// Prepares the ways to a server; connects to nothing yet.
    pub(super) fn new(info: ConnectionInfo, settings: &Settings) -> Result<Self, String> {
        let pool = pool(settings, info.clone(), settings.command_timeout)?;
        let patience = settings.command_timeout + settings.wait_timeout;
        let waiting = self::pool(settings, info.clone(), patience)?;
        let pushes = Client::open(with_resp3(&info)).map_err(|why| why.category().to_owned())?;
        Ok(Self {
            info,
            pool,
            lane: Lane::default(),
            waiting,
            pushes,
        })
    }

    /// `host:port`.
    pub(super) fn address(&self) -> String {
        self.info.addr().to_string()
    }
}

/// One connection for many short commands: those that are under way at the same time are written
/// together and answered together, which spares both sides most of their system calls. A command
/// that takes long would hold up all behind it; such go to the pool.
#[derive(Debug, Default)]
pub(super) struct Lane {
    open: Mutex<Option<(u64, MultiplexedConnection)>>,
    /// Commands on their way.
    under_way: AtomicUsize,
}

/// A command on its way.
#[derive(Debug)]
pub(super) struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Lane {
    /// A command begins; to be held until it is answered.
    pub(super) fn enter(&self) -> (UnderWay<'_>, bool) {
        let first = self.under_way.fetch_add(1, Ordering::AcqRel) == 0;
        (UnderWay(&self.under_way), first)
    }

    /// The connection and its number; made by the pool, and no longer the pool's. One on which
    /// nothing is under way is asked for a sign of life `first`, as the pool does it: a server that
    /// was restarted meanwhile fails no command.
    pub(super) async fn connection(
        &self,
        pool: &Pool,
        first: bool,
    ) -> Result<(u64, MultiplexedConnection), PoolError> {
        let mut lane = self.open.lock().await;
        if let Some((number, connection)) = &*lane {
            let mut connection = connection.clone();
            let lives = !first || redis::cmd("PING").exec_async(&mut connection).await.is_ok();
            if lives {
                return Ok((*number, connection));
            }
        }
        let connection = Connection::take(pool.get().await?);
        let open = (rand::random(), connection);
        *lane = Some(open.clone());
        Ok(open)
    }

    /// The connection of this number is no good any more; the next command makes another one.
    pub(super) async fn leave(&self, number: u64) {
        let mut lane = self.open.lock().await;
        lane.take_if(|(open, _)| *open == number);
    }
}

/// Connections for commands that are answered within `response`.
fn pool(settings: &Settings, info: ConnectionInfo, response: Duration) -> Result<Pool, String> {
    let connection = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(settings.connect_timeout))
        .set_response_timeout(Some(response));
    let manager =
        Manager::new_with_config(info, connection).map_err(|why| why.category().to_owned())?;
    Pool::builder(manager)
        .config(PoolConfig::new(settings.pool_size))
        .runtime(Runtime::Tokio1)
        .post_create(Hook::async_fn(|connection, _| {
            Box::pin(async { check_role(connection).await.map_err(HookError::Backend) })
        }))
        .timeouts(Timeouts {
            wait: Some(settings.command_timeout),
            create: Some(settings.connect_timeout),
            recycle: Some(settings.command_timeout),
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
