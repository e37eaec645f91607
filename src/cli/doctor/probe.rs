//! Through the proxy: a stream as a browser opens it, and an event that goes its way.

use super::args::DoctorArgs;
use super::findings::{Finding, Findings};
use super::key::{Key, key_for};
use super::watch::{Got, QUEUE, Stream, read};
use crate::broker::redis::Access;
use crate::client::{Authorities, chosen_protocol, encode, send, text};
use crate::config::Config;
use hyper::http::response::Parts;
use hyper::{StatusCode, Version};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Time for a connection, a head, an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A stream begins, and an event arrives, within this time, or somebody holds it back.
const SOON: Duration = Duration::from_secs(3);
/// An event takes no longer than this where nobody holds it back.
const LATE: Duration = Duration::from_secs(1);
/// What is published, a piece at a time, to push held bytes out.
const PIECE: usize = 4096;
const PIECES: usize = 64;
const BETWEEN: Duration = Duration::from_millis(100);

/// The gateway as it is reached from outside.
struct Outside<'a> {
    base: &'a str,
    topic: String,
    key: Option<String>,
    authorities: Authorities,
    redis: Option<&'a Access>,
    prefix: &'a str,
}

pub(super) async fn inspect(url: &str, args: &DoctorArgs, config: &Config) -> Vec<Finding> {
    let mut f = Findings::of("proxy");
    let key = match key_for(url, args.key.as_deref(), config) {
        Key::Sent(key) => Some(key),
        Key::None => None,
        Key::Kept { why, advice } => {
            f.warning("key", why, advice);
            None
        }
    };
    let outside = Outside {
        base: url.trim_end_matches('/'),
        topic: format!("tidegate-doctor-{:08x}", rand::random::<u32>()),
        key,
        authorities: Authorities::from(args.ca.clone()),
        redis: config.redis.access.as_ref(),
        prefix: &config.redis.prefix,
    };
    match chosen_protocol(outside.base, &outside.authorities).await {
        Err(why) => {
            f.fault("reach", why.to_string(), "check --url, and with a private authority --ca");
            return f.all;
        }
        Ok(Some(chosen)) if chosen == "h2" => f.ok("http", "HTTP/2 over TLS"),
        Ok(Some(chosen)) => f.warning(
            "http",
            format!("{chosen} over TLS: a browser opens six connections to an origin, and more streams wait"),
            "serve HTTP/2 (nginx: http2 on)",
        ),
        Ok(None) => f.ok("http", "no TLS, so HTTP/1.1: six streams of one browser"),
    }
    outside.inspect(&mut f, args.watch, config).await;
    outside.look_at_operations(&mut f).await;
    outside.clean_up().await;
    f.all
}

