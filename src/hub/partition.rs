//! What this replica knows of a partition's clock.
//!
//! | of the clock | what moves it on | what sets it back |
//! |---|---|---|
//! | *heard* | frames and ticks of the live path | nothing |
//! | *known* | the same, and every reading of the log that counts | nothing: streams may stand there |
//! | the horizon | a newer reading of the clock that is followed | a break of the live path: it is unknown then |
//! | *followed* | what is heard once the log was told of all that was heard before, and its clock was named; readings of the same clock | nothing; another clock takes its place once the log was told and is read |
//!
//! ```text
//! broken ──begin_following──► settled ──another clock, or one that has gone back──► estranged
//!    ▲                           │                                                     │
//!    └──────begin_generation─────┴─────────────────────────────────────────────────────┘
//! ```
//!
//! The log is read for streams only while the live path is settled ([`Partition::settled`]). In the
//! other two states the windows may be of a log that is gone, and the log that answers may not have
//! been told of it: a stream that put the two together would pass what was lost without a word.

use super::lock::{Rank, Ranked, RankedGuard};
use crate::id::Id;
use crate::log::{ClockName, Followed, Horizon, Loss, Tick};
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
    /// The same on a connection on which the log has not been told of what was heard before: it
    /// counts from then on, or never.
    unsettled: Id,
    /// The newest tick of such a connection.
    unsettled_tick: Option<Tick>,
    /// The newest id that was heard, or read of the log that is followed. It never goes back: streams
    /// may stand there.
    known: Id,
    horizon: Option<Arc<Horizon>>,
    followed: Following,
    /// When the live path showed another log than the one that it followed, and the first id of it: all of
    /// the one before was heard, of topics that were live.
    changed: Option<(Generation, Id)>,
    /// Those that the clock remembers, as they were read last, and those of clocks before it.
    losses: Vec<Loss>,
    /// When that clock was born.
    losses_of: Id,
    past_losses: Vec<Loss>,
    /// How often the live path has broken or come back. What was asked for before counts for nothing.
    generation: Generation,
    /// By address, so that a stream that looks again is not listed twice.
    holding: BTreeMap<usize, Waker>,
}

/// Wakes who holds an event back until the clock has moved on, once nothing is locked.
fn wake_holding(mut state: RankedGuard<'_, State>) {
    let holding = std::mem::take(&mut state.holding);
    drop(state);
    holding.into_values().for_each(Waker::wake);
}

impl State {
    /// Takes an id that was heard, and says how it compares with what was heard before.
    fn hear(&mut self, id: Id) -> Ordering {
        let order = id.cmp(&self.heard.max(self.unsettled));
        if order != Ordering::Greater {
            return order;
        }
        if self.followed.path != Path::Settled {
            // Raised now and lost with the connection, or with a log that nobody was told of, it would
            // stand above all that comes next: every frame would seem to go back, and no report would
            // mend that.
            self.unsettled = id;
            return order;
        }
        self.heard = id;
        self.known = self.known.max(id);
        self.followed.raise(id);
        order
    }

    /// The log has gone back, as something at `id` shows: what is heard from here on is not of the clock
    /// that is followed.
    fn estrange(&mut self, id: Id) {
        if self.followed.path == Path::Settled {
            self.followed.path = Path::Estranged;
            self.changed = Some((self.generation, id));
        }
    }

    /// Takes a clock before its id is heard. False if it is another one than that which the live path
    /// follows.
    fn take_tick(&mut self, tick: &Tick) -> bool {
        if self.followed.path == Path::Broken {
            // Of the new clock only once the log was told; the last one before that is said after it.
            self.unsettled_tick = Some(*tick)
                .filter(|tick| tick.of.is_some())
                .or(self.unsettled_tick);
            return true;
        }
        if self.followed.path == Path::Estranged {
            // Not even if it may be: what goes back was of the clock before, and is still to be told.
            return true;
        }
        let Some(of) = tick.of else { return true };
        let is_same = |clock: &ClockName| clock.born == of.born;
        if self.followed.clock.as_ref().is_none_or(is_same) {
            self.followed.adopt(tick);
            return true;
        }
        false
    }
}

