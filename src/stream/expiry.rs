//! The end of the right by which a stream is open.
//!
//! It is told before, so that its page can fetch a new token and come back, and then it is cut. The time is that of a
//! machine's clock, and turns go by the process's own, which stands still while a machine sleeps and knows of no step. So
//! both are compared again and again, at least as often as heartbeats are due, and what is earlier holds.

use crate::metrics::CloseReason;
use crate::sse::Block;
use crate::time::{CoarseInstant, millis};
use std::time::Duration;

/// Before the end the client is told: so long at most, and half of that at least, each stream at a time of its own.
const TOLD_BEFORE: Duration = Duration::from_secs(60);

/// When a stream ends, if it lives by a right that does.
#[derive(Debug)]
pub(super) struct Expiry {
    /// Since the Unix epoch.
    at: Duration,
    /// The same on this process's clock, as of the last look.
    instant: CoarseInstant,
    /// When the client is told; none once it was.
    tell_at: Option<CoarseInstant>,
    /// When the stream is cut anyway.
    aged_at: CoarseInstant,
}

impl Expiry {
    /// At this time since the Unix epoch; `wall` is now by the same clock. `chance`, 0 to 1, says when the client is told.
    pub(super) fn new(
        at: Duration,
        aged_at: CoarseInstant,
        chance: f64,
        (now, wall): (CoarseInstant, Duration),
    ) -> Self {
        let left = at.saturating_sub(wall);
        let before = TOLD_BEFORE.mul_f64(0.5 + chance / 2.0);
        Self {
            at,
            instant: now + left,
            tell_at: Some(now + left.saturating_sub(before)),
            aged_at,
        }
    }

    /// When to look next, `at_most` at the latest.
    pub(super) fn look_at(&self, at_most: CoarseInstant) -> CoarseInstant {
        let next = self.instant.min(self.aged_at).min(at_most);
        self.tell_at.map_or(next, |at| at.min(next))
    }

    /// Why the stream is to be cut, if it is, by this process's clock.
    pub(super) fn cut(&self, now: CoarseInstant) -> Option<CloseReason> {
        if now >= self.instant {
            return Some(CloseReason::Expired);
        }
        (now >= self.aged_at).then_some(CloseReason::Age)
    }

    /// Compares both clocks. What the client is to be told, once.
    pub(super) fn look(&mut self, now: CoarseInstant, wall: Duration) -> Option<String> {
        let left = self.at.saturating_sub(wall);
        let instant = now + left;
        if instant < self.instant {
            // Somebody has put the machine's clock forward, or it has slept.
            self.tell_at = self.tell_at.map(|at| at.min(instant));
            self.instant = instant;
        }
        self.tell_at.take_if(|at| now >= *at)?;
        let data = serde_json::json!({ "seconds": millis(left).div_ceil(1000) });
        Some(Block::default().event("tidegate.expiring").json(&data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1_700_000_000);

    /// So many seconds after the beginning, by the process's clock and by the machine's.
    fn after(begin: CoarseInstant, seconds: u64, wall: u64) -> (CoarseInstant, Duration) {
        let (seconds, wall) = (Duration::from_secs(seconds), Duration::from_secs(wall));
        (begin + seconds, START + wall)
    }

    /// For a right of 100 s, told 30 s before its end.
    fn expiry(begin: CoarseInstant) -> Expiry {
        let aged_at = begin + Duration::from_secs(1000);
        let at = START + Duration::from_secs(100);
        Expiry::new(at, aged_at, 0.0, after(begin, 0, 0))
    }

    const CUT: Option<CloseReason> = Some(CloseReason::Expired);

    #[test]
    fn it_is_told_once_and_then_it_ends() {
        let begin = CoarseInstant::now();
        let mut expiry = expiry(begin);
        let mut look = |seconds| {
            let (now, wall) = after(begin, seconds, seconds);
            (expiry.look(now, wall), expiry.cut(now))
        };
        assert_eq!(look(69), (None, None));
        let (told, cut) = look(71);
        let told = told.unwrap();
        assert!(
            told.contains("event: tidegate.expiring\ndata: {\"seconds\":29}"),
            "{told}"
        );
        assert_eq!(cut, None);
        assert_eq!(look(72), (None, None));
        assert_eq!(look(99), (None, None));
        assert_eq!(look(100), (None, CUT));
    }

    #[test]
    fn who_has_little_left_is_told_at_once() {
        let begin = CoarseInstant::now();
        let (now, wall) = after(begin, 0, 95);
        let (at, aged_at) = (
            START + Duration::from_secs(100),
            begin + Duration::from_secs(1000),
        );
        let mut expiry = Expiry::new(at, aged_at, 1.0, (now, wall));
        assert!(expiry.look(now, wall).is_some());
        let over = after(begin, 0, 200);
        let expiry = Expiry::new(START, aged_at, 1.0, over);
        assert_eq!(expiry.cut(over.0), CUT);
    }

    #[test]
    fn a_clock_that_jumps_ahead_ends_it_and_one_that_goes_back_does_not_prolong_it() {
        let begin = CoarseInstant::now();
        let mut slept = expiry(begin);
        let (now, wall) = after(begin, 10, 150);
        assert_eq!(slept.cut(now), None);
        slept.look(now, wall);
        assert_eq!(slept.cut(now), CUT);
        let mut put_back = expiry(begin);
        let (now, wall) = after(begin, 50, 0);
        put_back.look(now, wall);
        assert_eq!(put_back.cut(after(begin, 100, 50).0), CUT);
    }

    #[test]
    fn it_is_looked_at_in_time_and_age_goes_first() {
        let begin = CoarseInstant::now();
        let mut expiry = expiry(begin);
        let soon = begin + Duration::from_secs(15);
        assert_eq!(expiry.look_at(soon), soon);
        let late = begin + Duration::from_secs(500);
        assert_eq!(expiry.look_at(late), begin + Duration::from_secs(70));
        let (now, wall) = after(begin, 71, 71);
        expiry.look(now, wall);
        assert_eq!(expiry.look_at(late), begin + Duration::from_secs(100));
        let aged_at = begin + Duration::from_secs(40);
        let at = START + Duration::from_secs(100);
        let aged = Expiry::new(at, aged_at, 0.0, after(begin, 0, 0));
        assert_eq!(aged.cut(aged_at), Some(CloseReason::Age));
    }
}
