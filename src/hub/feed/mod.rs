//! A feed: what this replica knows of one topic, shared by all who read it here.
//!
//! The rules of health stand in `repair`, as a state machine; here stands the lock around it. A
//! stream looks at a feed through a `View`: one lock, the window, and up to where the topic is
//! complete as of that moment.

mod hole;
mod known;
mod late;
mod pending;
mod repair;
mod unlogged;

pub(super) use known::LastKnown;
pub(super) use late::{LateFind, Stretch};
pub use repair::{Repaired, Taken, Wanted};
pub(super) use unlogged::Passed;

use super::budget::{Account, Budget, Giver};
use super::lock::{Rank, Ranked, RankedGuard};
use super::partition::Partition;
use super::waker::{WakerId, WakerSet};
use super::window::WindowBounds;
use crate::id::Id;
use crate::log::{Horizon, Page};
use crate::sse::Frame;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::topic::Topic;
use repair::Track;
use std::sync::{Arc, Weak};
use std::task::Waker;
use unlogged::Unlogged;

/// One topic on this replica.
#[derive(Debug)]
pub struct Feed {
    topic: Topic,
    partition: Arc<Partition>,
    /// Tells it from feeds of the same topic that were here before it.
    number: u64,
    /// The number of the last event that was not logged.
    passed: AtomicU64,
    /// How often events were found late.
    late: AtomicU32,
    state: Ranked<State>,
    wakers: WakerSet,
    /// What all windows take.
    budget: Arc<Budget<Self>>,
    /// Itself, for the budget.
    me: Weak<Self>,
}

#[derive(Debug)]
struct State {
    track: Track,
    unlogged: Unlogged,
    subscribers: u32,
    account: Account,
}

impl State {
    /// Bytes that stay in memory for what is kept of the topic.
    fn held(&self) -> usize {
        self.track.held() + self.unlogged.held()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.budget.close(&self.state.get_mut().account);
    }
}

impl Feed {
    pub(super) fn new(
        topic: Topic,
        partition: Arc<Partition>,
        number: u64,
        bounds: WindowBounds,
        known: LastKnown,
        budget: Arc<Budget<Self>>,
    ) -> Arc<Self> {
        let state = State {
            track: Track::new(bounds, known),
            unlogged: Unlogged::default(),
            subscribers: 0,
            account: Account::default(),
        };
        Arc::new_cyclic(|me| Self {
            topic,
            partition,
            number,
            passed: AtomicU64::new(0),
            late: AtomicU32::new(0),
            state: Ranked::new(Rank::Feed, state),
            wakers: WakerSet::default(),
            budget,
            me: me.clone(),
        })
    }

