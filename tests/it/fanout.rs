//! Goal: every replica shows every stream the same events in the same order, each once, whoever
//! publishes where, whoever comes and goes, and whatever becomes of the connections to Redis.
//!
//! Method: several real replicas over one real Redis, publishers that run side by side, and the log
//! itself to compare with.

use crate::support::{
    Event, NewEvent, Redis, Sse, Way, eventually, fleet, follow_until, wait_for_ears,
};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that a topic's log holds: id and data.
fn logged(redis: &Redis, topic: &str) -> Vec<(String, String)> {
    let log = format!("tidegate:{{0}}:log:{topic}");
    let entries: Vec<(String, Vec<String>)> = redis.run(&["XRANGE", &log, "-", "+"]);
    let with_data = |(id, fields): (String, Vec<String>)| {
        let data = fields.chunks(2).find(|field| field[0] == "data").unwrap();
        (id, data[1].clone())
    };
    entries.into_iter().map(with_data).collect()
}

fn pairs(events: &[Event]) -> Vec<(String, String)> {
    events
        .iter()
        .map(|event| (event.id().to_owned(), event.data.clone()))
        .collect()
}

/// Reads up to an event `last` on this one connection.
fn read_to_last(stream: Sse) -> Vec<Event> {
    follow_until("last", stream, |stream| {
        panic!("cut after {:?}", stream.last_event_id())
    })
}

/// The numbers of what was published this way, in the order in which they stand.
fn numbers_of(way: Way, log: &[(String, String)]) -> Vec<usize> {
    let prefix = format!("{way:?} ");
    log.iter()
        .filter_map(|(_, data)| data.strip_prefix(&prefix)?.parse().ok())
        .collect()
}

#[test]
fn three_replicas_show_one_order() {
    const EVENTS: usize = 200;
    let ways = [Way::Http, Way::Batch, Way::Function, Way::Inbox, Way::Raw];
    let redis = Redis::start();
    let replicas = fleet(&redis, 3, &[]);
    wait_for_ears(&redis, &replicas);
    let streams: Vec<Sse> = (0..9)
        .map(|n| replicas[n % 3].listen(&["news", "silent"]))
        .collect();
    std::thread::scope(|scope| {
        let readers: Vec<_> = streams
            .into_iter()
            .map(|stream| scope.spawn(|| read_to_last(stream)))
            .collect();
        let publishers = ways.map(|way| {
            let (redis, replica) = (&redis, &replicas[way as usize % 3]);
            scope.spawn(move || {
                for number in 0..EVENTS {
                    let event = NewEvent {
                        topic: "news",
                        data: &format!("{way:?} {number}"),
                        ..NewEvent::default()
                    };
                    way.publish(replica, redis, event);
                }
            })
        });
        publishers
            .into_iter()
            .for_each(|publisher| publisher.join().unwrap());
        // Raw publishes and the inbox are logged a moment later.
        eventually("everything is logged", || {
            logged(&redis, "news").len() == ways.len() * EVENTS
        });
        redis.publish("news", "last", &[]);
        let log = logged(&redis, "news");
        let all: Vec<usize> = (0..EVENTS).collect();
        for way in ways {
            assert_eq!(
                numbers_of(way, &log),
                all,
                "{way:?}: each once, in its order"
            );
        }
        for reader in readers {
            assert_eq!(pairs(&reader.join().unwrap()), log);
        }
    });
}

