//! Goal: a reader that does not keep up costs the replica a cursor: its neighbours get everything,
//! memory stays bounded, and the slow one gets everything too once it reads, or is told what the
//! log no longer holds.
//!
//! Method: real sockets that nobody reads, and far more published than the replica may hold; its
//! peak memory is read from the system.

use std::io::{Read as _, Write as _};

use crate::support::{
    Event, Redis, Sse, eventually, fleet, follow_until, over_both_brokers, send_queue,
};

/// Bytes of one event's data, near the limit of 64 KiB.
const LARGE: usize = 60_000;
const MIB: usize = 1024 * 1024;

/// A large event that its number can be told from.
fn large(number: usize) -> String {
    format!("{number} {}", "x".repeat(LARGE))
}

/// The numbers of events made by [`large`].
fn numbers(events: &[Event]) -> Vec<usize> {
    let number = |event: &Event| event.data.split(' ').next().unwrap().parse().unwrap();
    events.iter().map(number).collect()
}

/// Reads events made by [`large`] one by one, and keeps none.
fn read_all(stream: &mut Sse, expected: std::ops::Range<usize>) {
    for number in expected {
        let event = stream.next_event();
        assert_eq!(numbers(&[event]), [number]);
    }
}

#[test]
fn a_reader_that_stops_costs_a_cursor_and_harms_nobody() {
    const EVENTS: usize = 1_800;
    const MEMORY_MAX: usize = 32 * MIB;
    // Events under way to those who read: on a busy machine what Redis pushes would wait in the
    // replica, and be taken for what the reader that stops costs.
    const AHEAD: usize = 50;
    const { assert!(EVENTS * LARGE > 3 * MEMORY_MAX, "far more than may be held") }
    let redis = Redis::start();
    let replicas = fleet(&redis, 2, &[]);
    let mut stuck = replicas[0].listen(&["news"]);
    let neighbour = replicas[0].listen(&["news"]);
    let elsewhere = replicas[1].listen(&["news"]);
    let before = replicas[0].peak_memory();
    std::thread::scope(|scope| {
        let readers = [neighbour, elsewhere].map(|mut stream| {
            let (read, reads) = std::sync::mpsc::sync_channel(EVENTS);
            scope.spawn(move || {
                for number in 0..EVENTS {
                    read_all(&mut stream, number..number + 1);
                    // The last ones nobody waits for.
                    let _gone = read.send(());
                }
            });
            reads
        });
        for number in 0..EVENTS {
            redis.publish("news", &large(number), &[]);
            if number >= AHEAD {
                readers.iter().for_each(|reads| reads.recv().unwrap());
            }
        }
    });
    // Everybody else has everything; now it reads, from memory first and then from the log.
    read_all(&mut stuck, 0..EVENTS);
    assert_eq!(
        stuck.end(),
        None,
        "on the connection that it has had all the time"
    );
    let grown = replicas[0].peak_memory() - before;
    println!(
        "{} MiB published, memory grew from {} MiB by {} MiB",
        EVENTS * LARGE / MIB,
        before / MIB,
        grown / MIB
    );
    assert!(grown < MEMORY_MAX, "{} MiB", grown / MIB);
}

/// Each has a page of the log on its way, and that is small.
#[test]
fn many_readers_that_stop_in_a_replay_cost_little_each() {
    const EVENTS: usize = 500;
    const READERS: usize = 200;
    const MEMORY_MAX: usize = READERS * MIB / 2;
    let redis = Redis::start();
    let gateway = fleet(&redis, 1, &[]).remove(0);
    for number in 0..EVENTS {
        redis.publish("news", &large(number), &[]);
    }
    let before = gateway.peak_memory();
    let mut stuck: Vec<Sse> = (0..READERS)
        .map(|_| gateway.open("/events/news?since=earliest", &[]))
        .collect();
    let (mut sent, mut looks) = (0.0, 0);
    eventually("nobody takes any more", || {
        let now = gateway.metric("tidegate_sent_bytes_total", &[]);
        looks = if now > sent { 0 } else { looks + 1 };
        sent = now;
        looks == 20
    });
    let grown = gateway.peak_memory() - before;
    println!(
        "{READERS} readers, memory grew from {} MiB by {} MiB",
        before / MIB,
        grown / MIB
    );
    assert!(grown < MEMORY_MAX, "{} MiB", grown / MIB);
    let blocked = [("state", "blocked")];
    #[expect(clippy::cast_precision_loss, reason = "a handful of readers")]
    gateway.wait_for_metric("tidegate_streams_behind", &blocked, READERS as f64);
    let mut last = stuck.pop().unwrap();
    last.opened();
    read_all(&mut last, 0..EVENTS);
    drop(stuck);
    gateway.wait_for_metric("tidegate_streams_behind", &blocked, 0.0);
}

