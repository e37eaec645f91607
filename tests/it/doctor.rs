//! Goal: `tidegate doctor` names what is wrong with Redis, the fleet and the proxy, says what to
//! change, and is silent about what is good.
//!
//! Method: real servers with one bad setting each: redis-server, nginx, a fleet, single replicas. What the machine
//! itself is like is judged in `cli::doctor::machine`; here so little is asked of it that any will
//! do.

use crate::support::{Directory, Gateway, Nginx, Redis, eventually, fleet, free_address, run};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;
use std::collections::BTreeMap;

/// What a machine of any kind can give.
const MODEST: [(&str, &str); 3] = [
    ("server.connections_max", "100"),
    ("server.backlog", "16"),
    ("limits.streams_max", "100"),
];
/// Short, so that a test need not watch for long.
const HEARTBEAT: (&str, &str) = ("stream.heartbeat", "500ms");

/// What the doctor found: by area and check the level, what it is, and what to change.
#[derive(Debug)]
pub(super) struct Found {
    code: i32,
    by_check: BTreeMap<String, (String, String, String)>,
}

impl Found {
    pub(super) fn level(&self, check: &str) -> &str {
        let found = self.by_check.get(check);
        found.map_or("not looked at", |(level, ..)| level)
    }

    /// What is wrong and what to change, in one text.
    pub(super) fn said(&self, check: &str) -> String {
        let (_, found, advice) = &self.by_check[check];
        format!("{found} -> {advice}")
    }

    /// Checks that are not well.
    fn wrong(&self) -> Vec<&str> {
        let wrong = self
            .by_check
            .iter()
            .filter(|(_, (level, ..))| level != "ok");
        wrong.map(|(check, _)| check.as_str()).collect()
    }
}

pub(super) fn doctor(config: &[(&str, &str)], args: &[&str]) -> Found {
    let mut all: Vec<&str> = vec!["doctor", "--json"];
    all.extend(args);
    let config: Vec<_> = MODEST.iter().chain(config).copied().collect();
    let environment = crate::support::environment(&config);
    let environment: Vec<(&str, &str)> = environment.iter().map(|(k, v)| (&**k, &**v)).collect();
    let output = run(&all, &environment);
    let report: Value =
        serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut by_check = BTreeMap::new();
    for finding in report["findings"].as_array().unwrap() {
        let (level, advice) = (text(&finding["level"]), text(&finding["advice"]));
        assert_eq!(
            level == "ok",
            advice.is_empty(),
            "each fault says what to change: {finding}"
        );
        let key = format!("{}.{}", text(&finding["area"]), text(&finding["check"]));
        by_check.insert(key, (level, text(&finding["found"]), advice));
    }
    let code = output.code.unwrap();
    let faults = by_check.values().any(|(level, ..)| level == "fault");
    assert_eq!(
        (code, &report["ok"]),
        (i32::from(faults), &(!faults).into())
    );
    Found { code, by_check }
}

/// A fleet, nginx before it with these directives, and what the doctor finds through it.
fn through(location: &str, config: &[(&str, &str)], args: &[&str]) -> Found {
    let gateway = Gateway::start(config);
    let nginx = Nginx::with(&format!(
        "location / {{ proxy_pass {}; {location} }}",
        gateway.url()
    ));
    let url = format!("http://{}", nginx.address());
    let mut all = vec!["--url", &url];
    all.extend(args);
    if !args.contains(&"--watch") {
        all.extend(["--watch", "10ms"]);
    }
    doctor(config, &all)
}

/// Sends pieces as they come.
const STREAMS: &str =
    "proxy_http_version 1.1; proxy_buffering off; proxy_set_header Connection '';";