impl Outside<'_> {
    async fn inspect(&self, f: &mut Findings, watch: Duration, config: &Config) {
        let began = Instant::now();
        let mut stream = self.open(&[("accept-encoding", "gzip, br, zstd, deflate")]);
        let mut held = 0;
        let Some(head) = self.first(f, &mut stream, &mut held).await else {
            return;
        };
        let Ok(()) = judge_head(f, &head) else { return };
        let Some((cursor, replica)) = self.opened(f, &mut stream, &mut held).await else {
            return;
        };
        if held == 0 {
            let took = began.elapsed().as_millis();
            f.ok(
                "first_bytes",
                format!("after {took} ms, by replica {replica}"),
            );
        }
        let marker = format!("probe-{:08x}", rand::random::<u32>());
        let id = match self.publish(&marker).await {
            Ok(id) => id,
            Err(why) => {
                f.warning(
                    "publish",
                    why,
                    "give --key (TIDEGATE_PUBLISH_KEY), or --redis-url to publish directly to Redis",
                );
                return;
            }
        };
        if held == 0 {
            self.arrives(f, &mut stream, &id).await;
        }
        self.resumes(f, &cursor, &id).await;
        stays(f, &mut stream, watch, config).await;
    }

    /// The head, pushed out by more events if it does not come by itself.
    async fn first(
        &self,
        f: &mut Findings,
        stream: &mut Stream,
        held: &mut usize,
    ) -> Option<Box<Parts>> {
        match self.push_out(stream, held).await {
            Some(Got::Head(head)) => Some(head),
            Some(Got::End(why)) => {
                f.fault(
                    "stream",
                    why,
                    "check --url, and that the proxy's replicas are ready",
                );
                None
            }
            _ => {
                f.fault("stream", format!("no answer within {SOON:?}{}", if *held > 0 { ", even after events were published" } else { "" }), "see what the proxy does with GET /events; its log, and /readyz of the replicas, say more");
                None
            }
        }
    }

    /// The first event of the stream itself: cursor, and who tells it.
    async fn opened(
        &self,
        f: &mut Findings,
        stream: &mut Stream,
        held: &mut usize,
    ) -> Option<(String, String)> {
        loop {
            match self.push_out(stream, held).await {
                Some(Got::Event { kind, id, data }) if kind == "tidegate.open" => {
                    if *held > 0 {
                        buffered(f, *held * PIECE);
                    }
                    let opened: serde_json::Value = serde_json::from_str(&data).unwrap_or_default();
                    let replica = opened.get("replica").and_then(|name| name.as_str());
                    let replica = replica.unwrap_or_default().to_owned();
                    return Some((id, replica));
                }
                Some(Got::Event { kind, .. }) => {
                    f.fault(
                        "stream",
                        format!("it begins with {kind:?} and not with tidegate.open"),
                        "check that --url leads to Tidegate; the probe needs stream.open_event",
                    );
                    return None;
                }
                Some(Got::Heartbeat | Got::Head(_)) => {}
                Some(Got::End(why)) => {
                    f.fault("stream", format!("it ended before it began: {why}"), "no replica takes streams: look at /readyz and at tidegate_connections_refused_total of each");
                    return None;
                }
                None if *held < PIECES => {
                    f.fault(
                        "stream",
                        "the head arrived, and nothing after it; nothing can be published that would push it out",
                        "look at what is said of Redis and of the key; whether a proxy holds bytes back is not known until then",
                    );
                    return None;
                }
                None => {
                    f.fault("buffering", format!("the head arrived, but no byte of the stream, even after {} KiB", PIECES * PIECE / 1024), "turn off buffering for /events: nginx proxy_buffering off and proxy_http_version 1.1; other proxies have a similar setting");
                    return None;
                }
            }
        }
    }

    /// What comes next; if nothing does, events are published until something does.
    async fn push_out(&self, stream: &mut Stream, held: &mut usize) -> Option<Got> {
        if let Ok(got) = tokio::time::timeout(SOON, stream.recv()).await {
            return got;
        }
        let piece = "x".repeat(PIECE);
        while *held < PIECES {
            // What cannot be published cannot push.
            self.publish(&piece).await.ok()?;
            *held += 1;
            if let Ok(got) = tokio::time::timeout(BETWEEN, stream.recv()).await {
                return got;
            }
        }
        None
    }

    async fn arrives(&self, f: &mut Findings, stream: &mut Stream, id: &str) {
        let published = Instant::now();
        let mut held = 0;
        loop {
            match self.push_out(stream, &mut held).await {
                Some(Got::Event { kind, id: shown, .. }) if kind.is_empty() && shown == id => {
                    let took = published.elapsed();
                    if held > 0 {
                        buffered(f, held * PIECE);
                    } else if took > LATE {
                        f.fault("event", format!("it took {} ms", took.as_millis()), "see tidegate_delivery_latency_seconds and fanout_sweep_seconds of the replicas; if they are short, the proxy holds events back");
                    } else {
                        f.ok("event", format!("published, and received after {} ms", took.as_millis()));
                    }
                    return;
                }
                Some(Got::End(why)) => return f.fault("event", format!("the stream ended before the event arrived: {why}"), "see the proxy's log"),
                Some(_) => {}
                None => return f.fault("event", "it was published and did not arrive", "check tidegate_redis_up{role=\"live\"} of the replicas, and that all use one Redis and one prefix"),
            }
        }
    }

    /// Comes back as an `EventSource` does after a drop.
    async fn resumes(&self, f: &mut Findings, cursor: &str, id: &str) {
        let mut stream = self.open(&[("last-event-id", cursor)]);
        let mut held = 0;
        loop {
            match self.push_out(&mut stream, &mut held).await {
                Some(Got::Event {
                    kind, id: shown, ..
                }) if kind.is_empty() && shown == id => {
                    return f.ok("resume", "Last-Event-ID brings the missed events");
                }
                Some(Got::Head(_) | Got::Heartbeat) => {}
                Some(Got::Event { kind, .. }) if kind.starts_with("tidegate.") => {}
                _ => {
                    return f.fault("resume", "with Last-Event-ID, the missed events do not arrive", "let the request header Last-Event-ID through; each reconnect loses events without it");
                }
            }
        }
    }

    /// Opens a stream; what comes of it is told as it comes.
    fn open(&self, headers: &[(&'static str, &str)]) -> Stream {
        let (tell, stream) = mpsc::channel(QUEUE);
        let url = format!("{}/events/{}", self.base, self.topic);
        let mut headers: Vec<(&'static str, String)> = headers
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        headers.push(("accept", "text/event-stream".into()));
        let authorities = self.authorities.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "lives as long as this short command"
        )]
        tokio::spawn(async move {
            let ended = read(&authorities, &url, &headers, &tell).await;
            // Whoever listened may have gone.
            drop(tell.send(Got::End(ended)).await);
        });
        stream
    }

    /// Through the proxy; where that does not take it, through Redis. The id.
    async fn publish(&self, data: &str) -> Result<String, String> {
        let url = format!("{}/events/{}", self.base, self.topic);
        let answer = self.request("POST", &url, data.to_owned()).await;
        let why = match answer {
            Ok((StatusCode::OK, body)) => {
                let body: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
                match body.get("id").and_then(|id| id.as_str()) {
                    Some(id) => return Ok(id.to_owned()),
                    None => {
                        "POST is answered without an id: the topic is not logged (log.overrides)"
                            .into()
                    }
                }
            }
            Ok((status, body)) => {
                let body: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
                let detail = body.get("detail").and_then(|detail| detail.as_str());
                let detail = detail.map(|detail| format!(": {detail}"));
                format!("POST is answered {status}{}", detail.unwrap_or_default())
            }
            Err(why) => why,
        };
        let Some(access) = self.redis else {
            return Err(why);
        };
        let mut connection = access.connect(PATIENCE).await?;
        let mut cmd = redis::cmd("FCALL");
        cmd.arg(format!("{}_publish", self.prefix))
            .arg(0)
            .arg(&self.topic)
            .arg(data);
        let id: Result<String, _> = cmd.query_async(&mut connection).await;
        id.map_err(|second| format!("{why}; past the proxy: {second}"))
    }

    async fn request(
        &self,
        method: &str,
        url: &str,
        body: String,
    ) -> Result<(StatusCode, String), String> {
        let bearer = self.key.as_ref().map(|key| format!("Bearer {key}"));
        let headers: Vec<(&str, &str)> = bearer
            .iter()
            .map(|b| ("authorization", b.as_str()))
            .collect();
        let ask = async {
            let answer = send(&self.authorities, method, url, &headers, body.into()).await?;
            Ok((answer.status(), text(answer).await?))
        };
        let answer = tokio::time::timeout(PATIENCE, ask).await;
        answer.unwrap_or_else(|_| Err(format!("{url} does not answer")))
    }

    /// What is an operator's is not everybody's.
    async fn look_at_operations(&self, f: &mut Findings) {
        let mut open = Vec::new();
        for (path, sign) in [("/metrics", "tidegate_"), ("/streams", "\"streams\"")] {
            let url = format!("{}{path}", self.base);
            let answer = self.request("GET", &url, String::new()).await;
            if answer.is_ok_and(|(status, body)| status == StatusCode::OK && body.contains(sign)) {
                open.push(path);
            }
        }
        if open.is_empty() {
            f.ok("operations", "/metrics and /streams are not public");
        } else {
            f.warning(
                "operations",
                format!("{} can be read by everybody", open.join(" and ")),
                "let the proxy answer 404, or set ops.listen",
            );
        }
    }

    /// What was published goes; what is left of the topic expires.
    async fn clean_up(&self) {
        let url = format!("{}/topics/{}", self.base, encode(&self.topic));
        drop(self.request("DELETE", &url, String::new()).await);
    }
}

