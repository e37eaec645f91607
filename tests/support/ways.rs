//! Every way to publish.

use super::{Gateway, NDJSON, Redis, run};

/// A way to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `POST /events/{topic}`.
    Http,
    /// `POST /events`, one line.
    Batch,
    /// `FCALL tidegate_publish`.
    Function,
    /// `XADD tidegate:inbox`.
    Inbox,
    /// `tidegate publish`.
    Command,
    /// `tidegate publish --redis`.
    CommandToRedis,
    /// `PUBLISH events:…`, which can neither end a topic nor be repeated by key.
    Raw,
}

/// What is published.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewEvent<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The type; empty for none.
    pub kind: &'a str,
    /// The data.
    pub data: &'a str,
    /// Whether it ends the topic.
    pub end: bool,
    /// The idempotency key; empty for none.
    pub key: &'a str,
}

impl Way {
    /// All of them; raw publishes last.
    pub const ALL: [Self; 7] = [
        Self::Http,
        Self::Batch,
        Self::Function,
        Self::Inbox,
        Self::Command,
        Self::CommandToRedis,
        Self::Raw,
    ];

    /// All that take an end and a key.
    pub fn full() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|way| *way != Self::Raw)
    }

    /// Publishes; the id, if this way tells it.
    ///
    /// # Panics
    /// If it is refused.
    pub fn publish(self, gateway: &Gateway, redis: &Redis, event: NewEvent<'_>) -> Option<String> {
        let NewEvent {
            topic,
            kind,
            data,
            end,
            key,
        } = event;
        let key_header = [("Idempotency-Key", key)];
        let headers = if key.is_empty() { &[] } else { &key_header[..] };
        match self {
            Self::Http => {
                let end = if end { "&end" } else { "" };
                let target = format!("/events/{topic}?type={kind}{end}");
                Some(gateway.post(&target, headers, data).id())
            }
            Self::Batch => {
                let mut line =
                    serde_json::json!({"topic": topic, "type": kind, "data": data, "end": end});
                if !key.is_empty() {
                    line["idempotency_key"] = key.into();
                }
                gateway
                    .post("/events", &[NDJSON], line.to_string())
                    .ids()
                    .pop()
            }
            Self::Function => {
                let end = if end { "end" } else { "" };
                Some(redis.publish(topic, data, &[kind, end, key]))
            }
            Self::Inbox => {
                let end = if end { "1" } else { "" };
                let command = ["XADD", "tidegate:inbox", "*"];
                let fields = [
                    "topic", topic, "type", kind, "data", data, "end", end, "key", key,
                ];
                redis.run::<String>(&[&command[..], &fields].concat());
                None
            }
            Self::Command => Some(command(&["--url", &gateway.url()], event)),
            Self::CommandToRedis => Some(command(&["--redis", &redis.url()], event)),
            Self::Raw => {
                assert!(
                    !end && key.is_empty(),
                    "a raw publish has no room for {event:?}"
                );
                let kind = if kind.is_empty() {
                    String::new()
                } else {
                    format!("#{kind}")
                };
                redis.publish_raw(&format!("events:{topic}{kind}"), data.as_bytes());
                None
            }
        }
    }
}

/// `tidegate publish`, and the id that it prints.
fn command(to: &[&str], event: NewEvent<'_>) -> String {
    let mut words = vec!["publish", event.topic, event.data, "--type", event.kind];
    words.extend(to);
    if event.end {
        words.push("--end");
    }
    if !event.key.is_empty() {
        words.extend(["--idempotency-key", event.key]);
    }
    let output = run(&words, &[]);
    assert_eq!(output.code, Some(0), "{words:?}: {}", output.stderr);
    output.stdout.trim().to_owned()
}
