//! Who asks: the credential of a request, judged.

use super::cleared::{Cleared, Wants};
use super::credential::{InQuery, credential, is_forced};
use super::refused::{NotCleared, Refused, not_taken_back, now};
use crate::address::Client;
use crate::auth::{
    Action, Credential, Denial, DeniedAnswer, Edition, Grant, Place, Ticket, ticket_owner,
};
use crate::broker::BrokerError;
use crate::http::come_back::come_back;
use crate::http::gateway::{Auth, Gateway};
use crate::http::problem::Problem;
use crate::http::shown::Shown;
use crate::metrics::{AuthRefusal, Metrics, Refusal, TicketOutcome};
use crate::stream::life::Life;
use crate::topic::{Pattern, Topic};
use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::Arc;

/// What a handler does, as a type: what it is judged for, and how a refusal is counted.
pub(in crate::http) trait Doing: Send + Sync + 'static {
    /// What is asked of the grant first.
    const ACTION: Action;
    /// Whether it opens a stream: it may do so by a ticket, and is never told 503.
    const IS_STREAM: bool = false;

    /// Counts a request that was refused before its handler saw it, beside the reason.
    fn count(metrics: &Metrics, problem: &Problem);

    /// What is answered where it cannot be told now whether this may be done; `why` in one sentence.
    fn away(_: &Gateway, why: &'static str) -> Response {
        Problem::unavailable(why).into_response()
    }
}

