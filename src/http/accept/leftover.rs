//! What is left of a request's body when its answer is there.
//!
//! A request that is refused is answered before its body was read. hyper then closes the connection,
//! and the system answers what the peer still sends with a reset, which overtakes the answer: a client
//! sees a broken connection, and a proxy takes the replica for dead. So what is left is read and thrown
//! away beside the answer, up to `server.discard_bytes_max` and for `server.discard_time`. Then the
//! connection goes on with its next request. Beyond either bound it is closed.
//!
//! A body that the peer would only send after `100 Continue` is not asked for: the answer comes in its
//! place ([RFC 9110, section 10.1.1](https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1)).

use crate::config::Server;
use crate::metrics::{Discarded, Metrics};
use axum::extract::Request;
use axum::http::header;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

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

    /// The same request, whose body is read to its end in any case.
    pub(super) fn watch(self: &Arc<Self>, request: Request<Incoming>) -> Request<Watched> {
        let waits = request.headers().contains_key(header::EXPECT);
        request.map(|body| Watched {
            leftovers: (!body.is_end_stream()).then(|| self.clone()),
            is_on_its_way: !waits,
            body: Some(body),
        })
    }

    fn discard(self: Arc<Self>, body: Incoming) {
        let (runtime, tasks) = (self.runtime.clone(), self.tasks.clone());
        let reading = async move {
            let reading = read(body, self.bytes_max);
            let read = tokio::time::timeout(self.time, reading).await;
            self.metrics.discarded(read.unwrap_or(Discarded::Time));
        };
        tasks.spawn_on(reading, &runtime);
    }
}

async fn read(mut body: Incoming, bytes_max: usize) -> Discarded {
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
        self.is_on_its_way = true;
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
            leftovers.discard(body);
        }
    }
}
