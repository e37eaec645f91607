//! What this replica knows of a partition's clock.

use super::lock::{Rank, Ranked, RankedGuard};
use crate::id::Id;
use crate::log::{Followed, Horizon};
use crate::topic::PartitionNo;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;

/// One ordering domain as seen from here.
#[derive(Debug)]
pub struct Partition {
    number: PartitionNo,
    state: Ranked<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The newest frame or tick of the live path.
    heard: Id,
    /// The newest id that this replica has seen anywhere. It never goes back: streams may stand
    /// there.
    known: Id,
    horizon: Option<Arc<Horizon>>,
    /// The clock that the live path followed, as it was read last. A stream may read the clock of a
    /// new log before the log has heard of the old one; that does not count here.
    followed: Option<Arc<Horizon>>,
    /// How often the live path has broken. What was read before it broke counts for nothing.
    generation: Generation,
    /// By address, so that a stream that looks again is not listed twice.
    holding: BTreeMap<usize, Waker>,
}

/// Names a stretch of time between two breaks of the live path.
///
/// A reading of the log is taken only in the generation in which it was asked for: the log that it
/// is of may be gone since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Generation(u64);

impl Partition {
    pub(super) fn new(number: PartitionNo) -> Self {
        Self {
            number,
            state: Ranked::new(Rank::Partition, State::default()),
        }
    }

    fn state(&self) -> RankedGuard<'_, State> {
        self.state.lock()
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

    /// Raises [`Partition::heard`] to `id`, and says how that compares with what was heard before.
    /// An ordered live path never shows a lesser id, nor the same frame twice, unless the log has
    /// gone back.
    ///
    /// Called only after the frame stands in its window, so that "complete" is never said early.
    pub(super) fn hear(&self, id: Id) -> Ordering {
        let mut state = self.state();
        let order = id.cmp(&state.heard);
        if order != Ordering::Greater {
            return order;
        }
        state.heard = id;
        state.known = state.known.max(id);
        let holding = std::mem::take(&mut state.holding);
        drop(state);
        holding.into_values().for_each(Waker::wake);
        order
    }

    /// The clock as read in the present generation; none until that has happened.
    #[must_use]
    pub fn horizon(&self) -> Option<Arc<Horizon>> {
        self.state().horizon.clone()
    }

    /// The newest id known to have been given out, by this log or by one that is gone.
    #[must_use]
    pub fn last_known(&self) -> Id {
        self.state().known
    }

    /// The live path follows this clock: the log has been told of all that was heard before.
    pub(super) fn follow(&self, horizon: &Horizon) {
        self.state().followed = Some(Arc::new(horizon.clone()));
    }

    /// Which clock this replica has followed, and how far: what a log that may have gone back is
    /// told. Nothing at or below [`Partition::last_known`] is shown here any more.
    #[must_use]
    pub fn followed(&self) -> Followed {
        let state = self.state();
        match &state.followed {
            Some(horizon) => Followed::by(horizon, state.known),
            None => Followed::from(state.known),
        }
    }

    /// Which stretch between two breaks of the live path this is.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.state().generation
    }

    /// Takes a reading of the clock that was asked for in `generation`. False if the live path has
    /// broken since: then the reading counts for nothing.
    pub(super) fn learn(&self, horizon: &Horizon, generation: Generation) -> bool {
        let mut state = self.state();
        if state.generation != generation {
            return false;
        }
        state.known = state.known.max(horizon.last);
        // Replies overtake one another. A log that was begun anew is newer whatever its ids are.
        let newer = |known: &Arc<Horizon>| {
            known.run != horizon.run || (known.born, known.last) <= (horizon.born, horizon.last)
        };
        if state.horizon.as_ref().is_none_or(newer) {
            state.horizon = Some(Arc::new(horizon.clone()));
        }
        true
    }

    /// The live path broke: readings that are under way are of another time.
    pub(super) fn begin_generation(&self) {
        let mut state = self.state();
        state.horizon = None;
        state.generation.0 += 1;
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
