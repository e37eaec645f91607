//! A frame: one entry of a log, encoded once and shared by every subscriber that is shown it.

use super::block::{Block, Gap, GapReason};
use super::chunk;
use super::span::Span;
use crate::cursor::Cursor;
use crate::id::Id;
use crate::topic::Topic;
use bytes::Bytes;
use std::ops::Range;

/// What an entry of a log is, beside its type and data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// An event.
    Event,
    /// The last event of a finite topic.
    End,
    /// The topic was deleted: everything before is gone. The next publish opens it anew.
    Deleted,
    /// A stretch that the log has lost: above `from`, up to `lost`. Told to streams that began below
    /// `lost`, and to those that came with a cursor: they may have gone past it untold.
    Gap {
        /// The last id before the stretch.
        from: Id,
        /// The greatest id known to have been lost.
        lost: Id,
    },
    /// An event of a topic that is not logged. It has no id and no predecessor; the hub numbers
    /// such events as they come.
    Unlogged,
}

/// One entry as it stands in a log or in a live frame, before encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The entry's id.
    pub id: Id,
    /// The id of the topic's previous entry: a hole shows at once.
    pub prev: Id,
    /// What it is.
    pub mark: Mark,
    /// The event's type; empty if none was given.
    pub event_type: String,
    /// The event's data, verbatim.
    pub data: String,
}

/// Bytes after which frames that are encoded together begin another buffer: as much as a stream is
/// written in one turn.
const BUFFER: usize = 64 * 1024;

/// An [`Entry`] with its block, ready to be written: as a chunk, so that a socket takes it in one
/// call.
///
/// Cloning shares the bytes; the struct itself is about 150 bytes and lives once per topic and
/// replica, in a window. Frames of one page of the log share a buffer ([`Frame::encode_all`]).
#[derive(Clone, Debug)]
pub struct Frame {
    /// The entry's id, and the cursor that its block carries.
    pub id: Id,
    /// The id of the topic's previous entry.
    pub prev: Id,
    /// What it is.
    pub mark: Mark,
    event_type: Box<str>,
    chunk: Span,
    /// Bytes of the chunk before the block.
    head: u8,
    id_line: u8,
}

impl Frame {
    /// Encodes an entry of `topic`.
    #[must_use]
    pub fn encode(topic: &Topic, entry: &Entry) -> Self {
        let (draft, block) = Draft::of(topic, entry);
        let mut buffer = Vec::with_capacity(chunk::len(block.len()));
        let head = chunk::write(block.as_bytes(), &mut buffer);
        draft.finish(head, Span::from(Bytes::from(buffer)))
    }

    /// Encodes entries that follow one another into buffers that they share: whoever is shown all
    /// of them has them written as one. A buffer lives as long as one of its frames does, so it
    /// takes no more once it holds 64 KiB.
    pub fn encode_all(topic: &Topic, entries: impl Iterator<Item = Entry>) -> Vec<Self> {
        let mut frames = Vec::new();
        let mut buffer = Vec::new();
        let mut drafts: Vec<(Draft, usize, Range<usize>)> = Vec::new();
        let mut fill = |buffer: &mut Vec<u8>, drafts: &mut Vec<_>| {
            let full = Bytes::from(std::mem::take(buffer).into_boxed_slice());
            frames.extend(drafts.drain(..).map(|(draft, head, range): (Draft, _, _)| {
                draft.finish(head, Span::new(full.clone(), range))
            }));
        };
        for entry in entries {
            let (draft, block) = Draft::of(topic, &entry);
            let from = buffer.len();
            let head = chunk::write(block.as_bytes(), &mut buffer);
            drafts.push((draft, head, from..buffer.len()));
            if buffer.len() >= BUFFER {
                fill(&mut buffer, &mut drafts);
            }
        }
        fill(&mut buffer, &mut drafts);
        frames
    }

    /// The whole block, its `id:` line first if the entry is logged.
    #[must_use]
    pub fn block(&self) -> Bytes {
        self.slice(0)
    }

    /// Bytes of the whole block.
    #[must_use]
    pub fn block_len(&self) -> usize {
        self.chunk.len() - usize::from(self.head) - chunk::TAIL.len()
    }

    /// The whole block as a chunk of its own.
    #[must_use]
    pub fn chunk(&self) -> &Span {
        &self.chunk
    }

    /// The block from one of its bytes on.
    fn slice(&self, from: u8) -> Bytes {
        let end = self.chunk.len() - chunk::TAIL.len();
        let begin = usize::from(self.head) + usize::from(from);
        self.chunk.clone().into_bytes().slice(begin.min(end)..end)
    }

    /// The block without its `id:` line, for streams that write a cursor of their own there.
    #[must_use]
    pub fn block_without_id(&self) -> Bytes {
        self.slice(self.id_line)
    }

    /// The block with `cursor` in its `id:` line, for streams over several partitions.
    #[must_use]
    pub fn block_with(&self, cursor: &Cursor) -> [Bytes; 2] {
        [
            Bytes::from(format!("id: {cursor}\n")),
            self.block_without_id(),
        ]
    }