#[test]
fn a_fleet_that_is_well_is_said_to_be_well() {
    let redis = Redis::with(&[
        "--appendonly",
        "yes",
        "--maxmemory",
        "100mb",
        "--proto-max-bulk-len",
        "4mb",
    ]);
    let config = [("auth.publish_key", "secret-key"), HEARTBEAT];
    let replicas = fleet(&redis, 2, &config);
    let nginx = Nginx::before(&replicas);
    let url = format!("http://{}", nginx.address());
    let redis_url = redis.url();
    let config = [config[0], config[1], ("redis.url", &redis_url)];
    eventually("both replicas are heard of", || {
        doctor(&config, &[]).level("redis.fleet") == "ok"
    });
    let found = doctor(&config, &["--url", &url, "--watch", "2s"]);
    assert_eq!((found.wrong(), found.code), (vec![], 0), "{found:#?}");
    for check in [
        "redis.clock",
        "redis.functions",
        "proxy.event",
        "proxy.resume",
        "proxy.stays",
    ] {
        assert_eq!(found.level(check), "ok", "{check}");
    }
    assert!(
        found.said("redis.fleet").contains("2 replicas"),
        "{found:?}"
    );
    // The same for people; and no key with it.
    let environment = crate::support::environment(&config);
    let environment: Vec<(&str, &str)> = environment.iter().map(|(k, v)| (&**k, &**v)).collect();
    let said = run(&["doctor"], &environment).stdout;
    assert!(
        said.contains("  ok       eviction             maxmemory-policy noeviction"),
        "{said}"
    );
    assert!(said.lines().last().unwrap().contains(" faults, "), "{said}");
    assert!(!said.contains("secret-key") && !format!("{found:?}").contains("secret-key"));
}

#[test]
fn a_redis_that_forgets_is_named_setting_by_setting() {
    let redis = Redis::with(&[
        "--maxmemory-policy",
        "allkeys-lru",
        "--client-output-buffer-limit",
        "pubsub 1mb 512kb 10",
    ]);
    let url = redis.url();
    let found = doctor(&[("redis.url", &url), ("log.wait_replicas", "1")], &[]);
    for (check, level, said) in [
        ("redis.eviction", "fault", "noeviction"),
        ("redis.output_buffer", "fault", "pubsub 64mb 32mb 60"),
        ("redis.one_publish", "warning", "proto-max-bulk-len 4mb"),
        ("redis.persistence", "warning", "appendonly yes"),
        ("redis.memory", "warning", "maxmemory"),
        ("redis.replication", "fault", "log.wait_replicas = 1"),
        ("redis.functions", "warning", "start a replica"),
        ("redis.fleet", "warning", "start one"),
        ("redis.version", "ok", ""),
        ("redis.clock", "ok", ""),
    ] {
        assert_eq!(found.level(check), level, "{check} {found:#?}");
        assert!(found.said(check).contains(said), "{}", found.said(check));
    }
    assert_eq!(found.code, 1);
    // Put right while it runs, as the advice says.
    redis.run::<String>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    redis.run::<String>(&[
        "CONFIG",
        "SET",
        "client-output-buffer-limit",
        "pubsub 64mb 32mb 60",
    ]);
    let found = doctor(&[("redis.url", &url)], &[]);
    assert_eq!(found.code, 0, "{found:#?}");
}

#[test]
fn a_redis_that_is_not_for_this_fleet_is_named() {
    let redis = Redis::start();
    let url = redis.url();
    let _gateway = Gateway::over(&redis, &[("redis.partitions", "4")]);
    let found = doctor(&[("redis.url", &url), ("redis.partitions", "2")], &[]);
    assert_eq!(found.level("redis.partitions"), "fault");
    assert!(
        found
            .said("redis.partitions")
            .contains("set redis.partitions = 4")
    );
    assert_eq!(
        found.level("redis.fleet"),
        "warning",
        "one replica is none to go to"
    );

    let master = format!("127.0.0.1 {}", redis.port());
    let copy = Redis::with(&["--replicaof", &master]);
    let found = doctor(&[("redis.url", &copy.url())], &[]);
    assert_eq!(found.level("redis.replication"), "fault");
    assert!(found.said("redis.replication").contains("name the master"));

    let other = Redis::start();
    let library = |version: u32| {
        format!(
            "#!lua name=tidegate\nredis.register_function{{function_name='tidegate_version', \
             callback=function() return {{{version}, 'another'}} end, flags={{'no-writes'}}}}"
        )
    };
    for (version, level) in [(1, "warning"), (99, "warning")] {
        other.run::<String>(&["FUNCTION", "LOAD", "REPLACE", &library(version)]);
        let found = doctor(&[("redis.url", &other.url())], &[]);
        assert_eq!(found.level("redis.functions"), level, "{found:?}");
    }
    // One version is one code.
    let said = crate::support::run(&["functions", "--redis-url", &other.url()], &[]).stdout;
    let version = said.trim().rsplit(' ').next().unwrap().parse().unwrap();
    other.run::<String>(&["FUNCTION", "LOAD", "REPLACE", &library(version)]);
    let found = doctor(&[("redis.url", &other.url())], &[]);
    assert_eq!(found.level("redis.functions"), "fault", "{found:?}");
}

