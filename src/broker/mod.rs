//! Brokers: where the log lives, and the way from it to this replica.
//!
//! A broker publishes, reads, deletes and lists, carries what replicas say to one another, and feeds
//! this one with live frames. It knows neither subscribers nor HTTP.

mod ledger;
mod memory;
pub mod raw;
pub mod redis;
mod subscriptions;

pub use ledger::{Bounds, Ledger, LiveFrames, Retention, Rule};
pub use memory::Memory;
pub use subscriptions::Subscriptions;

use crate::event::EventType;
use crate::id::Id;
use crate::log::{Followed, History, ReadRequest, Reading};
use crate::sse::Frame;
use crate::topic::{PartitionNo, Topic};
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// One event to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The topic; never a reserved one.
    pub topic: Topic,
    /// The type.
    pub event_type: EventType,
    /// The data, verbatim.
    pub data: String,
    /// This is the topic's last event.
    pub end: bool,
    /// A repeat of the same key on the same topic, within the window, answers the first id.
    pub idempotency_key: Option<String>,
}

/// Why something was not done. The caller's fault or the server's: `http` turns it into a status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The topic has ended; retrying helps only once it has expired or been deleted.
    #[error("topic {0} has ended")]
    Ended(String),
    /// The key of the topic's log, or of an idempotency key, holds what is not the gateway's.
    /// Retrying helps once somebody has removed it.
    #[error("{0}")]
    Foreign(String),
    /// The topic is not logged, so it cannot end; retrying does not help.
    #[error("topic {0} is not logged, so it has no end")]
    Unlogged(String),
    /// The data is larger than `publish.event_bytes_max`.
    #[error("the event has more than {0} bytes")]
    TooLarge(u64),
    /// `limits.topics_max` topics exist already.
    #[error("there are {0} topics already, no more are allowed")]
    TooManyTopics(u64),
    /// It is published, but fewer replicas of Redis than `log.wait_replicas` have confirmed it in
    /// time: a failover now may lose it. Retry with the same idempotency key.
    #[error("{replicas} of {wanted} replicas have confirmed it in time")]
    Unreplicated {
        /// Those that have it.
        replicas: u64,
        /// Those that should.
        wanted: u64,
    },
    /// Redis refused for want of memory; retry later.
    #[error("the log is out of memory")]
    OutOfMemory,
    /// No answer, or no connection; whether it was done is unknown. Retry with the same
    /// idempotency key.
    #[error("the log cannot be reached: {0}")]
    Unavailable(String),
    /// Redis refused for a reason that retrying does not mend.
    #[error("the log refused: {0}")]
    Refused(String),
}

/// What the live path tells a replica, in the order in which it happened.
#[derive(Clone, Debug)]
pub enum Live {
    /// A connection stands; nothing is subscribed on it yet. `run` names the server's process.
    Up {
        /// The process that the connection leads to.
        run: Box<str>,
    },
    /// From here on every frame of these topics is heard, each with the number under which it was
    /// wanted last.
    Confirmed(Vec<(Topic, u64)>),
    /// A new entry.
    Frame(Topic, Frame),
    /// An entry that cannot be read: the topic has a hole.
    Unreadable(Topic),
    /// The clock said aloud: nothing at or below this id is still to come.
    Tick(PartitionNo, Id),
    /// The connection is gone; frames may be missing until the next `Confirmed`.
    Down,
}

/// What a replica wants of the live path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Hear these topics. The number comes back when each is heard: a topic may be given up and
    /// wanted again while an earlier confirmation is on its way.
    Add(Vec<(Topic, u64)>),
    /// Stop hearing these topics.
    Remove(Vec<Topic>),
    /// The connection is deaf, or has shown that the log has gone back: begin anew.
    Reset,
}

/// The two ends of a live path.
#[derive(Debug)]
pub struct LivePath {
    /// What happens, in order; bounded, see `redis.live_queue_bytes`.
    pub events: mpsc::Receiver<Live>,
    /// What is wanted.
    pub interest: mpsc::Sender<Interest>,
}

/// What a log holds of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicState {
    /// Ids of the first and the last retained entry.
    pub range: Option<(Id, Id)>,
    /// Entries retained.
    pub length: u64,
    /// Whether the topic has ended.
    pub ended: bool,
    /// Subscribers over all replicas, this one's not counted.
    pub subscribers_elsewhere: u64,
}

/// What replicas say of themselves to one another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// Open streams by replica, those that were heard of in the last seconds.
    pub streams: BTreeMap<String, u64>,
    /// What this replica has said of its subscribers is no longer there.
    pub forgotten: bool,
}

