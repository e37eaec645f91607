//! Goal: an event is logged once and shown once, whatever the way it was published and wherever
//! the stream resumes. Method: three replicas on one real Redis, publishing by raw `PUBLISH`, by
//! the function, by the inbox and over HTTP, with a stream that hops from replica to replica.

use crate::support::{Gateway, Redis, Sse, eventually, wait_for_ears};

/// Enough for every replica to be told of all others and for the ears to listen.
fn three(redis: &Redis) -> [Gateway; 3] {
    let replicas = [(); 3].map(|()| Gateway::over(redis, &[]));
    for replica in &replicas {
        replica.wait_for_metric("tidegate_redis_up", &[("role", "ear")], 1.0);
    }
    // An ear counts from the first epoch on that it has heard begin.
    eventually("every ear counts", || {
        redis.publish_raw("events:warm-up", b"x");
        replicas
            .iter()
            .all(|replica| replica.metric("tidegate_ingest_heard_total", &[]) > 0.0)
    });
    replicas
}

#[test]
fn every_way_is_logged_once_and_a_hopping_stream_sees_each_event_once() {
    let redis = Redis::start();
    let replicas = three(&redis);
    let mut stream = replicas[0].open("/events/news", &[]);
    stream.opened();
    for round in 0..10 {
        let data: Vec<String> = ["raw", "function", "inbox", "http"]
            .iter()
            .map(|way| format!("{way} {round}"))
            .collect();
        assert!(redis.publish_raw("events:news", data[0].as_bytes()) > 0);
        redis.publish("news", &data[1], &[]);
        redis.run::<String>(&[
            "XADD",
            "tidegate:inbox",
            "*",
            "topic",
            "news",
            "data",
            &data[2],
        ]);
        replicas[(round + 1) % 3].publish("news", &data[3]);
        let mut seen = stream.next_data(4);
        seen.sort();
        let mut expected = data;
        expected.sort();
        assert_eq!(seen, expected, "round {round}");
        stream = stream.reconnect_to(&replicas[(round + 1) % 3]);
    }
    let logged: u64 = redis.run(&["XLEN", "tidegate:{0}:log:news"]);
    assert_eq!(logged, 40);
}

/// What is heard three times is logged once by its count, never by its content.
#[test]
fn equal_raw_publishes_are_as_many_events_in_their_order() {
    let redis = Redis::start();
    let replicas = three(&redis);
    let mut streams: Vec<Sse> = replicas
        .iter()
        .map(|replica| replica.listen(&["news"]))
        .collect();
    let published = ["same", "same", "other", "same", "other", "other", "same"];
    for data in published {
        assert!(redis.publish_raw("events:news", data.as_bytes()) >= 3);
    }
    redis.publish_raw("events:news", b"last");
    for stream in &mut streams {
        assert_eq!(stream.next_data(published.len()), published);
        assert_eq!(stream.next_published().data, "last");
    }
    let logged: usize = redis.run(&["XLEN", "tidegate:{0}:log:news"]);
    assert_eq!(logged, published.len() + 1);
}

/// An ear that cannot begin to count was a receiver all the same: a publisher was told that it is heard,
/// and the event was in no log.
#[test]
fn no_ear_listens_while_redis_takes_no_writes() {
    let redis = Redis::start();
    let gateway = Gateway::start(&[("redis.url", &redis.url())]);
    wait_for_ears(&redis, std::slice::from_ref(&gateway));
    redis.run::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    redis.run::<u64>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    eventually("the ear has tried in vain", || {
        let labels = [("role", "ear"), ("kind", "unavailable")];
        gateway.metric("tidegate_redis_errors_total", &labels) >= 3.0
    });
    assert_eq!(
        redis.publish_raw("events:news", b"x"),
        0,
        "somebody listens"
    );
    redis.run::<()>(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    let mut stream = gateway.listen(&["news"]);
    wait_for_ears(&redis, std::slice::from_ref(&gateway));
    eventually("somebody listens", || {
        redis.publish_raw("events:news", b"y") > 0
    });
    assert_eq!(stream.next_event().data, "y");
}
