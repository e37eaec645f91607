//! Goal: `deploy/redis/users.acl` gives each program exactly the rights that it needs, and a right
//! that is missing is named.
//!
//! Method: a real Redis with that file, its passwords filled in. Replicas run through all they do;
//! then Redis must have refused nothing (`ACL LOG`), and each command that was allowed must have
//! been used (`INFO commandstats`).

use crate::support::tokens::{TOKENS, token_of};
use crate::support::{
    Directory, Gateway, NDJSON, NewEvent, Process, Redis, Sse, Way, eventually, server_program,
    wait_for_ears,
};
use redis::{Connection, IntoConnectionInfo as _, RedisResult, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

const SHIPPED: &str = include_str!("../../deploy/redis/users.acl");
const PASSWORD: &str = "secret";

/// A Redis with the shipped users. Besides, the test itself is let in without a name.
struct Guarded {
    redis: Redis,
    file: Directory,
}

impl Guarded {
    fn start() -> Self {
        Self::with(|users| users)
    }

    fn with(change: impl Fn(String) -> String) -> Self {
        let file = Directory::create();
        let path = file.0.join("users.acl");
        let open = filled_in().replace("user default off", "user default on nopass ~* &* +@all");
        std::fs::write(&path, change(open)).unwrap();
        let options = ["--aclfile", path.to_str().unwrap()];
        let durable = ["--appendonly", "yes", "--appendfsync", "always"];
        let redis = Redis::with(&[options, [durable[0], durable[1]]].concat());
        redis.run::<()>(&[
            "CONFIG",
            "SET",
            durable[2].trim_start_matches('-'),
            durable[3],
        ]);
        Self { redis, file }
    }

    /// A replica that connects as `user`.
    fn launch(&self, user: &str, config: &[(&str, &str)]) -> Gateway {
        let url = self.redis.url_of(user, PASSWORD);
        Gateway::launch(&[config, &[("redis.url", &url)]].concat())
    }

    fn start_gateway(&self, user: &str, config: &[(&str, &str)]) -> Gateway {
        let gateway = self.launch(user, config);
        gateway.wait_ready();
        gateway
    }

    fn connect_as(&self, user: &str) -> Connection {
        let info = self.redis.url_of(user, PASSWORD).into_connection_info();
        let info = info.unwrap();
        // The library's name would be one more right.
        let settings = info.redis_settings().clone().set_skip_set_lib_name();
        let client = redis::Client::open(info.set_redis_settings(settings)).unwrap();
        client.get_connection().unwrap()
    }

    /// What Redis has refused: user and object.
    fn refused(&self) -> Vec<String> {
        let log: Vec<Vec<Value>> = self.redis.run(&["ACL", "LOG"]);
        log.iter().map(|entry| format!("{entry:?}")).collect()
    }

    /// Commands that were carried out since the last start, within functions too.
    fn used(&self) -> BTreeSet<String> {
        let stats: String = self.redis.run(&["INFO", "commandstats"]);
        let name = |line: &str| Some(line.strip_prefix("cmdstat_")?.split_once(':')?.0.to_owned());
        stats.lines().filter_map(name).collect()
    }
}

fn filled_in() -> String {
    SHIPPED.replace("#SHA256-OF-ITS-PASSWORD", &format!(">{PASSWORD}"))
}

/// The shipped line of a user.
fn rights(user: &str) -> &'static str {
    let begin = format!("user {user} ");
    let line = SHIPPED.lines().find(|line| line.starts_with(&begin));
    line.unwrap_or_else(|| panic!("no user {user}"))
}

/// Commands that the shipped file allows a user.
fn allowed(user: &str) -> BTreeSet<String> {
    let words = rights(user).split([' ', '(', ')']);
    words
        .filter_map(|word| word.strip_prefix('+'))
        .map(str::to_owned)
        .collect()
}

