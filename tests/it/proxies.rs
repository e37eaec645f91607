//! Goal: the configurations for production keep the promises: nginx's with TLS and HTTP/2,
//! `HAProxy`'s and Caddy's. Nothing is held back, a stream resumes on any replica, a client that goes
//! is gone everywhere, no secret is written down, limits and reloads do what their comments say.
//!
//! Method: the real programs with the shipped files, in which only addresses, and times that no
//! test can wait for, are replaced; curl as the client, since it speaks HTTP/2 over TLS.

use crate::support::{
    Directory, Gateway, Nginx, OPERATORS, Process, Redis, eventually, fleet, free_address, nginx,
    program, receive_queue, replica_at, send_queue,
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const NAME: &str = "tidegate.localhost";
const ALL: [Kind; 3] = [Kind::Nginx, Kind::Haproxy, Kind::Caddy];
const VERSIONS: [&str; 2] = ["--http1.1", "--http2"];
/// What curl says of an answer that breaks off: over HTTP/1.1, where it has shown what came, and over HTTP/2, where
/// it may have shown nothing.
const BROKEN_OFF: i32 = 18;
const BROKEN_OFF_HTTP2: i32 = 92;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nginx,
    Haproxy,
    Caddy,
}

/// A running proxy with its shipped configuration. Ended on drop.
#[derive(Debug)]
struct Proxy {
    kind: Kind,
    process: Process,
    http: SocketAddr,
    https: SocketAddr,
    directory: Directory,
    reloads: AtomicUsize,
}

/// The shipped text with `changes`, each of which must fit it somewhere.
fn changed(file: &Path, changes: &[(&str, &str)]) -> String {
    let mut text = fs::read_to_string(file).unwrap();
    for (old, new) in changes {
        assert!(text.contains(old), "{} has no {old:?}", file.display());
        text = text.replace(old, new);
    }
    text
}

fn deploy(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(file)
}

impl Proxy {
    /// In front of these three replicas; `changes` are made in the shipped text.
    fn before(kind: Kind, replicas: &[Gateway], changes: &[(&str, &str)]) -> Self {
        let checks = replicas[0].ops_address().map(|ops| ops.port());
        let replicas: Vec<SocketAddr> = replicas.iter().map(Gateway::address).collect();
        let directory = Directory::create();
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let (cert, key) = (cert.pem(), signing_key.serialize_pem());
        nginx::write(&directory.0, "cert.pem", &cert);
        nginx::write(&directory.0, "key.pem", &key);
        nginx::write(&directory.0, "both.pem", &format!("{cert}{key}"));
        let (http, https) = (free_address(), free_address());
        let setup = Setup {
            directory: &directory.0,
            http,
            https,
            replicas: &replicas,
            checks,
            changes,
        };
        let mut command = match kind {
            Kind::Nginx => setup.nginx(),
            Kind::Haproxy => setup.haproxy(),
            Kind::Caddy => setup.caddy(),
        };
        let process = Process::spawn(&format!("{kind:?}"), &mut command).unwrap();
        let proxy = Self {
            kind,
            process,
            http,
            https,
            directory,
            reloads: AtomicUsize::new(0),
        };
        let path = format!("/{kind:?}-health").to_lowercase();
        eventually("the proxy serves", || {
            TcpStream::connect(https).is_ok() && proxy.curl(&[], &path).status == 200
        });
        // HAProxy and Caddy learn by their checks who is there.
        eventually("the proxy knows the replicas", || {
            proxy.curl(&["-X", "OPTIONS"], "/events").status < 500
                && proxy
                    .curl(&[], "/events?max_age=1ms")
                    .text
                    .contains("tidegate.open")
        });
        proxy
    }

    fn url(&self, target: &str) -> String {
        format!("https://{NAME}:{}{target}", self.https.port())
    }

    fn curl_command(&self, arguments: &[&str], target: &str) -> Command {
        let mut command = Command::new(program("curl"));
        command
            .env_clear()
            .args(["--silent", "--show-error", "--no-buffer", "--include"])
            .args(["--max-time", "30", "--resolve"])
            .arg(format!("{NAME}:{}:127.0.0.1", self.https.port()))
            .arg("--cacert")
            .arg(self.directory.0.join("cert.pem"))
            .args(arguments)
            .arg(self.url(target));
        command
    }

    /// One request to its end.
    fn curl(&self, arguments: &[&str], target: &str) -> Said {
        let output = self.curl_command(arguments, target).output().unwrap();
        Said::of(&output)
    }

    /// Publishes; the id.
    fn publish(&self, topic: &str, data: &str) -> String {
        let said = self.curl(&["--data-binary", data], &format!("/events/{topic}"));
        assert_eq!(said.status, 200, "{:?}: {}", self.kind, said.text);
        let body: serde_json::Value = serde_json::from_str(said.body()).unwrap();
        body["id"].as_str().unwrap().to_owned()
    }

    fn open(&self, arguments: &[&str], target: &str) -> Stream {
        let mut command = self.curl_command(arguments, target);
        Stream(Process::spawn("curl", &mut command).unwrap())
    }

    /// Opens a stream and waits until it is live; also the replica that it is on.
    fn listen(&self, arguments: &[&str], target: &str) -> (Stream, String) {
        let stream = self.open(arguments, target);
        let opened = stream.wait_for("data: {\"", "the open event");
        let opened: serde_json::Value =
            serde_json::from_str(opened.trim_start_matches("data: ")).unwrap();
        let replica = opened["replica"]
            .as_str()
            .expect("the open event")
            .to_owned();
        (stream, replica)
    }

