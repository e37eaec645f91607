//! `GET /topics`, `GET /topics/{topic}`, `GET /topics/{topic}/events`, `DELETE /topics/{topic}`.

use super::answer::Json;
use super::gate::{Caller, Delete, List, Subscribe};
use super::gateway::Gateway;
use super::listing::{self, LIST_MAX};
use super::name::Name;
use super::problem::Problem;
use super::publish::within_rate;
use super::query::{NOTHING, Query};
use super::shown::Shown;
use super::vocabulary::Vocabulary;
use crate::address::Client;
use crate::gap;
use crate::id::Id;
use crate::limits::places::Place;
use crate::log::ReadRequest;
use crate::sse::Gap;
use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// What turns a page, of topics and of events.
pub(super) const PAGE: Vocabulary = Vocabulary {
    names: &["after", "limit"],
    slips: &[("last_event_id", "after"), ("cursor", "after")],
    ..NOTHING
};

/// As [`Gateway::place`].
pub(super) async fn place(gateway: &Gateway, client: &Client) -> Result<Option<Place>, Problem> {
    let place = gateway.place(client.network).await;
    place.map_err(Problem::unavailable)
}

/// Topics that have a log and that the caller may know, `?after=` a name, `?limit=` at most.
pub(super) async fn list(
    caller: Caller<List>,
    State(gateway): State<Arc<Gateway>>,
    Extension(client): Extension<Client>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = Query::read(query.as_deref(), &PAGE)?;
    let limit = query
        .number("limit", &(LIST_MAX as u64))?
        .unwrap_or(LIST_MAX as u64);
    let limit = usize::try_from(limit).unwrap_or(LIST_MAX);
    let place = place(&gateway, &client).await?;
    let after = query.first("after").unwrap_or_default();
    let listing = listing::page(&gateway, caller.grant(), after, limit).await?;
    drop(place);
    let topics = listing.topics;
    let is_cut = topics.len() == limit || !listing.is_complete;
    let mut page = json!({ "topics": topics, "next": topics.last().filter(|_| is_cut) });
    if let Some(members) = page.as_object_mut().filter(|_| !listing.is_complete) {
        members.insert("complete".to_owned(), false.into());
    }
    Ok(gateway.answers.json(client.network, &page))
}

/// What the log holds of a topic, and who reads it.
pub(super) async fn show(
    caller: Caller<List>,
    State(gateway): State<Arc<Gateway>>,
    Extension(client): Extension<Client>,
    Name(name): Name,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    Query::read(query.as_deref(), &NOTHING)?;
    let topic = caller.topic(&gateway, &name)?;
    let here = gateway
        .hub
        .feed(&topic)
        .map_or(0, |feed| feed.subscribers().into());
    let place = place(&gateway, &client).await?;
    let state = gateway.broker.topic(&topic).await?;
    drop(place);
    if state.is_none() && here == 0 {
        return Err(Problem::not_found(format!(
            "topic {} has no log and no subscriber; /topics lists the topics with a log",
            Shown(&name)
        )));
    }
    let range = state.as_ref().and_then(|state| state.range);
    let shown = json!({
        "topic": topic,
        "first": range.map(|(first, _)| first),
        "last": range.map(|(_, last)| last),
        "length": state.as_ref().map_or(0, |state| state.length),
        "ended": state.as_ref().is_some_and(|state| state.ended),
        "subscribers": here + state.map_or(0, |state| state.subscribers_elsewhere),
    });
    Ok(gateway.answers.json(client.network, &shown))
}

#[derive(Serialize)]
struct Retained {
    id: Id,
    #[serde(rename = "event", skip_serializing_if = "String::is_empty")]
    event_type: String,
    data: String,
}

/// Retained events `?after=` an id, `?limit=` at most; a gap is told as a stream would.
pub(super) async fn events(
    caller: Caller<Subscribe>,
    State(gateway): State<Arc<Gateway>>,
    Extension(client): Extension<Client>,
    Name(name): Name,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let topic = caller.topic(&gateway, &name)?;
    let query = Query::read(query.as_deref(), &PAGE)?;
    let after = match query.first("after") {
        Some(text) => Some(
            text.parse::<Id>()
                .map_err(|why| Problem::bad_request(format!("after {}: {why}", Shown(text))))?,
        ),
        None => None,
    };
    let most = gateway.rules.get().limits.history_events_max as u64;
    let limit = query.number("limit", &most)?.unwrap_or(most.min(100));
    let request = ReadRequest {
        topic: topic.clone(),
        after: after.unwrap_or_default(),
        limit: usize::try_from(limit).unwrap_or(100),
    };
    let partition = topic.partition(gateway.hub.partitions());
    let place = place(&gateway, &client).await?;
    let reading = gateway.broker.replay(partition, &[request]).await?;
    drop(place);
    let Some(page) = reading.pages.into_iter().next() else {
        return Err(Problem::internal());
    };
    let missing = after.and_then(|after| gap::judge(after, &reading.horizon, page.floor));
    let gap = missing.map(|missing| Gap {
        topic: topic.clone(),
        reason: missing.reason,
        from: after,
        to: missing.to,
    });
    let shown = page
        .frames
        .iter()
        .filter(|frame| frame.gap_reason().is_none());
    let events: Vec<Retained> = shown
        .map(|frame| Retained {
            id: frame.id,
            event_type: frame.event_type().to_owned(),
            data: frame.data(),
        })
        .collect();
    let page =
        json!({ "topic": topic, "events": events, "more": page.cut_at.is_some(), "gap": gap });
    Ok(gateway.answers.json(client.network, &page))
}

/// Deletes a topic's log; its streams are told, and the next publish opens it anew.
pub(super) async fn delete(
    caller: Caller<Delete>,
    State(gateway): State<Arc<Gateway>>,
    Extension(client): Extension<Client>,
    Name(name): Name,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Problem> {
    within_rate(&gateway, &client)?;
    Query::read(query.as_deref(), &NOTHING)?;
    let topic = caller.topic(&gateway, &name)?;
    match gateway.broker.delete(&topic).await? {
        Some(id) => Ok(Json(json!({ "topic": topic, "id": id }))),
        None => Err(Problem::not_found(format!(
            "topic {} has no log; /topics lists the topics with a log",
            Shown(&name)
        ))),
    }
}
