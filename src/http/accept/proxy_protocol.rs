//! The PROXY protocol: what a proxy that passes bytes on says of a connection before its first byte.
//!
//! Source: [proxy-protocol.txt](https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt), versions 1 and 2.
//! Extensions (TLV) are passed over, checksums among them: the connection comes from a proxy that is trusted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How version 1 begins, and the longest of it.
const V1: &[u8] = b"PROXY ";
const V1_MAX: usize = 107;
/// How version 2 begins.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_HEAD: usize = 16;
/// Bytes after that. Addresses take 36 at most; the rest are extensions, certificates for instance.
const V2_REST_MAX: usize = 4096;

/// What the bytes that have come begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// More must come.
    Partial,
    /// A header of so many bytes, and whom it speaks for: none if the proxy speaks for itself.
    Whole(usize, Option<SocketAddr>),
    /// Something else.
    Malformed,
}

/// Reads the header at the beginning of `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Header {
    if bytes.starts_with(V1) {
        version_1(bytes)
    } else if bytes.starts_with(V2) {
        version_2(bytes).unwrap_or(Header::Partial)
    } else if V1.starts_with(bytes) || V2.starts_with(bytes) {
        Header::Partial
    } else {
        Header::Malformed
    }
}

/// A line: `PROXY TCP4 192.0.2.1 10.0.0.1 4711 80`.
fn version_1(bytes: &[u8]) -> Header {
    let longest = bytes.get(..V1_MAX).unwrap_or(bytes);
    let Some(end) = longest.windows(2).position(|two| two == b"\r\n") else {
        return if bytes.len() < V1_MAX {
            Header::Partial
        } else {
            Header::Malformed
        };
    };
    let line = longest.get(V1.len()..end).unwrap_or_default();
    let Ok(line) = std::str::from_utf8(line) else {
        return Header::Malformed;
    };
    let length = end + 2;
    let mut words = line.split(' ');
    let kind = words.next();
    if kind == Some("UNKNOWN") {
        return Header::Whole(length, None);
    }
    let (Some(source), Some(target), Some(port), Some(target_port), None) = (
        words.next(),
        words.next(),
        words.next(),
        words.next(),
        words.next(),
    ) else {
        return Header::Malformed;
    };
    let is_of_kind = |ip: &IpAddr| match kind {
        Some("TCP4") => ip.is_ipv4(),
        Some("TCP6") => ip.is_ipv6(),
        _ => false,
    };
    let ip = |text: &str| text.parse().ok().filter(is_of_kind);
    match (ip(source), ip(target), number(port), number(target_port)) {
        (Some(source), Some(_), Some(port), Some(_)) => {
            Header::Whole(length, Some(SocketAddr::new(source, port)))
        }
        _ => Header::Malformed,
    }
}

fn number(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}

/// None if more must come.
fn version_2(bytes: &[u8]) -> Option<Header> {
    let [command, family, high, low] = *bytes.get(V2.len()..V2_HEAD)?.first_chunk()?;
    let rest = usize::from(u16::from_be_bytes([high, low]));
    let is_local = command == 0x20;
    if (!is_local && command != 0x21) || rest > V2_REST_MAX {
        return Some(Header::Malformed);
    }
    let rest = bytes.get(V2_HEAD..V2_HEAD + rest)?;
    let source = match family {
        _ if is_local => None,
        // TCP over IPv4: both addresses, then both ports.
        0x11 => {
            let Some([a, b, c, d, _, _, _, _, high, low, _, _]) = rest.first_chunk() else {
                return Some(Header::Malformed);
            };
            let ip = Ipv4Addr::new(*a, *b, *c, *d);
            Some(SocketAddr::from((ip, u16::from_be_bytes([*high, *low]))))
        }
        // TCP over IPv6.
        0x21 => {
            let (Some(ip), Some(ports)) = (rest.first_chunk::<16>(), rest.get(32..36)) else {
                return Some(Header::Malformed);
            };
            let port = ports
                .first_chunk()
                .map_or(0, |port| u16::from_be_bytes(*port));
            Some(SocketAddr::from((Ipv6Addr::from(*ip), port)))
        }
        // Unspecified, a socket of the file system, datagrams: nobody that is known by address.
        _ => None,
    };
    Some(Header::Whole(V2_HEAD + rest.len(), source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(length: usize, source: &str) -> Header {
        Header::Whole(length, Some(source.parse().unwrap()))
    }

    /// A header of version 2.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2, &[command, family], &length, rest].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x67, 0, 80];

    #[test]
    fn both_versions_are_read_and_what_follows_is_left() {
        let ip = Ipv6Addr::from_bits(0x2001_0db8 << 96 | 1);
        let v6 = [&ip.octets()[..], &[0; 16], &[0x12, 0x67, 0, 80]].concat();
        let with_extension = [&V4[..], &[4, 0, 1, 0]].concat();
        let table = [
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 80\r\n".to_vec(),
                "192.0.2.1:4711",
            ),
            (
                b"PROXY TCP6 2001:db8::1 ::1 4711 80\r\n".to_vec(),
                "[2001:db8::1]:4711",
            ),
            (v2(0x21, 0x11, &V4), "192.0.2.1:4711"),
            (v2(0x21, 0x11, &with_extension), "192.0.2.1:4711"),
            (v2(0x21, 0x21, &v6), "[2001:db8::1]:4711"),
        ];
        for (header, source) in table {
            let bytes = [&header[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse(&bytes), whole(header.len(), source), "{header:?}");
            for cut in 0..header.len() {
                assert_eq!(parse(&bytes[..cut]), Header::Partial, "{header:?} {cut}");
            }
        }
    }

    #[test]
    fn a_proxy_may_speak_for_itself() {
        let table = [
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY UNKNOWN ff:: :: 1 2\r\n".to_vec(),
            v2(0x20, 0, b""),
            v2(0x20, 0x11, &V4),
            v2(0x21, 0, b""),
            v2(0x21, 0x31, &[0; 216]),
        ];
        for header in table {
            assert_eq!(
                parse(&header),
                Header::Whole(header.len(), None),
                "{header:?}"
            );
        }
    }

    #[test]
    fn what_is_no_header_is_malformed_at_once() {
        let long = [b"PROXY TCP4 ", &[b'1'; 200][..]].concat();
        let table = [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"PRI * HTTP/2.0\r\n".to_vec(),
            b"proxy TCP4".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 4711\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 80 9\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1  10.0.0.1 4711 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 +4711 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 65536 80\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::1 4711 80\r\n".to_vec(),
            b"PROXY TCP5 192.0.2.1 10.0.0.1 4711 80\r\n".to_vec(),
            b"PROXY TCP4 \xff 10.0.0.1 4711 80\r\n".to_vec(),
            long,
            v2(0x22, 0x11, &V4),
            v2(0x11, 0x11, &V4),
            v2(0x21, 0x11, &V4[..11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x11, &[0; 4097])[..16].to_vec(),
        ];
        for bytes in table {
            assert_eq!(
                parse(&bytes),
                Header::Malformed,
                "{:?}",
                bytes.escape_ascii()
            );
        }
    }
}
