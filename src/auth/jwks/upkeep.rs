//! When a key set is fetched from its address, how long the last good one serves, and what is said of a token whose key it
//! does not have. Plain data: whoever has the clock and the network brings the times and the outcomes along.
//!
//! ```text
//!            fetched                 failed                 stale_max is over
//!   Away ──────────────► Fresh ──────────────► Stale ────────────────────────► Away
//!                          ▲      fetched        │
//!                          └─────────────────────┘
//! ```
//!
//! A token of a key that is not in the set may be of a key that is newer than the set. So it is refused for good only once a
//! set does not have its key that was asked for *after this token was first shown*. What is remembered is the token and not
//! its `kid`: a stranger may guess the next `kid`, and would have it refused before there is such a key; nobody can guess the
//! next token.
//!
//! What strangers can cause is bounded: one fetch in `floor`, whatever they show, and `unknown_max` tokens that are
//! remembered. Tokens beyond are not remembered; they are told to come back, too.

use std::collections::HashSet;
use std::time::Duration;

/// A time, since any start, by a clock that does not jump.
pub type Moment = Duration;

/// How far a fetch by itself may come earlier than `refresh`, so that replicas do not come together.
const SPREAD: f64 = 0.2;

/// How a set is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// After a good fetch, the next one by itself.
    pub refresh: Duration,
    /// Between the beginnings of two fetches, at least.
    pub floor: Duration,
    /// How long a set serves that cannot be fetched anew.
    pub stale_max: Duration,
    /// Tokens of unknown keys that are remembered, of each kind, at most.
    pub unknown_max: usize,
}

/// How a set stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The last fetch was good.
    Fresh,
    /// The last fetch failed. The last good set serves.
    Stale,
    /// There is no set: none was ever good, or it is older than `stale_max`.
    Away,
}

/// Names a fetch: what comes of one that nobody waits for any more is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch(u64);

/// Who keeps a set: fetches it when it is due. Whoever has kept it before is told of nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeper(u64);

impl Keeper {
    /// Of a set that was never settled.
    pub const FIRST: Self = Self(0);
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Fetch now, and tell what came of it.
    Fetch(Fetch),
    /// Nothing before this, unless a token of an unknown key is shown; none: until then.
    Wait(Option<Moment>),
}

/// What is said of a token whose key is in no set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutKey {
    /// Its key is not in a set that was asked for after the token was first shown.
    Sure,
    /// That is not sure yet, and a fetch is due or under way.
    Open,
    /// The same, and nobody has asked for that fetch before.
    AskedFor,
}

/// What a token is known by: its hash, with a key of this process.
type TokenHash = u64;

/// The upkeep of one set.
#[derive(Debug)]
pub struct Upkeep {
    timing: Timing,
    keeper: Keeper,
    /// When the newest fetch began.
    begun_at: Option<Moment>,
    /// When the fetch began whose set serves.
    good_at: Option<Moment>,
    /// When a fetch is due by itself.
    due_at: Moment,
    /// Fetches that failed since the last good one.
    failures: u32,
    serial: u64,
    is_fetching: bool,
    /// A fetch was asked for since the newest one began.
    is_asked_for: bool,
    /// Tokens of unknown keys that were shown since the newest fetch began.
    shown: HashSet<TokenHash>,
    /// The same before it began: it decides of them.
    in_question: HashSet<TokenHash>,
    /// Whose key a set did not have that was asked for after they were shown.
    without_key: HashSet<TokenHash>,
}

impl Upkeep {
    /// Of a set that was never fetched.
    #[must_use]
    pub fn new(timing: Timing) -> Self {
        Self {
            timing,
            keeper: Keeper::FIRST,
            begun_at: None,
            good_at: None,
            due_at: Moment::ZERO,
            failures: 0,
            serial: 0,
            is_fetching: false,
            is_asked_for: false,
            shown: HashSet::new(),
            in_question: HashSet::new(),
            without_key: HashSet::new(),
        }
    }

    /// Goes on by another timing and with another keeper, and with a fetch as soon as the floor lets it: somebody has changed
    /// something. A fetch under way is given up.
    pub fn settle(&mut self, timing: Timing, now: Moment) -> Keeper {
        self.timing = timing;
        self.keeper = Keeper(self.keeper.0.saturating_add(1));
        self.give_up();
        self.due_at = now;
        self.keeper
    }

