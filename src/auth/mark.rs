//! Short hashes by which something is known again, without being kept itself.

use ring::digest;
use std::fmt;
use std::num::NonZeroU128;

/// What a right lives by: a key, a rule, a publisher's entry. Equal ones have equal marks, whichever configuration they
/// stand in. `Debug` shows none: some are of secrets.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Mark(u64);

impl Mark {
    /// Of parts that are of one kind, in order.
    pub(super) fn of(kind: &str, parts: &[&[u8]]) -> Self {
        let [begin @ .., _, _, _, _, _, _, _, _] = hash(kind, parts);
        Self(u64::from_be_bytes(begin))
    }

    /// As a part of another one.
    pub(super) fn bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mark")
    }
}

/// What a denial is of: a subject, or a token. A hash, since people stay out of Redis as they stay out of the log.
/// 128 bits: nobody finds a second name for one that is denied.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name(NonZeroU128);

impl Name {
    /// Of a subject, whoever has made its token; or of one issuer's alone.
    #[must_use]
    pub fn subject(subject: &str, issuer: Option<&str>) -> Self {
        match issuer {
            None => Self::of("subject", &[subject]),
            Some(issuer) => Self::of("subject of issuer", &[subject, issuer]),
        }
    }

    /// Of a token (`jti`).
    #[must_use]
    pub fn token_id(id: &str) -> Self {
        Self::of("token", &[id])
    }

    fn of(kind: &str, parts: &[&str]) -> Self {
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        let bits = u128::from_be_bytes(hash(kind, &parts));
        Self(NonZeroU128::new(bits).unwrap_or(NonZeroU128::MIN))
    }

    /// As [`fmt::Display`] writes it: 32 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if text.len() != 32 || !is_hex {
            return None;
        }
        let bits = u128::from_str_radix(text, 16).ok()?;
        NonZeroU128::new(bits).map(Self)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Name")
    }
}

/// The first half of a SHA-256, each part with its length before it so that no two run together.
fn hash(kind: &str, parts: &[&[u8]]) -> [u8; 16] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [kind.as_bytes()].iter().chain(parts) {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let hash = context.finish();
    let half = hash.as_ref().first_chunk::<16>();
    half.copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_different_things_differ() {
        let names = [
            Name::subject("a", None),
            Name::subject("a", Some("")),
            Name::subject("a", Some("b")),
            Name::subject("ab", Some("")),
            Name::subject("", Some("ab")),
            Name::subject("ab", None),
            Name::token_id("a"),
        ];
        for (index, name) in names.iter().enumerate() {
            assert!(!names[..index].contains(name), "{index}");
            assert_eq!(Name::parse(&name.to_string()), Some(*name));
            assert_eq!(format!("{name:?}"), "Name");
        }
        for bad in ["", "0", &"0".repeat(32), &"g".repeat(32), &"1".repeat(33)] {
            assert_eq!(Name::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn marks_of_different_things_differ() {
        let marks = [
            Mark::of("key", &[b"a", b"b"]),
            Mark::of("key", &[b"ab", b""]),
            Mark::of("key", &[b"ab"]),
            Mark::of("rule", &[b"ab"]),
        ];
        for (index, mark) in marks.iter().enumerate() {
            assert!(!marks[..index].contains(mark), "{index}");
        }
        assert_eq!(marks[2], Mark::of("key", &[b"ab"]));
        assert_eq!(format!("{:?}", marks[0]), "Mark");
    }
}
