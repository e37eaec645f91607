//! Goal: the log tells an operator what became of each stream, is not drowned by many, and holds
//! neither what clients prove themselves with nor what they publish.
//!
//! Method: real streams over both ways out, ended in each way that can be brought about; lines are
//! read as JSON. For secrets, everything is logged that can be, in both formats.

use crate::support::{Gateway, Process, Redis, Sse, binary, environment, eventually};
use serde_json::Value;

/// Both ways out of a replica.
const WAYS: [&str; 2] = ["true", "false"];

fn fields(line: &str) -> Value {
    serde_json::from_str::<Value>(line).unwrap()["fields"].clone()
}

/// What was said at the end of the one stream that has ended.
fn closed(gateway: &Gateway) -> Value {
    let line = gateway
        .wait_for_log("stream closed")
        .expect("its end is logged");
    assert_eq!(gateway.logged("stream closed").len(), 1, "once");
    fields(&line)
}

fn number(line: &Value, field: &str) -> u64 {
    line[field]
        .as_u64()
        .unwrap_or_else(|| panic!("{field} in {line}"))
}

#[test]
fn the_end_of_a_stream_says_what_it_came_to() {
    for sockets in WAYS {
        let gateway = Gateway::start(&[("engine.sockets", sockets)]);
        let mut stream = gateway.listen(&["news", "sport"]);
        gateway.publish("news", "one");
        gateway.publish("sport", "two");
        stream.next_data(2);
        let bytes = stream.body().len() as u64;
        stream.drop_connection();
        let line = closed(&gateway);
        assert_eq!(line["close_reason"], "client");
        assert_eq!((number(&line, "topics"), number(&line, "events")), (2, 2));
        assert_eq!(
            (number(&line, "lag"), &line["lag_at_least"]),
            (0, &false.into())
        );
        // A heartbeat may have gone after what was read.
        assert!(
            number(&line, "bytes") >= bytes && number(&line, "bytes") < bytes + 20,
            "{line}"
        );
        assert!(line["duration_ms"].is_u64());
    }
}

#[test]
fn an_end_on_purpose_says_its_reason() {
    for sockets in WAYS {
        for (target, reason) in [
            ("?limit=1", "limit"),
            ("?max_age=50ms", "limit"),
            ("", "age"),
        ] {
            let age = if reason == "age" { "1s" } else { "1h" };
            let gateway = Gateway::start(&[("engine.sockets", sockets), ("stream.age_max", age)]);
            let mut stream = gateway.open(&format!("/events/news{target}"), &[]);
            stream.opened();
            if target == "?limit=1" {
                gateway.publish("news", "one");
            }
            stream.rest();
            let line = closed(&gateway);
            assert_eq!(line["close_reason"], reason, "{target} {line}");
            assert_eq!(number(&line, "events"), u64::from(target == "?limit=1"));
        }
    }
}

#[test]
fn a_stream_that_went_behind_says_how_far() {
    for sockets in WAYS {
        let gateway = Gateway::start(&[("engine.sockets", sockets)]);
        let slow = gateway.listen(&["news"]);
        let mut quick = gateway.listen(&["news"]);
        let data = "x".repeat(60_000);
        eventually("it is behind", || {
            gateway.publish("news", &data);
            quick.next_published();
            gateway.get("/streams?limit=1").json()["streams"][0]["lag"].as_u64() >= Some(3)
        });
        drop(slow);
        let line = closed(&gateway);
        assert!(number(&line, "lag") >= 3, "{line}");
    }
}

#[test]
fn of_many_streams_at_once_some_are_said_and_the_others_counted() {
    const STREAMS: u64 = 40;
    let gateway = Gateway::start(&[("logging.stream_lines_max", "3")]);
    let streams: Vec<Sse> = (0..STREAMS)
        .map(|_| {
            let mut stream = gateway.open("/events/news?limit=1", &[]);
            stream.opened();
            stream
        })
        .collect();
    gateway.publish("news", "the only one");
    streams
        .into_iter()
        .for_each(|mut stream| drop(stream.rest()));
    for what in ["opened", "closed"] {
        let told = || {
            let left_out = gateway.logged(&format!("more streams {what}"));
            let left_out = left_out
                .iter()
                .map(|line| number(&fields(line), "left_out"));
            let lines = gateway.logged(&format!("stream {what}")).len() as u64;
            (lines, lines + left_out.sum::<u64>())
        };
        eventually("all are told of", || told().1 == STREAMS);
        assert!((3..STREAMS / 2).contains(&told().0), "{:?}", told());
    }

    let silent = Gateway::start(&[("logging.stream_lines_max", "0")]);
    drop(silent.listen(&["news"]));
    silent.wait_for_log("more streams closed").unwrap();
    assert_eq!(silent.logged("stream closed"), [""; 0]);
    assert_eq!(silent.logged("stream opened"), [""; 0]);
}

