//! Goal: a wrong word in a request is never passed over in silence: whoever misspells one is told, and
//! a stream that others have added names to goes on.
//!
//! Method: tables of targets with one name that is wrong, nearly right, or somebody else's, over every
//! path; what is answered names the word, and the one that was meant.

use crate::support::{Gateway, NDJSON, exchange, over_both_brokers};
use serde_json::json;

/// A config under which answers are exact.
const QUIET: [(&str, &str); 2] = [("replica.name", "r1"), ("stream.heartbeat", "1h")];

/// As they are sent: what stands there in place of what was meant.
const SLIPS: [(&str, &str, &str, &str); 24] = [
    ("GET", "/events", "topics=news", "topic"),
    ("GET", "/events", "topic=a&tpoic=b", "topic"),
    ("GET", "/events", "topic=a&Topic=b", "topic"),
    ("GET", "/events", "channel=news", "topic"),
    ("GET", "/events/news", "topics=news", "topic"),
    ("GET", "/events/news", "sicne=5m", "since"),
    ("GET", "/events/news", "limt=5", "limit"),
    ("GET", "/events/news", "evnt=price", "type"),
    ("GET", "/events/news", "event=price", "type"),
    ("GET", "/events/news", "tpye=price", "type"),
    ("GET", "/events/news", "last-event-id=1-1", "last_event_id"),
    ("GET", "/events/news", "lastEventID=1-1", "last_event_id"),
    ("GET", "/events/news", "cursor=1-1", "last_event_id"),
    ("GET", "/events/news", "maxage=20s", "max_age"),
    ("GET", "/events/news", "hearbeat=event", "heartbeat"),
    ("POST", "/events/news", "evnt=price", "type"),
    ("POST", "/events/news", "typ=price", "type"),
    ("POST", "/events/news", "ends", "end"),
    ("POST", "/events", "tpye=price", "type"),
    ("GET", "/topics", "limt=5", "limit"),
    ("GET", "/topics", "aftr=a", "after"),
    ("GET", "/topics/news/events", "limits=5", "limit"),
    ("GET", "/streams", "srt=lag", "sort"),
    ("GET", "/readyz", "delivry", "delivery"),
];

#[test]
fn a_name_that_is_nearly_known_is_refused_and_the_known_one_is_named() {
    let gateway = Gateway::start(&QUIET);
    gateway.publish("news", "x");
    for (method, path, query, meant) in SLIPS {
        let answer = gateway.request(method, &format!("{path}?{query}"), &[], "x");
        let detail = answer.problem(400);
        let wrong = query.rsplit('&').next().unwrap();
        let wrong = wrong.split('=').next().unwrap();
        assert!(
            detail.contains(&format!("{wrong:?}"))
                && detail.ends_with(&format!("did you mean {meant}?")),
            "{method} {path}?{query}: {detail}"
        );
    }
    // Of a batch, too.
    let line = r#"{"topic":"news","data":"x"}"#;
    let partly = gateway.post("/events?partail", &[NDJSON], line);
    assert!(partly.problem(400).ends_with("did you mean partial?"));
    assert_eq!(
        gateway.get("/topics/news").json()["length"],
        1,
        "nothing was published"
    );
    assert!(gateway.metric("tidegate_connections_opened_total", &[]) < 0.5);
}

/// A 400 would end an `EventSource` for good, and whoever adds to its URL is not who wrote it.
#[test]
fn a_stream_leaves_the_names_of_others_alone_and_says_which() {
    over_both_brokers(&QUIET, |broker, gateway| {
        let open = |query: &str| {
            let mut stream = gateway.open(&format!("/events?topic=news&{query}"), &[]);
            assert_eq!(stream.status(), 200, "{broker} {query}");
            stream.opened().json()
        };
        assert_eq!(
            open("_=123&utm_source=mail&_=124&token=secret&limit=5")["ignored"],
            json!(["_", "utm_source", "token"]),
            "{broker}: each once, and no value"
        );
        // Whatever they look like.
        assert_eq!(
            open("utm_topic=a&utm_=b&_&nonce=1")["ignored"],
            json!(["utm_topic", "utm_", "_", "nonce"]),
            "{broker}"
        );
        assert_eq!(
            open("a%0Ab%22=1&=2&%FF")["ignored"],
            json!(["a\nb\"", "", "\u{fffd}"])
        );
        for all_known in ["", "limit=5&type=a&type=b&lastEventId=&last=3"] {
            assert_eq!(open(all_known).get("ignored"), None, "{broker} {all_known}");
        }
    });
}

