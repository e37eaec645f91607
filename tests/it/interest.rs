//! Goal: a replica is interested in what its streams read and in nothing else, and what it holds
//! for a topic goes with the last stream: however many topics come and go, nothing grows.
//!
//! Method: streams of many topics, opened and closed in batches. What is left is asked of the
//! metrics, of the process, and of Redis, which knows every subscription.

use crate::support::{Gateway, Redis, Sse, eventually, fleet};

const ROUNDS: usize = 10;
const STREAMS: usize = 10;
const TOPICS: usize = 1_000;

const MANY: [(&str, &str); 4] = [
    ("limits.topics_per_stream_max", "1000"),
    ("server.buffer_bytes", "131072"),
    ("redis.unsubscribe_after", "0s"),
    ("stream.heartbeat", "1h"),
];

/// Live channels that somebody has subscribed to.
fn channels(redis: &Redis) -> usize {
    let channels: Vec<String> = redis.run(&["PUBSUB", "CHANNELS", "tidegate:{0}:live:*"]);
    channels.len()
}

/// How often Redis was given a command.
fn calls(redis: &Redis, command: &str) -> usize {
    let stats: String = redis.run(&["INFO", "commandstats"]);
    let begin = format!("cmdstat_{command}:calls=");
    let line = stats.lines().find_map(|line| line.strip_prefix(&begin));
    let count = line.and_then(|line| line.split(',').next());
    count.map_or(0, |count| count.parse().unwrap())
}

fn opened(gateway: &Gateway, round: usize) -> Vec<Sse> {
    let target = |stream: usize| {
        let topics = (0..TOPICS).map(|topic| format!("topic={round}.{stream}.{topic}"));
        let topics: Vec<String> = topics.collect();
        format!("/events?{}", topics.join("&"))
    };
    let mut streams: Vec<Sse> = (0..STREAMS)
        .map(|stream| gateway.open(&target(stream), &[]))
        .collect();
    for stream in &mut streams {
        stream.opened();
    }
    streams
}

fn resident_bytes(gateway: &Gateway) -> f64 {
    gateway.metric("process_resident_memory_bytes", &[])
}

#[test]
fn a_hundred_thousand_topics_come_and_go_and_nothing_is_left_of_them() {
    let redis = Redis::start();
    let gateway = &fleet(&redis, 1, &MANY)[0];
    let mut after_first = 0.0;
    for round in 0..ROUNDS {
        let mut streams = opened(gateway, round);
        assert_eq!(channels(&redis), STREAMS * TOPICS);
        for (number, stream) in streams.iter_mut().enumerate() {
            let id = gateway.publish(&format!("{round}.{number}.{round}"), "x");
            assert_eq!(stream.next_event().id(), id);
        }
        gateway.wait_for_metric("tidegate_topics", &[], 10_000.0);
        eventually("events are in memory", || {
            gateway.metric("tidegate_window_bytes", &[]) > 0.0
        });
        let subscribers: usize = redis.run(&["HLEN", "tidegate:subscribers:r1"]);
        assert_eq!(subscribers, STREAMS * TOPICS + 1);
        drop(streams);
        eventually("Redis is told that nobody listens", || {
            channels(&redis) == 0
        });
        gateway.wait_for_metric("tidegate_topics", &[], 0.0);
        gateway.wait_for_metric("tidegate_window_bytes", &[], 0.0);
        eventually("no subscriber is counted", || {
            redis.run::<usize>(&["HLEN", "tidegate:subscribers:r1"]) == 1
        });
        if round == 0 {
            after_first = resident_bytes(gateway);
        }
    }
    // The allocator keeps a little; 90 bytes left of each topic would be too many.
    let grown = resident_bytes(gateway) - after_first;
    assert!(grown < 9e6, "{grown} bytes more than {after_first}");
    for command in ["subscribe", "unsubscribe"] {
        let calls = calls(&redis, command);
        assert!(
            calls < ROUNDS * STREAMS * TOPICS / 200,
            "{calls} times {command}"
        );
    }
}

#[test]
fn a_connection_that_was_lost_is_subscribed_anew_in_batches() {
    let redis = Redis::start();
    let gateway = &fleet(&redis, 1, &MANY)[0];
    let mut streams = opened(gateway, 0);
    let before = calls(&redis, "subscribe");
    redis.run::<()>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    eventually("all is subscribed again", || {
        channels(&redis) == STREAMS * TOPICS
    });
    let calls = calls(&redis, "subscribe") - before;
    assert!(calls < STREAMS * TOPICS / 200, "{calls} times");
    for (number, stream) in streams.iter_mut().enumerate() {
        let id = gateway.publish(&format!("0.{number}.500"), "x");
        assert_eq!(stream.next_event().id(), id);
    }
}

#[test]
fn a_topic_stays_subscribed_for_a_while_after_its_last_stream() {
    let redis = Redis::start();
    let keep = [("redis.unsubscribe_after", "1h")];
    let gateway = &fleet(&redis, 1, &keep)[0];
    for _ in 0..5 {
        drop(gateway.listen(&["news"]));
        gateway.wait_for_metric("tidegate_open_connections", &[], 0.0);
    }
    assert_eq!((channels(&redis), calls(&redis, "unsubscribe")), (1, 0));
    // Once for ticks, once for the topic, twice for the ear.
    assert!(calls(&redis, "subscribe") <= 4);
}

