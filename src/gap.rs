//! The gap rule: whether events between a cursor and what the log still holds may be missing.
//!
//! It looks at ids alone, never at a wall clock of the replica, so every replica judges alike. In
//! `tests/simulation/` logs are trimmed, deleted, expired, emptied and taken back, and each event
//! that is not shown must be told.

use crate::id::Id;
use crate::log::{Floor, Horizon};
use crate::sse::GapReason;

/// What the rule found: the stream cannot show everything from the cursor up to `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Why.
    pub reason: GapReason,
    /// The gap begins here: at the cursor, or below it where the log has written down a loss that
    /// the cursor may have gone past untold.
    pub from: Id,
    /// Where the stream goes on. Below the cursor only for [`GapReason::Ahead`].
    pub to: Id,
}

/// Judges `cursor` against the partition alone: rules 1 to 3 of `ahead`, `log_lost`, `rewound`.
///
/// A replica that holds everything of a topic from the cursor on needs no more than this.
#[must_use]
pub fn judge_partition(cursor: Id, horizon: &Horizon) -> Option<Missing> {
    if cursor > horizon.last {
        let to = if cursor.ms < horizon.now_ms {
            // This log was there when that id was given out, and has lost its newest since, which nobody has told it
            // yet. What it has kept came before.
            horizon.last
        } else {
            // This log is not the one of the cursor, since it went back last or began.
            horizon.seams.last().map_or(horizon.born, |seam| seam.after)
        };
        return Some(Missing {
            reason: GapReason::Ahead,
            from: cursor,
            to: to.min(horizon.last),
        });
    }
    if cursor < horizon.born {
        // With a clock that was ahead, the log before this one gave out ids above the birth of this one.
        // Replicas have reported how far: up to there the ids of both are mixed.
        let of_both = horizon
            .seams
            .iter()
            .find(|seam| seam.before == horizon.born);
        return Some(Missing {
            reason: GapReason::LogLost,
            from: begin(cursor, horizon),
            to: of_both.map_or(horizon.born, |seam| seam.after.min(horizon.last)),
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
        from: begin(cursor, horizon),
        to: seam.after,
    })
}

/// What was gone already when a first visit asked for what is retained: it does not miss that, on whatever page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgiven {
    /// Up to where the topic was known when the visit began. What came later it misses, however long its first page
    /// takes.
    head: Id,
    /// Where the newest seam ends, or the clock begins if there is none: what a seam lacks the visit never saw.
    seam: Id,
    /// Where the topic's log began.
    floor: Id,
}

impl Forgiven {
    /// Nothing, as long as the log was not read for a visit that began with its topic known up to `head`.
    #[must_use]
    pub fn from_head(head: Id) -> Self {
        Self {
            head,
            ..Self::default()
        }
    }

    /// The log was read for the first time: this is what it lacked.
    pub fn note(&mut self, horizon: &Horizon, floor: Floor) {
        // A log that has begun since lacks all that came between.
        if horizon.born <= self.head {
            let seam = horizon.seams.last();
            self.seam = seam.map_or(horizon.born, |seam| seam.after);
        }
        self.floor = floor.position().unwrap_or_default().min(self.head);
    }
}

/// Judges `cursor` on one topic whose log begins at `floor`.
///
/// Several rules may apply; the first names the reason, all of them move the place to go on from.
#[must_use]
pub fn judge(cursor: Id, horizon: &Horizon, floor: Floor) -> Option<Missing> {
    judge_visit(cursor, horizon, floor, Forgiven::default())
}

/// As [`judge`], for a visit to which something is forgiven.
#[must_use]
pub fn judge_visit(
    cursor: Id,
    horizon: &Horizon,
    floor: Floor,
    forgiven: Forgiven,
) -> Option<Missing> {
    let (reason, floor) = match floor {
        Floor::Log(floor) => (GapReason::Trimmed, floor),
        Floor::Empty(floor) => (GapReason::Expired, floor),
        Floor::Unlogged => return None,
    };
    let partition = judge_partition(cursor, horizon);
    if partition.is_some_and(|missing| missing.reason == GapReason::Ahead) {
        return partition;
    }
    let partition = partition.filter(|missing| missing.to > forgiven.seam);
    let at = partition.map_or(cursor, |missing| missing.to);
    let topic = (at < floor && forgiven.floor < floor).then_some(Missing {
        reason,
        from: begin(cursor, horizon),
        to: floor,
    });
    match (partition, topic) {
        (Some(first), Some(second)) => Some(Missing {
            to: second.to,
            ..first
        }),
        (first, second) => first.or(second),
    }
}

/// Where a gap that is told to this cursor begins.
///
/// A gap entry says that something above its `from` was lost. It may be trimmed, deleted or expire
/// like any other, and a cursor may have gone past the loss before the entry was written. Such a
/// cursor is below the last entry about that loss, and what it is told reaches down to the loss.
fn begin(cursor: Id, horizon: &Horizon) -> Id {
    let losses = horizon.losses.iter().filter(|loss| cursor < loss.told);
    losses.map(|loss| loss.from).fold(cursor, Id::min)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Loss, RunId, Seam};

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
            run: RunId(1),
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

    #[test]
    fn a_cursor_of_another_log_misses_nothing_of_this_one() {
        let horizon = Horizon {
            seams: Vec::new(),
            ..horizon()
        };
        let expected = Missing {
            reason: GapReason::Ahead,
            from: Id::new(99_000, 0),
            to: horizon.born,
        };
        assert_eq!(judge_partition(expected.from, &horizon), Some(expected));
    }

    #[test]
    fn a_cursor_that_is_not_in_the_future_has_seen_what_the_log_has_kept() {
        let horizon = Horizon {
            now_ms: 20_000,
            ..horizon()
        };
        let goes_on = |ms| judge_partition(Id::new(ms, 0), &horizon).map(|missing| missing.to);
        assert_eq!(goes_on(19_999), Some(horizon.last));
        assert_eq!(goes_on(20_000), Some(Id::new(7_000, 0)));
    }

    #[test]
    fn a_gap_reaches_down_to_a_loss_whose_entry_the_cursor_has_not_reached() {
        let mut horizon = horizon();
        horizon.losses.push(Loss {
            from: Id::new(5_000, 2),
            told: Id::new(8_000, 4),
        });
        let floor = Floor::Log(Id::new(9_000, 1));
        let table = [
            (Id::new(4_000, 1), Id::new(4_000, 1)),
            (Id::new(7_500, 0), Id::new(5_000, 2)),
            (Id::new(8_000, 3), Id::new(5_000, 2)),
            (Id::new(8_000, 4), Id::new(8_000, 4)),
        ];
        for (cursor, from) in table {
            let found = judge(cursor, &horizon, floor).map(|missing| missing.from);
            assert_eq!(found, Some(from), "cursor {cursor}");
        }
    }
}
