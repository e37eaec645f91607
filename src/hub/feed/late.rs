//! Events that were found in the log after streams had gone past them.
//!
//! They stand in no window: a window moves on, and a stream that is behind it would never be told.
//! Each find is numbered, and a stream remembers the number up to which it has looked.

use crate::id::Id;
use crate::sse::GapReason;

/// Finds that are remembered. Older ones run together.
const FINDS_MAX: usize = 16;

/// Finds of one topic. Most topics have none, ever.
#[derive(Debug, Default)]
pub(super) struct LateFinds {
    #[expect(
        clippy::box_collection,
        reason = "a pointer in each of very many topics, where a list would take three times that"
    )]
    finds: Option<Box<Vec<LateFind>>>,
    count: u32,
}

/// Something above its stretch's `from`, up to its `to`, was found late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hub) struct LateFind {
    /// Counts the finds of this topic, from 1.
    pub(in crate::hub) number: u32,
    /// What was found.
    pub(in crate::hub) stretch: Stretch,
    /// Where the clock stood when it was found.
    pub(in crate::hub) at: Id,
    /// Streams that began before this serial number of the hub may have gone past it here.
    pub(in crate::hub) serial: u64,
}

/// Entries that were found, or found to be gone, after streams had gone past them: above `from`, up
/// to `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hub) struct Stretch {
    /// The last id before the hole.
    pub(in crate::hub) from: Id,
    /// The greatest id found.
    pub(in crate::hub) to: Id,
    /// Why they are told of.
    pub(in crate::hub) reason: GapReason,
}

impl Stretch {
    /// Both in one. For two reasons there is only the one that says no more than that.
    pub(in crate::hub) fn and(self, other: Self) -> Self {
        let reason = if self.reason == other.reason {
            self.reason
        } else {
            GapReason::Late
        };
        Self {
            from: self.from.min(other.from),
            to: self.to.max(other.to),
            reason,
        }
    }
}

impl LateFinds {
    /// Notes a find.
    pub(super) fn note(&mut self, stretch: Stretch, at: Id, serial: u64) {
        self.count += 1;
        let find = LateFind {
            number: self.count,
            stretch,
            at,
            serial,
        };
        let finds = self.finds.get_or_insert_default();
        finds.push(find);
        if finds.len() > FINDS_MAX {
            let oldest = finds.remove(0);
            if let Some(next) = finds.first_mut() {
                // Streams may be told more than they lack, and never less.
                next.stretch = next.stretch.and(oldest.stretch);
            }
        }
    }

    /// How many finds there were.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Finds after number `seen`.
    pub(super) fn after(&self, seen: u32) -> impl Iterator<Item = &LateFind> {
        let finds = self.finds.iter().flat_map(|finds| finds.iter());
        finds.filter(move |find| find.number > seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Streams may be told more than they lack, and never less.
    #[test]
    fn the_oldest_of_too_many_finds_runs_into_the_next() {
        let id = |ms: u64| Id::new(ms, 0);
        let mut finds = LateFinds::default();
        let many = FINDS_MAX as u64;
        for number in 1..=many + 2 {
            let stretch = Stretch {
                from: id(10 * number),
                to: id(10 * number + 5),
                reason: GapReason::Late,
            };
            finds.note(stretch, id(10 * number + 9), number);
            assert_eq!(u64::from(finds.count()), number);
            let after = finds.after(0).map(|find| find.stretch.from.ms);
            assert_eq!(after.min(), Some(10), "the first is told still");
            assert_eq!(finds.after(0).count() as u64, number.min(many));
            assert_eq!(finds.after(finds.count() - 1).count(), 1);
            assert_eq!(finds.after(finds.count()).count(), 0);
        }
        let oldest = finds.after(0).next().unwrap().stretch;
        assert_eq!((oldest.from, oldest.to), (id(10), id(35)));
    }
}
