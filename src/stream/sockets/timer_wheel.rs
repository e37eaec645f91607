//! Times at which connections want their turn, in slots: cheap to add, nothing to remove.

use crate::time::CoarseInstant;
use crate::time::millis;
use std::time::Duration;

/// The time of one slot: so much later than it is due a connection may be found.
const SLOT: Duration = Duration::from_millis(20);
/// Slots; what is further away is found when the wheel has gone round.
const SLOTS: usize = 1024;

/// A wheel of numbers of connections. One that is found before its time is simply put in again.
#[derive(Debug)]
pub(super) struct TimerWheel {
    slots: Vec<Vec<u32>>,
    /// The slot that comes next, and when.
    next: usize,
    next_at: CoarseInstant,
    /// How many numbers stand in all slots together.
    len: usize,
}

impl TimerWheel {
    pub(super) fn new(now: CoarseInstant) -> Self {
        Self {
            slots: vec![Vec::new(); SLOTS],
            next: 0,
            next_at: now + SLOT,
            len: 0,
        }
    }

    /// Sees to it that a connection is found at a time, or with the next slot; returns when it will
    /// be. `found_at` is when it will be as things stand: one that moves its time away with each
    /// event is not put in with each event.
    pub(super) fn put(
        &mut self,
        number: u32,
        at: CoarseInstant,
        found_at: Option<CoarseInstant>,
    ) -> CoarseInstant {
        let wait = at.since(self.next_at);
        // Rounded up: found a little late rather than twice.
        let slots = millis(wait).div_ceil(millis(SLOT));
        let ahead = usize::try_from(slots).unwrap_or(SLOTS).min(SLOTS - 1);
        let steps = u32::try_from(ahead).unwrap_or(u32::MAX);
        let next_at = self.next_at + SLOT * steps;
        if let Some(early) = found_at.filter(|found_at| *found_at <= next_at) {
            return early;
        }
        if let Some(slot) = self.slots.get_mut((self.next + ahead) % SLOTS) {
            slot.push(number);
            self.len += 1;
        }
        next_at
    }

    /// How many numbers it holds. One more means that something is to be found that was not before.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Moves those whose time has come to `due`.
    pub(super) fn turn(&mut self, now: CoarseInstant, due: &mut Vec<u32>) {
        while self.next_at <= now {
            if let Some(slot) = self.slots.get_mut(self.next) {
                self.len -= slot.len();
                due.append(slot);
                // A burst of connections leaves no memory behind.
                slot.shrink_to(64);
            }
            self.next = (self.next + 1) % SLOTS;
            self.next_at = self.next_at + SLOT;
        }
    }

    /// How long until there may be something to do; none if the wheel is empty.
    pub(super) fn wait(&self, now: CoarseInstant) -> Option<Duration> {
        if self.len == 0 {
            return None;
        }
        let empty = (0..SLOTS)
            .take_while(|step| {
                self.slots
                    .get((self.next + step) % SLOTS)
                    .is_none_or(Vec::is_empty)
            })
            .count();
        let steps = u32::try_from(empty).unwrap_or(u32::MAX);
        Some((self.next_at + SLOT * steps).since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_found_at_their_time_or_when_the_wheel_has_gone_round() {
        let start = CoarseInstant::now() + Duration::from_secs(1);
        let mut wheel = TimerWheel::new(start);
        assert_eq!(wheel.wait(start), None);
        let soon = wheel.put(1, start + Duration::from_millis(110), None);
        let later = wheel.put(2, start + Duration::from_secs(3600), None);
        assert!(soon >= start + Duration::from_millis(110));
        let mut due = Vec::new();
        wheel.turn(start + Duration::from_millis(109), &mut due);
        assert!(due.is_empty());
        assert_eq!(wheel.wait(soon), Some(Duration::ZERO));
        wheel.turn(soon, &mut due);
        assert_eq!(due, [1]);
        wheel.turn(later, &mut due);
        assert_eq!(due, [1, 2], "to be put in again");
        assert_eq!(wheel.wait(later), None);
    }

    /// Each event moves the next heartbeat; the wheel must not hold one number for each event.
    #[test]
    fn one_that_is_found_in_time_is_not_put_in_again() {
        let start = CoarseInstant::now();
        let mut wheel = TimerWheel::new(start);
        let mut found_at = None;
        for ms in [701, 701, 715, 990, 40_000] {
            let at = start + Duration::from_millis(ms);
            found_at = Some(wheel.put(1, at, found_at));
            assert_eq!(wheel.len, 1);
        }
        let sooner = wheel.put(1, start + Duration::from_millis(50), found_at);
        assert!(found_at.is_some_and(|found_at| found_at > sooner));
        assert_eq!(wheel.len, 2);
    }
}
