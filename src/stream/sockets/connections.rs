//! The connections of one thread: how they come, have their turns, and go.
//!
//! Each stands in three places besides its own: in the wheel, which finds it at its time; in the
//! group of each of its topics, which finds it when there is something to show; and, while it waits
//! for pages of the log, in the waits.

use super::beat::Beat;
use super::command::Command;
use super::connection::{Connection, Written};
use super::handoff::HandedOff;
use super::held::Held;
use super::mailbox::Mailbox;
use super::run_queue::{Batch, RunQueue};
use super::table::{Key, Table};
use super::waits::Waits;
use crate::follow::reads::Reads;
use crate::log::LogRead;
use crate::metrics::CloseReason;
use crate::stream::listing::{SLICE, Top};
use crate::stream::out::Out;
use crate::stream::settings::StreamSettings;
use crate::stream::tally::Tally;
use crate::stream::turn::{Ending, Now, Turn};
use crate::time::CoarseInstant;
use mio::event::Event;
use mio::{Interest, Registry, Token};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Between two checks of a connection that nothing wakes: whether a drain has begun, or its age is
/// reached.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Connections that are fetched into the cache together, with one reading of the clock: fewer would
/// wait for one another, more would drive each other out.
const AHEAD: usize = 16;
/// Turns of one stream before others get theirs.
const TURNS: usize = 4;

/// What connections need besides their own.
pub(super) struct Shared {
    pub(super) settings: Arc<StreamSettings>,
    pub(super) reads: Reads,
    pub(super) runtime: tokio::runtime::Handle,
    /// Of the thread.
    pub(super) beat: Arc<Beat>,
}

pub(super) struct Connections {
    shared: Shared,
    registry: Registry,
    mailbox: Arc<Mailbox>,
    all: Table<Connection>,
    queue: RunQueue,
    waits: Waits,
    held: Held,
    /// Of the connection that came last: tells those apart that had the same number.
    serial: u32,
    /// The time of this round. All that is done in it is done at one time.
    now: CoarseInstant,
    /// What a turn makes; empty between turns.
    out: Out,
    /// Counted here and told once a round: threads that share counters wait for one another.
    tally: Tally,
    /// Where what peers say is read into, to be forgotten.
    scratch: Box<[u8]>,
}

impl Connections {
    pub(super) fn new(shared: Shared, registry: Registry, mailbox: Arc<Mailbox>) -> Self {
        let now = CoarseInstant::now();
        Self {
            tally: Tally::new(&shared.settings.metrics),
            shared,
            registry,
            queue: RunQueue::new(mailbox.clone(), now),
            mailbox,
            all: Table::new(),
            waits: Waits::default(),
            held: Held::default(),
            serial: 0,
            now,
            out: Out::chunked(),
            scratch: vec![0; 4096].into(),
        }
    }

