//! Goal: what applications publish to channels of their own is an event once, in their order, whatever dies and
//! however the map of these channels changes.
//!
//! Method: replicas over a real Redis with `ingest.map`, a publisher on one connection, and the logs as they stand in
//! Redis afterwards.

use crate::doctor::doctor;
use crate::support::{Gateway, Redis, eventually, fleet, free_address, replica_at, wait_for_ears};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

const REFUSED: &str = "tidegate_ingest_refused_total";
/// Overlapping patterns, a plain channel, and one that a pattern fits as well.
const MAP: (&str, &str) = (
    "ingest.map",
    "[{channel = 'orders.eu.*', topic = 'eu:{1}', type_field = 'kind'}, {channel = 'orders.*', topic = 'orders:{1}'}, \
      {channel = 'stock', topic = 'stock'}, {channel = 'stoc*', topic = 'other'}]",
);
/// What was in force before it.
const OLDER: (&str, &str) = (
    "ingest.map",
    "[{channel = 'orders.*', topic = 'orders:{1}'}, {channel = 'gone.*', topic = 'gone'}]",
);

/// The data in the log of a topic, in order.
fn log_of(redis: &Redis, topic: &str) -> Vec<String> {
    let key = format!("tidegate:{{0}}:log:{topic}");
    let entries: Vec<(String, BTreeMap<String, String>)> = redis.run(&["XRANGE", &key, "-", "+"]);
    let data = entries
        .into_iter()
        .map(|(_, mut fields)| fields.remove("data"));
    data.flatten().collect()
}

fn length(redis: &Redis, topic: &str) -> usize {
    redis.run(&["XLEN", &format!("tidegate:{{0}}:log:{topic}")])
}

/// Waits until a publish on this channel is in that topic's log: some ear counts it.
fn wait_until_logged(redis: &Redis, channel: &str, topic: &str) {
    eventually("it is heard", || {
        redis.publish_raw(channel, b"warm-up");
        length(redis, topic) > 0
    });
}

#[test]
fn a_publish_on_a_channel_of_the_map_is_an_event_of_its_topic_and_type() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 2, &[MAP]);
    wait_for_ears(&redis, &replicas);
    let topics = ["news", "orders:us.1", "eu:7", "stock", "other"];
    let mut streams: Vec<_> = replicas
        .iter()
        .map(|replica| replica.listen(&topics))
        .collect();
    let published = [
        ("events:news", "1", ""),
        ("orders.us.1", r#"{"kind":"not asked for"}"#, ""),
        ("orders.eu.7", r#"{"kind":"paid","eur":1}"#, "paid"),
        ("orders.eu.7", r#"{"kind":1}"#, ""),
        ("orders.eu.7", "no JSON", ""),
        // Two patterns and a plain channel fit these: they are delivered twice.
        ("stock", "2", ""),
        ("stocks", "3", ""),
        ("events:news", "4", ""),
    ];
    for _ in 0..20 {
        for (channel, data, _) in published {
            assert_eq!(
                redis.publish_raw(channel, data.as_bytes()) % 2,
                0,
                "{channel}"
            );
        }
    }
    for stream in &mut streams {
        for (channel, data, kind) in published.repeat(20) {
            let event = stream.next_event();
            assert_eq!(
                (event.data.as_str(), event.event.as_str()),
                (data, kind),
                "{channel}"
            );
        }
    }
    let lengths = topics.map(|topic| length(&redis, topic));
    assert_eq!(lengths, [40, 20, 60, 20, 20], "{topics:?}");
    let raw = replicas.iter();
    let raw =
        raw.map(|replica| replica.metric("tidegate_events_published_total", &[("source", "raw")]));
    assert!(raw.sum::<f64>() >= 160.0);
}

#[test]
fn a_channel_whose_name_makes_no_topic_is_refused_as_others_are() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 2, &[MAP]);
    wait_for_ears(&redis, &replicas);
    let mut stream = replicas[1].listen(&["tidegate.refused", "orders:ok"]);
    let bad = ["orders.a,b", "orders.a#b", "orders.a\nb"];
    for channel in bad {
        redis.publish_raw(channel, b"x");
    }
    redis
        .run_bytes::<u64>(&[b"PUBLISH", b"orders.\xff", b"x"])
        .unwrap();
    let long = format!("orders.{}", "x".repeat(300));
    redis.publish_raw(&long, b"x");
    redis.publish_raw("orders.ok", b"\xff");
    redis.publish_raw("orders.ok", b"good");
    let reasons = ["topic"; 5].into_iter().chain(["UTF-8"]);
    for reason in reasons {
        let said = stream.next_event().json();
        assert_eq!(
            (&said["way"], &said["reason"]),
            (&"raw".into(), &reason.into()),
            "{said}"
        );
    }
    assert_eq!(stream.next_event().data, "good");
    let counted = || {
        let counts = replicas.iter();
        counts
            .map(|replica| replica.metric(REFUSED, &[("reason", "invalid")]))
            .sum::<f64>()
    };
    eventually("they are counted", || (counted() - 6.0).abs() < 0.5);
    for replica in &replicas {
        let message = "a raw publish is no event and is not logged";
        // Once a reason in ten seconds.
        replica.logged_at_least(1, message);
    }
}

