//! Goal: what the log holds can be asked for: which topics there are, what each one holds and who
//! reads it, its events page by page; and a topic can be deleted.
//!
//! Method: exact answers over both brokers, and subscribers counted over a fleet.

use crate::support::{Gateway, NDJSON, Redis, Sse, eventually, fleet, over_both_brokers};
use serde_json::{Value, json};

#[test]
fn topics_are_listed_by_name_and_page_by_page() {
    over_both_brokers(&[], |broker, gateway| {
        assert_eq!(
            gateway.get("/topics").json(),
            json!({"topics": [], "next": null}),
            "{broker}"
        );
        // A topic that is read and has no log is not listed.
        let _reader = gateway.listen(&["nothing"]);
        for topic in ["b", "\u{65e5}", "a", "B", "a:1"] {
            gateway.publish_batch(&[(topic, "x"), (topic, "y")]);
        }
        let table = [
            ("", json!(["B", "a", "a:1", "b", "\u{65e5}"]), Value::Null),
            ("?limit=2", json!(["B", "a"]), json!("a")),
            ("?limit=2&after=a", json!(["a:1", "b"]), json!("b")),
            ("?limit=2&after=b", json!(["\u{65e5}"]), Value::Null),
            ("?after=a:0", json!(["a:1", "b", "\u{65e5}"]), Value::Null),
            ("?after=%E6%97%A5", json!([]), Value::Null),
            (
                "?limit=5",
                json!(["B", "a", "a:1", "b", "\u{65e5}"]),
                json!("\u{65e5}"),
            ),
        ];
        for (query, topics, next) in table {
            let answer = gateway.get(&format!("/topics{query}")).json();
            assert_eq!(
                answer,
                json!({"topics": topics, "next": next}),
                "{broker} {query}"
            );
        }
        for query in ["limit=0", "limit=1001", "limit=x", "limit="] {
            let detail = gateway.get(&format!("/topics?{query}")).problem(400);
            assert!(detail.contains("limit"), "{broker} {query}: {detail}");
        }
    });
}

#[test]
fn a_topic_tells_what_its_log_holds() {
    over_both_brokers(&[("log.events_max", "3")], |broker, gateway| {
        let show = || gateway.get("/topics/news").json();
        let state = |first: Option<&String>, last: Option<&String>, length: u64, ended: bool| json!({"topic": "news", "first": first, "last": last, "length": length, "ended": ended, "subscribers": 0});
        gateway.get("/topics/news").problem(404);
        let ids: Vec<String> = (0..5)
            .map(|n| gateway.publish("news", &n.to_string()))
            .collect();
        assert_eq!(
            show(),
            state(Some(&ids[2]), Some(&ids[4]), 3, false),
            "{broker}"
        );
        let end = gateway.post("/events/news?end", &[], "end").id();
        assert_eq!(
            show(),
            state(Some(&ids[3]), Some(&end), 3, true),
            "{broker}"
        );
        let deleted = gateway.delete("/topics/news").id();
        assert_eq!(
            show(),
            state(Some(&deleted), Some(&deleted), 1, false),
            "{broker}"
        );

        let _readers = [(); 2].map(|()| gateway.listen(&["quiet"]));
        let quiet = gateway.get("/topics/quiet").json();
        assert_eq!(
            (&quiet["length"], &quiet["last"], &quiet["subscribers"]),
            (&json!(0), &Value::Null, &json!(2))
        );
        for target in ["/topics/a,b", "/topics/tidegate.connections", "/topics/%FF"] {
            let detail = gateway.get(target).problem(400);
            assert!(detail.contains("topic"), "{broker} {target}: {detail}");
        }
    });
}

