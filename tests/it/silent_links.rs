//! Goal: a connection to Redis that takes bytes and never answers again costs no more than the
//! commands that were on it. Whatever comes next goes over another one: publishing, reading, the
//! live path.
//!
//! Method: a real Redis behind a link whose standing connections fall silent, as behind a balancer
//! whose server has vanished.

use crate::support::{Gateway, Link, Redis, eventually, wait_for_ears};
use std::io::{Read as _, Write as _};
use std::time::Duration;

/// A gateway whose way to Redis is this link.
fn behind(link: &Link, config: &[(&str, &str)]) -> Gateway {
    let url = link.url();
    let mut all = vec![
        ("redis.url", url.as_str()),
        ("repair.time", "1s"),
        ("redis.tick_after", "1s"),
    ];
    all.extend(config);
    Gateway::start(&all)
}

/// Has several connections of the pool stand idle.
fn fill_the_pool(gateway: &Gateway) {
    eventually("connections stand idle", || {
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| gateway.get("/topics/news/events"));
            }
        });
        gateway.metric("tidegate_redis_pool", &[("state", "idle")]) >= 3.0
    });
}

#[test]
fn what_comes_after_the_silence_has_begun_is_done_at_the_first_try() {
    let redis = Redis::start();
    let link = Link::to(&redis);
    // Half of it is given to the connections that stand.
    let gateway = behind(&link, &[("redis.command_timeout", "6s")]);
    let mut stream = gateway.listen(&["news"]);
    gateway.publish("news", "before");
    assert_eq!(stream.next_event().data, "before");
    fill_the_pool(&gateway);
    link.silence();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| gateway.get("/topics/news/events"));
        let others = [0; 8].map(|_| scope.spawn(|| gateway.post("/events/other", &[], "x")));
        let answer = gateway.post("/events/news", &[], "after");
        assert_eq!(answer.status, 200, "{}", answer.text());
        for other in others {
            let answer = other.join().unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        let answer = reader.join().unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    });
    // The live path is as deaf, and finds out.
    assert_eq!(stream.next_event().data, "after");
}

#[test]
fn a_publish_whose_answer_is_lost_costs_itself_and_no_other() {
    let redis = Redis::start();
    let link = Link::to(&redis);
    let gateway = behind(&link, &[("redis.command_timeout", "500ms")]);
    gateway.publish("news", "before");
    let key = [("Idempotency-Key", "k")];
    link.lose_answer("lost");
    gateway.post("/events/news", &key, "lost").problem(503);
    let answer = gateway.post("/events/news", &key, "lost");
    assert_eq!(answer.status, 200, "{}", answer.text());
    gateway.publish("news", "after");
    let page = gateway.get("/topics/news/events").json();
    let events = page["events"].as_array().unwrap().iter();
    let data: Vec<&str> = events.map(|e| e["data"].as_str().unwrap()).collect();
    assert_eq!(data, ["before", "lost", "after"]);
}

#[test]
fn publishers_that_go_away_early_leave_no_silent_connection_behind() {
    let redis = Redis::start();
    let link = Link::to(&redis);
    let gateway = behind(&link, &[("redis.command_timeout", "2s")]);
    gateway.publish("news", "before");
    link.silence();
    let request = b"POST /events/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";
    eventually("one of them is answered", || {
        let mut client = gateway.connect();
        client.write_all(request).unwrap();
        // Much less than a command may take.
        client
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let mut head = [0; 12];
        client.read_exact(&mut head).is_ok() && head == *b"HTTP/1.1 200"
    });
}

#[test]
fn an_ear_whose_connection_is_silent_listens_again() {
    let redis = Redis::start();
    let link = Link::to(&redis);
    let gateway = behind(&link, &[("redis.command_timeout", "500ms")]);
    let mut stream = gateway.listen(&["news"]);
    wait_for_ears(&redis, std::slice::from_ref(&gateway));
    link.silence();
    // Nothing is ever sent to it otherwise.
    eventually("a raw publish is logged", || {
        redis.publish_raw("events:news", b"x");
        let log: Vec<redis::Value> = redis.run(&["XRANGE", "tidegate:{0}:log:news", "-", "+"]);
        !log.is_empty()
    });
    assert_eq!(stream.next_event().data, "x");
}

/// What Redis has sent to an ear is nowhere else. The ear gave its connection up although no other one
/// could be had, and what came through afterwards was for nobody.
#[test]
fn a_way_that_is_silent_altogether_for_long_costs_no_raw_publish() {
    let redis = Redis::start();
    let link = Link::to(&redis);
    let gateway = behind(&link, &[("redis.command_timeout", "200ms")]);
    let mut stream = gateway.listen(&["news"]);
    wait_for_ears(&redis, std::slice::from_ref(&gateway));
    link.hold(true);
    for number in 0..20 {
        redis.publish_raw("events:news", number.to_string().as_bytes());
    }
    // Of live path and ear, each more than once: a connection that is given up says it once.
    eventually("subscriptions have asked in vain", || {
        let said = "a subscription takes bytes and answers nothing; another connection is tried";
        gateway.logged(said).len() >= 4
    });
    link.hold(false);
    for number in 0..20 {
        assert_eq!(stream.next_event().data, number.to_string());
    }
}
