//! `POST /events`: a batch of events as NDJSON, or one event of the topic `events`.

use super::answer::Json;
use super::gate::{Caller, Cleared, Publish};
use super::gateway::Gateway;
use super::problem::Problem;
use super::publish::{
    IDEMPOTENCY_KEY, One as OneEvent, Published, beyond_rate, check_key, counted, held_to_share,
    publish, publish_one, read_in_time, topic_of, type_of, within_rate,
};
use super::query::{NOTHING, Query};
use super::shown::Shown;
use super::vocabulary::Vocabulary;
use crate::address::Client;
use crate::broker::Publication;
use crate::id::Id;
use crate::topic::Topic;
use axum::Extension;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer as _, Serialize};
use serde_json::value::RawValue;
use std::fmt;
use std::sync::Arc;

/// What a body is called that has an event in each line. The first is the one that is told.
const NDJSON: [&str; 3] = [
    "application/x-ndjson",
    "application/jsonl",
    "application/x-jsonlines",
];
/// What a batch takes.
pub(super) const BATCH: Vocabulary = Vocabulary {
    names: &["partial"],
    elsewhere: &[
        ("type", "each line of a batch has its own"),
        ("event", "each line of a batch has a type of its own"),
        ("end", "each line of a batch has its own"),
    ],
    ..NOTHING
};
/// What a line of it takes.
pub(super) const LINE: Vocabulary = Vocabulary {
    what: "member",
    names: &["topic", "type", "data", "end", "idempotency_key"],
    also: &["event"],
    slips: &[("event", "type")],
    ..NOTHING
};
/// What one event takes.
pub(super) const ONE: Vocabulary = Vocabulary {
    names: &["type", "end"],
    also: &["event"],
    elsewhere: &[
        ("topic", "the path names the topic: POST /events/TOPIC"),
        (
            "partial",
            "only a batch takes it; a batch has Content-Type: application/x-ndjson",
        ),
    ],
    slips: &[("event", "type")],
    ..NOTHING
};
/// Bytes of what the reader of a line says that are told.
const FAULT_SHOWN_MAX: usize = 160;

/// `POST /events`. What it is, its `Content-Type` says alone: data may look like anything.
pub(super) async fn many(
    caller: Caller<Publish>,
    State(gateway): State<Arc<Gateway>>,
    Extension(client): Extension<Client>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let query = query.as_deref();
    let done = if is_batch(&headers) {
        publish_batch(&gateway, &caller, &client, query, &headers, body).await
    } else {
        publish_to_default(&gateway, &caller, &client, query, &headers, body).await
    };
    counted(&gateway, done)
}

/// What a request says that its body is.
fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE);
    let value = value.map(HeaderValue::as_bytes).unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

fn is_batch(headers: &HeaderMap) -> bool {
    let said = content_type(headers);
    let kind = said.split(';').next().unwrap_or_default().trim();
    NDJSON.iter().any(|known| known.eq_ignore_ascii_case(kind))
}

async fn publish_to_default(
    gateway: &Gateway,
    caller: &Caller<Publish>,
    client: &Client,
    query: Option<&str>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    within_rate(gateway, client)?;
    let query = Query::read(query, &ONE)?;
    let topic = topic_of(Topic::DEFAULT)?;
    let vet = |data: &[u8]| {
        if !looks_like_batch(data) {
            return Ok(());
        }
        Err(Problem::bad_request(format!(
            "Content-Type {}: the first line is a JSON object with a topic, like a batch; send a batch with Content-Type: {}; to publish it as data, use POST /events/{}",
            Shown(&content_type(headers)),
            NDJSON[0],
            Topic::DEFAULT
        )))
    };
    let request = OneEvent {
        caller,
        client,
        topic,
        query: &query,
        headers,
    };
    publish_one(gateway, request, body, vet).await
}

/// Whether the first line is an object with a topic.
fn looks_like_batch(data: &[u8]) -> bool {
    let mut lines = data.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.find(|line| !line.is_empty()).unwrap_or_default();
    first_member(first, |name| name == "topic").is_some()
}

/// The name of the first member that is wanted, if the text is a JSON object.
pub(super) fn first_member(text: &[u8], is_wanted: impl Fn(&str) -> bool) -> Option<String> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let found = json.deserialize_map(FirstMember(is_wanted)).ok()?;
    json.end().ok()?;
    found
}

/// Reads an object without keeping it: it may have very many members.
struct FirstMember<F>(F);

impl<'de, F: Fn(&str) -> bool> Visitor<'de> for FirstMember<F> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Option<String>, A::Error> {
        let mut found = None;
        while let Some(name) = members.next_key::<String>()? {
            members.next_value::<IgnoredAny>()?;
            found = found.or_else(|| Some(name).filter(|name| (self.0)(name)));
        }
        Ok(found)
    }
}

/// One line of a batch.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    topic: String,
    #[serde(default, rename = "type")]
    event_type: Option<String>,
    /// The same by its old name.
    #[serde(default)]
    event: Option<String>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(default)]
    end: bool,
    #[serde(default)]
    idempotency_key: Option<String>,
}

/// What one line of `?partial` came to.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum LineAnswer {
    Published {
        line: usize,
        topic: String,
        id: Option<Id>,
    },
    Refused {
        line: usize,
        detail: String,
    },
}

