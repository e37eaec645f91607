//! Goal: whatever else writes to Redis, each topic that it does not touch goes on, and what it does
//! touch says so: with an error to whoever asked, or a counter and a line in the log. A replica
//! that does not fit what Redis holds is used by nobody.
//!
//! Method: keys of other types, entries and frames that are not the gateway's, function libraries
//! of other versions, replicas with other partitions; beside each a topic that must not notice.

use crate::support::{
    Gateway, NDJSON, NewEvent, Redis, Sse, Way, eventually, fleet, replica_at, wait_for_ears,
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

/// Of one millisecond, Redis may have given out more ids than our clock: an entry that stands above
/// our next id is from the future, until the millisecond is over.
fn publish_in_time(gateway: &Gateway, topic: &str, data: &str) -> String {
    let path = format!("/events/{topic}");
    let mut answer = gateway.post(&path, &[], data);
    eventually("the clock is past what stands there", || {
        if answer.status == 500 {
            answer = gateway.post(&path, &[], data);
        }
        answer.status == 200
    });
    answer.id()
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
    assert_eq!(gateway.post("/events", &[NDJSON], batch).problem(500), why);
    redis.run::<String>(&["XADD", "tidegate:inbox", "*", "topic", "taken", "data", "x"]);
    redis.publish_raw("events:taken", b"x");
    untouched.assert_goes_on(&gateway, &redis, "beside a string");
    gateway.wait_for_metric(
        "tidegate_publish_refused_total",
        &[("reason", "internal")],
        2.0,
    );
    gateway.wait_for_metric("tidegate_ingest_refused_total", &[("reason", "log")], 2.0);
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
    let why = "an idempotency key of news holds something else";
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
    gateway.wait_for_metric("tidegate_ingest_refused_total", &[("reason", "log")], 1.0);
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
    let publish = |data: &str| publish_in_time(&gateway, "news", data);
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

/// Streams of topics that stand beside one whose log begins with these fields go on when the live
/// connection breaks: all of a replica's topics are read together then.
#[test]
fn a_log_that_begins_with_a_foreign_entry_stops_no_other_topic() {
    let big = "9007199254740992";
    let first: [(&str, &[&str]); 5] = [
        ("*", &["prev", "junk", "type", "t", "data", "d"]),
        (
            "*",
            &["prev", "1-9007199254740992", "type", "t", "data", "d"],
        ),
        ("*", &["prev", "9999999999999-1", "type", "t", "data", "d"]),
        ("*", &["hello", "world"]),
        (big, &["prev", "1-1", "type", "t", "data", "d"]),
    ];
    for (id, fields) in first {
        let redis = Redis::start();
        let gateway = listening(&redis);
        let mut untouched = Untouched::watch(&gateway);
        // Of our own before it, which is trimmed, and behind it.
        let lost = gateway.publish("news", "lost");
        let id = match id {
            "*" => "*".to_owned(),
            seq => format!("{}-{seq}", lost.split('-').next().unwrap()),
        };
        let mut both = gateway.listen(&["news", "healthy"]);
        let words = [&["XADD", "tidegate:{0}:log:news", &id], fields].concat();
        redis.run::<String>(&words);
        redis.run::<u64>(&["XTRIM", "tidegate:{0}:log:news", "MAXLEN", "=", "1"]);
        redis.run::<u64>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        for data in ["one", "two"] {
            untouched.assert_goes_on(&gateway, &redis, data);
            let id = gateway.publish("healthy", data);
            assert_eq!(both.next_published().id(), id, "{fields:?}");
        }
        assert!(gateway.metric(UNREADABLE, &[]) > 0.0, "{fields:?}");
        // Whoever was before it is told that something may be missing, and goes on.
        let reader = replica_at("127.0.0.1:0".parse().unwrap(), &redis, "r2", &[]);
        reader.wait_ready();
        let mut replay = reader.open("/events?topic=news&topic=healthy&last_event_id=1-1", &[]);
        let told: Vec<_> = std::iter::from_fn(|| Some(replay.next_event()))
            .take_while(|event| event.data != "two")
            .map(|event| event.event)
            .collect();
        assert!(
            told.contains(&"tidegate.gap".to_owned()),
            "{fields:?}: {told:?}"
        );
        let id = publish_in_time(&gateway, "news", "behind it");
        assert_eq!(replay.next_event().id(), id, "{fields:?}");
        assert_eq!(both.next_published().id(), id, "{fields:?}");
    }
}

/// What stood before a foreign entry may be lost with it: no cursor below it is taken for whole.
#[test]
fn what_was_trimmed_before_a_foreign_entry_is_told() {
    let redis = Redis::start();
    let gateway = listening(&redis);
    // All of one millisecond.
    let batch =
        ["seen", "lost"].map(|data| format!("{{\"topic\":\"news\",\"data\":\"{data}\"}}\n"));
    assert_eq!(
        gateway.post("/events", &[NDJSON], batch.concat()).status,
        200
    );
    let log: Vec<(String, Vec<String>)> = redis.run(&["XRANGE", "tidegate:{0}:log:news", "-", "+"]);
    let cursor = &log[0].0;
    let foreign = format!("{}-9", cursor.split('-').next().unwrap());
    let add = ["XADD", "tidegate:{0}:log:news", &foreign, "hello", "world"];
    redis.run::<String>(&add);
    redis.run::<u64>(&["XTRIM", "tidegate:{0}:log:news", "MAXLEN", "=", "1"]);
    let reader = replica_at("127.0.0.1:0".parse().unwrap(), &redis, "r2", &[]);
    reader.wait_ready();
    let path = format!("/events?topic=news&last_event_id={cursor}");
    let mut replay = reader.open(&path, &[]);
    replay.opened();
    assert_eq!(replay.next_event().event, "tidegate.gap");
    // The next of ours knows what it follows: from then on the gap ends there.
    let kept = publish_in_time(&gateway, "news", "kept");
    let mut replay = reader.open(&path, &[]);
    replay.opened();
    let gap: serde_json::Value = serde_json::from_str(&replay.next_event().data).unwrap();
    assert_eq!(gap["from"], **cursor, "{gap}");
    assert_eq!(replay.next_event().id(), kept);
}

/// Deleted by hand, or evicted: its head knows that there was a log, and how far it went.
#[test]
fn a_log_that_somebody_has_deleted_is_told() {
    let redis = Redis::start();
    let gateway = listening(&redis);
    let cursor = gateway.publish("news", "seen");
    let lost = gateway.publish("news", "lost");
    redis.run::<u64>(&["DEL", "tidegate:{0}:log:news"]);
    let path = format!("/events?topic=news&last_event_id={cursor}");
    let mut kept = Vec::new();
    for number in ["r2", "r3"] {
        let reader = replica_at("127.0.0.1:0".parse().unwrap(), &redis, number, &[]);
        reader.wait_ready();
        let mut replay = reader.open(&path, &[]);
        replay.opened();
        let gap: serde_json::Value = serde_json::from_str(&replay.next_event().data).unwrap();
        assert_eq!(
            (&gap["from"], &gap["to"]),
            (&cursor.as_str().into(), &lost.as_str().into())
        );
        // Behind it everything is there, now and for the next one who comes.
        kept.push(gateway.publish("news", "kept"));
        for id in &kept {
            assert_eq!(replay.next_event().id(), *id);
        }
    }
}

/// A head that somebody has written over is found again in the log.
#[test]
fn a_head_that_is_no_id_is_not_believed() {
    let redis = Redis::start();
    let gateway = listening(&redis);
    let mut live = gateway.listen(&["news"]);
    for head in ["junk", "1-9007199254740992", "9999999999999-1", "01-1 end"] {
        let first = gateway.publish("news", "first");
        assert_eq!(live.next_event().id(), first, "{head}");
        redis.run::<u64>(&["HSET", "tidegate:{0}:heads", "news", head]);
    }
    let last = gateway.publish("news", "last");
    assert_eq!(live.next_event().id(), last);
    assert!(gateway.metric(UNREADABLE, &[]) < 0.5);
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
    gateway.wait_for_metric("tidegate_ingest_refused_total", &[("reason", "log")], 2.0);
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

// --- calls ---

/// Published to another partition, nobody would read it.
/// Its greatest id outlives the entry: XADD refuses what is not above it. The error came out of the middle
/// of a batch, of an append of all ears, and of every report.
#[test]
fn a_log_that_once_held_an_entry_from_the_future_stops_no_other_topic() {
    let mut redis = Redis::durable();
    let gateway = listening(&redis);
    let mut untouched = Untouched::watch(&gateway);
    gateway.publish("news", "first");
    let _reader = gateway.listen(&["news"]);
    let future = "8888888888888-1";
    redis.run::<String>(&["XADD", "tidegate:{0}:log:news", future, "a", "b"]);
    redis.run::<u64>(&["XDEL", "tidegate:{0}:log:news", future]);
    let why = "the log of news holds an entry from the future, or did";
    assert_eq!(gateway.post("/events/news", &[], "x").problem(500), why);
    let batch = "{\"topic\":\"other\",\"data\":\"x\"}\n{\"topic\":\"news\",\"data\":\"x\"}\n";
    let answer = gateway.post("/events", &[NDJSON], batch);
    assert_eq!(answer.status, 500, "{}", answer.text());
    let other: Vec<redis::Value> = redis.run(&["XRANGE", "tidegate:{0}:log:other", "-", "+"]);
    assert!(other.is_empty(), "half of a batch is published");
    redis.publish_raw("events:news", b"x");
    redis.run::<String>(&["XADD", "tidegate:inbox", "*", "topic", "news", "data", "x"]);
    untouched.assert_goes_on(&gateway, &redis, "beside a greatest id in the future");
    // Another process: what was heard of each topic is reported.
    redis.restart();
    wait_for_ears(&redis, std::slice::from_ref(&gateway));
    untouched.assert_goes_on(&gateway, &redis, "after the report");
}

#[test]
fn a_function_that_is_given_a_key_of_another_partition_refuses() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[("redis.partitions", "4")]);
    let mut stream = gateway.listen(&["news"]);
    let call = |name: &str, key: &str| {
        let words: [&[u8]; 6] = [
            b"FCALL",
            name.as_bytes(),
            b"1",
            key.as_bytes(),
            b"news",
            b"x",
        ];
        let count = if name == "tidegate_delete" { 5 } else { 6 };
        redis.run_bytes::<String>(&words[..count])
    };
    let mut ids = Vec::new();
    for name in ["tidegate_publish", "tidegate_delete"] {
        for key in [
            "{0}", "{1}", "{2}", "{3}", "{4}", "{5}", "news", "{}", "{-1}", "{00}",
        ] {
            match call(name, key) {
                Ok(id) => ids.push((id, key)),
                Err(why) => assert!(
                    why.detail().unwrap().contains("for topic news"),
                    "{name} {key}: {why}"
                ),
            }
        }
    }
    let [(published, one), (deleted, other)] = &ids[..] else {
        panic!("{ids:?}");
    };
    assert_eq!(one, other, "the topic's own partition");
    for id in [published, deleted] {
        let event = stream.next_event();
        assert!(event.id().ends_with(id.as_str()), "{event:?}");
    }
}

/// FLUSHALL takes the number of partitions, and leaves the functions. What was published by them until a
/// replica had said the number again went to the first partition, where nobody reads its topic.
#[test]
fn a_function_that_does_not_know_the_partitions_refuses_until_it_is_told() {
    let redis = Redis::start();
    let config = [("redis.partitions", "4"), ("redis.tick_after", "1h")];
    let gateway = Gateway::over(&redis, &config);
    let mut stream = gateway.listen(&["news"]);
    let publish =
        || redis.run_bytes::<String>(&[b"FCALL", b"tidegate_publish", b"0", b"news", b"x"]);
    publish().unwrap();
    stream.next_event();
    redis.run::<()>(&["FLUSHALL"]);
    let mut published = None;
    eventually("a replica has said how many partitions there are", || {
        published = match publish() {
            Ok(id) => Some(id),
            Err(why) => {
                assert_eq!(why.code(), Some("TGNOTREADY"), "{why}");
                None
            }
        };
        published.is_some()
    });
    let published = published.unwrap();
    // Nothing that was accepted since is missing.
    assert!(stream.next_published().id().ends_with(published.as_str()));
}

/// Somebody deleted the inbox, and the clock of Redis was put back: what is in it was not moved.
#[test]
fn an_inbox_entry_below_the_last_one_is_published_once() {
    let redis = Redis::start();
    let gateway = listening(&redis);
    let mut stream = gateway.listen(&["news"]);
    for (number, id) in ["*", "5-1", "7-1", "6-9", "*"].iter().enumerate() {
        let data = number.to_string();
        // Empty, it would remember its last id still.
        redis.run::<()>(&["DEL", "tidegate:inbox"]);
        redis.run::<String>(&["XADD", "tidegate:inbox", id, "topic", "news", "data", &data]);
        assert_eq!(stream.next_event().data, data, "{id}");
        eventually("it is gone", || {
            redis.run::<u64>(&["XLEN", "tidegate:inbox"]) == 0
        });
    }
    assert!(gateway.metric("tidegate_ingest_refused_total", &[]) < 0.5);
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

// --- other builds ---

/// The functions of an older release: its public ones have version 1, its internal ones a number.
fn load_older(redis: &Redis) {
    let core = include_str!("../data/older_release/core.lua");
    let internal = include_str!("../data/older_release/internal.lua");
    let public = include_str!("../data/older_release/public.lua");
    for (name, source) in [("tidegate_v1", internal), ("tidegate", public)] {
        let library = format!("#!lua name={name}\n{core}\n{source}")
            .replace("@PREFIX@", "tidegate")
            .replace("@VERSION@", "1")
            .replace("@CODE@", "older");
        redis.run::<String>(&["FUNCTION", "LOAD", "REPLACE", &library]);
    }
}

/// Public functions of a newer release: those of this one under a higher version.
fn load_newer(redis: &Redis) {
    let core = include_str!("../../src/broker/redis/core.lua");
    let public = include_str!("../../src/broker/redis/public.lua");
    let library = format!("#!lua name=tidegate\n{core}\n{public}")
        .replace("@PREFIX@", "tidegate")
        .replace("@VERSION@", "99")
        .replace("@CODE@", "newer");
    redis.run::<String>(&["FUNCTION", "LOAD", "REPLACE", &library]);
}

fn public_version(redis: &Redis) -> u64 {
    let (version, _): (u64, String) = redis.run(&["FCALL_RO", "tidegate_version", "0"]);
    version
}

/// The libraries that replicas call; theirs is not the public one.
fn internal_libraries(redis: &Redis) -> Vec<String> {
    let mut names: Vec<String> = redis
        .run::<Vec<std::collections::BTreeMap<String, redis::Value>>>(&["FUNCTION", "LIST"])
        .iter()
        .map(|library| redis::from_redis_value_ref(&library["library_name"]).unwrap())
        .filter(|name| name != "tidegate")
        .collect();
    names.sort();
    names
}

/// What `tidegate functions` prints.
fn functions(redis: &Redis, args: &[&str]) -> String {
    let url = redis.url();
    let out = crate::support::run(&[&["functions", "--redis-url", &url], args].concat(), &[]);
    assert_eq!(out.code, Some(0), "{out:?}");
    out.stdout.trim().to_owned()
}

/// What older replicas ask of their functions.
struct Older<'a>(&'a Redis);

impl Older<'_> {
    fn publish(&self, topic: &str, data: &str, key: &str) -> String {
        let call = ["FCALL", "tidegate_v1_publish", "0", "0"];
        let ids: Vec<String> = self
            .0
            .run(&[&call[..], &[topic, "", data, "", key]].concat());
        ids.into_iter().next().unwrap()
    }

    fn read(&self, topic: &str) -> Vec<String> {
        let call = [
            "FCALL_RO",
            "tidegate_v1_read",
            "0",
            "0",
            topic,
            "0-0",
            "100",
        ];
        let answer: Vec<redis::Value> = self.0.run(&call);
        let page: Vec<redis::Value> = redis::from_redis_value_ref(&answer[5]).unwrap();
        let entries: Vec<(String, Vec<String>)> = redis::from_redis_value_ref(&page[4]).unwrap();
        entries.into_iter().map(|(id, _)| id).collect()
    }
}

