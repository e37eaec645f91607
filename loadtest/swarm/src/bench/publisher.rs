//! Publishing from inside the swarm's loop: one connection, many publishes under way.

use super::payload;
use super::wire;
use memchr::memmem;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;

/// How an event is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `POST /events/{topic}` to the server under test.
    Http,
    /// Raw `PUBLISH` to Redis.
    Raw,
    /// The function, in Redis.
    Function,
}

/// One connection that publishes.
#[derive(Debug)]
pub struct Publisher {
    socket: TcpStream,
    way: Way,
    /// What it says of who it is: a field, or nothing.
    authorization: String,
    /// What is not written yet, from `written` on.
    out: Vec<u8>,
    written: usize,
    /// Answers that are not complete yet.
    unread: Vec<u8>,
    in_flight: usize,
    acknowledged: u64,
    /// The body of the newest answer.
    answer: Vec<u8>,
}

impl Publisher {
    /// Connects.
    ///
    /// # Errors
    /// The connection cannot be made.
    pub fn connect(
        way: Way,
        address: SocketAddr,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let socket = std::net::TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket);
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self {
            socket,
            way,
            authorization: String::new(),
            out: Vec::new(),
            written: 0,
            unread: Vec::new(),
            in_flight: 0,
            acknowledged: 0,
            answer: Vec::new(),
        })
    }

    /// From now on it sends this token, over HTTP.
    pub fn authorize(&mut self, token: &str) {
        self.authorization = format!("Authorization: Bearer {token}\r\n");
    }

    /// Sends an event of `size` bytes of data. Answers are not waited for.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn publish(&mut self, topic: &str, number: u64, size: usize) -> io::Result<()> {
        self.head(topic, size);
        payload::write(&mut self.out, number, payload::now(), size);
        if self.way != Way::Http {
            self.out.extend_from_slice(b"\r\n");
        }
        self.in_flight += 1;
        self.flush()
    }

    /// Everything before the data.
    fn head(&mut self, topic: &str, size: usize) {
        let (host, bytes) = ("Host: localhost", topic.len());
        let head = match self.way {
            Way::Http => {
                let who = &self.authorization;
                format!(
                    "POST /events/{topic} HTTP/1.1\r\n{host}\r\n{who}Content-Length: {size}\r\n\r\n"
                )
            }
            Way::Raw => {
                let bytes = bytes + "events:".len();
                format!("*3\r\n$7\r\nPUBLISH\r\n${bytes}\r\nevents:{topic}\r\n${size}\r\n")
            }
            Way::Function => format!(
                "*5\r\n$5\r\nFCALL\r\n$16\r\ntidegate_publish\r\n$1\r\n0\r\n${bytes}\r\n{topic}\r\n${size}\r\n"
            ),
        };
        self.out.extend_from_slice(head.as_bytes());
    }

    /// Writes what the socket takes.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.socket.write(rest) {
                Ok(written) => self.written += written,
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(why) => return Err(why),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads the answers that have come.
    ///
    /// # Errors
    /// The connection is gone, or a publish was refused.
    pub fn hear(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            match self.socket.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self
                    .unread
                    .extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => break,
                Err(why) => return Err(why),
            }
        }
        let mut at = 0;
        while let Some(rest) = self.unread.get(at..) {
            let Some((length, body)) = answer(self.way, rest)? else {
                break;
            };
            self.answer.clear();
            self.answer.extend_from_slice(body);
            at += length;
            self.in_flight -= 1;
            self.acknowledged += 1;
        }
        self.unread.drain(..at);
        Ok(())
    }

    /// Publishes without an answer yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Publishes that were answered.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// The body of the newest answer.
    #[must_use]
    pub fn answer(&self) -> &[u8] {
        &self.answer
    }
}

/// The first answer in `bytes`: its length and its body; none while it is not complete.
fn answer(way: Way, bytes: &[u8]) -> io::Result<Option<(usize, &[u8])>> {
    let refused = || {
        let text = String::from_utf8_lossy(bytes);
        io::Error::other(format!("a publish was refused: {text}"))
    };
    let complete = |head: usize, length: usize, tail: usize| {
        let body = bytes.get(head..head + length)?;
        let end = head + length + tail;
        (bytes.len() >= end).then_some((end, body))
    };
    match way {
        Way::Http => {
            let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
                return Ok(None);
            };
            let (head, _) = bytes.split_at(end);
            if !head.starts_with(b"HTTP/1.1 200") {
                return Err(refused());
            }
            let mut lines = head.split(|byte| *byte == b'\n');
            let length = lines
                .find_map(|line| wire::header(line, b"content-length:"))
                .and_then(payload::decimal)
                .ok_or_else(refused)?;
            let length = usize::try_from(length).map_err(|_| refused())?;
            Ok(complete(end + 4, length, 0))
        }
        Way::Raw | Way::Function => {
            let Some(end) = memmem::find(bytes, b"\r\n") else {
                return Ok(None);
            };
            let (line, _) = bytes.split_at(end);
            match line.split_first() {
                Some((b':', _)) => Ok(Some((end + 2, line))),
                Some((b'$', digits)) => {
                    let length = payload::decimal(digits).ok_or_else(refused)?;
                    let length = usize::try_from(length).map_err(|_| refused())?;
                    Ok(complete(end + 2, length, 2))
                }
                _ => Err(refused()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_when_they_are_complete() {
        let http = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nids".as_slice();
        let table = [
            (Way::Http, http, b"ids".as_slice()),
            (Way::Raw, b":12\r\n", b":12"),
            (Way::Function, b"$3\r\n5-1\r\n", b"5-1"),
        ];
        for (way, bytes, body) in table {
            for cut in 0..bytes.len() {
                assert_eq!(answer(way, &bytes[..cut]).unwrap(), None, "{way:?} {cut}");
            }
            let two = [bytes, bytes].concat();
            assert_eq!(answer(way, &two).unwrap(), Some((bytes.len(), body)));
        }
    }

    #[test]
    fn a_refusal_is_an_error() {
        assert!(answer(Way::Http, b"HTTP/1.1 503 No\r\n\r\n").is_err());
        assert!(answer(Way::Function, b"-TGLARGE 65536\r\n").is_err());
    }
}
