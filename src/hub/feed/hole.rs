//! A hole of a topic: from where on something is missing, and what streams may have gone past meanwhile.

use super::late::Stretch;
use crate::gap::Missing;
use crate::id::Id;
use crate::log::Page;
use crate::sse::GapReason;

/// Where a topic is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    /// Complete up to here.
    pub(super) at: Id,
    /// Streams may have gone on to here before the hole showed.
    pub(super) shown: Id,
    /// What was read since, and streams may have gone past.
    pub(super) passed: Option<Stretch>,
    /// Up to here streams were told of what they have gone past; zero if of nothing.
    pub(super) told: Id,
}

impl Hole {
    /// A hole after `at`, of which nothing was read and nobody was told.
    pub(super) fn new(at: Id, shown: Id) -> Self {
        Self {
            at,
            shown,
            passed: None,
            told: Id::ZERO,
        }
    }

    /// What streams may have gone past, and were not told, this page included: entries found, and entries that the
    /// log has lost or dropped before they could be found. The topic is complete up to `at`.
    pub(super) fn passed_with(
        &self,
        at: Id,
        missing: Option<Missing>,
        page: &Page,
    ) -> Option<Stretch> {
        let from = at.max(self.told);
        let found = page.frames.iter().map(|frame| frame.id);
        let found = found.filter(|id| from < *id && *id <= self.shown).max();
        let gone = missing.map(|gap| gap.to.min(self.shown));
        let gone = gone.filter(|to| from < *to);
        let reason = match (missing, found) {
            (Some(gap), None) => gap.reason,
            (_, Some(_)) | (None, None) => GapReason::Late,
        };
        let stretch = found.max(gone).map(|to| Stretch {
            from: at,
            to,
            reason,
        });
        self.passed.into_iter().chain(stretch).reduce(Stretch::and)
    }

    /// Whether the page's first entry follows one that is missing between the last known entry, `chain`, and the page: a
    /// hole that no frame had shown.
    pub(super) fn is_older(&self, page: &Page, chain: Id) -> bool {
        page.frames.first().is_some_and(|first| {
            !first.prev.is_position() && chain < first.prev && first.prev <= self.at
        })
    }
}