#[test]
fn streams_that_come_and_go_at_once_leave_no_subscription() {
    let redis = Redis::start();
    let gateway = &fleet(&redis, 1, &MANY)[0];
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for number in 0..100 {
                    let topics =
                        format!("/events?topic=all&topic={thread}&topic={thread}.{number}");
                    drop(gateway.open(&topics, &[]));
                }
            });
        }
    });
    eventually("Redis is told that nobody listens", || {
        channels(&redis) == 0
    });
    gateway.wait_for_metric("tidegate_topics", &[], 0.0);
    let mut stream = gateway.listen(&["all"]);
    let id = gateway.publish("all", "x");
    assert_eq!(stream.next_event().id(), id);
}

/// Who went while Redis was away must not be counted for ever.
#[test]
fn what_changed_while_redis_was_away_is_told_afterwards() {
    let mut redis = Redis::durable();
    let hasty = [
        ("redis.unsubscribe_after", "0s"),
        ("redis.command_timeout", "200ms"),
        ("redis.backoff_max", "50ms"),
    ];
    let gateway = fleet(&redis, 1, &hasty).remove(0);
    let streams = [gateway.listen(&["a"]), gateway.listen(&["a", "b"])];
    let counted = |redis: &Redis| -> usize { redis.run(&["HLEN", "tidegate:subscribers:r1"]) };
    eventually("they are counted", || counted(&redis) == 3);
    redis.kill();
    drop(streams);
    gateway.wait_for_metric("tidegate_topics", &[], 0.0);
    // What it had counted came back with it.
    redis.restart();
    eventually("nobody is left", || counted(&redis) == 1);
}

/// Connections that replicas have at Redis: those that listen, and the others.
fn connections(redis: &Redis) -> (usize, usize) {
    let count = |kind: &str| {
        let list: String = redis.run(&["CLIENT", "LIST", "TYPE", kind]);
        list.lines().count()
    };
    (count("pubsub"), count("normal"))
}

#[test]
fn connections_to_redis_do_not_grow_with_streams_and_topics() {
    const POOL: usize = 2;
    let redis = Redis::start();
    let pool = POOL.to_string();
    let gateway = &fleet(&redis, 1, &[("redis.pool_size", &pool)])[0];
    gateway.wait_for_metric("tidegate_redis_up", &[("role", "ear")], 1.0);
    redis.publish("0", "before", &[]);
    let open = |number: usize| {
        let target = format!("/events/{}?since=earliest", number % 100);
        let mut stream = gateway.open(&target, &[]);
        stream.opened();
        stream
    };
    let mut streams = vec![open(0)];
    gateway.publish("0", "live");
    let (listening, others) = connections(&redis);
    // All at once, so that their reads of the log meet.
    std::thread::scope(|scope| {
        let opening: Vec<_> = (1..300)
            .map(|number| scope.spawn(move || open(number)))
            .collect();
        streams.extend(opening.into_iter().map(|stream| stream.join().unwrap()));
    });
    assert_eq!(channels(&redis), 100);
    for topic in 0..100 {
        gateway.publish(&topic.to_string(), "last");
    }
    for stream in &mut streams {
        while stream.next_published().data != "last" {}
    }
    let (listening_now, others_now) = connections(&redis);
    assert_eq!(listening_now, listening);
    assert!(
        others_now <= others + POOL,
        "{others_now} connections for commands, and {others} before"
    );
}

/// Ten times a second a replica tells of the topics whose readers have come or gone, and all others wait meanwhile.
#[test]
fn readers_that_come_and_go_cost_redis_a_few_commands() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[]);
    for topic in 0..10 {
        gateway.publish(&topic.to_string(), "x");
    }
    let mut libraries: Vec<String> = Vec::new();
    eventually("it has said which library it uses", || {
        libraries = redis.run(&["HKEYS", "tidegate:libraries"]);
        !libraries.is_empty()
    });
    drop(gateway);
    let library = libraries.first().unwrap();
    let function = format!("{library}_heartbeat");
    redis.run::<()>(&["CONFIG", "RESETSTAT"]);
    for (count, left) in [("1", TOPICS), ("0", 0)] {
        let topics: Vec<String> = (0..TOPICS).map(|topic| topic.to_string()).collect();
        let told = topics.iter().flat_map(|topic| [topic.as_str(), count]);
        let begin = ["FCALL", &function, "0", library, "r9", "1", "1", ""];
        let call: Vec<&str> = begin.into_iter().chain(told).collect();
        redis.run::<redis::Value>(&call);
        // Beside that of the replica itself.
        let told: usize = redis.run(&["HLEN", "tidegate:subscribers:r9"]);
        assert_eq!(told, 1 + left);
    }
    // The library, the replica, and all of its topics together.
    assert_eq!((calls(&redis, "hset"), calls(&redis, "hdel")), (6, 1));
    // Nothing is done meanwhile for topics that the log has.
    for command in ["hscan", "zscan", "zadd"] {
        assert_eq!(calls(&redis, command), 0, "{command}");
    }
}
