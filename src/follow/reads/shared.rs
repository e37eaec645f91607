//! Which reads of the log are under way, and who waits for them: the rules of sharing, without I/O.
//!
//! | a read of | is shared by |
//! |---|---|
//! | pages | all who want the same pages while it is under way: what it lacks is read next |
//! | the clock, the state of topics | all who asked before it was asked of the log; who comes later waits for the next |
//!
//! The log is asked only while the live path is settled. A reading that was asked for before the path
//! broke, or that is of another log than the path follows, counts for nothing and is made again
//! ([`crate::hub::partition`]).

use crate::hub::Hub;
use crate::hub::partition::{Generation, Learned};
use crate::log::{LogRead, Reading};
use std::collections::HashMap;

/// Reads under way, each with those who wait for it.
#[derive(Debug)]
pub struct SharedReads<W> {
    under_way: HashMap<LogRead, UnderWay<W>>,
}

#[derive(Debug)]
struct UnderWay<W> {
    waiting: Vec<W>,
    /// Those for whom the present reading is too old, because they came after it was asked for.
    next: Vec<W>,
    /// When it was asked of the log.
    begun: Option<Generation>,
}

/// What is to be done with a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Ask the log, and bring the answer to [`SharedReads::finish`].
    Ask,
    /// Begin again once the live path is settled ([`Hub::settled`]).
    Wait,
    /// Nobody waits for it any more.
    Off,
}

/// What a reading led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Finished<W> {
    /// These get it, and that was all.
    Done(Vec<W>),
    /// These get it; for others it must be read again, from [`SharedReads::begin`] on.
    Again(Vec<W>),
}

impl<W> Default for SharedReads<W> {
    fn default() -> Self {
        Self {
            under_way: HashMap::new(),
        }
    }
}

impl<W> SharedReads<W> {
    /// Has `waiter` wait for a read. True if somebody must carry it out now: nobody does yet.
    pub fn join(&mut self, read: LogRead, waiter: W) -> bool {
        let shares = read.may_be_shared();
        if let Some(read) = self.under_way.get_mut(&read) {
            if shares || read.begun.is_none() {
                read.waiting.push(waiter);
            } else {
                read.next.push(waiter);
            }
            return false;
        }
        let under_way = UnderWay {
            waiting: vec![waiter],
            next: Vec::new(),
            begun: None,
        };
        self.under_way.insert(read, under_way);
        true
    }

    /// Who waits for a read.
    pub fn waiting(&self, read: &LogRead) -> impl Iterator<Item = &W> {
        let under_way = self.under_way.get(read).into_iter();
        under_way.flat_map(|under_way| under_way.waiting.iter().chain(&under_way.next))
    }

    /// The log is about to be asked. `waits` says of each whether it still waits.
    pub fn begin(&mut self, read: &LogRead, hub: &Hub, waits: impl Fn(&W) -> bool) -> Begun {
        let Some(under_way) = self.under_way.get_mut(read) else {
            return Begun::Off;
        };
        // Asked again after a failure, it is new enough for all.
        let next = std::mem::take(&mut under_way.next);
        under_way.waiting.extend(next);
        under_way.waiting.retain(|waiter| waits(waiter));
        if under_way.waiting.is_empty() {
            self.under_way.remove(read);
            return Begun::Off;
        }
        under_way.begun = hub.partition(read.partition()).settled();
        if under_way.begun.is_some() {
            Begun::Ask
        } else {
            Begun::Wait
        }
    }

    /// The log has answered. The hub learns of the reading, unless it counts for nothing.
    pub fn finish(&mut self, read: &LogRead, reading: &mut Reading, hub: &Hub) -> Finished<W> {
        let Some(under_way) = self.under_way.get_mut(read) else {
            return Finished::Done(Vec::new());
        };
        let begun = under_way.begun.take();
        let learned =
            begun.map(|generation| hub.learn(read.partition(), generation, &mut reading.horizon));
        if learned != Some(Learned::Counts) {
            return Finished::Again(Vec::new());
        }
        hub.offer(reading);
        let served = std::mem::take(&mut under_way.waiting);
        if under_way.next.is_empty() {
            self.under_way.remove(read);
            return Finished::Done(served);
        }
        under_way.waiting = std::mem::take(&mut under_way.next);
        Finished::Again(served)
    }

    /// Nobody carries it out any more. Who waits for it learns that by the loss of its waiter.
    pub fn abandon(&mut self, read: &LogRead) {
        self.under_way.remove(read);
    }

    /// How many reads are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.under_way.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::window::WindowBounds;
    use crate::id::Id;
    use crate::log::{ClockName, Horizon, ReadRequest, RunId};
    use crate::topic::Topic;
    use std::sync::Arc;

    fn hub() -> Arc<Hub> {
        let bounds = WindowBounds {
            events_max: 1,
            bytes_max: 1,
        };
        let hub = Hub::new(1, bounds);
        hub.begin_following(&[]);
        hub
    }

    fn reading(ms: u64) -> Reading {
        let horizon = Horizon {
            last: Id::new(ms, 0),
            born: Id::ZERO,
            seams: Vec::new(),
            losses: Vec::new(),
            now_ms: ms,
            run: RunId(1),
        };
        Reading {
            horizon,
            pages: Vec::new(),
            held: None,
        }
    }

    fn pages() -> LogRead {
        let topic = Topic::parse("news").unwrap();
        let (after, limit) = (Id::ZERO, 1);
        let request = ReadRequest {
            topic,
            after,
            limit,
        };
        LogRead::Pages(0, vec![request])
    }

