//! Goal: keys, limits, what the log keeps and the log's level change without cutting a stream; a
//! configuration that is at fault changes nothing; and what a reload cannot change is named.
//!
//! Method: a real file that is written anew, and SIGHUP, over both brokers where the log counts.

use crate::support::{Directory, Gateway, Redis, eventually};
use serde_json::Value;

const TAKEN: &str = "the configuration was read again";
const REFUSED: &str = "the configuration is refused and stays as it was";
const LEFT: &str = "changed in the configuration, but applied only at the next start";

/// A replica with a file, and how often that was read again.
struct Reloaded {
    gateway: Gateway,
    directory: Directory,
    reloads: usize,
}

impl Reloaded {
    fn start(file: &str, config: &[(&str, &str)]) -> Self {
        let directory = Directory::create();
        let path = directory.0.join("tidegate.toml");
        std::fs::write(&path, file).unwrap();
        let gateway = Gateway::launch_with(&["--config", &path.to_string_lossy()], config);
        gateway.wait_ready();
        Self {
            gateway,
            directory,
            reloads: 0,
        }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.0.join(name), text).unwrap();
    }

    /// Writes another file and has it read. What was said of it.
    fn reload(&mut self, file: &str, said: &str) -> Vec<Value> {
        self.reload_with(file, said, 1)
    }

    /// As [`Self::reload`], and waits for so many lines: the log comes on a way of its own.
    fn reload_with(&mut self, file: &str, said: &str, lines: usize) -> Vec<Value> {
        self.write("tidegate.toml", file);
        let before = self.gateway.logged(said).len();
        self.gateway.hang_up();
        self.reloads += 1;
        let outcomes = ["taken", "refused"].map(|outcome| [("outcome", outcome)]);
        eventually("it was read", || {
            let count = |outcome: &[_]| {
                self.gateway
                    .metric("tidegate_config_reloads_total", outcome)
            };
            let done = outcomes.iter().map(|outcome| count(outcome)).sum::<f64>();
            done.to_string() == self.reloads.to_string()
                && self.gateway.logged(said).len() >= before + lines
        });
        let lines = self.gateway.logged(said);
        let fields = |line: &String| serde_json::from_str::<Value>(line).unwrap()["fields"].clone();
        lines[before..].iter().map(fields).collect()
    }

    fn take(&mut self, file: &str) -> Value {
        self.reload(file, TAKEN).remove(0)
    }

    fn may_publish(&self, key: &str) -> bool {
        let bearer = format!("Bearer {key}");
        let headers = [("Authorization", bearer.as_str())];
        match self.gateway.post("/events/keys", &headers, "x").status {
            200 => true,
            401 => false,
            other => panic!("{other}"),
        }
    }

    fn hash(&self) -> String {
        self.gateway.metric("tidegate_config_hash", &[]).to_string()
    }
}

/// The same over both brokers: the memory's, and Redis'.
fn over_both(file: &str, test: impl Fn(&str, &mut Reloaded)) {
    test("memory", &mut Reloaded::start(file, &[]));
    let redis = Redis::start();
    test(
        "redis",
        &mut Reloaded::start(file, &[("redis.url", &redis.url())]),
    );
}

#[test]
fn another_key_is_taken_and_no_stream_is_cut() {
    let file = |key: &str| format!("[auth]\npublish_key = \"{key}\"\n");
    for sockets in ["true", "false"] {
        let mut replica = Reloaded::start(&file("first-key"), &[("engine.sockets", sockets)]);
        let mut stream = replica.gateway.listen(&["keys"]);
        assert!(replica.may_publish("first-key"));
        let line = replica.take(&file("second-key"));
        assert_eq!(line["keys"], "auth.publish_key");
        assert!(!replica.may_publish("first-key") && replica.may_publish("second-key"));
        stream.next_data(2);
        assert_eq!(stream.end(), None);
        let log = replica.gateway.log().join("\n");
        assert!(!log.contains("first-key") && !log.contains("second-key"));
    }
}

