//! `POST /tickets`: a name for a token that is good once, and for a moment, for the URL of an `EventSource`.

use super::answer::Json;
use super::gate::Bearer;
use super::gateway::Gateway;
use super::problem::Problem;
use super::query::{NOTHING, Query};
use super::topics::place;
use crate::address::Client;
use crate::auth::{Ticket, ticket_owner};
use crate::broker::{NewTicket, PutTicket};
use crate::metrics::TicketOutcome;
use crate::time::millis;
use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use secrecy::ExposeSecret as _;
use serde_json::json;
use std::sync::Arc;

/// Makes one: 201, or 429 if as many wait to be used as may be.
pub(super) async fn make(
    bearer: Bearer,
    State(gateway): State<Arc<Gateway>>,
    Extension(client): Extension<Client>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    Query::read(query.as_deref(), &NOTHING)?;
    bearer.is_token(&gateway)?;
    let token = bearer.text().expose_secret();
    let ticket = Ticket::new().map_err(|why| {
        tracing::error!(%why, "no ticket can be made");
        Problem::internal()
    })?;
    let sealed = ticket.seal(token).ok_or_else(Problem::internal)?;
    let (life, most) = {
        let rules = gateway.rules.get();
        (rules.auth.ticket_life, rules.auth.tickets_each_max)
    };
    let place = place(&gateway, &client).await?;
    let (name, owner) = (ticket.name(), ticket_owner(bearer.grant().who(), token));
    let new = NewTicket {
        name: &name,
        sealed: &sealed,
        owner: &owner,
        life_ms: millis(life),
        most,
    };
    let put = gateway.broker.put_ticket(&new).await;
    let put = put.inspect_err(|_| {
        gateway.metrics.ticket(TicketOutcome::Away);
    })?;
    drop(place);
    match put {
        PutTicket::Kept => {
            gateway.metrics.ticket(TicketOutcome::Made);
            let made = Json(json!({ "ticket": ticket.text(), "expires_in": life.as_secs() }));
            let never = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
            Ok((StatusCode::CREATED, never, made).into_response())
        }
        PutTicket::Full(wait) => {
            gateway.metrics.ticket(TicketOutcome::Limit);
            let detail =
                format!("{most} tickets of this user wait to be used (auth.tickets_each_max)");
            Err(Problem::too_many(detail, wait))
        }
    }
}
