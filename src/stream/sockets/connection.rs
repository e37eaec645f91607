//! One connection: a socket, and the stream that goes out on it.
//!
//! ```text
//!  new ─> Opening ──opened──> Live <──resume── Reading      end(ending), from any ─> Over
//!                              └──wait_for_pages──┘
//! ```
//!
//! Beside its state a connection may be *blocked*: its socket did not take all of a turn. Nothing
//! more is shown then until the rest is written, so what waits is never more than one turn made.

use super::gate::Place;
use super::groups::Membership;
use super::handoff::{HandedOff, Handoff};
use super::send::{Rest, send, send_all};
use super::table::Key;
use super::waits::Awaited;
use crate::address::Address;
use crate::hub::WakerId;
use crate::hub::wake_source::WakeSource;
use crate::log::Reading;
use crate::metrics::{CloseReason, WayOut};
use crate::sse::{HEARTBEAT, Span, chunk};
use crate::stream::life::Life;
use crate::stream::listing::{Seen, StreamState};
use crate::stream::open::{MaybeOpen, Opening};
use crate::stream::out::Out;
use crate::stream::registry::StreamGuard;
use crate::stream::settings::StreamSettings;
use crate::stream::tally::clock;
use crate::stream::turn::{Ending, Now, Stream, Turn};
use crate::time::CoarseInstant;
use bytes::Bytes;
use mio::net::TcpStream;
use rustix::net::SendFlags;
use smallvec::SmallVec;
use std::io::{self, Read as _};
use std::sync::Arc;
use tokio::task::AbortHandle;

/// Bytes that a peer may send on an event stream before it is taken for something else.
const CHATTER_MAX: u32 = 64 * 1024;

/// Where a stream stands. Nearly all are live, so the stream stands here and not behind a pointer;
/// and connections stand in one list, so that quiet ones cost the allocator nothing.
#[allow(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, and stands in the list itself"
)]
enum State {
    /// It cannot begin yet; the task that waits for it, and by whose right.
    Opening { task: AbortHandle, life: Life },
    /// It writes whenever there is something.
    Live(Stream),
    /// It waits for pages of the log. Few do at a time, so the stream goes behind a pointer.
    Reading {
        stream: Box<Stream>,
        _awaited: Awaited,
    },
    /// What is left is written, then the connection ends.
    Over(Ending),
    /// Taken out to become another one: nobody sees this.
    Moving,
}

/// A connection that a thread owns. Dropped, it is closed, and its place is given back.
pub(super) struct Connection {
    socket: TcpStream,
    key: Key,
    state: State,
    /// Its places in the groups that are woken.
    pub(super) memberships: SmallVec<[Membership; 1]>,
    pub(super) guard: StreamGuard,
    /// When its next turn is due though nothing wakes it.
    pub(super) due: CoarseInstant,
    /// When the wheel will find it.
    pub(super) found_at: Option<CoarseInstant>,
    /// Bytes that the socket did not take.
    rest: Option<Box<Rest>>,
    /// Bytes that the peer has sent.
    chatter: u32,
    _place: Place,
}

/// What a quiet stream costs in the list of its thread: it must not grow unnoticed.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Option<Connection>>() <= 392);

/// What a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// The kernel has taken all of it.
    All,
    /// The socket takes no more for now.
    Blocked,
    /// The peer is gone, and how.
    Gone(CloseReason),
}

impl Connection {
    /// A connection that was handed over. If its stream cannot begin yet, `wait` has it waited for.
    pub(super) fn new(
        handed_off: HandedOff,
        key: Key,
        due: CoarseInstant,
        wait: impl FnOnce(Opening) -> AbortHandle,
    ) -> Self {
        let HandedOff {
            socket,
            place,
            handoff:
                Handoff {
                    opened,
                    guard,
                    life,
                },
        } = handed_off;
        Self {
            socket: TcpStream::from_std(socket),
            key,
            state: match opened {
                MaybeOpen::Open(stream) => State::Live(stream),
                MaybeOpen::Opening(opening) => State::Opening {
                    task: wait(opening),
                    life,
                },
            },
            memberships: SmallVec::new(),
            guard,
            due,
            found_at: None,
            rest: None,
            chatter: 0,
            _place: place,
        }
    }

    pub(super) fn key(&self) -> Key {
        self.key
    }

