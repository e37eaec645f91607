//! What a thread is told: commands, and the numbers of groups that were rung.

use super::handoff::HandedOff;
use super::table::Key;
use crate::log::{LogRead, Reading};
use crate::stream::listing::Top;
use crate::stream::turn::Stream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Wake;
use tokio::sync::{Notify, oneshot};

/// Something for the thread to do.
#[derive(Debug)]
pub(super) enum Command {
    /// A new connection, and its number.
    Adopt(u32, Box<HandedOff>),
    /// The stream of an entry has opened.
    Opened(Key, Box<Stream>),
    /// The answer to a wait of this number.
    Pages(u64, LogRead, Arc<Reading>),
    /// Offer the entries from this number on to a list, some at a time.
    Look(usize, Top, oneshot::Sender<Top>),
    /// End.
    Stop,
}

/// Entries that are looked at by whoever rings them: more are worth waking a thread.
const FEW: usize = 16;

/// The two lists, the nudge, and the bell of who helps.
#[derive(Debug)]
pub(super) struct Mailbox {
    commands: Mutex<Vec<Command>>,
    rung: Mutex<Rung>,
    nudged: AtomicBool,
    nudge: mio::Waker,
    help: Arc<Notify>,
}

/// Groups that were rung.
#[derive(Debug, Default)]
struct Rung {
    groups: Vec<u32>,
    /// Entries in all of them.
    members: usize,
}

impl Mailbox {
    /// `nudge` wakes the thread, `help` whoever looks at a few entries for it.
    pub(super) fn new(nudge: mio::Waker, help: Arc<Notify>) -> Self {
        Self {
            commands: Mutex::default(),
            rung: Mutex::default(),
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

    fn ring(&self, number: u32, members: usize) {
        let mut rung = lock(&self.rung);
        rung.groups.push(number);
        rung.members += members;
        let few = rung.members <= FEW;
        drop(rung);
        if few {
            self.help.notify_one();
        } else {
            self.nudge();
        }
    }

    /// Whether a group was rung and nobody has taken it.
    pub(super) fn is_rung(&self) -> bool {
        !lock(&self.rung).groups.is_empty()
    }

    /// Takes what was rung, if that is little and nothing else is to be done. False if it is not.
    pub(super) fn take_few(&self, rung: &mut Vec<u32>) -> bool {
        let mut all = lock(&self.rung);
        let few = all.members <= FEW && lock(&self.commands).is_empty();
        if few {
            all.take(rung);
        }
        few
    }

    pub(super) fn nudge(&self) {
        if !self.nudged.swap(true, Ordering::SeqCst)
            && let Err(why) = self.nudge.wake()
        {
            tracing::error!(%why, "a thread that writes streams cannot be woken");
        }
    }

    /// Takes what is there. What comes later nudges again.
    pub(super) fn take(&self, commands: &mut Vec<Command>, rung: &mut Vec<u32>) {
        self.nudged.store(false, Ordering::SeqCst);
        commands.append(&mut lock(&self.commands));
        lock(&self.rung).take(rung);
    }
}

impl Rung {
    fn take(&mut self, groups: &mut Vec<u32>) {
        groups.append(&mut self.groups);
        self.members = 0;
    }
}

fn lock<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes one group of a thread.
#[derive(Debug)]
pub(super) struct Ring {
    mailbox: Arc<Mailbox>,
    number: u32,
    /// How many it wakes, give or take those that come and go just now.
    members: AtomicUsize,
    rung: AtomicBool,
}

impl Ring {
    pub(super) fn new(mailbox: Arc<Mailbox>, number: u32) -> Self {
        Self {
            mailbox,
            number,
            members: AtomicUsize::new(0),
            rung: AtomicBool::new(false),
        }
    }

    pub(super) fn set_members(&self, members: usize) {
        self.members.store(members, Ordering::Relaxed);
    }

    /// From here on a ring is heard again; a fence must follow before anything is looked at.
    pub(super) fn clear(&self) {
        self.rung.store(false, Ordering::Relaxed);
    }
}

impl Wake for Ring {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            let members = self.members.load(Ordering::Relaxed);
            self.mailbox.ring(self.number, members);
        }
    }
}
