//! Goal: every byte that a client sees is the one that is promised: blocks, headers, statuses.
//!
//! Method: tables of request and exact answer, over both brokers. Only what differs by nature is
//! normalised: ids by the order in which they appear, the jittered `retry`, the replica's name by
//! config.

use crate::support::{End, Gateway, NDJSON, Sse, eventually, exchange, over_both_brokers};
use serde_json::json;
use std::fmt::Write as _;

/// A config under which answers are exact: a name, and no heartbeat in between.
const QUIET: [(&str, &str); 2] = [("replica.name", "r1"), ("stream.heartbeat", "1h")];

/// A config key more.
fn quiet_and<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    QUIET.iter().chain(more).copied().collect()
}

/// Replaces each id by `ID1`, `ID2`, … in order of appearance, and the reconnection time by `R`.
fn normalised(text: &str) -> String {
    let mut known: Vec<&str> = Vec::new();
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let ms = digits(rest);
        let seq = rest[ms..].strip_prefix('-').map_or(0, digits);
        let taken = if ms == 13 && seq > 0 {
            let id = &rest[..ms + 1 + seq];
            let number = known.iter().position(|other| *other == id);
            let number = number.unwrap_or_else(|| {
                known.push(id);
                known.len() - 1
            });
            write!(out, "ID{}", number + 1).unwrap();
            id.len()
        } else if ms > 0 && out.ends_with("retry: ") {
            out.push('R');
            ms
        } else if ms > 0 {
            out.push_str(&rest[..ms]);
            ms
        } else {
            out.push(c);
            c.len_utf8()
        };
        rest = &rest[taken..];
    }
    out
}

/// Reads until `blocks` blocks are there, and normalises them.
fn blocks(stream: &mut Sse, blocks: usize) -> String {
    stream.read_until(|text| text.matches("\n\n").count() >= blocks);
    normalised(&stream.text())
}

const OPEN: &str = "retry: R\nid: ID1\nevent: tidegate.open\ndata: {\"topics\":[\"news\"],\"cursor\":\"ID1\",\"head\":\"ID1\",\"replica\":\"r1\"}\n\n";
const OPEN_WITHOUT_ID: &str = "retry: R\nevent: tidegate.open\ndata: {\"topics\":[\"news\"],\"cursor\":\"ID1\",\"head\":\"ID1\",\"replica\":\"r1\"}\n\n";

#[test]
fn the_first_block_carries_retry_cursor_and_name() {
    over_both_brokers(&QUIET, |broker, gateway| {
        for target in [
            "/events/news",
            "/events?topic=news",
            "/events?topic=news&topic=news",
        ] {
            let mut stream = gateway.open(target, &[]);
            assert_eq!(blocks(&mut stream, 1), OPEN, "{broker} {target}");
            let retry = stream.retry().unwrap();
            assert!(
                (1500..=4500).contains(&retry),
                "3s plus or minus half: {retry}"
            );
        }
        let mut many = gateway.open("/events?topic=b&topic=a", &[]);
        assert_eq!(
            many.opened().json()["topics"],
            serde_json::json!(["b", "a"])
        );
        let mut none = gateway.open("/events", &[]);
        assert_eq!(
            none.opened().json()["topics"],
            serde_json::json!(["events"])
        );
    });
}

#[test]
fn two_connections_are_told_different_times_to_come_back() {
    let gateway = Gateway::start(&QUIET);
    let times: std::collections::BTreeSet<_> = (0..8)
        .map(|_| {
            let mut stream = gateway.listen(&["news"]);
            stream.read_until(|text| !text.is_empty());
            stream.retry().unwrap()
        })
        .collect();
    assert!(times.len() > 1, "no jitter: {times:?}");
}

