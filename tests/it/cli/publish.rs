//! `tidegate publish`.

use super::{ask, done};
use crate::support::{
    Directory, Gateway, Lines, Nginx, Output, Process, Redis, Terminal, binary, eventually, run,
    run_with,
};
use serde_json::json;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

/// The exit code for what is refused as it is.
const REFUSED: Option<i32> = Some(65);
/// The exit code of what was interrupted.
const INTERRUPTED: Option<i32> = Some(130);

/// A gateway whose topics keep all that a test publishes.
fn gateway() -> Gateway {
    Gateway::start(&[
        ("log.events_max", "1000000"),
        ("limits.history_events_max", "1000"),
    ])
}

/// The data of all events of a topic, in order, without what the gateway says of it.
fn history(gateway: &Gateway, topic: &str) -> Vec<String> {
    let words = ["topics", "history", topic, "--limit", "1000000", "--json"];
    let all = done(ask(gateway, &words));
    let data = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).expect("an event a line");
        let data = event["data"].as_str().expect("text").to_owned();
        (event["event"] != "tidegate.deleted").then_some(data)
    };
    all.lines().filter_map(data).collect()
}

/// A file of a test, and the numbers of its lines as they are published.
fn file(directory: &Directory, lines: usize, line: impl Fn(usize) -> String) -> PathBuf {
    let path = directory.0.join("lines");
    let text = (1..=lines).fold(String::new(), |mut text, number| {
        writeln!(text, "{}", line(number)).unwrap();
        text
    });
    std::fs::write(&path, text).unwrap();
    path
}

fn numbers(to: usize) -> Vec<String> {
    (1..=to).map(|number| number.to_string()).collect()
}

/// The command that a sentence on standard error proposes, without its program.
fn proposed(stderr: &str) -> Vec<String> {
    let line = stderr
        .lines()
        .find_map(|line| line.trim().strip_prefix("tidegate publish "))
        .unwrap_or_else(|| panic!("no command in {stderr}"));
    let words = line
        .split(' ')
        .map(|word| word.trim_matches('\'').to_owned());
    std::iter::once("publish".to_owned()).chain(words).collect()
}

fn again(stderr: &str) -> Output {
    let words = proposed(stderr);
    run(&words.iter().map(String::as_str).collect::<Vec<_>>(), &[])
}

#[test]
fn lines_come_from_standard_input_or_a_file_each_as_one_event() {
    let gateway = gateway();
    let url = gateway.url();
    let words = ["publish", "news", "--type", "t", "--url", &url];
    let text = "first\r\n\n{\"a\": 1}\nlast without an end";
    assert_eq!(done(run_with(&words, &[], text)), "4 lines are published");
    let events = gateway.get("/topics/news/events").json()["events"].clone();
    let shown: Vec<_> = events
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (&e["event"], &e["data"]))
        .collect();
    let t = json!("t");
    let data = ["first", "", "{\"a\": 1}", "last without an end"].map(|data| json!(data));
    assert_eq!(
        shown,
        data.iter().map(|data| (&t, data)).collect::<Vec<_>>()
    );

    let directory = Directory::create();
    let path = file(&directory, 2500, |number| number.to_string());
    let words = ["publish", "job", "--file", path.to_str().unwrap(), "--end"];
    done(ask(&gateway, &words));
    assert_eq!(history(&gateway, "job"), numbers(2500));
    assert_eq!(gateway.get("/topics/job").json()["ended"], true);
    // Once more: its key is known, so nothing is published and nothing refused.
    done(ask(&gateway, &words));
    assert_eq!(history(&gateway, "job").len(), 2500);
}

