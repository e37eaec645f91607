//! What is refused before any handler sees it.
//!
//! | check | holds | else |
//! |---|---|---|
//! | one `Host` | everywhere | 400 |
//! | a path with one meaning | everywhere | 400 |
//! | a host that means this gateway | on loopback, where no key is asked for | 421 |
//! | a write is of this origin or one of `cors.origins`, or has a key | everywhere | 403 |
//! | a write is of this machine | on loopback, where no key is asked for | 403 |
//!
//! On loopback the machine itself is the key: whoever can connect may publish. Two go round that. A browser
//! on the machine connects for any page that it shows; and a proxy on the machine for anybody at all.

mod forwarded;
mod host;
mod origin;
mod path;

use self::origin::Page;
use super::accept::Peer;
use super::gate::{OfAnyPage, PlainHere};
use super::gateway::Gateway;
use super::problem::Problem;
use super::shown::Shown;
use crate::address::Client;
use crate::auth::{Action, Authority, bearer};
use crate::config::{Origins, Server};
use crate::metrics::RequestRefusal;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A refusal for the same reason is said again after this time; each is counted.
const SAY_AGAIN: Duration = Duration::from_secs(10);
/// Bytes of a name that the log shows.
const SHOWN: usize = 100;

/// What a listener asks of each request.
#[derive(Debug)]
pub struct Guard {
    gateway: Arc<Gateway>,
    /// Only this machine can connect.
    is_on_loopback: bool,
    /// No key is ever asked for: this one is for operators.
    is_keyless: bool,
    hosts: Arc<[String]>,
    origins: Origins,
    said: Mutex<Vec<(RequestRefusal, Instant)>>,
    /// A proxy was heard of that lets others in.
    knows_proxy: AtomicBool,
}

impl Guard {
    /// Of the listener at this address; of the operators' one if it is `is_ops`.
    #[must_use]
    pub fn new(
        gateway: Arc<Gateway>,
        settings: &Server,
        origins: &Origins,
        address: SocketAddr,
        is_ops: bool,
    ) -> Self {
        Self {
            gateway,
            is_on_loopback: address.ip().to_canonical().is_loopback(),
            is_keyless: is_ops,
            hosts: settings.hosts.clone(),
            origins: origins.clone(),
            said: Mutex::default(),
            knows_proxy: AtomicBool::new(false),
        }
    }

    /// Origins whose pages may read and write from elsewhere.
    pub(super) fn origins(&self) -> &Origins {
        &self.origins
    }

    /// Lets a request through, and says whose page it is of.
    fn judge(&self, request: &Request) -> Result<Page, RequestRefusal> {
        let headers = request.headers();
        let host =
            host::of(request.uri(), headers).map_err(|host::TwoHosts| RequestRefusal::TwoHosts)?;
        if !path::has_one_meaning(request.uri().path()) {
            return Err(RequestRefusal::Path);
        }
        let rules = self.gateway.rules.get();
        let asks = rules.auth.authority.asks(Action::Publish);
        let is_trusting = self.is_on_loopback && (self.is_keyless || !asks);
        let is_ours = || host.is_none_or(|host| host::is_ours(host, &self.hosts));
        // By the PROXY protocol. It begins a connection, which no page can do; a field it may set.
        let peer = request.extensions().get::<Peer>();
        let is_remote = peer.is_some_and(|peer| !peer.address.ip().to_canonical().is_loopback());
        if is_trusting && !is_ours() && !is_remote && !forwarded::says_a_proxy(headers) {
            return Err(RequestRefusal::Host);
        }
        let is_passed_on = is_trusting
            && !self.is_keyless
            && !rules.auth.is_open
            && (is_remote || forwarded::is_from_elsewhere(headers));
        if is_passed_on {
            self.note_proxy();
        }
        if request.method().is_safe() {
            return Ok(Page::Ours);
        }
        let has_key = asks && has_key(&rules.auth.authority, headers);
        let page = origin::page(headers, host, &self.origins);
        if !has_key && page == Page::Foreign {
            return Err(RequestRefusal::CrossSite);
        }
        if is_passed_on {
            return Err(RequestRefusal::Forwarded);
        }
        Ok(page)
    }

