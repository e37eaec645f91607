//! A connection to Redis that is made again whenever it breaks, one command after the other.
//!
//! With sentinels it is one to the master, for whom they are asked each time.

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, RedisError, Role};
use std::fmt;
use std::time::Duration;

/// Time for an answer. A burst may keep Redis busy for a while; a lost answer is a rarer thing.
const ANSWER: Duration = Duration::from_secs(5);
/// Time for a connection to stand.
const CONNECT: Duration = Duration::from_secs(2);

/// The connection, or the way to it.
pub struct RedisLink {
    way: Way,
    connection: Option<MultiplexedConnection>,
}

enum Way {
    /// The server itself.
    Server(Client),
    /// Those who know it, and by which name.
    Sentinels(Vec<Client>, String),
}

impl fmt::Debug for RedisLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLink")
            .field("connected", &self.connection.is_some())
            .finish_non_exhaustive()
    }
}

impl RedisLink {
    /// Connects with the first command: to `redis://host:port`, or to the master that
    /// `redis+sentinel://host:port,host:port/master` tells of.
    ///
    /// # Errors
    /// The URL is none.
    pub fn new(url: &str) -> Result<Self, RedisError> {
        let watched = url
            .strip_prefix("redis+sentinel://")
            .and_then(|rest| rest.split_once('/'));
        let way = if let Some((addresses, master)) = watched {
            let sentinels = addresses
                .split(',')
                .map(|address| Client::open(format!("redis://{address}")));
            Way::Sentinels(sentinels.collect::<Result<_, _>>()?, master.to_owned())
        } else {
            Way::Server(Client::open(url)?)
        };
        Ok(Self {
            way,
            connection: None,
        })
    }

    /// The port of the master, as the first sentinel says that answers.
    ///
    /// # Errors
    /// None of them does, or there are none.
    pub async fn master(&self) -> Result<u16, RedisError> {
        let mut why = (ErrorKind::InvalidClientConfig, "there are no sentinels").into();
        let Way::Sentinels(sentinels, name) = &self.way else {
            return Err(why);
        };
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        for sentinel in sentinels {
            let answer: Result<(String, u16), _> =
                async { question.query_async(&mut open(sentinel).await?).await }.await;
            match answer {
                Ok((_, port)) => return Ok(port),
                Err(other) => why = other,
            }
        }
        Err(why)
    }

    /// Sends one command. It is not repeated: after an error that is no answer of Redis, whether it
    /// was done is unknown.
    ///
    /// # Errors
    /// Redis refused it, or it did not answer.
    pub async fn ask<T: FromRedisValue>(&mut self, cmd: &Cmd) -> Result<T, RedisError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let answer = cmd.query_async(&mut connection).await;
        // After an error that is no answer it is as good as broken.
        if !answer
            .as_ref()
            .is_err_and(|why: &RedisError| why.code().is_none())
        {
            self.connection = Some(connection);
        }
        answer
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        if let Way::Server(client) = &self.way {
            return open(client).await;
        }
        let url = format!("redis://127.0.0.1:{}", self.master().await?);
        let mut connection = open(&Client::open(url)?).await?;
        // In the midst of a failover sentinels tell where the master was, or will be.
        match redis::cmd("ROLE").query_async(&mut connection).await? {
            Role::Primary { .. } => Ok(connection),
            _ => Err((ErrorKind::Io, "it is no master yet, or any more").into()),
        }
    }
}

async fn open(client: &Client) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(Some(ANSWER))
        .set_connection_timeout(Some(CONNECT));
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
}