/// A stranger chooses them, and they are written to whoever reads the stream.
#[test]
fn what_a_stream_says_of_other_names_is_bounded() {
    let gateway = Gateway::start(&QUIET);
    let long = "\u{65e5}".repeat(300);
    let many: Vec<String> = (0..500).map(|n| format!("x{n:03}x")).collect();
    let query = format!("{long}&{}", many.join("&"));
    let mut stream = gateway.open(&format!("/events/news?{query}"), &[]);
    let ignored = stream.opened().json()["ignored"].clone();
    let ignored: Vec<String> = serde_json::from_value(ignored).unwrap();
    assert_eq!(ignored.len(), 8, "{ignored:?}");
    assert_eq!(ignored[0], "\u{65e5}".repeat(10), "what fits whole");
    assert_eq!(ignored[1..], many[..7]);
    gateway.publish("news", "goes on");
    assert_eq!(stream.next_event().data, "goes on");
}

#[test]
fn everything_but_a_stream_refuses_names_that_nobody_reads() {
    let gateway = Gateway::start(&[QUIET[0], QUIET[1], ("ops.listen", "127.0.0.1:0")]);
    gateway.publish("news", "x");
    // Method, path, what may stand there.
    let table = [
        ("POST", "/events", "type and end"),
        ("POST", "/events/news", "type and end"),
        ("GET", "/topics", "after and limit"),
        ("GET", "/topics/news", "takes none"),
        ("DELETE", "/topics/news", "takes none"),
        ("GET", "/topics/news/events", "after and limit"),
    ];
    for (method, path, known) in table {
        for name in ["_", "utm_source", "token", "x%0Ay"] {
            let answer = gateway.request(method, &format!("{path}?{name}=s3cret"), &[], "x");
            let detail = answer.problem(400);
            let shown = name.replace("%0A", "\\n");
            assert!(
                detail.contains(&format!("\"{shown}\"")) && detail.contains(known),
                "{method} {path} {name}: {detail}"
            );
            assert!(!detail.contains("s3cret"), "{detail}");
        }
    }
    let long = gateway.get(&format!("/topics?{}", "x".repeat(8000)));
    assert!(long.problem(400).len() < 300, "{}", long.text());
    let ops = gateway.ops_address().unwrap();
    for path in ["/streams", "/healthz", "/readyz", "/metrics"] {
        let head = format!("GET {path}?foo=1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let detail = exchange(ops, head.as_bytes()).problem(400);
        assert!(detail.contains("\"foo\""), "{path}: {detail}");
    }
    assert_eq!(gateway.get("/topics/news").json()["length"], 1);
    // A query without a name is none.
    for path in ["/topics?", "/topics?&", "/topics/news?"] {
        assert_eq!(gateway.get(path).status, 200, "{path}");
    }
}

#[test]
fn a_path_that_names_a_topic_takes_no_other() {
    over_both_brokers(&QUIET, |broker, gateway| {
        for (method, query) in [
            ("GET", "topic=other"),
            ("GET", "topic=news"),
            ("GET", "limit=1&topic="),
            ("POST", "topic=other"),
        ] {
            let answer = gateway.request(method, &format!("/events/news?{query}"), &[], "x");
            let detail = answer.problem(400);
            assert!(
                detail.starts_with("topic") && detail.contains("\"news\""),
                "{broker} {method} {query}: {detail}"
            );
        }
        let detail = gateway.post("/events?topic=news", &[], "x").problem(400);
        assert!(
            detail.contains("POST /events/TOPIC"),
            "{broker} it says how: {detail}"
        );
        assert_eq!(gateway.get("/topics").json()["topics"], json!([]));
    });
}
