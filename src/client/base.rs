//! Where a gateway is, and what stands in its URLs.

use hyper::Uri;
use std::fmt;
use std::str::FromStr;

/// The URL of a gateway, or of the proxy before it: paths are put after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base(String);

impl Base {
    /// The URL, without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A URL below it; the path begins with a slash.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Base {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("it has no scheme; did you mean \"http://{text}\"?"));
        };
        if scheme.starts_with("redis") {
            return Err(
                "this is the URL of a Redis, and a gateway is needed; `publish` takes a Redis as --redis"
                    .into(),
            );
        }
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err("a gateway speaks http:// or https://".into());
        }
        if rest.is_empty() || rest.starts_with('/') {
            return Err("it names no host".into());
        }
        if rest.contains(['?', '#']) {
            return Err("the URL of a gateway has no query and no fragment".into());
        }
        let uri: Uri = text.parse().map_err(|_| "it is not a URL".to_owned())?;
        let authority = uri.authority().map(hyper::http::uri::Authority::as_str);
        if authority.is_some_and(|authority| authority.contains('@')) {
            return Err("the URL of a gateway has no user; the publish key is --key".into());
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

/// A path segment or a query value, percent-encoded.
#[must_use]
pub fn encode(text: &str) -> String {
    // `+` for a space is right in a query but not in a path.
    form_urlencoded::byte_serialize(text.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_what_paths_can_be_put_after() {
        for (text, url) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/events"),
            ("HTTPS://h/", "HTTPS://h/events"),
            ("http://[::1]:1/below/", "http://[::1]:1/below/events"),
        ] {
            let base: Base = text.parse().unwrap();
            assert_eq!(base.url("/events"), url);
        }
        for (text, why) in [
            ("localhost:8080", "\"http://localhost:8080\""),
            ("redis://h", "--redis"),
            ("rediss+sentinel://h", "--redis"),
            ("ftp://h", "http://"),
            ("http:///events", "host"),
            ("http://a b", "not a URL"),
            ("http://h?x", "query"),
            ("http://h#x", "fragment"),
            ("http://user@h", "user"),
        ] {
            let refused = text.parse::<Base>().unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
