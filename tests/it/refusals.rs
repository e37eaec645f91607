//! Goal: whoever is refused costs nobody else anything, and what must not reach the gateway is refused.
//!
//! Method: raw bytes on raw sockets, so that a body is whatever the test makes of it; and requests as a
//! browser sends them for a page that has no business here.

use crate::support::{Answer, Directory, Gateway, eventually, exchange, program};
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

/// Sends a head, waits for its answer, sends the rest; all that was said until the connection is closed.
fn overtake(gateway: &Gateway, head: &str, status: u16, rest: &[u8]) -> String {
    let mut socket = gateway.connect();
    socket.write_all(head.as_bytes()).unwrap();
    let mut said = read_until(&mut socket, &format!("HTTP/1.1 {status}"));
    socket.write_all(rest).unwrap();
    let read = socket.read_to_string(&mut said);
    read.unwrap_or_else(|why| panic!("{why} after {said}"));
    said
}

/// The answer is there before the body has come. The body goes nowhere, and is no request, and what comes after it is none
/// either: some proxies send it who have broken off in the middle of the body.
#[test]
fn an_answer_that_overtakes_its_body_is_the_last_of_its_connection() {
    let gateway = Gateway::start(&[KEY, ("server.discard_bytes_max", "1000000")]);
    let heads = [
        refused(1_000_000),
        refused(1_000_000).replace("POST /events/news", "POST /nothing"),
        refused(1_000_000).replace("POST", "PUT"),
        refused(1_000_000)
            .replace("POST", "GET")
            .replace("/events/news", "/topics?limit=0"),
    ];
    let next = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let half = next.len() + 500_000;
    let broken_off = [
        &vec![b'x'; 500_000],
        next.as_bytes(),
        &vec![b'x'; 1_000_000 - half],
    ]
    .concat();
    for (head, status) in heads.iter().zip([401, 404, 405, 400]) {
        for rest in [&vec![b'x'; 1_000_000], &broken_off] {
            let said = overtake(&gateway, head, status, rest);
            assert!(said.contains("\r\nconnection: close\r\n"), "{said}");
            assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{said}");
        }
    }
    wait_for_discarded(&gateway, "whole", 8.0);
    // Chunks have no length that could be asked for first.
    let chunked = refused(0).replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let rest = format!("5\r\nhello\r\n0\r\n\r\n{next}");
    let said = overtake(&gateway, &chunked, 401, rest.as_bytes());
    assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{said}");
}

/// A publisher that is refused keeps its connection: what it has sent with its head is read first.
#[test]
fn a_connection_goes_on_after_a_short_body_that_nobody_wanted() {
    let gateway = Gateway::start(&[KEY]);
    let mut socket = gateway.connect();
    for _ in 0..10 {
        let request = refused(5) + "hello";
        socket.write_all(request.as_bytes()).unwrap();
        let said = read_until(&mut socket, "}\n");
        assert!(
            said.starts_with("HTTP/1.1 401") && !said.contains("connection: close"),
            "{said}"
        );
    }
    wait_for_discarded(&gateway, "whole", 10.0);
    // One that does not come is not waited for.
    socket.write_all(refused(5).as_bytes()).unwrap();
    assert!(read_until(&mut socket, "}\n").contains("\r\nconnection: close\r\n"));
}

/// Any proxy: one that cannot write what a client sends takes the replica for broken. So the answer is there, and the rest
/// is read.
#[test]
fn a_stream_that_brings_a_large_body_is_refused_and_all_of_it_is_read() {
    let gateway = Gateway::start(&[]);
    let head = "GET /events/news HTTP/1.1\r\nHost: localhost\r\n";
    for _ in 0..3 {
        let head = format!("{head}Content-Length: 200000\r\n\r\n");
        overtake(&gateway, &head, 400, &vec![b'x'; 200_000]);
    }
    let head = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
    overtake(&gateway, &head, 400, b"5\r\nhello\r\n0\r\n\r\n");
    wait_for_discarded(&gateway, "whole", 4.0);
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
    // A client that was not told would take the connection for free.
    assert!(said.contains("\r\nconnection: close\r\n"), "{said}");
    // What was asked for is read, and the connection goes on.
    let asks = head.replace("\r\n\r\n", "\r\nAuthorization: Bearer let-me-in\r\n\r\n");
    let mut socket = gateway.connect();
    for _ in 0..2 {
        socket.write_all(asks.as_bytes()).unwrap();
        read_until(&mut socket, "HTTP/1.1 100 Continue\r\n\r\n");
        socket.write_all(b"hello").unwrap();
        read_until(&mut socket, "HTTP/1.1 200");
    }
    gateway.wait_for_metric("tidegate_sockets", &[], 2.0);
    gateway.wait_for_metric("tidegate_discarded_bodies_total", &[], 0.0);
}

