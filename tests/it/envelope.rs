//! Goal: whoever asks for envelopes can tell of each event which topic it is of, and nothing else changes.
//!
//! Method: the real gateway over both brokers. What an envelope says of which data is held by unit tests
//! (`src/sse/envelope.rs`).

use crate::support::{Event, Gateway, Redis, Sse, over_both_brokers};
use serde_json::{Value, json};

const RULES: (&str, &str) = ("log.overrides", "[{topics = '*:typing', log = false}]");

/// The next event, which has no type, and what stands in its envelope.
fn next(stream: &mut Sse) -> (Event, Value) {
    let event = stream.next_event();
    assert_eq!(event.event, "", "every type comes to onmessage: {event:?}");
    let envelope = event.json();
    (event, envelope)
}

#[test]
fn an_event_says_its_topic_live_and_replayed() {
    over_both_brokers(&[RULES], |broker, gateway| {
        let target = "/events?topic=chat&topic=user:ann&topic=a:typing&envelope";
        let mut live = gateway.open(target, &[]);
        let start = live.opened().id().to_owned();
        let typing = gateway.post("/events/a:typing", &[], "x");
        assert_eq!(typing.status, 200, "{broker}");
        let (event, said) = next(&mut live);
        let expected = json!({
            "topic": "a:typing", "id": null, "event": null, "time": null, "encoding": "text", "data": "x",
        });
        assert_eq!(said, expected, "{broker}: it is not logged");
        assert_eq!(
            (event.id, live.last_event_id()),
            (None, &*start),
            "{broker}"
        );
        let published = [
            ("chat", "", "hello\nyou", json!("hello\nyou"), "text"),
            (
                "user:ann",
                "price",
                "{\"a\":\n[1.50, 2]}",
                json!({"a": [1.5, 2]}),
                "json",
            ),
            ("chat", "price", "", json!(""), "text"),
            (
                "user:ann",
                "",
                &"x".repeat(65_536),
                json!("x".repeat(65_536)),
                "text",
            ),
        ];
        let mut expected = Vec::new();
        for (topic, event_type, data, value, encoding) in &published {
            let target = format!("/events/{topic}?type={event_type}");
            let id = gateway.post(&target, &[], data).id();
            let time: u64 = id.split_once('-').unwrap().0.parse().unwrap();
            let event_type = Some(event_type).filter(|event_type| !event_type.is_empty());
            expected.push(json!({
                "topic": topic, "id": id, "event": event_type, "time": time, "encoding": encoding, "data": value,
            }));
        }
        let mut replayed = gateway.open(&format!("{target}&last_event_id={start}"), &[]);
        replayed.opened();
        for (number, stream) in [&mut live, &mut replayed].into_iter().enumerate() {
            for expected in &expected {
                let (event, said) = next(stream);
                assert_eq!(&said, expected, "{broker} {number}");
                assert_eq!(event.id(), said["id"], "{broker} {number}");
            }
        }
        // As it was written, and only the line breaks gone.
        assert!(
            live.text().contains(r#""data":{"a":[1.50, 2]}}"#),
            "{broker}"
        );
    });
}

#[test]
fn filters_limits_and_the_gateways_own_events_are_as_without() {
    over_both_brokers(&[], |broker, gateway| {
        let mut stream = gateway.open("/events/news?envelope=1&type=rare&limit=2", &[]);
        stream.opened();
        let mut all = gateway.open("/events/news?envelope=true&last_event_id=nonsense", &[]);
        all.opened();
        assert_eq!(all.next_event().event, "tidegate.gap", "{broker}");
        for (event_type, data) in [("", "1"), ("rare", "2"), ("common", "3"), ("rare", "4")] {
            gateway
                .post(&format!("/events/news?type={event_type}"), &[], data)
                .id();
        }
        let data: Vec<_> = (0..2)
            .map(|_| next(&mut stream).1["data"].clone())
            .collect();
        assert_eq!(data, [2, 4], "{broker}");
        assert_eq!(stream.rest().0.len(), 0, "{broker}");
        let data: Vec<_> = (0..4).map(|_| next(&mut all).1["data"].clone()).collect();
        assert_eq!(data, [1, 2, 3, 4], "{broker}");
        assert_eq!(gateway.delete("/topics/news").status, 200, "{broker}");
        assert_eq!(all.next_event().event, "tidegate.deleted", "{broker}");
        let mut plain = gateway.open("/events/news?envelope=0", &[]);
        plain.opened();
        gateway.publish("news", "plain");
        assert_eq!(plain.next_event().data, "plain", "{broker}");
        let refused = gateway.get("/events/news?envelope=yes");
        assert_eq!(refused.status, 400, "{broker}");
        assert!(refused.text().contains("envelope"), "{broker}");
    });
}

#[test]
fn over_partitions_the_envelope_has_the_events_own_id() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[("redis.partitions", "4")]);
    let names: Vec<_> = (0..8).map(|number| format!("topic=t{number}")).collect();
    let mut stream = gateway.open(&format!("/events?{}&envelope", names.join("&")), &[]);
    stream.opened();
    for number in 0..8 {
        let id = gateway.publish(&format!("t{number}"), "x");
        let (event, said) = next(&mut stream);
        assert_eq!(
            (&said["id"], &said["topic"]),
            (&json!(id), &json!(format!("t{number}")))
        );
        assert!(
            event.id().contains(':') && event.id().contains(&id),
            "{event:?}"
        );
    }
}

/// The window's bound holds for envelopes, too: who is behind it reads the log, and misses nothing.
#[test]
fn envelopes_stay_within_the_window_and_cost_nobody_an_event() {
    let gateway = Gateway::start(&[("window.bytes_max", "50000")]);
    let mut plain = gateway.listen(&["news"]);
    let start = plain.last_event_id().to_owned();
    let data: Vec<_> = (0..9)
        .map(|n| format!("{n}{}", "x".repeat(5_000)))
        .collect();
    for data in &data {
        gateway.publish("news", data);
    }
    for query in ["envelope", "envelope", "other=1"] {
        let target = format!("/events/news?{query}&last_event_id={start}&limit=9");
        let mut stream = gateway.open(&target, &[]);
        stream.opened();
        for data in &data {
            let event = stream.next_event();
            let said = if query == "envelope" {
                event.json()["data"].as_str().unwrap().to_owned()
            } else {
                event.data
            };
            assert_eq!(&said, data);
        }
    }
    assert_eq!(plain.next_data(9), data);
}
