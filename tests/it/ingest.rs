//! Goal: whatever stands in the inbox or is published raw, of whatever size, costs a bounded amount of
//! memory, is counted and told with its reason, and keeps nobody else's events from their streams.
//!
//! Method: a real Redis, entries and publishes that are huge, unreadable, refused, or have the greatest
//! id there is, and good ones in between.

use crate::doctor::doctor;
use crate::support::{Gateway, Redis, eventually, fleet, wait_for_ears};
use serde_json::{Value, json};

const MIB: usize = 1 << 20;
const REFUSED: &str = "tidegate_ingest_refused_total";
const GREATEST: &str = "18446744073709551615-18446744073709551615";

fn xadd(redis: &Redis, id: &str, topic: &str, data: &[u8]) -> redis::RedisResult<String> {
    let words: [&[u8]; 7] = [
        b"XADD",
        b"tidegate:inbox",
        id.as_bytes(),
        b"topic",
        topic.as_bytes(),
        b"data",
        data,
    ];
    redis.run_bytes(&words)
}

fn is_empty(redis: &Redis) -> bool {
    redis.run::<u64>(&["XLEN", "tidegate:inbox"]) == 0
}

/// A field of the lines with this message, in order.
fn told(gateway: &Gateway, message: &str, field: &str) -> Vec<String> {
    let lines = gateway.logged(message);
    let read = lines.iter().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        match &line["fields"][field] {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    });
    read.collect()
}

/// They were read 128 at a time, whatever their size: twelve of them took 600 MB.
#[test]
fn huge_inbox_entries_cost_a_replica_no_memory_and_hold_nobody_up() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[]);
    let mut stream = gateway.listen(&["news"]);
    let before = gateway.peak_memory();
    let huge = vec![b'x'; 16 * MIB];
    for number in 0..12 {
        xadd(&redis, "*", "news", &huge).unwrap();
        xadd(&redis, "*", "news", number.to_string().as_bytes()).unwrap();
    }
    let numbers: Vec<String> = (0..12).map(|number| number.to_string()).collect();
    assert_eq!(stream.next_data(12), numbers);
    gateway.wait_for_metric(REFUSED, &[("reason", "invalid")], 12.0);
    eventually("the inbox is empty", || is_empty(&redis));
    let grown = gateway.peak_memory().saturating_sub(before);
    assert!(grown < 16 * MIB, "{grown} bytes");
    // Nor does Redis keep them: Lua's garbage is not counted in the data.
    let info: String = redis.run(&["INFO", "memory"]);
    let used = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory_vm_functions:"));
    let used: usize = used.unwrap().trim().parse().unwrap();
    assert!(used < 40 * MIB, "{used} bytes of Lua");
}

/// An entry of so many fields beside its topic and its data.
fn xadd_fields(redis: &Redis, id: &str, topic: &str, fields: usize) {
    let names: Vec<String> = (0..fields).map(|number| format!("{number:x}")).collect();
    let mut words: Vec<&[u8]> = ["XADD", "tidegate:inbox", id, "topic", topic, "data", "x"]
        .map(str::as_bytes)
        .to_vec();
    for name in &names {
        words.extend([name.as_bytes(), b""]);
    }
    redis.run_bytes::<String>(&words).unwrap();
}

