//! Goal: replicas find the master through Sentinel and follow it. A failover under load loses no
//! event in silence, no id is given out twice, and events flow again by themselves.
//!
//! Method: a real master with a replica, three sentinels, two gateways; publishers that repeat what
//! was not acknowledged, and streams that come back. In the end every stream is compared with what
//! was acknowledged.

use crate::support::{
    Event, Gateway, Redis, Sse, Watched, eventually, position, run, wait_for_ears,
};
use redis::Connection;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Events before the failover, and after it.
const EVENTS: usize = 150;
const TOPICS: [&str; 2] = ["a", "b"];

/// What was acknowledged: id and topic, in the order in which it was.
type Acknowledged = Mutex<Vec<(String, &'static str)>>;

fn gateways(watched: &Watched, config: &[(&str, &str)]) -> [Gateway; 2] {
    let url = watched.url();
    let common = [
        ("redis.url", &*url),
        ("redis.command_timeout", "500ms"),
        ("redis.connect_timeout", "500ms"),
        ("redis.backoff_max", "100ms"),
    ];
    ["r1", "r2"].map(|name| Gateway::start(&[&common, config, &[("replica.name", name)]].concat()))
}

/// Publishes until it is told to stop, each event as often as it takes.
fn publish(gateway: &Gateway, name: &str, stop: &AtomicBool, acknowledged: &Acknowledged) {
    for number in 0.. {
        let topic = TOPICS[number % TOPICS.len()];
        let data = format!("{name} {number}");
        let mut id = None;
        eventually(&format!("{data} is acknowledged"), || {
            let key = [("Idempotency-Key", data.as_str())];
            let answer = gateway.post(&format!("/events/{topic}"), &key, &data);
            id = (answer.status == 200).then(|| answer.id());
            id.is_some()
        });
        acknowledged.lock().unwrap().push((id.unwrap(), topic));
        if stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// Tells publishers to stop also when a step fails: the scope waits for its threads.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reads up to an event `last`, coming back to the other gateway whenever the stream ends: all
/// events, gaps among them.
fn follow(mut stream: Sse, gateways: &[Gateway; 2]) -> Vec<Event> {
    let mut seen = Vec::new();
    for turn in 0.. {
        while let Some(event) = stream.try_next_event() {
            let is_last = event.data == "last";
            seen.push(event);
            if is_last {
                return seen;
            }
        }
        stream = stream.reconnect_to(&gateways[turn % 2]);
    }
    seen
}

/// Asserts that each event that was acknowledged was shown, or lies in a gap that was told.
fn assert_all_told(seen: &[Event], acknowledged: &[(String, &str)]) -> usize {
    let gaps: Vec<_> = seen
        .iter()
        .filter(|event| event.event == "tidegate.gap")
        .collect();
    for gap in &gaps {
        assert_eq!(gap.json()["reason"], "rewound", "{gap:?}");
    }
    let mut missing = 0;
    for (id, topic) in acknowledged {
        if seen
            .iter()
            .any(|event| event.id.as_ref() == Some(id) && !event.is_own())
        {
            continue;
        }
        missing += 1;
        let told = gaps.iter().any(|gap| {
            let (gap, bound) = (gap.json(), |name: &str| {
                position(gap.json()[name].as_str().expect("an id"))
            });
            gap["topic"] == *topic && bound("from") < position(id) && position(id) <= bound("to")
        });
        assert!(
            told,
            "{id} of {topic} is missing, and no gap tells of it: {gaps:?}"
        );
    }
    let mut ids: Vec<_> = seen
        .iter()
        .filter(|event| !event.is_own())
        .map(|event| position(event.id()))
        .collect();
    assert!(ids.is_sorted(), "ids only grow");
    let all = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), all, "each event once");
    missing
}

fn subscribers(connection: &mut Connection, channel: &str) -> usize {
    let mut question = redis::cmd("PUBSUB");
    question.arg(&["NUMSUB", channel]);
    let (_, count): (String, usize) = question.query(connection).unwrap();
    count
}

/// What stood before and after the failover; says how many events each stream was told to have
/// missed.
fn fail_over_under_load(
    replicas: usize,
    config: &[(&str, &str)],
    fail: impl FnOnce(&mut Watched),
) -> (Watched, Vec<usize>) {
    let mut watched = Watched::start(replicas);
    let gateways = gateways(&watched, config);
    wait_for_ears(&watched.servers[0], &gateways);
    let (acknowledged, stop) = (Acknowledged::default(), AtomicBool::new(false));
    let count = || acknowledged.lock().unwrap().len();
    let streams = std::thread::scope(|scope| {
        let _ended = Stop(&stop);
        let readers: Vec<_> = (0..4)
            .map(|n| gateways[n % 2].listen(&TOPICS))
            .map(|stream| scope.spawn(|| follow(stream, &gateways)))
            .collect();
        let publishers: Vec<_> = gateways
            .iter()
            .zip(["one", "two"])
            .map(|(gateway, name)| scope.spawn(|| publish(gateway, name, &stop, &acknowledged)))
            .collect();
        eventually("events flow", || count() >= EVENTS);
        fail(&mut watched);
        watched.failed_over();
        let switched = count();
        eventually("events flow again", || count() >= switched + EVENTS);
        stop.store(true, Ordering::Relaxed);
        publishers
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        // A replica that has not heard of it yet publishes to the old master, and what that one takes
        // until it steps down is lost: told as a gap, which nobody here would wait for.
        let mut master = watched.failed_over().connect();
        eventually("both replicas are at the new master", || {
            subscribers(&mut master, "tidegate:{0}:tick") == 2
        });
        gateways[0].publish("a", "last");
        let streams = readers.into_iter().map(|thread| thread.join().unwrap());
        streams.collect::<Vec<_>>()
    });
    let acknowledged = acknowledged.into_inner().unwrap();
    let missing = streams
        .iter()
        .map(|seen| assert_all_told(seen, &acknowledged))
        .collect();
    // Ears and live paths have moved, too.
    let mut master = watched.failed_over().connect();
    for channel in ["tidegate:{0}:tick", "events", "tidegate:{0}:live:a"] {
        eventually(&format!("both hear {channel}"), || {
            subscribers(&mut master, channel) == 2
        });
    }
    eventually("a raw publish is logged", || {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&["events:raw", "x"]).exec(&mut master).unwrap();
        gateways[0].get("/topics/raw").status == 200
    });
    (watched, missing)
}

