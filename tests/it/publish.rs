//! Goal: every way to publish makes the same event, an event is published once however often it is
//! tried, and what is no event is refused where it was given, without harm to anyone else.
//!
//! Method: the real ways: HTTP, the function, the inbox, raw `PUBLISH`, the command line. A stream
//! that stays open through every refusal shows that nothing of it came through.

use crate::support::{
    Directory, Event, Gateway, NDJSON, NewEvent, Redis, Sse, Way, eventually, over_both_brokers,
    position, run, wait_for_ears,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The largest event that is taken, by default.
const EVENT_BYTES_MAX: usize = 65536;

/// A gateway over `redis` that hears raw publishes.
fn listening(redis: &Redis, config: &[(&str, &str)]) -> Gateway {
    let gateway = Gateway::over(redis, config);
    wait_for_ears(redis, std::slice::from_ref(&gateway));
    gateway
}

/// Nothing came through but this one event, which is published now.
fn assert_unharmed(gateway: &Gateway, stream: &mut Sse, topic: &str) {
    let id = gateway.publish(topic, "unharmed");
    let expected = Event {
        id: Some(id),
        event: String::new(),
        data: "unharmed".to_owned(),
    };
    assert_eq!(stream.next_event(), expected);
}

// --- events ---

#[test]
fn every_way_to_publish_makes_the_same_event() {
    let redis = Redis::start();
    let gateway = listening(&redis, &[]);
    let mut live = gateway.listen(&["news"]);
    let start = live.last_event_id().to_owned();
    let event = NewEvent {
        topic: "news",
        kind: "price",
        data: "{\"v\":1}\r\n\u{1f30a} zwei ",
        ..NewEvent::default()
    };
    let mut seen = Vec::new();
    for way in Way::ALL {
        let told = way.publish(&gateway, &redis, event);
        let shown = live.next_event();
        assert_eq!(
            (&*shown.event, &*shown.data),
            ("price", "{\"v\":1}\n\u{1f30a} zwei "),
            "{way:?}"
        );
        assert!(told.is_none_or(|id| id == shown.id()), "{way:?}: {shown:?}");
        seen.push(shown);
    }
    let mut replay = gateway.open("/events/news", &[("Last-Event-ID", &start)]);
    replay.opened();
    for (way, shown) in Way::ALL.iter().zip(&seen) {
        assert_eq!(replay.next_event(), *shown, "{way:?}");
    }
    // What is logged is what was given, byte by byte, and once.
    let log: Vec<(String, BTreeMap<String, String>)> =
        redis.run(&["XRANGE", "tidegate:{0}:log:news", "-", "+"]);
    assert_eq!(log.len(), Way::ALL.len());
    for (way, (_, fields)) in Way::ALL.iter().zip(log) {
        assert_eq!(
            (&*fields["type"], &*fields["data"]),
            ("price", event.data),
            "{way:?}"
        );
    }
    let inbox: u64 = redis.run(&["XLEN", "tidegate:inbox"]);
    assert_eq!(inbox, 0, "what was moved is gone");
}

#[test]
fn a_raw_publish_names_topic_and_type_by_its_channel() {
    let redis = Redis::start();
    let gateway = listening(&redis, &[]);
    let table = [
        ("events", "events", ""),
        ("events:news", "news", ""),
        ("events:news#price", "news", "price"),
        ("events:a:b/c", "a:b/c", ""),
        ("events:news#a#b", "news", "a#b"),
        ("events:news#", "news", ""),
    ];
    for (channel, topic, kind) in table {
        let mut live = gateway.listen(&[topic]);
        redis.publish_raw(channel, b"raw");
        let event = live.next_event();
        assert_eq!((&*event.event, &*event.data), (kind, "raw"), "{channel}");
    }
}

#[test]
fn raw_publishes_are_heard_on_the_channel_of_the_config() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[("ingest.channel", "sea")]);
    eventually("the ear counts", || {
        redis.publish_raw("sea:warm-up", b"x");
        gateway.metric("tidegate_ingest_heard_total", &[]) > 0.0
    });
    let mut live = gateway.listen(&["sea", "news"]);
    assert_eq!(redis.publish_raw("events:news", b"not heard"), 0);
    redis.publish_raw("sea", b"bare");
    redis.publish_raw("sea:news", b"named");
    assert_eq!(live.next_data(2), ["bare", "named"]);
}

#[test]
fn a_publisher_is_told_topic_and_id() {
    over_both_brokers(&[], |broker, gateway| {
        let one = gateway.post("/events/a%20b", &[], "x");
        assert_eq!(one.headers.get("content-type"), Some("application/json"));
        assert_eq!(
            one.json(),
            json!({"topic": "a b", "id": one.id()}),
            "{broker}"
        );
        let default = gateway.post(
            "/events",
            &[NDJSON],
            "{\"topic\":\"events\",\"data\":\"x\"}",
        );
        let ids = default.ids();
        assert_eq!(
            default.json(),
            json!({"events": [{"topic": "events", "id": ids[0]}]}),
            "{broker}"
        );
        assert!(position(&one.id()) < position(&ids[0]), "{broker}");
    });
}

