//! Goal: the promises hold through nginx: nothing is held back, a replica that goes is not missed,
//! and an `EventSource` never meets a status that ends it for good.
//!
//! Method: a real nginx with the very files of `nginx/`, in front of three replicas over one Redis.
//! Where delay is the danger, each event must arrive before the next one is published: a proxy that
//! holds back never lets the test go on.

use crate::support::{
    Answer, End, Gateway, NDJSON, Nginx, OPERATORS, Redis, Sse, connect, eventually, exchange,
    fleet, follow_until, replica_at, send_queue, wait_for_ears,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A drain that cuts no stream while a test looks.
const LONG_DRAIN: (&str, &str) = ("drain.time", "24h");
/// Headers of a client that takes compressed answers, as every browser does.
const COMPRESSED: [(&str, &str); 1] = [("Accept-Encoding", "gzip, deflate, br, zstd")];

/// Publishes by every way, one event after the other, each only when the one before has arrived.
fn assert_nothing_is_held_back(redis: &Redis, nginx: &Nginx, stream: &mut Sse) {
    stream.opened();
    for (round, bytes) in [1, 40, 3000, 60_000, 2].into_iter().enumerate() {
        for way in ["http", "function", "raw"] {
            let data = format!("{way} {round} {}", "x".repeat(bytes));
            match way {
                "http" => drop(nginx.post("/events/news", &[], &data).id()),
                "function" => drop(redis.publish("news", &data, &[])),
                _ => assert!(redis.publish_raw("events:news", data.as_bytes()) > 0),
            }
            assert!(stream.next_event().data == data, "{way} {round}");
        }
    }
}

#[test]
fn each_event_arrives_before_the_next_is_published() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 3, &[]);
    wait_for_ears(&redis, &replicas);
    let nginx = Nginx::before(&replicas);
    for target in ["/events/news", "/events?topic=other&topic=news"] {
        let mut stream = nginx.open(target, &COMPRESSED);
        assert_eq!(stream.version(), "HTTP/1.1");
        let headers = stream.headers();
        assert_eq!(headers.get("content-type"), Some("text/event-stream"));
        assert_eq!(
            headers.get("cache-control"),
            Some("no-store, no-transform"),
            "{target}"
        );
        assert_eq!(headers.get("content-encoding"), None, "{target}");
        assert_nothing_is_held_back(&redis, &nginx, &mut stream);
    }
}

/// What somebody else's nginx may do to a stream.
const UNPREPARED: [&str; 4] = [
    "", // Defaults: HTTP/1.0 to upstream, buffering on.
    "proxy_http_version 1.0; proxy_buffering on; proxy_buffer_size 64k; proxy_buffers 16 64k;",
    "proxy_http_version 1.1; proxy_buffering on; gzip on; gzip_proxied any;",
    "proxy_http_version 1.0; gzip on; gzip_proxied any; postpone_output 65536;",
];

/// `X-Accel-Buffering: no` is all that helps.
#[test]
fn each_event_arrives_through_an_nginx_that_nobody_prepared() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 1, &[]);
    wait_for_ears(&redis, &replicas);
    let upstream = format!("proxy_pass http://{};", replicas[0].address());
    for directives in UNPREPARED {
        let nginx = Nginx::with(&format!("{directives}\nlocation / {{ {upstream} }}"));
        let mut stream = nginx.open("/events/news", &COMPRESSED);
        assert_eq!(
            stream.headers().get("content-encoding"),
            None,
            "{directives}"
        );
        assert_nothing_is_held_back(&redis, &nginx, &mut stream);
    }
}

