//! Goal: a subscriber is shown what it asked for: from where, how much, of which types, for how
//! long; and coming back with any cursor shows each later event once.
//!
//! Method: real streams over both brokers. Blocks and headers byte by byte are in `wire.rs`, ended
//! topics in `ended.rs`, coming back while publishers go on in `hand_over.rs`.

use crate::support::{
    End, Event, Gateway, Redis, Sse, eventually, fleet, over_both_brokers, position,
};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};

/// An event as it was published: its id, its data.
type Published = (String, String);

/// Publishes `events` events, numbered by their data, to each topic in turn.
fn publish_in_turn(gateway: &Gateway, topics: &[&str], events: usize) -> Vec<Published> {
    let numbers: Vec<String> = (0..events).map(|n| n.to_string()).collect();
    let batch: Vec<(&str, &str)> = numbers
        .iter()
        .enumerate()
        .map(|(n, data)| (topics[n % topics.len()], data.as_str()))
        .collect();
    gateway
        .publish_batch(&batch)
        .into_iter()
        .zip(numbers)
        .collect()
}

/// Ids and data of the next `count` events, none of which may be the gateway's own.
fn next(stream: &mut Sse, count: usize) -> Vec<Published> {
    (0..count)
        .map(|_| {
            let event = stream.next_event();
            assert!(!event.is_own(), "{event:?}");
            (event.id().to_owned(), event.data)
        })
        .collect()
}

/// The data of events that are not the gateway's own.
fn data(events: &[Event]) -> Vec<&str> {
    let published = events.iter().filter(|event| !event.is_own());
    published.map(|event| event.data.as_str()).collect()
}

/// A stream that comes back with a cursor, once it is open.
fn resume(gateway: &Gateway, target: &str, cursor: &str) -> Sse {
    let mut stream = gateway.open(target, &[("Last-Event-ID", cursor)]);
    assert_eq!(stream.opened().id(), cursor, "the client's own cursor");
    stream
}

// --- where a stream begins ---

#[test]
fn a_first_visit_begins_live() {
    over_both_brokers(&[], |broker, gateway| {
        gateway.publish("a", "before");
        let mut stream = gateway.listen(&["a", "b"]);
        gateway.publish("b", "after");
        gateway.publish("a", "after that");
        assert_eq!(stream.next_data(2), ["after", "after that"], "{broker}");
    });
}

#[test]
fn history_is_merged_in_the_order_of_ids_and_goes_on_live() {
    let table = [
        ("since=earliest", usize::MAX),
        ("since=5m", usize::MAX),
        ("since=1000d", usize::MAX),
        ("last=1000", usize::MAX),
        ("last=7", 7),
        ("last=3", 3),
        ("last=1", 1),
    ];
    over_both_brokers(&[], |broker, gateway| {
        gateway.publish("other", "not asked for");
        let mut published = publish_in_turn(gateway, &["a", "b", "c"], 20);
        gateway.publish("other", "not asked for");
        for (query, last) in table {
            let target = format!("/events?topic=c&topic=a&topic=silent&topic=b&{query}");
            let mut stream = gateway.open(&target, &[]);
            let expected = &published[published.len().saturating_sub(last)..];
            let opened = position(stream.opened().id());
            assert!(
                opened < position(&expected[0].0),
                "{broker} {query}: a drop here must lead to all of it again"
            );
            assert_eq!(
                next(&mut stream, expected.len()),
                expected,
                "{broker} {query}"
            );
            let live = (gateway.publish("b", query), query.to_owned());
            published.push(live);
            assert_eq!(
                next(&mut stream, 1)[..],
                published[published.len() - 1..],
                "{broker} {query}"
            );
        }
    });
}

#[test]
fn the_last_events_of_several_partitions_are_counted_together() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[("redis.partitions", "4")]);
    // Of the partitions 1, 2, 0, 1 and 3.
    let topics = ["news", "chess", "finished", "weather", "sport"];
    let asked: Vec<String> = topics
        .iter()
        .map(|topic| format!("topic={topic}"))
        .collect();
    let mut published: Vec<String> = Vec::new();
    for (number, topic) in topics.iter().cycle().enumerate().take(40) {
        // One millisecond after the other, so that ids of all clocks compare.
        redis.run::<u64>(&["WAIT", "1", "2"]);
        gateway.publish(topic, &number.to_string());
        published.push(number.to_string());
    }
    for last in [1, 3, 17, 40, 50] {
        let target = format!("/events?{}&last={last}", asked.join("&"));
        let mut stream = gateway.open(&target, &[]);
        stream.opened();
        gateway.publish("news", "live");
        published.push("live".to_owned());
        let expected = &published[(published.len() - 1).saturating_sub(last)..];
        let mut shown = data_of(&mut stream, expected.len());
        let mut expected = expected.to_vec();
        // Each partition is in its own order.
        shown.sort_unstable();
        expected.sort_unstable();
        assert_eq!(shown, expected, "last={last}");
    }
}

