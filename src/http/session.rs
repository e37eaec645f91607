//! `POST /session` and `DELETE /session`: the cookie that holds a key or a token, for pages that have no server of their own
//! to set it.
//!
//! The gateway keeps nothing of a session: the cookie is the token, in a place where no script of a page reads it.
//! ([RFC 6265](https://www.rfc-editor.org/rfc/rfc6265#section-4.1))

use super::gate::{Bearer, OurPage, PlainHere, bare_name};
use super::gateway::Gateway;
use super::problem::Problem;
use super::query::{NOTHING, Query};
use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use secrecy::ExposeSecret as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of a cookie's name and value together: browsers keep no larger one, and say nothing
/// ([RFC 6265bis](https://datatracker.ietf.org/doc/html/draft-ietf-httpbis-rfc6265bis#name-limits)).
const COOKIE_BYTES_MAX: usize = 4096;

/// Puts the key or token of `Authorization` into the cookie, for as long as it is good: 204.
pub(super) async fn begin(
    bearer: Bearer,
    State(gateway): State<Arc<Gateway>>,
    is_plain: Option<Extension<PlainHere>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    Query::read(query.as_deref(), &NOTHING)?;
    bearer.is_for_page(&gateway)?;
    let cookie = Cookie::of(&gateway, is_plain.is_some())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let left = |ends: Duration| ends.saturating_sub(now.unwrap_or_default());
    let left = bearer.grant().holder().ends().map(left);
    let set = cookie.holding(bearer.text().expose_secret(), left)?;
    answer([set])
}

/// Has the browser forget the cookie: 204, whatever was in it. The token stays good wherever else it is.
pub(super) async fn end(
    _: OurPage,
    State(gateway): State<Arc<Gateway>>,
    is_plain: Option<Extension<PlainHere>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    Query::read(query.as_deref(), &NOTHING)?;
    let plain = is_plain.map(|_| Cookie::of(&gateway, true)).transpose()?;
    // Whoever has both on this machine is rid of both.
    let all = [Some(Cookie::of(&gateway, false)?), plain];
    answer(all.iter().flatten().map(Cookie::gone))
}

fn answer(cookies: impl IntoIterator<Item = String>) -> Result<Response, Problem> {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for cookie in cookies {
        let mut value = HeaderValue::try_from(cookie).map_err(|_| Problem::internal())?;
        value.set_sensitive(true);
        headers.append(header::SET_COOKIE, value);
    }
    Ok(response)
}

/// What the cookie is called, and over what it goes.
#[derive(Debug)]
struct Cookie {
    name: String,
    is_secure: bool,
}

impl Cookie {
    /// The one that is configured; for a browser on this machine that speaks plain http, without what it would refuse then.
    fn of(gateway: &Gateway, is_plain: bool) -> Result<Self, Problem> {
        let name = gateway.rules.get().auth.cookie.clone();
        if name.is_empty() {
            return Err(Problem::not_found(
                "this gateway looks at no cookie (auth.cookie is empty), so there are no sessions",
            ));
        }
        Ok(Self::named(&name, is_plain))
    }

    fn named(name: &str, is_plain: bool) -> Self {
        let bare = bare_name(name).filter(|_| is_plain);
        Self {
            name: bare.unwrap_or(name).to_owned(),
            is_secure: !is_plain,
        }
    }

    /// With a value, for so long; without a time until the browser ends.
    fn holding(&self, value: &str, left: Option<Duration>) -> Result<String, Problem> {
        let fits = |byte: &u8| matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e);
        if value.is_empty() || !value.as_bytes().iter().all(fits) {
            return Err(Problem::bad_request(
                "Authorization: this key has characters that no cookie may have",
            ));
        }
        if self.name.len() + value.len() > COOKIE_BYTES_MAX {
            return Err(Problem::bad_request(format!(
                "Authorization: browsers keep no cookie of more than {COOKIE_BYTES_MAX} bytes, and this token has {}",
                value.len()
            )));
        }
        let age = left.map(|left| format!("; Max-Age={}", left.as_secs()));
        Ok(self.set(value, &age.unwrap_or_default()))
    }

    fn gone(&self) -> String {
        self.set("", "; Max-Age=0")
    }

    fn set(&self, value: &str, age: &str) -> String {
        let secure = if self.is_secure { "; Secure" } else { "" };
        let name = &self.name;
        format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{age}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_says_what_browsers_ask_of_it() {
        let table = [
            (
                "__Host-tidegate",
                false,
                "__Host-tidegate=a.b; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=7",
            ),
            (
                "__Host-tidegate",
                true,
                "tidegate=a.b; Path=/; HttpOnly; SameSite=Lax; Max-Age=7",
            ),
            (
                "session",
                false,
                "session=a.b; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=7",
            ),
            (
                "session",
                true,
                "session=a.b; Path=/; HttpOnly; SameSite=Lax; Max-Age=7",
            ),
        ];
        for (name, is_plain, expected) in table {
            let cookie = Cookie::named(name, is_plain);
            let left = Some(Duration::from_millis(7999));
            let set = cookie
                .holding("a.b", left)
                .map_err(|why| why.detail().to_owned());
            assert_eq!(set.as_deref(), Ok(expected));
        }
        let cookie = Cookie::named("s", false);
        let until_it_ends = cookie.holding("a", None).ok();
        let flags = "Path=/; HttpOnly; SameSite=Lax; Secure";
        assert_eq!(until_it_ends, Some(format!("s=a; {flags}")));
        assert_eq!(cookie.gone(), format!("s=; {flags}; Max-Age=0"));
    }

    #[test]
    fn what_no_browser_would_keep_is_refused() {
        let cookie = Cookie::named("s", false);
        let most = "x".repeat(COOKIE_BYTES_MAX - 1);
        assert!(cookie.holding(&most, None).is_ok());
        let large = format!("{most}x");
        for bad in [
            "", "a b", "a;b", "a,b", "a\"b", "a\\b", "a\nb", "\u{e9}", &large,
        ] {
            let refused = cookie
                .holding(bad, None)
                .map_err(|why| why.detail().to_owned());
            assert!(refused.is_err_and(|why| bad.is_empty() || !why.contains(bad)));
        }
    }
}
