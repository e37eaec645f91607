//! Goal: where an application decides who may read and write, by way of nginx or Caddy, nobody gets round it; and where it
//! does not answer, no stream is ended for good and nothing is let through.
//!
//! Method: the real proxies with the shipped files and the lines of docs/auth.md, an application of the test's own that
//! notes what it is asked, and requests byte by byte. What a replica opens is compared with what was asked.

use crate::support::{
    Directory, Gateway, Headers, NDJSON, Nginx, Process, Sse, choices, connect, eventually,
    exchange, free_address, nginx, program, request, seed,
};
use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use sse_client::http::Head;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

const PAGE: &str = include_str!("../../docs/auth.md");
/// Where the page has its application.
const SHOWN: &str = "127.0.0.1:3000";
/// What may be read by nobody but a replica.
const HIDDEN: &str = "what nobody may read";

// --- an application ---------------------------------------------------------------------------------------------------

/// What the application was asked once.
#[derive(Clone, Debug)]
struct Asked {
    line: String,
    action: String,
    topics: BTreeSet<String>,
    headers: Headers,
}

impl Asked {
    fn of(head: &str) -> Self {
        let (line, _) = head.split_once("\r\n").unwrap();
        // As an answer, a request's fields are read by the same reader.
        let (_, fields) = head.split_once("\r\n").unwrap();
        let mut bytes = format!("HTTP/1.1 200 OK\r\n{fields}").into_bytes();
        let headers = Head::take(&mut bytes).unwrap().unwrap().headers;
        // Some servers make one name of `_` and `-`.
        let field = |name: &str| {
            let values = headers.0.iter().filter(|(other, value)| {
                other.replace('_', "-").eq_ignore_ascii_case(name) && !value.is_empty()
            });
            let values: Vec<&String> = values.map(|(_, value)| value).collect();
            assert!(values.len() < 2, "{name}: {values:?}");
            values.first().map_or("", |value| value.as_str()).to_owned()
        };
        let (one, several) = (field("tidegate-topic"), field("tidegate-topics"));
        assert!(one.is_empty() != several.is_empty(), "{head}");
        let names = format!("{one}{several}");
        let topics: BTreeSet<String> = names.split("&topic=").map(decoded).collect();
        for topic in &topics {
            // Decoded twice it is the same.
            assert_eq!(&decoded(topic), topic);
        }
        Self {
            line: line.to_owned(),
            action: field("tidegate-action"),
            topics,
            headers,
        }
    }

    /// The status that it is answered; none, if it is not.
    fn answer(&self) -> Option<u16> {
        let cookie = self.headers.get("cookie").unwrap_or_default();
        let has = |topic: &str| self.topics.contains(topic);
        Some(match () {
            () if has("slow") => return None,
            () if has("fails") => 500,
            () if has("moved") => 302,
            () if cookie.contains("session=over") => 401,
            () if has("secret") => 403,
            () => 204,
        })
    }
}

/// A name with each `%XX` as the byte that it stands for.
fn decoded(name: &str) -> String {
    let mut parts = name.split('%');
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at(2);
        bytes.push(u8::from_str_radix(digits, 16).unwrap());
        bytes.extend(rest.as_bytes());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An application that decides. Ended on drop, and then nobody listens at its address.
#[derive(Debug)]
struct Application {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Application {
    fn start() -> Self {
        let listener = TcpListener::bind(free_address()).unwrap();
        let (asked, is_over) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        Self {
            address: listener.local_addr().unwrap(),
            asked: Arc::clone(&asked),
            is_over: Arc::clone(&is_over),
            thread: Some(std::thread::spawn(move || {
                serve(&listener, &asked, &is_over);
            })),
        }
    }

    /// What it was asked since the last time.
    fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address));
        let ended = self.thread.take().unwrap().join();
        assert!(
            ended.is_ok() || std::thread::panicking(),
            "it was asked well"
        );
    }
}