    /// Takes the configuration anew; done when new requests are served by it.
    fn reload(&self) {
        let number = self.reloads.fetch_add(1, Ordering::Relaxed) + 1;
        match self.kind {
            Kind::Nginx => {
                let mut command = nginx::command(&self.directory.0);
                let output = command.args(["-s", "reload"]).output().unwrap();
                assert!(output.status.success(), "{output:?}");
                self.wait_for_log("gracefully shutting down", number);
            }
            Kind::Haproxy => {
                let pid = Pid::from_raw(i32::try_from(self.process.id()).unwrap()).unwrap();
                kill_process(pid, Signal::Usr2).unwrap();
                self.wait_for_log("Loading success", number + 1);
            }
            Kind::Caddy => {
                let output = Command::new(program("caddy"))
                    .env_clear()
                    .env("HOME", &self.directory.0)
                    .args(["reload", "--force", "--adapter", "caddyfile", "--config"])
                    .arg(self.directory.0.join("Caddyfile"))
                    .output()
                    .unwrap();
                assert!(output.status.success(), "{output:?}");
            }
        }
    }

    /// Waits until a line with this was written so many times.
    fn wait_for_log(&self, part: &str, times: usize) {
        eventually(part, || {
            let lines = self.written().into_iter();
            lines.filter(|line| line.contains(part)).count() >= times
        });
    }

    fn written(&self) -> Vec<String> {
        let mut lines = self.process.stdout.all();
        lines.extend(self.process.stderr.all());
        lines
    }
}

impl Drop for Proxy {
    /// By SIGTERM, which the first process of nginx and of `HAProxy` passes on to the others. Caddy is
    /// one process, and would wait for its streams.
    fn drop(&mut self) {
        if self.kind != Kind::Caddy {
            self.process.terminate();
            self.process.stderr.wait_for(|_| None::<()>);
        }
    }
}

/// Where a proxy listens, what is behind it, and what is changed in its shipped configuration.
struct Setup<'a> {
    directory: &'a Path,
    http: SocketAddr,
    https: SocketAddr,
    replicas: &'a [SocketAddr],
    /// The port that answers health checks, if it is not that of the replicas.
    checks: Option<u16>,
    changes: &'a [(&'a str, &'a str)],
}

impl Setup<'_> {
    fn nginx(&self) -> Command {
        nginx::write_shared(self.directory, self.replicas);
        let proxy = self.directory.join("tidegate-proxy.conf");
        let (of_proxy, of_main): (Vec<_>, Vec<_>) = self
            .changes
            .iter()
            .copied()
            .partition(|(old, _)| fs::read_to_string(&proxy).unwrap().contains(old));
        fs::write(&proxy, changed(&proxy, &of_proxy)).unwrap();
        let (http, https) = (self.http.to_string(), self.https.to_string());
        let status = free_address().to_string();
        let values = [
            ("NGINX_SERVER_NAME", NAME),
            ("NGINX_HTTP_LISTEN", &http),
            ("NGINX_HTTPS_LISTEN", &https),
            ("NGINX_STATUS_LISTEN", &status),
            ("NGINX_CERTIFICATE", "cert.pem"),
            ("NGINX_CERTIFICATE_KEY", "key.pem"),
            ("NGINX_TRUSTED", "127.0.0.1"),
            ("NGINX_BACKENDS", "127.0.0.1"),
            ("NGINX_STREAMS_PER_ADDRESS", "2"),
            ("NGINX_REQUESTS_PER_SECOND", "1"),
            ("NGINX_WORKER_CONNECTIONS", "1024"),
            ("NGINX_WORKER_FILES", "1224"),
        ];
        let main = self.directory.join("nginx.conf");
        fs::write(&main, nginx::render("production.conf", &values)).unwrap();
        let temporary: String = ["client_body", "proxy", "fastcgi", "scgi", "uwsgi"]
            .map(|kind| format!("{kind}_temp_path {kind};\n"))
            .concat();
        let http_begins = format!("http {{\n{temporary}");
        let mut local = vec![
            // What belongs to the distribution's nginx.
            ("user www-data;\n", ""),
            ("/run/nginx.pid", "nginx.pid"),
            (
                "/var/log/nginx/tidegate.log tidegate buffer=64k flush=1s",
                "/dev/stdout tidegate",
            ),
            ("/var/log/nginx/error.log", "stderr"),
            ("http {\n", http_begins.as_str()),
        ];
        // As the file itself says.
        let old = format!("listen {https} ssl;");
        let new = format!("listen {https} ssl http2;");
        let (old_default, new_default) = (" ssl default_server ", " ssl http2 default_server ");
        if nginx_version() < (1, 25, 1) {
            local.extend([
                ("        http2 on;\n", ""),
                (old.as_str(), new.as_str()),
                (old_default, new_default),
            ]);
        }
        local.extend(of_main);
        fs::write(&main, changed(&main, &local)).unwrap();
        nginx::command(self.directory)
    }

    fn haproxy(&self) -> Command {
        let text = changed(
            &deploy("haproxy/haproxy.cfg"),
            &[("maxconn 100000", "maxconn 1000")],
        );
        let file = self.directory.join("haproxy.cfg");
        fs::write(&file, text).unwrap();
        fs::write(&file, changed(&file, self.changes)).unwrap();
        fs::copy(
            deploy("haproxy/come-back.http"),
            self.directory.join("come-back.http"),
        )
        .unwrap();
        let mut command = Command::new(program("haproxy"));
        command
            .env_clear()
            .env("TIDEGATE_HTTP", self.http.to_string())
            .env("TIDEGATE_HTTPS", self.https.to_string())
            .env("TIDEGATE_CERTIFICATE", self.directory.join("both.pem"))
            .envs((1..).zip(self.replicas).map(|(number, address)| {
                (format!("TIDEGATE_REPLICA_{number}"), address.to_string())
            }))
            .envs(
                self.checks
                    .map(|port| ("TIDEGATE_CHECK_PORT", port.to_string())),
            )
            .args(["-W", "-f"])
            .arg(file);
        command
    }

    fn caddy(&self) -> Command {
        let local = format!(
            "{{\n\tadmin {}\n\tdefault_bind 127.0.0.1\n\thttp_port {}\n\t# Every line",
            free_address(),
            self.http.port()
        );
        let replicas: Vec<String> = self.replicas.iter().map(ToString::to_string).collect();
        let replicas = replicas.join(" ");
        let (cert, key) = (
            self.directory.join("cert.pem"),
            self.directory.join("key.pem"),
        );
        let tls = format!("{} {}", cert.display(), key.display());
        let site = format!("https://{NAME}:{}", self.https.port());
        let text = changed(
            &deploy("caddy/Caddyfile"),
            &[
                ("{\n\t# Every line", local.as_str()),
                // Set here rather than by the environment: a reload by another process reads it again.
                ("{$TIDEGATE_SITE}", &site),
                ("{$TIDEGATE_TLS}", &tls),
                ("{$TIDEGATE_REPLICAS}", &replicas),
            ],
        );
        let file = self.directory.join("Caddyfile");
        fs::write(&file, text).unwrap();
        let decision = self.directory.join("decision.caddy");
        fs::copy(deploy("caddy/decision.caddy"), decision).unwrap();
        if let Some(port) = self.checks {
            let port = port.to_string();
            fs::write(
                &file,
                changed(&file, &[("{$TIDEGATE_CHECK_PORT:0}", &port)]),
            )
            .unwrap();
        }
        fs::write(&file, changed(&file, self.changes)).unwrap();
        let mut command = Command::new(program("caddy"));
        command
            .env_clear()
            .env("HOME", self.directory)
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(file);
        command
    }
}

