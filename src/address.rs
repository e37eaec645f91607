//! Addresses of clients: what is shown of one, what one is counted by, and networks of them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Bits of an IPv6 address that name a network. A client has all addresses of its own.
const NETWORK_BITS: u8 = 64;

/// An address as it is shown, with its port where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Never IPv4 in the clothes of IPv6.
    pub ip: IpAddr,
    /// Proxies mostly tell none.
    pub port: Option<u16>,
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self {
            ip: address.ip().to_canonical(),
            port: Some(address.port()),
        }
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        Self {
            ip: ip.to_canonical(),
            port: None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

/// What clients are counted by: an IPv4 address, or the first 64 bits of one of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(IpAddr);

impl Network {
    /// The network of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self(ip.into()),
            IpAddr::V6(ip) => {
                let rest = u32::from(128 - NETWORK_BITS);
                Self(Ipv6Addr::from_bits(ip.to_bits() >> rest << rest).into())
            }
        }
    }
}

/// Whom a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// What is shown of it.
    pub address: Address,
    /// A proxy that is trusted has told it; else it is the other end of the connection.
    pub is_told: bool,
    /// What it is counted by. None for this machine and for trusted proxies: behind one of them are many.
    pub network: Option<Network>,
}

/// A network in the notation of CIDR: `10.0.0.0/8`, `2001:db8::/32`, or one address.
///
/// Source: [RFC 4632](https://www.rfc-editor.org/rfc/rfc4632), [RFC 4291](https://www.rfc-editor.org/rfc/rfc4291).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    first: IpAddr,
    bits: u8,
}

impl Prefix {
    /// Whether the address lies in it.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.first, ip.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(ip)) => {
                let rest = 32 - u32::from(self.bits);
                (first.to_bits() ^ ip.to_bits())
                    .checked_shr(rest)
                    .unwrap_or(0)
                    == 0
            }
            (IpAddr::V6(first), IpAddr::V6(ip)) => {
                let rest = 128 - u32::from(self.bits);
                (first.to_bits() ^ ip.to_bits())
                    .checked_shr(rest)
                    .unwrap_or(0)
                    == 0
            }
            _ => false,
        }
    }

    fn has_more_bits(&self) -> bool {
        match self.first {
            IpAddr::V4(first) => first.to_bits().checked_shl(self.bits.into()).unwrap_or(0) != 0,
            IpAddr::V6(first) => first.to_bits().checked_shl(self.bits.into()).unwrap_or(0) != 0,
        }
    }
}

/// What is wrong with a [`Prefix`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixFault {
    /// It cannot be read.
    #[error("is neither an address nor a network such as 10.0.0.0/8 or 2001:db8::/32")]
    Unreadable,
    /// It says more than it means: probably a slip.
    #[error("has bits beyond its prefix")]
    MoreBits,
    /// All addresses there are.
    #[error("covers every address")]
    All,
}

impl FromStr for Prefix {
    type Err = PrefixFault;

    fn from_str(text: &str) -> Result<Self, PrefixFault> {
        let (ip, bits) = match text.split_once('/') {
            Some((ip, bits)) => (ip, Some(bits)),
            None => (text, None),
        };
        let first: IpAddr = ip.parse().map_err(|_| PrefixFault::Unreadable)?;
        let most = if first.is_ipv4() { 32 } else { 128 };
        let is_number = |bits: &str| bits.bytes().all(|b| b.is_ascii_digit());
        let bits = match bits {
            None => most,
            Some(bits) if is_number(bits) => bits.parse().map_err(|_| PrefixFault::Unreadable)?,
            Some(_) => return Err(PrefixFault::Unreadable),
        };
        if bits > most {
            return Err(PrefixFault::Unreadable);
        }
        let prefix = Self { first, bits };
        if prefix.has_more_bits() {
            return Err(PrefixFault::MoreBits);
        }
        if bits == 0 {
            return Err(PrefixFault::All);
        }
        Ok(prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn of_ipv6_the_first_half_counts() {
        let same = |a, b| Network::of(ip(a)) == Network::of(ip(b));
        assert!(same("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff"));
        assert!(!same("2001:db8:0:1::1", "2001:db8:0:2::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }

    #[test]
    fn a_prefix_holds_what_begins_like_it() {
        let table = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "a00::", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.0", false),
            ("192.0.2.128/25", "192.0.2.127", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::1", "::1", true),
            ("::1", "127.0.0.1", false),
        ];
        for (prefix, address, expected) in table {
            let prefix: Prefix = prefix.parse().unwrap();
            assert_eq!(
                prefix.contains(ip(address)),
                expected,
                "{prefix:?} {address}"
            );
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        let table = [
            ("", PrefixFault::Unreadable),
            ("nginx", PrefixFault::Unreadable),
            ("10.0.0.0/33", PrefixFault::Unreadable),
            ("10.0.0.0/+8", PrefixFault::Unreadable),
            ("10.0.0.0/", PrefixFault::Unreadable),
            ("10.0.0.0/8/8", PrefixFault::Unreadable),
            ("10.0.0.0:80", PrefixFault::Unreadable),
            ("10.0.0.1/8", PrefixFault::MoreBits),
            ("2001:db8::1/32", PrefixFault::MoreBits),
            ("0.0.0.0/0", PrefixFault::All),
            ("::/0", PrefixFault::All),
        ];
        for (text, fault) in table {
            assert_eq!(text.parse::<Prefix>(), Err(fault), "{text}");
        }
    }

    #[test]
    fn an_address_is_shown_as_people_write_it() {
        let told: SocketAddr = "[2001:db8::1]:80".parse().unwrap();
        assert_eq!(Address::from(told).to_string(), "[2001:db8::1]:80");
        assert_eq!(Address::from(told.ip()).to_string(), "2001:db8::1");
        assert_eq!(
            Address::from(ip("::ffff:192.0.2.1")).to_string(),
            "192.0.2.1"
        );
    }
}
