//! Which connections of a thread are to be advanced, and when the thread must wake for the next.

use super::groups::{Groups, Membership};
use super::mailbox::Mailbox;
use super::timer_wheel::TimerWheel;
use crate::hub::WakerId;
use crate::hub::wake_source::WakeSource;
use crate::sync::Arc;
use crate::time::CoarseInstant;
use std::time::Duration;

/// Three ways for a connection to have its turn: its group is woken, its time comes, or it had more
/// to write the last time.
#[derive(Debug)]
pub(super) struct RunQueue {
    groups: Groups,
    wheel: TimerWheel,
    /// Connections that have more to write than the turns of one go.
    again: Vec<u32>,
    /// The memory of batches; empty.
    spare: Vec<u32>,
}

/// Connections that are to be advanced now.
#[derive(Debug)]
pub(super) struct Batch {
    /// Each once, and in the order of their memory.
    pub(super) numbers: Vec<u32>,
    /// What the wheel held when the batch was taken.
    planned: usize,
}

impl RunQueue {
    pub(super) fn new(mailbox: Arc<Mailbox>, now: CoarseInstant) -> Self {
        Self {
            groups: Groups::new(mailbox),
            wheel: TimerWheel::new(now),
            again: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// From here on `source` wakes this connection. What happened before is not told to it, so it
    /// must be advanced once after this.
    pub(super) fn join(&mut self, source: WakeSource, number: u32) -> (WakerId, Membership) {
        self.groups.join(source, number)
    }

    pub(super) fn leave(&mut self, membership: Membership) {
        self.groups.leave(membership);
    }

    /// Sees to it that a connection is found at its time ([`TimerWheel::put`]).
    pub(super) fn put(
        &mut self,
        number: u32,
        at: CoarseInstant,
        found_at: Option<CoarseInstant>,
    ) -> CoarseInstant {
        self.wheel.put(number, at, found_at)
    }

    /// A connection goes on when the others have had their turn.
    pub(super) fn put_again(&mut self, number: u32) {
        self.again.push(number);
    }

    /// How long until there may be something to do; none if only somebody else can tell.
    pub(super) fn wait(&self) -> Option<Duration> {
        if self.again.is_empty() {
            self.wheel.wait(CoarseInstant::now())
        } else {
            Some(Duration::ZERO)
        }
    }

    /// All whose group was woken, whose time has come, or who had more to write. `woken` is empty
    /// then.
    pub(super) fn take(&mut self, now: CoarseInstant, woken: &mut Vec<u32>) -> Batch {
        self.spare.append(&mut self.again);
        self.wheel.turn(now, &mut self.spare);
        self.take_woken(woken)
    }

    /// Only those whose group was woken.
    pub(super) fn take_woken(&mut self, woken: &mut Vec<u32>) -> Batch {
        let mut numbers = std::mem::take(&mut self.spare);
        self.groups.collect(woken, &mut numbers);
        numbers.sort_unstable();
        numbers.dedup();
        Batch {
            numbers,
            planned: self.wheel.len(),
        }
    }

    /// A batch was advanced. False if that leaves something for the thread to do, or something to
    /// be done sooner than it would wake.
    pub(super) fn finish(&mut self, mut batch: Batch) -> bool {
        batch.numbers.clear();
        self.spare = batch.numbers;
        self.again.is_empty() && self.wheel.len() <= batch.planned
    }
}