#[test]
fn a_batch_is_published_in_its_order() {
    // Blank lines are nothing; data that is no string is published as the JSON text that it is.
    let batch = concat!(
        "{\"topic\":\"a\",\"data\":\"one\"}\n",
        "\n",
        "{\"data\":{\"v\": 1.50},\"type\":\"price\",\"topic\":\"b\"}\r\n",
        "  {\"topic\":\"a\",\"data\":\"\\u00fc\\n\\\"\"}  \n",
        "\r\n",
        "{\"topic\":\"b\",\"data\":null,\"type\":\"\"}\n",
        "{\"topic\":\"a\",\"data\":12345678901234567890123}",
    );
    let expected = [
        ("a", "", "one"),
        ("b", "price", "{\"v\": 1.50}"),
        ("a", "", "\u{fc}\n\""),
        ("b", "", "null"),
        ("a", "", "12345678901234567890123"),
    ];
    over_both_brokers(&[], |broker, gateway| {
        for target in ["/events", "/events?partial"] {
            let mut stream = gateway.listen(&["a", "b"]);
            let answer = gateway.post(target, &[NDJSON], batch);
            let topics = answer.json()["events"].clone();
            for (n, (topic, kind, data)) in expected.into_iter().enumerate() {
                let event = stream.next_event();
                assert_eq!(
                    (&*event.event, &*event.data),
                    (kind, data),
                    "{broker} {target}"
                );
                assert_eq!(event.id(), answer.ids()[n], "{broker} {target}");
                assert_eq!(topics[n]["topic"], topic, "{broker} {target}");
            }
        }
        for empty in ["", "\n\n"] {
            assert_eq!(
                gateway.post("/events", &[NDJSON], empty).json(),
                json!({"events": []})
            );
        }
    });
}

// --- without a topic in the path ---

#[test]
fn a_plain_body_without_a_topic_is_an_event_of_the_topic_events() {
    over_both_brokers(&[], |broker, gateway| {
        let mut stream = gateway.open("/events", &[]);
        stream.opened();
        // Content types, bodies: all are data, verbatim.
        let form = ("Content-Type", "application/x-www-form-urlencoded");
        let json = ("Content-Type", "application/json");
        let text = ("Content-Type", "text/plain; charset=utf-8");
        let table: [(&[(&str, &str)], &str); 12] = [
            (&[], "hello"),
            (&[form], "hello"),
            (&[json], "{\"v\":1}"),
            (&[text], "a\nb"),
            (&[], ""),
            (&[], "\n"),
            (&[json], "[{\"topic\":\"a\",\"data\":1}]"),
            (&[], "\"topic\""),
            (&[], "{\"topic\":\"a\""),
            (&[], "{\"a\":{\"topic\":\"b\"}}"),
            (&[], "x\n{\"topic\":\"a\",\"data\":1}"),
            (&[("Content-Type", "application/x-ndjsonx")], "x"),
        ];
        for (headers, body) in table {
            let answer = gateway.post("/events", headers, body);
            let event = stream.next_event();
            let told = json!({"topic": "events", "id": event.id()});
            assert_eq!(answer.json(), told, "{broker} {headers:?} {body:?}");
            assert_eq!(event.data, body, "{broker} {headers:?}");
        }
        let typed = gateway.post("/events?type=price", &[], "1");
        let event = stream.next_event();
        assert_eq!(
            (&*event.event, event.id()),
            ("price", &*typed.id()),
            "{broker}"
        );
        // Once, and as the last one, as on any other topic.
        let key = [("Idempotency-Key", "k")];
        let ids = [(); 2].map(|()| gateway.post("/events?end", &key, "last").id());
        assert_eq!(ids[0], ids[1], "{broker}");
        gateway.post("/events", &[], "more").problem(409);
    });
}

