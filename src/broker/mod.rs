//! Brokers: where the log lives, and the way from it to this replica.
//!
//! A broker publishes, reads, deletes and lists, carries what replicas say to one another, and feeds
//! this one with live frames. It knows neither subscribers nor HTTP.

pub mod channels;
mod denials;
mod error;
mod ledger;
mod live_path;
mod memory;
pub mod raw;
mod record;
pub mod redis;
mod subscriptions;
mod tickets;

pub use denials::{DenialKind, DenialPage};
pub use error::BrokerError;
pub use ledger::{Bounds, Ledger, LiveFrames, Retention, Rule};
pub use live_path::{Interest, Live, LivePath};
pub use memory::Memory;
pub use record::{Fleet, Publication, TopicState};
pub use subscriptions::Subscriptions;
pub use tickets::{NewTicket, PutTicket};

use crate::id::Id;
use crate::log::{ClockName, Followed, History, ReadRequest, Reading};
use crate::topic::{PartitionNo, Topic};
use std::time::Duration;

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

    /// The same for a stream or a client that is behind. Few of these calls are under way at the same time: each keeps
    /// the log's server busy for long, and publishers wait behind them.
    ///
    /// # Errors
    /// As [`Broker::read`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn replay(
        &self,
        partition: PartitionNo,
        requests: &[ReadRequest],
    ) -> Result<Reading, BrokerError> {
        match self {
            Self::Memory(memory) => memory.read(partition, requests).await,
            Self::Redis(redis) => redis.replay(partition, requests).await,
        }
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

    /// Keeps what a ticket stands for, for all replicas, until it is taken or its time is over.
    ///
    /// # Errors
    /// As [`Broker::read`], and [`BrokerError::OutOfMemory`].
    ///
    /// # Cancel safety
    /// Dropped after the request was sent, it may or may not be kept; then it goes by itself.
    pub async fn put_ticket(&self, ticket: &NewTicket<'_>) -> Result<PutTicket, BrokerError> {
        either!(self, broker => broker.put_ticket(ticket).await)
    }

    /// What is kept under the name of a ticket. It stays.
    ///
    /// # Errors
    /// As [`Broker::read`].
    pub async fn ticket(&self, name: &str) -> Result<Option<Vec<u8>>, BrokerError> {
        either!(self, broker => broker.ticket(name).await)
    }

    /// Removes what is kept under the name of a ticket of this owner. Whether it was there: of all who ask, at whichever
    /// replica, one is told so.
    ///
    /// # Errors
    /// As [`Broker::read`]. Then it may or may not be removed, and the caller must not act as if it were.
    pub async fn take_ticket(&self, name: &str, owner: &str) -> Result<bool, BrokerError> {
        either!(self, broker => broker.take_ticket(name, owner).await)
    }

    /// Has the partition's clock said aloud on the live path.
    ///
    /// # Errors
    /// As [`Broker::read`].
    pub async fn tick(&self, partition: PartitionNo) -> Result<Id, BrokerError> {
        either!(self, broker => broker.tick(partition).await)
    }

    /// Tells a log that may have gone back which clock this replica has followed, how far, and the
    /// last entry of each topic that it knows (zero for none). Returns which clock was told.
    ///
    /// # Errors
    /// As [`Broker::read`].
    pub async fn report(
        &self,
        partition: PartitionNo,
        followed: impl Into<Followed>,
        topics: &[(Topic, Id)],
    ) -> Result<ClockName, BrokerError> {
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

    /// Has Redis be reached in another way, once that works.
    pub fn reach_by(&self, access: redis::Access) {
        if let Self::Redis(redis) = self {
            redis.reach_by(access);
        }
    }

    /// Names of topics that have a log, ascending, those above `after`.
    ///
    /// # Errors
    /// As [`Broker::read`].
    pub async fn topics(&self, after: &str, limit: usize) -> Result<Vec<Topic>, BrokerError> {
        either!(self, broker => broker.topics(after, limit).await)
    }

    /// How many topics have a log, or had one a moment ago.
    ///
    /// # Errors
    /// As [`Broker::read`].
    pub async fn topics_count(&self) -> Result<usize, BrokerError> {
        either!(self, broker => broker.topics_count().await)
    }

    /// What the log holds of one topic; none if it holds nothing.
    ///
    /// # Errors
    /// As [`Broker::read`].
    pub async fn topic(&self, topic: &Topic) -> Result<Option<TopicState>, BrokerError> {
        either!(self, broker => broker.topic(topic).await)
    }

    /// Takes a right back for the fleet, and says when that was, in milliseconds of the store's clock. It is kept for so
    /// long; there are `most` of them at most.
    ///
    /// # Errors
    /// As [`Broker::read`]; [`BrokerError::TooManyDenials`], and [`BrokerError::Unreplicated`] as for a publish.
    pub async fn deny(
        &self,
        kind: DenialKind,
        text: &str,
        keep: Duration,
        most: usize,
    ) -> Result<u64, BrokerError> {
        let keep_ms = crate::time::millis(keep);
        either!(self, broker => broker.deny(kind, text, keep_ms, most).await)
    }

    /// What was taken back after a time, a page of it.
    ///
    /// # Errors
    /// As [`Broker::read`].
    pub async fn denied(&self, since: u64) -> Result<DenialPage, BrokerError> {
        either!(self, broker => broker.denied(since).await)
    }

    /// Says that this replica lives, and what has changed of its subscribers by topic; `anew` has all that
    /// it said of them before forgotten.
    ///
    /// # Errors
    /// As [`Broker::read`].
    pub async fn heartbeat(
        &self,
        streams: u64,
        subscribers: &[(Topic, u64)],
        anew: bool,
    ) -> Result<Fleet, BrokerError> {
        either!(self, broker => broker.heartbeat(streams, subscribers, anew).await)
    }

    /// Forgets topics of a partition whose logs have expired, a bounded number. True if there may be more.
    ///
    /// # Errors
    /// As [`Broker::read`].
    pub async fn sweep(&self, partition: PartitionNo) -> Result<bool, BrokerError> {
        match self {
            Self::Memory(_) => Ok(false),
            Self::Redis(redis) => redis.sweep(partition).await,
        }
    }

    /// Notes some topics that are not noted, as earlier builds and publishers with fewer rights leave them, a bounded
    /// number. True if there may be more.
    ///
    /// # Errors
    /// As [`Broker::read`].
    pub async fn note_topics(&self) -> Result<bool, BrokerError> {
        match self {
            Self::Memory(_) => Ok(false),
            Self::Redis(redis) => redis.note_topics().await,
        }
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
