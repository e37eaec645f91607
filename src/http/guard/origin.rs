//! Whether a request was made by a page of another origin.
//!
//! A page may send any server a POST with a body of plain text, without asking first. What a browser
//! says of it cannot be changed by the page: `Sec-Fetch-Site`
//! ([Fetch Metadata](https://www.w3.org/TR/fetch-metadata/)), and where that is missing, as over plain
//! HTTP, `Origin` ([RFC 6454](https://www.rfc-editor.org/rfc/rfc6454)). Programs send neither.

use crate::config::Origins;
use axum::http::{HeaderMap, HeaderName, header};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether the browser says that it comes from elsewhere, and not from one of the `allowed` origins.
pub(super) fn is_foreign(headers: &HeaderMap, host: Option<&str>, allowed: &Origins) -> bool {
    let origins = || headers.get_all(header::ORIGIN).iter();
    let is_allowed = |origin: &str| allowed.allow(origin).is_some();
    if origins().next().is_some() && origins().all(|one| one.to_str().is_ok_and(is_allowed)) {
        return false;
    }
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
        let site = "sec-fetch-site";
        let table: [(&[(&str, &str)], bool); 14] = [
            (&[], false),
            (&[(site, "same-origin")], false),
            (&[(site, "none")], false),
            (&[(site, "cross-site")], true),
            (&[(site, "same-site")], true),
            (&[(site, "else")], true),
            (&[(site, "same-origin"), (site, "cross-site")], true),
            (&[("origin", "http://here:8081")], false),
            (&[("origin", "https://HERE:8081")], false),
            (&[("origin", "http://here")], true),
            (&[("origin", "http://evil.example")], true),
            (&[("origin", "null")], true),
            (
                &[("origin", "https://app.example.com"), (site, "cross-site")],
                false,
            ),
            (
                &[("origin", "https://app.example.com"), ("origin", "null")],
                true,
            ),
        ];
        let allowed = Origins::of(&["https://app.example.com"]);
        for (fields, expected) in table {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                let name: HeaderName = name.parse().unwrap();
                headers.append(name, value.parse().unwrap());
            }
            let found = is_foreign(&headers, Some("here:8081"), &allowed);
            assert_eq!(found, expected, "{fields:?}");
        }
    }
}
