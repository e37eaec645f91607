//! `tidegate.connections`: the number of open streams, as a topic that nobody publishes.

use super::waker::{WakerId, WakerSet};
use crate::sse::Block;
use crate::sync::{Mutex, MutexGuard, PoisonError};
use crate::topic::Topic;
use bytes::Bytes;
use serde::Serialize;
use std::task::Waker;

/// Open streams of the fleet and of this replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Connections {
    /// Over all replicas.
    pub fleet: u64,
    /// On this one.
    pub replica: u64,
}

/// The latest count, and who watches it.
#[derive(Debug, Default)]
pub struct Counts {
    state: Mutex<State>,
    wakers: WakerSet,
}

#[derive(Debug, Default)]
struct State {
    now: Connections,
    version: u64,
    block: Bytes,
}

impl Counts {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a new count and shows it to all who watch, if it is another one.
    pub fn set(&self, now: Connections) {
        let mut state = self.state();
        if state.version == 0 || state.now != now {
            state.now = now;
            state.version += 1;
            state.block = Bytes::from(Block::default().event(Topic::CONNECTIONS).json(&now));
            drop(state);
            self.wakers.wake_all();
        }
    }

    /// The latest block and its version, if it is newer than `seen`. It has no id: it is not logged.
    #[must_use]
    pub fn newer_than(&self, seen: u64) -> Option<(u64, Bytes)> {
        let state = self.state();
        (state.version > seen).then(|| (state.version, state.block.clone()))
    }

    /// Has `waker` woken at each change, until it is taken down.
    #[must_use]
    pub fn add_waker(&self, waker: Waker) -> WakerId {
        self.wakers.add_waker(waker)
    }

    /// Stops waking.
    pub fn remove_waker(&self, waker_id: WakerId) {
        self.wakers.remove_waker(waker_id);
    }

    /// Whether anybody watches.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.wakers.len() > 0
    }

    pub(super) fn wake_all(&self) {
        self.wakers.wake_all();
    }
}