fn serve(listener: &TcpListener, asked: &Mutex<Vec<Asked>>, is_over: &AtomicBool) {
    // Who is not answered waits until the end.
    let mut kept = Vec::new();
    for socket in listener.incoming() {
        let mut socket = socket.unwrap();
        if is_over.load(Ordering::Acquire) {
            return;
        }
        let (mut head, mut bytes) = (Vec::new(), [0; 4096]);
        while !head.ends_with(b"\r\n\r\n") {
            let read = socket.read(&mut bytes).unwrap_or(0);
            if read == 0 {
                break;
            }
            head.extend_from_slice(&bytes[..read]);
        }
        if head.is_empty() {
            continue;
        }
        let one = Asked::of(&String::from_utf8(head).unwrap());
        let answer = one.answer();
        asked.lock().unwrap().push(one);
        let Some(status) = answer else {
            kept.push(socket);
            continue;
        };
        let answer = format!(
            "HTTP/1.1 {status} Said\r\nContent-Length: 0\r\nConnection: close\r\nLocation: /login\r\n\r\n"
        );
        // Whoever has asked may be gone.
        drop(socket.write_all(answer.as_bytes()));
    }
}

// --- proxies ----------------------------------------------------------------------------------------------------------

/// A proxy that asks an application.
#[derive(Debug)]
enum Proxy {
    Nginx(Nginx),
    Caddy(
        SocketAddr,
        #[expect(dead_code, reason = "ended on drop")] (Process, Directory),
    ),
}

impl Proxy {
    /// One of each kind.
    fn both(replicas: &[Gateway], application: SocketAddr) -> [Self; 2] {
        [
            Self::nginx(replicas, application),
            Self::caddy(replicas, application),
        ]
    }

    fn nginx(replicas: &[Gateway], application: SocketAddr) -> Self {
        let [upstream, ask] = blocks("nginx")[..] else {
            panic!("two blocks for nginx");
        };
        let upstream = upstream.replace(SHOWN, &application.to_string());
        let (http, server) = (
            "include tidegate-http.conf;\n",
            "include tidegate-server.conf;\n",
        );
        let changes = [
            (http, &*format!("{http}{upstream}")),
            (server, &*format!("{ask}{server}")),
        ];
        Self::Nginx(Nginx::before_with(replicas, &changes))
    }

    fn caddy(replicas: &[Gateway], application: SocketAddr) -> Self {
        let (address, directory) = (free_address(), Directory::create());
        let [ask] = blocks("caddy")[..] else {
            panic!("one block for Caddy");
        };
        let ask = ask.replace(SHOWN, &application.to_string());
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/caddy");
        let mut text = fs::read_to_string(deploy.join("Caddyfile")).unwrap();
        let admin = free_address();
        let replicas: Vec<String> = replicas
            .iter()
            .map(|one| one.address().to_string())
            .collect();
        for (old, new) in [
            (
                "{\n\t# Every line",
                &*format!("{{\n\tadmin {admin}\n\tdefault_bind 127.0.0.1\n\t# Every line"),
            ),
            ("{$TIDEGATE_SITE}", &*format!("http://:{}", address.port())),
            ("\ttls {$TIDEGATE_TLS}\n", ""),
            ("{$TIDEGATE_REPLICAS}", &replicas.join(" ")),
            ("\tlog\n", &*format!("\tlog\n{ask}")),
        ] {
            assert!(text.contains(old), "the Caddyfile has no {old:?}");
            text = text.replace(old, new);
        }
        nginx::write(&directory.0, "Caddyfile", &text);
        fs::copy(
            deploy.join("decision.caddy"),
            directory.0.join("decision.caddy"),
        )
        .unwrap();
        let mut command = Command::new(program("caddy"));
        command
            .env_clear()
            .env("HOME", &directory.0)
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(directory.0.join("Caddyfile"));
        let process = Process::spawn("caddy", &mut command).unwrap();
        let proxy = Self::Caddy(address, (process, directory));
        eventually("Caddy serves", || TcpStream::connect(address).is_ok());
        let is_served = || exchange(address, &get("/caddy-health")).status == 200;
        eventually("Caddy is well", is_served);
        // It asks them whether they are ready.
        eventually("Caddy knows the replicas", || {
            let asks = [("Cookie", "session=a-long-random-text")];
            let stream = sent("GET", "/events/user:42?max_age=1ms", &asks, "");
            let other = sent("OPTIONS", "/events", &[], "");
            exchange(address, &other).status == 204 && proxy.ask(&stream).opened.is_some()
        });
        proxy
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Nginx(_) => "nginx",
            Self::Caddy(..) => "Caddy",
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Nginx(nginx) => nginx.address(),
            Self::Caddy(address, _) => *address,
        }
    }

    /// Sends bytes, and reads the answer: of a stream, until it is open.
    fn ask(&self, bytes: &[u8]) -> Heard {
        let mut stream = Sse::exchange(connect(self.address()), bytes);
        let status = stream.status();
        let kind = stream.headers().get("content-type").map(str::to_owned);
        if bytes.starts_with(b"HEAD ") {
            return Heard {
                status,
                opened: None,
                retry: false,
                text: String::new(),
            };
        }
        if kind.as_deref() != Some("text/event-stream") {
            drop(stream.rest());
            return Heard {
                status,
                opened: None,
                retry: false,
                text: stream.text(),
            };
        }
        let mut opened = None;
        while let Some(event) = stream.try_next_event() {
            if event.event == "tidegate.open" {
                let topics = event.json()["topics"].clone();
                opened = Some(serde_json::from_value(topics).unwrap());
                break;
            }
        }
        Heard {
            status,
            retry: opened.is_none() && stream.retry().is_some(),
            opened,
            text: stream.text(),
        }
    }
}