#[test]
fn a_reader_that_the_log_did_not_wait_for_is_told() {
    const EVENTS: usize = 600;
    const KEPT: usize = 50;
    let kept = KEPT.to_string();
    over_both_brokers(&[("log.events_max", &kept)], |broker, gateway| {
        let mut stuck = gateway.listen(&["news"]);
        let ids: Vec<String> = (0..EVENTS)
            .map(|number| gateway.publish("news", &large(number)))
            .collect();
        let mut seen = Vec::new();
        let gap = loop {
            let event = stuck.next_event();
            if event.event == "tidegate.gap" {
                break event;
            }
            seen.push(event);
        };
        let before = seen.len();
        assert_eq!(numbers(&seen), (0..before).collect::<Vec<_>>(), "{broker}");
        let expected = serde_json::json!({
            "topic": "news",
            "reason": "trimmed",
            "from": ids[before - 1],
            "to": ids[EVENTS - KEPT - 1],
        });
        assert_eq!(gap.json(), expected, "{broker}");
        assert_eq!(gap.id(), ids[EVENTS - KEPT - 1], "{broker}");
        read_all(&mut stuck, EVENTS - KEPT..EVENTS);
        gateway.wait_for_metric("tidegate_gaps_total", &[("reason", "trimmed")], 1.0);
    });
}

#[test]
fn a_reader_that_takes_nothing_for_too_long_is_cut_and_comes_back() {
    const EVENTS: usize = 400;
    let redis = Redis::start();
    let gateway = fleet(&redis, 1, &[("server.write_timeout", "500ms")]).remove(0);
    let stuck = gateway.listen(&["news"]);
    for number in 0..EVENTS {
        redis.publish("news", &large(number), &[]);
    }
    gateway.wait_for_metric("tidegate_open_connections", &[], 0.0);
    gateway.wait_for_metric(
        "tidegate_connections_closed_total",
        &[("reason", "timeout")],
        1.0,
    );
    redis.publish("news", "last", &[]);
    let mut seen = follow_until("last", stuck, Sse::reconnect);
    seen.pop();
    assert_eq!(numbers(&seen), (0..EVENTS).collect::<Vec<_>>());
}

/// The topics that hold most give up their oldest events, which are in the log. Nobody misses anything, and a topic
/// that holds little is read from memory still.
#[test]
fn all_windows_share_one_bound_and_small_topics_keep_theirs() {
    const TOPICS: usize = 8;
    const EVENTS: usize = 20;
    // A frame may be counted before others have made room for it.
    #[expect(clippy::cast_precision_loss, reason = "far below what is exact")]
    const BOUND: f64 = (MIB + 2 * LARGE) as f64;
    const { assert!(TOPICS * EVENTS * LARGE > 8 * MIB, "far more than held") }
    over_both_brokers(
        &[("window.total_bytes_max", "1048576")],
        |broker, gateway| {
            let _quiet = gateway.listen(&["quiet"]);
            let ids: Vec<String> = (0..5)
                .map(|number| gateway.publish("quiet", &number.to_string()))
                .collect();
            let topics: Vec<String> = (0..TOPICS).map(|topic| format!("large-{topic}")).collect();
            let mut stuck: Vec<Sse> = topics
                .iter()
                .map(|topic| gateway.listen(&[topic]))
                .collect();
            for number in 0..EVENTS {
                for topic in &topics {
                    gateway.publish(topic, &large(number));
                }
                let held = gateway.metric("tidegate_window_bytes", &[]);
                assert!(held <= BOUND, "{broker}: {held}");
            }
            eventually("events were given up", || {
                gateway.metric("tidegate_window_evicted_events_total", &[]) > 100.0
            });
            let held = gateway.metric("tidegate_window_bytes", &[]);
            assert!(held <= BOUND && held > BOUND / 2.0, "{broker}: {held}");
            let window = [("outcome", "window")];
            let replays = gateway.metric("tidegate_replays_total", &window);
            let mut back = gateway.open("/events/quiet", &[("Last-Event-ID", &ids[0])]);
            back.opened();
            assert_eq!(back.next_data(4), ["1", "2", "3", "4"], "{broker}");
            gateway.wait_for_metric("tidegate_replays_total", &window, replays + 1.0);
            for stream in &mut stuck {
                read_all(stream, 0..EVENTS);
            }
        },
    );
}