#[test]
fn that_a_stream_opens_is_said_with_its_topics_and_address() {
    for sockets in WAYS {
        let gateway = Gateway::start(&[("engine.sockets", sockets)]);
        drop(gateway.listen(&["news", "sport"]));
        let line = fields(&gateway.wait_for_log("stream opened").unwrap());
        assert_eq!(
            (number(&line, "topics"), &line["begin"]),
            (2, &"live".into())
        );
        assert_eq!(line["topic_names"], "[\"news\", \"sport\"]");
        let address = line["address"].as_str().unwrap();
        assert!(address.starts_with("127.0.0.1:"), "{line}");
        assert_eq!(closed(&gateway)["address"], address);
    }
}

/// Every place where a client may put what it proves itself with, and every way to publish.
#[test]
fn neither_tokens_nor_payloads_are_logged_whatever_the_level() {
    const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.s3cr3t-token.c2lnbmF0dXJl";
    const PAYLOAD: &str = "payload-that-nobody-but-subscribers-may-read";
    let redis = Redis::start();
    for format in ["json", "text"] {
        let url = redis.url();
        let config = environment(&[
            ("redis.url", &url),
            ("logging.level", "trace,h2=trace"),
            ("logging.format", format),
            ("auth.publish_key", TOKEN),
            ("server.listen", "127.0.0.1:0"),
        ]);
        let mut command = binary();
        let mut process = Process::spawn("tidegate", command.args(["serve"]).envs(config)).unwrap();
        let at = |line: &str| {
            let (_, port) = line
                .split_once("listening")
                .and(line.split_once("127.0.0.1:"))?;
            let port: String = port.chars().take_while(char::is_ascii_digit).collect();
            Some(format!("127.0.0.1:{port}").parse().unwrap())
        };
        let address = process.stderr.wait_for(at).unwrap();
        let send = |method: &str, target: &str, headers: &str, body: &str| {
            let request = format!(
                "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n{headers}\r\n{body}",
                body.len()
            );
            crate::support::exchange(address, request.as_bytes()).status
        };
        let secret = [
            format!("Authorization: Bearer {TOKEN}\r\n"),
            format!("Cookie: session={TOKEN}; tidegate={TOKEN}\r\n"),
        ];
        eventually("it is ready", || send("GET", "/readyz", "", "") == 200);
        for headers in secret.iter().map(String::as_str).chain([""]) {
            let query = format!("token={TOKEN}&access_token={TOKEN}");
            let right = if headers.starts_with("Authorization") {
                200
            } else {
                401
            };
            assert_eq!(send("POST", "/events/news?type=t", headers, PAYLOAD), right);
            // Whoever may publish learns that such a query is wrong; nobody else does.
            let refused = if right == 200 { 400 } else { right };
            let line = format!(r#"{{"topic":"news","data":"{PAYLOAD}"}}"#);
            for (target, body) in [("/events/news", PAYLOAD), ("/events", &line)] {
                assert_eq!(
                    send("POST", &format!("{target}?{query}"), headers, body),
                    refused
                );
            }
            assert_eq!(send("POST", "/events", headers, &line), refused);
            let read = format!("/events/news?since=earliest&max_age=100ms&{query}");
            assert_eq!(send("GET", &read, headers, ""), 200);
            assert_eq!(send("GET", &format!("/nothing?{query}"), headers, ""), 404);
            assert_eq!(
                send("GET", &format!("/events?limit=x&{query}"), headers, ""),
                400
            );
            assert_eq!(send("GET", &format!("/streams?{query}"), headers, ""), 400);
        }
        // HTTP/2 has a library of its own, which logs, too.
        let mut curl = std::process::Command::new("curl");
        curl.args(["--silent", "--http2-prior-knowledge", "--max-time", "10"])
            .args(["--header", secret[0].trim(), "--header", secret[1].trim()])
            .args(["--data", PAYLOAD])
            .arg(format!("http://{address}/events/news?token={TOKEN}"));
        assert!(
            curl.output()
                .expect("these tests need curl")
                .status
                .success()
        );
        // A refusal says where it is, not what.
        assert_eq!(
            send(
                "POST",
                "/events",
                &format!("{}Content-Type: application/x-ndjson\r\n", secret[0]),
                &format!("{{{PAYLOAD}")
            ),
            400
        );
        redis.publish("news", PAYLOAD, &[]);
        redis.publish_raw("events:news", PAYLOAD.as_bytes());
        redis.publish_raw("events:news", &[PAYLOAD.as_bytes(), b"\xff"].concat());
        redis.run::<String>(&[
            "XADD",
            "tidegate:inbox",
            "*",
            "topic",
            "news",
            "data",
            PAYLOAD,
        ]);
        redis.run::<String>(&[
            "XADD",
            "tidegate:inbox",
            "*",
            "topic",
            "a#b",
            "data",
            PAYLOAD,
        ]);
        let refused = || {
            let metrics = crate::support::exchange(
                address,
                b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
            );
            let line = r#"tidegate_ingest_refused_total{reason="invalid"} 2"#;
            metrics.text().contains(line)
        };
        eventually("what is no event was refused", refused);
        process.terminate();
        process.wait();
        let log = process.stderr.all();
        assert!(
            log.iter().any(|line| line.contains("DEBUG")),
            "all of it is there"
        );
        for line in &log {
            assert!(
                !line.contains("s3cr3t") && !line.contains(PAYLOAD),
                "{line}"
            );
        }
    }
}
