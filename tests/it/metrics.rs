//! Goal: the metrics tell what happened, and everything that is shipped to watch them fits: each is
//! documented as it is, dashboards and alerts name what exists, each alert has its paragraph,
//! Prometheus takes its configuration and finds every replica.
//!
//! Method: things are made to happen, and exactly their counters move. A real Prometheus reads the
//! shipped configuration. That the exposition itself is sound is asked of promtool in
//! `operations.rs`; that each panel shows something, of a cluster under load by `grafana/test.py`.

use crate::support::{
    Directory, End, Gateway, NDJSON, NewEvent, Process, Redis, Sse, Way, eventually, exchange,
    fleet, free_address, over_both_brokers, program, replica_at, wait_for_ears,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

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
        gateway.wait_for_metric("tidegate_connection_start_seconds_count", &[], 5.0);
        drop(open);
        gateway.wait_for_metric("tidegate_open_connections", &[], 0.0);
        gateway.wait_for_metric("tidegate_connection_age_seconds_count", &[], 5.0);
    });
}

#[test]
fn a_client_that_comes_back_to_what_has_ended_did_not_go() {
    let gateway = Gateway::start(&[]);
    let end = gateway.post("/events/job?end", &[], "x").id();
    let answer = gateway.request("GET", "/events/job", &[("Last-Event-ID", &end)], "");
    assert_eq!(answer.status, 204);
    assert_counts(&gateway, CLOSED, "reason", &[("ended", 1.0)]);
}

#[test]
fn open_streams_are_told_by_their_way_out() {
    let open = "tidegate_open_connections";
    let gateway = Gateway::start(&[]);
    let on_socket = [gateway.listen(&["news"]), gateway.listen(&["news"])];
    let mut as_body = gateway.open("/events/news?max_age=1h", &[]);
    as_body.opened();
    assert_counts(&gateway, open, "way", &[("socket", 2.0), ("body", 1.0)]);
    drop(on_socket);
    gateway.wait_for_metric(open, &[], 1.0);
    assert_counts(&gateway, open, "way", &[("body", 1.0)]);
    drop(as_body);
    gateway.wait_for_metric(open, &[], 0.0);

    let bodies_only = Gateway::start(&[("engine.sockets", "false")]);
    let _open = bodies_only.listen(&["news"]);
    assert_counts(&bodies_only, open, "way", &[("body", 1.0)]);
}

#[test]
fn a_stream_that_is_cut_is_counted_by_its_reason() {
    let aging = Gateway::start(&[("stream.age_max", "10ms")]);
    // It may be cut before it has said anything.
    assert_eq!(aging.open("/events/news", &[]).rest().1, End::Cut);
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
    // It may be held again until the log answers, and be told that something may be missing.
    let mut stream = held.reconnect();
    let shown = loop {
        match stream.try_next_event() {
            Some(event) if event.is_own() => {}
            Some(event) => break event.data,
            None => stream = stream.reconnect(),
        }
    };
    assert_eq!(shown, "waits for topic a");
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
    publish("/events/news?type=%0A", "x").problem(400);
    gateway.post("/events", &[key[0], NDJSON], "{").problem(400);
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
    // Those that the log was asked about: two it took, two it refused, one it did not answer.
    gateway.wait_for_metric("tidegate_publish_duration_seconds_count", &[], 5.0);
    gateway.wait_for_metric("tidegate_publishes_in_flight", &[], 0.0);
    let errors = |role: &str| {
        let labels = [("role", role), ("kind", "unavailable")];
        gateway.metric("tidegate_redis_errors_total", &labels)
    };
    for role in ["commands", "live", "ear"] {
        eventually(&format!("{role} fails"), || errors(role) > 0.0);
    }
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

/// Every word in the text that begins as the names of metrics do.
fn metric_names(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("tidegate_") || word.starts_with("process_"))
        .collect()
}

#[test]
fn of_the_ears_one_appends_and_another_takes_over() {
    let redis = Redis::start();
    let mut replicas = fleet(&redis, 3, &[("ingest.ears", "3")]);
    wait_for_ears(&redis, &replicas);
    let appends = |replica: &Gateway| replica.metric("tidegate_ingest_appender", &[]) > 0.5;
    eventually("one appends, and nothing is owed", || {
        redis.publish_raw("events:warm-up", b"x");
        let owes = |replica: &Gateway| replica.metric("tidegate_ingest_lag_seconds", &[]) > 0.0;
        replicas.iter().filter(|r| appends(r)).count() == 1 && !replicas.iter().any(owes)
    });
    for replica in &replicas {
        replica.wait_for_metric("tidegate_replicas", &[], 3.0);
    }
    let appender = replicas.iter().position(appends).unwrap();
    replicas.remove(appender).kill9();
    let takeovers = |replicas: &[Gateway]| {
        let counts = replicas.iter();
        let counts = counts.map(|r| r.metric("tidegate_ingest_takeovers_total", &[]));
        counts.sum::<f64>()
    };
    let before = takeovers(&replicas);
    eventually("another one appends", || {
        redis.publish_raw("events:news", b"x");
        replicas.iter().any(appends)
    });
    assert!(takeovers(&replicas) > before);
}

