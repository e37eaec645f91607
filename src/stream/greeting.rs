//! How a stream begins.

use super::request::{Begin, StreamRequest};
use super::settings::{Jitter, StreamSettings};
use crate::cursor::Cursor;
use crate::hub::reader::Reader;
use crate::sse::{Block, Gap, retry_line};
use crate::topic::Topic;
use bytes::Bytes;
use serde::Serialize;

/// What the beginning of a stream needs, and the rest of its life does not.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    /// Written before anything else.
    pub(super) blocks: Vec<Bytes>,
    /// Where its topics stood when it began, until it has shown what was there.
    pub(super) head: Option<Cursor>,
}

/// The data of `tidegate.open`.
#[derive(Serialize)]
struct Opened<'a> {
    topics: Vec<&'a str>,
    cursor: Option<String>,
    head: Option<String>,
    replica: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    ignored: &'a [String],
}

impl Greeting {
    /// The first block, and gaps that are told at once. As long as a gap is to come, no id is
    /// written: a drop in between leads to the same gap again.
    pub(super) fn of(
        settings: &StreamSettings,
        reader: &Reader,
        request: &StreamRequest,
        gaps: &[Gap],
        jitter: &Jitter,
    ) -> Self {
        let mut greeting = Self::default();
        let retry = settings.retry_ms(jitter.retry);
        let cursor = reader.cursor();
        if settings.open_event {
            let block = Block::default().retry(retry);
            let block = match &cursor {
                Some(cursor) if gaps.is_empty() => block.id(cursor),
                _ => block,
            };
            let head = reader.head();
            let opened = opened(settings, request, cursor.as_ref(), head.as_ref());
            let block = block.event("tidegate.open").json(&opened);
            greeting.blocks.push(Bytes::from(block));
            greeting.head = head.filter(|_| request.begin != Begin::Live);
        } else {
            // Without a blank line it joins the first event's block.
            greeting.blocks.push(Bytes::from(retry_line(retry)));
        }
        for (index, gap) in gaps.iter().enumerate() {
            settings.metrics.gap(gap.reason);
            let last = index + 1 == gaps.len();
            let block = gap.block(cursor.as_ref().filter(|_| last));
            greeting.blocks.push(Bytes::from(block));
        }
        greeting
    }
}

fn opened<'a>(
    settings: &'a StreamSettings,
    request: &'a StreamRequest,
    cursor: Option<&Cursor>,
    head: Option<&Cursor>,
) -> Opened<'a> {
    let connections = request.connections.then_some(Topic::CONNECTIONS);
    let topics = request.topics.iter().map(Topic::as_str);
    Opened {
        topics: topics.chain(connections).collect(),
        cursor: cursor.map(Cursor::to_string),
        head: head.map(Cursor::to_string),
        replica: &settings.replica,
        ignored: &request.ignored,
    }
}
