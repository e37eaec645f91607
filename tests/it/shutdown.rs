//! Goal: a replica that is told to go is not missed. Not ready first, its streams cut in slices so
//! that the others are not stormed, everything that was begun finished, exit code 0.
//!
//! Method: SIGTERM to real replicas under load. Slices are seen in what each stream had received
//! when it was cut, not by the clock.

use crate::support::{
    Event, Gateway, Nginx, Redis, Sse, eventually, fleet, follow_until, replica_at, wait_for_ears,
};
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

/// A drain that cuts no stream while a test looks.
const LONG_DRAIN: (&str, &str) = ("drain.time", "24h");

/// Tells a publisher to stop, at the latest when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Publishes by three ways in turn until `stop`, each event when the one before has arrived at
/// `witness`; then an event `last`. The ids in their order.
fn publish_until(stop: &AtomicBool, redis: &Redis, by: &Gateway, mut witness: Sse) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 0.. {
        let stopped = stop.load(Ordering::Relaxed);
        let data = if stopped {
            "last".to_owned()
        } else {
            number.to_string()
        };
        match number % 3 {
            0 => drop(by.publish("news", &data)),
            1 => drop(redis.publish("news", &data, &[])),
            _ => assert!(redis.publish_raw("events:news", data.as_bytes()) > 0),
        }
        let event = witness.next_published();
        assert_eq!(event.data, data);
        ids.push(event.id().to_owned());
        if stopped {
            break;
        }
    }
    ids
}

fn ids(events: &[Event]) -> Vec<&str> {
    events.iter().map(Event::id).collect()
}

/// Waits for the end of a replica that was told to go, and checks that it went in order.
fn assert_went_well(replica: &mut Gateway) {
    let address = replica.address();
    assert_eq!(replica.wait().code(), Some(0));
    assert!(TcpStream::connect(address).is_err(), "nobody listens");
    assert!(replica.wait_for_log("stopped").is_some());
    for line in replica.log() {
        assert!(!line.contains(r#""level":"ERROR""#), "{line}");
        assert!(!line.contains("still open"), "{line}");
        assert!(!line.contains("did not end"), "{line}");
    }
}

#[test]
fn streams_are_cut_in_slices_and_miss_nothing_elsewhere() {
    const STREAMS: usize = 24;
    let redis = Redis::start();
    let mut replicas = fleet(&redis, 3, &[("drain.time", "2s")]);
    wait_for_ears(&redis, &replicas);
    let mut going = replicas.remove(0);
    let streams: Vec<Sse> = (0..STREAMS).map(|_| going.listen(&["news"])).collect();
    let witness = replicas[0].listen(&["news"]);
    let stop = AtomicBool::new(false);
    let (published, followed, cuts, retries) = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| publish_until(&stop, &redis, &replicas[0], witness));
        let followers: Vec<_> = streams
            .into_iter()
            .map(|stream| {
                let elsewhere = &replicas[1];
                scope.spawn(|| {
                    let (mut cut_at, mut retry) = (Vec::new(), stream.retry());
                    let events = follow_until("last", stream, |stream| {
                        cut_at.push(stream.last_event_id().to_owned());
                        retry = retry.or(stream.retry());
                        stream.reconnect_to(elsewhere)
                    });
                    (events, cut_at, retry)
                })
            })
            .collect();
        let stopping = Stop(&stop);
        going.terminate();
        assert_went_well(&mut going);
        drop(stopping);
        let published = publisher.join().unwrap();
        let mut all = (published, Vec::new(), Vec::new(), BTreeSet::new());
        for follower in followers {
            let (events, cut_at, retry) = follower.join().unwrap();
            all.1.push(events);
            all.2.extend(cut_at);
            all.3.insert(retry.expect("a time to come back was told"));
        }
        all
    });
    for events in &followed {
        let seen = ids(events);
        let first = published.iter().position(|id| id == seen[0]).unwrap();
        assert_eq!(seen, published[first..], "each event once, in order");
    }
    assert_eq!(cuts.len(), STREAMS, "each was cut, and once");
    // Cut at one moment, they would have stopped within an event or two of one another.
    let slices: BTreeSet<&String> = cuts.iter().collect();
    assert!(
        slices.len() >= 6,
        "{} events, cut at {slices:?}",
        published.len()
    );
    assert!(retries.len() > 1, "no jitter: {retries:?}");
}