fn run(connection: &mut Connection, command: &str) -> RedisResult<Value> {
    let mut words = command.split(' ');
    let mut cmd = redis::cmd(words.next().unwrap());
    words.for_each(|word| {
        cmd.arg(word);
    });
    cmd.query(connection)
}

/// All that replicas do, through one user.
fn exercise(guarded: &mut Guarded, user: &str, ways: &[Way]) -> BTreeSet<String> {
    let config = [
        ("redis.unsubscribe_after", "0s"),
        ("redis.tick_after", "20ms"),
        ("redis.backoff_max", "50ms"),
        ("window.events_max", "1"),
        ("limits.topics_max", "100"),
    ];
    let ingests = ways.contains(&Way::Raw);
    let ingest = [("ingest.enabled", if ingests { "true" } else { "false" })];
    let config = [&config[..], &ingest].concat();
    // Of a build that was replaced an hour ago.
    let unused =
        "#!lua name=tidegate_v0\nredis.register_function('tidegate_v0_f', function() return 1 end)";
    guarded.redis.run::<String>(&["FUNCTION", "LOAD", unused]);
    guarded
        .redis
        .run::<u32>(&["HSET", "tidegate:libraries", "tidegate_v0", "1"]);
    guarded.redis.run::<()>(&["CONFIG", "RESETSTAT"]);
    let mut replicas = ["r1", "r2"].map(|name| {
        guarded.start_gateway(user, &[&config[..], &[("replica.name", name)]].concat())
    });
    if ingests {
        wait_for_ears(&guarded.redis, &replicas);
    }
    eventually("the unused library is removed", || {
        guarded.used().contains("function|delete")
    });
    let mut stream = replicas[0].listen(&["news", "other"]);
    let begin = stream.last_event_id().to_owned();
    let published = publish_all_ways(guarded, &replicas[1], ways, &mut stream);

    // Behind the window, through the other replica, and as history.
    let mut back = replicas[1].open(
        "/events?topic=news&topic=other",
        &[("Last-Event-ID", &begin)],
    );
    assert_eq!(back.next_data(published), stream_data(ways));
    let mut history = replicas[1].open("/events/news?last=2", &[]);
    assert_eq!(history.next_data(2).len(), 2);
    drop(history);
    assert_eq!(replicas[0].get("/topics").status, 200);
    eventually("the subscribers of both replicas are counted", || {
        replicas[0].get("/topics/news").json()["subscribers"] == 2
    });
    assert_eq!(replicas[0].get("/topics/news/events").status, 200);
    assert_eq!(replicas[0].get("/readyz?delivery").status, 200);

    // The live path is cut, and then Redis is another process: what was heard is reported.
    guarded
        .redis
        .run::<u32>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    replicas[0].publish("news", "after the cut");
    assert_eq!(stream.next_data(1), ["after the cut"]);
    // Of several events, each log is asked whether it takes them before the first is written.
    for _ in 0..2 {
        let two = "{\"topic\":\"two\",\"data\":\"1\"}\n{\"topic\":\"two\",\"data\":\"2\"}\n";
        assert_eq!(replicas[0].post("/events", &[NDJSON], two).status, 200);
    }
    let mut used = guarded.used();
    guarded.redis.restart();
    let answer = || {
        replicas[0].post(
            "/events/news",
            &[("Idempotency-Key", "1")],
            "after the restart",
        )
    };
    eventually("a publish is acknowledged", || answer().status == 200);
    assert_eq!(stream.next_data(1), ["after the restart"]);
    assert_eq!(replicas[1].delete("/topics/news").status, 200);
    let taken_back = replicas[1].post("/disconnect", &[], r#"{"topics":"none:*"}"#);
    assert_eq!(taken_back.status, 200, "{}", taken_back.text());
    drop((stream, back));
    eventually("unread topics are unsubscribed", || {
        guarded.used().contains("unsubscribe")
    });
    eventually("deleted topics are swept", || {
        guarded.used().contains("hscan")
    });
    // A log that has expired leaves its head behind, which a tick takes away.
    guarded.redis.run::<u32>(&["DEL", "tidegate:{0}:log:other"]);
    guarded
        .redis
        .run::<u32>(&["HSET", "tidegate:{0}:heads", "other", "1-1"]);
    eventually("what is left of an expired log goes", || {
        let left: u32 = guarded
            .redis
            .run(&["HEXISTS", "tidegate:{0}:heads", "other"]);
        left == 0
    });
    for replica in &mut replicas {
        replica.terminate();
        assert!(replica.wait().success());
    }
    used.extend(guarded.used());
    used
}

/// One event by each way, its data the way's name; how many.
fn publish_all_ways(guarded: &Guarded, gateway: &Gateway, ways: &[Way], stream: &mut Sse) -> usize {
    for way in ways {
        let data = format!("{way:?}");
        let event = NewEvent {
            topic: "news",
            kind: "kind",
            data: &data,
            key: if *way == Way::Raw { "" } else { &data },
            ..NewEvent::default()
        };
        way.publish(gateway, &guarded.redis, event);
        assert_eq!(stream.next_data(1), [data]);
    }
    gateway.publish("other", "other");
    assert_eq!(stream.next_data(1), ["other"]);
    ways.len() + 1
}

fn stream_data(ways: &[Way]) -> Vec<String> {
    let names = ways.iter().map(|way| format!("{way:?}"));
    names.chain(["other".to_owned()]).collect()
}

#[test]
fn a_replica_has_all_the_rights_that_it_uses_and_no_more() {
    let without_ingest = [
        Way::Http,
        Way::Batch,
        Way::Function,
        Way::Command,
        Way::CommandToRedis,
    ];
    for (user, ways) in [
        ("tidegate-gateway", &Way::ALL[..]),
        ("tidegate-gateway-without-ingest", &without_ingest),
    ] {
        let mut guarded = Guarded::start();
        let used = exercise(&mut guarded, user, ways);
        assert_eq!(guarded.refused(), Vec::<String>::new(), "{user}");
        let mut unused = allowed(user);
        unused.retain(|command| !used.contains(command));
        // Asked only where replicas of Redis must have an event before it is acknowledged.
        unused.remove("wait");
        assert_eq!(unused, BTreeSet::new(), "{user}");
    }
}

#[test]
fn tickets_are_made_and_used_by_the_same_rights() {
    for user in ["tidegate-gateway", "tidegate-gateway-without-ingest"] {
        let guarded = Guarded::start();
        let config = [
            TOKENS,
            ("auth.tickets_each_max", "1"),
            ("auth.ticket_life", "1s"),
            ("ingest.enabled", "false"),
        ];
        let gateway = guarded.start_gateway(user, &config);
        let token = token_of(&serde_json::json!({"tidegate": {"subscribe": ["a"]}}));
        let bearer = format!("Bearer {token}");
        let ask = || gateway.post("/tickets", &[("Authorization", &bearer)], "");
        let ticket = ask().json()["ticket"].as_str().unwrap().to_owned();
        ask().problem(429);
        let open = || gateway.open(&format!("/events/a?ticket={ticket}"), &[]);
        open().opened();
        assert_eq!(open().status(), 401, "{user}");
        // Those that are over are forgotten, too.
        assert_eq!(ask().status, 201, "{user}");
        eventually("it is over", || ask().status == 201);
        assert_eq!(guarded.refused(), Vec::<String>::new(), "{user}");
    }
}

#[test]
fn publishers_publish() {
    let guarded = Guarded::start();
    let gateway = guarded.start_gateway("tidegate-gateway", &[]);
    wait_for_ears(&guarded.redis, std::slice::from_ref(&gateway));
    let mut stream = gateway.listen(&["news"]);
    // The head of a log may be gone although the log is there: it is found again in the log.
    let table = [
        ("tidegate-publisher", "FCALL tidegate_publish 0 news 1"),
        ("tidegate-publisher", "FCALL tidegate_publish 0 news 2 kind"),
        ("", "HDEL tidegate:{0}:heads news"),
        (
            "tidegate-publisher",
            "FCALL tidegate_publish 0 news 3 kind  key",
        ),
        ("tidegate-publisher", "PUBLISH events:news#kind 4"),
        (
            "tidegate-publisher",
            "XADD tidegate:inbox * topic news data 5",
        ),
        ("tidegate-untrusted-publisher", "PUBLISH events:news 6"),
        (
            "tidegate-inbox-publisher",
            "XADD tidegate:inbox * topic news event kind data 7",
        ),
    ];
    let mut number = 0;
    for (user, command) in table {
        if user.is_empty() {
            run(&mut guarded.redis.connect(), command).unwrap();
            continue;
        }
        run(&mut guarded.connect_as(user), command).unwrap_or_else(|why| panic!("{user}: {why}"));
        number += 1;
        assert_eq!(stream.next_data(1), [number.to_string()], "{command}");
    }
    assert_eq!(guarded.refused(), Vec::<String>::new());
}

#[test]
fn a_publisher_has_no_more_rights_than_its_function_uses() {
    let guarded = Guarded::start();
    // With a limit, topics are counted.
    drop(guarded.start_gateway("tidegate-gateway", &[("limits.topics_max", "5")]));
    guarded.redis.run::<()>(&["CONFIG", "RESETSTAT"]);
    let mut publisher = guarded.connect_as("tidegate-publisher");
    for _ in 0..2 {
        run(&mut publisher, "FCALL tidegate_publish 0 news x kind  key").unwrap();
        run(&mut publisher, "FCALL tidegate_publish 0 news x").unwrap();
        guarded
            .redis
            .run::<u32>(&["HDEL", "tidegate:{0}:heads", "news"]);
    }
    run(&mut publisher, "PING").unwrap();
    let mut unused = allowed("tidegate-publisher");
    let used = guarded.used();
    unused.retain(|command| !used.contains(command));
    assert_eq!(unused, BTreeSet::new());
    assert_eq!(guarded.refused(), Vec::<String>::new());
}

#[test]
fn publishers_can_do_nothing_else() {
    let guarded = Guarded::start();
    let gateway = guarded.start_gateway("tidegate-gateway", &[]);
    wait_for_ears(&guarded.redis, std::slice::from_ref(&gateway));
    gateway.publish("news", "kept");
    let both = [
        "GET tidegate:meta",
        "HGETALL tidegate:{0}:clock",
        "HSET tidegate:meta partitions 2",
        "HGET tidegate:{0}:clock last",
        "XRANGE tidegate:{0}:log:news - +",
        "XREAD STREAMS tidegate:{0}:log:news 0",
        "DEL tidegate:{0}:log:news",
        "XRANGE tidegate:inbox - +",
        "XDEL tidegate:inbox 1-1",
        "XTRIM tidegate:inbox MAXLEN 0",
        "XADD other * a b",
        "SET other x",
        "PUBLISH other x",
        "PUBLISH tidegate:ingest x",
        "SUBSCRIBE events",
        "PSUBSCRIBE *",
        "SPUBLISH events x",
        "FCALL_RO LIBRARY_read 0 0",
        "EVAL return 0",
        "FUNCTION LIST",
        "FUNCTION DELETE tidegate",
        "FUNCTION FLUSH",
        "ACL WHOAMI",
        "CLIENT LIST",
        "CLIENT KILL TYPE normal",
        "CONFIG GET *",
        "KEYS *",
        "SCAN 0",
        "MONITOR",
        "REPLICAOF NO ONE",
        "FLUSHALL",
        "SHUTDOWN NOSAVE",
        "INFO commandstats extra",
    ];
    // Whoever may add to the inbox can keep others from it.
    let untrusted = ["XADD tidegate:inbox * topic news data x"];
    let to_inbox = [
        "FCALL tidegate_publish 0 news x",
        "FCALL tidegate_delete 0 news",
        "XADD tidegate:{0}:log:news * a b",
        "PUBLISH tidegate:{0}:live:news x",
        "HSET tidegate:{0}:clock last 9-9",
        "XREVRANGE tidegate:{0}:log:news + -",
    ];
    let trusted = [
        "FCALL LIBRARY_tick 0 0",
        "FCALL LIBRARY_start 0 0 e x",
        "FCALL LIBRARY_inbox 0 0",
        "FCALL LIBRARY_heartbeat 0 library x 1",
    ];
    let users = [
        (
            "tidegate-untrusted-publisher",
            [&untrusted[..], &to_inbox].concat(),
        ),
        ("tidegate-inbox-publisher", to_inbox.to_vec()),
        ("tidegate-publisher", trusted.to_vec()),
    ];
    let library = library_of_replicas(&guarded.redis);
    for (user, more) in users {
        let mut connection = guarded.connect_as(user);
        for command in both.iter().chain(&more) {
            let command = &command.replace("LIBRARY", &library);
            if user == "tidegate-publisher" && command.starts_with("INFO") {
                continue;
            }
            let why = run(&mut connection, command)
                .expect_err(&format!("{user}: {command}"))
                .to_string()
                .to_lowercase();
            let is_refused = why.contains("no permissions")
                || why.contains("the user executing the script can't")
                || why.contains("acl failure in script");
            assert!(is_refused, "{user}: {command}: {why}");
        }
    }
    let entries: u64 = guarded.redis.run(&["XLEN", "tidegate:{0}:log:news"]);
    assert_eq!(entries, 1);
}

/// The library that the replica has loaded: it is named by its code.
fn library_of_replicas(redis: &Redis) -> String {
    let pattern = "tidegate_*";
    let found: Vec<BTreeMap<String, Value>> =
        redis.run(&["FUNCTION", "LIST", "LIBRARYNAME", pattern]);
    redis::from_redis_value_ref(&found[0]["library_name"]).unwrap()
}

/// As docs/publish.md and deploy/redis/README.md show it.
const MAP: (&str, &str) = (
    "ingest.map",
    "[{channel = 'orders.*', topic = 'orders:{1}'}]",
);

/// A Redis whose replicas may hear the channels of an application, as the page says.
fn with_channels_of_an_application() -> Guarded {
    Guarded::with(|users| {
        let gateway = "&tidegate:ingest &events &events:*";
        assert_eq!(users.matches(gateway).count(), 1);
        users.replace(gateway, &format!("{gateway} &orders.*"))
    })
}

#[test]
fn an_application_publishes_to_its_own_topics_and_to_no_others() {
    let guarded = with_channels_of_an_application();
    let gateway = guarded.start_gateway("tidegate-gateway", &[MAP]);
    wait_for_ears(&guarded.redis, std::slice::from_ref(&gateway));
    gateway.publish("news", "kept");
    let all = [
        "orders",
        "orders:eu",
        "orders:us",
        "news",
        "orders2",
        "events",
    ];
    let mut stream = gateway.listen(&all);
    let raw = [
        ("PUBLISH events:orders 1", "orders", ""),
        ("PUBLISH events:orders#paid 2", "orders", "paid"),
        ("PUBLISH events:orders:eu 3", "orders:eu", ""),
        ("PUBLISH events:orders:eu#paid 4", "orders:eu", "paid"),
        // Its own channels, by the map.
        ("PUBLISH orders.us 5", "orders:us", ""),
    ];
    let by_function = [
        ("FCALL tidegate_publish 0 orders 6", "orders", ""),
        (
            "FCALL tidegate_publish 0 orders:eu 7 paid  key",
            "orders:eu",
            "paid",
        ),
    ];
    let with_ids = [&raw[..], &by_function].concat();
    let refused = [
        "PUBLISH events x",
        "PUBLISH events:news x",
        "PUBLISH events:order x",
        "PUBLISH events:orders2 x",
        "PUBLISH events:orders2#paid x",
        "PUBLISH events:* x",
        "PUBLISH events: x",
        "PUBLISH events#orders x",
        "PUBLISH stock x",
        "PUBLISH ordersxus x",
        "PUBLISH tidegate:ingest x",
        "PUBLISH tidegate:{0}:tick x",
        "PUBLISH tidegate:{0}:live:news x",
        "SPUBLISH events:orders x",
        "SUBSCRIBE events:orders",
        "PSUBSCRIBE *",
        "XADD tidegate:inbox * topic orders data x",
        "XADD tidegate:inbox * topic news data x",
        "XADD tidegate:{0}:log:news * a b",
        "XRANGE tidegate:{0}:log:orders - +",
        "DEL tidegate:{0}:log:orders",
        "FCALL tidegate_publish 0 news x",
        "FCALL tidegate_publish 0 orders2 x kind end key",
        "FCALL tidegate_delete 0 orders",
        "FCALL tidegate_delete 0 news",
        "EVAL return 0",
        "ACL WHOAMI",
        "KEYS *",
    ];
    // It is not even this user's to call a function, or to write what an event stands on.
    let without_ids = [
        "FCALL tidegate_publish 0 orders x",
        "PUBLISH tidegate:{0}:live:orders x",
        "XADD tidegate:{0}:log:orders * a b",
        "HSET tidegate:{0}:clock last 9-9",
        "HSET tidegate:{0}:heads news 9-9",
        "SET tidegate:{0}:idem::4:news:key x",
    ];
    for (user, granted, more) in [
        ("tidegate-application-orders", &raw[..], &without_ids[..]),
        ("tidegate-application-orders-with-ids", &with_ids, &[]),
    ] {
        let mut connection = guarded.connect_as(user);
        for (command, topic, kind) in granted {
            run(&mut connection, command).unwrap_or_else(|why| panic!("{user} {command}: {why}"));
            let event = stream.next_event();
            let data = command
                .split(' ')
                .find(|word| word.parse::<u8>().is_ok_and(|n| n > 0));
            assert_eq!(
                (&*event.data, &*event.event),
                (data.unwrap(), *kind),
                "{user} {command}"
            );
            let last = gateway.get(&format!("/topics/{topic}")).json()["last"].clone();
            assert_eq!(last, event.id(), "{user} {command}");
        }
        for command in refused.iter().chain(more) {
            let why = run(&mut connection, command)
                .expect_err(&format!("{user}: {command}"))
                .to_string()
                .to_lowercase();
            let is_refused = [
                "no permissions",
                "user executing the script can't",
                "acl failure in script",
            ];
            let is_refused = is_refused.iter().any(|part| why.contains(part));
            assert!(is_refused, "{user}: {command}: {why}");
        }
    }
    // Nothing of what was refused is there.
    let topics = gateway.get("/topics").json()["topics"].clone();
    // The last one is how the test waited for the replica.
    let expected = ["news", "orders", "orders:eu", "orders:us", "warm-up"];
    assert_eq!(topics, serde_json::json!(expected));
    let news = gateway.get("/topics/news").json()["length"].clone();
    assert_eq!(news, 1);
    assert_eq!(gateway.publish("news", "last"), stream.next_event().id());
}

/// What a call for another topic would write, it does not write a part of.
#[test]
fn a_call_for_the_topic_of_another_application_changes_nothing() {
    let guarded = Guarded::start();
    let gateway = guarded.start_gateway("tidegate-gateway", &[("redis.tick_after", "1h")]);
    gateway.publish("news", "first");
    let mut application = guarded.connect_as("tidegate-application-orders-with-ids");
    let state = || {
        let keys = ["clock", "heads"].map(|key| format!("tidegate:{{0}}:{key}"));
        let hashes = keys.map(|key| guarded.redis.run::<Value>(&["HGETALL", &key]));
        let log = guarded
            .redis
            .run::<Value>(&["XRANGE", "tidegate:{0}:log:news", "-", "+"]);
        let mut others: Vec<String> = guarded.redis.run(&["KEYS", "tidegate:{0}:*"]);
        others.sort();
        (hashes, log, others)
    };
    // Ticks of the replica's start may come in between, but not each time.
    eventually("nothing is written", || {
        let before = state();
        for command in [
            "FCALL tidegate_publish 0 news x",
            "FCALL tidegate_publish 0 new x kind end key",
        ] {
            run(&mut application, command).unwrap_err();
        }
        state() == before
    });
}

#[test]
fn an_application_has_no_more_rights_than_its_function_uses() {
    let guarded = Guarded::start();
    // With a limit, topics are counted.
    drop(guarded.start_gateway("tidegate-gateway", &[("limits.topics_max", "5")]));
    guarded.redis.run::<()>(&["CONFIG", "RESETSTAT"]);
    let mut application = guarded.connect_as("tidegate-application-orders-with-ids");
    for topic in ["orders", "orders:eu"] {
        for _ in 0..2 {
            run(
                &mut application,
                &format!("FCALL tidegate_publish 0 {topic} x kind  key"),
            )
            .unwrap();
            run(
                &mut application,
                &format!("FCALL tidegate_publish 0 {topic} x"),
            )
            .unwrap();
            guarded
                .redis
                .run::<u32>(&["HDEL", "tidegate:{0}:heads", topic]);
        }
    }
    run(&mut application, "PING").unwrap();
    let mut unused = allowed("tidegate-application-orders-with-ids");
    let used = guarded.used();
    unused.retain(|command| !used.contains(command));
    assert_eq!(unused, BTreeSet::new());
    assert_eq!(guarded.refused(), Vec::<String>::new());
}

/// Or the functions could decide by who calls them, and users would need no rights to logs.
#[test]
fn a_function_cannot_ask_who_calls_it() {
    let redis = Redis::start();
    let code = "#!lua name=who\nredis.register_function('who', function(keys, a) return redis.call(unpack(a)) end)";
    redis.run::<String>(&["FUNCTION", "LOAD", code]);
    for command in ["ACL WHOAMI", "CLIENT INFO", "ACL LIST"] {
        let call = format!("FCALL who 0 {command}");
        let why = run(&mut redis.connect(), &call).unwrap_err().to_string();
        assert!(why.contains("not allowed from script"), "{command}: {why}");
    }
}

/// A function that stopped at its PUBLISH would have written an event that nobody hears.
#[test]
fn a_publisher_without_the_live_channel_changes_nothing() {
    let guarded =
        Guarded::with(|users| users.replace("(+publish resetchannels &tidegate:{*}:live:*)", ""));
    let gateway = guarded.start_gateway("tidegate-gateway", &[("redis.tick_after", "1h")]);
    let first = gateway.publish("news", "first");
    let keys = ["clock", "heads"].map(|key| format!("tidegate:{{0}}:{key}"));
    let state = || {
        let log = guarded
            .redis
            .run::<Value>(&["XRANGE", "tidegate:{0}:log:news", "-", "+"]);
        let rest = keys
            .each_ref()
            .map(|key| guarded.redis.run::<Value>(&["HGETALL", key]));
        let others: Vec<String> = guarded.redis.run(&["KEYS", "tidegate:{0}:*"]);
        (log, rest, others)
    };
    let mut publisher = guarded.connect_as("tidegate-publisher");
    // Ticks of the replica's start may come in between, but not each time.
    eventually(&format!("nothing is written after {first}"), || {
        let before = state();
        for command in [
            "FCALL tidegate_publish 0 news x",
            "FCALL tidegate_publish 0 new x kind end key",
        ] {
            let why = run(&mut publisher, command).unwrap_err();
            assert_eq!(why.code(), Some("NOPERM"), "{command}: {why}");
            assert!(why.to_string().contains("tidegate:{0}:live:new"), "{why}");
        }
        state() == before
    });
}

#[test]
fn a_replica_that_lacks_a_right_says_so_and_is_not_ready() {
    // What is taken away, and the word by which the log names it.
    let table = [
        (" +info", "'info'"),
        (" +role", "'role'"),
        (" +function|load", "'function|load'"),
        (" +hsetnx", "'hsetnx'"),
        (" +subscribe", "'subscribe'"),
        (" +fcall ", "'fcall'"),
        (" +hmget", "run this command"),
        (" ~tidegate:meta", "key"),
        (" ~tidegate:{*}:clock", "key"),
        (" &tidegate:{*}:tick", "channel"),
    ];
    for (right, named) in table {
        let guarded = Guarded::with(|users| users.replace(right, " "));
        let gateway = guarded.launch("tidegate-gateway", &[("redis.backoff_max", "50ms")]);
        eventually(&format!("{right} is missed"), || {
            gateway.log().iter().any(|line| {
                line.contains("the Redis user lacks a right")
                    && line.contains("deploy/redis/users.acl")
                    && (line.contains(named) || line.contains("ACL failure in script"))
            })
        });
        gateway.get("/readyz").problem(503);
    }
}

/// Redis answered, so all seemed well, although it did nothing.
#[test]
fn redis_is_down_while_it_refuses_what_is_asked_of_it() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[]);
    let is_up = || gateway.metric("tidegate_redis_up", &[("role", "commands")]);
    gateway.publish("news", "x");
    assert!(is_up() > 0.5);
    // Each heartbeat succeeds all the same.
    redis.run::<String>(&["CONFIG", "SET", "maxmemory", "1"]);
    gateway.post("/events/news", &[], "x").problem(507);
    assert!(is_up() < 0.5);
    redis.run::<String>(&["CONFIG", "SET", "maxmemory", "0"]);
    gateway.publish("news", "x");
    eventually("it is up again", || is_up() > 0.5);
}