/// It was published as one event, and all its topics were missing: what is nearly a batch is refused.
#[test]
fn a_batch_that_does_not_say_so_is_refused_and_the_header_named() {
    let line = "{\"topic\":\"a\",\"data\":\"x\"}";
    let many = format!("{line}\n").repeat(10_000);
    let large = format!("{line}\n{}", "x".repeat(300_000));
    let bodies = [
        line,
        "  {\"data\":1 , \"topic\":\"a\"}\r\n",
        "{\"topic\":null}",
        "\n\n{\"topic\":\"a\",\"data\":1}\nnot JSON",
        "{\"topic\":\"a\",\"topic\":\"b\"}",
        &many,
        &large,
    ];
    over_both_brokers(&[], |broker, gateway| {
        for body in bodies {
            for kind in ["application/json", "text/plain", "application/ndjsonx", ""] {
                let answer = gateway.post("/events", &[("Content-Type", kind)], body);
                let detail = answer.problem(400);
                assert!(
                    detail.contains("Content-Type: application/x-ndjson"),
                    "{broker} {kind:?}: {detail}"
                );
                assert!(detail.contains(&format!("{kind:?}")), "{broker}: {detail}");
            }
            let detail = gateway.post("/events", &[], body).problem(400);
            assert!(detail.contains("Content-Type"), "{broker}: {detail}");
        }
        let detail = gateway.post("/events?partial", &[], "x").problem(400);
        assert!(
            detail.starts_with("partial") && detail.contains("Content-Type"),
            "{broker}: {detail}"
        );
        assert_eq!(gateway.get("/topics").json()["topics"], json!([]));
        for kind in [
            "application/x-ndjson",
            "application/jsonl",
            "application/x-jsonlines",
            "Application/X-NDJSON; charset=utf-8",
            " application/jsonl ;x=y",
        ] {
            let answer = gateway.post("/events", &[("Content-Type", kind)], line);
            assert_eq!(answer.ids().len(), 1, "{broker} {kind}");
        }
        // Of a batch each line says its own.
        for query in ["type=price", "event=price", "end"] {
            let answer = gateway.post(&format!("/events?{query}"), &[NDJSON], line);
            let detail = answer.problem(400);
            assert!(detail.contains("line"), "{broker} {query}: {detail}");
        }
        // Where the path names the topic, a body is data whatever it looks like.
        gateway.post("/events/news", &[], line).id();
        gateway.post("/events/news", &[NDJSON], line).id();
        assert_eq!(length(gateway, "news"), 2, "{broker}");
        assert_eq!(length(gateway, "a"), 5, "{broker}");
    });
}

// --- the type's two names ---

/// Answers and streams call it `event`, as Server-Sent Events do; publishers said so, too, and may go on.
#[test]
fn the_type_is_taken_by_its_old_name_too_and_not_by_both() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[]);
    let mut stream = gateway.listen(&["news"]);
    let url = gateway.url();
    let to_redis = redis.url();
    let command = |word: &str, to: [&str; 2]| {
        let words = ["publish", "news", "x", word, "price"];
        let output = run(&[&words[..], &to].concat(), &[]);
        assert_eq!(output.code, Some(0), "{}", output.stderr);
    };
    for name in ["type", "event"] {
        let query = format!("/events/news?{name}=price");
        gateway.post(&query, &[], "x").id();
        let line = json!({"topic": "news", name: "price", "data": "x"}).to_string();
        gateway.post("/events", &[NDJSON], line).ids();
        let inbox = ["XADD", "tidegate:inbox", "*", "topic", "news", "data", "x"];
        redis.run::<String>(&[&inbox[..], &[name, "price"]].concat());
        // What the inbox moves comes a moment later.
        for _ in 0..3 {
            assert_eq!(stream.next_event().event, "price", "{name}");
        }
        command(&format!("--{name}"), ["--url", &url]);
        command(&format!("--{name}"), ["--redis", &to_redis]);
        for _ in 0..2 {
            assert_eq!(stream.next_event().event, "price", "{name}");
        }
    }
    let page = gateway.get("/topics/news/events?limit=1").json();
    assert_eq!(page["events"][0]["event"], "price", "answers keep it");

    for (kind, old) in [("a", "b"), ("a", "a"), ("", "b"), ("a", "")] {
        let query = format!("/events/news?type={kind}&event={old}");
        let detail = gateway.post(&query, &[], "x").problem(400);
        assert!(detail.contains("type and event"), "{detail}");
        let line = json!({"topic": "news", "type": kind, "event": old, "data": "x"});
        for target in ["/events", "/events?partial"] {
            let answer = gateway.post(target, &[NDJSON], line.to_string());
            assert!(answer.text().contains("type and event"), "{target}");
        }
        let words = ["publish", "news", "x", "--type", kind, "--event", old];
        let both = run(&[&words[..], &["--url", &url]].concat(), &[]);
        assert_eq!(both.code, Some(2), "{}", both.stderr);
        assert!(both.stderr.contains("--type"), "{}", both.stderr);
    }
    assert_unharmed(&gateway, &mut stream, "news");
}

#[test]
fn a_line_with_a_wrong_member_is_told_which_one_was_meant() {
    let gateway = Gateway::start(&[]);
    let line = |name: &str| json!({"topic": "t", "data": "x", name: "y"}).to_string();
    let table = [
        ("evnt", "did you mean type?"),
        ("tpye", "did you mean type?"),
        ("idempotency-key", "did you mean idempotency_key?"),
        ("idempotencykey", "did you mean idempotency_key?"),
        ("ends", "did you mean end?"),
        (
            "colour",
            "the known ones are topic, type, data, end and idempotency_key",
        ),
    ];
    for (name, told) in table {
        let detail = gateway.post("/events", &[NDJSON], line(name)).problem(400);
        assert!(
            detail.starts_with("line 1: ")
                && detail.contains(&format!("{name:?}"))
                && detail.ends_with(told),
            "{name}: {detail}"
        );
    }
    // What a stranger writes there is not told back at any length.
    for long in [
        line(&"x".repeat(60_000)),
        "{\"topic\":\"t\",\"data\":\"x\",\"end\":\"".to_owned() + &"y".repeat(60_000) + "\"}",
    ] {
        let detail = gateway.post("/events", &[NDJSON], long).problem(400);
        assert!(detail.len() < 400, "{}", detail.len());
    }
}

