//! What a replica knows of one topic, and how it becomes whole again after a hole.
//!
//! The state of health says up to which id the topic is *complete*: everything at or below it stands
//! in the window, or in the log below the window's floor.
//!
//! | from | what happens | to |
//! |---|---|---|
//! | opening | the state of the log was read, after the subscription was confirmed | live, from the clock of that reading on |
//! | live | a frame that names the last known entry as its previous one | live |
//! | live | a frame whose previous entry is unknown, or one that cannot be read | broken after the last known entry; the frame waits. A deletion empties the window. If streams may have gone past that previous entry, they are told at once |
//! | live | a frame that begins a log, although the last known entry had time to live | broken after that entry; the log must be told |
//! | live | a frame at or below where streams may be: a log that went back gives its ids out once more | broken after the last known entry; the frame waits |
//! | live | the live path breaks, or shows a frame of a log that was not told of this one | broken after the last id that was heard |
//! | live, broken | a frame that is not above what was heard, or a new one where the topic is complete: a log that went back | as the other rows say; all streams are told that they may have gone past it |
//! | broken | a new frame where the topic is complete | broken after the last known entry; the frame waits |
//! | broken | any other frame | broken; the frame waits. A deletion empties the window at once: what it deletes is shown no more |
//! | broken | a page that was cut short | broken further on |
//! | broken | a page whose first entry names one between the last known entry and the page | broken after the last known entry: there was an older hole |
//! | broken | a page whose first entry follows one before the last known entry, of a log that was not told of this one | broken, as before; the log must be told |
//! | broken | the last page | live; the frames that waited follow. What was found and streams had gone past is noted in [`late`](super::late), and they are told |
//! | broken | the live path breaks | broken, as before; the frames that waited are in the log |
//! | broken | a page that was asked for from another position than the present one | broken, as before |
//! | broken | a page that was read before a deletion which was heard since | broken, as before |
//! | opening | a frame | opening; the frame waits |
//! | opening | the live path breaks | opening; the frames that waited are in the log |
//!
//! Frames that waited may show the next hole; then the topic is broken again at once.

use super::hole::Hole;
use super::known::{Known, LastKnown};
use super::late::{LateFinds, Stretch};
use super::pending::{Pending, Waiting};
use crate::gap;
use crate::hub::partition::Generation;
use crate::hub::window::{Window, WindowBounds};
use crate::id::Id;
use crate::log::{Floor, Horizon, Page};
use crate::sse::{Frame, GapReason, Mark};

/// One topic as this replica knows it: a plain state machine, without a lock and without a clock.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) health: Health,
    pub(super) window: Window,
    /// The id of the end, if the topic has ended.
    pub(super) ended: Option<Id>,
    /// The log says that the topic is not logged.
    pub(super) unlogged: bool,
    /// The id of the newest deletion, zero for none. What was read from the log before it must not
    /// be shown to anybody again.
    deleted: Id,
    /// The clock when the topic was opened. A deletion before that may have been heard and forgotten
    /// here, with a feed that nobody read.
    opened: Id,
    /// When it was live while the live path showed another log: nothing of the one before was missed.
    heard_all: Option<Generation>,
    known: Known,
    /// When the log began that was read last. What stands here from before that is of a log that is
    /// known to be gone.
    born: Id,
    pending: Pending,
    /// Events that were found after streams had gone past them.
    pub(super) late: LateFinds,
}

/// Up to where a topic is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// The subscription is not confirmed, or the clock not read after it. Nothing is known.
    Opening,
    /// Complete up to the greater of `base` and what the partition has heard.
    Live {
        /// The clock when the topic was read last.
        base: Id,
    },
    /// Frames heard meanwhile wait until the log was read.
    Broken(Hole),
}

/// What became of a live frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It stands in the window.
    Appended,
    /// It was known already.
    Known,
    /// It waits until the topic has been read.
    Waits,
    /// Its predecessor is missing: the topic must be read.
    Hole,
    /// It begins a log although the last known entry had time to live: the log was lost. It waits,
    /// too.
    LogLost,
}