#[test]
fn a_redis_that_is_away_or_says_little_is_named() {
    let found = doctor(&[("redis.url", "redis://:a-password@127.0.0.1:1")], &[]);
    assert_eq!(found.wrong(), ["redis.reach"]);
    assert!(!format!("{found:?}").contains("a-password"));

    let redis = Redis::start();
    redis.run::<String>(&[
        "ACL", "SETUSER", "few", "on", ">word", "~*", "&*", "+@all", "-config",
    ]);
    let url = redis.url_of("few", "word");
    let found = doctor(&[("redis.url", &url)], &[]);
    assert_eq!(found.level("redis.output_buffer"), "warning");
    assert_eq!((found.level("redis.eviction"), found.code), ("ok", 0));
    let none = doctor(&[], &[]);
    assert_eq!((none.level("redis.log"), none.code), ("warning", 0));
}

/// What the doctor finds at running replicas.
fn at(replicas: &[&Gateway]) -> Found {
    let urls: Vec<String> = replicas.iter().map(|replica| replica.url()).collect();
    let mut args = vec!["--replica"];
    args.extend(urls.iter().map(String::as_str));
    doctor(&[], &args)
}

#[test]
fn replicas_that_run_alike_are_said_to_be_well() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 2, &MODEST);
    let found = at(&[&replicas[0], &replicas[1]]);
    for check in [
        "reach",
        "ready",
        "descriptors",
        "clock",
        "trust",
        "build",
        "settings",
    ] {
        assert_eq!(
            found.level(&format!("replicas.{check}")),
            "ok",
            "{check} {found:#?}"
        );
    }
    // Of all sockets of this machine since it was started: whatever it is, it is told as it is.
    let turned_away = replicas[0].metric("tidegate_listen_overflows_total", &[]);
    let level = if turned_away > 0.0 { "warning" } else { "ok" };
    assert_eq!(found.level("replicas.accept_queue"), level, "{found:#?}");
    assert!(
        found.said("replicas.build").contains("version=\""),
        "{found:#?}"
    );
    assert_eq!(found.code, 0);
}

#[test]
fn replicas_that_differ_or_lack_something_are_named() {
    let redis = Redis::start();
    let alike = Gateway::over(&redis, &MODEST);
    let longer = [&MODEST[..], &[("stream.retry", "9s"), ("drain.time", "1h")]].concat();
    let mut other = Gateway::over(&redis, &longer);
    let found = at(&[&alike, &other]);
    assert_eq!(
        found.level("replicas.settings"),
        "warning",
        "each has a configuration of its own: {found:#?}"
    );
    let said = found.said("replicas.settings");
    assert!(
        said.contains(&alike.url()) && said.contains(&other.url()) && said.contains("SIGHUP"),
        "{said}"
    );
    assert_eq!(
        (found.level("replicas.build"), found.code),
        ("ok", 0),
        "{found:#?}"
    );

    // Behind a proxy that is not for this machine alone, without a key.
    let forwarded = [("X-Forwarded-For", "203.0.113.5")];
    other.post("/events/news", &forwarded, "x").problem(403);
    let found = at(&[&alike, &other]);
    assert_eq!(found.level("replicas.trust"), "warning", "{found:#?}");
    let said = found.said("replicas.trust");
    assert!(
        said.contains(&other.url()) && !said.contains(&alike.url()),
        "{said}"
    );

    // Another limit, as a unit without LimitNOFILE= has it.
    let few = Rlimit {
        current: Some(300),
        maximum: Some(300),
    };
    let process = Pid::from_raw(i32::try_from(alike.id()).unwrap());
    prlimit(process, Resource::Nofile, few).unwrap();
    let found = at(&[&alike, &other]);
    assert_eq!(found.level("replicas.descriptors"), "fault", "{found:#?}");
    let said = found.said("replicas.descriptors");
    assert!(
        said.contains(&format!(
            "{}: 300, and server.connections_max = 100 needs 356",
            alike.url()
        )) && !said.contains(&other.url())
            && said.contains("LimitNOFILE="),
        "{said}"
    );

    // A stream that is not cut yet keeps it here.
    let _stream = other.listen(&["news"]);
    other.terminate();
    other.wait_for_metric("tidegate_draining", &[], 1.0);
    let without_redis =
        Gateway::launch(&[&MODEST[..], &[("redis.url", "redis://127.0.0.1:1")]].concat());
    let found = at(&[&other]);
    assert_eq!(
        (found.level("replicas.ready"), found.code),
        ("warning", 0),
        "{found:#?}"
    );
    let found = at(&[&other, &without_redis]);
    assert_eq!(found.level("replicas.ready"), "fault", "{found:#?}");
    let said = found.said("replicas.ready");
    assert!(
        said.contains(&format!("{}: draining", other.url()))
            && said.contains(&format!("{}: not ready", without_redis.url())),
        "{said}"
    );
}

