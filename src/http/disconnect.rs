//! `POST /disconnect`: takes a right back for the whole fleet, and ends the streams that live by it.

use super::answer::Json;
use super::batch::first_member;
use super::gate::{Caller, Disconnect};
use super::gateway::Gateway;
use super::problem::Problem;
use super::publish::{held_to_share, read_in_time, within_rate};
use super::query::{NOTHING, Query};
use super::shown::Shown;
use super::vocabulary::Vocabulary;
use crate::address::Client;
use crate::auth::{Denial, DeniedAnswer, Name, pattern, store_seconds};
use crate::broker::DenialKind;
use axum::Extension;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Bytes of the body, at most: a subject may be as long as a token.
const BODY_MAX: usize = 32 * 1024;
/// Bytes of what the reader of the body says that are told.
const FAULT_SHOWN_MAX: usize = 160;

/// What the body takes.
const MEMBERS: Vocabulary = Vocabulary {
    what: "member",
    names: &["subject", "issuer", "token_id", "topics", "all", "answer"],
    slips: &[
        ("sub", "subject"),
        ("user", "subject"),
        ("iss", "issuer"),
        ("jti", "token_id"),
        ("topic", "topics"),
        ("pattern", "topics"),
        ("status", "answer"),
    ],
    ..NOTHING
};

/// The body. A member that stands twice is refused where it is read.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wanted {
    subject: Option<String>,
    issuer: Option<String>,
    token_id: Option<String>,
    topics: Option<String>,
    all: Option<bool>,
    answer: Option<u16>,
}

/// Takes back what the body says. It is answered when Redis has it; replicas that hear Redis end their streams within a
/// second.
pub(super) async fn disconnect(
    caller: Caller<Disconnect>,
    State(gateway): State<Arc<Gateway>>,
    Extension(client): Extension<Client>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Result<Json<Value>, Problem> {
    within_rate(&gateway, &client)?;
    Query::read(query.as_deref(), &NOTHING)?;
    caller.may_do_any(&gateway)?;
    let mut place = gateway.intake.enter(held_to_share(&gateway, &client))?;
    let mut bytes = Vec::new();
    read_in_time(&gateway, &mut place, body, &mut bytes, "this", BODY_MAX).await?;
    let denial = read(&bytes).map_err(Problem::bad_request)?;
    let denial = caller.clear_denial(&gateway, denial)?.into_inner();
    caller.holds_still(&gateway)?;
    let keep = gateway.denials.revocations().keep();
    let (kind, keep) = if denial.ends_only() {
        (DenialKind::Disconnected, keep.ended)
    } else {
        (DenialKind::Denied, keep.denied)
    };
    let most = gateway.rules.get().auth.denied_max;
    let text = denial.text();
    let at = gateway.broker.deny(kind, &text, keep, most).await?;
    gateway.denials.ask();
    tracing::info!(
        by = caller.grant().who().name(),
        kind = kind.as_str(),
        at,
        "a right was taken back"
    );
    Ok(Json(json!({ "serial": at, "at": store_seconds(at) })))
}

/// What is to be taken back, or a sentence.
pub(super) fn read(body: &[u8]) -> Result<Denial, String> {
    // A list would be read as members in their order.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err("body: must be a JSON object".to_owned());
    }
    let wanted: Wanted = serde_json::from_slice(body).map_err(|why| fault(body, &why))?;
    let Wanted {
        subject,
        issuer,
        token_id,
        topics,
        all,
        answer,
    } = wanted;
    let named = [
        subject.is_some(),
        token_id.is_some(),
        topics.is_some(),
        all.is_some(),
    ];
    if named.iter().filter(|is_named| **is_named).count() != 1 {
        return Err(
            "body: one of subject, token_id, topics and all says what is taken back, and only one"
                .to_owned(),
        );
    }
    if issuer.is_some() && subject.is_none() {
        return Err("issuer: it is for a subject".to_owned());
    }
    let refuses = subject.is_some() || token_id.is_some();
    if answer.is_some() && !refuses {
        return Err(
            "answer: it is for a subject or a token; whoever reads topics may come back".to_owned(),
        );
    }
    let answer = match answer {
        None | Some(401) => DeniedAnswer::Unauthorized,
        Some(204) => DeniedAnswer::NoContent,
        Some(other) => return Err(format!("answer {other}: must be 401 or 204")),
    };
    if let Some(subject) = subject {
        let name = Name::subject(&subject, issuer.as_deref());
        return Ok(Denial::Subject(name, answer));
    }
    if let Some(id) = token_id {
        return Ok(Denial::Token(Name::token_id(&id), answer));
    }
    if let Some(text) = topics {
        let pattern = pattern(&text);
        let pattern = pattern.map_err(|why| format!("topics {}: {why}", Shown(&text)))?;
        return Ok(Denial::Topics(pattern));
    }
    match all {
        Some(true) => Ok(Denial::All),
        _ => Err("all: must be true".to_owned()),
    }
}