/// The data of the next events.
fn data_of(stream: &mut Sse, count: usize) -> Vec<String> {
    next(stream, count)
        .into_iter()
        .map(|(_, data)| data)
        .collect()
}

#[test]
fn a_history_that_is_empty_goes_on_live() {
    over_both_brokers(&[], |broker, gateway| {
        gateway.publish("other", "not asked for");
        for query in ["since=earliest", "since=5m", "last=5"] {
            let topic = query.replace('=', "-");
            let mut stream = gateway.open(&format!("/events/{topic}?{query}"), &[]);
            stream.opened();
            let id = gateway.publish(&topic, "first");
            assert_eq!(stream.next_event().id(), id, "{broker} {query}");
        }
    });
}

#[test]
fn since_counts_back_from_the_clock_of_the_log() {
    const HOUR_MS: u64 = 3_600_000;
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[]);
    let old = gateway.publish("news", "old");
    // The clock of the log steps an hour ahead: what came before is an hour old.
    let (ms, _) = position(&old).unwrap();
    let ahead = format!("{}-0", ms + HOUR_MS);
    redis.run::<u64>(&["HSET", "tidegate:{0}:clock", "last", &ahead]);
    gateway.publish("news", "new");
    for (since, expected) in [("30m", &["new"][..]), ("2h", &["old", "new"])] {
        let mut stream = gateway.open(&format!("/events/news?since={since}"), &[]);
        assert_eq!(stream.next_data(expected.len()), expected, "{since}");
    }
}

#[test]
fn any_cursor_leads_to_each_later_event_once() {
    // Windows smaller than a page, a page smaller than the log of the busy topic and larger than
    // the others': what is shown comes from several pages, merged, then from the windows, then live.
    const EVENTS: usize = 900;
    over_both_brokers(&[("window.events_max", "20")], |broker, gateway| {
        let topics = ["a", "a", "b", "a", "a", "c"];
        let target = "/events?topic=b&topic=silent&topic=c&topic=a";
        let mut live = gateway.listen(&["a", "b", "c"]);
        let first = live.last_event_id().to_owned();
        let mut published = vec![(first, String::new())];
        published.extend(publish_in_turn(gateway, &topics, EVENTS));
        // The last one goes to one topic only, so that the others are behind.
        published.push((gateway.publish("a", "last"), "last".to_owned()));
        assert_eq!(next(&mut live, EVENTS + 1), published[1..], "{broker}");
        for from in [
            0,
            1,
            2,
            255,
            256,
            257,
            511,
            777,
            EVENTS - 1,
            EVENTS,
            EVENTS + 1,
        ] {
            let mut stream = resume(gateway, target, &published[from].0);
            let rest = &published[from + 1..];
            assert_eq!(next(&mut stream, rest.len()), rest, "{broker} {from}");
            let now = gateway.publish("c", "now");
            assert_eq!(stream.next_event().id(), now, "{broker} {from}");
            published.push((now, "now".to_owned()));
        }
    });
}

#[test]
fn one_id_is_a_cursor_for_other_topics_too() {
    over_both_brokers(&[], |broker, gateway| {
        let published = publish_in_turn(gateway, &["a", "b"], 6);
        let table: [(&str, &[usize]); 4] = [
            ("/events/a", &[4]),
            ("/events/b", &[3, 5]),
            ("/events?topic=b&topic=a", &[3, 4, 5]),
            ("/events?topic=new&topic=b", &[3, 5]),
        ];
        for (target, expected) in table {
            let mut stream = resume(gateway, target, &published[2].0);
            let expected: Vec<Published> = expected.iter().map(|n| published[*n].clone()).collect();
            assert_eq!(
                next(&mut stream, expected.len()),
                expected,
                "{broker} {target}"
            );
        }
    });
}