#[test]
fn a_wrong_password_and_a_missing_user_are_told_apart() {
    let guarded = Guarded::start();
    std::fs::write(guarded.file.0.join("users.acl"), filled_in()).unwrap();
    guarded.redis.run::<()>(&["ACL", "LOAD"]);
    let table = [
        (
            guarded.redis.url_of("tidegate-gateway", "wrong"),
            "the log refused: the user or the password in redis.url is wrong",
        ),
        (
            guarded.redis.url(),
            "the log refused: Redis wants a user; redis.url names none",
        ),
    ];
    for (url, sentence) in table {
        let gateway = Gateway::launch(&[("redis.url", &url)]);
        eventually(sentence, || {
            gateway.log().iter().any(|line| line.contains(sentence))
        });
        gateway.get("/readyz").problem(503);
    }
}

#[test]
fn the_shipped_file_opens_nothing_until_its_passwords_are_filled_in() {
    let directory = Directory::create();
    let path = directory.0.join("users.acl");
    for user in SHIPPED.lines().filter(|line| line.contains("SHA256")) {
        std::fs::write(&path, user).unwrap();
        let mut command = Command::new(server_program());
        let socket = directory.0.join("socket");
        command
            .args(["--port", "0", "--unixsocket", socket.to_str().unwrap()])
            .args(["--aclfile", path.to_str().unwrap()]);
        let mut redis = Process::spawn("redis-server", &mut command).unwrap();
        assert!(!redis.wait().success());
        let said = redis.stdout.all().join("\n");
        assert!(
            said.contains("password hash must be exactly 64 characters"),
            "{said}"
        );
    }
}