// --- once ---

/// The number of events in a topic's log.
fn length(gateway: &Gateway, topic: &str) -> u64 {
    gateway.get(&format!("/topics/{topic}")).json()["length"]
        .as_u64()
        .unwrap()
}

#[test]
fn a_publish_that_is_repeated_with_its_key_is_one_event() {
    over_both_brokers(&[], |broker, gateway| {
        let publish = |topic: &str, key: &str, data: &str| {
            gateway
                .post(
                    &format!("/events/{topic}"),
                    &[("Idempotency-Key", key)],
                    data,
                )
                .id()
        };
        let first = publish("news", "k 1", "first");
        assert_eq!(publish("news", "k 1", "first"), first, "{broker}");
        assert_eq!(
            publish("news", "k 1", "other data, same key"),
            first,
            "{broker}"
        );
        assert_ne!(publish("news", "k 2", "first"), first, "{broker}");
        assert_ne!(
            publish("other", "k 1", "first"),
            first,
            "{broker}: keys are a topic's own"
        );
        let line =
            |key: &str| json!({"topic": "news", "data": "x", "idempotency_key": key}).to_string();
        let batch = [line("k 1"), line("k 3"), line("k 3")].join("\n");
        let ids = gateway.post("/events", &[NDJSON], batch).ids();
        assert_eq!(ids[0], first, "{broker}");
        assert_eq!(ids[1], ids[2], "{broker}");
        assert_eq!(length(gateway, "news"), 3, "{broker}");

        // The key is looked at first: whoever repeats the end is told of it, not refused.
        let end = || {
            gateway
                .post("/events/news?end", &[("Idempotency-Key", "e")], "end")
                .id()
        };
        assert_eq!(end(), end(), "{broker}");
        assert_eq!(publish("news", "k 1", "first"), first, "{broker}");
        gateway
            .post("/events/news", &[("Idempotency-Key", "new")], "x")
            .problem(409);
    });
}

#[test]
fn a_key_holds_over_every_way_that_takes_one() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[]);
    let event = NewEvent {
        topic: "news",
        data: "x",
        key: "k",
        ..NewEvent::default()
    };
    let ids: Vec<String> = Way::full()
        .filter_map(|way| way.publish(&gateway, &redis, event))
        .collect();
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
    eventually("the inbox is empty", || {
        redis.run::<u64>(&["XLEN", "tidegate:inbox"]) == 0
    });
    assert_eq!(length(&gateway, "news"), 1);
}

#[test]
fn a_key_is_forgotten_after_its_window() {
    over_both_brokers(
        &[("publish.idempotency_window", "100ms")],
        |broker, gateway| {
            let publish = || {
                gateway
                    .post("/events/news", &[("Idempotency-Key", "k")], "x")
                    .id()
            };
            let first = publish();
            eventually(&format!("{broker}: the key is forgotten"), || {
                publish() != first
            });
        },
    );
}

#[test]
fn a_key_that_is_none_is_refused() {
    over_both_brokers(&[], |broker, gateway| {
        for key in ["", "\u{fc}", &"k".repeat(256)] {
            let answer = gateway.post("/events/news", &[("Idempotency-Key", key)], "x");
            assert!(
                answer.problem(400).contains("Idempotency-Key"),
                "{broker} {key:?}"
            );
        }
        gateway
            .post(
                "/events/news",
                &[("Idempotency-Key", &"k".repeat(255))],
                "x",
            )
            .id();
        // A batch has a key for each line; one for all would protect none.
        let line = "{\"topic\":\"news\",\"data\":\"x\"}";
        let answer = gateway.post("/events", &[NDJSON, ("Idempotency-Key", "k")], line);
        assert!(answer.problem(400).contains("idempotency_key"), "{broker}");
        assert_eq!(length(gateway, "news"), 1, "{broker}");
    });
}

// --- what is no event ---

