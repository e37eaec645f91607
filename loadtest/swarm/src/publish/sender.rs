//! One way of publishing, with its connection.

use super::{Fate, Record};
use crate::cluster::Cluster;
use crate::event::{Event, Way, topic_name};
use crate::http::{self, Request};
use crate::id::Id;
use crate::redis_link::RedisLink;
use redis::Cmd;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

/// How long a way with a key is repeated.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);
/// Time for the command line to answer.
const CLI: Duration = Duration::from_secs(10);

/// A publisher's way to the gateway.
#[derive(Debug)]
pub struct Sender {
    way: Way,
    /// Begins every key, so that no two runs on one log share one.
    run: String,
    redis: RedisLink,
    nginx: String,
    tidegate: PathBuf,
    /// What the type of an event is called.
    name_of_type: &'static str,
    /// `Authorization` of what goes over HTTP, and the key alone.
    key: Option<(String, &'static str)>,
}

impl Sender {
    /// A sender of one way.
    ///
    /// # Errors
    /// The cluster's address of Redis is none.
    pub fn new(way: Way, run: &str, cluster: &Cluster) -> Result<Self, String> {
        Ok(Self {
            way,
            run: run.to_owned(),
            redis: RedisLink::new(&cluster.redis_url).map_err(|why| why.to_string())?,
            nginx: cluster.nginx.address.clone(),
            tidegate: cluster.tidegate.clone(),
            name_of_type: cluster.name_of_type(),
            key: cluster
                .publish_key()
                .map(|key| (format!("Bearer {key}"), key)),
        })
    }

    /// Sends events, one unless the way takes several at once; repeats them until they are answered
    /// if that is harmless.
    pub async fn send(&mut self, events: Vec<Event>) -> Vec<Record> {
        let until = Instant::now() + PATIENCE;
        let mut tries = 0;
        let fates = loop {
            tries += 1;
            match self.try_send(&events).await {
                Some(fates) => break fates,
                None if self.way.is_raw() || Instant::now() > until => {
                    break vec![Fate::Unknown; events.len()];
                }
                None => sleep(PAUSE).await,
            }
        };
        let record = |(event, fate)| Record { event, fate, tries };
        events.into_iter().zip(fates).map(record).collect()
    }

    /// One try. None if it was not answered, or refused.
    async fn try_send(&mut self, events: &[Event]) -> Option<Vec<Fate>> {
        if self.way == Way::Batch {
            return self.batch(events).await;
        }
        let event = events.first()?;
        let fate = match self.way {
            Way::Pipe | Way::Raw => Fate::Heard(self.redis.ask(&raw(event)).await.ok()?),
            Way::Function | Way::Marker => self
                .redis
                .ask(&self.function(event))
                .await
                .ok()
                .and_then(|id: String| accepted(&id))?,
            Way::Inbox => {
                let _entry: String = self.redis.ask(&self.inbox(event)).await.ok()?;
                Fate::Accepted(None)
            }
            Way::Post => self.post(event).await?,
            Way::Cli => self.cli(event).await?,
            Way::Batch => return None,
        };
        Some(vec![fate])
    }

    /// A header, and the key if there is one.
    fn headers<'a>(&'a self, header: (&'a str, &'a str)) -> Vec<(&'a str, &'a str)> {
        let key = self.key.iter();
        let key = key.map(|(field, _)| ("Authorization", field.as_str()));
        std::iter::once(header).chain(key).collect()
    }

    fn key(&self, event: &Event) -> String {
        format!("{}-{}", self.run, event.key)
    }

    fn function(&self, event: &Event) -> Cmd {
        let mut cmd = redis::cmd("FCALL");
        cmd.arg("tidegate_publish")
            .arg(0)
            .arg(topic_name(event.topic))
            .arg(&event.data);
        cmd.arg(event.key.way.as_str()).arg("").arg(self.key(event));
        cmd
    }

    fn inbox(&self, event: &Event) -> Cmd {
        let mut cmd = redis::cmd("XADD");
        cmd.arg("tidegate:inbox")
            .arg("*")
            .arg("topic")
            .arg(topic_name(event.topic));
        cmd.arg(self.name_of_type)
            .arg(event.key.way.as_str())
            .arg("data")
            .arg(&event.data)
            .arg("key")
            .arg(self.key(event));
        cmd
    }

    async fn post(&self, event: &Event) -> Option<Fate> {
        let key = self.key(event);
        let target = format!(
            "/events/{}?{}={}",
            topic_name(event.topic),
            self.name_of_type,
            event.key.way.as_str()
        );
        let request = Request {
            method: "POST",
            target: &target,
            headers: &self.headers(("Idempotency-Key", &key)),
            body: event.data.as_bytes(),
        };
        let (status, body) = http::ask(&self.nginx, request).await.ok()?;
        let answer: Value = serde_json::from_str(&body).unwrap_or_default();
        (200..300)
            .contains(&status)
            .then(|| id_of(&answer))?
            .and_then(accepted)
    }

    async fn batch(&self, events: &[Event]) -> Option<Vec<Fate>> {
        let line = |event: &Event| {
            let line = json!({
                "topic": topic_name(event.topic),
                self.name_of_type: event.key.way.as_str(),
                "data": event.data,
                "idempotency_key": self.key(event),
            });
            format!("{line}\n")
        };
        let body: String = events.iter().map(line).collect();
        let request = Request {
            method: "POST",
            target: "/events",
            headers: &self.headers(("Content-Type", "application/x-ndjson")),
            body: body.as_bytes(),
        };
        let (status, body) = http::ask(&self.nginx, request).await.ok()?;
        let answer: Value = serde_json::from_str(&body).unwrap_or_default();
        let ids = answer
            .get("events")
            .and_then(Value::as_array)
            .filter(|ids| ids.len() == events.len())?;
        (200..300).contains(&status).then(|| {
            ids.iter()
                .map(|line| id_of(line).and_then(accepted))
                .collect()
        })?
    }

    async fn cli(&self, event: &Event) -> Option<Fate> {
        let run = Command::new(&self.tidegate)
            .args(["publish", &topic_name(event.topic), &event.data])
            .args([
                &format!("--{}", self.name_of_type),
                event.key.way.as_str(),
                "--idempotency-key",
                &self.key(event),
            ])
            .args(["--url", &format!("http://{}", self.nginx)])
            .envs(
                self.key
                    .as_ref()
                    .map(|(_, key)| ("TIDEGATE_PUBLISH_KEY", key)),
            )
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .output();
        let done = timeout(CLI, run).await.ok()?.ok()?;
        let id = String::from_utf8(done.stdout).ok()?;
        done.status.success().then(|| accepted(id.trim()))?
    }
}

fn raw(event: &Event) -> Cmd {
    let mut cmd = redis::cmd("PUBLISH");
    cmd.arg(channel(event)).arg(&event.data);
    cmd
}

/// The channel of a raw publish.
pub(super) fn channel(event: &Event) -> String {
    format!(
        "events:{}#{}",
        topic_name(event.topic),
        event.key.way.as_str()
    )
}

fn id_of(answer: &Value) -> Option<&str> {
    answer.get("id").and_then(Value::as_str)
}

/// An answer that is no id is no answer.
fn accepted(id: &str) -> Option<Fate> {
    id.parse::<Id>().ok().map(|id| Fate::Accepted(Some(id)))
}
