//! Whether a request was made by a page of another origin.
//!
//! A page may send any server a POST with a body of plain text, without asking first. What a browser
//! says of it cannot be changed by the page: `Sec-Fetch-Site`
//! ([Fetch Metadata](https://www.w3.org/TR/fetch-metadata/)), and where that is missing, as over plain
//! HTTP, `Origin` ([RFC 6454](https://www.rfc-editor.org/rfc/rfc6454)). Programs send neither.

use crate::config::{Allowed, Origins};
use axum::http::{HeaderMap, HeaderName, header};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whose page a request is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// Of this host, of an origin that is allowed by its name, or of none: a program sends it.
    Ours,
    /// Of an origin that is allowed as any other (`*`). What a browser sends by itself does not count for it.
    AsAny,
    /// Of another origin.
    Foreign,
}

/// Whose page the browser says that it is of; `allowed` are those that may write from elsewhere.
pub(super) fn page(headers: &HeaderMap, host: Option<&str>, allowed: &Origins) -> Page {
    let origins = || headers.get_all(header::ORIGIN).iter();
    let is_allowed = |most: &[Allowed]| {
        let fits = |origin| allowed.allow(origin).is_some_and(|how| most.contains(&how));
        origins().next().is_some() && origins().all(|one| one.to_str().is_ok_and(fits))
    };
    if is_allowed(&[Allowed::ByName]) || !is_foreign(headers, host) {
        Page::Ours
    } else if is_allowed(&[Allowed::ByName, Allowed::AsAny]) {
        Page::AsAny
    } else {
        Page::Foreign
    }
}

/// Whether the browser says that it comes from elsewhere.
fn is_foreign(headers: &HeaderMap, host: Option<&str>) -> bool {
    let origins = || headers.get_all(header::ORIGIN).iter();
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter().peekable();
    if sites.peek().is_some() {
        return !sites.all(|site| matches!(site.as_bytes(), b"same-origin" | b"none"));
    }
    let is_here = |origin: &str| {
        let of_origin = origin.split_once("://").map(|(_, host)| host);
        of_origin
            .zip(host)
            .is_some_and(|(one, other)| one.eq_ignore_ascii_case(other))
    };
    !origins().all(|origin| origin.to_str().is_ok_and(is_here))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_another_origin_is_foreign_whatever_tells_of_it() {
        use Page::{AsAny, Foreign, Ours};
        let site = "sec-fetch-site";
        let table: [(&[(&str, &str)], Page); 14] = [
            (&[], Ours),
            (&[(site, "same-origin")], Ours),
            (&[(site, "none")], Ours),
            (&[(site, "cross-site")], Foreign),
            (&[(site, "same-site")], Foreign),
            (&[(site, "else")], Foreign),
            (&[(site, "same-origin"), (site, "cross-site")], Foreign),
            (&[("origin", "http://here:8081")], Ours),
            (&[("origin", "https://HERE:8081")], Ours),
            (&[("origin", "http://here")], Foreign),
            (&[("origin", "http://evil.example")], Foreign),
            (&[("origin", "null")], Foreign),
            (
                &[("origin", "https://app.example.com"), (site, "cross-site")],
                Ours,
            ),
            (
                &[("origin", "https://app.example.com"), ("origin", "null")],
                Foreign,
            ),
        ];
        let named = Origins::of(&["https://app.example.com"]);
        let any = Origins::of(&["*", "https://app.example.com"]);
        for (fields, expected) in table {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                let name: HeaderName = name.parse().unwrap();
                headers.append(name, value.parse().unwrap());
            }
            let found = page(&headers, Some("here:8081"), &named);
            assert_eq!(found, expected, "{fields:?}");
            // Of those that are foreign, those that say their origin are as any; the others are as before.
            let says = headers.contains_key(header::ORIGIN);
            let as_any = [expected, AsAny][usize::from(expected == Foreign && says)];
            let found = page(&headers, Some("here:8081"), &any);
            assert_eq!(found, as_any, "{fields:?}");
        }
    }
}