/// A rolling deploy as people do it: nginx in front, one replica after the other.
#[test]
fn a_fleet_is_restarted_one_by_one_and_no_stream_misses_an_event() {
    let redis = Redis::start();
    let config = [("drain.time", "500ms")];
    let mut replicas = fleet(&redis, 3, &config);
    wait_for_ears(&redis, &replicas);
    let nginx = Nginx::before(&replicas);
    // Apart from the fleet, so that the test's own eye is not cut.
    let apart = Gateway::over(&redis, &[("replica.name", "apart")]);
    let witness = apart.listen(&["news"]);
    let streams: Vec<Sse> = (0..9).map(|_| nginx.listen("/events/news").0).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let publisher = scope.spawn(|| publish_until(&stop, &redis, &apart, witness));
        let followers: Vec<_> = streams
            .into_iter()
            .map(|stream| scope.spawn(|| follow_until("last", stream, Sse::reconnect)))
            .collect();
        let stopping = Stop(&stop);
        for (index, replica) in replicas.iter_mut().enumerate() {
            replica.terminate();
            assert_went_well(replica);
            let name = format!("again-{index}");
            *replica = replica_at(replica.address(), &redis, &name, &config);
            replica.wait_ready();
        }
        for replica in replicas.iter().chain([&apart]) {
            let diverged = [("outcome", "diverged")];
            let count = replica.metric("tidegate_ingest_appends_total", &diverged);
            assert!(count < 0.5, "ears come and go without a fault");
        }
        drop(stopping);
        let published = publisher.join().unwrap();
        for follower in followers {
            let events = follower.join().unwrap();
            let seen = ids(&events);
            let first = published.iter().position(|id| id == seen[0]).unwrap();
            assert_eq!(seen, published[first..], "each event once, in order");
        }
    });
}

/// What a balancer sends until it has noticed is served as ever.
#[test]
fn a_replica_that_waits_for_the_balancer_is_not_ready_and_takes_streams() {
    let mut gateway = Gateway::start(&[("drain.wait", "24h")]);
    let mut before = gateway.listen(&["news"]);
    gateway.terminate();
    eventually("it is not ready", || gateway.get("/readyz").status == 503);
    gateway.wait_for_metric("tidegate_draining", &[], 1.0);
    let mut late = gateway.listen(&["news"]);
    gateway.publish("news", "to both");
    for stream in [&mut before, &mut late] {
        assert_eq!(stream.next_published().data, "to both");
        assert_eq!(stream.end(), None);
    }
    // Whoever will not wait says so once more.
    gateway.terminate();
    assert_eq!(gateway.wait().code(), Some(1));

    let mut gateway = Gateway::start(&[("drain.wait", "200ms"), ("drain.time", "100ms")]);
    let mut stream = gateway.listen(&["news"]);
    gateway.terminate();
    stream.rest();
    assert_went_well(&mut gateway);
}

#[test]
fn readiness_goes_first_and_open_streams_live_on() {
    let redis = Redis::start();
    let mut replicas = fleet(&redis, 2, &[LONG_DRAIN]);
    let mut streams: Vec<Sse> = (0..8).map(|_| replicas[0].listen(&["news"])).collect();
    replicas[0].terminate();
    eventually("not ready", || replicas[0].get("/readyz").status == 503);
    replicas[0].wait_for_metric("tidegate_draining", &[], 1.0);
    replicas[0].wait_for_metric("tidegate_ready", &[], 0.0);
    assert_eq!(replicas[0].get("/healthz").status, 200, "it still lives");
    for publisher in [&replicas[0], &replicas[1]] {
        let id = publisher.publish("news", "still here");
        for stream in &mut streams {
            assert_eq!(stream.next_event().id(), id);
        }
    }
    replicas[0].wait_for_metric("tidegate_open_connections", &[], 8.0);
}

#[test]
fn a_second_signal_ends_at_once() {
    type Signal = fn(&mut Gateway);
    let table: [(&str, Signal, Signal); 4] = [
        ("TERM TERM", Gateway::terminate, Gateway::terminate),
        ("TERM INT", Gateway::terminate, Gateway::interrupt),
        ("INT INT", Gateway::interrupt, Gateway::interrupt),
        ("INT TERM", Gateway::interrupt, Gateway::terminate),
    ];
    for (signals, first, second) in table {
        let mut gateway = Gateway::start(&[LONG_DRAIN]);
        let _stream = gateway.listen(&["news"]);
        first(&mut gateway);
        eventually("not ready", || gateway.get("/readyz").status == 503);
        gateway.wait_for_metric("tidegate_open_connections", &[], 1.0);
        second(&mut gateway);
        let status = gateway.wait();
        assert_eq!(
            status.code(),
            Some(1),
            "{signals}: its own end, but no orderly one"
        );
    }
}