#[test]
fn over_several_partitions_a_cursor_speaks_of_those_of_its_topics() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[("redis.partitions", "4")]);
    let partition = |topic: &str| {
        let stream = gateway.listen(&[topic]);
        stream.last_event_id().split_once(':').unwrap().0.to_owned()
    };
    // Two topics of different partitions.
    let other = (0..).map(|n| format!("t{n}"));
    let other = other
        .into_iter()
        .find(|other| partition(other) != partition("a"))
        .unwrap();
    let both = format!("/events?topic=a&topic={other}");

    let mut alone = gateway.listen(&["a"]);
    let first = gateway.publish("a", "first");
    let cursor = alone.next_event().id().to_owned();
    assert_eq!(cursor, format!("{}:{first}", partition("a")));
    gateway.publish("a", "second");
    let mut heard = gateway.listen(&[&other]);
    gateway.publish(&other, "before it was asked for");
    heard.next_event();

    // A topic that was added since begins live.
    let mut added = gateway.open(&both, &[("Last-Event-ID", &cursor)]);
    added.opened();
    assert_eq!(added.next_event().data, "second");
    gateway.publish(&other, "live");
    let event = added.next_event();
    assert_eq!(event.data, "live");
    assert_eq!(event.id().matches(':').count(), 2, "{event:?}");

    // A topic that was left leaves its part of the cursor behind.
    gateway.publish("a", "third");
    let mut left = gateway.open("/events/a", &[("Last-Event-ID", event.id())]);
    left.opened();
    let event = left.next_event();
    assert_eq!(event.data, "third");
    assert_eq!(event.id().matches(':').count(), 1, "{event:?}");

    // Cursors of another gateway: a bare id, a partition that is none.
    for foreign in [first.as_str(), "9:1-1", "0:1-1,9:1-1"] {
        let mut stream = gateway.open(&both, &[("Last-Event-ID", foreign)]);
        stream.opened();
        let gaps = [stream.next_event(), stream.next_event()].map(|gap| gap.json());
        for topic in ["a", &other] {
            let told = gaps.iter().find(|gap| gap["topic"] == topic);
            assert_eq!(told.unwrap()["reason"], "bad_cursor", "{foreign}");
        }
        gateway.publish("a", foreign);
        assert_eq!(stream.next_event().data, foreign);
    }
}

#[test]
fn topics_in_too_many_partitions_for_one_cursor_are_refused_up_front() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[("redis.partitions", "64")]);
    let target = |topics: usize| {
        let topics: Vec<String> = (0..topics).map(|n| format!("topic=t{n}")).collect();
        format!("/events?{}", topics.join("&"))
    };
    let detail = gateway.get(&target(64)).problem(400);
    assert!(
        detail.contains("topic") && detail.contains("cursor"),
        "{detail}"
    );
    let channels: Vec<String> = redis.run(&["PUBSUB", "CHANNELS", "*live*"]);
    assert_eq!(channels, [""; 0], "nothing is subscribed");
    let mut stream = gateway.open(&target(20), &[]);
    let cursor = stream.opened().id().to_owned();
    assert!(cursor.contains(',') && cursor.len() <= 1024, "{cursor}");
}

// --- how much a stream shows ---

#[test]
fn a_limit_ends_the_stream_cleanly_after_so_many_events() {
    over_both_brokers(&[], |broker, gateway| {
        publish_in_turn(gateway, &["a", "b"], 5);
        let mut stream = gateway.open("/events?topic=a&topic=b&since=earliest&limit=2", &[]);
        for expected in [&["0", "1"], &["2", "3"], &["4", "5"]] {
            if expected[1] == "5" {
                gateway.publish("a", "5");
                gateway.publish("a", "6");
            }
            let (events, end) = stream.rest();
            assert_eq!(
                (data(&events), end),
                (expected.to_vec(), End::Clean),
                "{broker}"
            );
            stream = stream.reconnect();
        }
        gateway.wait_for_metric(
            "tidegate_connections_closed_total",
            &[("reason", "limit")],
            3.0,
        );
    });
}

#[test]
fn a_limit_does_not_count_what_the_gateway_itself_says() {
    over_both_brokers(&[("log.events_max", "2")], |broker, gateway| {
        let published = publish_in_turn(gateway, &["news"], 5);
        let target = "/events/news?limit=2";
        let (events, end) = resume(gateway, target, &published[0].0).rest();
        assert_eq!(events[0].event, "tidegate.gap", "{broker}");
        assert_eq!(
            (data(&events), end),
            (vec!["3", "4"], End::Clean),
            "{broker}"
        );
    });
}

