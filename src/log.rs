//! What a log says of itself, and the pages read from it.
//!
//! These are the answers that brokers give and the hub judges; neither knows the other.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use crate::id::Id;
use crate::sse::Frame;
use crate::topic::{PartitionNo, Topic};

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

/// A loss that was written down: something above `from` is gone, and gap entries say so.
///
/// A gap entry may be trimmed, deleted or expire like any other entry. A cursor below `told` may
/// not have gone past it, so whatever gap it is told begins at `from` or below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The last id before what is gone.
    pub from: Id,
    /// The last gap entry about it, on any topic of the partition.
    pub told: Id,
}

/// How far a replica has followed a partition's clock, and which clock that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Up to here.
    pub heard: Id,
    /// The newest id that it knows of, of whatever log: nothing at or below it is shown there any more, and
    /// none up to here is given out again.
    pub known: Id,
    /// When the clock was born that it followed; none if it never read one.
    pub born: Option<Id>,
    /// Where the newest seam begins that it knew, zero if there was none; none if it never read one.
    pub seam: Option<Id>,
    /// The process that it followed; none if it never read one.
    pub run: Option<RunId>,
}

impl From<Id> for Followed {
    fn from(heard: Id) -> Self {
        Self {
            heard,
            known: heard,
            born: None,
            seam: None,
            run: None,
        }
    }
}

impl Followed {
    /// What a replica followed that knew this clock, and heard up to `heard`, and nothing of another one.
    #[must_use]
    pub fn by(clock: ClockName, heard: Id) -> Self {
        Self {
            heard,
            known: heard,
            born: Some(clock.born),
            seam: Some(clock.seam),
            run: Some(clock.run),
        }
    }
}

/// A clock as it is said aloud on the live path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Nothing at or below this id is still to come.
    pub id: Id,
    /// Which clock it is; none if that was not said.
    pub of: Option<ClockName>,
}

/// Names a process of the log: the first 64 bits of `run_id` in `INFO server`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunId(pub u64);

impl FromStr for RunId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text.get(..16).unwrap_or(text), 16).map(Self)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Tells a clock from those before it.
///
/// Two processes that load the same snapshot one after the other begin their seams at the same id: what tells
/// them apart is the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockName {
    /// When it began.
    pub born: Id,
    /// Where its newest seam begins, zero if there is none: another process has written from there on.
    pub seam: Id,
    /// The process that it is of.
    pub run: RunId,
}

impl ClockName {
    /// Whether one process has written both, since the same birth. The seam may be newer.
    #[must_use]
    pub fn is_of_process_of(&self, other: &Self) -> bool {
        self.born == other.born && self.run == other.run
    }

    /// The clock that was read.
    #[must_use]
    pub fn of(horizon: &Horizon) -> Self {
        Self {
            born: horizon.born,
            seam: horizon.seams.last().map_or(Id::ZERO, |seam| seam.before),
            run: horizon.run,
        }
    }
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
    /// Losses that are remembered, in the order of `told`.
    pub losses: Vec<Loss>,
    /// The time of the log's server, never below `last`, in milliseconds.
    pub now_ms: u64,
    /// Names the process that answered; another one means that the log may have gone back.
    pub run: RunId,
}

/// One topic to read: everything above `after`, `limit` entries at most.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReadRequest {
    /// The topic.
    pub topic: Topic,
    /// Entries above this id.
    pub after: Id,
    /// Entries at most; 0 asks for the state of the log alone, and its floor is not looked for.
    pub limit: usize,
}

/// What is asked of one partition of the log, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LogRead {
    /// The clock alone. It must be read after it was asked for: who asks has an id to compare with
    /// it, which may be newer than a read that was under way.
    Clock(PartitionNo),
    /// How topics stand, without entries, and the clock. It must be read after it was asked for, too.
    State(PartitionNo, Vec<ReadRequest>),
    /// Pages, and the clock. Never empty. Any that is under way will do: what it lacks is read next.
    Pages(PartitionNo, Vec<ReadRequest>),
    /// The same, for a stream that holds pages of other topics until it has these: it is not kept waiting.
    Rest(PartitionNo, Vec<ReadRequest>),
}

impl LogRead {
    /// The partition.
    #[must_use]
    pub const fn partition(&self) -> PartitionNo {
        match self {
            Self::Clock(partition)
            | Self::State(partition, _)
            | Self::Pages(partition, _)
            | Self::Rest(partition, _) => *partition,
        }
    }

    /// The pages asked for.
    #[must_use]
    pub fn requests(&self) -> &[ReadRequest] {
        match self {
            Self::Clock(_) => &[],
            Self::State(_, requests) | Self::Pages(_, requests) | Self::Rest(_, requests) => {
                requests
            }
        }
    }

    /// Whether one that is under way already will do.
    #[must_use]
    pub const fn may_be_shared(&self) -> bool {
        matches!(self, Self::Pages(..) | Self::Rest(..))
    }
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

impl Floor {
    /// Where the log begins, or what may be gone with it ends. None if there is nothing to miss.
    #[must_use]
    pub fn position(self) -> Option<Id> {
        match self {
            Self::Log(floor) | Self::Empty(floor) => Some(floor),
            Self::Unlogged => None,
        }
    }
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
    /// The page was cut short: the topic is known only up to here. A page of no entries, which asks
    /// for the state of the log alone, is cut where it begins.
    pub cut_at: Option<Id>,
}

impl Page {
    /// Whether an entry of the topic with this id would have to stand here, and does not.
    #[must_use]
    pub fn lacks(&self, id: Id, horizon: &Horizon) -> bool {
        let Some(floor) = self.floor.position() else {
            return false;
        };
        let is_above = self.after.max(floor) < id;
        let is_read = id <= self.cut_at.unwrap_or(horizon.last);
        is_above
            && is_read
            && self
                .frames
                .binary_search_by_key(&id, |frame| frame.id)
                .is_err()
    }
}

/// Counts the memory of a reading as long as that lives.
pub trait Held: fmt::Debug + Send + Sync {
    /// Its frames hold so many bytes more.
    fn grow(&self, bytes: usize);
}

/// The answer to one read: all pages and the clock belong to the same moment.
#[derive(Debug)]
pub struct Reading {
    /// The partition's clock.
    pub horizon: Horizon,
    /// A page for each request, in their order. One answer has a bound: pages for which there was no room
    /// are left out, and are asked for again. The first is always there, and so are those without entries.
    pub pages: Vec<Page>,
    /// Let go with it.
    pub held: Option<Box<dyn Held>>,
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
