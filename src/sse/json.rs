//! Which JSON every reader can take apart.
//!
//! RFC 8259 leaves bounds to parsers (section 9), and lets a string escape half a character (section 8.2). A
//! parser that meets what it does not take gives up the whole text, not a part of it. So these bounds are
//! narrower than those of the parsers that are known:
//!
//! | bound | because of |
//! |---|---|
//! | [`DEPTH_MAX`] | .NET stops at 64, Ruby and Protocol Buffers at 100, `serde_json` at 128 |
//! | [`NUMBER_BYTES_MAX`] | Python stops at 4300 digits, Jackson at 1000 |
//! | a number is within those of IEEE 754 | Go and `serde_json` refuse `1e999` |
//! | an escaped surrogate has its other half | jq and `serde_json` refuse `"\ud800"` |

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Arrays and objects within one another, at most. Around them stands the envelope.
pub(super) const DEPTH_MAX: usize = 63;
/// Bytes of one number, at most.
pub(super) const NUMBER_BYTES_MAX: usize = 300;

/// Whether a text is one JSON value that every reader can take apart.
pub(super) fn is_readable(text: &str) -> bool {
    serde_json::from_str::<Readable>(text).is_ok() && Extent::of(text).is_bounded()
}

/// Any value, read as if it were kept: that of `IgnoredAny` would be passed over unread.
struct Readable;

impl<'de> Deserialize<'de> for Readable {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Readable {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Self, A::Error> {
        while values.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self, A::Error> {
        while fields.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

/// How far a text that is JSON goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Extent {
    /// How deep arrays and objects stand within one another.
    depth: usize,
    /// Bytes of the longest number.
    number_bytes: usize,
}

impl Extent {
    fn of(json: &str) -> Self {
        let mut extent = Self::default();
        let (mut depth, mut number_bytes) = (0_usize, 0);
        let (mut in_string, mut escaped) = (false, false);
        for byte in json.bytes() {
            let in_number =
                !in_string && matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
            number_bytes = if in_number { number_bytes + 1 } else { 0 };
            extent.number_bytes = extent.number_bytes.max(number_bytes);
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = in_string,
                b'"' => in_string = !in_string,
                b'[' | b'{' if !in_string => {
                    depth += 1;
                    extent.depth = extent.depth.max(depth);
                }
                b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        extent
    }

    fn is_bounded(self) -> bool {
        self.depth <= DEPTH_MAX && self.number_bytes <= NUMBER_BYTES_MAX
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::Value;

    /// JSON of all sorts, or nearly: some of its numbers are too large, and some of its strings have half a character.
    pub(in crate::sse) fn nearly_json() -> impl Strategy<Value = String> {
        let number = "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,3})?";
        let string = r#""([a\[é ]|\\["\\n]|\\ud83c\\udf0a|\\u00e9|\\u[dD][89a-fA-F]00){0,4}""#;
        let word = prop::sample::select(vec!["null", "true", "nul", "[", "NaN", "\u{1}"]);
        let leaf = prop_oneof![8 => number, 8 => string, 1 => word.prop_map(str::to_owned)];
        leaf.prop_recursive(3, 12, 4, move |value| {
            let list =
                vec(value.clone(), 0..4).prop_map(|values| format!("[{}]", values.join(",\r\n")));
            let field = (string, value).prop_map(|(name, value)| format!("{name}: {value}"));
            let object = vec(field, 0..4).prop_map(|fields| format!("{{\n{}}}", fields.join(" ,")));
            prop_oneof![list, object]
        })
    }

    #[test]
    fn numbers_in_strings_and_depth_in_strings_do_not_count() {
        let of = |depth, number_bytes| Extent {
            depth,
            number_bytes,
        };
        for (json, extent) in [
            (r#""[[1234\"[5678""#, of(0, 0)),
            (r#"{"a":[-1.5e+3,12]}"#, of(2, 7)),
            (r#"[[],[[]],"\\",[1]]"#, of(3, 1)),
            // The letter of a word is taken for that of an exponent, and stays far below the bound.
            ("true", of(0, 1)),
        ] {
            assert_eq!(Extent::of(json), extent, "{json}");
        }
    }

    #[test]
    fn bounds_are_the_last_that_are_readable() {
        let nested = |depth| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(is_readable(&nested(DEPTH_MAX)));
        assert!(!is_readable(&nested(DEPTH_MAX + 1)));
        let digits = "1".repeat(NUMBER_BYTES_MAX);
        assert!(is_readable(&digits));
        assert!(!is_readable(&format!("[{digits}0]")));
        assert!(is_readable(&format!("\"{digits}0\"")));
    }

    proptest! {
        #[test]
        fn what_is_readable_is_what_a_parser_with_bounds_of_its_own_takes(text in nearly_json()) {
            let taken = serde_json::from_str::<Value>(&text).is_ok();
            prop_assert_eq!(is_readable(&text), taken && Extent::of(&text).is_bounded());
        }
    }
}