#[test]
fn without_streams_it_goes_at_once_whatever_the_drain_time() {
    let redis = Redis::start();
    let mut gateway = Gateway::over(&redis, &[LONG_DRAIN, ("ops.listen", "127.0.0.1:0")]);
    let operations = gateway.ops_address().unwrap();
    let mut idle = gateway.connect();
    idle.write_all(b"GET /topics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    read_up_to(&mut idle, "\r\n\r\n");
    gateway.terminate();
    assert_went_well(&mut gateway);
    assert!(TcpStream::connect(operations).is_err(), "nobody listens");
}

/// Reads from a bare connection until this text came.
fn read_up_to(socket: &mut TcpStream, text: &str) -> String {
    let mut read = String::new();
    let mut buffer = [0; 1024];
    while !read.contains(text) {
        let bytes = socket.read(&mut buffer).unwrap();
        assert!(bytes > 0, "the connection ended after {read:?}");
        read.push_str(std::str::from_utf8(&buffer[..bytes]).unwrap());
    }
    read
}

#[test]
fn a_publish_that_has_begun_is_finished() {
    let redis = Redis::start();
    let mut gateway = Gateway::over(&redis, &[]);
    let mut publisher = gateway.connect();
    let head = "POST /events/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    publisher.write_all(head.as_bytes()).unwrap();
    // It asks for the body: the request is under way.
    read_up_to(&mut publisher, "100 Continue\r\n\r\n");
    gateway.terminate();
    eventually("nobody else is taken on", || {
        TcpStream::connect(gateway.address()).is_err()
    });
    publisher.write_all(b"hello").unwrap();
    let answer = read_up_to(&mut publisher, "}");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let logged: u64 = redis.run(&["XLEN", "tidegate:{0}:log:news"]);
    assert_eq!(logged, 1);
    assert_went_well(&mut gateway);
}

/// What an ear has counted is accepted, and nobody else may be there to log it.
#[test]
fn what_an_ear_owes_is_logged_before_it_goes() {
    const EVENTS: u32 = 500;
    let redis = Redis::start();
    let mut replicas = fleet(
        &redis,
        1,
        &[
            ("redis.command_timeout", "10s"),
            ("logging.level", "tidegate=debug"),
        ],
    );
    wait_for_ears(&redis, &replicas);
    eventually("nothing is owed", || {
        replicas[0].metric("tidegate_ingest_owed", &[]) < 0.5
    });
    let heard = replicas[0].metric("tidegate_ingest_heard_total", &[]);
    // Writes wait from here on, in the same step in which the events are heard.
    let mut pipe = redis::pipe();
    for number in 0..EVENTS {
        pipe.cmd("PUBLISH").arg("events:news").arg(number);
    }
    pipe.cmd("CLIENT").arg("PAUSE").arg(60_000).arg("WRITE");
    let _: Vec<redis::Value> = pipe.query(&mut redis.connect()).unwrap();
    let all = heard + f64::from(EVENTS);
    replicas[0].wait_for_metric("tidegate_ingest_heard_total", &[], all);
    replicas[0].terminate();
    assert!(replicas[0].wait_for_log("draining").is_some());
    let logged: u32 = redis.run(&["XLEN", "tidegate:{0}:log:news"]);
    assert!(logged < EVENTS, "the log was held up");
    redis.run::<()>(&["CLIENT", "UNPAUSE"]);
    assert_went_well(&mut replicas[0]);
    let logged: u32 = redis.run(&["XLEN", "tidegate:{0}:log:news"]);
    assert_eq!(logged, EVENTS);
}

#[test]
fn a_reader_that_has_stopped_does_not_keep_the_replica() {
    let mut gateway = Gateway::start(&[("drain.time", "200ms")]);
    let stuck = gateway.listen(&["news"]);
    let large = "x".repeat(60_000);
    // More than the system's buffers take.
    for _ in 0..400 {
        gateway.publish("news", &large);
    }
    gateway.terminate();
    assert_eq!(gateway.wait().code(), Some(0));
    drop(stuck);
}