/// Redis stood still for four seconds where the texts of one entry were read: a million, of a byte or none.
#[test]
fn inbox_entries_of_a_million_fields_are_dropped_unread_and_all_others_are_moved() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[]);
    let mut stream = gateway.listen(&["news", "other"]);
    // Nothing is moved before all of it is there.
    let url = redis.url();
    let mut expected = Vec::new();
    for number in 0..40 {
        let data = number.to_string();
        xadd(&redis, "*", "other", data.as_bytes()).unwrap();
        expected.push(data);
        if number % 10 == 0 {
            xadd_fields(&redis, "*", "news", 100_000);
        }
        let large = "y".repeat(60_000);
        xadd(&redis, "*", "other", large.as_bytes()).unwrap();
        expected.push(large);
    }
    assert_eq!(stream.next_data(80), expected);
    gateway.wait_for_metric(REFUSED, &[("reason", "invalid")], 4.0);
    eventually("the inbox is empty", || is_empty(&redis));
    let message = "an inbox entry is no event, or is refused by the log, and is gone";
    let why = told(&gateway, message, "why").concat();
    assert!(why.contains("dropped unread"), "{why}");
    let found = doctor(&[("redis.url", &url)], &[]);
    let said = found.said("redis.refused");
    assert!(said.contains("TGLARGE"), "{said}");
    // One that ends all measuring, and one that stands before it.
    xadd_fields(&redis, "*", "news", 100_000);
    xadd(&redis, GREATEST, "other", b"last").unwrap();
    assert_eq!(stream.next_data(1), ["last"]);
    gateway.wait_for_metric(REFUSED, &[("reason", "invalid")], 5.0);
}

#[test]
fn an_inbox_entry_has_some_fields_and_not_any_number() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[]);
    let mut stream = gateway.listen(&["news"]);
    xadd_fields(&redis, "*", "news", 14);
    assert_eq!(
        stream.next_event().data,
        "x",
        "others than ours are ignored"
    );
    xadd_fields(&redis, "*", "news", 15);
    gateway.wait_for_metric(REFUSED, &[("reason", "invalid")], 1.0);
    let message = "an inbox entry is no event, or is refused by the log, and is gone";
    let why = told(&gateway, message, "why").concat();
    assert!(why.contains("at most 16 fields"), "{why}");
}

#[test]
fn inbox_entries_go_to_the_partition_of_their_topic() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[("redis.partitions", "7")]);
    let topics = ["a", "b", "news", "f\u{fc}r", "a:b", "0"];
    let mut streams = topics.map(|topic| gateway.listen(&[topic]));
    for topic in topics {
        xadd(&redis, "*", topic, topic.as_bytes()).unwrap();
    }
    for (stream, topic) in streams.iter_mut().zip(topics) {
        assert_eq!(stream.next_event().data, topic);
    }
}

/// The inbox took no entry any more, and nobody was told.
#[test]
fn an_inbox_that_has_come_to_the_greatest_id_begins_anew() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[]);
    let mut stream = gateway.listen(&["news"]);
    let exact = "9007199254740992-0";
    for (number, id) in [GREATEST, exact, GREATEST].iter().enumerate() {
        xadd(&redis, id, "news", b"last").unwrap();
        assert_eq!(stream.next_event().data, "last");
        eventually("it takes entries", || {
            xadd(&redis, "*", "news", b"next").is_ok()
        });
        assert_eq!(stream.next_event().data, "next", "after {id}");
        eventually("it is told", || {
            let message = "the inbox had come to an id after which it takes no entry, and is begun anew; \
                           somebody adds entries with ids of their own";
            told(&gateway, message, "last").len() == number + 1
        });
    }
    // Nobody has seen this one: it was trimmed as it came.
    let trimmed = [
        "XADD",
        "tidegate:inbox",
        "MAXLEN",
        "0",
        GREATEST,
        "topic",
        "news",
        "data",
        "x",
    ];
    redis.run::<String>(&trimmed);
    eventually("it takes entries", || {
        xadd(&redis, "*", "news", b"y").is_ok()
    });
    assert_eq!(stream.next_event().data, "y");
    // Deleted by hand, it goes on, too.
    xadd(&redis, GREATEST, "news", b"z").unwrap();
    assert_eq!(stream.next_event().data, "z");
    redis.run::<()>(&["DEL", "tidegate:inbox"]);
    xadd(&redis, "*", "news", b"at last").unwrap();
    assert_eq!(stream.next_event().data, "at last");
    assert!(gateway.metric(REFUSED, &[]) < 0.5);
}

