//! One form of a path.
//!
//! A proxy judges a request by the path that it has decoded and tidied up: limits, who may read, which
//! way to go. The replica gets the path as it was sent. Where the two read it differently, a request
//! passes the proxy as one thing and is served as another: `/events/%2e%2e` is `/` to nginx, and a
//! topic here. So what can be read in two ways is refused, as nginx would read it
//! ([RFC 3986, section 6](https://www.rfc-editor.org/rfc/rfc3986#section-6)).
//!
//! A slash within a topic's name may come as `%2F`: `/events/rooms%2F1` is below `/events/` in both.

/// Whether the path, decoded, has no segment that is `.`, `..` or, but for the last, empty.
pub(super) fn has_one_meaning(path: &str) -> bool {
    let is_suspect = path.contains('%') || path.contains("/.") || path.contains("//");
    if !is_suspect {
        return true;
    }
    let decoded = decoded(path.as_bytes());
    let Some(path) = decoded.strip_prefix(b"/") else {
        return true;
    };
    let mut segments = path.split(|&byte| byte == b'/');
    let last = segments.next_back().unwrap_or_default();
    let is_dots = |segment: &[u8]| matches!(segment, b"." | b"..");
    !is_dots(last) && !segments.any(|segment| segment.is_empty() || is_dots(segment))
}

/// The bytes with each `%XX` as the byte it stands for; once, as all who read it do.
fn decoded(path: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let escaped = (byte == b'%').then(|| after.split_first_chunk::<2>());
        let escaped = escaped.flatten().and_then(|(&[high, low], after)| {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let value = digit(high)? * 16 + digit(low)?;
            Some((u8::try_from(value).ok()?, after))
        });
        match escaped {
            Some((value, after)) => {
                bytes.push(value);
                rest = after;
            }
            None => bytes.push(byte),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_proxy_would_tidy_up_has_two_meanings() {
        let good = [
            "/",
            "/events",
            "/events/",
            "/events/news",
            "/events/a%20b%2Fc%3F",
            "/events/.a",
            "/events/a..b",
            "/events/...",
            "/events/%252e%252e",
            "/events/100%",
            "/events/%zz",
            "*",
            "/events/%e4%bd%a0",
            "/topics/a%2fb/events",
        ];
        for path in good {
            assert!(has_one_meaning(path), "{path}");
        }
        let bad = [
            "//",
            "//events",
            "/events//news",
            "/events/.",
            "/events/..",
            "/events/../topics",
            "/./events",
            "/events/%2e%2e",
            "/events/.%2E",
            "/events/%2E",
            "/events/%2Fnews",
            "/events/a%2F%2Fb",
            "/events/a%2f..%2f..%2ftopics",
            "/events/a%2F..",
            "/events%2F%2Fa",
            "/%2e/events",
            "/events/x/%2e%2e/%2e%2e/topics",
        ];
        for path in bad {
            assert!(!has_one_meaning(path), "{path}");
        }
    }
}
