//! How many bytes of pages may be in memory before further reads wait.
//!
//! A page lives until the last stream that shares it was shown it, or has let it go because its client
//! takes nothing. So what is held is what clients are being shown at this moment. Above the budget a
//! read waits for others to be done, but not for ever: two streams may each hold a part of what they need,
//! and wait for the rest.

use crate::log::{Held, Page, Reading};
use crate::metrics::Metrics;
use crate::sse::Frame;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// A read waits for room no longer than this.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// The budget of one replica.
#[derive(Debug)]
pub(super) struct PageBudget {
    metrics: Arc<Metrics>,
    /// Bytes.
    most: AtomicI64,
    freed: Notify,
}

/// Bytes of one reading, counted as long as it lives.
#[derive(Debug)]
struct HeldPages {
    budget: Arc<PageBudget>,
    bytes: i64,
}

impl Held for HeldPages {}

impl Drop for HeldPages {
    fn drop(&mut self) {
        self.budget.metrics.page_bytes.sub(self.bytes);
        if self.budget.has_room() {
            self.budget.freed.notify_waiters();
        }
    }
}

impl PageBudget {
    pub(super) fn new(metrics: Arc<Metrics>, bytes_max: usize) -> Self {
        Self {
            metrics,
            most: AtomicI64::new(i64::try_from(bytes_max).unwrap_or(i64::MAX)),
            freed: Notify::new(),
        }
    }

    /// Another bound. Readings that are held stay.
    pub(super) fn set_most(&self, bytes_max: usize) {
        let most = i64::try_from(bytes_max).unwrap_or(i64::MAX);
        self.most.store(most, Ordering::Relaxed);
        self.freed.notify_waiters();
    }

    fn has_room(&self) -> bool {
        self.metrics.page_bytes.get() < self.most.load(Ordering::Relaxed)
    }

    /// Waits until there is room, or for [`WAIT_MAX`].
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn room(&self) {
        if self.has_room() {
            return;
        }
        self.metrics.page_waits.inc();
        let wait = async {
            loop {
                // Told of before the look: what is freed in between is not missed.
                let freed = self.freed.notified();
                if self.has_room() {
                    return;
                }
                freed.await;
            }
        };
        // What was not freed by then may be held by streams that wait for this very read.
        drop(tokio::time::timeout(WAIT_MAX, wait).await);
    }

    /// Counts the pages of a reading from here on.
    pub(super) fn hold(self: &Arc<Self>, reading: &mut Reading) {
        let frames = |page: &Page| page.frames.iter().map(Frame::size).sum::<usize>();
        let bytes: usize = reading.pages.iter().map(frames).sum();
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        if bytes > 0 {
            self.metrics.page_bytes.add(bytes);
            let budget = self.clone();
            reading.held = Some(Box::new(HeldPages { budget, bytes }));
        }
    }
}