/// A line that cannot be published, and a word of what is said about it.
fn bad_lines() -> Vec<(Vec<u8>, &'static str)> {
    let large = json!({"topic": "t", "data": "x".repeat(EVENT_BYTES_MAX + 1)}).to_string();
    let lines: [(&[u8], &str); 19] = [
        (b"hello", "JSON"),
        (b"[\"t\",\"x\"]", "JSON"),
        (b"{\"topic\":\"t\",\"data\":\"x\"", "JSON"),
        (b"{\"topic\":\"t\",\"data\":\"x\"} {}", "JSON"),
        (b"{\"topic\":\"t\"}", "data"),
        (b"{\"data\":\"x\"}", "topic"),
        (b"{\"topic\":\"t\",\"data\":\"x\",\"data\":\"y\"}", "data"),
        (b"{\"topic\":\"t\",\"data\":\"x\",\"extra\":1}", "extra"),
        (b"{\"topic\":\"\",\"data\":\"x\"}", "topic"),
        (b"{\"topic\":\"a,b\",\"data\":\"x\"}", "topic"),
        (b"{\"topic\":\"tidegate.x\",\"data\":\"x\"}", "topic"),
        (
            b"{\"topic\":\"t\",\"type\":\"a\\nb\",\"data\":\"x\"}",
            "event",
        ),
        (
            b"{\"topic\":\"t\",\"type\":\"a\\rb\",\"data\":\"x\"}",
            "event",
        ),
        (
            b"{\"topic\":\"t\",\"type\":\"a\\u0000b\",\"data\":\"x\"}",
            "event",
        ),
        (b"{\"topic\":\"t\",\"data\":\"\xff\"}", "JSON"),
        (b"{\"topic\":\"t\",\"data\":\"\\ud83c\"}", "data"),
        (b"{\"topic\":\"t\",\"data\":\"x\",\"end\":1}", "boolean"),
        (
            b"{\"topic\":\"t\",\"data\":\"x\",\"idempotency_key\":\"\"}",
            "Idempotency-Key",
        ),
        (large.as_bytes(), "65536 bytes"),
    ];
    lines.map(|(line, word)| (line.to_vec(), word)).to_vec()
}

/// A batch whose line 7 is this one; all the others are good.
fn with_line_7(line: &[u8]) -> Vec<u8> {
    let good = |n: usize| {
        json!({"topic": "t", "data": n.to_string()})
            .to_string()
            .into_bytes()
    };
    let lines: Vec<Vec<u8>> = (1..=9)
        .map(|n| match n {
            3 => Vec::new(),
            7 => line.to_vec(),
            _ => good(n),
        })
        .collect();
    lines.join(&b'\n')
}

#[test]
fn a_batch_with_a_bad_line_is_not_published_and_the_line_is_named() {
    over_both_brokers(&[], |broker, gateway| {
        let mut stream = gateway.listen(&["t"]);
        for (line, word) in bad_lines() {
            let line_text = String::from_utf8_lossy(&line[..line.len().min(60)]).into_owned();
            let detail = gateway
                .post("/events", &[NDJSON], with_line_7(&line))
                .problem(400);
            assert!(
                detail.starts_with("line 7: ")
                    && detail.contains(word)
                    && !detail.contains("line 1"),
                "{broker} {line_text}: {detail}"
            );
        }
        assert_unharmed(gateway, &mut stream, "t");
        assert_eq!(length(gateway, "t"), 1, "{broker}");
    });
}

/// One call for all partitions: a line that is refused by one keeps back those of the others.
#[test]
fn a_batch_over_partitions_is_published_whole_or_not_at_all() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[("redis.partitions", "4")]);
    // Of the partitions 1, 2, 0, 1 and 3.
    let topics = ["news", "chess", "finished", "weather", "sport"];
    let mut stream = gateway.listen(&topics);
    let line = |topic: &str, data: &str| json!({ "topic": topic, "data": data }).to_string();
    let last = json!({ "topic": "sport", "data": "last", "end": true }).to_string();
    assert_eq!(gateway.post("/events", &[NDJSON], last).status, 200);
    assert_eq!(stream.next_event().data, "last");
    for place in 0..topics.len() {
        // The one that has ended, and those of all partitions before and behind it.
        let mut batch: Vec<String> = topics[..4].iter().map(|topic| line(topic, "x")).collect();
        batch.insert(place, line("sport", "one too many"));
        gateway
            .post("/events", &[NDJSON], batch.join("\n"))
            .problem(409);
    }
    let batch: Vec<String> = topics[..4].iter().map(|topic| line(topic, "y")).collect();
    let ids = gateway.post("/events", &[NDJSON], batch.join("\n")).ids();
    assert_eq!(ids.len(), 4);
    // Nothing of the batches that were refused came through.
    for _ in 0..4 {
        assert_eq!(stream.next_event().data, "y");
    }
}

#[test]
fn a_batch_can_be_published_line_by_line() {
    over_both_brokers(&[], |broker, gateway| {
        let mut stream = gateway.listen(&["t"]);
        for (line, word) in bad_lines() {
            let answer = gateway.post("/events?partial", &[NDJSON], with_line_7(&line));
            assert_eq!(answer.status, 200, "{broker}");
            let answers = answer.json()["events"].as_array().unwrap().clone();
            let numbers: Vec<&Value> = answers.iter().map(|answer| &answer["line"]).collect();
            assert_eq!(
                numbers,
                [1, 2, 4, 5, 6, 7, 8, 9],
                "{broker}: line 3 is blank"
            );
            for answer in &answers {
                if answer["line"] == 7 {
                    let detail = answer["detail"].as_str().unwrap();
                    assert!(detail.contains(word), "{broker} {word}: {detail}");
                    assert!(answer.get("id").is_none(), "{broker}: {answer}");
                } else {
                    let event = stream.next_event();
                    let shown = json!({"line": answer["line"], "topic": "t", "id": event.id()});
                    assert_eq!(*answer, shown, "{broker}");
                    assert_eq!(event.data, answer["line"].to_string(), "{broker}");
                }
            }
        }
    });
}

