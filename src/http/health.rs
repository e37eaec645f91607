//! `/healthz`, `/readyz`, `/metrics`.

use super::gate::Unjudged;
use super::gateway::Gateway;
use super::problem::Problem;
use super::query::{NOTHING, Query};
use super::vocabulary::Vocabulary;
use crate::auth::jwks::State as KeySetStands;
use crate::metrics::KeySetState;
use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::IntoResponse;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Time for a probe to come back.
const PROBE: Duration = Duration::from_secs(2);
pub(super) const READYZ: Vocabulary = Vocabulary {
    names: &["delivery"],
    ..NOTHING
};

/// The process answers, and every thread that writes streams goes on. It says nothing of Redis: a restart
/// would not help against that.
pub(super) async fn healthz(
    _: Unjudged,
    State(gateway): State<Arc<Gateway>>,
    RawQuery(query): RawQuery,
) -> Result<&'static str, Problem> {
    Query::read(query.as_deref(), &NOTHING)?;
    nobody_stands(&gateway)?;
    Ok("ok\n")
}

fn nobody_stands(gateway: &Gateway) -> Result<(), Problem> {
    match gateway.standing() {
        Some(standing) => Err(Problem::unavailable(standing.to_string())),
        None => Ok(()),
    }
}

/// Whether a balancer should send streams here: the log was reached once, it can be judged who may read, and this replica
/// stays.
/// An outage of Redis does not take every replica out at once. With `?delivery` a probe goes the
/// way of an event, for alerts.
pub(super) async fn readyz(
    _: Unjudged,
    State(gateway): State<Arc<Gateway>>,
    RawQuery(query): RawQuery,
) -> Result<&'static str, Problem> {
    let query = Query::read(query.as_deref(), &READYZ)?;
    if gateway.is_leaving() {
        return Err(Problem::unavailable("this replica is stopping"));
    }
    if let Some(why) = gateway.is_not_ready() {
        return Err(Problem::unavailable(why));
    }
    if query.switch("delivery") {
        nobody_stands(&gateway)?;
        deliver_probe(&gateway).await?;
    }
    Ok("ready\n")
}

async fn deliver_probe(gateway: &Gateway) -> Result<(), Problem> {
    for partition in 0..gateway.hub.partitions() {
        let id = gateway.broker.tick(partition).await?;
        let heard = tokio::time::timeout(PROBE, gateway.hub.heard(partition, id)).await;
        heard.map_err(|_| Problem::unavailable("a probe did not come back over the live path"))?;
    }
    Ok(())
}

/// All metrics in Prometheus' text format. What is known only when asked is asked first.
pub(super) async fn metrics(
    _: Unjudged,
    State(gateway): State<Arc<Gateway>>,
    RawQuery(query): RawQuery,
) -> Result<impl IntoResponse, Problem> {
    Query::read(query.as_deref(), &NOTHING)?;
    let draining = gateway.is_leaving();
    let ready = gateway.reached.load(Ordering::Acquire) && !draining;
    gateway.metrics.ready.set(i64::from(ready));
    gateway.metrics.draining.set(i64::from(draining));
    let publishes = gateway.publish.in_flight_max - gateway.publishing.available_permits();
    let publishes = i64::try_from(publishes).unwrap_or(i64::MAX);
    gateway.metrics.publishes_in_flight.set(publishes);
    let (bodies, bytes) = gateway.intake.counts();
    let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    gateway.metrics.publish_bodies.set(gauge(bodies));
    gateway.metrics.publish_bodies_bytes.set(gauge(bytes));
    gateway
        .metrics
        .addresses
        .set(gauge(gateway.addresses.known()));
    let tokens = gateway.rules.get().auth.authority.tokens_known();
    gateway.metrics.tokens_known.set(gauge(tokens));
    tell_key_sets(&gateway);
    let age = gateway.denials.age().as_secs_f64();
    gateway.metrics.denied_read_age.set(age);
    gateway.broker.count_connections();
    let (text, kind) = gateway.metrics.text();
    Ok(([(header::CONTENT_TYPE, kind)], text))
}

fn tell_key_sets(gateway: &Gateway) {
    let rules = gateway.rules.get();
    let (mut states, mut oldest, mut waiting) = (Vec::new(), Duration::ZERO, 0);
    for set in rules.auth.authority.tokens().sets.iter() {
        states.push(match set.state() {
            KeySetStands::Fresh => KeySetState::Fresh,
            KeySetStands::Stale => KeySetState::Stale,
            KeySetStands::Away => KeySetState::Away,
        });
        oldest = oldest.max(set.age(crate::time::passed()).unwrap_or_default());
        waiting += set.waiting();
    }
    gateway.metrics.key_sets(&states, oldest, waiting);
}
