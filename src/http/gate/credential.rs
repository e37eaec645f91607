//! What a request brought along that says who it is, and whose page it is of.

use crate::auth::{Credential, Fields, Place};
use crate::http::gateway::Auth;
use crate::metrics::AuthRefusal;
use axum::http::request::Parts;
use axum::http::{Uri, header};

/// The name of a token in a query ([RFC 6750, section 2.3](https://www.rfc-editor.org/rfc/rfc6750#section-2.3)).
const ACCESS_TOKEN: &str = "access_token";
/// The name of a ticket in the query of a stream.
const TICKET: &str = "ticket";
/// What a cookie's name begins with that browsers take over https alone, and send nowhere else
/// ([RFC 6265bis](https://datatracker.ietf.org/doc/html/draft-ietf-httpbis-rfc6265bis#name-the-__host-prefix)).
const HOST_PREFIX: &str = "__Host-";

/// Marks writes of pages that nobody named: a cookie does not count for them, which a browser sends by itself.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct OfAnyPage;

/// Marks requests of a browser on this machine that speaks plain http, where it takes no cookie with a name that begins
/// with `__Host-`.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct PlainHere;

/// What the query of a request says of who it is. It has no `Debug` that shows it.
#[derive(Default)]
pub(super) struct InQuery {
    tokens: Vec<String>,
    tickets: Vec<String>,
}

impl InQuery {
    /// Takes credentials out of the query, where they count there: what comes after sees none.
    pub(super) fn take(parts: &mut Parts, auth: &Auth, takes_tickets: bool) -> Self {
        let mut taken = Self::default();
        let query = parts.uri.query().unwrap_or_default();
        // Without tokens there are no tickets, and the name is somebody else's.
        let takes_tickets = takes_tickets && auth.authority.has_tokens();
        if query.is_empty() || !(takes_tickets || auth.query_token) {
            return taken;
        }
        let is_other = |pair: &&str| {
            let mut decoded = form_urlencoded::parse(pair.as_bytes());
            let Some((name, value)) = decoded.next() else {
                return true;
            };
            if auth.query_token && name == ACCESS_TOKEN {
                taken.tokens.push(value.into_owned());
            } else if takes_tickets && name == TICKET {
                taken.tickets.push(value.into_owned());
            } else {
                return true;
            }
            false
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
        taken
    }
}

/// The credential of a request that counts, if it has one.
pub(super) fn credential<'a>(
    auth: &Auth,
    parts: &'a Parts,
    in_query: &'a InQuery,
) -> Result<Option<Credential<'a>>, AuthRefusal> {
    let texts = |name| {
        let values = parts.headers.get_all(name).iter();
        values.map(|value| value.to_str().ok())
    };
    let fields = Fields {
        authorization: texts(header::AUTHORIZATION).collect(),
        cookie: texts(header::COOKIE).flatten().collect(),
        query: in_query.tokens.iter().map(String::as_str).collect(),
        ticket: in_query.tickets.iter().map(String::as_str).collect(),
    };
    let mut names: Vec<&str> = Vec::with_capacity(2);
    if auth.authority.has_tokens() && !auth.cookie.is_empty() {
        names.push(&auth.cookie);
        let is_plain = parts.extensions.get::<PlainHere>().is_some();
        names.extend(bare_name(&auth.cookie).filter(|_| is_plain));
    }
    fields.credential(&names)
}

/// What a cookie is called where browsers do not take its name.
pub(in crate::http) fn bare_name(cookie: &str) -> Option<&str> {
    let bare = cookie.strip_prefix(HOST_PREFIX);
    bare.filter(|name| !name.is_empty())
}

/// Whether the request says that it is of one of our pages: of this host, or of an origin that is allowed by its name. The
/// guard has judged the origin. Here it must be there, and be more than any.
pub(super) fn is_of_our_page(parts: &Parts) -> bool {
    parts.headers.contains_key(header::ORIGIN) && parts.extensions.get::<OfAnyPage>().is_none()
}

/// Whether a cookie would do what it may not do alone: write, for a page that does not say whose it is.
pub(super) fn is_forced(credential: Option<&Credential<'_>>, parts: &Parts) -> bool {
    credential.is_some_and(|it| it.place == Place::Cookie) && !is_of_our_page(parts)
}
