//! `POST /events/{topic}` and `POST /events` (NDJSON).

use super::answer::Json;
use super::gateway::Gateway;
use super::intake::Place;
use super::name::Name;
use super::problem::Problem;
use super::query::Query;
use crate::address::{Client, Network};
use crate::broker::Publication;
use crate::event::EventType;
use crate::id::Id;
use crate::metrics::Source;
use crate::topic::Topic;
use axum::Extension;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::sync::Arc;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What a publisher is told.
#[derive(Clone, Debug, Serialize)]
struct Published<'a> {
    topic: &'a str,
    /// None: the topic is not logged.
    id: Option<Id>,
}

/// `POST /events/{topic}?event=TYPE&end`: the body is the data, verbatim.
pub(super) async fn one(
    State(gateway): State<Arc<Gateway>>,
    Extension(client): Extension<Client>,
    Name(topic): Name,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let query = Query::parse(query.as_deref());
    let done = publish_one(&gateway, &client, &topic, &query, &headers, body).await;
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
    client: &Client,
    topic: &str,
    query: &Query,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Topic, Option<Id>), Problem> {
    may_publish(gateway, client, headers)?;
    let topic = topic_of(topic)?;
    let event_type = type_of(query.first("event").unwrap_or_default())?;
    let idempotency_key = idempotency_key(headers)?;
    let most = gateway.publish.event_bytes_max;
    let mut place = gateway.intake.enter(held_to_share(gateway, client))?;
    let data = read_in_time(gateway, &mut place, body, "an event", most).await?;
    let data =
        String::from_utf8(data).map_err(|_| Problem::bad_request("data: an event is UTF-8"))?;
    let publication = Publication {
        topic,
        event_type,
        data,
        end: query.switch("end"),
        idempotency_key,
    };
    let ids = publish(gateway, std::slice::from_ref(&publication)).await?;
    Ok((publication.topic, ids.first().copied().flatten()))
}

/// Whether the request may publish: by its key, then by its address.
pub(super) fn may_publish(
    gateway: &Gateway,
    client: &Client,
    headers: &HeaderMap,
) -> Result<(), Problem> {
    let rules = gateway.rules.get();
    rules.auth.may_publish(headers)?;
    let counted = gateway.addresses.publish(client, &rules.address);
    counted.map_err(|wait| {
        Problem::too_many("this address publishes as much as one address may", wait)
    })
}

