//! Waking streams: every feed that is read has a set of wakers, one for each stream, or one for many.

use super::lock::{Rank, Ranked, RankedGuard};
use atomic_waker::AtomicWaker;
use slab::Slab;
use std::sync::Arc;
use std::task::{Wake, Waker};

/// A waker for a task, which is polled with another one each time.
///
/// A wake-up before the wait is not lost as long as the task registers first and looks afterwards.
#[derive(Debug, Default)]
pub struct TaskWaker(AtomicWaker);

impl TaskWaker {
    /// Has `waker` woken at the next wake-up.
    pub fn register(&self, waker: &Waker) {
        self.0.register(waker);
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.0.wake();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.wake();
    }
}

/// The wakers of all who wait for the same thing. They have a lock of their own, beside what is
/// waited for: whoever is woken wants to look at that, and one that preempts its waker would find it
/// locked, and sleep again.
#[derive(Debug)]
pub(super) struct WakerSet(Ranked<Slab<Waker>>);

impl Default for WakerSet {
    fn default() -> Self {
        Self(Ranked::new(Rank::Wakers, Slab::new()))
    }
}

/// A waker's place in its set. Four bytes: each subscription has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WakerId(u32);

impl WakerId {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "descriptors end long before 2^32 subscribers of one topic"
    )]
    fn new(number: usize) -> Self {
        Self(number as u32)
    }

    fn number(self) -> usize {
        self.0 as usize
    }
}

impl WakerSet {
    fn all(&self) -> RankedGuard<'_, Slab<Waker>> {
        self.0.lock()
    }

    pub(super) fn add_waker(&self, waker: Waker) -> WakerId {
        let mut all = self.all();
        if all.capacity() == 0 {
            // Most topics have one reader.
            all.reserve_exact(1);
        }
        WakerId::new(all.insert(waker))
    }

    pub(super) fn remove_waker(&self, waker_id: WakerId) {
        self.all().try_remove(waker_id.number());
    }

    pub(super) fn get(&self, waker_id: WakerId) -> Option<Waker> {
        self.all().get(waker_id.number()).cloned()
    }

    pub(super) fn wake_all(&self) {
        // Woken under the lock: a waker that is removed is not woken afterwards. None of them takes
        // a lock of the hub.
        for (_, waker) in &*self.all() {
            waker.wake_by_ref();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all().len()
    }
}
