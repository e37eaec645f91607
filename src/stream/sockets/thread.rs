//! A thread and its entries.

use super::connection::{Around, Connection, State, Written};
use super::groups::Groups;
use super::handoff::{HandedOff, Handoff};
use super::mailbox::{Command, Mailbox};
use super::table::{Key, Table};
use super::timer_wheel::TimerWheel;
use super::waits::Waits;
use crate::follow::reads::Reads;
use crate::log::Reading;
use crate::metrics::{CloseReason, WayOut};
use crate::sse::HEARTBEAT;
use crate::stream::listing::{SLICE, Seen, StreamState, Top};
use crate::stream::open::MaybeOpen;
use crate::stream::out::Out;
use crate::stream::settings::StreamSettings;
use crate::stream::tally::Tally;
use crate::stream::turn::{Ending, Now, Stream, Turn};
use crate::time::CoarseInstant;
use mio::event::Event;
use mio::{Events, Interest, Poll, Registry, Token};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

const NUDGE: Token = Token(usize::MAX);
/// Between two looks at an entry that nothing wakes.
const LOOK: std::time::Duration = std::time::Duration::from_secs(1);
/// Entries that are fetched into the cache together, with one look at the clock: fewer would wait
/// for one another, more would drive each other out.
const AHEAD: usize = 16;
/// Turns of one stream before others get theirs.
const TURNS: usize = 4;

/// What entries need besides their own.
pub(super) struct Shared {
    pub(super) settings: Arc<StreamSettings>,
    pub(super) reads: Reads,
    pub(super) runtime: tokio::runtime::Handle,
}

/// A thread, and whoever helps it.
pub(super) struct Worker {
    pub(super) mailbox: Arc<Mailbox>,
    thread: Mutex<Thread>,
}

struct Thread {
    shared: Shared,
    registry: Registry,
    mailbox: Arc<Mailbox>,
    entries: Table<Connection>,
    groups: Groups,
    waits: Waits,
    serial: u32,
    wheel: TimerWheel,
    now: CoarseInstant,
    /// Entries that have more to write than one turn.
    again: Vec<u32>,
    out: Out,
    /// Counted here and told once a round: threads that share counters wait for one another.
    tally: Tally,
    scratch: Box<[u8]>,
    /// Groups that were rung, and entries that are to be looked at; empty between rounds.
    rung: Vec<u32>,
    ready: Vec<u32>,
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
) -> io::Result<(Arc<Worker>, impl FnOnce() + Send)> {
    let poll = Poll::new()?;
    let mailbox = Arc::new(Mailbox::new(mio::Waker::new(poll.registry(), NUDGE)?, help));
    let now = CoarseInstant::now();
    let worker = Arc::new(Worker {
        mailbox: mailbox.clone(),
        thread: Mutex::new(Thread {
            tally: Tally::new(&shared.settings.metrics),
            shared,
            registry: poll.registry().try_clone()?,
            groups: Groups::new(mailbox.clone()),
            mailbox,
            entries: Table::new(),
            waits: Waits::default(),
            serial: 0,
            wheel: TimerWheel::new(now),
            now,
            again: Vec::new(),
            out: Out::chunked(),
            scratch: vec![0; 4096].into(),
            rung: Vec::new(),
            ready: Vec::new(),
        }),
    });
    let given = worker.clone();
    Ok((given, move || worker.run(poll)))
}

impl Worker {
    fn thread(&self) -> MutexGuard<'_, Thread> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut poll: Poll) {
        let mut events = Events::with_capacity(1024);
        let mut commands = Vec::new();
        loop {
            let wait = self.thread().wait();
            match poll.poll(&mut events, wait) {
                Ok(()) => {}
                Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
                Err(why) => {
                    tracing::error!(%why, "sockets cannot be waited for");
                    std::process::abort();
                }
            }
            if !self.thread().round(&events, &mut commands) {
                return;
            }
        }
    }

    /// Waking a thread takes longer than writing to a few sockets, above all one that sleeps on
    /// another core: whoever has rung few entries looks at them itself, if the thread is not at
    /// work.
    pub(super) fn help(&self) {
        if !self.mailbox.is_rung() {
            return;
        }
        let is_all = match self.thread.try_lock() {
            Ok(mut thread) => end_process_on_panic(|| thread.look_at_few()),
            Err(_) => false,
        };
        if !is_all {
            self.mailbox.nudge();
        }
    }
}

