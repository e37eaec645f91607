//! What all streams of this replica go by, and the drain that ends them.

use crate::broker::Retention;
use crate::metrics::Metrics;
use crate::swap::Swap;
use crate::time::{CoarseInstant, millis};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::Instant;

/// What all streams of this replica go by.
#[derive(Debug)]
pub struct StreamSettings {
    /// This replica's name.
    pub replica: String,
    /// Pause between heartbeats.
    pub heartbeat: Duration,
    /// Reconnection time, plus or minus half.
    pub retry: Duration,
    /// Life of a stream, minus up to a quarter.
    pub age_max: Duration,
    /// Whether streams begin with `tidegate.open`.
    pub open_event: bool,
    /// A stream that is held longer is cut.
    pub repair_time: Duration,
    /// What the log keeps: a cursor is refreshed before half of the age, and before a filter has
    /// kept back half of the entries.
    pub retention: Swap<Retention>,
    /// The drain.
    pub drain: Arc<Drain>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

impl StreamSettings {
    /// A reconnection time for one client, in milliseconds.
    #[must_use]
    pub fn jittered_retry_ms(&self) -> u64 {
        millis(self.retry.mul_f64(rand::random_range(0.5..1.5)))
    }
}

/// When this replica began to go, and how long it takes.
#[derive(Debug)]
pub struct Drain {
    began: OnceLock<CoarseInstant>,
    time: Duration,
}

impl Drain {
    /// A drain that has not begun.
    #[must_use]
    pub fn new(time: Duration) -> Self {
        Self {
            began: OnceLock::new(),
            time,
        }
    }

    /// Begins; a second call changes nothing. The hub's bells must be rung after it.
    pub fn begin(&self, now: Instant) {
        self.began.get_or_init(|| now.into());
    }

    /// Whether it has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.began.get().is_some()
    }

    /// When the stream that drew `slot`, 0 to 1, is cut: all of them over four fifths of the time,
    /// so that the last still have time to be flushed.
    pub(super) fn cut_at(&self, slot: f32) -> Option<CoarseInstant> {
        self.began
            .get()
            .map(|began| *began + self.time.mul_f32(0.8 * slot))
    }
}
