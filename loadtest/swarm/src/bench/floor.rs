//! The floor: a server that does nothing but `write(2)`.
//!
//! One thread accepts the same connections as a gateway, answers the same head, and for each
//! `POST` writes one event to every socket in a bare loop. What a gateway costs beyond this is its
//! own. It keeps all bytes that it ever wrote on a tape, so that a socket that would block, or one
//! that comes with a Last-Event-ID, goes on from its place in it.

use super::payload;
use memchr::memmem;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const LISTENER: Token = Token(usize::MAX / 2);
/// Kernel events taken at once.
const EVENTS: usize = 1024;
/// Bytes read at once.
const BUFFER: usize = 64 * 1024;

/// The head as a gateway sends it.
const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
    cache-control: no-store, no-transform\r\nx-accel-buffering: no\r\nx-content-type-options: nosniff\r\n\
    x-request-id: 00000000000000000000000000000000\r\ntransfer-encoding: chunked\r\n\
    date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n";
/// The first block as a gateway sends it.
pub const OPEN: &str = "retry: 3000\nid: 1700000000000-0\nevent: tidegate.open\n\
    data: {\"topics\":[\"bench\"],\"cursor\":\"1700000000000-0\",\"replica\":\"rffffffff\"}\n\n";

/// What every stream begins with.
#[must_use]
pub fn opening() -> Vec<u8> {
    format!("{HEAD}{:x}\r\n{OPEN}\r\n", OPEN.len()).into_bytes()
}

/// Serves until the process is ended.
///
/// # Errors
/// It cannot listen.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Floor::new(TcpListener::from_std(socket.into()))?.run()
}

#[derive(Debug)]
struct Connection {
    socket: TcpStream,
    /// What was read of a request.
    request: Vec<u8>,
    /// Where on the tape this subscriber stands, if it could not be written all.
    behind: Option<usize>,
}

struct Floor {
    poll: Poll,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// The connections that are streams.
    streams: Vec<usize>,
    opening: Vec<u8>,
    tape: Vec<u8>,
    last: (u64, u64),
}

impl Floor {
    fn new(mut listener: TcpListener) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            connections: Vec::new(),
            free: Vec::new(),
            streams: Vec::new(),
            opening: opening(),
            tape: Vec::new(),
            last: (0, 0),
        })
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let mut buffer = vec![0; BUFFER];
        loop {
            match self.poll.poll(&mut events, None) {
                Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
                done => done?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    Token(place) => {
                        if event.is_writable() {
                            self.resume(place);
                        }
                        if event.is_readable() {
                            self.read(place, &mut buffer);
                        }
                    }
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => continue,
            };
            socket.set_nodelay(true)?;
            let place = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            self.poll.registry().register(
                &mut socket,
                Token(place),
                Interest::READABLE | Interest::WRITABLE,
            )?;
            if let Some(seat) = self.connections.get_mut(place) {
                *seat = Some(Connection {
                    socket,
                    request: Vec::new(),
                    behind: None,
                });
            }
        }
    }

    fn connection(&mut self, place: usize) -> Option<&mut Connection> {
        self.connections.get_mut(place)?.as_mut()
    }

    fn close(&mut self, place: usize) {
        if self
            .connections
            .get_mut(place)
            .is_some_and(|seat| seat.take().is_some())
        {
            self.free.push(place);
            self.streams.retain(|stream| *stream != place);
        }
    }

    fn read(&mut self, place: usize, buffer: &mut [u8]) {
        let Some(connection) = self.connection(place) else {
            return;
        };
        loop {
            match connection.socket.read(buffer) {
                Ok(count) if count > 0 => connection
                    .request
                    .extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) => return self.close(place),
            }
        }
        while self.answer(place).is_some() {}
    }

    /// Answers the first request that is complete.
    fn answer(&mut self, place: usize) -> Option<()> {
        let connection = self.connection(place)?;
        let end = memmem::find(&connection.request, b"\r\n\r\n")? + 4;
        let (head, rest) = connection.request.split_at(end);
        if head.starts_with(b"GET ") {
            let resumes = memmem::find(head, b"Last-Event-ID:").is_some();
            connection.request = Vec::new();
            connection.behind = resumes.then_some(0);
            // The socket is empty and takes it whole; should it be gone, a read says so.
            let _gone = self
                .connections
                .get_mut(place)?
                .as_mut()?
                .socket
                .write(&self.opening);
            self.streams.push(place);
            self.resume(place);
            return None;
        }
        let mut lines = head.split(|byte| *byte == b'\n');
        let length = lines
            .find_map(|line| super::wire::header(line, b"content-length:"))
            .and_then(payload::decimal)?;
        let data = rest.get(..usize::try_from(length).ok()?)?.to_vec();
        connection.request.drain(..end + data.len());
        let id = self.broadcast(&data);
        let body = format!("{{\"topic\":\"bench\",\"id\":\"{id}\"}}");
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let _gone = self.connection(place)?.socket.write(answer.as_bytes());
        Some(())
    }

    /// The bare loop.
    fn broadcast(&mut self, data: &[u8]) -> String {
        let id = self.next_id();
        let start = self.tape.len();
        let line = format!("id: {id}\ndata: ");
        let size = line.len() + data.len() + 2;
        self.tape
            .extend_from_slice(format!("{size:x}\r\n{line}").as_bytes());
        self.tape.extend_from_slice(data);
        self.tape.extend_from_slice(b"\n\n\r\n");
        let mut gone = Vec::new();
        for &place in &self.streams {
            let Some(Some(connection)) = self.connections.get_mut(place) else {
                continue;
            };
            if connection.behind.is_none() && !connection.write_from(start, &self.tape) {
                gone.push(place);
            }
        }
        gone.into_iter().for_each(|place| self.close(place));
        id
    }

    fn next_id(&mut self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = u64::try_from(now.unwrap_or(Duration::ZERO).as_millis()).unwrap_or_default();
        self.last = if now > self.last.0 {
            (now, 1)
        } else {
            (self.last.0, self.last.1 + 1)
        };
        format!("{}-{}", self.last.0, self.last.1)
    }

    /// Goes on with a socket that takes more again.
    fn resume(&mut self, place: usize) {
        let Some(Some(connection)) = self.connections.get_mut(place) else {
            return;
        };
        let is_there = match connection.behind.take() {
            Some(from) => connection.write_from(from, &self.tape),
            None => true,
        };
        if !is_there {
            self.close(place);
        }
    }
}

impl Connection {
    /// Writes the tape from this place to its end, or until the socket would block. False if it is gone.
    fn write_from(&mut self, mut from: usize, tape: &[u8]) -> bool {
        while let Some(rest) = tape.get(from..).filter(|rest| !rest.is_empty()) {
            match self.socket.write(rest) {
                Ok(written) => from += written,
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
                    self.behind = Some(from);
                    return true;
                }
                Err(_) => return false,
            }
        }
        true
    }
}