#[test]
fn what_is_no_replica_is_named() {
    let redis = Redis::start();
    let replica = Gateway::over(&redis, &MODEST);
    let nginx = Nginx::with("location / { return 200 hello; }");
    let proxy = format!("http://{}", nginx.address());
    let away = "http://127.0.0.1:1";
    let url = format!("{}/", replica.url());
    let found = doctor(&[], &["--replica", away, "--replica", &proxy, &url]);
    assert_eq!(found.level("replicas.reach"), "fault", "{found:#?}");
    let said = found.said("replicas.reach");
    assert!(
        said.contains("127.0.0.1:1 cannot be reached")
            && said.contains(&format!("{proxy}/metrics: 200 OK, and no metrics"))
            && said.contains("ops.listen"),
        "{said}"
    );
    assert_eq!(found.level("replicas.ready"), "ok", "the other is judged");
    let found = doctor(&[], &["--replica", away]);
    assert_eq!(
        (found.level("replicas.reach"), found.level("replicas.ready")),
        ("fault", "not looked at")
    );
}

#[test]
fn a_proxy_that_holds_bytes_back_is_found() {
    // Debian's nginx 1.22 speaks HTTP/1.0 to replicas if nobody says otherwise.
    let held =
        "proxy_http_version 1.0; proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;";
    let found = through(held, &[], &[]);
    assert_eq!(found.level("proxy.buffering"), "fault", "{found:#?}");
    assert!(
        found
            .said("proxy.buffering")
            .contains("proxy_buffering off")
    );
    // What the gateway says of itself is enough, where it is listened to.
    let found = through("proxy_buffering on;", &[], &[]);
    assert_eq!(
        found.level("proxy.buffering"),
        "not looked at",
        "{found:#?}"
    );
    assert_eq!(
        (found.level("proxy.first_bytes"), found.level("proxy.event")),
        ("ok", "ok")
    );
}

/// Nothing can be published that would push held bytes out, so nothing is said of them.
#[test]
fn a_proxy_is_not_blamed_for_a_redis_that_is_away() {
    let mut redis = Redis::start();
    let gateway = Gateway::over(&redis, &[]);
    redis.kill();
    let found = doctor(&[], &["--url", &gateway.url(), "--watch", "10ms"]);
    assert_eq!(found.level("proxy.stream"), "fault", "{found:#?}");
    assert_eq!(found.level("proxy.buffering"), "not looked at");
}

#[test]
fn a_proxy_that_changes_streams_is_found() {
    let compressed = format!("{STREAMS} gzip on; gzip_types text/event-stream; gzip_proxied any;");
    let found = through(&compressed, &[], &[]);
    assert_eq!(found.level("proxy.compression"), "fault", "{found:#?}");
    assert!(found.said("proxy.compression").contains("gzip_types"));

    let found = through(
        &format!("{STREAMS} proxy_hide_header Cache-Control;"),
        &[],
        &[],
    );
    assert_eq!(
        (found.level("proxy.headers"), found.code),
        ("warning", 0),
        "{found:#?}"
    );

    let found = through(
        &format!("{STREAMS} proxy_set_header Last-Event-ID '';"),
        &[],
        &[],
    );
    assert_eq!(found.level("proxy.resume"), "fault", "{found:#?}");
    assert_eq!(found.level("proxy.event"), "ok");

    let found = through("return 503;", &[], &[]);
    assert_eq!(found.level("proxy.status"), "fault", "{found:#?}");
    let found = through("default_type text/html; return 200 hello;", &[], &[]);
    assert_eq!(found.level("proxy.content_type"), "fault", "{found:#?}");
}