#[test]
fn lines_without_a_topic_are_json_and_have_their_own() {
    let gateway = gateway();
    let url = gateway.url();
    let lines = r#"{"topic":"a","event":"t","data":{"n":1.50}}

        {"topic":"b","data":"text","idempotency_key":"own"}
        {"topic":"b","data":"again","idempotency_key":"own"}
    "#;
    let words = ["publish", "--url", &url, "--run", "r", "--file", "-"];
    done(run_with(&words, &[], lines));
    done(run_with(&words, &[], lines));
    assert_eq!(history(&gateway, "a"), ["{\"n\":1.50}"]);
    assert_eq!(history(&gateway, "b"), ["text"]);
    for (line, why) in [
        ("{\"topic\":\"a\"", "JSON"),
        ("[1]", "JSON"),
        ("{}", "topic"),
        (
            "{\"topic\":\"a\",\"data\":1,\"idempotency_key\":null}",
            "idempotency_key",
        ),
    ] {
        let bad = run_with(&words, &[], line);
        assert_eq!(bad.code, REFUSED, "{line}: {bad:?}");
        assert!(
            bad.stderr.contains("line 1: ") && bad.stderr.contains(why),
            "{bad:?}"
        );
        assert!(!bad.stderr.contains("\"detail\""), "{bad:?}");
    }
}

/// Of many lines one is bad: it is named, what stands before it is published, and after a correction
/// each line is published once.
#[test]
fn a_bad_line_is_named_and_after_its_correction_each_line_is_published_once() {
    let redis = Redis::start();
    let over_redis = Gateway::over(
        &redis,
        &[
            ("log.events_max", "100000"),
            ("limits.history_events_max", "1000"),
        ],
    );
    for gateway in [gateway(), over_redis] {
        let line = |number: usize| json!({"topic": "news", "data": number.to_string()}).to_string();
        for (bad, why) in [
            ("{\"topic\":\"news\",\"data\":17", "JSON"),
            ("{\"topic\":\"a#b\",\"data\":\"1702\"}", "topic"),
        ] {
            let directory = Directory::create();
            let with = |number| {
                if number == 1702 {
                    bad.to_owned()
                } else {
                    line(number)
                }
            };
            let path = file(&directory, 3000, with);
            let words = ["publish", "--file", path.to_str().unwrap()];
            let stopped = ask(&gateway, &words);
            assert_eq!(stopped.code, REFUSED, "{stopped:?}");
            assert!(stopped.stderr.contains("line 1702: "), "{stopped:?}");
            assert!(stopped.stderr.contains(why), "{stopped:?}");
            assert!(
                stopped.stderr.contains("1701 lines are published"),
                "{stopped:?}"
            );
            assert_eq!(history(&gateway, "news"), numbers(1701));
            file(&directory, 3000, line);
            done(again(&stopped.stderr));
            assert_eq!(history(&gateway, "news"), numbers(3000));
            // By the run's name alone, from the first line on.
            let words = proposed(&stopped.stderr);
            let run = words.iter().position(|word| word == "--run").unwrap();
            let all = [
                "publish",
                "--file",
                path.to_str().unwrap(),
                "--run",
                &words[run + 1],
            ];
            done(ask(&gateway, &all));
            assert_eq!(history(&gateway, "news"), numbers(3000));
            gateway.delete("/topics/news").id();
        }
    }
}

/// What only the log can refuse is found among the lines of its batch, too.
#[test]
fn a_line_that_the_log_refuses_is_named() {
    let gateway = gateway();
    gateway.post("/events/over?end", &[], "x").id();
    let line = |topic: &str| json!({"topic": topic, "data": "x"}).to_string() + "\n";
    let lines = line("news").repeat(700) + &line("over") + &line("news");
    let url = gateway.url();
    let refused = run_with(&["publish", "--url", &url], &[], &lines);
    assert_eq!(refused.code, REFUSED, "{refused:?}");
    assert!(
        refused.stderr.contains("line 701: topic over has ended"),
        "{refused:?}"
    );
    assert_eq!(history(&gateway, "news").len(), 700);
    let large = format!("small\n{}\n", "x".repeat(65_537));
    let refused = run_with(&["publish", "large", "--url", &url], &[], &large);
    assert_eq!(refused.code, REFUSED, "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("line 2: data: an event has at most 65536 bytes"),
        "{refused:?}"
    );
}