/// nginx keeps `X-Accel-Buffering` to itself unless it is told to pass it on: the one in front of it would then hold
/// everything back.
#[test]
fn each_event_arrives_through_a_second_nginx_in_front_of_ours() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 1, &[]);
    wait_for_ears(&redis, &replicas);
    let ours = Nginx::before(&replicas);
    for directives in UNPREPARED {
        let upstream = format!("proxy_pass http://{};", ours.address());
        let outer = Nginx::with(&format!("{directives}\nlocation / {{ {upstream} }}"));
        let mut stream = outer.open("/events/news", &COMPRESSED);
        let headers = stream.headers();
        assert_eq!(headers.get("content-encoding"), None, "{directives}");
        assert_nothing_is_held_back(&redis, &outer, &mut stream);
    }
}

#[test]
fn streams_are_spread_over_the_replicas() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 3, &[]);
    let nginx = Nginx::before(&replicas);
    let _streams: Vec<Sse> = (0..9).map(|_| nginx.listen("/events/news").0).collect();
    for replica in &replicas {
        replica.wait_for_metric("tidegate_open_connections", &[], 3.0);
    }
}

/// Publishes as a careful client does: nginx cannot know whether a replica that went away took the
/// event, so the same key is sent again.
fn publish_with_key(nginx: &Nginx, topic: &str, data: &str) {
    let key = [("Idempotency-Key", data)];
    let mut last = None;
    let taken = (0..10).any(|_| {
        let answer = nginx.post(&format!("/events/{topic}"), &key, data);
        let taken = answer.status == 200;
        last = Some(answer);
        taken
    });
    assert!(taken, "{data} was never taken: {last:?}");
}

#[test]
fn a_replica_that_is_killed_is_not_missed() {
    let redis = Redis::start();
    let mut replicas = fleet(&redis, 3, &[]);
    let nginx = Nginx::before(&replicas);
    let streams: Vec<Sse> = (0..12).map(|_| nginx.listen("/events/news").0).collect();
    let mut expected: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    expected.push("last".to_owned());
    std::thread::scope(|scope| {
        let followers: Vec<_> = streams
            .into_iter()
            .map(|stream| scope.spawn(|| follow_until("last", stream, Sse::reconnect)))
            .collect();
        for (index, data) in expected.iter().enumerate() {
            if index == 100 {
                replicas[1].kill9();
            }
            publish_with_key(&nginx, "news", data);
        }
        for follower in followers {
            let seen = follower.join().unwrap().into_iter();
            let seen: Vec<String> = seen.map(|event| event.data).collect();
            assert_eq!(seen, expected);
        }
    });
    // Started again, it is given streams without a word to nginx.
    let _again = replica_at(replicas[1].address(), &redis, "again", &[]);
    let mut streams = Vec::new();
    eventually("the replica has a stream again", || {
        let (stream, replica) = nginx.listen("/events/news");
        streams.push(stream);
        replica == "again"
    });
}

/// The line that an `EventSource` is sent away with, and the time that it names.
fn assert_told_to_come_back(nginx: &Nginx, target: &str) -> u64 {
    let mut stream = nginx.open(target, &[("Last-Event-ID", "1-1")]);
    assert_eq!(
        stream.status(),
        200,
        "{target}: EventSource gives up on anything else"
    );
    assert_eq!(
        stream.headers().get("content-type"),
        Some("text/event-stream")
    );
    // A clean end is the last word to many libraries.
    assert_eq!(stream.rest(), (vec![], End::Cut), "{target}");
    let text = stream.text();
    let retry = stream
        .retry()
        .unwrap_or_else(|| panic!("{target}: {text:?}"));
    assert_eq!(text, format!("retry: {retry}\n"), "{target}");
    retry
}

