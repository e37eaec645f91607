//! `POST /events/{topic}`, and what it shares with batches.

use super::answer::Json;
use super::gate::{Caller, Cleared, Publish};
use super::gateway::Gateway;
use super::intake::Place;
use super::name::Name;
use super::problem::Problem;
use super::query::{NOTHING, Query};
use super::shown::Shown;
use super::vocabulary::Vocabulary;
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
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What a publisher is told.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Published<'a> {
    pub(super) topic: &'a str,
    /// None: the topic is not logged.
    pub(super) id: Option<Id>,
}

/// What a POST of one event takes where the path names its topic.
pub(super) const ONE: Vocabulary = Vocabulary {
    names: &["type", "end"],
    also: &["event", "topic"],
    slips: &[("event", "type")],
    ..NOTHING
};

/// `POST /events/{topic}?type=TYPE&end`: the body is the data, verbatim.
pub(super) async fn one(
    caller: Caller<Publish>,
    State(gateway): State<Arc<Gateway>>,
    Extension(client): Extension<Client>,
    Name(topic): Name,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let query = query.as_deref();
    let done = publish_below(&gateway, &caller, &client, &topic, query, &headers, body).await;
    counted(&gateway, done)
}

async fn publish_below(
    gateway: &Gateway,
    caller: &Caller<Publish>,
    client: &Client,
    topic: &str,
    query: Option<&str>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    within_rate(gateway, client)?;
    let topic = topic_of(topic)?;
    let query = Query::read(query, &ONE)?;
    query.has_no_topic_beside(topic.as_str())?;
    let request = One {
        caller,
        client,
        topic,
        query: &query,
        headers,
    };
    publish_one(gateway, request, body, |_| Ok(())).await
}

/// A request to publish one event, but for its body.
#[derive(Clone, Debug)]
pub(super) struct One<'a> {
    pub(super) caller: &'a Caller<Publish>,
    pub(super) client: &'a Client,
    pub(super) topic: Topic,
    pub(super) query: &'a Query,
    pub(super) headers: &'a HeaderMap,
}

/// Reads and publishes one event. `vet` sees what has come of its data, all of it or all that may come.
pub(super) async fn publish_one(
    gateway: &Gateway,
    request: One<'_>,
    body: Body,
    vet: impl Fn(&[u8]) -> Result<(), Problem>,
) -> Result<Response, Problem> {
    let (caller, query) = (request.caller, request.query);
    // All but its data, which is not read before it was judged.
    let publication = caller.clear(
        gateway,
        Publication {
            topic: request.topic,
            event_type: type_of(query.first("type"), query.first("event"))?,
            data: String::new(),
            end: query.switch("end"),
            idempotency_key: idempotency_key(caller, request.headers)?,
        },
    )?;
    let most = gateway.publish.event_bytes_max;
    let name = held_to_share(gateway, request.client);
    let mut place = gateway.intake.enter(name)?;
    let mut data = Vec::new();
    let read = read_in_time(gateway, &mut place, body, &mut data, "an event", most).await;
    if read.as_ref().err().is_none_or(Problem::is_too_large) {
        vet(&data)?;
    }
    read?;
    let data = String::from_utf8(data).map_err(|why| {
        let at = why.utf8_error().valid_up_to();
        Problem::bad_request(format!(
            "data: an event must be UTF-8, and what follows byte {at} is not"
        ))
    })?;
    let topic = publication.topic.clone();
    let publication = publication.with_data(data);
    let ids = publish(gateway, caller, vec![publication]).await?;
    let published = Published {
        topic: topic.as_str(),
        id: ids.first().copied().flatten(),
    };
    Ok(Json(published).into_response())
}

/// Whether the address of the request may publish now. Asked once its key was judged.
pub(super) fn within_rate(gateway: &Gateway, client: &Client) -> Result<(), Problem> {
    let rules = gateway.rules.get();
    let counted = gateway.addresses.publish(client, &rules.address);
    counted.map_err(beyond_rate)
}

/// The answer to an address that must wait before it publishes.
pub(super) fn beyond_rate(wait: Duration) -> Problem {
    let why = "this address has reached its limit of publishes (limits.address)";
    Problem::too_many(why, wait)
}

