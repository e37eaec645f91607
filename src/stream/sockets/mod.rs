//! Streams whose socket is ours: the way out for plain HTTP/1.1.
//!
//! hyper reads the request and writes the head; then the connection is taken over ([`Handoff`],
//! `http::accept`). From then on a stream is a connection in one of a few threads: a socket, a
//! cursor, and nothing else while it is quiet. No task, no buffer, no allocation for an event.
//!
//! | module | what |
//! |---|---|
//! | `gate`, `handoff` | what accept gives: a place, a socket, a stream |
//! | `thread` | one thread: its sleep, its rounds, and the helper that may do a short one |
//! | `connections` | what a round does with each connection: adopt, advance, turn, end |
//! | `connection`, `send` | one connection: its states, and writing without blocking |
//! | `mailbox`, `command`, `groups` | how others wake a thread: by a command, or by an event of a topic |
//! | `run_queue` | which connections are to be advanced, and when the thread must wake for the next |
//! | `held` | pages of connections that are blocked: how long they are held, and when they are read again |
//! | `waits`, `timer_wheel`, `table` | pages that several wait for; times; the list in order of sockets |
//! | `cores` | which core a thread stays on |
//! | `beat`, `watch` | whether each thread goes on, and what becomes of one that does not |
//!
//! The life of a socket:
//!
//! ```text
//! accepted ─ hyper: request, head ─ Handoff ─> adopted
//!    opening ──(subscription, cursor)──> live <──> reading (a page of the log)
//!       live: woken, or its time has come ─> Stream::turn ─> write
//!             would block ─> blocked: the rest of one turn waits for the socket, the cursor stays
//!    over: flush, then a clean end or a cut; gone: the peer went, or takes nothing
//! ```
//!
//! Waking: the connections of a thread that read the same topic are a group (`groups`), and one
//! [`Waker`](std::task::Waker) hangs at the topic for all of them. It marks the group, and if it was
//! not marked, puts its number on the thread's list and nudges the thread. Where the groups on the
//! list have few members, it is not the thread that is woken but a task of the runtime, the helper,
//! which mostly runs next on the same core: it advances them itself, under the lock of the thread's
//! connections, or nudges the thread. No wake-up is lost:
//!
//! - A connection is in its groups before it first reads the hub.
//! - The hub is changed first, then the group's mark is set. The mark is cleared first, then the
//!   members read the hub. Setting and clearing are one atomic swap each, so one comes after the
//!   other. If it is the clearing, it reads what the setting wrote, and the members see all that was
//!   changed before that. If it is the setting, it finds the mark clear: the number goes on the list,
//!   and the members read again.
//! - The nudge is one write to an eventfd for however many connections. Its mark is cleared before
//!   the list is taken, so a number that comes later nudges again.
//! - The helper is told after the number is on the list, and a telling is kept for it while it is
//!   busy. It takes the whole list, or nudges: if the thread is at work, if there is more than the
//!   list, and if what it did leaves something to do, or to be done sooner than the thread would
//!   wake by itself.
//!
//! A number on the list twice, or of a group that has gone and come again, costs a turn that shows
//! nothing. `tests/model` runs all this, as it ships, in every order of its steps.
//!
//! Locks are taken in this order:
//!
//! 1. a thread's rounds (`thread`): by the thread for a round, by the helper only if it is free;
//! 2. below it, those of the hub and of the stream's own parts, by turns and by who joins a group;
//! 3. a mailbox: its list of groups, then its commands. A waker of the hub takes the first alone,
//!    and whoever gives a command the second alone; both let go of it before they wake anybody.
//!
//! So nobody may take a thread's rounds while holding a lock of the hub. A waker, which the hub calls
//! under a lock of its own, does not: it only puts a number on a list.

mod beat;
mod command;
mod connection;
mod connections;
mod cores;
mod gate;
mod groups;
mod handoff;
mod held;
mod mailbox;
mod run_queue;
mod send;
mod table;
mod thread;
mod timer_wheel;
mod waits;
mod watch;

use super::listing::Top;
use super::settings::StreamSettings;
use crate::follow::reads::Reads;
use beat::Beat;
use command::Command;
use connections::Shared;
pub use cores::Threads;
pub use gate::{Gate, Place};
pub use handoff::{HandedOff, Handoff};
use mailbox::Mailbox;
use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use thread::{end_process_on_panic, help_all};
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use watch::{Found, Watch};
pub use watch::{Patience, STALLED, Standing};

/// The threads that write streams.
#[derive(Debug)]
pub struct Sockets {
    mailboxes: Arc<[Arc<Mailbox>]>,
    /// Tells the nudger that a thread was given a connection.
    adopted: Arc<Notify>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// None once the threads have ended.
    watch: Mutex<Option<Watch>>,
    found: Arc<Found>,
    helper: AbortHandle,
    nudger: AbortHandle,
    releaser: AbortHandle,
}

