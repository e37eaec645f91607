//! The way from the log to a replica: what is heard, and what is wanted.

use crate::log::Tick;
use crate::sse::Frame;
use crate::topic::{PartitionNo, Topic};
use tokio::sync::mpsc;

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
    /// The clock of this partition, said aloud.
    Tick(PartitionNo, Tick),
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
