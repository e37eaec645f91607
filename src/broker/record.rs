//! What is told to the log, and what it tells of itself.

use crate::event::EventType;
use crate::id::Id;
use crate::topic::Topic;
use std::collections::BTreeMap;

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
