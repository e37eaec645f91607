//! `POST /events/{topic}` and `POST /events` (NDJSON).

use super::Gateway;
use super::name::Name;
use super::problem::Problem;
use super::query::Query;
use crate::broker::Publication;
use crate::event::EventType;
use crate::id::Id;
use crate::topic::Topic;
use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::sync::Arc;

/// What a publisher is told.
#[derive(Clone, Debug, Serialize)]
struct Published<'a> {
    topic: &'a str,
    id: Id,
}

/// `POST /events/{topic}?event=TYPE&end`: the body is the data, verbatim.
pub(super) async fn one(
    State(gateway): State<Arc<Gateway>>,
    Name(topic): Name,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let query = Query::parse(query.as_deref());
    let done = publish_one(&gateway, &topic, &query, &headers, body).await;
    counted(&gateway, done).map_or_else(IntoResponse::into_response, |(topic, id)| {
        Json(Published {
            topic: topic.as_str(),
            id,
        })
        .into_response()
    })
}

async fn publish_one(
    gateway: &Gateway,
    topic: &str,
    query: &Query,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Topic, Id), Problem> {
    gateway.auth.may_publish(headers)?;
    let topic = topic_of(topic)?;
    let kind = type_of(query.first("event").unwrap_or_default())?;
    let idempotency_key = idempotency_key(headers)?;
    let most = gateway.publish.event_bytes_max;
    let data = read_text(body, most)
        .await?
        .ok_or_else(|| Problem::too_large("an event", most))?;
    let publication = Publication {
        topic,
        kind,
        data,
        end: query.switch("end"),
        idempotency_key,
    };
    let ids = publish(gateway, std::slice::from_ref(&publication)).await?;
    Ok((publication.topic, ids.first().copied().unwrap_or_default()))
}

/// One line of a batch.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    topic: String,
    #[serde(default)]
    event: String,
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
    Published { line: usize, topic: String, id: Id },
    Refused { line: usize, detail: String },
}

/// `POST /events`: one JSON object a line, `{"topic","event","data","end","idempotency_key"}`.
///
/// All lines are published or none, unless `?partial` asks for line by line.
pub(super) async fn batch(
    State(gateway): State<Arc<Gateway>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let query = Query::parse(query.as_deref());
    let done = publish_batch(&gateway, &query, &headers, body).await;
    counted(&gateway, done).map_or_else(IntoResponse::into_response, IntoResponse::into_response)
}