    /// For the thread to watch.
    pub(super) fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    pub(super) fn is_opening(&self) -> bool {
        matches!(self.state, State::Opening { .. })
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over(_))
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.state, State::Live(_))
    }

    /// Has a live stream woken by groups from here on; `join` takes a place in the group of each
    /// source.
    pub(super) fn join(&mut self, mut join: impl FnMut(WakeSource) -> (WakerId, Membership)) {
        if let State::Live(stream) = &mut self.state {
            stream.share_wakers(|source| {
                let (waker_id, membership) = join(source);
                self.memberships.push(membership);
                waker_id
            });
        }
    }

    /// Its stream; none while that opens, and once it is over.
    fn stream(&self) -> Option<&Stream> {
        match &self.state {
            State::Live(stream) => Some(stream),
            State::Reading { stream, .. } => Some(stream),
            State::Opening { .. } | State::Over(_) | State::Moving => None,
        }
    }

    /// From opening to live: all that it waited for is known.
    pub(super) fn opened(&mut self, stream: Stream) {
        self.state = State::Live(stream);
    }

    /// From live to reading. `awaited` ends what it waits for, should the connection go.
    pub(super) fn wait_for_pages(&mut self, awaited: Awaited) {
        self.state = match std::mem::replace(&mut self.state, State::Moving) {
            State::Live(stream) => State::Reading {
                stream: Box::new(stream),
                _awaited: awaited,
            },
            other => other,
        };
    }

    /// From reading to live, with what it has waited for. False if it did not wait. A connection that is
    /// blocked asks again when it is not.
    pub(super) fn resume(&mut self, reading: &Arc<Reading>) -> bool {
        match std::mem::replace(&mut self.state, State::Moving) {
            State::Reading { mut stream, .. } => {
                if self.rest.is_none() {
                    stream.take(reading);
                }
                self.state = State::Live(*stream);
                true
            }
            other => {
                self.state = other;
                false
            }
        }
    }

    /// From reading to live, without what it waits for. False if it does not wait, or its socket takes nothing.
    pub(super) fn stop_reading(&mut self) -> bool {
        if self.is_blocked() {
            return false;
        }
        match std::mem::replace(&mut self.state, State::Moving) {
            State::Reading { stream, .. } => {
                self.state = State::Live(*stream);
                true
            }
            other => {
                self.state = other;
                false
            }
        }
    }

    /// How it is over, if its time has come, whether or not its socket takes anything.
    pub(super) fn overdue(&self, now: CoarseInstant, settings: &StreamSettings) -> Option<Ending> {
        if let State::Opening { life, .. } = &self.state {
            return life.cut_before_begun(settings, clock()).map(Ending::Cut);
        }
        self.stream().and_then(|stream| stream.overdue(now))
    }

    /// What it does next; what it writes goes to `out`.
    pub(super) fn turn(&mut self, now: Now, settings: &StreamSettings, out: &mut Out) -> Turn {
        match &mut self.state {
            State::Live(stream) => stream.turn(now, out),
            // While the log is waited for, the client still hears that it is connected.
            State::Opening { .. } | State::Reading { .. } if self.due <= now.instant => {
                settings.metrics.heartbeats.inc();
                out.push(HEARTBEAT);
                Turn::Wait(now.instant + settings.heartbeat)
            }
            _ => Turn::Wait(self.due),
        }
    }

    /// What is known of it, for a list.
    pub(super) fn seen(&self) -> Seen<'_> {
        Seen {
            stream: self.stream(),
            age: self.guard.age(),
            bytes: self.guard.bytes(),
            way: WayOut::Socket,
            state: match self.state {
                _ if self.is_blocked() => StreamState::Blocked,
                State::Opening { .. } => StreamState::Opening,
                State::Live(_) => StreamState::Live,
                State::Reading { .. } => StreamState::Reading,
                State::Over(_) | State::Moving => StreamState::Over,
            },
        }
    }

    /// Whose it is: the client that a proxy has told, else the other end.
    pub(super) fn address(&self) -> Option<Address> {
        let peer = || self.socket.peer_addr().ok().map(Address::from);
        self.guard.address().or_else(peer)
    }

    /// Reads a little of each part of it, so that it is in the cache when its turn comes.
    pub(super) fn warm(&self) {
        std::hint::black_box((self.due, self.found_at, self.guard.bytes()));
        if let State::Live(stream) = &self.state {
            stream.warm();
        }
    }

    /// Whether bytes wait for the socket. Nothing more is shown until they are gone.
    pub(super) fn is_blocked(&self) -> bool {
        self.rest.is_some()
    }

    /// Reads what the peer says, which is nothing.
    ///
    /// # Errors
    /// How it is gone, if it is.
    pub(super) fn listen(&mut self, scratch: &mut [u8]) -> Result<(), CloseReason> {
        loop {
            match self.socket.read(scratch) {
                Ok(0) => return Err(CloseReason::Client),
                Ok(read) => {
                    self.chatter = self
                        .chatter
                        .saturating_add(u32::try_from(read).unwrap_or(u32::MAX));
                    if self.chatter > CHATTER_MAX {
                        return Err(CloseReason::Client);
                    }
                }
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(gone(&why)),
            }
        }
    }

    /// Writes pieces. What the socket does not take waits; the pieces' bytes are shared with the
    /// window, so that waiting costs no copy of them.
    pub(super) fn write(&mut self, pieces: &mut Vec<Span>, now: CoarseInstant) -> Written {
        let sent = match pieces.as_slice() {
            [] => return Written::All,
            [piece] => send(|| Ok(rustix::net::send(&self.socket, piece, SendFlags::empty())?)),
            many => send_all(&self.socket, many.iter()),
        };
        let sent = match sent {
            Ok(sent) => sent,
            Err(why) => {
                pieces.clear();
                return Written::Gone(gone(&why));
            }
        };
        if sent == pieces.iter().map(|piece| piece.len()).sum::<usize>() {
            pieces.clear();
            return Written::All;
        }
        let mut rest = Rest::new(self.guard.metrics(), now);
        pieces
            .drain(..)
            .for_each(|piece| rest.push(piece.into_bytes()));
        rest.drop_front(sent);
        self.rest = Some(Box::new(rest));
        // Edge-triggered: only a call that would block has the kernel tell when it would not.
        self.flush()
    }

    /// Lets the pages go that its stream holds, if it has been blocked since this time. Whether that is so.
    pub(super) fn release_pages(&mut self, since: CoarseInstant) -> bool {
        let is_blocked = self.rest.as_ref().is_some_and(|rest| rest.since == since);
        if is_blocked && let State::Live(stream) = &mut self.state {
            stream.release_pages();
            return true;
        }
        false
    }

    /// Writes what waits for the socket, as far as it takes it.
    pub(super) fn flush(&mut self) -> Written {
        let Some(rest) = &mut self.rest else {
            return Written::All;
        };
        match rest.send(&self.socket) {
            Ok(true) => {
                // A quiet stream holds no memory for it.
                self.rest = None;
                Written::All
            }
            Ok(false) => Written::Blocked,
            Err(why) => Written::Gone(gone(&why)),
        }
    }

    /// It is over: what waits is written first, then the end, if it is a clean one.
    pub(super) fn end(&mut self, ending: Ending, now: CoarseInstant) -> Written {
        self.close(ending.reason());
        if matches!(ending, Ending::Clean(_)) {
            let metrics = self.guard.metrics();
            let rest = self
                .rest
                .get_or_insert_with(|| Box::new(Rest::new(metrics, now)));
            rest.push(Bytes::from_static(chunk::LAST));
        }
        self.state = State::Over(ending);
        self.flush()
    }

    /// Notes why it ends, and says so in the log while the stream is there to tell how it stands.
    pub(super) fn close(&mut self, reason: CloseReason) {
        if let Some(standing) = self.stream().map(Stream::standing) {
            let address = self.address();
            self.guard.say_closed(reason, standing, address);
        }
        self.guard.close(reason);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        match &self.state {
            State::Opening { task, .. } => task.abort(),
            State::Over(Ending::Clean(_)) => {
                // The peer reads the end before it hears that the connection is closed.
                drop(self.socket.shutdown(std::net::Shutdown::Write));
            }
            State::Live(_)
            | State::Reading { .. }
            | State::Over(Ending::Cut(_))
            | State::Moving => {}
        }
    }
}

/// A peer that takes nothing for long, or does not answer signs of life, has timed out
/// ([tcp(7)](https://man7.org/linux/man-pages/man7/tcp.7.html), `TCP_USER_TIMEOUT`).
fn gone(why: &io::Error) -> CloseReason {
    match why.kind() {
        io::ErrorKind::TimedOut => CloseReason::Timeout,
        _ => CloseReason::Client,
    }
}