#[test]
fn when_no_replica_is_there_a_stream_is_told_when_to_come_back() {
    let redis = Redis::start();
    let mut replicas = fleet(&redis, 3, &[]);
    let nginx = Nginx::before(&replicas);
    let (mut stream, _) = nginx.listen("/events/news");
    let id = nginx.post("/events/news", &[], "before").id();
    assert_eq!(stream.next_event().id(), id);
    replicas.iter_mut().for_each(Gateway::kill9);
    assert_eq!(stream.rest(), (vec![], End::Cut));

    let targets = [
        "/events",
        "/events/news",
        "/events?topic=a&topic=b",
        "/events/a%20b",
    ];
    let times: BTreeSet<u64> = (0..48)
        .map(|n| assert_told_to_come_back(&nginx, targets[n % targets.len()]))
        .collect();
    assert!(
        times.iter().all(|time| (2050..8000).contains(time)),
        "{times:?}"
    );
    assert!(times.len() > 12, "spread over the clients: {times:?}");
    // The page of another origin may read it, or its EventSource ends.
    let origin = "https://page.test";
    let answer = nginx.open("/events", &[("Origin", origin)]);
    let allowed = answer.headers().get("access-control-allow-origin");
    assert_eq!(allowed, Some(origin));
    assert_eq!(
        answer.headers().get("cache-control"),
        Some("no-store, no-transform")
    );

    // Everything else is told the truth.
    let table = [
        ("POST", "/events/news"),
        ("POST", "/events"),
        ("HEAD", "/events/news"),
        ("OPTIONS", "/events/news"),
        ("DELETE", "/topics/news"),
        ("GET", "/topics"),
        ("GET", "/eventsource"),
        ("GET", "/"),
    ];
    for (method, target) in table {
        let answer = nginx.request(method, target, &[], "");
        assert_eq!(answer.status, 502, "{method} {target}");
        assert_eq!(
            answer.headers.get("retry-after"),
            Some("2"),
            "{method} {target}"
        );
        assert_eq!(
            answer.headers.get("content-type"),
            Some("application/problem+json"),
            "{method} {target}"
        );
        if method != "HEAD" {
            let detail = answer.problem(502);
            assert!(
                detail.contains("Idempotency-Key"),
                "{method} {target}: {detail}"
            );
        }
    }

    let missed = redis.publish("news", "meanwhile", &[]);
    let launch = |replica: &Gateway| replica_at(replica.address(), &redis, "again", &[]);
    let _replicas: Vec<Gateway> = replicas.iter().map(launch).collect();
    eventually("publishers are served again", || {
        nginx.post("/events/other", &[], "x").status == 200
    });
    let mut streams = vec![stream];
    eventually("streams are served again", || {
        let mut again = streams.pop().unwrap().reconnect();
        let event = again.try_next_event();
        streams.push(again);
        event.is_some_and(|event| event.event == "tidegate.open")
    });
    assert_eq!(streams[0].next_published().id(), missed);
}

/// How often any replica has counted this.
fn sum(replicas: &[Gateway], name: &str, labels: &[(&str, &str)]) -> f64 {
    let values = replicas.iter().map(|replica| replica.metric(name, labels));
    values.sum()
}

/// An answer without what changes from one to the next.
fn essence(answer: &Answer) -> (u16, Option<&str>, String) {
    let kind = answer.headers.get("content-type");
    (answer.status, kind, answer.text())
}

