//! Goal: whatever else writes to Redis, each topic that it does not touch goes on, and what it does
//! touch says so: with an error to whoever asked, or a counter and a line in the log. A replica
//! that does not fit what Redis holds is used by nobody.
//!
//! Method: keys of other types, entries and frames that are not the gateway's, function libraries
//! of other versions, replicas with other partitions; beside each a topic that must not notice.

use crate::support::{
    Gateway, NewEvent, Redis, Sse, Way, eventually, fleet, replica_at, wait_for_ears,
};

const UNREADABLE: &str = "tidegate_unreadable_frames_total";

/// A replica over `redis` that hears raw publishes.
fn listening(redis: &Redis) -> Gateway {
    let replicas = fleet(redis, 1, &[]);
    wait_for_ears(redis, &replicas);
    replicas.into_iter().next().unwrap()
}

/// A topic that nobody has touched: every way to publish works, and its stream shows all of it.
struct Untouched(Sse);

impl Untouched {
    fn watch(gateway: &Gateway) -> Self {
        Self(gateway.listen(&["untouched"]))
    }

    fn assert_goes_on(&mut self, gateway: &Gateway, redis: &Redis, context: &str) {
        for way in Way::ALL {
            let data = format!("{way:?} {context}");
            let event = NewEvent {
                topic: "untouched",
                data: &data,
                ..NewEvent::default()
            };
            way.publish(gateway, redis, event);
            assert_eq!(self.0.next_event().data, data);
        }
    }
}

fn publish_by_function(redis: &Redis, topic: &str) -> redis::RedisResult<String> {
    redis.run_bytes(&[b"FCALL", b"tidegate_publish", b"0", topic.as_bytes(), b"x"])
}

// --- keys of another type ---

#[test]
fn a_log_that_is_no_stream_is_refused_by_name_and_nobody_else_is() {
    let redis = Redis::start();
    let gateway = listening(&redis);
    let mut untouched = Untouched::watch(&gateway);
    redis.run::<()>(&["SET", "tidegate:{0}:log:taken", "a string"]);
    let why = "the key of the log of taken holds something else";
    assert_eq!(gateway.post("/events/taken", &[], "x").problem(500), why);
    let refused = publish_by_function(&redis, "taken").unwrap_err();
    assert_eq!(
        (refused.code(), refused.detail()),
        (Some("TGFOREIGN"), Some(why))
    );
    let batch = "{\"topic\":\"untouched\",\"data\":\"x\"}\n{\"topic\":\"taken\",\"data\":\"x\"}";
    assert_eq!(gateway.post("/events", &[], batch).problem(500), why);
    redis.run::<String>(&["XADD", "tidegate:inbox", "*", "topic", "taken", "data", "x"]);
    redis.publish_raw("events:taken", b"x");
    untouched.assert_goes_on(&gateway, &redis, "beside a string");
    gateway.wait_for_metric(
        "tidegate_publish_refused_total",
        &[("reason", "internal")],
        2.0,
    );
    gateway.wait_for_metric("tidegate_ingest_refused_total", &[("reason", "log")], 1.0);
    gateway.wait_for_metric(
        "tidegate_ingest_refused_total",
        &[("reason", "invalid")],
        1.0,
    );
    // Reading it with others stops none of them.
    let mut stream = gateway.open("/events?topic=taken&topic=untouched&last=1", &[]);
    stream.opened();
    assert_eq!(stream.next_event().data, "Raw beside a string");
    gateway.get("/topics/taken").json();
    assert_eq!(gateway.get("/topics").status, 200);
    gateway.delete("/topics/taken").problem(404);
    assert!(gateway.metric(UNREADABLE, &[]) > 0.0);
    // Somebody tidies up.
    redis.run::<()>(&["DEL", "tidegate:{0}:log:taken"]);
    let id = gateway.publish("taken", "at last");
    assert_eq!(stream.next_event().id(), id);
}

