//! A block as it is written.

use super::chunk;
use super::span::Span;
use crate::cursor::Cursor;
use bytes::Bytes;

/// One block, ready to be written: as a chunk, so that a socket takes it in one call.
///
/// Cloning shares the bytes.
#[derive(Clone, Debug)]
pub struct Encoded {
    chunk: Span,
    /// Bytes of the chunk before the block.
    head: u8,
    /// Bytes of the block's `id:` line, which comes first; 0 without one.
    id_line: u8,
}

impl Encoded {
    /// A block in a buffer of its own.
    pub(super) fn of(block: &str, id_line: u8) -> Self {
        let mut buffer = Vec::with_capacity(chunk::len(block.len()));
        let head = chunk::write(block.as_bytes(), &mut buffer);
        Self::at(Span::from(Bytes::from(buffer)), head, id_line)
    }

    /// A block that stands in a buffer, in a chunk that begins with `head` bytes of its own.
    pub(super) fn at(chunk: Span, head: usize, id_line: u8) -> Self {
        Self {
            chunk,
            // A length has 16 digits at most.
            head: u8::try_from(head).unwrap_or(u8::MAX),
            id_line,
        }
    }

    /// The whole block, its `id:` line first if it has one.
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

    /// The block from one of its bytes on.
    fn slice(&self, from: u8) -> Bytes {
        let end = self.chunk.len() - chunk::TAIL.len();
        let begin = usize::from(self.head) + usize::from(from);
        self.chunk.clone().into_bytes().slice(begin.min(end)..end)
    }
}
