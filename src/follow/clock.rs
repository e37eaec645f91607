//! What the follower knows of the ticks of one partition: when the next is due, whether one has not come back, and
//! which ids are too far ahead to be believed.

use crate::id::Id;
use std::time::Duration;
use tokio::time::Instant;

/// How far an id on the live path may be ahead of what the log's server has answered. Whoever may publish to
/// live channels can write any id there, and nothing at or below an id that was heard is shown any more:
/// beyond this, the log is asked.
const AHEAD_MAX: Duration = Duration::from_secs(60);

/// Ticks of one partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) asked: Option<Instant>,
    pub(super) asking: bool,
    pub(super) heard: Instant,
    /// An id above all that was heard before has come on the present connection.
    pub(super) moved_on: bool,
    /// A tick that was said and has not come back.
    pub(super) awaited: Option<(Id, Instant)>,
    /// What the log's server answered last: its time or its clock, which is never behind that, in
    /// milliseconds since the Unix epoch.
    answered: Option<(u64, Instant)>,
    /// An id was too far ahead to be believed, and no tick has come since that was.
    pub(super) doubted: bool,
}

impl Clock {
    /// Nothing was heard of it before `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            asked: None,
            asking: false,
            heard: now,
            moved_on: false,
            awaited: None,
            answered: None,
            doubted: false,
        }
    }

    /// Whether a tick is due: in silence, and now and then although events flow, since only a tick says
    /// which clock it is.
    pub(super) fn is_due(&self, now: Instant, after: Duration) -> bool {
        let is_long_ago = |at: Instant| now.duration_since(at) > after;
        self.doubted || is_long_ago(self.heard) || self.asked.is_none_or(is_long_ago)
    }

    /// The log's server has told its time, or its clock.
    pub(super) fn answer(&mut self, ms: u64, now: Instant) {
        let ms = self.answered.map_or(ms, |(before, _)| before.max(ms));
        self.answered = Some((ms, now));
    }

    /// Whether an id that came over the live path is further ahead than the log's clock can be.
    pub(super) fn is_ahead(&self, id: Id, now: Instant) -> bool {
        self.answered.is_some_and(|(ms, at)| {
            let passed = now.duration_since(at) + AHEAD_MAX;
            id.ms > ms.saturating_add(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
        })
    }
}
