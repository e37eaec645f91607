//! Goal: a page of another origin reads and writes exactly if its origin is configured, and is told so on every
//! answer, so that no outage and no refusal ends its `EventSource` for good.
//!
//! Method: the fields of real answers, by what was configured and which origin asks. `tests/browser.rs` has a real
//! browser judge them.

use crate::support::{Answer, Gateway};

const ALLOW_ORIGIN: &str = "access-control-allow-origin";
const CREDENTIALS: &str = "access-control-allow-credentials";
const APP: &str = "https://app.example.com";

fn gateway(more: &[(&str, &str)]) -> Gateway {
    let origins = (
        "cors.origins",
        "https://app.example.com,https://*.example.org,null",
    );
    Gateway::start(&[&[origins], more].concat())
}

fn ask(gateway: &Gateway, method: &str, target: &str, fields: &[(&str, &str)]) -> Answer {
    gateway.request(method, target, fields, "")
}

fn field<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.get(name)
}

#[test]
fn every_answer_tells_an_origin_that_is_configured_and_no_other() {
    let gateway = gateway(&[]);
    let asked = [
        ("HEAD", "/events/news", 200),
        ("POST", "/events/news", 200),
        ("GET", "/topics", 200),
        ("GET", "/topics/none", 404),
        ("GET", "/events/news?last=x", 400),
        ("GET", "/nothing", 404),
        ("PUT", "/topics", 405),
        ("OPTIONS", "/events", 204),
    ];
    for (method, target, status) in asked {
        for origin in [APP, "https://a.b.example.org", "null"] {
            let answer = ask(&gateway, method, target, &[("Origin", origin)]);
            let what = format!("{method} {target} from {origin}");
            assert_eq!(answer.status, status, "{what}");
            assert_eq!(field(&answer, ALLOW_ORIGIN), Some(origin), "{what}");
            assert_eq!(field(&answer, CREDENTIALS), Some("true"), "{what}");
            assert_eq!(field(&answer, "vary"), Some("origin"), "{what}");
        }
        let from_elsewhere: [&[(&str, &str)]; 3] = [
            &[],
            &[("Origin", "https://evil.example")],
            &[("Origin", APP), ("Origin", "https://evil.example")],
        ];
        for fields in from_elsewhere {
            let answer = ask(&gateway, method, target, fields);
            assert_eq!(
                field(&answer, ALLOW_ORIGIN),
                None,
                "{method} {target}: {fields:?}"
            );
            assert_eq!(
                field(&answer, "vary"),
                Some("origin"),
                "{method} {target}: {fields:?}"
            );
        }
    }
}

/// What is sent back makes no head longer than a proxy's buffer: nginx would take the replica for broken.
#[test]
fn what_is_sent_back_is_short() {
    let gateway = gateway(&[]);
    let origin = format!("https://{}.example.org", "a".repeat(3000));
    let answer = ask(&gateway, "GET", "/topics", &[("Origin", &origin)]);
    assert_eq!(answer.status, 200);
    assert_eq!(field(&answer, ALLOW_ORIGIN), None);
    for (given, is_kept) in [("a".repeat(128), true), ("a".repeat(129), false)] {
        let answer = ask(&gateway, "GET", "/topics", &[("X-Request-Id", &given)]);
        let told = field(&answer, "x-request-id").unwrap();
        assert_eq!(told == given, is_kept);
        assert!(is_kept || told.len() == 32, "{told}");
    }
}

#[test]
fn a_stream_is_told_and_so_is_one_that_is_sent_away() {
    let gateway = gateway(&[("limits.streams_max", "1")]);
    let open = || gateway.open("/events/news", &[("Origin", APP)]);
    let mut first = open();
    first.opened();
    let mut second = open();
    let (events, _) = second.rest();
    assert!(events.is_empty(), "sent away: {events:?}");
    for stream in [first, second] {
        assert_eq!(stream.status(), 200);
        assert_eq!(stream.headers().get(ALLOW_ORIGIN), Some(APP));
        assert_eq!(stream.headers().get(CREDENTIALS), Some("true"));
    }
}

#[test]
fn what_a_page_may_do_is_told_before_it_does_it() {
    let gateway = gateway(&[("auth.publish_key", "let-me-in")]);
    let preflight = |origin, target| {
        let fields = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "POST"),
            (
                "Access-Control-Request-Headers",
                "last-event-id,authorization",
            ),
        ];
        ask(&gateway, "OPTIONS", target, &fields)
    };
    for target in ["/events", "/events/news", "/topics/news"] {
        let answer = preflight(APP, target);
        assert_eq!(answer.status, 204, "{target}");
        assert_eq!(field(&answer, ALLOW_ORIGIN), Some(APP));
        let list = |name| field(&answer, name).unwrap_or_default().to_lowercase();
        for method in ["get", "post", "delete"] {
            assert!(
                list("access-control-allow-methods").contains(method),
                "{method}"
            );
        }
        for name in [
            "last-event-id",
            "authorization",
            "idempotency-key",
            "content-type",
        ] {
            assert!(
                list("access-control-allow-headers").contains(name),
                "{name}"
            );
        }
        assert_eq!(field(&answer, "access-control-max-age"), Some("7200"));
        let refused = preflight("https://evil.example", target);
        for name in [ALLOW_ORIGIN, CREDENTIALS, "access-control-allow-methods"] {
            assert_eq!(field(&refused, name), None, "{target}: {name}");
        }
    }
}

#[test]
fn any_origin_reads_without_cookies_if_any_is_allowed() {
    let gateway = Gateway::start(&[("cors.origins", "*,https://app.example.com")]);
    for (origin, told, credentials) in [
        ("https://any.example", "*", None),
        ("null", "*", None),
        (APP, APP, Some("true")),
    ] {
        let answer = ask(&gateway, "GET", "/topics", &[("Origin", origin)]);
        assert_eq!(field(&answer, ALLOW_ORIGIN), Some(told));
        assert_eq!(field(&answer, CREDENTIALS), credentials, "{origin}");
    }
}

#[test]
fn without_origins_nothing_is_told() {
    let gateway = Gateway::start(&[]);
    for method in ["GET", "OPTIONS"] {
        let fields = [("Origin", APP), ("Access-Control-Request-Method", "GET")];
        let answer = ask(&gateway, method, "/events?limit=0", &fields);
        assert_eq!(field(&answer, ALLOW_ORIGIN), None);
        assert_eq!(field(&answer, "vary"), None);
        assert_eq!(field(&answer, "allow").is_some(), method == "OPTIONS");
    }
}
