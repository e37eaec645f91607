//! Goal: whoever is refused costs nobody else anything, and what must not reach the gateway is refused.
//!
//! Method: raw bytes on raw sockets, so that a body is whatever the test makes of it; and requests as a
//! browser sends them for a page that has no business here.

use crate::support::{Directory, Gateway, eventually, program};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

const KEY: (&str, &str) = ("auth.publish_key", "let-me-in");

/// The head of a refused publish with a body of so many bytes.
fn refused(length: usize) -> String {
    format!("POST /events/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n")
}

/// Reads until this has come.
fn read_until(socket: &mut TcpStream, needle: &str) -> String {
    let mut all = String::new();
    let mut buffer = [0; 4096];
    while !all.contains(needle) {
        let read = socket.read(&mut buffer).expect("an answer in time");
        assert!(read > 0, "it ended: {all}");
        all.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    all
}

fn wait_for_discarded(gateway: &Gateway, outcome: &str, count: f64) {
    gateway.wait_for_metric(
        "tidegate_discarded_bodies_total",
        &[("outcome", outcome)],
        count,
    );
}

/// The answer is there before the body has come; the body goes nowhere; the next request is answered.
#[test]
fn a_connection_goes_on_after_a_body_that_nobody_wanted() {
    let gateway = Gateway::start(&[KEY, ("server.discard_bytes_max", "1000000")]);
    let heads = [
        refused(1_000_000),
        refused(1_000_000).replace("POST /events/news", "POST /nothing"),
        refused(1_000_000).replace("POST", "PUT"),
        refused(1_000_000)
            .replace("POST", "GET")
            .replace("/events/news", "/topics?limit=0"),
    ];
    let mut socket = gateway.connect();
    for (head, status) in heads.iter().zip([401, 404, 405, 400]) {
        socket.write_all(head.as_bytes()).unwrap();
        read_until(&mut socket, &format!("HTTP/1.1 {status}"));
        for _ in 0..10 {
            socket.write_all(&vec![b'x'; 100_000]).unwrap();
        }
    }
    // Chunks have no length that could be asked for first.
    let chunked = refused(0).replace("Content-Length: 0", "Transfer-Encoding: chunked");
    socket.write_all(chunked.as_bytes()).unwrap();
    read_until(&mut socket, "HTTP/1.1 401");
    socket.write_all(b"5\r\nhello\r\n0\r\n\r\n").unwrap();
    socket
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    read_until(&mut socket, "HTTP/1.1 200");
    wait_for_discarded(&gateway, "whole", 5.0);
}

/// Whoever sends on and on is let go, by bytes and by time, and all others are served meanwhile.
#[test]
fn a_body_without_end_is_let_go() {
    let bounds = [
        ("server.discard_bytes_max", "1000"),
        ("server.discard_time", "200ms"),
    ];
    let gateway = Gateway::start(&[KEY, bounds[0], bounds[1]]);
    let good = [("Authorization", "Bearer let-me-in")];
    let mut endless = gateway.connect();
    endless.write_all(refused(100_000_000).as_bytes()).unwrap();
    read_until(&mut endless, "HTTP/1.1 401");
    // The end shows as a failed write, sooner or later.
    eventually("it is closed", || {
        endless.write_all(&[b'x'; 10_000]).is_err()
    });
    wait_for_discarded(&gateway, "bytes", 1.0);

    let mut slow: Vec<TcpStream> = (0..50).map(|_| gateway.connect()).collect();
    for socket in &mut slow {
        socket.write_all(refused(100).as_bytes()).unwrap();
        socket.write_all(b"x").unwrap();
        gateway.post("/events/news", &good, "meanwhile").id();
    }
    for mut socket in slow {
        let mut said = String::new();
        socket.read_to_string(&mut said).expect("an end in time");
        assert!(said.starts_with("HTTP/1.1 401"), "{said}");
    }
    wait_for_discarded(&gateway, "time", 50.0);
    // One that goes leaves nothing behind.
    let mut gone = gateway.connect();
    gone.write_all(refused(100).as_bytes()).unwrap();
    read_until(&mut gone, "HTTP/1.1 401");
    drop(gone);
    wait_for_discarded(&gateway, "broken", 1.0);
    gateway.wait_for_metric("tidegate_sockets", &[], 1.0);
}

/// A body that waits for `100 Continue` is not asked for only to be thrown away.
#[test]
fn a_body_that_waits_to_be_asked_for_is_not_asked_for() {
    let gateway = Gateway::start(&[KEY]);
    let head = refused(5).replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    let mut socket = gateway.connect();
    socket.write_all(head.as_bytes()).unwrap();
    let mut said = String::new();
    socket.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 401"), "{said}");
    assert!(!said.contains(" 100 "), "{said}");
}

/// Over HTTP/2, too: three times what the peer may send before it hears that some was read. curl goes as
/// soon as it has its answer, so the rest may have come or not.
#[test]
fn over_http_2_a_body_that_nobody_wanted_hides_no_answer() {
    let gateway = Gateway::start(&[KEY]);
    let directory = Directory::create();
    let file = directory.0.join("large");
    std::fs::write(&file, vec![b'x'; 3_000_000]).unwrap();
    for count in [1.0, 2.0, 3.0] {
        let output = Command::new(program("curl"))
            .env_clear()
            .args(["--silent", "--show-error", "--http2-prior-knowledge"])
            .args(["--output", "/dev/null", "--write-out", "%{http_code}"])
            .arg("--data-binary")
            .arg(format!("@{}", file.display()))
            .arg(format!("{}/events/news", gateway.url()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(said, "401", "{output:?}");
        gateway.wait_for_metric("tidegate_discarded_bodies_total", &[], count);
    }
    wait_for_discarded(&gateway, "bytes", 0.0);
    wait_for_discarded(&gateway, "time", 0.0);
}
