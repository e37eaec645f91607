//! Goal: one address takes no more than it may, others do not notice, and what an address is cannot be made up.
//!
//! Method: clients of any address behind a real nginx with the shipped files, which takes their word for it; and raw
//! connections where the proxy itself is played. Each limit is reached by one address, and another one goes on.

use crate::support::{
    Answer, End, Gateway, NDJSON, Nginx, Redis, Sse, connect, eventually, exchange, fleet,
};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use tidegate::config::OPEN_PUBLISHING;

const TRUSTED: (&str, &str) = ("server.trusted_proxies", "127.0.0.1");
/// Two clients.
const A: (&str, &str) = ("X-Client", "192.0.2.1");
const B: (&str, &str) = ("X-Client", "192.0.2.2");
const LIMITED: &str = "tidegate_address_limited_total";

/// On loopback without a key, writes from elsewhere are refused otherwise.
const OPEN: (&str, &str) = ("auth.open_publishing", OPEN_PUBLISHING);

/// Both ways out of a replica.
const WAYS: [&str; 2] = ["true", "false"];

fn limited(gateway: &Gateway, limit: &str) -> f64 {
    gateway.metric(LIMITED, &[("limit", limit)])
}

/// A stream that is told to come back, much later than it usually is.
#[track_caller]
fn assert_sent_away(mut stream: Sse) {
    assert_eq!(stream.status(), 200);
    assert_eq!(
        stream.headers().get("content-type"),
        Some("text/event-stream")
    );
    assert_eq!(stream.rest(), (vec![], End::Cut));
    // Ten times 3 s, plus or minus half.
    let retry = stream.retry().expect("a time to come back");
    assert!((15_000..=45_000).contains(&retry), "{retry}");
}

/// Whether it was let in.
fn is_open(stream: &mut Sse) -> bool {
    stream.try_next_event().is_some()
}