#[test]
fn a_stream_of_a_given_age_ends_cleanly() {
    over_both_brokers(&[], |broker, gateway| {
        gateway.publish("news", "before");
        let mut stream = gateway.open("/events/news?since=earliest&max_age=1s", &[]);
        stream.opened();
        let (events, end) = stream.rest();
        assert_eq!(
            (data(&events), end),
            (vec!["before"], End::Clean),
            "{broker}"
        );
        gateway.publish("news", "between");
        let (events, end) = stream.reconnect().rest();
        assert_eq!(
            (data(&events), end),
            (vec!["between"], End::Clean),
            "{broker}"
        );
    });
}

#[test]
fn a_stream_of_the_greatest_age_is_cut_and_its_client_comes_back() {
    over_both_brokers(&[("stream.age_max", "50ms")], |broker, gateway| {
        let mut stream = gateway.open("/events/news", &[]);
        stream.opened();
        assert_eq!(stream.rest(), (vec![], End::Cut), "{broker}");
        gateway.publish("news", "between");
        let (events, end) = stream.reconnect().rest();
        assert_eq!(
            (data(&events), end),
            (vec!["between"], End::Cut),
            "{broker}"
        );
        gateway.wait_for_metric(
            "tidegate_connections_closed_total",
            &[("reason", "age")],
            2.0,
        );
    });
}

// --- which types ---

#[test]
fn only_events_of_the_types_asked_for_are_shown() {
    const TYPES: [&str; 6] = ["", "price", "", "trade", "message", "price"];
    let table = [
        ("type=price", &["1", "5"][..], "price"),
        ("type=price&type=trade", &["1", "3", "5"], "trade"),
        ("type=message", &["0", "2", "4"], ""),
        ("type=Price", &[], "Price"),
        ("type=nothing", &[], "nothing"),
    ];
    over_both_brokers(&[], |broker, gateway| {
        for (query, expected, last) in table {
            let mut live = gateway.open(&format!("/events/news?{query}"), &[]);
            live.opened();
            let before = live.last_event_id().to_owned();
            for (n, kind) in TYPES.iter().chain([&last]).enumerate() {
                gateway
                    .post(&format!("/events/news?type={kind}"), &[], n.to_string())
                    .id();
            }
            let expected: Vec<&str> = expected.iter().copied().chain(["6"]).collect();
            let mut replay = resume(gateway, &format!("/events/news?{query}"), &before);
            assert_eq!(live.next_data(expected.len()), expected, "{broker} {query}");
            assert_eq!(
                replay.next_data(expected.len()),
                expected,
                "{broker} {query}"
            );
            let target = format!("/events/news?limit={}&{query}", expected.len());
            let (events, end) = resume(gateway, &target, &before).rest();
            assert_eq!(
                (data(&events), end),
                (expected, End::Clean),
                "{broker} {query}"
            );
        }
    });
}

#[test]
fn a_filter_that_keeps_back_much_does_not_leave_the_cursor_behind() {
    over_both_brokers(&[("log.events_max", "20")], |broker, gateway| {
        let mut stream = gateway.open("/events/news?type=rare", &[]);
        let mut told = position(stream.opened().id());
        for _ in 0..3 {
            publish_in_turn(gateway, &["news"], 15);
            let cursor = stream.next_event();
            assert_eq!(cursor.event, "tidegate.cursor", "{broker}");
            assert_eq!(cursor.json(), json!({"cursor": cursor.id()}), "{broker}");
            assert!(told < position(cursor.id()), "{broker}");
            told = position(cursor.id());
        }
        // The log has long lost what the first cursor needed; the client is not told of a gap.
        let mut stream = stream.reconnect();
        stream.opened();
        gateway.post("/events/news?type=rare", &[], "at last").id();
        assert_eq!(stream.next_event().data, "at last", "{broker}");
    });
}

#[test]
fn a_cursor_is_refreshed_before_it_is_older_than_the_log() {
    let config = [
        ("log.age_max", "500ms"),
        ("stream.heartbeat", "20ms"),
        ("redis.tick_after", "20ms"),
    ];
    // With a topic that is silent, and with one whose events are all kept back.
    for busy in [false, true] {
        over_both_brokers(&config, |broker, gateway| {
            let done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while busy && !done.load(Ordering::Relaxed) {
                        gateway.publish("news", "common");
                    }
                });
                // Whatever happens, the publisher ends.
                let _ends = SetOnDrop(&done);
                let mut stream = gateway.open("/events/news?type=rare", &[]);
                let mut told = position(stream.opened().id());
                for _ in 0..2 {
                    let cursor = stream.next_event();
                    assert_eq!(cursor.event, "tidegate.cursor", "{broker} {busy}");
                    assert!(told < position(cursor.id()), "{broker} {busy}");
                    told = position(cursor.id());
                }
            });
        });
    }
}

