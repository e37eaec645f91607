//! Chunked transfer coding ([RFC 9112, section 7.1](https://www.rfc-editor.org/rfc/rfc9112#section-7.1)),
//! for bodies that are written without an HTTP library.

use bytes::Bytes;

/// Ends each chunk.
pub const TAIL: &[u8] = b"\r\n";
/// Ends the body.
pub const LAST: &[u8] = b"0\r\n\r\n";

/// A block as one chunk, and the length of what stands before the block.
#[must_use]
pub fn around(block: &[u8]) -> (Bytes, usize) {
    let head = head(block.len());
    let mut chunk = Vec::with_capacity(head.len() + block.len() + TAIL.len());
    chunk.extend_from_slice(head.as_bytes());
    chunk.extend_from_slice(block);
    chunk.extend_from_slice(TAIL);
    (Bytes::from(chunk), head.len())
}

/// What stands before so many bytes, one at least: a chunk of none would end the body.
#[must_use]
pub fn head(bytes: usize) -> String {
    debug_assert!(bytes > 0, "an empty chunk ends the body");
    format!("{bytes:x}\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_begins_with_its_length_in_hex() {
        for (block, chunk, before) in [
            (":\n".to_owned(), "2\r\n:\n\r\n".to_owned(), 3),
            (
                "x".repeat(0x80),
                format!("80\r\n{}\r\n", "x".repeat(0x80)),
                4,
            ),
        ] {
            assert_eq!(around(block.as_bytes()), (Bytes::from(chunk), before));
        }
        assert_eq!(head(65_536), "10000\r\n");
    }
}
