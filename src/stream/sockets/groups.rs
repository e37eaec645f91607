//! The connections of a thread that the same thing wakes are woken together: an event costs what a
//! thread costs, not what a stream does.

use super::mailbox::Mailbox;
use crate::hub::WakerId;
use crate::hub::wake_source::WakeSource;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use slab::Slab;
use std::collections::HashMap;
use std::task::{Wake, Waker};

/// All groups of a thread.
#[derive(Debug)]
pub(super) struct Groups {
    mailbox: Arc<Mailbox>,
    all: Slab<Group>,
    by_source: HashMap<usize, u32>,
}

/// The numbers of the connections that one source wakes, and the waker that hangs there for them.
#[derive(Debug)]
struct Group {
    source: WakeSource,
    waker_id: WakerId,
    waker: Arc<GroupWaker>,
    members: Slab<u32>,
}

/// A connection's place in a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Membership {
    group: u32,
    place: u32,
}

/// Wakes one group of a thread. It marks the group; if that was marked already, it is on the
/// thread's list, and nothing more is to be done.
#[derive(Debug)]
struct GroupWaker {
    mailbox: Arc<Mailbox>,
    number: u32,
    /// How many it wakes, give or take those that come and go just now.
    members: AtomicUsize,
    /// On the thread's list, and its members have not read the hub since.
    is_woken: AtomicBool,
}

impl Groups {
    pub(super) fn new(mailbox: Arc<Mailbox>) -> Self {
        Self {
            mailbox,
            all: Slab::new(),
            by_source: HashMap::new(),
        }
    }

    /// Adds a connection to those that `source` wakes. What happened before is not told to it.
    pub(super) fn join(&mut self, source: WakeSource, member: u32) -> (WakerId, Membership) {
        let number = match self.by_source.get(&source.address()) {
            Some(number) => *number,
            None => self.begin(source),
        };
        #[expect(clippy::indexing_slicing, reason = "those in the map are in the list")]
        let group = &mut self.all[number as usize];
        let membership = Membership {
            group: number,
            place: short(group.members.insert(member)),
        };
        group.count_members();
        (group.waker_id, membership)
    }

    fn begin(&mut self, source: WakeSource) -> u32 {
        let number = short(self.all.vacant_key());
        let waker = Arc::new(GroupWaker {
            mailbox: self.mailbox.clone(),
            number,
            members: AtomicUsize::new(0),
            is_woken: AtomicBool::new(false),
        });
        self.by_source.insert(source.address(), number);
        self.all.insert(Group {
            waker_id: source.add_waker(Waker::from(waker.clone())),
            source,
            waker,
            // Most topics have one reader.
            members: Slab::with_capacity(1),
        });
        number
    }

    /// A connection goes; a group goes with its last.
    pub(super) fn leave(&mut self, membership: Membership) {
        let number = membership.group as usize;
        let Some(group) = self.all.get_mut(number) else {
            return;
        };
        group.members.try_remove(membership.place as usize);
        group.count_members();
        if group.members.is_empty() {
            self.by_source.remove(&group.source.address());
            self.all.remove(number);
        }
    }

    /// Adds the members of `woken` groups to `ready`, and empties `woken`. What wakes them from here
    /// on is heard again, and what woke them before is seen by whoever reads the hub now.
    pub(super) fn collect(&self, woken: &mut Vec<u32>, ready: &mut Vec<u32>) {
        for number in woken.drain(..) {
            if let Some(group) = self.all.get(number as usize) {
                // A swap rather than a store: it reads what the last waker wrote, and so what that
                // had changed is seen by the members.
                group.waker.is_woken.swap(false, Ordering::AcqRel);
                ready.extend(group.members.iter().map(|(_, member)| *member));
            }
        }
    }
}

impl Group {
    fn count_members(&self) {
        let members = self.members.len();
        self.waker.members.store(members, Ordering::Relaxed);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.source.remove_waker(self.waker_id);
    }
}

impl Wake for GroupWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            let members = self.members.load(Ordering::Relaxed);
            self.mailbox.put_group(self.number, members);
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "descriptors end long before 2^32 connections of one thread"
)]
fn short(number: usize) -> u32 {
    number as u32
}
