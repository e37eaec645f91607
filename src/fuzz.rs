//! What comes from others, read from any bytes: targets of `make fuzz`, and tests that read again what is kept.
//!
//! Each takes any bytes. It must come to an end and not panic, and what it takes must be what was written. A target
//! stands in `fuzz/targets`, its inputs in `fuzz/inputs/TARGET`: begun by hand, with what was once found among them.

use crate::broker::redis::decode;
use crate::id::Id;
use crate::log::ReadRequest;
use crate::sse::Mark;
use crate::topic::Topic;
use redis::Value;

/// A request's head, over HTTP/1.1, and frames of HTTP/2.
pub fn head(bytes: &[u8]) {
    crate::http::fuzz::head(bytes);
}

/// A query string.
pub fn query(bytes: &[u8]) {
    crate::http::fuzz::query(bytes);
}

/// A cursor.
pub fn cursor(bytes: &[u8]) {
    crate::http::fuzz::cursor(bytes);
}

/// A batch.
pub fn ndjson(bytes: &[u8]) {
    crate::http::fuzz::ndjson(bytes);
}

/// What is to be taken back: as a client sends it, and as a store keeps it.
pub fn denial(bytes: &[u8]) {
    crate::http::fuzz::disconnect(bytes);
    crate::auth::fuzz::denial(bytes);
}

/// A token.
pub fn token(bytes: &[u8]) {
    crate::auth::fuzz::token(bytes);
}

/// Fields of a request that say who it is.
pub fn credentials(bytes: &[u8]) {
    crate::auth::fuzz::fields(bytes);
}

/// Keys of tokens, in a file.
pub fn keys(bytes: &[u8]) {
    crate::auth::fuzz::keys(bytes);
}

/// A message on the channel of a topic, or of ticks.
pub fn live_frame(bytes: &[u8]) {
    decode::tick(bytes);
    let Some(topic) = some_topic() else {
        return;
    };
    let Ok(frame) = decode::live(&topic, bytes) else {
        return;
    };
    is_one_block(&frame.block(), &frame.data());
    if matches!(frame.mark, Mark::Event | Mark::End | Mark::Unlogged) {
        let envelope = frame.envelope(&topic).0.block();
        is_read_as(&String::from_utf8_lossy(&envelope), &frame.data());
    }
}

/// An entry of a log as Redis answers it, in RESP: a whole reading, or an entry in one.
pub fn log_entry(bytes: &[u8]) {
    let (Some(topic), Ok(value)) = (some_topic(), redis::parse_redis_value(bytes)) else {
        return;
    };
    let request = ReadRequest {
        topic,
        after: Id::ZERO,
        limit: 100,
    };
    let requests = std::slice::from_ref(&request);
    for answer in [in_a_reading(value.clone()), value] {
        let Ok((reading, _)) = decode::reading(&answer, requests) else {
            continue;
        };
        for frame in reading.pages.iter().flat_map(|page| &page.frames) {
            is_one_block(&frame.block(), &frame.data());
        }
    }
}

/// What became of an entry of the inbox, in RESP.
///
/// # Panics
/// As all of them: if what was read is not what was written.
pub fn inbox_entry(bytes: &[u8]) {
    let Ok(value) = redis::parse_redis_value(bytes) else {
        return;
    };
    let refusals = decode::refusals(&value);
    let answer = [
        Value::Int(0),
        Value::BulkString(Vec::new()),
        Value::BulkString(Vec::new()),
        Value::BulkString(Vec::new()),
        Value::Int(1),
        value.clone(),
    ];
    let moved = decode::inbox_move(&Value::Array(answer.to_vec()));
    assert_eq!(moved.map(|moved| moved.refused), refusals);
    let _unreadable = decode::inbox_move(&value).is_err();
}

fn some_topic() -> Option<Topic> {
    Topic::parse("news").ok()
}

/// A reading of one page with this entry in it.
fn in_a_reading(entry: Value) -> Value {
    let text = |text: &str| Value::BulkString(text.into());
    let page = Value::Array(vec![
        text("log"),
        text("0-0"),
        text(""),
        text(""),
        Value::Array(vec![entry]),
        Value::Int(0),
    ]);
    let horizon = ["9-9", "1-0", "", "5", "run", ""].map(text);
    Value::Array(horizon.into_iter().chain([page]).collect())
}

/// A reader of the stream sees one event, with just this data (WHATWG, section 9.2.6).
fn is_one_block(block: &[u8], data: &str) {
    let text = String::from_utf8_lossy(block);
    let lines = text.strip_suffix("\n\n");
    assert!(lines.is_some(), "{text:?} ends as a block does");
    let mut shown = Vec::new();
    for line in lines.unwrap_or_default().split('\n') {
        assert!(!line.contains(['\r']), "{text:?} has one kind of line end");
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "data" => shown.push(value),
            "id" | "event" => {}
            _ => panic!("{line:?} is no field of {text:?}"),
        }
    }
    let sent = data.replace("\r\n", "\n").replace('\r', "\n");
    assert_eq!(shown.join("\n"), sent, "{text:?}");
}

/// A reader of envelopes can take this one apart, and finds this data in it.
fn is_read_as(block: &str, data: &str) {
    let mut lines = block.lines();
    let line = lines.find_map(|line| line.strip_prefix("data: "));
    let said = serde_json::from_str(line.unwrap_or_default());
    let said: serde_json::Value = said.unwrap_or_else(|why| panic!("{block:?}: {why}"));
    let value = match said.get("encoding").and_then(|encoding| encoding.as_str()) {
        Some("json") => serde_json::from_str(data).ok(),
        _ => Some(data.into()),
    };
    assert_eq!(said.get("data"), value.as_ref(), "{block:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const TARGETS: [(&str, fn(&[u8])); 11] = [
        ("head", head),
        ("query", query),
        ("cursor", cursor),
        ("ndjson", ndjson),
        ("denial", denial),
        ("token", token),
        ("credentials", credentials),
        ("keys", keys),
        ("live_frame", live_frame),
        ("log_entry", log_entry),
        ("inbox_entry", inbox_entry),
    ];

    /// Whole, and cut at some bytes, so that it ends in the middle of things.
    #[test]
    fn every_input_that_is_kept_is_read_again() {
        for (name, target) in TARGETS {
            let folder = format!("{}/fuzz/inputs/{name}", env!("CARGO_MANIFEST_DIR"));
            let files = fs::read_dir(&folder).unwrap();
            let mut count = 0;
            for file in files {
                let bytes = fs::read(file.unwrap().path()).unwrap();
                target(&bytes);
                for end in (0..bytes.len()).step_by(bytes.len() / 50 + 1) {
                    target(&bytes[..end]);
                }
                count += 1;
            }
            assert!(count > 0, "{folder} is empty");
        }
    }

    #[test]
    fn every_target_is_built() {
        for (name, _) in TARGETS {
            let file = format!("{}/fuzz/targets/{name}.rs", env!("CARGO_MANIFEST_DIR"));
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.contains(&format!("tidegate::fuzz::{name}(")), "{file}");
        }
    }
}