fn nginx_version() -> (u32, u32, u32) {
    let output = Command::new(nginx::nginx_program())
        .arg("-v")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let version = said.trim().rsplit('/').next().unwrap();
    let mut parts = version.split(['.', ' ']).map(|part| part.parse().unwrap());
    let mut next = || parts.next().unwrap();
    (next(), next(), next())
}

/// What one request was answered.
#[derive(Debug)]
struct Said {
    status: u16,
    text: String,
    /// How curl ended: 0 is a whole answer.
    exit: Option<i32>,
}

impl Said {
    /// From what `curl --include` writes: the last head, and the body.
    fn of(output: &Output) -> Self {
        let text = String::from_utf8_lossy(&output.stdout);
        let status_of = |text: &str| text.split_whitespace().nth(1)?.parse::<u16>().ok();
        let mut text = text.as_ref();
        while let (Some(100), Some((_, rest))) = (status_of(text), text.split_once("\r\n\r\n")) {
            text = rest;
        }
        let (status, text) = (status_of(text), text.to_owned());
        Self {
            status: status.unwrap_or(0),
            text,
            exit: output.status.code(),
        }
    }

    /// The time after which it says to come back, by an answer that breaks off: a clean end is the last word to
    /// many libraries.
    fn told_to_come_back(&self) -> u64 {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(self.exit, Some(BROKEN_OFF), "{self:?}");
        let time = self.body().trim().strip_prefix("retry: ");
        time.and_then(|time| time.parse().ok()).expect(&self.text)
    }

    fn body(&self) -> &str {
        self.text
            .split_once("\r\n\r\n")
            .map_or("", |(_, body)| body)
    }

    fn header(&self, name: &str) -> Option<&str> {
        let (head, _) = self.text.split_once("\r\n\r\n")?;
        head.lines().find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// A stream that curl reads. Dropped, its client is gone.
#[derive(Debug)]
struct Stream(Process);

impl Stream {
    /// The first line that begins so.
    fn wait_for(&self, begin: &str, what: &str) -> String {
        let find = |line: &str| line.starts_with(begin).then(|| line.to_owned());
        let line = self.0.stdout.wait_for(find);
        line.unwrap_or_else(|| panic!("{what} did not come: {:?}", self.text()))
    }

    fn text(&self) -> String {
        self.0.stdout.all().join("\n")
    }

    /// Waits for the event that `publish` returned the id of.
    fn wait_for_event(&self, id: &str) {
        let line = format!("id: {id}");
        let find = |known: &str| (known == line).then_some(());
        let found = self.0.stdout.wait_for(find);
        assert!(found.is_some(), "no event {id}: {}", self.text());
    }

    fn comments(&self) -> usize {
        let lines = self.0.stdout.all().into_iter();
        lines.filter(|line| line.starts_with(':')).count()
    }

    /// Everything up to its end.
    fn rest(mut self) -> String {
        self.0.wait();
        self.text()
    }
}

#[test]
fn each_event_arrives_before_the_next_is_published() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 3, &[]);
    for kind in ALL {
        let proxy = Proxy::before(kind, &replicas, &[]);
        for version in VERSIONS {
            let (stream, _) = proxy.listen(&[version, "--compressed"], "/events/news");
            let head = if version == "--http2" {
                "HTTP/2 200"
            } else {
                "HTTP/1.1 200"
            };
            stream.wait_for(head, "the protocol that was asked for");
            let text = stream.text().to_lowercase();
            assert!(
                text.contains("content-type: text/event-stream"),
                "{kind:?}: {text}"
            );
            assert!(!text.contains("content-encoding"), "{kind:?}: {text}");
            for bytes in [1, 40, 3000, 60_000, 2] {
                let id = proxy.publish("news", &"x".repeat(bytes));
                stream.wait_for_event(&id);
            }
        }
    }
}