impl Sockets {
    /// Starts `threads` threads, and looks after them with this patience.
    ///
    /// # Errors
    /// If the system has no descriptors or threads left.
    pub fn start(
        threads: Threads,
        patience: Patience,
        settings: &Arc<StreamSettings>,
        reads: &Reads,
        runtime: &tokio::runtime::Handle,
    ) -> io::Result<Self> {
        let mut mailboxes = Vec::with_capacity(threads.count);
        let mut handles = Vec::with_capacity(threads.count);
        let mut workers = Vec::with_capacity(threads.count);
        let beats: Vec<Arc<Beat>> = (0..threads.count).map(|_| Arc::default()).collect();
        let help = Arc::new(Notify::new());
        let cores = threads.cores();
        for (number, beat) in beats.iter().enumerate() {
            let core = cores.get(number).copied();
            let shared = Shared {
                settings: settings.clone(),
                reads: reads.clone(),
                runtime: runtime.clone(),
                beat: beat.clone(),
            };
            let (worker, run) = thread::prepare(shared, help.clone(), beat.clone())?;
            mailboxes.push(worker.mailbox.clone());
            workers.push(worker);
            handles.push(
                std::thread::Builder::new()
                    .name(format!("streams-{number}"))
                    .spawn(move || {
                        core.into_iter().for_each(cores::stay_on);
                        end_process_on_panic(run);
                    })?,
            );
        }
        let mailboxes: Arc<[_]> = mailboxes.into();
        let adopted = Arc::new(Notify::new());
        let nudge = nudge_all(mailboxes.clone(), adopted.clone());
        let release = release_pages(mailboxes.clone(), reads.clone());
        let watch = Watch::begin(beats, patience, settings.metrics.clone())?;
        Ok(Self {
            mailboxes,
            adopted,
            threads: Mutex::new(handles),
            found: watch.found.clone(),
            watch: Mutex::new(Some(watch)),
            helper: runtime.spawn(help_all(workers, help)).abort_handle(),
            nudger: runtime.spawn(nudge).abort_handle(),
            releaser: runtime.spawn(release).abort_handle(),
        })
    }

    /// Gives a connection to one of the threads. Its descriptor says to which, and where it stands
    /// there: the kernel hands out the lowest that is free, so they fill up evenly.
    pub fn adopt(&self, adopted: HandedOff) {
        let descriptor = adopted.socket.as_raw_fd().unsigned_abs();
        let threads = u32::try_from(self.mailboxes.len())
            .unwrap_or(u32::MAX)
            .max(1);
        if let Some(mailbox) = self.mailboxes.get((descriptor % threads) as usize) {
            mailbox.put(Command::Adopt(descriptor / threads, Box::new(adopted)));
            self.adopted.notify_one();
        }
    }

    /// Offers every stream to a list; each thread does it between its other work.
    pub(super) async fn list(&self, top: &mut Top) {
        let mut parts = Vec::with_capacity(self.mailboxes.len());
        for mailbox in &*self.mailboxes {
            let (reply, part) = oneshot::channel();
            mailbox.send(Command::List(0, top.part(), reply));
            parts.push(part);
        }
        for part in parts {
            // A thread that has ended has no streams.
            if let Ok(part) = part.await {
                top.merge(part);
            }
        }
    }

    /// The thread that has stood for longest, if one counts as standing.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        self.found.standing()
    }

    /// Ends the threads; streams that are still open are cut. Blocks until they have ended, and for as long as one stands.
    pub fn stop(&self) {
        for mailbox in &*self.mailboxes {
            mailbox.send(Command::Stop);
        }
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // A thread that panicked has ended the process.
            drop(thread.join());
        }
        let watch = self.watch.lock();
        watch.unwrap_or_else(PoisonError::into_inner).take();
        self.helper.abort();
        self.nudger.abort();
        self.releaser.abort();
    }
}

/// Has the threads let go what they hold for peers that take nothing, whenever a read waits for room.
async fn release_pages(mailboxes: Arc<[Arc<Mailbox>]>, reads: Reads) {
    loop {
        reads.room_wanted().await;
        for mailbox in &*mailboxes {
            mailbox.send(Command::ReleasePages);
        }
    }
}

/// Nudges the threads that were given connections, once the runtime has served the other requests
/// that are there: in a storm of reconnects, once for many connections.
async fn nudge_all(mailboxes: Arc<[Arc<Mailbox>]>, adopted: Arc<Notify>) {
    loop {
        adopted.notified().await;
        tokio::task::yield_now().await;
        // What is put from here on notifies again.
        mailboxes.iter().for_each(|mailbox| mailbox.nudge_if_any());
    }
}
