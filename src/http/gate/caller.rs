//! Who asks: the credential of a request, judged.

use super::cleared::{Cleared, Wants};
use super::refused::{Refusal, Refused, problem};
use crate::auth::{
    Action, Credential, Denial, DeniedAnswer, Edition, Fields, Grant, Place, Seconds,
};
use crate::http::gateway::{Auth, Gateway};
use crate::http::problem::Problem;
use crate::http::shown::Shown;
use crate::metrics::{AuthRefusal, Metrics, Refusal as RefusedStream};
use crate::stream::life::Life;
use crate::topic::{Pattern, Topic};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri, header};
use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The name of a token in a query ([RFC 6750, section 2.3](https://www.rfc-editor.org/rfc/rfc6750#section-2.3)).
const ACCESS_TOKEN: &str = "access_token";

/// What a handler does, as a type: what it is judged for, and how a refusal is counted.
pub(in crate::http) trait Doing: Send + Sync + 'static {
    /// What is asked of the grant first.
    const ACTION: Action;
    /// Whether it opens a stream, which is never told 503.
    const IS_STREAM: bool = false;

    /// Counts a request that was refused before its handler saw it, beside the reason.
    fn count(metrics: &Metrics, problem: &Problem);
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
}

impl OpenStream {
    /// Under what a refused stream is counted.
    pub(in crate::http) fn refusal(problem: &Problem) -> RefusedStream {
        if problem.is_forbidden() {
            RefusedStream::Forbidden
        } else if problem.is_unavailable() {
            RefusedStream::Undecided
        } else {
            RefusedStream::Unauthorized
        }
    }
}

/// Marks requests of a listener whose reach is its own gate: that of operators.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct WithoutGate;

/// Marks writes of pages that nobody named: a cookie does not count for them, which a browser sends by itself.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct OfAnyPage;

/// Who asks, to do `A`.
#[derive(Debug)]
pub(in crate::http) struct Caller<A> {
    grant: Grant,
    /// What was taken back after it may not be known to this judgement.
    edition: Edition,
    to_do: PhantomData<A>,
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
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        gateway: &Arc<Gateway>,
    ) -> Result<Self, Refusal> {
        // Before the rules: a stream sees whatever comes later.
        let edition = gateway.denials.revocations().edition();
        let rules = gateway.rules.get();
        let auth = &rules.auth;
        let in_query = take_from_query(parts, auth);
        let is_operators = parts.extensions.get::<WithoutGate>().is_some();
        if is_operators || !auth.authority.asks(A::ACTION) {
            return Ok(Self::of(auth.authority.open(), edition));
        }
        let judged = judge(auth, A::ACTION, parts, &in_query, now());
        let judged = judged.map(|grant| Self::of(grant, edition));
        if let Ok(caller) = &judged {
            caller.check_denials(gateway).map_err(Refusal::Problem)?;
        }
        judged.map_err(|reason| {
            let refused = Refused {
                reason,
                action: A::ACTION,
                topic: None,
            };
            note(gateway, &refused);
            let problem = problem(&refused, auth, &parts.headers);
            A::count(&gateway.metrics, &problem);
            if A::IS_STREAM && !reason.is_definite() {
                Refusal::ComeBack(gateway.streams.jittered_retry_ms())
            } else {
                Refusal::Problem(problem)
            }
        })
    }
}