/// A log that once held the greatest id of all has Redis fail in another way than any other: that
/// entry stayed first in the inbox, and that publish first of what ears owe, for ever.
#[test]
fn an_event_that_its_log_cannot_take_keeps_no_other_waiting() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 1, &[]);
    let gateway = &replicas[0];
    wait_for_ears(&redis, &replicas);
    let mut stream = gateway.listen(&["news"]);
    let log = "tidegate:{0}:log:poisoned";
    redis.run::<String>(&["XADD", log, GREATEST, "a", "b"]);
    redis.run::<u64>(&["XDEL", log, GREATEST]);
    xadd(&redis, "*", "poisoned", b"x").unwrap();
    xadd(&redis, "*", "news", b"inbox").unwrap();
    assert_eq!(stream.next_event().data, "inbox");
    redis.publish_raw("events:poisoned", b"x");
    redis.publish_raw("events:news", b"raw");
    assert_eq!(stream.next_event().data, "raw");
    gateway.wait_for_metric(REFUSED, &[("reason", "log")], 2.0);
    assert!(is_empty(&redis));
}

/// What Redis itself fails at is no fault of the entry: it stays, and others go past it.
#[test]
fn an_inbox_entry_at_which_redis_fails_stays_and_keeps_no_other_waiting() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[("redis.partitions", "2")]);
    // Of two topics one is in each partition.
    let mut topics = ["a", "b", "c", "d", "e"].iter();
    let in_partition = |topic: &&&str, wanted: u8| {
        let id: String = redis.publish(topic, "open", &[]);
        assert!(!id.is_empty());
        let log = format!("tidegate:{{{wanted}}}:log:{topic}");
        redis.run::<u64>(&["EXISTS", &log]) == 1
    };
    let bad = topics.clone().find(|topic| in_partition(topic, 1)).unwrap();
    let good = topics.find(|topic| in_partition(topic, 0)).unwrap();
    let mut stream = gateway.listen(&[good]);
    redis.run::<()>(&["DEL", "tidegate:{1}:heads"]);
    redis.run::<()>(&["SET", "tidegate:{1}:heads", "a string"]);
    // More than are moved at once.
    for _ in 0..70 {
        xadd(&redis, "*", bad, b"stays").unwrap();
    }
    xadd(&redis, "*", good, b"goes on").unwrap();
    assert_eq!(stream.next_event().data, "goes on");
    let message = "Redis failed at an inbox entry; it stays, and is tried again after the others";
    eventually("it is told", || !gateway.logged(message).is_empty());
    redis.run::<()>(&["DEL", "tidegate:{1}:heads"]);
    eventually("the inbox is empty", || is_empty(&redis));
}

#[test]
fn what_is_refused_is_told_with_its_reason() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 1, &[("publish.event_bytes_max", "4")]);
    let gateway = &replicas[0];
    wait_for_ears(&redis, &replicas);
    gateway.post("/events/over?end", &[], "x");
    let raw: [(&str, &[u8]); 5] = [
        ("events:a,b", b"x"),
        ("events:a#tidegate.x", b"x"),
        ("events:a", b"12345"),
        ("events:a", b"\xff"),
        ("events:over", b"x"),
    ];
    for (channel, data) in raw.iter().chain(&raw) {
        redis.publish_raw(channel, data);
    }
    gateway.wait_for_metric(REFUSED, &[("reason", "invalid")], 8.0);
    gateway.wait_for_metric(REFUSED, &[("reason", "log")], 2.0);
    let message = "a raw publish is no event and is not logged";
    let reasons = told(gateway, message, "reason");
    assert_eq!(reasons, ["topic", "type", "size", "UTF-8"]);
    let by_log = "a raw publish is refused by the log";
    eventually("it is told", || {
        told(gateway, by_log, "code") == ["TGENDED"]
    });
    for (topic, data) in [
        ("a,b", &b"x"[..]),
        ("a", b"12345"),
        ("a", b"\xff"),
        ("over", b"x"),
    ] {
        for _ in 0..2 {
            xadd(&redis, "*", topic, data).unwrap();
        }
    }
    // Its type by both names, whatever they say.
    for (kind, old) in [("t", "t"), ("", "")] {
        let entry = ["topic", "b", "data", "x", "type", kind, "event", old];
        redis.run::<String>(&[&["XADD", "tidegate:inbox", "*"], &entry[..]].concat());
    }
    gateway.wait_for_metric(REFUSED, &[("reason", "invalid")], 16.0);
    gateway.wait_for_metric(REFUSED, &[("reason", "log")], 4.0);
    let message = "an inbox entry is no event, or is refused by the log, and is gone";
    let codes = told(gateway, message, "code");
    let expected = ["TGINVALID", "TGLARGE", "TGINVALID", "TGENDED", "TGINVALID"];
    assert_eq!(codes, expected);
    let topics = told(gateway, message, "topic");
    assert_eq!(topics, ["a,b", "a", "a", "over", "b"]);
    let why = told(gateway, message, "why");
    assert!(why[4].contains("type and event"), "{why:?}");
}

