//! `GET /events` and `GET /events/{topic}`: from a request to an open stream.

use super::accept::{HandoffSlot, end_of_carrier};
use super::come_back::{come_back, stream_headers};
use super::gate::{Caller, OpenStream, Unjudged};
use super::gateway::Gateway;
use super::name::Name;
use super::problem::Problem;
use super::query::{NOTHING, Query};
use super::shown::Shown;
use super::vocabulary::Vocabulary;
use crate::address::Client;
use crate::cursor::Cursor;
use crate::hub::TaskWaker;
use crate::limits::Lease;
use crate::log::History;
use crate::metrics::{AddressLimit, CloseReason, Refusal, WayOut};
use crate::stream::body::{Outside, StreamBody};
use crate::stream::life::Life;
use crate::stream::open::{MaybeOpen, Opening, open};
use crate::stream::registry::{Opened, StreamPlace};
use crate::stream::request::{Begin, StreamRequest};
use crate::stream::sockets::Handoff;
use crate::stream::turn::Stream;
use crate::time::CoarseInstant;
use crate::topic::Topic;
use axum::body::Body;
use axum::extract::{FromRequestParts, RawQuery, State};
use axum::http::Version;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// Set by a proxy that tries another replica when this one answers 503.
pub(super) const FAILOVER: HeaderName = HeaderName::from_static("tidegate-failover");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Whoever has as many streams as one address may, or asks for topics for which there is no room, is asked to come back
/// after so many times `stream.retry`: others may have gone by then, and one that never goes asks seldom.
const LONG_RETRY: u64 = 10;
/// Bytes of a body that a stream's request may have, which nobody reads.
const BODY_MAX: u64 = 16 * 1024;

/// What a stream takes.
pub(super) const NAMES: Vocabulary = Vocabulary {
    names: &[
        "topic",
        "type",
        "since",
        "last",
        "last_event_id",
        "limit",
        "max_age",
        "heartbeat",
        "envelope",
    ],
    also: &["lastEventId"],
    slips: &[
        ("lastEventId", "last_event_id"),
        ("event", "type"),
        ("channel", "topic"),
        ("cursor", "last_event_id"),
        ("after", "last_event_id"),
    ],
    ..NOTHING
};

/// `?max_age=` at most; streams are cut by `stream.age_max` anyway.
const AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// `GET /events?topic=a&topic=b`: one stream of several topics; without any, of `events`.
pub(super) async fn many(
    caller: Caller<OpenStream>,
    State(gateway): State<Arc<Gateway>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    way: Way,
) -> Response {
    subscribe(gateway, &caller, None, query.as_deref(), &headers, way).await
}

/// `GET /events/{topic}`: a stream of one topic.
pub(super) async fn one(
    caller: Caller<OpenStream>,
    State(gateway): State<Arc<Gateway>>,
    Name(topic): Name,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    way: Way,
) -> Response {
    let query = query.as_deref();
    subscribe(gateway, &caller, Some(&topic), query, &headers, way).await
}

/// Which way out a connection has, and whom it leads to.
pub(super) struct Way {
    version: Version,
    slot: Option<HandoffSlot>,
    client: Option<Client>,
}

impl Way {
    /// The slot where the connection can be taken over.
    fn slot(self) -> Option<HandoffSlot> {
        self.slot.filter(|_| self.version == Version::HTTP_11)
    }
}

impl<S: Sync> FromRequestParts<S> for Way {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self {
            version: parts.version,
            slot: parts.extensions.remove(),
            client: parts.extensions.get().copied(),
        })
    }
}

/// HEAD tells what GET would, and opens nothing.
pub(super) async fn head(_: Unjudged) -> Response {
    // A body of unknown length, as GET has: it is not sent, and no `Content-Length` is.
    stream_headers(Body::new(super::cut::CutAfter::new(Bytes::new())))
}

