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
//! 4. Locks are taken in one order: hub, feed, partition, wakers (`lock`, checked in debug builds).
//! 5. What was read from the log counts only if it was asked for while the live path was settled, in
//!    the present generation, and is of the log that the path follows ([`partition`]).

pub mod counts;
pub mod feed;
mod lock;
pub mod partition;
pub mod reader;
pub mod wake_source;
mod waker;
pub mod window;

pub use waker::{TaskWaker, WakerId};

use crate::id::Id;
use crate::log::{Horizon, Page, Reading, Tick};
use crate::sse::{Frame, Mark};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::topic::{PartitionNo, Topic};
use counts::Counts;
use feed::{Feed, LastKnown, Repaired, Taken};
use lock::{Rank, Ranked, RankedGuard};
use partition::{Generation, Learned, Partition};
use std::cmp;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use window::WindowBounds;

/// Topics whose last entry is remembered although nobody reads them any more.
const SWEPT_MAX: usize = 4096;
/// Topics that nobody reads and whose change is still to be told; beyond that all is told anew.
const CHANGED_MAX: usize = 10_000;

/// All topics that somebody on this replica reads, or has read until a moment ago.
#[derive(Debug)]
pub struct Hub {
    partitions: Vec<Arc<Partition>>,
    bounds: WindowBounds,
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
    /// Feeds that the live path has not been asked for.
    added: Vec<Arc<Feed>>,
    left: Vec<Topic>,
    /// Topics that nobody reads, and since when.
    idle: HashMap<Topic, Instant>,
    /// The same in the order in which they became idle; some are read again.
    became_idle: VecDeque<(Instant, Topic)>,
    /// The last entries of feeds that were dropped, the newest ones at the end.
    swept: VecDeque<(Topic, LastKnown)>,
    /// The first so many of them were told to the log once.
    swept_told: usize,
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
    pub fn new(partitions: PartitionNo, bounds: WindowBounds) -> Arc<Self> {
        Arc::new(Self {
            partitions: (0..partitions)
                .map(|number| Arc::new(Partition::new(number)))
                .collect(),
            bounds,
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
        if let Some(feed) = state.feeds.get(topic) {
            return feed.clone();
        }
        let partition = self.partition(topic.partition(self.partitions())).clone();
        let number = self.next_serial();
        let feed = Arc::new(Feed::new(topic.clone(), partition, number, self.bounds));
        state.feeds.insert(topic.clone(), feed.clone());
        state.added.push(feed.clone());
        feed
    }

    /// A reader goes.
    fn leave(&self, feed: &Feed) {
        let remaining = feed.leave();
        let mut state = self.state();
        state.changed.insert(feed.topic().clone());
        if remaining == 0 {
            // Another reader may have come since; the sweep looks again.
            state.left.push(feed.topic().clone());
        }
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

    /// The last entry of each topic of a partition that this replica knows of, zero for none, in the
    /// order of topics: what a log that may have gone back is told. Where a gap entry has said that
    /// something was lost, its topic stands there once more, with the last id that was lost: the log may
    /// have lost that entry. A topic that nobody reads any more is among them for a while, since nobody
    /// else may have heard its last events.
    #[must_use]
    pub fn last_entries(&self, partition: PartitionNo) -> Vec<(Topic, Id)> {
        let mut known: BTreeMap<Topic, LastKnown> = BTreeMap::new();
        for (topic, swept) in &self.state().swept {
            let last = known.entry(topic.clone()).or_default();
            *last = last.and(*swept);
        }
        for feed in self.feeds() {
            let last = known.entry(feed.topic().clone()).or_default();
            *last = feed.last_known().and(*last);
        }
        known.retain(|topic, _| topic.partition(self.partitions()) == partition);
        let mut entries = Vec::with_capacity(known.len());
        for (topic, LastKnown { entry, lost }) in known {
            let record = (lost > Id::ZERO).then(|| (topic.clone(), lost));
            entries.push((topic, entry));
            entries.extend(record);
        }
        entries
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

    /// Feeds that became wanted since the last call.
    #[must_use]
    pub fn take_added(&self) -> Vec<Arc<Feed>> {
        std::mem::take(&mut self.state().added)
    }

    /// Drops feeds that nobody has read for `keep`, and names them. What was heard of them last is
    /// remembered for a while ([`Hub::last_entries`]).
    #[must_use]
    pub fn sweep(&self, now: Instant, keep: Duration) -> Vec<Topic> {
        let mut state = self.state();
        for topic in std::mem::take(&mut state.left) {
            let unread = state
                .feeds
                .get(&topic)
                .is_some_and(|feed| feed.subscribers() == 0);
            if unread && !state.idle.contains_key(&topic) {
                state.idle.insert(topic.clone(), now);
                state.became_idle.push_back((now, topic));
            }
        }
        let mut due = Vec::new();
        while let Some((since, topic)) = state.became_idle.front()
            && now.duration_since(*since) >= keep
        {
            let is_idle = state.idle.get(topic) == Some(since);
            let Some((_, topic)) = state.became_idle.pop_front() else {
                break;
            };
            if is_idle {
                state.idle.remove(&topic);
                let last = state.feeds.remove(&topic).map(|feed| feed.last_known());
                if let Some(last) = last.filter(|last| *last != LastKnown::default()) {
                    state.swept.push_back((topic.clone(), last));
                }
                // While the log is away nothing is told, and topics come and go.
                if state.changed.len() > CHANGED_MAX && state.changed.remove(&topic) {
                    state.changes_lost = true;
                }
                due.push(topic);
            }
        }
        let many = state.swept.len().saturating_sub(SWEPT_MAX);
        state.swept.drain(..many);
        state.swept_told = state.swept_told.saturating_sub(many);
        // What nobody has asked to hear yet need not be asked for any more: the request would come
        // after the one to stop.
        if !due.is_empty() {
            let gone: HashSet<&Topic> = due.iter().collect();
            state.added.retain(|feed| !gone.contains(feed.topic()));
        }
        due
    }

    /// Topics whose number of subscribers changed since the last call, with that number; `most` at
    /// once.
    #[must_use]
    pub fn take_changed(&self, most: usize) -> Vec<(Topic, u64)> {
        let mut state = self.state();
        let mut taken = Vec::new();
        while taken.len() < most {
            let Some(topic) = state.changed.pop_first() else {
                break;
            };
            let subscribers = state.feeds.get(&topic).map_or(0, |feed| feed.subscribers());
            taken.push((topic, subscribers.into()));
        }
        taken
    }

    /// Marks topics as changed whose number did not get through.
    pub fn mark_changed(&self, topics: impl Iterator<Item = Topic>) {
        let mut state = self.state();
        for topic in topics {
            // A topic that is read is known anyway.
            if state.feeds.contains_key(&topic) || state.changed.len() < CHANGED_MAX {
                state.changed.insert(topic);
            } else {
                state.changes_lost = true;
            }
        }
    }

    /// Whether changes were lost since the last call: all that was told of subscribers is to be forgotten.
    #[must_use]
    pub fn take_changes_lost(&self) -> bool {
        std::mem::take(&mut self.state().changes_lost)
    }

    /// That changes were lost did not get through.
    pub fn mark_changes_lost(&self) {
        self.state().changes_lost = true;
    }

    /// Marks all topics as changed, for a log that has forgotten them.
    pub fn mark_all_changed(&self) {
        let mut state = self.state();
        let read: Vec<Topic> = state.feeds.keys().cloned().collect();
        state.changed.extend(read);
    }

    /// Takes a live frame.
    pub fn hear(&self, topic: &Topic, frame: Frame) -> Hearing {
        let partition = self.partition(topic.partition(self.partitions()));
        let feed = self.feed(topic);
        if frame.mark == Mark::Unlogged {
            if let Some(feed) = feed {
                feed.hear_unlogged(frame);
                feed.wake_all();
            }
            return Hearing::default();
        }
        let id = frame.id;
        if let Some(feed) = feed.as_ref().filter(|_| partition.is_estranged()) {
            // It is of a log that was not told of the one before. It is read once the path has begun anew.
            feed.break_off();
        }
        let taken = feed.as_ref().map(|feed| feed.hear(frame));
        if taken == Some(Taken::LogLost) {
            partition.estrange(id);
        }
        // Only now: whoever sees this id as heard finds the frame in the window, or the topic broken.
        let order = partition.hear(id);
        if order != cmp::Ordering::Greater {
            partition.estrange(id);
        }
        if let Some(feed) = feed.filter(|_| taken == Some(Taken::Appended)) {
            feed.wake_all();
        }
        Hearing {
            hole: taken == Some(Taken::Hole),
            backwards: order != cmp::Ordering::Greater || taken == Some(Taken::LogLost),
        }
    }

    /// The clock was said aloud. True if it has gone back, or is another one.
    pub fn tick(&self, partition: PartitionNo, tick: Tick) -> bool {
        let partition = self.partition(partition);
        let is_other = !partition.take_tick(&tick);
        if is_other {
            partition.estrange(tick.id);
        }
        let order = partition.hear(tick.id);
        if order == cmp::Ordering::Less {
            partition.estrange(tick.id);
        }
        is_other || order == cmp::Ordering::Less
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
        let serial = self.next_serial();
        let repaired = feed.repair(page, horizon, serial);
        feed.wake_all();
        repaired
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

    /// The live path is whole, and from here on what is heard is followed. `told` says whether the log
    /// was told what had been heard before.
    pub fn begin_following(&self, told: bool) {
        if told {
            // Kept for one more report: the log may go back again, to before it was told.
            let mut state = self.state();
            let told_before = std::mem::take(&mut state.swept_told);
            state.swept.drain(..told_before);
            state.swept_told = state.swept.len();
        }
        for partition in &self.partitions {
            partition.begin_following(told);
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
mod tests {
    use super::reader::{Reader, Start};
    use super::*;

    const KEEP: Duration = Duration::from_secs(30);

    fn hub_and_reader(topic: &Topic) -> (Arc<Hub>, impl Fn() -> Reader + use<>) {
        let bounds = WindowBounds {
            events_max: 1,
            bytes_max: 1,
        };
        let hub = Hub::new(1, bounds);
        let (ours, topic) = (hub.clone(), topic.clone());
        let reader = move || {
            let topics = std::slice::from_ref(&topic);
            ours.reader(topics, Waker::noop(), |_| Start::Live)
        };
        (hub, reader)
    }

    #[test]
    fn a_topic_goes_when_nobody_has_read_it_for_a_while() {
        let topic = Topic::parse("news").unwrap();
        let (hub, reader) = hub_and_reader(&topic);
        let now = Instant::now();
        drop(reader());
        let added = hub.take_added();
        assert_eq!(
            added.iter().map(|feed| feed.topic()).collect::<Vec<_>>(),
            [&topic]
        );
        assert!(hub.sweep(now, KEEP).is_empty());
        // Read once more, and left: the time begins anew.
        drop(reader());
        assert!(hub.sweep(now + KEEP / 2, KEEP).is_empty());
        assert!(hub.sweep(now + KEEP, KEEP).is_empty());
        let last = reader();
        assert!(hub.sweep(now + KEEP * 2, KEEP).is_empty());
        drop(last);
        assert!(hub.sweep(now + KEEP * 2, KEEP).is_empty());
        assert_eq!(hub.sweep(now + KEEP * 3, KEEP), [topic]);
        assert!(hub.take_added().is_empty() && hub.feeds().is_empty());
    }

    /// Else it would be subscribed after the request to stop, and stay so for ever.
    #[test]
    fn a_topic_that_goes_before_it_was_subscribed_is_not_subscribed() {
        let topic = Topic::parse("news").unwrap();
        let (hub, reader) = hub_and_reader(&topic);
        drop(reader());
        let gone = hub.sweep(Instant::now(), Duration::ZERO);
        assert_eq!(gone, std::slice::from_ref(&topic));
        assert!(hub.take_added().is_empty());
        let _again = reader();
        assert_eq!(hub.take_added().len(), 1);
    }
}
