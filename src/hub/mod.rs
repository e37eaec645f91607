//! The hub: the topics and subscribers of this replica.
//!
//! One log, many cursors: a topic has one [`window::Window`] of encoded frames, a subscriber is a
//! [`reader::Reader`] with a cursor into it, and no event is ever queued for a subscriber.
//!
//! The hub knows no socket, no Redis and not what time it is. The live path is told to it, what must
//! be read from the log it asks for, and time comes in as an argument; so it can be simulated
//! (`tests/simulation/`).
//!
//! Invariants:
//!
//! 1. An id is heard ([`partition::Partition::heard`]) only after its frame stands in the window, or
//!    its topic is broken below it, or nobody here reads it.
//! 2. A window holds every entry of its topic between its floor and where the topic is complete.
//! 3. A reader shows an id only if all of its topics in that partition are complete up to it.
//! 4. Locks are taken in one order: hub, feed, budget, partition, wakers (`lock`, checked in debug builds).
//! 5. What was read from the log counts only if it was asked for while the live path was settled, in
//!    the present generation, and is of the log that the path follows ([`partition`]).

mod budget;
pub mod counts;
pub mod feed;
pub mod interest;
mod lock;
pub mod partition;
pub mod reader;
mod swept;
pub mod wake_source;
mod waker;
pub mod window;

pub use waker::{TaskWaker, WakerId};

use crate::id::Id;
use crate::log::{ClockName, Horizon, Page, Reading, Tick};
use crate::sse::{Frame, Mark};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::topic::{PartitionNo, Topic};
use budget::Budget;
use counts::Counts;
use feed::{Feed, LastKnown, Repaired, Taken};
use lock::{Rank, Ranked, RankedGuard};
use partition::{Generation, Learned, Partition};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::task::{Poll, Waker};
use swept::Swept;
use tokio::sync::Notify;
use tokio::time::Instant;
use window::{WindowBounds, Windows};

/// All topics that somebody on this replica reads, or has read until a moment ago.
#[derive(Debug)]
pub struct Hub {
    partitions: Vec<Arc<Partition>>,
    bounds: WindowBounds,
    budget: Arc<Budget<Feed>>,
    state: Ranked<State>,
    /// Numbers feeds, readers and repairs in the order in which they came.
    serial: AtomicU64,
    wanted: Notify,
    settled: Notify,
    counts: Counts,
}

#[derive(Debug, Default)]
struct State {
    feeds: HashMap<Topic, Arc<Feed>>,
    /// Feeds that streams are about to need ([`interest::Reserved`]).
    reserved: usize,
    /// As many as there may be; none until somebody said. Those that nobody reads go at once beyond it.
    most: Option<usize>,
    /// Feeds that the live path has not been asked for.
    added: Vec<Arc<Feed>>,
    /// Topics that nobody has read since the last sweep.
    left: HashSet<Topic>,
    /// Topics that nobody reads, and since when.
    idle: HashMap<Topic, Instant>,
    /// The same in the order in which they became idle; some are read again.
    became_idle: VecDeque<(Instant, Topic)>,
    /// What is remembered of feeds that were dropped.
    swept: Swept,
    /// Topics whose number of subscribers changed and was not told.
    changed: BTreeSet<Topic>,
    /// There were too many of them: what was told before must be forgotten, and all told again.
    changes_lost: bool,
}

/// What a live frame asks of the follower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hearing {
    /// The topic has a hole and must be read.
    pub hole: bool,
    /// The id is not above what was heard before, or its topic's log was lost: the log has gone back.
    pub backwards: bool,
}

impl Hub {
    /// A hub without topics.
    #[must_use]
    pub fn new(partitions: PartitionNo, windows: impl Into<Windows>) -> Arc<Self> {
        let windows = windows.into();
        Arc::new(Self {
            partitions: (0..partitions)
                .map(|number| Arc::new(Partition::new(number)))
                .collect(),
            bounds: windows.each,
            budget: Arc::new(Budget::new(windows.total_bytes_max)),
            state: Ranked::new(Rank::Hub, State::default()),
            serial: AtomicU64::new(1),
            wanted: Notify::new(),
            settled: Notify::new(),
            counts: Counts::default(),
        })
    }