async fn subscribe(
    gateway: Arc<Gateway>,
    caller: &Caller<OpenStream>,
    topic: Option<&str>,
    query: Option<&str>,
    headers: &HeaderMap,
    way: Way,
) -> Response {
    let mut request = match request(&gateway, topic, query, headers) {
        Ok(request) => request,
        Err(problem) => {
            gateway.metrics.refused(Refusal::BadRequest);
            return problem.into_response();
        }
    };
    // Before anything is said of this replica, taken of it, or wanted.
    request.life = caller.life(request.all_topics());
    let request = match caller.clear(&gateway, request) {
        Ok(request) => request,
        Err(problem) => {
            gateway.metrics.refused(OpenStream::refusal(&problem));
            return problem.into_response();
        }
    };
    if gateway.streams.drain.has_begun() {
        return refuse(
            &gateway,
            headers,
            Refusal::Draining,
            "this replica is stopping",
        );
    }
    let topics = request.topics.len() + usize::from(request.connections);
    // First: whoever has as much as one may is not passed on from replica to replica.
    let Ok(lease) = lease(&gateway, way.client.as_ref(), topics) else {
        gateway.metrics.refused(Refusal::Address);
        return come_back(&gateway, LONG_RETRY);
    };
    // Not passed on either: a proxy takes a replica that refuses for full, and streams of topics that are
    // read here would suffer for the names that somebody makes up.
    let feeds_max = gateway.rules.get().limits.feeds_max;
    let Some(room) = gateway.hub.reserve(&request.topics, feeds_max) else {
        gateway.metrics.refused(Refusal::Feeds);
        return come_back(&gateway, LONG_RETRY);
    };
    let name = lease.as_ref().and_then(|lease| lease.client().network);
    let streams_max = gateway.rules.get().limits.streams_max;
    let Some(place) = StreamPlace::take(&gateway.open_streams, streams_max) else {
        return refuse(
            &gateway,
            headers,
            Refusal::Limit,
            "this replica has reached limits.streams_max",
        );
    };
    // Last: whoever is sent away before has a ticket that is good still.
    if let Err(refused) = caller.use_ticket(&gateway).await {
        return refused;
    }
    let mut guard = place.open(topics, lease);
    // A stream that ends cleanly leaves its connection to the next request.
    let address = way.client.map(|client| client.address);
    let slot = way
        .slot()
        .filter(|_| request.limit.is_none() && request.ends_at.is_none());
    gateway.open_streams.say_opened(&Opened {
        topics: &request.topics,
        topics_count: topics,
        address,
        begin: request.begin.as_str(),
        way: if slot.is_some() {
            WayOut::Socket
        } else {
            WayOut::Body
        },
    });
    let (ends_at, life) = (request.ends_at, request.life.clone());
    let task_waker = Arc::new(TaskWaker::default());
    let opening = open(
        gateway.hub.clone(),
        gateway.reads.clone(),
        gateway.streams.clone(),
        task_waker.clone(),
        request.into_inner(),
        room,
        name,
    );
    let took = gateway.metrics.start.start_timer();
    let opening = unless_denied(&gateway, &life, opening);
    let opened = MaybeOpen::within(opening, gateway.open_wait).await;
    took.observe_duration();
    if opened.stream().is_some()
        && let Some(answer) = caller.denial(&gateway)
    {
        guard.close(CloseReason::Revoked);
        return Caller::<OpenStream>::refuse_denied(&gateway, answer).into_response();
    }
    if opened.stream().is_some_and(Stream::is_over_for_good) {
        guard.close(CloseReason::Ended);
        return StatusCode::NO_CONTENT.into_response();
    }
    if opened.stream().is_some_and(Stream::has_a_doubtful_end) {
        guard.close(CloseReason::Held);
        return come_back(&gateway, 1);
    }
    if let Some(slot) = slot {
        let guard = guard.on_socket();
        return stream_headers(slot.leave(Handoff {
            opened,
            guard,
            life,
        }));
    }
    let body = StreamBody::new(
        &gateway.bodies,
        opened,
        gateway.reads.clone(),
        task_waker,
        gateway.streams.clone(),
        guard,
        Outside {
            peer: address,
            end_of_carrier: end_of_carrier(),
            ends_at,
            life,
        },
    );
    stream_headers(body.into_axum())
}