#[test]
fn data_is_framed_line_by_line() {
    // Type, data, block.
    let table: [(&str, &str, &str); 17] = [
        ("", "hello", "id: ID\ndata: hello\n\n"),
        ("price", "1", "id: ID\nevent: price\ndata: 1\n\n"),
        ("", "", "id: ID\ndata: \n\n"),
        ("", "a\nb", "id: ID\ndata: a\ndata: b\n\n"),
        ("", "a\rb", "id: ID\ndata: a\ndata: b\n\n"),
        ("", "a\r\nb", "id: ID\ndata: a\ndata: b\n\n"),
        (
            "",
            "a\n\r\n\rb",
            "id: ID\ndata: a\ndata: \ndata: \ndata: b\n\n",
        ),
        ("", "\n", "id: ID\ndata: \ndata: \n\n"),
        ("", "a\n", "id: ID\ndata: a\ndata: \n\n"),
        ("", "a\r", "id: ID\ndata: a\ndata: \n\n"),
        ("", " leading", "id: ID\ndata:  leading\n\n"),
        (
            "",
            "id: 5\nevent: x\nretry: 1\n\n:",
            "id: ID\ndata: id: 5\ndata: event: x\ndata: retry: 1\ndata: \ndata: :\n\n",
        ),
        ("", "日本 🌊 \u{feff}", "id: ID\ndata: 日本 🌊 \u{feff}\n\n"),
        ("ty pe: é", "x", "id: ID\nevent: ty pe: é\ndata: x\n\n"),
        ("", "a\0b", "id: ID\ndata: a\0b\n\n"),
        (
            "",
            "a\u{2028}b\u{85}c\u{b}d",
            "id: ID\ndata: a\u{2028}b\u{85}c\u{b}d\n\n",
        ),
        ("message", "m", "id: ID\nevent: message\ndata: m\n\n"),
    ];
    over_both_brokers(&QUIET, |broker, gateway| {
        let mut live = gateway.listen(&["news"]);
        let start = live.last_event_id().to_owned();
        let mut seen = live.text().len();
        let mut all = String::new();
        let mut last = String::new();
        for (kind, data, block) in table {
            let target = format!("/events/news?type={}", encoded(kind));
            let id = gateway.post(&target, &[], data).id();
            let block = block.replace("ID", &id);
            last = id;
            live.read_until(|text| text.len() >= seen + block.len());
            let text = live.text();
            assert_eq!(text[seen..], block, "{broker} {kind:?} {data:?}");
            seen = text.len();
            all.push_str(&block);
        }
        // What is replayed is the same as what was live.
        let mut replay = gateway.open("/events/news", &[("Last-Event-ID", &start)]);
        replay.opened();
        let head = replay.text().find("\n\n").unwrap() + 2;
        all.push_str(&live_block(&last));
        replay.read_until(|text| text.len() >= head + all.len());
        assert_eq!(replay.text()[head..], all, "{broker}");
    });
}

/// Says that everything was shown that was there.
fn live_block(id: &str) -> String {
    format!("id: {id}\nevent: tidegate.live\ndata: {{\"cursor\":\"{id}\"}}\n\n")
}

/// Percent-encodes everything.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        write!(out, "%{byte:02X}").unwrap();
        out
    })
}

#[test]
fn an_event_of_the_largest_size_arrives_whole() {
    over_both_brokers(&QUIET, |broker, gateway| {
        let data = "x".repeat(65536);
        let mut stream = gateway.listen(&["news"]);
        gateway.publish("news", &data);
        assert_eq!(stream.next_event().data, data, "{broker}");
    });
}

#[test]
fn a_heartbeat_is_one_comment_line() {
    over_both_brokers(
        &[("replica.name", "r1"), ("stream.heartbeat", "20ms")],
        |broker, gateway| {
            for target in ["/events/news", "/events/news?heartbeat=comment"] {
                let mut stream = gateway.open(target, &[]);
                stream.next_comments(3);
                let text = normalised(&stream.text());
                let beats = text.strip_prefix(OPEN).unwrap();
                assert_eq!(beats, ":\n".repeat(beats.len() / 2), "{broker} {target}");
                // It does not disturb what comes after it.
                gateway.publish("news", "after");
                assert_eq!(stream.next_published().data, "after");
            }
        },
    );
}