/// The addresses that are listed, once they are so many streams: one that is open may be on its way to its thread.
#[track_caller]
fn assert_listed(gateway: &Gateway, expected: &[&str]) {
    let ops = gateway.ops_address().unwrap_or(gateway.address());
    let mut all: Vec<String> = Vec::new();
    eventually("all are listed", || {
        let answer = exchange(ops, b"GET /streams HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let rows = answer.json()["streams"].as_array().unwrap().clone();
        let shown = rows.iter().map(|row| row["address"].as_str().unwrap());
        all = shown.map(str::to_owned).collect();
        all.sort();
        all.len() == expected.len()
    });
    for (shown, expected) in all.iter().zip(expected) {
        assert!(shown.starts_with(expected), "{all:?}");
    }
}

#[test]
fn an_address_has_as_many_streams_as_it_may_and_others_have_theirs() {
    for sockets in WAYS {
        let redis = Redis::start();
        let config = [
            TRUSTED,
            ("limits.address.streams_max", "3"),
            ("engine.sockets", sockets),
        ];
        let replicas = fleet(&redis, 2, &config);
        let nginx = Nginx::before_clients(&replicas);
        let open = |client| nginx.open("/events/news", &[client]);
        let mut of_a = Vec::new();
        // Three on each replica, wherever nginx sends them.
        eventually("one address has all it may", || {
            let mut stream = open(A);
            let is_in = is_open(&mut stream);
            if is_in {
                of_a.push(stream);
            } else {
                assert_sent_away(stream);
            }
            of_a.len() == 6
        });
        let before: f64 = replicas.iter().map(|r| limited(r, "streams")).sum();
        for _ in 0..10 {
            assert_sent_away(open(A));
        }
        // Asked of one replica each: nobody else was tried.
        let after: f64 = replicas.iter().map(|r| limited(r, "streams")).sum();
        assert!((after - before - 10.0).abs() < 0.5, "{before} {after}");
        // And no replica was taken out.
        let mut of_b: Vec<Sse> = (0..4).map(|_| open(B)).collect();
        of_b.iter_mut().for_each(|stream| drop(stream.opened()));
        let written = nginx.written().join("\n");
        assert!(!written.contains("answer=503"), "{written}");
        for replica in &replicas {
            assert_listed(replica, &[A.1, A.1, A.1, B.1, B.1]);
            let refused = [("reason", "address")];
            assert!(replica.metric("tidegate_connections_refused_total", &refused) > 0.0);
            assert!(replica.metric("tidegate_addresses", &[]) > 1.5);
            eventually("its streams are told of", || {
                let opened = replica.logged("stream opened").concat();
                opened.contains(A.1) && opened.contains("news")
            });
        }
        // What is given back may be taken again.
        drop(of_a.pop());
        eventually("a place is free", || is_open(&mut open(A)));
        drop(of_b);
        drop(of_a);
        for replica in &replicas {
            replica.wait_for_metric("tidegate_open_connections", &[], 0.0);
            eventually("their ends are told of", || {
                let closed = replica.logged("stream closed").concat();
                closed.contains(A.1) && closed.contains(B.1)
            });
        }
    }
}

#[test]
fn of_ipv6_the_network_is_one_client() {
    let gateway = Gateway::start(&[TRUSTED, ("limits.address.streams_max", "1")]);
    let open = |address| gateway.open("/events/news", &[("X-Forwarded-For", address)]);
    let mut first = open("2001:db8:0:1::1");
    first.opened();
    assert_sent_away(open("2001:db8:0:1:ffff::2"));
    let mut other = open("2001:db8:0:2::1");
    other.opened();
    assert_listed(&gateway, &["2001:db8:0:1::1", "2001:db8:0:2::1"]);
}

#[test]
fn an_address_opens_as_many_streams_a_second_as_it_may() {
    let gateway = Gateway::start(&[TRUSTED, ("limits.address.streams_per_second", "1")]);
    let nginx = Nginx::before_clients(std::slice::from_ref(&gateway));
    let mut let_in = 0;
    eventually("it has opened as many as it may", || {
        let mut stream = nginx.open("/events/news", &[A]);
        let is_in = is_open(&mut stream);
        let_in += usize::from(is_in);
        !is_in
    });
    assert!(let_in >= 10, "{let_in}: what is not opened for ten seconds");
    for _ in 0..5 {
        nginx.open("/events/news", &[B]).opened();
    }
    assert!(limited(&gateway, "stream_rate") > 0.0);
}

#[test]
fn an_address_wants_as_many_topics_as_it_may() {
    let gateway = Gateway::start(&[TRUSTED, ("limits.address.topics_max", "5")]);
    let nginx = Nginx::before_clients(std::slice::from_ref(&gateway));
    let open = |client, topics: &str| nginx.open(&format!("/events?topic={topics}"), &[client]);
    let mut three = open(A, "a&topic=b&topic=c");
    three.opened();
    assert_sent_away(open(A, "d&topic=e&topic=f"));
    let mut two = open(A, "d&topic=e");
    two.opened();
    assert_sent_away(open(A, "f"));
    let mut five = open(B, "a&topic=b&topic=c&topic=d&topic=e");
    five.opened();
    assert!(limited(&gateway, "topics") > 1.5);
    // A stream that is given its end at once holds nothing.
    let end = gateway.post("/events/job?end", &[], "x").id();
    drop(two);
    let come_back = || nginx.open("/events/job", &[A, ("Last-Event-ID", &end)]);
    eventually("the topics are given back", || come_back().status() == 204);
    for _ in 0..10 {
        assert_eq!(come_back().status(), 204);
    }
}

#[test]
fn an_address_publishes_as_much_as_it_may_over_a_connection_that_others_use() {
    let config = [TRUSTED, OPEN, ("limits.address.publishes_per_second", "1")];
    let gateway = Gateway::start(&config);
    let nginx = Nginx::before_clients(std::slice::from_ref(&gateway));
    let mut stream = nginx.open("/events/news", &[A]);
    stream.opened();
    let post = |client| nginx.post("/events/news", &[client], "x");
    let mut taken = 0;
    let mut refused: Option<Answer> = None;
    eventually("it has published as much as it may", || {
        // The same connection to the replica carries both.
        assert_eq!(nginx.get("/topics").status, 200);
        let answer = post(A);
        taken += usize::from(answer.status == 200);
        refused = (answer.status != 200).then_some(answer);
        refused.is_some()
    });
    assert!(
        taken >= 10,
        "{taken}: what is not published for ten seconds"
    );
    let refused = refused.unwrap();
    let detail = refused.problem(429);
    assert!(detail.contains("address"), "{detail}");
    let retry: u64 = refused.headers.get("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&retry), "{retry}");
    for _ in 0..5 {
        post(B).id();
    }
    // Its streams go on.
    stream.next_data(taken + 5);
    let reason = [("reason", "address")];
    assert!(gateway.metric("tidegate_publish_refused_total", &reason) > 0.0);
    assert!(limited(&gateway, "publish_rate") > 0.0);
    // A batch is one request, and paid off before the next.
    let batch = "{\"topic\":\"news\",\"data\":1}\n".repeat(100);
    let other = ("X-Client", "192.0.2.3");
    assert_eq!(
        nginx.post("/events", &[other, NDJSON], &batch).ids().len(),
        100
    );
    let answer = nginx.post("/events", &[other, NDJSON], &batch);
    answer.problem(429);
    let retry: u64 = answer.headers.get("retry-after").unwrap().parse().unwrap();
    assert!(retry > 60, "{retry}");
    nginx
        .request("DELETE", "/topics/news", &[other], "")
        .problem(429);
    assert_eq!(
        nginx.request("DELETE", "/topics/news", &[B], "").status,
        200
    );
}

/// Each is let in as one event before its lines are read.
#[test]
fn of_batches_that_one_address_sends_side_by_side_one_is_taken() {
    let config = [TRUSTED, OPEN, ("limits.address.publishes_per_second", "2")];
    let gateway = Gateway::start(&config);
    let batch = "{\"topic\":\"news\",\"data\":1}\n".repeat(100);
    let request = format!(
        "POST /events HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.1\r\n{}: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{batch}",
        NDJSON.0,
        NDJSON.1,
        batch.len()
    );
    let (most, last) = request.as_bytes().split_at(request.len() - 1);
    let mut sockets: Vec<TcpStream> = (0..8).map(|_| gateway.connect()).collect();
    for socket in &mut sockets {
        socket.write_all(most).unwrap();
    }
    gateway.wait_for_metric("tidegate_publish_bodies", &[], 8.0);
    let mut answers = Vec::new();
    for mut socket in sockets {
        socket.write_all(last).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answers.push(answer);
    }
    let begin = |status: &str| {
        let begin = format!("HTTP/1.1 {status}");
        answers
            .iter()
            .filter(|answer| answer.starts_with(&begin))
            .count()
    };
    assert_eq!((begin("200"), begin("429")), (1, 7), "{answers:?}");
    assert_eq!(gateway.get("/topics/news").json()["length"], 100);
    assert!(limited(&gateway, "publish_rate") > 6.5);
    gateway
        .post("/events/news", &[("X-Forwarded-For", "192.0.2.2")], "x")
        .id();
}

#[test]
fn slow_bodies_of_an_address_leave_room_for_others() {
    let gateway = Gateway::start(&[TRUSTED, OPEN, ("publish.bodies_max", "8")]);
    let head = |address: &str| {
        format!(
            "POST /events/news HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {address}\r\nContent-Length: 1\r\n\r\n"
        )
    };
    let mut slow: Vec<TcpStream> = (0..4).map(|_| gateway.connect()).collect();
    for socket in &mut slow {
        socket.write_all(head("192.0.2.1").as_bytes()).unwrap();
    }
    gateway.wait_for_metric("tidegate_publish_bodies", &[], 4.0);
    let publish = |address| {
        let fields = [("X-Forwarded-For", address)];
        gateway.post("/events/news", &fields, "x")
    };
    let detail = publish("192.0.2.1").problem(429);
    assert!(detail.contains("share"), "{detail}");
    publish("192.0.2.2").id();
    gateway.wait_for_metric(LIMITED, &[("limit", "bodies")], 1.0);
    // What has come is published; then there is room again.
    slow[0].write_all(b"x").unwrap();
    gateway.wait_for_metric("tidegate_publish_bodies", &[], 3.0);
    publish("192.0.2.1").id();
}

/// One connection, as a proxy keeps it, and a client for each request.
#[test]
fn each_request_of_a_connection_has_an_address_of_its_own() {
    let config = [TRUSTED, OPEN, ("limits.address.publishes_per_second", "1")];
    let gateway = Gateway::start(&config);
    let mut socket = gateway.connect();
    let mut ask = |address: &str| {
        let request = format!(
            "POST /events/news HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {address}\r\nContent-Length: 100\r\n\r\n{}",
            "x".repeat(100)
        );
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        let mut buffer = [0; 4096];
        while !answer.contains('}') {
            let read = socket.read(&mut buffer).unwrap();
            assert!(read > 0, "the connection goes on: {answer}");
            answer.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
        answer.starts_with("HTTP/1.1 200")
    };
    eventually("one has published as much as it may", || !ask("192.0.2.1"));
    assert!(ask("192.0.2.2"));
    gateway.wait_for_metric("tidegate_addresses", &[], 2.0);
}

/// What a client writes into the field is worth nothing, with or without a proxy.
#[test]
fn an_address_cannot_be_made_up() {
    let config = [TRUSTED, ("limits.address.streams_max", "1")];
    let gateway = Gateway::start(&config);
    let nginx = Nginx::before_clients(std::slice::from_ref(&gateway));
    let mut first = nginx.open("/events/news", &[A]);
    first.opened();
    let lists = [
        "203.0.113.1",
        "203.0.113.2, 203.0.113.3",
        "127.0.0.1",
        "x",
        "",
        "\u{fc}",
    ];
    for claim in lists {
        let claims = [
            A,
            ("X-Forwarded-For", claim),
            ("Forwarded", "for=203.0.113.9"),
            ("X-Real-IP", "203.0.113.9"),
        ];
        assert_sent_away(nginx.open("/events/news", &claims));
    }
    assert_listed(&gateway, &[A.1]);

    // This machine is not trusted here.
    let elsewhere = ("server.trusted_proxies", "10.0.0.0/8");
    let gateway = Gateway::start(&[elsewhere, ("limits.address.streams_max", "1")]);
    let claim = [("X-Forwarded-For", "203.0.113.1")];
    let mut both = [0, 1].map(|_| gateway.open("/events/news", &claim));
    both.iter_mut().for_each(|stream| drop(stream.opened()));
    assert_listed(&gateway, &["127.0.0.1:", "127.0.0.1:"]);
}

/// The proxy that writes `Forwarded` passes the other field on.
#[test]
fn only_the_field_that_the_proxies_write_is_read() {
    let gateway = Gateway::start(&[TRUSTED, ("server.forwarded_header", "forwarded")]);
    let fields = [
        ("X-Forwarded-For", "203.0.113.1"),
        ("Forwarded", "for=\"203.0.113.2, for=192.0.2.1;proto=https"),
    ];
    let mut stream = gateway.open("/events/news", &fields);
    stream.opened();
    assert_listed(&gateway, &["192.0.2.1"]);
}

/// One page may not make itself a client from elsewhere, to whom names do not matter.
#[test]
fn a_page_gains_nothing_by_a_trusted_proxy_on_its_machine() {
    let gateway = Gateway::start(&[TRUSTED]);
    let head = "GET /topics HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-For: 203.0.113.5\r\n\r\n";
    exchange(gateway.address(), head.as_bytes()).problem(421);
}

#[test]
fn addresses_beyond_the_table_are_not_limited_and_counted() {
    let gateway = Gateway::start(&[
        TRUSTED,
        ("limits.address.streams_max", "1"),
        ("limits.address.entries_max", "1"),
    ]);
    let open = |address| gateway.open("/events/news", &[("X-Forwarded-For", address)]);
    let mut first = open("192.0.2.1");
    first.opened();
    let mut others = [0, 1].map(|_| open("192.0.2.2"));
    others.iter_mut().for_each(|stream| drop(stream.opened()));
    assert_sent_away(open("192.0.2.1"));
    gateway.wait_for_metric("tidegate_addresses_beyond_total", &[], 2.0);
    gateway.wait_for_metric("tidegate_addresses", &[], 1.0);
}

/// The only place to read is held while Redis is slow. One address wants many pages, another one.
#[test]
fn an_address_reads_as_much_at_once_as_it_may() {
    for sockets in WAYS {
        let redis = Redis::start();
        let gateway = Gateway::over(
            &redis,
            &[
                TRUSTED,
                ("limits.replays_max", "2"),
                ("limits.address.replays_max", "1"),
                ("window.events_max", "1"),
                ("engine.sockets", sockets),
            ],
        );
        let ids: Vec<String> = (0..30)
            .map(|n| gateway.publish("news", &n.to_string()))
            .collect();
        let _window = gateway.listen(&["news"]);
        let open = |address, id: &str| {
            let headers = [("X-Forwarded-For", address), ("Last-Event-ID", id)];
            gateway.open("/events/news", &headers)
        };
        redis.run::<String>(&["CLIENT", "PAUSE", "1000", "ALL"]);
        let mut of_a: Vec<Sse> = ids[..20].iter().map(|id| open("192.0.2.1", id)).collect();
        let mut of_b = open("192.0.2.2", &ids[25]);
        assert_eq!(of_b.next_data(4), ["26", "27", "28", "29"]);
        for (after, stream) in of_a.iter_mut().enumerate() {
            assert_eq!(stream.next_data(29 - after).len(), 29 - after);
        }
        assert!(limited(&gateway, "replays") > 0.0);
    }
}

/// As above, for what no stream waits for: one address asks for many topics and their events, another one for its own.
#[test]
fn an_address_asks_for_topics_as_much_at_once_as_it_may() {
    let redis = Redis::start();
    let limits = [
        ("limits.replays_max", "2"),
        ("limits.address.replays_max", "1"),
    ];
    let gateway = Gateway::over(&redis, &[&[TRUSTED][..], &limits].concat());
    gateway.publish("news", "x");
    let ask = |address: &str, path: &str| {
        let mut socket = connect(gateway.address());
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {address}\r\nConnection: close\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).unwrap();
        socket
    };
    let rest = |mut socket: TcpStream| {
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    };
    redis.run::<String>(&["CLIENT", "PAUSE", "1000", "ALL"]);
    let paths = ["/topics", "/topics/news", "/topics/news/events"];
    let of_a: Vec<TcpStream> = (0..30)
        .map(|n| ask("192.0.2.1", paths[n % paths.len()]))
        .collect();
    let of_b = rest(ask("192.0.2.2", paths[2]));
    assert!(of_b.starts_with("HTTP/1.1 200"), "{of_b}");
    for answer in of_a.into_iter().map(rest) {
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert!(limited(&gateway, "replays") > 0.0);
}

// --- the PROXY protocol -----------------------------------------------------------------------------------------------

/// Version 2, of a client over IPv4.
fn version_2(ip: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(ip);
    header.extend([10, 0, 0, 1, 0x12, 0x67, 0, 80]);
    header
}

const GET: &[u8] = b"GET /events/news HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn introduced(gateway: &Gateway, header: &[u8], request: &[u8]) -> Sse {
    Sse::exchange(gateway.connect(), &[header, request].concat())
}

/// Whether the other end closes without a word.
fn is_closed(mut socket: TcpStream) -> bool {
    let mut rest = Vec::new();
    drop(socket.read_to_end(&mut rest));
    rest.is_empty()
}

fn with_operators(config: &[(&str, &str)]) -> Gateway {
    let mut all = vec![
        ("server.proxy_protocol", "true"),
        ("ops.listen", "127.0.0.1:0"),
    ];
    all.extend(config);
    Gateway::start(&all)
}

#[test]
fn a_connection_is_introduced_by_the_proxy_protocol() {
    for sockets in WAYS {
        let gateway = with_operators(&[
            TRUSTED,
            ("limits.address.streams_max", "1"),
            ("engine.sockets", sockets),
        ]);
        let v1: &[u8] = b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 80\r\n";
        let mut first = introduced(&gateway, v1, GET);
        first.opened();
        assert_sent_away(introduced(&gateway, &version_2([192, 0, 2, 1]), GET));
        let mut second = introduced(&gateway, &version_2([192, 0, 2, 2]), GET);
        second.opened();
        // Byte by byte, and from a proxy behind the one that is connected.
        let mut socket = gateway.connect();
        let through =
            "GET /events/news HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.3\r\n\r\n";
        for byte in b"PROXY TCP4 127.0.0.1 10.0.0.1 4711 80\r\n" {
            socket.write_all(&[*byte]).unwrap();
        }
        let mut third = Sse::exchange(socket, through.as_bytes());
        third.opened();
        assert_listed(&gateway, &["192.0.2.1:4711", "192.0.2.2:4711", "192.0.2.3"]);
        // The proxy itself, as its checks do; it is not one client.
        let mut own = [0, 1].map(|_| introduced(&gateway, b"PROXY UNKNOWN\r\n", GET));
        own.iter_mut().for_each(|stream| drop(stream.opened()));
    }
}

#[test]
fn who_is_not_introduced_is_not_served() {
    let gateway = with_operators(&[TRUSTED, ("server.header_timeout", "300ms")]);
    let refused = "tidegate_proxy_protocol_refused_total";
    let mut plain = gateway.connect();
    plain.write_all(GET).unwrap();
    assert!(is_closed(plain));
    let mut long = gateway.connect();
    long.write_all(&[b"PROXY TCP4 ", &[b'1'; 100][..]].concat())
        .unwrap();
    assert!(is_closed(long));
    gateway.wait_for_metric(refused, &[("reason", "malformed")], 2.0);
    let mut slow = gateway.connect();
    slow.write_all(b"PROXY TCP4 192.0.2.1").unwrap();
    assert!(is_closed(slow));
    let mut stream = introduced(&gateway, b"PROXY UNKNOWN\r\n", GET);
    stream.opened();

    let stranger = with_operators(&[("server.trusted_proxies", "10.0.0.0/8")]);
    let mut socket = connect(stranger.address());
    socket
        .write_all(b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 80\r\n")
        .unwrap();
    assert!(is_closed(socket));
    stranger.wait_for_metric(refused, &[("reason", "untrusted")], 1.0);
}

/// A gateway on loopback without a key: who is introduced as from elsewhere may read.
#[test]
fn who_is_introduced_from_elsewhere_writes_nothing_without_a_key() {
    let gateway = with_operators(&[TRUSTED]);
    let ask = |client: &str, method: &str| {
        let request = format!(
            "PROXY TCP4 {client} 10.0.0.1 4711 80\r\n{method} HTTP/1.1\r\nHost: events.example.com\r\nContent-Length: 1\r\n\r\nx"
        );
        exchange(gateway.address(), request.as_bytes())
    };
    assert_eq!(ask("203.0.113.5", "GET /topics").status, 200);
    ask("203.0.113.5", "POST /events/news").problem(403);
    ask("127.0.0.1", "GET /topics").problem(421);
}
