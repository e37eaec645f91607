//! Goal: the log stops nothing. Whoever reads standard error may stand still or be gone: events flow, the
//! replica answers and ends as ever, and what was not written is counted and said.
//!
//! Method: real replicas whose standard error is a pipe that nobody reads, and that say more than the pipe
//! holds: each request is logged at `trace`.

use crate::support::{Gateway, Lines, Sse, eventually, says};

const DROPPED: &str = "tidegate_log_lines_dropped_total";
/// Little waits in memory, so that it is soon full.
const CHATTY: [(&str, &str); 3] = [
    ("logging.level", "trace"),
    ("logging.queue_bytes", "16384"),
    ("drain.time", "200ms"),
];

/// Until lines are dropped: the pipe and the queue are full.
fn wait_until_stuck(gateway: &Gateway) {
    eventually("lines are dropped", || gateway.metric(DROPPED, &[]) > 0.0);
}

/// Streams open and close, each of which is said by the thread or task that writes it; one stream stays, and is shown
/// every event.
fn assert_delivers(gateway: &Gateway, stream: &mut Sse) {
    for number in 0..64 {
        drop(gateway.listen(&["news"]));
        let data = number.to_string();
        gateway.publish("news", &data);
        assert_eq!(stream.next_published().data, data);
    }
    // Only if threads go on to take what peers say, closed streams are no longer open.
    gateway.wait_for_metric("tidegate_open_connections", &[], 1.0);
    for target in ["/healthz", "/readyz", "/readyz?delivery", "/streams"] {
        assert_eq!(gateway.get(target).status, 200, "{target}");
    }
}

#[test]
fn a_log_that_nobody_reads_stops_neither_events_nor_the_stop() {
    for sockets in ["true", "false"] {
        let config = [&CHATTY[..], &[("engine.sockets", sockets)]].concat();
        let (mut gateway, unread) = Gateway::start_unread(&config);
        let mut stream = gateway.listen(&["news"]);
        wait_until_stuck(&gateway);
        assert_delivers(&gateway, &mut stream);
        gateway.terminate();
        stream.rest();
        assert_eq!(gateway.wait().code(), Some(0), "in order");
        drop(unread);
    }
}

#[test]
fn whoever_reads_the_log_again_is_told_how_much_is_missing() {
    let (mut gateway, unread) = Gateway::start_unread(&CHATTY);
    let mut stream = gateway.listen(&["news"]);
    wait_until_stuck(&gateway);
    let log = Lines::collect(unread);
    let told = log.wait_for(|line| {
        says(
            line,
            "lines of the log were dropped: standard error was not read in time",
        )
        .then(|| line.to_owned())
    });
    let told: serde_json::Value = serde_json::from_str(&told.expect("it is said")).unwrap();
    let lines = told["fields"]["lines"].as_f64().unwrap();
    assert!(lines > 0.0 && lines <= gateway.metric(DROPPED, &[]));
    assert_delivers(&gateway, &mut stream);
    gateway.terminate();
    stream.rest();
    assert_eq!(gateway.wait().code(), Some(0));
    // What was queued at the end is written.
    assert!(
        log.wait_for(|line| says(line, "stopped").then_some(()))
            .is_some()
    );
    for line in log.all() {
        let whole = serde_json::from_str::<serde_json::Value>(&line);
        assert!(whole.is_ok(), "no line is torn: {line}");
    }
}

#[test]
fn a_log_whose_reader_is_gone_stops_nothing() {
    let (mut gateway, unread) = Gateway::start_unread(&CHATTY);
    let mut stream = gateway.listen(&["news"]);
    drop(unread);
    wait_until_stuck(&gateway);
    assert_delivers(&gateway, &mut stream);
    gateway.terminate();
    stream.rest();
    assert_eq!(gateway.wait().code(), Some(0));
}
