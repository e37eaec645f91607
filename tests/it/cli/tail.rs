//! `tidegate tail`.

use super::{ask, done};
use crate::support::{
    Gateway, Process, Redis, Terminal, binary, eventually, free_address, replica_at, run,
};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use tidegate::sse::GapReason;

/// `tail`, asking whoever is at this URL.
fn tail(url: &str, words: &[&str]) -> Command {
    let mut command = binary();
    command.arg("tail").args(words).args(["--url", url]);
    command
}

/// Waits for a line of standard error that has these words.
#[track_caller]
fn said(process: &Process, words: &str) -> String {
    let found = process
        .stderr
        .wait_for(|line| line.contains(words).then(|| line.to_owned()));
    found.unwrap_or_else(|| panic!("{words}: {:?}", process.stderr.all()))
}

#[test]
fn json_is_what_an_envelope_stream_shows() {
    let gateway = Gateway::start(&[]);
    gateway.publish("news", "not of this type");
    gateway.post("/events/news?event=a", &[], "{\"n\": 1}");
    gateway.post("/events/sport?event=b", &[], "two\nlines");
    gateway.post("/events/news?event=a", &[], "last");
    let target = "/events?topic=news&topic=sport&since=earliest&type=a&type=b&envelope&limit=3";
    let mut stream = gateway.open(target, &[]);
    let expected: Vec<String> = (0..3).map(|_| stream.next_published().data).collect();
    let words = ["tail", "news", "sport", "--json", "--since", "earliest"];
    let types = ["--type", "a", "--type", "b", "--limit", "3"];
    let shown = ask(&gateway, &[&words[..], &types].concat());
    assert_eq!(shown.stderr, "", "who pipes it is left alone");
    assert_eq!(done(shown).lines().collect::<Vec<_>>(), expected);
    let last = [
        "tail", "news", "sport", "--json", "--last", "2", "--limit", "2",
    ];
    assert_eq!(
        done(ask(&gateway, &last)).lines().collect::<Vec<_>>(),
        expected[1..]
    );
    // The name that the flag had.
    let one = [
        "tail", "news", "--since", "earliest", "--event", "a", "--limit", "1",
    ];
    assert_eq!(done(ask(&gateway, &one)), "a: {\"n\": 1}");
}

#[test]
fn each_line_of_several_topics_says_which_it_is_of() {
    let gateway = Gateway::start(&[]);
    gateway.publish("a", "hello");
    gateway.post("/events/longer?event=price", &[], "{\"eur\":1.50}");
    gateway.publish("a", "two\nlines");
    let words = ["tail", "longer", "a", "--since", "earliest", "--limit", "3"];
    let shown = ask(&gateway, &words);
    assert_eq!(shown.stderr, "");
    assert_eq!(
        done(shown),
        "a      | hello\nlonger | price: {\"eur\":1.50}\na      | two\na      | lines"
    );
}

#[test]
fn a_terminal_has_colours_unless_they_are_not_wanted_and_no_data_moves_its_cursor() {
    let gateway = Gateway::start(&[]);
    gateway.publish("a", "\u{1b}[2Jgone\u{7}");
    gateway.publish("b", "plain");
    let shown = |environment: &[(&str, &str)], term: &str| {
        let terminal = Terminal::of(80);
        let mut command = tail(&gateway.url(), &["a", "b", "--since", "earliest"]);
        command.args(["--limit", "2"]).env("TERM", term);
        command.envs(environment.iter().copied());
        let (input, output) = (terminal.side(), terminal.side());
        let mut process = Process::start("tail", &mut command, input, output).unwrap();
        let lines = terminal.shown();
        lines.wait_for(|line| line.contains("plain").then_some(()));
        assert!(process.wait().success());
        lines.all().join("\n")
    };
    let coloured = shown(&[], "xterm");
    assert!(coloured.contains("\u{1b}[3"), "{coloured:?}");
    assert!(!coloured.contains("\u{1b}[2J"), "{coloured:?}");
    for plain in [shown(&[("NO_COLOR", "1")], "xterm"), shown(&[], "dumb")] {
        assert!(!plain.contains(['\u{1b}', '\u{7}']), "{plain:?}");
        assert!(plain.contains("a | \u{241b}[2Jgone\u{2407}"), "{plain:?}");
    }
    // In a pipe the bytes are the data's.
    let piped = done(ask(
        &gateway,
        &["tail", "a", "--since", "earliest", "--limit", "1"],
    ));
    assert_eq!(piped, "\u{1b}[2Jgone\u{7}");
}

