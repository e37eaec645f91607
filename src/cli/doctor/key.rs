//! Whom the doctor shows the publish key.

use crate::config::{Config, names_host};
use hyper::Uri;
use secrecy::ExposeSecret;
use std::net::IpAddr;

/// What is sent as the key, and why it is not.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// It goes with each request.
    Sent(String),
    /// There is none.
    None,
    /// There is one, and it stays here.
    Kept { why: String, advice: &'static str },
}

/// The key for the gateway at `url`: the one that was given for this call, else that of the
/// configuration, which goes to this machine and to `server.hosts` alone. Neither goes over a network
/// without TLS.
pub(super) fn key_for(url: &str, given: Option<&str>, config: &Config) -> Key {
    let own = config.auth.settings.publish_key.as_ref();
    let Some(key) = given.or(own.map(ExposeSecret::expose_secret)) else {
        return Key::None;
    };
    let uri: Uri = url.parse().unwrap_or_default();
    let host = uri.host().unwrap_or_default();
    if is_loopback(host) {
        return Key::Sent(key.to_owned());
    }
    if uri.scheme_str() != Some("https") {
        return Key::Kept {
            why: format!(
                "the publish key is not sent to {host} over http: anybody on the way could read it"
            ),
            advice: "give --url as https://, or run it on the machine of the gateway",
        };
    }
    if given.is_none()
        && !config
            .server
            .hosts
            .iter()
            .any(|name| names_host(name, host))
    {
        return Key::Kept {
            why: format!(
                "the publish key of the configuration is not sent to {host}: server.hosts does not name it"
            ),
            advice: "add the host to server.hosts, or give the key for this call: --key (TIDEGATE_PUBLISH_KEY)",
        };
    }
    Key::Sent(key.to_owned())
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let address = address.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;

    #[test]
    fn the_key_goes_where_it_belongs_and_nowhere_else() {
        let overrides = vec![
            ("auth.publish_key", "own".to_owned()),
            (
                "server.hosts",
                "events.example.com, *.example.org, *".to_owned(),
            ),
        ];
        let flags = Flags {
            overrides,
            ..Flags::default()
        };
        let config = Config::load(&flags).expect("a good configuration");
        let sent = |url, given| match key_for(url, given, &config) {
            Key::Sent(key) => Some(key),
            Key::None | Key::Kept { .. } => None,
        };
        let (own, given) = (Some("own".to_owned()), Some("given".to_owned()));
        for url in [
            "http://127.0.0.1:8081",
            "http://[::1]:8081",
            "http://localhost:8080",
            "https://events.example.com",
            "https://Events.Example.com:8443/",
            "https://a.example.org",
        ] {
            assert_eq!(sent(url, None), own, "{url}");
            assert_eq!(sent(url, Some("given")), given, "{url}");
        }
        for url in [
            "http://events.example.com",
            "http://10.0.0.1:8081",
            "http://127.0.0.1.evil.example",
            "http://localhost@evil.example",
            "no URL",
        ] {
            assert_eq!(sent(url, None), None, "{url}");
            assert_eq!(sent(url, Some("given")), None, "{url}");
        }
        for url in [
            "https://evil.example",
            "https://example.org",
            "https://10.0.0.1",
        ] {
            assert_eq!(sent(url, None), None, "{url}");
            assert_eq!(sent(url, Some("given")), given, "{url}");
        }
        let none = Config::load(&Flags::default()).expect("defaults are good");
        assert_eq!(key_for("http://127.0.0.1", None, &none), Key::None);
    }
}
