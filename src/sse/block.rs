//! Writing blocks: the fields of one event, and the gateway's own events.

use crate::cursor::Cursor;
use crate::id::Id;
use crate::topic::Topic;
use memchr::memchr2;
use serde::Serialize;
use std::fmt::{Display, Write as _};

/// A comment line without a blank line after it: bytes flow, and no client raises an event.
pub const HEARTBEAT: &[u8] = b":\n";

/// Builds one block of an event stream, field by field.
#[derive(Debug, Default)]
pub struct Block {
    text: String,
}

impl Block {
    /// `retry: <ms>`, the reconnection time of the client.
    #[must_use]
    pub fn retry(mut self, ms: u64) -> Self {
        self.text.push_str(&retry_line(ms));
        self
    }

    /// `id: <id>`. Ids and cursors hold no line break by construction.
    #[must_use]
    pub fn id(mut self, id: impl Display) -> Self {
        // Writing to a String cannot fail.
        let _infallible = writeln!(self.text, "id: {id}");
        self
    }

    /// `event: <event_type>`, left out when empty.
    ///
    /// The caller has checked that it holds no line break ([`crate::event::EventType`]).
    #[must_use]
    pub fn event(mut self, event_type: &str) -> Self {
        if !event_type.is_empty() {
            self.text.push_str("event: ");
            self.text.push_str(event_type);
            self.text.push('\n');
        }
        self
    }

    /// Ends the block with `data`, split at LF, CR and CRLF into one `data:` line each.
    #[must_use]
    pub fn data(mut self, data: &str) -> String {
        self.text.reserve(data.len() + 8);
        let mut rest = data;
        loop {
            self.text.push_str("data: ");
            let Some(at) = memchr2(b'\n', b'\r', rest.as_bytes()) else {
                break;
            };
            let (line, tail) = rest.split_at(at);
            self.text.push_str(line);
            self.text.push('\n');
            rest = tail.strip_prefix("\r\n").unwrap_or_else(|| {
                let mut after = tail.chars();
                after.next();
                after.as_str()
            });
        }
        self.text.push_str(rest);
        self.text.push_str("\n\n");
        self.text
    }

    /// Ends the block with a JSON object as its data.
    #[must_use]
    pub fn json(self, value: &impl Serialize) -> String {
        // Our own structs of strings and numbers always serialise.
        self.data(&serde_json::to_string(value).unwrap_or_default())
    }
}

/// `retry: <ms>` alone: it joins the block that follows, or stands last before a cut.
#[must_use]
pub fn retry_line(ms: u64) -> String {
    format!("retry: {ms}\n")
}

/// The heartbeat as an event, for pages that watch for silence: `EventSource` shows no comments.
#[must_use]
pub fn heartbeat_event() -> String {
    Block::default().event("tidegate.heartbeat").data("{}")
}

/// Why events of a topic may be missing at this place of a stream. The gap rule decides
/// ([`crate::gap`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// The cursor is beyond the last id that the clock gave out: it is of a log that is gone.
    Ahead,
    /// The cursor is older than the log itself: the log was lost and begun anew.
    LogLost,
    /// Redis went back to an older state, or began anew under streams that had seen more; what it
    /// had last may be lost.
    Rewound,
    /// The log no longer reaches back to the cursor.
    Trimmed,
    /// The topic's log has expired, or its key was removed.
    Expired,
    /// Events were found only after the stream had gone past them. Told without an id.
    Late,
    /// The cursor could not be read.
    BadCursor,
}

impl GapReason {
    /// Every reason, for metrics.
    pub const ALL: [Self; 7] = [
        Self::Ahead,
        Self::LogLost,
        Self::Rewound,
        Self::Trimmed,
        Self::Expired,
        Self::Late,
        Self::BadCursor,
    ];

    /// The reason as it is written on the wire and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ahead => "ahead",
            Self::LogLost => "log_lost",
            Self::Rewound => "rewound",
            Self::Trimmed => "trimmed",
            Self::Expired => "expired",
            Self::Late => "late",
            Self::BadCursor => "bad_cursor",
        }
    }
}

/// A stretch of a topic that the stream cannot show: everything above `from` up to `to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The topic that may miss events.
    pub topic: Topic,
    /// Why.
    pub reason: GapReason,
    /// The last position known to be complete; none if the cursor could not be read.
    pub from: Option<Id>,
    /// Where the stream goes on: the next event has a greater id.
    pub to: Id,
}

impl Gap {
    /// The gap as a block; `cursor` is what a reconnect should send.
    ///
    /// Without a cursor the block has no `id:` line, so that a drop right after it leads to the
    /// same gap being told again.
    #[must_use]
    pub fn block(&self, cursor: Option<&Cursor>) -> String {
        let block = match cursor {
            Some(cursor) => Block::default().id(cursor),
            None => Block::default(),
        };
        block.event("tidegate.gap").json(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_split_at_each_line_end() {
        let table = [
            ("hello", "data: hello\n\n"),
            ("", "data: \n\n"),
            ("a\nb", "data: a\ndata: b\n\n"),
            ("a\rb", "data: a\ndata: b\n\n"),
            ("a\r\nb", "data: a\ndata: b\n\n"),
            ("a\n\r\n", "data: a\ndata: \ndata: \n\n"),
            ("\n", "data: \ndata: \n\n"),
            (" leading", "data:  leading\n\n"),
            ("id: 5\nevent: x", "data: id: 5\ndata: event: x\n\n"),
        ];
        for (data, wire) in table {
            assert_eq!(Block::default().data(data), wire, "{data:?}");
        }
    }

    #[test]
    fn a_gap_says_topic_reason_and_range() {
        let gap = Gap {
            topic: Topic::parse("ne\"ws").unwrap(),
            reason: GapReason::Trimmed,
            from: Some(Id::new(1, 2)),
            to: Id::new(3, 4),
        };
        assert_eq!(
            gap.block(Some(&Cursor::One(gap.to))),
            "id: 3-4\nevent: tidegate.gap\ndata: {\"topic\":\"ne\\\"ws\",\"reason\":\"trimmed\",\"from\":\"1-2\",\"to\":\"3-4\"}\n\n"
        );
    }

    #[test]
    fn reasons_are_spelt_alike_in_metrics_and_on_the_wire() {
        for reason in GapReason::ALL {
            assert_eq!(
                serde_json::to_string(&reason).unwrap(),
                format!("\"{}\"", reason.as_str())
            );
        }
    }
}
