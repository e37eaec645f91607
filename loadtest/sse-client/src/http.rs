//! HTTP/1.1 ([RFC 9112](https://www.rfc-editor.org/rfc/rfc9112)), as much of it as one request on one connection needs.

use std::fmt;

/// A head that is longer is none.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What is not HTTP/1.1, or not what this client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no HTTP/1.1: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// The bytes of a request. `Content-Length` stands there only if there is a body or the method has one.
#[must_use]
pub fn request(
    method: &str,
    host: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
    let length = body.len().to_string();
    let own = (!body.is_empty() || method == "POST").then_some(("Content-Length", &*length));
    for (name, value) in headers.iter().copied().chain(own) {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

/// Header fields in the order in which they came, names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The values of a field, by its name in lower case.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let fields = self.0.iter().filter(move |(known, _)| known == name);
        fields.map(|(_, value)| value.as_str())
    }

    /// The value of a field that stands once.
    ///
    /// # Panics
    /// If it stands more than once.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.all(name);
        let value = values.next();
        assert_eq!(values.next(), None, "{name} stands twice in {self:?}");
        value
    }

    /// The names, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }
}

/// Status line and header fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub version: String,
    /// The status code.
    pub status: u16,
    /// The header fields.
    pub headers: Headers,
}

impl Head {
    /// Takes the head off the front of what was received. None while it is not there as a whole;
    /// what follows it stays.
    ///
    /// # Errors
    /// [`Malformed`], also if it never ends.
    pub fn take(received: &mut Vec<u8>) -> Result<Option<Self>, Malformed> {
        let end = received.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end else {
            return if received.len() > HEAD_BYTES_MAX {
                Err(Malformed("a head without end"))
            } else {
                Ok(None)
            };
        };
        let head: Vec<u8> = received.drain(..end + 4).collect();
        let head = String::from_utf8(head).map_err(|_| Malformed("a head that is no text"))?;
        let mut lines = head.trim_end().split("\r\n");
        let (version, status) = lines
            .next()
            .and_then(|line| line.split_once(' '))
            .filter(|(version, _)| version.starts_with("HTTP/1."))
            .ok_or(Malformed("no status line"))?;
        let field = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let fields: Option<Vec<_>> = lines.map(field).collect();
        Ok(Some(Self {
            version: version.to_owned(),
            status: status
                .get(..3)
                .and_then(|code| code.parse().ok())
                .ok_or(Malformed("no status code"))?,
            headers: Headers(fields.ok_or(Malformed("a line that is no header field"))?),
        }))
    }
}

/// A body that is being received: how its end is told, and what of it is still to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body(Framing);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Framing {
    /// So many bytes are left.
    Length(u64),
    Chunked(Chunked),
    UntilClose,
}

impl Body {
    /// The body after a head. `bodiless`: the request was `HEAD`.
    ///
    /// # Errors
    /// [`Malformed`] if its end is told in no way that can be read, or in two.
    pub fn after(head: &Head, bodiless: bool) -> Result<Self, Malformed> {
        if bodiless || head.status == 204 || head.status == 304 {
            return Ok(Self(Framing::Length(0)));
        }
        let mut codings = head.headers.all("transfer-encoding");
        let mut lengths = head.headers.all("content-length");
        let told = (
            codings.next(),
            lengths.next(),
            codings.next().or(lengths.next()),
        );
        let framing = match told {
            (None, None, _) => Framing::UntilClose,
            (Some(coding), None, None) if coding.eq_ignore_ascii_case("chunked") => {
                Framing::Chunked(Chunked::default())
            }
            (None, Some(length), None) => {
                let length = length.parse().map_err(|_| Malformed("the length"))?;
                Framing::Length(length)
            }
            _ => return Err(Malformed("the end of the body is told otherwise or twice")),
        };
        Ok(Self(framing))
    }

