//! A feed: what this replica knows of one topic, shared by all of its subscribers.
//!
//! A feed moves between three states of health:
//!
//! - *opening*: the subscription is not confirmed, or the clock not read after it. Nothing is known.
//! - *live*: complete up to the greater of its last read and what the partition has heard.
//! - *broken*: complete up to where it broke; frames heard meanwhile wait until the log was read.
//!
//! Events of a topic that is not logged pass beside all this: they have no id, nothing is owed of
//! them, and no state of health holds them. The feed numbers them as they come and keeps the last
//! ones, within the bounds of a window, for readers that look a moment later; a reader that is
//! behind even that goes on with what is there. Which topics are not logged the log decides with
//! each event, so a topic may change from one to the other while it is read.

use super::partition::Partition;
use super::waker::{WakerId, WakerSet};
use super::window::{Window, WindowBounds};
use crate::gap;
use crate::id::Id;
use crate::log::{Floor, Horizon, Page};
use crate::sse::{Entry, Frame, Mark};
use crate::topic::Topic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// Frames that wait for a repair. When it overflows they are dropped, and read from the log instead.
const PENDING_MAX: usize = 1024;

/// One topic on this replica.
#[derive(Debug)]
pub struct Feed {
    topic: Topic,
    partition: Arc<Partition>,
    /// The number of the last event that was not logged.
    passed: AtomicU64,
    state: Mutex<State>,
    wakers: WakerSet,
}

#[derive(Debug)]
struct State {
    health: Health,
    window: Window,
    ended: Option<Id>,
    /// The log says that the topic is not logged.
    unlogged: bool,
    /// The last events that were not logged, at ids `0-<number>`; none came yet.
    passing: Option<Box<Window>>,
    pending: Pending,
    subscribers: u32,
}

/// Frames that wait until the topic has been read. Hardly ever any do.
#[derive(Debug, Default)]
struct Pending(Option<Box<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    frames: Vec<Frame>,
    /// Some did not fit, or were lost on the way.
    lost: bool,
}

impl Pending {
    fn keep(&mut self, frame: Frame) {
        let waiting = self.0.get_or_insert_default();
        if waiting.frames.len() < PENDING_MAX {
            waiting.frames.push(frame);
        } else {
            waiting.lost = true;
        }
    }

    fn note_lost(&mut self) {
        self.0.get_or_insert_default().lost = true;
    }

    fn take(&mut self) -> Waiting {
        self.0
            .take()
            .map_or_else(Waiting::default, |waiting| *waiting)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Opening,
    Live {
        /// The clock when the topic was read last.
        base: Id,
    },
    Broken {
        /// Complete up to here.
        at: Id,
        /// Streams may have gone on to here before the hole showed.
        shown: Id,
        /// What was read since, and streams may have gone past.
        passed: Option<Passed>,
    },
}

/// Entries that were found after streams had gone past them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Passed {
    /// The last id before the hole.
    from: Id,
    /// The greatest id found.
    to: Id,
}

/// What became of a live frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It stands in the window.
    Appended,
    /// It was known already.
    Known,
    /// It waits until the topic has been read.
    Waits,
    /// Its predecessor is missing: the topic must be read.
    Hole,
}

/// How a read of the log left the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mended {
    /// Live again.
    Live,
    /// There is more to read, after this id.
    More(Id),
    /// Everything is read, but a gap must be told above it, and the clock stands there still: to
    /// be read again after a tick.
    AwaitsClock,
}