    /// Says once that this machine is not all that can reach the gateway.
    fn note_proxy(&self) {
        self.gateway.metrics.forwarded_without_key.set(1);
        if !self.knows_proxy.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "requests come from beyond this machine, through a proxy, and there is no publish key: they may read, and their writes are refused; set auth.publish_key, or open publishing to all with auth.open_publishing"
            );
        }
    }

    /// Counts a refusal, and says it now and then: who is refused may come again and again.
    fn note(&self, reason: RequestRefusal, request: &Request) {
        self.gateway.metrics.request_refused(reason);
        let now = Instant::now();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|(_, at)| now < *at + SAY_AGAIN);
        if said.iter().any(|(other, _)| *other == reason) {
            return;
        }
        said.push((reason, now));
        drop(said);
        let client = request.extensions().get::<Client>();
        let shown = |name| {
            let value = request
                .headers()
                .get(name)
                .map(axum::http::HeaderValue::as_bytes);
            let text = String::from_utf8_lossy(value.unwrap_or_default());
            text.chars().take(SHOWN).collect::<String>()
        };
        tracing::warn!(
            reason = reason.as_str(),
            method = %request.method(),
            address = client.map(|client| tracing::field::display(client.address)),
            host = shown("host"),
            origin = shown("origin"),
            "a request was refused; further ones like it within 10 s are only counted"
        );
    }
}

/// Whether a browser on this machine asks, in plain http, with no proxy from elsewhere between: what it names, where it
/// comes from, and what a proxy has told of either. A proxy that ends TLS says so.
fn is_plain_here(request: &Request) -> bool {
    let headers = request.headers();
    let host = host::of(request.uri(), headers).ok().flatten();
    let client = request.extensions().get::<Client>();
    host.is_some_and(host::is_loopback)
        && client.is_some_and(|client| client.address.ip.is_loopback())
        && !forwarded::is_from_elsewhere(headers)
        && !forwarded::says_https(headers)
}

/// Whether it has a key that no browser sends by itself. Where there are tokens, any text may be one: if it is none, the
/// gate says so, and does not look at a cookie beside it.
fn has_key(authority: &Authority, headers: &HeaderMap) -> bool {
    let text = headers.get(header::AUTHORIZATION);
    let text = text.and_then(|value| bearer(value.to_str().ok()?));
    text.is_some_and(|text| authority.has_tokens() || authority.key_grant(text).is_some())
}

/// Asks all that is asked of a request's head; whether its path is let through.
#[cfg(any(test, fuzzing))]
pub(super) fn let_through<B>(request: &axum::http::Request<B>) -> bool {
    let headers = request.headers();
    let names = ["events.example.com", "*.example.com"].map(str::to_owned);
    let host = host::of(request.uri(), headers).unwrap_or_default();
    let is_ours = host.is_none_or(|host| host::is_ours(host, &names));
    let page = origin::page(headers, host, &Origins::of(&["https://*.example.com"]));
    let is_passed_on = forwarded::is_from_elsewhere(headers) && forwarded::says_a_proxy(headers);
    std::hint::black_box((is_ours, page, is_passed_on));
    path::has_one_meaning(request.uri().path())
}

/// What the caller is told.
fn problem(reason: RequestRefusal, request: &Request) -> Problem {
    let given = |name| {
        let values = request.headers().get_all(name).iter();
        let values: Vec<_> = values
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        values.join(", ")
    };
    match reason {
        RequestRefusal::TwoHosts => Problem::bad_request(format!(
            "Host {}: a request must name exactly one host, the same in its target and in this header",
            Shown(&given("host"))
        )),
        RequestRefusal::Path => Problem::bad_request(format!(
            "path {}: no segment may be empty, . or .., percent-encoded or not",
            Shown(request.uri().path())
        )),
        RequestRefusal::Host => Problem::misdirected(format!(
            "Host {}: this gateway does not accept this name; add it to server.hosts, or set a publish key",
            Shown(&given("host"))
        )),
        RequestRefusal::CrossSite => Problem::forbidden(format!(
            "Origin {}: a page of another origin may not publish or delete; add the origin to cors.origins, or send the publish key",
            Shown(&given("origin"))
        )),
        RequestRefusal::Forwarded => Problem::forbidden(
            "this gateway has no publish key, so it accepts writes only from its own machine; set auth.publish_key",
        ),
    }
}

/// Has the guard judge a request before its handler does.
pub(super) async fn guarded(
    State(guard): State<Arc<Guard>>,
    mut request: Request,
    next: Next,
) -> Response {
    match guard.judge(&request) {
        Ok(page) => {
            if is_plain_here(&request) {
                request.extensions_mut().insert(PlainHere);
            }
            if page != Page::Ours {
                request.extensions_mut().insert(OfAnyPage);
            }
            next.run(request).await
        }
        Err(reason) => {
            guard.note(reason, &request);
            problem(reason, &request).into_response()
        }
    }
}