/// The address of a publisher, where addresses are known apart.
fn held_to_share(gateway: &Gateway, client: &Client) -> Option<Network> {
    let limits = gateway.rules.get().address;
    client.network.filter(|_| limits.is_any())
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

/// `POST /events`: one JSON object a line, `{"topic","event","data","end","idempotency_key"}`.
///
/// All lines are published or none, unless `?partial` asks for line by line.
pub(super) async fn batch(
    State(gateway): State<Arc<Gateway>>,
    Extension(client): Extension<Client>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let query = Query::parse(query.as_deref());
    let done = publish_batch(&gateway, &client, &query, &headers, body).await;
    counted(&gateway, done).map_or_else(IntoResponse::into_response, IntoResponse::into_response)
}

async fn publish_batch(
    gateway: &Gateway,
    client: &Client,
    query: &Query,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    may_publish(gateway, client, headers)?;
    // One key cannot name several events, and a key that is passed over would protect nobody.
    if headers.contains_key(IDEMPOTENCY_KEY) {
        return Err(Problem::bad_request(
            "Idempotency-Key: the lines of a batch have keys of their own, idempotency_key",
        ));
    }
    let most = gateway.publish.batch_bytes_max;
    let mut place = gateway.intake.enter(held_to_share(gateway, client))?;
    let body = read_in_time(gateway, &mut place, body, "a batch", most).await?;
    let lines: Vec<(usize, &[u8])> = body
        .split(|&byte| byte == b'\n')
        .enumerate()
        .map(|(n, line)| (n + 1, line))
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .collect();
    let most = gateway.publish.batch_events_max;
    if lines.len() > most {
        return Err(Problem::bad_request(format!(
            "a batch has at most {most} events"
        )));
    }
    // It was let in as one, and is paid off before the next.
    let limits = gateway.rules.get().address;
    let more = lines.len().saturating_sub(1);
    gateway.addresses.publish_more(client, more, &limits);
    let most = gateway.publish.event_bytes_max;
    let read = lines
        .iter()
        .map(|&(number, line)| (number, read_line(line, most)));
    if query.switch("partial") {
        return line_by_line(gateway, read.collect()).await;
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

/// Publishes each line by itself. Once the log is away, the rest is not tried: each line would wait
/// for its own time-out.
async fn line_by_line(
    gateway: &Gateway,
    lines: Vec<(usize, Result<Publication, String>)>,
) -> Result<Response, Problem> {
    let mut answers = Vec::with_capacity(lines.len());
    let mut away: Option<Problem> = None;
    let mut published = 0;
    for (line, read) in lines {
        let done = match (read, &away) {
            (Err(why), _) => Err(Problem::bad_request(why)),
            (Ok(_), Some(away)) => Err(away.clone()),
            (Ok(item), None) => publish(gateway, std::slice::from_ref(&item))
                .await
                .map(|ids| (item.topic, ids)),
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
    let line: Line<'_> = serde_json::from_slice(line)
        .map_err(|why| format!("not a JSON object with topic and data: {}", in_line(&why)))?;
    // A string is the data; anything else is published as the JSON text it is.
    let data = line.data.get();
    let data = if data.starts_with('"') {
        // JSON can escape half a character, which UTF-8 cannot write.
        serde_json::from_str(data).map_err(|_| "data: half a character is escaped")?
    } else {
        data.to_owned()
    };
    if data.len() > most {
        return Err(format!("an event has at most {most} bytes"));
    }
    Ok(Publication {
        topic: Topic::parse_logged(&line.topic).map_err(|why| format!("topic: {why}"))?,
        event_type: EventType::parse(&line.event).map_err(|why| format!("event: {why}"))?,
        data,
        end: line.end,
        idempotency_key: line
            .idempotency_key
            .map(check_key)
            .transpose()
            .map_err(|why| why.detail().to_owned())?,
    })
}

/// What is wrong, and where in the line: which line it is, the parser does not know.
fn in_line(why: &serde_json::Error) -> String {
    let text = why.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    format!("{what} at column {}", why.column())
}

async fn publish(gateway: &Gateway, batch: &[Publication]) -> Result<Vec<Option<Id>>, Problem> {
    let _place = gateway
        .publishing
        .try_acquire()
        .map_err(|_| Problem::busy("too many publishes at the same time"))?;
    let took = gateway.metrics.publish_time.start_timer();
    let done = gateway.broker.publish(batch).await;
    took.observe_duration();
    let ids = done?;
    gateway.metrics.published(Source::Http, ids.len());
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
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
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

/// Reads a body of at most `most` bytes, all of it within `server.body_timeout`; what is left of a longer
/// one is discarded by the connection.
async fn read_in_time(
    gateway: &Gateway,
    place: &mut Place<'_>,
    body: Body,
    what: &str,
    most: usize,
) -> Result<Vec<u8>, Problem> {
    let time = gateway.body_timeout;
    let read = tokio::time::timeout(time, read_body(place, body, what, most)).await;
    read.unwrap_or_else(|_| {
        Err(Problem::timed_out(format!(
            "the body did not come within {time:?}"
        )))
    })
}

async fn read_body(
    place: &mut Place<'_>,
    mut body: Body,
    what: &str,
    most: usize,
) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::bad_request("the body broke off"))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > most {
            return Err(Problem::too_large(what, most));
        }
        place.append(&mut bytes, &data, most)?;
    }
    Ok(bytes)
}
