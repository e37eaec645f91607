//! Goal: what is answered 200 has the replicas of Redis that the configuration asks for, what has
//! not is answered 503 and can be sent again without becoming two events, and how Redis itself
//! stands can be watched.
//!
//! Method: a real Redis with a real replica, which is stopped and goes on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step ends the test"
)]

mod support;

use serde_json::json;
use support::{Gateway, Redis, eventually};

/// A Redis, and one that follows it.
fn replicated() -> (Redis, Redis) {
    let master = Redis::with(&["--repl-diskless-sync-delay", "0"]);
    let port = master.port().to_string();
    let replica = Redis::with(&["--replicaof", "127.0.0.1", &port]);
    eventually("the replica follows", || {
        let info: String = replica.run(&["INFO", "replication"]);
        info.contains("master_link_status:up")
    });
    (master, replica)
}

const WAITING: [(&str, &str); 3] = [
    ("log.wait_replicas", "1"),
    ("log.wait_timeout", "200ms"),
    // The pool is small: publishers that wait must not take what readers need.
    ("redis.pool_size", "1"),
];

/// The data of a topic's log on one server.
fn logged(redis: &Redis, topic: &str) -> Vec<String> {
    let key = format!("tidegate:{{0}}:log:{topic}");
    let entries: Vec<(String, std::collections::BTreeMap<String, String>)> =
        redis.run(&["XRANGE", &key, "-", "+"]);
    entries
        .into_iter()
        .map(|(_, mut fields)| fields.remove("data").unwrap())
        .collect()
}

#[test]
fn what_is_answered_is_on_the_replica_already() {
    let (master, replica) = replicated();
    let gateway = Gateway::over(&master, &WAITING);
    let mut expected = Vec::new();
    for number in 0..50 {
        let data = number.to_string();
        gateway.publish("news", &data);
        expected.push(data);
        assert_eq!(logged(&replica, "news"), expected);
    }
    let ids = gateway.publish_batch(&[("news", "b"), ("other", "b")]);
    assert_eq!(ids.len(), 2);
    assert_eq!(logged(&replica, "other"), ["b"]);
}

#[test]
fn what_no_replica_confirms_is_said_to_be_published_and_can_be_sent_again() {
    let (master, mut replica) = replicated();
    let gateway = Gateway::over(&master, &WAITING);
    let mut stream = gateway.listen(&["news"]);
    replica.pause();
    let key = [("Idempotency-Key", "k")];
    let why = "published, but a failover now may lose it: 0 of 1 replicas have confirmed it in time; \
               to be safe, send it again with the same Idempotency-Key";
    let answer = gateway.post("/events/news", &key, "once");
    assert!(answer.headers.get("retry-after").is_some());
    assert_eq!(answer.problem(503), why);
    let shown = stream.next_event();
    assert_eq!(shown.data, "once");
    // Again, and as a batch: a repeat is no better confirmed than the first.
    assert_eq!(gateway.post("/events/news", &key, "once").problem(503), why);
    let line = json!({"topic": "news", "data": "once", "idempotency_key": "k"}).to_string();
    assert_eq!(gateway.post("/events", &[], line).problem(503), why);
    gateway.wait_for_metric("tidegate_unreplicated_publishes_total", &[], 3.0);
    let refused = [("reason", "unavailable")];
    gateway.wait_for_metric("tidegate_publish_refused_total", &refused, 3.0);
    replica.resume();
    let mut id = String::new();
    eventually("the replica confirms", || {
        let answer = gateway.post("/events/news", &key, "once");
        if answer.status == 200 {
            id = answer.id();
        }
        answer.status == 200
    });
    assert_eq!(id, shown.id());
    assert_eq!(logged(&replica, "news"), ["once"]);
    let last = gateway.publish("news", "next");
    assert_eq!(stream.next_event().id(), last);
}

#[test]
fn publishers_that_wait_for_a_replica_keep_nobody_else_waiting() {
    let (master, mut replica) = replicated();
    let config = [
        ("log.wait_replicas", "1"),
        ("log.wait_timeout", "1h"),
        ("redis.pool_size", "1"),
    ];
    let gateway = Gateway::over(&master, &config);
    let id = gateway.publish("news", "first");
    replica.pause();
    std::thread::scope(|scope| {
        let publisher = scope.spawn(|| gateway.publish("news", "waits"));
        let mut history = gateway.open("/events/news?since=earliest", &[]);
        history.opened();
        assert_eq!(history.next_data(2), ["first", "waits"]);
        // It is read and listed while its publisher waits.
        let page = gateway.get("/topics/news/events").json();
        assert_eq!(page["events"][0]["id"], id);
        assert!(!publisher.is_finished());
        replica.resume();
        publisher.join().unwrap();
    });
}

#[test]
fn nothing_waits_for_replicas_unless_the_configuration_asks_for_it() {
    let (master, mut replica) = replicated();
    let gateway = Gateway::over(&master, &[]);
    replica.pause();
    gateway.publish("news", "x");
    gateway.wait_for_metric("tidegate_unreplicated_publishes_total", &[], 0.0);
}

#[test]
fn a_master_that_wants_replicas_itself_refuses_as_unavailable() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[]);
    redis.run::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let answer = gateway.post("/events/news", &[], "x");
    assert_eq!(answer.problem(503), "the log cannot be reached");
    redis.run::<()>(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    gateway.publish("news", "x");
}

// --- how Redis stands ---

#[test]
fn memory_replicas_and_eviction_are_watched_and_eviction_is_warned_of() {
    const MAY_EVICT: &str = "Redis may evict keys of the log when its memory is full: set maxmemory-policy to noeviction";
    let (master, _replica) = replicated();
    let gateway = Gateway::over(&master, &[("redis.allow_eviction", "true")]);
    gateway.wait_for_metric("tidegate_redis_replicas", &[], 1.0);
    gateway.wait_for_metric("tidegate_redis_memory_max_bytes", &[], 0.0);
    gateway.wait_for_metric("tidegate_redis_may_evict", &[], 0.0);
    assert!(gateway.metric("tidegate_redis_memory_bytes", &[]) > 100_000.0);
    assert!(gateway.logged(MAY_EVICT).is_empty());
    // A change while it runs is seen; so is what was so from the start.
    master.run::<()>(&["CONFIG", "SET", "maxmemory", "1gb"]);
    master.run::<()>(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]);
    gateway.wait_for_metric("tidegate_redis_may_evict", &[], 1.0);
    gateway.wait_for_metric("tidegate_redis_memory_max_bytes", &[], 1_073_741_824.0);
    assert_eq!(gateway.logged(MAY_EVICT).len(), 1);
    let another = Gateway::over(&master, &[("redis.allow_eviction", "true")]);
    assert!(another.wait_for_log(MAY_EVICT).is_some());
    master.run::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    another.wait_for_metric("tidegate_redis_may_evict", &[], 0.0);
}
