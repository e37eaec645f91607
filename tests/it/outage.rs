//! Goal: streams outlive Redis. While it is away they stay open and keep their heartbeat, new ones
//! are accepted and wait, and publishing says at once that it cannot; once it is back, everything
//! that was acknowledged is shown, in order and once. What Redis lost is told, never passed over.
//!
//! Method: a real redis-server is killed, stopped, cut off, filled, or not there at the start.
//! Publishers repeat what was not acknowledged with its key, as they should.

use crate::support::{
    Answer, End, Gateway, NDJSON, NewEvent, Redis, Sse, Way, eventually, fleet, position,
};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Short times, so that an outage of a second is a long one.
const HASTY: [(&str, &str); 6] = [
    ("stream.heartbeat", "20ms"),
    ("stream.open_wait", "50ms"),
    ("redis.command_timeout", "200ms"),
    ("redis.connect_timeout", "200ms"),
    ("redis.backoff_max", "50ms"),
    ("repair.time", "500ms"),
];

/// How Redis goes away, and how it comes back.
struct Outage {
    name: &'static str,
    begin: fn(&mut Redis),
    end: fn(&mut Redis),
}

const OUTAGES: [Outage; 2] = [
    Outage {
        name: "killed",
        begin: Redis::kill,
        end: Redis::restart,
    },
    Outage {
        name: "stopped",
        begin: Redis::pause,
        end: Redis::resume,
    },
];

/// Publishes with a key of its own; the answer.
fn try_publish(gateway: &Gateway, topic: &str, data: &str) -> Answer {
    gateway.post(
        &format!("/events/{topic}"),
        &[("Idempotency-Key", data)],
        data,
    )
}

/// Repeats a publish until it is acknowledged; id and data.
fn publish_in_the_end(gateway: &Gateway, topic: &str, data: &str) -> (String, String) {
    let mut id = None;
    eventually(&format!("{data} is acknowledged"), || {
        let answer = try_publish(gateway, topic, data);
        id = (answer.status == 200).then(|| answer.id());
        id.is_some()
    });
    (id.unwrap(), data.to_owned())
}

/// Asserts that a stream shows these, sorted by id, each once and nothing else in between.
fn assert_shows(stream: &mut Sse, published: &[(String, String)], context: &str) {
    for (id, data) in published {
        let event = stream.next_event();
        assert_eq!(
            (event.id(), &event.data),
            (id.as_str(), data),
            "{context}: {event:?}"
        );
    }
}

/// Asserts an answer that tells the publisher to come again.
fn assert_unavailable(answer: &Answer, context: &str) {
    answer.problem(503);
    let wait = answer.headers.get("retry-after").map(str::parse::<u64>);
    assert!(matches!(wait, Some(Ok(1..))), "{context}: {wait:?}");
}

#[test]
fn streams_stay_open_while_redis_is_away_and_all_is_shown_afterwards() {
    for Outage { name, begin, end } in OUTAGES {
        let mut redis = Redis::durable();
        let gateway = Gateway::over(&redis, &HASTY);
        let mut live = gateway.listen(&["a", "b"]);
        let start = live.last_event_id().to_owned();
        let mut published: Vec<_> = (0..4)
            .map(|n| publish_in_the_end(&gateway, ["a", "b"][n % 2], &format!("before {n}")))
            .collect();
        assert_shows(&mut live, &published, name);

        begin(&mut redis);
        assert_unavailable(&try_publish(&gateway, "a", "during 0"), name);
        assert_unavailable(
            &gateway.post(
                "/events/a?end=false",
                &[("Idempotency-Key", "during 1")],
                "during 1",
            ),
            name,
        );
        let json = |n| {
            format!(
                "{{\"topic\":\"b\",\"data\":\"during {n}\",\"idempotency_key\":\"during {n}\"}}"
            )
        };
        assert_unavailable(&gateway.post("/events", &[NDJSON], json(2)), name);
        let lines: Vec<String> = (3..100).map(json).collect();
        assert_unavailable(
            &gateway.post("/events?partial", &[NDJSON], lines.join("\n")),
            name,
        );
        assert_unavailable(&gateway.delete("/topics/nothing"), name);
        for target in ["/topics", "/topics/a", "/topics/a/events"] {
            assert_unavailable(&gateway.get(target), name);
        }
        assert_unavailable(&gateway.get("/readyz?delivery"), name);
        // A balancer must not take every replica out at once.
        assert_eq!(gateway.get("/readyz").status, 200, "{name}");
        assert_eq!(gateway.get("/healthz").status, 200, "{name}");
        gateway.wait_for_metric("tidegate_redis_up", &[("role", "commands")], 0.0);

        // Streams that are there, come back, or come for the first time.
        let mut back = gateway.open("/events?topic=b&topic=a", &[("Last-Event-ID", &start)]);
        let mut fresh = gateway.open("/events?topic=new", &[]);
        let mut history = gateway.open("/events?topic=a&topic=b&since=earliest", &[]);
        for stream in [&mut live, &mut back, &mut fresh, &mut history] {
            assert_eq!(stream.status(), 200, "{name}");
            stream.next_comments(5);
        }

        std::thread::scope(|scope| {
            let retrying = scope.spawn(|| {
                let during = (0..5).map(|n| {
                    publish_in_the_end(&gateway, ["a", "b"][n / 2 % 2], &format!("during {n}"))
                });
                during.collect::<Vec<_>>()
            });
            end(&mut redis);
            published.extend(retrying.join().unwrap());
        });
        published.push(publish_in_the_end(&gateway, "a", "after"));
        published.sort_by_key(|(id, _)| position(id));
        assert_shows(&mut live, &published[4..], name);
        for stream in [&mut back, &mut history] {
            stream.opened();
            assert_shows(stream, &published, name);
        }
        fresh.opened();
        assert_shows(
            &mut fresh,
            &[publish_in_the_end(&gateway, "new", "new")],
            name,
        );
        assert_eq!(gateway.get("/readyz?delivery").status, 200, "{name}");
    }
}