#[test]
fn a_refusal_is_the_replicas_own() {
    let mut redis = Redis::start();
    let config = [
        ("auth.publish_key", "let-me-in"),
        ("publish.event_bytes_max", "1000"),
    ];
    let replicas = fleet(&redis, 3, &config);
    let nginx = Nginx::before(&replicas);
    let key = ("Authorization", "Bearer let-me-in");
    nginx.post("/events/job?end", &[key], "done").id();

    let large = "x".repeat(200_000);
    let table: [(&str, &str, &[(&str, &str)], &str, u16); 10] = [
        ("POST", "/events/news", &[], "x", 401),
        (
            "POST",
            "/events/news",
            &[("Authorization", "Bearer no")],
            "x",
            401,
        ),
        ("POST", "/events/a%23b", &[key], "x", 400),
        ("POST", "/events/news?type=a%0Ab", &[key], "x", 400),
        ("POST", "/events", &[key, NDJSON], "not JSON", 400),
        ("POST", "/events/news", &[key], &large, 413),
        ("POST", "/events/job", &[key], "more", 409),
        ("PUT", "/events/news", &[key], "x", 405),
        ("GET", "/events?topic=", &[], "", 400),
        ("GET", "/nothing", &[], "", 404),
    ];
    for (method, target, headers, body, status) in table {
        let answer = nginx.request(method, target, headers, body);
        answer.problem(status);
        let direct = replicas[0].request(method, target, headers, body);
        assert_eq!(essence(&answer), essence(&direct), "{method} {target}");
    }
    // 204 tells an EventSource that there is nothing to come back for.
    let mut last = nginx.open("/events/job?since=earliest", &[]);
    last.opened();
    let end = last.next_event();
    assert_eq!(last.rest(), (vec![], End::Clean));
    let after = nginx.request("GET", "/events/job", &[("Last-Event-ID", end.id())], "");
    assert_eq!(after.status, 204);

    redis.kill();
    let unavailable = [("reason", "unavailable")];
    for number in 1..=5_u8 {
        let answer = nginx.post("/events/news", &[key], "x");
        answer.problem(503);
        let wait: u64 = answer.headers.get("retry-after").unwrap().parse().unwrap();
        assert!((1..=3).contains(&wait), "the replica's own: {wait}");
        // One replica has said it, and no other was asked; nor is any of them left out now.
        let refused = sum(&replicas, "tidegate_publish_refused_total", &unavailable);
        assert!((refused - f64::from(number)).abs() < 0.5, "{refused}");
    }
    // Redis is away, the replicas are not: a stream opens, and waits.
    let stream = nginx.open("/events/news", &[]);
    assert_eq!(stream.status(), 200);
    eventually("it stays open", || {
        sum(&replicas, "tidegate_open_connections", &[]) > 0.5
    });
}

#[test]
fn a_draining_replica_gets_no_new_stream_and_keeps_publishers() {
    let redis = Redis::start();
    let mut replicas = fleet(&redis, 3, &[LONG_DRAIN]);
    let nginx = Nginx::before(&replicas);
    let mut open: BTreeMap<String, Sse> = BTreeMap::new();
    while open.len() < 3 {
        let (stream, replica) = nginx.listen("/events/news");
        open.insert(replica, stream);
    }
    let drain = |replica: &mut Gateway| {
        replica.terminate();
        eventually("not ready", || replica.get("/readyz").status == 503);
        // It is not ready a moment before it takes no more streams.
        replica.wait_for_log("draining").unwrap();
    };

    drain(&mut replicas[0]);
    for _ in 0..6 {
        let (_, replica) = nginx.listen("/events/news");
        assert_ne!(replica, "r1");
    }
    drain(&mut replicas[1]);
    drain(&mut replicas[2]);
    for _ in 0..6 {
        assert_told_to_come_back(&nginx, "/events/news");
    }
    let refused = sum(
        &replicas,
        "tidegate_connections_refused_total",
        &[("reason", "draining")],
    );
    assert!(refused >= 3.0, "each was asked once at least: {refused}");

    // All of them still take events, and the streams that are left still get them.
    for number in 0..9 {
        let id = nginx.post("/events/news", &[], number.to_string()).id();
        for (replica, stream) in &mut open {
            assert_eq!(stream.next_event().id(), id, "{replica}");
        }
    }
    for replica in &replicas {
        let source = [("source", "http")];
        let published = replica.metric("tidegate_events_published_total", &source);
        assert!(
            published > 0.5,
            "{}: publishers were kept away",
            replica.url()
        );
    }
}