#[test]
fn it_says_when_the_server_is_lost_and_when_it_is_back_and_misses_nothing() {
    let redis = Redis::start();
    let address = free_address();
    let config = [("stream.retry", "10ms")];
    let mut first = replica_at(address, &redis, "r1", &config);
    first.wait_ready();
    first.publish("news", "before");
    let mut command = tail(&first.url(), &["news", "--since", "earliest"]);
    let process = Process::spawn("tail", &mut command).unwrap();
    let shown = |text: &str| {
        process
            .stdout
            .wait_for(|line| (line == text).then_some(()))
            .unwrap_or_else(|| panic!("{text}: {:?}", process.stdout.all()));
    };
    shown("before");
    first.kill9();
    let lost = said(&process, "lost");
    assert!(lost.contains(&address.to_string()), "{lost}");
    redis.publish("news", "meanwhile", &[]);
    let second = replica_at(address, &redis, "r2", &config);
    shown("meanwhile");
    second.publish("news", "after");
    shown("after");
    said(&process, "is back");
    assert_eq!(process.stdout.all(), ["before", "meanwhile", "after"]);
    assert_eq!(process.stderr.all().len(), 2, "{:?}", process.stderr.all());
}

/// A cut is no loss: it is how every stream ends.
#[test]
fn a_stream_that_is_cut_and_comes_back_is_not_worth_a_word() {
    let config = [("stream.age_max", "100ms"), ("stream.retry", "10ms")];
    let gateway = Gateway::start(&config);
    let mut command = tail(&gateway.url(), &["news"]);
    let process = Process::spawn("tail", &mut command).unwrap();
    let opened = || gateway.metric("tidegate_connections_closed_total", &[("reason", "age")]);
    eventually("three streams were cut", || opened() >= 3.0);
    gateway.publish("news", "hello");
    process
        .stdout
        .wait_for(|line| Some(line.to_owned()))
        .unwrap();
    assert_eq!(process.stderr.all(), [""; 0]);
}

#[test]
fn gaps_and_ends_are_sentences_on_standard_error() {
    let gateway = Gateway::start(&[("log.events_max", "1"), ("stream.retry", "10ms")]);
    let first = gateway.publish("job", "one");
    gateway.publish("job", "two");
    gateway.post("/events/job?end", &[], "three").id();
    let trimmed = ask(&gateway, &["tail", "job", "--last-event-id", &first]);
    assert!(trimmed.stderr.contains("job"), "{trimmed:?}");
    assert!(trimmed.stderr.contains("trimmed"), "{trimmed:?}");
    assert!(!trimmed.stderr.contains('{'), "{trimmed:?}");
    assert_eq!(done(trimmed), "three");
    let cursor = [
        "tail",
        "job",
        "x",
        "--last-event-id",
        "of-another",
        "--json",
    ];
    let mut command = tail(&gateway.url(), &cursor[1..]);
    let process = Process::spawn("tail", &mut command).unwrap();
    said(&process, GapReason::BadCursor.as_str());
    assert_eq!(process.stdout.all(), [""; 0]);
}

#[test]
fn it_ends_at_once_when_nobody_reads_it_any_more() {
    let gateway = Gateway::start(&[]);
    gateway.publish("news", "hello");
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = tail(&gateway.url(), &["news", "--since", "earliest"]);
    let mut process = Process::start("tail", &mut command, Stdio::null(), writer.into()).unwrap();
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "hello\n");
    // Nothing more is published.
    drop(reader);
    assert_eq!(process.wait().code(), Some(0));
    assert_eq!(process.stderr.all(), [""; 0]);
}

#[test]
fn what_cannot_be_followed_is_said_in_a_sentence() {
    let gateway = Gateway::start(&[]);
    let bad = ask(&gateway, &["tail", "a#b"]);
    assert_eq!(bad.code, Some(1));
    assert!(
        bad.stderr.contains("a topic has no control character"),
        "{bad:?}"
    );
    assert!(!bad.stderr.contains("\"detail\""), "{bad:?}");
    // Another server than ours: its answer is no stream.
    let other = format!("{}/metrics?", gateway.url());
    let strange = run(&["tail", "news", "--url", &other], &[]);
    assert_eq!(strange.code, Some(2), "{strange:?}");
    let metrics = run(
        &["tail", "--url", &format!("{}/healthz", gateway.url())],
        &[],
    );
    assert!(metrics.stderr.contains("404"), "{metrics:?}");
    assert!(!metrics.stderr.contains('{'), "{metrics:?}");
}
