//! Which server is the master, as sentinels tell.
//!
//! Each sentinel is asked twice a second over a connection of its own, and at once when a command
//! has failed. The newest word counts: with each failover sentinels raise a number, the epoch of
//! their configuration, and the one with the highest has heard of the last. What a sentinel said
//! counts until it says something else, so one that was asleep does not lead back to where the
//! master was.
//!
//! A master that was replaced may take writes until it is told, some seconds, and those are lost.
//! So the time to hear of another master must stay well below `redis.leap`: then no id that the old
//! one has given out meanwhile is given out again, and whoever saw it is told of the gap.

use super::Redis;
use super::access::{Access, Sentinels};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Between two questions to one sentinel, when nothing fails.
const ASK: Duration = Duration::from_millis(450);
/// The least time between them, and what it is while commands fail.
const ASK_SOON: Duration = Duration::from_millis(50);

/// Where a sentinel says the master is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Word {
    /// The newer the greater.
    epoch: u64,
    pub(super) host: String,
    pub(super) port: u16,
}

/// Has `redis` go on at another server whenever the master changes, by the sentinels that it goes by at the time.
pub async fn follow_master(redis: Redis) {
    let mut access = redis.0.access.subscribe();
    loop {
        let now = access.borrow_and_update().clone();
        tokio::select! {
            () = ask_all(&redis, &now) => {}
            changed = access.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// Asks for as long as it is not dropped. Without sentinels it asks nobody.
async fn ask_all(redis: &Redis, access: &Access) {
    let Some(Sentinels { master, addresses }) = access.sentinels() else {
        return std::future::pending().await;
    };
    let (words, mut heard) = mpsc::channel(addresses.len());
    let mut asking = JoinSet::new();
    for (number, address) in addresses.iter().enumerate() {
        let sentinel = Sentinel::new(address, master, redis.settings().connect_timeout);
        asking.spawn(sentinel.ask_on(number, redis.doubts(), words.clone()));
    }
    drop(words);
    let mut latest = vec![None; addresses.len()];
    while let Some((number, word)) = heard.recv().await {
        if let Some(place) = latest.get_mut(number) {
            *place = Some(word);
        }
        if let Some(newest) = latest.iter().flatten().max() {
            redis.go_on_at(newest);
        }
    }
}

/// One sentinel.
struct Sentinel {
    address: ConnectionInfo,
    master: String,
    patience: Duration,
    connection: Option<MultiplexedConnection>,
}

impl Sentinel {
    fn new(address: &ConnectionInfo, master: &str, patience: Duration) -> Self {
        Self {
            address: address.clone(),
            master: master.to_owned(),
            patience,
            connection: None,
        }
    }

    /// Passes on what it says.
    async fn ask_on(
        mut self,
        number: usize,
        mut doubts: watch::Receiver<()>,
        words: mpsc::Sender<(usize, Word)>,
    ) {
        let mut complained = false;
        loop {
            match self.ask().await {
                Ok(word) => {
                    complained = false;
                    if words.send((number, word)).await.is_err() {
                        return;
                    }
                }
                Err(why) if !complained => {
                    complained = true;
                    let sentinel = self.address.addr();
                    tracing::warn!(%sentinel, why, "a sentinel does not tell where the master is");
                }
                Err(_) => {}
            }
            tokio::time::sleep(ASK_SOON).await;
            tokio::select! {
                () = tokio::time::sleep(ASK) => {}
                _ = doubts.changed() => {}
            }
        }
    }

    async fn ask(&mut self) -> Result<Word, String> {
        let answer = tokio::time::timeout(self.patience, self.try_ask()).await;
        let word = answer.unwrap_or_else(|_| Err("no answer in time".into()));
        if word.is_err() {
            self.connection = None;
        }
        word
    }

    async fn try_ask(&mut self) -> Result<Word, String> {
        let said = |why: redis::RedisError| match why.detail() {
            Some(detail) if why.code().is_some() => detail.to_owned(),
            _ => why.to_string(),
        };
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let client = Client::open(self.address.clone()).map_err(said)?;
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(self.patience))
                    .set_response_timeout(Some(self.patience));
                let made = client.get_multiplexed_async_connection_with_config(&config);
                none.insert(made.await.map_err(said)?)
            }
        };
        // In the midst of a failover the first names the old address still, and the new epoch.
        let mut question = redis::pipe();
        question.cmd("SENTINEL").arg("MASTER").arg(&self.master);
        question
            .cmd("SENTINEL")
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(&self.master);
        let (state, (host, port)): (HashMap<String, String>, (String, u16)) =
            question.query_async(connection).await.map_err(said)?;
        let epoch = state.get("config-epoch").and_then(|text| text.parse().ok());
        let epoch = epoch.ok_or("it tells no config-epoch")?;
        Ok(Word { epoch, host, port })
    }
}

impl Access {
    /// One connection to the master, for a program that ends soon.
    ///
    /// # Errors
    /// A sentence.
    pub async fn connect(&self, patience: Duration) -> Result<MultiplexedConnection, String> {
        let (_, connection) = self.find(patience).await?;
        Ok(connection)
    }

    /// The master, and a connection to it.
    pub(super) async fn find(
        &self,
        patience: Duration,
    ) -> Result<(ConnectionInfo, MultiplexedConnection), String> {
        let server = match (self.server(patience), self.sentinels()) {
            (None, Some(Sentinels { master, addresses })) => {
                let mut whys = Vec::new();
                let mut newest = None;
                for address in addresses {
                    match Sentinel::new(address, master, patience).ask().await {
                        Ok(word) => newest = newest.max(Some(word)),
                        Err(why) => whys.push(format!("{}: {why}", address.addr())),
                    }
                }
                let word = newest.ok_or_else(|| whys.join("; "))?;
                self.server_at(&word.host, word.port, patience)
            }
            (server, _) => server.ok_or("no address")?,
        };
        let client = Client::open(server.clone()).map_err(|why| why.to_string())?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(patience))
            .set_response_timeout(Some(patience));
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let connection = connecting.await.map_err(|why| why.to_string())?;
        Ok((server, connection))
    }
}