/// A log, of one of the kinds that exist.
#[derive(Debug)]
pub enum Broker {
    /// In this process, gone with it.
    Memory(Box<Memory>),
    /// In Redis, shared by all replicas.
    Redis(redis::Redis),
}

/// Calls the method of the same name on whichever broker it is.
macro_rules! either {
    ($self:ident, $broker:ident => $call:expr) => {
        match $self {
            Self::Memory($broker) => $call,
            Self::Redis($broker) => $call,
        }
    };
}

impl Broker {
    /// Publishes events, all or none, and returns their ids in order: none where the topic is not
    /// logged.
    ///
    /// # Errors
    /// [`BrokerError`], for the first event that is refused.
    ///
    /// # Cancel safety
    /// Dropped after the request was sent, the events may or may not have been appended.
    pub async fn publish(&self, batch: &[Publication]) -> Result<Vec<Option<Id>>, BrokerError> {
        either!(self, broker => broker.publish(batch).await)
    }

    /// Reads topics of one partition, with its clock, as of one moment.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] or [`BrokerError::Refused`].
    pub async fn read(
        &self,
        partition: PartitionNo,
        requests: &[ReadRequest],
    ) -> Result<Reading, BrokerError> {
        either!(self, broker => broker.read(partition, requests).await)
    }

    /// The position just before the history that a first visit asks for, in each partition of these
    /// topics.
    ///
    /// # Errors
    /// As [`Broker::read`].
    pub async fn history(
        &self,
        topics: &[Topic],
        history: History,
    ) -> Result<Vec<(PartitionNo, Id)>, BrokerError> {
        either!(self, broker => broker.history(topics, history).await)
    }

    /// Deletes a topic's log, leaving a last event that says so.
    ///
    /// # Errors
    /// As [`Broker::read`].
    pub async fn delete(&self, topic: &Topic) -> Result<Option<Id>, BrokerError> {
        either!(self, broker => broker.delete(topic).await)
    }

    /// Has the partition's clock said aloud on the live path.
    ///
    /// # Errors
    /// As [`Broker::read`].
    pub async fn tick(&self, partition: PartitionNo) -> Result<Id, BrokerError> {
        either!(self, broker => broker.tick(partition).await)
    }

    /// Tells a log that may have gone back which clock this replica has followed, how far, and the
    /// last entry of each topic that it knows (zero for none).
    ///
    /// # Errors
    /// As [`Broker::read`].
    pub async fn report(
        &self,
        partition: PartitionNo,
        followed: impl Into<Followed>,
        topics: &[(Topic, Id)],
    ) -> Result<(), BrokerError> {
        let followed = followed.into();
        either!(self, broker => broker.report(partition, followed, topics).await)
    }

    /// Keeps other bounds from now on. A log that is away is told when it is back.
    pub async fn retain(&self, retention: Retention) {
        match self {
            Self::Memory(memory) => memory.retain(retention),
            Self::Redis(redis) => redis.retain(retention).await,
        }
    }

    /// Names of topics that have a log, ascending, those above `after`.
    ///
    /// # Errors
    /// As [`Broker::read`].
    pub async fn topics(&self, after: &str, limit: usize) -> Result<Vec<Topic>, BrokerError> {
        either!(self, broker => broker.topics(after, limit).await)
    }

    /// What the log holds of one topic; none if it holds nothing.
    ///
    /// # Errors
    /// As [`Broker::read`].
    pub async fn topic(&self, topic: &Topic) -> Result<Option<TopicState>, BrokerError> {
        either!(self, broker => broker.topic(topic).await)
    }

    /// Says that this replica lives, and what has changed of its subscribers by topic.
    ///
    /// # Errors
    /// As [`Broker::read`].
    pub async fn heartbeat(
        &self,
        streams: u64,
        subscribers: &[(Topic, u64)],
    ) -> Result<Fleet, BrokerError> {
        either!(self, broker => broker.heartbeat(streams, subscribers).await)
    }

    /// Takes this replica off the list that others see, at a clean stop.
    ///
    /// # Errors
    /// As [`Broker::read`].
    pub async fn farewell(&self) -> Result<(), BrokerError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(redis) => redis.farewell().await,
        }
    }

    /// Asks how the log's server stands, for its metrics and for warnings.
    ///
    /// # Errors
    /// As [`Broker::read`].
    pub async fn inspect_server(&self) -> Result<(), BrokerError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(redis) => redis.inspect_server().await.map(drop),
        }
    }

    /// Sets the metrics of how many connections to the log's server are in use.
    pub fn count_connections(&self) {
        match self {
            Self::Memory(_) => {}
            Self::Redis(redis) => redis.count_connections(),
        }
    }

    /// Partitions of this log.
    #[must_use]
    pub fn partitions(&self) -> PartitionNo {
        either!(self, broker => broker.partitions())
    }
}
