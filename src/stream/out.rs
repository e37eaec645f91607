//! What turns have made and nobody has written yet.

use crate::sse::{Encoded, Span, chunk};
use bytes::Bytes;

/// What turns have made.
#[derive(Debug, Default)]
pub struct Out {
    /// To be written, one after the other.
    pub pieces: Vec<Span>,
    /// The pieces are chunks of HTTP/1.1; otherwise somebody else sees to that.
    chunked: bool,
    /// Bytes of the body among them.
    pub bytes: usize,
    /// Events among them.
    pub delivered: u64,
    /// Milliseconds of the id of one of them, if the stream was up to date.
    pub fresh_ms: Option<u64>,
}

impl Out {
    /// For a socket of our own.
    #[must_use]
    pub fn chunked() -> Self {
        Self {
            chunked: true,
            ..Self::default()
        }
    }

    /// Adds a block.
    pub fn push(&mut self, block: impl Into<Bytes>) {
        let block = block.into();
        self.push_parts(block.len(), [block]);
    }

    /// Adds a block as it is encoded.
    pub(super) fn push_encoded(&mut self, block: &Encoded) {
        if self.chunked {
            self.bytes += block.block_len();
            let last = self.pieces.last_mut();
            if !last.is_some_and(|last| last.join(block.chunk())) {
                self.pieces.push(block.chunk().clone());
            }
        } else {
            self.push(block.block());
        }
    }

    pub(super) fn push_parts(&mut self, bytes: usize, parts: impl IntoIterator<Item = Bytes>) {
        if bytes == 0 {
            return;
        }
        self.bytes += bytes;
        if self.chunked {
            self.pieces.push(Bytes::from(chunk::head(bytes)).into());
            self.pieces.extend(parts.into_iter().map(Span::from));
            self.pieces.push(Bytes::from_static(chunk::TAIL).into());
        } else {
            self.pieces.extend(parts.into_iter().map(Span::from));
        }
    }
}