impl<A: Doing> Caller<A> {
    fn of(grant: Grant, edition: Edition) -> Self {
        Self {
            grant,
            edition,
            to_do: PhantomData,
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

    /// Lets a caller through whose right was not taken back.
    fn check_denials(&self, gateway: &Gateway) -> Result<(), Problem> {
        if let Some(answer) = self.denial(gateway) {
            let others = DeniedAnswer::Unauthorized;
            let answer = if A::IS_STREAM { answer } else { others };
            return Err(Self::refuse_denied(gateway, answer));
        }
        // A stream waits for what is known now, and is answered meanwhile.
        if self.grant.holder().is_of_token() && !A::IS_STREAM && gateway.denials.is_stale() {
            let problem = Problem::unavailable("what was taken back cannot be read");
            // What reads events is counted where streams are, and this is none.
            if A::ACTION != Action::Subscribe {
                A::count(&gateway.metrics, &problem);
            }
            return Err(problem);
        }
        Ok(())
    }

    /// What a caller is answered whose right was taken back, as far as this replica knows.
    pub(in crate::http) fn denial(&self, gateway: &Gateway) -> Option<DeniedAnswer> {
        gateway.denials.revocations().denial(self.grant.holder())
    }

    /// Refuses a caller whose right was taken back.
    pub(in crate::http) fn refuse_denied(gateway: &Gateway, answer: DeniedAnswer) -> Problem {
        let refused = Refused {
            reason: AuthRefusal::Revoked,
            action: A::ACTION,
            topic: None,
        };
        note(gateway, &refused);
        let problem = match answer {
            DeniedAnswer::NoContent => Problem::for_good(),
            DeniedAnswer::Unauthorized => {
                let rules = gateway.rules.get();
                problem(&refused, &rules.auth, &HeaderMap::new())
            }
        };
        A::count(&gateway.metrics, &problem);
        problem
    }

    /// By whose right a stream of the caller is open.
    pub(in crate::http) fn life<'a>(&self, topics: impl Iterator<Item = &'a Topic>) -> Life {
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
        note(gateway, &refused);
        let rules = gateway.rules.get();
        problem(&refused, &rules.auth, &HeaderMap::new())
    }

    /// What the caller may do.
    pub(in crate::http) fn grant(&self) -> &Grant {
        &self.grant
    }
}

/// Counts a refusal by its reason.
fn note(gateway: &Gateway, refused: &Refused<'_>) {
    gateway.metrics.auth_refused(refused.reason);
    tracing::debug!(
        reason = refused.reason.as_str(),
        action = refused.action.as_str(),
        topic = refused.topic,
        "a request has not the right to what it asks for"
    );
}

/// Seconds since 1970 by this machine's clock.
fn now() -> Seconds {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.unwrap_or_default().as_secs();
    Seconds::try_from(seconds).unwrap_or(Seconds::MAX)
}

/// What the request may do, if it may do anything of this kind.
fn judge(
    auth: &Auth,
    action: Action,
    parts: &Parts,
    in_query: &[String],
    now: Seconds,
) -> Result<Grant, AuthRefusal> {
    let credential = credential(auth, &parts.headers, in_query)?;
    let is_cookie = credential.is_some_and(|it| it.place == Place::Cookie);
    // The guard has judged the origin. Here it must be there, and be more than any.
    let says_ours =
        parts.headers.contains_key(header::ORIGIN) && parts.extensions.get::<OfAnyPage>().is_none();
    if is_cookie && !action.is_read() && !says_ours {
        return Err(AuthRefusal::Origin);
    }
    let grant = auth.authority.grant(credential, now)?;
    match action {
        Action::Operate if grant.allows_operating() => Ok(grant),
        Action::Operate if grant.has_credential() => Err(AuthRefusal::Denied),
        Action::Operate => Err(AuthRefusal::Missing),
        // Before its body is looked at, and its topics.
        _ if !grant.has_credential() && !grant.has_any(action) => Err(AuthRefusal::Missing),
        _ => Ok(grant),
    }
}

fn credential<'a>(
    auth: &Auth,
    headers: &'a HeaderMap,
    in_query: &'a [String],
) -> Result<Option<Credential<'a>>, AuthRefusal> {
    let texts = |name| {
        headers
            .get_all(name)
            .iter()
            .map(|value| value.to_str().ok())
    };
    let fields = Fields {
        authorization: texts(header::AUTHORIZATION).collect(),
        cookie: texts(header::COOKIE).flatten().collect(),
        query: in_query.iter().map(String::as_str).collect(),
    };
    let has_tokens = auth.authority.has_tokens();
    fields.credential(if has_tokens { &auth.cookie } else { "" })
}

/// Takes tokens out of the query, where they count there: what comes after sees none.
fn take_from_query(parts: &mut Parts, auth: &Auth) -> Vec<String> {
    let query = parts.uri.query().unwrap_or_default();
    if !auth.query_token || query.is_empty() {
        return Vec::new();
    }
    let mut tokens = Vec::new();
    let is_other = |pair: &&str| {
        let mut decoded = form_urlencoded::parse(pair.as_bytes());
        match decoded.next() {
            Some((name, value)) if name == ACCESS_TOKEN => {
                tokens.push(value.into_owned());
                false
            }
            _ => true,
        }
    };
    let rest: Vec<&str> = query.split('&').filter(is_other).collect();
    let path = parts.uri.path();
    let target = if rest.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", rest.join("&"))
    };
    let mut pieces = parts.uri.clone().into_parts();
    pieces.path_and_query = target.parse().ok();
    // Pieces of what was a URI are one again.
    if let Ok(uri) = Uri::from_parts(pieces) {
        parts.uri = uri;
    }
    tokens
}
