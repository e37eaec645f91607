//! What a replica tells a log that may have gone back, and what the log writes down about it.
//!
//! | the replica heard | the log |
//! |---|---|
//! | an id above all that it has given out, of this log or of one before | leaps over it, so that no id is given out twice |
//! | of a topic an id that lies in a seam, or that the log lacks | writes a gap entry: above where the loss begins, up to that id |
//! | of a clock, or of a process, that was not the last one | writes a gap entry for each topic that was written meanwhile at ids that nobody is shown any more |
//!
//! A stretch is written down once, whoever reports it.

use super::{EXPIRY_SLACK_MS, GAPS_MAX, LOSSES_MAX, Ledger, LiveFrames, SEAMS_MAX};
use crate::id::Id;
use crate::log::{Followed, Loss, Seam};
use crate::sse::{Entry, Frame, Mark};
use crate::topic::Topic;

/// How far ahead of the log's time and its clock a reported id may be, in milliseconds. A replica believes no frame that is a
/// minute ahead of what the log has answered.
const REPORT_AHEAD_MS: u64 = 3_600_000;

/// What a report means to the log that hears it.
struct Reporter {
    /// Up to here it has followed a clock.
    heard: Id,
    /// Nothing at or below is shown there any more, whatever log it was of.
    passed: Id,
    /// From here on the log was written by processes that the replica did not follow.
    since: Option<Id>,
    /// It has followed the process that writes now.
    is_known: bool,
}

impl Ledger {
    /// Hears how far a replica followed the clock, and which id of each topic it knew last, before
    /// this process wrote. Returns gap entries to be sent live. A report of ids that are far ahead of the
    /// log is not believed, and changes nothing.
    pub fn report(
        &mut self,
        followed: impl Into<Followed>,
        topics: &[(Topic, Id)],
        now_ms: u64,
    ) -> LiveFrames {
        let followed = followed.into();
        // It may have heard more than it followed. Nothing of that is given out again.
        let reported = topics.iter().map(|(_, id)| *id);
        let known = reported.fold(followed.known.max(followed.heard), Id::max);
        if known.ms > self.last.ms.max(now_ms).saturating_add(REPORT_AHEAD_MS) {
            return Vec::new();
        }
        self.expire(now_ms);
        self.take_over(now_ms);
        let is_known = self.is_followed_by(&followed);
        let reporter = Reporter {
            heard: followed.heard,
            passed: followed.known,
            since: self.unfollowed_since(&followed).filter(|_| !is_known),
            is_known,
        };
        // Before anything leaps: what this very process has lost shows by what it lacks now.
        let missing: Vec<Option<Id>> = topics
            .iter()
            .map(|(topic, id)| self.missing_after(topic, *id).filter(|_| reporter.is_known))
            .collect();
        if reporter.is_known {
            // It has followed this very process. Only if that has lost its tail it knows more.
            if self.last < known {
                let last = self.last;
                self.leap_from(last, known);
            }
        } else {
            if self.is_beyond_seams(followed.heard) {
                self.leap_over(followed.heard);
            }
            if self.last < known {
                self.leap_over(known);
            }
        }
        let mut told = Vec::new();
        for ((topic, id), missing) in topics.iter().zip(missing) {
            for frame in self.report_one(topic, *id, missing, &reporter, now_ms) {
                told.push((topic.clone(), frame));
            }
        }
        told
    }

    /// From where on the log was written by processes that a replica did not follow.
    fn unfollowed_since(&self, followed: &Followed) -> Option<Id> {
        if followed.born.is_some_and(|born| born != self.born) {
            return Some(self.born);
        }
        let known = followed.seam?;
        let newer = self.seams.iter().find(|seam| known < seam.before);
        newer.map(|seam| seam.before)
    }