#[test]
fn a_heartbeat_can_be_an_event_for_pages_that_watch() {
    over_both_brokers(
        &[("replica.name", "r1"), ("stream.heartbeat", "20ms")],
        |broker, gateway| {
            let mut stream = gateway.open("/events/news?heartbeat=event", &[]);
            let beat = "event: tidegate.heartbeat\ndata: {}\n\n";
            assert_eq!(
                blocks(&mut stream, 3).replacen(OPEN, "", 1)[..beat.len()],
                *beat,
                "{broker}"
            );
            let cursor = stream.last_event_id().to_owned();
            let event = stream.next_of("tidegate.heartbeat");
            assert_eq!(
                event.id, None,
                "{broker}: a heartbeat leaves the cursor alone"
            );
            assert_eq!(stream.last_event_id(), cursor, "{broker}");
            assert_eq!(stream.comments(), 0, "{broker}");
        },
    );
}

#[test]
fn the_headers_of_a_stream_are_these_and_no_more() {
    over_both_brokers(&QUIET, |broker, gateway| {
        let stream = gateway.listen(&["news"]);
        let headers = stream.headers();
        let values = [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-store, no-transform"),
            ("x-accel-buffering", "no"),
            ("x-content-type-options", "nosniff"),
            ("transfer-encoding", "chunked"),
        ];
        for (name, value) in values {
            assert_eq!(headers.get(name), Some(value), "{broker}");
        }
        let mut names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
        names.extend(["date", "x-request-id"]);
        names.sort_unstable();
        assert_eq!(headers.names(), names, "{broker}");
    });
}

#[test]
fn nothing_is_compressed_whatever_is_accepted() {
    let gateway = Gateway::start(&QUIET);
    let mut stream = gateway.open("/events/news", &[("Accept-Encoding", "gzip, br, zstd")]);
    assert_eq!(stream.headers().get("content-encoding"), None);
    assert_eq!(blocks(&mut stream, 1), OPEN);
}

#[test]
fn other_methods_open_no_stream() {
    over_both_brokers(&QUIET, |broker, gateway| {
        for target in ["/events/news", "/events"] {
            let head = gateway.request("HEAD", target, &[], "");
            assert_eq!(head.status, 200, "{broker} {target}");
            assert_eq!(head.headers.get("content-type"), Some("text/event-stream"));
            assert_eq!(
                head.headers.get("cache-control"),
                Some("no-store, no-transform")
            );
            assert_eq!(
                head.headers.get("content-length"),
                None,
                "GET would send none"
            );

            let options = gateway.request("OPTIONS", target, &[], "");
            assert_eq!(options.status, 204, "{broker} {target}");
            assert_eq!(
                options.headers.get("allow"),
                Some("GET, HEAD, POST, OPTIONS")
            );

            for method in ["PUT", "PATCH", "DELETE", "BREW"] {
                let answer = gateway.request(method, target, &[], "");
                answer.problem(405);
                let allow = answer.headers.get("allow").unwrap_or_default();
                assert!(
                    allow.contains("GET") && allow.contains("POST"),
                    "{broker} {method} {target}: {allow:?}"
                );
            }
        }
        for target in ["/topics", "/topics/news", "/topics/news/events", "/"] {
            gateway.post(target, &[], "x").problem(405);
        }
        assert!(gateway.metric("tidegate_connections_opened_total", &[]) < 0.5);
    });
}

#[test]
fn an_unknown_path_is_a_problem() {
    let gateway = Gateway::start(&QUIET);
    for target in [
        "/nothing",
        "/events/a/b",
        "/events/",
        "/topics/a/b/c",
        "/Events",
    ] {
        gateway.get(target).problem(404);
        gateway.post(target, &[], "x").problem(404);
    }
}

