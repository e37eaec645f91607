//! Topic names and the partition that a topic belongs to.

use std::fmt;
use std::sync::Arc;

/// A topic's name: 1 to 255 bytes of UTF-8 without control characters, `#`, `*` or `,`.
///
/// `#` separates the type in a raw publish, `*` belongs to Redis patterns, `,` to lists of topics.
/// Cloning shares the text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

/// Why a name is not a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTopic {
    /// No name at all.
    #[error("a topic has at least one byte")]
    Empty,
    /// Longer than [`Topic::BYTES_MAX`].
    #[error("a topic has at most 255 bytes")]
    TooLong,
    /// A control character, or one of `#`, `*`, `,`.
    #[error("a topic has no control character and none of # * ,")]
    Forbidden,
    /// Begins with `tidegate.`, which the gateway keeps for itself.
    #[error("topics that begin with \"tidegate.\" are the gateway's own")]
    Reserved,
}

/// A pattern of topics, in which each `*` stands for any text. A topic has no `*`, so nothing needs
/// to be escaped.
///
/// The functions in Redis match alike: `fits` in `broker/redis/core.lua`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// Checks a pattern: a topic would be one with any letter in place of each `*`.
    ///
    /// # Errors
    /// As [`Topic::parse_logged`].
    pub fn parse(text: &str) -> Result<Self, BadTopic> {
        Topic::parse_logged(&text.replace('*', "x"))?;
        Ok(Self(text.into()))
    }

    /// That of all topics, but for those of the gateway's own.
    #[must_use]
    pub fn all() -> Self {
        Self("*".into())
    }

    /// As [`Pattern::parse`], of topics of the gateway's own as well.
    ///
    /// # Errors
    /// As [`Topic::parse`].
    pub fn parse_any(text: &str) -> Result<Self, BadTopic> {
        Topic::parse(&text.replace('*', "x"))?;
        Ok(Self(text.into()))
    }

    /// The pattern.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a topic fits.
    #[must_use]
    pub fn fits(&self, topic: &Topic) -> bool {
        let mut pieces = self.0.split('*');
        let begin = pieces.next().unwrap_or_default();
        let Some(mut rest) = topic.as_str().strip_prefix(begin) else {
            return false;
        };
        let Some(end) = pieces.next_back() else {
            return rest.is_empty();
        };
        for piece in pieces {
            match rest.split_once(piece) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        rest.ends_with(end)
    }

    /// Whether a topic fits, where those of the gateway's own are meant by no pattern but one that begins as they do.
    #[must_use]
    pub fn covers(&self, topic: &Topic) -> bool {
        let is_meant = !topic.is_reserved() || self.0.starts_with(Topic::RESERVED);
        is_meant && self.fits(topic)
    }

    /// Whether each topic that the other covers is covered. False where it is not plain: this one must be the same, a
    /// beginning and a `*`, or the other one a topic's name.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        if self == other {
            return true;
        }
        if other.is_exact() {
            return Topic::parse(other.as_str()).is_ok_and(|topic| self.covers(&topic));
        }
        let begin = self.0.trim_end_matches('*');
        let is_beginning = begin.len() < self.0.len() && !begin.contains('*');
        let of_own = |pattern: &Self| pattern.0.starts_with(Topic::RESERVED);
        is_beginning && other.prefix().starts_with(begin) && (of_own(self) || !of_own(other))
    }

    /// What every topic that fits begins with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.0.split('*').next().unwrap_or_default()
    }

    /// Whether every topic that begins as the pattern does fits, but for the gateway's own.
    #[must_use]
    pub fn is_prefix(&self) -> bool {
        self.0.find('*') == self.0.len().checked_sub(1)
    }

    /// Whether only the topic of this very name fits.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }
}

/// The ordering domain of a topic: one clock, one Redis slot.
pub type PartitionNo = u16;

impl Topic {
    /// Longest name, in bytes.
    pub const BYTES_MAX: usize = 255;
    /// What the names of the gateway's own topics begin with.
    pub const RESERVED: &'static str = "tidegate.";
    /// The topic of whoever names none.
    pub const DEFAULT: &'static str = "events";
    /// The reserved topic that streams the number of open connections.
    pub const CONNECTIONS: &'static str = "tidegate.connections";
    /// What raw publishes and inbox entries were refused, as it happens. It is not logged.
    pub const REFUSED: &'static str = "tidegate.refused";

    /// The topic of [`Topic::CONNECTIONS`].
    #[must_use]
    pub fn connections() -> Self {
        Self(Self::CONNECTIONS.into())
    }

    /// Checks a name that a publisher or subscriber gave, reserved ones included.
    ///
    /// # Errors
    /// [`BadTopic`] says which rule is broken.
    pub fn parse(name: &str) -> Result<Self, BadTopic> {
        if name.is_empty() {
            return Err(BadTopic::Empty);
        }
        if name.len() > Self::BYTES_MAX {
            return Err(BadTopic::TooLong);
        }
        if name
            .chars()
            .any(|c| c.is_control() || matches!(c, '#' | '*' | ','))
        {
            return Err(BadTopic::Forbidden);
        }
        Ok(Self(name.into()))
    }