#[test]
fn a_failover_that_an_operator_asks_for_is_followed() {
    let (watched, _) = fail_over_under_load(1, &[], |watched| {
        let ask = ["SENTINEL", "FAILOVER", "main"];
        let asked: String = watched.sentinels[0].run(&ask).unwrap();
        assert_eq!(asked, "OK");
    });
    // The old master lives, and nobody talks to it any more.
    let mut old = watched.servers[0].connect();
    assert_eq!(subscribers(&mut old, "tidegate:{0}:tick"), 0);
}

/// A connection to it stands, and says nothing.
#[test]
fn a_master_that_stands_still_is_replaced() {
    fail_over_under_load(1, &[], |watched| watched.servers[0].pause());
}

#[test]
fn what_a_replica_has_confirmed_outlives_the_master() {
    let (_, missing) = fail_over_under_load(2, &[("log.wait_replicas", "1")], |watched| {
        watched.servers[0].kill();
    });
    assert_eq!(missing, [0; 4]);
}

#[test]
fn sentinels_that_are_away_or_asleep_change_nothing() {
    let mut watched = Watched::start(1);
    let gateways = gateways(&watched, &[]);
    let mut stream = gateways[0].listen(&["news"]);
    let sentinels = &mut watched.sentinels;
    sentinels[2].process.pause();
    let _asked: String = sentinels[0].run(&["SENTINEL", "FAILOVER", "main"]).unwrap();
    eventually("both gateways follow", || {
        gateways
            .iter()
            .all(|gateway| gateway.logged("sentinels name another master").len() == 1)
    });
    eventually("an event is acknowledged", || {
        gateways[0].post("/events/news", &[], "one").status == 200
    });
    // Only the one that has slept through it is left.
    sentinels[0].process.kill();
    sentinels[1].process.kill();
    sentinels[2].process.resume();
    eventually("it answers again", || sentinels[2].master().is_some());
    gateways[1].publish("news", "two");
    sentinels[2].process.kill();
    gateways[0].publish("news", "three");
    let mut data = Vec::new();
    while data.last().is_none_or(|last| last != "three") {
        data.extend(stream.next_data(1));
    }
    for gateway in &gateways {
        assert_eq!(gateway.logged("sentinels name another master").len(), 1);
    }
}

#[test]
fn what_is_wrong_with_sentinels_is_said() {
    let watched = Watched::start(1);
    let sentinel = watched.url().replace("/main", "/other");
    let server = format!(
        "redis+sentinel://127.0.0.1:{}/main",
        watched.servers[0].port()
    );
    let replica = watched.servers[1].url();
    let table = [
        (&sentinel, "No such master with that name"),
        (&server, "unknown command"),
        (&replica, "this is a replica, not the master"),
        (
            &"redis+sentinel://127.0.0.1:1/main".to_owned(),
            "Connection refused",
        ),
    ];
    for (url, words) in table {
        let gateway = Gateway::launch(&[("redis.url", url), ("redis.command_timeout", "200ms")]);
        eventually(&format!("{url}: {words}"), || {
            gateway.log().iter().any(|line| line.contains(words))
        });
        gateway.get("/readyz").problem(503);
    }
    // A program that ends soon asks the same way.
    let url = watched.url();
    Gateway::start(&[("redis.url", &url)]);
    let published = run(&["publish", "news", "x", "--redis", &url], &[]);
    assert_eq!(published.code, Some(0), "{published:?}");
    let lost = run(&["publish", "news", "x", "--redis", &sentinel], &[]);
    assert!(lost.stderr.contains("No such master"), "{lost:?}");
}

/// Without sentinels it is the operator who moves the master; the address stays.
#[test]
fn a_server_that_becomes_a_replica_is_not_read_from() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[("redis.backoff_max", "50ms")]);
    let mut stream = gateway.listen(&["news"]);
    gateway.publish("news", "before");
    redis.run::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    gateway.post("/events/news", &[], "x").problem(503);
    for _ in 0..20 {
        gateway.get("/topics/news").problem(503);
    }
    redis.run::<()>(&["REPLICAOF", "NO", "ONE"]);
    gateway.publish("news", "after");
    assert_eq!(stream.next_data(2), ["before", "after"]);
}
