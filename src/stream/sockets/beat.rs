//! The sign of life of a thread: how often it has come round.
//!
//! It is a count and not a time, so that it costs no clock; and a process that was stopped for long, and goes on, has not
//! missed anything by it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// For no longer does a thread sleep that has nothing to do.
pub(super) const BEAT_EVERY: Duration = Duration::from_secs(1);
/// Of a thread that has ended.
const ENDED: u64 = u64::MAX;

/// Written by its own thread alone. It has a cache line of its own: the threads write theirs all the time.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Beat(AtomicU64);

impl Beat {
    /// The thread is at work, or has nothing to do.
    pub(super) fn touch(&self) {
        // Nobody else writes, and nobody reads anything by it.
        let count = self.0.load(Ordering::Relaxed);
        self.0.store(count.wrapping_add(1), Ordering::Relaxed);
    }

    /// The thread has ended, as it was told to.
    pub(super) fn end(&self) {
        self.0.store(ENDED, Ordering::Relaxed);
    }

    /// Another one than the last time while the thread goes on; none once it has ended.
    pub(super) fn count(&self) -> Option<u64> {
        let count = self.0.load(Ordering::Relaxed);
        (count != ENDED).then_some(count)
    }

    /// How long a thread sleeps that would for `wait`, or until it is woken.
    #[expect(
        clippy::unnecessary_wraps,
        reason = "in tests/model a thread may sleep for ever"
    )]
    pub(super) fn at_most(wait: Option<Duration>) -> Option<Duration> {
        Some(wait.map_or(BEAT_EVERY, |wait| wait.min(BEAT_EVERY)))
    }
}
