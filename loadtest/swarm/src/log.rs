//! The log as Redis holds it, read without the gateway.

use crate::event::topic_name;
use crate::id::Id;
use crate::redis_link::RedisLink;
use std::collections::HashMap;

/// Entries read at once.
const PAGE: usize = 1000;

/// An entry of a topic's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: Id,
    /// The id of the entry before it, as the entry itself says.
    pub prev: Id,
    /// The event's type.
    pub kind: String,
    /// The event's data.
    pub data: String,
    /// It stands for a stretch that was lost.
    pub is_gap: bool,
}

fn key_of(topic: usize) -> String {
    format!("tidegate:{{0}}:log:{}", topic_name(topic))
}

/// How many entries each of the first `topics` logs has, and the inbox.
///
/// # Errors
/// What Redis said.
pub async fn lengths(redis: &mut RedisLink, topics: usize) -> Result<(Vec<usize>, usize), String> {
    let mut all = Vec::new();
    for key in (0..topics).map(key_of).chain(["tidegate:inbox".to_owned()]) {
        let length = redis.ask(redis::cmd("XLEN").arg(key)).await;
        all.push(length.map_err(|why| why.to_string())?);
    }
    let inbox = all.pop().unwrap_or_default();
    Ok((all, inbox))
}

/// The whole log of a topic.
///
/// # Errors
/// What Redis said, or which entry cannot be read.
pub async fn read(redis: &mut RedisLink, topic: usize) -> Result<Vec<Entry>, String> {
    let (mut entries, mut from) = (Vec::new(), "-".to_owned());
    loop {
        let mut cmd = redis::cmd("XRANGE");
        cmd.arg(key_of(topic))
            .arg(&from)
            .arg("+")
            .arg("COUNT")
            .arg(PAGE);
        let page: Vec<(String, HashMap<String, String>)> =
            redis.ask(&cmd).await.map_err(|why| why.to_string())?;
        let more = page.len() == PAGE;
        for (id, fields) in page {
            from = format!("({id}");
            entries.push(entry(&id, fields).ok_or_else(|| {
                format!("the entry {id} of {} cannot be read", topic_name(topic))
            })?);
        }
        if !more {
            return Ok(entries);
        }
    }
}

fn entry(id: &str, mut fields: HashMap<String, String>) -> Option<Entry> {
    Some(Entry {
        id: id.parse().ok()?,
        prev: fields.get("prev")?.parse().ok()?,
        kind: fields.remove("type")?,
        data: fields.remove("data")?,
        is_gap: fields.contains_key("gap"),
    })
}
