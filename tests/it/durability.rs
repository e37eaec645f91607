//! Goal: docs/durability.md is true. What is answered 200 has the replicas of Redis that the
//! configuration asks for, what has not is answered 503 and can be sent again without becoming two
//! events; what Redis has on disk comes back, what it has not is told; and how Redis itself stands
//! can be watched.
//!
//! Method: a real Redis with a real replica, which is stopped and goes on; or one that is killed and
//! starts again. Failovers are in `tests/it/sentinel.rs`, losses under load in the fault runner.

use crate::support::{
    Directory, Gateway, NDJSON, NewEvent, Redis, Way, eventually, position, wait_for_ears,
};
use serde_json::json;

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
    // A machine that is busy may take its time to confirm.
    let config = [WAITING[0], ("log.wait_timeout", "1h")];
    let gateway = Gateway::over(&master, &config);
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
    let other = Gateway::over(&master, &WAITING);
    let mut stream = gateway.listen(&["news"]);
    replica.pause();
    let key = [("Idempotency-Key", "k")];
    let why = "published, but a failover may lose it: 0 of 1 replicas have confirmed it in time; \
               send it again with the same Idempotency-Key";
    let answer = gateway.post("/events/news", &key, "once");
    assert!(answer.headers.get("retry-after").is_some());
    assert_eq!(answer.problem(503), why);
    let shown = stream.next_event();
    assert_eq!(shown.data, "once");
    // Again, and as a batch: a repeat is no better confirmed than the first, be it over a connection
    // that has written nothing yet.
    let line = json!({"topic": "news", "data": "once", "idempotency_key": "k"}).to_string();
    for gateway in [&gateway, &other] {
        assert_eq!(gateway.post("/events/news", &key, "once").problem(503), why);
        assert_eq!(gateway.post("/events", &[NDJSON], &line).problem(503), why);
    }
    let mut publisher = master.connect();
    let mut publish = redis::cmd("FCALL");
    publish.arg(&["tidegate_publish", "0", "news", "once", "", "", "k"]);
    let repeated: String = publish.query(&mut publisher).unwrap();
    let wait = redis::cmd("WAIT").arg(&["1", "100"]).query(&mut publisher);
    assert_eq!((repeated.as_str(), wait), (shown.id(), Ok(0)));
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

#[test]
fn raw_publishes_and_the_inbox_do_not_wait_for_replicas_of_redis() {
    let (master, mut replica) = replicated();
    let config = [("log.wait_replicas", "1"), ("log.wait_timeout", "1h")];
    let gateway = Gateway::over(&master, &config);
    wait_for_ears(&master, std::slice::from_ref(&gateway));
    let mut stream = gateway.listen(&["news"]);
    replica.pause();
    for way in [Way::Raw, Way::Inbox, Way::Function] {
        for number in 0..5 {
            let data = format!("{way:?} {number}");
            let event = NewEvent {
                topic: "news",
                data: &data,
                ..NewEvent::default()
            };
            way.publish(&gateway, &master, event);
            assert_eq!(stream.next_event().data, data);
        }
    }
}

#[test]
fn a_publisher_of_the_function_can_wait_for_replicas_itself() {
    let (master, replica) = replicated();
    let _gateway = Gateway::over(&master, &[]);
    let mut connection = master.connect();
    for number in 0..50 {
        let mut publish = redis::cmd("FCALL");
        publish.arg(&["tidegate_publish", "0", "news", &number.to_string()]);
        publish.exec(&mut connection).unwrap();
        let confirmed: u64 = redis::cmd("WAIT")
            .arg(&["1", "0"])
            .query(&mut connection)
            .unwrap();
        assert_eq!((confirmed, logged(&replica, "news").len()), (1, number + 1));
    }
}

#[test]
fn a_master_that_wants_replicas_leaves_raw_publishes_with_the_ears() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[]);
    wait_for_ears(&redis, std::slice::from_ref(&gateway));
    let mut stream = gateway.listen(&["news"]);
    redis.run::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let sent: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    for data in &sent {
        assert_eq!(redis.publish_raw("events:news", data.as_bytes()), 1);
    }
    eventually("the ear owes them", || {
        gateway.metric("tidegate_ingest_owed", &[]) >= 20.0
    });
    assert!(logged(&redis, "news").is_empty());
    redis.run::<()>(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    assert_eq!(stream.next_data(20), sent);
}

// --- what is on disk ---