    #[test]
    fn pages_are_shared_while_they_are_under_way() {
        let (mut reads, hub) = (SharedReads::default(), hub());
        assert!(reads.join(pages(), 1));
        assert!(!reads.join(pages(), 2));
        assert_eq!(reads.begin(&pages(), &hub, |_| true), Begun::Ask);
        assert!(!reads.join(pages(), 3));
        let done = reads.finish(&pages(), &mut reading(5), &hub);
        assert_eq!(done, Finished::Done(vec![1, 2, 3]));
        assert!(reads.is_empty() && reads.join(pages(), 4));
    }

    #[test]
    fn who_asks_for_the_clock_gets_one_that_was_read_afterwards() {
        let (mut reads, hub) = (SharedReads::default(), hub());
        let clock = LogRead::Clock(0);
        assert!(reads.join(clock.clone(), 1));
        assert_eq!(reads.begin(&clock, &hub, |_| true), Begun::Ask);
        assert!(!reads.join(clock.clone(), 2));
        let first = reads.finish(&clock, &mut reading(5), &hub);
        assert_eq!(first, Finished::Again(vec![1]));
        assert_eq!(reads.begin(&clock, &hub, |_| true), Begun::Ask);
        let second = reads.finish(&clock, &mut reading(6), &hub);
        assert_eq!(second, Finished::Done(vec![2]));
    }

    #[test]
    fn a_reading_from_before_the_live_path_broke_counts_for_nothing() {
        let (mut reads, hub) = (SharedReads::default(), hub());
        assert!(reads.join(pages(), 1));
        assert_eq!(reads.begin(&pages(), &hub, |_| true), Begun::Ask);
        hub.break_off();
        let old = reads.finish(&pages(), &mut reading(5), &hub);
        assert_eq!(old, Finished::Again(Vec::new()));
        assert!(hub.partition(0).horizon().is_none());
        assert_eq!(reads.begin(&pages(), &hub, |_| true), Begun::Wait);
        hub.begin_following(&[]);
        assert_eq!(reads.begin(&pages(), &hub, |_| true), Begun::Ask);
        let new = reads.finish(&pages(), &mut reading(6), &hub);
        assert_eq!(new, Finished::Done(vec![1]));
    }

    #[test]
    fn a_reading_of_another_log_than_the_live_path_follows_counts_for_nothing() {
        let (mut reads, hub) = (SharedReads::default(), hub());
        assert!(reads.join(pages(), 1));
        assert_eq!(reads.begin(&pages(), &hub, |_| true), Begun::Ask);
        let first = reads.finish(&pages(), &mut reading(5), &hub);
        assert_eq!(first, Finished::Done(vec![1]));
        assert!(reads.join(pages(), 2));
        assert_eq!(reads.begin(&pages(), &hub, |_| true), Begun::Ask);
        let mut foreign = reading(9);
        foreign.horizon.born = Id::new(8, 0);
        let nothing = reads.finish(&pages(), &mut foreign, &hub);
        assert_eq!(nothing, Finished::Again(Vec::new()));
        assert_eq!(hub.partition(0).last_known(), Id::new(5, 0));
        assert!(hub.partition(0).is_estranged());
        assert_eq!(reads.begin(&pages(), &hub, |_| true), Begun::Wait);
        hub.break_off();
        hub.begin_following(&[ClockName::of(&foreign.horizon)]);
        assert_eq!(reads.begin(&pages(), &hub, |_| true), Begun::Ask);
        let second = reads.finish(&pages(), &mut foreign, &hub);
        assert_eq!(second, Finished::Done(vec![2]));
    }

    #[test]
    fn a_read_that_was_abandoned_is_begun_anew_by_who_joins_next() {
        let mut reads = SharedReads::default();
        assert!(reads.join(pages(), 1));
        reads.abandon(&pages());
        assert!(reads.join(pages(), 2));
    }

    #[test]
    fn a_read_that_nobody_waits_for_is_off() {
        let (mut reads, hub) = (SharedReads::default(), hub());
        assert!(reads.join(pages(), 1));
        assert_eq!(reads.begin(&pages(), &hub, |_| false), Begun::Off);
        assert!(reads.is_empty());
    }

    #[test]
    fn reads_under_way_are_counted_whoever_waits_for_them() {
        let (mut reads, hub) = (SharedReads::default(), hub());
        assert!(reads.join(pages(), 1) && reads.join(LogRead::Clock(0), 2));
        assert!(!reads.join(pages(), 3));
        assert_eq!(reads.len(), 2);
        assert_eq!(reads.begin(&pages(), &hub, |_| true), Begun::Ask);
        reads.finish(&pages(), &mut reading(5), &hub);
        assert_eq!(reads.len(), 1);
    }

    #[test]
    fn all_who_wait_for_a_read_are_known_and_so_are_those_who_wait_for_the_next() {
        let (mut reads, hub) = (SharedReads::default(), hub());
        let clock = LogRead::Clock(0);
        assert!(reads.join(clock.clone(), 1));
        assert_eq!(reads.begin(&clock, &hub, |_| true), Begun::Ask);
        assert!(!reads.join(clock.clone(), 2));
        assert_eq!(reads.waiting(&clock).collect::<Vec<_>>(), [&1, &2]);
        assert_eq!(reads.waiting(&pages()).count(), 0);
        reads.finish(&clock, &mut reading(5), &hub);
        assert_eq!(reads.waiting(&clock).collect::<Vec<_>>(), [&2]);
    }
}