impl Feed {
    pub(super) fn new(topic: Topic, partition: Arc<Partition>, bounds: WindowBounds) -> Self {
        Self {
            topic,
            partition,
            passed: AtomicU64::new(0),
            state: Mutex::new(State {
                health: Health::Opening,
                window: Window::new(Id::ZERO, bounds),
                ended: None,
                unlogged: false,
                passing: None,
                pending: Pending::default(),
                subscribers: 0,
            }),
            wakers: WakerSet::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// Everything up to here stands in the log or in the window; none while opening.
    #[must_use]
    pub fn complete(&self) -> Option<Id> {
        // The clock is looked at first: what it covers is in the window already.
        let heard = self.partition.heard();
        self.state().complete(heard)
    }

    /// The id of the end, if the topic has ended.
    #[must_use]
    pub fn ended(&self) -> Option<Id> {
        self.state().ended
    }

    /// Whether something of this topic can be missed: the log has not said that it keeps none.
    #[must_use]
    pub fn is_logged(&self) -> bool {
        !self.state().unlogged
    }

    /// Where a read that opens or repairs this feed begins; none if it needs none.
    #[must_use]
    pub fn wants_read_after(&self) -> Option<Wanted> {
        match self.state().health {
            Health::Opening => Some(Wanted::State),
            Health::Broken { at, .. } => Some(Wanted::Entries(at)),
            Health::Live { .. } => None,
        }
    }

    /// The last entry that was heard or read, for a log that may have gone back.
    #[must_use]
    pub fn last_entry(&self) -> Option<Id> {
        self.state().window.last()
    }

    /// Bytes of frames in memory.
    #[must_use]
    pub fn window_bytes(&self) -> usize {
        let state = self.state();
        let passing = state.passing.as_ref().map_or(0, |window| window.bytes());
        state.window.bytes() + passing
    }

    /// How many entries above `cursor` stand in the window, and whether it may lack some of them.
    pub(super) fn lag_of(&self, cursor: Id) -> (usize, bool) {
        let state = self.state();
        let lacks = cursor < state.window.floor();
        (state.window.count_after(cursor), lacks)
    }

    /// Subscribers that read this feed.
    #[must_use]
    pub fn subscribers(&self) -> u32 {
        self.state().subscribers
    }

    pub(super) fn join(&self) {
        self.state().subscribers += 1;
    }

    /// A subscriber goes; how many are left.
    pub(super) fn leave(&self) -> u32 {
        let mut state = self.state();
        state.subscribers = state.subscribers.saturating_sub(1);
        state.subscribers
    }

    /// Has `waker` woken whenever there may be something to show, until it is taken down.
    #[must_use]
    pub fn add_waker(&self, waker: Waker) -> WakerId {
        self.wakers.add_waker(waker)
    }

    /// The waker that hangs there.
    pub(super) fn waker(&self, waker_id: WakerId) -> Option<Waker> {
        self.wakers.get(waker_id)
    }

    /// Stops waking.
    pub fn remove_waker(&self, waker_id: WakerId) {
        self.wakers.remove_waker(waker_id);
    }

    pub(super) fn wake_all(&self) {
        self.wakers.wake_all();
    }

    /// Takes a frame from the live path.
    pub(super) fn hear(&self, frame: Frame) -> Heard {
        let heard = self.partition.heard();
        self.state().hear(frame, heard)
    }

    /// Takes an event that is not logged.
    pub(super) fn pass(&self, mut frame: Frame) {
        let mut state = self.state();
        let number = self.passed.load(Ordering::Relaxed) + 1;
        frame.id = Id::new(0, number);
        let bounds = state.window.bounds();
        state
            .passing
            .get_or_insert_with(|| Box::new(Window::new(Id::ZERO, bounds)))
            .append(frame);
        self.passed.store(number, Ordering::Release);
    }

    /// The number of the last event that was not logged.
    pub(super) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Acquire)
    }

    /// Hands events that were not logged, those after number `seen`, to `take` until it answers
    /// false; returns the number of the last, and how many were there no more.
    pub(super) fn take_passing(
        &self,
        seen: u64,
        mut take: impl FnMut(&Frame) -> bool,
    ) -> (u64, u64) {
        let state = self.state();
        let Some(passing) = &state.passing else {
            return (seen, 0);
        };
        let skipped = passing.floor().seq.saturating_sub(seen);
        let mut seen = seen + skipped;
        for frame in passing.after(Id::new(0, seen)) {
            seen = frame.id.seq;
            if !take(frame) {
                break;
            }
        }
        (seen, skipped)
    }

    /// The live path broke: what was complete stays so, nothing more is known.
    pub(super) fn break_off(&self) {
        let heard = self.partition.heard();
        let mut state = self.state();
        if let Health::Live { base } = state.health {
            let at = base.max(heard);
            state.health = Health::Broken {
                at,
                shown: at,
                passed: None,
            };
        }
        state.pending.take();
    }

    /// An entry of this topic was lost on the way: go back to what is certain.
    pub(super) fn puncture(&self) {
        let heard = self.partition.heard();
        let mut state = self.state();
        if let Health::Live { base } = state.health {
            state.health = state.hole(base, heard);
        }
        state.pending.note_lost();
    }

