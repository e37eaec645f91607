//! What can be done with the rights of a publisher in Redis.

use super::Scale;
use super::crowd::{Tally, crowd};
use crate::cluster::Cluster;
use crate::event::topic_name;
use crate::redis_link::RedisLink;
use redis::Cmd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

/// Far ahead of any clock, and as far as JSON and Lua count exactly.
const AHEAD: &str = "9007199254740990-1";
/// The greatest id of a stream of Redis: after it an entry has none.
const GREATEST: &str = "18446744073709551615-18446744073709551615";
/// Less than Redis takes at once (`proto-max-bulk-len`), and more.
const LARGE: usize = 4_000_000;
const TOO_LARGE: usize = 4_400_000;

/// At the topics of the good ones.
pub(super) async fn forge_frames(cluster: &Cluster, until: Instant) -> Result<String, String> {
    let live = format!("tidegate:{{0}}:live:{}", topic_name(0));
    let commands = [
        command(&["PUBLISH", &live, &format!("1 {AHEAD} 0-0 e forged\nforged")]),
        command(&["PUBLISH", &live, &format!("1 {AHEAD} {AHEAD} d \n")]),
        command(&["PUBLISH", &live, "1 not a frame"]),
        command(&["PUBLISH", "tidegate:{0}:tick", AHEAD]),
    ];
    repeat(cluster, &commands, Duration::from_millis(25), until).await
}

pub(super) async fn poison_inbox(cluster: &Cluster, until: Instant) -> Result<String, String> {
    let entry = |id: &str, data: &str| {
        command(&["XADD", "tidegate:inbox", id, "topic", "abuse", "data", data])
    };
    let large = "x".repeat(LARGE);
    let commands = [entry(GREATEST, "poison"), entry("*", &large)];
    repeat(cluster, &commands, Duration::from_millis(500), until).await
}

pub(super) async fn publish_huge(cluster: &Cluster, until: Instant) -> Result<String, String> {
    let publish = |bytes| command(&["PUBLISH", "events:abuse", &"x".repeat(bytes)]);
    let commands = [publish(LARGE), publish(TOO_LARGE)];
    repeat(cluster, &commands, Duration::from_millis(500), until).await
}

pub(super) async fn churn_topics(
    cluster: &Cluster,
    scale: Scale,
    until: Instant,
) -> Result<String, String> {
    let link = || RedisLink::new(&cluster.redis_url).map(|link| Arc::new(Mutex::new(link)));
    let links: Result<Vec<_>, _> = (0..scale.clients).map(|_| link()).collect();
    let links = links.map_err(|why| why.to_string())?;
    let tally = crowd(scale.clients, 100, until, move |client, time| {
        let link = links.get(client).cloned();
        async move {
            let Some(link) = link else {
                return "no link".to_owned();
            };
            let topic = format!("churn-{client}-{time}");
            let cmd = command(&["FCALL", "tidegate_publish", "0", &topic, "x"]);
            let answer: Result<String, _> = link.lock().await.ask(&cmd).await;
            answer.map_or_else(|why| said(&why), |_| "published".to_owned())
        }
    });
    tally.await.only(&["published"])
}

/// Sends one command after the other, each time the next of them.
async fn repeat(
    cluster: &Cluster,
    commands: &[Cmd],
    pause: Duration,
    until: Instant,
) -> Result<String, String> {
    let mut link = RedisLink::new(&cluster.redis_url).map_err(|why| why.to_string())?;
    let mut tally = Tally::default();
    for cmd in commands.iter().cycle() {
        if Instant::now() >= until {
            break;
        }
        let answer: Result<redis::Value, _> = link.ask(cmd).await;
        tally.add(answer.map_or_else(|why| said(&why), |_| "taken".to_owned()));
        sleep(pause).await;
    }
    Ok(tally.to_string())
}

fn said(why: &redis::RedisError) -> String {
    format!("no ({})", why.code().unwrap_or("the connection broke"))
}

fn command(words: &[&str]) -> Cmd {
    let mut words = words.iter();
    let mut cmd = redis::cmd(words.next().copied().unwrap_or_default());
    words.for_each(|word| {
        cmd.arg(word);
    });
    cmd
}