/// What a topic needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repaired {
    /// It is live.
    Live,
    /// There is more to read.
    More,
}

/// What is to be read for a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Only how the log stands: the topic begins now. What follows an entry that was known before shows
    /// whether the log has lost it; zero for none.
    State(Id),
    /// The entries after an id.
    Entries(Id),
}

impl Track {
    /// Nothing stands in it yet. What is `known` from before is of another feed of the topic.
    pub(super) fn new(bounds: WindowBounds, known: LastKnown) -> Self {
        Self {
            health: Health::Opening,
            window: Window::new(Id::ZERO, bounds),
            ended: None,
            unlogged: false,
            deleted: Id::ZERO,
            opened: Id::ZERO,
            known: Known::new(known),
            heard_all: None,
            born: Id::ZERO,
            pending: Pending::default(),
            late: LateFinds::default(),
        }
    }

    /// Everything up to here stands in the window, or in the log below its floor; none while
    /// opening.
    pub(super) fn complete(&self, heard: Id) -> Option<Id> {
        match self.health {
            Health::Opening => None,
            Health::Live { base } => Some(base.max(heard)),
            Health::Broken(hole) => Some(hole.at),
        }
    }

    /// Where it is broken; none if it is not.
    pub(super) fn hole(&self) -> Option<Hole> {
        match self.health {
            Health::Broken(hole) => Some(hole),
            Health::Opening | Health::Live { .. } => None,
        }
    }

    /// Bytes that stay in memory for it.
    pub(super) fn held(&self) -> usize {
        self.window.held() + self.pending.held()
    }

    /// Whether a reader at `position` finds everything above it in the window.
    pub(super) fn covers(&self, position: Id) -> bool {
        self.health != Health::Opening && position >= self.window.floor()
    }

    /// What must be read before the topic is live; none if it is.
    pub(super) fn wants(&self) -> Option<Wanted> {
        match self.health {
            Health::Opening => Some(Wanted::State(self.known.look_after())),
            Health::Broken(hole) => Some(Wanted::Entries(hole.at)),
            Health::Live { .. } => None,
        }
    }

    /// What a log is told that may have gone back.
    pub(super) fn last_known(&self) -> LastKnown {
        let known = self.known.last(self.pending.last());
        // Pages count only from there on: a log that does not know of it must not stay below.
        let once_told = if known.entry < self.deleted {
            known.once_told.max(self.deleted)
        } else {
            known.once_told
        };
        LastKnown { once_told, ..known }
    }

    /// Whether the topic may have been deleted after a reading of the log with this clock was made.
    pub(super) fn was_deleted_after(&self, horizon: &Horizon) -> bool {
        horizon.last < self.deleted.max(self.opened)
    }

    /// Whether a page that was asked for to open or repair this topic, or a frame that waits, shows that the
    /// log has lost what was heard of it: the log must be told before the page counts.
    pub(super) fn is_contradicted_by(&mut self, page: &Page, horizon: &Horizon) -> bool {
        let is_asked = match self.health {
            Health::Opening => page.after == self.known.look_after(),
            Health::Broken(hole) => page.after == hole.at,
            Health::Live { .. } => false,
        };
        if is_asked && !self.was_deleted_after(horizon) {
            let last = self.window.last();
            self.known.compare(page, horizon, last, self.pending.ids());
        }
        self.known.owes_report()
    }

    /// The log was told what is known of the topic.
    pub(super) fn note_told(&mut self) {
        self.known.note_told();
    }

    /// Whether the log must be told that it has lost what was heard of this topic, as was found since the
    /// last call.
    pub(super) fn take_owes_report(&mut self) -> bool {
        self.known.take_owes_report()
    }

