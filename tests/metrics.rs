//! Goal: the metrics tell what happened, and everything that is shipped to watch them fits: the
//! dashboards name what exists, Prometheus takes its configuration and finds every replica.
//!
//! Method: things are made to happen, and exactly their counters move. A real Prometheus reads the
//! shipped configuration. That the exposition itself is sound is asked of promtool in
//! `operations.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step ends the test"
)]

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{
    Directory, End, Gateway, NewEvent, Process, Redis, Sse, Way, eventually, exchange, fleet,
    follow_until, free_address, over_both_brokers, program, wait_for_ears,
};

/// Waits until a family has these values, in order, and every other child is 0.
fn assert_counts(gateway: &Gateway, name: &str, label: &str, expected: &[(&str, f64)]) {
    for (value, count) in expected {
        gateway.wait_for_metric(name, &[(label, value)], *count);
    }
    let text = gateway.get("/metrics").text();
    let moved = text
        .lines()
        .filter(|line| line.starts_with(&format!("{name}{{")) && !line.ends_with(" 0"));
    assert_eq!(
        moved.count(),
        expected.len(),
        "{name}: {expected:?}\n{text}"
    );
}

const CLOSED: &str = "tidegate_connections_closed_total";

#[test]
fn each_stream_is_opened_once_and_closed_once_by_its_reason() {
    over_both_brokers(&[], |_, gateway| {
        drop(gateway.listen(&["news"]));
        let mut limited = gateway.open("/events/news?limit=1", &[]);
        limited.opened();
        gateway.publish("news", "x");
        limited.rest();
        gateway.open("/events/news?max_age=1ms", &[]).rest();
        let mut ended = gateway.listen(&["job"]);
        gateway.post("/events/job?end", &[], "x").id();
        ended.rest();
        let open = gateway.listen(&["news"]);
        let expected = [("client", 1.0), ("limit", 2.0), ("ended", 1.0)];
        assert_counts(gateway, CLOSED, "reason", &expected);
        gateway.wait_for_metric("tidegate_open_connections", &[], 1.0);
        gateway.wait_for_metric("tidegate_connections_opened_total", &[], 5.0);
        drop(open);
        gateway.wait_for_metric("tidegate_open_connections", &[], 0.0);
    });
}

#[test]
fn a_stream_that_is_cut_is_counted_by_its_reason() {
    let aging = Gateway::start(&[("stream.age_max", "10ms")]);
    assert_eq!(aging.listen(&["news"]).rest().1, End::Cut);
    assert_counts(&aging, CLOSED, "reason", &[("age", 1.0)]);

    let mut going = Gateway::start(&[("drain.time", "10s")]);
    let _open: Vec<Sse> = (0..50).map(|_| going.listen(&["news"])).collect();
    going.terminate();
    eventually("a first slice is cut", || {
        going.metric(CLOSED, &[("reason", "drain")]) > 0.0
    });

    // A frame that cannot be read makes a hole, and the log does not answer for a while.
    let redis = Redis::start();
    let holed = Gateway::over(&redis, &[("repair.time", "100ms")]);
    let mut held = holed.listen(&["a", "b"]);
    let mut pipe = redis::pipe();
    pipe.cmd("PUBLISH").arg("tidegate:{0}:live:a").arg("noise");
    pipe.cmd("FCALL").arg("tidegate_publish").arg(0);
    pipe.arg("b").arg("waits for topic a");
    pipe.cmd("CLIENT").arg("PAUSE").arg(2_000).arg("ALL");
    let _: Vec<redis::Value> = pipe.query(&mut redis.connect()).unwrap();
    assert_eq!(held.rest(), (vec![], End::Cut));
    assert_counts(&holed, CLOSED, "reason", &[("held", 1.0)]);
    holed.wait_for_metric("tidegate_unreadable_frames_total", &[], 1.0);
    // It may be held again until the log answers.
    let seen = follow_until("waits for topic a", held.reconnect(), Sse::reconnect);
    assert_eq!(seen.len(), 1);
}