#[test]
fn a_stream_resumes_on_another_replica_and_misses_nothing() {
    for kind in ALL {
        let redis = Redis::start();
        let mut replicas = fleet(&redis, 3, &[]);
        let proxy = Proxy::before(kind, &replicas, &[]);
        for version in VERSIONS {
            let (stream, replica) = proxy.listen(&[version], "/events/news");
            let seen = proxy.publish("news", "seen");
            stream.wait_for_event(&seen);
            let at = replicas
                .iter()
                .position(|other| other.metric("tidegate_open_connections", &[]) > 0.5)
                .unwrap();
            replicas[at].kill9();
            assert!(stream.rest().contains(&replica), "{kind:?}");
            let missed = redis.publish("news", "missed", &[]);
            let (stream, other) = proxy.listen(
                &[version, "-H", &format!("Last-Event-ID: {seen}")],
                "/events/news",
            );
            assert_ne!(replica, other, "{kind:?}");
            stream.wait_for_event(&missed);
            assert!(!stream.text().contains("data: seen"), "{kind:?}");
            let new = replica_at(
                replicas[at].address(),
                &redis,
                &format!("{replica}-again"),
                &[],
            );
            new.wait_ready();
            drop(stream);
            replicas[at] = new;
            let open = |replica: &Gateway| replica.metric("tidegate_open_connections", &[]);
            eventually("a client that goes is gone at the replica", || {
                replicas.iter().all(|replica| open(replica) < 0.5)
            });
        }
    }
}

/// Both time-outs of the shipped files, short enough for a test.
const IDLE: [(&str, &str); 1] = [("75s", "2s")];

#[test]
fn heartbeats_keep_a_quiet_stream_open_and_nothing_else_does() {
    let redis = Redis::start();
    let beating = fleet(&redis, 3, &[("stream.heartbeat", "300ms")]);
    let silent = fleet(&redis, 3, &[("stream.heartbeat", "1h")]);
    for kind in ALL {
        let proxy = Proxy::before(kind, &beating, &IDLE);
        let streams = VERSIONS.map(|version| proxy.listen(&[version], "/events/quiet").0);
        for stream in &streams {
            eventually("heartbeats for twice the time-out", || {
                stream.comments() >= 14
            });
        }
        let id = proxy.publish("quiet", "x");
        streams.iter().for_each(|stream| stream.wait_for_event(&id));

        let proxy = Proxy::before(kind, &silent, &IDLE);
        for version in VERSIONS {
            let text = proxy.listen(&[version], "/events/quiet").0.rest();
            assert!(!text.contains("event: news"), "{kind:?}: {text}");
        }
    }
}

#[test]
fn when_no_replica_is_there_a_stream_is_told_when_to_come_back() {
    for kind in ALL {
        let redis = Redis::start();
        let mut replicas = fleet(&redis, 3, &[]);
        // Caddy tries for so long before it gives up.
        let patience: &[(&str, &str)] = match kind {
            Kind::Caddy => &[("lb_try_duration 3s", "lb_try_duration 200ms")],
            Kind::Nginx | Kind::Haproxy => &[],
        };
        let proxy = Proxy::before(kind, &replicas, patience);
        replicas.iter_mut().for_each(Gateway::kill9);
        let (mut times, mut rounds) = (BTreeSet::new(), 0);
        // `HAProxy` says the same to all until its checks have found out that nobody is there.
        eventually("told at once, and different times", || {
            let ask = |version| {
                let origin = "Origin: https://page.test";
                proxy.curl(&[version, "-H", origin], "/events/news")
            };
            let said = ask("--http2");
            assert_eq!(said.exit, Some(BROKEN_OFF_HTTP2), "{kind:?}: {}", said.text);
            let said = ask("--http1.1");
            let time = said.told_to_come_back();
            assert_eq!(
                said.header("content-type"),
                Some("text/event-stream"),
                "{kind:?}"
            );
            let origin = said.header("access-control-allow-origin");
            assert_eq!(origin, Some("https://page.test"), "{kind:?}: {}", said.text);
            assert!((2000..=8000).contains(&time), "{kind:?}: {time}");
            times.insert(time);
            rounds += 1;
            rounds >= 12 && times.len() > 3
        });
        let said = proxy.curl(&["--data", "x"], "/events/news");
        assert!([502, 503].contains(&said.status), "{kind:?}: {}", said.text);
        assert_eq!(said.header("retry-after"), Some("2"), "{kind:?}");
        assert_eq!(
            said.header("content-type"),
            Some("application/problem+json"),
            "{kind:?}"
        );
        assert!(said.body().contains("Idempotency-Key"), "{kind:?}");
    }
}