/// A stream that is open by a token begins only when it is known what was taken back until now. A replica that does not hear
/// the store shows it nothing: neither what its window has, nor what others publish.
fn unless_denied(
    gateway: &Gateway,
    life: &Life,
    opening: impl Future<Output = Stream> + Send + 'static,
) -> Opening {
    if !life.holder.is_of_token() {
        return Box::pin(opening);
    }
    let denials = gateway.denials.clone();
    Box::pin(async move {
        let (stream, ()) = tokio::join!(opening, denials.read_anew());
        stream
    })
}

/// What the stream takes of what one address may. None where addresses are neither told nor limited.
fn lease(
    gateway: &Gateway,
    client: Option<&Client>,
    topics: usize,
) -> Result<Option<Box<Lease>>, AddressLimit> {
    let limits = gateway.rules.get().address;
    let client = client.filter(|client| client.is_told || limits.is_any());
    client
        .map(|client| gateway.addresses.open(client, topics, &limits))
        .transpose()
        .map(|lease| lease.map(Box::new))
}

/// Whether a body comes with the request that is large, or may be. A stream whose client goes on talking is cut, and a
/// proxy that cannot write then takes this replica for broken: so it is refused, and its body read and dropped.
fn brings_much_along(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.trim().parse::<u64>().ok());
    length.is_some_and(|length| length > BODY_MAX)
        || headers.contains_key(header::TRANSFER_ENCODING)
}

