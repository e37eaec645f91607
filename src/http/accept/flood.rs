//! Floods of HTTP/2: frames that cost a peer nothing, ask for nothing, and cost a turn of the connection each.
//!
//! SETTINGS and PING are answered, `WINDOW_UPDATE` moves a number, PRIORITY and unknown types are read past. hyper
//! bounds none of them, and one connection can keep a core busy with them
//! ([RFC 9113, section 10.5](https://www.rfc-editor.org/rfc/rfc9113#section-10.5)). So their heads are counted on the
//! way in. A connection has `server.http2_control_frames_max` of them a second, and each request and each piece of an
//! answer earns it two more: who reads much makes room often. One that takes more is closed.

use crate::metrics::Metrics;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::time::Instant;

/// Bytes of a frame's head: length, type, flags, stream.
const HEAD: usize = 9;
/// With which a client begins, before its first frame.
const PREFACE: usize = 24;
/// Bytes that are read at once.
const PIECE: usize = 8 * 1024;
/// What a request, or a piece of an answer, gives a peer reason for: room for its stream and for the connection.
const EARNED: u64 = 2;

/// Types of frames ([RFC 9113, section 6](https://www.rfc-editor.org/rfc/rfc9113#section-6)).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;

/// Finds the heads of frames in bytes that come in any pieces.
#[derive(Debug)]
struct Heads {
    /// Bytes before the next head.
    skip: usize,
    head: [u8; HEAD],
    /// How much of it has come.
    filled: usize,
}

impl Heads {
    fn after(skip: usize) -> Self {
        Self {
            skip,
            head: [0; HEAD],
            filled: 0,
        }
    }

    /// Says the type of each frame whose head these bytes complete.
    fn take(&mut self, mut bytes: &[u8], mut each: impl FnMut(u8)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let wanted = self.head.get_mut(self.filled..).unwrap_or_default();
            let count = wanted.len().min(bytes.len());
            let (now, later) = bytes.split_at(count);
            wanted
                .iter_mut()
                .zip(now)
                .for_each(|(to, from)| *to = *from);
            self.filled += count;
            bytes = later;
            if self.filled < HEAD {
                return;
            }
            let [high, middle, low, kind, ..] = self.head;
            self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
            self.filled = 0;
            each(kind);
        }
    }
}

/// What a peer may still send for nothing.
#[derive(Debug)]
struct Allowance {
    per_second: f64,
    /// Up to those of one second.
    left: f64,
    since: Instant,
    earned: u64,
}

impl Allowance {
    fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        Self {
            per_second,
            left: per_second,
            since: now,
            earned: 0,
        }
    }

    fn earn(&mut self) {
        self.earned = self.earned.saturating_add(EARNED);
    }

    /// Takes one; false if there is none.
    fn take(&mut self, now: Instant) -> bool {
        let time = now.saturating_duration_since(self.since).as_secs_f64();
        self.since = now;
        self.left = (self.left + time * self.per_second).min(self.per_second);
        if self.left >= 1.0 {
            self.left -= 1.0;
            return true;
        }
        let had = self.earned > 0;
        self.earned = self.earned.saturating_sub(1);
        had
    }
}

/// Both ways of one connection, as far as its peer may flood it.
#[derive(Debug)]
struct Flood {
    incoming: Heads,
    outgoing: Heads,
    allowance: Allowance,
}

impl Flood {
    fn new(per_second: u32, now: Instant) -> Self {
        Self {
            incoming: Heads::after(PREFACE),
            outgoing: Heads::after(0),
            allowance: Allowance::new(per_second, now),
        }
    }

    /// Takes what has come; false if it is a flood.
    fn came(&mut self, bytes: &[u8], now: Instant) -> bool {
        let (allowance, mut is_allowed) = (&mut self.allowance, true);
        self.incoming.take(bytes, |kind| match kind {
            HEADERS => allowance.earn(),
            // Pieces of a request; and too many resets are hyper's to see.
            DATA | CONTINUATION | RST_STREAM => {}
            _ => is_allowed &= allowance.take(now),
        });
        is_allowed
    }

    /// Takes what has gone out.
    fn went(&mut self, bytes: &[u8]) {
        let allowance = &mut self.allowance;
        self.outgoing.take(bytes, |kind| {
            if kind == DATA {
                allowance.earn();
            }
        });
    }
}