#[test]
fn a_proxy_that_cuts_silence_is_found() {
    let impatient = format!("{STREAMS} proxy_read_timeout 1s;");
    let found = through(&impatient, &[], &["--watch", "10s"]);
    assert_eq!(found.level("proxy.stays"), "fault", "{found:#?}");
    assert!(found.said("proxy.stays").contains("stream.heartbeat"));
    // With heartbeats within its time, it does not.
    let found = through(&impatient, &[HEARTBEAT], &["--watch", "2s"]);
    assert_eq!(found.level("proxy.stays"), "ok", "{found:#?}");
}

#[test]
fn what_is_open_to_all_or_needs_a_key_is_said() {
    let found = through(STREAMS, &[], &[]);
    assert_eq!(found.level("proxy.operations"), "warning");
    assert!(
        found
            .said("proxy.operations")
            .contains("/metrics and /streams")
    );
    let key = [("auth.publish_key", "right")];
    let wrong = through(STREAMS, &key, &["--key", "wrong"]);
    assert_eq!(wrong.level("proxy.publish"), "warning", "{wrong:#?}");
    assert!(
        wrong.said("proxy.publish").contains("401") && !format!("{wrong:?}").contains("wrong\"")
    );
    assert_eq!(
        through(STREAMS, &key, &[]).level("proxy.event"),
        "ok",
        "the configuration's own"
    );
    let found = doctor(&[], &["--url", "http://127.0.0.1:1"]);
    assert_eq!(found.level("proxy.reach"), "fault");
    // The key of the configuration is for this machine, and for the hosts that it names.
    let found = doctor(&key, &["--url", "https://127.0.0.2.evil.example:1"]);
    assert_eq!(found.level("proxy.key"), "warning", "{found:#?}");
    assert!(found.said("proxy.key").contains("server.hosts"));
}

/// Through TLS, by an authority that a file names; and past a proxy that takes no POST.
#[test]
fn a_proxy_with_tls_is_looked_through() {
    let directory = Directory::create();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let write = |name: &str, text: String| {
        let path = directory.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let certificate = write("cert.pem", made.cert.pem());
    let key = write("key.pem", made.signing_key.serialize_pem());
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[]);
    let address = free_address();
    for (protocols, level) in [("ssl http2", "ok"), ("ssl", "warning")] {
        let _nginx = Nginx::with(&format!(
            "location / {{ return 404; }} }} server {{ listen {address} {protocols}; \
             ssl_certificate {certificate}; ssl_certificate_key {key}; \
             location / {{ limit_except GET {{ deny all; }} proxy_pass {}; {STREAMS} }}",
            gateway.url()
        ));
        let url = format!("https://{address}");
        let args = ["--url", &url, "--ca", &certificate, "--watch", "10ms"];
        let found = doctor(&[("redis.url", &redis.url())], &args);
        assert_eq!(found.level("proxy.http"), level, "{found:#?}");
        assert_eq!(
            (found.level("proxy.event"), found.level("proxy.resume")),
            ("ok", "ok"),
            "{found:#?}"
        );
        let stranger = doctor(&[], &["--url", &url]);
        assert_eq!(
            stranger.level("proxy.reach"),
            "fault",
            "nobody vouches for it"
        );
        let trusted = ["topics", "list", "--url", &url, "--ca", &certificate];
        assert_eq!(run(&trusted, &[]).code, Some(0), "other commands, too");
        let commands: [&[&str]; 3] = [
            &["topics", "list"],
            &["tail", "news"],
            &["publish", "news", "x"],
        ];
        for command in commands {
            let stranger = run(&[command, &["--url", &url]].concat(), &[]);
            assert_eq!(stranger.code, Some(1), "{stranger:?}");
            let said = "the certificate of 127.0.0.1 is not trusted";
            assert!(stranger.stderr.contains(said), "{stranger:?}");
            assert!(stranger.stderr.contains("--ca"), "{stranger:?}");
        }
    }
}

#[test]
fn a_bad_configuration_is_refused_as_by_any_command() {
    let output = run(&["doctor"], &[("TIDEGATE__STREAM__HEARBEAT", "1s")]);
    assert_eq!(output.code, Some(64));
    assert!(output.stderr.contains("stream.hearbeat"));
}