/// Which clock the live path follows, or followed until it broke, and how far.
///
/// Only what was heard while it followed counts, and what was read of the same clock. Streams and
/// frames may show ids of a new log before that log was told of the old one: to report those as heard
/// of the old one would have it leap over ids that nobody lacks.
#[derive(Debug, Default)]
struct Following {
    /// As it was read or heard last; none until then.
    clock: Option<ClockName>,
    /// The newest id.
    to: Id,
    path: Path,
    /// The clock was heard by its name on this connection. What came before may be of a log that was lost between
    /// its publish and the report.
    is_named: bool,
}

impl Following {
    /// What was heard counts once the path is settled and the clock was named.
    fn raise(&mut self, heard: Id) {
        if self.path == Path::Settled && self.is_named {
            self.to = self.to.max(heard);
        }
    }

    fn adopt(&mut self, tick: &Tick) {
        let Some(of) = tick.of else { return };
        self.clock = Some(of);
        self.to = self.to.max(tick.id);
        self.is_named = true;
    }
}

/// What the live path is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Path {
    /// It is down, or the log has not been told yet of what was heard before.
    #[default]
    Broken,
    /// It is whole, and the log has been told of all that was heard before.
    Settled,
    /// It is whole, but another clock was read or heard than the one that is followed, or the same one
    /// has gone back. What is heard meanwhile is of a log that was not told of the one before.
    Estranged,
}

/// What a reading of the log was worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// It is of the log that the live path follows.
    Counts,
    /// It was asked for before the live path broke, or while it was broken.
    Outdated,
    /// It is of another log: the same process has lost everything, as by FLUSHALL, or another
    /// process answers. The live path must begin anew.
    Foreign,
}

