//! Goal: bodies of publishes are bounded: how many at once, how much memory all of them take, how long
//! one may take to come. Who exceeds it is told, and nobody else notices.
//!
//! Method: requests on bare sockets whose bodies come in part.

use crate::support::{Gateway, exchange};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

const REFUSED: &str = "tidegate_publish_refused_total";

/// A request of which the body has come in part.
fn unfinished(gateway: &Gateway, target: &str, length: usize, sent: usize) -> TcpStream {
    let mut socket = gateway.connect();
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: {length}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).unwrap();
    // One that is refused meanwhile is closed.
    drop(socket.write_all(&vec![b'x'; sent]));
    socket
}

/// Everything up to the end.
fn read_to_end(socket: &mut TcpStream) -> String {
    let mut told = Vec::new();
    drop(socket.read_to_end(&mut told));
    String::from_utf8(told).unwrap()
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    let gateway = Gateway::start(&[("server.body_timeout", "300ms")]);
    for (target, sent) in [("/events/news", 0), ("/events/news", 3), ("/events", 5)] {
        let mut socket = unfinished(&gateway, target, 10, sent);
        let told = read_to_end(&mut socket);
        assert!(told.starts_with("HTTP/1.1 408 "), "{told}");
        assert!(told.contains("connection: close"), "{told}");
        assert!(
            told.contains("the body did not arrive within 300ms"),
            "{told}"
        );
    }
    gateway.wait_for_metric(REFUSED, &[("reason", "timeout")], 3.0);
    gateway.wait_for_metric("tidegate_publish_bodies", &[], 0.0);
    gateway.wait_for_metric("tidegate_sockets", &[], 1.0);
}

#[test]
fn a_body_is_read_only_by_who_has_the_key_and_a_place() {
    let gateway = Gateway::start(&[("publish.bodies_max", "2"), ("auth.publish_key", "k")]);
    let bodies = |count: f64| gateway.wait_for_metric("tidegate_publish_bodies", &[], count);
    let key = [("Authorization", "Bearer k")];
    let mut stream = gateway.listen(&["news"]);
    // Without a key nobody takes a place.
    let stranger = unfinished(&gateway, "/events/news", 10, 0);
    let with_key = |sent: &str| {
        let mut socket = gateway.connect();
        let head = "POST /events/news HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer k\r\nContent-Length: 4\r\n\r\n";
        socket
            .write_all(format!("{head}{sent}").as_bytes())
            .unwrap();
        socket
    };
    let (mut one, other) = (with_key("on"), with_key(""));
    bodies(2.0);
    gateway.wait_for_metric(REFUSED, &[("reason", "unauthorized")], 1.0);
    drop(stranger);
    let told = gateway.post("/events/news", &key, "more");
    assert_eq!(
        told.problem(503),
        "too many publishes are in progress (publish.bodies_max)"
    );
    assert!(told.headers.get("retry-after").is_some());
    gateway.post("/events/news", &[], "more").problem(401);
    // Whoever has a place goes on.
    one.write_all(b"ce").unwrap();
    assert_eq!(stream.next_event().data, "once");
    bodies(1.0);
    gateway.post("/events/news", &key, "more").id();
    assert_eq!(stream.next_event().data, "more");
    drop(other);
    bodies(0.0);
}

#[test]
fn all_bodies_together_take_no_more_memory_than_they_may() {
    let config = [
        ("publish.bodies_bytes_max", "300000"),
        ("publish.batch_bytes_max", "200000"),
    ];
    let gateway = Gateway::start(&config);
    let taken = || gateway.metric("tidegate_publish_bodies_bytes", &[]);
    let mut sockets: Vec<TcpStream> = (0..20)
        .map(|_| unfinished(&gateway, "/events", 199_000, 150_000))
        .collect();
    gateway.wait_for_metric(REFUSED, &[("reason", "busy")], 19.0);
    assert!(taken() >= 150_000.0 && taken() <= 200_000.0, "{}", taken());
    // There is room for others.
    gateway.publish("news", "small");
    // What was not refused goes on.
    let line = "\n{\"topic\":\"news\",\"data\":\"x\"}\n";
    let mut finished = 0;
    for socket in &mut sockets {
        let rest = [vec![b'\n'; 49_000 - line.len()], line.into()].concat();
        drop(socket.write_all(&rest));
        finished += usize::from(read_to_end_of_answer(socket).contains("line 1: "));
    }
    assert_eq!(finished, 1);
    gateway.wait_for_metric("tidegate_publish_bodies_bytes", &[], 0.0);
}

/// Reads what there is of an answer: the connection may stand.
fn read_to_end_of_answer(socket: &mut TcpStream) -> String {
    let mut told = vec![0; 4096];
    let read = socket.read(&mut told).unwrap_or(0);
    String::from_utf8_lossy(&told[..read]).into_owned()
}

/// 150 of them took 621 MiB.
#[test]
fn batches_that_are_never_finished_take_a_bounded_share_of_memory() {
    let gateway = Gateway::start(&[]);
    let before = gateway.peak_memory();
    let sockets: Vec<TcpStream> = (0..40)
        .map(|_| unfinished(&gateway, "/events", 4 << 20, (4 << 20) - 1))
        .collect();
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(exchange(gateway.address(), request).status, 200);
    let refused = || gateway.metric(REFUSED, &[("reason", "busy")]);
    crate::support::eventually("those that do not fit are refused", || refused() > 23.5);
    let grown = gateway.peak_memory() - before;
    assert!(grown < 100 << 20, "{grown} bytes");
    drop(sockets);
    gateway.wait_for_metric("tidegate_publish_bodies", &[], 0.0);
}