    /// How long until there may be something to do; none if only somebody else can tell.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.queue.wait()
    }

    /// A round begins: all that is done in it is done at this time.
    pub(super) fn begin_round(&mut self) {
        self.now = CoarseInstant::now();
        self.tally.read_clock();
        while let Some((since, key)) = self.held.next_due(self.now) {
            self.release_pages(since, key);
        }
    }

    /// A connection that has been blocked since this time lets its pages go.
    fn release_pages(&mut self, since: CoarseInstant, key: Key) {
        if self.get(key).is_some_and(|it| it.release_pages(since)) {
            self.held.released(key, self.now);
        }
    }

    /// A connection is blocked now. What it holds it keeps for a while, unless somebody waits for the room.
    fn blocked(&mut self, number: u32) {
        let Some(key) = self.all.get(number).map(Connection::key) else {
            return;
        };
        if self.shared.reads.is_short_of_room() {
            self.release_pages(self.now, key);
        } else {
            self.held.hold(key, self.now);
        }
    }

    /// All are advanced whose group was woken, whose time has come, or who had more to write.
    /// `woken` is empty then.
    pub(super) fn end_round(&mut self, woken: &mut Vec<u32>) {
        let batch = self.queue.take(self.now, woken);
        self.advance_all(batch, true);
    }

    /// Only those are advanced whose group was woken. False if that leaves something for the thread
    /// to do, or something to be done sooner than it would wake.
    pub(super) fn advance_woken(&mut self, woken: &mut Vec<u32>) -> bool {
        self.now = CoarseInstant::now();
        let batch = self.queue.take_woken(woken);
        self.advance_all(batch, false)
    }

    /// False if that leaves something for the thread ([`RunQueue::finish`]). The thread itself gives a sign of life
    /// meanwhile: over very many connections it may take long.
    fn advance_all(&mut self, batch: Batch, by_thread: bool) -> bool {
        if !batch.numbers.is_empty() {
            let began = Instant::now();
            for few in batch.numbers.chunks(AHEAD) {
                self.warm(few);
                self.tally.read_clock();
                if by_thread {
                    self.shared.beat.touch();
                }
                few.iter().for_each(|number| self.advance(*number));
            }
            self.tally.swept(began.elapsed());
        }
        self.tally.flush();
        self.queue.finish(batch)
    }

    /// The memory of these connections is cold, and is asked for all at once.
    fn warm(&self, numbers: &[u32]) {
        for number in numbers {
            if let Some(connection) = self.all.get(*number) {
                connection.warm();
            }
        }
    }

    /// The socket of a connection can be read, or written again.
    pub(super) fn event(&mut self, event: &Event) {
        let Ok(number) = u32::try_from(event.token().0) else {
            return;
        };
        let Some(connection) = self.all.get_mut(number) else {
            return;
        };
        let readable = event.is_readable() || event.is_read_closed() || event.is_error();
        if readable && let Err(reason) = connection.listen(&mut self.scratch) {
            self.lose(number, reason);
            return;
        }
        if event.is_writable() && connection.is_blocked() {
            match connection.flush() {
                Written::All => self.advance(number),
                Written::Blocked => {}
                Written::Gone(reason) => self.lose(number, reason),
            }
        }
    }

    /// Does what the thread was told. False if that is to end.
    pub(super) fn command(&mut self, command: Command) -> bool {
        match command {
            Command::Adopt(number, handed_off) => self.adopt(number, *handed_off),
            Command::Opened(key, stream) => {
                if let Some(connection) = self.get(key) {
                    connection.opened(*stream);
                    self.join(key.number);
                    self.advance(key.number);
                }
            }
            Command::Pages(number, request, reading) => {
                for key in self.waits.end(number, &request) {
                    // It shows them when it has its turn.
                    if self.get(key).is_some_and(|it| it.resume(&reading)) {
                        self.queue.put_again(key.number);
                    }
                }
            }
            Command::ReleasePages => {
                for (since, key) in self.held.take_all() {
                    self.release_pages(since, key);
                }
            }
            Command::List(from, top, reply) => self.list(from, top, reply),
            Command::Stop => {
                self.all
                    .drain()
                    .for_each(|mut it| it.close(CloseReason::Drain));
                return false;
            }
        }
        true
    }

    /// The connection of this key, unless another one has its number by now.
    fn get(&mut self, key: Key) -> Option<&mut Connection> {
        let connection = self.all.get_mut(key.number);
        connection.filter(|connection| connection.key() == key)
    }

    fn adopt(&mut self, number: u32, handed_off: HandedOff) {
        self.serial = self.serial.wrapping_add(1);
        let key = Key {
            number,
            serial: self.serial,
        };
        let heartbeat = self.shared.settings.heartbeat;
        let due = self.now + heartbeat.mul_f64(rand::random_range(0.0..1.0));
        let mut connection = Connection::new(handed_off, key, due, |opening| {
            let mailbox = self.mailbox.clone();
            let task = self.shared.runtime.spawn(async move {
                let stream = Box::new(opening.await);
                mailbox.send(Command::Opened(key, stream));
            });
            task.abort_handle()
        });
        // Edge-triggered: registered once, and quiet as long as nothing changes.
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = Token(number as usize);
        if let Err(why) = self.registry.register(connection.socket(), token, interest) {
            tracing::warn!(%why, "a connection cannot be watched and is cut");
            return;
        }
        let is_opening = connection.is_opening();
        self.all.insert(number, connection);
        if is_opening {
            self.schedule(number);
        } else {
            self.join(number);
            self.advance(number);
        }
    }

    /// From here on a live connection is woken together with all others that read the same. What
    /// happened before is not told to it, so it must be advanced once after this.
    fn join(&mut self, number: u32) {
        let Some(connection) = self.all.get_mut(number) else {
            return;
        };
        connection.join(|source| self.queue.join(source, number));
    }

    fn remove(&mut self, number: u32) -> Option<Connection> {
        let connection = self.all.remove(number)?;
        for membership in &connection.memberships {
            self.queue.leave(*membership);
        }
        Some(connection)
    }

    fn lose(&mut self, number: u32, reason: CloseReason) {
        if let Some(mut connection) = self.remove(number) {
            connection.close(reason);
        }
    }

    /// Offers some connections to a list; the others when those that are ready have had their turn.
    fn list(&mut self, from: usize, mut top: Top, reply: oneshot::Sender<Top>) {
        let (some, has_more) = self.all.some(from, SLICE);
        for connection in some {
            top.offer(&connection.seen(), || connection.address());
        }
        if has_more {
            self.mailbox.send(Command::List(from + SLICE, top, reply));
        } else {
            // Whoever asked may have gone.
            drop(reply.send(top));
        }
    }

    /// Something has happened to a connection: its group was woken, its time has come, or its
    /// socket is free again. Ends it, or lets it have its turns.
    fn advance(&mut self, number: u32) {
        let Some(connection) = self.all.get_mut(number) else {
            return;
        };
        connection.found_at = connection.found_at.filter(|at| *at > self.now);
        // The usual case, and the stream itself asks whether it is overdue.
        if connection.is_live() && !connection.is_blocked() {
            self.turn(number);
            return;
        }
        if let Some(ending) = connection.overdue(self.now, &self.shared.settings) {
            if connection.stop_reading() {
                // In its turn it tells what it may have gone past, and ends.
                self.turn(number);
                return;
            }
            // A reader that has stopped is not waited for.
            let was_blocked = connection.is_blocked();
            if connection.end(ending, self.now) != Written::Blocked || was_blocked {
                self.remove(number);
            }
        } else if connection.is_blocked() {
            self.schedule_blocked(number);
        } else if connection.is_over() {
            // Its last bytes are out.
            self.remove(number);
        } else {
            self.turn(number);
        }
    }

    /// Turns of one stream, each written before the next. A stream that has more goes on when the
    /// others have had theirs.
    fn turn(&mut self, number: u32) {
        let now = Now {
            instant: self.now,
            wall: self.tally.clock(),
        };
        for _ in 0..TURNS {
            let Some(connection) = self.all.get_mut(number) else {
                return;
            };
            let turn = connection.turn(now, &self.shared.settings, &mut self.out);
            connection.guard.add_bytes(self.out.bytes as u64);
            self.tally.add(&mut self.out);
            let written = connection.write(&mut self.out.pieces, self.now);
            if let Turn::Wait(until) = turn {
                connection.due = until;
            }
            if written == Written::Blocked {
                self.blocked(number);
            }
            match (turn, written) {
                (_, Written::Gone(reason)) => return self.lose(number, reason),
                (Turn::More, Written::All) => {}
                // It reads on when what it has shown is out.
                (Turn::More | Turn::Read(_), Written::Blocked) => {
                    return self.schedule_blocked(number);
                }
                (Turn::Wait(_), _) => return self.schedule(number),
                (Turn::Read(request), _) => return self.read(number, request),
                (Turn::Over(ending), _) => return self.end(number, ending),
            }
        }
        self.queue.put_again(number);
    }

    /// Ends a connection whose socket still takes something: it goes once its last bytes are out.
    fn end(&mut self, number: u32, ending: Ending) {
        if let Some(connection) = self.all.get_mut(number)
            && connection.end(ending, self.now) != Written::Blocked
        {
            self.remove(number);
        }
    }

    /// A connection waits for what the log has, together with others that want the same.
    fn read(&mut self, number: u32, request: LogRead) {
        let Some(connection) = self.all.get_mut(number) else {
            return;
        };
        if let Some(at) = self.held.reads_at(connection.key(), self.now) {
            connection.due = at;
            return self.schedule(number);
        }
        let (shared, mailbox) = (&self.shared, &self.mailbox);
        let (key, metrics) = (connection.key(), &shared.settings.metrics);
        let name = connection.guard.network();
        let awaited = self
            .waits
            .join(key, name, request, metrics, |wait, request| {
                let (reads, mailbox) = (shared.reads.clone(), mailbox.clone());
                let asked = async move {
                    let reading = reads.read(request.clone(), name).await;
                    mailbox.send(Command::Pages(wait, request, reading));
                };
                shared.runtime.spawn(asked).abort_handle()
            });
        connection.wait_for_pages(awaited);
        connection.due = self.now + self.shared.settings.heartbeat;
        self.schedule(number);
    }

    /// Sees to it that the connection is found at its time.
    fn schedule(&mut self, number: u32) {
        let Some(connection) = self.all.get_mut(number) else {
            return;
        };
        let at = if connection.is_opening() {
            // Nothing wakes it: whether a drain has begun is checked now and then.
            connection.due.min(self.now + CHECK_EVERY)
        } else {
            connection.due
        };
        connection.found_at = Some(self.queue.put(number, at, connection.found_at));
    }

    /// A blocked connection is woken by its socket; its age and the drain are checked now and then.
    fn schedule_blocked(&mut self, number: u32) {
        if let Some(connection) = self.all.get_mut(number) {
            connection.due = connection.due.max(self.now + CHECK_EVERY);
        }
        self.schedule(number);
    }
}
