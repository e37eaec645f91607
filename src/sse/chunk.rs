//! Chunked transfer coding ([RFC 9112, section 7.1](https://www.rfc-editor.org/rfc/rfc9112#section-7.1)),
//! for bodies that are written without an HTTP library.

/// Ends each chunk.
pub const TAIL: &[u8] = b"\r\n";
/// Ends the body.
pub const LAST: &[u8] = b"0\r\n\r\n";

/// Bytes of a chunk around so many.
#[must_use]
pub fn len(bytes: usize) -> usize {
    head(bytes).len() + bytes + TAIL.len()
}

/// Adds a block to `buffer` as one chunk; returns the length of what stands before the block.
pub fn write(block: &[u8], buffer: &mut Vec<u8>) -> usize {
    let head = head(block.len());
    buffer.extend_from_slice(head.as_bytes());
    buffer.extend_from_slice(block);
    buffer.extend_from_slice(TAIL);
    head.len()
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
            let mut buffer = Vec::new();
            assert_eq!(write(block.as_bytes(), &mut buffer), before);
            assert_eq!(buffer, chunk.as_bytes());
            assert_eq!(buffer.len(), len(block.len()));
        }
        assert_eq!(head(65_536), "10000\r\n");
    }
}