#[test]
fn subscribers_are_counted_over_the_fleet_and_forgotten_with_their_replica() {
    let redis = Redis::start();
    let mut replicas = fleet(&redis, 2, &[]);
    let wait_for = |gateway: &Gateway, count: u64| {
        eventually(&format!("{count} subscribers"), || {
            let answer = gateway.get("/topics/news");
            answer.status == 200 && answer.json()["subscribers"] == count
        });
    };
    let here: Vec<Sse> = (0..2)
        .map(|_| replicas[0].listen(&["news", "other"]))
        .collect();
    let there: Vec<Sse> = (0..3).map(|_| replicas[1].listen(&["news"])).collect();
    replicas.iter().for_each(|replica| wait_for(replica, 5));
    drop(here);
    replicas.iter().for_each(|replica| wait_for(replica, 3));
    let again = replicas[0].listen(&["news"]);
    replicas[1].kill9();
    wait_for(&replicas[0], 1);
    drop((there, again));
}

#[test]
fn events_are_read_page_by_page() {
    over_both_brokers(&[], |broker, gateway| {
        let numbers: Vec<String> = (0..250).map(|n| n.to_string()).collect();
        let batch: Vec<(&str, &str)> = numbers.iter().map(|data| ("news", data.as_str())).collect();
        let ids = gateway.publish_batch(&batch);
        let expected: Vec<Value> = ids
            .iter()
            .zip(&numbers)
            .map(|(id, data)| json!({"id": id, "data": data}))
            .collect();
        for (limit, page) in [
            ("", 100),
            ("limit=7", 7),
            ("limit=250", 250),
            ("limit=1000", 1000),
        ] {
            let mut read: Vec<Value> = Vec::new();
            loop {
                let after = match read.last() {
                    Some(last) => format!("&after={}", last["id"].as_str().unwrap()),
                    None => String::new(),
                };
                let answer = gateway
                    .get(&format!("/topics/news/events?{limit}{after}"))
                    .json();
                assert_eq!(
                    (&answer["topic"], &answer["gap"]),
                    (&json!("news"), &Value::Null)
                );
                let events = answer["events"].as_array().unwrap();
                assert_eq!(events.len(), page.min(250 - read.len()), "{broker} {limit}");
                read.extend(events.iter().cloned());
                assert_eq!(answer["more"], read.len() < 250, "{broker} {limit}");
                if answer["more"] == false {
                    break;
                }
            }
            assert_eq!(read, expected, "{broker} {limit}");
        }
        let last = gateway.post("/events/news?type=price", &[], "typed").id();
        let answer = gateway
            .get(&format!("/topics/news/events?after={}", ids[249]))
            .json();
        assert_eq!(
            answer["events"],
            json!([{"id": last, "event": "price", "data": "typed"}])
        );
        let none = json!({"topic": "nothing", "events": [], "more": false, "gap": null});
        assert_eq!(
            gateway.get("/topics/nothing/events").json(),
            none,
            "{broker}"
        );
        for (query, part) in [
            ("after=x", "after"),
            ("after=", "after"),
            ("after=0:1-1", "after"),
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
        ] {
            let detail = gateway
                .get(&format!("/topics/news/events?{query}"))
                .problem(400);
            assert!(detail.contains(part), "{broker} {query}: {detail}");
        }
    });
}

#[test]
fn a_page_tells_of_what_is_missing_as_a_stream_would() {
    over_both_brokers(&[("log.events_max", "2")], |broker, gateway| {
        let ids: Vec<String> = (0..4)
            .map(|n| gateway.publish("news", &n.to_string()))
            .collect();
        let kept = json!([{"id": ids[2], "data": "2"}, {"id": ids[3], "data": "3"}]);
        let gap = |reason: &str, from: &str, to: &str| json!({"topic": "news", "reason": reason, "from": from, "to": to});
        let ahead = "7258118400000-5";
        let table = [
            (
                ids[0].as_str(),
                kept.clone(),
                gap("trimmed", &ids[0], &ids[1]),
            ),
            (&ids[1], kept.clone(), Value::Null),
            ("5-1", kept, gap("log_lost", "5-1", &ids[1])),
            (&ids[3], json!([]), Value::Null),
        ];
        for (after, events, gap) in table {
            let answer = gateway
                .get(&format!("/topics/news/events?after={after}"))
                .json();
            assert_eq!(
                (&answer["events"], &answer["gap"]),
                (&events, &gap),
                "{broker} {after}"
            );
        }
        let answer = gateway
            .get(&format!("/topics/news/events?after={ahead}"))
            .json();
        assert_eq!(
            (&answer["events"], &answer["gap"]["reason"]),
            (&json!([]), &json!("ahead"))
        );

        let deleted = gateway.delete("/topics/news").id();
        let answer = gateway
            .get(&format!("/topics/news/events?after={}", ids[2]))
            .json();
        let event =
            json!({"id": deleted, "event": "tidegate.deleted", "data": "{\"topic\":\"news\"}"});
        assert_eq!(answer["events"], json!([event]), "{broker}");
        assert_eq!(answer["gap"], gap("trimmed", &ids[2], &ids[3]), "{broker}");
    });
}

