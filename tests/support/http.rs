//! One HTTP/1.1 request over a bare socket, and its answer.

use super::FAILSAFE;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};

/// Header fields in the order in which they came, names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The value of a field that stands once.
    ///
    /// # Panics
    /// If it stands more than once.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut values = self
            .0
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| value.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} stands twice in {self:?}");
        value
    }

    /// The names, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }
}

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The header fields.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|why| panic!("{why}: {} {:?}", self.status, self.text()))
    }

    /// The `id` of a publish.
    pub fn id(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()["id"].as_str().expect("an id").to_owned()
    }

    /// The ids of a batch.
    pub fn ids(&self) -> Vec<String> {
        assert_eq!(self.status, 200, "{}", self.text());
        let events = self.json()["events"].as_array().expect("events").clone();
        let ids = events
            .iter()
            .map(|event| event["id"].as_str().expect("an id").to_owned());
        ids.collect()
    }

    /// The `detail` of a problem, after checking that it is one with this status.
    pub fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(
            self.headers.get("content-type"),
            Some("application/problem+json")
        );
        let body = self.json();
        assert_eq!(body["status"], status, "{body}");
        assert!(
            body["title"]
                .as_str()
                .is_some_and(|title| !title.is_empty()),
            "{body}"
        );
        body["detail"].as_str().expect("a detail").to_owned()
    }
}

/// Opens a connection with the failsafe as its time-out.
pub fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address)
        .unwrap_or_else(|why| panic!("{address} takes no connection: {why}"));
    socket.set_read_timeout(Some(FAILSAFE)).expect("a time-out");
    socket
        .set_write_timeout(Some(FAILSAFE))
        .expect("a time-out");
    socket.set_nodelay(true).expect("a socket option");
    socket
}

/// The bytes of a request; `Content-Length` only where there is a body or the method asks for one.
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: tidegate.test\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if !body.is_empty() || method == "POST" {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// Sends bytes as they are and reads one answer.
pub fn exchange(address: SocketAddr, request: &[u8]) -> Answer {
    let mut socket = connect(address);
    socket.write_all(request).expect("the request is sent");
    read_answer(&mut socket, request.starts_with(b"HEAD "))
}

/// Reads a head, then the body by its `Content-Length` or its chunks.
fn read_answer(socket: &mut TcpStream, bodiless: bool) -> Answer {
    let mut bytes = Vec::new();
    let head = read_head(socket, &mut bytes);
    let mut body = Body::of(&head.headers, bodiless || head.status == 204);
    let mut content = Vec::new();
    while body.take(&mut bytes, &mut content) == Progress::More {
        let read = read_some(socket, &mut bytes);
        if read.unwrap_or_else(|why| panic!("{why}; {head:?}")) == 0 {
            assert!(body == Body::UntilClose, "the answer broke off: {head:?}");
            break;
        }
    }
    Answer {
        status: head.status,
        headers: head.headers,
        body: content,
    }
}

/// Status line and header fields.
#[derive(Clone, Debug)]
pub struct Head {
    /// `HTTP/1.1`.
    pub version: String,
    /// The status code.
    pub status: u16,
    /// The header fields.
    pub headers: Headers,
}

/// Reads up to the blank line; what follows stays in `bytes`.
pub fn read_head(socket: &mut TcpStream, bytes: &mut Vec<u8>) -> Head {
    let end = loop {
        if let Some(at) = find(bytes, b"\r\n\r\n") {
            break at;
        }
        let read = read_some(socket, bytes);
        assert!(
            read.as_ref().is_ok_and(|read| *read > 0),
            "no whole head ({read:?}): {:?}",
            String::from_utf8_lossy(bytes)
        );
    };
    let head = String::from_utf8(bytes.drain(..end + 4).collect()).expect("a head in ASCII");
    let mut lines = head.trim_end().split("\r\n");
    let status_line = lines.next().expect("a status line");
    let (version, rest) = status_line.split_once(' ').expect("a status line");
    let fields = lines.map(|line| {
        let (name, value) = line.split_once(':').expect("a header field");
        (name.to_ascii_lowercase(), value.trim().to_owned())
    });
    Head {
        version: version.to_owned(),
        status: rest[..3].parse().expect("a status code"),
        headers: Headers(fields.collect()),
    }
}

/// Reads what is there; 0 at the end. A reset counts as an end; the failsafe is an error.
pub fn read_some(socket: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<usize, String> {
    let mut buffer = [0; 16 * 1024];
    match socket.read(&mut buffer) {
        Ok(read) => {
            bytes.extend_from_slice(&buffer[..read]);
            Ok(read)
        }
        Err(why) if why.kind() == std::io::ErrorKind::ConnectionReset => Ok(0),
        Err(why) => Err(format!("nothing came within {FAILSAFE:?} ({why})")),
    }
}

/// How a body is framed, and what of it is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// So many bytes are left.
    Length(usize),
    /// Chunks; so many bytes are left of the present one, its line end included.
    Chunks(usize),
    /// Until the connection closes.
    UntilClose,
    /// The last byte was read.
    Over,
}

/// Whether a body is read whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There may be more.
    More,
    /// The body said that it is over.
    Over,
}

impl Body {
    /// The framing that the header fields tell.
    pub fn of(headers: &Headers, none: bool) -> Self {
        let length = headers
            .get("content-length")
            .map(|length| length.parse().expect("a length"));
        match (headers.get("transfer-encoding"), length) {
            _ if none => Self::Over,
            (Some("chunked"), None) => Self::Chunks(0),
            (None, Some(length)) => Self::Length(length),
            (None, None) => Self::UntilClose,
            (coding, length) => panic!("framed twice: {coding:?}, {length:?}"),
        }
    }

    /// Moves what belongs to the body from `raw` to `content`.
    pub fn take(&mut self, raw: &mut Vec<u8>, content: &mut Vec<u8>) -> Progress {
        match self {
            Self::UntilClose => content.append(raw),
            Self::Length(left) => {
                let taken = raw.len().min(*left);
                content.extend(raw.drain(..taken));
                *left -= taken;
                if *left == 0 {
                    *self = Self::Over;
                }
            }
            Self::Chunks(_) => self.take_chunks(raw, content),
            Self::Over => {}
        }
        if *self == Self::Over {
            Progress::Over
        } else {
            Progress::More
        }
    }

    fn take_chunks(&mut self, raw: &mut Vec<u8>, content: &mut Vec<u8>) {
        let Self::Chunks(mut left) = *self else {
            return;
        };
        loop {
            if left > 2 {
                let taken = raw.len().min(left - 2);
                content.extend(raw.drain(..taken));
                left -= taken;
            }
            if left == 2 && raw.len() >= 2 {
                let end: Vec<u8> = raw.drain(..2).collect();
                assert_eq!(end, b"\r\n", "the end of a chunk");
                left = 0;
            }
            let line = find(raw, b"\r\n").filter(|_| left == 0);
            let Some(line) = line else {
                *self = Self::Chunks(left);
                return;
            };
            let size = std::str::from_utf8(&raw[..line]).expect("a chunk size");
            let size = usize::from_str_radix(size, 16).expect("a chunk size without extensions");
            if size > 0 {
                raw.drain(..line + 2);
                left = size + 2;
            } else if raw.len() >= line + 4 {
                assert_eq!(&raw[line + 2..], b"\r\n", "nothing after the last chunk");
                raw.clear();
                *self = Self::Over;
                return;
            } else {
                *self = Self::Chunks(0);
                return;
            }
        }
    }
}

/// Where `needle` begins.
pub fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
}