    fn state(&self) -> RankedGuard<'_, State> {
        self.state.lock()
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// The partition of the topic.
    #[must_use]
    pub fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// Tells it from feeds of the same topic that were here before it.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Looks at the topic: one lock, held as long as the view lives.
    pub(super) fn view(&self) -> View<'_> {
        // The clock is looked at first: what it covers is in the window already.
        let heard = self.partition.heard();
        let state = self.state();
        let complete = state.track.complete(heard);
        View {
            feed: self,
            state,
            complete,
        }
    }

    /// Everything up to here stands in the log or in the window; none while opening.
    #[must_use]
    pub fn complete(&self) -> Option<Id> {
        self.view().complete
    }

    /// The id of the end, if the topic has ended.
    #[must_use]
    pub fn ended(&self) -> Option<Id> {
        self.state().track.ended
    }

    /// Whether something of this topic can be missed: the log has not said that it keeps none.
    #[must_use]
    pub fn is_logged(&self) -> bool {
        !self.state().track.unlogged
    }

    /// What must be read to open or repair this feed; none if it needs nothing.
    #[must_use]
    pub fn wants(&self) -> Option<Wanted> {
        self.state().track.wants()
    }

    /// Whether a reader at `position` finds everything above it in the window.
    #[must_use]
    pub fn covers(&self, position: Id) -> bool {
        self.state().track.covers(position)
    }

    /// What a log is told that may have gone back.
    pub(super) fn last_known(&self) -> LastKnown {
        self.state().track.last_known()
    }

    /// Whether the topic may have been deleted after a reading of the log with this clock was made.
    pub(super) fn was_deleted_after(&self, horizon: &Horizon) -> bool {
        self.state().track.was_deleted_after(horizon)
    }

    /// Bytes that stay in memory for what is kept of the topic.
    #[must_use]
    pub fn held(&self) -> usize {
        self.state().held()
    }

    /// Tells the budget what is held now. Whatever changes that calls it before it lets the lock go.
    fn settle(&self, state: &mut State) {
        let gives = !state.track.window.is_empty() || state.unlogged.gives();
        let held = state.held();
        self.budget
            .settle(&mut state.account, held, gives, &self.me);
    }

    /// The oldest frames go, as far as [`Giver`] asks for it: what is logged first, the newest too unless it
    /// is spared. The window's floor moves as it does when the window is full by itself. False if nothing has
    /// gone.
    pub(super) fn give_back(&self, giver: &Giver<Self>, spares_newest: bool) -> bool {
        let mut state = self.state();
        let held = state.held();
        let most = held.saturating_sub(giver.excess).max(giver.keeps);
        // One frame at least, whatever its size.
        let most = most.min(held.saturating_sub(1));
        let others = held - state.track.window.held();
        let window = &mut state.track.window;
        let logged = window.give_back(most.saturating_sub(others), spares_newest.into());
        let others = state.track.held();
        let gone = logged + state.unlogged.give_back(most.saturating_sub(others));
        self.budget.note_evicted(gone);
        self.settle(&mut state);
        gone > 0
    }

    /// How many entries above `cursor` stand in the window, and whether it may lack some of them.
    pub(super) fn lag_of(&self, cursor: Id) -> (usize, bool) {
        let state = self.state();
        let lacks = cursor < state.track.window.floor();
        (state.track.window.count_after(cursor), lacks)
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

    /// Has `waker` woken whenever there may be something to show, until it is removed.
    #[must_use]
    pub fn add_waker(&self, waker: Waker) -> WakerId {
        self.wakers.add_waker(waker)
    }

    /// The waker at that place.
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
    pub(super) fn hear(&self, frame: Frame, serial: impl Fn() -> u64) -> Taken {
        let heard = self.partition.heard();
        let mut state = self.state();
        let taken = state.track.hear(frame, heard, serial);
        self.publish_late(&state);
        self.settle(&mut state);
        taken
    }

    /// After a find: who reads its number finds it.
    fn publish_late(&self, state: &State) {
        self.late.store(state.track.late.count(), Ordering::Release);
    }

    /// Takes an event that is not logged.
    pub(super) fn hear_unlogged(&self, frame: Frame) {
        let mut state = self.state();
        let number = self.passed.load(Ordering::Relaxed) + 1;
        let bounds = state.track.window.bounds();
        state.unlogged.append(frame, number, bounds);
        self.settle(&mut state);
        // After the frame: who reads this number finds it.
        self.passed.store(number, Ordering::Release);
    }

    /// The number of the last event that was not logged.
    pub(super) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Acquire)
    }

    pub(super) fn break_off(&self) {
        let (heard, changed) = (self.partition.heard(), self.partition.changed());
        let mut state = self.state();
        state.track.break_off(heard, changed);
        self.settle(&mut state);
    }

    pub(super) fn lose_frame(&self) {
        let heard = self.partition.heard();
        self.state().track.lose_frame(heard);
    }

    /// Whether a page that repairs this topic shows that the log has lost what was heard of it.
    pub(super) fn is_contradicted_by(&self, page: &Page, horizon: &Horizon) -> bool {
        self.state().track.is_contradicted_by(page, horizon)
    }

    /// The log was told what is known of the topic.
    pub(super) fn note_told(&self) {
        self.state().track.note_told();
    }

    /// Whether the log must be told what it has lost of this topic, as was found since the last call.
    pub(super) fn take_owes_report(&self) -> bool {
        self.state().track.take_owes_report()
    }

    pub(super) fn repair(
        &self,
        page: &Page,
        horizon: &Horizon,
        serial: impl Fn() -> u64,
    ) -> Repaired {
        let heard = self.partition.heard();
        let complete_in = |at, changed| self.partition.complete_in(at, changed, horizon);
        let mut state = self.state();
        let repaired = state
            .track
            .repair(page, horizon, heard, serial, complete_in);
        self.publish_late(&state);
        self.settle(&mut state);
        repaired
    }

    /// Where it is broken, and up to where streams may have gone past what is missing, untold; none if they have
    /// not.
    pub(super) fn untold(&self) -> Option<(Id, Id)> {
        let state = self.state();
        let hole = state.track.hole().filter(|_| !state.track.unlogged)?;
        (hole.at.max(hole.told) < hole.shown).then_some((hole.at, hole.shown))
    }

    /// How often events were found after streams had gone past them.
    pub(super) fn late_finds(&self) -> u32 {
        self.late.load(Ordering::Acquire)
    }

    pub(super) fn offer(&self, page: &Page, horizon: &Horizon) {
        let mut state = self.state();
        let before = state.held();
        state.track.offer(page, horizon, self.budget.room());
        if state.held() != before {
            self.settle(&mut state);
        }
    }
}

/// One look at a feed. It holds the feed's lock: whoever shows frames from it takes no other feed's.
#[derive(Debug)]
pub(super) struct View<'a> {
    feed: &'a Feed,
    state: RankedGuard<'a, State>,
    complete: Option<Id>,
}

impl View<'_> {
    /// Up to where the topic is complete; none while it opens.
    pub(super) fn complete(&self) -> Option<Id> {
        self.complete
    }

    /// Whether everything above `position` stands in the window.
    pub(super) fn covers(&self, position: Id) -> bool {
        self.state.track.covers(position)
    }

    /// Frames above `position`, ascending. Some may lie above [`View::complete`].
    pub(super) fn after(&self, position: Id) -> impl Iterator<Item = &Frame> {
        self.state.track.window.after(position)
    }

    /// The id of the end, if the topic has ended.
    pub(super) fn ended(&self) -> Option<Id> {
        self.state.track.ended
    }

    /// Events that were found late, those after number `seen` of such finds.
    pub(super) fn late_after(&self, seen: u32) -> impl Iterator<Item = &LateFind> {
        self.state.track.late.after(seen)
    }

    /// Frames of the window hold so many bytes more since they were shown.
    pub(super) fn note_grown(&mut self, bytes: usize) {
        if bytes > 0 {
            self.state.track.window.note_grown(bytes);
            self.feed.settle(&mut self.state);
        }
    }

    /// The same of events that are not logged.
    pub(super) fn note_unlogged_grown(&mut self, bytes: usize) {
        if bytes > 0 {
            self.state.unlogged.note_grown(bytes);
            self.feed.settle(&mut self.state);
        }
    }

    /// Events that are not logged, those after number `seen`.
    pub(super) fn unlogged_after(&self, seen: u64) -> (impl Iterator<Item = &Frame>, Passed) {
        self.state.unlogged.after(seen)
    }
}

#[cfg(test)]
mod tests;
