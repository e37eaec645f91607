//! Where a request comes from that a proxy has passed on.
//!
//! To a replica on loopback all requests come from its own machine, those of a proxy there as well. What
//! the proxy says of their address tells them apart: `X-Forwarded-For`, `X-Real-IP`, and `Forwarded`
//! ([RFC 7239](https://www.rfc-editor.org/rfc/rfc7239)).

use axum::http::{HeaderMap, HeaderName, header};
use std::net::{IpAddr, SocketAddr};

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const LISTS: [HeaderName; 3] = [
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-real-ip"),
    header::FORWARDED,
];

/// Whether any address that a proxy names is not this machine's. One that cannot be read is not.
pub(super) fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    LISTS
        .iter()
        .any(|list| addresses(headers, list).any(|address| !is_here(&address)))
}

/// Whether a proxy says so itself. A page may write addresses into the fields, and a proxy appends to
/// them: the last one is its own. `Via` a page cannot write
/// ([Fetch](https://fetch.spec.whatwg.org/#forbidden-request-header)), so with it there is a proxy.
pub(super) fn says_a_proxy(headers: &HeaderMap) -> bool {
    let mut lasts = LISTS
        .into_iter()
        .filter_map(|list| addresses(headers, &list).last())
        .peekable();
    headers.contains_key(header::VIA)
        && lasts.peek().is_some()
        && lasts.all(|address| !is_here(&address))
}

/// Whether a proxy has taken the request over https, or may have: what it says is not `http`.
pub(super) fn says_https(headers: &HeaderMap) -> bool {
    let protos = headers.get_all(X_FORWARDED_PROTO).iter();
    let is_http = |value: &[u8]| value.eq_ignore_ascii_case(b"http");
    let forwarded = headers.get_all(header::FORWARDED).iter();
    let pairs = forwarded.flat_map(|value| {
        value
            .as_bytes()
            .split(|byte| b",;".contains(byte))
            .map(<[u8]>::trim_ascii)
    });
    let mut others = pairs.filter_map(|pair| {
        let (name, value) = pair.split_at_checked(b"proto=".len())?;
        name.eq_ignore_ascii_case(b"proto=").then_some(value)
    });
    !protos.into_iter().all(|value| is_http(value.as_bytes()))
        || others.any(|value| !is_http(value))
}

/// The addresses in a field, as they stand there, first to last.
fn addresses(headers: &HeaderMap, list: &HeaderName) -> impl Iterator<Item = String> {
    let values = headers.get_all(list).iter();
    // By entry: what a client writes, in any encoding, must not hide what its proxy appends.
    let entries = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let is_forwarded = *list == header::FORWARDED;
    entries.filter_map(move |entry| {
        let entry = std::str::from_utf8(entry).unwrap_or(if is_forwarded { "for=?" } else { "?" });
        let address = if is_forwarded {
            of_forwarded(entry)?
        } else {
            entry
        };
        let address = address.trim().trim_matches('"');
        (!address.is_empty()).then(|| address.to_owned())
    })
}

/// The `for=` of one element of `Forwarded`.
fn of_forwarded(element: &str) -> Option<&str> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    pairs.find_map(|(name, value)| name.trim().eq_ignore_ascii_case("for").then_some(value))
}

fn is_here(address: &str) -> bool {
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    let ip = bare.parse().ok().or_else(|| {
        let with_port: SocketAddr = address.parse().ok()?;
        Some(with_port.ip())
    });
    // A proxy on a socket of the file system.
    address == "unix:" || ip.is_some_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn any_address_that_is_not_of_this_machine_is_from_elsewhere() {
        let (list, real, forwarded) = ("x-forwarded-for", "x-real-ip", "forwarded");
        let table: [(&[(&str, &str)], bool); 16] = [
            (&[], false),
            (&[(list, "127.0.0.1")], false),
            (
                &[(list, "127.0.0.1, ::1, [::1]:80, 127.1.2.3:5, unix:")],
                false,
            ),
            (&[(list, "::ffff:127.0.0.1")], false),
            (&[(list, "")], false),
            (&[(list, "203.0.113.5")], true),
            (&[(list, "127.0.0.1, 203.0.113.5")], true),
            (&[(list, "203.0.113.5, 127.0.0.1")], true),
            (&[(list, "127.0.0.1"), (list, "::2")], true),
            (&[(list, "unknown")], true),
            (&[(list, "127.0.0.1.evil.example")], true),
            (&[(real, "203.0.113.5")], true),
            (&[(forwarded, "for=127.0.0.1;proto=http")], false),
            (
                &[(forwarded, "proto=http;For=\"[2001:db8::1]:4711\"")],
                true,
            ),
            (&[(forwarded, "for=127.0.0.1, for=_hidden")], true),
            (&[(forwarded, "by=203.0.113.5")], false),
        ];
        for (fields, expected) in table {
            assert_eq!(is_from_elsewhere(&headers(fields)), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_proxy_says_that_it_was_asked_over_https() {
        let (proto, forwarded) = ("x-forwarded-proto", "forwarded");
        let plain: [&[(&str, &str)]; 5] = [
            &[],
            &[(proto, "http")],
            &[(proto, "HTTP"), (forwarded, "for=127.0.0.1;proto=http")],
            &[(forwarded, "for=127.0.0.1, proto=http ;by=x")],
            &[(forwarded, "for=protocol")],
        ];
        for fields in plain {
            assert!(!says_https(&headers(fields)), "{fields:?}");
        }
        let https: [&[(&str, &str)]; 5] = [
            &[(proto, "https")],
            &[(proto, "http"), (proto, "https")],
            &[(proto, "https, http")],
            &[(forwarded, "for=127.0.0.1; Proto=https")],
            &[(forwarded, "proto=http, for=127.0.0.1;proto=\"https\"")],
        ];
        for fields in https {
            assert!(says_https(&headers(fields)), "{fields:?}");
        }
    }

    #[test]
    fn a_page_cannot_say_that_there_is_a_proxy() {
        let (via, list) = (("via", "1.1 nginx"), "x-forwarded-for");
        let said = |fields: &[_]| says_a_proxy(&headers(fields));
        assert!(said(&[via, (list, "203.0.113.5")]));
        assert!(said(&[via, (list, "127.0.0.1, 203.0.113.5")]));
        assert!(
            !said(&[(list, "203.0.113.5")]),
            "a page could have written it"
        );
        assert!(
            !said(&[via, (list, "203.0.113.5, 127.0.0.1")]),
            "a page on this machine"
        );
        assert!(!said(&[via, (list, "\u{fc}, 127.0.0.1")]), "nor hide it");
        assert!(!said(&[
            via,
            ("forwarded", "for=203.0.113.5"),
            (list, "127.0.0.1")
        ]));
        assert!(!said(&[via]));
    }
}