#[test]
fn a_full_replica_passes_streams_on_and_keeps_publishers() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 3, &[("limits.streams_max", "2")]);
    let nginx = Nginx::before(&replicas);
    let mut open = Vec::new();
    for _ in 0..2 {
        // Unevenly filled: the first replica has its two without nginx.
        open.push(replicas[0].listen(&["news"]));
    }
    for _ in 0..4 {
        let (stream, replica) = nginx.listen("/events/news");
        assert_ne!(replica, "r1");
        open.push(stream);
    }
    for _ in 0..6 {
        assert_told_to_come_back(&nginx, "/events/news");
        nginx.post("/events/news", &[], "x").id();
    }
    open.pop();
    eventually("the free place is found", || {
        let mut stream = nginx.open("/events/news", &[]);
        stream.try_next_event().is_some()
    });
}

/// What a replica is told, seen by an nginx in its place that answers with it.
#[test]
fn what_a_client_may_not_claim_is_set_by_nginx() {
    let seen = [
        "$http_x_request_id",
        "$http_x_forwarded_for",
        "$http_x_forwarded_proto",
        "$http_tidegate_failover",
        "$http_connection",
        "$http_last_event_id",
        "$http_authorization",
        "$http_host",
        "$server_protocol",
    ]
    .join("|");
    let echo = Nginx::with(&format!("return 200 \"{seen}\";"));
    let nginx = Nginx::before_addresses(&[echo.address()]);
    let claims = [
        ("X-Request-Id", "claimed"),
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Forwarded-Proto", "https"),
        ("Tidegate-Failover", "0"),
        ("Last-Event-ID", "0:1-1,5:2-2"),
        ("Authorization", "Bearer token"),
    ];
    let mut ids = BTreeSet::new();
    for (method, target, failover) in [
        ("GET", "/events/news", "1"),
        ("GET", "/events?topic=news", "1"),
        ("POST", "/events/news", "0"),
        ("GET", "/topics", "0"),
    ] {
        let answer = nginx.request(method, target, &claims, "");
        let text = answer.text();
        let (id, rest) = text.split_once('|').unwrap();
        let is_hex = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(is_hex, "nginx's own: {id:?}");
        assert!(ids.insert(id.to_owned()), "{id} was given to two requests");
        // The address that nginx saw is the last one: what stands before it is hearsay.
        let expected = format!(
            "192.0.2.1, 127.0.0.1|http|{failover}||0:1-1,5:2-2|Bearer token|localhost|HTTP/1.1"
        );
        assert_eq!(rest, expected, "{method} {target}");
    }
}

#[test]
fn a_request_can_be_followed_by_its_id() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 1, &[]);
    let nginx = Nginx::before(&replicas);
    let claimed = [("X-Request-Id", "claimed")];
    let answer = nginx.post("/events/news", &claimed, "x");
    let id = answer.headers.get("x-request-id").unwrap();
    let line = nginx.wait_for_access(&format!("request={id}"));
    assert!(
        line.contains(&format!("replica={}", replicas[0].address())),
        "{line}"
    );
    assert!(!line.contains("claimed"), "{line}");
}

#[test]
fn what_stands_in_a_query_or_a_header_is_not_written_down() {
    let redis = Redis::start();
    let mut replicas = fleet(&redis, 1, &[]);
    let nginx = Nginx::before(&replicas);
    let secret = [("Authorization", "Bearer hush"), ("Cookie", "hush")];
    let ask = |way: &str| {
        nginx.post(&format!("/events/{way}?token=hush"), &secret, "hush");
        nginx.wait_for_access(&format!("POST /events/{way}\""));
        let target = format!("/events/{way}?token=hush&ticket=hush&max_age=1ms");
        drop(nginx.open(&target, &secret).rest());
        nginx.wait_for_access(&format!("GET /events/{way}\""));
    };
    ask("answered");
    replicas[0].kill9();
    ask("unanswered");
    for line in nginx.written() {
        assert!(!line.contains("hush"), "{line}");
    }
}

