//! Goal: a finite topic ends for everyone: its last event reaches every stream, a stream whose
//! topics have all ended is closed cleanly, a client that comes back after it is told to stop, and
//! nothing is published to it any more.
//!
//! Method: topics are ended by every way to publish, and read with every kind of cursor, over both
//! brokers.

use crate::support::{
    End, Event, Gateway, NDJSON, NewEvent, Redis, Sse, Way, eventually, over_both_brokers,
    wait_for_ears,
};
use serde_json::json;

/// Publishes a topic's last event; the id.
fn end(gateway: &Gateway, topic: &str, data: &str) -> String {
    gateway
        .post(&format!("/events/{topic}?end"), &[], data)
        .id()
}

/// The data of every published event up to the end of the stream, which must be a clean one.
fn rest(stream: &mut Sse) -> Vec<String> {
    let (events, end) = stream.rest();
    assert_eq!(end, End::Clean, "{events:?}");
    let published = events.into_iter().filter(|event| !event.is_own());
    published.map(|event| event.data).collect()
}

/// The answer that makes an `EventSource` stop for good.
fn assert_stops(stream: &Sse, context: &str) {
    assert_eq!(stream.status(), 204, "{context}");
    assert!(stream.body().is_empty(), "{context}");
    assert_eq!(stream.headers().get("content-type"), None, "{context}");
}

#[test]
fn every_way_to_publish_but_the_raw_one_can_end_a_topic() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[]);
    for way in Way::full() {
        let topic = format!("{way:?}");
        let mut live = gateway.listen(&[&topic]);
        gateway.publish(&topic, "first");
        let last = NewEvent {
            topic: &topic,
            kind: "done",
            data: "last",
            end: true,
            ..NewEvent::default()
        };
        let told = way.publish(&gateway, &redis, last);
        assert_eq!(live.next_event().data, "first", "{way:?}");
        let event = live.next_event();
        assert_eq!((&*event.event, &*event.data), ("done", "last"), "{way:?}");
        assert!(told.is_none_or(|id| id == event.id()), "{way:?}");
        assert_eq!(live.rest(), (vec![], End::Clean), "{way:?}");
        assert_stops(&live.reconnect(), &topic);
        assert_eq!(
            gateway.get(&format!("/topics/{topic}")).json()["ended"],
            true
        );
    }
    let ended = [("reason", "ended")];
    // Each live stream, and the one that came back in vain.
    let count = Way::full().map(|_| 2.0).sum();
    gateway.wait_for_metric("tidegate_connections_closed_total", &ended, count);
}

#[test]
fn what_comes_after_the_cursor_is_shown_and_then_it_is_over() {
    over_both_brokers(&[], |broker, gateway| {
        let before = gateway.publish("other", "before");
        let first = gateway.publish("job", "first");
        let second = gateway.publish("job", "second");
        let last = end(gateway, "job", "last");
        let after = gateway.publish("other", "after");
        let table: [(&str, Option<&str>, &[&str]); 9] = [
            ("", Some(&before), &["first", "second", "last"]),
            ("", Some(&first), &["second", "last"]),
            ("", Some(&second), &["last"]),
            ("", None, &[]),
            ("", Some("not a cursor"), &[]),
            ("?since=earliest", None, &["first", "second", "last"]),
            ("?last=2", None, &["second", "last"]),
            ("?last=1", None, &["last"]),
            ("?heartbeat=event", None, &[]),
        ];
        for (query, cursor, expected) in table {
            let context = format!("{broker} {query} {cursor:?}");
            let headers: Vec<_> = cursor.map(|id| ("Last-Event-ID", id)).into_iter().collect();
            let mut stream = gateway.open(&format!("/events/job{query}"), &headers);
            stream.opened();
            assert_eq!(rest(&mut stream), expected, "{context}");
            assert_stops(&stream.reconnect(), &context);
        }
        // At the end, or after it.
        for cursor in [&last, &after] {
            let stream = gateway.open("/events/job", &[("Last-Event-ID", cursor)]);
            assert_stops(&stream, broker);
        }
        let by_query = gateway.open(&format!("/events/job?last_event_id={last}"), &[]);
        assert_stops(&by_query, broker);
        gateway.wait_for_metric("tidegate_open_connections", &[], 0.0);
    });
}

#[test]
fn a_stream_of_several_topics_goes_on_until_all_have_ended() {
    over_both_brokers(&[], |broker, gateway| {
        gateway.publish("a", "a");
        end(gateway, "a", "end of a");
        let mut stream = gateway.listen(&["a", "b", "c"]);
        end(gateway, "c", "end of c");
        gateway.publish("b", "b");
        assert_eq!(stream.next_data(2), ["end of c", "b"], "{broker}");
        // Coming back in between is coming back to a stream that goes on.
        let mut stream = stream.reconnect();
        stream.opened();
        end(gateway, "b", "end of b");
        assert_eq!(rest(&mut stream), ["end of b"], "{broker}");
        assert_stops(&stream.reconnect(), broker);
        let mut all = gateway.open("/events?topic=a&topic=b&topic=c&since=earliest", &[]);
        all.opened();
        let expected = ["a", "end of a", "end of c", "b", "end of b"];
        assert_eq!(rest(&mut all), expected, "{broker}");
    });
}