#[test]
fn a_batch_that_is_too_large_is_refused_whole() {
    let config = [
        ("publish.batch_events_max", "10"),
        ("publish.batch_bytes_max", "1000"),
    ];
    over_both_brokers(&config, |broker, gateway| {
        let mut stream = gateway.listen(&["t"]);
        let lines = |count| vec!["{\"topic\":\"t\",\"data\":\"x\"}"; count].join("\n");
        for target in ["/events", "/events?partial"] {
            let detail = gateway.post(target, &[NDJSON], lines(11)).problem(400);
            assert!(detail.contains("10 events"), "{broker}: {detail}");
            let spaces = " ".repeat(1001);
            let detail = gateway.post(target, &[NDJSON], spaces).problem(413);
            assert!(detail.contains("1000 bytes"), "{broker}: {detail}");
        }
        assert_unharmed(gateway, &mut stream, "t");
        assert_eq!(
            gateway.post("/events", &[NDJSON], lines(10)).ids().len(),
            10,
            "{broker}"
        );
    });
}

#[test]
fn what_is_no_event_is_refused_over_http() {
    let large = vec![b'x'; EVENT_BYTES_MAX + 1];
    let huge = vec![b'x'; 5_000_000];
    let long_type = format!("/events/news?type={}", "t".repeat(256));
    let long_topic = format!("/events/{}", "t".repeat(256));
    let table: [(&str, &[u8], u16, &str); 16] = [
        ("/events/news", b"a\xffb", 400, "UTF-8"),
        ("/events/news", b"cut off: \xf0\x9f\x8c", 400, "UTF-8"),
        (
            "/events/news",
            b"half a character: \xed\xa0\xbc",
            400,
            "UTF-8",
        ),
        ("/events/news?type=a%0Ab", b"x", 400, "event"),
        ("/events/news?type=a%0Db", b"x", 400, "event"),
        ("/events/news?type=a%00b", b"x", 400, "event"),
        ("/events/news?type=%FF", b"x", 400, "event"),
        ("/events/news?type=tidegate.gap", b"x", 400, "event"),
        (&long_type, b"x", 400, "event"),
        ("/events/a%23b", b"x", 400, "topic"),
        ("/events/a,b", b"x", 400, "topic"),
        ("/events/a%0Ab", b"x", 400, "topic"),
        ("/events/tidegate.connections", b"x", 400, "topic"),
        (&long_topic, b"x", 400, "topic"),
        ("/events/news", &large, 413, "65536 bytes"),
        ("/events/news", &huge, 413, "65536 bytes"),
    ];
    over_both_brokers(&[], |broker, gateway| {
        let mut stream = gateway.listen(&["news"]);
        for (target, body, status, word) in table {
            let detail = gateway.post(target, &[], body).problem(status);
            assert!(detail.contains(word), "{broker} {target}: {detail}");
        }
        for (reason, count) in [("invalid", 14.0), ("too_large", 2.0)] {
            gateway.wait_for_metric(
                "tidegate_publish_refused_total",
                &[("reason", reason)],
                count,
            );
        }
        assert_unharmed(gateway, &mut stream, "news");
        let topics = gateway.get("/topics").json()["topics"].clone();
        assert_eq!(topics, json!(["news"]), "{broker}");
    });
}

#[test]
fn what_is_no_event_is_refused_by_the_function() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[]);
    let mut stream = gateway.listen(&["news"]);
    let large = vec![b'x'; EVENT_BYTES_MAX + 1];
    let long = vec![b'x'; 256];
    // Everything after the number of keys, the code, a word of the rest.
    let table: [(&[&[u8]], &str, &str); 23] = [
        (&[b"news", b"a\xffb"], "TGINVALID", "UTF-8"),
        (&[b"news", b"\xf0\x9f\x8c"], "TGINVALID", "UTF-8"),
        (&[b"news", b"\xed\xa0\xbc"], "TGINVALID", "UTF-8"),
        (&[b"news", b"\xc0\xaf"], "TGINVALID", "UTF-8"),
        (&[b"news", &large], "TGLARGE", "65536"),
        (&[b"news", b"x", b"a\nb"], "TGINVALID", "type"),
        (&[b"news", b"x", b"a\rb"], "TGINVALID", "type"),
        (&[b"news", b"x", b"a\0b"], "TGINVALID", "type"),
        (&[b"news", b"x", b"\xff"], "TGINVALID", "type"),
        (&[b"news", b"x", b"tidegate.gap"], "TGINVALID", "type"),
        (&[b"news", b"x", &long], "TGINVALID", "type"),
        (&[b"", b"x"], "TGINVALID", "topic"),
        (&[b"a#b", b"x"], "TGINVALID", "topic"),
        (&[b"a*", b"x"], "TGINVALID", "topic"),
        (&[b"a,b", b"x"], "TGINVALID", "topic"),
        (&[b"a\0b", b"x"], "TGINVALID", "topic"),
        (&["a\u{85}b".as_bytes(), b"x"], "TGINVALID", "topic"),
        (&[b"\xff", b"x"], "TGINVALID", "topic"),
        (&[b"tidegate.connections", b"x"], "TGINVALID", "topic"),
        (&[&long, b"x"], "TGINVALID", "topic"),
        (&[b"news"], "TGINVALID", "usage"),
        (&[b"news", b"x", b"", b"END"], "TGINVALID", "end"),
        (
            &[b"news", b"x", b"", b"", b"k", b"more"],
            "TGINVALID",
            "usage",
        ),
    ];
    for (given, code, word) in table {
        let words = [&[&b"FCALL"[..], b"tidegate_publish", b"0"], given].concat();
        let why = redis.run_bytes::<String>(&words).unwrap_err();
        let shown: Vec<_> = given
            .iter()
            .map(|word| String::from_utf8_lossy(word))
            .collect();
        assert_eq!(why.code(), Some(code), "{shown:?}: {why}");
        assert!(why.detail().unwrap().contains(word), "{shown:?}: {why}");
    }
    assert_unharmed(&gateway, &mut stream, "news");
    assert_eq!(length(&gateway, "news"), 1);
}

