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
    /// this process wrote. Returns gap entries to be sent live.
    pub fn report(
        &mut self,
        followed: impl Into<Followed>,
        topics: &[(Topic, Id)],
        now_ms: u64,
    ) -> LiveFrames {
        let followed = followed.into();
        self.expire(now_ms);
        self.take_over(now_ms);
        let reporter = Reporter {
            heard: followed.heard,
            passed: followed.known,
            since: self.unfollowed_since(&followed),
            is_known: self.is_followed_by(&followed),
        };
        // Before anything leaps: what this very process has lost shows by what it lacks now.
        let missing: Vec<Option<Id>> = topics
            .iter()
            .map(|(topic, id)| self.missing_after(topic, *id).filter(|_| reporter.is_known))
            .collect();
        // It may have heard more than it followed. Nothing of that is given out again.
        let reported = topics.iter().map(|(_, id)| *id);
        let known = reported.fold(followed.known, Id::max);
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

    /// Whether a replica has followed the process that writes now.
    fn is_followed_by(&self, followed: &Followed) -> bool {
        let name = self.name();
        followed.born == Some(name.born)
            && followed.seam == Some(name.seam)
            && followed.run == Some(name.run)
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
        match self.seams.back_mut() {
            Some(seam) => seam.after = beyond,
            None => self.seams.push_back(Seam {
                before: self.born,
                after: beyond,
            }),
        }
    }

    /// A new seam: something was lost above `before`, up to `id`, by a process that goes on.
    fn leap_from(&mut self, before: Id, id: Id) {
        self.seams.push_back(Seam { before, after: id });
        if self.seams.len() > SEAMS_MAX {
            self.seams.pop_front();
        }
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
        frames.extend(self.report_entry(topic, id, missing, reporter, now_ms));
        frames
    }

    /// The same of the entry alone.
    fn report_entry(
        &mut self,
        topic: &Topic,
        id: Id,
        missing: Option<Id>,
        reporter: &Reporter,
        now_ms: u64,
    ) -> Option<Frame> {
        let since = reporter.since.filter(|since| *since < id);
        if let Some(from) = since.filter(|_| !self.has(topic, id)) {
            return self.write_gap(topic, from, id, now_ms);
        }
        if let Some(before) = missing {
            // Its ids are not given out again anyway, and other topics may have entries there.
            return self.write_gap(topic, before, id, now_ms);
        }
        if !reporter.is_known && self.is_beyond_seams(id) && self.lacks(topic, id) {
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
mod tests {
    use super::super::tests::{ledger, publish, read, topic};
    use super::*;
    use crate::log::ClockName;

    /// What a report has written down as lost: above the one, up to the other.
    fn gap_of(frames: &LiveFrames) -> Option<(Id, Id)> {
        frames.iter().find_map(|(_, frame)| match frame.mark {
            Mark::Gap { from, lost } => Some((from, lost)),
            _ => None,
        })
    }

    /// A replica had followed a clock that was ahead; Redis lost all it had, and began below. What
    /// was published before the report is at or below what the replica has heard, and not shown.
    #[test]
    fn what_a_clock_that_began_anew_gave_out_before_the_report_is_told() {
        let heard = Id::new(99_000, 3);
        let followed = Followed {
            heard,
            known: heard,
            born: Some(Id::new(90_000, 0)),
            seam: Some(Id::ZERO),
            run: None,
        };
        let mut log = ledger(10);
        let born = log.horizon(10_000).born;
        publish(&mut log, 2, 10_001);
        let told = log.report(followed, &[(topic(), Id::ZERO)], 10_002);
        assert_eq!(gap_of(&told), Some((born, heard)));
        assert!(log.last() > heard, "it goes on above what was heard");
        // The process ends before the report: what it gave out is below the seam.
        let mut log = ledger(10);
        publish(&mut log, 2, 10_001);
        log.run += 1;
        publish(&mut log, 1, 10_002);
        let told = log.report(followed, &[(topic(), Id::ZERO)], 10_003);
        assert_eq!(gap_of(&told), Some((born, heard)));
        // Trimmed already: the log does not say what it was.
        let mut log = ledger(1);
        publish(&mut log, 2, 10_001);
        log.last = Id::new(99_500, 0);
        publish(&mut log, 1, 10_002);
        let told = log.report(followed, &[(topic(), Id::ZERO)], 10_003);
        assert_eq!(gap_of(&told), Some((born, heard)));
        // Nothing was published: nothing is lost.
        let mut log = ledger(10);
        let told = log.report(followed, &[(topic(), Id::ZERO)], 10_002);
        assert_eq!(gap_of(&told), None);
        assert!(log.last() > heard);
    }

    /// A replica had heard more of a topic, and of a clock, than it followed, and another clock went on
    /// below that: what it gave out seemed to go back, without end.
    #[test]
    fn what_was_heard_is_not_given_out_again_although_nobody_followed_it() {
        let heard = Id::new(99_000, 3);
        let more = Id::new(99_000, 9);
        for born in [Some(Id::new(90_000, 0)), None] {
            let followed = Followed {
                born,
                ..Followed::from(heard)
            };
            let mut log = ledger(10);
            log.report(followed, &[(topic(), more)], 10_002);
            assert!(publish(&mut log, 1, 10_003)[0] > more);
            let followed = Followed {
                known: more,
                ..followed
            };
            let mut log = ledger(10);
            log.report(followed, &[(topic(), Id::ZERO)], 10_002);
            assert!(publish(&mut log, 1, 10_003)[0] > more);
            // The process that it followed has lost its tail.
            let mut log = ledger(10);
            let followed = Followed {
                known: more,
                ..Followed::by(log.name(), log.last())
            };
            assert!(log.report(followed, &[], 10_002).is_empty());
            assert!(publish(&mut log, 1, 10_003)[0] > more);
        }
    }

    /// What was heard before anything of a new process was followed was lost with that process, and the log
    /// held other events of the topic at ids that nobody is shown.
    #[test]
    fn an_entry_above_what_was_followed_is_told_beside_what_is_below() {
        let mut log = ledger(10);
        let known = publish(&mut log, 1, 10_001)[0];
        let seen = log.horizon(10_001);
        let followed = Followed::by(ClockName::of(&seen), Id::new(10_400, 0));
        log.run = 1;
        let kept = publish(&mut log, 1, 10_100)[0];
        assert!(kept < followed.heard, "{kept}");
        let waited = Id::new(30_000, 1);
        let told = log.report(followed, &[(topic(), known), (topic(), waited)], 20_300);
        let covers = |id: Id| {
            told.iter().any(
                |(_, frame)| matches!(frame.mark, Mark::Gap { from, lost } if from < id && id <= lost),
            )
        };
        assert!(covers(kept) && covers(waited), "{told:?}");
    }

    /// Frames of the log before FLUSHALL came after the log was told of them and read. Streams stood there, and
    /// what the new log gives out below is shown to nobody.
    #[test]
    fn what_lies_below_an_id_that_was_heard_and_not_followed_is_told() {
        let mut log = ledger(10);
        let seen = log.horizon(10_000);
        let unseen = publish(&mut log, 1, 10_200)[0];
        let passed = Id::new(10_300, 0);
        let followed = Followed {
            known: passed,
            ..Followed::by(ClockName::of(&seen), Id::new(10_100, 0))
        };
        let told = log.report(followed, &[(topic(), Id::ZERO)], 10_250);
        let (from, lost) = gap_of(&told).unwrap();
        assert!(from < unseen && lost == passed, "{told:?}");
        assert!(log.last() > passed);
    }

    /// The process that a replica followed went, and so did the next one before the report.
    #[test]
    fn what_two_processes_wrote_that_a_replica_did_not_follow_is_told() {
        let mut log = ledger(10);
        let known = publish(&mut log, 1, 10_001)[0];
        let seen = log.horizon(10_001);
        // It followed a clock that was ahead, and which the log has forgotten.
        let followed = Followed::by(ClockName::of(&seen), Id::new(10_400, 0));
        for run in 1..=2 {
            log.run = run;
            publish(&mut log, 1, 10_100 * run);
        }
        let seams: Vec<Id> = log.seams.iter().map(|seam| seam.before).collect();
        assert_eq!(seams.len(), 2);
        let told = log.report(followed, &[(topic(), known)], 20_300);
        assert_eq!(gap_of(&told), Some((seams[0], followed.heard)));
        // A second replica that had heard no more is told by the same entry.
        let told = log.report(followed, &[(topic(), known)], 20_400);
        assert_eq!(gap_of(&told), None);
    }

    /// A process loaded a snapshot, was followed, and died; the next one loaded the same snapshot, so that its
    /// seam begins where that of the one before began, and its clock was behind. What it gave out before the
    /// report is at or below what streams were shown of the first.
    #[test]
    fn two_processes_that_began_with_one_snapshot_are_not_one() {
        let mut first = ledger(10);
        let kept = publish(&mut first, 1, 10_001)[0];
        let mut second = first.clone();
        first.run = 1;
        publish(&mut first, 1, 10_002);
        let followed = Followed::by(ClockName::of(&first.horizon(10_300)), Id::new(10_300, 0));
        second.run = 2;
        let unseen = publish(&mut second, 1, 10_003)[0];
        assert_eq!(first.name().seam, second.name().seam);
        assert!(unseen < followed.heard, "{unseen}");
        let told = second.report(followed, &[(topic(), kept)], 10_004);
        assert_eq!(gap_of(&told), Some((kept, followed.heard)));
    }

    /// Told as lost is only what a replica did not follow.
    #[test]
    fn a_replica_that_has_followed_everything_writes_no_gap() {
        let mut log = ledger(10);
        publish(&mut log, 1, 10_001);
        log.run = 1;
        let last = publish(&mut log, 2, 10_100)[1];
        let followed = Followed::by(ClockName::of(&log.horizon(10_100)), last);
        log.run = 2;
        publish(&mut log, 1, 10_200);
        let told = log.report(followed, &[(topic(), last)], 10_300);
        assert_eq!(gap_of(&told), None);
    }

    /// The log of one process goes back, as by REPLICAOF: lost is what stood above the last entry that it
    /// still has, and what came before is shown to whoever resumes.
    #[test]
    fn a_process_that_goes_on_has_lost_no_more_than_its_tail() {
        let mut log = ledger(10);
        let kept = publish(&mut log, 3, 10_001)[2];
        let mut before = log.clone();
        let lost = publish(&mut log, 2, 10_010)[1];
        let followed = Followed::by(ClockName::of(&log.horizon(10_010)), lost);
        let told = before.report(followed, &[(topic(), lost)], 10_020);
        assert_eq!(gap_of(&told), Some((kept, lost)));
        let seam = before.horizon(10_020).seams[0];
        assert_eq!(seam.before, kept);
        assert!(lost < seam.after);
        // Somebody has published before the report.
        let mut before = log.clone();
        before.logs.get_mut(&topic()).unwrap().entries.truncate(3);
        before.logs.get_mut(&topic()).unwrap().head = kept;
        publish(&mut before, 1, 10_030);
        let told = before.report(followed, &[(topic(), lost)], 10_040);
        assert_eq!(gap_of(&told), Some((kept, lost)));
        assert!(
            before.horizon(10_040).seams.is_empty(),
            "other topics have lost nothing"
        );
        // A second replica that heard the same, and one that has heard all since.
        assert!(
            before
                .report(followed, &[(topic(), lost)], 10_050)
                .is_empty()
        );
        let last = before.last();
        let followed = Followed::by(ClockName::of(&before.horizon(10_050)), last);
        assert!(
            before
                .report(followed, &[(topic(), last)], 10_060)
                .is_empty()
        );
    }

    /// A frame that came twice leads to a report, too.
    #[test]
    fn a_report_of_what_the_log_has_writes_nothing() {
        let mut log = ledger(10);
        let last = publish(&mut log, 3, 10_001)[2];
        let seen = log.horizon(10_001);
        let followed = Followed::by(ClockName::of(&seen), last);
        assert!(log.report(followed, &[(topic(), last)], 10_002).is_empty());
        assert_eq!(log.horizon(10_001), seen);
    }

    #[test]
    fn a_loss_outlives_the_entry_that_tells_of_it() {
        let mut log = ledger(2);
        let kept = publish(&mut log, 1, 10_001)[0];
        let lost = Id::new(10_002, 1);
        log.run = 1;
        publish(&mut log, 1, 10_010);
        let told = log.report(lost, &[(topic(), lost)], 10_020);
        let entry = told[0].1.id;
        publish(&mut log, 3, 10_030);
        let horizon = read(&mut log, 10_040).horizon;
        let loss = Loss {
            from: kept,
            told: entry,
        };
        assert_eq!(horizon.losses, [loss]);
        // Another replica reports the same: whoever is before the entry is told by its loss.
        assert!(log.report(lost, &[(topic(), lost)], 10_050).is_empty());
    }
}
