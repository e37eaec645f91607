//! Goal: an operator can tell whether a replica lives, whether it should get streams, whether
//! events come through, and what it does; on the main listener or on one of its own.
//!
//! Method: requests over both brokers; what Prometheus thinks of the metrics is asked of promtool.
//! What these say while Redis is away is in `outage.rs`.

use crate::support::{
    Answer, Gateway, OPERATORS, Redis, environment, free_address, over_both_brokers, program, run,
};
use std::io::Write as _;
use std::process::{Command, Stdio};

#[test]
fn a_replica_says_that_it_lives_is_ready_and_delivers() {
    over_both_brokers(&[], |broker, gateway| {
        for (target, body) in [
            ("/healthz", "ok\n"),
            ("/readyz", "ready\n"),
            ("/readyz?delivery", "ready\n"),
        ] {
            let answer = gateway.get(target);
            assert_eq!(
                (answer.status, &*answer.text()),
                (200, body),
                "{broker} {target}"
            );
        }
        gateway.wait_for_metric("tidegate_ready", &[], 1.0);
    });
}

#[test]
fn delivery_is_probed_over_every_partition() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[("redis.partitions", "8")]);
    let before = gateway.get("/readyz?delivery");
    assert_eq!(before.status, 200, "{}", before.text());
    // The replica hears nothing of one partition: what it subscribed to is taken from it.
    let mut acl = redis.connect();
    let denied: redis::RedisResult<()> = redis::cmd("ACL")
        .arg(&[
            "SETUSER",
            "default",
            "resetchannels",
            "&events*",
            "&tidegate:ingest",
        ])
        .arg(&["&tidegate:{0}:*", "&tidegate:{1}:*"])
        .query(&mut acl);
    denied.unwrap();
    gateway.get("/readyz?delivery").problem(503);
    assert_eq!(gateway.get("/readyz").status, 200);
}

#[test]
fn health_and_metrics_can_have_a_listener_of_their_own() {
    let gateway = Gateway::start(&[("ops.listen", "127.0.0.1:0")]);
    let ops = |target: &str| -> Answer {
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        crate::support::exchange(gateway.ops_address().unwrap(), request.as_bytes())
    };
    for target in OPERATORS {
        gateway.get(target).problem(404);
        assert_eq!(ops(target).status, 200, "{target}");
    }
    for target in ["/", "/events", "/topics"] {
        ops(target).problem(404);
    }
    gateway.publish("news", "x");
}

#[test]
fn the_metrics_pass_promtool() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[]);
    gateway.listen(&["news"]);
    gateway.publish("news", "x");
    let metrics = gateway.get("/metrics");
    let kind = metrics.headers.get("content-type");
    assert_eq!(kind, Some("text/plain; version=0.0.4; charset=utf-8"));
    let mut promtool = Command::new(program("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(&metrics.body)
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn a_healthcheck_finds_the_replica_of_its_own_configuration() {
    let (main, ops) = (free_address(), free_address());
    let anywhere = format!("0.0.0.0:{}", ops.port());
    let (main, ops) = (main.to_string(), ops.to_string());
    let config = [("server.listen", main.as_str()), ("ops.listen", &ops)];
    let _gateway = Gateway::start(&config);
    let at = |key: &str, value: &str| {
        let variables = environment(&[(key, value)]);
        let variables: Vec<_> = variables
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        run(&["healthcheck"], &variables)
    };
    assert_eq!(
        at("server.listen", &main).code,
        Some(1),
        "operators are elsewhere"
    );
    assert_eq!(at("ops.listen", &ops).code, Some(0));
    assert_eq!(at("ops.listen", &anywhere).code, Some(0));
    let nobody = free_address().to_string();
    let output = at("ops.listen", &nobody);
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains(&nobody), "{}", output.stderr);
}