/// Sets the flag on drop, in a panic too.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

// --- topics that go ---

#[test]
fn a_deleted_topic_says_so_and_opens_anew() {
    over_both_brokers(&[], |broker, gateway| {
        let published = publish_in_turn(gateway, &["news"], 3);
        let mut live = gateway.listen(&["news"]);
        let deleted = gateway.delete("/topics/news").id();
        let event = live.next_event();
        assert_eq!(event.event, "tidegate.deleted", "{broker}");
        assert_eq!(
            (event.id(), event.json()),
            (deleted.as_str(), json!({"topic": "news"}))
        );
        let anew = gateway.publish("news", "anew");
        assert_eq!(
            next(&mut live, 1),
            [(anew.clone(), "anew".to_owned())],
            "{broker}"
        );

        // Cursors from before: what they miss is told first, if they miss anything.
        for (cursor, misses) in [(&published[0].0, true), (&published[2].0, false)] {
            let mut stream = resume(gateway, "/events/news", cursor);
            if misses {
                let gap = json!({"topic": "news", "reason": "trimmed", "from": cursor, "to": published[2].0});
                assert_eq!(stream.next_event().json(), gap, "{broker} {cursor}");
            }
            assert_eq!(stream.next_event(), event, "{broker} {cursor}");
            assert_eq!(stream.next_event().id(), anew, "{broker} {cursor}");
        }
        let mut all = gateway.open("/events/news?since=earliest", &[]);
        all.opened();
        assert_eq!(all.next_event(), event, "{broker}");
        assert_eq!(all.next_event().id(), anew, "{broker}");
    });
}

// --- tidegate.connections ---

/// Reads until the number of connections is this; everything in between is a number, too.
fn wait_for_count(stream: &mut Sse, fleet: u64, replica: u64) {
    let wanted = json!({"fleet": fleet, "replica": replica});
    loop {
        let event = stream.next_event();
        assert_eq!(
            (event.event.as_str(), &event.id),
            ("tidegate.connections", &None)
        );
        if event.json() == wanted {
            return;
        }
    }
}

#[test]
fn the_number_of_connections_is_a_topic() {
    over_both_brokers(&[], |broker, gateway| {
        let mut watch = gateway.open("/events/tidegate.connections", &[]);
        let opened = watch.opened();
        assert_eq!(opened.id, None, "{broker}: it has no log, and no cursor");
        assert_eq!(
            opened.json()["topics"],
            json!(["tidegate.connections"]),
            "{broker}"
        );
        wait_for_count(&mut watch, 1, 1);
        let streams: Vec<Sse> = (0..3).map(|_| gateway.listen(&["news"])).collect();
        wait_for_count(&mut watch, 4, 4);
        drop(streams);
        wait_for_count(&mut watch, 1, 1);
        // Nobody publishes it, and it has no log.
        let answer = gateway.post("/events/tidegate.connections", &[], "1");
        assert!(answer.problem(400).contains("topic"), "{broker}");
    });
}

#[test]
fn the_number_of_connections_is_that_of_the_fleet() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 2, &[]);
    let mut watch = replicas[0].open("/events/tidegate.connections", &[]);
    watch.opened();
    let _here = replicas[0].listen(&["news"]);
    let _there = [(); 3].map(|()| replicas[1].listen(&["news"]));
    wait_for_count(&mut watch, 5, 2);
}

#[test]
fn the_number_of_connections_does_not_disturb_the_cursor_of_other_topics() {
    over_both_brokers(&[], |broker, gateway| {
        let target = "/events?topic=tidegate.connections&topic=news";
        let mut stream = gateway.open(target, &[]);
        let opened = stream.opened();
        assert_eq!(
            opened.json()["topics"],
            json!(["news", "tidegate.connections"]),
            "{broker}"
        );
        stream.next_of("tidegate.connections");
        let first = gateway.publish("news", "first");
        assert_eq!(stream.next_published().id(), first, "{broker}");
        let between = gateway.publish("news", "between");
        eventually("the other event is logged", || {
            gateway.get("/topics/news").json()["last"] == between.as_str()
        });
        let mut stream = resume(gateway, target, &first);
        assert_eq!(stream.next_published().id(), between, "{broker}");
        stream.next_of("tidegate.connections");
        assert_eq!(stream.last_event_id(), between, "{broker}");
    });
}