/// What was sent, as far as it fits, and what would be right.
#[test]
fn a_path_that_leads_nowhere_is_told_how_it_is_written() {
    let gateway = Gateway::start(&QUIET);
    // Path, what is said of it.
    let table = [
        ("/events/a/b", "%2F; use /events/a%2Fb"),
        ("/events/a/b/c%20d", "%2F; use /events/a%2Fb%2Fc%20d"),
        ("/events/a/", "with a slash; use /events/a"),
        ("/events/", "with a slash; use /events"),
        ("/topics/a/b", "%2F; use /topics/a%2Fb"),
        ("/topics/a/b/events", "%2F; use /topics/a%2Fb/events"),
        ("/topics/a/events/", "with a slash; use /topics/a/events"),
        ("/nothing", "/events/TOPIC"),
        ("/Events", "/events/TOPIC"),
        ("/healthz/x", "/topics/TOPIC"),
    ];
    for (path, right) in table {
        for method in ["GET", "POST", "DELETE"] {
            let detail = gateway.request(method, path, &[], "x").problem(404);
            assert!(
                detail.starts_with("path ") && detail.contains(&format!("{path:?}")),
                "{method} {path}: {detail}"
            );
            assert!(detail.contains(right), "{method} {path}: {detail}");
        }
    }
    let long = gateway.get(&format!("/events/a/{}", "b".repeat(8000)));
    assert!(long.problem(404).len() < 400, "{}", long.text());
    let detail = gateway.request("PUT", "/topics/news", &[], "").problem(405);
    for part in ["\"PUT\"", "\"/topics/news\"", "GET", "DELETE"] {
        assert!(detail.contains(part), "{part}: {detail}");
    }
    let long = "X".repeat(3000);
    let answer = gateway.request(&long, "/events", &[], "");
    assert!(answer.problem(405).len() < 400, "{}", answer.text());
}

/// In a terminal the next prompt would stand behind it, and `wc -l` would count none.
#[test]
fn every_answer_in_json_ends_its_line() {
    over_both_brokers(&QUIET, |broker, gateway| {
        let line = "{\"topic\":\"a\",\"data\":\"x\"}";
        let table = [
            gateway.post("/events/news", &[], "x"),
            gateway.post("/events", &[], "x"),
            gateway.post("/events", &[NDJSON], line),
            gateway.post("/events?partial", &[NDJSON], line),
            gateway.get("/topics"),
            gateway.get("/topics/news"),
            gateway.get("/topics/news/events"),
            gateway.get("/streams"),
            gateway.delete("/topics/news"),
            gateway.get("/nothing"),
            gateway.get("/events?topic="),
            gateway.delete("/topics/nothing"),
            gateway.request("PUT", "/events", &[], ""),
            exchange(
                gateway.address(),
                b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
            ),
        ];
        for answer in table {
            let text = answer.text();
            let kind = answer.headers.get("content-type").unwrap();
            assert!(kind.ends_with("json"), "{broker} {kind}");
            assert_eq!(text.matches('\n').count(), 1, "{broker} {text:?}");
            assert!(text.ends_with("}\n"), "{broker} {text:?}");
            assert!(answer.json().is_object(), "{broker}");
        }
    });
}

#[test]
fn an_http_1_0_client_gets_a_stream_without_chunks() {
    over_both_brokers(&QUIET, |broker, gateway| {
        let request = b"GET /events/news?limit=1 HTTP/1.0\r\n\r\n";
        let mut stream = Sse::exchange(gateway.connect(), request);
        assert_eq!(stream.status(), 200, "{broker}");
        assert_eq!(stream.headers().get("transfer-encoding"), None, "{broker}");
        assert_eq!(stream.headers().get("content-length"), None, "{broker}");
        assert_eq!(blocks(&mut stream, 1), OPEN, "{broker}");
        stream.opened();
        gateway.publish("news", "hello");
        assert_eq!(stream.next_event().data, "hello", "{broker}");
        // Without chunks, the close is the only end there is.
        assert_eq!(stream.rest(), (vec![], End::Cut), "{broker}");
    });
}

