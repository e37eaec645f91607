//! The gap rule: whether events between a cursor and what the log still holds may be missing.
//!
//! It looks at ids alone, never at a wall clock of the replica, so every replica judges alike.
//! Simulated against a plain model of trimming, expiry, deletion and rewinds in
//! `tests/simulation_log.rs`.

use crate::id::Id;
use crate::log::{Floor, Horizon};
use crate::sse::GapReason;

/// What the rule found: the stream cannot show everything from the cursor up to `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Why.
    pub reason: GapReason,
    /// Where the stream goes on. Below the cursor only for [`GapReason::Ahead`].
    pub to: Id,
}

/// Judges `cursor` against the partition alone: rules 1 to 3 of `ahead`, `log_lost`, `rewound`.
///
/// A replica that holds everything of a topic from the cursor on needs no more than this.
#[must_use]
pub fn judge_partition(cursor: Id, horizon: &Horizon) -> Option<Missing> {
    if cursor > horizon.last {
        let to = horizon.seams.last().map_or(horizon.last, |seam| seam.after);
        return Some(Missing {
            reason: GapReason::Ahead,
            to: to.min(horizon.last),
        });
    }
    if cursor < horizon.born {
        return Some(Missing {
            reason: GapReason::LogLost,
            to: horizon.born,
        });
    }
    rewound(cursor, horizon)
}

/// Rule 3: a cursor strictly inside a seam points at an id that may be lost.
#[must_use]
pub fn rewound(cursor: Id, horizon: &Horizon) -> Option<Missing> {
    let inside = |seam: &&crate::log::Seam| seam.before < cursor && cursor < seam.after;
    horizon.seams.iter().rev().find(inside).map(|seam| Missing {
        reason: GapReason::Rewound,
        to: seam.after,
    })
}

/// Judges `cursor` on one topic whose log begins at `floor`.
///
/// Several rules may apply; the first names the reason, all of them move the place to go on from.
#[must_use]
pub fn judge(cursor: Id, horizon: &Horizon, floor: Floor) -> Option<Missing> {
    let (reason, floor) = match floor {
        Floor::Log(floor) => (GapReason::Trimmed, floor),
        Floor::Empty(floor) => (GapReason::Expired, floor),
        Floor::Unlogged => return None,
    };
    let partition = judge_partition(cursor, horizon);
    if partition.is_some_and(|missing| missing.reason == GapReason::Ahead) {
        return partition;
    }
    let from = partition.map_or(cursor, |missing| missing.to);
    let topic = (from < floor).then_some(Missing { reason, to: floor });
    match (partition, topic) {
        (Some(first), Some(second)) => Some(Missing {
            reason: first.reason,
            to: second.to,
        }),
        (first, second) => first.or(second),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Seam;

    fn horizon() -> Horizon {
        Horizon {
            last: Id::new(10_000, 3),
            born: Id::new(1_000, 0),
            seams: vec![Seam {
                before: Id::new(5_000, 2),
                after: Id::new(7_000, 0),
            }],
            losses: Vec::new(),
            now_ms: 10_000,
            run: "a".into(),
        }
    }

    #[test]
    fn each_rule_in_turn() {
        let floor = Floor::Log(Id::new(2_500, 1));
        let empty = Floor::Empty(Id::new(2_000, 0));
        let table = [
            (Id::new(10_000, 3), floor, None),
            (
                Id::new(10_000, 4),
                floor,
                Some((GapReason::Ahead, Id::new(7_000, 0))),
            ),
            (
                Id::new(999, 9),
                floor,
                Some((GapReason::LogLost, Id::new(2_500, 1))),
            ),
            (Id::new(5_000, 2), floor, None),
            (
                Id::new(5_000, 3),
                floor,
                Some((GapReason::Rewound, Id::new(7_000, 0))),
            ),
            (Id::new(7_000, 0), floor, None),
            (
                Id::new(2_500, 0),
                floor,
                Some((GapReason::Trimmed, Id::new(2_500, 1))),
            ),
            (Id::new(2_500, 1), floor, None),
            (
                Id::new(1_999, 9),
                empty,
                Some((GapReason::Expired, Id::new(2_000, 0))),
            ),
            (Id::new(2_000, 0), empty, None),
            (Id::new(999, 9), Floor::Unlogged, None),
            (Id::new(10_000, 4), Floor::Unlogged, None),
        ];
        for (cursor, floor, expected) in table {
            let found = judge(cursor, &horizon(), floor).map(|m| (m.reason, m.to));
            assert_eq!(found, expected, "cursor {cursor}, floor {floor:?}");
        }
    }
}
