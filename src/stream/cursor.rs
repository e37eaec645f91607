//! What of a stream's cursor its client knows, and when that is too old to come back with.

use crate::broker::{Bounds, Retention};
use crate::cursor::Cursor;
use crate::id::Id;
use crate::topic::Topic;
use std::num::NonZeroU64;

/// When a cursor that was written is too old to come back with: after half of what the log keeps
/// of that topic of which it keeps least.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refresh {
    /// Entries.
    pub(super) events: u32,
    /// Age in milliseconds.
    pub(super) age_ms: u32,
}

impl Refresh {
    pub(super) fn of<'a>(retention: &Retention, topics: impl Iterator<Item = &'a Topic>) -> Self {
        let bounds = topics.filter_map(|topic| retention.of(topic));
        let least = bounds.reduce(|a, b| Bounds {
            events_max: a.events_max.min(b.events_max),
            age_ms: a.age_ms.min(b.age_ms),
        });
        let Bounds { events_max, age_ms } = least.unwrap_or(retention.bounds);
        Self {
            events: u32::try_from(events_max / 2).unwrap_or(u32::MAX),
            age_ms: u32::try_from(age_ms / 2).unwrap_or(u32::MAX),
        }
    }
}

/// What of the cursor was written: a client comes back with that, not with the reader's.
#[derive(Debug)]
pub(super) struct SentCursor {
    /// Milliseconds of its oldest part.
    pub(super) oldest: Option<NonZeroU64>,
    /// How often the cursor has moved since.
    pub(super) behind: u32,
}

impl SentCursor {
    pub(super) fn new(oldest: Option<Id>) -> Self {
        Self {
            oldest: oldest.and_then(|id| NonZeroU64::new(id.ms)),
            behind: 0,
        }
    }

    pub(super) fn written(&mut self, cursor: &Cursor) {
        *self = Self::new(cursor.oldest());
    }
}
