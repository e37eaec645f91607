//! The section `cors`: origins whose pages may read and write from elsewhere.

use super::source::Source;
use std::sync::Arc;

const ORIGINS: &str = "cors.origins";

/// `cors`: what a browser is told about pages of other origins.
#[derive(Clone, Debug)]
pub struct Cors {
    /// Whose pages may.
    pub origins: Origins,
}

impl Cors {
    pub(super) fn take(s: &mut Source) -> Self {
        let mut patterns = Vec::new();
        for text in s.list(ORIGINS) {
            match Pattern::parse(&text) {
                Some(pattern) => patterns.push(pattern),
                None => s.fault(
                    ORIGINS,
                    &format!(
                        "{text:?} is not an origin such as https://app.example.com, https://*.example.com, null or *, without a path"
                    ),
                ),
            }
        }
        Self {
            origins: Origins(patterns.into()),
        }
    }
}

/// A set of origins ([RFC 6454](https://www.rfc-editor.org/rfc/rfc6454#section-6.1)).
#[derive(Clone, Debug, Default)]
pub struct Origins(Arc<[Pattern]>);

/// How a set has an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// It is named, by itself or by its domain: its pages may send cookies.
    ByName,
    /// As any other.
    AsAny,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    /// `*`.
    Any,
    /// An origin in lower case, or `null`: of a page from a file, or in a sandbox.
    One(String),
    /// `https://*.example.com:8443`: all below a domain, of this scheme and port.
    Below {
        /// With `://`.
        scheme: String,
        /// From the dot on, with the port if it is not the scheme's own.
        domain: String,
    },
}

/// Of an origin. A host's name has 253 at most (RFC 1035, section 2.3.4), and scheme and port need some. It is sent back:
/// a proxy takes a replica for broken whose heads are longer than its buffer.
const ORIGIN_BYTES_MAX: usize = 300;

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        match text.as_str() {
            "*" => return Some(Self::Any),
            "null" => return Some(Self::One(text)),
            _ => {}
        }
        let (name, host) = text.split_once("://")?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        let is_host = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
        let domain = host.strip_prefix('*');
        let whole = domain.map_or(host, |domain| domain.strip_prefix('.').unwrap_or_default());
        if name.is_empty() || whole.is_empty() {
            return None;
        }
        if !name.chars().all(is_name) || !whole.chars().all(is_host) {
            return None;
        }
        Some(match domain {
            Some(domain) => Self::Below {
                scheme: format!("{name}://"),
                domain: domain.to_owned(),
            },
            None => Self::One(text),
        })
    }

    fn has(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::One(one) => one == origin,
            Self::Below { scheme, domain } => {
                let labels = origin
                    .strip_prefix(scheme.as_str())
                    .and_then(|host| host.strip_suffix(domain.as_str()));
                let is_label = |label: &str| {
                    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
                    !label.is_empty() && label.chars().all(is_part)
                };
                labels.is_some_and(|labels| labels.split('.').all(is_label))
            }
        }
    }
}

impl Origins {
    /// Those of a list. What is no origin is left out.
    #[must_use]
    pub fn of<T: AsRef<str>>(list: &[T]) -> Self {
        let patterns = list.iter().filter_map(|text| Pattern::parse(text.as_ref()));
        Self(patterns.collect())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this origin, as a browser writes it, is one of them, and how.
    #[must_use]
    pub fn allow(&self, origin: &str) -> Option<Allowed> {
        if origin.len() > ORIGIN_BYTES_MAX {
            return None;
        }
        let origin = origin.to_ascii_lowercase();
        let mut fits = self.0.iter().filter(|pattern| pattern.has(&origin));
        let first = fits.next()?;
        let is_named = *first != Pattern::Any || fits.any(|pattern| *pattern != Pattern::Any);
        Some(if is_named {
            Allowed::ByName
        } else {
            Allowed::AsAny
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_known_by_itself_by_its_domain_or_as_any() {
        use Allowed::{AsAny, ByName};
        let own = &["https://app.example.com", "http://localhost:3000"][..];
        let below = &["https://*.example.com", "https://*.dev.example.org:8443"][..];
        let long = |bytes: usize| {
            let (scheme, domain) = ("https://", ".example.com");
            let label = "a".repeat(bytes - scheme.len() - domain.len());
            format!("{scheme}{label}{domain}")
        };
        let table = [
            (own, "https://app.example.com", Some(ByName)),
            (own, "HTTPS://App.Example.com", Some(ByName)),
            (own, "http://app.example.com", None),
            (own, "https://app.example.com:8443", None),
            (own, "https://app.example.com.evil.example", None),
            (own, "http://localhost:3000", Some(ByName)),
            (own, "null", None),
            (own, "", None),
            (below, "https://a.example.com", Some(ByName)),
            (below, "https://a.b.example.com", Some(ByName)),
            (below, "https://example.com", None),
            (below, "https://.example.com", None),
            (below, "https://evilexample.com", None),
            (below, "https://evil.example/.example.com", None),
            (below, "https://evil.example:1.example.com", None),
            (below, "https://a@b.example.com", None),
            (below, "https://a.example.com:8443", None),
            (below, "https://x.dev.example.org:8443", Some(ByName)),
            (below, "https://x.dev.example.org", None),
            (&["null"], "null", Some(ByName)),
            (&["*"], "https://any.example", Some(AsAny)),
            (&["*"], "null", Some(AsAny)),
            (
                &["*", "https://*.example.com"],
                "https://a.example.com",
                Some(ByName),
            ),
            (
                &["https://a.example", "*"],
                "https://a.example",
                Some(ByName),
            ),
            (&[], "https://any.example", None),
            (below, &long(300), Some(ByName)),
            (below, &long(301), None),
            (&["*"], &long(301), None),
        ];
        for (set, origin, expected) in table {
            assert_eq!(
                Origins::of(set).allow(origin),
                expected,
                "{origin} in {set:?}"
            );
        }
    }

    #[test]
    fn what_is_no_origin_is_no_pattern() {
        for text in [
            "",
            "app.example.com",
            "https://",
            "https://*",
            "https://*.",
            "https://*example.com",
            "https://app.*.com",
            "https://app.example.com/",
            "https://user@app.example.com",
            "https://app example",
            "://app.example.com",
        ] {
            assert_eq!(Pattern::parse(text), None, "{text}");
        }
    }
}
