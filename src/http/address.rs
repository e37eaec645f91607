//! Whom a request comes from, asked for each request: one connection of a proxy carries many clients.
//!
//! The other end of the connection is believed to be where it is. If it is a trusted proxy
//! (`server.trusted_proxies`), its word is believed as well: the last address in the field that it writes. If that is
//! a trusted proxy in turn, the one before it, and so on. The first that is not trusted is the client. What stands
//! further left is what that client claims, and is not looked at.
//!
//! Only one field is read (`server.forwarded_header`). A proxy writes one, and passes the other on as the client wrote
//! it.

use crate::address::{Address, Client, Network, Prefix};
use crate::config::{FORWARDED, Server};
use axum::http::{HeaderMap, HeaderName, header};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Where proxies say whom they speak for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Field {
    /// `X-Forwarded-For`: addresses, with commas between.
    #[default]
    XForwardedFor,
    /// `Forwarded` ([RFC 7239](https://www.rfc-editor.org/rfc/rfc7239)).
    Forwarded,
}

/// Whose word is believed, and where it stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Trust {
    pub(super) proxies: Arc<[Prefix]>,
    pub(super) field: Field,
}

impl Trust {
    /// As it is configured.
    pub(super) fn of(settings: &Server) -> Self {
        Self {
            proxies: settings.trusted_proxies.clone(),
            field: if settings.forwarded_header == FORWARDED {
                Field::Forwarded
            } else {
                Field::XForwardedFor
            },
        }
    }

    /// Whether an address is a trusted proxy's.
    pub(super) fn is_proxy(&self, ip: IpAddr) -> bool {
        self.proxies.iter().any(|proxy| proxy.contains(ip))
    }

    /// Whom a request comes from. `peer` is the other end of the connection, or what a trusted proxy said of it when
    /// the connection began (`is_told`).
    pub(super) fn client(&self, peer: SocketAddr, is_told: bool, headers: &HeaderMap) -> Client {
        let peer = Address::from(peer);
        let client = |address: Address, is_told| Client {
            address,
            is_told,
            network: (!address.ip.is_loopback() && !self.is_proxy(address.ip))
                .then(|| Network::of(address.ip)),
        };
        if self.proxies.is_empty() || !self.is_proxy(peer.ip) {
            return client(peer, is_told);
        }
        match self.field {
            Field::XForwardedFor => {
                let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
                let entries = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
                let hops = entries
                    .map(<[u8]>::trim_ascii)
                    .filter(|entry| !entry.is_empty())
                    .map(node);
                self.first_untrusted(hops)
            }
            Field::Forwarded => {
                let lines = headers.get_all(header::FORWARDED).iter().rev();
                let elements = lines.flat_map(|line| Elements(Some(line.as_bytes())));
                let hops = elements
                    .filter(|element| !element.trim_ascii().is_empty())
                    .map(|element| of_element(element).and_then(node));
                self.first_untrusted(hops)
            }
        }
        .map_or_else(|| client(peer, is_told), |address| client(address, true))
    }

    /// The first hop that is not trusted; else the last that is, before one that cannot be read. None without any.
    fn first_untrusted(&self, hops: impl Iterator<Item = Option<Address>>) -> Option<Address> {
        let mut last = None;
        for hop in hops {
            let Some(address) = hop else { break };
            last = Some(address);
            if !self.is_proxy(address.ip) {
                break;
            }
        }
        last
    }
}

/// The elements of a line of `Forwarded`, last to first. Read from the right, what a client has written cannot reach
/// into what its proxy has appended, whatever quotes it leaves open.
struct Elements<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.0?;
        let mut is_quoted = false;
        for (at, byte) in line.iter().enumerate().rev() {
            match byte {
                b'"' => is_quoted = !is_quoted,
                b',' if !is_quoted => {
                    let (before, element) = line.split_at_checked(at)?;
                    self.0 = Some(before);
                    return element.strip_prefix(b",");
                }
                _ => {}
            }
        }
        self.0 = None;
        Some(line)
    }
}