    /// Whether a replica has followed the process that writes now. Seams that this process has left itself, as
    /// other parts of the same report or other replicas had it do, change nothing of that.
    fn is_followed_by(&self, followed: &Followed) -> bool {
        let name = self.name();
        let knows = |known: Id| {
            let mut newer = self.seams.iter().filter(|seam| known < seam.before);
            newer.all(|seam| self.leaps.contains(&seam.before))
        };
        followed.born == Some(name.born)
            && followed.run == Some(name.run)
            && followed.seam.is_some_and(knows)
    }

    /// Whether this id is above everything that the newest seam covers.
    fn is_beyond_seams(&self, id: Id) -> bool {
        id >= self.seams.back().map_or(self.born, |seam| seam.after)
    }

    /// Where the seam begins that an id lies in.
    fn seam_around(&self, id: Id) -> Option<Id> {
        let around = |seam: &&Seam| seam.before < id && id < seam.after;
        self.seams.iter().find(around).map(|seam| seam.before)
    }

    /// Widens the newest seam so that it covers `id`. What was not given out up to there never will be.
    fn leap_over(&mut self, id: Id) {
        let beyond = if self.last < id {
            self.last = Id::before_ms(id.ms + 1);
            self.last
        } else {
            Id::new(id.ms, id.seq + 1)
        };
        if let Some(seam) = self.seams.back_mut() {
            seam.after = beyond;
        } else {
            self.seams.push_back(Seam {
                before: self.born,
                after: beyond,
            });
            self.note_leap(self.born);
        }
    }

    /// This process has left a seam itself that begins there.
    fn note_leap(&mut self, before: Id) {
        self.leaps.push_back(before);
        if self.leaps.len() > SEAMS_MAX {
            self.leaps.pop_front();
        }
    }

    /// A new seam: something was lost above `before`, up to `id`, by a process that goes on.
    fn leap_from(&mut self, before: Id, id: Id) {
        self.seams.push_back(Seam { before, after: id });
        if self.seams.len() > SEAMS_MAX {
            self.seams.pop_front();
        }
        self.note_leap(before);
        self.leap_over(id);
    }

    /// After which entry of a topic an id stood that the log lacks.
    fn before(&self, topic: &Topic, id: Id) -> Id {
        let Some(entries) = self.logs.get(topic).map(|log| &log.entries) else {
            return self.empty_floor(topic, self.last.ms);
        };
        let below = entries.partition_point(|(entry, _)| entry.id < id);
        let last = below.checked_sub(1).and_then(|last| entries.get(last));
        let first = || entries.front().map(|(first, _)| first.prev);
        last.map(|(entry, _)| entry.id)
            .or_else(first)
            .unwrap_or_default()
    }

    /// After what an entry that was heard of this very process stood, if the log lacks it. In a seam it was
    /// lost by a process before this one.
    fn missing_after(&self, topic: &Topic, id: Id) -> Option<Id> {
        let is_missing = self.born < id && self.lacks(topic, id) && self.seam_around(id).is_none();
        is_missing.then(|| self.before(topic, id))
    }

    /// What a replica knew of one topic: `id` last, which is `missing` after the other if its own process has
    /// lost it.
    fn report_one(
        &mut self,
        topic: &Topic,
        id: Id,
        missing: Option<Id>,
        reporter: &Reporter,
        now_ms: u64,
    ) -> Vec<Frame> {
        let Reporter {
            heard,
            passed,
            since,
            ..
        } = *reporter;
        let long_ago = self.expired_to(topic).ms.saturating_sub(EXPIRY_SLACK_MS);
        if !self.logs.contains_key(topic) && id <= Id::before_ms(long_ago) {
            // It has expired, and whoever comes is told that. Whoever reads already may have passed it untold
            // if that was a moment ago.
            return Vec::new();
        }
        // What this very log has was heard before it was told, and is read like everything else.
        let lost_since = since.filter(|since| *since < id && !self.has(topic, id));
        if let Some(from) = lost_since.filter(|_| passed < id) {
            return Vec::from_iter(self.write_gap(topic, from, id, now_ms));
        }
        let mut frames = Vec::new();
        let unseen = since.or_else(|| self.seam_around(heard));
        let unfollowed = Some(heard).filter(|heard| *heard < passed);
        let from = unseen.into_iter().chain(unfollowed).min();
        if let Some(from) = from
            && self.has_between(topic, from, passed)
        {
            frames.extend(self.write_gap(topic, from, passed, now_ms));
            if id <= passed {
                return frames;
            }
        }
        // It was looked up before the gap above was written, which may trim it.
        if let Some(from) = lost_since {
            frames.extend(self.write_gap(topic, from, id, now_ms));
        } else {
            frames.extend(self.report_entry(topic, id, missing, reporter.is_known, now_ms));
        }
        frames
    }