#[test]
fn what_was_published_to_redis_before_any_replica_is_back_is_shown_too() {
    let mut redis = Redis::durable();
    let mut replicas = fleet(&redis, 2, &HASTY);
    let mut streams: Vec<Sse> = replicas
        .iter()
        .map(|replica| replica.listen(&["a"]))
        .collect();
    let before = (replicas[0].publish("a", "before"), "before".to_owned());
    for stream in &mut streams {
        assert_shows(stream, std::slice::from_ref(&before), "before");
    }
    replicas.iter_mut().for_each(Gateway::pause);
    redis.restart();
    // The functions came back with the log.
    let function = (redis.publish("a", "function", &[]), "function".to_owned());
    let inbox = NewEvent {
        topic: "a",
        data: "inbox",
        ..NewEvent::default()
    };
    Way::Inbox.publish(&replicas[0], &redis, inbox);
    replicas.iter_mut().for_each(Gateway::resume);
    for stream in &mut streams {
        assert_shows(stream, std::slice::from_ref(&function), "function");
        assert_eq!(stream.next_event().data, "inbox");
    }
    let logged: u64 = redis.run(&["XLEN", "tidegate:{0}:log:a"]);
    assert_eq!(logged, 3);
}

#[test]
fn streams_do_not_notice_that_the_live_path_is_cut_again_and_again() {
    const EVENTS: usize = 400;
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[("redis.backoff_max", "50ms")]);
    let topics = ["a", "b", "c"];
    let mut stream = gateway.listen(&topics);
    let published = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let acknowledged = scope.spawn(|| {
            let one = |n: usize| {
                let data = n.to_string();
                let id = match n % 2 {
                    0 => gateway.publish(topics[n % 3], &data),
                    _ => redis.publish(topics[n % 3], &data, &[]),
                };
                published.store(n + 1, Ordering::Relaxed);
                (id, data)
            };
            (0..EVENTS).map(one).collect::<Vec<_>>()
        });
        let mut cuts = 0;
        let mut scissors = redis.connect();
        while published.load(Ordering::Relaxed) < EVENTS {
            let up = gateway.metric("tidegate_redis_up", &[("role", "live")]) > 0.0;
            if up {
                let mut kill = redis::cmd("CLIENT");
                let killed: u32 = kill
                    .arg(&["KILL", "TYPE", "pubsub"])
                    .query(&mut scissors)
                    .unwrap();
                cuts += killed;
            }
        }
        assert!(cuts >= 5, "only {cuts} connections were cut");
        assert_shows(&mut stream, &acknowledged.join().unwrap(), "cut");
    });
}