#[test]
fn what_is_no_event_is_counted_and_logged_once_a_reason_where_it_was_published_raw() {
    let redis = Redis::start();
    let gateway = listening(&redis, &[]);
    let mut stream = gateway.listen(&["news", "other"]);
    let large = vec![b'x'; EVENT_BYTES_MAX + 1];
    let table: [(&[u8], &[u8]); 10] = [
        (b"events:news", b"a\xffb"),
        (b"events:news", b"\xed\xa0\xbc"),
        (b"events:news", &large),
        (b"events:news#a\nb", b"x"),
        (b"events:news#a\rb", b"x"),
        (b"events:news#a\0b", b"x"),
        (b"events:news#tidegate.gap", b"x"),
        (b"events:a,b", b"x"),
        (b"events:", b"x"),
        (b"events:\xff", b"x"),
    ];
    for (n, (channel, data)) in table.into_iter().enumerate() {
        redis
            .run_bytes::<u64>(&[b"PUBLISH", channel, data])
            .unwrap();
        // Others go on in between, in order.
        redis.publish_raw("events:other", n.to_string().as_bytes());
    }
    let numbers: Vec<String> = (0..table.len()).map(|n| n.to_string()).collect();
    assert_eq!(stream.next_data(table.len()), numbers);
    gateway.wait_for_metric(
        "tidegate_ingest_refused_total",
        &[("reason", "invalid")],
        10.0,
    );
    let message = "a raw publish is no event and is not logged";
    let lines = gateway.logged_at_least(4, message);
    assert_eq!(lines.len(), 4, "one a reason: {:?}", gateway.log());
    assert_unharmed(&gateway, &mut stream, "news");
    assert_eq!(length(&gateway, "news"), 1);
}

#[test]
fn what_is_no_event_is_counted_and_gone_where_it_was_added_to_the_inbox() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[]);
    let mut stream = gateway.listen(&["news", "other"]);
    let large = vec![b'x'; EVENT_BYTES_MAX + 1];
    let table: [&[&[u8]]; 8] = [
        &[b"topic", b"news", b"data", b"a\xffb"],
        &[b"topic", b"news", b"data", &large],
        &[b"topic", b"news", b"data", b"x", b"type", b"a\nb"],
        &[b"topic", b"news", b"data", b"x", b"type", b"a\0b"],
        &[b"topic", b"a,b", b"data", b"x"],
        &[b"topic", b"\xff", b"data", b"x"],
        &[b"data", b"x"],
        &[b"hello", b"world"],
    ];
    for (n, fields) in table.into_iter().enumerate() {
        let words = [&[&b"XADD"[..], b"tidegate:inbox", b"*"], fields].concat();
        redis.run_bytes::<String>(&words).unwrap();
        let good = NewEvent {
            topic: "other",
            data: &n.to_string(),
            ..NewEvent::default()
        };
        Way::Inbox.publish(&gateway, &redis, good);
    }
    let numbers: Vec<String> = (0..table.len()).map(|n| n.to_string()).collect();
    assert_eq!(stream.next_data(table.len()), numbers);
    gateway.wait_for_metric(
        "tidegate_ingest_refused_total",
        &[("reason", "invalid")],
        8.0,
    );
    eventually("the inbox is empty", || {
        redis.run::<u64>(&["XLEN", "tidegate:inbox"]) == 0
    });
    assert_unharmed(&gateway, &mut stream, "news");
    assert_eq!(length(&gateway, "news"), 1);
}