    /// Takes what the log holds, read while the live path carried the topic.
    ///
    /// `serial` is the hub's next: streams opened before it may have gone past what is found now.
    pub(super) fn mend(&self, page: &Page, horizon: &Horizon, serial: u64) -> Mended {
        let heard = self.partition.heard();
        self.state().mend(&self.topic, page, horizon, heard, serial)
    }

    /// Adds an older stretch of the log that a stream has read anyway.
    pub(super) fn prepend(&self, page: &Page) {
        let mut state = self.state();
        let reaches = page.cut_at.is_none_or(|id| id >= state.window.floor());
        let whole = matches!(page.floor, Floor::Log(floor) if floor <= page.after);
        if state.health != Health::Opening && reaches && whole {
            state.window.prepend(page.after, &page.frames);
        }
    }

    /// Whether a reader at `position` finds everything above it in the window.
    #[must_use]
    pub fn covers(&self, position: Id) -> bool {
        let state = self.state();
        state.health != Health::Opening && position >= state.window.floor()
    }

    /// The id of the first frame above `position`; `Err` if the window does not reach back to it.
    pub(super) fn first_after(&self, position: Id) -> Result<Option<Id>, BehindWindow> {
        let state = self.state();
        state.reach(position)?;
        Ok(state.window.after(position).next().map(|frame| frame.id))
    }

    /// All of a look at this feed alone: hands frames above `position` to `take`, as far as the
    /// topic is complete, until it answers false. One lock.
    pub(super) fn show(&self, position: Id, mut take: impl FnMut(&Frame) -> bool) -> Reach {
        // The clock is looked at first: what it covers is in the window already.
        let heard = self.partition.heard();
        let state = self.state();
        let Some(complete) = state.complete(heard) else {
            return Reach::Opening;
        };
        if state.reach(position).is_err() {
            return Reach::Behind;
        }
        let mut reached = position;
        for frame in state.window.after(position) {
            if frame.id > complete {
                return Reach::Held;
            }
            reached = frame.id;
            if !take(frame) {
                return Reach::Full;
            }
        }
        if state.ended.is_some_and(|end| end <= reached) {
            Reach::Ended
        } else {
            Reach::All
        }
    }

    /// Hands frames above `position`, up to `limit` inclusive, to `take` until it answers false.
    ///
    /// Costs one lock and, for each frame, one clone of shared bytes.
    pub(super) fn take_after(
        &self,
        position: Id,
        limit: Id,
        mut take: impl FnMut(&Frame) -> bool,
    ) -> Result<(), BehindWindow> {
        let state = self.state();
        state.reach(position)?;
        for frame in state.window.after(position) {
            if frame.id > limit || !take(frame) {
                break;
            }
        }
        Ok(())
    }
}

/// What a feed wants to have read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Only how the log stands: the feed begins now.
    State,
    /// The entries after an id.
    Entries(Id),
}

/// How far a look at one feed came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Nothing is known yet.
    Opening,
    /// The window does not reach back to the position.
    Behind,
    /// The next frame is above where the topic is complete.
    Held,
    /// `take` wants no more.
    Full,
    /// Everything was shown.
    All,
    /// Everything was shown, and the topic has ended there.
    Ended,
}

/// The reader is behind the window and must read the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BehindWindow;

impl State {
    fn complete(&self, heard: Id) -> Option<Id> {
        match self.health {
            Health::Opening => None,
            Health::Live { base } => Some(base.max(heard)),
            Health::Broken { at, .. } => Some(at),
        }
    }

    /// An entry is missing after what is certain.
    fn hole(&self, base: Id, heard: Id) -> Health {
        Health::Broken {
            at: self.chain(),
            shown: base.max(heard),
            passed: None,
        }
    }

    /// The last entry that this topic is known to have; the next one must name it as `prev`.
    fn chain(&self) -> Id {
        let floor = self.window.floor();
        self.window.last().map_or(floor, |last| last.max(floor))
    }

    fn reach(&self, position: Id) -> Result<(), BehindWindow> {
        if self.health != Health::Opening && position >= self.window.floor() {
            Ok(())
        } else {
            Err(BehindWindow)
        }
    }

