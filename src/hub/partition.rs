//! What this replica knows of a partition's clock.

use crate::id::Id;
use crate::log::Horizon;
use crate::topic::PartitionNo;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// One ordering domain as seen from here.
#[derive(Debug)]
pub struct Partition {
    number: PartitionNo,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    heard: Id,
    horizon: Option<Arc<Horizon>>,
    /// By address, so that a stream that looks again is not listed twice.
    holding: BTreeMap<usize, Waker>,
}

impl Partition {
    pub(super) fn new(number: PartitionNo) -> Self {
        Self {
            number,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> PartitionNo {
        self.number
    }

    /// The newest frame or tick heard: every healthy topic is complete up to here.
    #[must_use]
    pub fn heard(&self) -> Id {
        self.state().heard
    }

    /// Raises [`Partition::heard`]; false if the id is not above it, which an ordered live path
    /// never shows unless the clock was put back.
    ///
    /// Called only after the frame stands in its window, so that "complete" is never said early.
    pub(super) fn hear(&self, id: Id) -> bool {
        let mut state = self.state();
        if id <= state.heard {
            return false;
        }
        state.heard = id;
        let holding = std::mem::take(&mut state.holding);
        drop(state);
        holding.into_values().for_each(Waker::wake);
        true
    }

    /// The clock as read on the present connection; none until that has happened.
    #[must_use]
    pub fn horizon(&self) -> Option<Arc<Horizon>> {
        self.state().horizon.clone()
    }

    /// The newest id known to have been given out.
    #[must_use]
    pub fn last_known(&self) -> Id {
        let state = self.state();
        let read = state
            .horizon
            .as_ref()
            .map_or(Id::ZERO, |horizon| horizon.last);
        state.heard.max(read)
    }

    pub(super) fn learn(&self, horizon: &Horizon) {
        let mut state = self.state();
        let older = |known: &Arc<Horizon>| known.run == horizon.run && known.last > horizon.last;
        if !state.horizon.as_ref().is_some_and(older) {
            state.horizon = Some(Arc::new(horizon.clone()));
        }
    }

    pub(super) fn forget_horizon(&self) {
        self.state().horizon = None;
    }

    /// Wakes `waker` when the clock has moved on.
    pub(super) fn wait_for_clock(&self, waker: Waker) {
        self.state().holding.insert(waker.data().addr(), waker);
    }

    /// Whether a stream holds an event back until the clock has moved on: a tick is wanted.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        !self.state().holding.is_empty()
    }
}