/// The `for=` of one element. Two of them say nothing.
fn of_element(element: &[u8]) -> Option<&[u8]> {
    let pairs = element.split(|byte| *byte == b';').filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = pair.split_at_checked(at)?;
        let is_for = name.trim_ascii().eq_ignore_ascii_case(b"for");
        is_for.then_some(value.strip_prefix(b"=")?.trim_ascii())
    });
    let mut pairs = pairs.fuse();
    match (pairs.next(), pairs.next()) {
        (Some(value), None) => {
            let quoted = value
                .strip_prefix(b"\"")
                .and_then(|v| v.strip_suffix(b"\""));
            Some(quoted.unwrap_or(value))
        }
        _ => None,
    }
}

/// One hop: an address with or without port, IPv6 with or without brackets. None for `unknown`, `_hidden` and the
/// like.
fn node(text: &[u8]) -> Option<Address> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip.into());
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.into());
    }
    let bare = text.strip_prefix('[')?.strip_suffix(']')?;
    let ip: std::net::Ipv6Addr = bare.parse().ok()?;
    Some(IpAddr::from(ip).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const PROXY: &str = "10.0.0.1:4711";

    fn trust(field: Field) -> Trust {
        let proxies = ["10.0.0.0/8", "127.0.0.1", "2001:db8:ffff::/48"];
        Trust {
            proxies: proxies.iter().map(|text| text.parse().unwrap()).collect(),
            field,
        }
    }

    fn ask(trust: &Trust, peer: &str, fields: &[(&str, &str)]) -> Client {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        trust.client(peer.parse().unwrap(), false, &headers)
    }

    #[test]
    fn the_last_hop_that_is_not_trusted_is_the_client() {
        let table: [(&[&str], &str); 24] = [
            (&["192.0.2.1"], "192.0.2.1"),
            (&["192.0.2.1:4711"], "192.0.2.1:4711"),
            (&["198.51.100.9, 192.0.2.1"], "192.0.2.1"),
            (&["198.51.100.9,192.0.2.1,10.1.1.1"], "192.0.2.1"),
            (&["198.51.100.9", "192.0.2.1"], "192.0.2.1"),
            (&["192.0.2.1", "10.1.1.1, 10.1.1.2"], "192.0.2.1"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["[2001:db8::1]:80"], "[2001:db8::1]:80"),
            (&["192.0.2.1, 2001:db8:ffff::7"], "192.0.2.1"),
            (&["::ffff:192.0.2.1"], "192.0.2.1"),
            (&["192.0.2.1, ::ffff:10.0.0.9"], "192.0.2.1"),
            // What a client writes stands left of its own address.
            (&["nonsense, \", for=x;, 192.0.2.1"], "192.0.2.1"),
            (&["\u{fc}, 192.0.2.1"], "192.0.2.1"),
            (&["\u{fc}", "192.0.2.1"], "192.0.2.1"),
            (&["10.0.0.5, 127.0.0.1, 192.0.2.1"], "192.0.2.1"),
            (&["192.0.2.1, , "], "192.0.2.1"),
            // The last that is known, where the next cannot be read.
            (&["192.0.2.1, unknown, 10.1.1.1"], "10.1.1.1"),
            (&["192.0.2.1, \u{fc}"], PROXY),
            (&["192.0.2.1, unknown"], PROXY),
            (&["192.0.2.256"], PROXY),
            (&["fe80::1%eth0"], PROXY),
            (&["10.1.1.1, 10.1.1.2"], "10.1.1.1"),
            (&[], PROXY),
        ];
        for (lines, expected) in table {
            let fields: Vec<_> = lines
                .iter()
                .map(|line| ("x-forwarded-for", *line))
                .collect();
            let client = ask(&trust(Field::XForwardedFor), PROXY, &fields);
            assert_eq!(client.address.to_string(), expected, "{lines:?}");
            assert_eq!(client.is_told, expected != PROXY, "{lines:?}");
            let is_proxy = expected.starts_with("10.");
            assert_eq!(client.network.is_none(), is_proxy, "{lines:?}");
        }
    }

    #[test]
    fn forwarded_is_read_from_the_right() {
        let table: [(&[&str], &str); 17] = [
            (&["for=192.0.2.1"], "192.0.2.1"),
            (
                &["For=\"192.0.2.1:80\";proto=https;by=10.0.0.1"],
                "192.0.2.1:80",
            ),
            (
                &["proto=http; for=\"[2001:db8::1]:4711\""],
                "[2001:db8::1]:4711",
            ),
            (&["for=\"[2001:db8::1]\""], "2001:db8::1"),
            (&["for=198.51.100.9, for=192.0.2.1"], "192.0.2.1"),
            (&["for=192.0.2.1, for=10.1.1.1;host=\"a,b\""], "192.0.2.1"),
            (&["for=198.51.100.9", "for=192.0.2.1"], "192.0.2.1"),
            // A quote that is left open does not swallow what the proxy appends.
            (&["for=\"198.51.100.9, for=192.0.2.1"], "192.0.2.1"),
            (&["for=\"x\\\", for=\"192.0.2.1\""], "192.0.2.1"),
            (&["for=198.51.100.9;for=\", for=192.0.2.1"], "192.0.2.1"),
            (&["for=\u{fc}, for=192.0.2.1"], "192.0.2.1"),
            (&["for=unknown"], PROXY),
            (&["for=_hidden, for=10.1.1.1"], "10.1.1.1"),
            (&["for=192.0.2.1;for=192.0.2.2"], PROXY),
            (&["by=192.0.2.1"], PROXY),
            (&["for="], PROXY),
            (&[""], PROXY),
        ];
        for (lines, expected) in table {
            let fields: Vec<_> = lines.iter().map(|line| ("forwarded", *line)).collect();
            let client = ask(&trust(Field::Forwarded), PROXY, &fields);
            assert_eq!(client.address.to_string(), expected, "{lines:?}");
        }
    }

    #[test]
    fn only_the_chosen_field_of_a_trusted_proxy_is_read() {
        let both = [
            ("x-forwarded-for", "192.0.2.1"),
            ("forwarded", "for=192.0.2.2"),
            ("x-real-ip", "192.0.2.3"),
        ];
        let shown = |trust: &Trust, peer| ask(trust, peer, &both).address.to_string();
        assert_eq!(shown(&trust(Field::XForwardedFor), PROXY), "192.0.2.1");
        assert_eq!(shown(&trust(Field::Forwarded), PROXY), "192.0.2.2");
        let stranger = "192.0.2.9:80";
        assert_eq!(shown(&trust(Field::XForwardedFor), stranger), stranger);
        assert_eq!(shown(&Trust::default(), PROXY), PROXY);
    }

    #[test]
    fn neither_this_machine_nor_a_proxy_is_one_client() {
        let trust = trust(Field::XForwardedFor);
        let network =
            |peer: &str, list: &str| ask(&trust, peer, &[("x-forwarded-for", list)]).network;
        assert_eq!(network("127.0.0.1:80", "127.0.0.1"), None);
        assert_eq!(network("127.0.0.1:80", "::1"), None);
        assert_eq!(network(PROXY, "10.0.0.2"), None);
        assert_eq!(
            network("127.0.0.2:80", "192.0.2.1"),
            None,
            "loopback, untrusted"
        );
        let told = Network::of("192.0.2.1".parse().unwrap());
        assert_eq!(network("127.0.0.1:80", "192.0.2.1"), Some(told));
        assert_eq!(network("192.0.2.1:80", "192.0.2.5"), Some(told));
        assert_eq!(
            ask(&Trust::default(), PROXY, &[]).network.map(|_| ()),
            Some(())
        );
    }

    /// Long lists cost no more than their last hops.
    #[test]
    fn a_hostile_list_is_not_walked() {
        let mut hops = vec!["10.0.0.1"; 100_000];
        hops.push("192.0.2.1");
        let client = ask(
            &trust(Field::XForwardedFor),
            PROXY,
            &[("x-forwarded-for", &hops.join(","))],
        );
        assert_eq!(client.address.to_string(), "192.0.2.1");
    }
}
