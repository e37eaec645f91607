//! A body that writes a few bytes and then breaks the connection off.

use crate::stream::body::Cut;
use bytes::Bytes;
use hyper::body::{Body, Frame};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Bytes, then a cut, with time for hyper to flush in between.
#[derive(Debug)]
pub(super) struct CutAfter {
    bytes: Option<Bytes>,
    flushed: bool,
}

impl CutAfter {
    /// A body of `bytes`; empty ones are a head and a cut.
    #[must_use]
    pub(super) fn new(bytes: Bytes) -> Self {
        Self {
            bytes: Some(bytes),
            flushed: false,
        }
    }
}

impl Body for CutAfter {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(bytes) = self.bytes.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if std::mem::replace(&mut self.flushed, true) {
            return Poll::Ready(Some(Err(axum::Error::new(Cut))));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
