//! One entry: a socket, and the stream that goes out on it.

use super::Place;
use super::mailbox::{EntryWaker, Key};
use crate::engine::body::Lease;
use crate::engine::stream::{Ending, Stream};
use crate::hub::Bell;
use crate::metrics::CloseReason;
use bytes::Bytes;
use mio::net::TcpStream;
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::sync::Arc;
use std::task::Waker;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Bytes that a peer may send on an event stream before it is taken for something else.
const CHATTER_MAX: u32 = 64 * 1024;
/// Slices of one vectored write.
const SLICES: usize = 64;

/// Where a stream stands. Nearly all are live, so the stream stands here and not behind a pointer.
pub(super) enum State {
    /// It cannot begin yet; the task that waits for it.
    Opening(AbortHandle),
    /// It writes whenever there is something.
    Live(Stream),
    /// It waits for pages of the log; the task that reads them.
    Reading(Stream, AbortHandle),
    /// What is left is written, then the connection ends.
    Over(Ending),
}

/// One connection.
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    pub(super) state: State,
    pub(super) bell: Arc<Bell>,
    pub(super) rung: Arc<EntryWaker>,
    pub(super) waker: Waker,
    pub(super) lease: Lease,
    pub(super) key: Key,
    /// When it wants to be looked at, and when the wheel will find it.
    pub(super) due: Instant,
    pub(super) found_at: Option<Instant>,
    rest: VecDeque<Bytes>,
    chatter: u32,
    _place: Place,
}

/// What an entry is given when it is adopted.
pub(super) struct Around {
    pub(super) socket: std::net::TcpStream,
    pub(super) place: Place,
    pub(super) bell: Arc<Bell>,
    pub(super) lease: Lease,
}

/// What a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// All of it.
    All,
    /// The socket takes no more for now.
    Blocked,
    /// The peer is gone.
    Gone,
}

impl Connection {
    /// An entry in `state`, around what it was adopted with.
    pub(super) fn new(
        around: Around,
        state: State,
        key: Key,
        rung: Arc<EntryWaker>,
        due: Instant,
    ) -> Self {
        Self {
            socket: TcpStream::from_std(around.socket),
            state,
            bell: around.bell,
            waker: Waker::from(rung.clone()),
            rung,
            lease: around.lease,
            key,
            due,
            found_at: None,
            rest: VecDeque::new(),
            chatter: 0,
            _place: around.place,
        }
    }

    /// Whether bytes wait for the socket. Nothing more is shown until they are gone.
    pub(super) fn is_blocked(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Reads what the peer says, which is nothing. False if it is gone.
    pub(super) fn listen(&mut self, scratch: &mut [u8]) -> bool {
        loop {
            match self.socket.read(scratch) {
                Ok(0) => return false,
                Ok(read) => {
                    self.chatter = self
                        .chatter
                        .saturating_add(u32::try_from(read).unwrap_or(u32::MAX));
                    if self.chatter > CHATTER_MAX {
                        return false;
                    }
                }
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return true,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    /// Writes blocks as one chunk. What the socket does not take waits; the blocks' bytes are
    /// shared with the window, so that waiting costs no copy of them.
    pub(super) fn write(&mut self, blocks: &mut Vec<Bytes>) -> Written {
        let bytes: usize = blocks.iter().map(Bytes::len).sum();
        if bytes == 0 {
            blocks.clear();
            return Written::All;
        }
        self.lease.add_bytes(bytes as u64);
        let mut head = [0; 18];
        let head = chunk_head(bytes, &mut head);
        let tail: &'static [u8] = b"\r\n";
        let total = head.len() + bytes + tail.len();
        let sent = if blocks.len() + 2 <= SLICES {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let parts = std::iter::once(head)
                .chain(blocks.iter().map(|block| &**block))
                .chain([tail]);
            let mut used = 0;
            for (slice, part) in slices.iter_mut().zip(parts) {
                *slice = IoSlice::new(part);
                used += 1;
            }
            send(&mut self.socket, slices.get(..used).unwrap_or_default())
        } else {
            Ok(0)
        };
        let Ok(sent) = sent else {
            blocks.clear();
            return Written::Gone;
        };
        if sent == total {
            blocks.clear();
            return Written::All;
        }
        self.rest.reserve_exact(blocks.len() + 2);
        self.rest.push_back(Bytes::copy_from_slice(head));
        self.rest.extend(blocks.drain(..));
        self.rest.push_back(Bytes::from_static(tail));
        advance(&mut self.rest, sent);
        self.flush()
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self) -> Written {
        while !self.rest.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut used = 0;
            for (slice, part) in slices.iter_mut().zip(&self.rest) {
                *slice = IoSlice::new(part);
                used += 1;
            }
            let sent = match send(&mut self.socket, slices.get(..used).unwrap_or_default()) {
                Ok(0) => return Written::Blocked,
                Ok(sent) => sent,
                Err(_) => return Written::Gone,
            };
            advance(&mut self.rest, sent);
        }
        // A quiet stream holds no memory for it.
        self.rest = VecDeque::new();
        Written::All
    }

    /// It is over: what waits is written first, then the end, if it is a clean one.
    pub(super) fn end(&mut self, ending: Ending) -> Written {
        self.lease.close(ending.reason());
        if matches!(ending, Ending::Clean(_)) {
            self.rest.push_back(Bytes::from_static(b"0\r\n\r\n"));
        }
        self.state = State::Over(ending);
        self.flush()
    }

    /// The peer is gone.
    pub(super) fn lose(&mut self) {
        if !matches!(self.state, State::Over(_)) {
            self.lease.close(CloseReason::Client);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        match &self.state {
            State::Opening(task) | State::Reading(_, task) => task.abort(),
            State::Over(Ending::Clean(_)) => {
                // The peer reads the end before it hears that the connection is closed.
                drop(self.socket.shutdown(std::net::Shutdown::Write));
            }
            State::Live(_) | State::Over(Ending::Cut(_)) => {}
        }
    }
}

/// Bytes that the socket took: 0 if it would block.
fn send(socket: &mut TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    loop {
        match socket.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            sent => return sent,
        }
    }
}

/// `<hex>\r\n`.
fn chunk_head(bytes: usize, buffer: &mut [u8; 18]) -> &[u8] {
    let mut rest: &mut [u8] = buffer;
    let room = rest.len();
    // 16 digits and a line end fit.
    let written = write!(rest, "{bytes:x}\r\n");
    debug_assert!(written.is_ok(), "a length has 16 digits at most");
    let used = room - rest.len();
    buffer.get(..used).unwrap_or_default()
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
    fn a_chunk_begins_with_its_length_in_hex() {
        for (bytes, head) in [(1, "1\r\n"), (0x80, "80\r\n"), (65_536, "10000\r\n")] {
            assert_eq!(chunk_head(bytes, &mut [0; 18]), head.as_bytes());
        }
        assert_eq!(chunk_head(usize::MAX, &mut [0; 18]).len(), 18);
    }

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
