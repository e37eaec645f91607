//! A stream as an ordinary HTTP body: for TLS, HTTP/2, short streams, and wherever the socket is
//! not ours.
//!
//! The body is polled only when hyper has room, so a reader that stops costs a cursor and what
//! hyper has buffered, nothing more.

use super::reads::Reads;
use super::stream::{Ending, Stream, StreamSettings, Turn};
use crate::hub::Bell;
use crate::log::Reading;
use crate::metrics::{CloseReason, Metrics, WayOut};
use crate::sse::HEARTBEAT;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// A future that gives the stream once it can begin.
pub type Opening = Pin<Box<dyn Future<Output = Stream> + Send>>;

/// The connection breaks off here on purpose: hyper closes it without the last chunk, and every
/// client comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream is cut so that its client comes back")]
pub struct Cut;

/// A place among the open streams; given back on drop, whatever way the stream went.
#[derive(Debug)]
pub struct Lease {
    open: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
    way: WayOut,
    reason: CloseReason,
    since: Instant,
    bytes: u64,
    topics: usize,
}

impl Lease {
    /// Takes a place, if fewer than `most` are taken.
    #[must_use]
    pub fn take(
        open: &Arc<AtomicUsize>,
        most: usize,
        metrics: &Arc<Metrics>,
        topics: usize,
    ) -> Option<Self> {
        open.fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
            (taken < most).then_some(taken + 1)
        })
        .ok()?;
        metrics.opened(WayOut::Body);
        Some(Self {
            open: open.clone(),
            metrics: metrics.clone(),
            way: WayOut::Body,
            reason: CloseReason::Client,
            since: Instant::now(),
            bytes: 0,
            topics,
        })
    }
}

impl Lease {
    /// Bytes were handed to the socket.
    pub(super) fn add_bytes(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.metrics.sent_bytes.inc_by(bytes);
    }

    /// It leaves hyper for a socket of the engine's own.
    #[must_use]
    pub fn on_socket(mut self) -> Self {
        self.metrics.goes_by(self.way, WayOut::Socket);
        self.way = WayOut::Socket;
        self
    }

    /// Why the stream is over; without a word, its client went.
    pub(crate) fn close(&mut self, reason: CloseReason) {
        self.reason = reason;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
        self.metrics
            .closed(self.way, self.reason, self.since.elapsed());
        tracing::info!(
            close_reason = self.reason.as_str(),
            duration_ms = self.since.elapsed().as_millis(),
            topics = self.topics,
            bytes = self.bytes,
            "stream closed"
        );
    }
}

enum State {
    Opening(Opening),
    Live(Box<Stream>),
    Reading(
        Box<Stream>,
        Pin<Box<dyn Future<Output = Arc<Reading>> + Send>>,
    ),
    /// Hyper writes what it has before it is told of the cut.
    Flushing,
    Cut,
    Over,
}

/// The body of an event stream.
pub struct StreamBody {
    state: State,
    reads: Reads,
    bell: Arc<Bell>,
    settings: Arc<StreamSettings>,
    sleep: Pin<Box<Sleep>>,
    out: Vec<Bytes>,
    lease: Lease,
}

impl fmt::Debug for StreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamBody")
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

impl StreamBody {
    /// A body over a stream that is open, or opens while the body is under way already.
    #[must_use]
    pub fn new(
        opened: Result<Stream, Opening>,
        reads: Reads,
        bell: Arc<Bell>,
        settings: Arc<StreamSettings>,
        lease: Lease,
    ) -> Self {
        let first = settings.heartbeat.mul_f64(rand::random_range(0.0..1.0));
        Self {
            state: match opened {
                Ok(stream) => State::Live(Box::new(stream)),
                Err(opening) => State::Opening(opening),
            },
            sleep: Box::pin(tokio::time::sleep(first)),
            reads,
            bell,
            settings,
            out: Vec::new(),
            lease,
        }
    }

    /// As a body of axum's kind.
    pub fn into_axum(self) -> axum::body::Body {
        axum::body::Body::new(self.map_err(axum::Error::new))
    }

    fn end(&mut self, ending: Ending) {
        self.lease.close(ending.reason());
        self.state = match ending {
            Ending::Clean(_) => State::Over,
            Ending::Cut(_) => State::Flushing,
        };
    }