#[test]
fn the_open_event_can_be_turned_off() {
    over_both_brokers(
        &quiet_and(&[("stream.open_event", "false")]),
        |broker, gateway| {
            let mut stream = gateway.open("/events/news", &[]);
            stream.read_until(|text| text.ends_with('\n'));
            assert_eq!(
                normalised(&stream.text()),
                "retry: R\n",
                "{broker}: no block without data"
            );
            gateway.publish("news", "a");
            gateway.publish("news", "b");
            let expected = "retry: R\nid: ID1\ndata: a\n\nid: ID2\ndata: b\n\n";
            assert_eq!(blocks(&mut stream, 2), expected, "{broker}");
        },
    );
}

#[test]
fn a_cursor_that_cannot_be_read_is_told_and_goes_on_live() {
    let long = "9".repeat(2000);
    let bad = [
        "abc",
        "1",
        "1-",
        "-1",
        "01-1",
        "1-1-1",
        "+1-1",
        "1-1,2-2",
        "0:1-1",
        "3:1-1,17:2-2",
        "1763715600123",
        "1763715600123-0 x",
        "1-99999999999999999999",
        "caf\u{e9}",
        "\u{fffd}",
        &long,
    ];
    over_both_brokers(&QUIET, |broker, gateway| {
        gateway.publish("news", "before");
        for (index, cursor) in bad.into_iter().enumerate() {
            let mut stream = gateway.open("/events/news", &[("Last-Event-ID", cursor)]);
            assert_eq!(stream.status(), 200, "{broker} {cursor:?}");
            stream.read_until(|text| text.contains("tidegate.live"));
            gateway.publish("news", "live");
            let expected = format!(
                "{OPEN_WITHOUT_ID}id: ID1\nevent: tidegate.gap\ndata: {{\"topic\":\"news\",\"reason\":\"bad_cursor\",\"from\":null,\"to\":\"ID1\"}}\n\n{}id: ID2\ndata: live\n\n",
                live_block("ID1")
            );
            assert_eq!(blocks(&mut stream, 4), expected, "{broker} {cursor:?}");
            gateway.wait_for_metric(
                "tidegate_gaps_total",
                &[("reason", "bad_cursor")],
                index_as_count(index),
            );
        }
        let mut by_query = gateway.open("/events/news?last_event_id=nonsense", &[]);
        by_query.opened();
        assert_eq!(
            by_query.next_event().json()["reason"],
            "bad_cursor",
            "{broker}"
        );
    });
}

/// How many there were at this index.
fn index_as_count(index: usize) -> f64 {
    f64::from(u32::try_from(index + 1).unwrap())
}

#[test]
fn a_gap_of_several_topics_ends_with_the_id() {
    over_both_brokers(&QUIET, |broker, gateway| {
        let mut stream = gateway.open("/events?topic=a&topic=b", &[("Last-Event-ID", "?")]);
        assert_eq!(stream.opened().id, None, "{broker}");
        let (first, second) = (stream.next_event(), stream.next_event());
        let topics = [
            first.json()["topic"].clone(),
            second.json()["topic"].clone(),
        ];
        assert_eq!(topics, ["a", "b"], "{broker}");
        assert_eq!(
            first.id, None,
            "{broker}: a drop here must lead to both gaps again"
        );
        assert_eq!(
            second.id(),
            second.json()["to"].as_str().unwrap(),
            "{broker}"
        );
    });
}

#[test]
fn an_empty_cursor_is_none() {
    over_both_brokers(&QUIET, |broker, gateway| {
        for (target, headers) in [
            ("/events/news", &[("Last-Event-ID", "")][..]),
            ("/events/news?last_event_id=", &[]),
        ] {
            let mut stream = gateway.open(target, headers);
            stream.opened();
            gateway.publish("news", "live");
            assert_eq!(stream.next_event().data, "live", "{broker} {target}");
        }
    });
}

