//! The entries of a thread that the same thing wakes are woken together: a ring costs what a thread
//! costs, not what a stream does.

use super::mailbox::{Mailbox, Ring};
use crate::hub::{WakeSource, WakerId};
use slab::Slab;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::task::Waker;

/// All groups of a thread.
#[derive(Debug)]
pub(super) struct Groups {
    mailbox: Arc<Mailbox>,
    all: Slab<Group>,
    by_source: HashMap<usize, u32>,
}

/// The numbers of the entries that one source wakes, and the waker that hangs there for them.
#[derive(Debug)]
struct Group {
    source: WakeSource,
    waker_id: WakerId,
    ring: Arc<Ring>,
    members: Slab<u32>,
}

/// An entry's place in a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    group: u32,
    place: u32,
}

impl Groups {
    pub(super) fn new(mailbox: Arc<Mailbox>) -> Self {
        Self {
            mailbox,
            all: Slab::new(),
            by_source: HashMap::new(),
        }
    }

    /// Adds an entry to those that `source` wakes. What happened before is not told to it.
    pub(super) fn join(&mut self, source: WakeSource, member: u32) -> (WakerId, Seat) {
        let number = match self.by_source.get(&source.address()) {
            Some(number) => *number,
            None => self.begin(source),
        };
        #[expect(clippy::indexing_slicing, reason = "those in the map are in the list")]
        let group = &mut self.all[number as usize];
        let seat = Seat {
            group: number,
            place: short(group.members.insert(member)),
        };
        group.ring.set_members(group.members.len());
        (group.waker_id, seat)
    }

    fn begin(&mut self, source: WakeSource) -> u32 {
        let number = short(self.all.vacant_key());
        let ring = Arc::new(Ring::new(self.mailbox.clone(), number));
        self.by_source.insert(source.address(), number);
        self.all.insert(Group {
            waker_id: source.add_waker(Waker::from(ring.clone())),
            source,
            ring,
            // Most topics have one reader.
            members: Slab::with_capacity(1),
        });
        number
    }

    /// An entry goes; a group goes with its last.
    pub(super) fn leave(&mut self, seat: Seat) {
        let number = seat.group as usize;
        let Some(group) = self.all.get_mut(number) else {
            return;
        };
        group.members.try_remove(seat.place as usize);
        group.ring.set_members(group.members.len());
        if group.members.is_empty() {
            self.by_source.remove(&group.source.address());
            self.all.remove(number);
        }
    }

    /// Adds the members of `rung` groups to `ready`. What rings from here on is heard again, and
    /// what rang before is seen by whoever looks now.
    pub(super) fn collect(&self, rung: &mut Vec<u32>, ready: &mut Vec<u32>) {
        for number in rung.iter() {
            if let Some(group) = self.all.get(*number as usize) {
                group.ring.clear();
            }
        }
        // The marks are clear before anything of the hub is looked at.
        fence(Ordering::SeqCst);
        for number in rung.drain(..) {
            if let Some(group) = self.all.get(number as usize) {
                ready.extend(group.members.iter().map(|(_, member)| *member));
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.source.remove_waker(self.waker_id);
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "descriptors end long before 2^32 entries of one thread"
)]
fn short(number: usize) -> u32 {
    number as u32
}
