//! Goal: each topic is kept by the first rule of the configuration that it fits, whatever way its
//! events come; and what is not logged is live only: it has no id, is never replayed, moves no
//! cursor and waits for nothing.
//!
//! Method: the real gateway over both brokers, every way to publish, and what Redis holds
//! afterwards. That no rule and no change of the rules loses an event silently is simulated in
//! `tests/simulation/`.

use crate::support::{
    Event, Gateway, NDJSON, NewEvent, Redis, Sse, Way, eventually, over_both_brokers, position,
    run, wait_for_ears,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const RULES: (&str, &str) = (
    "log.overrides",
    "[{topics = '*:typing', log = false}, {topics = 'chat:*', events_max = 3, age_max = '90m'}]",
);

/// A gateway over `redis` with these rules, which hears raw publishes.
fn listening(redis: &Redis) -> Gateway {
    let gateway = Gateway::over(redis, &[RULES]);
    wait_for_ears(redis, std::slice::from_ref(&gateway));
    gateway
}

/// The entries of a topic's log.
fn log(redis: &Redis, topic: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let key = format!("tidegate:{{0}}:log:{topic}");
    redis.run(&["XRANGE", &key, "-", "+"])
}

#[test]
fn every_way_to_publish_keeps_a_topic_by_its_rule() {
    const HOUR: u64 = 3_600_000;
    let redis = Redis::start();
    let gateway = listening(&redis);
    for (topic, entries, age) in [
        ("chat:a", 3, HOUR * 3 / 2),
        ("news", Way::ALL.len(), HOUR * 24),
    ] {
        let mut live = gateway.listen(&[topic]);
        for (number, way) in Way::ALL.into_iter().enumerate() {
            let data = number.to_string();
            let event = NewEvent {
                topic,
                data: &data,
                ..NewEvent::default()
            };
            way.publish(&gateway, &redis, event);
            let shown = live.next_event();
            let kept = log(&redis, topic);
            assert_eq!(kept.len(), entries.min(number + 1), "{way:?}");
            let (last, fields) = kept.last().unwrap();
            assert_eq!((shown.id(), &fields["data"]), (&**last, &data), "{way:?}");
            let key = format!("tidegate:{{0}}:log:{topic}");
            let expires: u64 = redis.run(&["PEXPIRETIME", &key]);
            let (ms, _) = position(last).unwrap();
            assert_eq!(expires, ms + age + HOUR, "{way:?}");
            if number == 0 {
                // Before a first event, there may have been others as long ago as they are kept.
                assert_eq!(fields["prev"], format!("{}-0", ms - age));
            }
        }
    }
}

#[test]
fn the_age_of_its_rule_decides_whether_a_topic_without_a_log_may_miss_something() {
    let rules = ("log.overrides", "[{topics = 'short', age_max = '50ms'}]");
    over_both_brokers(&[rules], |broker, gateway| {
        let id = gateway.publish("other", "x");
        let gap = |topic: &str| {
            let page = gateway.get(&format!("/topics/{topic}/events?after={id}"));
            page.json()["gap"].clone()
        };
        eventually("its age is over", || !gap("short").is_null());
        assert_eq!(gap("short")["reason"], "expired", "{broker}");
        assert_eq!(gap("long"), Value::Null, "{broker}");
    });
}

#[test]
fn a_log_that_fits_a_rule_is_trimmed_and_told_by_it() {
    over_both_brokers(&[RULES], |broker, gateway| {
        let ids: Vec<String> = (0..5)
            .map(|number| {
                gateway.publish("chat:a", &number.to_string());
                gateway.publish("news", &number.to_string())
            })
            .collect();
        let page = |topic: &str| {
            let target = format!("/topics/{topic}/events?after={}", ids[0]);
            gateway.get(&target).json()
        };
        let (chat, news) = (page("chat:a"), page("news"));
        let data = |page: &Value| -> Vec<String> {
            let events = page["events"].as_array().unwrap().iter();
            events
                .map(|event| event["data"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(data(&chat), ["2", "3", "4"], "{broker}");
        assert_eq!(chat["gap"]["reason"], "trimmed", "{broker}");
        assert_eq!(data(&news), ["1", "2", "3", "4"], "{broker}");
        assert_eq!(news["gap"], Value::Null, "{broker}");
    });
}

// --- not logged ---

#[test]
fn an_event_that_is_not_logged_is_live_only_whatever_way_it_came() {
    let redis = Redis::start();
    let gateway = listening(&redis);
    let topic = "a:typing";
    let mut live = gateway.listen(&[topic]);
    let begin = live.last_event_id().to_owned();
    let url = gateway.url();
    let to_redis = redis.url();
    let answer = gateway.post("/events/a:typing?type=t", &[], "1").json();
    assert_eq!(answer, json!({"topic": topic, "id": null}));
    let line = json!({"topic": topic, "type": "t", "data": "2"}).to_string();
    let answer = gateway.post("/events", &[NDJSON], &line).json();
    assert_eq!(answer, json!({"events": [{"topic": topic, "id": null}]}));
    let answer = gateway
        .post("/events?partial", &[NDJSON], line.replace('2', "3"))
        .json();
    assert_eq!(
        answer,
        json!({"events": [{"line": 1, "topic": topic, "id": null}]})
    );
    let nil: Option<String> = redis.run(&["FCALL", "tidegate_publish", "0", topic, "4", "t"]);
    assert_eq!(nil, None);
    for (data, to) in [("5", ["--url", &url]), ("6", ["--redis", &to_redis])] {
        let output = run(
            &[&["publish", topic, data, "--type", "t"][..], &to].concat(),
            &[],
        );
        assert_eq!((output.code, &*output.stdout), (Some(0), ""), "{output:?}");
    }
    let inbox = [
        "XADD",
        "tidegate:inbox",
        "*",
        "topic",
        topic,
        "type",
        "t",
        "data",
        "7",
    ];
    redis.run::<String>(&inbox);
    for number in 1..=7 {
        let event = live.next_event();
        assert_eq!(
            (event.id, &*event.event, event.data),
            (None, "t", number.to_string())
        );
    }
    redis.publish_raw("events:a:typing#t", b"8");
    assert_eq!(live.next_event().data, "8");
    assert_eq!(live.last_event_id(), begin, "the cursor stays");
    assert_eq!(log(&redis, topic), vec![]);
    assert_eq!(gateway.get("/topics").json()["topics"], json!(["warm-up"]));
    let inbox: u64 = redis.run(&["XLEN", "tidegate:inbox"]);
    assert_eq!(inbox, 0);
}

#[test]
fn what_is_not_logged_is_never_replayed_and_the_rest_is_shown_once() {
    over_both_brokers(&[RULES], |broker, gateway| {
        let mut witness = gateway.listen(&["news", "a:typing"]);
        let mut stream = gateway.listen(&["news", "a:typing"]);
        let mut typing = 0;
        for number in 0..30 {
            gateway.publish("news", &number.to_string());
            for _ in 0..number % 3 {
                gateway.post("/events/a:typing", &[], "…");
                typing += 1;
            }
        }
        let (mut shown, mut shown_live) = (Vec::new(), 0);
        let mut events: Vec<Event> = (0..10).map(|_| stream.next_event()).collect();
        // What was read from the socket is covered by the id that a reconnect sends.
        events.extend(stream.received());
        // What the replica has not heard yet would still be live to whoever comes back.
        witness.next_data(30 + typing);
        for event in events {
            match event.id {
                Some(_) => shown.push(event.data),
                None => shown_live += 1,
            }
        }
        let mut again = stream.reconnect();
        again.opened();
        shown.extend(again.next_data(30 - shown.len()));
        assert!(shown_live <= typing, "{broker}");
        let expected: Vec<String> = (0..30).map(|number| number.to_string()).collect();
        assert_eq!(shown, expected, "{broker}");
        let history = gateway
            .open(
                "/events?topic=news&topic=a:typing&since=earliest&max_age=1h&limit=30",
                &[],
            )
            .rest();
        let data: Vec<String> = history.0[1..]
            .iter()
            .map(|event| event.data.clone())
            .collect();
        assert_eq!(data, expected, "{broker}");
    });
}

#[test]
fn a_filter_holds_for_what_is_not_logged_and_a_limit_does_not_count_it() {
    over_both_brokers(&[RULES], |broker, gateway| {
        let mut stream = gateway.open("/events?topic=news&topic=a:typing&type=on&limit=2", &[]);
        stream.opened();
        for kind in ["on", "off", "on"] {
            gateway.post(&format!("/events/a:typing?type={kind}"), &[], kind);
        }
        gateway.post("/events/news?type=on", &[], "1").id();
        gateway.post("/events/a:typing?type=on", &[], "on");
        gateway.post("/events/news?type=on", &[], "2").id();
        let (events, _) = stream.rest();
        let mut data: Vec<&str> = events.iter().map(|event| &*event.data).collect();
        // The last one may come beside the second of what is counted.
        data.sort_unstable();
        assert_eq!(&data[..2], ["1", "2"], "{broker}");
        assert!(
            data.len() >= 4 && data[2..].iter().all(|data| *data == "on"),
            "{broker}: {data:?}"
        );
    });
}

#[test]
fn no_gap_is_told_of_a_topic_that_is_not_logged() {
    over_both_brokers(&[RULES], |broker, gateway| {
        let ahead = "9000000000000-1";
        for (cursor, reason) in [
            ("nonsense", "bad_cursor"),
            ("1-1", "log_lost"),
            (ahead, "ahead"),
        ] {
            let target =
                format!("/events?topic=news&topic=a:typing&max_age=1s&last_event_id={cursor}");
            let mut stream = gateway.open(&target, &[]);
            let gap = stream.next_of("tidegate.gap").json();
            assert_eq!(
                (&gap["topic"], &gap["reason"]),
                (&json!("news"), &json!(reason)),
                "{broker}"
            );
            gateway.post("/events/a:typing", &[], "x");
            assert_eq!(
                stream.next_event().data,
                "x",
                "{broker} {cursor}: no other gap"
            );
            let alone = format!("/events/a:typing?max_age=1s&last_event_id={cursor}");
            let mut stream = gateway.open(&alone, &[]);
            stream.opened();
            gateway.post("/events/a:typing", &[], "x");
            assert_eq!(stream.next_event().data, "x", "{broker} {cursor}");
        }
    });
}

#[test]
fn a_topic_that_is_not_logged_has_no_end_and_cannot_be_deleted() {
    let why = "topic a:typing is not logged, so it cannot end";
    over_both_brokers(&[RULES], |_, gateway| {
        assert_eq!(
            gateway.post("/events/a:typing?end", &[], "x").problem(400),
            why
        );
        let line = json!({"topic": "a:typing", "data": "x", "end": true}).to_string();
        assert_eq!(gateway.post("/events", &[NDJSON], line).problem(400), why);
        gateway.delete("/topics/a:typing").problem(404);
    });
    let redis = Redis::start();
    let _gateway = listening(&redis);
    let words: [&[u8]; 7] = [
        b"FCALL",
        b"tidegate_publish",
        b"0",
        b"a:typing",
        b"x",
        b"",
        b"end",
    ];
    let refused = redis.run_bytes::<Option<String>>(&words).unwrap_err();
    assert_eq!(
        (refused.code(), refused.detail()),
        (Some("TGUNLOGGED"), Some("a:typing"))
    );
}

#[test]
fn a_key_makes_one_event_of_a_repeated_one_that_is_not_logged() {
    over_both_brokers(&[RULES], |broker, gateway| {
        let mut stream = gateway.listen(&["a:typing"]);
        let key = [("Idempotency-Key", "k")];
        for _ in 0..3 {
            let answer = gateway.post("/events/a:typing", &key, "once").json();
            assert_eq!(answer["id"], Value::Null, "{broker}");
        }
        gateway.post("/events/a:typing", &[], "next");
        assert_eq!(stream.next_data(2), ["once", "next"], "{broker}");
    });
}

#[test]
fn what_is_not_logged_does_not_wait_for_a_hole_in_another_topic() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[RULES]);
    let mut stream = gateway.listen(&["a", "b", "a:typing"]);
    // A frame that cannot be read makes a hole, and the log does not answer for a while.
    let mut pipe = redis::pipe();
    pipe.cmd("PUBLISH").arg("tidegate:{0}:live:a").arg("noise");
    let mut publish = |topic: &str, data: &str| {
        pipe.cmd("FCALL")
            .arg("tidegate_publish")
            .arg(0)
            .arg(topic)
            .arg(data);
    };
    publish("b", "waits for topic a");
    publish("a:typing", "at once");
    pipe.cmd("CLIENT").arg("PAUSE").arg(1_000).arg("ALL");
    let _: Vec<redis::Value> = pipe.query(&mut redis.connect()).unwrap();
    assert_eq!(stream.next_data(2), ["at once", "waits for topic a"]);
}

#[test]
fn a_slow_reader_misses_what_is_not_logged_and_nothing_else() {
    let config = [
        RULES,
        ("window.events_max", "4"),
        ("server.write_timeout", "1m"),
    ];
    let gateway = Gateway::start(&config);
    let mut stream = gateway.listen(&["news", "a:typing"]);
    let large = "x".repeat(60_000);
    let (mut logged, mut shown) = (Vec::new(), Vec::new());
    eventually("the reader is behind", || {
        for _ in 0..20 {
            gateway.post("/events/a:typing", &[], &large);
        }
        logged.push(gateway.publish("news", "logged"));
        gateway.metric("tidegate_unlogged_events_skipped_total", &[]) > 0.0 || {
            // A stream that cannot write does not look either: it reads a little.
            shown.extend(stream.next_event().id);
            false
        }
    });
    gateway.publish("news", "last");
    loop {
        let event = stream.next_event();
        if event.data == "last" {
            break;
        }
        shown.extend(event.id);
    }
    assert_eq!(logged, shown);
}

#[test]
fn a_topic_may_be_logged_from_one_start_to_the_next() {
    let redis = Redis::start();
    let logged = Gateway::over(&redis, &[]);
    let mut stream = logged.listen(&["a:typing"]);
    logged.publish("a:typing", "logged");
    let shown = stream.next_event();
    // Another replica says otherwise, and the last one to start is right.
    let unlogged = Gateway::over(&redis, &[RULES]);
    unlogged.post("/events/a:typing", &[], "live only");
    let event = stream.next_event();
    assert_eq!((event.id, &*event.data), (None, "live only"));
    // What was logged stays until it expires.
    let mut late: Sse = unlogged.open("/events/a:typing?since=earliest", &[]);
    late.opened();
    assert_eq!(late.next_event(), shown);
    let _again = Gateway::over(&redis, &[]);
    let id = unlogged.publish("a:typing", "logged again");
    for stream in [&mut stream, &mut late] {
        assert_eq!(stream.next_event().id(), id);
    }
}