/// Publishes rounds on all of these channels, on one connection, until it is told to stop; how many rounds there were.
/// It waits for the log, so that there are not more than the log keeps.
fn publish_until(stop: &AtomicBool, redis: &Redis, channels: &[&str], topic: &str) -> usize {
    let mut connection = redis.connect();
    for round in 0.. {
        for channel in channels {
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(channel).arg(round);
            let _receivers: u64 = publish.query(&mut connection).unwrap();
        }
        if round % 50 == 49 {
            eventually("the log keeps up", || length(redis, topic) + 100 > round);
            if stop.load(Ordering::Acquire) {
                return round + 1;
            }
        }
    }
    0
}

/// Each round once and in order, in these logs together; what came before the rounds has other data.
fn assert_whole(redis: &Redis, topics: &[&str], rounds: usize) {
    let numbers = |data: Vec<String>| -> Vec<usize> {
        data.iter().filter_map(|data| data.parse().ok()).collect()
    };
    let mut all = Vec::new();
    for topic in topics {
        let logged = numbers(log_of(redis, topic));
        assert!(logged.is_sorted(), "{topic}: in another order");
        all.extend(logged);
    }
    all.sort_unstable();
    let distinct = all.windows(2).filter(|pair| pair[0] != pair[1]).count() + 1;
    assert_eq!(all.len() - distinct, 0, "repeated in {topics:?}");
    assert_eq!(rounds - distinct, 0, "lost of {topics:?}");
}

fn rounds_are_logged(redis: &Redis, topics: &[&str], rounds: usize) {
    let last = (rounds - 1).to_string();
    for topic in topics {
        let key = format!("tidegate:{{0}}:log:{topic}");
        eventually("the last is logged", || {
            let newest: Vec<(String, BTreeMap<String, String>)> =
                redis.run(&["XREVRANGE", &key, "+", "-", "COUNT", "1"]);
            newest.iter().any(|(_, fields)| fields["data"] == last)
        });
    }
}

#[test]
fn an_ear_that_dies_takes_no_publish_along() {
    let redis = Redis::start();
    let mut replicas = fleet(&redis, 3, &[MAP, ("log.events_max", "1000000")]);
    wait_for_ears(&redis, &replicas);
    wait_until_logged(&redis, "stock", "stock");
    let stop = AtomicBool::new(false);
    let channels = ["events:news", "orders.us.1", "orders.eu.7", "stock"];
    let rounds = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| publish_until(&stop, &redis, &channels, "stock"));
        eventually("it goes on", || length(&redis, "stock") > 200);
        // The one that appends is among them.
        for replica in replicas.iter_mut().take(2) {
            let before = length(&redis, "stock");
            replica.kill9();
            eventually("it goes on without it", || {
                length(&redis, "stock") > before + 200
            });
        }
        stop.store(true, Ordering::Release);
        publisher.join().unwrap()
    });
    let topics = ["news", "orders:us.1", "eu:7", "stock"];
    rounds_are_logged(&redis, &topics, rounds);
    for topic in topics {
        assert_whole(&redis, &[topic], rounds);
    }
}

/// Replicas with two maps hear side by side, and one of them is killed. What both maps have is logged once, with the
/// topic of either; what one has alone is logged by those that have it.
#[test]
fn a_rolling_change_of_the_map_loses_and_repeats_nothing() {
    let redis = Redis::start();
    let keeps = ("log.events_max", "1000000");
    let mut replicas = fleet(&redis, 3, &[OLDER, keeps]);
    wait_for_ears(&redis, &replicas);
    wait_until_logged(&redis, "gone.1", "gone");
    let stop = AtomicBool::new(false);
    let stops = [AtomicBool::new(false), AtomicBool::new(false)];
    let common = ["events:news", "orders.us.1", "orders.eu.7"];
    std::thread::scope(|scope| {
        let both = scope.spawn(|| publish_until(&stop, &redis, &common, "news"));
        let old = || publish_until(&stops[0], &redis, &["gone.1"], "gone");
        let (mut old, mut new) = (Some(scope.spawn(old)), None);
        for (number, replica) in replicas.iter_mut().enumerate() {
            if number == 2 {
                // The last that hears it goes.
                stops[0].store(true, Ordering::Release);
                let rounds = old.take().unwrap().join().unwrap();
                rounds_are_logged(&redis, &["gone"], rounds);
                assert_whole(&redis, &["gone"], rounds);
            }
            let before = length(&redis, "news");
            if number == 1 {
                replica.kill9();
            } else {
                replica.terminate();
                replica.wait();
            }
            let name = format!("r{}", number + 1);
            *replica = replica_at(free_address(), &redis, &name, &[MAP, keeps]);
            replica.wait_ready();
            eventually("it hears", || {
                replica.metric("tidegate_ingest_heard_total", &[]) > 0.0
            });
            if number == 0 {
                wait_until_logged(&redis, "stock", "stock");
                new = Some(scope.spawn(|| publish_until(&stops[1], &redis, &["stock"], "stock")));
            }
            eventually("it goes on", || length(&redis, "news") > before + 200);
        }
        stop.store(true, Ordering::Release);
        stops[1].store(true, Ordering::Release);
        let [common, stock] = [both, new.unwrap()].map(|publisher| publisher.join().unwrap());
        rounds_are_logged(&redis, &["news", "orders:us.1", "eu:7"], common);
        for topics in [&["news"][..], &["orders:us.1"], &["orders:eu.7", "eu:7"]] {
            assert_whole(&redis, topics, common);
        }
        rounds_are_logged(&redis, &["stock"], stock);
        assert_whole(&redis, &["stock"], stock);
    });
    for replica in &replicas {
        let diverged = replica.metric("tidegate_ingest_appends_total", &[("outcome", "diverged")]);
        assert!(diverged < 0.5);
    }
}