#[test]
fn replicas_of_two_builds_write_and_read_one_log() {
    let redis = Redis::start();
    // An older one was there first.
    load_older(&redis);
    let older = Older(&redis);
    let gateway = listening(&redis);
    let mut untouched = Untouched::watch(&gateway);
    let mut stream = gateway.listen(&["news"]);
    let mut ids = Vec::new();
    for round in 0..20 {
        let key = format!("k{round}");
        let by_older = older.publish("news", "older", &key);
        let with_key = gateway.post("/events/news", &[("Idempotency-Key", &key)], "again");
        assert_eq!(with_key.id(), by_older, "a key is one key for both");
        let by_newer = gateway.publish("news", "newer");
        for id in [by_older, by_newer] {
            assert_eq!(stream.next_event().id(), id);
            ids.push(id);
        }
    }
    assert_eq!(older.read("news"), ids);
    let mut replay = gateway.open("/events?topic=news&since=earliest", &[]);
    replay.opened();
    for id in &ids {
        assert_eq!(replay.next_event().id(), *id);
    }
    untouched.assert_goes_on(&gateway, &redis, "beside an older one");
    assert_eq!(internal_libraries(&redis).len(), 2);
    // One that was moved out of the inbox by the one is not moved by the other.
    let entry: String = redis.run(&["XADD", "tidegate:inbox", "*", "topic", "news", "data", "x"]);
    assert_eq!(stream.next_event().data, "x");
    let moved: Vec<u64> = redis.run(&[
        "FCALL",
        "tidegate_v1_inbox",
        "0",
        "0",
        &entry,
        "news",
        "",
        "x",
        "",
        "",
    ]);
    assert_eq!(moved, [0, 0]);
}

