//! What is left of a request's body when its answer is there.
//!
//! A request that is refused is answered before its body was read. hyper then closes the connection,
//! and the system answers what the peer still sends with a reset, which overtakes the answer: a client
//! sees a broken connection, and a proxy takes the replica for dead. So what is left is read and thrown
//! away beside the answer, up to `server.discard_bytes_max` and for `server.discard_time`.
//!
//! An answer that overtakes its request's body says that the connection closes. There are proxies that give the next
//! request to a connection as soon as it has answered, although they have sent half of a body whose client has gone:
//! that request would be read as the rest of the body, and what comes after it as a request. A short body is waited for
//! a little instead, so that a publisher that is refused keeps its connection.
//!
//! A body that the peer would only send after `100 Continue` is not asked for: the answer comes in its
//! place, and says that the connection closes
//! ([RFC 9110, section 10.1.1](https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1)). A peer that sends it all the
//! same, or whose head hyper itself refuses, may not be at its end when the last answer is out. So the connection
//! lingers: our side is shut, and what still comes is read and thrown away within the same bounds, until the
//! peer closes ([RFC 9112, section 9.6](https://www.rfc-editor.org/rfc/rfc9112#section-9.6)).

use super::socket::Socket;
use crate::config::Server;
use crate::metrics::{Discarded, Metrics};
use axum::extract::Request;
use axum::http::header;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

/// Bytes of a lingering connection that are read at once.
const PIECE: usize = 16 * 1024;

/// Bytes of a body that an answer waits for, and how long: what a publisher sends in one go is there already.
const SHORT_BYTES: u64 = 64 * 1024;
const SHORT_TIME: Duration = Duration::from_millis(100);

/// What a connection of HTTP/1.1 has not read of its request, as far as that decides how it closes.
#[derive(Debug, Default)]
pub(super) struct Unread {
    /// The body was not read to its end, not asked for, or is malformed: no request can follow on it.
    may_come: AtomicBool,
    /// It went beyond the bounds.
    is_beyond: AtomicBool,
    /// A short one is being read.
    is_short: AtomicBool,
    /// A short one was read, or cannot be.
    short_read: Notify,
}

impl Unread {
    /// Bytes may come that belong to no request: the answer is the last one.
    pub(super) fn may_come(&self) -> bool {
        self.may_come.load(Ordering::Acquire)
    }

    fn set_may_come(&self, may_come: bool) {
        self.may_come.store(may_come, Ordering::Release);
    }

    /// Waits until what is left of a short body was read, but not for long.
    pub(super) async fn wait_for_short(&self) {
        if self.is_short.swap(false, Ordering::AcqRel) {
            let read = self.short_read.notified();
            // Late, it is as any other that was not read.
            let _is_late = tokio::time::timeout(SHORT_TIME, read).await;
        }
    }
}

/// Reads what handlers leave of bodies.
#[derive(Debug)]
pub(super) struct Leftovers {
    bytes_max: usize,
    time: Duration,
    metrics: Arc<Metrics>,
    runtime: Handle,
    tasks: TaskTracker,
}

impl Leftovers {
    /// Within the bounds of these settings, by tasks of this tracker.
    pub(super) fn new(settings: &Server, metrics: Arc<Metrics>, tasks: TaskTracker) -> Self {
        Self {
            bytes_max: settings.discard_bytes_max,
            time: settings.discard_time,
            metrics,
            runtime: Handle::current(),
            tasks,
        }
    }

    /// The same request, whose body is read to its end in any case. Over HTTP/1.1 its connection is told what is
    /// left; over HTTP/2 what is left of a request is no matter of its connection.
    pub(super) fn watch(
        self: &Arc<Self>,
        request: Request<Incoming>,
        unread: Option<&Arc<Unread>>,
    ) -> Request<Watched> {
        // hyper asks for no body over HTTP/2, so there none waits for long.
        let waits = unread.is_some() && request.headers().contains_key(header::EXPECT);
        request.map(|body| {
            let is_over = body.is_end_stream();
            let watched = Watched {
                leftovers: (!is_over).then(|| self.clone()),
                is_on_its_way: !waits,
                unread: unread.cloned(),
                body: Some(body),
            };
            watched.set_may_come(!is_over);
            watched
        })
    }

