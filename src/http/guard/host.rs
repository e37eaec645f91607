//! The name by which a request calls its server.
//!
//! A page may have its own name lead to this machine (DNS rebinding): to the browser the gateway is
//! then of the page's origin, and everything may be read and written. Only the name gives it away: it
//! is the page's. So where reaching the gateway is all that is needed, names count.

use crate::config::names_host;
use axum::http::{HeaderMap, Uri, header};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The request's host, port included; none if it names none, as HTTP/1.0 may.
///
/// # Errors
/// If it names two: whoever reads the one may not be who reads the other
/// ([RFC 9112, section 3.2](https://www.rfc-editor.org/rfc/rfc9112#section-3.2)).
pub(super) fn of<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Result<Option<&'a str>, TwoHosts> {
    let mut named = headers.get_all(header::HOST).iter();
    let field = named.next().map(|value| value.to_str().unwrap_or("?"));
    if named.next().is_some() {
        return Err(TwoHosts);
    }
    let authority = uri.authority().map(|authority| {
        let text = authority.as_str();
        text.rsplit_once('@').map_or(text, |(_, host)| host)
    });
    match (authority, field) {
        (Some(one), Some(other)) if !one.eq_ignore_ascii_case(other) => Err(TwoHosts),
        (one, other) => Ok(one.or(other)),
    }
}

/// The request names two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TwoHosts;

/// Whether a host means this gateway: an address, this machine's own name, or one of `names`, of which
/// `*` is any, and `*.` begins all names below another.
pub(super) fn is_ours(host: &str, names: &[String]) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let address = rest.split_once(']').map(|(address, _)| address);
        return address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_own = |name: &str| names_host(name, host);
    host.parse::<Ipv4Addr>().is_ok()
        || is_own("localhost")
        || is_own("*.localhost")
        || names.iter().any(|name| name == "*" || is_own(name))
}

/// Whether a host is this machine, and no other: an address of loopback, or `localhost` and what is below it.
pub(super) fn is_loopback(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let address = rest.split_once(']').map(|(address, _)| address);
        let address = address.and_then(|address| address.parse::<Ipv6Addr>().ok());
        return address.is_some_and(|address| address.is_loopback());
    }
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    let address = host.parse::<Ipv4Addr>();
    address.is_ok_and(|address| address.is_loopback())
        || names_host("localhost", host)
        || names_host("*.localhost", host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_our_own_names_are_ours_and_others_are_not() {
        let names = ["events.example.com".to_owned(), "*.example.org".to_owned()];
        let ours = [
            "127.0.0.1",
            "127.0.0.1:8081",
            "10.0.0.1",
            "[::1]",
            "[::1]:8081",
            "localhost",
            "LOCALHOST:80",
            "localhost.",
            "a.localhost",
            "a.b.localhost:1",
            "Events.Example.com:443",
            "a.example.org",
        ];
        for host in ours {
            assert!(is_ours(host, &names), "{host}");
        }
        let others = [
            "",
            "evil.example",
            "evil.example:8081",
            "127.0.0.1.evil.example",
            "localhost.evil",
            "evillocalhost",
            ".localhost.evil",
            "[::1",
            "[evil]",
            "events.example.com.evil",
            "example.org",
            "evil-example.org",
            "?",
        ];
        for host in others {
            assert!(!is_ours(host, &names), "{host}");
        }
        assert!(is_ours("evil.example", &["*".to_owned()]));
    }

    #[test]
    fn this_machine_is_called_by_few_names() {
        for host in [
            "127.0.0.1",
            "127.1.2.3:8081",
            "[::1]:8081",
            "localhost",
            "LOCALHOST:1",
            "a.localhost",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "10.0.0.1",
            "0.0.0.0",
            "[::]",
            "[::2]",
            "[::1",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "events.example.com",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_request_names_one_host() {
        let named = |uri: &str, hosts: &[&str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(header::HOST, host.parse().unwrap());
            }
            let uri = uri.parse().unwrap();
            of(&uri, &headers).map(|host| host.map(str::to_owned))
        };
        assert_eq!(named("/", &[]), Ok(None));
        assert_eq!(named("/", &["a"]), Ok(Some("a".to_owned())));
        assert_eq!(named("/", &["a", "a"]), Err(TwoHosts));
        assert_eq!(named("http://a:1/", &["A:1"]), Ok(Some("a:1".to_owned())));
        assert_eq!(named("http://a/", &["b"]), Err(TwoHosts));
    }
}
