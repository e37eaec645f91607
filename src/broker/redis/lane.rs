//! The lane: one connection on which publishers go together.

use deadpool_redis::{Connection, Pool, PoolError};
use redis::aio::MultiplexedConnection;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Mutex;

/// One connection for many publishes: those that are under way at the same time are written
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