#[test]
fn a_cursor_ahead_of_the_clock_is_told_and_shown_all_that_the_log_has() {
    over_both_brokers(&QUIET, |broker, gateway| {
        let id = gateway.publish("news", "before");
        // The year 2200.
        let ahead = "7258118400000-5";
        let mut stream = gateway.open("/events/news", &[("Last-Event-ID", ahead)]);
        let begin = &stream.opened().json()["cursor"];
        let gap = stream.next_event();
        let told = json!({"topic": "news", "reason": "ahead", "from": ahead, "to": begin});
        assert_eq!(gap.json(), told, "{broker}");
        assert_eq!(gap.id.as_deref(), begin.as_str(), "{broker}");
        let before = stream.next_event();
        assert_eq!(
            (before.id.as_ref(), before.data.as_str()),
            (Some(&id), "before"),
            "{broker}"
        );
        gateway.publish("news", "live");
        assert_eq!(stream.next_data(1), ["live"], "{broker}");
        gateway.wait_for_metric("tidegate_gaps_total", &[("reason", "ahead")], 1.0);
    });
}

#[test]
fn what_was_trimmed_is_told_where_it_would_stand() {
    over_both_brokers(&quiet_and(&[("log.events_max", "3")]), |broker, gateway| {
        let ids: Vec<String> = (1..=6)
            .map(|n| gateway.publish("news", &n.to_string()))
            .collect();
        let tail = format!(
            "id: {}\ndata: 4\n\nid: {}\ndata: 5\n\nid: {}\ndata: 6\n\n{}",
            ids[3],
            ids[4],
            ids[5],
            live_block(&ids[5])
        );
        let resume = |cursor: &str, blocks: usize| {
            let mut stream = gateway.open("/events/news", &[("Last-Event-ID", cursor)]);
            assert_eq!(
                stream.opened().id(),
                cursor,
                "{broker}: the client's own cursor"
            );
            stream.read_until(|text| text.matches("\n\n").count() >= blocks);
            let text = stream.text();
            text[text.find("\n\n").unwrap() + 2..].to_owned()
        };
        for cursor in [&ids[0], &ids[1]] {
            let gap = format!(
                "id: {to}\nevent: tidegate.gap\ndata: {{\"topic\":\"news\",\"reason\":\"trimmed\",\"from\":\"{cursor}\",\"to\":\"{to}\"}}\n\n",
                to = ids[2]
            );
            assert_eq!(resume(cursor, 6), format!("{gap}{tail}"), "{broker}");
        }
        gateway.wait_for_metric("tidegate_gaps_total", &[("reason", "trimmed")], 2.0);
        // The gap's own id: it is not told again, and nothing is missing.
        assert_eq!(resume(&ids[2], 5), tail, "{broker}");
        gateway.wait_for_metric("tidegate_gaps_total", &[("reason", "trimmed")], 2.0);
    });
}

#[test]
fn a_cursor_from_before_the_log_is_told() {
    over_both_brokers(&QUIET, |broker, gateway| {
        gateway.publish("news", "1");
        let mut stream = gateway.open("/events/news", &[("Last-Event-ID", "1000-1")]);
        stream.opened();
        let gap = stream.next_event();
        assert_eq!(gap.event, "tidegate.gap", "{broker}");
        assert_eq!(gap.json()["reason"], "log_lost", "{broker}");
        assert_eq!(
            stream.next_event().data,
            "1",
            "{broker}: the retained tail follows"
        );
    });
}