#[test]
fn a_key_in_a_file_of_its_own_is_read_again() {
    let mut replica = Reloaded::start("", &[]);
    let path = replica.directory.0.join("key");
    let file = format!("[auth]\npublish_key_file = {path:?}\n");
    replica.write("key", "first");
    replica.take(&file);
    assert!(!replica.may_publish("second") && replica.may_publish("first"));
    replica.write("key", "second\n");
    assert_eq!(replica.take(&file)["keys"], "auth.publish_key_file");
    assert!(replica.may_publish("second") && !replica.may_publish("first"));
}

#[test]
fn limits_hold_for_what_comes_and_leave_what_is_there() {
    let file = |streams: usize, topics: usize, replays: usize| {
        format!(
            "[limits]\nstreams_max = {streams}\ntopics_per_stream_max = {topics}\nreplays_max = {replays}\nhistory_events_max = 5\n"
        )
    };
    let mut replica = Reloaded::start(&file(1, 1, 1), &[]);
    let failover = [("Tidegate-Failover", "1")];
    let mut open = vec![replica.gateway.listen(&["news"])];
    let refused = |replica: &Reloaded| {
        replica
            .gateway
            .request("GET", "/events/news", &failover, "")
            .problem(503);
    };
    refused(&replica);
    replica.gateway.get("/events?topic=a&topic=b").problem(400);
    let line = replica.take(&file(3, 2, 9));
    let keys = "limits.replays_max limits.streams_max limits.topics_per_stream_max";
    assert_eq!(line["keys"], keys);
    assert_eq!(
        replica
            .gateway
            .metric("tidegate_connections_limit", &[])
            .to_string(),
        "3"
    );
    open.extend([
        replica.gateway.listen(&["news", "a"]),
        replica.gateway.listen(&["news"]),
    ]);
    refused(&replica);
    replica.take(&file(2, 1, 1));
    refused(&replica);
    replica.gateway.publish("news", "to all");
    for stream in &mut open {
        assert_eq!(stream.next_published().data, "to all");
    }
    // History is still read, with as many places as there are now.
    drop(open);
    replica
        .gateway
        .wait_for_metric("tidegate_open_connections", &[], 0.0);
    let mut late = replica.gateway.open("/events/news?since=earliest", &[]);
    assert_eq!(late.next_published().data, "to all");
    replica
        .gateway
        .get("/topics/news/events?limit=6")
        .problem(400);
}

#[test]
fn limits_by_address_hold_for_what_comes_and_leave_what_is_there() {
    let trusted = ("server.trusted_proxies", "127.0.0.1");
    let file = |streams: usize| format!("[limits.address]\nstreams_max = {streams}\n");
    let mut replica = Reloaded::start(&file(2), &[trusted]);
    let open = |replica: &Reloaded| {
        let of_one = [("X-Forwarded-For", "192.0.2.1")];
        replica.gateway.open("/events/news", &of_one)
    };
    let mut streams = [0, 1].map(|_| open(&replica));
    streams.iter_mut().for_each(|stream| drop(stream.opened()));
    let line = replica.take(&file(1));
    assert_eq!(line["keys"], "limits.address.streams_max");
    assert_eq!(open(&replica).rest().0, []);
    replica.take(&file(3));
    let mut third = open(&replica);
    third.opened();
    assert_eq!(open(&replica).rest().0, []);
    replica.gateway.publish("news", "to all");
    for stream in streams.iter_mut().chain([&mut third]) {
        assert_eq!(stream.next_published().data, "to all");
    }
}