/// The answer to one request.
#[derive(Debug)]
struct Heard {
    status: u16,
    /// The topics of the stream, if one was opened.
    opened: Option<BTreeSet<String>>,
    /// It was told to come back.
    retry: bool,
    text: String,
}

/// The blocks of the page in this language, in order.
fn blocks(language: &str) -> Vec<&'static str> {
    let begin = format!("\n```{language}\n");
    let (_, part) = PAGE.split_once("\n## The application decides\n").unwrap();
    let (part, _) = part.split_once("\n## ").unwrap();
    part.split(&begin)
        .skip(1)
        .map(|rest| rest.split_once("```\n").unwrap().0)
        .collect()
}

fn get(target: &str) -> Vec<u8> {
    sent("GET", target, &[], "")
}

fn sent(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    request(method, target, headers, body.as_bytes())
}

/// A gateway with something to hide.
fn gateway() -> Gateway {
    let gateway = Gateway::start(&[]);
    gateway.publish("secret", HIDDEN);
    gateway
}

fn assert_hidden(gateway: &Gateway, about: &str) {
    let events = gateway.get("/topics/secret/events").json();
    assert_eq!(events["events"].as_array().unwrap().len(), 1, "{about}");
}

// --- tests ------------------------------------------------------------------------------------------------------------