/// A batch: one JSON object a line, `{"topic","type","data","end","idempotency_key"}`.
///
/// All lines are published or none, unless `?partial` asks for line by line.
async fn publish_batch(
    gateway: &Gateway,
    caller: &Caller<Publish>,
    client: &Client,
    query: Option<&str>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    within_rate(gateway, client)?;
    let query = Query::read(query, &BATCH)?;
    // One key cannot name several events, and a key that is passed over would protect nobody.
    if headers.contains_key(IDEMPOTENCY_KEY) {
        return Err(Problem::bad_request(
            "Idempotency-Key: a batch does not take this header; each line can have its own idempotency_key",
        ));
    }
    // Which topics it names only its lines say: who may publish to none needs not send them.
    caller.may_do_any(gateway)?;
    let most = gateway.publish.batch_bytes_max;
    let mut place = gateway.intake.enter(held_to_share(gateway, client))?;
    let mut bytes = Vec::new();
    read_in_time(gateway, &mut place, body, &mut bytes, "a batch", most).await?;
    let lines: Vec<(usize, &[u8])> = bytes
        .split(|&byte| byte == b'\n')
        .enumerate()
        .map(|(n, line)| (n + 1, line))
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .collect();
    let most = gateway.publish.batch_events_max;
    if lines.len() > most {
        return Err(Problem::bad_request(format!(
            "body: a batch has at most {most} events, and this one has {}",
            lines.len()
        )));
    }
    // It was let in as one, and is paid off before the next.
    let limits = gateway.rules.get().address;
    let more = lines.len().saturating_sub(1);
    let counted = gateway.addresses.publish_more(client, more, &limits);
    counted.map_err(beyond_rate)?;
    let most = gateway.publish.event_bytes_max;
    let read = lines
        .iter()
        .map(|&(number, line)| (number, read_line(line, most)));
    if query.switch("partial") {
        return line_by_line(gateway, caller, read.collect()).await;
    }
    let batch = read
        .map(|(number, line)| {
            let line = line.map_err(Problem::bad_request);
            let cleared = line.and_then(|line| clear(gateway, caller, line));
            cleared.map_err(|problem| problem.at(&format!("line {number}")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let topics: Vec<Topic> = batch.iter().map(|item| item.topic.clone()).collect();
    let ids = publish(gateway, caller, batch).await?;
    let events: Vec<Published<'_>> = topics
        .iter()
        .zip(ids)
        .map(|(topic, id)| Published {
            topic: topic.as_str(),
            id,
        })
        .collect();
    Ok(Json(serde_json::json!({ "events": events })).into_response())
}

/// Lets a line through if its publisher has the right to it.
fn clear(
    gateway: &Gateway,
    caller: &Caller<Publish>,
    mut line: Publication,
) -> Result<Cleared<Publication>, Problem> {
    let key = line.idempotency_key.take();
    line.idempotency_key = key.map(|key| caller.grant().scoped(key));
    caller.clear(gateway, line)
}

/// Publishes each line by itself. Once the log is away, the rest is not tried: each line would wait
/// for its own time-out.
async fn line_by_line(
    gateway: &Gateway,
    caller: &Caller<Publish>,
    lines: Vec<(usize, Result<Publication, String>)>,
) -> Result<Response, Problem> {
    let mut answers = Vec::with_capacity(lines.len());
    let mut away: Option<Problem> = None;
    let mut published = 0;
    for (line, read) in lines {
        let read = read.map_err(Problem::bad_request);
        let cleared = read.and_then(|item| clear(gateway, caller, item));
        let done = match (cleared, &away) {
            (Err(problem), _) => Err(problem),
            (Ok(_), Some(away)) => Err(away.clone()),
            (Ok(item), None) => {
                let topic = item.topic.clone();
                let ids = publish(gateway, caller, vec![item]).await;
                ids.map(|ids| (topic, ids))
            }
        };
        answers.push(match done {
            Ok((topic, ids)) => {
                published += 1;
                LineAnswer::Published {
                    line,
                    topic: topic.to_string(),
                    id: ids.first().copied().flatten(),
                }
            }
            Err(problem) => {
                gateway.metrics.publish_refused(problem.refusal());
                let detail = problem.detail().to_owned();
                away = away.or(problem.is_unavailable().then_some(problem));
                LineAnswer::Refused { line, detail }
            }
        });
    }
    match away {
        Some(away) if published == 0 => Err(away),
        _ => Ok(Json(serde_json::json!({ "events": answers })).into_response()),
    }
}

/// One line of a batch, with at most so many bytes of data.
pub(super) fn read_line(line: &[u8], most: usize) -> Result<Publication, String> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(|why| fault(line, &why))?;
    // A string is the data; anything else is published as the JSON text it is.
    let data = line.data.get();
    let data = if data.starts_with('"') {
        // JSON can escape half a character, which UTF-8 cannot write.
        serde_json::from_str(data).map_err(|_| "data: a \\u escape has only half of a character")?
    } else {
        data.to_owned()
    };
    if data.len() > most {
        let bytes = data.len();
        return Err(format!(
            "data: an event has at most {most} bytes, and this one has {bytes}"
        ));
    }
    let said = |why: Problem| why.detail().to_owned();
    let key = line.idempotency_key;
    let key = key.map(|key| check_key("idempotency_key", key));
    Ok(Publication {
        topic: topic_of(&line.topic).map_err(said)?,
        event_type: type_of(line.event_type.as_deref(), line.event.as_deref()).map_err(said)?,
        data,
        end: line.end,
        idempotency_key: key.transpose().map_err(said)?,
    })
}

/// What is wrong with a line, and where in it: which line it is, the parser does not know.
fn fault(line: &[u8], why: &serde_json::Error) -> String {
    if let Some(unknown) = first_member(line, |name| !LINE.knows(name)) {
        return LINE.refusal(&unknown);
    }
    let text = why.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    // It may hold what was given.
    let what: String = what.chars().take(FAULT_SHOWN_MAX).collect();
    format!(
        "not a JSON object with topic and data: {} at column {}",
        what.escape_debug(),
        why.column()
    )
}
