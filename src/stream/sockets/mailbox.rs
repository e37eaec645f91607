//! What a thread is told: commands, and the numbers of groups that were woken.
//!
//! Everybody writes, the thread and its helper take. No lock is held while another thread is woken.

use super::command::Command;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, Notify, PoisonError, ThreadWaker};

/// Connections that are advanced by whoever wakes them: more are worth waking a thread.
const FEW: usize = 16;

/// The two lists, and whom to wake for them.
#[derive(Debug)]
pub(super) struct Mailbox {
    commands: Mutex<Vec<Command>>,
    woken: Mutex<Woken>,
    /// The thread was nudged and has not taken the lists since.
    nudged: AtomicBool,
    nudge: ThreadWaker,
    help: Arc<Notify>,
}

/// The groups that were woken since somebody took them, each once.
#[derive(Debug, Default)]
struct Woken {
    groups: Vec<u32>,
    /// Connections in all of them.
    members: usize,
}

impl Mailbox {
    /// `nudge` wakes the thread, `help` whoever advances a few connections for it.
    pub(super) fn new(nudge: ThreadWaker, help: Arc<Notify>) -> Self {
        Self {
            commands: Mutex::default(),
            woken: Mutex::default(),
            nudged: AtomicBool::new(false),
            nudge,
            help,
        }
    }

    pub(super) fn send(&self, command: Command) {
        self.put(command);
        self.nudge();
    }

    /// For the thread to find when it is nudged.
    pub(super) fn put(&self, command: Command) {
        lock(&self.commands).push(command);
    }

    pub(super) fn nudge_if_any(&self) {
        if !lock(&self.commands).is_empty() {
            self.nudge();
        }
    }

    /// A group was woken that had not been. Whoever calls this holds no lock of the hub.
    pub(super) fn put_group(&self, number: u32, members: usize) {
        let mut woken = lock(&self.woken);
        woken.groups.push(number);
        woken.members += members;
        let few = woken.members <= FEW;
        drop(woken);
        if few {
            self.help.notify_one();
        } else {
            self.nudge();
        }
    }

    /// Whether a group was woken and nobody has taken it.
    pub(super) fn has_woken(&self) -> bool {
        !lock(&self.woken).groups.is_empty()
    }

    /// Takes what was woken, if that is little and nothing else is to be done. False if it is not.
    pub(super) fn take_few(&self, groups: &mut Vec<u32>) -> bool {
        let mut woken = lock(&self.woken);
        // The one place that holds both locks.
        let few = woken.members <= FEW && lock(&self.commands).is_empty();
        if few {
            woken.take(groups);
        }
        few
    }

    pub(super) fn nudge(&self) {
        if !self.nudged.swap(true, Ordering::AcqRel)
            && let Err(why) = self.nudge.wake()
        {
            tracing::error!(%why, "a thread that writes streams cannot be woken");
        }
    }

    /// Takes what is there. What comes later nudges again: the mark is cleared before the lists are
    /// read, so what they do not hold yet finds it clear.
    pub(super) fn take(&self, commands: &mut Vec<Command>, groups: &mut Vec<u32>) {
        self.nudged.swap(false, Ordering::AcqRel);
        commands.append(&mut lock(&self.commands));
        lock(&self.woken).take(groups);
    }
}

impl Woken {
    fn take(&mut self, groups: &mut Vec<u32>) {
        groups.append(&mut self.groups);
        self.members = 0;
    }
}

fn lock<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}
