//! A connection to Redis that is made again whenever it breaks, one command after the other.

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisError};
use std::fmt;
use std::time::Duration;

/// Time for an answer. A burst may keep Redis busy for a while; a lost answer is a rarer thing.
const ANSWER: Duration = Duration::from_secs(5);
/// Time for a connection to stand.
const CONNECT: Duration = Duration::from_secs(2);

/// The connection, or the way to it.
pub struct RedisLink {
    client: Client,
    connection: Option<MultiplexedConnection>,
}

impl fmt::Debug for RedisLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLink")
            .field("connected", &self.connection.is_some())
            .finish_non_exhaustive()
    }
}

impl RedisLink {
    /// Connects with the first command.
    ///
    /// # Errors
    /// The URL is none.
    pub fn new(url: &str) -> Result<Self, RedisError> {
        Ok(Self {
            client: Client::open(url)?,
            connection: None,
        })
    }

    /// Sends one command. It is not repeated: after an error that is no answer of Redis, whether it
    /// was done is unknown.
    ///
    /// # Errors
    /// Redis refused it, or it did not answer.
    pub async fn ask<T: FromRedisValue>(&mut self, cmd: &Cmd) -> Result<T, RedisError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let config = AsyncConnectionConfig::new()
                    .set_response_timeout(Some(ANSWER))
                    .set_connection_timeout(Some(CONNECT));
                let made = self
                    .client
                    .get_multiplexed_async_connection_with_config(&config);
                none.insert(made.await?)
            }
        };
        let answer = cmd.query_async(connection).await;
        if answer
            .as_ref()
            .is_err_and(|why: &RedisError| why.code().is_none())
        {
            self.connection = None;
        }
        answer
    }
}