/// Whoever watches sees it once, on whatever replica, and `doctor` sees it afterwards.
#[test]
fn what_is_refused_is_seen_by_whoever_watches() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 2, &[("publish.event_bytes_max", "4")]);
    wait_for_ears(&redis, &replicas);
    let mut watching: Vec<_> = replicas
        .iter()
        .map(|replica| replica.listen(&["tidegate.refused", "news"]))
        .collect();
    redis.publish_raw("events:a,b", b"x");
    redis.publish_raw("events:a", b"\xff");
    redis.publish_raw("events:news", b"12345");
    xadd(&redis, "*", "news", b"123456").unwrap();
    // Everybody may read it, so it names no topic: one may be known to few.
    let expected = [
        json!({"way": "raw", "reason": "topic", "size": 1}),
        json!({"way": "raw", "reason": "UTF-8", "size": 1}),
        json!({"way": "raw", "reason": "size", "size": 5}),
        json!({"way": "inbox", "reason": "TGLARGE 4", "size": 6}),
    ];
    for stream in &mut watching {
        let mut seen: Vec<Value> = (0..expected.len())
            .map(|_| {
                let event = stream.next_event();
                assert_eq!(event.id, None, "it is not logged");
                let mut said = event.json();
                assert!(said["time"].as_u64().is_some(), "{said}");
                said.as_object_mut().unwrap().remove("time");
                said
            })
            .collect();
        // An inbox may be moved before what ears have counted is appended.
        seen.sort_by_key(|said| expected.iter().position(|known| known == said));
        assert_eq!(seen, expected);
    }
    let gateway = &replicas[0];
    let id = gateway.publish("news", "ok");
    for stream in &mut watching {
        assert_eq!(stream.next_event().id(), id, "and nothing else was said");
    }
    // Beyond some a second nothing is said, and no more than a hundred are kept.
    for _ in 0..300 {
        redis.publish_raw("events:a,b", b"x");
    }
    gateway.publish("news", "end");
    let mut told = 0;
    while watching[0].next_event().event.is_empty()
        && watching[0].text().matches("end\n\n").count() == 0
    {
        told += 1;
    }
    assert!(told < 300, "{told}");
    let kept: usize = redis.run(&["XLEN", "tidegate:refused"]);
    assert!((10..=100).contains(&kept), "{kept}");
    let url = redis.url();
    let found = doctor(&[("redis.url", &url)], &[]);
    assert_eq!(found.level("redis.refused"), "warning");
    assert!(
        found
            .said("redis.refused")
            .contains("raw \"events:a,b\", 1 bytes: topic"),
        "{found:?}"
    );
    // It is nobody's to publish to.
    assert_eq!(
        gateway.post("/events/tidegate.refused", &[], "x").status,
        400
    );
    redis.publish_raw("events:tidegate.refused", b"x");
    let topics = gateway.get("/topics").text();
    assert!(!topics.contains("tidegate"), "{topics}");
}