impl Thread {
    /// How long until there may be something to do.
    fn wait(&self) -> Option<std::time::Duration> {
        if self.again.is_empty() {
            self.wheel.wait(CoarseInstant::now())
        } else {
            Some(std::time::Duration::ZERO)
        }
    }

    /// Does what there is to do; false at the end.
    fn round(&mut self, events: &Events, commands: &mut Vec<Command>) -> bool {
        self.now = CoarseInstant::now();
        self.tally.look_at_clock();
        for event in events.iter().filter(|event| event.token() != NUDGE) {
            self.event(event);
        }
        self.mailbox.take(commands, &mut self.rung);
        for command in commands.drain(..) {
            if matches!(command, Command::Stop) {
                for mut entry in self.entries.drain() {
                    say_closed(&mut entry, CloseReason::Drain);
                    entry.guard.close(CloseReason::Drain);
                }
                return false;
            }
            self.command(command);
        }
        self.ready.append(&mut self.again);
        self.wheel.turn(self.now, &mut self.ready);
        self.look_at_ready();
        self.tally.flush();
        true
    }

    /// Looks at the entries that were rung, if they are few and that is all there is to do. False
    /// if there is more.
    fn look_at_few(&mut self) -> bool {
        if !self.mailbox.take_few(&mut self.rung) {
            return false;
        }
        self.now = CoarseInstant::now();
        let held = self.wheel.held();
        self.look_at_ready();
        self.tally.flush();
        // The thread sleeps until the time that it knows of.
        self.again.is_empty() && self.wheel.held() <= held
    }

    /// Looks at every entry that was rung, or is ready.
    fn look_at_ready(&mut self) {
        let mut ready = std::mem::take(&mut self.ready);
        self.groups.collect(&mut self.rung, &mut ready);
        if !ready.is_empty() {
            let began = Instant::now();
            // Each once, and in the order of their memory.
            ready.sort_unstable();
            ready.dedup();
            for few in ready.chunks(AHEAD) {
                self.warm(few);
                self.tally.look_at_clock();
                few.iter().for_each(|number| self.look(*number));
            }
            ready.clear();
            self.tally.swept(began.elapsed());
        }
        self.ready = ready;
    }

