//! What a stream is answered that is not opened now, and may be a little later. `EventSource` gives up for good on any
//! status but 200; so it is a stream that is cut at once.

use super::cut::CutAfter;
use super::gateway::Gateway;
use crate::sse::retry_line;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

/// A stream that is cut at once, with so many times the usual time to come back. Nobody tries another replica then.
pub(super) fn come_back(gateway: &Gateway, times: u64) -> Response {
    let retry_ms = gateway.streams.jittered_retry_ms().saturating_mul(times);
    let retry = Bytes::from(retry_line(retry_ms));
    stream_headers(Body::new(CutAfter::new(retry)))
}

/// An answer that is a stream.
pub(super) fn stream_headers(body: Body) -> Response {
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream"),
        ),
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-store, no-transform"),
        ),
        (
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        ),
    ];
    (headers, body).into_response()
}