#[test]
fn what_the_log_keeps_changes_for_new_and_for_open_streams() {
    let bounds = |events: usize, more: &str| {
        format!("[log]\nevents_max = {events}\n[limits]\ntopics_max = 0\n{more}")
    };
    over_both(&bounds(100, ""), |broker, replica| {
        let mut stream = replica.gateway.listen(&["short", "chat:1"]);
        let publish = |replica: &Reloaded, topic: &str, count: usize| {
            (0..count).for_each(|number| drop(replica.gateway.publish(topic, &number.to_string())));
        };
        let length = |replica: &Reloaded| {
            replica.gateway.get("/topics/short").json()["length"]
                .as_u64()
                .unwrap()
        };
        publish(replica, "short", 6);
        assert_eq!(length(replica), 6, "{broker}");
        let rules = "[[log.overrides]]\ntopics = \"short\"\nevents_max = 2\n\
                     [[log.overrides]]\ntopics = \"chat:*\"\nlog = false\n";
        let line = replica.take(&bounds(100, rules));
        assert_eq!(line["keys"], "log.overrides", "{broker}");
        // The log itself hears of it a moment later.
        eventually("the log keeps two", || {
            publish(replica, "short", 1);
            length(replica) == 2
        });
        let answer = replica.gateway.post("/events/chat:1", &[], "typing").json();
        assert_eq!(answer["id"], Value::Null, "{broker}");
        let typing = std::iter::repeat_with(|| stream.next_published());
        let typing = typing
            .take(100)
            .find(|event| event.data == "typing")
            .unwrap();
        assert_eq!(typing.id, None, "{broker}");
        replica.take(&bounds(1, ""));
        eventually("the log keeps one", || {
            publish(replica, "short", 1);
            length(replica) == 1
        });
        assert_eq!(stream.end(), None, "{broker}");
    });
}

/// Its cursor would grow older than the log, and a reconnect be told of a gap that is none.
#[test]
fn a_quiet_stream_that_is_open_keeps_its_cursor_younger_than_the_new_age() {
    // The clock is said aloud more often than it is, so that a quiet topic is known to be complete.
    let heartbeat = [("stream.heartbeat", "50ms"), ("redis.tick_after", "100ms")];
    let mut replica = Reloaded::start("", &heartbeat);
    let mut stream = replica.gateway.listen(&["quiet"]);
    replica.take("[log]\nage_max = \"1s\"\n");
    stream.next_of("tidegate.cursor");
}

#[test]
fn a_log_that_is_away_is_told_when_it_is_back() {
    let mut redis = Redis::start();
    let mut replica = Reloaded::start("", &[("redis.url", &redis.url())]);
    replica.gateway.publish("news", "x");
    redis.kill();
    replica.take("[log]\nevents_max = 2\n");
    replica
        .gateway
        .wait_for_log("what the log keeps is not changed yet")
        .unwrap();
    redis.restart();
    eventually("two are kept", || {
        let published = replica.gateway.post("/events/news", &[], "x").status == 200;
        let length = || replica.gateway.get("/topics/news").json()["length"].clone();
        published && length() == 2 && {
            replica.gateway.publish("news", "x");
            length() == 2
        }
    });
}

#[test]
fn the_level_of_the_log_changes() {
    let quiet = "[logging]\nlevel = \"info,tidegate::stream=warn\"\n";
    let mut replica = Reloaded::start(quiet, &[]);
    replica.gateway.listen(&["news"]);
    assert_eq!(replica.gateway.logged("stream opened"), [""; 0]);
    replica.take("[logging]\nlevel = \"tidegate=debug\"\n");
    replica.gateway.listen(&["news"]);
    replica.gateway.wait_for_log("stream opened").unwrap();
}