/// The server's bounds of a batch are not the publisher's business.
#[test]
fn batches_are_as_small_as_the_server_wants_them() {
    let config = [
        ("publish.batch_events_max", "3"),
        ("publish.batch_bytes_max", "1000"),
        ("publish.event_bytes_max", "500"),
    ];
    let gateway = Gateway::start(&config);
    let url = gateway.url();
    let long = "x".repeat(400) + "\n";
    let lines = numbers(20).join("\n") + "\n" + &long.repeat(9);
    done(run_with(&["publish", "news", "--url", &url], &[], &lines));
    assert_eq!(history(&gateway, "news")[..20], numbers(20));
    assert_eq!(history(&gateway, "news").len(), 29);
}

/// Nor are those of a proxy, which refuses with a page of its own.
#[test]
fn batches_are_as_small_as_a_proxy_wants_them() {
    let gateway = gateway();
    let nginx = Nginx::with(&format!(
        "client_max_body_size 2k; location / {{ proxy_pass {}; }}",
        gateway.url()
    ));
    let url = format!("http://{}", nginx.address());
    let words = ["publish", "news", "--url", &url];
    let lines = numbers(500).join("\n");
    done(run_with(&words, &[], &lines));
    assert_eq!(history(&gateway, "news"), numbers(500));
    let refused = run_with(&words, &[], &format!("small\n{}", "x".repeat(3000)));
    assert_eq!(refused.code, REFUSED, "{refused:?}");
    assert!(refused.stderr.contains("line 2: "), "{refused:?}");
    assert!(refused.stderr.contains("413"), "{refused:?}");
}

#[test]
fn interrupted_in_the_middle_and_run_again_each_line_is_published_once() {
    let mut gateway = gateway();
    let directory = Directory::create();
    let path = file(&directory, 60_000, |number| number.to_string());
    let url = gateway.url();
    let words = [
        "publish",
        "news",
        "--file",
        path.to_str().unwrap(),
        "--url",
        &url,
    ];
    let mut process = Process::spawn("publish", binary().args(words)).unwrap();
    let length = |gateway: &Gateway| gateway.get("/topics/news").json()["length"].as_u64();
    eventually("it has begun", || length(&gateway) > Some(0));
    // A batch is under way, and whether it is published nobody knows.
    gateway.pause();
    process.interrupt();
    assert_eq!(process.wait().code(), INTERRUPTED);
    gateway.resume();
    let stderr = process.stderr.all().join("\n");
    assert!(stderr.contains("--run lines-"), "{stderr}");
    let part = length(&gateway).unwrap();
    assert!(part < 60_000, "it was not interrupted in the middle");
    done(again(&stderr));
    assert_eq!(history(&gateway, "news"), numbers(60_000));
    // The same command, too.
    done(run(&words, &[]));
    assert_eq!(length(&gateway), Some(60_000));
}

/// What breaks in the middle, as a disk may: here a socket whose other end is gone without a goodbye.
#[test]
fn input_that_cannot_be_read_to_its_end_loses_nothing() {
    let gateway = gateway();
    let url = gateway.url();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (theirs, _) = listener.accept().unwrap();
    let mut command = binary();
    command.args(["publish", "news", "--run", "r", "--url", &url]);
    let input = OwnedFd::from(theirs);
    let mut process =
        Process::start("publish", &mut command, input.into(), Stdio::piped()).unwrap();
    (&ours).write_all(b"1\n2\nhalf a li").unwrap();
    eventually("what came is published", || {
        gateway.get("/topics/news").json()["length"] == 2
    });
    let sockets = socket2::SockRef::from(&ours);
    sockets.set_linger(Some(Duration::ZERO)).unwrap();
    drop(ours);
    assert_eq!(process.wait().code(), Some(1), "{:?}", process.stderr.all());
    let stderr = process.stderr.all().join("\n");
    assert!(stderr.contains("after line 2"), "{stderr}");
    assert!(stderr.contains("2 lines are published"), "{stderr}");
    assert_eq!(history(&gateway, "news"), numbers(2));
    let directory = Directory::create();
    let path = file(&directory, 4, |number| number.to_string());
    let path = path.to_str().unwrap();
    done(ask(
        &gateway,
        &["publish", "news", "--file", path, "--run", "r"],
    ));
    assert_eq!(history(&gateway, "news"), numbers(4));
    let folder = directory.0.to_str().unwrap();
    let folder = ask(&gateway, &["publish", "news", "--file", folder]);
    assert_eq!(folder.code, Some(1));
    assert!(folder.stderr.contains("directory"), "{folder:?}");
}