    /// Takes a frame from the live path; `heard` is what the partition has heard before it, `serial` the hub's next
    /// serial number.
    pub(super) fn hear(&mut self, frame: Frame, heard: Id, serial: impl Fn() -> u64) -> Taken {
        let complete = self.complete(heard).unwrap_or_default();
        let shown = self.hole().map_or(complete, |hole| hole.shown.max(heard));
        // An ordered live path shows nothing at or below what was heard, and nothing new where the log was read.
        let is_new = self.chain() < frame.id;
        if self.health != Health::Opening && (frame.id <= heard || (is_new && frame.id <= complete))
        {
            self.note_below(&frame, shown.max(complete), serial());
        }
        self.take(frame, heard, shown, &serial)
    }

    /// The log has gone back: a frame stands where streams may have gone past. All of them are told, those too that
    /// began above it.
    fn note_below(&mut self, frame: &Frame, shown: Id, serial: u64) {
        let prev = frame.prev;
        let mut known = self.window.after(prev.just_before());
        let is_known = prev.is_position() || known.next().is_some_and(|known| known.id == prev);
        // Its predecessor may be as new, and may have vanished.
        let from = if is_known { prev } else { prev.just_before() };
        let chain = self.chain();
        let stretch = Stretch {
            from: if chain < frame.id { chain } else { from },
            to: Id::new(shown.ms, shown.seq + 1),
            reason: GapReason::Late,
        };
        self.late.note(stretch, stretch.to, serial);
    }

    /// Takes a frame that comes now, or has waited. Streams have gone no further than `shown`.
    fn take(&mut self, frame: Frame, heard: Id, shown: Id, serial: &impl Fn() -> u64) -> Taken {
        // It may have been logged only since it was read.
        self.unlogged = false;
        self.known.note_gap(&frame);
        let waiting = self.pending.last();
        let log_lost = self.known.is_contradicted_by(&frame, waiting, self.born);
        let Health::Live { base } = self.health else {
            self.wait(frame);
            return Taken::Waits;
        };
        let chain = self.chain();
        if frame.id <= chain {
            return Taken::Known;
        }
        if log_lost || frame.id <= shown {
            // Streams may have gone past it, which the log gives out once more.
            self.health = self.broken_after_chain(base, heard);
            self.wait(frame);
            return if log_lost {
                Taken::LogLost
            } else {
                Taken::Hole
            };
        }
        // The first entry of a fresh log names a position instead of a predecessor; there the
        // clock's word is enough.
        let is_first = frame.prev.is_position();
        let known = if is_first { chain.max(heard) } else { chain };
        if frame.prev > known {
            self.health = if is_first {
                Health::Broken(Hole::new(known, known))
            } else if frame.prev <= shown {
                self.note_passed(&frame, chain, base.max(heard), serial)
            } else {
                self.broken_after_chain(base, heard)
            };
            self.wait(frame);
            return Taken::Hole;
        }
        self.append(frame);
        Taken::Appended
    }

    /// Keeps a frame until the topic was read.
    fn wait(&mut self, frame: Frame) {
        if frame.mark == Mark::Deleted {
            // It cannot wait: what stands here is shown meanwhile.
            self.deleted = self.deleted.max(frame.id);
            if let Health::Broken(hole) = self.health {
                self.window.restart(hole.at.max(self.window.floor()));
            }
        }
        let chain = self.chain();
        if let Health::Broken(hole) = &mut self.health
            && chain < frame.id
            && frame.id <= hole.at
        {
            // The log gives ids out once more: it is read from further below.
            hole.shown = hole.shown.max(hole.at);
            hole.at = chain;
            hole.told = Id::ZERO;
        }
        self.pending.keep(frame);
    }

    /// Streams may have gone past a frame's predecessor, which is missing here. They are told at once: the log may
    /// not answer, and whoever leaves meanwhile comes back to a replica that lacks nothing.
    fn note_passed(
        &mut self,
        frame: &Frame,
        chain: Id,
        shown: Id,
        serial: &impl Fn() -> u64,
    ) -> Health {
        let stretch = Stretch {
            from: chain,
            to: frame.prev,
            reason: GapReason::Late,
        };
        // Whoever comes with the frame's own id was somewhere where nothing is missing.
        self.late.note(stretch, frame.id.just_before(), serial());
        Health::Broken(Hole {
            told: frame.prev,
            ..Hole::new(chain, shown)
        })
    }

