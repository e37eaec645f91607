//! One request on one connection: HTTP/1.1, no more of it than an event stream and a publish need.
//!
//! A body that ends early is an error ([`io::ErrorKind::UnexpectedEof`]), not an end: the gateway
//! tells by that whether a stream is over or cut.

use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Time for a connection to stand.
const CONNECT: Duration = Duration::from_secs(2);
/// Time for the head of an answer.
const HEAD: Duration = Duration::from_secs(10);
/// A head that is longer is none.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Headers beside `Host`, `Connection` and `Content-Length`.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
}

/// The answer to a request, its body not yet read. Dropping it closes the connection.
#[derive(Debug)]
pub struct Answer {
    socket: TcpStream,
    status: u16,
    headers: Vec<(String, String)>,
    framing: Framing,
    raw: Vec<u8>,
}

/// How the end of a body is told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Framing {
    Chunked(Chunks),
    Length(u64),
    UntilClose,
}

/// Sends a request and reads the head of its answer. The kernel keeps `receive_buffer` bytes of it.
///
/// # Errors
/// Whatever the socket says, `TimedOut`, or `InvalidData` if the answer is not HTTP.
pub async fn send(
    address: &str,
    request: Request<'_>,
    receive_buffer: Option<u32>,
) -> io::Result<Answer> {
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    let to = address.parse().map_err(|_| invalid("an address"))?;
    let mut socket = timeout(CONNECT, socket.connect(to)).await??;
    socket.set_nodelay(true)?;
    socket.write_all(&head_of(address, request)).await?;
    socket.write_all(request.body).await?;
    timeout(HEAD, read_head(socket)).await?
}

/// Sends a request and reads the whole answer.
///
/// # Errors
/// As [`send`], or `UnexpectedEof` if the body broke off.
pub async fn ask(address: &str, request: Request<'_>) -> io::Result<(u16, String)> {
    let mut answer = send(address, request, None).await?;
    let mut body = Vec::new();
    timeout(HEAD, async {
        while answer.read(&mut body).await? {}
        io::Result::Ok(())
    })
    .await??;
    Ok((answer.status, String::from_utf8_lossy(&body).into_owned()))
}

fn head_of(address: &str, request: Request<'_>) -> Vec<u8> {
    let Request {
        method,
        target,
        headers,
        body,
    } = request;
    let mut head =
        format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    let length = body.len().to_string();
    let own = (method != "GET").then_some(("Content-Length", length.as_str()));
    for (name, value) in headers.iter().copied().chain(own) {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    head.into_bytes()
}

async fn read_head(mut socket: TcpStream) -> io::Result<Answer> {
    let mut raw = Vec::with_capacity(8 * 1024);
    let end = loop {
        if let Some(at) = raw.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if raw.len() > HEAD_BYTES_MAX {
            return Err(invalid("a head without end"));
        }
        if socket.read_buf(&mut raw).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let rest = raw.split_off(end);
    let head = String::from_utf8_lossy(&raw);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let status = status
        .strip_prefix("HTTP/1.1 ")
        .and_then(|text| text.get(..3)?.parse().ok())
        .ok_or_else(|| invalid("no status line"))?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let framing = framing(&headers);
    Ok(Answer {
        socket,
        status,
        headers,
        framing,
        raw: rest,
    })
}

fn framing(headers: &[(String, String)]) -> Framing {
    let value = |name: &str| headers.iter().find(|(other, _)| other == name);
    if value("transfer-encoding").is_some_and(|(_, coding)| coding.contains("chunked")) {
        return Framing::Chunked(Chunks::default());
    }
    match value("content-length").map(|(_, length)| length.parse()) {
        Some(Ok(length)) => Framing::Length(length),
        _ => Framing::UntilClose,
    }
}

impl Answer {
    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// A header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Adds the next bytes of the body to `into`. False at its proper end.
    ///
    /// # Errors
    /// `UnexpectedEof` if the body broke off, or whatever the socket says.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn read(&mut self, into: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            let before = into.len();
            self.decode(into)?;
            if self.is_complete() {
                return Ok(into.len() > before);
            }
            if into.len() > before {
                return Ok(true);
            }
            if self.socket.read_buf(&mut self.raw).await? == 0 {
                return match self.framing {
                    Framing::UntilClose => Ok(false),
                    Framing::Chunked(_) | Framing::Length(_) => {
                        Err(io::ErrorKind::UnexpectedEof.into())
                    }
                };
            }
        }
    }

    fn is_complete(&self) -> bool {
        match &self.framing {
            Framing::Chunked(chunks) => chunks.state == ChunkState::Over,
            Framing::Length(left) => *left == 0,
            Framing::UntilClose => false,
        }
    }

    fn decode(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.framing {
            Framing::Chunked(chunks) => chunks.decode(&self.raw, into)?,
            Framing::Length(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                let taken = self.raw.get(..most).unwrap_or(&self.raw);
                into.extend_from_slice(taken);
                *left -= taken.len() as u64;
            }
            Framing::UntilClose => into.extend_from_slice(&self.raw),
        }
        self.raw.clear();
        Ok(())
    }
}

