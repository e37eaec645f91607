//! The cursor: "everything after this", what `Last-Event-ID` carries.

use crate::id::{BadId, Id};
use crate::topic::PartitionNo;
use std::fmt;
use std::str::FromStr;

/// A position in each partition that a stream reads, in ascending order of partitions.
///
/// With one partition it is written as the bare id, `1763715600123-0`; over several as
/// `partition:id` pairs, `3:1763715600123-0,17:1763715600125-2`. The order of topics does not
/// matter, and only the partitions of the subscription are listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// The gateway runs one partition.
    One(Id),
    /// The gateway runs several; never empty, ascending, no partition twice.
    Many(Box<[(PartitionNo, Id)]>),
}

impl Cursor {
    /// Longest text, in bytes: proxies and clients cut longer headers.
    pub const BYTES_MAX: usize = 1024;
    /// Longest pair: five digits of partition, the colon, two numbers below 2^53, `-` and the comma.
    const PAIR_BYTES_MAX: usize = 5 + 1 + 16 + 1 + 16 + 1;

    /// Whether a cursor over this many partitions always fits [`Cursor::BYTES_MAX`].
    #[must_use]
    pub const fn fits(partitions: usize) -> bool {
        partitions * Self::PAIR_BYTES_MAX <= Self::BYTES_MAX
    }

    /// The position in `partition`, if the cursor knows one.
    #[must_use]
    pub fn position(&self, partition: PartitionNo) -> Option<Id> {
        match self {
            Self::One(id) => (partition == 0).then_some(*id),
            Self::Many(parts) => parts
                .iter()
                .find_map(|&(p, id)| (p == partition).then_some(id)),
        }
    }

    /// The oldest part.
    #[must_use]
    pub fn oldest(&self) -> Option<Id> {
        match self {
            Self::One(id) => Some(*id),
            Self::Many(parts) => parts.iter().map(|&(_, id)| id).min(),
        }
    }

    /// Moves the position in `partition`.
    pub fn set(&mut self, partition: PartitionNo, to: Id) {
        match self {
            Self::One(id) => *id = to,
            Self::Many(parts) => {
                if let Some(part) = parts.iter_mut().find(|(p, _)| *p == partition) {
                    part.1 = to;
                }
            }
        }
    }

    /// Whether this cursor was written by a gateway of `partitions` partitions.
    #[must_use]
    pub fn speaks_of(&self, partitions: PartitionNo) -> bool {
        match self {
            Self::One(_) => partitions == 1,
            Self::Many(parts) => partitions > 1 && parts.iter().all(|&(p, _)| p < partitions),
        }
    }
}

/// The text is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cursor is an id, or ascending partition:id pairs")]
pub struct BadCursor;

impl From<BadId> for BadCursor {
    fn from(_: BadId) -> Self {
        Self
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(id) => id.fmt(f),
            Self::Many(parts) => {
                for (i, (partition, id)) in parts.iter().enumerate() {
                    let comma = if i == 0 { "" } else { "," };
                    write!(f, "{comma}{partition}:{id}")?;
                }
                Ok(())
            }
        }
    }
}

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        if text.len() > Self::BYTES_MAX {
            return Err(BadCursor);
        }
        if !text.contains(':') {
            return Ok(Self::One(text.parse()?));
        }
        let mut parts: Vec<(PartitionNo, Id)> = Vec::new();
        for pair in text.split(',') {
            let (partition, id) = pair.split_once(':').ok_or(BadCursor)?;
            let number: PartitionNo = partition.parse().map_err(|_| BadCursor)?;
            let ascending = parts.last().is_none_or(|&(before, _)| before < number);
            if !ascending || number.to_string() != partition {
                return Err(BadCursor);
            }
            parts.push((number, id.parse()?));
        }
        Ok(Self::Many(parts.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(pairs in proptest::collection::btree_map(0u16..500, (0u64..1 << 53, 0u64..1 << 53), 1..20)) {
            let parts: Vec<_> = pairs.into_iter().map(|(p, (ms, seq))| (p, Id::new(ms, seq))).collect();
            prop_assert!(Cursor::fits(parts.len()));
            let one = Cursor::One(parts[0].1);
            prop_assert_eq!(one.to_string().parse::<Cursor>(), Ok(one));
            let many = Cursor::Many(parts.into());
            prop_assert!(many.to_string().len() <= Cursor::BYTES_MAX);
            prop_assert_eq!(many.to_string().parse::<Cursor>(), Ok(many));
        }

        #[test]
        fn any_text_is_read_or_refused_and_reads_back_alike(text in "[0-9:,-]{0,40}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }

    #[test]
    fn malformed_cursors() {
        for bad in [
            "",
            "abc",
            "1-1,2-2",
            "1:1-1,",
            "2:1-1,1:1-1",
            "1:1-1,1:1-1",
            "01:1-1",
            "70000:1-1",
            "1-1 ",
        ] {
            assert_eq!(bad.parse::<Cursor>(), Err(BadCursor), "{bad:?}");
        }
        assert!("9".repeat(2000).parse::<Cursor>().is_err());
    }

    #[test]
    fn a_cursor_of_another_layout_is_known_as_such() {
        let one: Cursor = "5-1".parse().unwrap();
        let many: Cursor = "3:5-1,9:6-1".parse().unwrap();
        assert!(one.speaks_of(1) && !one.speaks_of(64));
        assert!(many.speaks_of(64) && !many.speaks_of(1) && !many.speaks_of(8));
        assert_eq!(many.position(9), Some(Id::new(6, 1)));
        assert_eq!(many.position(1), None);
    }

    #[test]
    fn as_many_partitions_fit_as_the_longest_text_has_room_for() {
        let number = (1 << 53) - 1;
        let longest = |partitions: PartitionNo| {
            let numbers = PartitionNo::MAX - partitions..PartitionNo::MAX;
            Cursor::Many(numbers.map(|p| (p, Id::new(number, number))).collect())
        };
        for (partitions, fits) in [(1, true), (25, true), (26, false)] {
            let text = longest(partitions).to_string();
            assert_eq!(text.len() <= Cursor::BYTES_MAX, fits, "{partitions}");
            assert_eq!(Cursor::fits(partitions.into()), fits, "{partitions}");
            assert_eq!(text.parse::<Cursor>().is_ok(), fits, "{partitions}");
        }
        let pair = longest(1).to_string().len() + ",".len();
        assert_eq!(pair, Cursor::PAIR_BYTES_MAX);
    }

    #[test]
    fn a_bare_id_is_the_place_in_the_only_partition() {
        let mut one: Cursor = "5-1".parse().unwrap();
        assert_eq!(one.position(0), Some(Id::new(5, 1)));
        assert_eq!(one.position(1), None);
        one.set(0, Id::new(6, 0));
        assert_eq!(one.oldest(), Some(Id::new(6, 0)));
    }
}