#[test]
fn what_belongs_to_operators_is_not_passed_on() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 1, &[]);
    let nginx = Nginx::before(&replicas);
    for target in OPERATORS {
        assert_eq!(nginx.get(target).status, 404, "{target}");
        assert_eq!(replicas[0].get(target).status, 200, "{target}");
    }
    assert_eq!(nginx.get("/nginx-health").text(), "ok\n");
    assert_eq!(nginx.get("/").status, 200, "the page");
    let server = nginx.get("/nothing").headers;
    assert_eq!(server.get("server"), Some("nginx"), "no version");
}

/// A replica cuts a stream whose client goes on talking. nginx had passed that on, took the cut for a failure of the
/// replica, and sent everybody else's streams away.
#[test]
fn a_stream_with_a_body_takes_no_replica_out() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 2, &[]);
    let nginx = Nginx::before(&replicas);
    let body = vec![b'x'; 1 << 20];
    let framings = [
        ("Content-Length: 1048576\r\n\r\n", "400"),
        ("Transfer-Encoding: chunked\r\n\r\n100000\r\n", "413"),
    ];
    for (framing, status) in framings.iter().cycle().take(16) {
        let mut socket = connect(nginx.address());
        let head = format!("GET /events/news HTTP/1.1\r\nHost: localhost\r\n{framing}");
        socket.write_all(head.as_bytes()).unwrap();
        // nginx answers, and closes, before it has read all of it.
        drop(socket.write_all(&body));
        let mut answer = [0; 12];
        if socket.read_exact(&mut answer).is_ok() {
            assert!(answer.ends_with(status.as_bytes()), "{answer:?}");
        }
        nginx.open("/events/news", &[]).opened();
    }
}

#[test]
fn head_and_options_open_no_stream() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 1, &[]);
    let nginx = Nginx::before(&replicas);
    let head = nginx.request("HEAD", "/events/news", &[], "");
    assert_eq!(head.status, 200);
    assert_eq!(head.headers.get("content-type"), Some("text/event-stream"));
    let options = nginx.request("OPTIONS", "/events/news", &[], "");
    assert_eq!(options.status, 204);
    assert!(replicas[0].metric("tidegate_connections_opened_total", &[]) < 0.5);
}

#[test]
fn a_reload_leaves_open_streams_alone() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 2, &[]);
    let nginx = Nginx::before(&replicas);
    let (mut old, _) = nginx.listen("/events/news");
    nginx.reload();
    let (mut new, _) = nginx.listen("/events/news");
    for number in 0..5 {
        let id = nginx.post("/events/news", &[], number.to_string()).id();
        assert_eq!(old.next_event().id(), id);
        assert_eq!(new.next_event().id(), id);
    }
}

#[test]
fn a_client_that_leaves_is_gone_at_the_replica() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 1, &[]);
    let nginx = Nginx::before(&replicas);
    let (stream, _) = nginx.listen("/events/news");
    replicas[0].wait_for_metric("tidegate_open_connections", &[], 1.0);
    drop(stream);
    replicas[0].wait_for_metric("tidegate_open_connections", &[], 0.0);
}

/// The kernel would hold four megabytes for each of them, whatever little a replica holds.
#[test]
fn a_reader_that_stops_holds_little_in_the_kernel_of_nginx() {
    const EVENTS: usize = 250;
    const LARGE: usize = 60_000;
    // The kernel takes twice what is asked for, and the last write whole.
    const HELD_MAX: usize = 2 * 131_072 + 65_536;
    let redis = Redis::start();
    let replicas = fleet(&redis, 1, &[]);
    for number in 0..EVENTS {
        redis.publish("news", &format!("{number} {}", "x".repeat(LARGE)), &[]);
    }
    let upstream = format!("proxy_pass http://{};", replicas[0].address());
    let held: Vec<usize> = [
        Nginx::before(&replicas),
        Nginx::with(&format!(
            "location / {{ {upstream} proxy_http_version 1.1; proxy_set_header Connection \"\"; }}"
        )),
    ]
    .iter()
    .map(|nginx| {
        let mut stuck = nginx.open("/events/news?since=earliest", &[]);
        let blocked = [("state", "blocked")];
        replicas[0].wait_for_metric("tidegate_streams_behind", &blocked, 1.0);
        let held = send_queue(nginx.address().port());
        stuck.opened();
        for number in 0..EVENTS {
            assert!(stuck.next_event().data.starts_with(&format!("{number} ")));
        }
        held
    })
    .collect();
    println!("unsent and unacknowledged: {held:?} bytes");
    assert!(held[0] <= HELD_MAX, "{held:?}");
    assert!(held[1] > HELD_MAX, "nothing is measured: {held:?}");
}

