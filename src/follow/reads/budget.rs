//! How many bytes of pages may be in memory before further reads wait.
//!
//! A page lives until the last stream that shares it was shown it, or has let it go: its client has taken nothing for a
//! while, or takes nothing at this moment and a read waits for room. So what is held is what clients are being shown. A read reserves room for the
//! most that it may bring before it is asked of the log, and where there is none it waits for others to be done.
//!
//! A stream of many topics shows nothing before it has a page of each, and one answer of the log may bring a part
//! of them. What it lacks then is counted as if it had come, and read without waiting: streams that each hold a part
//! and wait for the rest would wait for one another. Should it come to that all the same, as over several
//! partitions, one read goes on without room now and then.

use crate::log::{Held, Page, Reading};
use crate::metrics::Metrics;
use crate::sse::Frame;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, Notify};

/// Bytes of one page at most, about (`Broker::read`), and what one counts as at least.
const PAGE_BYTES: usize = 256 * 1024;
const PAGE_BYTES_MIN: i64 = 1024;
/// While there is no room, one read goes on each time that this has passed.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// The budget of one replica.
#[derive(Debug)]
pub(super) struct PageBudget {
    metrics: Arc<Metrics>,
    /// Bytes.
    most: AtomicI64,
    /// Bytes that reads under way may bring.
    reserved: AtomicI64,
    /// Bytes that are reserved for a page: twice as many as the last ones had, about.
    page: AtomicI64,
    freed: Notify,
    /// Reads that wait for room.
    waiting: AtomicUsize,
    /// One has begun to wait.
    wanted: Notify,
    /// Whoever goes on next without room.
    next: Mutex<()>,
}

/// A read that waits for room.
struct Waiting<'a>(&'a PageBudget);

impl<'a> Waiting<'a> {
    fn begin(budget: &'a PageBudget) -> Self {
        budget.waiting.fetch_add(1, Ordering::AcqRel);
        budget.wanted.notify_one();
        Self(budget)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Room for what a read may bring, until it has come.
#[derive(Debug)]
pub(super) struct Room {
    budget: Arc<PageBudget>,
    bytes: i64,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.budget.reserved.fetch_sub(self.bytes, Ordering::AcqRel);
        self.budget.tell();
    }
}

/// Bytes of one reading, counted as long as it lives.
#[derive(Debug)]
struct HeldPages {
    budget: Arc<PageBudget>,
    bytes: AtomicI64,
    /// For what the same streams read next.
    _next: Option<Room>,
}

impl Held for HeldPages {
    fn grow(&self, bytes: usize) {
        let bytes = self::bytes(bytes);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.budget.metrics.page_bytes.add(bytes);
    }
}

impl Drop for HeldPages {
    fn drop(&mut self) {
        self.budget.metrics.page_bytes.sub(*self.bytes.get_mut());
        self.budget.tell();
    }
}

impl PageBudget {
    pub(super) fn new(metrics: Arc<Metrics>, bytes_max: usize) -> Self {
        Self {
            metrics,
            most: AtomicI64::new(i64::try_from(bytes_max).unwrap_or(i64::MAX)),
            reserved: AtomicI64::new(0),
            page: AtomicI64::new(bytes(PAGE_BYTES)),
            freed: Notify::new(),
            waiting: AtomicUsize::new(0),
            wanted: Notify::new(),
            next: Mutex::new(()),
        }
    }

    /// Another bound. Readings that are held stay.
    pub(super) fn set_most(&self, bytes_max: usize) {
        let most = i64::try_from(bytes_max).unwrap_or(i64::MAX);
        self.most.store(most, Ordering::Relaxed);
        self.freed.notify_waiters();
    }

    /// Tells whoever waits, if there may be room.
    fn tell(&self) {
        if self.has_room(self.reserved.load(Ordering::Acquire)) {
            self.freed.notify_waiters();
        }
    }

    fn has_room(&self, reserved: i64) -> bool {
        self.metrics.page_bytes.get() + reserved < self.most.load(Ordering::Relaxed)
    }

    fn reserve(self: &Arc<Self>, bytes: i64, is_free: impl Fn(i64) -> bool) -> Option<Room> {
        let more = |reserved| is_free(reserved).then_some(reserved + bytes);
        let reserved = self
            .reserved
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        reserved.ok().map(|_| Room {
            budget: self.clone(),
            bytes,
        })
    }

    /// What so many pages may have, about.
    fn bytes_of(&self, pages: usize) -> i64 {
        bytes(pages).saturating_mul(self.page.load(Ordering::Relaxed))
    }

    /// Whether a read waits for room.
    pub(super) fn is_short(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Waits until a read has begun to wait for room since the last call.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Waits until there is room for so many pages, or until it is this read's turn to go on without.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn room(self: &Arc<Self>, pages: usize) -> Option<Room> {
        let bytes = self.bytes_of(pages);
        let room = || self.reserve(bytes, |reserved| self.has_room(reserved));
        if let Some(room) = room() {
            return Some(room);
        }
        self.metrics.page_waits.inc();
        let _waiting = Waiting::begin(self);
        let free = async {
            loop {
                // Told of before the look: what is freed in between is not missed.
                let freed = self.freed.notified();
                if let Some(room) = room() {
                    return room;
                }
                freed.await;
            }
        };
        let turn = async {
            let _one_at_a_time = self.next.lock().await;
            tokio::time::sleep(WAIT_MAX).await;
        };
        tokio::select! {
            room = free => Some(room),
            // What was not freed by then may be held by streams that wait for this very read.
            () = turn => self.reserve(bytes, |_| true),
        }
    }

