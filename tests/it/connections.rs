//! Goal: in whatever pieces a connection's bytes come, every request on it is answered, and one that
//! says nothing, or goes, leaves nothing behind.
//!
//! Method: raw bytes on raw sockets, a piece at a time, with a whole request on another connection in
//! between, so that the replica has looked at each piece before the next comes.

use crate::support::{Gateway, Sse, over_both_brokers};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

const STREAM: &str = "GET /events/news HTTP/1.1\r\nHost: localhost\r\n";

/// A request that publishes `data`.
fn publish(data: &str) -> String {
    let length = data.len();
    format!(
        "POST /events/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{data}"
    )
}

/// Sends a piece, and has the replica do something else before the next.
fn send(gateway: &Gateway, socket: &mut TcpStream, piece: &[u8]) {
    socket.write_all(piece).unwrap();
    assert_eq!(gateway.get("/healthz").status, 200);
}

/// Reads until `times` such bytes have come, or the end; what was read.
fn read_until(socket: &mut TcpStream, needle: &[u8], times: usize) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    let count = |all: &[u8]| {
        let places = all.windows(needle.len());
        places.filter(|place| *place == needle).count()
    };
    while count(&all) < times {
        let read = socket.read(&mut buffer).expect("an answer in time");
        assert!(read > 0, "it ended: {:?}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&buffer[..read]);
    }
    all
}

/// `P`, `PO` and `PR` might become HTTP/2's preface; a request is cut at each of its first bytes.
#[test]
fn a_head_may_come_in_pieces() {
    over_both_brokers(&[], |_, gateway| {
        let mut listener = gateway.listen(&["news"]);
        let request = publish("in pieces");
        for cut in (1..18).chain([request.len() - 12, request.len() - 1]) {
            let mut socket = gateway.connect();
            let (first, rest) = request.as_bytes().split_at(cut);
            send(gateway, &mut socket, first);
            send(gateway, &mut socket, rest);
            read_until(&mut socket, b"HTTP/1.1 200", 1);
            assert_eq!(listener.next_event().data, "in pieces", "cut at {cut}");
        }
        let mut socket = gateway.connect();
        for piece in request.as_bytes().chunks(1) {
            send(gateway, &mut socket, piece);
        }
        read_until(&mut socket, b"HTTP/1.1 200", 1);
        assert_eq!(listener.next_event().data, "in pieces");
        // No method begins like this, and it is no preface either.
        let mut socket = gateway.connect();
        send(
            gateway,
            &mut socket,
            b"PRI * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        );
        read_until(&mut socket, b"HTTP/1.1 4", 1);
    });
}

/// Larger than what is read ahead, and larger than hyper's first buffer.
#[test]
fn a_head_may_be_large() {
    let gateway = Gateway::start(&[]);
    for size in [1900, 2100, 4096, 9000, 15_000] {
        let cookie = "c".repeat(size);
        let request = format!("{STREAM}Cookie: {cookie}\r\n\r\n");
        let mut stream = Sse::exchange(gateway.connect(), request.as_bytes());
        stream.opened();
        gateway.publish("news", "live");
        assert_eq!(stream.next_event().data, "live", "{size} bytes");
    }
}

/// All at once, and one after the other on a connection that has been quiet in between.
#[test]
fn a_connection_takes_many_requests_and_at_last_a_stream() {
    let gateway = Gateway::start(&[]);
    let mut listener = gateway.listen(&["news"]);
    let mut socket = gateway.connect();
    let many: String = (0..5).map(|number| publish(&number.to_string())).collect();
    send(&gateway, &mut socket, many.as_bytes());
    read_until(&mut socket, b"HTTP/1.1 200", 5);
    for number in 5..8 {
        send(
            &gateway,
            &mut socket,
            publish(&number.to_string()).as_bytes(),
        );
        read_until(&mut socket, b"HTTP/1.1 200", 1);
    }
    for number in 0..8 {
        assert_eq!(listener.next_event().data, number.to_string());
    }
    let last = publish("8") + STREAM + "\r\n";
    send(&gateway, &mut socket, last.as_bytes());
    let told = read_until(&mut socket, b"event: tidegate.open", 1);
    let told = String::from_utf8_lossy(&told);
    assert_eq!(told.matches("HTTP/1.1 200").count(), 2, "{told}");
    gateway.publish("news", "live");
    read_until(&mut socket, b"data: live\n\n", 1);
}

/// The preface of RFC 9113, section 3.4, and an empty SETTINGS frame; the answer begins with one.
#[test]
fn http_2_with_prior_knowledge_may_come_in_pieces() {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let gateway = Gateway::start(&[]);
    let begin = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", SETTINGS.as_slice()].concat();
    for cut in [begin.len(), 1, 13, 14, 20] {
        let mut socket = gateway.connect();
        let (first, rest) = begin.split_at(cut);
        send(&gateway, &mut socket, first);
        send(&gateway, &mut socket, rest);
        let mut answer = [0; 9];
        socket.read_exact(&mut answer).unwrap();
        assert_eq!(answer[3], 4, "cut at {cut}: {answer:?}");
    }
}

#[test]
fn a_connection_that_says_nothing_or_goes_leaves_nothing_behind() {
    let gateway = Gateway::start(&[("server.header_timeout", "300ms")]);
    let said: [&[u8]; 4] = [b"", b"P", b"GET /ev", STREAM.as_bytes()];
    for said in said {
        let mut gone = gateway.connect();
        gone.write_all(said).unwrap();
        drop(gone);
        let mut half = gateway.connect();
        half.write_all(said).unwrap();
        half.shutdown(Shutdown::Write).unwrap();
        let mut silent = gateway.connect();
        silent.write_all(said).unwrap();
        // Both end: the one at once, the other when its time is over.
        for mut socket in [half, silent] {
            let mut left = Vec::new();
            socket.read_to_end(&mut left).expect("an end in time");
        }
    }
    // The connection that asks.
    gateway.wait_for_metric("tidegate_sockets", &[], 1.0);
}

/// After its requests a connection is as idle as one that says nothing.
#[test]
fn a_connection_is_kept_after_its_requests_for_a_while_only() {
    let gateway = Gateway::start(&[("server.header_timeout", "300ms")]);
    let mut socket = gateway.connect();
    for data in ["one", "two"] {
        socket.write_all(publish(data).as_bytes()).unwrap();
        read_until(&mut socket, b"HTTP/1.1 200", 1);
    }
    let mut left = Vec::new();
    socket.read_to_end(&mut left).expect("an end in time");
    gateway.wait_for_metric("tidegate_sockets", &[], 1.0);
}