#[test]
fn a_topic_is_deleted_where_there_is_one() {
    over_both_brokers(&[], |broker, gateway| {
        gateway.delete("/topics/news").problem(404);
        let id = gateway.publish("news", "x");
        let answer = gateway.delete("/topics/news");
        assert_eq!(
            answer.json(),
            json!({"topic": "news", "id": answer.id()}),
            "{broker}"
        );
        assert!(
            crate::support::position(&answer.id()) > crate::support::position(&id),
            "{broker}"
        );
        for target in ["/topics/a,b", "/topics/tidegate.connections", "/topics/%FF"] {
            gateway.delete(target).problem(400);
        }
    });
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[]);
    let mut live = gateway.listen(&["news"]);
    let delete = ["FCALL", "tidegate_delete", "0", "news"];
    assert_eq!(redis.run::<Option<String>>(&delete), None);
    let id = gateway.publish("news", "x");
    assert_eq!(live.next_event().id(), id);
    let deleted: String = redis.run(&delete);
    let event = live.next_event();
    assert_eq!((event.id(), &*event.event), (&*deleted, "tidegate.deleted"));
}

#[test]
fn a_stream_that_wants_one_type_is_told_of_a_deletion_all_the_same() {
    over_both_brokers(&[], |broker, gateway| {
        let mut stream = gateway.open("/events/news?type=price", &[]);
        stream.opened();
        gateway.publish("news", "of no type");
        let deleted = gateway.delete("/topics/news").id();
        // A stream that has not looked in between is told of a gap first.
        let told = stream.next_of("tidegate.deleted");
        assert_eq!(told.id(), deleted, "{broker}");
    });
}

/// What expired logs leave behind would count as topics, and be looked at by every list.
#[test]
fn heads_of_expired_logs_are_forgotten_although_no_clock_is_ticked() {
    let redis = Redis::start();
    let config = [
        ("redis.tick_after", "1h"),
        ("redis.partitions", "2"),
        ("limits.topics_max", "60"),
    ];
    let gateway = Gateway::over(&redis, &config);
    for partition in 0..2 {
        let heads = format!("tidegate:{{{partition}}}:heads");
        for number in 0..80 {
            redis.run::<u64>(&["HSET", &heads, &format!("topic-{number}"), "1-1"]);
        }
    }
    gateway.post("/events/news", &[], "x").problem(507);
    eventually("there is room again", || {
        gateway.post("/events/news", &[], "x").status == 200
    });
}

