//! Goal: what somebody says of the far future moves no clock, whether over the live path or as a report; and a
//! replica whose own past lies there, because Redis' clock went back, does not wait until that time comes.
//!
//! Method: forged frames, ticks and reports; a log whose clock was put hours ahead, and which is then emptied.

use crate::support::{Gateway, Redis, eventually, fleet, position, wait_for_ears};

/// A replica over `redis` that hears raw publishes.
fn listening(redis: &Redis) -> Gateway {
    let replicas = fleet(redis, 1, &[]);
    wait_for_ears(redis, &replicas);
    replicas.into_iter().next().unwrap()
}

/// Whoever may call the public functions may publish to live channels, too. One frame or tick of the far future
/// silenced its partition, and after a restart of Redis it moved the clock there for good.
#[test]
fn an_id_of_the_far_future_silences_nobody_and_moves_no_clock() {
    let mut redis = Redis::durable();
    let gateway = listening(&redis);
    let mut stream = gateway.listen(&["news"]);
    gateway.publish("news", "before");
    assert_eq!(stream.next_data(1), ["before"]);
    let far = "9007199254740990-1";
    let frame = format!("1 {far} 1-1 e \nforged");
    for (channel, message) in [("live:news", frame.as_str()), ("tick", far)] {
        let channel = format!("tidegate:{{0}}:{channel}");
        redis.run::<u64>(&["PUBLISH", &channel, message]);
    }
    gateway.wait_for_metric("tidegate_ids_ahead_total", &[], 2.0);
    gateway.publish("news", "after");
    assert_eq!(stream.next_data(1), ["after"]);
    redis.kill();
    redis.restart();
    eventually("Redis is back", || {
        gateway.post("/events/news", &[], "back").status == 200
    });
    assert_eq!(stream.next_data(1), ["back"]);
    let last: String = redis.run(&["HGET", "tidegate:{0}:clock", "last"]);
    let (ms, _) = position(&last).unwrap();
    assert!(ms < 9_007_199_254_740_990, "the clock stands at {last}");
}

/// An `EventSource` stops for good at 204. The end is in no log.
#[test]
fn an_end_that_somebody_else_published_sends_nobody_away_for_good() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[("redis.tick_after", "1h")]);
    let mut stream = gateway.listen(&["news"]);
    let id = gateway.publish("news", "true");
    assert_eq!(stream.next_event().id(), id);
    // Just ahead: a log that has gone back is another matter.
    let (seconds, micros): (u64, u64) = redis.run(&["TIME"]);
    let forged = format!("{}-1", seconds * 1_000 + micros / 1_000 + 1);
    let frame = format!("1 {forged} {id} x \nforged");
    redis.run::<u64>(&["PUBLISH", "tidegate:{0}:live:news", &frame]);
    assert_eq!(stream.next_event().id(), forged);
    let back = gateway.open("/events/news", &[("Last-Event-ID", &forged)]);
    assert_eq!(back.status(), 200);
}

/// Each was a line of the log.
#[test]
fn frames_that_cannot_be_read_fill_no_log() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[]);
    let mut stream = gateway.listen(&["news"]);
    gateway.publish("news", "before");
    for _ in 0..200 {
        redis.run::<u64>(&["PUBLISH", "tidegate:{0}:live:news", "1 no frame"]);
        gateway.publish("news", "x");
    }
    gateway.publish("news", "last");
    stream.next_data(202);
    let lines = gateway.logged_at_least(1, "a live frame cannot be read; the log is read instead");
    // One in ten seconds.
    assert!((1..50).contains(&lines.len()), "{} lines", lines.len());
}

/// A log that has given out ids two hours ahead, as after a wrong clock.
fn put_ahead(redis: &Redis, hours: u64) {
    let (now, _): (u64, u64) = redis.run(&["TIME"]);
    let ahead = (now + hours * 3_600) * 1_000;
    let last = format!("{ahead}-0");
    redis.run::<u64>(&["HSET", "tidegate:{0}:clock", "last", &last]);
}

/// Whoever may call functions may call the internal ones, too.
#[test]
fn a_report_of_the_far_future_moves_no_clock() {
    let redis = Redis::start();
    let gateway = listening(&redis);
    let mut stream = gateway.listen(&["news"]);
    gateway.publish("news", "before");
    let libraries: Vec<std::collections::BTreeMap<String, redis::Value>> =
        redis.run(&["FUNCTION", "LIST"]);
    let names = libraries
        .iter()
        .map(|library| redis::from_redis_value_ref::<String>(&library["library_name"]).unwrap());
    let internal = names.into_iter().find(|name| name != "tidegate").unwrap();
    let report = format!("{internal}_report");
    let far = "9007199254740990-1";
    let born = "1-0";
    let reports: [&[&str]; 3] = [
        &["0", far, born, "0-0", "x", far],
        &["0", "1-0", born, "0-0", "x", far],
        &["0", "1-0", born, "0-0", "x", "1-0", "news", far],
    ];
    for words in reports {
        let words: Vec<&[u8]> = [&["FCALL", report.as_str(), "0"], words]
            .concat()
            .iter()
            .map(|word| word.as_bytes())
            .collect();
        let refused = redis.run_bytes::<redis::Value>(&words).unwrap_err();
        assert_eq!(refused.code(), Some("TGAHEAD"), "{refused}");
    }
    gateway.publish("news", "after");
    assert_eq!(stream.next_data(2), ["before", "after"]);
    let last: String = redis.run(&["HGET", "tidegate:{0}:clock", "last"]);
    let (ms, _) = position(&last).unwrap();
    let (now, _): (u64, u64) = redis.run(&["TIME"]);
    assert!(ms < (now + 60) * 1_000, "the clock stands at {last}");
}

/// A clock that has gone back by two hours together with its log cannot be told of ids that were seen: streams
/// would wait for two hours.
#[test]
fn who_is_far_ahead_of_a_log_that_went_back_begins_anew() {
    let redis = Redis::start();
    listening(&redis).publish("news", "first");
    put_ahead(&redis, 2);
    let mut gateway = listening(&redis);
    let mut stream = gateway.listen(&["news"]);
    gateway.publish("news", "ahead");
    assert_eq!(stream.next_data(1), ["ahead"]);
    let cursor = stream.last_event_id().to_owned();
    redis.run::<()>(&["FLUSHALL"]);
    assert_eq!(gateway.wait().code(), Some(75));
    let why = "Redis' clock has gone back, and its log with it: the process ends, to begin anew";
    assert_eq!(gateway.logged(why).len(), 1);
    // As a supervisor would.
    let next = listening(&redis);
    next.publish("news", "before the reader is back");
    let mut stream = next.open("/events/news", &[("Last-Event-ID", &cursor)]);
    next.publish("news", "anew");
    assert_eq!(stream.next_of("tidegate.gap").json()["reason"], "ahead");
    assert_eq!(stream.next_data(2), ["before the reader is back", "anew"]);
}
