//! One entry: a socket, and the stream that goes out on it.

use super::gate::Place;
use super::groups::Seat;
use super::table::Key;
use super::waits::Awaited;
use crate::metrics::{Behind, CloseReason, Counted, Metrics};
use crate::sse::{Span, chunk};
use crate::stream::registry::StreamGuard;
use crate::stream::turn::{Ending, Stream};
use crate::time::CoarseInstant;
use bytes::Bytes;
use mio::net::TcpStream;
use rustix::net::SendFlags;
use smallvec::SmallVec;
use socket2::SockRef;
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read as _};
use std::ops::Deref;
use tokio::task::AbortHandle;

/// Bytes that a peer may send on an event stream before it is taken for something else.
const CHATTER_MAX: u32 = 64 * 1024;
/// Slices of one vectored write: of an event or a few, and of a whole turn. The kernel takes 1,024.
const SLICES: usize = 8;
const SLICES_MAX: usize = 512;

/// Where a stream stands. Nearly all are live, so the stream stands here and not behind a pointer;
/// and entries stand in one list, so that quiet ones cost the allocator nothing.
#[allow(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, and stands in the list itself"
)]
pub(super) enum State {
    /// It cannot begin yet; the task that waits for it.
    Opening(AbortHandle),
    /// It writes whenever there is something.
    Live(Stream),
    /// It waits for pages of the log.
    Reading {
        stream: Box<Stream>,
        _awaited: Awaited,
    },
    /// What is left is written, then the connection ends.
    Over(Ending),
}

/// One connection.
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    key: Key,
    pub(super) state: State,
    /// Its places in the groups that are woken.
    pub(super) seats: SmallVec<[Seat; 1]>,
    pub(super) guard: StreamGuard,
    /// When it wants to be looked at, and when the wheel will find it.
    pub(super) due: CoarseInstant,
    pub(super) found_at: Option<CoarseInstant>,
    /// Bytes that the socket did not take.
    rest: Option<Box<Rest>>,
    chatter: u32,
    _place: Place,
}

/// What waits for the socket.
struct Rest {
    /// Pieces in the order in which they are to be written.
    pieces: VecDeque<Bytes>,
    _counted: Counted,
}

impl Rest {
    fn new(metrics: &Metrics) -> Self {
        Self {
            pieces: VecDeque::new(),
            _counted: metrics.behind(Behind::Blocked),
        }
    }
}

/// What an entry is given when it is adopted.
pub(super) struct Around {
    pub(super) socket: std::net::TcpStream,
    pub(super) place: Place,
    pub(super) guard: StreamGuard,
}

/// What a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// All of it.
    All,
    /// The socket takes no more for now.
    Blocked,
    /// The peer is gone, and how.
    Gone(CloseReason),
}

impl Connection {
    /// An entry in `state`, around what it was adopted with.
    pub(super) fn new(around: Around, state: State, key: Key, due: CoarseInstant) -> Self {
        Self {
            socket: TcpStream::from_std(around.socket),
            key,
            state,
            seats: SmallVec::new(),
            guard: around.guard,
            due,
            found_at: None,
            rest: None,
            chatter: 0,
            _place: around.place,
        }
    }

    pub(super) fn key(&self) -> Key {
        self.key
    }

    /// Its stream; none while that opens, and once it is over.
    pub(super) fn stream(&self) -> Option<&Stream> {
        match &self.state {
            State::Live(stream) => Some(stream),
            State::Reading { stream, .. } => Some(stream),
            State::Opening(_) | State::Over(_) => None,
        }
    }

    /// Reads a little of each part of it, so that it is in the cache when it is looked at.
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
    pub(super) fn write(&mut self, pieces: &mut Vec<Span>) -> Written {
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
        let mut rest = Rest::new(self.guard.metrics());
        rest.pieces.extend(pieces.drain(..).map(Span::into_bytes));
        advance(&mut rest.pieces, sent);
        self.rest = Some(Box::new(rest));
        self.flush()
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self) -> Written {
        let Some(rest) = &mut self.rest else {
            return Written::All;
        };
        while !rest.pieces.is_empty() {
            let sent = match send_all(&self.socket, rest.pieces.iter()) {
                Ok(0) => return Written::Blocked,
                Ok(sent) => sent,
                Err(why) => return Written::Gone(gone(&why)),
            };
            advance(&mut rest.pieces, sent);
        }
        // A quiet stream holds no memory for it.
        self.rest = None;
        Written::All
    }

    /// It is over: what waits is written first, then the end, if it is a clean one.
    pub(super) fn end(&mut self, ending: Ending) -> Written {
        self.guard.close(ending.reason());
        if matches!(ending, Ending::Clean(_)) {
            let metrics = self.guard.metrics();
            let rest = self
                .rest
                .get_or_insert_with(|| Box::new(Rest::new(metrics)));
            rest.pieces.push_back(Bytes::from_static(chunk::LAST));
        }
        self.state = State::Over(ending);
        self.flush()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        match &self.state {
            State::Opening(task) => task.abort(),
            State::Over(Ending::Clean(_)) => {
                // The peer reads the end before it hears that the connection is closed.
                drop(self.socket.shutdown(std::net::Shutdown::Write));
            }
            State::Live(_) | State::Reading { .. } | State::Over(Ending::Cut(_)) => {}
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

/// Writes the first of these; the bytes that the socket took, 0 if it would block.
fn send_all<'a>(
    socket: &TcpStream,
    pieces: impl ExactSizeIterator<Item = &'a (impl Deref<Target = [u8]> + 'a)>,
) -> io::Result<usize> {
    if pieces.len() <= SLICES {
        send_some::<SLICES>(socket, pieces)
    } else {
        send_some::<SLICES_MAX>(socket, pieces)
    }
}

fn send_some<'a, const N: usize>(
    socket: &TcpStream,
    pieces: impl Iterator<Item = &'a (impl Deref<Target = [u8]> + 'a)>,
) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); N];
    let mut used = 0;
    for (slice, piece) in slices.iter_mut().zip(pieces) {
        *slice = IoSlice::new(piece);
        used += 1;
    }
    let slices = slices.get(..used).unwrap_or_default();
    // sendmsg(2) knows that it has a socket; writev(2) takes the way of files.
    let socket = SockRef::from(socket);
    send(|| socket.send_vectored(slices))
}

fn send(mut write: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match write() {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            sent => return sent,
        }
    }
}

/// Drops `sent` bytes from the front, and parts that are empty.
fn advance(rest: &mut VecDeque<Bytes>, mut sent: usize) {
    while let Some(front) = rest.front_mut() {
        if front.len() > sent {
            bytes::Buf::advance(front, sent);
            return;
        }
        sent -= front.len();
        rest.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_dropped_and_the_rest_stays() {
        let parts = ["3\r\n", "abc", "\r\n"];
        for sent in 0..=8 {
            let mut rest: VecDeque<Bytes> = parts.iter().map(|p| Bytes::from(*p)).collect();
            advance(&mut rest, sent);
            let left: Vec<u8> = rest.iter().flat_map(|part| part.to_vec()).collect();
            assert_eq!(left, parts.concat().as_bytes().get(sent..).unwrap());
            assert!(rest.iter().all(|part| !part.is_empty()));
        }
    }
}