#[test]
fn a_bad_configuration_is_refused_whole_and_nothing_changes() {
    let good = "[auth]\npublish_key = \"right\"\n";
    let mut replica = Reloaded::start(good, &[]);
    let mut stream = replica.gateway.listen(&["keys"]);
    let hash = replica.hash();
    let bad =
        "[auth]\npublish_key = \"wrong\"\n[limits]\nstreams_max = 0\n[log]\nage_may = \"1h\"\n";
    let lines = replica.reload_with(bad, REFUSED, 2);
    let faults: Vec<String> = lines.iter().map(|line| line["fault"].to_string()).collect();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].contains("limits.streams_max") && faults[0].contains("at least 1"));
    assert!(faults[1].contains("log.age_may") && faults[1].contains("log.age_max"));
    let lines = replica.reload("[auth\npublish_key = \"wrong\"", REFUSED);
    assert!(
        lines[0]["fault"]
            .as_str()
            .unwrap()
            .contains("cannot be read")
    );
    assert!(replica.may_publish("right") && !replica.may_publish("wrong"));
    let refused = [("outcome", "refused")];
    replica
        .gateway
        .wait_for_metric("tidegate_config_reloads_total", &refused, 2.0);
    replica
        .gateway
        .wait_for_metric("tidegate_config_refused", &[], 1.0);
    assert_eq!(replica.hash(), hash, "what is in force");
    assert!(!replica.gateway.log().join("\n").contains("wrong"));
    // Put right, it is taken.
    let line = replica.take("[auth]\npublish_key = \"right\"\n[limits]\nstreams_max = 7\n");
    assert_eq!(line["keys"], "limits.streams_max");
    replica
        .gateway
        .wait_for_metric("tidegate_config_refused", &[], 0.0);
    assert_ne!(replica.hash(), hash);
    stream.next_data(1);
    assert_eq!(stream.end(), None);
}

#[test]
fn what_a_reload_cannot_change_is_named_and_stays() {
    let mut replica = Reloaded::start("", &[]);
    let hash = replica.hash();
    let address = replica.gateway.address();
    let file = "[stream]\nheartbeat = \"1s\"\n[redis]\nprefix = \"other\"\n[ops]\nlisten = \"127.0.0.1:0\"\n";
    let lines = replica.reload(file, LEFT);
    assert_eq!(lines[0]["keys"], "ops.listen redis.prefix stream.heartbeat");
    assert_eq!(replica.hash(), hash, "it is not in force");
    assert_eq!(replica.gateway.address(), address);
    // Said each time: it is still to be done.
    assert_eq!(replica.reload(file, LEFT).len(), 1);
    // What was not changed is not named: a default written out is no change.
    let before = replica.gateway.logged(LEFT).len();
    replica.take("[stream]\nheartbeat = \"15s\"\n");
    assert_eq!(replica.gateway.logged(LEFT).len(), before);
}

/// What ears hear is part of what they count by.
#[test]
fn a_map_of_channels_that_has_changed_is_named_and_stays() {
    let redis = Redis::start();
    let url = redis.url();
    let map = |topic: &str| format!("[[ingest.map]]\nchannel = 'a.*'\ntopic = '{topic}'\n");
    let mut replica = Reloaded::start(&map("old"), &[("redis.url", &url)]);
    let lines = replica.reload(&map("new"), LEFT);
    assert_eq!(lines[0]["keys"], "ingest.map");
    eventually("the old one is heard", || {
        redis.publish_raw("a.1", b"x");
        redis.run::<u64>(&["XLEN", "tidegate:{0}:log:old"]) > 0
    });
}

/// The address that counts is the one that is listened at.
#[test]
fn a_key_cannot_be_taken_away_from_a_replica_that_listens_beyond_loopback() {
    let file = "[server]\nlisten = \"0.0.0.0:0\"\n[auth]\npublish_key = \"key\"\n";
    let directory = Directory::create();
    let path = directory.0.join("tidegate.toml");
    std::fs::write(&path, file).unwrap();
    let mut command = crate::support::binary();
    command
        .args(["serve", "--log-format", "json", "--config"])
        .arg(&path);
    let mut process = crate::support::Process::spawn("tidegate", &mut command).unwrap();
    let said = |part: &'static str| move |line: &str| line.contains(part).then(|| line.to_owned());
    process.stderr.wait_for(said("\"listening\"")).unwrap();
    std::fs::write(&path, "[server]\nlisten = \"127.0.0.1:0\"\n").unwrap();
    process.hang_up();
    let line = process.stderr.wait_for(said(REFUSED)).unwrap();
    assert!(line.contains("beyond loopback"), "{line}");
}