#[test]
fn an_application_is_asked_once_for_each_request_about_what_it_does() {
    let replicas = [gateway()];
    let application = Application::start();
    for proxy in Proxy::both(&replicas, application.address) {
        application.take();
        let topics = |names: &[&str]| -> BTreeSet<String> {
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        // Those with 64 topics that a stream may have at most.
        let many: Vec<String> = (0..64).map(|number| format!("t{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let all = format!("/events?topic={}&max_age=1ms", many.join("&topic="));
        let table: [(&str, &str, &str, &[&str]); 17] = [
            ("GET", "/events/news?max_age=1ms", "subscribe", &["news"]),
            ("HEAD", "/events/news", "subscribe", &["news"]),
            ("GET", "/events?max_age=1ms&_=1", "subscribe", &["events"]),
            (
                "GET",
                "/events?topic=news&since=5m&max_age=1ms",
                "subscribe",
                &["news"],
            ),
            (
                "GET",
                "/events?topic=a&topic=b%2Fc&topic=a&max_age=1ms",
                "subscribe",
                &["a", "b/c"],
            ),
            ("GET", &all, "subscribe", &many),
            (
                "GET",
                "/events/user:42?max_age=1ms",
                "subscribe",
                &["user:42"],
            ),
            (
                "GET",
                "/events/user%3A42?max_age=1ms",
                "subscribe",
                &["user:42"],
            ),
            (
                "GET",
                "/events/%E4%BD%A0%20%26topic%3Db?max_age=1ms",
                "subscribe",
                &["你 &topic=b"],
            ),
            ("GET", "/topics/news/events?limit=1", "subscribe", &["news"]),
            ("GET", "/topics/news", "list", &["news"]),
            ("GET", "/topics/events", "list", &["events"]),
            ("DELETE", "/topics/nothing", "delete", &["nothing"]),
            ("POST", "/events/news", "publish", &["news"]),
            ("POST", "/events/news?type=a%20b", "publish", &["news"]),
            ("POST", "/events/job?end", "end", &["job"]),
            ("POST", "/events/job2?type=x&end=true", "end", &["job2"]),
        ];
        for (method, target, action, expected) in table {
            let heard = proxy.ask(&sent(method, target, &[("Cookie", "session=a")], ""));
            let about = format!("{} {method} {target}: {heard:?}", proxy.name());
            // The other proxy may have ended the topic, or asked for one that is not there.
            assert!([200, 404, 409].contains(&heard.status), "{about}");
            let [asked] = &application.take()[..] else {
                panic!("asked once: {about}");
            };
            assert_eq!(asked.line, "GET /tidegate/decide HTTP/1.1", "{about}");
            assert_eq!(asked.action, action, "{about}");
            assert_eq!(asked.topics, topics(expected), "{about}");
            assert_eq!(asked.headers.get("cookie"), Some("session=a"), "{about}");
            assert_eq!(asked.headers.get("x-forwarded-for"), Some("127.0.0.1"));
            if method == "GET" && target.starts_with("/events") {
                assert_eq!(heard.opened, Some(topics(expected)), "{about}");
            }
        }
        // What it says is what counts.
        let table = [
            ("GET", "/events/secret", "", 403),
            ("GET", "/events?topic=news&topic=secret", "", 403),
            ("GET", "/events?topic=secret&topic=news", "", 403),
            ("GET", "/topics/secret/events", "", 403),
            ("POST", "/events/secret", "", 403),
            ("DELETE", "/topics/secret", "", 403),
            ("GET", "/events/news", "session=over", 401),
            ("POST", "/events/news", "session=over", 401),
        ];
        for (method, target, cookie, status) in table {
            let heard = proxy.ask(&sent(method, target, &[("Cookie", cookie)], ""));
            assert_eq!(heard.status, status, "{} {target}", proxy.name());
            assert_eq!(application.take().len(), 1, "{} {target}", proxy.name());
        }
        assert_hidden(&replicas[0], proxy.name());
    }
}

#[test]
fn nobody_gets_round_the_application() {
    let replicas = [gateway()];
    let application = Application::start();
    let (event, batch) = ("forged", "{\"topic\":\"secret\",\"data\":\"forged\"}\n");
    let path = |target: &str| get(target);
    let with = |headers: &[(&str, &str)]| sent("GET", "/events/secret?since=earliest", headers, "");
    let bare = |text: &str| text.replace('\n', "\r\n").into_bytes();
    let mut tries: Vec<Vec<u8>> = [
        // Paths that are tidied up, or not.
        "/events//secret",
        "//events/secret",
        "/events/./secret",
        "/events/news/../secret",
        "/events/%2e%2e/events/secret",
        "/events/news%2F..%2Fsecret",
        "/events%2Fsecret",
        "/%65vents/secret",
        "/events/%73ecret",
        "/events/%53ECRET",
        "/events/%2573ecret",
        "/events/secret%00",
        "/events/secret/",
        "/events/secret.",
        "/events/secret%2E",
        "/events/secret%20",
        "/events/secret;x",
        "/events;x/secret",
        "/events/news#/../secret",
        "/events\\secret",
        "/EVENTS/secret",
        "/Events/Secret",
        "/topics//secret/events",
        "/topics/secret/events/",
        "/topics/secret%2Fevents",
        "/topics",
        "/topics?after=s",
        "/",
        "/events/secret/events",
        // Targets of other forms.
        "http://localhost/events/secret",
        "http://localhost/events?topic=secret",
        "http://localhost?topic=secret",
        // Queries in which the topic hides.
        "/events?topic=news&topic=secret&since=earliest",
        "/events?topic=secret&topic=news&since=earliest",
        "/events?topic=%73ecret",
        "/events?topic=news&%74opic=secret",
        "/events?%74opic=secret",
        "/events?since=earliest&topic=secret",
        "/events?since=earliest&%74opic=secret",
        "/events?topic=news;topic=secret",
        "/events?topic=news%26topic=secret",
        "/events?topic=news%26topic%3Dsecret",
        "/events?topic=news,secret",
        "/events?topic=news&Topic=secret",
        "/events?topic=news&topics=secret",
        "/events?topic[]=secret",
        "/events?topic%5B%5D=secret",
        "/events?topic=news&channel=secret",
        "/events?topic=secret+",
        "/events?topic=+secret",
        "/events?=secret&topic=secret",
        "/events?&topic=secret",
        "/events??topic=secret",
        "/events?topic=news?topic=secret",
        "/events/news?topic=secret",
        "/events/news?%74opic=secret",
        "/events?",
    ]
    .iter()
    .map(|target| path(target))
    .collect();
    tries.extend([
        // Methods.
        sent("HEAD", "/events/secret", &[], ""),
        sent("OPTIONS", "/events/secret", &[], ""),
        sent("get", "/events/secret", &[], ""),
        sent("PUT", "/events/secret", &[], event),
        sent("POST", "/events/secret", &[("X-HTTP-Method-Override", "GET")], event),
        sent("POST", "/events/secret", &[("X-HTTP-Method-Override", "OPTIONS")], event),
        sent("OPTIONS", "/events/secret", &[("X-HTTP-Method-Override", "POST")], event),
        sent("POST", "/events//secret", &[], event),
        sent("POST", "/events/news?topic=secret", &[], event),
        sent("POST", "/events/news?%74opic=secret", &[], event),
        sent("POST", "/events/%73ecret", &[], event),
        sent("POST", "/events", &[NDJSON], batch),
        sent("POST", "/events?partial", &[NDJSON], batch),
        sent("POST", "/events/news", &[NDJSON], batch),
        sent("DELETE", "/topics/secret", &[], ""),
        sent("DELETE", "/topics//secret", &[], ""),
        // What a client says of its own request.
        with(&[("Tidegate-Topic", "news")]),
        with(&[("Tidegate-Topics", "news")]),
        with(&[("Tidegate-Action", "list")]),
        with(&[("Tidegate_Topic", "news"), ("tidegate_Topics", "news")]),
        with(&[("TIDEGATE_Topic", "news"), ("tidegate_action", "list")]),
        with(&[("X-Original-URI", "/events/news"), ("X-Original-Method", "OPTIONS")]),
        with(&[("X-Forwarded-Uri", "/events/news"), ("X-Forwarded-Method", "OPTIONS")]),
        with(&[("X-Rewrite-URL", "/events/news"), ("X-Original-URL", "/events/news")]),
        with(&[("X-Forwarded-For", "127.0.0.1"), ("Via", "1.1 nginx")]),
        with(&[("Tidegate-Failover", "1")]),
        with(&[("Connection", "close, Tidegate-Topic, Tidegate-Action, Cookie")]),
        with(&[("Upgrade", "websocket"), ("Connection", "Upgrade")]),
        with(&[("Expect", "100-continue")]),
        with(&[("Range", "bytes=0-")]),
        bare("GET /events/secret HTTP/1.1\nHost: localhost\nHost: other\nConnection: close\n\n"),
        bare("GET http://other/events/secret HTTP/1.1\nHost: localhost\nConnection: close\n\n"),
        bare("GET /events/secret HTTP/1.0\n\n"),
        bare(
            "POST /events/news HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked\nContent-Length: 4\nConnection: close\n\n0\n\nPOST /events/secret HTTP/1.1\nHost: localhost\nContent-Length: 6\n\nforged",
        ),
        bare(
            "GET /events/news?max_age=1ms HTTP/1.1\nHost: localhost\nContent-Length: 0\nTransfer-Encoding: chunked\nConnection: close\n\n0\n\n",
        ),
    ]);
    for proxy in Proxy::both(&replicas, application.address) {
        application.take();
        for bytes in &tries {
            let heard = proxy.ask(bytes);
            let request = String::from_utf8_lossy(bytes);
            assert_asked(&proxy, &application, &request, &heard);
            assert_hidden(
                &replicas[0],
                &format!("{}: {request}: {heard:?}", proxy.name()),
            );
        }
    }
}

/// What was opened was asked for, and granted; nothing hidden was told.
fn assert_asked(proxy: &Proxy, application: &Application, request: &str, heard: &Heard) {
    let asked = application.take();
    let about = format!("{}: {request}: {heard:?}: {asked:?}", proxy.name());
    assert!(!heard.text.contains(HIDDEN), "{about}");
    let is_preflight = request.starts_with("OPTIONS ");
    assert!(asked.len() <= 1, "{about}");
    let Some(asked) = asked.first() else {
        let is_refused = (400..500).contains(&heard.status);
        assert!(
            is_refused || is_preflight && heard.text.is_empty(),
            "{about}"
        );
        return;
    };
    if asked.answer() != Some(204) {
        assert!([401, 403].contains(&heard.status), "{about}");
        return;
    }
    let topics = &asked.topics;
    if let Some(opened) = &heard.opened {
        assert_eq!(opened, topics, "{about}");
        assert_eq!(asked.action, "subscribe", "{about}");
    }
    if let Ok(answer) = serde_json::from_str::<serde_json::Value>(&heard.text)
        && let Some(topic) = answer["topic"].as_str()
    {
        assert!(topics.contains(topic), "{about}");
    }
}

/// A target begins as one of these.
const PLAIN: [&str; 7] = [
    "/events",
    "/events/news",
    "/events?topic=news",
    "/events?topic=news&topic=a",
    "/events?topic=a&since=earliest",
    "/events?topic=secret&topic=a",
    "/topics/news/events",
];

/// And these are put somewhere into it.
const PIECES: [&str; 40] = [
    "/events",
    "/events/",
    "/topics/",
    "/",
    "//",
    "/..",
    "/.",
    "%2F",
    "%2f",
    "%2e",
    "news",
    "secret",
    "%73ecret",
    "SECRET",
    "a",
    "?",
    "?topic=",
    "&topic=",
    "&",
    "topic=",
    "%74opic=",
    "topic",
    "=",
    "+",
    "%25",
    "%26",
    "%26topic%3D",
    "#",
    ";",
    ",",
    "since=earliest",
    "&since=earliest",
    "?since=earliest",
    "&max_age=1ms",
    "\\",
    "%00",
    "%E4%BD%A0",
    "%ff",
    "tidegate.connections",
    ".",
];

#[test]
fn what_a_replica_opens_is_what_the_application_was_asked() {
    let replicas = [gateway()];
    let application = Application::start();
    let mut random = choices(seed(), 0);
    let mut opened = 0;
    for proxy in Proxy::both(&replicas, application.address) {
        application.take();
        for _ in 0..1500 {
            let mut target = (*PLAIN.choose(&mut random).unwrap()).to_owned();
            for _ in 0..random.random_range(0..4) {
                let at = random.random_range(0..=target.len());
                target.insert_str(at, PIECES.choose(&mut random).unwrap());
            }
            let method = ["GET", "GET", "GET", "POST"].choose(&mut random).unwrap();
            let heard = proxy.ask(&sent(method, &target, &[("Connection", "close")], ""));
            assert_asked(&proxy, &application, &format!("{method} {target}"), &heard);
            opened += u32::from(heard.opened.is_some());
        }
        assert_hidden(&replicas[0], proxy.name());
    }
    assert!(opened > 100, "{opened} streams");
}

#[test]
fn without_a_decision_streams_come_back_and_whoever_publishes_is_told_to_try_again() {
    let replicas = [gateway()];
    let application = Application::start();
    let proxies = Proxy::both(&replicas, application.address);
    let assert_undecided = |topic: &str| {
        for proxy in &proxies {
            let about = format!("{} {topic}", proxy.name());
            for target in [
                format!("/events/{topic}"),
                format!("/events?topic=a&topic={topic}"),
            ] {
                let heard = proxy.ask(&get(&target));
                assert_eq!(heard.status, 200, "{about}: {heard:?}");
                assert!(heard.retry, "{about}: {heard:?}");
            }
            for bytes in [
                sent("POST", &format!("/events/{topic}"), &[], "x"),
                get(&format!("/topics/{topic}/events")),
            ] {
                let answer = exchange(proxy.address(), &bytes);
                assert_eq!(answer.status, 503, "{about}: {}", answer.text());
                assert_eq!(answer.headers.get("retry-after"), Some("2"), "{about}");
                assert_eq!(answer.json()["status"], 503, "{about}");
            }
            let length = replicas[0].get(&format!("/topics/{topic}")).status;
            assert_eq!(length, 404, "{about}: nothing is published");
        }
    };
    for topic in ["fails", "moved", "slow"] {
        assert_undecided(topic);
    }
    // What is open stays open.
    let open: Vec<Sse> = proxies
        .iter()
        .map(|proxy| {
            let mut stream = Sse::exchange(connect(proxy.address()), &get("/events/news"));
            stream.opened();
            stream
        })
        .collect();
    let address = application.address;
    drop(application);
    eventually("it is away", || TcpStream::connect(address).is_err());
    assert_undecided("news2");
    let id = replicas[0].publish("news", "x");
    for mut stream in open {
        assert_eq!(stream.next_event().id(), id);
    }
}

#[test]
fn the_program_of_the_page_decides() {
    let [shown] = blocks("python")[..] else {
        panic!("one program");
    };
    let sentence = "anyone who can reach this address may publish";
    assert!(PAGE.contains(&format!("open_publishing = \"{sentence}\"")));
    let replicas = [Gateway::start(&[("auth.open_publishing", sentence)])];
    let address = free_address();
    let (folder, port) = (Directory::create(), address.port().to_string());
    fs::write(folder.0.join("decide.py"), shown.replace("3000", &port)).unwrap();
    let mut python = Command::new("python3");
    let python = python.arg("decide.py").current_dir(&folder.0);
    let _program = Process::spawn("decide.py", python).unwrap();
    eventually("it listens", || TcpStream::connect(address).is_ok());
    let [block] = blocks("sh")[..] else {
        panic!("one block of commands");
    };
    let expected = [
        "\"topics\":[\"news\",\"user:42\"]",
        "{\"topic\":\"user:42\",\"id\":\"",
        " 403",
        " 401",
    ];
    for proxy in Proxy::both(&replicas, address) {
        for (command, part) in block.lines().zip(expected) {
            let command = command.replace("127.0.0.1:8080", &proxy.address().to_string());
            let command = command.replace("curl ", "curl --silent --include ");
            let said = Command::new("bash")
                .args(["-c", &command])
                .output()
                .unwrap();
            let said = String::from_utf8(said.stdout).unwrap();
            assert!(said.contains(part), "{}: {command}\n{said}", proxy.name());
        }
        assert_eq!(block.lines().count(), expected.len());
    }
}

/// A parameter that is not let through would be refused without need; one too many would not be looked at.
#[test]
fn the_proxies_know_every_parameter_of_a_stream() {
    let document = include_str!("../../docs/openapi.json");
    let document: serde_json::Value = serde_json::from_str(document).unwrap();
    let names = document["paths"]["/events/{topic}"]["get"]["parameters"]
        .as_array()
        .unwrap();
    let followed = names.iter().map(|name| {
        let reference = name["$ref"].as_str().unwrap();
        document
            .pointer(reference.strip_prefix('#').unwrap())
            .unwrap()
    });
    let in_query = followed.filter(|parameter| parameter["in"] == "query");
    let names = in_query.map(|parameter| parameter["name"].as_str().unwrap());
    // What pages add so that nothing is cached.
    let names: Vec<&str> = names.chain(["_"]).collect();
    let group = format!("(?:{})", names.join("|"));
    for text in [
        include_str!("../../nginx/tidegate-decision-http.conf"),
        include_str!("../../deploy/caddy/decision.caddy"),
    ] {
        let of_streams = text
            .lines()
            .filter(|line| line.contains(" /events") && line.contains("(?:GET|HEAD)"));
        let mut count = 0;
        for line in of_streams {
            assert!(line.contains(&group), "{group}: {line}");
            count += 1;
        }
        assert!(count >= 2, "{text}");
    }
}
