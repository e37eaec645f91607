//! What a thread is told: commands, and the numbers of groups that were rung.

use super::Adopted;
use super::waits::Request;
use crate::engine::open::Top;
use crate::engine::stream::Stream;
use crate::log::Reading;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Wake;
use tokio::sync::oneshot;

/// Names an entry: its number, and which of those that had the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) number: u32,
    pub(super) serial: u32,
}

/// Something for the thread to do.
#[derive(Debug)]
pub(super) enum Command {
    /// A new connection, and its number.
    Adopt(u32, Box<Adopted>),
    /// The stream of an entry has opened.
    Opened(Key, Box<Stream>),
    /// The answer to a wait of this number.
    Pages(u64, Request, Arc<Reading>),
    /// Offer the entries from this number on to a list, some at a time.
    Look(usize, Top, oneshot::Sender<Top>),
    /// End.
    Stop,
}

/// The two lists, and the nudge.
#[derive(Debug)]
pub(super) struct Mailbox {
    commands: Mutex<Vec<Command>>,
    rung: Mutex<Vec<u32>>,
    nudged: AtomicBool,
    nudge: mio::Waker,
}

impl Mailbox {
    pub(super) fn new(nudge: mio::Waker) -> Self {
        Self {
            commands: Mutex::default(),
            rung: Mutex::default(),
            nudged: AtomicBool::new(false),
            nudge,
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

    fn ring(&self, number: u32) {
        lock(&self.rung).push(number);
        self.nudge();
    }

    fn nudge(&self) {
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
        rung.append(&mut lock(&self.rung));
    }
}

fn lock<T>(list: &Mutex<Vec<T>>) -> MutexGuard<'_, Vec<T>> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes one group of a thread.
#[derive(Debug)]
pub(super) struct Ring {
    mailbox: Arc<Mailbox>,
    number: u32,
    rung: AtomicBool,
}

impl Ring {
    pub(super) fn new(mailbox: Arc<Mailbox>, number: u32) -> Self {
        Self {
            mailbox,
            number,
            rung: AtomicBool::new(false),
        }
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
            self.mailbox.ring(self.number);
        }
    }
}