/// Two fleets that hear one another would publish what each has from the other for ever.
#[test]
fn fleets_that_hear_one_another_make_no_loop() {
    let redis = Redis::start();
    let start = |prefix: &'static str, channel: &'static str, map: &'static str| {
        let config = [
            ("redis.prefix", prefix),
            ("ingest.channel", channel),
            ("ingest.map", map),
        ];
        Gateway::over(&redis, &config)
    };
    let a = start("aa", "events", "[{channel = 'bb:*', topic = 'of-b'}]");
    let b = start("bb", "others", "[{channel = 'aa:*', topic = 'of-a'}]");
    let mut heard = b.listen(&["of-a"]);
    eventually("both hear", || {
        redis.publish_raw("events:news", b"x");
        redis.publish_raw("others:news", b"x");
        redis.publish_raw("aa:note", b"warm-up");
        let gateways = [&a, &b];
        gateways
            .iter()
            .all(|gateway| gateway.metric("tidegate_ingest_heard_total", &[]) > 0.5)
    });
    assert_eq!(heard.next_event().data, "warm-up");
    a.publish("news", "not for b");
    redis.publish_raw("aa:note", b"for b");
    while heard.next_event().data != "for b" {}
    let own = redis.run::<u64>(&["EXISTS", "aa:{0}:log:of-b"]);
    assert_eq!(own, 0, "a publishes what b has from it");
    let all: Vec<(String, BTreeMap<String, String>)> =
        redis.run(&["XRANGE", "bb:{0}:log:of-a", "-", "+"]);
    let is_note = |data: &str| ["warm-up", "for b"].contains(&data);
    assert!(
        all.iter().all(|(_, fields)| is_note(&fields["data"])),
        "{all:?}"
    );
}

#[test]
fn a_user_that_may_not_hear_the_map_hears_all_else_and_is_told() {
    let redis = Redis::start();
    let rights = include_str!("../../deploy/redis/users.acl");
    let line = rights
        .lines()
        .find(|line| line.starts_with("user tidegate-gateway "));
    let line = line.unwrap().replace("#SHA256-OF-ITS-PASSWORD", ">secret");
    let words: Vec<&str> = line.split(' ').skip(1).collect();
    redis.run::<()>(&[&["ACL", "SETUSER"], &words[..]].concat());
    // A part of the map: ears that hear other entries first would give other topics.
    redis.run::<()>(&["ACL", "SETUSER", "tidegate-gateway", "&orders.*", "&stock"]);
    let url = redis.url_of("tidegate-gateway", "secret");
    let gateway = Gateway::start(&[MAP, ("redis.url", &url)]);
    let mut stream = gateway.listen(&["news", "orders:1", "stock"]);
    eventually("what all ears hear is heard", || {
        redis.publish_raw("events:news", b"first") == 1
            && gateway.metric("tidegate_ingest_heard_total", &[]) > 0.5
    });
    assert_eq!(stream.next_event().data, "first");
    assert_eq!(
        redis.publish_raw("orders.1", b"x"),
        0,
        "nobody seems to hear it"
    );
    let message = "Redis refuses channels of ingest.map: this ear hears none of them until its next connection";
    eventually("it is told", || !gateway.logged(message).is_empty());
    let failed = [("role", "ear"), ("kind", "refused")];
    assert!(gateway.metric("tidegate_redis_errors_total", &failed) > 0.5);
    let found = doctor(&[MAP, ("redis.url", &url)], &[]);
    assert_eq!(found.level("redis.channels"), "fault");
    let said = found.said("redis.channels");
    assert!(
        said.contains("2 of 4") && said.contains(": &orders.eu.* &stoc*;"),
        "{said}"
    );

    redis.run::<()>(&[
        "ACL",
        "SETUSER",
        "tidegate-gateway",
        "&orders.eu.*",
        "&stoc*",
    ]);
    let found = doctor(&[MAP, ("redis.url", &url)], &[]);
    assert_eq!(found.level("redis.channels"), "ok", "{found:?}");
    redis.run::<u64>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    wait_until_logged(&redis, "orders.1", "orders:1");
    let closed = [
        MAP,
        ("redis.url", url.as_str()),
        ("ingest.enabled", "false"),
    ];
    assert_eq!(doctor(&closed, &[]).level("redis.channels"), "warning");
}
