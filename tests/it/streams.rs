//! Goal: an operator sees which streams are open and who of them is slow, and looking costs the
//! streams nothing.
//!
//! Method: real sockets of which one is not read, over both ways out; a list that is longer than
//! what is looked at in one go.

use crate::support::{Gateway, Nginx, eventually};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpStream;

/// Both ways out of a replica, and what they are called.
const WAYS: [(&str, &str); 2] = [("true", "socket"), ("false", "body")];

/// Asks for a stream and reads nothing of it. The address of this end.
fn ask(gateway: &Gateway, target: &str) -> (TcpStream, String) {
    let mut socket = gateway.connect();
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    (socket, address)
}

fn listed(gateway: &Gateway, query: &str) -> Vec<Value> {
    let answer = gateway.get(&format!("/streams?{query}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["streams"].as_array().unwrap().clone()
}

fn number(row: &Value, field: &str) -> u64 {
    row[field].as_u64().unwrap()
}

#[test]
fn the_stream_that_is_not_read_is_listed_first() {
    for (sockets, way) in WAYS {
        let gateway = Gateway::start(&[("engine.sockets", sockets)]);
        let mut quick = gateway.listen(&["news", "sport"]);
        let (_slow, address) = ask(&gateway, "/events?topic=news&topic=sport");
        gateway.wait_for_metric("tidegate_open_connections", &[], 2.0);
        let data = "x".repeat(60_000);
        let mut behind = 0;
        let mut published = 0;
        // Until its socket is full, and the system's buffers with it.
        eventually("the stream that is not read is behind", || {
            gateway.publish("news", &data);
            published += 1;
            quick.next_published();
            let first = &listed(&gateway, "sort=lag&limit=1")[0];
            behind = number(first, "lag");
            behind >= 5
        });
        let rows = listed(&gateway, "");
        assert_eq!(rows.len(), 2);
        let [slow, quick] = rows.as_slice() else {
            panic!("{rows:?}")
        };
        assert_eq!(slow["address"], address.as_str());
        assert_eq!(slow["topics"], serde_json::json!(["news", "sport"]));
        assert_eq!(number(slow, "topics_count"), 2);
        assert_eq!(slow["way"], way);
        assert_eq!((number(slow, "lag"), number(quick, "lag")), (behind, 0));
        // What was shown and what was not is all that there is.
        assert_eq!(number(slow, "events") + behind, published);
        assert_eq!(number(quick, "events"), published);
        assert!(number(slow, "bytes") < number(quick, "bytes"));
        assert_eq!(quick["state"], "live");
        if way == "socket" {
            assert_eq!(slow["state"], "blocked");
        }
    }
}

#[test]
fn a_stream_behind_the_window_is_further_behind_than_any_within() {
    let gateway = Gateway::start(&[("window.events_max", "4"), ("engine.threads", "1")]);
    let mut quick = gateway.listen(&["news"]);
    let (_slow, address) = ask(&gateway, "/events/news");
    gateway.wait_for_metric("tidegate_open_connections", &[], 2.0);
    let data = "x".repeat(60_000);
    eventually("it is behind the window", || {
        gateway.publish("news", &data);
        quick.next_published();
        listed(&gateway, "limit=1")[0]["lag_at_least"] == true
    });
    let first = &listed(&gateway, "limit=1")[0];
    assert_eq!(
        (&first["address"], number(first, "lag")),
        (&address.into(), 4)
    );
}

/// More than are looked at in one go, on one thread, and as bodies.
#[test]
fn every_stream_is_listed_once_by_age_and_by_bytes() {
    const STREAMS: usize = 600;
    for (sockets, way) in WAYS {
        let gateway = Gateway::start(&[("engine.sockets", sockets), ("engine.threads", "1")]);
        let mut first = gateway.listen(&["first"]);
        let streams: Vec<_> = (1..STREAMS)
            .map(|_| ask(&gateway, "/events/news"))
            .collect();
        let open = u32::try_from(STREAMS).unwrap();
        gateway.wait_for_metric("tidegate_open_connections", &[], open.into());
        let mut rows = Vec::new();
        eventually("all are on their way out", || {
            rows = listed(&gateway, "sort=age&limit=1000");
            rows.len() == STREAMS && rows.iter().all(|row| row["state"] == "live")
        });
        let addresses: BTreeSet<&str> = rows.iter().filter_map(|r| r["address"].as_str()).collect();
        assert_eq!(addresses.len(), STREAMS, "each once");
        assert!(streams.iter().all(|(_, at)| addresses.contains(&**at)));
        assert!(rows.is_sorted_by_key(|row| std::cmp::Reverse(number(row, "age_ms"))));
        // Those of the same millisecond stand in any order.
        let came_first = |row: &&Value| row["topics"][0] == "first";
        let came_first = rows.iter().find(came_first).unwrap();
        assert_eq!(number(came_first, "age_ms"), number(&rows[0], "age_ms"));
        assert!(rows.iter().all(|row| row["way"] == way));
        gateway.publish("first", "x");
        first.next_published();
        let most = listed(&gateway, "sort=bytes&limit=2");
        assert_eq!((most.len(), &most[0]["topics"][0]), (2, &"first".into()));
        let answer = gateway.get("/streams?limit=1").json();
        assert_eq!(answer["open"], STREAMS, "those that are not listed, too");
    }
}

#[test]
fn a_stream_that_waits_for_redis_is_listed_as_opening() {
    let gateway = Gateway::launch(&[
        ("redis.url", "redis://127.0.0.1:1"),
        ("stream.open_wait", "0s"),
    ]);
    let (_waits, address) = ask(&gateway, "/events/news");
    eventually("it is listed", || {
        listed(&gateway, "")
            .first()
            .is_some_and(|row| row["state"] == "opening" && row["address"] == address.as_str())
    });
}

#[test]
fn what_cannot_be_asked_for_is_named() {
    let gateway = Gateway::start(&[]);
    for (query, named) in [
        ("sort=name", "sort"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
    ] {
        let detail = gateway.get(&format!("/streams?{query}")).problem(400);
        assert!(detail.contains(named), "{detail}");
    }
    assert_eq!(listed(&gateway, "sort=bytes"), Vec::<Value>::new());
}

/// Addresses and topics are for operators.
#[test]
fn streams_are_listed_to_operators_only() {
    let gateway = Gateway::start(&[("ops.listen", "127.0.0.1:0")]);
    gateway.get("/streams").problem(404);
    let request = b"GET /streams HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(
        crate::support::exchange(gateway.ops_address().unwrap(), request).status,
        200
    );
    let shared = [Gateway::start(&[])];
    let nginx = Nginx::before(&shared);
    assert_eq!(nginx.get("/streams").status, 404);
    assert_eq!(nginx.get("/streams?sort=lag").status, 404);
}
