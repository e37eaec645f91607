//! Where a key set is fetched from.

use hyper::Uri;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Bytes of an address, at most.
const BYTES_MAX: usize = 2048;

/// A URL, `https` but on this machine: who could answer in place of the identity provider could sign every token. What
/// stands in its query is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    url: String,
    shown: String,
}

impl Address {
    /// As it is asked for.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether it has been written `https`.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.shown.starts_with("https:")
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > BYTES_MAX {
            return Err(format!("it has more than {BYTES_MAX} bytes"));
        }
        if text.contains('#') {
            return Err("it has a fragment, which is never sent".to_owned());
        }
        let uri: Uri = text.parse().map_err(|_| "it is not a URL".to_owned())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err("it is not a URL such as https://login.example.com/jwks.json".to_owned());
        };
        if authority.as_str().contains('@') {
            return Err("it has a user, which is not sent".to_owned());
        }
        match scheme {
            "https" => {}
            "http" if is_this_machine(authority.host()) => {}
            "http" => {
                return Err(
                    "http is for this machine alone: whoever is on the way could answer with keys of their own, and sign every token; use https"
                        .to_owned(),
                );
            }
            _ => return Err("only https is fetched, and http on this machine".to_owned()),
        }
        Ok(Self {
            url: text.to_owned(),
            shown: format!("{scheme}://{authority}{}", uri.path()),
        })
    }
}

/// Whether a host is this machine by its name or number alone; a name that leads here by chance is not.
fn is_this_machine(host: &str) -> bool {
    let number = host.trim_start_matches('[').trim_end_matches(']');
    let number = number.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost")
        || number.is_ok_and(|number| number.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_https_or_on_this_machine() {
        for (url, shown) in [
            (
                "https://login.example.com/keys",
                "https://login.example.com/keys",
            ),
            ("https://login.example.com", "https://login.example.com/"),
            ("https://h:8443/a?key=secret", "https://h:8443/a"),
            ("http://127.0.0.1:1/a", "http://127.0.0.1:1/a"),
            ("http://[::1]:1/a", "http://[::1]:1/a"),
            ("http://localhost/a", "http://localhost/a"),
        ] {
            let address: Address = url.parse().unwrap();
            assert_eq!((address.url(), &*address.to_string()), (url, shown));
            assert!(!format!("{address:?}").contains("secret"));
        }
        for (url, why) in [
            ("http://login.example.com/keys", "http is for this machine"),
            ("http://127.0.0.1.example.com/", "http is for this machine"),
            ("http://localhost.example.com/", "http is for this machine"),
            ("http://10.0.0.1/keys", "http is for this machine"),
            ("ftp://h/keys", "only https"),
            ("redis://127.0.0.1/", "only https"),
            ("https://user:word@h/keys", "a user"),
            ("http://127.0.0.1@example.com/", "a user"),
            ("https://h/keys#a", "a fragment"),
            ("/keys", "not a URL"),
            ("login.example.com", "not a URL"),
            ("", "not a URL"),
            (&format!("https://h/{}", "a".repeat(2048)), "bytes"),
        ] {
            let refused = url.parse::<Address>().unwrap_err();
            assert!(refused.contains(why), "{url}: {refused}");
        }
    }
}
