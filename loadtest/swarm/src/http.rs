//! One request on one connection of tokio's, read as `sse_client` reads it.
//!
//! A body that ends early is an error ([`io::ErrorKind::UnexpectedEof`]), not an end: the gateway
//! tells by that whether a stream is over or cut.

use sse_client::http::{Body, Head, Malformed};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Time for a connection to stand.
const CONNECT: Duration = Duration::from_secs(2);
/// Time for the head of an answer.
const HEAD: Duration = Duration::from_secs(10);

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
    head: Head,
    body: Body,
    received: Vec<u8>,
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
    let to = address.parse().map_err(io::Error::other)?;
    let mut socket = timeout(CONNECT, socket.connect(to)).await??;
    socket.set_nodelay(true)?;
    let mut headers = vec![("Connection", "close")];
    headers.extend(request.headers);
    let Request {
        method,
        target,
        body,
        ..
    } = request;
    let request = sse_client::http::request(method, address, target, &headers, body);
    socket.write_all(&request).await?;
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
    Ok((answer.status(), String::from_utf8_lossy(&body).into_owned()))
}

async fn read_head(mut socket: TcpStream) -> io::Result<Answer> {
    let mut received = Vec::with_capacity(8 * 1024);
    let head = loop {
        if let Some(head) = Head::take(&mut received).map_err(malformed)? {
            break head;
        }
        if socket.read_buf(&mut received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    Ok(Answer {
        body: Body::after(&head, false).map_err(malformed)?,
        socket,
        head,
        received,
    })
}

impl Answer {
    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// A header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.all(name).next()
    }

    /// Adds the next bytes of the body to `into`. False at its proper end.
    ///
    /// # Errors
    /// `UnexpectedEof` if the body broke off, `InvalidData` if it is none, or whatever the socket says.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn read(&mut self, into: &mut Vec<u8>) -> io::Result<bool> {
        let before = into.len();
        loop {
            self.body
                .take(&mut self.received, into)
                .map_err(malformed)?;
            if into.len() > before {
                return Ok(true);
            }
            if self.body.is_over() {
                return Ok(false);
            }
            if self.socket.read_buf(&mut self.received).await? == 0 {
                return if self.body.ends_with_connection() {
                    Ok(false)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }
}

fn malformed(why: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
