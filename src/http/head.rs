//! The head of a stream, and a stream that is nothing but its head.

use super::cut::CutAfter;
use crate::sse::retry_line;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

/// A stream that is cut at once, and comes back after so many milliseconds.
pub(super) fn come_back(retry_ms: u64) -> Response {
    let retry = Bytes::from(retry_line(retry_ms));
    stream_headers(Body::new(CutAfter::new(retry)))
}

/// A stream with this body.
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
