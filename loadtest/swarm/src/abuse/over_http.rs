//! What can be done with no more than the address of the proxy.

use super::Scale;
use super::crowd::{Tally, crowd};
use super::prepare::{STALLED, TOPICS_MAX, deep_name};
use crate::cluster::Cluster;
use crate::event::topic_name;
use crate::http::{self, Request};
use crate::redis_link::RedisLink;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

/// What a reader that stops reads at most: the kernel keeps no more for it.
const SMALL_BUFFER: u32 = 4096;
/// Bytes of a body that nobody wants.
const UNWANTED: usize = 1_000_000;
/// Time for an answer to something raw.
const ANSWER: Duration = Duration::from_secs(10);

pub(super) async fn list_topics(
    cluster: &Cluster,
    scale: Scale,
    until: Instant,
) -> Result<String, String> {
    let address = cluster.nginx.address.clone();
    let tally = crowd(scale.clients, 20, until, move |client, time| {
        let address = address.clone();
        async move {
            let limit = if client % 2 == 0 { 1 } else { 1000 };
            let after = format!("many{}", time % 100);
            get(&address, &format!("/topics?limit={limit}&after={after}")).await
        }
    });
    tally.await.only(&["200"])
}

pub(super) async fn read_last(
    cluster: &Cluster,
    scale: Scale,
    until: Instant,
) -> Result<String, String> {
    let target = format!("{}&last=1000&limit=1000&max_age=2s", deep_topics());
    read(cluster, scale, until, target).await
}

pub(super) async fn read_from_far_back(
    cluster: &Cluster,
    scale: Scale,
    until: Instant,
) -> Result<String, String> {
    let cursor = first_id(cluster).await?;
    let target = format!(
        "{}&last_event_id={cursor}&limit=1000&max_age=2s",
        deep_topics()
    );
    read(cluster, scale, until, target).await
}

async fn read(
    cluster: &Cluster,
    scale: Scale,
    until: Instant,
    target: String,
) -> Result<String, String> {
    let address = cluster.nginx.address.clone();
    let tally = crowd(scale.clients / 2, 4, until, move |_, _| {
        let (address, target) = (address.clone(), target.clone());
        async move { get(&address, &target).await }
    });
    tally.await.only(&["200"])
}

pub(super) async fn ask_for_names(
    cluster: &Cluster,
    scale: Scale,
    until: Instant,
) -> Result<String, String> {
    let address = cluster.nginx.address.clone();
    let tally = crowd(scale.clients, 25, until, move |client, time| {
        let address = address.clone();
        async move {
            let names = (0..TOPICS_MAX).map(|name| format!("topic=name-{client}-{time}-{name}"));
            let target = format!("/events?{}", names.collect::<Vec<_>>().join("&"));
            let opened = http::send(&address, request(&target), None).await;
            opened.map_or_else(|why| no_answer(&why), |answer| answer.status().to_string())
        }
    });
    tally.await.only(&["200"])
}

pub(super) async fn stop_reading(
    cluster: &Cluster,
    scale: Scale,
    until: Instant,
) -> Result<String, String> {
    let target = format!("{}&since=earliest", deep_topics());
    let (mut held, mut tally) = (Vec::new(), Tally::default());
    for _ in 0..scale.clients * 10 {
        if Instant::now() >= until {
            break;
        }
        match http::send(&cluster.nginx.address, request(&target), Some(SMALL_BUFFER)).await {
            Ok(answer) => {
                tally.add(answer.status());
                held.push(answer);
            }
            Err(why) => tally.add(no_answer(&why)),
        }
    }
    sleep_until(until).await;
    drop(held);
    tally.only(&["200"])
}

pub(super) async fn leave_unfinished(
    cluster: &Cluster,
    scale: Scale,
    until: Instant,
) -> Result<String, String> {
    let address = cluster.nginx.address.clone();
    // Each holds its body until the end, or until somebody has enough of it.
    let tally = crowd(scale.clients * 15, 2, until, move |_, _| {
        let address = address.clone();
        async move {
            let head =
                b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: 4000000\r\n\r\n";
            let body = [&head[..], &vec![b'\n'; UNWANTED]].concat();
            // How long an answer may take is not the point.
            match status_of(&address, &body).await {
                Ok(status) => status,
                Err(why) => no_answer(&why),
            }
        }
    });
    let tally = tally.await;
    Ok(tally.to_string())
}

pub(super) async fn send_unwanted(
    cluster: &Cluster,
    scale: Scale,
    until: Instant,
) -> Result<String, String> {
    let address = cluster.nginx.address.clone();
    let tally = crowd(scale.clients / 2, 4, until, move |client, time| {
        let address = address.clone();
        async move {
            // More than the replica's HTTP library reads: it refuses the head by itself.
            let many = [("X-Abuse", "1"); 120];
            let (target, headers): (_, &[(&str, &str)]) =
                match (client + usize::try_from(time).unwrap_or_default()) % 4 {
                    0 => ("/events/abuse", &[("Authorization", "Bearer guessed")]),
                    1 => ("/nothing", &[]),
                    2 => ("/events/abuse", &many),
                    _ => ("/events/abuse", &[("Sec-Fetch-Site", "cross-site")]),
                };
            let body = vec![b'x'; UNWANTED];
            let bytes = sse_client::http::request("POST", "localhost", target, headers, &body);
            status_of(&address, &bytes)
                .await
                .unwrap_or_else(|why| no_answer(&why))
        }
    });
    // 502 would mean that the proxy took a replica for dead.
    tally.await.only(&["401", "403", "404", "413", "431"])
}