#[test]
fn a_request_that_can_never_succeed_says_what_is_wrong() {
    let long = format!("/events?topic={}", "x".repeat(256));
    let many: Vec<String> = (0..65).map(|n| format!("topic=t{n}")).collect();
    let many = format!("/events?{}", many.join("&"));
    let table: [(&str, &str); 31] = [
        ("/events?topic=", "topic"),
        ("/events?topic=a%23b", "topic"),
        ("/events?topic=a*", "topic"),
        ("/events?topic=a,b", "topic"),
        ("/events?topic=a%0Ab", "topic"),
        ("/events?topic=a%00", "topic"),
        ("/events?topic=good&topic=a%7F", "topic"),
        ("/events?topic=%FF", "topic"),
        ("/events/a%23b", "topic"),
        ("/events/a%0D", "topic"),
        ("/events/%FF", "topic"),
        ("/events/tidegate.nothing", "topic"),
        (&long, "topic"),
        (&many, "topic"),
        ("/events/news?limit=0", "limit"),
        ("/events/news?limit=-1", "limit"),
        ("/events/news?limit=ten", "limit"),
        ("/events/news?limit=", "limit"),
        ("/events/news?limit=99999999999999999999", "limit"),
        ("/events/news?since=yesterday", "since"),
        ("/events/news?since=0s", "since"),
        ("/events/news?since=", "since"),
        ("/events/news?last=0", "last"),
        ("/events/news?last=1001", "last"),
        ("/events/news?last=all", "last"),
        ("/events/news?last=5&since=5m", "since and last"),
        ("/events/news?max_age=0s", "max_age"),
        ("/events/news?max_age=soon", "max_age"),
        ("/events/news?max_age=-5s", "max_age"),
        ("/events/news?heartbeat=loud", "heartbeat"),
        ("/events/news?heartbeat=", "heartbeat"),
    ];
    let gateway = Gateway::start(&QUIET);
    assert_what_was_given_is_shown(&gateway);
    for (target, part) in table {
        assert_eq!(gateway.open(target, &[]).status(), 400, "{target}");
        let detail = gateway.get(target).problem(400);
        assert!(detail.contains(part), "{target}: {detail}");
    }
    assert!(gateway.metric("tidegate_connections_opened_total", &[]) < 0.5);
    // What stands at the edge of the grammar is good.
    let edge: Vec<String> = (0..64).map(|n| format!("topic=t{n}")).collect();
    let edge = format!("/events?{}", edge.join("&"));
    for target in [
        &format!("/events?topic={}", "x".repeat(255)),
        &edge,
        "/events/a%20b%2Fc%3F",
        "/events/%E6%97%A5",
        "/events/news?limit=18446744073709551615&max_age=1d&last=1000&other=x",
    ] {
        gateway.open(target, &[]).opened();
    }
}

/// Part, what was given, what would be right; what was given is escaped, and not told back at any length.
fn assert_what_was_given_is_shown(gateway: &Gateway) {
    let long = "x".repeat(3000);
    let table = [
        ("/events/news?limit=ten", "limit \"ten\"", "whole number"),
        ("/events/news?since=%22%0A", "since \"\\\"\\n\"", "earliest"),
        ("/events/news?max_age=soon", "max_age \"soon\"", "20s or 5m"),
        (
            "/events/news?heartbeat=loud",
            "heartbeat \"loud\"",
            "event or comment",
        ),
        ("/events/a%23b", "topic \"a#b\"", "none of # * ,"),
        (
            "/events/tidegate.x",
            "topic \"tidegate.x\"",
            "tidegate.connections",
        ),
        ("/topics/a%2Cb", "topic \"a,b\"", "none of # * ,"),
        ("/topics/a%FF", "\"/topics/a%FF\"", "UTF-8"),
        (
            "/topics/news/events?after=x",
            "after \"x\"",
            "<milliseconds>-<number>",
        ),
        ("/topics?limit=0", "limit \"0\"", "from 1 to 1000"),
        ("/streams?sort=size", "sort \"size\"", "lag, age or bytes"),
    ];
    for (target, given, right) in table {
        let detail = gateway.get(target).problem(400);
        assert!(detail.contains(given), "{target}: {detail}");
        assert!(detail.contains(right), "{target}: {detail}");
    }
    for target in [
        "/events/news?limit=",
        "/events/news?since=",
        "/events/news?heartbeat=",
        "/events?topic=",
        "/events/",
        "/topics/",
        "/topics/news/events?after=",
        "/streams?sort=",
    ] {
        let detail = gateway.get(&format!("{target}{long}")).problem(400);
        assert!(detail.len() < 400 && detail.contains("xxx"), "{detail}");
    }
    let detail = gateway.get("/topics/nothing").problem(404);
    assert!(detail.starts_with("topic \"nothing\""), "{detail}");
}

