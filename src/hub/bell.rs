//! Waking streams: one bell a stream, hung at every feed that it reads.

use atomic_waker::AtomicWaker;
use slab::Slab;
use std::sync::Arc;
use std::task::Waker;

/// Wakes the one task that waits for it. A ring before the wait is not lost as long as the task
/// registers first and looks afterwards.
#[derive(Debug, Default)]
pub struct Bell(AtomicWaker);

impl Bell {
    /// Has `waker` woken at the next ring.
    pub fn register(&self, waker: &Waker) {
        self.0.register(waker);
    }

    /// Wakes the task that registered last.
    pub fn ring(&self) {
        self.0.wake();
    }
}

/// The bells of all who wait for the same thing.
#[derive(Debug, Default)]
pub(super) struct Bells(Slab<Arc<Bell>>);

impl Bells {
    pub(super) fn hang(&mut self, bell: Arc<Bell>) -> usize {
        self.0.insert(bell)
    }

    pub(super) fn take_down(&mut self, key: usize) {
        self.0.try_remove(key);
    }

    pub(super) fn ring(&self) {
        for (_, bell) in &self.0 {
            bell.ring();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