/// Whether bytes from the preface on are a flood, in whatever pieces they come.
#[cfg(any(test, fuzzing))]
pub(in crate::http) fn is_flood(bytes: &[u8], piece: usize) -> bool {
    let now = Instant::now();
    let mut flood = Flood::new(10, now);
    let mut pieces = bytes.chunks(piece.max(1));
    pieces.any(|piece| !flood.came(piece, now))
}

/// The socket of an HTTP/2 connection, which fails once its peer floods it.
#[derive(Debug)]
pub(super) struct Unflooded<S> {
    socket: S,
    flood: Flood,
    metrics: Arc<Metrics>,
}

impl<S> Unflooded<S> {
    /// A connection of which nothing has been read, not even its preface.
    pub(super) fn new(socket: S, per_second: u32, metrics: Arc<Metrics>) -> Self {
        Self {
            socket,
            flood: Flood::new(per_second, Instant::now()),
            metrics,
        }
    }
}

impl<S: Read + Unpin> Read for Unflooded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut bytes = [const { MaybeUninit::uninit() }; PIECE];
        let most = buffer.remaining().min(PIECE);
        let mut piece = ReadBuf::uninit(bytes.get_mut(..most).unwrap_or_default());
        ready!(Pin::new(&mut this.socket).poll_read(cx, piece.unfilled()))?;
        if !this.flood.came(piece.filled(), Instant::now()) {
            this.metrics.http2_floods.inc();
            return Poll::Ready(Err(io::Error::other(
                "a flood of frames that ask for nothing",
            )));
        }
        buffer.put_slice(piece.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: Write + Unpin> Write for Unflooded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.socket).poll_write(cx, bytes))?;
        self.flood.went(bytes.get(..count).unwrap_or_default());
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, slices))?;
        let mut left = count;
        for slice in slices {
            let taken = slice.get(..left).unwrap_or(slice);
            self.flood.went(taken);
            left -= taken.len();
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SETTINGS: u8 = 4;
    const PING: u8 = 6;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let size = u32::try_from(length).unwrap().to_be_bytes();
        let mut frame = [&size[1..], &[kind, 0, 0, 0, 0, 0]].concat();
        // Looks like the head of a PING wherever it is read as one.
        frame.resize(HEAD + length, PING);
        frame
    }

    fn preface() -> Vec<u8> {
        vec![PING; PREFACE]
    }

    #[test]
    fn heads_are_found_in_whatever_pieces_they_come() {
        let kinds = [SETTINGS, DATA, HEADERS, PING, PING];
        let lengths = [0, 300, 20, 8, 70_000];
        let mut all = preface();
        for (kind, length) in kinds.into_iter().zip(lengths) {
            all.extend(frame(kind, length));
        }
        for size in (1..40).chain([1000, usize::MAX]) {
            let (mut heads, mut found) = (Heads::after(PREFACE), Vec::new());
            for piece in all.chunks(size) {
                heads.take(piece, |kind| found.push(kind));
            }
            assert_eq!(found, kinds, "pieces of {size}");
            assert_eq!(heads.skip, 0);
        }
    }

    #[test]
    fn a_second_has_its_frames_and_no_more() {
        let began = Instant::now();
        let mut flood = Flood::new(10, began);
        assert!(flood.came(&preface(), began));
        let ping = frame(PING, 8);
        assert!(flood.came(&ping.repeat(10), began));
        assert!(!flood.came(&ping, began));
        let later = began + Duration::from_millis(501);
        assert!(flood.came(&ping.repeat(5), later));
        assert!(!flood.came(&ping, later));
        // What was not used in an hour is not kept.
        let later = began + Duration::from_secs(3600);
        assert!(!flood.came(&ping.repeat(11), later));
    }

    #[test]
    fn requests_and_answers_earn_what_comes_of_them() {
        let now = Instant::now();
        let mut flood = Flood::new(10, now);
        assert!(flood.came(&preface(), now));
        let ping = frame(PING, 8);
        assert!(flood.came(&ping.repeat(10), now));
        assert!(flood.came(&frame(HEADERS, 30), now));
        flood.went(&frame(DATA, 100));
        flood.went(&frame(SETTINGS, 0));
        assert!(flood.came(&ping.repeat(4), now));
        assert!(!flood.came(&ping, now));
    }

    #[test]
    fn what_belongs_to_a_request_is_never_a_flood() {
        let now = Instant::now();
        let mut flood = Flood::new(10, now);
        assert!(flood.came(&preface(), now));
        for kind in [DATA, HEADERS, RST_STREAM, CONTINUATION] {
            assert!(flood.came(&frame(kind, 0).repeat(1000), now), "{kind}");
        }
    }
}