macro_rules! doing {
    ($(#[$about:meta])* $name:ident, $count:expr) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug)]
        pub(in crate::http) struct $name;

        impl Doing for $name {
            const ACTION: Action = Action::$name;

            fn count(metrics: &Metrics, problem: &Problem) {
                let count: fn(&Metrics, &Problem) = $count;
                count(metrics, problem);
            }
        }
    };
}

doing! {
    /// Reads events, page by page.
    Subscribe, |metrics, problem| metrics.refused(OpenStream::refusal(problem))
}
doing! {
    /// Publishes, and ends topics.
    Publish, |metrics, problem| metrics.publish_refused(problem.refusal())
}
doing! {
    /// Deletes a topic.
    Delete, |_, _| ()
}
doing! {
    /// Looks at what the log holds.
    List, |_, _| ()
}
doing! {
    /// Takes rights back, and ends streams.
    Disconnect, |_, _| ()
}
doing! {
    /// Asks what operators ask.
    Operate, |_, _| ()
}

/// Reads events as they come.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct OpenStream;

impl Doing for OpenStream {
    const ACTION: Action = Action::Subscribe;
    const IS_STREAM: bool = true;

    fn count(metrics: &Metrics, problem: &Problem) {
        metrics.refused(Self::refusal(problem));
    }

    /// A status would end an `EventSource` for good.
    fn away(gateway: &Gateway, why: &'static str) -> Response {
        tracing::debug!(why, "whether a stream may be opened cannot be told now");
        gateway.metrics.refused(Refusal::Undecided);
        come_back(gateway, 1)
    }
}

impl OpenStream {
    /// Under what a refused stream is counted.
    pub(in crate::http) fn refusal(problem: &Problem) -> Refusal {
        if problem.is_forbidden() {
            Refusal::Forbidden
        } else if problem.is_unavailable() {
            Refusal::Undecided
        } else {
            Refusal::Unauthorized
        }
    }
}

/// Marks requests of a listener whose reach is its own gate: that of operators.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct WithoutGate;

/// Who asks, to do `A`.
#[derive(Debug)]
pub(in crate::http) struct Caller<A> {
    grant: Grant,
    /// What was taken back after it may not be known to this judgement.
    edition: Edition,
    /// The ticket by which it asks, if it does.
    ticket: Option<Kept>,
    to_do: PhantomData<A>,
}

/// A ticket that is good, and whose it is, as the log keeps it. Neither tells a token.
#[derive(Debug)]
struct Kept {
    name: String,
    owner: String,
}

/// Says of a handler that it needs no judgement: it tells nothing that not everybody may know.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Unjudged;

impl<S: Sync> FromRequestParts<S> for Unjudged {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

impl<A: Doing> FromRequestParts<Arc<Gateway>> for Caller<A> {
    type Rejection = Response;

    async fn from_request_parts(
        parts: &mut Parts,
        gateway: &Arc<Gateway>,
    ) -> Result<Self, Response> {
        // Before the rules: a stream sees whatever comes later.
        let edition = gateway.denials.revocations().edition();
        let rules = gateway.rules.get();
        let auth = &rules.auth;
        let in_query = InQuery::take(parts, auth, A::IS_STREAM);
        let is_operators = parts.extensions.get::<WithoutGate>().is_some();
        if is_operators || !auth.authority.asks(A::ACTION) {
            return Ok(Self::of(auth.authority.open(), edition, None));
        }
        let judged = judge(gateway, auth, A::ACTION, parts, &in_query).await;
        let (grant, ticket) =
            judged.map_err(|no| Self::not_cleared(gateway, no, &parts.headers))?;
        let caller = Self::of(grant, edition, ticket);
        caller
            .check_denials(gateway)
            .map_err(IntoResponse::into_response)?;
        Ok(caller)
    }
}

impl<A: Doing> Caller<A> {
    fn of(grant: Grant, edition: Edition, ticket: Option<Kept>) -> Self {
        Self {
            grant,
            edition,
            ticket,
            to_do: PhantomData,
        }
    }

    /// What is answered to whom a judgement does not let through.
    fn not_cleared(gateway: &Gateway, no: NotCleared, headers: &HeaderMap) -> Response {
        let reason = match no {
            NotCleared::Away(why) => return A::away(gateway, why),
            NotCleared::Refused(reason) => reason,
        };
        let problem = Self::refused(gateway, reason, headers);
        if A::IS_STREAM && !reason.is_definite() {
            come_back(gateway, 1)
        } else {
            problem.into_response()
        }
    }

    /// Counts a refusal before anything of it was cleared.
    fn refused(gateway: &Gateway, reason: AuthRefusal, headers: &HeaderMap) -> Problem {
        let problem = Self::refusal(reason).answer(gateway, headers);
        A::count(&gateway.metrics, &problem);
        problem
    }

    /// A refusal that is of no topic.
    fn refusal(reason: AuthRefusal) -> Refused<'static> {
        Refused {
            reason,
            action: A::ACTION,
            topic: None,
        }
    }

    /// Lets through what is wanted, all of it or nothing.
    ///
    /// # Errors
    /// 403 that names the first topic that the caller has no right to, and 401 to whom it might have if it said who it is.
    pub(in crate::http) fn clear<T: Wants>(
        &self,
        gateway: &Gateway,
        wanted: T,
    ) -> Result<Cleared<T>, Problem> {
        let denied = wanted.first_denied(&self.grant);
        let Some((action, topic)) = denied else {
            return Ok(Cleared::new(wanted));
        };
        Err(self.refuse(gateway, action, Some(topic.as_str())))
    }

    /// Lets a caller through whose right was not taken back. A stream waits for what is known now, and is answered
    /// meanwhile.
    fn check_denials(&self, gateway: &Gateway) -> Result<(), Problem> {
        if A::IS_STREAM {
            let denied = self.denial(gateway);
            return denied.map_or(Ok(()), |answer| Err(Self::refuse_denied(gateway, answer)));
        }
        not_taken_back(gateway, self.grant.holder()).map_err(|no| match no {
            NotCleared::Refused(reason) => Self::refused(gateway, reason, &HeaderMap::new()),
            NotCleared::Away(why) => {
                let problem = Problem::unavailable(why);
                // What reads events is counted where streams are, and this is none.
                if A::ACTION != Action::Subscribe {
                    A::count(&gateway.metrics, &problem);
                }
                problem
            }
        })
    }

    /// Lets a caller through whose right has neither ended nor been taken back while its body came: the body may take as long
    /// as `server.body_timeout`.
    ///
    /// # Errors
    /// 401, or 503 if what was taken back cannot be read.
    pub(in crate::http) fn holds_still(&self, gateway: &Gateway) -> Result<(), Problem> {
        let holder = self.grant.holder();
        let holds = match holder.expires_at() {
            Some(at) if now() >= at => Err(AuthRefusal::Expired.into()),
            _ => not_taken_back(gateway, holder),
        };
        // Whoever asks counts what it does not do.
        holds.map_err(|no| match no {
            NotCleared::Refused(reason) => Self::refusal(reason).answer(gateway, &HeaderMap::new()),
            NotCleared::Away(why) => Problem::unavailable(why),
        })
    }

    /// What a caller is answered whose right was taken back, as far as this replica knows.
    pub(in crate::http) fn denial(&self, gateway: &Gateway) -> Option<DeniedAnswer> {
        gateway.denials.revocations().denial(self.grant.holder())
    }

    /// Refuses a caller whose right was taken back.
    pub(in crate::http) fn refuse_denied(gateway: &Gateway, answer: DeniedAnswer) -> Problem {
        let reason = AuthRefusal::Revoked;
        match answer {
            DeniedAnswer::Unauthorized => Self::refused(gateway, reason, &HeaderMap::new()),
            DeniedAnswer::NoContent => {
                Self::refusal(reason).note(gateway);
                let problem = Problem::for_good();
                A::count(&gateway.metrics, &problem);
                problem
            }
        }
    }

    /// By whose right a stream of the caller is open.
    pub(in crate::http) fn life(&self, topics: impl Iterator<Item = Topic>) -> Life {
        Life {
            holder: self.grant.holder_of(topics),
            seen: self.edition,
        }
    }

    /// Whether there is any topic to which the caller may do it: asked before a body that names topics is read.
    ///
    /// # Errors
    /// 403.
    pub(in crate::http) fn may_do_any(&self, gateway: &Gateway) -> Result<(), Problem> {
        if self.grant.has_any(A::ACTION) {
            return Ok(());
        }
        Err(self.refuse(gateway, A::ACTION, None))
    }

    /// The topic of a path, for what the caller is to do.
    ///
    /// # Errors
    /// It is none, or as [`Caller::clear`].
    pub(in crate::http) fn topic(&self, gateway: &Gateway, name: &str) -> Result<Topic, Problem> {
        let topic = Topic::parse_logged(name)
            .map_err(|why| Problem::bad_request(format!("topic {}: {why}", Shown(name))))?;
        let cleared = self.clear(gateway, (A::ACTION, topic))?;
        Ok(cleared.into_inner().1)
    }

    /// Lets a denial through. Of topics, the right to all that fit the pattern is asked for; of anything else, to all.
    ///
    /// # Errors
    /// As [`Caller::clear`].
    pub(in crate::http) fn clear_denial(
        &self,
        gateway: &Gateway,
        denial: Denial,
    ) -> Result<Cleared<Denial>, Problem> {
        let all = Pattern::all();
        let wanted = match &denial {
            Denial::Topics(pattern) => pattern,
            Denial::Subject(..) | Denial::Token(..) | Denial::All => &all,
        };
        if self.grant.covers(A::ACTION, wanted) {
            return Ok(Cleared::new(denial));
        }
        Err(self.refuse(gateway, A::ACTION, Some(wanted.as_str())))
    }

    fn refuse(&self, gateway: &Gateway, action: Action, topic: Option<&str>) -> Problem {
        let reason = if self.grant.has_credential() {
            AuthRefusal::Denied
        } else {
            AuthRefusal::Missing
        };
        let refused = Refused {
            reason,
            action,
            topic,
        };
        refused.answer(gateway, &HeaderMap::new())
    }

    /// What the caller may do.
    pub(in crate::http) fn grant(&self) -> &Grant {
        &self.grant
    }
}

impl Caller<OpenStream> {
    /// Uses up the ticket by which it asks, if it does: the stream opens now. Of all who show one ticket, on whichever
    /// replica, one is let through.
    ///
    /// # Errors
    /// The answer: 401 if somebody was quicker. If the log is away, the stream is to come back: nobody is let through by a
    /// ticket that may be good still.
    pub(in crate::http) async fn use_ticket(&self, gateway: &Gateway) -> Result<(), Response> {
        let Some(Kept { name, owner }) = &self.ticket else {
            return Ok(());
        };
        match gateway.broker.take_ticket(name, owner).await {
            Ok(true) => {
                gateway.metrics.ticket(TicketOutcome::Used);
                Ok(())
            }
            Ok(false) => {
                let reason = AuthRefusal::Ticket;
                Err(Self::refused(gateway, reason, &HeaderMap::new()).into_response())
            }
            Err(why) => Err(OpenStream::away(gateway, away(&why))),
        }
    }
}

/// What the request may do, if it may do anything of this kind, and the ticket by which it may.
async fn judge(
    gateway: &Gateway,
    auth: &Auth,
    action: Action,
    parts: &Parts,
    in_query: &InQuery,
) -> Result<(Grant, Option<Kept>), NotCleared> {
    let credential = credential(auth, parts, in_query)?;
    if !action.is_read() && is_forced(credential.as_ref(), parts) {
        return Err(AuthRefusal::Origin.into());
    }
    let (grant, ticket) = match credential {
        Some(ticket) if ticket.place == Place::Ticket => {
            let (grant, kept) = by_ticket(gateway, auth, parts, ticket.text).await?;
            (grant, Some(kept))
        }
        other => (auth.authority.grant(other, now())?, None),
    };
    match action {
        Action::Operate if grant.allows_operating() => Ok((grant, ticket)),
        Action::Operate if grant.has_credential() => Err(AuthRefusal::Denied.into()),
        Action::Operate => Err(AuthRefusal::Missing.into()),
        // Before its body is looked at, and its topics.
        _ if !grant.has_credential() && !grant.has_any(action) => Err(AuthRefusal::Missing.into()),
        _ => Ok((grant, ticket)),
    }
}

/// What the token of a ticket grants now. The ticket stays good.
async fn by_ticket(
    gateway: &Gateway,
    auth: &Auth,
    parts: &Parts,
    text: &str,
) -> Result<(Grant, Kept), NotCleared> {
    // What is none was given to nobody: nothing is asked for it.
    let ticket = Ticket::parse(text).ok_or(AuthRefusal::Ticket)?;
    let name = ticket.name();
    // Whoever makes tickets up waits behind nobody but itself.
    let network = parts.extensions.get::<Client>().and_then(|it| it.network);
    let place = gateway.place(network).await.map_err(NotCleared::Away)?;
    let sealed = gateway.broker.ticket(&name).await;
    let sealed = sealed.map_err(|why| NotCleared::Away(away(&why)))?;
    drop(place);
    let token = sealed.and_then(|sealed| ticket.open(&sealed));
    let token = token.ok_or(AuthRefusal::Ticket)?;
    let credential = Credential {
        place: Place::Given,
        text: &token,
    };
    let grant = auth.authority.grant(Some(credential), now())?;
    let owner = ticket_owner(grant.who(), &token);
    Ok((grant, Kept { name, owner }))
}

/// What is told of the log that keeps tickets, and does not answer.
fn away(why: &BrokerError) -> &'static str {
    tracing::debug!(%why, "tickets cannot be asked for");
    "the log cannot be reached, and tickets are kept there"
}
