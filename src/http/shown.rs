//! What a request brought along, told back in the sentence that says what is wrong with it.

use std::fmt;

/// Characters of a text that are shown.
const CHARS_MAX: usize = 80;

/// A text in quotes, escaped as in Rust; of a long one the beginning, and `…`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown<'a>(pub(super) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(CHARS_MAX) {
            Some((end, _)) => write!(f, "{:?}…", self.0.get(..end).unwrap_or_default()),
            None => write!(f, "{:?}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_escaped_and_a_long_one_is_cut() {
        let (fits, long) = ("日".repeat(80), "日".repeat(81));
        let table = [
            ("", "\"\""),
            ("a\"b\n\0\u{2028}", "\"a\\\"b\\n\\0\\u{2028}\""),
            (&fits, &format!("\"{}\"", "日".repeat(80))),
            (&long, &format!("\"{}\"…", "日".repeat(80))),
        ];
        for (given, shown) in table {
            assert_eq!(Shown(given).to_string(), shown);
        }
    }
}
