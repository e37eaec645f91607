//! Bytes to be written that stand among others.

use bytes::Bytes;
use std::ops::{Deref, Range};

/// A stretch of a buffer. What follows it in the same buffer can be joined to it, so that many
/// events which were encoded together are written as one.
#[derive(Clone, Debug)]
pub struct Span {
    buffer: Bytes,
    from: usize,
    to: usize,
}

impl Span {
    /// These bytes of `buffer`, which are all there.
    #[must_use]
    pub fn new(buffer: Bytes, Range { start, end }: Range<usize>) -> Self {
        debug_assert!(start <= end && end <= buffer.len(), "a stretch of it");
        Self {
            buffer,
            from: start,
            to: end,
        }
    }

    /// Joins `next` if it stands right behind. False if it does not; then nothing has changed.
    pub fn join(&mut self, next: &Self) -> bool {
        let follows = self.shares_buffer(next) && self.to == next.from;
        if follows {
            self.to = next.to;
        }
        follows
    }

    /// Bytes of the whole buffer, which stay in memory as long as this does.
    #[must_use]
    pub fn buffer_len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether both stand in one buffer.
    #[must_use]
    pub fn shares_buffer(&self, other: &Self) -> bool {
        // Two buffers that are alive at the same time do not begin at the same address.
        self.buffer.as_ptr() == other.buffer.as_ptr()
    }

    /// The same bytes, alone.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.buffer.slice(self.from..self.to)
    }
}

impl Deref for Span {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.get(self.from..self.to).unwrap_or_default()
    }
}

impl From<Bytes> for Span {
    fn from(buffer: Bytes) -> Self {
        Self {
            from: 0,
            to: buffer.len(),
            buffer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_in_one_buffer_are_joined_and_others_are_not() {
        let buffer = Bytes::from(b"abcdef".to_vec());
        let other = Bytes::from(b"abcdef".to_vec());
        let part = |from, to| Span::new(buffer.clone(), from..to);
        let mut span = part(0, 2);
        assert!(!span.join(&part(3, 5)), "a hole");
        assert!(!span.join(&part(1, 3)), "an overlap");
        assert!(!span.join(&Span::new(other, 2..4)), "another buffer");
        assert!(span.join(&part(2, 3)) && span.join(&part(3, 6)));
        assert_eq!(&*span, b"abcdef");
        assert_eq!(part(2, 4).into_bytes(), b"cd".as_slice());
    }
}
