//! The socket of a connection for as long as it serves requests.
//!
//! Most connections bring their request along, and most requests are for a stream, with which the
//! connection leaves at once. So a socket is tried first, and only one that would block is watched
//! by the runtime. In a storm of reconnects that spares every connection a registration and a
//! wake-up, and each is served whole before the next is begun, where thousands would be half
//! served, each with its buffers.
//!
//! Writes are tried first in any case: of a socket that it has only just begun to watch the runtime does not
//! know yet that it takes something. A body that is cut would be asked for more before its first bytes
//! had gone, and they would go nowhere.

use super::proxy_protocol::{self, Header};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use std::future::poll_fn;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, ReadBuf};
use tokio::net::TcpStream;

/// Bytes read at first: the head of nearly every request.
const BEGIN: usize = 2048;
/// How HTTP/2 begins, with prior knowledge
/// ([RFC 9113, section 3.4](https://www.rfc-editor.org/rfc/rfc9113#section-3.4)).
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// What a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begins {
    /// Something that is not HTTP/2.
    Http1,
    /// HTTP/2 with prior knowledge, by its preface.
    Http2,
    /// Nothing: the peer has closed it.
    Ended,
}

/// A socket, and what was read of it ahead.
#[derive(Debug)]
pub(super) struct Socket {
    state: State,
    ahead: Vec<u8>,
    /// Our side has said its last, and the peer is told so.
    is_shut: bool,
}

#[derive(Debug)]
enum State {
    /// The runtime does not know of it.
    Unwatched(std::net::TcpStream),
    /// It has blocked once, and the runtime says when it is ready.
    Watched(TokioIo<TcpStream>),
    /// The runtime could not watch it.
    Lost,
}

impl Socket {
    /// Takes a socket that does not block.
    pub(super) fn new(socket: std::net::TcpStream) -> Self {
        Self {
            state: State::Unwatched(socket),
            ahead: Vec::new(),
            is_shut: false,
        }
    }

    /// Takes a header of the PROXY protocol from the beginning. What is no whole one stays.
    ///
    /// # Errors
    /// Those of the socket.
    ///
    /// # Cancel safety
    /// Safe: what was read stays.
    pub(super) async fn proxy_header(&mut self) -> io::Result<Header> {
        loop {
            let header = proxy_protocol::parse(&self.ahead);
            match header {
                Header::Partial if poll_fn(|cx| self.poll_ahead(cx)).await? > 0 => {}
                Header::Whole(length, _) => {
                    self.ahead.drain(..length);
                    return Ok(header);
                }
                Header::Partial | Header::Malformed => return Ok(header),
            }
        }
    }

    /// Reads until it is clear what the connection speaks. Who reads on begins with that.
    ///
    /// # Errors
    /// Those of the socket.
    ///
    /// # Cancel safety
    /// Safe: what was read stays.
    pub(super) async fn begin(&mut self) -> io::Result<Begins> {
        loop {
            if self.ahead.starts_with(PREFACE) {
                return Ok(Begins::Http2);
            }
            if !PREFACE.starts_with(&self.ahead) {
                return Ok(Begins::Http1);
            }
            if poll_fn(|cx| self.poll_ahead(cx)).await? == 0 {
                return Ok(if self.ahead.is_empty() {
                    Begins::Ended
                } else {
                    Begins::Http1
                });
            }
        }
    }

    /// The socket by itself. What was read ahead and not asked for is lost.
    ///
    /// # Errors
    /// If it cannot be taken from the runtime.
    pub(super) fn into_std(self) -> io::Result<std::net::TcpStream> {
        match self.state {
            State::Unwatched(socket) => Ok(socket),
            State::Watched(socket) => socket.into_inner().into_std(),
            State::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Our side was ended in order, after all that it had to say.
    pub(super) fn is_shut(&self) -> bool {
        self.is_shut
    }

    /// Throws away what has come already, up to a piece: how many bytes, 0 at the peer's end; nothing if it would have to
    /// wait.
    pub(super) fn discard_now(&self) -> Option<io::Result<usize>> {
        let mut piece = [0; BEGIN];
        self.attempt_now(|socket| (&*socket).read(&mut piece))
    }

    /// Waits for what comes, and throws it away as [`Self::discard_now`] does, by pieces as large as this.
    ///
    /// # Errors
    /// Those of the socket.
    ///
    /// # Cancel safety
    /// Safe: what was read is nobody's.
    pub(super) async fn discard(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        self.watch()?.inner_mut().read(piece).await
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut bytes = [0; BEGIN];
        let read = if let Some(read) = self.attempt(|mut socket| socket.read(&mut bytes)) {
            read?
        } else {
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(Pin::new(self.watch()?.inner_mut()).poll_read(cx, &mut buffer))?;
            buffer.filled().len()
        };
        self.ahead
            .extend_from_slice(bytes.get(..read).unwrap_or_default());
        Poll::Ready(Ok(read))
    }

    /// Tries a socket that is not watched; nothing if it has to be.
    fn attempt<T>(
        &self,
        mut call: impl FnMut(&std::net::TcpStream) -> io::Result<T>,
    ) -> Option<io::Result<T>> {
        let State::Unwatched(socket) = &self.state else {
            return None;
        };
        attempt(|| call(socket))
    }

    /// Tries a socket, watched or not; nothing if it would block.
    fn attempt_now<T>(
        &self,
        mut call: impl FnMut(SockRef<'_>) -> io::Result<T>,
    ) -> Option<io::Result<T>> {
        attempt(|| match &self.state {
            State::Unwatched(socket) => call(SockRef::from(socket)),
            State::Watched(socket) => call(SockRef::from(socket.inner())),
            State::Lost => Err(io::ErrorKind::NotConnected.into()),
        })
    }

    /// From here on the runtime watches it.
    fn watch(&mut self) -> io::Result<&mut TokioIo<TcpStream>> {
        self.state = match std::mem::replace(&mut self.state, State::Lost) {
            State::Unwatched(socket) => State::Watched(TokioIo::new(TcpStream::from_std(socket)?)),
            other => other,
        };
        match &mut self.state {
            State::Watched(socket) => Ok(socket),
            State::Unwatched(_) | State::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// Calls once, whatever signal comes in between; nothing if it would block.
fn attempt<T>(mut call: impl FnMut() -> io::Result<T>) -> Option<io::Result<T>> {
    loop {
        match call() {
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => return None,
            done => return Some(done),
        }
    }
}

impl From<TcpStream> for Socket {
    /// Takes one that the runtime watches already.
    fn from(socket: TcpStream) -> Self {
        Self {
            state: State::Watched(TokioIo::new(socket)),
            ahead: Vec::new(),
            is_shut: false,
        }
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.ahead.len().min(buffer.remaining());
        if count > 0 {
            buffer.put_slice(self.ahead.drain(..count).as_slice());
            return Poll::Ready(Ok(()));
        }
        // What was there has been read: more will come later, if at all.
        Pin::new(self.watch()?).poll_read(cx, buffer)
    }
}

impl Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.attempt_now(|socket| (&*socket).write(bytes)) {
            Some(done) => Poll::Ready(done),
            None => Pin::new(self.watch()?).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.attempt_now(|socket| (&*socket).write_vectored(slices)) {
            Some(done) => Poll::Ready(done),
            None => Pin::new(self.watch()?).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is kept back: what was taken is the kernel's.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = match self.attempt(|socket| socket.shutdown(std::net::Shutdown::Write)) {
            Some(done) => done,
            None => ready!(Pin::new(self.watch()?).poll_shutdown(cx)),
        };
        self.is_shut = shut.is_ok();
        Poll::Ready(shut)
    }
}