    /// Room for so many pages, whether or not there is any.
    pub(super) fn take(self: &Arc<Self>, pages: usize) -> Option<Room> {
        self.reserve(self.bytes_of(pages), |_| true)
    }

    /// Counts the pages of a reading from here on, in place of the room that was kept for them, and so many more
    /// that it lacks.
    pub(super) fn hold(
        self: &Arc<Self>,
        reading: &mut Reading,
        missing: usize,
        room: Option<Room>,
    ) {
        let frames = |page: &Page| page.frames.iter().map(Frame::size).sum::<usize>();
        let bytes: usize = reading.pages.iter().map(frames).sum();
        let average = bytes / reading.pages.len().max(1);
        let [bytes, next] = [bytes, average * missing].map(self::bytes);
        if bytes > 0 {
            let page = self.page.load(Ordering::Relaxed);
            let page = (page * 3 + self::bytes(average) * 2) / 4;
            let page = page.clamp(PAGE_BYTES_MIN, self::bytes(PAGE_BYTES));
            self.page.store(page, Ordering::Relaxed);
            self.metrics.page_bytes.add(bytes);
            reading.held = Some(Box::new(HeldPages {
                budget: self.clone(),
                bytes: bytes.into(),
                _next: self.reserve(next, |_| missing > 0),
            }));
        }
        drop(room);
    }
}

fn bytes(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;
    use crate::log::{Floor, Horizon, RunId};
    use crate::sse::{Entry, Mark};
    use crate::topic::Topic;
    use std::task::Poll;

    fn budget(pages: usize) -> Arc<PageBudget> {
        Arc::new(PageBudget::new(Metrics::new(), pages * PAGE_BYTES))
    }

    /// A reading of one page with one entry.
    fn reading() -> Reading {
        let topic = Topic::parse("a").unwrap();
        let entry = Entry {
            id: Id::new(1, 1),
            prev: Id::ZERO,
            mark: Mark::Event,
            event_type: String::new(),
            data: "x".repeat(1000),
        };
        let horizon = Horizon {
            last: entry.id,
            born: Id::ZERO,
            seams: Vec::new(),
            losses: Vec::new(),
            now_ms: 1,
            run: RunId(1),
        };
        let page = Page {
            frames: vec![Frame::encode(&topic, &entry)],
            topic,
            after: Id::ZERO,
            floor: Floor::Log(Id::ZERO),
            ended: None,
            cut_at: None,
        };
        Reading {
            horizon,
            pages: vec![page],
            held: None,
        }
    }

    /// Whether there is room at once.
    async fn has_room(budget: &Arc<PageBudget>, pages: usize) -> Option<Room> {
        let mut room = std::pin::pin!(budget.room(pages));
        std::future::poll_fn(|cx| {
            Poll::Ready(match room.as_mut().poll(cx) {
                Poll::Ready(room) => room,
                Poll::Pending => None,
            })
        })
        .await
    }

    #[tokio::test]
    async fn reads_under_way_are_counted_before_they_bring_anything() {
        let budget = budget(2);
        let first = has_room(&budget, 1).await.unwrap();
        let second = has_room(&budget, 8).await.unwrap();
        assert!(!budget.is_short());
        assert!(has_room(&budget, 1).await.is_none());
        assert_eq!(budget.metrics.page_waits.get(), 1);
        // Told to whoever holds pages that nobody takes, though it waits no more.
        budget.wanted().await;
        assert!(!budget.is_short());
        // Who holds a part of what it needs has the rest without waiting.
        let rest = budget.take(8);
        drop(first);
        assert!(has_room(&budget, 1).await.is_none());
        drop((second, rest));
        assert!(has_room(&budget, 1).await.is_some());
    }

    #[tokio::test]
    async fn what_a_reading_lacks_is_counted_as_if_it_had_come() {
        let budget = budget(1);
        let room = has_room(&budget, 300).await;
        assert!(room.is_some());
        let mut part = reading();
        budget.hold(&mut part, 299, room);
        assert!(budget.metrics.page_bytes.get() < 2000);
        assert!(has_room(&budget, 1).await.is_none());
        drop(part);
        assert_eq!(budget.metrics.page_bytes.get(), 0);
        let mut whole = reading();
        budget.hold(&mut whole, 0, None);
        assert!(has_room(&budget, 1).await.is_some());
    }

    #[tokio::test]
    async fn as_long_as_a_read_waits_there_is_a_shortage() {
        let budget = budget(1);
        let held = has_room(&budget, 1).await.unwrap();
        let mut room = std::pin::pin!(budget.room(1));
        let first = std::future::poll_fn(|cx| Poll::Ready(room.as_mut().poll(cx).is_ready()));
        assert!(!first.await);
        assert!(budget.is_short());
        drop(held);
        assert!(room.await.is_some());
        assert!(!budget.is_short());
    }

    /// It may be held by streams that wait for this very read.
    #[tokio::test]
    async fn where_nothing_is_freed_one_read_goes_on_after_a_while() {
        let budget = budget(1);
        let _held = has_room(&budget, 1).await.unwrap();
        assert!(budget.room(1).await.is_some());
    }
}