/// It showed them to whoever read it, and they could read those topics then.
#[test]
fn topics_and_keys_of_what_is_refused_are_shown_to_no_reader() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 1, &[]);
    let gateway = &replicas[0];
    wait_for_ears(&redis, &replicas);
    let mut stream = gateway.listen(&["tidegate.refused"]);
    gateway.post("/events/private?end", &[], "x");
    redis.publish_raw("events:private", b"x");
    xadd(&redis, "*", "private", b"x").unwrap();
    for log in ["tidegate:{0}:log:private2", "tidegate:{0}:idem:t:private3"] {
        redis.run::<u64>(&["LPUSH", log, "x"]);
    }
    xadd(&redis, "*", "private2", b"x").unwrap();
    let with_key = ["topic", "t", "data", "x", "key", "private3"];
    redis.run::<String>(&[&["XADD", "tidegate:inbox", "*"], &with_key[..]].concat());
    let mut reasons: Vec<String> = (0..4)
        .map(|_| stream.next_event().json()["reason"].to_string())
        .collect();
    reasons.sort();
    let expected = ["TGENDED", "TGENDED", "TGFOREIGN", "TGFOREIGN"];
    assert_eq!(reasons, expected.map(|code| format!("\"{code}\"")));
    let told = stream.text();
    assert!(!told.contains("private"), "{told}");
    // Who operates Redis sees the topics, and nobody the key of an event.
    let kept: redis::Value = redis.run(&["XRANGE", "tidegate:refused", "-", "+"]);
    let kept = format!("{kept:?}");
    assert!(kept.contains("private2"), "{kept}");
    assert!(!kept.contains("private3"), "{kept}");
    let lines = gateway.log().join("\n");
    assert!(!lines.contains("private3"), "{lines}");
}

/// The keys of publishers over HTTP are hashes behind a character that no other key has. Who could write one would have
/// another's event be taken for a repetition.
#[test]
fn an_entry_of_the_inbox_has_no_key_that_is_another_publishers() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 1, &[]);
    let gateway = &replicas[0];
    let mut stream = gateway.listen(&["tidegate.refused"]);
    for key in ["\u{1e}abc", "k\u{7f}", "schlüssel"] {
        let fields = ["topic", "news", "data", "x", "key", key];
        redis.run::<String>(&[&["XADD", "tidegate:inbox", "*"], &fields[..]].concat());
        let told = stream.next_event().json();
        let reason = told["reason"].as_str().unwrap();
        assert!(reason.starts_with("TGINVALID "), "{key:?}: {reason}");
    }
    let fields = ["topic", "news", "data", "x", "key", "any ~ key!"];
    redis.run::<String>(&[&["XADD", "tidegate:inbox", "*"], &fields[..]].concat());
    eventually("it is published", || {
        gateway.get("/topics/news").status == 200
    });
}

/// Where Redis sends it, every ear hears it, and nobody's publishes are lost with it.
#[test]
fn a_publish_beyond_all_measure_is_counted_and_deafens_no_ear() {
    let redis = Redis::with(&["--client-output-buffer-limit", "pubsub 0 0 0"]);
    let replicas = fleet(&redis, 2, &[]);
    wait_for_ears(&redis, &replicas);
    let mut stream = replicas[0].listen(&["news"]);
    let huge = vec![b'x'; 70 * MIB];
    for number in 0..5 {
        assert_eq!(redis.publish_raw("events:huge", &huge), 2);
        let data = number.to_string();
        assert_eq!(redis.publish_raw("events:news", data.as_bytes()), 2);
        assert_eq!(stream.next_event().data, data);
    }
    eventually("they are counted", || {
        let counts = replicas.iter();
        let counts = counts.map(|replica| replica.metric(REFUSED, &[("reason", "invalid")]));
        counts.sum::<f64>() > 4.5
    });
    for replica in &replicas {
        let reconnects = replica.metric("tidegate_redis_reconnects_total", &[("role", "ear")]);
        assert!(reconnects < 0.5);
        let message = "a raw publish is no event and is not logged";
        // Once in a while, and a busy machine may take longer than that for all five.
        let mut sizes = told(replica, message, "bytes");
        sizes.dedup();
        assert_eq!(sizes, [(70 * MIB).to_string()]);
    }
}