#[test]
fn each_stream_gets_the_events_of_its_own_topics() {
    const TOPICS: usize = 120;
    const EVENTS: usize = 3_000;
    let redis = Redis::start();
    let replicas = fleet(&redis, 3, &[]);
    let topic = |number: usize| format!("topic-{}", number % TOPICS);
    // Stream n reads every topic whose number n + 2 divides, and one that is for the end alone.
    let topics_of = |n: usize| (0..TOPICS).step_by(n + 2).map(topic).chain(["end".into()]);
    let streams: Vec<Sse> = (0..12)
        .map(|n| {
            let topics: Vec<String> = topics_of(n).collect();
            let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
            replicas[n % 3].listen(&topics)
        })
        .collect();
    let published: BTreeMap<(u64, u64), (String, String)> = std::thread::scope(|scope| {
        let publishers: Vec<_> = replicas
            .iter()
            .enumerate()
            .map(|(publisher, replica)| {
                scope.spawn(move || {
                    let numbers: Vec<usize> = (publisher..EVENTS).step_by(3).collect();
                    let mut published = Vec::new();
                    for batch in numbers.chunks(20) {
                        let events: Vec<(String, String)> = batch
                            .iter()
                            .map(|number| (topic(number * 7), number.to_string()))
                            .collect();
                        let batch: Vec<(&str, &str)> = events
                            .iter()
                            .map(|(topic, data)| (topic.as_str(), data.as_str()))
                            .collect();
                        let ids = replica.publish_batch(&batch);
                        published.extend(ids.into_iter().zip(events));
                    }
                    published
                })
            })
            .collect();
        publishers
            .into_iter()
            .flat_map(|publisher| publisher.join().unwrap())
            .map(|(id, event)| (crate::support::position(&id).unwrap(), event))
            .collect()
    });
    assert_eq!(published.len(), EVENTS, "no id was given twice");
    replicas[0].publish("end", "last");
    for (n, stream) in streams.into_iter().enumerate() {
        let topics: BTreeSet<String> = topics_of(n).collect();
        let expected = published
            .values()
            .filter(|(topic, _)| topics.contains(topic))
            .map(|(_, data)| data.clone());
        let expected: Vec<String> = expected.chain(["last".into()]).collect();
        let seen: Vec<String> = read_to_last(stream)
            .into_iter()
            .map(|event| event.data)
            .collect();
        assert_eq!(seen, expected, "stream {n}");
    }
}

#[test]
fn many_streams_of_one_topic_get_each_event_once() {
    const STREAMS: u32 = 300;
    const EVENTS: u32 = 100;
    crate::support::over_both_brokers(&[], |broker, gateway| {
        let streams: Vec<Sse> = (0..STREAMS).map(|_| gateway.listen(&["news"])).collect();
        let mut expected: Vec<String> = (1..EVENTS).map(|number| number.to_string()).collect();
        expected.push("last".into());
        for data in &expected {
            gateway.publish("news", data);
        }
        for stream in streams {
            let seen: Vec<String> = read_to_last(stream)
                .into_iter()
                .map(|event| event.data)
                .collect();
            assert_eq!(seen, expected, "{broker}");
        }
        let delivered = f64::from(STREAMS * EVENTS);
        gateway.wait_for_metric("tidegate_events_delivered_total", &[], delivered);
    });
}

/// How many connections of replicas listen to a topic.
fn subscribed(redis: &Redis, topic: &str) -> u64 {
    let channel = format!("tidegate:{{0}}:live:{topic}");
    let answer: (String, u64) = redis.run(&["PUBSUB", "NUMSUB", &channel]);
    answer.1
}

#[test]
fn a_topic_is_given_up_with_its_last_stream_and_taken_again_with_the_next() {
    let redis = Redis::start();
    let config = [("redis.unsubscribe_after", "1ms")];
    let replicas = fleet(&redis, 2, &config);
    for round in 0..5 {
        let mut stream = replicas[0].listen(&["news"]);
        let elsewhere = replicas[1].listen(&["news"]);
        assert_eq!(subscribed(&redis, "news"), 2);
        replicas[0].publish("news", "heard");
        assert_eq!(stream.next_event().data, "heard", "{round}");
        let cursor = stream.last_event_id().to_owned();
        drop((stream, elsewhere));
        eventually("nobody listens", || subscribed(&redis, "news") == 0);
        replicas[0].wait_for_metric("tidegate_topics", &[], 0.0);

        replicas[1].publish("news", "unheard");
        let mut live = replicas[0].listen(&["news"]);
        let mut resumed = replicas[0].open("/events/news", &[("Last-Event-ID", &cursor)]);
        replicas[1].publish("news", "heard again");
        assert_eq!(live.next_published().data, "heard again", "{round}");
        assert_eq!(resumed.next_data(2), ["unheard", "heard again"], "{round}");
    }
}