#[test]
fn an_ear_that_is_replaced_brings_what_it_has_counted() {
    let redis = Redis::start();
    let config = [("ingest.ears", "1")];
    let second = replica_at(free_address(), &redis, "r2", &config);
    second.wait_ready();
    wait_for_ears(&redis, std::slice::from_ref(&second));
    let first = replica_at(free_address(), &redis, "r1", &config);
    // It owes when the other one takes its place, and no more than it can append in time, however
    // long that takes: the slower the machine, the more would come of publishing without a bound.
    let data = vec![b'x'; 60_000];
    let mut pipe = redis::pipe();
    for _ in 0..50 {
        pipe.cmd("PUBLISH").arg("events:news").arg(&data);
    }
    let mut publisher = redis.connect();
    eventually("it is no longer asked to listen", || {
        if second.metric("tidegate_ingest_owed", &[]) < 50.0 {
            let _: Vec<u64> = pipe.query(&mut publisher).unwrap();
        }
        second.metric("tidegate_redis_up", &[("role", "ear")]) < 0.5
    });
    second.wait_for_metric("tidegate_ingest_owed", &[], 0.0);
    second.wait_for_metric("tidegate_ingest_lag_seconds", &[], 0.0);
    first.wait_for_metric("tidegate_redis_up", &[("role", "ear")], 1.0);
}

#[test]
fn the_inbox_is_looked_at() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 1, &[]);
    wait_for_ears(&redis, &replicas);
    let mut pipe = redis::pipe();
    for data in ["one", "two"] {
        let entry = ["topic", "news", "data", data];
        pipe.cmd("XADD").arg("tidegate:inbox").arg("*").arg(&entry);
    }
    // They cannot be moved for a while.
    pipe.cmd("CLIENT").arg("PAUSE").arg(1_000).arg("WRITE");
    let _: Vec<redis::Value> = pipe.query(&mut redis.connect()).unwrap();
    replicas[0].wait_for_metric("tidegate_ingest_inbox_entries", &[], 2.0);
    replicas[0].wait_for_metric("tidegate_ingest_inbox_entries", &[], 0.0);
}

#[test]
fn answers_of_redis_are_timed() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[("redis.tick_after", "10ms")]);
    let _open = gateway.listen(&["news"]);
    let trips = "tidegate_redis_round_trip_seconds_count";
    let commands = gateway.metric(trips, &[("role", "commands")]);
    gateway.publish("news", "x");
    assert!(gateway.metric(trips, &[("role", "commands")]) > commands);
    gateway.wait_for_metric("tidegate_live_latency_seconds_count", &[], 1.0);
    // Redis runs on this machine. The first read of the log has told its time.
    let offset = gateway.metric("tidegate_clock_offset_seconds", &[]);
    assert!(
        (f64::MIN_POSITIVE..60.0).contains(&offset.abs()),
        "{offset}"
    );
    // In silence the live path is probed.
    eventually("a tick came back", || {
        gateway.metric(trips, &[("role", "live")]) > 0.0
    });
    eventually("connections wait for work", || {
        gateway.metric("tidegate_redis_pool", &[("state", "idle")]) > 0.0
    });
}

#[test]
fn connections_that_wait_to_be_accepted_are_seen() {
    let config = [
        ("server.connections_max", "1"),
        ("ops.listen", "127.0.0.1:0"),
    ];
    let gateway = Gateway::start(&config);
    gateway.wait_for_metric("tidegate_sockets_limit", &[], 1.0);
    gateway.wait_for_metric("tidegate_accept_queue", &[], 0.0);
    let accepted = gateway.listen(&["news"]);
    let waiting = [gateway.connect(), gateway.connect()];
    gateway.wait_for_metric("tidegate_accept_queue", &[], 2.0);
    drop((accepted, waiting));
    gateway.wait_for_metric("tidegate_accept_queue", &[], 0.0);
}

