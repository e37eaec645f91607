//! Goal: what is shipped to watch the proxy works: nginx says how many clients it has, to operators alone; a stream
//! that it sends away for want of a replica can be counted; a probe tells such an answer from a stream.
//!
//! Method: a real nginx with the shipped files, and Prometheus' own programs with theirs: promtool, `mtail` over the
//! access log, `blackbox_exporter` through nginx. That alerts fire for what these count is held by the stories in
//! `deploy/prometheus/tests`.

use crate::support::{
    Directory, End, Gateway, Nginx, Process, eventually, exchange, free_address, program,
};
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A file of `deploy/prometheus`.
fn shipped(file: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus");
    PathBuf::from(folder).join(file)
}

fn get(address: SocketAddr, target: &str) -> crate::support::Answer {
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    exchange(address, request.as_bytes())
}

/// The value of a metric without labels.
fn value(exposition: &str, name: &str) -> f64 {
    let line = exposition.lines().find_map(|line| line.strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {exposition}"));
    line.trim().parse().expect("a number")
}

#[test]
fn operators_and_nobody_else_see_how_many_clients_nginx_has() {
    let gateway = Gateway::start(&[]);
    let nginx = Nginx::before(std::slice::from_ref(&gateway));
    let active = || {
        let metrics = get(nginx.status(), "/metrics");
        let kind = metrics.headers.get("content-type");
        assert_eq!(kind, Some("text/plain; version=0.0.4; charset=utf-8"));
        value(&metrics.text(), "nginx_connections_active")
    };
    let _streams: Vec<_> = (0..3).map(|_| nginx.listen("/events/news")).collect();
    eventually("three clients, and the one that asks", || active() > 3.5);
    let metrics = get(nginx.status(), "/metrics").text();
    assert!(value(&metrics, "nginx_connections_writing") > 2.5);
    let mut promtool = Command::new(program("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    let mut said = promtool.stdin.take().unwrap();
    said.write_all(metrics.as_bytes()).unwrap();
    drop(said);
    assert!(promtool.wait().unwrap().success(), "{metrics}");
    // As exporters read it.
    let plain = get(nginx.status(), "/stub_status").text();
    assert!(plain.starts_with("Active connections: "), "{plain}");
    assert!(plain.contains("server accepts handled requests"), "{plain}");
    assert_eq!(get(nginx.status(), "/events/news").status, 404);
    for target in ["/metrics", "/stub_status"] {
        let answer = nginx.get(target);
        assert_eq!(answer.status, 404);
        assert!(!answer.text().contains("connections"), "{target}");
    }
}

/// What mtail has counted in these lines by the shipped program.
fn counted(lines: &[String]) -> String {
    let directory = Directory::create();
    let log = directory.0.join("access.log");
    std::fs::write(&log, lines.join("\n") + "\n").unwrap();
    let output = Command::new(program("mtail"))
        .args(["--one_shot", "--one_shot_format=prometheus", "--progs"])
        .arg(shipped("nginx.mtail"))
        .arg("--logs")
        .arg(&log)
        .output()
        .expect("mtail can be run");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_stream_that_nginx_sends_away_is_counted_from_its_log() {
    let nginx = Nginx::before_addresses(&[free_address(), free_address()]);
    for _ in 0..2 {
        let mut told = nginx.open("/events/news", &[]);
        assert_eq!(told.rest(), (vec![], End::Cut));
        assert!(told.text().starts_with("retry: "), "{}", told.text());
    }
    nginx.post("/events/news", &[], "x").problem(502);
    nginx.wait_for_access("\"POST /events/news\" 502");
    let gateway = Gateway::start(&[]);
    let with_replica = Nginx::before(std::slice::from_ref(&gateway));
    assert_eq!(with_replica.get("/events/news?max_age=1ms").status, 200);
    let line = with_replica.wait_for_access("GET /events/news");
    assert!(line.contains(" away=- "), "{line}");
    let lines = [nginx.written(), with_replica.written()].concat();
    let counted = counted(&lines);
    let expected = "nginx_streams_sent_away_total{prog=\"nginx.mtail\",reason=\"no_replica\"} 2";
    assert!(counted.contains(expected), "{counted}\n{lines:?}");
    assert!(!counted.contains("limited"), "{counted}");
}

#[test]
fn the_probe_tells_a_stream_from_the_advice_to_come_back() {
    let address = free_address();
    let mut exporter = Command::new(program("prometheus-blackbox-exporter"));
    exporter
        .arg(format!(
            "--config.file={}",
            shipped("blackbox.yml").display()
        ))
        .arg(format!("--web.listen-address={address}"));
    let _exporter = Process::spawn("blackbox_exporter", &mut exporter).unwrap();
    eventually("the exporter listens", || {
        TcpStream::connect(address).is_ok()
    });
    let probe = |nginx: &Nginx| {
        let target = format!("http://{}/events/tidegate-probe", nginx.address());
        let target = format!("/probe?module=tidegate_stream&target={target}%3Fmax_age=1s");
        value(&get(address, &target).text(), "probe_success ") > 0.5
    };
    let gateway = Gateway::start(&[]);
    assert!(probe(&Nginx::before(std::slice::from_ref(&gateway))));
    assert!(!probe(&Nginx::before_addresses(&[free_address()])));
    // Whoever answers for nginx answers with a page.
    assert!(!probe(&Nginx::with("return 200 'event: tidegate.open\n';")));
}