/// What a client does not take waits in the kernel, towards it and from the replica. Caddy bounds neither, and says so.
#[test]
fn a_reader_that_stops_holds_little_in_the_kernel_of_a_proxy() {
    const EVENTS: usize = 200;
    // The kernel takes twice what is asked for, and the last write whole.
    const HELD_MAX: usize = 2 * 131_072 + 65_536;
    let redis = Redis::start();
    let replicas = fleet(&redis, 3, &[]);
    for (kind, version) in [
        (Kind::Nginx, VERSIONS[0]),
        (Kind::Nginx, VERSIONS[1]),
        (Kind::Haproxy, VERSIONS[0]),
        (Kind::Haproxy, VERSIONS[1]),
    ] {
        let proxy = Proxy::before(kind, &replicas, &[]);
        let (mut stuck, _) = proxy.listen(&[version], "/events/news");
        stuck.0.pause();
        let publish =
            |number: usize| redis.publish("news", &format!("{number}{}", "x".repeat(60_000)), &[]);
        let last = (0..EVENTS).map(publish).last().unwrap();
        let blocked = [("state", "blocked")];
        eventually("it takes nothing any more", || {
            let of = |replica: &Gateway| replica.metric("tidegate_streams_behind", &blocked);
            replicas.iter().any(|replica| of(replica) > 0.5)
        });
        let towards = send_queue(proxy.https.port());
        let from = replicas
            .iter()
            .map(|replica| receive_queue(replica.address().port()));
        let from = from.max().unwrap();
        println!("{kind:?} {version}: {towards} bytes towards the client, {from} from the replica");
        assert!(towards <= HELD_MAX, "{kind:?} {version}: {towards}");
        if kind == Kind::Haproxy {
            assert!(from <= HELD_MAX, "{version}: {from}");
        }
        stuck.0.resume();
        stuck.wait_for_event(&last);
    }
}

/// A proxy to which a refused publish looks like a dead replica sends the next publisher elsewhere, or
/// away. Strangers send at once, or ask and wait, or ask and do not wait, or have more fields than a replica reads.
#[test]
fn refused_bodies_cost_no_other_publisher_anything() {
    for kind in ALL {
        let redis = Redis::start();
        let replicas = fleet(&redis, 3, &[("auth.publish_key", "let-me-in")]);
        // The limits by address are another matter.
        let unlimited: &[(&str, &str)] = match kind {
            Kind::Haproxy => &[("gt 500 ", "gt 1000000 ")],
            _ => &[],
        };
        let proxy = Proxy::before(kind, &replicas, unlimited);
        let file = proxy.directory.0.join("large");
        fs::write(&file, vec![b'x'; 1_000_000]).unwrap();
        let body = format!("@{}", file.display());
        let fields: Vec<String> = (0..120).map(|number| format!("X-{number}: a")).collect();
        let fields = fields.iter().flat_map(|field| ["-H", field]);
        let asks = "Expect: 100-continue";
        let strangers = [
            vec!["-H", "Expect:"],
            vec!["-H", asks],
            vec!["-H", asks, "--expect100-timeout", "0.001"],
            ["-H", "Expect:"].into_iter().chain(fields).collect(),
        ];
        let ask = |version, stranger: &[&str]| {
            let key = "Authorization: Bearer let-me-out";
            let large = ["-H", key, "--data-binary", &body, version];
            proxy.curl(&[&large, stranger].concat(), "/events/news")
        };
        let (count, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let attacks = VERSIONS.map(|version| {
                let (count, is_over, strangers) = (&count, &is_over, &strangers);
                scope.spawn(move || {
                    let mut answers = Vec::new();
                    for stranger in strangers.iter().cycle() {
                        if is_over.load(Ordering::Relaxed) {
                            break;
                        }
                        answers.push(ask(version, stranger));
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    answers
                })
            });
            let key = "Authorization: Bearer let-me-in";
            let good = ["-H", key, "--data-binary", "x"];
            let mut answers = Vec::new();
            while answers.len() < 40 || count.load(Ordering::Relaxed) < 30 {
                let output = proxy.curl_command(&good, "/events/news").output().unwrap();
                let said = Said::of(&output);
                answers.push((said.status, output));
            }
            is_over.store(true, Ordering::Relaxed);
            answers.retain(|(status, _)| *status != 200);
            // Before its first checks HAProxy answers so, but nothing is published yet.
            let failed = |line: &String| {
                let bad = [" 502 ", " 503 ", "\"status\":502", "\"status\":503"];
                line.contains("POST") && bad.iter().any(|status| line.contains(status))
            };
            let failed: Vec<_> = proxy.written().into_iter().filter(failed).collect();
            assert_eq!(failed, [""; 0], "{kind:?}: no replica is taken for dead");
            let unusual = |line: &String| !line.contains(" 401 ") && !line.contains(" 200 ");
            let written: Vec<_> = proxy.written().into_iter().filter(unusual).collect();
            assert!(
                answers.is_empty(),
                "{kind:?}: good publishes that were not answered 200: {answers:?}; {written:#?}; {:#?}",
                replicas.iter().map(Gateway::log).collect::<Vec<_>>()
            );
            for answer in attacks
                .into_iter()
                .flat_map(|attack| attack.join().unwrap())
            {
                // HAProxy refuses so many fields itself. It and Caddy do not read all that a client sends after its
                // answer, so curl may have seen none.
                let is_unread = kind != Kind::Nginx && answer.status == 0;
                let expected = is_unread || [400, 401, 431].contains(&answer.status);
                assert!(expected, "{kind:?}: {answer:?}; {written:#?}");
            }
        });
        assert_eq!(ask("--http1.1", &strangers[0]).status, 401, "{kind:?}");
    }
}