fn buffered(f: &mut Findings, bytes: usize) {
    f.fault(
        "buffering",
        format!("bytes are held back: they arrived only after {} KiB more were published", bytes / 1024),
        "turn off buffering for /events: nginx proxy_buffering off, proxy_http_version 1.1 and no proxy_ignore_headers X-Accel-Buffering; other proxies have a similar setting",
    );
}

/// What a proxy has made of the head. Without a stream there is nothing more to look at.
fn judge_head(f: &mut Findings, head: &Parts) -> Result<(), ()> {
    let header = |name: &str| {
        head.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    if head.status != StatusCode::OK {
        f.fault("status", format!("GET /events is answered {}: an EventSource stops for ever", head.status), "let the proxy pass /events to the replicas, and answer a stream that no replica takes with 200 and retry:, as in nginx/");
        return Err(());
    }
    if head.version == Version::HTTP_10 {
        f.fault(
            "version",
            "the answer is HTTP/1.0",
            "let the proxy use HTTP/1.1 to clients and to replicas",
        );
    }
    let kind = header("content-type");
    if !kind.starts_with("text/event-stream") {
        f.fault(
            "content_type",
            format!("{kind:?}: an EventSource stops for ever"),
            "check that --url leads to Tidegate, and that nothing rewrites Content-Type",
        );
        return Err(());
    }
    let encoding = header("content-encoding");
    if !encoding.is_empty() {
        f.fault("compression", format!("the stream is compressed ({encoding}): events wait until a block is full"), "exclude text/event-stream from compression at the proxy (nginx: gzip_types; others: an exception by type)");
        return Err(());
    }
    f.ok("compression", "none");
    let cache = header("cache-control");
    if cache.contains("no-transform") && (cache.contains("no-store") || cache.contains("no-cache"))
    {
        f.ok("headers", format!("Cache-Control: {cache}"));
    } else {
        f.warning(
            "headers",
            format!("Cache-Control is {cache:?}, but the gateway sent no-store, no-transform"),
            "let the proxy pass it on: caches and compressors on the way obey it",
        );
    }
    if !header("content-length").is_empty() {
        f.fault(
            "headers",
            "the stream has a Content-Length",
            "turn off what collects answers before it passes them on",
        );
    }
    Ok(())
}

/// Watches the stream in silence, as an idle page does.
async fn stays(f: &mut Findings, stream: &mut Stream, watch: Duration, config: &Config) {
    let (began, mut heartbeats) = (Instant::now(), 0_u32);
    let until = began + watch;
    loop {
        match tokio::time::timeout_at(until, stream.recv()).await {
            Ok(Some(Got::End(why))) => {
                let lived = began.elapsed();
                let advice = "raise the idle timeout on the way (nginx: proxy_read_timeout 75s; check what is in front of it, too), or lower stream.heartbeat below it";
                let said = format!(
                    "the stream was cut after {} s of silence and {heartbeats} heartbeats: {why}",
                    lived.as_secs()
                );
                if lived >= config.stream.age_max.mul_f64(0.75) {
                    f.warning(
                        "stays",
                        said,
                        "nothing, if that is stream.age_max; else give a longer one",
                    );
                } else {
                    f.fault("stays", said, advice);
                }
                return;
            }
            Ok(Some(Got::Heartbeat)) => heartbeats += 1,
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => break,
        }
    }
    let (seconds, pause) = (watch.as_secs(), config.stream.heartbeat);
    if heartbeats == 0 && watch > pause * 2 {
        f.fault("stays", format!("no heartbeat in {seconds} s, but stream.heartbeat is {pause:?}"), "something on the way holds small pieces back, or the replicas have another configuration: give it with --config");
    } else if heartbeats == 0 {
        f.warning(
            "stays",
            format!("open for {seconds} s, without a heartbeat"),
            format!(
                "to see whether a silent stream is cut, watch for longer than {:?}: --watch",
                pause * 2
            ),
        );
    } else {
        f.ok(
            "stays",
            format!("open for {seconds} s of silence, with {heartbeats} heartbeats"),
        );
    }
}
