//! A thread that writes streams, and whoever helps it.
//!
//! What they share is one [`Connections`] under a lock. The thread holds it while it does a round
//! and lets go of it while it sleeps; the helper takes it only if it is free.

use super::beat::Beat;
use super::command::Command;
use super::connections::{Connections, Shared};
use super::mailbox::Mailbox;
use crate::sync::{Arc, Events, Mutex, MutexGuard, Notify, PoisonError, Poll, ThreadWaker, Token};
use std::io;
use std::time::Duration;

const NUDGE: Token = Token(usize::MAX);
/// For so long the end of the process waits for its reason to be written.
const PATIENCE: Duration = Duration::from_secs(2);

/// A thread, and whoever helps it.
pub(super) struct Worker {
    pub(super) mailbox: Arc<Mailbox>,
    beat: Arc<Beat>,
    rounds: Mutex<Rounds>,
}

/// What a round works with.
struct Rounds {
    mailbox: Arc<Mailbox>,
    connections: Connections,
    /// Groups that were woken; empty between rounds.
    woken: Vec<u32>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("mailbox", &self.mailbox)
            .finish_non_exhaustive()
    }
}

/// Prepares a thread; the closure runs it.
pub(super) fn prepare(
    shared: Shared,
    help: Arc<Notify>,
    beat: Arc<Beat>,
) -> io::Result<(Arc<Worker>, impl FnOnce() + Send)> {
    let poll = Poll::new()?;
    let mailbox = Arc::new(Mailbox::new(
        ThreadWaker::new(poll.registry(), NUDGE)?,
        help,
    ));
    let connections = Connections::new(shared, poll.registry().try_clone()?, mailbox.clone());
    let worker = Arc::new(Worker {
        mailbox: mailbox.clone(),
        beat,
        rounds: Mutex::new(Rounds {
            mailbox,
            connections,
            woken: Vec::new(),
        }),
    });
    let given = worker.clone();
    Ok((given, move || worker.run(poll)))
}

impl Worker {
    fn rounds(&self) -> MutexGuard<'_, Rounds> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut poll: Poll) {
        let mut events = Events::with_capacity(1024);
        let mut commands = Vec::new();
        loop {
            // The helper may work from here on until the thread is woken. If it plans something
            // that is due sooner than this, it nudges.
            let wait = Beat::at_most(self.rounds().connections.wait());
            self.beat.touch();
            match poll.poll(&mut events, wait) {
                Ok(()) => {}
                Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
                // It ends the process.
                Err(why) => panic!("sockets cannot be waited for: {why}"),
            }
            if !self.rounds().run(&events, &mut commands) {
                return self.beat.end();
            }
        }
    }

    /// Waking a thread takes longer than writing to a few sockets, above all one that sleeps on
    /// another core: whoever has woken few connections advances them itself, if the thread is not
    /// at work.
    fn help(&self) {
        if !self.mailbox.has_woken() {
            return;
        }
        let is_all = match self.rounds.try_lock() {
            Ok(mut rounds) => end_process_on_panic(|| rounds.run_few()),
            Err(_) => false,
        };
        if !is_all {
            self.mailbox.nudge();
        }
    }
}

/// Advances a few connections whenever there are some: one task for all threads, because the
/// runtime keeps the core for the last task that was woken there, and only for that.
pub(super) async fn help_all(workers: Vec<Arc<Worker>>, help: Arc<Notify>) {
    loop {
        help.notified().await;
        workers.iter().for_each(|worker| worker.help());
    }
}

impl Rounds {
    /// Does what there is to do; false at the end.
    fn run(&mut self, events: &Events, commands: &mut Vec<Command>) -> bool {
        let connections = &mut self.connections;
        connections.begin_round();
        for event in events.iter().filter(|event| event.token() != NUDGE) {
            connections.event(event);
        }
        self.mailbox.take(commands, &mut self.woken);
        // A stop is the last of them: nothing is left to do it with.
        let goes_on = commands
            .drain(..)
            .all(|command| connections.command(command));
        if goes_on {
            connections.end_round(&mut self.woken);
        }
        goes_on
    }

    /// Advances those that were woken, if they are few and that is all there is to do. False if
    /// there is more.
    fn run_few(&mut self) -> bool {
        if !self.mailbox.take_few(&mut self.woken) {
            return false;
        }
        self.connections.advance_woken(&mut self.woken)
    }
}

/// A replica without one of its threads would look healthy and leave its streams in silence.
pub(super) fn end_process_on_panic<T>(run: impl FnOnce() -> T) -> T {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|_| {
        tracing::error!("a thread that writes streams panicked; the process ends");
        let _is_written = crate::stderr::flush(PATIENCE);
        std::process::abort()
    })
}