    /// One step of whatever state it is in. `Pending` only with every wake-up arranged.
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Registered before looking: a ring in between wakes this task again.
        self.bell.register(cx.waker());
        match std::mem::replace(&mut self.state, State::Over) {
            State::Opening(opening) => self.advance_opening(opening, cx),
            State::Live(stream) => self.advance_live(stream, cx),
            State::Reading(mut stream, mut reading) => match reading.as_mut().poll(cx) {
                Poll::Ready(pages) => {
                    stream.take(&pages);
                    self.state = State::Live(stream);
                    Poll::Ready(())
                }
                Poll::Pending => {
                    self.state = State::Reading(stream, reading);
                    self.heartbeat_meanwhile(cx)
                }
            },
            other => {
                self.state = other;
                Poll::Ready(())
            }
        }
    }

    fn advance_opening(&mut self, mut opening: Opening, cx: &mut Context<'_>) -> Poll<()> {
        if let Poll::Ready(stream) = opening.as_mut().poll(cx) {
            self.state = State::Live(Box::new(stream));
            return Poll::Ready(());
        }
        if self.settings.drain.has_begun() {
            self.end(Ending::Cut(CloseReason::Drain));
            return Poll::Ready(());
        }
        self.state = State::Opening(opening);
        self.heartbeat_meanwhile(cx)
    }

    /// While the log is waited for, the client still hears that it is connected.
    fn heartbeat_meanwhile(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.settings.drain.has_begun() {
            self.end(Ending::Cut(CloseReason::Drain));
            return Poll::Ready(());
        }
        if self.sleep.as_mut().poll(cx).is_ready() {
            self.settings.metrics.heartbeats.inc();
            self.out.push(Bytes::from_static(HEARTBEAT));
            self.sleep
                .as_mut()
                .reset(Instant::now() + self.settings.heartbeat);
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn advance_live(&mut self, mut stream: Box<Stream>, cx: &mut Context<'_>) -> Poll<()> {
        let turn = stream.turn(Instant::now(), &mut self.out);
        match turn {
            Turn::More => self.state = State::Live(stream),
            Turn::Read(partition, requests) => {
                let reads = self.reads.clone();
                self.sleep
                    .as_mut()
                    .reset(Instant::now() + self.settings.heartbeat);
                self.state = State::Reading(
                    stream,
                    Box::pin(async move { reads.pages(partition, requests).await }),
                );
            }
            Turn::Over(ending) => self.end(ending),
            Turn::Wait(until) => {
                self.state = State::Live(stream);
                self.sleep.as_mut().reset(until);
                return match self.sleep.as_mut().poll(cx) {
                    Poll::Pending if self.out.is_empty() => Poll::Pending,
                    // There is something to write, or the time came while we looked.
                    Poll::Pending | Poll::Ready(()) => Poll::Ready(()),
                };
            }
        }
        Poll::Ready(())
    }

    /// Everything that waits, as one piece.
    fn take_out(&mut self) -> Option<Bytes> {
        let bytes = match self.out.as_slice() {
            [] => return None,
            [_] => self.out.pop()?,
            many => {
                let mut all = BytesMut::with_capacity(many.iter().map(Bytes::len).sum());
                for bytes in many {
                    all.extend_from_slice(bytes);
                }
                self.out.clear();
                all.freeze()
            }
        };
        self.lease.add_bytes(bytes.len() as u64);
        Some(bytes)
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = &mut *self;
        loop {
            if let Some(bytes) = this.take_out() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            match this.state {
                State::Over => return Poll::Ready(None),
                State::Cut => return Poll::Ready(Some(Err(Cut))),
                State::Flushing => {
                    this.state = State::Cut;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                State::Opening(_) | State::Live(_) | State::Reading(..) => {
                    if this.advance(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

/// Waits for a stream to open, at most `wait`.
///
/// # Errors
/// What is not open yet, so that it can go on opening in the body.
pub async fn open_within(mut opening: Opening, wait: Duration) -> Result<Stream, Opening> {
    match tokio::time::timeout(wait, &mut opening).await {
        Ok(stream) => Ok(stream),
        Err(_) => Err(opening),
    }
}
