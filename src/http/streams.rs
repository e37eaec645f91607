//! `GET /streams`: which streams are open here, the slowest first. For operators.

use super::answer::Json;
use super::gate::{Caller, Operate};
use super::gateway::Gateway;
use super::problem::Problem;
use super::query::{NOTHING, Query};
use super::shown::Shown;
use super::vocabulary::Vocabulary;
use crate::stream::listing::{Row, Sort};
use axum::extract::{RawQuery, State};
use serde::Serialize;
use std::sync::Arc;

/// Streams of one answer, if none are asked for, and at most.
const STREAMS: (usize, u32) = (50, 1000);

pub(super) const NAMES: Vocabulary = Vocabulary {
    names: &["sort", "limit"],
    ..NOTHING
};

#[derive(Debug, Serialize)]
pub(super) struct Listed {
    /// Open streams, those that are not listed too.
    open: usize,
    streams: Vec<Listing>,
}

#[derive(Debug, Serialize)]
struct Listing {
    address: Option<String>,
    topics: Vec<String>,
    topics_count: usize,
    age_ms: u64,
    lag: usize,
    lag_at_least: bool,
    events: u64,
    bytes: u64,
    way: &'static str,
    state: &'static str,
}

impl From<Row> for Listing {
    fn from(row: Row) -> Self {
        Self {
            address: row.address.map(|address| address.to_string()),
            topics: row.topics.iter().map(|t| t.as_str().to_owned()).collect(),
            topics_count: row.topics_count,
            age_ms: crate::time::millis(row.age),
            lag: row.standing.lag.events,
            lag_at_least: row.standing.lag.at_least,
            events: row.standing.events,
            bytes: row.bytes,
            way: row.way.as_str(),
            state: row.state.as_str(),
        }
    }
}

pub(super) async fn list(
    _: Caller<Operate>,
    State(gateway): State<Arc<Gateway>>,
    RawQuery(query): RawQuery,
) -> Result<Json<Listed>, Problem> {
    let query = Query::read(query.as_deref(), &NAMES)?;
    let (some, most) = STREAMS;
    let limit = query.number("limit", &most)?;
    let limit = limit.map_or(some, |limit| limit as usize);
    let sort = match query.first("sort") {
        None | Some("lag") => Sort::Lag,
        Some("age") => Sort::Age,
        Some("bytes") => Sort::Bytes,
        Some(other) => {
            return Err(Problem::bad_request(format!(
                "sort {}: must be lag, age or bytes",
                Shown(other)
            )));
        }
    };
    let sockets = gateway.sockets.as_deref();
    let first = crate::stream::list(sockets, &gateway.bodies, sort, limit).await;
    Ok(Json(Listed {
        open: gateway.open_streams.count(),
        streams: first.into_iter().map(Listing::from).collect(),
    }))
}
