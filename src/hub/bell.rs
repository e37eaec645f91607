//! Waking streams: a waker hangs at every feed that is read, one for each stream, or one for many.

use super::Hub;
use super::feed::Feed;
use atomic_waker::AtomicWaker;
use slab::Slab;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

/// A waker for a task, which is polled with another one each time.
///
/// A ring before the wait is not lost as long as the task registers first and looks afterwards.
#[derive(Debug, Default)]
pub struct Bell(AtomicWaker);

impl Bell {
    /// Has `waker` woken at the next ring.
    pub fn register(&self, waker: &Waker) {
        self.0.register(waker);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.wake();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.wake();
    }
}

/// Something at which wakers hang.
#[derive(Clone, Debug)]
pub enum WakeSource {
    /// A topic.
    Feed(Arc<Feed>),
    /// The number of open streams.
    Counts(Arc<Hub>),
}

impl WakeSource {
    /// Tells it from all others that are there at the same time.
    #[must_use]
    pub fn address(&self) -> usize {
        match self {
            Self::Feed(feed) => Arc::as_ptr(feed).addr(),
            Self::Counts(hub) => Arc::as_ptr(hub).addr(),
        }
    }

    /// Has `waker` woken at each change, until it is taken down.
    #[must_use]
    pub fn hang(&self, waker: Waker) -> Hook {
        match self {
            Self::Feed(feed) => feed.hang(waker),
            Self::Counts(hub) => hub.counts().hang(waker),
        }
    }

    /// Stops waking.
    pub fn take_down(&self, hook: Hook) {
        match self {
            Self::Feed(feed) => feed.take_down(hook),
            Self::Counts(hub) => hub.counts().take_down(hook),
        }
    }
}

/// The wakers of all who wait for the same thing. They have a lock of their own, beside what is
/// waited for: whoever is woken wants to look at that, and one that preempts its waker would find it
/// locked, and sleep again.
#[derive(Debug, Default)]
pub(super) struct Bells(Mutex<Slab<Waker>>);

/// Where a waker hangs. Four bytes: each subscription has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook(u32);

impl Hook {
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

impl Bells {
    fn all(&self) -> MutexGuard<'_, Slab<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hang(&self, waker: Waker) -> Hook {
        let mut all = self.all();
        if all.capacity() == 0 {
            // Most topics have one reader.
            all.reserve_exact(1);
        }
        Hook::new(all.insert(waker))
    }

    pub(super) fn take_down(&self, hook: Hook) {
        self.all().try_remove(hook.number());
    }

    pub(super) fn get(&self, hook: Hook) -> Option<Waker> {
        self.all().get(hook.number()).cloned()
    }

    pub(super) fn ring(&self) {
        for (_, waker) in &*self.all() {
            waker.wake_by_ref();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all().len()
    }
}
