//! The order in which the hub's locks are taken, checked in debug builds.
//!
//! | rank | lock | while it is held |
//! |---|---|---|
//! | [`Rank::Hub`] | the map of feeds | a feed may be locked: to join it, or to count its readers |
//! | [`Rank::Feed`] | one topic: window, health | a stream copies references to frames out of it |
//! | [`Rank::Budget`] | what all windows take of one bound | nothing else is locked |
//! | [`Rank::Partition`] | one clock | nothing else is locked |
//! | [`Rank::Wakers`] | who is woken by one source | wakers are called; they lock a thread's mailbox at most |
//!
//! A thread takes a lock only of a greater rank than all that it holds, so no two threads wait for
//! each other, and never two feeds at a time.

use crate::sync::{Mutex, MutexGuard, PoisonError};
use std::ops::{Deref, DerefMut};

/// Where a lock stands in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Hub,
    Feed,
    Budget,
    Partition,
    Wakers,
}

/// A lock with a rank. A panic while it is held poisons nothing: what the hub keeps is changed in
/// steps that leave it whole.
#[derive(Debug)]
pub(super) struct Ranked<T> {
    rank: Rank,
    inner: Mutex<T>,
}

impl<T> Ranked<T> {
    pub(super) fn new(rank: Rank, value: T) -> Self {
        Self {
            rank,
            inner: Mutex::new(value),
        }
    }

    /// What nobody else holds any more.
    pub(super) fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the lock.
    ///
    /// # Panics
    /// In debug builds, if this thread holds a lock of the same or a greater rank.
    pub(super) fn lock(&self) -> RankedGuard<'_, T> {
        held::enter(self.rank);
        RankedGuard {
            inner: self.inner.lock().unwrap_or_else(PoisonError::into_inner),
            rank: self.rank,
        }
    }
}

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub(super) struct RankedGuard<'a, T> {
    inner: MutexGuard<'a, T>,
    rank: Rank,
}

impl<T> Deref for RankedGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for RankedGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T> Drop for RankedGuard<'_, T> {
    fn drop(&mut self) {
        held::leave(self.rank);
    }
}

#[cfg(debug_assertions)]
mod held {
    use crate::hub::lock::Rank;
    use std::cell::RefCell;

    crate::sync::thread_local! {
        static HELD: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn enter(rank: Rank) {
        HELD.with(|held| {
            let mut held = held.borrow_mut();
            assert!(
                held.iter().all(|other| *other < rank),
                "a lock of rank {rank:?} is taken while {held:?} are held"
            );
            held.push(rank);
        });
    }

    pub(super) fn leave(rank: Rank) {
        HELD.with(|held| {
            let mut held = held.borrow_mut();
            if let Some(at) = held.iter().rposition(|other| *other == rank) {
                held.remove(at);
            }
        });
    }
}

#[cfg(not(debug_assertions))]
mod held {
    use crate::hub::lock::Rank;

    pub(super) fn enter(_: Rank) {}
    pub(super) fn leave(_: Rank) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(debug_assertions, should_panic(expected = "while [Feed] are held"))]
    fn a_lock_of_a_lesser_rank_is_refused_in_debug_builds() {
        let hub = Ranked::new(Rank::Hub, ());
        let feed = Ranked::new(Rank::Feed, ());
        drop(hub.lock());
        let held = feed.lock();
        let nested = hub.lock();
        drop((held, nested));
    }
}