    /// Moves what belongs to the body from `received` to `content`. What comes after its end stays.
    ///
    /// # Errors
    /// [`Malformed`] if a chunk is none.
    pub fn take(&mut self, received: &mut Vec<u8>, content: &mut Vec<u8>) -> Result<(), Malformed> {
        let taken = match &mut self.0 {
            Framing::UntilClose => {
                content.extend_from_slice(received);
                received.len()
            }
            Framing::Length(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                let part = received.get(..most).unwrap_or(received);
                content.extend_from_slice(part);
                *left -= part.len() as u64;
                part.len()
            }
            Framing::Chunked(chunked) => chunked.decode(received, content)?,
        };
        received.drain(..taken);
        Ok(())
    }

    /// Whether it has said itself that it is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match &self.0 {
            Framing::Length(left) => *left == 0,
            Framing::Chunked(chunked) => chunked.state == State::Over,
            Framing::UntilClose => false,
        }
    }

    /// Whether the end of the connection is its proper end; for all others it is a cut.
    #[must_use]
    pub fn ends_with_connection(&self) -> bool {
        self.is_over() || self.0 == Framing::UntilClose
    }
}

/// The chunked coding (RFC 9112, section 7.1). Extensions and trailers are read over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Chunked {
    state: State,
    /// The line so far, in all states but [`State::Data`].
    line: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    /// So many bytes of the chunk are left.
    Data(usize),
    /// The line end after a chunk.
    AfterData,
    Trailer,
    Over,
}

impl Chunked {
    /// How many bytes it took.
    fn decode(&mut self, received: &[u8], content: &mut Vec<u8>) -> Result<usize, Malformed> {
        let mut rest = received;
        while self.state != State::Over {
            let Some((&byte, after)) = rest.split_first() else {
                break;
            };
            if let State::Data(left) = self.state {
                let (data, after) = rest.split_at(left.min(rest.len()));
                content.extend_from_slice(data);
                rest = after;
                self.state = match left - data.len() {
                    0 => State::AfterData,
                    left => State::Data(left),
                };
                continue;
            }
            rest = after;
            match byte {
                b'\n' => self.end_line()?,
                _ if self.line.len() >= HEAD_BYTES_MAX => {
                    return Err(Malformed("a line of a chunk without end"));
                }
                _ => self.line.push(byte),
            }
        }
        Ok(received.len() - rest.len())
    }

    fn end_line(&mut self) -> Result<(), Malformed> {
        let line = std::mem::take(&mut self.line);
        let line = line
            .strip_suffix(b"\r")
            .ok_or(Malformed("a line end without CR"))?;
        self.state = match self.state {
            State::Size => match size(line)? {
                0 => State::Trailer,
                size => State::Data(size),
            },
            State::AfterData if line.is_empty() => State::Size,
            State::AfterData => return Err(Malformed("a chunk is longer than it said")),
            State::Trailer if line.is_empty() => State::Over,
            state => state,
        };
        Ok(())
    }
}

