//! What a browser is told about pages of other origins
//! ([CORS](https://fetch.spec.whatwg.org/#http-cors-protocol)).
//!
//! Without `cors.origins` nothing is told, and browsers keep every answer from such pages. A page that is allowed reads
//! all answers, those that refuse it too, and may write.

use crate::config::{Allowed, Origins};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// What a page may ask with.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, DELETE");
/// Fields that it may set.
const FIELDS: HeaderValue = HeaderValue::from_static(
    "authorization, cache-control, content-type, idempotency-key, last-event-id, x-request-id",
);
/// Fields of an answer that it may read.
const SHOWN: HeaderValue =
    HeaderValue::from_static("allow, retry-after, www-authenticate, x-request-id");
/// Seconds for which a browser need not ask again: no browser remembers it for longer than a day, and Chromium for
/// no longer than this.
const AGE: HeaderValue = HeaderValue::from_static("7200");

/// What is said to a page of this request's origin; none if nothing is.
fn granted(origins: &Origins, headers: &HeaderMap) -> Option<(HeaderValue, Allowed)> {
    let mut given = headers.get_all(header::ORIGIN).iter();
    let (origin, None) = (given.next()?, given.next()) else {
        return None;
    };
    let allowed = origins.allow(origin.to_str().ok()?)?;
    Some(match allowed {
        Allowed::ByName => (origin.clone(), allowed),
        // With `*` a browser sends no cookie, and shows no answer to one.
        Allowed::AsAny => (HeaderValue::from_static("*"), allowed),
    })
}

/// Whether a browser asks what a page may do, before it does it.
fn is_preflight(request: &Request) -> bool {
    let headers = request.headers();
    *request.method() == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Answers such a question itself, and marks every other answer.
pub(super) async fn marked(
    State(origins): State<Origins>,
    request: Request,
    next: Next,
) -> Response {
    let granted = granted(&origins, request.headers());
    let mut response = if is_preflight(&request) {
        // Nothing is done and nothing is told: whoever may connect may ask.
        let mut response = StatusCode::NO_CONTENT.into_response();
        if granted.is_some() {
            let fields: [(HeaderName, HeaderValue); 3] = [
                (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
                (header::ACCESS_CONTROL_ALLOW_HEADERS, FIELDS),
                (header::ACCESS_CONTROL_MAX_AGE, AGE),
            ];
            response.headers_mut().extend(fields);
        }
        response
    } else {
        let mut response = next.run(request).await;
        if granted.is_some() {
            let headers = response.headers_mut();
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, SHOWN);
        }
        response
    };
    let headers = response.headers_mut();
    // A cache must not show to one page what was said to another, nor what was said without an origin.
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some((origin, allowed)) = granted {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if allowed == Allowed::ByName {
            let yes = HeaderValue::from_static("true");
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
    }
    response
}