/// What was refused before its body was read had the replica close the connection: nginx answered
/// 502, and left that replica out for everybody.
#[test]
fn refused_bodies_cost_no_other_publisher_anything() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 3, &[("auth.publish_key", "let-me-in")]);
    let nginx = Nginx::before(&replicas);
    let bad = ("Authorization", "Bearer let-me-out");
    let good = ("Authorization", "Bearer let-me-in");
    let large = "x".repeat(1_000_000);
    let refused: [(&str, &str, u16); 4] = [
        ("POST", "/events/news", 401),
        ("POST", "/nothing", 404),
        ("POST", "/events", 401),
        ("PUT", "/events/news", 405),
    ];
    let count = AtomicUsize::new(0);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let strangers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    for (method, target, status) in refused.iter().cycle() {
                        if is_over.load(Ordering::Relaxed) {
                            break;
                        }
                        nginx
                            .request(method, target, &[bad], &large)
                            .problem(*status);
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let publish = || nginx.post("/events/news", &[good], "x");
        let mut answers = Vec::new();
        while answers.len() < 200 || count.load(Ordering::Relaxed) < 60 {
            answers.push(publish().status);
            if strangers
                .iter()
                .any(std::thread::ScopedJoinHandle::is_finished)
            {
                break;
            }
        }
        is_over.store(true, Ordering::Relaxed);
        answers.retain(|status| *status != 200);
        assert_eq!(answers, [0; 0], "good publishes that were not answered 200");
    });
}

/// What nginx judges and what the replica serves must be one path: limits by address, and who may read,
/// hang on it.
#[test]
fn no_path_is_one_to_nginx_and_another_to_the_replica() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 1, &[]);
    let nginx = Nginx::before(&replicas);
    let targets = [
        "/events/%2e%2e",
        "/events/%2E",
        "/events/..",
        "/events/a%2F..%2F..%2Ftopics",
        "/topics/../events/news",
        "/events//news",
        "//events/news",
        "/events/%2Fnews",
    ];
    for target in targets {
        for method in ["GET", "POST", "DELETE"] {
            let answer = nginx.request(method, target, &[], "");
            answer.problem(400);
        }
    }
    assert!(sum(&replicas, "tidegate_open_connections", &[]) < 0.5);
    // A slash within a topic's name is the same to both.
    let (mut stream, _) = nginx.listen("/events/rooms%2F1");
    nginx.post("/events/rooms%2F1", &[], "x").id();
    assert_eq!(stream.next_event().data, "x");
}

/// nginx stored 72 MB of a body, for whoever sent it, before a replica was asked about its key.
#[test]
fn a_body_is_not_collected_before_its_key_was_judged() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 1, &[("auth.publish_key", "let-me-in")]);
    let nginx = Nginx::before(&replicas);
    let mut socket = connect(nginx.address());
    let head = "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n\r\n";
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(&vec![b'x'; 1_000_000]).unwrap();
    let mut begin = [0; 12];
    socket
        .read_exact(&mut begin)
        .expect("an answer before the rest");
    assert_eq!(&begin, b"HTTP/1.1 401");

    // Up to the bound of the replica its answer is the one that counts, beyond it nginx has one.
    let key = ("Authorization", "Bearer let-me-in");
    let answer = nginx.post("/events", &[key, NDJSON], " ".repeat(4_194_304));
    assert_eq!(answer.ids(), [""; 0]);
    let detail = nginx
        .post("/events", &[key, NDJSON], " ".repeat(4_194_305))
        .problem(413);
    assert!(detail.contains("proxy"), "{detail}");
    let chunked = "POST /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer let-me-in\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("f4240\r\n{}\r\n", " ".repeat(1_000_000));
    let chunked = format!("{chunked}{}0\r\n\r\n", chunk.repeat(5));
    exchange(nginx.address(), chunked.as_bytes()).problem(413);
}