    /// How it stands.
    #[must_use]
    pub fn state(&self) -> State {
        match (self.good_at, self.failures) {
            (None, _) => State::Away,
            (Some(_), 0) => State::Fresh,
            (Some(_), _) => State::Stale,
        }
    }

    /// How old the set is that serves; none if there is none.
    #[must_use]
    pub fn age(&self, now: Moment) -> Option<Duration> {
        Some(now.saturating_sub(self.good_at?))
    }

    /// Tokens that wait for a fetch.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shown.len() + self.in_question.len()
    }

    /// A token was shown whose key is in no set.
    pub fn without_key(&mut self, token: TokenHash) -> WithoutKey {
        if self.good_at.is_some() && self.without_key.contains(&token) {
            return WithoutKey::Sure;
        }
        // The fetch under way decides of a token that was shown before it began.
        if self.in_question.contains(&token) {
            return WithoutKey::Open;
        }
        if self.shown.len() < self.timing.unknown_max {
            self.shown.insert(token);
        }
        if std::mem::replace(&mut self.is_asked_for, true) {
            WithoutKey::Open
        } else {
            WithoutKey::AskedFor
        }
    }

    /// What is due. Whoever gets [`Next::Fetch`] tells [`Upkeep::fetched`] or [`Upkeep::failed`].
    ///
    /// A set that is older than `stale_max` serves no more from here on: see [`Upkeep::state`].
    pub fn next(&mut self, keeper: Keeper, now: Moment) -> Next {
        if keeper != self.keeper {
            // It would begin a fetch and go away with it.
            return Next::Wait(None);
        }
        let over_at = self.over_at();
        if over_at.is_some_and(|at| now >= at) {
            self.good_at = None;
            self.without_key.clear();
        }
        let over_at = self.over_at();
        if self.is_fetching {
            return Next::Wait(over_at);
        }
        let allowed_at = self
            .begun_at
            .map_or(Moment::ZERO, |at| at.saturating_add(self.timing.floor));
        let due_at = if self.is_asked_for {
            allowed_at
        } else {
            self.due_at.max(allowed_at)
        };
        if now < due_at {
            let first = over_at.map_or(due_at, |over_at| over_at.min(due_at));
            return Next::Wait(Some(first));
        }
        self.serial += 1;
        self.is_fetching = true;
        self.is_asked_for = false;
        self.begun_at = Some(now);
        self.in_question = std::mem::take(&mut self.shown);
        Next::Fetch(Fetch(self.serial))
    }

    /// The fetch brought a good set, which is to serve from now on. Returns whether it counts; if not, it is to be thrown
    /// away. `spread` is anything from 0 to 1.
    pub fn fetched(&mut self, fetch: Fetch, now: Moment, spread: f64) -> bool {
        if !self.is_awaited(fetch) {
            return false;
        }
        self.is_fetching = false;
        self.failures = 0;
        self.good_at = self.begun_at;
        let refresh = self.timing.refresh;
        self.due_at = now.saturating_add(refresh.mul_f64(1.0 - SPREAD * spread.clamp(0.0, 1.0)));
        let decided = std::mem::take(&mut self.in_question);
        if self.without_key.len() + decided.len() > self.timing.unknown_max {
            // They are asked about again if they come again.
            self.without_key.clear();
        }
        self.without_key.extend(decided);
        true
    }

    /// The fetch failed. Returns whether it counts. `spread` is anything from 0 to 1.
    pub fn failed(&mut self, fetch: Fetch, now: Moment, spread: f64) -> bool {
        if !self.is_awaited(fetch) {
            return false;
        }
        self.give_up();
        self.failures = self.failures.saturating_add(1);
        let doubled = self
            .timing
            .floor
            .saturating_mul(1 << (self.failures - 1).min(16));
        let pause = doubled.min(self.timing.refresh);
        self.due_at = now.saturating_add(pause.mul_f64(1.0 - SPREAD * spread.clamp(0.0, 1.0)));
        true
    }

    /// What was to be decided is still to be decided.
    fn give_up(&mut self) {
        self.is_fetching = false;
        let open = std::mem::take(&mut self.in_question);
        self.is_asked_for |= !open.is_empty();
        for token in open {
            if self.shown.len() < self.timing.unknown_max {
                self.shown.insert(token);
            }
        }
    }

    fn is_awaited(&self, fetch: Fetch) -> bool {
        self.is_fetching && fetch.0 == self.serial
    }

    /// When the set that serves is too old.
    fn over_at(&self) -> Option<Moment> {
        Some(self.good_at?.saturating_add(self.timing.stale_max))
    }
}