/// The subscription is taken and given up all the time, and no event falls in between.
#[test]
fn a_reader_that_comes_and_goes_misses_nothing() {
    const EVENTS: usize = 400;
    let redis = Redis::start();
    let config = [("redis.unsubscribe_after", "1ms")];
    let replicas = fleet(&redis, 2, &config);
    let stream = replicas[0].listen(&["news"]);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut seen, mut visits, mut stream) = (Vec::new(), 0, stream);
            while seen.len() < EVENTS {
                let event = stream.next_published();
                seen.push(event.data);
                seen.extend(stream.received().into_iter().map(|event| event.data));
                visits += 1;
                stream = stream.reconnect_to(&replicas[visits % 2]);
            }
            seen
        });
        let published: Vec<String> = (0..EVENTS).map(|number| number.to_string()).collect();
        for data in &published {
            redis.publish("news", data, &[]);
        }
        assert_eq!(reader.join().unwrap(), published);
    });
}

#[test]
fn streams_notice_nothing_when_subscriptions_are_killed() {
    const EVENTS: usize = 1_000;
    const KILLS: usize = 25;
    let redis = Redis::start();
    let replicas = fleet(&redis, 3, &[]);
    let streams: Vec<Sse> = (0..9)
        .map(|n| replicas[n % 3].listen(&["a", "b", "c"]))
        .collect();
    std::thread::scope(|scope| {
        let readers: Vec<_> = streams
            .into_iter()
            .map(|stream| scope.spawn(|| read_to_last(stream)))
            .collect();
        let mut published = Vec::new();
        for number in 0..EVENTS {
            if number % (EVENTS / KILLS) == 0 {
                let killed: u64 = redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
                assert!(number > 0 || killed >= 3, "{killed}");
            }
            let (topic, data) = (["a", "b", "c"][number % 3], number.to_string());
            let id = match number % 2 {
                0 => redis.publish(topic, &data, &[]),
                _ => replicas[number % 3].publish(topic, &data),
            };
            published.push((id, data));
        }
        let last = redis.publish("b", "last", &[]);
        published.push((last, "last".to_owned()));
        for reader in readers {
            assert_eq!(pairs(&reader.join().unwrap()), published);
        }
    });
    for replica in &replicas {
        let live = [("role", "live")];
        assert!(replica.metric("tidegate_redis_reconnects_total", &live) > 0.5);
        let held = [("reason", "held")];
        assert!(replica.metric("tidegate_connections_closed_total", &held) < 0.5);
    }
}

/// What comes after more than may wait is lost to the ear, and must not make it deaf.
#[test]
fn an_ear_listens_again_after_more_than_it_can_hold() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 1, &[("redis.live_queue_bytes", "100000")]);
    wait_for_ears(&redis, &replicas);
    let large = vec![b'x'; 90_000];
    let mut pipe = redis::pipe();
    for _ in 0..100 {
        pipe.cmd("PUBLISH").arg("events:other").arg(&large);
    }
    let mut publisher = redis.connect();
    eventually("more has come than it can hold", || {
        let _: Vec<u64> = pipe.query(&mut publisher).unwrap();
        let ear = [("role", "ear")];
        replicas[0].metric("tidegate_redis_reconnects_total", &ear) > 0.5
    });
    eventually("the ear hears again", || {
        redis.publish_raw("events:news", b"small");
        redis.run::<u64>(&["EXISTS", "tidegate:{0}:log:news"]) == 1
    });
    let data: Vec<String> = logged(&redis, "news")
        .into_iter()
        .map(|(_, data)| data)
        .collect();
    assert!(data.iter().all(|data| data == "small"));
}
