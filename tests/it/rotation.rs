//! Goal: the way to Redis changes while streams are open: another password, another user, other sentinels' credentials,
//! another server. Nothing is lost, repeated or told as a gap, and a way that does not work changes nothing.
//!
//! Method: a real Redis with users, `redis.url_file` and SIGHUP, while events are published by every replica. What is old is
//! taken away at Redis as soon as replicas say that they go on by the new.

use crate::support::{
    Directory, Gateway, Redis, Sse, Watched, eventually, exchange, follow_until, wait_for_ears,
};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const TAKEN: &str = "Redis is reached by other credentials from now on";
const MOVED: &str = "Redis is another server from now on";
const REFUSED: &str = "what the configuration says of Redis does not work: it is tried again, and all goes on as before";
const LAST: &str = "last";

/// Replicas that find Redis by a file.
struct Fleet {
    replicas: Vec<Gateway>,
    directory: Directory,
}

impl Fleet {
    fn start(url: &str) -> Self {
        let directory = Directory::create();
        let path = directory.0.join("redis-url");
        std::fs::write(&path, url).unwrap();
        let path = path.to_string_lossy().into_owned();
        let names = ["r1", "r2", "r3"];
        let replicas = names.map(|name| {
            let own = [("redis.url_file", &*path), ("replica.name", name)];
            Gateway::launch(&own)
        });
        replicas.iter().for_each(Gateway::wait_ready);
        Self {
            replicas: replicas.into(),
            directory,
        }
    }

    /// Has them read another way, and waits until each has said this of it.
    fn reach_by(&mut self, url: &str, said: &str) {
        std::fs::write(self.directory.0.join("redis-url"), format!("{url}\n")).unwrap();
        let before: Vec<usize> = self
            .replicas
            .iter()
            .map(|one| one.logged(said).len())
            .collect();
        self.replicas.iter_mut().for_each(Gateway::hang_up);
        for (replica, before) in self.replicas.iter().zip(before) {
            eventually(said, || replica.logged(said).len() > before);
        }
    }

    fn reconnects(&self) -> f64 {
        let roles = ["live", "ear"];
        let of = |replica: &Gateway| -> f64 {
            let count = |role| replica.metric("tidegate_redis_reconnects_total", &[("role", role)]);
            roles.map(count).iter().sum()
        };
        self.replicas.iter().map(of).sum()
    }
}

/// A user of Redis who may do all, by this password.
fn set_user(redis: &Redis, name: &str, password: &str) {
    let password = format!(">{password}");
    redis.run::<()>(&["ACL", "SETUSER", name, "on", &password, "~*", "&*", "+@all"]);
}

/// Connections of this user.
fn connections(redis: &Redis, user: &str) -> usize {
    let list: String = redis.run(&["CLIENT", "LIST"]);
    list.lines()
        .filter(|line| line.contains(&format!(" user={user} ")))
        .count()
}

/// Publishes by every replica and by raw PUBLISH for as long as `work` goes on. Each replica's subscriber must see each
/// event once, in the order in which it was published, and no gap; none of the streams is cut unless it is said.
fn while_events_flow(fleet: &mut Fleet, redis: &Redis, work: impl FnOnce(&mut Fleet)) {
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let streams: Vec<Sse> = fleet
        .replicas
        .iter()
        .map(|one| one.listen(&["news"]))
        .collect();
    let addresses: Vec<_> = fleet.replicas.iter().map(Gateway::address).collect();
    std::thread::scope(|scope| {
        let no_cut = |_: Sse| -> Sse { panic!("a stream was cut") };
        let readers: Vec<_> = streams
            .into_iter()
            .map(|stream| scope.spawn(move || follow_until(LAST, stream, no_cut)))
            .collect();
        let publisher = scope.spawn(|| {
            let mut published = Vec::new();
            while !stop.load(Ordering::Acquire) {
                let number = published.len();
                let data = number.to_string();
                if number.is_multiple_of(4) {
                    assert!(
                        redis.publish_raw("events:raw", data.as_bytes()) > 0,
                        "{number}"
                    );
                }
                publish(addresses[number % addresses.len()], &data);
                published.push(data);
                count.store(published.len(), Ordering::Release);
            }
            publish(addresses[0], LAST);
            published.push(LAST.to_owned());
            published
        });
        let stopping = Stop(&stop);
        let flow = |more: usize| {
            let now = count.load(Ordering::Acquire);
            eventually("events flow", || {
                count.load(Ordering::Acquire) >= now + more || publisher.is_finished()
            });
        };
        flow(50);
        work(fleet);
        flow(50);
        drop(stopping);
        let published = publisher.join().unwrap();
        for reader in readers {
            let seen = reader.join().unwrap();
            let seen: Vec<String> = seen.into_iter().map(|event| event.data).collect();
            assert!(seen == published, "{} of {}", seen.len(), published.len());
        }
        // Raw publishes are logged behind their answers.
        let raw = published.len().saturating_sub(1).div_ceil(4);
        eventually("every raw publish is logged", || {
            redis.run::<usize>(&["XLEN", "tidegate:{0}:log:raw"]) == raw
        });
    });
}