#[test]
fn threads_and_the_runtime_are_measured() {
    let gateway = Gateway::start(&[("engine.threads", "3")]);
    assert!(gateway.metric("tidegate_runtime_workers", &[]) >= 1.0);
    assert!(gateway.metric("tidegate_runtime_tasks", &[]) >= 1.0);
    let busy = "tidegate_runtime_busy_seconds_total";
    let before = gateway.metric(busy, &[]);
    eventually("work takes time", || gateway.metric(busy, &[]) > before);
    let threads = || {
        let text = gateway.get("/metrics").text();
        let lines = text.lines();
        let of_thread = "tidegate_stream_thread_busy_seconds_total{thread=";
        lines.filter(|line| line.starts_with(of_thread)).count()
    };
    // A thread is there once it has begun.
    eventually("all are measured", || threads() == 3);
}

#[test]
fn the_hash_of_settings_differs_with_what_replicas_should_share() {
    let hash = |config: &[(&str, &str)]| {
        let hash = Gateway::start(config).metric("tidegate_config_hash", &[]);
        format!("{hash}")
    };
    let common = hash(&[]);
    assert_eq!(hash(&[("replica.name", "r7")]), common);
    assert_eq!(hash(&[("ops.listen", "127.0.0.1:0")]), common);
    let keyed = |key: &str| hash(&[("auth.publish_key", key)]);
    assert_eq!(keyed("one"), keyed("another"), "no secret shows in it");
    assert_ne!(hash(&[("stream.retry", "4s")]), common);
    assert_ne!(hash(&[("log.events_max", "9999")]), common);
}

/// All that a replica exposes. It is ready before the threads that write streams have begun, and a
/// thread that has not begun has no time to tell; one that has written a stream has.
fn exposition() -> String {
    let gateway = Gateway::start(&[]);
    let _stream = gateway.listen(&["news"]);
    gateway.get("/metrics").text()
}

/// The families of an exposition: the type, and the values of each label.
fn families(exposition: &str) -> BTreeMap<String, (String, Labels)> {
    let mut families: BTreeMap<String, (String, Labels)> = BTreeMap::new();
    let mut family = String::new();
    for line in exposition.lines() {
        if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|line| line.split_once(' '))
        {
            name.clone_into(&mut family);
            families.insert(family.clone(), (kind.to_owned(), Labels::new()));
        }
        let labels = line
            .split_once('{')
            .and_then(|(_, rest)| rest.split_once('}'));
        let (Some((labels, _)), false) = (labels, line.starts_with('#')) else {
            continue;
        };
        let known = &mut families.get_mut(&family).unwrap().1;
        for label in labels.split(',') {
            let (name, value) = label.split_once('=').unwrap();
            if name != "le" {
                let values = known.entry(name.to_owned()).or_default();
                values.insert(value.trim_matches('"').to_owned());
            }
        }
    }
    families
}

/// The values of each label.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// Words in backticks, in order.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The cells of each row of the tables of a page, of those tables that have so many columns.
fn rows(page: &str, columns: usize) -> Vec<Vec<&str>> {
    page.lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .filter(|row: &Vec<&str>| row.len() == columns)
        .collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap()
}

#[test]
fn each_metric_is_documented_as_it_is() {
    /// Those of labels that are not a closed set.
    const ANY: &str = "any";
    let page = read("docs/metrics.md");
    let mut documented = BTreeMap::new();
    for row in rows(&page, 6) {
        let [name, kind, labels, unit, what, _] = row.as_slice() else {
            unreachable!("rows of six");
        };
        let name = name.trim_matches('`');
        let mut values = Labels::new();
        for label in labels.split(';').filter(|label| !label.is_empty()) {
            let words = quoted(label);
            let (label, values_of) = (words[0], &words[1..]);
            let any = values_of.is_empty().then_some(ANY);
            let all = values_of.iter().copied().chain(any);
            values.insert(label.to_owned(), all.map(str::to_owned).collect());
        }
        assert!(!unit.is_empty() && what.ends_with('.'), "{name}: {what}");
        if name.ends_with("_seconds") || name.ends_with("_seconds_total") {
            assert_eq!(*unit, "seconds", "{name}");
        }
        let twice = documented.insert(name.to_owned(), ((*kind).to_owned(), values));
        assert!(twice.is_none(), "{name} stands there twice");
    }
    let exposition = exposition();
    let mut exposed = families(&exposition);
    for (name, (_, labels)) in &mut exposed {
        for (label, values) in labels {
            let known = documented.get(name).and_then(|(_, known)| known.get(label));
            if known.is_some_and(|known| known.contains(ANY)) {
                *values = BTreeSet::from([ANY.to_owned()]);
            }
        }
    }
    assert_eq!(documented, exposed);
}