    fn event(&mut self, event: &Event) {
        let Ok(number) = u32::try_from(event.token().0) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(number) else {
            return;
        };
        let readable = event.is_readable() || event.is_read_closed() || event.is_error();
        if readable && let Err(reason) = entry.listen(&mut self.scratch) {
            self.lose(number, reason);
            return;
        }
        if event.is_writable() && entry.is_blocked() {
            match entry.flush() {
                Written::All => self.look(number),
                Written::Blocked => {}
                Written::Gone(reason) => self.lose(number, reason),
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Adopt(number, adopted) => self.adopt(number, *adopted),
            Command::Opened(key, stream) => {
                if let Some(entry) = self.entry(key) {
                    entry.state = State::Live(*stream);
                    self.join(key.number);
                    self.look(key.number);
                }
            }
            Command::Pages(number, request, reading) => {
                for key in self.waits.end(number, &request) {
                    self.take(key, &reading);
                }
            }
            Command::Look(from, top, reply) => self.offer(from, top, reply),
            Command::Stop => {}
        }
    }

    /// Pages that an entry has waited for. It shows them when it has its turn.
    fn take(&mut self, key: Key, reading: &Arc<Reading>) {
        let Some(entry) = self.entry(key) else { return };
        let over = State::Over(Ending::Cut(CloseReason::Client));
        match std::mem::replace(&mut entry.state, over) {
            State::Reading { mut stream, .. } => {
                stream.take(reading);
                entry.state = State::Live(*stream);
                self.again.push(key.number);
            }
            other => entry.state = other,
        }
    }

    fn entry(&mut self, key: Key) -> Option<&mut Connection> {
        let entry = self.entries.get_mut(key.number);
        entry.filter(|entry| entry.key() == key)
    }

    fn remove(&mut self, number: u32) -> Option<Connection> {
        let entry = self.entries.remove(number)?;
        entry.seats.iter().for_each(|seat| self.groups.leave(*seat));
        Some(entry)
    }

    /// From here on a live entry is woken together with all others that read the same.
    fn join(&mut self, number: u32) {
        let Some(entry) = self.entries.get_mut(number) else {
            return;
        };
        if let State::Live(stream) = &mut entry.state {
            stream.share_wakers(|source| {
                let (waker_id, seat) = self.groups.join(source, number);
                entry.seats.push(seat);
                waker_id
            });
        }
    }

    fn adopt(&mut self, number: u32, adopted: HandedOff) {
        self.serial = self.serial.wrapping_add(1);
        let key = Key {
            number,
            serial: self.serial,
        };
        let HandedOff {
            socket,
            place,
            handoff: Handoff { opened, guard },
        } = adopted;
        let (state, opened) = match opened {
            MaybeOpen::Open(stream) => (State::Live(stream), true),
            MaybeOpen::Opening(opening) => {
                let mailbox = self.mailbox.clone();
                let task = self.shared.runtime.spawn(async move {
                    let stream = Box::new(opening.await);
                    mailbox.send(Command::Opened(key, stream));
                });
                (State::Opening(task.abort_handle()), false)
            }
        };
        let jitter = self
            .shared
            .settings
            .heartbeat
            .mul_f64(rand::random_range(0.0..1.0));
        let around = Around {
            socket,
            place,
            guard,
        };
        let mut entry = Connection::new(around, state, key, self.now + jitter);
        // Edge-triggered: registered once, and quiet as long as nothing changes.
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(why) =
            self.registry
                .register(&mut entry.socket, Token(number as usize), interest)
        {
            tracing::warn!(%why, "a connection cannot be watched and is cut");
            return;
        }
        self.entries.insert(number, entry);
        if opened {
            self.join(number);
            self.look(number);
        } else {
            self.schedule(number);
        }
    }

    fn lose(&mut self, number: u32, reason: CloseReason) {
        if let Some(mut entry) = self.remove(number) {
            say_closed(&mut entry, reason);
            entry.guard.close(reason);
        }
    }

    /// Offers some entries to a list; the others when those that are ready have had their turn.
    fn offer(&mut self, from: usize, mut top: Top, reply: oneshot::Sender<Top>) {
        let (some, has_more) = self.entries.some(from, SLICE);
        for entry in some {
            let seen = Seen {
                stream: entry.stream(),
                age: entry.guard.age(),
                bytes: entry.guard.bytes(),
                way: WayOut::Socket,
                state: match entry.state {
                    _ if entry.is_blocked() => StreamState::Blocked,
                    State::Opening(_) => StreamState::Opening,
                    State::Live(_) => StreamState::Live,
                    State::Reading { .. } => StreamState::Reading,
                    State::Over(_) => StreamState::Over,
                },
            };
            top.offer(&seen, || entry.socket.peer_addr().ok());
        }
        if has_more {
            self.mailbox.send(Command::Look(from + SLICE, top, reply));
        } else {
            // Whoever asked may have gone.
            drop(reply.send(top));
        }
    }

    /// The memory of these entries is cold, and is asked for all at once.
    fn warm(&self, numbers: &[u32]) {
        for number in numbers {
            if let Some(entry) = self.entries.get(*number) {
                entry.warm();
            }
        }
    }

    /// Looks at an entry: its bell has rung, its time has come, or its socket is free again.
    fn look(&mut self, number: u32) {
        let Some(entry) = self.entries.get_mut(number) else {
            return;
        };
        entry.found_at = entry.found_at.filter(|at| *at > self.now);
        if matches!(entry.state, State::Live(_)) && !entry.is_blocked() {
            self.turn(number);
            return;
        }
        let ending = if matches!(entry.state, State::Opening(_)) {
            let drain = &self.shared.settings.drain;
            drain.has_begun().then_some(Ending::Cut(CloseReason::Drain))
        } else {
            entry.stream().and_then(|stream| stream.overdue(self.now))
        };
        if let Some(ending) = ending {
            // A reader that has stopped is not waited for.
            let blocked = entry.is_blocked();
            say_closed(entry, ending.reason());
            let written = entry.end(ending);
            if blocked || written != Written::Blocked {
                self.remove(number);
            }
            return;
        }
        if entry.is_blocked() {
            self.schedule_blocked(number);
            return;
        }
        if matches!(entry.state, State::Over(_)) {
            self.remove(number);
            return;
        }
        self.turn(number);
    }

    fn turn(&mut self, number: u32) {
        let now = Now {
            instant: self.now,
            wall: self.tally.clock(),
        };
        for _ in 0..TURNS {
            let Some(entry) = self.entries.get_mut(number) else {
                return;
            };
            let turn = match &mut entry.state {
                State::Live(stream) => stream.turn(now, &mut self.out),
                State::Opening(_) | State::Reading { .. } => {
                    if entry.due > self.now {
                        self.schedule(number);
                        return;
                    }
                    // While the log is waited for, the client still hears that it is connected.
                    self.shared.settings.metrics.heartbeats.inc();
                    self.out.push(HEARTBEAT);
                    Turn::Wait(self.now + self.shared.settings.heartbeat)
                }
                State::Over(_) => return,
            };
            entry.guard.add_bytes(self.out.bytes as u64);
            self.tally.add(&mut self.out);
            let written = entry.write(&mut self.out.pieces);
            if let Written::Gone(reason) = written {
                self.lose(number, reason);
                return;
            }
            match turn {
                Turn::More if written == Written::All => {}
                Turn::More => {
                    self.schedule_blocked(number);
                    return;
                }
                Turn::Wait(until) => {
                    entry.due = until;
                    self.schedule(number);
                    return;
                }
                Turn::Read(request) => {
                    let (shared, mailbox) = (&self.shared, &self.mailbox);
                    let metrics = &shared.settings.metrics;
                    let awaited =
                        self.waits
                            .join(entry.key(), request, metrics, |wait, request| {
                                let (reads, mailbox) = (shared.reads.clone(), mailbox.clone());
                                let asked = async move {
                                    let reading = reads.read(request.clone()).await;
                                    mailbox.send(Command::Pages(wait, request, reading));
                                };
                                shared.runtime.spawn(asked).abort_handle()
                            });
                    let over = State::Over(Ending::Cut(CloseReason::Client));
                    entry.state = match std::mem::replace(&mut entry.state, over) {
                        State::Live(stream) => State::Reading {
                            stream: Box::new(stream),
                            _awaited: awaited,
                        },
                        other => other,
                    };
                    entry.due = self.now + self.shared.settings.heartbeat;
                    self.schedule(number);
                    return;
                }
                Turn::Over(ending) => {
                    say_closed(entry, ending.reason());
                    if entry.end(ending) != Written::Blocked {
                        self.remove(number);
                    }
                    return;
                }
            }
        }
        self.again.push(number);
    }

    /// Sees to it that the entry is found at its time.
    fn schedule(&mut self, number: u32) {
        let Some(entry) = self.entries.get_mut(number) else {
            return;
        };
        let at = match entry.state {
            // Nothing rings it: it is looked at for the drain.
            State::Opening(_) => entry.due.min(self.now + LOOK),
            _ => entry.due,
        };
        entry.found_at = Some(self.wheel.put(number, at, entry.found_at));
    }

    /// A blocked entry is woken by its socket, and looked at for its age and the drain.
    fn schedule_blocked(&mut self, number: u32) {
        if let Some(entry) = self.entries.get_mut(number) {
            entry.due = entry.due.max(self.now + LOOK);
        }
        self.schedule(number);
    }
}

/// Says in the log that the stream ends, while it is there to tell how it stands.
fn say_closed(entry: &mut Connection, reason: CloseReason) {
    if let Some(standing) = entry.stream().map(Stream::standing) {
        entry.guard.say_closed(reason, standing);
    }
}

/// A replica without one of its threads would look healthy and leave its streams in silence.
pub(super) fn end_process_on_panic<T>(run: impl FnOnce() -> T) -> T {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|_| {
        tracing::error!("a thread that writes streams panicked; the process ends");
        std::process::abort()
    })
}