pub(super) async fn ask_for_paths(
    cluster: &Cluster,
    scale: Scale,
    until: Instant,
) -> Result<String, String> {
    const PATHS: [&str; 6] = [
        "/events/%2e%2e",
        "/events/%2e%2e/streams",
        "/events/../metrics",
        "/%65vents/%2E",
        "//streams",
        "/events/./%2e%2e/",
    ];
    let address = cluster.nginx.address.clone();
    let tally = crowd(scale.clients, 50, until, move |client, time| {
        let address = address.clone();
        async move {
            let turn = (client + usize::try_from(time).unwrap_or_default()) % PATHS.len();
            let path = PATHS.get(turn).copied().unwrap_or_default();
            get(&address, path).await
        }
    });
    tally.await.only(&["400", "404"])
}

/// At the topics of the good ones: what is taken is seen, or missed, by them.
pub(super) async fn write_from_elsewhere(
    cluster: &Cluster,
    scale: Scale,
    until: Instant,
) -> Result<String, String> {
    let doors = cluster.doors();
    let tally = crowd(scale.clients, 50, until, move |client, time| {
        let turn = client + usize::try_from(time).unwrap_or_default();
        let door = doors
            .get(turn % doors.len())
            .map(|door| door.address.clone());
        async move {
            let topic = topic_name(0);
            let (post, end) = (format!("/events/{topic}"), format!("/events/{topic}?end"));
            let delete = format!("/topics/{topic}");
            let page = [
                ("Origin", "https://evil.example"),
                ("Sec-Fetch-Site", "cross-site"),
                ("Content-Type", "text/plain"),
            ];
            let (method, host, target, headers): (_, _, _, &[_]) = match turn / 4 % 4 {
                0 => ("POST", "localhost", &post, &page),
                1 => ("POST", "localhost", &end, &page),
                2 => ("DELETE", "evil.example", &delete, &[]),
                _ => ("GET", "evil.example", &delete, &[]),
            };
            let bytes = sse_client::http::request(method, host, target, headers, b"");
            let answer = status_of(&door.unwrap_or_default(), &bytes).await;
            answer.unwrap_or_else(|why| no_answer(&why))
        }
    });
    tally.await.only(&["403", "421"])
}

/// Each end of a stream is a line of its replica's log.
pub(super) async fn fill_log(
    cluster: &Cluster,
    scale: Scale,
    until: Instant,
) -> Result<String, String> {
    let replica = cluster.replicas.get(STALLED).ok_or("there is no replica")?;
    let address = replica.address.clone();
    let tally = crowd(scale.clients, 50, until, move |_, _| {
        let address = address.clone();
        async move {
            let opened = http::send(&address, request("/events/abuse"), None).await;
            opened.map_or_else(|why| no_answer(&why), |answer| answer.status().to_string())
        }
    });
    let told = tally.await.only(&["200"])?;
    let health = get(&replica.address, "/healthz").await;
    if health == "200" {
        Ok(told)
    } else {
        Err(format!("its /healthz answers {health}; {told}"))
    }
}

fn deep_topics() -> String {
    let topics = (0..TOPICS_MAX).map(|topic| format!("topic={}", deep_name(topic)));
    format!("/events?{}", topics.collect::<Vec<_>>().join("&"))
}

/// The id of the first event of a topic that holds many.
async fn first_id(cluster: &Cluster) -> Result<String, String> {
    let mut redis = RedisLink::new(&cluster.redis_url).map_err(|why| why.to_string())?;
    let mut cmd = redis::cmd("XRANGE");
    cmd.arg(format!("tidegate:{{0}}:log:{}", deep_name(0)));
    cmd.arg("-").arg("+").arg("COUNT").arg(1);
    let page: Vec<(String, redis::Value)> = redis.ask(&cmd).await.map_err(|why| why.to_string())?;
    let first = page.into_iter().next();
    first
        .map(|(id, _)| id)
        .ok_or("nothing is there to read".to_owned())
}

fn request(target: &str) -> Request<'_> {
    Request {
        method: "GET",
        target,
        headers: &[],
        body: &[],
    }
}

async fn get(address: &str, target: &str) -> String {
    match http::ask(address, request(target)).await {
        Ok((status, _)) => status.to_string(),
        Err(why) => no_answer(&why),
    }
}

fn no_answer(why: &io::Error) -> String {
    format!("no answer ({})", why.kind())
}

/// Sends bytes as they are, and reads the status of the answer.
async fn status_of(address: &str, bytes: &[u8]) -> io::Result<String> {
    let mut socket = TcpStream::connect(address).await?;
    // An answer may come before all was sent.
    let (mut from, mut to) = socket.split();
    let mut line = [0; 12];
    let ask = async {
        let sent = to.write_all(bytes).await;
        if sent.is_err() {
            Ok(())
        } else {
            std::future::pending().await
        }
    };
    let answer = async {
        from.read_exact(&mut line).await?;
        let status = line.get(9..).unwrap_or_default();
        io::Result::Ok(String::from_utf8_lossy(status).into_owned())
    };
    let both = async {
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            Ok::<(), io::Error>(()) = ask => answer.await,
        }
    };
    timeout(ANSWER * 6, both).await?
}