#[test]
fn a_refused_stream_is_counted_by_its_reason_and_not_opened() {
    let mut gateway = Gateway::start(&[("limits.streams_max", "1"), ("drain.time", "24h")]);
    let _open = gateway.listen(&["news"]);
    gateway.get("/events?topic=").problem(400);
    gateway.open("/events/news", &[]).rest();
    gateway.open("/events/news", &[]).rest();
    gateway.terminate();
    gateway.wait_for_metric("tidegate_draining", &[], 1.0);
    gateway.open("/events/news", &[]).rest();
    let expected = [("bad_request", 1.0), ("limit", 2.0), ("draining", 1.0)];
    let refused = "tidegate_connections_refused_total";
    assert_counts(&gateway, refused, "reason", &expected);
    gateway.wait_for_metric("tidegate_connections_opened_total", &[], 1.0);
}

/// A quiet replica over Redis: nothing is written but what a test publishes.
const QUIET: [(&str, &str); 1] = [("stream.heartbeat", "1h")];

#[test]
fn events_are_counted_by_the_way_they_came_and_where_they_went() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 1, &QUIET);
    wait_for_ears(&redis, &replicas);
    let gateway = &replicas[0];
    eventually("nothing is owed", || {
        gateway.metric("tidegate_ingest_owed", &[]) < 0.5
    });
    let published = "tidegate_events_published_total";
    let warm_up = gateway.metric(published, &[("source", "raw")]);
    let mut streams = [gateway.listen(&["news"]), gateway.listen(&["news"])];
    for way in Way::ALL {
        let event = NewEvent {
            topic: "news",
            data: "x",
            ..NewEvent::default()
        };
        way.publish(gateway, &redis, event);
    }
    let (mut events, mut bytes) = (0, 0);
    for stream in &mut streams {
        events += stream.next_data(Way::ALL.len()).len();
        bytes += stream.body().len();
    }
    // The command asks over HTTP; straight through the function, no replica is involved.
    let expected = [("http", 3.0), ("inbox", 1.0), ("raw", warm_up + 1.0)];
    assert_counts(gateway, published, "source", &expected);
    let count = |count: usize| f64::from(u32::try_from(count).unwrap());
    gateway.wait_for_metric("tidegate_events_delivered_total", &[], count(events));
    gateway.wait_for_metric("tidegate_sent_bytes_total", &[], count(bytes));
    gateway.wait_for_metric("tidegate_heartbeats_sent_total", &[], 0.0);
    let samples = gateway.metric("tidegate_delivery_latency_seconds_count", &[]);
    assert!(
        (1.0..=count(events)).contains(&samples),
        "one sample a write: {samples}"
    );
    gateway.wait_for_metric("tidegate_topics", &[], 1.0);
    assert!(gateway.metric("tidegate_window_bytes", &[]) > 0.0);
}

#[test]
fn a_refused_publish_is_counted_by_its_reason() {
    let mut redis = Redis::start();
    let config = [
        ("auth.publish_key", "key"),
        ("publish.event_bytes_max", "10"),
        ("limits.topics_max", "2"),
    ];
    let gateway = fleet(&redis, 1, &config).remove(0);
    let key = [("Authorization", "Bearer key")];
    let publish = |target: &str, data: &str| gateway.post(target, &key, data);
    publish("/events/job?end", "x").id();
    publish("/events/news", "x").id();
    gateway.post("/events/news", &[], "x").problem(401);
    publish("/events/news?event=%0A", "x").problem(400);
    publish("/events", "{").problem(400);
    publish("/events/news", "more than ten").problem(413);
    publish("/events/job", "x").problem(409);
    publish("/events/a-third-topic", "x").problem(507);
    redis.kill();
    publish("/events/news", "x").problem(503);
    let expected = [
        ("unauthorized", 1.0),
        ("invalid", 2.0),
        ("too_large", 1.0),
        ("ended", 1.0),
        ("limit", 1.0),
        ("unavailable", 1.0),
    ];
    assert_counts(
        &gateway,
        "tidegate_publish_refused_total",
        "reason",
        &expected,
    );
    let http = [("http", 2.0)];
    assert_counts(&gateway, "tidegate_events_published_total", "source", &http);
}

