//! The envelope (`?envelope`): an event as one JSON object that says its topic.
//!
//! ```json
//! {"topic":"chat","id":"1700000000000-1","event":null,"time":1700000000000,"encoding":"json","data":{"from":"ann"}}
//! ```
//!
//! `encoding` says what `data` is: `json` if the event's data is JSON (RFC 8259), which stands here as it was
//! written but for line breaks, and `text` if it is anything else, which stands here as a string.

use crate::id::Id;
use crate::topic::Topic;
use serde::Serialize;
use serde::de::IgnoredAny;

/// Arrays and objects within one another, at most: some parsers stop at 128, and with the data the
/// reader would lose the envelope. What is deeper is `text`.
const DEPTH_MAX: usize = 100;

/// Everything but the data.
#[derive(Serialize)]
struct Head<'a> {
    topic: &'a Topic,
    id: Option<Id>,
    event: Option<&'a str>,
    time: Option<u64>,
    encoding: &'a str,
}

/// The envelope of an event. It has no id if the event is not logged.
pub(super) fn envelope(topic: &Topic, id: Option<Id>, event_type: &str, data: &str) -> String {
    let is_json = is_json(data);
    let head = Head {
        topic,
        id,
        event: Some(event_type).filter(|event_type| !event_type.is_empty()),
        time: id.map(|id| id.ms),
        encoding: if is_json { "json" } else { "text" },
    };
    // Strings and numbers always serialise.
    let mut text = serde_json::to_string(&head).unwrap_or_default();
    text.pop();
    text.push_str(",\"data\":");
    if is_json {
        // Within a string a line break is written as an escape: those that are there stand between tokens.
        text.extend(data.split(['\n', '\r']));
    } else {
        text.push_str(&serde_json::to_string(data).unwrap_or_default());
    }
    text.push('}');
    text
}

/// Whether a text is one JSON value that every reader can take apart.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok() && depth(text) <= DEPTH_MAX
}

/// How deep arrays and objects stand within one another in a text that is JSON.
fn depth(json: &str) -> usize {
    let (mut deepest, mut depth) = (0, 0_usize);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(data: &str) -> Value {
        let topic = Topic::parse("user:ann").unwrap();
        let text = envelope(&topic, Some(Id::new(7, 1)), "price", data);
        assert!(!text.contains(['\n', '\r']), "one line: {text:?}");
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn data_that_is_json_stands_in_it_as_it_was_written() {
        let topic = Topic::parse("news").unwrap();
        for (data, within) in [
            ("{\"a\":1,\n \"a\": 2.50}", "{\"a\":1, \"a\": 2.50}"),
            ("[1,\r\n2]\n", "[1,2]"),
            ("\"\\ud800\\n[\"", "\"\\ud800\\n[\""),
            ("-0.0e+9999", "-0.0e+9999"),
            (" null", " null"),
            ("\"\u{2028}\"", "\"\u{2028}\""),
        ] {
            let text = envelope(&topic, Some(Id::new(7, 1)), "", data);
            let expected = format!(
                r#"{{"topic":"news","id":"7-1","event":null,"time":7,"encoding":"json","data":{within}}}"#
            );
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn anything_else_is_a_string() {
        for data in [
            "",
            "hello",
            "{\"a\":1",
            "01",
            "1 2",
            "nul",
            "NaN",
            "'x'",
            "\"\n\"",
            "\0",
            "\u{2028}",
            "a\nb\r\nc",
            "\u{feff}1",
            "[1,]",
            "\"\u{1}\"",
        ] {
            let said = of(data);
            assert_eq!(
                (&said["encoding"], &said["data"]),
                (&json!("text"), &json!(data))
            );
            assert_eq!(
                (&said["topic"], &said["event"]),
                (&json!("user:ann"), &json!("price"))
            );
        }
    }

    #[test]
    fn what_no_parser_takes_apart_is_a_string() {
        let nested = |depth| format!("{}\"[\\\"[[\"{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(of(&nested(DEPTH_MAX - 1))["encoding"], "json");
        for depth in [DEPTH_MAX + 1, 32_000] {
            assert_eq!(of(&nested(depth))["data"], json!(nested(depth)));
        }
    }

    #[test]
    fn what_is_not_logged_has_neither_id_nor_time() {
        let topic = Topic::parse("a:typing").unwrap();
        let said: Value = serde_json::from_str(&envelope(&topic, None, "", "1")).unwrap();
        assert_eq!((&said["id"], &said["time"]), (&Value::Null, &Value::Null));
    }
}