/// A browser on the machine reaches nginx there as it reaches a replica, and for any page.
#[test]
fn a_page_reaches_nothing_through_nginx_either() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 1, &[]);
    let nginx = Nginx::before(&replicas);
    let ask = |method: &str, target: &str, host: &str, fields: &str| {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}Content-Length: 0\r\n\r\n"
        );
        exchange(nginx.address(), head.as_bytes())
    };
    let lies = "X-Forwarded-For: 203.0.113.5\r\nForwarded: for=203.0.113.5\r\n";
    for fields in ["", lies, "X-Forwarded-For: \u{fc}\r\n"] {
        ask("GET", "/topics", "evil.example", fields).problem(421);
        ask("POST", "/events/news", "evil.example", fields).problem(421);
    }
    let foreign = "Origin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\n";
    ask("POST", "/events/news", "localhost", foreign).problem(403);
    let here = format!("Origin: http://{}\r\n", nginx.address());
    let host = nginx.address().to_string();
    assert_eq!(ask("POST", "/events/news", &host, &here).status, 200);
}

/// One machine: nginx is public, and the replica behind it on loopback, without a key.
#[test]
fn a_public_nginx_before_a_replica_without_a_key_lets_others_read_and_not_write() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 1, &[]);
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/nginx/tidegate-proxy.conf");
    // All clients of a test are on this machine; so nginx is told where they come from.
    let nginx = Nginx::with(&format!(
        "set_real_ip_from 127.0.0.1; real_ip_header X-Client;\nlocation / {{ proxy_pass http://{}; include {shipped}; }}",
        replicas[0].address()
    ));
    let ask = |method: &str, client: &str| {
        let head = format!(
            "{method} HTTP/1.1\r\nHost: events.example.com\r\nX-Client: {client}\r\nContent-Length: 1\r\n\r\nx"
        );
        exchange(nginx.address(), head.as_bytes())
    };
    assert_eq!(ask("GET /topics", "203.0.113.5").status, 200);
    let detail = ask("POST /events/news", "203.0.113.5").problem(403);
    assert!(detail.contains("auth.publish_key"), "{detail}");
    ask("DELETE /topics/news", "2001:db8::1").problem(403);
    // On the machine itself the name has to be known.
    ask("GET /topics", "127.0.0.1").problem(421);
    replicas[0].wait_for_metric("tidegate_forwarded_without_key", &[], 1.0);
}

/// Minutes that a line such as `hard-stop-after 65m` names.
fn minutes(text: &str, word: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(word))?;
    line.trim()
        .trim_end_matches(';')
        .strip_suffix('m')?
        .parse()
        .ok()
}

/// What is left at the end of that time is cut at one moment: by then each stream must have been cut by its replica.
#[test]
fn after_a_reload_old_workers_of_every_shipped_configuration_outlive_their_streams() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
    assert!(read("deploy/tidegate.toml").contains("#age_max = \"1h\""));
    let table = [
        ("nginx/nginx.conf.template", "worker_shutdown_timeout"),
        ("nginx/production.conf.template", "worker_shutdown_timeout"),
        ("deploy/haproxy/haproxy.cfg", "hard-stop-after"),
    ];
    for (file, word) in table {
        assert_eq!(minutes(&read(file), word), Some(65), "{file}");
    }
    assert!(read("docs/operations.md").contains("**65 minutes**"));
}