#[test]
fn a_gap_is_counted_by_its_reason_for_each_stream_that_is_told() {
    over_both_brokers(&[("log.events_max", "2")], |_, gateway| {
        let ids: Vec<String> = (0..5).map(|_| gateway.publish("news", "x")).collect();
        for (cursor, reason) in [
            ("nonsense", "bad_cursor"),
            ("7258118400000-5", "ahead"),
            ("1000-1", "log_lost"),
            (&ids[0], "trimmed"),
            (&ids[1], "trimmed"),
        ] {
            let mut stream = gateway.open("/events/news", &[("Last-Event-ID", cursor)]);
            let gap = stream.next_of("tidegate.gap");
            assert_eq!(gap.json()["reason"], reason);
        }
        let expected = [
            ("bad_cursor", 1.0),
            ("ahead", 1.0),
            ("log_lost", 1.0),
            ("trimmed", 2.0),
        ];
        assert_counts(gateway, "tidegate_gaps_total", "reason", &expected);
    });
}

#[test]
fn a_resumed_stream_is_counted_by_where_its_events_came_from() {
    let redis = Redis::start();
    let gateway = fleet(&redis, 1, &[("window.events_max", "3")]).remove(0);
    let _open = gateway.listen(&["news"]);
    let ids: Vec<String> = (0..10)
        .map(|number| gateway.publish("news", &number.to_string()))
        .collect();
    for (cursor, missed) in [(&ids[0], 9), (&ids[8], 1), (&ids[7], 2)] {
        let mut stream = gateway.open("/events/news", &[("Last-Event-ID", cursor)]);
        stream.next_data(missed);
    }
    let expected = [("log", 1.0), ("window", 2.0)];
    assert_counts(&gateway, "tidegate_replays_total", "outcome", &expected);
}

#[test]
fn a_lost_connection_to_redis_is_counted_by_its_role() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 1, &[]);
    wait_for_ears(&redis, &replicas);
    let gateway = &replicas[0];
    let mut stream = gateway.listen(&["news"]);
    let reconnects = "tidegate_redis_reconnects_total";
    assert_counts(gateway, reconnects, "role", &[]);
    let repairs = gateway.metric("tidegate_repair_reads_total", &[]);
    redis.run::<u64>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    assert_counts(gateway, reconnects, "role", &[("live", 1.0), ("ear", 1.0)]);
    let id = redis.publish("news", "x", &[]);
    assert_eq!(stream.next_event().id(), id);
    assert!(gateway.metric("tidegate_repair_reads_total", &[]) > repairs);
    for role in ["commands", "live", "ear"] {
        gateway.wait_for_metric("tidegate_redis_up", &[("role", role)], 1.0);
    }
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Every file below a folder whose name ends like this.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                files(&path, end)
            } else {
                vec![path]
            }
        })
        .filter(|path| path.to_string_lossy().ends_with(end))
        .collect()
}

/// Every word in the text that begins with `tidegate_`.
fn metric_names(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("tidegate_"))
        .collect()
}

