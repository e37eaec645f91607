//! One HTTP/1.1 request over a bare socket, and its answer, as `sse_client` reads it.

use super::FAILSAFE;
use sse_client::http::{Body, Head};
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};

pub use sse_client::http::Headers;

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

/// The bytes of a request.
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    sse_client::http::request(method, "localhost", target, headers, body)
}

/// Sends bytes as they are and reads one answer.
pub fn exchange(address: SocketAddr, request: &[u8]) -> Answer {
    let mut socket = connect(address);
    socket.write_all(request).expect("the request is sent");
    read_answer(&mut socket, request.starts_with(b"HEAD "))
}

/// Reads a head, then the body.
fn read_answer(socket: &mut TcpStream, bodiless: bool) -> Answer {
    let mut received = Vec::new();
    let head = read_head(socket, &mut received);
    let mut body = body_after(&head, bodiless);
    let mut content = Vec::new();
    loop {
        take(&mut body, &mut received, &mut content);
        if body.is_over() {
            break;
        }
        let read = read_some(socket, &mut received);
        if read.unwrap_or_else(|why| panic!("{why}; {head:?}")) == 0 {
            assert!(
                body.ends_with_connection(),
                "the answer broke off: {head:?}"
            );
            break;
        }
    }
    Answer {
        status: head.status,
        headers: head.headers,
        body: content,
    }
}

/// Reads up to the blank line; what follows stays in `received`.
pub fn read_head(socket: &mut TcpStream, received: &mut Vec<u8>) -> Head {
    loop {
        match Head::take(received) {
            Ok(Some(head)) => return head,
            Ok(None) => {}
            Err(why) => panic!("{why}: {:?}", String::from_utf8_lossy(received)),
        }
        let read = read_some(socket, received);
        assert!(
            read.as_ref().is_ok_and(|read| *read > 0),
            "no whole head ({read:?}): {:?}",
            String::from_utf8_lossy(received)
        );
    }
}

/// The body after this head.
pub fn body_after(head: &Head, bodiless: bool) -> Body {
    Body::after(head, bodiless).unwrap_or_else(|why| panic!("{why}: {head:?}"))
}

/// Moves what belongs to the body. Nothing may follow it: no test asks twice on one connection.
pub fn take(body: &mut Body, received: &mut Vec<u8>, content: &mut Vec<u8>) {
    let taken = body.take(received, content);
    taken.unwrap_or_else(|why| panic!("{why}: {:?}", String::from_utf8_lossy(received)));
    assert!(
        !body.is_over() || received.is_empty(),
        "after the body: {:?}",
        String::from_utf8_lossy(received)
    );
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