/// Where no failure counts, something else finds out that a replica is dead.
#[test]
fn a_dead_replica_is_given_no_publish_for_long() {
    for kind in ALL {
        let redis = Redis::start();
        let mut replicas = fleet(&redis, 3, &[]);
        let proxy = Proxy::before(kind, &replicas, &[]);
        replicas[0].kill9();
        let publish = |version| proxy.curl(&[version, "--data-binary", "x"], "/events/news");
        let mut in_a_row = 0;
        // Caddy cannot send a body again: until its checks have found the dead one, some are told to try again.
        eventually("it is asked no more", || {
            let said = publish(VERSIONS[0]);
            in_a_row = if said.status == 200 { in_a_row + 1 } else { 0 };
            if in_a_row == 0 {
                assert_eq!((kind, said.status), (Kind::Caddy, 502), "{}", said.text);
                assert_eq!(said.header("retry-after"), Some("2"), "{}", said.text);
            }
            in_a_row >= 9
        });
        for version in VERSIONS.into_iter().cycle().take(12) {
            let said = publish(version);
            assert_eq!(said.status, 200, "{kind:?} {version}: {}", said.text);
        }
    }
}

/// A stream takes no body. What a client sends all the same costs nobody else a stream.
#[test]
fn a_stream_with_a_body_takes_no_replica_out() {
    for kind in ALL {
        let redis = Redis::start();
        let replicas = fleet(&redis, 3, &[]);
        let proxy = Proxy::before(kind, &replicas, &[]);
        let file = proxy.directory.0.join("large");
        fs::write(&file, vec![b'x'; 1_000_000]).unwrap();
        let body = format!("@{}", file.display());
        let chunked = "Transfer-Encoding: chunked";
        for version in VERSIONS {
            for header in ["Expect:", chunked].into_iter().cycle().take(8) {
                let large = ["-X", "GET", "-H", header, "--data-binary", &body, version];
                // It may be refused, or the body dropped on the way, and the stream opened.
                let said = proxy.curl(&large, "/events/news?max_age=1ms");
                assert!(
                    [0, 200, 400, 413].contains(&said.status),
                    "{kind:?} {version}: {}",
                    said.text
                );
                let text = proxy.curl(&[version], "/events/news?max_age=1ms").text;
                assert!(text.contains("tidegate.open"), "{kind:?} {version}: {text}");
            }
        }
    }
}

/// Three replicas whose operators have a port of their own: the same one at each address, as where each
/// replica has a machine.
fn fleet_with_operations(redis: &Redis, config: &[(&str, &str)]) -> Vec<Gateway> {
    let (main, ops) = (free_address().port(), free_address().port());
    let launched: Vec<Gateway> = (1..=3)
        .map(|number| {
            let at = |port| SocketAddr::from(([127, 0, 0, 10 + number], port));
            let ops = at(ops).to_string();
            let config = [&[("ops.listen", ops.as_str())], config].concat();
            replica_at(at(main), redis, &format!("r{number}"), &config)
        })
        .collect();
    launched.iter().for_each(Gateway::wait_ready);
    launched
}

#[test]
fn a_replica_that_is_going_gets_no_new_stream() {
    // nginx asks no replica, so it is one to it where they would answer.
    for (kind, has_operations) in ALL
        .map(|kind| (kind, false))
        .into_iter()
        .chain([(Kind::Haproxy, true), (Kind::Caddy, true)])
    {
        let redis = Redis::start();
        let slow = [("drain.time", "24h")];
        let mut replicas = if has_operations {
            fleet_with_operations(&redis, &slow)
        } else {
            fleet(&redis, 3, &slow)
        };
        let proxy = Proxy::before(kind, &replicas, &[]);
        let open: Vec<_> = (0..6)
            .map(|_| proxy.listen(&["--http2"], "/events/news"))
            .collect();
        let names: BTreeSet<&String> = open.iter().map(|(_, replica)| replica).collect();
        assert_eq!(names.len(), 3, "{kind:?}: spread over all");
        replicas[0].terminate();
        replicas[0].wait_for_metric("tidegate_ready", &[], 0.0);
        let mut taken = 0;
        eventually("others take over", || {
            // One that was asked all the same sends the client away at once: it comes back.
            let text = proxy.curl(&["--http2"], "/events/news?max_age=1ms").text;
            assert!(text.starts_with("HTTP/2 200"), "{kind:?}: {text}");
            assert!(!text.contains("\"r1\""), "{kind:?}: {text}");
            taken += usize::from(text.contains("tidegate.open"));
            taken >= 3
        });
        // What is open stays, on the replica that is going as well.
        let id = proxy.publish("news", "x");
        open.iter()
            .for_each(|(stream, _)| stream.wait_for_event(&id));
    }
}

