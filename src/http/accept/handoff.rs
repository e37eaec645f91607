//! Taking a connection from hyper once the head of a stream is out.
//!
//! The handler leaves a [`Handoff`] on the [`HandoffSlot`] of its connection, and answers with a body
//! that yields what the stream begins with and then nothing. From then on:
//!
//! ```text
//! hyper asks the body      ─> the beginning; written with the head in one go
//! hyper asks again         ─> nothing (`asked`): all of the answer stands in hyper's buffer or is out
//! hyper flushes the socket ─> `flushed`: nothing stands in hyper's buffer
//! the connection's task    ─> takes the handoff, and hyper's connection apart
//! ```
//!
//! Both marks are needed. A flush before the body was asked again may be that of the head alone; and
//! a write after the flush has something in hyper's buffer again, so each write takes the mark back.
//! All of it happens on the task of the connection: the marks are atomics only because hyper wants
//! its socket and its body to be `Send`, and the lock is never waited for.

use super::leftover::{Unread, Watched};
use super::socket::Socket;
use crate::stream::sockets::Handoff;
use axum::extract::Request;
use axum::http::{HeaderValue, Response, header};
use axum::{Router, body::Body as AxumBody};
use bytes::Bytes;
use hyper::body::{Body, Frame};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// Where the handler of a connection leaves a handoff.
#[derive(Clone, Debug, Default)]
pub(in crate::http) struct HandoffSlot(Arc<State>);

#[derive(Debug, Default)]
struct State {
    handoff: Mutex<Option<Handoff>>,
    /// The body was asked and had no more, so all there is stands in hyper's buffer.
    asked: AtomicBool,
    /// Nothing is left in hyper's buffer.
    flushed: AtomicBool,
}

impl HandoffSlot {
    /// Leaves a handoff; the body to answer with.
    pub(in crate::http) fn leave(&self, mut handoff: Handoff) -> AxumBody {
        let beginning = handoff.take_beginning();
        *self.handoff() = Some(handoff);
        AxumBody::new(Beginning {
            bytes: beginning,
            slot: self.clone(),
        })
    }

    /// The handoff, once the head is out.
    pub(super) fn take(&self) -> Option<Handoff> {
        let out = self.0.asked.load(Ordering::Acquire) && self.0.flushed.load(Ordering::Acquire);
        self.handoff().take_if(|_| out)
    }

    fn handoff(&self) -> MutexGuard<'_, Option<Handoff>> {
        let handoff = self.0.handoff.lock();
        handoff.unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body that yields what the stream begins with, and never ends: hyper is to leave the connection
/// as it is until it is taken.
struct Beginning {
    bytes: Option<Bytes>,
    slot: HandoffSlot,
}

impl Body for Beginning {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(bytes) = self.bytes.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        let state = &self.slot.0;
        // Only the first time counts: hyper may ask once more after the flush, and what was flushed
        // stays so.
        if !state.asked.swap(true, Ordering::AcqRel) {
            state.flushed.store(false, Ordering::Release);
        }
        Poll::Pending
    }
}

/// A socket that notes when everything that was written to it has been flushed.
#[derive(Debug)]
pub(super) struct Flushed {
    socket: Socket,
    slot: HandoffSlot,
}

impl Flushed {
    pub(super) fn new(socket: Socket, slot: HandoffSlot) -> Self {
        Self { socket, slot }
    }

    pub(super) fn into_socket(self) -> Socket {
        self.socket
    }

    fn note(&self, flushed: bool) {
        self.slot.0.flushed.store(flushed, Ordering::Release);
    }
}

impl Read for Flushed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.slot.handoff().is_some() {
            // What comes now is for whoever takes the connection over; only the head has still to
            // go out, and that wakes by itself.
            return Poll::Pending;
        }
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl Write for Flushed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.note(false);
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.note(false);
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// hyper asks for this once its own buffer is empty.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        self.note(matches!(flushed, Poll::Ready(Ok(()))));
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// The routes of one connection: each request knows the slot.
#[derive(Clone, Debug)]
pub(super) struct Routes {
    router: TowerToHyperService<Router>,
    slot: Option<HandoffSlot>,
    unread: Arc<Unread>,
}

impl Routes {
    /// Handlers see the slot only if there is somebody to take what they leave there.
    pub(super) fn new(router: Router, slot: HandoffSlot, open: bool, unread: Arc<Unread>) -> Self {
        Self {
            router: TowerToHyperService::new(router),
            slot: open.then_some(slot),
            unread,
        }
    }
}

impl hyper::service::Service<Request<Watched>> for Routes {
    type Response = Response<AxumBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Watched>) -> Self::Future {
        if let Some(slot) = &self.slot {
            request.extensions_mut().insert(slot.clone());
        }
        let answering = hyper::service::Service::call(&self.router, request);
        let unread = self.unread.clone();
        Box::pin(async move {
            let mut response = answering.await?;
            unread.wait_for_short().await;
            if unread.may_come() {
                // A peer that is not told takes the connection for free, and its next request for read.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            Ok(response)
        })
    }
}