#[test]
fn a_client_that_was_not_shown_the_end_is_told_all_the_same_that_it_is_over() {
    let hidden = [("log.events_max", "1000")];
    let unopened = [("stream.open_event", "false")];
    for (config, target) in [
        (hidden, "/events/job?type=rare"),
        (hidden, "/events/job?type=rare&since=earliest"),
        (unopened, "/events/job"),
    ] {
        over_both_brokers(&config, |broker, gateway| {
            let mut live = gateway.open(target, &[]);
            // The head is there, so the stream is live, with an open event or without.
            gateway.publish("job", "first");
            end(gateway, "job", "last");
            live.rest();
            assert_stops(&live.reconnect(), &format!("{broker} live {target}"));
            let mut late = gateway.open(target, &[]);
            late.rest();
            assert_stops(&late.reconnect(), &format!("{broker} late {target}"));
        });
    }
}

#[test]
fn the_number_of_connections_never_ends() {
    over_both_brokers(&[], |broker, gateway| {
        let target = "/events?topic=job&topic=tidegate.connections";
        let mut stream = gateway.open(target, &[]);
        stream.opened();
        let last = end(gateway, "job", "last");
        assert_eq!(stream.next_published().id(), last, "{broker}");
        let _another = gateway.listen(&["news"]);
        while stream.next_of("tidegate.connections").json()["replica"] != 2 {}
        let mut back = gateway.open(target, &[("Last-Event-ID", &last)]);
        back.opened();
        back.next_of("tidegate.connections");
    });
}

#[test]
fn nothing_is_published_to_an_ended_topic() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[]);
    wait_for_ears(&redis, std::slice::from_ref(&gateway));
    let mut other = gateway.listen(&["other"]);
    let last = end(&gateway, "job", "last");

    let detail = gateway.post("/events/job", &[], "x").problem(409);
    assert!(detail.contains("job"), "{detail}");
    let mixed = "{\"topic\":\"other\",\"data\":\"not this\"}\n{\"topic\":\"job\",\"data\":\"x\"}";
    gateway.post("/events", &[NDJSON], mixed).problem(409);
    let after_its_end =
        "{\"topic\":\"own\",\"data\":\"1\",\"end\":true}\n{\"topic\":\"own\",\"data\":\"2\"}";
    gateway
        .post("/events", &[NDJSON], after_its_end)
        .problem(409);
    let refused = [("reason", "ended")];
    gateway.wait_for_metric("tidegate_publish_refused_total", &refused, 3.0);

    let words: [&[u8]; 5] = [b"FCALL", b"tidegate_publish", b"0", b"job", b"x"];
    let why = redis.run_bytes::<String>(&words).unwrap_err();
    assert_eq!((why.code(), why.detail()), (Some("TGENDED"), Some("job")));

    let event = NewEvent {
        topic: "job",
        data: "x",
        ..NewEvent::default()
    };
    Way::Inbox.publish(&gateway, &redis, event);
    gateway.wait_for_metric("tidegate_ingest_refused_total", &[("reason", "log")], 1.0);
    Way::Raw.publish(&gateway, &redis, event);
    gateway.wait_for_metric("tidegate_ingest_refused_total", &[("reason", "log")], 2.0);

    let topic = gateway.get("/topics/job").json();
    assert_eq!(
        (&topic["length"], &topic["last"]),
        (&json!(1), &json!(last))
    );
    gateway.get("/topics/own").problem(404);
    gateway.publish("other", "unharmed");
    assert_eq!(
        other.next_event().data,
        "unharmed",
        "nothing of a refused batch"
    );
}

#[test]
fn a_deleted_topic_that_had_ended_opens_anew() {
    over_both_brokers(&[], |broker, gateway| {
        gateway.publish("job", "first");
        let last = end(gateway, "job", "last");
        let deleted = gateway.delete("/topics/job").id();
        assert_eq!(
            gateway.get("/topics/job").json()["ended"],
            false,
            "{broker}"
        );
        let mut stream = gateway.open("/events/job", &[("Last-Event-ID", &last)]);
        stream.opened();
        let told = Event {
            id: Some(deleted),
            event: "tidegate.deleted".to_owned(),
            data: "{\"topic\":\"job\"}".to_owned(),
        };
        assert_eq!(stream.next_event(), told, "{broker}");
        gateway.publish("job", "anew");
        assert_eq!(stream.next_event().data, "anew", "{broker}");
        end(gateway, "job", "last again");
        assert_eq!(rest(&mut stream), ["last again"], "{broker}");
    });
}

#[test]
fn an_expired_topic_that_had_ended_opens_anew() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[]);
    end(&gateway, "job", "last");
    redis.run::<u64>(&["PEXPIRE", "tidegate:{0}:log:job", "1"]);
    eventually("the log has expired", || {
        gateway.get("/topics/job").status == 404
    });
    let anew = gateway.publish("job", "anew");
    let mut stream = gateway.open("/events/job?since=earliest", &[]);
    stream.opened();
    assert_eq!(stream.next_event().id(), anew);
}

/// A reader kept the feed, and with it the end that the log had forgotten: newcomers were answered 204 there, and found the
/// topic open on every other replica.
#[test]
fn an_end_whose_log_is_gone_turns_nobody_away() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[]);
    // It holds the feed: a stream of several topics goes on when one of them has ended.
    let mut keeper = gateway.listen(&["job", "other"]);
    let last = end(&gateway, "job", "done");
    assert_eq!(keeper.next_event().data, "done");
    let header = [("Last-Event-ID", last.as_str())];
    assert_stops(&gateway.open("/events/job", &header), "before");
    let removed: u64 = redis.run(&["DEL", "tidegate:{0}:log:job"]);
    assert_eq!(removed, 1);
    let mut back = gateway.open("/events/job", &header);
    back.opened();
    let mut new = gateway.listen(&["job"]);
    gateway.publish("job", "again");
    for stream in [&mut back, &mut new, &mut keeper] {
        assert_eq!(stream.next_published().data, "again");
    }
}
