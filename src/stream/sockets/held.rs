//! Pages of connections whose sockets take no more for now.
//!
//! Let go at once, they would be read again whenever the peer takes a little: a peer that drips would have Redis send all
//! pages of its topics for each drop. Held for ever, they would be a queue for each reader that stops. So:
//!
//! - They are held for [`HOLD`], and let go if the peer has taken nothing by then.
//! - All of them are let go at once while a read waits for room (`limits.page_bytes_max`): nobody waits for what a peer
//!   that takes nothing holds.
//! - What was let go is read again at once, but only once in a [`PAUSE`], however often the peer drips.

use super::table::Key;
use crate::time::CoarseInstant;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// How long pages are held for a peer that takes nothing.
pub(super) const HOLD: Duration = Duration::from_secs(5);
/// Between two times that a connection reads again what it has let go.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// What blocked connections of a thread hold, and which have let go lately.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Since when each was blocked, the oldest first. Some are blocked no more.
    blocked: VecDeque<(CoarseInstant, Key)>,
    /// Those that have let pages go, or have read them again not long ago.
    released: HashMap<Key, Released>,
}

/// A connection that has let pages go.
#[derive(Clone, Copy, Debug)]
struct Released {
    /// Not before this it reads again.
    reads_at: CoarseInstant,
    /// What it reads next it has let go.
    reads_again: bool,
}

impl Held {
    /// A connection is blocked from now on.
    pub(super) fn hold(&mut self, key: Key, now: CoarseInstant) {
        self.blocked.push_back((now, key));
    }

    /// The next that has held for long enough, and since when.
    pub(super) fn next_due(&mut self, now: CoarseInstant) -> Option<(CoarseInstant, Key)> {
        let is_due = self
            .blocked
            .front()
            .is_some_and(|(since, _)| *since + HOLD <= now);
        if is_due {
            self.blocked.pop_front()
        } else {
            None
        }
    }

    /// All that may hold something.
    pub(super) fn take_all(&mut self) -> VecDeque<(CoarseInstant, Key)> {
        std::mem::take(&mut self.blocked)
    }

    /// A connection has let its pages go.
    pub(super) fn released(&mut self, key: Key, now: CoarseInstant) {
        if self.released.len() >= self.released.capacity() {
            self.released.retain(|_, released| released.reads_at > now);
        }
        let released = self.released.entry(key).or_insert(Released {
            reads_at: now,
            reads_again: true,
        });
        released.reads_again = true;
    }

    /// A connection is to read. When it may, if not now.
    pub(super) fn reads_at(&mut self, key: Key, now: CoarseInstant) -> Option<CoarseInstant> {
        if self.released.is_empty() {
            return None;
        }
        let released = self.released.get_mut(&key)?;
        if !released.reads_again {
            return None;
        }
        if released.reads_at > now {
            return Some(released.reads_at);
        }
        released.reads_at = now + PAUSE;
        released.reads_again = false;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Key {
        Key { number, serial: 1 }
    }

    #[test]
    fn each_is_due_once_and_in_the_order_in_which_it_was_blocked() {
        let (mut held, now) = (Held::default(), CoarseInstant::now());
        let later = now + Duration::from_millis(100);
        held.hold(key(2), now);
        held.hold(key(1), later);
        assert_eq!(held.next_due(now), None);
        assert_eq!(held.next_due(now + HOLD), Some((now, key(2))));
        assert_eq!(held.next_due(now + HOLD), None);
        assert_eq!(held.take_all(), [(later, key(1))]);
        assert_eq!(held.next_due(later + HOLD), None);
    }

    #[test]
    fn what_was_let_go_is_read_again_once_in_a_pause() {
        let (mut held, now) = (Held::default(), CoarseInstant::now());
        let soon = now + Duration::from_millis(10);
        held.released(key(1), now);
        assert_eq!(held.reads_at(key(2), now), None);
        assert_eq!(held.reads_at(key(1), now), None, "at once");
        assert_eq!(held.reads_at(key(1), soon), None, "what comes after it");
        held.released(key(1), soon);
        assert_eq!(held.reads_at(key(1), soon), Some(now + PAUSE));
        assert_eq!(held.reads_at(key(1), soon), Some(now + PAUSE));
        assert_eq!(held.reads_at(key(1), now + PAUSE), None);
    }

    #[test]
    fn those_that_went_are_forgotten_before_they_are_many() {
        let (mut held, began) = (Held::default(), CoarseInstant::now());
        for number in 0..10_000 {
            let now = began + PAUSE * number;
            held.released(key(number), now);
            assert_eq!(held.reads_at(key(number), now), None);
        }
        assert!(held.released.capacity() < 100);
    }
}