/// Losses of earlier clocks that are remembered.
const LOSSES_MAX: usize = 64;

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

    /// Raises [`Partition::heard`] to the id of a frame. False if the log has gone back: its topic's log was
    /// lost (`log_lost`), or the id is not above what was heard before. An ordered live path never shows a
    /// lesser id, nor the same frame twice.
    ///
    /// Called only after the frame stands in its window, so that "complete" is never said early.
    pub(super) fn hear(&self, id: Id, log_lost: bool) -> bool {
        let mut state = self.state();
        if log_lost {
            state.estrange(id);
        }
        let order = state.hear(id);
        if order != Ordering::Greater {
            state.estrange(id);
        }
        wake_holding(state);
        order == Ordering::Greater && !log_lost
    }

    /// Takes the clock as it is said aloud. False if the log has gone back: it is another clock than that
    /// which the live path follows, or the same one with a lesser id.
    pub(super) fn tick(&self, tick: &Tick) -> bool {
        let mut state = self.state();
        let is_same = state.take_tick(tick);
        if !is_same {
            state.estrange(tick.id);
        }
        let order = state.hear(tick.id);
        if order == Ordering::Less {
            state.estrange(tick.id);
        }
        wake_holding(state);
        is_same && order != Ordering::Less
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

    /// From here on what is heard is followed: of the clock that was `told` what was heard before, or, if none was,
    /// of the one that was followed.
    pub(super) fn begin_following(&self, told: Option<ClockName>) {
        let mut state = self.state();
        state.followed.path = Path::Settled;
        state.followed.clock = told.or(state.followed.clock);
        let heard = std::mem::take(&mut state.unsettled);
        if let Some(tick) = state.unsettled_tick.take() {
            let clock = state.followed.clock.zip(tick.of);
            if clock.is_some_and(|(own, of)| !own.is_of_process_of(&of)) {
                // The log that was told is gone already: the one that is heard must be told first.
                state.estrange(tick.id);
                return;
            }
            state.followed.adopt(&tick);
        }
        // What was heard on this connection before the log was told counts from here on.
        state.heard = state.heard.max(heard);
        state.known = state.known.max(heard);
        state.followed.raise(heard);
        wake_holding(state);
    }

    /// The log has gone back, as a page at `id` shows.
    pub(super) fn estrange(&self, id: Id) {
        self.state().estrange(id);
    }

    /// When the live path itself has shown that another log took the place of the one that it followed: on
    /// the connection that stands, or on the last one that was settled.
    pub(super) fn changed(&self) -> Option<Generation> {
        self.state().changed.map(|(generation, _)| generation)
    }

    /// Up to where a topic is complete in the log that was read, if it was live when the log `changed`, and
    /// complete up to `at`: if nothing has come in between since, and it is the log that the live path
    /// showed then, nothing was missed before it was born.
    pub(super) fn complete_in(&self, at: Id, changed: Generation, horizon: &Horizon) -> Id {
        let state = self.state();
        let is_this = |(generation, first): &(Generation, Id)| {
            *generation == changed && horizon.born < *first && *first <= horizon.last
        };
        state
            .changed
            .filter(is_this)
            .map_or(at, |_| at.max(horizon.born))
    }

    /// Whether another clock was read or heard than the one that the live path follows.
    #[must_use]
    pub fn is_estranged(&self) -> bool {
        self.state().followed.path == Path::Estranged
    }

    /// Which clock this replica has followed, and how far: what a log that may have gone back is
    /// told.
    #[must_use]
    pub fn followed(&self) -> Followed {
        let state = self.state();
        let followed = &state.followed;
        let of = followed.clock.map_or(Followed::from(followed.to), |clock| {
            Followed::by(clock, followed.to)
        });
        Followed {
            known: state.known.max(followed.to),
            ..of
        }
    }

    /// The present stretch between two breaks of the live path, if the log may be read in it.
    #[must_use]
    pub fn settled(&self) -> Option<Generation> {
        let state = self.state();
        (state.followed.path == Path::Settled).then_some(state.generation)
    }

    /// Takes a reading of the clock that was asked for in `generation`, when the path was settled.
    ///
    /// The losses of earlier clocks are added to it: a log that is emptied forgets what it had written
    /// down, and a stream may stand between a loss and the place where it was to be told.
    pub(super) fn learn(&self, horizon: &mut Horizon, generation: Generation) -> Learned {
        let mut state = self.state();
        let State {
            generation: present,
            followed,
            known,
            horizon: newest,
            losses,
            losses_of,
            past_losses,
            changed,
            ..
        } = &mut *state;
        if *present != generation || followed.path == Path::Broken {
            return Learned::Outdated;
        }
        let read = ClockName::of(horizon);
        let is_other = |clock: ClockName| !clock.is_of_process_of(&read);
        if followed.path == Path::Estranged || followed.clock.is_some_and(is_other) {
            if followed.path == Path::Settled {
                // Read, not heard: what the log before gave out last may be on its way, or lost.
                *changed = None;
            }
            followed.path = Path::Estranged;
            return Learned::Foreign;
        }
        if *losses_of != horizon.born {
            past_losses.append(losses);
            let many = past_losses.len().saturating_sub(LOSSES_MAX);
            past_losses.drain(..many);
            *losses_of = horizon.born;
        }
        losses.clone_from(&horizon.losses);
        horizon.losses.extend(past_losses.iter().copied());
        followed.clock = Some(read);
        // A stream may stand there, although the live path has not come as far.
        followed.to = followed.to.max(horizon.last);
        *known = horizon.last.max(*known);
        // Replies overtake one another.
        if newest
            .as_ref()
            .is_none_or(|newest| newest.last <= horizon.last)
        {
            *newest = Some(Arc::new(horizon.clone()));
        }
        Learned::Counts
    }

    /// The live path broke: readings that are under way are of another time.
    pub(super) fn begin_generation(&self) {
        let mut state = self.state();
        if state.followed.path == Path::Settled {
            // Whatever comes now, the live path does not show how.
            state.changed = None;
        }
        state.horizon = None;
        state.unsettled = Id::ZERO;
        state.unsettled_tick = None;
        state.followed.path = Path::Broken;
        state.followed.is_named = false;
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

#[cfg(test)]
mod tests;
