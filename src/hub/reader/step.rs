//! One step of a reader: where it begins, what it shows and to whom, and how far it came.

use crate::cursor::Cursor;
use crate::id::Id;
use crate::log::LogRead;
use crate::sse::{Frame, Gap};
use crate::topic::{PartitionNo, Topic};

/// Entries of one page. A page is bounded in bytes as well, by the broker.
pub const PAGE_EVENTS: usize = 256;

/// The same of a stream of very many topics.
pub(super) const PAGE_EVENTS_MIN: usize = 4;

const _: () = assert!(
    PAGE_EVENTS_MIN > 0 && PAGE_EVENTS_MIN <= PAGE_EVENTS,
    "a page that holds nothing never catches up"
);

/// Where a stream begins, in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what comes next.
    Live,
    /// After this id, and what is missing is told.
    After(Id),
    /// After this id, which was found for a first visit: nothing is missing.
    History(Id),
    /// The cursor could not be read: with what comes next, after a gap that says so.
    Unreadable,
}

/// What a reader shows its stream.
#[derive(Clone, Debug)]
pub enum Shown<'a> {
    /// An entry.
    Frame {
        /// Its topic.
        topic: &'a Topic,
        /// The entry.
        frame: &'a Frame,
        /// Its id may be written as the cursor: nothing else with the same id follows.
        anchored: bool,
    },
    /// A gap that this reader alone is told.
    Gap {
        /// What may be missing.
        gap: Gap,
        /// Its id may be written as the cursor: nothing else with the same id follows.
        anchored: bool,
    },
}

impl Shown<'_> {
    /// The id that it stands at.
    #[must_use]
    pub fn id(&self) -> Id {
        match self {
            Self::Frame { frame, .. } => frame.id,
            Self::Gap { gap, .. } => gap.to,
        }
    }

    /// Whether its id may be written as the cursor.
    #[must_use]
    pub fn is_anchored(&self) -> bool {
        match self {
            Self::Frame { anchored, .. } | Self::Gap { anchored, .. } => *anchored,
        }
    }
}

/// What becomes of what a reader shows.
pub trait Sink {
    /// Takes one thing. `cursor` is the stream's cursor once that was shown.
    ///
    /// It is called while a topic is locked: it copies references, and neither waits nor calls the
    /// hub.
    fn show(&mut self, shown: Shown<'_>, cursor: &Cursor) -> Flow;

    /// How many bytes frames have grown by since the last call, because of what was made of them to be shown.
    fn take_grown(&mut self) -> usize {
        0
    }

    /// Called wherever the reader holds no lock between two looks at the hub, so that other threads
    /// may change it. It does nothing; a simulation lets them run here.
    fn others_run(&mut self) {}
}

/// Whether a sink takes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It does.
    More,
    /// Not for now.
    Full,
}

/// How far one step came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Everything that can be shown was shown; the stream is woken when there is more.
    Idle,
    /// A topic is not open yet; the stream is woken when it is.
    Opening,
    /// An event is known, but another topic is not complete up to it; the stream is woken when the
    /// clock has moved on, or the topic was repaired.
    Held,
    /// The sink takes no more for now.
    Full,
    /// This must be read from the log, and given to [`take_pages`](super::Reader::take_pages).
    Behind(LogRead),
    /// Every topic has ended, and the cursor is past it.
    Ended,
}

/// What a reader that has not begun needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenStep {
    /// Nothing: it has begun.
    Open,
    /// It is woken when there is reason to look again.
    Wait,
    /// This must be read first; the hub must have learnt of it.
    Read(LogRead),
}

/// A step under way: where what is shown goes, and the stream's cursor as it moves.
pub(super) struct Showing<'a, S> {
    pub(super) sink: &'a mut S,
    pub(super) cursor: Cursor,
    pub(super) partition: PartitionNo,
    /// Events that were not logged and are gone.
    pub(super) skipped: u64,
}

impl<S: Sink> Showing<'_, S> {
    pub(super) fn show(&mut self, shown: Shown<'_>) -> Flow {
        if shown.is_anchored() {
            self.cursor.set(self.partition, shown.id());
        }
        self.sink.show(shown, &self.cursor)
    }
}