    /// The live path broke, or goes on with another log (`changed`): what was complete stays so, nothing
    /// more is known, and what waits is in the log.
    pub(super) fn break_off(&mut self, heard: Id, changed: Option<Generation>) {
        if let Health::Live { base } = self.health {
            self.heard_all = changed;
            let at = base.max(heard);
            // Another thread may have found that the log is another one while a frame was put here: it is not
            // complete with that frame, and the page that comes next may bring it again.
            self.window.forget_above(at);
            self.health = Health::Broken(Hole::new(at, at));
        }
        // What waits is in the log.
        self.known.set_aside(self.pending.last());
        self.pending.take();
    }

    /// A frame was lost on the way, nobody knows which: back to what is certain.
    pub(super) fn lose_frame(&mut self, heard: Id) {
        if let Health::Live { base } = self.health {
            self.health = self.broken_after_chain(base, heard);
        }
        self.pending.note_lost();
    }

    /// Adds an older stretch of the log that a stream has read anyway, and what the log says of the
    /// end.
    ///
    /// The reply may have been under way for long: meanwhile the window may have moved on, the topic
    /// may have been deleted, and it may have ended. The window may still be of the log before a rewind:
    /// the page's log was told of it before it was read (`Partition::settled`), and whoever comes out of
    /// the window in the seam is told from where the seam begins. It takes no more than `room` bytes.
    pub(super) fn offer(&mut self, page: &Page, horizon: &Horizon, room: usize) {
        if self.health == Health::Opening || self.was_deleted_after(horizon) {
            return;
        }
        // A page knows of nothing above its clock, whether or not it was cut short: only if the
        // floor has not moved past that, everything between page and window is in one of the two.
        let reaches = page.cut_at.unwrap_or(horizon.last) >= self.window.floor();
        // Nothing may be missing in it, by any rule: what a log that was lost, rewound or trimmed no
        // longer holds must stay below the floor, so that whoever comes with a cursor there is told.
        let whole = matches!(page.floor, Floor::Log(_))
            && gap::judge(page.after, horizon, page.floor).is_none();
        if reaches && whole {
            self.window.prepend(page.after, &page.frames, room);
        }
        // A stream is shown it, whether or not it stands here, and whether or not the live path ever brings it.
        self.known.see(page.frames.last().map(|frame| frame.id));
        // The log has forgotten an end that stands here still: it expired, or its key was removed. Or the topic was
        // opened anew, and has ended once more.
        if let Some(end) = self.ended.filter(|end| *end <= horizon.last) {
            self.ended = page.ended.map(|of_log| of_log.max(end));
        }
    }