#[test]
fn an_idempotency_key_that_holds_something_else_is_refused_alone() {
    let redis = Redis::start();
    let gateway = listening(&redis);
    let mut untouched = Untouched::watch(&gateway);
    redis.run::<()>(&["LPUSH", "tidegate:{0}:idem:news:k", "a list"]);
    let with_key = |key: &str| gateway.post("/events/news", &[("Idempotency-Key", key)], "x");
    let why = "tidegate:{0}:idem:news:k holds something else";
    assert_eq!(with_key("k").problem(500), why);
    // The inbox goes on behind it.
    let entry = [
        "XADD",
        "tidegate:inbox",
        "*",
        "topic",
        "news",
        "data",
        "x",
        "key",
        "k",
    ];
    redis.run::<String>(&entry);
    untouched.assert_goes_on(&gateway, &redis, "beside a list");
    gateway.wait_for_metric(
        "tidegate_ingest_refused_total",
        &[("reason", "invalid")],
        1.0,
    );
    with_key("another").id();
}

#[test]
fn what_heartbeats_say_makes_its_own_room() {
    let redis = Redis::start();
    redis.run::<()>(&["SET", "tidegate:replicas", "a string"]);
    redis.run::<()>(&["LPUSH", "tidegate:subscribers:r1", "a list"]);
    // Without heartbeats nobody would hear raw publishes.
    let gateway = listening(&redis);
    let mut untouched = Untouched::watch(&gateway);
    untouched.assert_goes_on(&gateway, &redis, "after all");
}

#[test]
fn a_key_of_the_fleet_that_holds_something_else_is_named_in_the_log() {
    for (key, without) in [
        ("tidegate:meta", "all"),
        ("tidegate:{0}:clock", "all"),
        ("tidegate:inbox", "Inbox"),
        ("tidegate:{0}:ingest", "Raw, Inbox"),
    ] {
        let redis = Redis::start();
        redis.run::<()>(&["SET", key, "a string"]);
        let gateway = Gateway::launch_over(&redis, &[("replica.name", "r1")]);
        eventually("it says what is wrong", || {
            let says = |line: &String| line.contains("WRONGTYPE") && line.contains("WARN");
            gateway.log().iter().any(says)
        });
        if without == "all" {
            gateway.get("/readyz").problem(503);
            gateway.post("/events/news", &[], "x").problem(503);
        } else {
            gateway.wait_ready();
            let mut stream = gateway.listen(&["news"]);
            let id = gateway.publish("news", "x");
            assert_eq!(stream.next_event().id(), id, "{key}");
            assert!(gateway.metric("tidegate_redis_errors_total", &[("kind", "refused")]) > 0.0);
        }
        // Nothing needs to be started again.
        redis.run::<()>(&["DEL", key]);
        gateway.wait_ready();
        wait_for_ears(&redis, std::slice::from_ref(&gateway));
        Untouched::watch(&gateway).assert_goes_on(&gateway, &redis, key);
    }
}

// --- entries ---

#[test]
fn a_foreign_entry_in_a_log_is_counted_and_passed_over() {
    let redis = Redis::start();
    let gateway = listening(&redis);
    let mut untouched = Untouched::watch(&gateway);
    let add = |fields: &[&str]| {
        let words = [&["XADD", "tidegate:{0}:log:news", "*"], fields].concat();
        redis.run::<String>(&words);
    };
    // Of one millisecond, Redis may have given out more ids than our clock: an entry that stands
    // above our next id is from the future, until the millisecond is over.
    let publish = |data: &str| {
        let mut answer = gateway.post("/events/news", &[], data);
        eventually("the clock is past what stands there", || {
            if answer.status == 500 {
                answer = gateway.post("/events/news", &[], data);
            }
            answer.status == 200
        });
        answer.id()
    };
    // First of all, in the middle, and as many as a page holds.
    add(&["hello", "world"]);
    let mut live = gateway.listen(&["news"]);
    let mut expected = Vec::new();
    let bad: [&[&str]; 4] = [
        &["hello", "world"],
        &["prev", "1-1", "type", "t"],
        &["prev", "soon", "type", "t", "data", "d"],
        &["prev", "1-1", "type", "a\nb", "data", "d"],
    ];
    for (number, fields) in bad.iter().enumerate() {
        add(fields);
        let id = publish(&number.to_string());
        // What stood there before the foreign one cannot be known: there may be a gap.
        let event = live.next_published();
        assert_eq!(event.id(), id);
        expected.push(event);
    }
    for _ in 0..600 {
        add(&["hello", "world"]);
    }
    let id = publish("last");
    assert_eq!(live.next_event().id(), id);
    // One that has nothing in memory reads all of it.
    let reader = replica_at("127.0.0.1:0".parse().unwrap(), &redis, "r2", &[]);
    reader.wait_ready();
    for since in ["since=earliest", "last_event_id=1-1"] {
        let mut replay = reader.open(&format!("/events?topic=news&{since}"), &[]);
        let mut events: Vec<_> = std::iter::from_fn(|| Some(replay.next_event()))
            .filter(|event| !event.is_own())
            .take(expected.len() + 1)
            .collect();
        assert_eq!(events.pop().unwrap().id(), id, "{since}");
        assert_eq!(events, expected, "{since}");
    }
    assert!(reader.metric(UNREADABLE, &[]) >= 605.0);
    untouched.assert_goes_on(&gateway, &redis, "beside foreign entries");
}