    fn hear(&mut self, frame: Frame, heard: Id) -> Heard {
        let Health::Live { base } = self.health else {
            return self.keep(frame);
        };
        let chain = self.chain();
        if frame.id <= chain {
            return Heard::Known;
        }
        // The first entry of a fresh log names a position instead of a predecessor; there the
        // clock's word is enough.
        let known = if frame.prev.is_position() {
            chain.max(heard)
        } else {
            chain
        };
        if frame.prev > known {
            self.health = if frame.prev.is_position() {
                Health::Broken {
                    at: known,
                    shown: known,
                    passed: None,
                }
            } else {
                self.hole(base, heard)
            };
            self.keep(frame);
            return Heard::Hole;
        }
        self.append(frame);
        Heard::Appended
    }

    fn append(&mut self, frame: Frame) {
        match frame.mark {
            Mark::End => self.ended = Some(frame.id),
            Mark::Event | Mark::Deleted => self.ended = None,
            Mark::Gap { .. } | Mark::Late { .. } | Mark::Unlogged => {}
        }
        self.window.append(frame);
    }

    fn keep(&mut self, frame: Frame) -> Heard {
        self.pending.keep(frame);
        Heard::Waits
    }

    fn mend(
        &mut self,
        topic: &Topic,
        page: &Page,
        horizon: &Horizon,
        heard: Id,
        serial: u64,
    ) -> Mended {
        self.unlogged = page.floor == Floor::Unlogged;
        match self.health {
            Health::Live { .. } => return Mended::Live,
            Health::Opening => {
                self.window.restart(horizon.last);
                self.health = Health::Live { base: horizon.last };
            }
            Health::Broken { at, .. } if page.after != at => return Mended::More(at),
            Health::Broken { at, shown, passed } => {
                let floor = gap::judge(at, horizon, page.floor).map_or(at, |m| m.to.max(at));
                let chain = self.chain();
                if page.frames.first().is_some_and(|first| {
                    !first.prev.is_position() && (chain < first.prev && first.prev <= at)
                }) {
                    // A hole that nothing had shown before the path broke.
                    self.health = Health::Broken {
                        at: chain,
                        shown,
                        passed,
                    };
                    return Mended::More(chain);
                }
                let reached = self
                    .take_page(at, floor, page)
                    .max(page.cut_at.unwrap_or(at));
                let passed = pass(passed, at, floor, shown, page);
                let base = horizon.last.max(reached);
                // Streams that went past may stand as far as this replica shows anything.
                let told = passed.is_none() || base > reached.max(heard);
                if page.cut_at.is_some() || !told {
                    self.health = Health::Broken {
                        at: reached,
                        shown,
                        passed,
                    };
                    return if page.cut_at.is_some() {
                        Mended::More(reached)
                    } else {
                        Mended::AwaitsClock
                    };
                }
                if let Some(Passed { from, to }) = passed {
                    self.window.append(late(topic, from, to, base, serial));
                }
                self.health = Health::Live { base };
            }
        }
        self.ended = page.ended;
        self.catch_up(heard)
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

    /// Appends what was heard during the read.
    fn catch_up(&mut self, heard: Id) -> Mended {
        let Waiting { frames, lost } = self.pending.take();
        let mut pending = frames.into_iter();
        // After a hole the rest is found in the log.
        while let Some(frame) = pending
            .next()
            .filter(|_| matches!(self.health, Health::Live { .. }))
        {
            self.hear(frame, heard);
        }
        if let Health::Live { base } = self.health {
            if !lost {
                return Mended::Live;
            }
            self.health = self.hole(base, heard);
        }
        match self.health {
            Health::Broken { at, .. } => Mended::More(at),
            Health::Live { .. } | Health::Opening => Mended::Live,
        }
    }
}

/// What streams may have gone past, this page included: entries found, and entries that the log
/// has dropped before they could be found.
fn pass(before: Option<Passed>, at: Id, floor: Id, shown: Id, page: &Page) -> Option<Passed> {
    let found = page.frames.iter().map(|frame| frame.id);
    let found = found.filter(|id| *id <= shown);
    let to = found.chain([floor.min(shown)]).filter(|id| *id > at).max();
    to.map_or(before, |to| {
        let from = before.map_or(at, |passed| passed.from);
        Some(Passed { from, to })
    })
}

/// A gap told to streams that had gone past what a repair found.
fn late(topic: &Topic, from: Id, to: Id, id: Id, serial: u64) -> Frame {
    Frame::encode(
        topic,
        &Entry {
            id,
            prev: from,
            mark: Mark::Late { from, to, serial },
            event_type: String::new(),
            data: String::new(),
        },
    )
}