#[test]
fn the_cursor_is_taken_from_the_header_before_the_query() {
    over_both_brokers(&QUIET, |broker, gateway| {
        let ids: Vec<String> = (1..=3)
            .map(|n| gateway.publish("news", &n.to_string()))
            .collect();
        let (first, second) = (ids[0].as_str(), ids[1].as_str());
        let table = [
            (None, format!("last_event_id={first}"), &["2", "3"][..]),
            (None, format!("lastEventId={first}"), &["2", "3"]),
            (
                None,
                format!("lastEventId={first}&last_event_id={second}"),
                &["3"],
            ),
            (Some(second), format!("last_event_id={first}"), &["3"]),
            (Some(first), format!("lastEventId={second}"), &["2", "3"]),
            (Some(second), "since=earliest".to_owned(), &["3"]),
            (Some(second), "last=3".to_owned(), &["3"]),
        ];
        for (header, query, expected) in table {
            let headers: Vec<_> = header.map(|id| ("Last-Event-ID", id)).into_iter().collect();
            let mut stream = gateway.open(&format!("/events/news?{query}"), &headers);
            assert_eq!(
                stream.next_data(expected.len()),
                expected,
                "{broker} {header:?} {query}"
            );
        }
    });
}

/// What a client is answered that may not have a stream now.
fn assert_refused(gateway: &Gateway, why: &str) {
    let proxied = gateway.request("GET", "/events/news", &[("Tidegate-Failover", "1")], "");
    proxied.problem(503);
    let wait: u64 = proxied.headers.get("retry-after").unwrap().parse().unwrap();
    assert!(wait >= 1, "{why}");

    for headers in [
        &[][..],
        &[("Tidegate-Failover", "0")],
        &[("Last-Event-ID", "1-1")],
    ] {
        let mut direct = gateway.open("/events/news", headers);
        assert_eq!(
            direct.status(),
            200,
            "{why}: EventSource gives up on anything else"
        );
        assert_eq!(
            direct.headers().get("content-type"),
            Some("text/event-stream"),
            "{why}"
        );
        assert_eq!(direct.rest(), (vec![], End::Cut), "{why}");
        assert_eq!(normalised(&direct.text()), "retry: R\n", "{why}");
    }
}

#[test]
fn beyond_the_limit_a_stream_is_refused_so_that_clients_come_back() {
    let gateway = Gateway::start(&quiet_and(&[("limits.streams_max", "2")]));
    let first = gateway.listen(&["news"]);
    let _second = gateway.listen(&["news"]);
    assert_refused(&gateway, "limit");
    gateway.wait_for_metric(
        "tidegate_connections_refused_total",
        &[("reason", "limit")],
        4.0,
    );
    // A bad request is still called bad.
    gateway.get("/events?topic=").problem(400);
    drop(first);
    gateway.wait_for_metric("tidegate_open_connections", &[], 1.0);
    gateway.listen(&["news"]);
}

#[test]
fn a_draining_replica_refuses_streams_so_that_clients_come_back() {
    let mut gateway = Gateway::start(&quiet_and(&[("drain.time", "10m")]));
    let open: Vec<Sse> = (0..16).map(|_| gateway.listen(&["news"])).collect();
    gateway.terminate();
    eventually("not ready", || gateway.get("/readyz").status == 503);
    assert_refused(&gateway, "draining");
    assert_eq!(gateway.get("/healthz").status, 200);
    drop(open);
}

#[test]
fn a_body_that_nobody_reads_is_no_request_and_header_names_have_no_case() {
    let gateway = Gateway::start(&QUIET);
    // A request with a body that nobody reads must not be taken for the next one.
    let answer = exchange(
        gateway.address(),
        b"GET /events/news?limit=0 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
    );
    answer.problem(400);
    let mut stream = Sse::exchange(
        gateway.connect(),
        b"GET http://tidegate.localhost/events/news HTTP/1.1\r\nhost: tidegate.localhost\r\nLAST-EVENT-ID: x\r\n\r\n",
    );
    assert_eq!(stream.opened().id, None, "names of headers have no case");
}
