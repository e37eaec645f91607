//! By whose right a stream is open, and whether that still holds. Each state of a stream asks here, opening included.

use super::settings::StreamSettings;
use crate::auth::{Edition, Holder, Revocations};
use crate::metrics::CloseReason;
use crate::topic::Topic;
use std::sync::Arc;
use std::time::Duration;

/// By whose right a stream is open.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// Whose it is. Many streams may share it.
    pub holder: Arc<Holder>,
    /// The edition of what holds that this stream has seen: at first that by which it was admitted.
    pub seen: Edition,
}

/// Whether a right was taken back since it was looked at last. Nearly always two numbers are compared, and no more.
pub(super) fn is_revoked(
    revocations: &Revocations,
    (holder, seen): (&Holder, Edition),
    topics: impl FnOnce() -> Vec<Topic>,
) -> bool {
    revocations.edition() != seen && revocations.is_revoked(holder, &topics(), seen)
}

impl Life {
    /// Why a stream is to be cut that has not begun, if it is. Which of its topics were taken back it asks when it has
    /// begun, before it shows anything.
    pub(super) fn cut_before_begun(
        &self,
        settings: &StreamSettings,
        wall: Duration,
    ) -> Option<CloseReason> {
        if settings.drain.has_begun() {
            // It has no slot of the drain's time yet, and nothing to show.
            return Some(CloseReason::Drain);
        }
        if self.holder.ends().is_some_and(|at| wall >= at) {
            return Some(CloseReason::Expired);
        }
        let is_revoked = is_revoked(&settings.revocations, (&self.holder, self.seen), Vec::new);
        is_revoked.then_some(CloseReason::Revoked)
    }
}