/// The address of a publisher, where addresses are known apart.
pub(super) fn held_to_share(gateway: &Gateway, client: &Client) -> Option<Network> {
    let limits = gateway.rules.get().address;
    client.network.filter(|_| limits.is_any())
}

/// Publishes all of a batch, or nothing.
pub(super) async fn publish(
    gateway: &Gateway,
    caller: &Caller<Publish>,
    batch: Vec<Cleared<Publication>>,
) -> Result<Vec<Option<Id>>, Problem> {
    // Bodies and the lines of a batch take their time.
    caller.holds_still(gateway)?;
    let batch: Vec<Publication> = batch.into_iter().map(Cleared::into_inner).collect();
    let _place = gateway.publishing.try_acquire().map_err(|_| {
        Problem::busy("too many publishes wait for the log (publish.in_flight_max)")
    })?;
    let took = gateway.metrics.publish_time.start_timer();
    let done = gateway.broker.publish(&batch).await;
    took.observe_duration();
    let ids = done?;
    gateway.metrics.published(Source::Http, ids.len());
    let publisher = caller.grant().who().name();
    gateway.metrics.published_by(publisher, ids.len());
    tracing::debug!(publisher, events = ids.len(), "published over HTTP");
    Ok(ids)
}

/// The answer to a publish. One that is refused is counted by its reason.
pub(super) fn counted(gateway: &Gateway, done: Result<Response, Problem>) -> Response {
    done.unwrap_or_else(|problem| {
        gateway.metrics.publish_refused(problem.refusal());
        problem.into_response()
    })
}

/// The topic in a path.
pub(super) fn topic_of(name: &str) -> Result<Topic, Problem> {
    Topic::parse_logged(name)
        .map_err(|why| Problem::bad_request(format!("topic {}: {why}", Shown(name))))
}

/// An event's type, which has an old name still.
///
/// # Errors
/// It is none, or is given by both names.
pub(super) fn type_of(name: Option<&str>, old: Option<&str>) -> Result<EventType, Problem> {
    if name.is_some() && old.is_some() {
        return Err(Problem::bad_request(
            "type and event: event is the old name of type; send only type",
        ));
    }
    let text = name.or(old).unwrap_or_default();
    EventType::parse(text)
        .map_err(|why| Problem::bad_request(format!("type {}: {why}", Shown(text))))
}

/// As the log is to know it: those of one publisher are not another's.
fn idempotency_key(
    caller: &Caller<Publish>,
    headers: &HeaderMap,
) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let key = String::from_utf8_lossy(value.as_bytes());
    let key = check_key(IDEMPOTENCY_KEY.as_str(), key.into_owned())?;
    Ok(Some(caller.grant().scoped(key)))
}

/// Checks an idempotency key; `name` is what it is called where it stands.
pub(super) fn check_key(name: &str, key: String) -> Result<String, Problem> {
    let fits = (1..=255).contains(&key.len()) && key.bytes().all(|b| (0x20..0x7f).contains(&b));
    if fits {
        Ok(key)
    } else {
        Err(Problem::bad_request(format!(
            "{name} {}: an Idempotency-Key has 1 to 255 printable ASCII characters",
            Shown(&key)
        )))
    }
}

/// Reads a body of at most `most` bytes into `bytes`, all of it within `server.body_timeout`. Of a longer one as many are
/// read, and what is left is discarded by the connection.
pub(super) async fn read_in_time(
    gateway: &Gateway,
    place: &mut Place<'_>,
    body: Body,
    bytes: &mut Vec<u8>,
    what: &str,
    most: usize,
) -> Result<(), Problem> {
    let time = gateway.body_timeout;
    let read = tokio::time::timeout(time, read_body(place, body, bytes, what, most)).await;
    read.unwrap_or_else(|_| {
        Err(Problem::timed_out(format!(
            "the body did not arrive within {time:?}"
        )))
    })
}

async fn read_body(
    place: &mut Place<'_>,
    mut body: Body,
    bytes: &mut Vec<u8>,
    what: &str,
    most: usize,
) -> Result<(), Problem> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::bad_request("the body ended early"))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let fits = data.len().min(most - bytes.len());
        place.append(bytes, data.get(..fits).unwrap_or_default(), most)?;
        if fits < data.len() {
            return Err(Problem::too_large(what, most));
        }
    }
    Ok(())
}