/// Tells the publisher to stop, even where a test fails: the others wait for it.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Again until it is taken, with a key, as a careful publisher does.
fn publish(address: SocketAddr, data: &str) {
    let request = format!(
        "POST /events/news HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nIdempotency-Key: {data}\r\n\
         Content-Length: {}\r\n\r\n{data}",
        data.len()
    );
    eventually("it is taken", || {
        exchange(address, request.as_bytes()).status == 200
    });
}

#[test]
fn another_password_and_another_user_are_taken_and_the_old_ones_may_go() {
    let redis = Redis::start();
    set_user(&redis, "first", "one");
    set_user(&redis, "second", "three");
    let mut fleet = Fleet::start(&redis.url_of("first", "one"));
    wait_for_ears(&redis, &fleet.replicas);
    let before = fleet.reconnects();
    while_events_flow(&mut fleet, &redis, |fleet| {
        set_user(&redis, "first", "two");
        fleet.reach_by(&redis.url_of("first", "two"), TAKEN);
        redis.run::<()>(&["ACL", "SETUSER", "first", "<one"]);
        // Whoever is removed has its connections closed: by then none may be left.
        fleet.reach_by(&redis.url_of("second", "three"), TAKEN);
        eventually("nobody is the first user any more", || {
            connections(&redis, "first") == 0
        });
        redis.run::<usize>(&["ACL", "DELUSER", "first"]);
    });
    assert!(connections(&redis, "second") >= 6, "live paths and ears");
    assert_eq!(fleet.reconnects().to_string(), before.to_string());
    for replica in &fleet.replicas {
        let log = replica.log().join("\n");
        assert!(!log.contains(":three@") && !log.contains(":two@"), "{log}");
        assert!(
            replica
                .logged("the live path broke; it is made again")
                .is_empty(),
            "{log}"
        );
    }
}

#[test]
fn a_wrong_password_is_told_changes_nothing_and_is_taken_once_it_is_right() {
    let redis = Redis::start();
    set_user(&redis, "first", "one");
    let mut fleet = Fleet::start(&redis.url_of("first", "one"));
    wait_for_ears(&redis, &fleet.replicas);
    while_events_flow(&mut fleet, &redis, |fleet| {
        fleet.reach_by(&redis.url_of("first", "wr0ng"), REFUSED);
        for replica in &fleet.replicas {
            replica.wait_for_metric("tidegate_redis_access_refused", &[], 1.0);
            let line = &replica.logged_at_least(1, REFUSED)[0];
            assert!(
                line.contains("authentication failed") && !line.contains("wr0ng"),
                "{line}"
            );
        }
        // Nobody need tell the replicas again.
        set_user(&redis, "first", "wr0ng");
        for replica in &fleet.replicas {
            replica.wait_for_metric("tidegate_redis_access_refused", &[], 0.0);
            assert_eq!(replica.logged_at_least(1, TAKEN).len(), 1);
        }
        redis.run::<()>(&["ACL", "SETUSER", "first", "<one"]);
    });
}

/// It logs in, and then nothing would be published any more.
#[test]
fn a_user_who_may_call_no_function_is_not_taken() {
    let redis = Redis::start();
    set_user(&redis, "first", "one");
    let rights = [
        "+ping", "+role", "+hello", "+client", "+info", "+auth", "+select",
    ];
    let user = ["ACL", "SETUSER", "idle", "on", ">two", "~*", "&*"];
    redis.run::<()>(&[&user[..], &rights].concat());
    let mut fleet = Fleet::start(&redis.url_of("first", "one"));
    wait_for_ears(&redis, &fleet.replicas);
    while_events_flow(&mut fleet, &redis, |fleet| {
        fleet.reach_by(&redis.url_of("idle", "two"), REFUSED);
        for replica in &fleet.replicas {
            replica.wait_for_metric("tidegate_redis_access_refused", &[], 1.0);
            let line = &replica.logged_at_least(1, REFUSED)[0];
            assert!(line.contains("fcall_ro"), "{line}");
        }
    });
}