#[test]
fn dashboards_show_metrics_that_exist_and_every_metric_or_say_why_not() {
    /// Looked at when something is wrong, by whoever looks.
    const ON_NO_DASHBOARD: [&str; 31] = [
        "tidegate_accept_errors_total",
        "tidegate_accept_queue",
        "tidegate_config_hash",
        "tidegate_config_refused",
        "tidegate_config_reloads_total",
        "tidegate_connection_age_seconds",
        "tidegate_connection_start_seconds",
        "tidegate_connections_limit",
        "tidegate_fanout_sweep_seconds",
        "tidegate_ingest_appender",
        "tidegate_ingest_inbox_entries",
        "tidegate_ingest_lag_seconds",
        "tidegate_ingest_takeovers_total",
        "tidegate_listen_overflows_total",
        "tidegate_live_overflows_total",
        "tidegate_log_reads_total",
        "tidegate_publish_duration_seconds",
        "tidegate_publishes_in_flight",
        "tidegate_redis_pool",
        "tidegate_redis_round_trip_seconds",
        "tidegate_replay_events",
        "tidegate_replicas",
        "tidegate_runtime_busy_seconds_total",
        "tidegate_runtime_queue",
        "tidegate_runtime_tasks",
        "tidegate_runtime_workers",
        "tidegate_sockets",
        "tidegate_sockets_limit",
        "tidegate_stream_thread_busy_seconds_total",
        "tidegate_unlogged_events_skipped_total",
        "tidegate_unreadable_frames_total",
    ];
    let exposition = Gateway::start(&[]).get("/metrics").text();
    let (comments, samples): (Vec<&str>, Vec<&str>) =
        exposition.lines().partition(|line| line.starts_with('#'));
    let samples = samples.join("\n");
    let samples = metric_names(&samples);
    let dashboards = files(&repository("grafana"), ".json");
    assert!(!dashboards.is_empty());
    let texts: Vec<String> = dashboards
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let mut shown: BTreeSet<&str> = BTreeSet::new();
    for (path, text) in dashboards.iter().zip(&texts) {
        let _: serde_json::Value = serde_json::from_str(text).unwrap();
        for name in metric_names(text) {
            assert!(samples.contains(name), "{}: {name}", path.display());
            shown.insert(name);
        }
    }
    let families = comments
        .iter()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .filter(|name| name.starts_with("tidegate_"));
    let on_none: Vec<&str> = families
        .filter(|family| !shown.iter().any(|name| name.starts_with(family)))
        .collect();
    assert_eq!(on_none, ON_NO_DASHBOARD);
}

#[test]
fn prometheus_takes_its_shipped_configuration() {
    let configurations = files(&repository("deploy"), "prometheus.yml");
    assert_eq!(configurations.len(), 2);
    for path in configurations {
        let mut promtool = Command::new(program("promtool"));
        let output = promtool.args(["check", "config"]).arg(&path).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}: {output:?}", path.display());
    }
}

#[test]
fn prometheus_finds_every_replica() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 3, &[]);
    let _streams: Vec<Sse> = replicas.iter().map(|r| r.listen(&["news"])).collect();
    // As the local cluster lays it out.
    let directory = Directory::create();
    let path = |name: &str| directory.0.join(name);
    std::fs::copy(
        repository("deploy/prometheus/prometheus.yml"),
        path("prometheus.yml"),
    )
    .unwrap();
    std::fs::create_dir(path("targets")).unwrap();
    let addresses: Vec<String> = replicas.iter().map(|r| r.address().to_string()).collect();
    let targets = serde_json::json!([{ "targets": addresses }]);
    std::fs::write(path("targets/tidegate.json"), targets.to_string()).unwrap();

    let address = free_address();
    let mut command = Command::new(program("prometheus"));
    command
        .current_dir(&directory.0)
        .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
        .arg(format!("--web.listen-address={address}"));
    let prometheus = Process::spawn("prometheus", &mut command).unwrap();
    let is_ready = |line: &str| line.contains("ready to receive web requests").then_some(());
    prometheus
        .stderr
        .wait_for(is_ready)
        .expect("Prometheus is ready");
    for query in ["sum(up)", "sum(tidegate_open_connections)"] {
        eventually(&format!("{query} is 3"), || {
            query_value(address, query).as_deref() == Some("3")
        });
    }
}

/// The value of a query that has one, if it has.
fn query_value(prometheus: SocketAddr, query: &str) -> Option<String> {
    let request = format!("GET /api/v1/query?query={query} HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = exchange(prometheus, request.as_bytes()).json();
    Some(answer["data"]["result"][0]["value"][1].as_str()?.to_owned())
}