#[test]
fn no_token_is_written_down_and_operators_paths_are_not_passed_on() {
    let redis = Redis::start();
    for kind in ALL {
        let mut replicas = fleet(&redis, 3, &[]);
        let proxy = Proxy::before(kind, &replicas, &[]);
        for path in OPERATORS {
            assert_eq!(proxy.curl(&[], path).status, 404, "{kind:?} {path}");
            assert_eq!(replicas[0].get(path).status, 200, "{path}");
        }
        let secrets = [
            "-H",
            "Authorization: Bearer hush",
            "-H",
            "Cookie: a=hush",
            "-e",
            "https://hush/",
        ];
        let ask = |way: &str| {
            let mut arguments = secrets.to_vec();
            let query = "token=hush&access_token=hush&ticket=hush";
            proxy.curl(&arguments, &format!("/events/{way}?{query}&max_age=1ms"));
            arguments.extend(["--data", "hush"]);
            proxy.curl(&arguments, &format!("/events/{way}-post?{query}"));
            let written = |part: &str| proxy.written().iter().any(|line| line.contains(part));
            eventually("both are in the log", || {
                written(&format!("/events/{way}\"")) && written(&format!("/events/{way}-post\""))
            });
        };
        ask("answered");
        replicas.iter_mut().for_each(Gateway::kill9);
        ask("unanswered");
        for line in proxy.written() {
            assert!(!line.contains("hush"), "{kind:?}: {line}");
        }
        // The time that a stream was open is.
        let duration = match kind {
            Kind::Nginx => " seconds=",
            Kind::Haproxy => " ms=",
            Kind::Caddy => "\"duration\":",
        };
        let lines = proxy.written();
        let line = lines
            .iter()
            .find(|line| line.contains("/events/answered\""))
            .unwrap();
        assert!(line.contains(duration), "{kind:?}: {line}");
    }
}

/// The blocks of docs/auth.md in this language, in order. tests/it/decision.rs asks more of them, over plain HTTP.
fn of_the_page_about_rights(language: &str) -> Vec<String> {
    let begin = format!("\n```{language}\n");
    let blocks = include_str!("../../docs/auth.md").split(&begin);
    let blocks = blocks
        .skip(1)
        .map(|rest| rest.split_once("```\n").unwrap().0.to_owned());
    blocks.collect()
}

#[test]
fn an_application_decides_over_tls_and_http_2_as_well() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 3, &[]);
    for kind in [Kind::Nginx, Kind::Caddy] {
        // Not those whose session is over, and nobody the topic `secret`.
        let application = Nginx::with(
            "set $asked \"$http_tidegate_topic$http_tidegate_topics\";
             if ($asked ~ \"secret\") { return 403; }
             if ($http_cookie = \"session=over\") { return 401; }
             return 204;",
        );
        let there =
            |block: String| block.replace("127.0.0.1:3000", &application.address().to_string());
        let (http, server, log) = (
            "include tidegate-http.conf;",
            "include tidegate-server.conf;",
            "\tlog\n",
        );
        let proxy = if kind == Kind::Nginx {
            let [upstream, ask] = &of_the_page_about_rights("nginx")[..] else {
                panic!("two blocks for nginx");
            };
            let both = format!("{http}\n{}", there(upstream.clone()));
            let changes = [(http, &*both), (server, &*format!("{ask}{server}"))];
            Proxy::before(kind, &replicas, &changes)
        } else {
            let [ask] = &of_the_page_about_rights("caddy")[..] else {
                panic!("one block for Caddy");
            };
            let both = format!("{log}{}", there(ask.clone()));
            Proxy::before(kind, &replicas, &[(log, &*both)])
        };
        let (stream, _) = proxy.listen(&["--http2"], "/events/news");
        for target in ["/events/news", "/events?topic=news", "/topics/news/events"] {
            let over = proxy.curl(&["-H", "Cookie: session=over"], target);
            assert_eq!(over.status, 401, "{kind:?} {target}: {}", over.text);
            assert!(!over.text.contains("tidegate.open"), "{kind:?}");
        }
        for target in [
            "/events/secret",
            "/events?topic=news&topic=secret",
            "/events//secret",
        ] {
            for version in VERSIONS {
                let said = proxy.curl(&[version, "--path-as-is"], target);
                assert_eq!(said.status, 403, "{kind:?} {target}");
            }
        }
        stream.wait_for_event(&proxy.publish("news", "x"));
        // Nobody can be asked: a stream is not ended for good by that.
        drop(application);
        let said = proxy.curl(&["--http1.1"], "/events/news");
        said.told_to_come_back();
        let said = proxy.curl(&["--http2"], "/events/news");
        assert_eq!(said.exit, Some(BROKEN_OFF_HTTP2), "{kind:?}: {said:?}");
        let said = proxy.curl(&["--data", "x"], "/events/news");
        assert_eq!(said.status, 503, "{kind:?}: {}", said.text);
        stream.wait_for_event(&redis.publish("news", "y", &[]));
    }
}

#[test]
fn plain_http_is_sent_to_https() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 3, &[]);
    for kind in ALL {
        let proxy = Proxy::before(kind, &replicas, &[]);
        let url = format!("http://{}/events/news?last=1", proxy.http);
        let output = Command::new(program("curl"))
            .args(["-s", "-i", "-H", &format!("Host: {NAME}"), &url])
            .output()
            .unwrap();
        let said = Said::of(&output);
        assert_eq!(said.status, 308, "{kind:?}: {}", said.text);
        let to = said.header("location").unwrap();
        assert!(to.starts_with(&format!("https://{NAME}")), "{kind:?}: {to}");
        assert!(to.ends_with("/events/news?last=1"), "{kind:?}: {to}");
    }
}

