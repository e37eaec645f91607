//! `tidegate.connections`: the number of open streams, as a topic that nobody publishes.

use super::bell::{Bells, Hook};
use crate::sse::Block;
use crate::topic::Topic;
use bytes::Bytes;
use serde::Serialize;
use std::sync::{Mutex, MutexGuard, PoisonError};
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
    bells: Bells,
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
            self.bells.ring();
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
    pub fn hang(&self, waker: Waker) -> Hook {
        self.bells.hang(waker)
    }

    /// Stops waking.
    pub fn take_down(&self, hook: Hook) {
        self.bells.take_down(hook);
    }

    /// Whether anybody watches.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.bells.len() > 0
    }

    pub(super) fn ring(&self) {
        self.bells.ring();
    }
}