#[test]
fn each_metric_is_on_a_dashboard_or_it_is_said_why_not() {
    let exposition = exposition();
    let exposed = families(&exposition);
    let dashboards = files(&repository("grafana/dashboards"), ".json");
    assert_eq!(dashboards.len(), 5);
    let texts: Vec<String> = dashboards
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let mut shown: BTreeSet<&str> = BTreeSet::new();
    for text in &texts {
        shown.extend(metric_names(text).into_iter().map(family_of));
    }
    let exposed: BTreeSet<&str> = exposed.keys().map(String::as_str).collect();
    let unknown: Vec<&&str> = shown.difference(&exposed).collect();
    assert!(unknown.is_empty(), "there is no {unknown:?}");

    let page = read("docs/metrics.md");
    let excused = rows(&page, 2).into_iter();
    let excused: BTreeSet<&str> = excused.map(|row| row[0].trim_matches('`')).collect();
    let on_none: BTreeSet<&str> = exposed.difference(&shown).copied().collect();
    assert_eq!(on_none, excused);
}

/// The histogram that a name of one of its samples belongs to.
fn family_of(name: &str) -> &str {
    ["_bucket", "_count", "_sum"]
        .iter()
        .find_map(|part| name.strip_suffix(part))
        .unwrap_or(name)
}

const RULES: &str = "deploy/prometheus/rules/tidegate.yml";

#[test]
fn alerts_and_recordings_are_about_metrics_that_exist() {
    let exposition = exposition();
    let exposed = families(&exposition);
    let rules = read(RULES);
    let comments = |line: &&str| !line.trim_start().starts_with('#');
    let code: Vec<&str> = rules.lines().filter(comments).collect();
    let words = code.join("\n");
    let words = words.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    let named: BTreeSet<&str> = words
        .filter(|word| word.starts_with("tidegate_") || word.starts_with("process_"))
        .map(family_of)
        .collect();
    assert!(named.len() > 20, "{named:?}");
    for name in named {
        assert!(exposed.contains_key(name), "{name}");
    }
}

#[test]
fn each_alert_has_its_paragraph_and_its_stories() {
    let (rules, page) = (read(RULES), read("docs/operations.md"));
    let stories = read("deploy/prometheus/tests/tidegate.yml");
    let (_, after) = page.split_once("## Alerts\n").unwrap();
    let chapter = after.split("\n## ").next().unwrap();
    let paragraphs: BTreeMap<&str, &str> = chapter
        .split("\n### ")
        .skip(1)
        .map(|part| part.split_once('\n').unwrap())
        .collect();
    let alerts: Vec<(&str, &str)> = rules
        .split("- alert: ")
        .skip(1)
        .map(|part| part.split_once('\n').unwrap())
        .collect();
    assert!(alerts.len() > 10);
    for (alert, rule) in &alerts {
        let paragraph = paragraphs.get(alert).unwrap_or_else(|| {
            panic!("{alert} has no paragraph in docs/operations.md");
        });
        let severity = if rule.contains("severity: page") {
            "*Page.*"
        } else {
            "*Ticket.*"
        };
        assert!(paragraph.contains(severity), "{alert} is {severity}");
        for part in ["\nLook: ", "\nDo: "] {
            assert!(paragraph.contains(part), "{alert} lacks {part:?}");
        }
        let anchor = format!("docs/operations.md#{}\n", alert.to_lowercase());
        assert!(rule.contains(&anchor), "{alert} leads to its paragraph");
        for story in [
            format!("- name: '{alert}: "),
            format!("- name: '{alert}, silent: "),
        ] {
            assert!(stories.contains(&story), "no story {story}");
        }
    }
    let named: BTreeSet<&str> = alerts.iter().map(|(alert, _)| *alert).collect();
    let written: BTreeSet<&str> = paragraphs.keys().copied().collect();
    assert_eq!(named, written, "paragraphs of alerts that there are");
}

#[test]
fn kubernetes_has_the_same_rules() {
    let written = Command::new(repository("deploy/kubernetes/rules")).output();
    let written = String::from_utf8(written.unwrap().stdout).unwrap();
    let shipped = read("deploy/kubernetes/components/monitoring/prometheusrule.yaml");
    assert!(
        written == shipped,
        "deploy/kubernetes/rules writes something else"
    );
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
    let request = format!("GET /api/v1/query?query={query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = exchange(prometheus, request.as_bytes()).json();
    Some(answer["data"]["result"][0]["value"][1].as_str()?.to_owned())
}
