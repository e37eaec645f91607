//! What was heard of a topic, kept to notice that the log has lost it.
//!
//! A log that went back under another process says so itself. One that went back under the same process,
//! as by `DEBUG RELOAD` or by a snapshot that was restored by hand, shows it only by what is missing: the
//! next entry does not follow the last one, or a page lacks what was heard.

use crate::id::Id;
use crate::log::{Horizon, Page};
use crate::sse::{Frame, Mark};

/// Losses of a topic that are remembered, as many as a log keeps.
const LOSSES_MAX: usize = 8;

/// What a log that may have gone back is told of a topic, zero for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::hub) struct LastKnown {
    /// The last entry that stood in its place.
    pub(in crate::hub) entry: Id,
    /// The last entry that was heard while the topic had a hole, or was being opened.
    pub(in crate::hub) waited: Id,
    /// Up to where something was lost, as a gap entry has said, or as was found: each of these, ascending. The
    /// log may have lost what it wrote down of it.
    pub(in crate::hub) losses: Vec<Id>,
    /// What the log was told last, which it may have lost and written down.
    pub(in crate::hub) once_told: Id,
    /// The log was told everything up to here, and the topic was not read since. What is missing then is
    /// written down.
    pub(in crate::hub) told: Id,
}

impl LastKnown {
    /// The log was told everything. What it writes down about it may be lost before it comes back.
    pub(in crate::hub) fn note_told(&mut self) {
        self.told = self.entry.max(self.waited);
        self.once_told = self.once_told.max(self.told);
    }

    /// Something was lost up to here.
    fn note_loss(&mut self, id: Id) {
        if let Err(place) = self.losses.binary_search(&id) {
            self.losses.insert(place, id);
            if self.losses.len() > LOSSES_MAX {
                self.losses.remove(0);
            }
        }
    }

    /// Every id that a log is told which may have gone back: each stands for what was heard up to there.
    pub(in crate::hub) fn reported(&self) -> impl Iterator<Item = Id> {
        let waited = Some(self.waited).filter(|id| *id > self.entry);
        let lost = self.losses.iter().copied().chain([self.once_told]);
        let lost = lost.filter(|id| *id > Id::ZERO && *id != self.entry);
        std::iter::once(self.entry).chain(waited).chain(lost)
    }
}

/// The same, and what the log was told of it.
#[derive(Debug)]
pub(super) struct Known {
    last: LastKnown,
    /// It was found that something was lost, and the log was not told.
    owes_report: bool,
    /// Up to here something is missing of which the log was told.
    written_down: Id,
}

impl Known {
    /// What a feed of the topic knew that was here before.
    pub(super) fn new(last: LastKnown) -> Self {
        Self {
            last,
            owes_report: false,
            written_down: Id::ZERO,
        }
    }

    /// What a log is told, while entries up to `waiting` wait.
    pub(super) fn last(&self, waiting: Id) -> LastKnown {
        LastKnown {
            waited: self.last.waited.max(waiting),
            ..self.last.clone()
        }
    }

    /// After what the log is read when the topic opens, zero for nothing: the first entry from there on shows
    /// whether the newest that was heard is lost. A log that has that one has those before it.
    pub(super) fn look_after(&self) -> Id {
        let LastKnown { entry, waited, .. } = self.last;
        if waited > entry {
            waited.just_before()
        } else {
            entry
        }
    }

    /// An entry stands in its place.
    pub(super) fn append(&mut self, frame: &Frame) {
        self.last.entry = self.last.entry.max(frame.id);
        self.note_gap(frame);
    }

    /// The last entry of a page that a stream has read.
    pub(super) fn see(&mut self, last: Option<Id>) {
        self.last.entry = self.last.entry.max(last.unwrap_or_default());
    }

    /// A gap entry was heard or read, in its place or not: the log may lose it.
    pub(super) fn note_gap(&mut self, frame: &Frame) {
        if let Mark::Gap { lost, .. } = frame.mark {
            self.last.note_loss(lost);
        }
    }

    /// Entries up to here wait no more: they are read from the log. What was set aside before them and not read
    /// since may be of a log that was lost before it was told: what comes after it proves nothing then.
    pub(super) fn set_aside(&mut self, waiting: Id) {
        let LastKnown { entry, waited, .. } = self.last;
        if entry < waited && waited < waiting {
            self.last.note_loss(waited);
        }
        self.last.waited = self.last.waited.max(waiting);
    }

    /// Whether the next frame shows that what was heard before it was lost, of a log that was `born` then.
    /// Entries up to `waiting` wait.
    pub(super) fn is_contradicted_by(&mut self, next: &Frame, waiting: Id, born: Id) -> bool {
        let last = self.last.entry.max(self.last.waited).max(waiting);
        is_not_followed(last, next, born) && self.find_lost(last)
    }

    /// Looks for what a page lacks that was asked for to open or repair the topic: what was heard, the
    /// `last` entry of the window, what is `waiting`.
    pub(super) fn compare(
        &mut self,
        page: &Page,
        horizon: &Horizon,
        last: Option<Id>,
        waiting: impl Iterator<Item = Id>,
    ) {
        let LastKnown { entry, waited, .. } = self.last;
        let before = last.into_iter().chain([entry, waited]).filter(|id| {
            let next = page.frames.first();
            next.is_some_and(|next| is_not_followed(*id, next, horizon.born))
        });
        let within = waiting.chain([entry, waited]);
        let within = within.filter(|id| page.lacks(*id, horizon));
        if let Some(lost) = before.chain(within).max() {
            self.find_lost(lost);
        }
    }

    /// An entry is missing in the log. False if that was told.
    fn find_lost(&mut self, id: Id) -> bool {
        if id <= self.last.told {
            self.written_down = self.written_down.max(id);
        }
        if id <= self.written_down {
            return false;
        }
        self.last.note_loss(id);
        self.owes_report = true;
        true
    }

    /// Whether something was found that the log was not told.
    pub(super) fn owes_report(&self) -> bool {
        self.owes_report
    }

    /// The topic was read, and nothing is missing that was not told.
    pub(super) fn settle(&mut self) {
        self.owes_report = false;
        self.last.told = Id::ZERO;
    }

    /// The log was told everything.
    pub(super) fn note_told(&mut self) {
        self.last.note_told();
    }

    /// As [`Known::owes_report`], once.
    pub(super) fn take_owes_report(&mut self) -> bool {
        std::mem::take(&mut self.owes_report)
    }
}

/// Whether an entry that is known was lost, as the next one of a log that was born then shows. A fresh
/// log names the oldest position from which it could still know an entry. One that went back names an entry
/// before the one that is known.
fn is_not_followed(known: Id, next: &Frame, born: Id) -> bool {
    next.prev < known && known < next.id && born < known
}