async fn publish_batch(
    gateway: &Gateway,
    query: &Query,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    gateway.auth.may_publish(headers)?;
    let most = gateway.publish.batch_bytes_max;
    let text = read_text(body, most)
        .await?
        .ok_or_else(|| Problem::too_large("a batch", most))?;
    let lines: Vec<(usize, &str)> = text
        .lines()
        .enumerate()
        .map(|(n, line)| (n + 1, line))
        .filter(|(_, line)| !line.trim().is_empty())
        .collect();
    let most = gateway.publish.batch_events_max;
    if lines.len() > most {
        return Err(Problem::bad_request(format!(
            "a batch has at most {most} events"
        )));
    }
    let read = lines
        .iter()
        .map(|&(number, line)| (number, read_line(gateway, line)));
    if query.switch("partial") {
        return Ok(line_by_line(gateway, read.collect()).await);
    }
    let batch = read
        .map(|(number, line)| {
            line.map_err(|why| Problem::bad_request(format!("line {number}: {why}")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let ids = publish(gateway, &batch).await?;
    let events: Vec<Published<'_>> = batch
        .iter()
        .zip(ids)
        .map(|(item, id)| Published {
            topic: item.topic.as_str(),
            id,
        })
        .collect();
    Ok(Json(serde_json::json!({ "events": events })).into_response())
}

async fn line_by_line(
    gateway: &Gateway,
    lines: Vec<(usize, Result<Publication, String>)>,
) -> Response {
    let mut answers = Vec::with_capacity(lines.len());
    for (line, read) in lines {
        let done = match read {
            Ok(item) => publish(gateway, std::slice::from_ref(&item))
                .await
                .map(|ids| (item.topic, ids))
                .map_err(|why| why.detail().to_owned()),
            Err(why) => Err(why),
        };
        answers.push(match done {
            Ok((topic, ids)) => LineAnswer::Published {
                line,
                topic: topic.to_string(),
                id: ids.first().copied().unwrap_or_default(),
            },
            Err(detail) => {
                gateway.metrics.publish_refused("invalid");
                LineAnswer::Refused { line, detail }
            }
        });
    }
    Json(serde_json::json!({ "events": answers })).into_response()
}

fn read_line(gateway: &Gateway, line: &str) -> Result<Publication, String> {
    let line: Line<'_> = serde_json::from_str(line)
        .map_err(|why| format!("not a JSON object with topic and data: {why}"))?;
    // A string is the data; anything else is published as the JSON text it is.
    let data = match serde_json::from_str::<String>(line.data.get()) {
        Ok(text) => text,
        Err(_) => line.data.get().to_owned(),
    };
    let most = gateway.publish.event_bytes_max;
    if data.len() > most {
        return Err(format!("an event has at most {most} bytes"));
    }
    Ok(Publication {
        topic: Topic::parse_logged(&line.topic).map_err(|why| format!("topic: {why}"))?,
        kind: EventType::parse(&line.event).map_err(|why| format!("event: {why}"))?,
        data,
        end: line.end,
        idempotency_key: line
            .idempotency_key
            .map(check_key)
            .transpose()
            .map_err(|why| why.detail().to_owned())?,
    })
}

async fn publish(gateway: &Gateway, batch: &[Publication]) -> Result<Vec<Id>, Problem> {
    let _place = gateway
        .publishing
        .try_acquire()
        .map_err(|_| Problem::unavailable("too many publishes at the same time"))?;
    let ids = gateway.broker.publish(batch).await?;
    gateway.metrics.published("http", ids.len());
    Ok(ids)
}

fn counted<T>(gateway: &Gateway, done: Result<T, Problem>) -> Result<T, Problem> {
    done.inspect_err(|problem| gateway.metrics.publish_refused(problem.refusal()))
}

/// The topic in a path.
pub(super) fn topic_of(name: &str) -> Result<Topic, Problem> {
    Topic::parse_logged(name).map_err(|why| Problem::bad_request(format!("topic: {why}")))
}

fn type_of(text: &str) -> Result<EventType, Problem> {
    EventType::parse(text).map_err(|why| Problem::bad_request(format!("event: {why}")))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let text = value
        .to_str()
        .map_err(|_| Problem::bad_request("Idempotency-Key is printable ASCII"))?;
    check_key(text.to_owned()).map(Some)
}

fn check_key(key: String) -> Result<String, Problem> {
    let fits = (1..=255).contains(&key.len()) && key.bytes().all(|b| (0x20..0x7f).contains(&b));
    if fits {
        Ok(key)
    } else {
        Err(Problem::bad_request(
            "Idempotency-Key has 1 to 255 printable ASCII characters",
        ))
    }
}

/// Bytes that are read and thrown away after a body turned out too large, so that the answer is
/// not lost in a reset of the connection.
const DISCARD_MAX: usize = 16 * 1024 * 1024;

/// Reads a body of at most `most` bytes of UTF-8; none if it is larger.
async fn read_text(mut body: Body, most: usize) -> Result<Option<String>, Problem> {
    let mut bytes = BytesMut::new();
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::bad_request("the body broke off"))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        total += data.len();
        if total > most + DISCARD_MAX {
            return Ok(None);
        }
        if total <= most {
            bytes.extend_from_slice(&data);
        }
    }
    if total > most {
        return Ok(None);
    }
    String::from_utf8(bytes.into())
        .map(Some)
        .map_err(|_| Problem::bad_request("data: an event is UTF-8"))
}
