//! What a thread has counted and not told yet: threads that share a counter wait for one another.

use super::out::Out;
use crate::metrics::Metrics;
use prometheus::local::{LocalHistogram, LocalIntCounter};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What one thread has counted since it last told it.
#[derive(Debug)]
pub(super) struct Tally {
    delivered: LocalIntCounter,
    sent_bytes: LocalIntCounter,
    latency: LocalHistogram,
    sweep: LocalHistogram,
    /// Time since the Unix epoch, as of its last reading.
    clock: Duration,
}

impl Tally {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            delivered: metrics.delivered.local(),
            sent_bytes: metrics.sent_bytes.local(),
            latency: metrics.latency.local(),
            sweep: metrics.sweep.local(),
            clock: clock(),
        }
    }

    /// Reads the clock: what is counted from here on is counted as of now.
    pub(super) fn read_clock(&mut self) {
        self.clock = clock();
    }

    /// Time since the Unix epoch, as of its last reading.
    pub(super) fn clock(&self) -> Duration {
        self.clock
    }

    /// Counts what a turn made.
    pub(super) fn add(&mut self, out: &mut Out) {
        self.delivered.inc_by(std::mem::take(&mut out.delivered));
        self.sent_bytes
            .inc_by(std::mem::take(&mut out.bytes) as u64);
        if let Some(ms) = out.fresh_ms.take() {
            self.latency.observe(age_of(ms, self.clock));
        }
    }

    /// Streams had their turns, all of them in so long a time.
    pub(super) fn swept(&self, time: Duration) {
        self.sweep.observe(time.as_secs_f64());
    }

    /// Adds it to what all threads share.
    pub(super) fn flush(&self) {
        self.delivered.flush();
        self.sent_bytes.flush();
        self.latency.flush();
        self.sweep.flush();
    }
}

/// This machine's clock: time since the Unix epoch.
pub(super) fn clock() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}

/// Seconds from `ms` of the Unix epoch until `now`.
pub(super) fn age_of(ms: u64, now: Duration) -> f64 {
    now.saturating_sub(Duration::from_millis(ms)).as_secs_f64()
}
