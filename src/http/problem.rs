//! Errors as `application/problem+json` ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)).
//!
//! This is the one place that turns faults of other parts into status codes.

use crate::broker::BrokerError;
use crate::metrics::PublishRefusal;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::time::Duration;

/// What the caller is told. The detail of what the caller can mend names the part of the request, what was given
/// ([`super::shown`]) and what would be right. It holds no payload and no key.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    status: StatusCode,
    title: &'static str,
    detail: String,
    header: Option<(HeaderName, HeaderValue)>,
    lacks: Lacks,
}

/// Of a 503: what is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lacks {
    /// The log, or what it says.
    Log,
    /// Room on this replica. The log was not asked.
    Room,
    /// What would judge the request. The log was not asked.
    Judge,
}

#[derive(Serialize)]
struct Body<'a> {
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl Problem {
    /// 204, without a word: an `EventSource` does not come back.
    #[must_use]
    pub(super) fn for_good() -> Self {
        Self::new(StatusCode::NO_CONTENT, "", "")
    }

    /// 400: the request can never succeed as it is.
    #[must_use]
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad request", detail)
    }

    /// 401, with the scheme that is asked for.
    #[must_use]
    pub(super) fn unauthorized(detail: impl Into<String>) -> Self {
        Self {
            header: Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            ..Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
        }
    }

    /// 401: there is a credential, and it is not good. `told` is for programs, without quotes.
    #[must_use]
    pub(super) fn bad_token(detail: impl Into<String>, told: &'static str) -> Self {
        Self {
            header: challenge("invalid_token", told),
            ..Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
        }
    }

    /// 400: it cannot be told which credential counts.
    #[must_use]
    pub(super) fn bad_credential(detail: impl Into<String>) -> Self {
        Self {
            header: challenge("invalid_request", "two credentials"),
            ..Self::bad_request(detail)
        }
    }

    /// 403: the credential is good, and does not grant this.
    #[must_use]
    pub(super) fn not_granted(detail: impl Into<String>) -> Self {
        Self {
            header: challenge("insufficient_scope", "not granted"),
            ..Self::forbidden(detail)
        }
    }

    /// 403: not from there.
    #[must_use]
    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 404: no such path, topic or log.
    #[must_use]
    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not found", detail)
    }

    /// 405: the path is there, for other methods.
    #[must_use]
    pub(super) fn method_not_allowed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed", detail)
    }

    /// 408, and the connection closes: the rest of the request did not come in time.
    #[must_use]
    pub(super) fn timed_out(detail: impl Into<String>) -> Self {
        Self {
            header: Some((header::CONNECTION, HeaderValue::from_static("close"))),
            ..Self::new(StatusCode::REQUEST_TIMEOUT, "request timeout", detail)
        }
    }

    /// 413: more bytes than are allowed.
    #[must_use]
    pub(super) fn too_large(what: &str, most: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too large",
            format!("body: {what} has at most {most} bytes, and this one has more"),
        )
    }

    /// 421: meant for another server, by its name.
    #[must_use]
    pub(super) fn misdirected(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::MISDIRECTED_REQUEST,
            "misdirected request",
            detail,
        )
    }

    /// 500: our own fault.
    #[must_use]
    pub(super) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal error",
            "the request failed; the log says why",
        )
    }

    /// 429: as much as one may, with the whole seconds after which there may be more.
    #[must_use]
    pub(super) fn too_many(detail: impl Into<String>, wait: Duration) -> Self {
        let seconds = wait.as_secs().saturating_add(1);
        let detail = format!("{}; try again in {seconds} s", detail.into());
        Self {
            header: Some((header::RETRY_AFTER, HeaderValue::from(seconds))),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "too many requests", detail)
        }
    }

    /// 503 with `Retry-After`, in whole seconds, jittered.
    #[must_use]
    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        let seconds = HeaderValue::from(rand::random_range(1_u16..=3));
        Self {
            header: Some((header::RETRY_AFTER, seconds)),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
        }
    }

    /// The same for what is more than this replica does at a time.
    #[must_use]
    pub(super) fn busy(detail: impl Into<String>) -> Self {
        Self {
            lacks: Lacks::Room,
            ..Self::unavailable(detail)
        }
    }

    /// The same for what cannot be judged now.
    #[must_use]
    pub(super) fn undecided(detail: impl Into<String>) -> Self {
        Self {
            lacks: Lacks::Judge,
            ..Self::unavailable(detail)
        }
    }

    fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            title,
            detail: detail.into(),
            header: None,
            lacks: Lacks::Log,
        }
    }

    /// The sentence that names what is wrong, for a line of a batch.
    #[must_use]
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The same, of a part of the request.
    #[must_use]
    pub(super) fn at(self, part: &str) -> Self {
        Self {
            detail: format!("{part}: {}", self.detail),
            ..self
        }
    }

    /// Whether there was too much of something.
    #[must_use]
    pub(super) fn is_too_large(&self) -> bool {
        self.status == StatusCode::PAYLOAD_TOO_LARGE
    }

    /// Whether the same request may succeed a little later.
    #[must_use]
    pub(super) fn is_unavailable(&self) -> bool {
        let header = self.header.as_ref();
        header.is_some_and(|(name, _)| *name == header::RETRY_AFTER)
    }

    /// Whether it is a matter of rights that are not there.
    #[must_use]
    pub(super) fn is_forbidden(&self) -> bool {
        self.status == StatusCode::FORBIDDEN
    }

    /// Under what a refused publish is counted.
    #[must_use]
    pub(super) fn refusal(&self) -> PublishRefusal {
        match self.status {
            StatusCode::UNAUTHORIZED => PublishRefusal::Unauthorized,
            StatusCode::FORBIDDEN => PublishRefusal::Forbidden,
            StatusCode::PAYLOAD_TOO_LARGE => PublishRefusal::TooLarge,
            StatusCode::REQUEST_TIMEOUT => PublishRefusal::Timeout,
            StatusCode::CONFLICT => PublishRefusal::Ended,
            StatusCode::TOO_MANY_REQUESTS => PublishRefusal::Address,
            StatusCode::SERVICE_UNAVAILABLE => match self.lacks {
                Lacks::Log => PublishRefusal::Unavailable,
                Lacks::Room => PublishRefusal::Busy,
                Lacks::Judge => PublishRefusal::Undecided,
            },
            StatusCode::INSUFFICIENT_STORAGE => PublishRefusal::Limit,
            StatusCode::INTERNAL_SERVER_ERROR => PublishRefusal::Internal,
            _ => PublishRefusal::Invalid,
        }
    }
}

