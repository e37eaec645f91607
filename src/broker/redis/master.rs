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
pub(super) struct Lane(Mutex<Option<(u64, MultiplexedConnection)>>);

impl Lane {
    /// The connection and its number; made by the pool, and no longer the pool's.
    pub(super) async fn connection(
        &self,
        pool: &Pool,
    ) -> Result<(u64, MultiplexedConnection), PoolError> {
        let mut lane = self.0.lock().await;
        if let Some(open) = &*lane {
            return Ok(open.clone());
        }
        let connection = Connection::take(pool.get().await?);
        let open = (rand::random(), connection);
        *lane = Some(open.clone());
        Ok(open)
    }

    /// The connection of this number is no good any more; the next command makes another one.
    pub(super) async fn leave(&self, number: u64) {
        self.0.lock().await.take_if(|(open, _)| *open == number);
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