#[test]
fn the_limit_of_an_event_is_that_of_the_config_for_every_way() {
    let redis = Redis::start();
    let gateway = listening(&redis, &[("publish.event_bytes_max", "4")]);
    let mut stream = gateway.listen(&["news"]);
    for way in Way::ALL {
        // Four bytes, three characters.
        let event = NewEvent {
            topic: "news",
            data: "ab\u{fc}",
            ..NewEvent::default()
        };
        way.publish(&gateway, &redis, event);
        assert_eq!(stream.next_event().data, "ab\u{fc}", "{way:?}");
    }
    gateway.post("/events/news", &[], "abcde").problem(413);
    let words: [&[u8]; 5] = [b"FCALL", b"tidegate_publish", b"0", b"news", b"abcde"];
    assert_eq!(
        redis.run_bytes::<String>(&words).unwrap_err().code(),
        Some("TGLARGE")
    );
    redis.publish_raw("events:news", b"abcde");
    gateway.wait_for_metric(
        "tidegate_ingest_refused_total",
        &[("reason", "invalid")],
        1.0,
    );
    assert_unharmed_by_four(&gateway, &mut stream);
}

/// As [`assert_unharmed`], with data that fits into four bytes.
fn assert_unharmed_by_four(gateway: &Gateway, stream: &mut Sse) {
    let id = gateway.publish("news", "good");
    assert_eq!(stream.next_event().id(), id);
}

#[test]
fn a_topic_beyond_the_limit_is_refused_and_those_there_are_go_on() {
    over_both_brokers(&[("limits.topics_max", "2")], |broker, gateway| {
        gateway.publish("a", "x");
        let two = "{\"topic\":\"b\",\"data\":\"x\"}\n{\"topic\":\"c\",\"data\":\"x\"}";
        gateway.post("/events", &[NDJSON], two).problem(507);
        let twice = "{\"topic\":\"b\",\"data\":\"x\"}\n{\"topic\":\"b\",\"data\":\"y\"}";
        assert_eq!(
            gateway.post("/events", &[NDJSON], twice).ids().len(),
            2,
            "{broker}"
        );
        gateway.post("/events/c", &[], "x").problem(507);
        gateway.publish("a", "y");
        assert_eq!(
            gateway.get("/topics").json()["topics"],
            json!(["a", "b"]),
            "{broker}"
        );
    });
}

// --- who may ---

#[test]
fn publishing_needs_the_key_where_there_is_one() {
    let key = "a key of 30 characters, or so.";
    let folder = Directory::create();
    let file = folder.0.join("key");
    std::fs::write(&file, format!("{key}\n")).unwrap();
    let file = file.to_string_lossy().into_owned();
    for config in [("auth.publish_key", key), ("auth.publish_key_file", &file)] {
        let gateway = Gateway::start(&[config]);
        let mut stream = gateway.listen(&["news"]);
        let (bearer, in_lower_case) = (format!("Bearer {key}"), format!("bearer {key}"));
        let refused = [
            None,
            Some(String::new()),
            Some(key.to_owned()),
            Some("Bearer".to_owned()),
            Some("Bearer ".to_owned()),
            Some(format!("Basic {key}")),
            Some(format!("{bearer}x")),
            Some(bearer.trim_end_matches('.').to_owned()),
            Some(bearer.to_uppercase()),
        ];
        for given in &refused {
            let header = given.as_deref().map(|given| ("Authorization", given));
            let headers: Vec<_> = header.into_iter().collect();
            let mut words = given.as_deref().unwrap_or_default().split_whitespace();
            let is_bearer = words
                .next()
                .is_some_and(|word| word.eq_ignore_ascii_case("bearer"));
            let expected = if is_bearer && words.next().is_some() {
                "Bearer error=\"invalid_token\", error_description=\"not a key of this gateway\""
            } else {
                "Bearer"
            };
            let answers = [
                gateway.post("/events/news", &headers, "x"),
                gateway.post(
                    "/events",
                    &[&[NDJSON], &headers[..]].concat(),
                    "{\"topic\":\"news\",\"data\":\"x\"}",
                ),
                gateway.request("DELETE", "/topics/news", &headers, ""),
                // Whoever may not publish does not learn what would be wrong with it.
                gateway.post("/events/a,b", &headers, "x"),
            ];
            for answer in answers {
                answer.problem(401);
                let challenge = answer.headers.get("www-authenticate");
                assert_eq!(challenge, Some(expected), "{given:?}");
            }
        }
        for good in [&bearer, &in_lower_case] {
            let headers = [("Authorization", good.as_str())];
            let id = gateway.post("/events/news", &headers, "x").id();
            assert_eq!(stream.next_event().id(), id);
            gateway
                .post(
                    "/events",
                    &[&[NDJSON], &headers[..]].concat(),
                    "{\"topic\":\"other\",\"data\":\"x\"}",
                )
                .ids();
            gateway
                .request("DELETE", "/topics/other", &headers, "")
                .id();
        }
        let url = gateway.url();
        let words = ["publish", "news", "x", "--url", &url];
        let with_key = run(&[&words[..], &["--key", key]].concat(), &[]);
        assert_eq!(with_key.code, Some(0), "{}", with_key.stderr);
        let without = run(&words, &[]);
        assert_eq!(without.code, Some(1));
        assert!(without.stderr.contains("401"), "{}", without.stderr);
        // Reading is open, and the key is nowhere to be read.
        assert_eq!(gateway.get("/topics").status, 200);
        let log = gateway.log().join("\n");
        assert!(!log.contains(key), "{log}");
    }
}