    /// Checks a name that is to be published to or read from a log.
    ///
    /// # Errors
    /// As [`Topic::parse`], and [`BadTopic::Reserved`].
    pub fn parse_logged(name: &str) -> Result<Self, BadTopic> {
        match Self::parse(name)? {
            topic if topic.is_reserved() => Err(BadTopic::Reserved),
            topic => Ok(topic),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the gateway itself feeds this topic.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(Self::RESERVED)
    }

    /// The topic's partition among `count`: CRC16 as Redis Cluster hashes keys, modulo `count`.
    #[must_use]
    pub fn partition(&self, count: PartitionNo) -> PartitionNo {
        if count <= 1 {
            0
        } else {
            crc16(self.0.as_bytes()) % count
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for Topic {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// CRC16-XMODEM, the hash of the [Redis Cluster specification](https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/), appendix A.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar() {
        for good in ["news", "user:alice", "a b", "日本", "x/y?z=1"] {
            assert!(Topic::parse_logged(good).is_ok(), "{good:?}");
        }
        let long = "x".repeat(256);
        let table = [
            ("", BadTopic::Empty),
            (long.as_str(), BadTopic::TooLong),
            ("a#b", BadTopic::Forbidden),
            ("a*", BadTopic::Forbidden),
            ("a,b", BadTopic::Forbidden),
            ("a\nb", BadTopic::Forbidden),
            ("a\u{7f}", BadTopic::Forbidden),
            ("a\u{85}", BadTopic::Forbidden),
            ("tidegate.connections", BadTopic::Reserved),
        ];
        for (name, why) in table {
            assert_eq!(Topic::parse_logged(name), Err(why), "{name:?}");
        }
        assert!(Topic::parse(&"x".repeat(255)).is_ok());
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, good, bad) in PATTERNS {
            let pattern = Pattern::parse(pattern).unwrap();
            for name in *good {
                assert!(
                    pattern.fits(&Topic::parse(name).unwrap()),
                    "{pattern:?} {name:?}"
                );
            }
            for name in *bad {
                assert!(
                    !pattern.fits(&Topic::parse(name).unwrap()),
                    "{pattern:?} {name:?}"
                );
            }
        }
        for bad in ["", "a,b", "a#*", "tidegate.*"] {
            assert!(Pattern::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_pattern_includes_what_plainly_lies_below_it() {
        let table = [
            ("*", "a", true),
            ("*", "a*b", true),
            ("*", "*", true),
            ("*", "**", true),
            ("**", "*", true),
            ("team:*", "team:7:*", true),
            ("team:*", "team:7", true),
            ("team:*", "team:*", true),
            ("team:*", "team:*:x", true),
            ("team:*", "team*", false),
            ("team:*", "*", false),
            ("team:*", "teams", false),
            ("a", "a", true),
            ("a", "a*", false),
            ("a*b", "a*b", true),
            ("a*b", "axb", true),
            // It is so, and not plain.
            ("a*b", "ax*b", false),
            ("*", "tidegate.*", false),
            ("*", "tidegate.connections", false),
            ("tide*", "tidegate.*", false),
            ("tidegate.*", "tidegate.c*", true),
        ];
        for (one, other, expected) in table {
            let [granted, wanted] = [one, other].map(|text| Pattern::parse_any(text).unwrap());
            assert_eq!(granted.includes(&wanted), expected, "{one} {other}");
        }
    }

    /// Patterns, with topics that fit and topics that do not.
    const PATTERNS: &[(&str, &[&str], &[&str])] = &[
        ("chat", &["chat"], &["cha", "chats", "a chat"]),
        (
            "chat:*",
            &["chat:", "chat:a", "chat:a:b"],
            &["chat", "a chat:b"],
        ),
        ("*", &["a", "\u{1f30a}"], &[]),
        (
            "*:typing",
            &[":typing", "a:typing", "a:typing:typing"],
            &["a:typing:", "typing"],
        ),
        (
            "a*b*c",
            &["abc", "axbxc", "abbcc", "abcbc"],
            &["ab", "acb", "abcd", "bc"],
        ),
        ("a*a", &["aa", "aba"], &["a", "ab"]),
        ("a**b?", &["ab?", "axb?"], &["abc"]),
        ("*ab*ab*", &["abab", "xabyabz"], &["ab", "aab", "abxba"]),
    ];

    #[test]
    fn the_partition_hash_is_redis_own() {
        // The check value of the Redis Cluster specification.
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(Topic::parse("123456789").unwrap().partition(1), 0);
        assert_eq!(
            Topic::parse("123456789").unwrap().partition(64),
            0x31C3 % 64
        );
    }
}
