//! What a request is told that has not the right to what it asks for ([RFC 6750, section
//! 3](https://www.rfc-editor.org/rfc/rfc6750#section-3)): no more than it may know.

use crate::auth::Action;
use crate::http::gateway::Auth;
use crate::http::head::come_back;
use crate::http::problem::Problem;
use crate::http::shown::Shown;
use crate::metrics::AuthRefusal;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};

/// How a request is answered that is not let through.
#[derive(Debug)]
pub(in crate::http) enum Refusal {
    /// A definite no, or that it cannot be judged now.
    Problem(Problem),
    /// A stream that cannot be judged now. `EventSource` gives up for good on any status but 200, so it is cut at once and
    /// comes back after so many milliseconds.
    ComeBack(u64),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Problem(problem) => problem.into_response(),
            Self::ComeBack(retry_ms) => come_back(retry_ms),
        }
    }
}

/// A refusal, and what was asked.
#[derive(Debug)]
pub(super) struct Refused<'a> {
    pub(super) reason: AuthRefusal,
    pub(super) action: Action,
    pub(super) topic: Option<&'a str>,
}

/// The answer.
pub(super) fn problem(refused: &Refused<'_>, auth: &Auth, headers: &HeaderMap) -> Problem {
    match refused.reason {
        AuthRefusal::TwoTokens => Problem::bad_credential(
            "Authorization: a request may have one key or token, and this one has two",
        ),
        AuthRefusal::Origin => Problem::forbidden(
            "Cookie: a write with a token in a cookie needs an Origin, of this host or one that cors.origins names; or send the token as Authorization: Bearer",
        ),
        AuthRefusal::Denied => Problem::not_granted(match refused.topic {
            Some(topic) => format!(
                "topic {}: the key or token does not grant {}",
                Shown(topic),
                refused.action.as_str()
            ),
            None => format!(
                "the key or token does not grant {}",
                refused.action.as_str()
            ),
        }),
        AuthRefusal::Missing if headers.contains_key(header::AUTHORIZATION) => {
            Problem::unauthorized(not_that(refused.action, auth))
        }
        AuthRefusal::Missing => {
            let there = match refused.topic {
                Some(topic) => {
                    format!(
                        "the header is missing, and topic {} is not public",
                        Shown(topic)
                    )
                }
                None => "the header is missing".to_owned(),
            };
            Problem::unauthorized(sentence(&there, refused.action, auth))
        }
        AuthRefusal::KeysAway => Problem::undecided(
            "Authorization: the token cannot be judged now, since keys of its kind are being fetched",
        ),
        // What was given may be the key of another gateway.
        AuthRefusal::PublishKey => {
            Problem::bad_token(not_that(refused.action, auth), "not a key of this gateway")
        }
        AuthRefusal::Expired => told("the token has expired"),
        AuthRefusal::NotYet => told("the token is not valid yet"),
        AuthRefusal::TooLong => told("the token is too long"),
        AuthRefusal::Revoked => told("the token was taken back"),
        // Which it was, its maker may find out with `tidegate token explain`.
        AuthRefusal::Malformed
        | AuthRefusal::Critical
        | AuthRefusal::Key
        | AuthRefusal::Algorithm
        | AuthRefusal::Signature
        | AuthRefusal::Type
        | AuthRefusal::Issuer
        | AuthRefusal::Audience
        | AuthRefusal::NoExpiry
        | AuthRefusal::LongLife
        | AuthRefusal::Grant
        | AuthRefusal::Rights => told("the token is not accepted"),
    }
}

fn told(what: &'static str) -> Problem {
    Problem::bad_token(format!("Authorization: {what}"), what)
}

fn not_that(action: Action, auth: &Auth) -> String {
    sentence(
        &format!("what was sent is not {}", needed(auth)),
        action,
        auth,
    )
}

fn needed(auth: &Auth) -> &'static str {
    if auth.authority.has_tokens() {
        "a token or key"
    } else {
        "the publish key"
    }
}

fn sentence(there: &str, action: Action, auth: &Auth) -> String {
    let doing = match action {
        Action::Subscribe => "reading",
        Action::List => "listing",
        Action::Disconnect => "disconnecting",
        Action::Operate => "this",
        _ => "publishing",
    };
    format!(
        "Authorization: {there}; {doing} needs Bearer and {}",
        needed(auth)
    )
}
