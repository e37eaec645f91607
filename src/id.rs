//! The id of an event: a [Redis stream id](https://redis.io/docs/latest/develop/data-types/streams/#entry-ids).
//!
//! All ids of one partition come from one clock, so they order every event of every topic in it.

use std::fmt;
use std::str::FromStr;

/// `<ms>-<seq>`: milliseconds of the partition's clock, then a number within that millisecond.
///
/// Events have a `seq` of 1 or more, so `<ms>-0` reads "before anything in this millisecond".
/// Both parts stay below 2^53, because the functions in Redis compute them as doubles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// Milliseconds since the Unix epoch.
    pub ms: u64,
    /// Counts within the millisecond.
    pub seq: u64,
}

/// The text is not `<ms>-<seq>` in plain decimal, below 2^53.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id is <milliseconds>-<number>, both plain decimal")]
pub struct BadId;

/// Integers up to here survive Lua's doubles.
const EXACT: u64 = 1 << 53;

impl Id {
    /// Before every event.
    pub const ZERO: Self = Self { ms: 0, seq: 0 };

    /// An id from its two parts.
    #[must_use]
    pub const fn new(ms: u64, seq: u64) -> Self {
        Self { ms, seq }
    }

    /// The position before everything that happens in millisecond `ms`.
    #[must_use]
    pub const fn before_ms(ms: u64) -> Self {
        Self { ms, seq: 0 }
    }

    /// The greatest position below this one, in the same millisecond if it has one.
    #[must_use]
    pub const fn just_before(self) -> Self {
        match (self.ms, self.seq) {
            (ms, seq) if seq > 0 => Self { ms, seq: seq - 1 },
            (0, _) => Self::ZERO,
            (ms, _) => Self {
                ms: ms - 1,
                seq: EXACT - 1,
            },
        }
    }

    /// True for a position that no event can have: the start of a millisecond.
    #[must_use]
    pub const fn is_position(self) -> bool {
        self.seq == 0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl FromStr for Id {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let (ms, seq) = text.split_once('-').ok_or(BadId)?;
        Ok(Self {
            ms: decimal(ms)?,
            seq: decimal(seq)?,
        })
    }
}

/// Digits only and no leading zero: one id has one spelling.
fn decimal(text: &str) -> Result<u64, BadId> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    match text.parse::<u64>() {
        Ok(n) if plain && n < EXACT => Ok(n),
        _ => Err(BadId),
    }
}

impl serde::Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_id_has_one_spelling() {
        assert_eq!("1763715600123-4".parse(), Ok(Id::new(1_763_715_600_123, 4)));
        for bad in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "01-1",
            "1-+1",
            "1-1-1",
            " 1-1",
            "1-9007199254740992",
            "1-1\n",
        ] {
            assert_eq!(bad.parse::<Id>(), Err(BadId), "{bad:?}");
        }
    }

    #[test]
    fn just_before_is_below_and_leaves_nothing_between() {
        assert_eq!(Id::new(5, 3).just_before(), Id::new(5, 2));
        assert!(Id::new(5, 0).just_before() > Id::new(4, 1_000_000));
        assert_eq!(Id::ZERO.just_before(), Id::ZERO);
    }
}