/// What a client reads that sends all of a large request, and only then looks for an answer.
fn send_all_and_read(gateway: &Gateway, head: &str) -> String {
    let mut socket = gateway.connect();
    let all = [head.as_bytes(), &vec![b'x'; 4_000_000]].concat();
    socket.write_all(&all).expect("all of it is taken");
    let mut said = String::new();
    let read = socket.read_to_string(&mut said);
    read.expect("no reset before the end");
    said
}

/// A reset overtakes the answer, and to a proxy that is a replica which has died.
#[test]
fn a_body_that_comes_without_being_asked_for_hides_no_answer() {
    let gateway = Gateway::start(&[KEY]);
    let head = refused(4_000_000).replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    let cases = [
        (head.clone(), "HTTP/1.1 401"),
        (head.replace("/events/news", "/nothing"), "HTTP/1.1 404"),
        (head.replace("POST", "PUT"), "HTTP/1.1 405"),
        (head.replace("POST", "GET"), "HTTP/1.1 400"),
        // This version knows no 100, and no other expectation is known.
        (head.replace("HTTP/1.1", "HTTP/1.0"), "HTTP/1.0 401"),
        (head.replace("100-continue", "a-miracle"), "HTTP/1.1 401"),
    ];
    for ((head, begins), count) in cases.iter().zip([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) {
        let said = send_all_and_read(&gateway, head);
        assert!(said.starts_with(begins), "{said}");
        assert!(said.trim_end().ends_with('}'), "{said}");
        wait_for_discarded(&gateway, "whole", count);
    }
}

/// Nor is there an answer to hide where a body is not one.
#[test]
fn a_body_that_is_malformed_hides_no_answer() {
    let gateway = Gateway::start(&[]);
    let head = refused(0).replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let said = send_all_and_read(&gateway, &head);
    assert!(said.starts_with("HTTP/1.1 400"), "{said}");
    assert!(said.trim_end().ends_with('}'), "{said}");
    wait_for_discarded(&gateway, "whole", 1.0);
}

/// Here no handler is asked: the HTTP library answers by itself.
#[test]
fn a_head_that_cannot_be_read_is_answered_whatever_comes_after_it() {
    let gateway = Gateway::start(&[]);
    let fields: Vec<String> = (0..120)
        .map(|number| format!("X-{number}: a\r\n"))
        .collect();
    let fields = fields.concat();
    let head = refused(4_000_000);
    let cases = [
        (head.replace("\r\n\r\n", &format!("\r\n{fields}\r\n")), 431),
        (
            head.replace("Host", &format!("X-{}", "y".repeat(20_000))),
            431,
        ),
        (head.replace("Host", "H ost"), 400),
        (head.replace("HTTP/1.1", "HTTP/9.9"), 400),
        (head.replace("4000000", "four"), 400),
    ];
    for ((head, status), count) in cases.iter().zip([1.0, 2.0, 3.0, 4.0, 5.0]) {
        let said = send_all_and_read(&gateway, head);
        assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{said}");
        wait_for_discarded(&gateway, "whole", count);
    }
}

/// A peer that is told of the end and does not close costs a place for a while, as one whose body does not end.
#[test]
fn a_connection_that_its_peer_does_not_close_is_let_go() {
    let bounds = [
        ("server.discard_bytes_max", "100000"),
        ("server.discard_time", "200ms"),
    ];
    let gateway = Gateway::start(&[KEY, bounds[0], bounds[1]]);
    let head = refused(100_000_000).replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    let connect = || {
        let (mut socket, mut said) = (gateway.connect(), String::new());
        socket.write_all(head.as_bytes()).unwrap();
        socket.read_to_string(&mut said).expect("the whole answer");
        assert!(said.starts_with("HTTP/1.1 401"), "{said}");
        socket
    };
    let mut slow: Vec<TcpStream> = (0..20).map(|_| connect()).collect();
    // It may have been let go before it has sent anything.
    slow.iter_mut()
        .for_each(|socket| drop(socket.write_all(b"x")));
    let silent: Vec<TcpStream> = (0..20).map(|_| connect()).collect();
    gateway.wait_for_metric("tidegate_sockets", &[], 1.0);
    drop((slow, silent));
    wait_for_discarded(&gateway, "bytes", 0.0);

    let large = Gateway::start(&[KEY, bounds[0], ("server.discard_time", "24h")]);
    let mut endless = large.connect();
    endless.write_all(head.as_bytes()).unwrap();
    eventually("it is closed", || {
        endless.write_all(&[b'x'; 10_000]).is_err()
    });
    wait_for_discarded(&large, "bytes", 1.0);
    large.wait_for_metric("tidegate_sockets", &[], 1.0);
}

/// A replica that goes waits for nobody who has his answer.
#[test]
fn a_connection_that_its_peer_does_not_close_holds_no_replica_that_goes() {
    let mut gateway = Gateway::start(&[KEY, ("server.discard_time", "24h")]);
    let head = refused(1000).replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    let (mut socket, mut said) = (gateway.connect(), String::new());
    socket.write_all(head.as_bytes()).unwrap();
    socket.read_to_string(&mut said).expect("the whole answer");
    socket.write_all(b"x").unwrap();
    gateway.terminate();
    assert!(gateway.wait().success());
}

/// Over HTTP/2, too: three times what the peer may send before it hears that some was read. curl goes as
/// soon as it has its answer, so the rest may have come or not.
#[test]
fn over_http_2_a_body_that_nobody_wanted_hides_no_answer() {
    let gateway = Gateway::start(&[KEY]);
    let directory = Directory::create();
    let file = directory.0.join("large");
    std::fs::write(&file, vec![b'x'; 3_000_000]).unwrap();
    let send = |expect: &str| {
        let output = Command::new(program("curl"))
            .env_clear()
            .args(["--silent", "--show-error", "--http2-prior-knowledge"])
            .args(["--output", "/dev/null", "--write-out", "%{http_code}"])
            .args(["--header", expect, "--data-binary"])
            .arg(format!("@{}", file.display()))
            .arg(format!("{}/events/news", gateway.url()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        // curl may end its side in the middle of the body, which is an error of HTTP/2 (92), but it has its answer.
        assert!(matches!(output.status.code(), Some(0 | 92)), "{output:?}");
        assert_eq!(said, "401", "{output:?}");
    };
    let expects = ["Expect:", "Expect: 100-continue"].into_iter().cycle();
    for (expect, count) in expects.zip([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) {
        send(expect);
        gateway.wait_for_metric("tidegate_discarded_bodies_total", &[], count);
    }
    wait_for_discarded(&gateway, "bytes", 0.0);
    wait_for_discarded(&gateway, "time", 0.0);
}

/// One request with this `Host`, and more fields.
fn ask(gateway: &Gateway, request: &str, host: &str, fields: &[(&str, &str)]) -> Answer {
    let lines = fields
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"));
    let fields = lines.collect::<Vec<_>>().concat();
    let head = format!("{request} HTTP/1.1\r\nHost: {host}\r\n{fields}Content-Length: 1\r\n\r\nx");
    exchange(gateway.address(), head.as_bytes())
}

fn wait_for_refused(gateway: &Gateway, reason: &str, count: f64) {
    let labels = [("reason", reason)];
    gateway.wait_for_metric("tidegate_requests_refused_total", &labels, count);
}

const PUBLISH: &str = "POST /events/news";
const WRITES: [&str; 5] = [
    PUBLISH,
    "POST /events",
    "POST /events/news?end",
    "DELETE /topics/news",
    "POST /disconnect",
];

/// What was published under this topic, if anything.
fn published(gateway: &Gateway, topic: &str) -> usize {
    let events = gateway.get(&format!("/topics/{topic}/events"));
    events.json()["events"].as_array().map_or(0, Vec::len)
}

/// nginx judges the path that it has tidied up, and passes on the one that was sent.
#[test]
fn a_path_that_can_be_read_in_two_ways_is_refused() {
    let gateway = Gateway::start(&[]);
    let bad = [
        "/events/%2e%2e",
        "/events/%2E",
        "/events/..",
        "/events/../topics",
        "/events/a%2F..%2f..%2Ftopics",
        "/events//news",
        "//events/news",
        "/events/%2Fnews",
        "/topics/%2e%2e/events",
    ];
    for target in bad {
        for method in ["GET", "POST", "HEAD", "DELETE", "PUT"] {
            let answer = gateway.request(method, target, &[], "");
            assert_eq!(answer.status, 400, "{method} {target}");
        }
    }
    wait_for_refused(&gateway, "path", 5.0 * 9.0);
    // A slash within a topic's name is none of the path.
    let mut stream = gateway.open("/events/rooms%2F1", &[]);
    stream.opened();
    gateway.publish("rooms%2F1", "x");
    assert_eq!(stream.next_event().data, "x");
    assert_eq!(
        gateway
            .logged_at_least(
                1,
                "a request was refused; further ones like it within 10 s are only counted"
            )
            .len(),
        1
    );
}

#[test]
fn a_request_that_names_two_hosts_is_refused() {
    for config in [&[][..], &[KEY]] {
        let gateway = Gateway::start(config);
        let two = [("Host", "localhost")];
        for request in ["GET /topics", PUBLISH, "GET http://localhost/topics"] {
            ask(&gateway, request, "localhost", &two).problem(400);
        }
        ask(&gateway, "GET http://other/topics", "localhost", &[]).problem(400);
        wait_for_refused(&gateway, "two_hosts", 4.0);
        // HTTP/1.0 may name none, as the checks of a balancer do.
        let answer = exchange(gateway.address(), b"GET /healthz HTTP/1.0\r\n\r\n");
        assert_eq!(answer.status, 200);
    }
}

/// A page whose name leads to this machine is of our origin to its browser.
#[test]
fn on_loopback_without_a_key_a_name_that_is_not_ours_reaches_nothing() {
    let ops = ("ops.listen", "127.0.0.1:0");
    let gateway = Gateway::start(&[("server.hosts", "events.example.com,*.example.org"), ops]);
    gateway.publish("news", "before");
    let lies = [
        ("Origin", "http://evil.example:8081"),
        ("X-Forwarded-For", "203.0.113.5"),
        ("Forwarded", "for=203.0.113.5"),
        ("X-Forwarded-Host", "localhost"),
    ];
    let reads = [
        "GET /events/news",
        "GET /topics",
        "GET /topics/news/events",
        "GET /",
        "GET /no",
    ];
    let mut count = 0.0;
    for host in [
        "evil.example",
        "evil.example:8081",
        "localhost.evil.example",
    ] {
        for request in WRITES.into_iter().chain(reads) {
            for fields in [&[][..], &lies] {
                ask(&gateway, request, host, fields).problem(421);
                count += 1.0;
            }
        }
    }
    let ops = gateway.ops_address().unwrap();
    for target in ["/streams", "/metrics", "/readyz"] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: evil.example\r\n\r\n");
        exchange(ops, head.as_bytes()).problem(421);
        count += 1.0;
    }
    wait_for_refused(&gateway, "host", count);
    assert_eq!(published(&gateway, "news"), 1);
    let ours = [
        "127.0.0.1:1",
        "[::1]",
        "localhost",
        "a.localhost:80",
        "events.example.com",
        "a.example.org",
    ];
    for host in ours {
        assert_eq!(ask(&gateway, PUBLISH, host, &[]).status, 200, "{host}");
    }
    // With a key the name does not matter; nor where any name is ours.
    let right = [("Authorization", "Bearer let-me-in")];
    let with_key = Gateway::start(&[KEY]);
    assert_eq!(ask(&with_key, PUBLISH, "any.example", &right).status, 200);
    let any = Gateway::start(&[("server.hosts", "*")]);
    assert_eq!(ask(&any, PUBLISH, "any.example", &[]).status, 200);
}

/// A form, or a fetch of plain text, needs nobody's leave.
#[test]
fn a_page_of_another_origin_publishes_nothing() {
    let gateway = Gateway::start(&[("cors.origins", "https://app.example.com")]);
    let (text, site) = (("Content-Type", "text/plain"), "Sec-Fetch-Site");
    let foreign: [&[(&str, &str)]; 5] = [
        &[
            (site, "cross-site"),
            ("Origin", "https://evil.example"),
            text,
        ],
        &[
            (site, "same-site"),
            ("Origin", "http://localhost:3000"),
            text,
        ],
        &[("Origin", "http://evil.example"), text],
        &[("Origin", "null"), text],
        &[(site, "cross-site"), text],
    ];
    for fields in foreign {
        for request in WRITES
            .into_iter()
            .chain(["PUT /events/news", "POST /nothing"])
        {
            ask(&gateway, request, "localhost:8081", fields).problem(403);
        }
        assert_eq!(
            ask(&gateway, "GET /topics", "localhost:8081", fields).status,
            200
        );
    }
    wait_for_refused(&gateway, "cross_site", 35.0);
    assert_eq!(
        gateway.get("/topics").json()["topics"],
        serde_json::json!([])
    );
    let welcome: [&[(&str, &str)]; 4] = [
        &[(site, "same-origin"), ("Origin", "http://localhost:8081")],
        &[("Origin", "http://localhost:8081")],
        &[(site, "cross-site"), ("Origin", "https://app.example.com")],
        &[],
    ];
    for fields in welcome {
        assert_eq!(ask(&gateway, PUBLISH, "localhost:8081", fields).status, 200);
    }
    // A browser does not send the key by itself: whoever sends it was given it.
    let gateway = Gateway::start(&[KEY]);
    let from = ("Origin", "https://other.example");
    let right = [from, ("Authorization", "Bearer let-me-in")];
    assert_eq!(ask(&gateway, PUBLISH, "localhost", &right).status, 200);
    let wrong = [from, ("Authorization", "Bearer let-me-out")];
    ask(&gateway, PUBLISH, "localhost", &wrong).problem(403);
}

/// To a replica on loopback a proxy on the same machine is the machine itself.
#[test]
fn on_loopback_without_a_key_what_a_proxy_passes_on_from_elsewhere_only_reads() {
    let said = "requests come from beyond this machine, through a proxy, and there is no publish key: they may read, and their writes are refused; set auth.publish_key, or open publishing to all with auth.open_publishing";
    let gateway = Gateway::start(&[]);
    let here = [("X-Forwarded-For", "127.0.0.1")];
    assert_eq!(ask(&gateway, PUBLISH, "localhost", &here).status, 200);
    assert_eq!(gateway.logged(said).len(), 0);
    let via = ("Via", "1.1 nginx");
    let elsewhere: [&[(&str, &str)]; 4] = [
        &[("X-Forwarded-For", "203.0.113.5"), via],
        &[("X-Forwarded-For", "127.0.0.1, 203.0.113.5"), via],
        &[("Forwarded", "for=\"[2001:db8::1]:80\""), via],
        &[("X-Real-IP", "203.0.113.5"), via],
    ];
    for fields in elsewhere {
        for request in WRITES {
            ask(&gateway, request, "events.example.com", fields).problem(403);
        }
        // The name is the proxy's matter then.
        assert_eq!(
            ask(&gateway, "GET /topics", "events.example.com", fields).status,
            200
        );
    }
    wait_for_refused(&gateway, "forwarded", 20.0);
    gateway.wait_for_metric("tidegate_forwarded_without_key", &[], 1.0);
    assert_eq!(gateway.logged_at_least(1, said).len(), 1, "once");
    assert_eq!(published(&gateway, "news"), 1);

    let sentence = "anyone who can reach this address may publish";
    let open = Gateway::start(&[("auth.open_publishing", sentence)]);
    let with_key = Gateway::start(&[KEY]);
    let key = ("Authorization", "Bearer let-me-in");
    for (gateway, key) in [(&open, None), (&with_key, Some(key))] {
        let fields: Vec<_> = elsewhere[0].iter().copied().chain(key).collect();
        assert_eq!(
            ask(gateway, PUBLISH, "events.example.com", &fields).status,
            200
        );
        assert_eq!(gateway.logged(said).len(), 0);
        gateway.wait_for_metric("tidegate_forwarded_without_key", &[], 0.0);
    }
}