#[test]
fn public_functions_are_replaced_by_newer_ones_and_back_only_by_an_operator() {
    let redis = Redis::start();
    load_older(&redis);
    let gateway = listening(&redis);
    assert_eq!(
        functions(&redis, &[]),
        "Redis has version: 10, this build: 10"
    );
    assert_eq!(
        public_version(&redis),
        10,
        "what people call is replaced upward"
    );
    // The functions of replicas are deleted, and those that people call are old: both are mended
    // as soon as one is missing.
    let own = internal_libraries(&redis);
    let own = own.iter().find(|name| *name != "tidegate_v1").unwrap();
    load_older(&redis);
    redis.run::<String>(&["FUNCTION", "DELETE", own]);
    gateway.publish("news", "x");
    // Whoever noticed first loads the one after the other.
    eventually("both are mended", || public_version(&redis) == 10);
    // A newer one comes; older replicas go on, and more of them start.
    load_newer(&redis);
    let second = replica_at("127.0.0.1:0".parse().unwrap(), &redis, "r2", &[]);
    second.wait_ready();
    gateway.publish("news", "x");
    assert_eq!(public_version(&redis), 99, "never replaced downward");
    assert_eq!(
        functions(&redis, &["--install"]),
        "version 10 is installed, before: 99"
    );
    assert_eq!(public_version(&redis), 10);
    redis.publish("news", "by the function", &[]);
}