/// What a refused credential is answered ([RFC 6750, section 3](https://www.rfc-editor.org/rfc/rfc6750#section-3)).
fn challenge(error: &str, told: &str) -> Option<(HeaderName, HeaderValue)> {
    let text = format!("Bearer error=\"{error}\", error_description=\"{told}\"");
    let value = HeaderValue::try_from(text).ok()?;
    Some((header::WWW_AUTHENTICATE, value))
}

impl From<BrokerError> for Problem {
    fn from(why: BrokerError) -> Self {
        match why {
            BrokerError::Ended(_) => {
                let detail = format!("{why}; it accepts no event until it is deleted or expires");
                Self::new(StatusCode::CONFLICT, "topic has ended", detail)
            }
            BrokerError::Foreign(why) => {
                tracing::error!(%why, "something else writes to the gateway's keys");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "foreign data", why)
            }
            BrokerError::Unlogged(_) => Self::bad_request(why.to_string()),
            BrokerError::TooLarge(most) => {
                Self::too_large("an event", usize::try_from(most).unwrap_or(usize::MAX))
            }
            BrokerError::TooManyTopics(_) => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "too many topics",
                why.to_string(),
            ),
            BrokerError::TooManyDenials(_) => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "too many denials",
                format!("{why}; nothing was taken back"),
            ),
            BrokerError::OutOfMemory => Self {
                status: StatusCode::INSUFFICIENT_STORAGE,
                title: "out of memory",
                ..Self::unavailable("the log is out of memory")
            },
            BrokerError::Unreplicated { .. } => Self::unavailable(format!(
                "published, but a failover may lose it: {why}; send it again with the same Idempotency-Key"
            )),
            BrokerError::Unavailable(why) => {
                tracing::debug!(%why, "the log is away");
                Self::unavailable("the log cannot be reached")
            }
            BrokerError::Refused(_) | BrokerError::FarAhead(_) => {
                tracing::error!(%why, "the log refused");
                Self::internal()
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        if self.status == StatusCode::NO_CONTENT {
            return self.status.into_response();
        }
        let body = Body {
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
        };
        // Strings and a number always serialise. The end of the line is that of every answer in JSON.
        let body = serde_json::to_string(&body).unwrap_or_default() + "\n";
        let kind = (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        let mut response = (self.status, [kind], body).into_response();
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