/// What the request asks for, or what is wrong with it. Nothing is subscribed yet.
fn request(
    gateway: &Gateway,
    topic: Option<&str>,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<StreamRequest, Problem> {
    if brings_much_along(headers) {
        return Err(Problem::bad_request(
            "body: a stream takes no body; publish an event with POST",
        ));
    }
    let (query, ignored) = Query::read_among_others(query, &NAMES)?;
    let names: Vec<&str> = match topic {
        Some(topic) => {
            query.has_no_topic_beside(topic)?;
            vec![topic]
        }
        None if query.first("topic").is_none() => vec![Topic::DEFAULT],
        None => query.all("topic").collect(),
    };
    let (topics, connections) = topics_of(gateway, &names)?;
    let event_types = event_types(gateway, &query)?;
    let heartbeat_events = match query.first("heartbeat") {
        None | Some("comment") => false,
        Some("event") => true,
        Some(other) => {
            return Err(Problem::bad_request(format!(
                "heartbeat {}: must be event or comment",
                Shown(other)
            )));
        }
    };
    let envelope = match query.first("envelope") {
        None | Some("0" | "false") => false,
        Some("" | "1" | "true") => true,
        Some(other) => {
            return Err(Problem::bad_request(format!(
                "envelope {}: must have no value, 1 or 0",
                Shown(other)
            )));
        }
    };
    Ok(StreamRequest {
        begin: begin(gateway, &query, headers)?,
        topics,
        connections,
        event_types,
        limit: query.number("limit", &u64::MAX)?,
        ends_at: query
            .duration("max_age", "")?
            .map(|age| CoarseInstant::now() + age.min(AGE_MAX)),
        life: Life::default(),
        heartbeat_events,
        envelope,
        ignored,
    })
}

/// Topics with a log, each once, and whether the number of connections is asked for as well.
fn topics_of(gateway: &Gateway, names: &[&str]) -> Result<(Vec<Topic>, bool), Problem> {
    let most = gateway.rules.get().limits.topics_per_stream_max;
    let mut topics: Vec<Topic> = Vec::new();
    let mut connections = false;
    for name in names {
        let topic = Topic::parse(name)
            .map_err(|why| Problem::bad_request(format!("topic {}: {why}", Shown(name))))?;
        match topic.as_str() {
            Topic::CONNECTIONS => connections = true,
            name if topic.is_reserved() && name != Topic::REFUSED => {
                return Err(Problem::bad_request(format!(
                    "topic {}: the only topics that begin with {:?} are {} and {}",
                    Shown(name),
                    Topic::RESERVED,
                    Topic::CONNECTIONS,
                    Topic::REFUSED
                )));
            }
            _ if topics.contains(&topic) => {}
            // At once: each more is compared with all before it.
            _ if topics.len() == most => {
                return Err(Problem::bad_request(format!(
                    "topic: a stream has at most {most} topics, and this request names {}",
                    names.len()
                )));
            }
            _ => topics.push(topic),
        }
    }
    let partitions: BTreeSet<_> = topics
        .iter()
        .map(|topic| topic.partition(gateway.hub.partitions()))
        .collect();
    if !Cursor::fits(partitions.len()) {
        return Err(Problem::bad_request(format!(
            "topic: these topics are in {} partitions, too many for one cursor; read some of them on another stream",
            partitions.len()
        )));
    }
    Ok((topics, connections))
}

/// Types of events that are asked for, each once.
fn event_types(gateway: &Gateway, query: &Query) -> Result<Vec<String>, Problem> {
    let (most, bytes_most) = {
        let limits = &gateway.rules.get().limits;
        (limits.types_per_stream_max, limits.types_bytes_max)
    };
    let types: BTreeSet<&str> = query.all("type").collect();
    if types.len() > most {
        return Err(Problem::bad_request(format!(
            "type: a stream has at most {most} types, and this request names {}",
            types.len()
        )));
    }
    let bytes = types.iter().map(|name| name.len()).sum::<usize>();
    if bytes > bytes_most {
        return Err(Problem::bad_request(format!(
            "type: the types of a stream have at most {bytes_most} bytes together, and these have {bytes}"
        )));
    }
    Ok(types.into_iter().map(str::to_owned).collect())
}

/// A cursor wins over history: `?since=` and `?last=` speak of a first visit.
fn begin(gateway: &Gateway, query: &Query, headers: &HeaderMap) -> Result<Begin, Problem> {
    let header = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty());
    let param = || {
        query
            .first("last_event_id")
            .or_else(|| query.first("lastEventId"))
            .filter(|text| !text.is_empty())
    };
    let history = history(gateway, query)?;
    let cursor = match header {
        Some(value) => Some(value.to_str().ok()),
        None => param().map(Some),
    };
    Ok(match (cursor, history) {
        (Some(text), _) => text
            .and_then(|text| text.parse().ok())
            .map_or(Begin::Unreadable, Begin::After),
        (None, Some(history)) => Begin::History(history),
        (None, None) => Begin::Live,
    })
}

fn history(gateway: &Gateway, query: &Query) -> Result<Option<History>, Problem> {
    let most = gateway.rules.get().limits.history_events_max;
    let last = query.number("last", &(most as u64))?;
    let since = match query.first("since") {
        Some("earliest") => Some(History::Earliest),
        _ => query
            .duration("since", "earliest, or ")?
            .map(|age| History::Since {
                ms: crate::time::millis(age),
            }),
    };
    match (since, last) {
        (Some(_), Some(_)) => Err(Problem::bad_request(
            "since and last: send only one of them",
        )),
        (since, None) => Ok(since),
        (None, Some(events)) => Ok(Some(History::Last {
            events: usize::try_from(events).unwrap_or(usize::MAX),
        })),
    }
}

/// 503 to a proxy that can try another replica. To anyone else a stream that is cut at once:
/// `EventSource` gives up for good on any status but 200.
fn refuse(gateway: &Gateway, headers: &HeaderMap, reason: Refusal, detail: &str) -> Response {
    gateway.metrics.refused(reason);
    if headers.get(FAILOVER).is_some_and(|value| value == "1") {
        return Problem::unavailable(detail).into_response();
    }
    come_back(gateway, 1)
}