/// Redis closes whoever it cannot send so much to. That cannot be helped here: it is told.
#[test]
fn ears_that_redis_has_closed_say_so_and_hear_again() {
    let redis = Redis::with(&["--client-output-buffer-limit", "pubsub 8mb 4mb 10"]);
    let replicas = fleet(&redis, 2, &[]);
    wait_for_ears(&redis, &replicas);
    let mut stream = replicas[0].listen(&["news"]);
    redis.publish_raw("events:huge", &vec![b'x'; 20 * MIB]);
    let message = "this ear hears no raw publish until its next connection stands";
    for replica in &replicas {
        eventually("it is told", || !replica.logged(message).is_empty());
        let why = told(replica, message, "why").concat();
        assert!(why.contains("client-output-buffer-limit"), "{why}");
    }
    eventually("they hear again", || {
        redis.publish_raw("events:news", b"x") == 2
    });
    eventually("and count", || {
        redis.publish_raw("events:news", b"y");
        redis.run::<u64>(&["XLEN", "tidegate:{0}:log:news"]) > 0
    });
    stream.next_event();
}

/// 100,000 events of 64 KiB would be 6.5 GB.
#[test]
fn what_an_ear_owes_is_bounded_in_bytes() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 1, &[("ingest.owed_bytes_max", "1000000")]);
    let gateway = &replicas[0];
    wait_for_ears(&redis, &replicas);
    eventually("nothing is owed", || {
        gateway.metric("tidegate_ingest_owed", &[]) < 0.5
    });
    let before = gateway.metric("tidegate_ingest_heard_total", &[]);
    // Nothing can be logged, and PUBLISH goes on.
    redis.run::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let data = vec![b'x'; 60_000];
    eventually("it listens no more", || {
        redis.publish_raw("events:news", &data) == 0
    });
    let counted = gateway.metric("tidegate_ingest_heard_total", &[]) - before;
    assert!(counted > 15.5 && counted < 18.5, "{counted}");
    let owed = gateway.metric("tidegate_ingest_owed_bytes", &[]);
    assert!((1e6..1.07e6).contains(&owed), "{owed}");
    let message = "this ear owes the log as much as it may (ingest.owed_max, ingest.owed_bytes_max), \
                   and hears no raw publish until half of it is logged";
    assert_eq!(gateway.logged_at_least(1, message).len(), 1);
    let unheard: f64 = told(gateway, message, "unheard")[0].parse().unwrap();
    let full = gateway.metric(REFUSED, &[("reason", "full")]);
    assert!((full - unheard).abs() < 0.5, "{full} {unheard}");
    // Over HTTP others publish and read as before once Redis takes writes; so does the ear.
    redis.run::<()>(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    gateway.wait_for_metric("tidegate_ingest_owed_bytes", &[], 0.0);
    let logged: f64 = redis.run(&["XLEN", "tidegate:{0}:log:news"]);
    assert!((logged - counted).abs() < 0.5, "{logged} of {counted}");
    let mut stream = gateway.listen(&["other"]);
    eventually("it listens again", || {
        redis.publish_raw("events:other", b"x") == 1
    });
    eventually("and counts", || {
        redis.publish_raw("events:other", b"y");
        redis.run::<u64>(&["XLEN", "tidegate:{0}:log:other"]) > 0
    });
    stream.next_event();
}
