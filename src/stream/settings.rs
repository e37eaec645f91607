//! What all streams of this replica go by, and the drain that ends them.

use crate::auth::Revocations;
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
    /// Whether their rights still hold.
    pub revocations: Arc<Revocations>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

impl StreamSettings {
    /// A reconnection time, in milliseconds; `chance` is 0 to 1.
    #[must_use]
    pub fn retry_ms(&self, chance: f64) -> u64 {
        millis(self.retry.mul_f64(0.5 + chance))
    }

    /// A reconnection time for one client, in milliseconds.
    #[must_use]
    pub fn jittered_retry_ms(&self) -> u64 {
        self.retry_ms(rand::random_range(0.0..1.0))
    }
}

/// What is left to chance in a stream's life, so that streams which begin together do not act
/// together. Each is 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jitter {
    /// When the first heartbeat is due.
    pub heartbeat: f64,
    /// How much earlier than others it is cut by age.
    pub age: f64,
    /// When it comes back.
    pub retry: f64,
    /// When it is cut by a drain.
    pub drain_slot: f32,
}

impl Jitter {
    /// Draws it.
    #[must_use]
    pub fn draw() -> Self {
        Self {
            heartbeat: rand::random_range(0.0..1.0),
            age: rand::random_range(0.0..1.0),
            retry: rand::random_range(0.0..1.0),
            drain_slot: rand::random_range(0.0..1.0),
        }
    }
}

/// When in the time of a drain a stream is cut, from its beginning to its end. There are very many streams: two bytes will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DrainSlot(u16);

impl DrainSlot {
    /// Of what was drawn, 0 to 1.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "what is drawn lies between 0 and 1, and what does not becomes one of both"
    )]
    pub(super) fn of(chance: f32) -> Self {
        Self((chance * f32::from(u16::MAX)) as u16)
    }

    fn part(self) -> f32 {
        f32::from(self.0) / f32::from(u16::MAX)
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

    /// Begins; a second call changes nothing. The hub's streams must be woken after it.
    pub fn begin(&self, now: Instant) {
        self.began.get_or_init(|| now.into());
    }

    /// Whether it has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.began.get().is_some()
    }

    /// When the stream of this slot is cut: all of them over four fifths of the time,
    /// so that the last still have time to be flushed.
    pub(super) fn cut_at(&self, slot: DrainSlot) -> Option<CoarseInstant> {
        self.began
            .get()
            .map(|began| *began + self.time.mul_f32(0.8 * slot.part()))
    }
}
