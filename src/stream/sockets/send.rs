//! Writing to a socket that does not block, and what it did not take.

use crate::metrics::{Behind, Counted, Metrics};
use crate::time::CoarseInstant;
use bytes::Bytes;
use mio::net::TcpStream;
use socket2::SockRef;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Deref;

/// Slices of one vectored write: of an event or a few, and of a whole turn. The kernel takes 1,024.
const SLICES: usize = 8;
const SLICES_MAX: usize = 512;

/// What waits for the socket.
pub(super) struct Rest {
    /// Pieces in the order in which they are to be written.
    pieces: VecDeque<Bytes>,
    /// Since when it waits.
    pub(super) since: CoarseInstant,
    _counted: Counted,
}

impl Rest {
    pub(super) fn new(metrics: &Metrics, since: CoarseInstant) -> Self {
        Self {
            pieces: VecDeque::new(),
            since,
            _counted: metrics.behind(Behind::Blocked),
        }
    }

    pub(super) fn push(&mut self, piece: Bytes) {
        self.pieces.push_back(piece);
    }

    /// The first `sent` bytes have been written.
    pub(super) fn drop_front(&mut self, sent: usize) {
        drop_front(&mut self.pieces, sent);
    }

    /// Writes until nothing is left, or the socket takes no more; whether nothing is left.
    pub(super) fn send(&mut self, socket: &TcpStream) -> io::Result<bool> {
        while !self.pieces.is_empty() {
            let sent = send_all(socket, self.pieces.iter())?;
            if sent == 0 {
                return Ok(false);
            }
            self.drop_front(sent);
        }
        Ok(true)
    }
}

/// Writes the first of these; the bytes that the socket took, 0 if it would block.
pub(super) fn send_all<'a>(
    socket: &TcpStream,
    pieces: impl ExactSizeIterator<Item = &'a (impl Deref<Target = [u8]> + 'a)>,
) -> io::Result<usize> {
    if pieces.len() <= SLICES {
        send_some::<SLICES>(socket, pieces)
    } else {
        send_some::<SLICES_MAX>(socket, pieces)
    }
}

/// The list of slices stands on the stack: a short one for an event or a few costs less to clear.
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

/// Writes once, whatever signal comes in between; the bytes that were taken, 0 if it would block.
pub(super) fn send(mut write: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match write() {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            sent => return sent,
        }
    }
}

/// Drops `sent` bytes from the front, and pieces that are empty.
fn drop_front(rest: &mut VecDeque<Bytes>, mut sent: usize) {
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
            drop_front(&mut rest, sent);
            let left: Vec<u8> = rest.iter().flat_map(|part| part.to_vec()).collect();
            assert_eq!(left, parts.concat().as_bytes().get(sent..).unwrap());
            assert!(rest.iter().all(|part| !part.is_empty()));
        }
    }
}