/// Each has asked for pages of many topics, and lets them go when it has taken nothing for a while. Until then all of
/// them together hold no more than they may. One whose body is of HTTP/2 lets them go as well.
#[test]
fn many_readers_of_many_topics_that_stop_in_a_replay_hold_no_pages() {
    const TOPICS: usize = 16;
    const EVENTS: usize = 10;
    const READERS: usize = 40;
    // They would hold a page of each topic, of three events at least.
    const MEMORY_MAX: usize = READERS * TOPICS * LARGE * 3 / 2;
    const PAGES_MAX: usize = 16 * MIB;
    let redis = Redis::start();
    let pages_max = PAGES_MAX.to_string();
    let gateway = fleet(&redis, 1, &[("limits.page_bytes_max", &pages_max)]).remove(0);
    let topics: Vec<String> = (0..TOPICS).map(|topic| format!("many-{topic}")).collect();
    for number in 0..EVENTS {
        for topic in &topics {
            redis.publish(topic, &large(number), &[]);
        }
    }
    let query: Vec<String> = topics
        .iter()
        .map(|topic| format!("topic={topic}"))
        .collect();
    let path = format!("/events?{}&since=earliest", query.join("&"));
    let before = gateway.peak_memory();
    let mut stuck: Vec<Sse> = (0..READERS).map(|_| gateway.open(&path, &[])).collect();
    let limited = format!("{path}&limit=100000");
    let bodies: Vec<Sse> = (0..2).map(|_| gateway.open(&limited, &[])).collect();
    let (mut sent, mut looks) = (0.0, 0);
    eventually("nobody takes any more, and nobody holds a page", || {
        let now = gateway.metric("tidegate_sent_bytes_total", &[]);
        let is_still = now <= sent && gateway.metric("tidegate_page_bytes", &[]) == 0.0;
        looks = if is_still { looks + 1 } else { 0 };
        sent = now;
        looks == 20
    });
    let grown = gateway.peak_memory() - before;
    println!("{READERS} readers, memory grew by {} MiB", grown / MIB);
    assert!(grown < MEMORY_MAX, "{} MiB", grown / MIB);
    // What was let go is read again: everything comes once, in order.
    let mut last = stuck.pop().unwrap();
    last.opened();
    let mut seen = std::collections::HashMap::new();
    for _ in 0..TOPICS * EVENTS {
        let event = last.next_event();
        let number = numbers(&[event])[0];
        let of_number = seen.entry(number).or_insert(0);
        *of_number += 1;
    }
    assert!((0..EVENTS).all(|number| seen[&number] == TOPICS));
    drop((stuck, bodies));
}

/// What it did not take when it was blocked is not asked of Redis again each time that it takes a little.
#[test]
fn a_reader_that_drips_has_each_page_read_once() {
    const TOPICS: usize = 60;
    const EVENTS: usize = 20;
    const BYTES: usize = 10_000;
    const DROP: usize = 65_536;
    // With so many topics a page has eight events. Nothing is let go unless the machine is very slow.
    const PAGES: usize = TOPICS * EVENTS.div_ceil(8);
    const { assert!(TOPICS * EVENTS * BYTES > 150 * DROP, "many drops") }
    let redis = Redis::start();
    let gateway = fleet(&redis, 1, &[]).remove(0);
    let topics: Vec<String> = (0..TOPICS).map(|topic| format!("drips-{topic}")).collect();
    for number in 0..EVENTS {
        for topic in &topics {
            redis.publish(topic, &format!("{number} {}", "x".repeat(BYTES)), &[]);
        }
    }
    let query: Vec<String> = topics
        .iter()
        .map(|topic| format!("topic={topic}"))
        .collect();
    let mut socket = gateway.connect();
    let head = "HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let request = format!("GET /events?{}&since=earliest {head}", query.join("&"));
    socket.write_all(request.as_bytes()).unwrap();
    let metric = |name, labels: &[_]| gateway.metric(name, labels);
    #[expect(clippy::cast_precision_loss, reason = "far below what is exact")]
    let (all, most) = ((TOPICS * EVENTS) as f64, (2 * PAGES) as f64);
    let (mut drop_of, mut drops) = (vec![0; DROP], 0);
    let mut has_all = false;
    loop {
        eventually("it takes nothing now, or has all", || {
            has_all = metric("tidegate_events_delivered_total", &[]) >= all;
            has_all || metric("tidegate_streams_behind", &[("state", "blocked")]) > 0.5
        });
        if has_all {
            break;
        }
        socket.read_exact(&mut drop_of).unwrap();
        drops += 1;
    }
    let pages = metric("tidegate_log_reads_total", &[]);
    println!("{drops} drops, {pages} pages read");
    assert!(drops > 100, "{drops}");
    assert!(pages <= most, "{pages} pages for {drops} drops");
}

/// What a reader that stops holds in the kernel is what was not sent yet, and that is bounded.
#[test]
fn a_reader_that_stops_holds_little_in_the_kernel() {
    const EVENTS: usize = 150;
    const UNSENT: usize = 131_072;
    // One write more, of a turn and an event, and what the peer's last window left unacknowledged.
    const MORE: usize = 4 * 65_536;
    let redis = Redis::start();
    let settings = [("server.unsent_bytes_max", "131072")];
    let bounded = fleet(&redis, 1, &settings).remove(0);
    let free = fleet(&redis, 1, &[("server.unsent_bytes_max", "0")]).remove(0);
    for number in 0..EVENTS {
        redis.publish("news", &large(number), &[]);
    }
    let held: Vec<usize> = [&bounded, &free]
        .into_iter()
        .map(|gateway| {
            let mut stuck = gateway.open("/events/news?since=earliest", &[]);
            let blocked = [("state", "blocked")];
            gateway.wait_for_metric("tidegate_streams_behind", &blocked, 1.0);
            let held = send_queue(gateway.address().port());
            stuck.opened();
            read_all(&mut stuck, 0..EVENTS);
            held
        })
        .collect();
    println!("unsent and unacknowledged: {held:?} bytes");
    assert!(held[0] <= UNSENT + MORE, "{held:?}");
    assert!(held[1] > UNSENT + MORE, "nothing is measured: {held:?}");
}