/// Topics that are published to once filled Redis for an hour and more, and `limits.topics_max` with it.
#[test]
fn nothing_is_kept_of_topics_whose_logs_have_expired() {
    let redis = Redis::start();
    let config = [("log.age_max", "1s"), ("limits.topics_max", "15000")];
    let gateway = Gateway::over(&redis, &config);
    let mut live = gateway.listen(&["alive"]);
    // More in all than there may be at once: the dead make room, while events flow.
    for round in 0..20 {
        eventually("there is room", || {
            let lines: Vec<String> = (0..1000)
                .map(|n| {
                    json!({"topic": format!("t-{round}-{n}"), "data": "x", "idempotency_key": "k"})
                        .to_string()
                })
                .collect();
            gateway.post("/events", &[NDJSON], lines.join("\n")).status == 200
        });
        let id = gateway.publish("alive", "x");
        assert_eq!(live.next_event().id(), id);
    }
    eventually("what is alive is left", || {
        gateway.publish("alive", "x");
        let sizes = ["heads", "topics", "expires", "gaps"].map(|kind| {
            let key = format!("tidegate:{{0}}:{kind}");
            let size = if matches!(kind, "heads" | "gaps") {
                "HLEN"
            } else {
                "ZCARD"
            };
            redis.run::<u64>(&[size, &key])
        });
        sizes == [1, 1, 1, 0]
            && redis
                .run::<Vec<String>>(&["KEYS", "tidegate:{0}:*:t-*"])
                .is_empty()
    });
}

/// A call looks at 256 names at most. Those whose log is gone are passed over, and a page is full all the same.
#[test]
fn a_page_of_topics_is_full_however_many_names_are_looked_at_for_it() {
    let redis = Redis::start();
    let gateway = Gateway::over(
        &redis,
        &[("redis.partitions", "2"), ("redis.tick_after", "1h")],
    );
    let names: Vec<String> = (0..900).map(|number| format!("t{number:03}")).collect();
    for some in names.chunks(100) {
        let batch: Vec<(&str, &str)> = some.iter().map(|name| (name.as_str(), "x")).collect();
        gateway.publish_batch(&batch);
    }
    // Their logs were deleted by hand, or evicted, a moment ago.
    for name in &names[100..800] {
        for partition in 0..2 {
            redis.run::<u64>(&["DEL", &format!("tidegate:{{{partition}}}:log:{name}")]);
        }
    }
    let page = |query: &str| gateway.get(&format!("/topics{query}")).json();
    assert_eq!(
        page("?limit=150")["topics"],
        json!([&names[..100], &names[800..850]].concat())
    );
    assert_eq!(
        page("?limit=2&after=t099")["topics"],
        json!(names[800..802])
    );
    assert_eq!(
        page("?after=t849"),
        json!({"topics": names[850..], "next": null})
    );
}

/// Earlier builds kept no list of topics; nor does a publisher that may not write to it.
#[test]
fn topics_that_nobody_has_listed_are_listed_by_the_sweep() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[("redis.tick_after", "1h")]);
    for topic in ["b", "a"] {
        gateway.publish(topic, "x");
    }
    redis.run::<u64>(&["DEL", "tidegate:{0}:topics"]);
    eventually("they are listed again", || {
        gateway.get("/topics").json()["topics"] == json!(["a", "b"])
    });
}

/// The list of topics is what people look at, and no more: whatever stands in it, or in its place, events are
/// delivered, a page ends, and the sweep puts it in order.
#[test]
fn whatever_stands_in_the_list_of_topics_stops_no_event_and_no_page() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[]);
    let mut stream = gateway.listen(&["b"]);
    let topics = || gateway.get("/topics?limit=2").json()["topics"].clone();
    for topic in ["b", "a"] {
        gateway.publish(topic, "x");
    }
    stream.next_event();
    // Names without a log, no names at all, and scores by which they do not ascend
    redis.run::<u64>(&[
        "ZADD",
        "tidegate:{0}:topics",
        "-1",
        "zz",
        "0",
        "a1",
        "0",
        "a*1",
        "7",
        "b",
    ]);
    redis.run::<String>(&["XADD", "tidegate:{0}:log:a*1", "*", "a", "b"]);
    gateway.get("/topics?limit=2");
    eventually("what has no log is listed no more", || {
        topics() == json!(["a", "b"])
    });
    // Another key in its place, while the live path begins anew
    redis.run::<u64>(&["DEL", "tidegate:{0}:topics"]);
    redis.run::<()>(&["SET", "tidegate:{0}:topics", "x"]);
    redis.run::<i64>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let id = gateway.publish("b", "after");
    assert!(stream.next_event().id().ends_with(&id));
    eventually("it has made room", || topics() == json!(["a", "b"]));
}