#[test]
fn what_redis_has_answered_outlives_its_process_with_an_append_only_file() {
    for appendfsync in ["always", "no"] {
        let mut redis = Redis::with(&["--appendonly", "yes", "--appendfsync", appendfsync]);
        let gateway = Gateway::over(&redis, &[("redis.backoff_max", "50ms")]);
        let mut stream = gateway.listen(&["news"]);
        let sent: Vec<String> = (0..200).map(|number| number.to_string()).collect();
        for data in &sent {
            redis.publish("news", data, &[]);
        }
        redis.restart();
        assert_eq!(logged(&redis, "news"), sent, "{appendfsync}");
        assert_eq!(stream.next_data(200), sent, "{appendfsync}");
        redis.publish("news", "after", &[]);
        assert_eq!(stream.next_event().data, "after", "{appendfsync}");
    }
}

#[test]
fn what_came_after_the_last_snapshot_is_lost_and_told_and_can_be_sent_again() {
    let mut redis = Redis::start();
    let gateway = Gateway::over(&redis, &[("redis.backoff_max", "50ms")]);
    let publish = |data: &str| gateway.post("/events/news", &[("Idempotency-Key", data)], data);
    let mut stream = gateway.listen(&["news"]);
    let kept = publish("kept").id();
    redis.run::<()>(&["SAVE"]);
    let lost = publish("lost").id();
    assert_eq!(stream.next_data(2), ["kept", "lost"]);
    redis.restart();
    // Its key was lost with it.
    let mut again = String::new();
    eventually("it is published again", || {
        let answer = publish("lost");
        if answer.status == 200 {
            again = answer.id();
        }
        answer.status == 200
    });
    assert!(position(&lost) < position(&again), "{lost} {again}");
    assert_eq!(publish("kept").id(), kept);
    let events = logged(&redis, "news").into_iter();
    let events: Vec<String> = events.filter(|data| !data.starts_with('{')).collect();
    assert_eq!(events, ["kept", "lost"]);
    // Who has seen it lacks nothing, and may be told all the same. Who comes back is.
    assert_eq!(stream.next_published().id(), again);
    for cursor in [&kept, &lost] {
        let mut back = gateway.open("/events/news", &[("Last-Event-ID", cursor)]);
        back.opened();
        // A report of what is lost may come after what is published next.
        let (mut is_shown, mut is_told) = (false, false);
        while !is_shown || !is_told {
            let event = back.next_event();
            if event.event == "tidegate.gap" {
                assert_eq!(event.json()["reason"], "rewound");
                is_told = true;
            } else {
                assert_eq!(event.id(), again);
                is_shown = true;
            }
        }
    }
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
    // The line is written after the gauge is set.
    assert!(gateway.wait_for_log(MAY_EVICT).is_some());
    assert_eq!(gateway.logged(MAY_EVICT).len(), 1);
    let another = Gateway::over(&master, &[("redis.allow_eviction", "true")]);
    assert!(another.wait_for_log(MAY_EVICT).is_some());
    master.run::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    another.wait_for_metric("tidegate_redis_may_evict", &[], 0.0);
}

#[test]
fn a_save_that_fails_is_watched_and_warned_of_until_one_succeeds() {
    const FAILS: &str =
        "Redis fails to save what it holds: a restart of it would lose events; its log says why";
    let redis = Redis::with(&["--enable-protected-configs", "yes"]);
    let gateway = Gateway::over(&redis, &[]);
    let snapshot = [("save", "snapshot")];
    let has_failed = "tidegate_redis_save_failed";
    let folder = Directory::create();
    let good: Vec<String> = redis.run(&["CONFIG", "GET", "dir"]);
    let lost = folder.0.join("lost");
    std::fs::create_dir(&lost).unwrap();
    redis.run::<()>(&["CONFIG", "SET", "dir", lost.to_str().unwrap()]);
    std::fs::remove_dir(&lost).unwrap();
    assert!(gateway.logged(FAILS).is_empty());
    redis.run::<()>(&["BGSAVE"]);
    gateway.wait_for_metric(has_failed, &snapshot, 1.0);
    // The line is written after the gauge is set.
    let line = gateway.wait_for_log(FAILS).unwrap();
    assert!(line.contains("snapshot"), "{line}");
    for save in ["append", "rewrite"] {
        gateway.wait_for_metric(has_failed, &[("save", save)], 0.0);
    }
    redis
        .run_bytes::<()>(&[b"BGREWRITEAOF"])
        .expect_err("its folder cannot be made");
    gateway.wait_for_metric(has_failed, &[("save", "rewrite")], 1.0);
    // Who comes while it fails knows it, too.
    let another = Gateway::over(&redis, &[]);
    another.wait_for_metric(has_failed, &snapshot, 1.0);
    redis.run::<()>(&["CONFIG", "SET", "dir", &good[1]]);
    redis.run::<()>(&["BGSAVE"]);
    gateway.wait_for_metric(has_failed, &snapshot, 0.0);
    // One line each.
    assert_eq!(gateway.logged_at_least(2, FAILS).len(), 2);
}