/// Time that the old workers have, short enough for a test. Caddy has none, and never cuts.
fn kept(kind: Kind) -> &'static [(&'static str, &'static str)] {
    match kind {
        Kind::Nginx | Kind::Haproxy => &[("65m", "8s")],
        Kind::Caddy => &[],
    }
}

#[test]
fn a_reload_cuts_no_stream_before_its_time() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 3, &[]);
    for kind in ALL {
        let proxy = Proxy::before(kind, &replicas, kept(kind));
        let old = VERSIONS.map(|version| proxy.listen(&[version], "/events/news").0);
        proxy.reload();
        let (new, _) = proxy.listen(&["--http2"], "/events/news");
        for _ in 0..3 {
            let id = proxy.publish("news", "x");
            new.wait_for_event(&id);
            old.iter().for_each(|stream| stream.wait_for_event(&id));
        }
        // Then the old ones are cut, and the new one is not.
        if kind != Kind::Caddy {
            old.into_iter().for_each(|stream| drop(stream.rest()));
        }
        let id = proxy.publish("news", "x");
        new.wait_for_event(&id);
    }
}

/// What a balancer in front of the proxy says of its client.
fn from(address: &str) -> [String; 2] {
    ["-H".to_owned(), format!("X-Forwarded-For: {address}")]
}

#[test]
fn nginx_limits_each_address_and_sends_no_stream_away_for_good() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 3, &[]);
    let proxy = Proxy::before(Kind::Nginx, &replicas, &[("burst=200", "burst=20")]);
    let listen = |address: &str| {
        let [flag, header] = from(address);
        proxy.listen(&["--http2", &flag, &header], "/events/news").0
    };
    let ask = |arguments: &[&str], address: &str, target: &str| {
        let [flag, header] = from(address);
        proxy.curl(&[arguments, &[&flag, &header]].concat(), target)
    };
    // Two streams of one address; the third is told to come back. What stands before the address
    // that the balancer saw is hearsay.
    for (own, same, other) in [
        ("192.0.2.1", "198.51.100.9, 192.0.2.1", "192.0.2.2"),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1"),
    ] {
        let open = [listen(own), listen(same)];
        for address in [own, same] {
            ask(&["--http1.1"], address, "/events/news").told_to_come_back();
        }
        let said = ask(&["--http2"], own, "/events/news");
        assert_eq!(said.exit, Some(BROKEN_OFF_HTTP2), "{said:?}");
        proxy.wait_for_log("limits=REJECTED/", 3);
        proxy.wait_for_log(" away=limited ", 3);
        drop(listen(other));
        // A reload does not forget them.
        proxy.reload();
        ask(&["--http1.1"], own, "/events/news").told_to_come_back();
        let [first, second] = open;
        drop(first);
        eventually("the free place is found", || {
            let said = ask(&[], own, "/events/news?max_age=1ms");
            said.body().contains("tidegate.open")
        });
        drop(second);
    }
    // Requests: a burst passes, then the address is told to wait; others are not.
    let busy = "192.0.2.7";
    // No answer at all is the reload: a worker that goes closes what it has not read yet.
    let refused = (0..60)
        .map(|_| ask(&[], busy, "/topics"))
        .find(|said| ![0, 200].contains(&said.status))
        .expect("a limit");
    assert_eq!(refused.status, 429, "{}", refused.text);
    assert_eq!(refused.header("retry-after"), Some("2"));
    assert_eq!(
        refused.header("content-type"),
        Some("application/problem+json")
    );
    assert!(
        refused.body().contains("\"status\":429"),
        "{}",
        refused.text
    );
    ask(&["--http1.1"], busy, "/events/news").told_to_come_back();
    assert_eq!(ask(&[], "192.0.2.8", "/topics").status, 200);
    for _ in 0..40 {
        assert_eq!(
            ask(&[], "127.0.0.1", "/topics").status,
            200,
            "a publisher of ours"
        );
    }
    let is_its_own = |line: &String| line.contains(" 192.0.2.7 \"GET /topics\" 429 ");
    assert!(
        proxy.written().iter().any(is_its_own),
        "{:?}",
        proxy.written()
    );
}

#[test]
fn haproxy_limits_each_address_and_sends_no_stream_away_for_good() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 3, &[]);
    let changes = [
        ("sc0_conn_cur gt 200", "sc0_conn_cur gt 2"),
        ("gt 500", "gt 40"),
    ];
    let proxy = Proxy::before(Kind::Haproxy, &replicas, &changes);
    let open: Vec<_> = (0..2)
        .map(|_| proxy.listen(&["--http2"], "/events/news"))
        .collect();
    let said = proxy.curl(&["--http1.1"], "/events/news");
    said.told_to_come_back();
    drop(open);
    eventually("the free place is found", || {
        let said = proxy.curl(&[], "/events/news?max_age=1ms");
        said.body().contains("tidegate.open")
    });
    let refused = (0..80)
        .map(|_| proxy.curl(&[], "/topics"))
        .find(|said| said.status != 200)
        .expect("a limit");
    assert_eq!(refused.status, 429, "{}", refused.text);
    assert_eq!(refused.header("retry-after"), Some("2"));
}