fn size(line: &[u8]) -> Result<usize, Malformed> {
    let text = std::str::from_utf8(line).unwrap_or_default();
    let digits = text.split(';').next().unwrap_or_default().trim_end();
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Malformed("the size of a chunk"));
    }
    usize::from_str_radix(digits, 16).map_err(|_| Malformed("the size of a chunk"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an answer that comes in these pieces: status, body, whether it is over, and the rest.
    fn read<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(u16, Vec<u8>, bool, Vec<u8>), Malformed> {
        let (mut received, mut content) = (Vec::new(), Vec::new());
        let mut at = None;
        for piece in pieces {
            received.extend_from_slice(piece);
            if at.is_none()
                && let Some(head) = Head::take(&mut received)?
            {
                at = Some((head.status, Body::after(&head, false)?));
            }
            if let Some((_, body)) = &mut at {
                body.take(&mut received, &mut content)?;
            }
        }
        let (status, is_over) = at.map_or((0, false), |(status, body)| (status, body.is_over()));
        Ok((status, content, is_over, received))
    }

    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        5\r\nhello\r\n1;x=y\r\n \r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nmore";
    const OF_LENGTH: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\nhello 0123456789more";

    #[test]
    fn an_answer_is_read_alike_wherever_it_is_cut() {
        for wire in [CHUNKED, OF_LENGTH] {
            for at in 0..=wire.len() {
                let (one, other) = wire.split_at(at);
                let (status, body, is_over, rest) = read([one, other]).unwrap();
                assert_eq!((status, is_over), (200, true), "cut at {at}");
                assert_eq!((&*body, &*rest), (&b"hello 0123456789"[..], &b"more"[..]));
            }
            for size in 1..wire.len() {
                let (_, body, is_over, rest) = read(wire.chunks(size)).unwrap();
                assert!(is_over, "pieces of {size}");
                assert_eq!((&*body, &*rest), (&b"hello 0123456789"[..], &b"more"[..]));
            }
        }
    }

    #[test]
    fn an_answer_that_breaks_off_is_not_over() {
        for wire in [CHUNKED, OF_LENGTH] {
            for length in 0..wire.len() - 4 {
                let (_, body, is_over, _) = read([&wire[..length]]).unwrap();
                assert!(!is_over, "{length} bytes");
                assert!(b"hello 0123456789".starts_with(&body), "{length} bytes");
            }
        }
    }

    #[test]
    fn a_body_without_a_length_ends_with_the_connection() {
        let wire = b"HTTP/1.0 200 OK\r\n\r\nhello";
        let (_, body, is_over, rest) = read([&wire[..]]).unwrap();
        assert_eq!((&*body, is_over, rest.len()), (&b"hello"[..], false, 0));
    }

    #[test]
    fn how_a_body_ends_is_told_by_its_head() {
        let head = |status: u16, fields: &[(&str, &str)]| Head {
            version: "HTTP/1.1".into(),
            status,
            headers: Headers(
                fields
                    .iter()
                    .map(|(name, value)| ((*name).into(), (*value).into()))
                    .collect(),
            ),
        };
        let (length, coding) = ("content-length", "transfer-encoding");
        let ends = |head: &Head, bodiless: bool| {
            Body::after(head, bodiless).map(|body| (body.is_over(), body.ends_with_connection()))
        };
        assert_eq!(ends(&head(200, &[]), false), Ok((false, true)));
        assert_eq!(ends(&head(204, &[]), false), Ok((true, true)));
        assert_eq!(ends(&head(200, &[(length, "0")]), false), Ok((true, true)));
        assert_eq!(
            ends(&head(200, &[(length, "5")]), false),
            Ok((false, false))
        );
        assert_eq!(ends(&head(200, &[(length, "5")]), true), Ok((true, true)));
        assert_eq!(
            ends(&head(200, &[(coding, "Chunked")]), false),
            Ok((false, false))
        );
        for fields in [
            &[(length, "5"), (coding, "chunked")][..],
            &[(length, "5"), (length, "5")],
            &[(length, "five")],
            &[(coding, "gzip")],
        ] {
            assert!(
                Body::after(&head(200, fields), false).is_err(),
                "{fields:?}"
            );
        }
    }

    #[test]
    fn what_is_no_http_is_an_error() {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for wire in [
            "SSH-2.0\r\n\r\n".to_owned(),
            "HTTP/1.1 20\r\n\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\nno field\r\n\r\n".to_owned(),
            "x".repeat(HEAD_BYTES_MAX + 1),
            format!("{chunked}x\r\n"),
            format!("{chunked}+1\r\na\r\n"),
            format!("{chunked}\r\n"),
            format!("{chunked}1\nab\r\n"),
            format!("{chunked}1\r\nab\r\n"),
            format!("{chunked}fffffffffffffffff\r\n"),
        ] {
            assert!(read([wire.as_bytes()]).is_err(), "{wire:.60?}");
            let pieces = wire.as_bytes().chunks(wire.len() / 100 + 1);
            assert!(read(pieces).is_err(), "{wire:.60?}");
        }
    }

    #[test]
    fn a_request_tells_the_length_of_what_it_brings() {
        let request = |method, headers: &[_], body| {
            String::from_utf8(request(method, "h", "/t?q", headers, body)).unwrap()
        };
        assert_eq!(
            request("GET", &[("A", "b")], b""),
            "GET /t?q HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n"
        );
        assert!(request("POST", &[], b"").ends_with("\r\nContent-Length: 0\r\n\r\n"));
        assert!(request("PUT", &[], b"abc").ends_with("\r\nContent-Length: 3\r\n\r\nabc"));
    }
}