#[test]
fn a_log_that_redis_has_lost_is_told_on_every_stream() {
    let mut redis = Redis::start();
    let gateway = Gateway::over(&redis, &HASTY);
    let mut live = gateway.listen(&["a", "b"]);
    let first = gateway.publish("a", "first");
    let lost = gateway.publish("a", "lost");
    assert_eq!(live.next_data(2), ["first", "lost"]);
    // Nothing was on disk.
    redis.restart();
    let (after, _) = publish_in_the_end(&gateway, "a", "after");
    assert!(
        position(&lost) < position(&after),
        "no id is given out again"
    );
    let gap = live.next_event();
    assert_eq!(gap.event, "tidegate.gap", "{gap:?}");
    assert_eq!(gap.json()["topic"], "a");
    assert_eq!(gap.json()["reason"], "log_lost");
    assert_eq!(live.next_published().data, "after");

    let mut back = gateway.open("/events/a", &[("Last-Event-ID", &first)]);
    back.opened();
    let gap = back.next_event();
    assert_eq!(gap.event, "tidegate.gap", "{gap:?}");
    assert_eq!(gap.json()["reason"], "log_lost");
    assert_eq!(back.next_published().data, "after");
}

#[test]
fn a_replica_starts_without_redis_and_takes_streams_that_wait() {
    let mut redis = Redis::durable();
    redis.kill();
    let gateway = Gateway::launch_over(&redis, &HASTY);
    assert_eq!(gateway.get("/healthz").status, 200);
    gateway.get("/readyz").problem(503);
    assert_unavailable(&gateway.post("/events/news", &[], "x"), "publish");
    let mut streams = ["", "?since=earliest", "?last=3"]
        .map(|query| gateway.open(&format!("/events/news{query}"), &[]));
    for stream in &mut streams {
        assert_eq!(stream.status(), 200);
        stream.next_comments(3);
        assert!(
            stream.received().is_empty(),
            "nothing is known yet: {:?}",
            stream.text()
        );
    }
    // Whoever wants it to end after a time does so also now.
    let mut brief = gateway.open("/events/news?max_age=50ms", &[]);
    let (events, end) = brief.rest();
    assert_eq!((events.len(), end), (0, End::Clean));
    redis.restart();
    gateway.wait_ready();
    for stream in &mut streams {
        stream.opened();
    }
    let id = gateway.publish("news", "at last");
    for stream in &mut streams {
        assert_eq!(stream.next_event().id(), id);
    }
    assert_eq!(gateway.get("/readyz?delivery").status, 200);
}

#[test]
fn a_redis_that_may_evict_the_log_is_not_used_unless_the_config_says_so() {
    let redis = Redis::with(&["--maxmemory-policy", "allkeys-lru"]);
    let gateway = Gateway::launch_over(&redis, &HASTY);
    eventually("the log says why", || {
        gateway.log().iter().any(|line| line.contains("noeviction"))
    });
    gateway.get("/readyz").problem(503);
    let config = [&HASTY[..], &[("redis.allow_eviction", "true")]].concat();
    Gateway::over(&redis, &config).publish("news", "x");
}

/// One server that has all slots would even take the functions, until one touches two keys.
#[test]
fn a_redis_cluster_is_not_used_and_the_log_says_why() {
    for all_slots in [false, true] {
        let redis = Redis::with(&["--cluster-enabled", "yes"]);
        if all_slots {
            redis.run::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
        }
        let gateway = Gateway::launch_over(&redis, &HASTY);
        eventually("the log says why", || {
            let says = |line: &String| line.contains("Redis Cluster is not supported");
            gateway.log().iter().any(says)
        });
        gateway.get("/readyz").problem(503);
        assert_unavailable(&gateway.post("/events/news", &[], "x"), "cluster");
        let libraries: Vec<redis::Value> = redis.run(&["FUNCTION", "LIST"]);
        assert!(libraries.is_empty(), "nothing was written: {libraries:?}");
    }
}

#[test]
fn a_redis_that_is_full_refuses_publishers_and_keeps_its_subscribers() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &HASTY);
    let mut live = gateway.listen(&["news"]);
    let first = (gateway.publish("news", "first"), "first".to_owned());
    redis.run::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let full = gateway.post("/events/news", &[], "x");
    full.problem(507);
    assert!(
        full.headers.get("retry-after").is_some(),
        "it may be less full later"
    );
    let words: [&[u8]; 5] = [b"FCALL", b"tidegate_publish", b"0", b"news", b"x"];
    assert_eq!(
        redis.run_bytes::<String>(&words).unwrap_err().code(),
        Some("OOM")
    );
    let mut history = gateway.open("/events/news?since=earliest", &[]);
    history.opened();
    for stream in [&mut live, &mut history] {
        assert_shows(stream, std::slice::from_ref(&first), "full");
        stream.next_comments(3);
    }
    redis.run::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    let second = (gateway.publish("news", "second"), "second".to_owned());
    for stream in [&mut live, &mut history] {
        assert_shows(stream, std::slice::from_ref(&second), "room again");
    }
}