/// The chunked coding (RFC 9112, section 7.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Chunks {
    state: ChunkState,
    line: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ChunkState {
    #[default]
    Size,
    Data(usize),
    /// The line end after a chunk.
    Gap,
    Trailer,
    Over,
}

impl Chunks {
    fn decode(&mut self, mut raw: &[u8], into: &mut Vec<u8>) -> io::Result<()> {
        while let Some((&byte, after)) = raw.split_first() {
            match self.state {
                ChunkState::Over => return Ok(()),
                ChunkState::Data(left) => {
                    let (data, rest) = raw.split_at(left.min(raw.len()));
                    into.extend_from_slice(data);
                    raw = rest;
                    let left = left - data.len();
                    self.state = if left == 0 {
                        ChunkState::Gap
                    } else {
                        ChunkState::Data(left)
                    };
                }
                ChunkState::Size | ChunkState::Gap | ChunkState::Trailer => {
                    raw = after;
                    match byte {
                        b'\r' => {}
                        b'\n' => self.end_line()?,
                        _ => self.line.push(byte),
                    }
                }
            }
        }
        Ok(())
    }

    fn end_line(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        self.state = match self.state {
            ChunkState::Size => match size_of_chunk(&line)? {
                0 => ChunkState::Trailer,
                size => ChunkState::Data(size),
            },
            ChunkState::Gap if line.is_empty() => ChunkState::Size,
            ChunkState::Gap => return Err(invalid("a chunk is longer than it said")),
            ChunkState::Trailer if line.is_empty() => ChunkState::Over,
            state => state,
        };
        Ok(())
    }
}

fn size_of_chunk(line: &[u8]) -> io::Result<usize> {
    let text = std::str::from_utf8(line).unwrap_or_default();
    let digits = text.split(';').next().unwrap_or_default().trim();
    usize::from_str_radix(digits, 16).map_err(|_| invalid("the size of a chunk"))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined_wherever_they_are_cut() {
        let wire = b"5\r\nhello\r\n1;x=y\r\n \r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
        for size in 1..wire.len() {
            let (mut chunks, mut body) = (Chunks::default(), Vec::new());
            for piece in wire.chunks(size) {
                chunks.decode(piece, &mut body).unwrap();
            }
            assert_eq!(body, b"hello 0123456789", "{size}");
            assert_eq!(chunks.state, ChunkState::Over);
        }
    }

    #[test]
    fn a_broken_chunk_is_an_error() {
        for wire in [&b"x\r\n"[..], b"1\r\nab\r\n"] {
            assert!(Chunks::default().decode(wire, &mut Vec::new()).is_err());
        }
    }
}
