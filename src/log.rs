//! What a log says of itself, and the pages read from it.
//!
//! These are the answers that brokers give and the hub judges; neither knows the other.

use crate::id::Id;
use crate::sse::Frame;
use crate::topic::Topic;

/// A stretch of ids that a rewound log may have lost: `before < id < after`.
///
/// The first write of a Redis process that did not write last leaves one, with a leap of
/// `redis.leap` ahead, so that no id of a lost tail is ever given out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seam {
    /// The last id that the log still knew.
    pub before: Id,
    /// The first position after the leap.
    pub after: Id,
}

/// The state of a partition's clock at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Horizon {
    /// The last id given out, or the last tick.
    pub last: Id,
    /// When this clock began.
    pub born: Id,
    /// Seams that are remembered, oldest first.
    pub seams: Vec<Seam>,
    /// The time of the log's server, never below `last`, in milliseconds.
    pub now_ms: u64,
    /// Names the process that answered; another one means that the log may have gone back.
    pub run: Box<str>,
}

/// One topic to read: everything above `after`, `limit` entries at most.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReadRequest {
    /// The topic.
    pub topic: Topic,
    /// Entries above this id.
    pub after: Id,
    /// Entries at most; 0 asks for the state of the log alone.
    pub limit: usize,
}

/// Where a topic's log begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floor {
    /// The log holds everything above this id, which is `prev` of its first entry.
    Log(Id),
    /// There is no log; if there was one, everything up to here may have expired with it.
    Empty(Id),
    /// The topic is not logged: nothing can be replayed, and nothing is missed.
    Unlogged,
}

/// One topic's log, from a position on.
#[derive(Clone, Debug)]
pub struct Page {
    /// The topic.
    pub topic: Topic,
    /// The position asked for.
    pub after: Id,
    /// What came before is gone.
    pub floor: Floor,
    /// The id of the end, if the topic has ended.
    pub ended: Option<Id>,
    /// Entries above `after`, ascending, without a hole.
    pub frames: Vec<Frame>,
    /// The page was cut short: the topic is known only up to here.
    pub cut_at: Option<Id>,
}

/// The answer to one read: all pages and the clock belong to the same moment.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The partition's clock.
    pub horizon: Horizon,
    /// One page for each request, in their order.
    pub pages: Vec<Page>,
}

/// What a first visit asks of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// Everything that is retained.
    Earliest,
    /// Everything of the last so many milliseconds.
    Since {
        /// How far back.
        ms: u64,
    },
    /// The last so many events of all topics together.
    Last {
        /// How many.
        events: usize,
    },
}
