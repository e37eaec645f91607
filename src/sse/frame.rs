//! A frame: one entry of a log, encoded once and shared by every subscriber that is shown it.

use super::block::{Block, Gap, GapReason};
use super::chunk;
use super::encoded::Encoded;
use super::envelope::envelope;
use super::span::Span;
use crate::cursor::Cursor;
use crate::id::Id;
use crate::topic::Topic;
use bytes::Bytes;
use std::ops::Range;
use std::sync::OnceLock;

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

/// An [`Entry`] with its block, ready to be written.
///
/// Cloning shares the bytes; the struct itself is about 160 bytes and lives once per topic and
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
    plain: Encoded,
    /// Made when the first stream asks for it, and shared by all others.
    envelope: OnceLock<Box<Encoded>>,
}

impl Frame {
    /// Encodes an entry of `topic`.
    #[must_use]
    pub fn encode(topic: &Topic, entry: &Entry) -> Self {
        let (draft, block) = Draft::of(topic, entry);
        let encoded = Encoded::of(&block, draft.id_line);
        draft.finish(encoded)
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
                let span = Span::new(full.clone(), range);
                let encoded = Encoded::at(span, head, draft.id_line);
                draft.finish(encoded)
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

    /// The block as every stream reads it that asks for nothing else.
    #[must_use]
    pub fn plain(&self) -> &Encoded {
        &self.plain
    }

    /// The block of a stream that asks for envelopes, and how many bytes more this frame holds because it was
    /// made only now. What the gateway itself says has none.
    #[must_use]
    pub fn envelope(&self, topic: &Topic) -> (&Encoded, usize) {
        let id = match self.mark {
            Mark::Event | Mark::End => Some(self.id),
            Mark::Unlogged => None,
            Mark::Deleted | Mark::Gap { .. } => return (&self.plain, 0),
        };
        let mut made = 0;
        let encoded = self.envelope.get_or_init(|| {
            let text = envelope(topic, id, &self.event_type, &self.data());
            let block = id.map_or_else(Block::default, |id| Block::default().id(id));
            let encoded = Encoded::of(&block.data(&text), id_line(id));
            made = envelope_held(&encoded);
            Box::new(encoded)
        });
        (encoded, made)
    }

    /// The whole block, its `id:` line first if the entry is logged.
    #[must_use]
    pub fn block(&self) -> Bytes {
        self.plain.block()
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
        self.plain.chunk().len() + self.beside_the_block()
    }

    /// Bytes that stay in memory for this frame, beside a `neighbour` that is held anyway: all of its
    /// buffer, unless both stand in one.
    #[must_use]
    pub fn held_beside(&self, neighbour: Option<&Self>) -> usize {
        let chunk = self.plain.chunk();
        let shared = neighbour.is_some_and(|other| chunk.shares_buffer(other.plain.chunk()));
        let buffer = if shared { 0 } else { chunk.buffer_len() };
        buffer + self.beside_the_block()
    }

    /// Bytes of everything but the block.
    fn beside_the_block(&self) -> usize {
        let envelope = self.envelope.get().map_or(0, |made| envelope_held(made));
        envelope + self.event_type.len() + size_of::<Self>()
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
        let id = Some(entry.id).filter(|_| entry.mark != Mark::Unlogged);
        let draft = Self {
            id: entry.id,
            prev: entry.prev,
            mark: entry.mark,
            event_type: event_type.into(),
            id_line: id_line(id),
        };
        (draft, block)
    }

    fn finish(self, plain: Encoded) -> Frame {
        Frame {
            id: self.id,
            prev: self.prev,
            mark: self.mark,
            event_type: self.event_type,
            plain,
            envelope: OnceLock::new(),
        }
    }
}

/// Bytes of the `id:` line.
fn id_line(id: Option<Id>) -> u8 {
    let length = id.map_or(0, |id| "id: \n".len() + id.to_string().len());
    // An id has at most 33 bytes.
    u8::try_from(length).unwrap_or(u8::MAX)
}

fn envelope_held(envelope: &Encoded) -> usize {
    envelope.chunk().buffer_len() + size_of::<Encoded>()
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
        assert_eq!(&**frame.plain().chunk(), chunk.as_bytes());
        let cursor: Cursor = "0:7-1,4:9-2".parse().unwrap();
        assert_eq!(
            frame.plain().block_with(&cursor).concat(),
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
            assert_eq!(
                frame.plain().block_without_id(),
                alone.plain().block_without_id()
            );
            assert_eq!(
                (frame.id, frame.event_type()),
                (alone.id, alone.event_type())
            );
            if !spans
                .last_mut()
                .is_some_and(|last| last.join(frame.plain().chunk()))
            {
                spans.push(frame.plain().chunk().clone());
            }
        }
        assert_eq!((together.len(), spans.len()), (entries.len(), 2));
        assert!(Frame::encode_all(&topic, std::iter::empty()).is_empty());
    }
}