    fn state(&self) -> RankedGuard<'_, State> {
        self.state.lock()
    }

    fn next_serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// Partitions of the log.
    #[must_use]
    pub fn partitions(&self) -> PartitionNo {
        PartitionNo::try_from(self.partitions.len()).unwrap_or(PartitionNo::MAX)
    }

    /// One partition's clock.
    ///
    /// # Panics
    /// If there is no such partition; numbers come from [`Topic::partition`].
    #[must_use]
    #[expect(
        clippy::indexing_slicing,
        reason = "numbers are taken modulo the count"
    )]
    pub fn partition(&self, number: PartitionNo) -> &Arc<Partition> {
        &self.partitions[usize::from(number)]
    }

    /// The number of open streams, for those who watch it.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn feed_for(&self, state: &mut State, topic: &Topic) -> Arc<Feed> {
        state.idle.remove(topic);
        state.left.remove(topic);
        if let Some(feed) = state.feeds.get(topic) {
            return feed.clone();
        }
        let partition = self.partition(topic.partition(self.partitions())).clone();
        let number = self.next_serial();
        let known = state.swept.take(topic);
        let budget = self.budget.clone();
        let feed = Feed::new(topic.clone(), partition, number, self.bounds, known, budget);
        state.feeds.insert(topic.clone(), feed.clone());
        state.added.push(feed.clone());
        feed
    }

    /// The feed of a topic, if somebody reads it.
    #[must_use]
    pub fn feed(&self, topic: &Topic) -> Option<Arc<Feed>> {
        self.state().feeds.get(topic).cloned()
    }

    /// All feeds.
    #[must_use]
    pub fn feeds(&self) -> Vec<Arc<Feed>> {
        self.state().feeds.values().cloned().collect()
    }

    /// A report is made of what is known now ([`Hub::last_entries`]): of that the log was told, once it has answered.
    pub fn begin_report(&self) {
        self.state().swept.note_reported();
    }

    /// What this replica knows of each topic of a partition, in the order of topics: what a log that may have
    /// gone back is told. That is the last entry, zero for none. The topic stands there once more for an entry
    /// that was heard while it had a hole; and for what was lost before, since the log may have lost its record
    /// of that. A topic that nobody reads any more is among them for a while, since nobody else may have
    /// heard its last events.
    #[must_use]
    pub fn last_entries(&self, partition: PartitionNo) -> Vec<(Topic, Id)> {
        let state = self.state();
        let swept = state.swept.iter();
        let mut known: BTreeMap<Topic, LastKnown> =
            swept.map(|(topic, last)| (topic.clone(), last)).collect();
        let read = state.feeds.iter();
        known.extend(read.map(|(topic, feed)| (topic.clone(), feed.last_known())));
        drop(state);
        known.retain(|topic, _| topic.partition(self.partitions()) == partition);
        let rows = |(topic, last): (Topic, LastKnown)| {
            let ids: Vec<Id> = last.reported().collect();
            ids.into_iter().map(move |id| (topic.clone(), id))
        };
        known.into_iter().flat_map(rows).collect()
    }

    /// Waits until new topics are wanted, or a stream waits for the clock.
    ///
    /// # Cancel safety
    /// Safe: a notice that was not awaited is kept.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Waits until the log may be read for streams of this partition.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn settled(&self, partition: PartitionNo) {
        loop {
            // Listens before it looks, so that nothing happens in between.
            let mut settled = std::pin::pin!(self.settled.notified());
            settled.as_mut().enable();
            if self.partition(partition).settled().is_some() {
                return;
            }
            settled.await;
        }
    }

    /// A stream holds an event until the clock has moved on.
    fn ask_for_clock(&self) {
        self.wanted.notify_one();
    }

    /// Waits until `id` or something later was heard of its partition.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn heard(&self, partition: PartitionNo, id: Id) {
        let task_waker = Arc::new(TaskWaker::default());
        let waker = Waker::from(task_waker.clone());
        let partition = self.partition(partition);
        std::future::poll_fn(|cx| {
            task_waker.register(cx.waker());
            partition.wait_for_clock(waker.clone());
            if partition.heard() >= id {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Takes a live frame.
    pub fn hear(&self, topic: &Topic, frame: Frame) -> Hearing {
        let partition = self.partition(topic.partition(self.partitions()));
        let feed = self.feed(topic);
        if frame.mark == Mark::Unlogged {
            if let Some(feed) = feed {
                feed.hear_unlogged(frame);
                feed.wake_all();
                self.make_room(&feed);
            }
            return Hearing::default();
        }
        let id = frame.id;
        if let Some(feed) = feed.as_ref().filter(|_| partition.is_estranged()) {
            // It is of a log that was not told of the one before. It is read once the path has begun anew.
            feed.break_off();
        }
        let finds = feed.as_ref().map(|feed| feed.late_finds());
        let taken = feed
            .as_ref()
            .map(|feed| feed.hear(frame, || self.next_serial()));
        // Only now: whoever sees this id as heard finds the frame in the window, or the topic broken.
        let goes_on = partition.hear(id, taken == Some(Taken::LogLost));
        if let Some(feed) = &feed {
            if taken == Some(Taken::Appended) || finds != Some(feed.late_finds()) {
                feed.wake_all();
            }
            self.make_room(feed);
        }
        Hearing {
            hole: taken == Some(Taken::Hole),
            backwards: !goes_on,
        }
    }

    /// The clock was said aloud. True if it has gone back, or is another one.
    pub fn tick(&self, partition: PartitionNo, tick: Tick) -> bool {
        !self.partition(partition).tick(&tick)
    }

    /// The live path is gone: every feed keeps what it has and waits to be read again, and readings
    /// that are under way count for nothing.
    pub fn break_off(&self) {
        for partition in &self.partitions {
            partition.begin_generation();
        }
        for feed in self.feeds() {
            feed.break_off();
        }
    }

    /// The live path is another one: readings that were asked for before are of another time.
    pub fn begin_generation(&self) {
        for partition in &self.partitions {
            partition.begin_generation();
        }
    }

    /// A frame of this topic was lost on the way.
    pub fn lose_frame(&self, topic: &Topic) {
        if let Some(feed) = self.feed(topic) {
            feed.lose_frame();
        }
    }

    /// Takes what was read for a feed that opens or is broken, asked for in the present generation,
    /// and wakes its streams.
    pub fn repair(&self, feed: &Feed, page: &Page, horizon: &Horizon) -> Repaired {
        let repaired = feed.repair(page, horizon, || self.next_serial());
        feed.wake_all();
        self.make_room(feed);
        repaired
    }

    /// Has the largest windows give back what is above the bound of all of them. The newest frame of a topic
    /// that has just got it is spared: its readers are on their way.
    pub(super) fn make_room(&self, newest: &Feed) {
        let mut spared = None;
        while let Some(giver) = self.budget.next_giver(spared) {
            let is_newest = std::ptr::eq(newest, Arc::as_ptr(&giver.holder));
            if giver.holder.give_back(&giver, is_newest) {
                continue;
            }
            if !is_newest {
                // Another thread was faster, and goes on.
                return;
            }
            spared = Some(newest);
        }
    }

    /// Bytes that stay in memory for windows, and for frames that wait for a repair.
    #[must_use]
    pub fn window_bytes(&self) -> usize {
        self.budget.bytes()
    }

    /// How many events went because all windows together were above their bound, since the last call.
    #[must_use]
    pub fn take_evicted(&self) -> u64 {
        self.budget.take_evicted()
    }

    /// Whether a page that repairs a feed shows that the log has gone back, and was not told. It must be told
    /// before the page counts.
    #[must_use]
    pub fn finds_log_lost(&self, feed: &Feed, page: &Page, horizon: &Horizon) -> bool {
        let is_lost = feed.is_contradicted_by(page, horizon);
        if is_lost {
            feed.partition().estrange(horizon.last);
        }
        is_lost
    }

    /// Whether a log must be told what it has lost, as was found since the last call.
    #[must_use]
    pub fn take_owes_report(&self) -> bool {
        // Each must forget it.
        let owing = self
            .feeds()
            .into_iter()
            .filter(|feed| feed.take_owes_report());
        owing.count() > 0
    }

    /// Wakes every stream: something that concerns all has changed.
    pub fn wake_all_streams(&self) {
        for feed in self.feeds() {
            feed.wake_all();
        }
        self.counts.wake_all();
    }

    /// Takes a reading of the clock that was asked for in `generation`.
    pub fn learn(
        &self,
        partition: PartitionNo,
        generation: Generation,
        horizon: &mut Horizon,
    ) -> Learned {
        self.partition(partition).learn(horizon, generation)
    }

    /// The live path is whole, and from here on what is heard is followed. `told` says of each partition which
    /// clock was told what had been heard before; it is empty if none was.
    pub fn begin_following(&self, told: &[ClockName]) {
        if !told.is_empty() {
            self.state().swept.were_told();
            for feed in self.feeds() {
                feed.note_told();
            }
        }
        for partition in &self.partitions {
            let told = told.get(usize::from(partition.number()));
            partition.begin_following(told.copied());
        }
        self.settled.notify_waiters();
    }

    /// Offers pages that a stream has read to the windows of their topics.
    pub fn offer(&self, reading: &Reading) {
        for page in &reading.pages {
            if let Some(feed) = self.feed(&page.topic) {
                feed.offer(page, &reading.horizon);
            }
        }
    }
}

#[cfg(test)]
mod tests;