#[test]
fn an_entry_from_the_future_stops_its_topic_and_no_other() {
    let redis = Redis::start();
    let gateway = listening(&redis);
    let mut untouched = Untouched::watch(&gateway);
    let mut live = gateway.listen(&["news"]);
    let first = gateway.publish("news", "first");
    assert_eq!(live.next_event().id(), first);
    for future in ["8888888888888-1", "18446744073709551615-1"] {
        redis.run::<String>(&["XADD", "tidegate:{0}:log:news", future, "hello", "world"]);
    }
    let why = "the log of news holds an entry from the future, 18446744073709551615-1";
    assert_eq!(gateway.post("/events/news", &[], "x").problem(500), why);
    redis.publish_raw("events:news", b"x");
    redis.run::<String>(&["XADD", "tidegate:inbox", "*", "topic", "news", "data", "x"]);
    untouched.assert_goes_on(&gateway, &redis, "beside the future");
    gateway.wait_for_metric("tidegate_ingest_refused_total", &[("reason", "log")], 1.0);
    // It can still be read.
    let mut replay = gateway.open("/events?topic=news&since=earliest", &[]);
    replay.opened();
    assert_eq!(replay.next_event().id(), first);
    // A deletion would have to be appended, too.
    assert_ne!(gateway.delete("/topics/news").status, 200);
    redis.run::<()>(&["DEL", "tidegate:{0}:log:news"]);
    let id = gateway.publish("news", "at last");
    assert_eq!(live.next_event().id(), id);
}

// --- frames ---

#[test]
fn noise_on_the_channels_is_counted_and_nothing_is_missed() {
    let redis = Redis::start();
    let gateway = listening(&redis);
    let mut untouched = Untouched::watch(&gateway);
    let mut live = gateway.listen(&["news", "other"]);
    let noise: [(&str, &[u8]); 8] = [
        ("tidegate:{0}:live:news", b""),
        ("tidegate:{0}:live:news", b"hello"),
        (
            "tidegate:{0}:live:news",
            b"2 1-1 1-0 e t\nof a later layout",
        ),
        ("tidegate:{0}:live:news", b"1 1-1 1-0 e \xff\n"),
        ("tidegate:{0}:tick", b"soon"),
        ("tidegate:ingest", b""),
        ("tidegate:ingest", b"hello"),
        ("tidegate:ingest", b"\xff \xff"),
    ];
    let before = gateway.metric(UNREADABLE, &[]);
    let mut counted = before;
    for (channel, payload) in noise {
        redis.publish_raw(channel, payload);
        counted += 1.0;
        gateway.wait_for_metric(UNREADABLE, &[], counted);
        for topic in ["news", "other"] {
            let id = gateway.publish(topic, "x");
            assert_eq!(live.next_event().id(), id, "{channel} {payload:?}");
        }
        untouched.assert_goes_on(&gateway, &redis, channel);
    }
    // No ear began anew for it.
    let reconnects = gateway.metric("tidegate_redis_reconnects_total", &[("role", "ear")]);
    assert!(reconnects < 0.5, "{reconnects}");
}

// --- other versions ---