/// What is wrong with a body.
fn fault(body: &[u8], why: &serde_json::Error) -> String {
    if let Some(unknown) = first_member(body, |name| !MEMBERS.knows(name)) {
        return MEMBERS.refusal(&unknown);
    }
    // It may hold what was given.
    let what: String = why.to_string().chars().take(FAULT_SHOWN_MAX).collect();
    format!("body: must be a JSON object: {}", what.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_one_thing() {
        let unauthorized = DeniedAnswer::Unauthorized;
        let table = [
            (
                r#"{"subject":"42"}"#,
                Denial::Subject(Name::subject("42", None), unauthorized),
            ),
            (
                r#"{"subject":"42","issuer":"https://a","answer":204}"#,
                Denial::Subject(
                    Name::subject("42", Some("https://a")),
                    DeniedAnswer::NoContent,
                ),
            ),
            (
                r#" {"token_id":"x","answer":401}"#,
                Denial::Token(Name::token_id("x"), unauthorized),
            ),
            (
                r#"{"topics":"team:7:*"}"#,
                Denial::Topics(pattern("team:7:*").unwrap()),
            ),
            (
                r#"{"topics":"tidegate.connections"}"#,
                Denial::Topics(pattern("tidegate.connections").unwrap()),
            ),
            (r#"{"all":true}"#, Denial::All),
        ];
        for (body, expected) in table {
            assert_eq!(read(body.as_bytes()), Ok(expected.clone()), "{body}");
            assert_eq!(Denial::parse(&expected.text()), Some(expected), "{body}");
        }
    }

    #[test]
    fn a_body_that_says_less_or_more_is_refused() {
        let one =
            "body: one of subject, token_id, topics and all says what is taken back, and only one";
        let table = [
            ("{}", one),
            (r#"{"subject":null}"#, one),
            (r#"{"subject":"a","token_id":"b"}"#, one),
            (r#"{"all":true,"topics":"*"}"#, one),
            (r#"{"all":false}"#, "all: must be true"),
            (
                r#"{"token_id":"b","issuer":"a"}"#,
                "issuer: it is for a subject",
            ),
            (
                r#"{"all":true,"answer":401}"#,
                "answer: it is for a subject or a token; whoever reads topics may come back",
            ),
            (
                r#"{"subject":"a","answer":403}"#,
                "answer 403: must be 401 or 204",
            ),
            (
                r#"{"topics":"a,b"}"#,
                "topics \"a,b\": a topic has no control character and none of # * ,",
            ),
            (
                r#"{"sub":"a"}"#,
                "there is no member \"sub\"; did you mean subject?",
            ),
            (
                r#"{"subjet":"a"}"#,
                "there is no member \"subjet\"; did you mean subject?",
            ),
            (
                r#"{"x":1}"#,
                "there is no member \"x\" here; the known ones are subject, issuer, token_id, topics, all and answer",
            ),
        ];
        for (body, sentence) in table {
            assert_eq!(read(body.as_bytes()), Err(sentence.to_owned()), "{body}");
        }
        for bad in [
            "",
            "x",
            "[]",
            r#"{"subject":"a","subject":"b"}"#,
            r#"{"subject":42}"#,
            r#"{"all":"true"}"#,
            r#"{"subject":"a"} x"#,
            "{\"subject\":\"\u{ff}",
        ] {
            let said = read(bad.as_bytes()).unwrap_err();
            assert!(
                said.starts_with("body: must be a JSON object"),
                "{bad}: {said}"
            );
        }
    }
}