/// One call of Redis has room for 192 KiB or so. Of many topics with large events it brings some; a stream asks
/// again for the others, and shows all of them in order.
#[test]
fn topics_for_which_one_call_has_no_room_are_read_by_the_next() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[("window.events_max", "1")]);
    let data = "x".repeat(40_000);
    let names: Vec<String> = (0..12).map(|number| format!("large-{number}")).collect();
    let mut published = Vec::new();
    for round in 0..4 {
        for name in &names {
            let text = format!("{round} {name} {data}");
            published.push((gateway.publish(name, &text), text));
        }
    }
    let asked = names.join("&topic=");
    for (query, last) in [
        ("since=earliest", 48),
        ("last=1000", 48),
        ("last=20", 20),
        ("last=1", 1),
    ] {
        let mut stream = gateway.open(&format!("/events?topic={asked}&{query}"), &[]);
        stream.opened();
        let expected = &published[48 - last..];
        assert!(
            next(&mut stream, last) == expected,
            "{query}: all of them, once and in order"
        );
    }
    // The follower, too, asks again for what it did not get.
    let mut live = gateway.open(&format!("/events?topic={asked}"), &[]);
    live.opened();
    redis.run::<i64>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let again: Vec<_> = names
        .iter()
        .map(|name| (gateway.publish(name, &data), data.clone()))
        .collect();
    assert!(
        next(&mut live, 12) == again[..],
        "what was published while the live path was down"
    );
}

/// Where a stream that has to catch up says that it has, in a text whose ids are written as numbers.
#[test]
fn a_stream_that_catches_up_says_once_that_it_has() {
    over_both_brokers(&[], |broker, gateway| {
        let mut live = gateway.listen(&["news"]);
        let start = live.last_event_id().to_owned();
        let ids = publish_in_turn(gateway, &["news"], 3);
        let last = &ids[2].0;
        // What is there is what the replica has heard.
        live.next_data(3);
        for (query, shown) in [
            ("last=2".to_owned(), 2),
            (format!("last_event_id={last}"), 0),
            (format!("last_event_id={start}"), 3),
            ("since=earliest".to_owned(), 3),
            ("last_event_id=nonsense".to_owned(), 0),
            (format!("last_event_id={start}&type=none"), 0),
        ] {
            let mut stream = gateway.open(&format!("/events/news?{query}"), &[]);
            let head = stream.opened().json()["head"].clone();
            assert!(
                position(head.as_str().unwrap()) >= position(last),
                "{broker} {query}"
            );
            stream.read_until(|text| text.contains("event: tidegate.live\n"));
            let before = stream.text();
            let blocks = before.split_terminator("\n\n");
            let events = blocks.filter(|block| !block.contains("event: "));
            assert_eq!(events.count(), shown, "{broker} {query}");
            let live = before.rsplit("\n\n").nth(1).unwrap();
            let id = live
                .lines()
                .find_map(|line| line.strip_prefix("id: "))
                .unwrap();
            assert!(position(id) >= position(last), "{broker} {query}: {live}");
            assert!(
                live.ends_with(&format!("{{\"cursor\":\"{id}\"}}")),
                "{broker} {query}: {live}"
            );
            // Its own data: the next stream opens only once this very event was heard.
            let later = format!("after {query}");
            gateway.post("/events/news?type=none", &[], &later).id();
            stream.read_until(|text| text.contains(&format!("{later}\n\n")));
            assert_eq!(
                stream.text().matches("tidegate.live").count(),
                1,
                "{broker} {query}"
            );
        }
        // It is no event that is counted, and none where nothing was asked for.
        let target = format!("/events/news?last_event_id={start}&limit=4");
        let (events, end) = gateway.open(&target, &[]).rest();
        assert_eq!(
            (events.len(), end),
            (5, End::Clean),
            "{broker}: open, and four events"
        );
        let mut plain = gateway.listen(&["news"]);
        gateway.publish("news", "plain");
        plain.read_until(|text| text.contains("plain"));
        assert!(!plain.text().contains("tidegate.live"), "{broker}");
    });
}