/// The libraries of another version of this gateway: the code of this one under another number.
fn load_version(redis: &Redis, version: &str, code: &str) {
    let core = include_str!("../../src/broker/redis/core.lua");
    let sources = [
        (
            format!("tidegate_v{version}"),
            include_str!("../../src/broker/redis/internal.lua"),
        ),
        (
            "tidegate".to_owned(),
            include_str!("../../src/broker/redis/public.lua"),
        ),
    ];
    for (name, source) in sources {
        let library = format!("#!lua name={name}\n{core}\n{source}")
            .replace("@PREFIX@", "tidegate")
            .replace("@VERSION@", version)
            .replace("@CODE@", code);
        redis.run::<String>(&["FUNCTION", "LOAD", "REPLACE", &library]);
    }
}

fn public_version(redis: &Redis) -> u64 {
    let (version, _): (u64, String) = redis.run(&["FCALL_RO", "tidegate_version", "0"]);
    version
}

fn libraries(redis: &Redis) -> Vec<String> {
    let mut names: Vec<String> = redis
        .run::<Vec<std::collections::BTreeMap<String, redis::Value>>>(&["FUNCTION", "LIST"])
        .iter()
        .map(|library| redis::from_redis_value_ref(&library["library_name"]).unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn replicas_of_two_versions_stand_side_by_side() {
    let redis = Redis::start();
    // An older one was there first.
    load_version(&redis, "0", "older");
    let first = listening(&redis);
    let mut untouched = Untouched::watch(&first);
    assert_eq!(
        public_version(&redis),
        1,
        "what people call is replaced upward"
    );
    assert_eq!(
        libraries(&redis),
        ["tidegate", "tidegate_v0", "tidegate_v1"]
    );
    untouched.assert_goes_on(&first, &redis, "after an older one");
    // A newer one comes; older replicas go on, and more of them start.
    load_version(&redis, "2", "newer");
    untouched.assert_goes_on(&first, &redis, "beside a newer one");
    let second = replica_at("127.0.0.1:0".parse().unwrap(), &redis, "r2", &[]);
    second.wait_ready();
    let mut stream = second.listen(&["untouched"]);
    assert_eq!(
        public_version(&redis),
        2,
        "what people call is never replaced downward"
    );
    let expected = ["tidegate", "tidegate_v0", "tidegate_v1", "tidegate_v2"];
    assert_eq!(libraries(&redis), expected);
    let id = redis.publish("untouched", "by the newer function", &[]);
    assert_eq!(stream.next_event().id(), id);
    assert_eq!(untouched.0.next_event().id(), id);
}

#[test]
fn another_build_of_the_same_version_is_refused_and_harms_nobody() {
    let redis = Redis::start();
    load_version(&redis, "1", "another build");
    let gateway = Gateway::launch_over(&redis, &[]);
    let why = "function library tidegate_v1 on the server is of another build";
    eventually("it says why", || {
        gateway.log().iter().any(|line| line.contains(why))
    });
    gateway.get("/readyz").problem(503);
    gateway.post("/events/news", &[], "x").problem(503);
    let replicas: u64 = redis.run(&["EXISTS", "tidegate:replicas"]);
    assert_eq!(replicas, 0, "it takes no part");
    redis.run::<()>(&["FUNCTION", "FLUSH"]);
    gateway.wait_ready();
    gateway.publish("news", "x");
}

#[test]
fn a_replica_with_other_partitions_is_used_by_nobody() {
    let redis = Redis::start();
    let gateway = listening(&redis);
    let mut untouched = Untouched::watch(&gateway);
    // By its name it would be the first to append raw publishes.
    let other = replica_at(
        "127.0.0.1:0".parse().unwrap(),
        &redis,
        "a1",
        &[("redis.partitions", "4")],
    );
    let why = "tidegate:meta says 1 partitions, and redis.partitions is 4";
    eventually("it says why", || {
        other.log().iter().any(|line| line.contains(why))
    });
    other.get("/readyz").problem(503);
    other.post("/events/news", &[], "x").problem(503);
    other.get("/topics").problem(503);
    for round in 0..3 {
        untouched.assert_goes_on(&gateway, &redis, &round.to_string());
    }
    let keys: Vec<String> = redis.run(&["KEYS", "tidegate:{[1-9]*"]);
    assert_eq!(
        keys,
        Vec::<String>::new(),
        "nothing was written to another partition"
    );
    let replicas: Vec<String> = redis.run(&["HKEYS", "tidegate:replicas"]);
    assert_eq!(replicas, ["r1"]);
}
