//! What a stream waits for, whichever of its kinds it is.

use super::feed::Feed;
use super::{Hub, WakerId};
use std::sync::Arc;
use std::task::Waker;

/// Something that wakes who waits for it.
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

    /// Has `waker` woken at each change, until it is removed.
    #[must_use]
    pub fn add_waker(&self, waker: Waker) -> WakerId {
        match self {
            Self::Feed(feed) => feed.add_waker(waker),
            Self::Counts(hub) => hub.counts().add_waker(waker),
        }
    }

    /// Stops waking.
    pub fn remove_waker(&self, waker_id: WakerId) {
        match self {
            Self::Feed(feed) => feed.remove_waker(waker_id),
            Self::Counts(hub) => hub.counts().remove_waker(waker_id),
        }
    }
}