    fn discard(self: Arc<Self>, body: Incoming, unread: Option<Arc<Unread>>) {
        let (runtime, tasks) = (self.runtime.clone(), self.tasks.clone());
        let is_short = body
            .size_hint()
            .upper()
            .is_some_and(|bytes| bytes <= SHORT_BYTES);
        if let Some(unread) = &unread {
            unread.is_short.store(is_short, Ordering::Release);
        }
        let reading = async move {
            // The body is held until the connection has been told: it closes as soon as that is gone.
            let mut body = body;
            let reading = read(&mut body, self.bytes_max);
            let read = tokio::time::timeout(self.time, reading).await;
            let outcome = read.unwrap_or(Discarded::Time);
            if let Some(unread) = unread {
                match outcome {
                    Discarded::Whole => unread.set_may_come(false),
                    Discarded::Broken => {}
                    Discarded::Bytes | Discarded::Time => {
                        unread.is_beyond.store(true, Ordering::Release);
                    }
                }
                if is_short {
                    unread.short_read.notify_one();
                }
            }
            self.metrics.discarded(outcome);
        };
        tasks.spawn_on(reading, &runtime);
    }

    /// Waits for the peer to close a connection whose last answer is out, and throws away what it sends until then.
    /// If nothing more is expected, only what is there already makes it wait.
    pub(super) async fn linger(&self, socket: Socket, unread: &Unread, is_expected: bool) {
        let is_beyond = unread.is_beyond.load(Ordering::Acquire);
        if !socket.is_shut() || is_beyond || self.bytes_max == 0 {
            return;
        }
        let mut came = match socket.discard_now() {
            Some(Ok(0) | Err(_)) => return,
            Some(Ok(bytes)) => bytes,
            None if is_expected || unread.may_come() => 0,
            None => return,
        };
        let reading = read_raw(socket, &mut came, self.bytes_max);
        let read = tokio::time::timeout(self.time, reading).await;
        // One that sent nothing had no body to throw away.
        if came > 0 {
            self.metrics.discarded(read.unwrap_or(Discarded::Time));
        }
    }
}

async fn read_raw(mut socket: Socket, came: &mut usize, bytes_max: usize) -> Discarded {
    let mut piece = vec![0; PIECE];
    loop {
        if *came > bytes_max {
            return Discarded::Bytes;
        }
        match socket.discard(&mut piece).await {
            Ok(0) => return Discarded::Whole,
            Ok(bytes) => *came = came.saturating_add(bytes),
            Err(_) => return Discarded::Broken,
        }
    }
}

async fn read(body: &mut Incoming, bytes_max: usize) -> Discarded {
    let mut left = bytes_max;
    loop {
        match body.frame().await {
            None => return Discarded::Whole,
            Some(Err(_)) => return Discarded::Broken,
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                let Some(rest) = left.checked_sub(bytes) else {
                    return Discarded::Bytes;
                };
                left = rest;
            }
        }
    }
}

/// A request's body that is discarded when its handler lets go of it.
#[derive(Debug)]
pub(super) struct Watched {
    body: Option<Incoming>,
    /// Who discards it; none once it is over.
    leftovers: Option<Arc<Leftovers>>,
    /// The peer sends it, or was told to.
    is_on_its_way: bool,
    /// What its connection knows of it, over HTTP/1.1.
    unread: Option<Arc<Unread>>,
}

impl Watched {
    fn set_may_come(&self, may_come: bool) {
        if let Some(unread) = &self.unread {
            unread.set_may_come(may_come);
        }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(body).poll_frame(cx);
        // Asked for now; and the end of what is malformed is unknown.
        self.is_on_its_way = true;
        if matches!(polled, Poll::Ready(None)) || self.is_end_stream() {
            self.set_may_come(false);
        }
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.leftovers = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let (Some(body), Some(leftovers)) = (self.body.take(), self.leftovers.take())
            && self.is_on_its_way
            && !body.is_end_stream()
        {
            leftovers.discard(body, self.unread.take());
        }
    }
}