    /// The event's type; empty if none was given, and for gaps.
    #[must_use]
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// The event's data as a subscriber reads it: line ends of any kind have become LF.
    #[must_use]
    pub fn data(&self) -> String {
        let block = self.block();
        let block = String::from_utf8_lossy(&block);
        let lines = block.lines().filter_map(|line| line.strip_prefix("data: "));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Bytes that this frame holds, for the bounds of a window.
    #[must_use]
    pub fn size(&self) -> usize {
        self.chunk.len() + self.event_type.len() + size_of::<Self>()
    }

    /// Bytes that stay in memory for this frame, beside a `neighbour` that is held anyway: all of its
    /// buffer, unless both stand in one.
    #[must_use]
    pub fn held_beside(&self, neighbour: Option<&Self>) -> usize {
        let shared = neighbour.is_some_and(|other| self.chunk.shares_buffer(&other.chunk));
        let buffer = if shared { 0 } else { self.chunk.buffer_len() };
        buffer + self.event_type.len() + size_of::<Self>()
    }

    /// Why this frame is no event, if it is a gap.
    #[must_use]
    pub fn gap_reason(&self) -> Option<GapReason> {
        match self.mark {
            Mark::Gap { .. } => Some(GapReason::Rewound),
            Mark::Event | Mark::End | Mark::Deleted | Mark::Unlogged => None,
        }
    }
}

/// A frame without its bytes.
struct Draft {
    id: Id,
    prev: Id,
    mark: Mark,
    event_type: Box<str>,
    id_line: u8,
}

impl Draft {
    /// The draft, and the block.
    fn of(topic: &Topic, entry: &Entry) -> (Self, String) {
        let event = |block: Block| block.event(&entry.event_type).data(&entry.data);
        let (event_type, block) = match entry.mark {
            Mark::Event | Mark::End | Mark::Deleted => (
                entry.event_type.as_str(),
                event(Block::default().id(entry.id)),
            ),
            Mark::Unlogged => (entry.event_type.as_str(), event(Block::default())),
            Mark::Gap { from, .. } => ("", gap_block(topic, GapReason::Rewound, from, entry.id)),
        };
        let id_line = match entry.mark {
            Mark::Unlogged => 0,
            _ => "id: \n".len() + entry.id.to_string().len(),
        };
        let draft = Self {
            id: entry.id,
            prev: entry.prev,
            mark: entry.mark,
            event_type: event_type.into(),
            // An id has at most 33 bytes.
            id_line: u8::try_from(id_line).unwrap_or(u8::MAX),
        };
        (draft, block)
    }

    fn finish(self, head: usize, chunk: Span) -> Frame {
        Frame {
            id: self.id,
            prev: self.prev,
            mark: self.mark,
            event_type: self.event_type,
            chunk,
            // A length has 16 digits at most.
            head: u8::try_from(head).unwrap_or(u8::MAX),
            id_line: self.id_line,
        }
    }
}

fn gap_block(topic: &Topic, reason: GapReason, from: Id, to: Id) -> String {
    Gap {
        topic: topic.clone(),
        reason,
        from: Some(from),
        to,
    }
    .block(Some(&Cursor::One(to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_line_can_be_replaced() {
        let topic = Topic::parse("news").unwrap();
        let frame = Frame::encode(
            &topic,
            &Entry {
                id: Id::new(7, 1),
                prev: Id::new(6, 0),
                mark: Mark::Event,
                event_type: "price".into(),
                data: "1\n2".into(),
            },
        );
        let block = "id: 7-1\nevent: price\ndata: 1\ndata: 2\n\n";
        assert_eq!(frame.block(), block);
        let chunk = format!("{:x}\r\n{block}\r\n", block.len());
        assert_eq!(&**frame.chunk(), chunk.as_bytes());
        let cursor: Cursor = "0:7-1,4:9-2".parse().unwrap();
        assert_eq!(
            frame.block_with(&cursor).concat(),
            b"id: 0:7-1,4:9-2\nevent: price\ndata: 1\ndata: 2\n\n"
        );
    }

    #[test]
    fn frames_that_are_encoded_together_are_the_same_and_stand_side_by_side() {
        let topic = Topic::parse("news").unwrap();
        let entry = |ms: u64, mark, size| Entry {
            id: Id::new(ms, 1),
            prev: Id::new(ms - 1, 1),
            mark,
            event_type: "price".into(),
            data: "x".repeat(size),
        };
        let (from, lost) = (Id::new(1, 1), Id::new(2, 1));
        let entries = [
            entry(1, Mark::Event, 10),
            entry(2, Mark::Gap { from, lost }, 0),
            entry(3, Mark::Event, BUFFER),
            entry(4, Mark::Event, 3),
            entry(5, Mark::End, 0),
        ];
        let together = Frame::encode_all(&topic, entries.iter().cloned());
        let mut spans: Vec<Span> = Vec::new();
        for (frame, entry) in together.iter().zip(&entries) {
            let alone = Frame::encode(&topic, entry);
            assert_eq!(frame.block(), alone.block());
            assert_eq!(frame.block_without_id(), alone.block_without_id());
            assert_eq!(
                (frame.id, frame.event_type()),
                (alone.id, alone.event_type())
            );
            if !spans
                .last_mut()
                .is_some_and(|last| last.join(frame.chunk()))
            {
                spans.push(frame.chunk().clone());
            }
        }
        assert_eq!((together.len(), spans.len()), (entries.len(), 2));
        assert!(Frame::encode_all(&topic, std::iter::empty()).is_empty());
    }
}
