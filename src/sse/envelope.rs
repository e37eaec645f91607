//! The envelope (`?envelope`): an event as one JSON object that says its topic.
//!
//! ```json
//! {"topic":"chat","id":"1700000000000-1","event":null,"time":1700000000000,"encoding":"json","data":{"from":"ann"}}
//! ```
//!
//! `encoding` says what `data` is: `json` if the event's data is JSON (RFC 8259) that every reader can take apart
//! ([`json`]), which stands here as it was written but for line breaks, and `text` if it is anything else, which
//! stands here as a string. Otherwise one event would cost a reader the envelope, and some readers the stream.

use super::json;
use crate::id::Id;
use crate::topic::Topic;
use serde::Serialize;

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
    let is_json = json::is_readable(data);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::json::tests::nearly_json;
    use proptest::prelude::*;
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
            ("\"\\ud83c\\udf0a\\n[\"", "\"\\ud83c\\udf0a\\n[\""),
            ("12345678901234567890", "12345678901234567890"),
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

    /// What RFC 8259 allows, and some parsers refuse: with the data their readers would lose the envelope.
    #[test]
    fn what_some_parser_does_not_take_apart_is_a_string() {
        let nested = |depth| format!("{}\"[\\\"[[\"{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(of(&nested(json::DEPTH_MAX))["encoding"], "json");
        let deep = [nested(json::DEPTH_MAX + 1), nested(32_000)];
        let long = ["9".repeat(4301), format!("[0.{}]", "1".repeat(60_000))];
        let others = ["\"\\ud800\"", "{\"\\uDC00\":1}", "1e999", "[-1E+400]"];
        for data in deep.into_iter().chain(long).chain(others.map(String::from)) {
            let said = of(&data);
            assert_eq!(said["encoding"], "text", "{data}");
            assert_eq!(said["data"], json!(data));
        }
    }

    proptest! {
        #[test]
        fn every_envelope_is_read_and_holds_what_was_published(data in nearly_json()) {
            let said = of(&data);
            let value = match said["encoding"].as_str() {
                Some("json") => serde_json::from_str(&data).unwrap(),
                _ => json!(data),
            };
            prop_assert_eq!(&said["data"], &value);
            prop_assert_eq!(&said["topic"], &json!("user:ann"));
        }
    }

    #[test]
    fn what_is_not_logged_has_neither_id_nor_time() {
        let topic = Topic::parse("a:typing").unwrap();
        let said: Value = serde_json::from_str(&envelope(&topic, None, "", "1")).unwrap();
        assert_eq!((&said["id"], &said["time"]), (&Value::Null, &Value::Null));
    }
}