    /// The same of the entry alone.
    fn report_entry(
        &mut self,
        topic: &Topic,
        id: Id,
        missing: Option<Id>,
        is_known: bool,
        now_ms: u64,
    ) -> Option<Frame> {
        if let Some(before) = missing {
            // Its ids are not given out again anyway, and other topics may have entries there.
            return self.write_gap(topic, before, id, now_ms);
        }
        if !is_known && self.is_beyond_seams(id) && self.lacks(topic, id) {
            self.leap_over(id);
        }
        let from = self.seam_around(id)?;
        // A process that has lost only some of its logs has entries there.
        if self.has(topic, id) {
            return None;
        }
        self.write_gap(topic, from, id, now_ms)
    }

    /// Whether the topic's log has, or had, an entry above `since` and at or below `heard`.
    fn has_between(&self, topic: &Topic, since: Id, heard: Id) -> bool {
        let Some(log) = self.logs.get(topic).filter(|_| since < heard) else {
            return false;
        };
        let mut ids = log.entries.iter().map(|(entry, _)| entry.id);
        let trimmed = |(first, _): &(Entry, Frame)| since < first.prev;
        ids.any(|id| since < id && id <= heard) || log.entries.front().is_some_and(trimmed)
    }

    /// A stretch of a topic was lost: above `from`, up to `lost`. None if that is written down.
    fn write_gap(&mut self, topic: &Topic, from: Id, lost: Id, now_ms: u64) -> Option<Frame> {
        let covers = |(above, up_to): &(Id, Id)| *above <= from && lost <= *up_to;
        if self
            .logs
            .get(topic)
            .is_some_and(|log| log.gaps.iter().any(covers))
        {
            return None;
        }
        let mark = Mark::Gap { from, lost };
        let frame = self.append(topic, mark, "tidegate.gap".into(), String::new(), now_ms);
        if let Some(log) = self.logs.get_mut(topic) {
            log.gaps.push_back((from, lost));
            if log.gaps.len() > GAPS_MAX {
                log.gaps.pop_front();
            }
        }
        self.losses.retain(|loss| loss.from != from);
        self.losses.push_back(Loss {
            from,
            told: frame.id,
        });
        if self.losses.len() > LOSSES_MAX {
            self.losses.pop_front();
        }
        Some(frame)
    }

    /// Up to where a log that is not there may have expired.
    pub(super) fn expired_to(&self, topic: &Topic) -> Id {
        Id::before_ms(self.oldest(topic, self.last.ms))
    }

    /// Whether the topic's log holds this id.
    fn has(&self, topic: &Topic, id: Id) -> bool {
        let entries = self.logs.get(topic).map(|log| &log.entries);
        entries.is_some_and(|entries| {
            entries
                .binary_search_by_key(&id, |(entry, _)| entry.id)
                .is_ok()
        })
    }

    /// Whether an id that must be in the log is not.
    fn lacks(&self, topic: &Topic, id: Id) -> bool {
        if id > self.last {
            return true;
        }
        match self.logs.get(topic).map(|log| &log.entries) {
            Some(entries) => {
                entries.front().is_some_and(|(first, _)| first.prev < id) && !self.has(topic, id)
            }
            None => self.empty_floor(topic, self.last.ms) < id,
        }
    }
}

#[cfg(test)]
mod tests;
