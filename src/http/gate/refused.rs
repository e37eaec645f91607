//! What a request is told that has not the right to what it asks for ([RFC 6750, section
//! 3](https://www.rfc-editor.org/rfc/rfc6750#section-3)): no more than it may know.

use crate::auth::{Action, Holder, Seconds};
use crate::http::gateway::{Auth, Gateway};
use crate::http::problem::Problem;
use crate::http::shown::Shown;
use crate::metrics::AuthRefusal;
use axum::http::{HeaderMap, header};
use std::time::{SystemTime, UNIX_EPOCH};

/// Why a judgement lets nobody through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotCleared {
    /// A definite no.
    Refused(AuthRefusal),
    /// It cannot be told now: what would have to be asked is away. In one sentence.
    Away(&'static str),
}

impl From<AuthRefusal> for NotCleared {
    fn from(reason: AuthRefusal) -> Self {
        Self::Refused(reason)
    }
}

/// A refusal, and what was asked.
#[derive(Debug)]
pub(super) struct Refused<'a> {
    pub(super) reason: AuthRefusal,
    pub(super) action: Action,
    pub(super) topic: Option<&'a str>,
}

impl Refused<'_> {
    /// Counts it by its reason.
    pub(super) fn note(&self, gateway: &Gateway) {
        gateway.metrics.auth_refused(self.reason);
        tracing::debug!(
            reason = self.reason.as_str(),
            action = self.action.as_str(),
            topic = self.topic,
            "a request has not the right to what it asks for"
        );
    }

    /// The same, and the answer.
    pub(super) fn answer(&self, gateway: &Gateway, headers: &HeaderMap) -> Problem {
        self.note(gateway);
        problem(self, &gateway.rules.get().auth, headers)
    }
}

/// Lets a holder through whose right was not taken back, as far as this replica knows.
pub(super) fn not_taken_back(gateway: &Gateway, holder: &Holder) -> Result<(), NotCleared> {
    let denials = &gateway.denials;
    if denials.revocations().denial(holder).is_some() {
        return Err(AuthRefusal::Revoked.into());
    }
    if holder.is_of_token() && denials.is_stale() {
        return Err(NotCleared::Away("what was taken back cannot be read"));
    }
    Ok(())
}

/// Seconds since 1970 by this machine's clock.
pub(super) fn now() -> Seconds {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.unwrap_or_default().as_secs();
    Seconds::try_from(seconds).unwrap_or(Seconds::MAX)
}

/// The answer.
fn problem(refused: &Refused<'_>, auth: &Auth, headers: &HeaderMap) -> Problem {
    match refused.reason {
        AuthRefusal::TwoTokens => Problem::bad_credential(
            "Authorization: a request may have one key or token, and this one has two",
        ),
        AuthRefusal::Origin => Problem::forbidden(
            "Cookie: a write with a token in a cookie needs an Origin, of this host or one that cors.origins names; or send the token as Authorization: Bearer",
        ),
        // Whether it was there once, or is somebody's, is nothing that this tells.
        AuthRefusal::Ticket => Problem::bad_token(
            "ticket: it is unknown, over or used; ask for another one with POST /tickets",
            "the ticket is not accepted",
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
