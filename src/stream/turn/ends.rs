//! When a stream is over, and how it ends.
//!
//! | it ends | because |
//! |---|---|
//! | by a cut, so that its client comes back | the replica drains; its right has ended or was taken back; it is of age; a hole is not repaired |
//! | cleanly | it has shown as much as its client wanted, or for as long |
//!
//! Before it does, it tells what it may have gone past: its client may come back to a replica that lacks nothing.

use super::{Ending, Now, Stream, Turn};
use crate::hub::reader::Reader;
use crate::metrics::CloseReason;
use crate::stream::life;
use crate::stream::out::Out;
use crate::time::CoarseInstant;
use crate::topic::Topic;

impl Stream {
    /// The topics that it shows, `tidegate.connections` last.
    fn shown_topics(&self) -> Vec<Topic> {
        let connections = self.watch().map(|_| Topic::connections());
        self.topics().cloned().chain(connections).collect()
    }

    /// Whether the right by which it is open was taken back.
    pub(super) fn is_revoked(&self) -> bool {
        let revocations = &self.settings.revocations;
        life::is_revoked(revocations, (&self.holder, self.seen), || {
            self.shown_topics()
        })
    }

    /// How the stream is over, if its time has come, whether or not its socket takes anything.
    pub(in crate::stream) fn overdue(&self, now: CoarseInstant) -> Option<Ending> {
        if self.is_revoked() {
            return Some(Ending::Cut(CloseReason::Revoked));
        }
        self.over_by_time(now)
    }

    /// The same by time alone.
    pub(super) fn over_by_time(&self, now: CoarseInstant) -> Option<Ending> {
        if self
            .settings
            .drain
            .cut_at(self.drain_slot)
            .is_some_and(|at| now >= at)
        {
            return Some(Ending::Cut(CloseReason::Drain));
        }
        if self.ends_at().is_some_and(|at| now >= at) {
            return Some(Ending::Clean(CloseReason::Limit));
        }
        if now < self.life_at {
            return None;
        }
        match &self.expiry {
            Some(expiry) => expiry.cut(now).map(Ending::Cut),
            None => Some(Ending::Cut(CloseReason::Age)),
        }
    }

    /// Looks at the end of its right, if it is time to: the client is told of it, or the stream is over.
    pub(super) fn look_at_life(&mut self, now: Now, out: &mut Out) -> Option<Ending> {
        if now.instant < self.life_at {
            return None;
        }
        let expiry = self.expiry.as_mut()?;
        let told = expiry.look(now.instant, now.wall);
        self.life_at = expiry.look_at(now.instant + self.settings.heartbeat);
        let ending = expiry.cut(now.instant).map(Ending::Cut);
        if let Some(block) = told.filter(|_| ending.is_none()) {
            out.push(block);
        }
        ending
    }

    fn ends_at(&self) -> Option<CoarseInstant> {
        self.options.as_ref().and_then(|options| options.ends_at)
    }

    pub(super) fn wake_at(&self) -> CoarseInstant {
        let drain = self.settings.drain.cut_at(self.drain_slot);
        let held = self
            .held_since
            .map(|since| since + self.settings.repair_time);
        let times = [
            Some(self.next_heartbeat),
            Some(self.life_at),
            self.ends_at(),
            drain,
            held,
        ];
        times
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.next_heartbeat)
    }

    /// It ends although it waits for pages: tells what it may have gone past, and was not told. One whose right was taken
    /// back is told nothing more.
    pub fn break_off(&mut self, out: &mut Out) {
        if self.is_revoked() {
            return;
        }
        self.write(out, &mut || (), Reader::tell_untold);
    }

    /// Ends while the log may still be asked for what is missing here.
    pub(super) fn leave(
        &mut self,
        ending: Ending,
        out: &mut Out,
        others: &mut impl FnMut(),
    ) -> Turn {
        self.write(out, others, Reader::tell_untold);
        Turn::Over(ending)
    }
}