#[test]
fn what_was_refused_is_forgotten_when_the_old_way_is_named_again() {
    let redis = Redis::start();
    let url = redis.url();
    let mut fleet = Fleet::start(&url);
    fleet.reach_by("redis://nobody:wr0ng@127.0.0.1:1", REFUSED);
    std::fs::write(fleet.directory.0.join("redis-url"), &url).unwrap();
    fleet.replicas.iter_mut().for_each(Gateway::hang_up);
    for replica in &fleet.replicas {
        replica.wait_for_metric("tidegate_redis_access_refused", &[], 0.0);
        assert!(replica.logged(TAKEN).is_empty() && replica.logged(MOVED).is_empty());
    }
}

/// Sentinels ask for a password of their own, and it is changed.
#[test]
fn another_password_of_sentinels_is_taken() {
    let mut watched = Watched::start(1);
    let password = |watched: &Watched, text: &str| {
        for sentinel in &watched.sentinels {
            let set = [
                "ACL", "SETUSER", "watcher", "reset", "on", text, "+@all", "~*", "&*",
            ];
            sentinel.run::<()>(&set).unwrap();
        }
    };
    password(&watched, ">one");
    let directory = Directory::create();
    let path = directory.0.join("password");
    std::fs::write(&path, "one").unwrap();
    let config = [
        ("redis.url", &*watched.url()),
        ("redis.sentinel_username", "watcher"),
        ("redis.sentinel_password_file", &path.to_string_lossy()),
    ];
    let mut replica = Gateway::start(&config);
    let mut stream = replica.listen(&["news"]);
    password(&watched, ">two");
    std::fs::write(&path, "two").unwrap();
    replica.hang_up();
    assert!(replica.wait_for_log(TAKEN).is_some());
    replica.publish("news", "by the other password");
    assert_eq!(stream.next_event().data, "by the other password");
    // Where the master is, sentinels tell it still.
    watched.servers[0].kill();
    watched.failed_over();
    eventually("the new master takes it", || {
        let headers = [("Idempotency-Key", "k")];
        replica
            .post("/events/news", &headers, "at the other master")
            .status
            == 200
    });
    assert_eq!(stream.next_event().data, "at the other master");
}

/// The recipe of docs/upgrading.md: a replica of the old one, FAILOVER, then the other URL.
#[test]
fn a_fleet_moves_to_another_redis_and_loses_nothing() {
    let (old, new) = (Redis::durable(), Redis::durable());
    let mut fleet = Fleet::start(&old.url());
    wait_for_ears(&old, &fleet.replicas);
    let streams: Vec<Sse> = fleet
        .replicas
        .iter()
        .map(|one| one.listen(&["news"]))
        .collect();
    new.run::<()>(&["REPLICAOF", "127.0.0.1", &old.port().to_string()]);
    eventually("the new one follows", || {
        let state: String = old.run(&["INFO", "replication"]);
        state.contains("state=online")
    });
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let address = fleet.replicas[0].address();
    let published: Vec<String> = std::thread::scope(|scope| {
        // Whoever publishes meanwhile is told to come back, and does.
        let publisher = scope.spawn(|| {
            let mut published = Vec::new();
            while !stop.load(Ordering::Acquire) {
                let data = published.len().to_string();
                publish(address, &data);
                published.push(data);
                count.store(published.len(), Ordering::Release);
            }
            published
        });
        let stopping = Stop(&stop);
        let flow = || {
            let now = count.load(Ordering::Acquire);
            eventually("events flow", || {
                count.load(Ordering::Acquire) > now + 50 || publisher.is_finished()
            });
        };
        flow();
        let to = new.port().to_string();
        old.run::<()>(&["FAILOVER", "TO", "127.0.0.1", &to, "TIMEOUT", "10000"]);
        eventually("the new one takes writes", || {
            let state: String = new.run(&["INFO", "replication"]);
            state.contains("role:master")
        });
        fleet.reach_by(&new.url(), MOVED);
        flow();
        drop(stopping);
        publisher.join().unwrap()
    });
    let length = format!("\"length\":{},", published.len());
    for (mut stream, replica) in streams.into_iter().zip(&fleet.replicas) {
        let mut seen = Vec::new();
        while seen.len() < published.len() {
            let event = stream.next_event();
            assert_ne!(event.event, "tidegate.gap", "{}", event.data);
            if !event.is_own() {
                seen.push(event.data);
            }
        }
        assert_eq!(seen, published);
        assert_eq!(stream.end(), None);
        assert!(replica.get("/topics/news").text().contains(&length));
    }
}