    /// Takes what was read to open or to repair the topic, while the live path carried it; `heard`
    /// is what the partition has heard by now, `serial` the hub's next serial number: streams
    /// opened before it may have gone past what is found now. `complete_in` says how far the topic is
    /// complete in the log that was read, if it is up to an id (`Partition::complete_in`).
    pub(super) fn repair(
        &mut self,
        page: &Page,
        horizon: &Horizon,
        heard: Id,
        serial: impl Fn() -> u64,
        complete_in: impl Fn(Id, Generation) -> Id,
    ) -> Repaired {
        self.unlogged = page.floor == Floor::Unlogged;
        self.born = horizon.born;
        let mut gone_past = Id::ZERO;
        match self.health {
            Health::Live { .. } => return Repaired::Live,
            Health::Opening => {
                self.known.settle();
                self.window.restart(horizon.last);
                self.opened = horizon.last;
                self.health = Health::Live { base: horizon.last };
            }
            // The topic has broken elsewhere since that was asked for.
            Health::Broken(hole) if page.after != hole.at => return Repaired::More,
            // A deletion was heard meanwhile: what it deletes is not shown again, not even to be told
            // of the deletion right after it.
            Health::Broken(_) if self.was_deleted_after(horizon) => return Repaired::More,
            Health::Broken(hole) => {
                let chain = self.chain();
                if hole.is_older(page, chain) {
                    // Nothing had shown that hole before the path broke.
                    self.health = Health::Broken(Hole { at: chain, ..hole });
                    return Repaired::More;
                }
                let at = self
                    .heard_all
                    .map_or(hole.at, |changed| complete_in(hole.at, changed));
                let missing = gap::judge(at, horizon, page.floor).filter(|gap| at < gap.to);
                let floor = missing.map_or(at, |gap| gap.to);
                let reached = self
                    .take_page(at, floor, page)
                    .max(page.cut_at.unwrap_or(at));
                let passed = hole.passed_with(at, missing, page);
                let base = horizon.last.max(reached);
                if page.cut_at.is_some() {
                    self.health = Health::Broken(Hole {
                        at: reached,
                        passed,
                        ..hole
                    });
                    return Repaired::More;
                }
                if let Some(stretch) = passed {
                    self.late.note(stretch, base, serial());
                }
                gone_past = hole.shown;
                self.heard_all = None;
                self.known.settle();
                self.health = Health::Live { base };
            }
        }
        self.ended = page.ended;
        self.catch_up(heard, gone_past, &serial)
    }

    /// Broken after the last entry that is certain.
    fn broken_after_chain(&self, base: Id, heard: Id) -> Health {
        Health::Broken(Hole::new(self.chain(), base.max(heard)))
    }

    /// The last entry that this topic is known to have; the next one must name it as `prev`.
    fn chain(&self) -> Id {
        let floor = self.window.floor();
        self.window.last().map_or(floor, |last| last.max(floor))
    }

    fn append(&mut self, frame: Frame) {
        match frame.mark {
            Mark::End => self.ended = Some(frame.id),
            Mark::Event => self.ended = None,
            Mark::Deleted => {
                self.ended = None;
                self.deleted = frame.id;
            }
            Mark::Gap { .. } => self.ended = self.ended.map(|_| frame.id),
            Mark::Unlogged => {}
        }
        self.known.append(&frame);
        self.window.append(frame);
    }

    /// Appends what a read found above `at`; returns how far the topic is complete now.
    fn take_page(&mut self, at: Id, floor: Id, page: &Page) -> Id {
        if floor > at {
            // Readers below find the window too short, read the log, and are told there.
            self.window.restart(floor);
        }
        let mut reached = floor;
        for frame in page.frames.iter().filter(|frame| frame.id > floor) {
            reached = frame.id;
            self.append(frame.clone());
        }
        reached
    }

    /// Appends what was heard during the read. Streams have gone no further than `shown`.
    fn catch_up(&mut self, heard: Id, shown: Id, serial: &impl Fn() -> u64) -> Repaired {
        let repaired = self.take_what_waited(heard, shown, serial);
        // The next hole shows at once: nobody has seen the topic whole in between.
        if let Health::Broken(hole) = &mut self.health {
            hole.shown = shown.max(hole.at);
        }
        repaired
    }

    fn take_what_waited(&mut self, heard: Id, shown: Id, serial: &impl Fn() -> u64) -> Repaired {
        let Waiting { frames, lost, .. } = self.pending.take();
        let Health::Live { base: read } = self.health else {
            return Repaired::More;
        };
        // After a hole the rest is found in the log.
        for frame in frames {
            if !matches!(self.health, Health::Live { .. }) {
                break;
            }
            // What the log does not hold although it was read up to there, it has lost: its
            // predecessor would be looked for without end.
            if frame.id > read {
                self.take(frame, heard, shown, serial);
            }
        }
        if let Health::Live { base } = self.health {
            if !lost {
                return Repaired::Live;
            }
            self.health = self.broken_after_chain(base, heard);
        }
        Repaired::More
    }
}