/// Lines that come slowly are published as they come, not when a batch is full.
#[test]
fn a_line_does_not_wait_for_the_next() {
    let gateway = gateway();
    let url = gateway.url();
    let mut command = binary();
    command.args(["publish", "news", "--url", &url]);
    let mut process =
        Process::start("publish", &mut command, Stdio::piped(), Stdio::piped()).unwrap();
    let mut input = process.stdin().unwrap();
    let mut stream = gateway.listen(&["news"]);
    for line in ["one", "two"] {
        writeln!(input, "{line}").unwrap();
        assert_eq!(stream.next_data(1), [line]);
    }
    drop(input);
    assert_eq!(process.wait().code(), Some(0));
    assert_eq!(process.stderr.all(), [""; 0]);
}

/// A gateway that goes away for a while is waited for.
#[test]
fn lines_wait_for_a_log_that_is_away_and_are_published_once() {
    let mut redis = Redis::durable();
    let gateway = Gateway::over(
        &redis,
        &[
            ("redis.command_timeout", "200ms"),
            ("redis.backoff_max", "50ms"),
        ],
    );
    let url = gateway.url();
    let mut command = binary();
    command.args(["publish", "news", "--url", &url]);
    let mut process =
        Process::start("publish", &mut command, Stdio::piped(), Stdio::piped()).unwrap();
    let mut input = process.stdin().unwrap();
    writeln!(input, "1").unwrap();
    eventually("the first line", || {
        gateway.get("/topics/news").status == 200
    });
    redis.kill();
    writeln!(input, "2\n3").unwrap();
    process
        .stderr
        .wait_for(|line| line.contains("waiting").then_some(()))
        .expect("a word of it");
    redis.restart();
    drop(input);
    assert_eq!(process.wait().code(), Some(0));
    assert_eq!(history(&gateway, "news"), numbers(3));
}

#[test]
fn a_long_publish_shows_on_a_terminal_how_far_it_is() {
    let gateway = gateway();
    let terminal = Terminal::of(80);
    let url = gateway.url();
    let mut command = binary();
    command
        .args(["publish", "news", "--url", &url])
        .env("TERM", "xterm");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(terminal.side())
        .spawn()
        .unwrap();
    let shown = terminal.shown();
    let mut input = child.stdin.take().unwrap();
    // It is long once it has taken a while; each line makes it look.
    let lines = |shown: &Lines| shown.all().join("\n");
    let mut sent = 0;
    eventually("it shows lines", || {
        sent += 1;
        writeln!(input, "{sent}").unwrap();
        writeln!(terminal.theirs.try_clone().unwrap()).unwrap();
        lines(&shown).contains("lines")
    });
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn straight_to_redis_lines_are_published_once_as_well() {
    let redis = Redis::start();
    let _gateway = Gateway::over(&redis, &[]);
    let url = redis.url();
    let words = ["publish", "news", "--redis", &url, "--run", "r"];
    for _ in 0..2 {
        done(run_with(&words, &[], "1\n2\n3\n"));
    }
    let length: u64 = redis.run(&["XLEN", &log_of(&redis)]);
    assert_eq!(length, 3);
    let refused = run(&["publish", "a#b", "x", "--redis", &url], &[]);
    assert_eq!(refused.code, REFUSED, "{refused:?}");
    assert!(!refused.stderr.contains("TGINVALID"), "{refused:?}");
    assert!(refused.stderr.contains("a topic has no"), "{refused:?}");
    let other = ["publish", "a", "x", "--redis", &url, "--prefix", "other"];
    let other = run(&other, &[]);
    assert!(other.stderr.contains("--prefix"), "{other:?}");
}

/// The key of the only log.
fn log_of(redis: &Redis) -> String {
    let keys: Vec<String> = redis.run(&["KEYS", "tidegate:*:log:news"]);
    keys.into_iter().next().expect("a log")
}