#[test]
fn a_library_that_no_replica_uses_is_removed() {
    let redis = Redis::start();
    load_older(&redis);
    let foreign =
        "#!lua name=tidegate_mine\nredis.register_function('mine', function() return 1 end)";
    redis.run::<String>(&["FUNCTION", "LOAD", foreign]);
    // Two hours ago a replica used it last.
    let (now, _): (u64, u64) = redis.run(&["TIME"]);
    let last = ((now - 7_200) * 1_000).to_string();
    redis.run::<u64>(&["HSET", "tidegate:libraries", "tidegate_v1", &last]);
    let gateway = listening(&redis);
    eventually("it is removed", || {
        !internal_libraries(&redis).contains(&"tidegate_v1".to_owned())
    });
    gateway.publish("news", "x");
    // Neither its own, nor what is not the gateway's.
    let left = internal_libraries(&redis);
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.contains(&"tidegate_mine".to_owned()), "{left:?}");
    // One of which nothing is known may be in use.
    load_older(&redis);
    let second = replica_at("127.0.0.1:0".parse().unwrap(), &redis, "r2", &[]);
    second.wait_ready();
    eventually("it is noted", || {
        redis.run::<bool>(&["HEXISTS", "tidegate:libraries", "tidegate_v1"])
    });
    assert!(internal_libraries(&redis).contains(&"tidegate_v1".to_owned()));
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
