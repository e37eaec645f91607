//! The log of one partition as plain data: publish, read, delete, report; seams and losses.
//!
//! The memory broker is a ledger behind a lock. The same rules stand in Lua in `redis/core.lua` and
//! `redis/internal.lua`. `tests/ledger.rs` runs both side by side, so `tests/simulation/` may take a
//! ledger for its Redis. Time comes in as an argument.

use super::{BrokerError, Publication, TopicState};
use crate::id::Id;
use crate::log::{Floor, Followed, History, Horizon, Loss, Page, ReadRequest, Reading, Seam};
use crate::sse::{Entry, Frame, Mark};
use crate::topic::{Pattern, Topic};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// What is kept of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Entries.
    pub events_max: usize,
    /// Age of an entry, in milliseconds.
    pub age_ms: u64,
}

/// What is kept of the topics that fit a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The topics.
    pub topics: Pattern,
    /// None: they are not logged. Their events are sent live and have no id.
    pub bounds: Option<Bounds>,
}

/// How much a ledger keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// What is kept of a topic that fits no rule.
    pub bounds: Bounds,
    /// Rules for some topics: the first that fits holds.
    pub rules: Vec<Rule>,
    /// Bytes of one event's data.
    pub event_bytes_max: usize,
    /// Topics; 0 for no limit.
    pub topics_max: usize,
    /// How long an idempotency key is remembered, in milliseconds.
    pub idempotency_ms: u64,
    /// How far the clock leaps when another process takes the log over, in milliseconds.
    pub leap_ms: u64,
}

impl Retention {
    /// What is kept of a topic; none if it is not logged.
    #[must_use]
    pub fn of(&self, topic: &Topic) -> Option<Bounds> {
        let rule = self.rules.iter().find(|rule| rule.topics.fits(topic));
        rule.map_or(Some(self.bounds), |rule| rule.bounds)
    }

    /// What decides how old an event may become.
    fn ages(&self) -> (u64, Vec<(&Pattern, Option<u64>)>) {
        let age = |rule: &Rule| rule.bounds.map(|bounds| bounds.age_ms);
        let rules = self.rules.iter().map(|rule| (&rule.topics, age(rule)));
        (self.bounds.age_ms, rules.collect())
    }

    /// The least of all ages.
    fn least_age_ms(&self) -> u64 {
        let rules = self.rules.iter().filter_map(|rule| rule.bounds);
        rules.fold(self.bounds.age_ms, |least, bounds| least.min(bounds.age_ms))
    }
}

/// Frames to be sent live, in order.
pub type LiveFrames = Vec<(Topic, Frame)>;

/// A topic's log.
#[derive(Clone, Debug)]
struct Log {
    entries: VecDeque<(Entry, Frame)>,
    head: Id,
    ended: Option<Id>,
    expires_ms: u64,
    /// Gaps that are written down, the newest last: above the one, up to the other.
    gaps: VecDeque<(Id, Id)>,
}

/// Before when other ages held, and the least of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Before {
    until_ms: u64,
    age_ms: u64,
}

/// How long a log outlives its age, so that an empty one is not mistaken for a lost one.
const EXPIRY_SLACK_MS: u64 = 3_600_000;
/// Seams that are remembered.
const SEAMS_MAX: usize = 64;
/// Losses that are remembered.
const LOSSES_MAX: usize = 64;
/// Gaps of one topic that are remembered.
const GAPS_MAX: usize = 8;

/// One partition.
#[derive(Clone, Debug)]
pub struct Ledger {
    retention: Retention,
    before: Option<Before>,
    /// The process that writes now.
    pub run: u64,
    written_by: Option<u64>,
    last: Id,
    born: Id,
    seams: VecDeque<Seam>,
    losses: VecDeque<Loss>,
    logs: BTreeMap<Topic, Log>,
    keys: HashMap<(Topic, String), (Option<Id>, u64)>,
}

impl Ledger {
    /// An empty log whose clock begins now.
    #[must_use]
    pub fn new(retention: Retention, now_ms: u64) -> Self {
        let start = Id::before_ms(now_ms);
        Self {
            retention,
            before: None,
            run: 0,
            written_by: Some(0),
            last: start,
            born: start,
            seams: VecDeque::new(),
            losses: VecDeque::new(),
            logs: BTreeMap::new(),
            keys: HashMap::new(),
        }
    }

    /// Forgets everything, as FLUSHALL does: the process is the same, and its clock begins anew.
    pub fn flush(&mut self, now_ms: u64) {
        let run = self.run;
        *self = Self::new(self.retention.clone(), now_ms);
        self.run = run;
        self.written_by = Some(run);
    }

    /// Goes on with other settings. Logs that expire by the ages before are not taken for kept.
    pub fn configure(&mut self, retention: Retention, now_ms: u64) {
        if retention.ages() != self.retention.ages() {
            let least = self.retention.least_age_ms();
            let age_ms = self.before.map_or(least, |before| least.min(before.age_ms));
            self.before = Some(Before {
                // What was published in this very millisecond was kept by the ages before, too.
                until_ms: now_ms.max(self.last.ms) + 1,
                age_ms,
            });
        }
        self.retention = retention;
    }

    /// What is kept of a log. A topic may have one from the time when it was logged.
    fn bounds(&self, topic: &Topic) -> Bounds {
        self.retention.of(topic).unwrap_or(self.retention.bounds)
    }

    /// At a moment, events before this millisecond may have expired with their whole log. What is
    /// older than the present ages was kept by the ages before.
    fn oldest(&self, topic: &Topic, at_ms: u64) -> u64 {
        let before = self.before.map_or(0, |before| {
            before.until_ms.min(at_ms.saturating_sub(before.age_ms))
        });
        at_ms.saturating_sub(self.bounds(topic).age_ms).max(before)
    }

    /// The last id given out.
    #[must_use]
    pub fn last(&self) -> Id {
        self.last
    }

    /// Appends all of `batch`, or nothing.
    ///
    /// Returns the ids, none where the topic is not logged, and the frames to be sent live.
    ///
    /// # Errors
    /// [`BrokerError`] for the first event that is refused.
    pub fn publish(
        &mut self,
        batch: &[Publication],
        now_ms: u64,
    ) -> Result<(Vec<Option<Id>>, LiveFrames), BrokerError> {
        self.expire(now_ms);
        self.admit(batch)?;
        let mut ids = Vec::with_capacity(batch.len());
        let mut frames = Vec::with_capacity(batch.len());
        for item in batch {
            let key = item
                .idempotency_key
                .as_ref()
                .map(|key| (item.topic.clone(), key.clone()));
            if let Some((id, _)) = key.as_ref().and_then(|key| self.keys.get(key)) {
                ids.push(*id);
                continue;
            }
            let event_type = item.event_type.as_str().to_owned();
            let frame = if self.retention.of(&item.topic).is_some() {
                let mark = if item.end { Mark::End } else { Mark::Event };
                self.append(&item.topic, mark, event_type, item.data.clone(), now_ms)
            } else {
                let entry = Entry {
                    id: Id::ZERO,
                    prev: Id::ZERO,
                    mark: Mark::Unlogged,
                    event_type,
                    data: item.data.clone(),
                };
                Frame::encode(&item.topic, &entry)
            };
            let id = (frame.mark != Mark::Unlogged).then_some(frame.id);
            ids.push(id);
            if let Some(key) = key {
                self.keys
                    .insert(key, (id, now_ms + self.retention.idempotency_ms));
            }
            frames.push((item.topic.clone(), frame));
        }
        Ok((ids, frames))
    }

    /// Refuses a batch before anything of it is written.
    fn admit(&self, batch: &[Publication]) -> Result<(), BrokerError> {
        let mut ends: Vec<&Topic> = Vec::new();
        let mut fresh: Vec<&Topic> = Vec::new();
        for item in batch {
            let repeated = item
                .idempotency_key
                .as_ref()
                .is_some_and(|key| self.keys.contains_key(&(item.topic.clone(), key.clone())));
            if repeated {
                continue;
            }
            if ends.contains(&&item.topic) {
                return Err(BrokerError::Ended(item.topic.to_string()));
            }
            if item.data.len() > self.retention.event_bytes_max {
                return Err(BrokerError::TooLarge(self.retention.event_bytes_max as u64));
            }
            if self.retention.of(&item.topic).is_none() {
                if item.end {
                    return Err(BrokerError::Unlogged(item.topic.to_string()));
                }
                continue;
            }
            let log = self.logs.get(&item.topic);
            if log.is_some_and(|log| log.ended.is_some()) {
                return Err(BrokerError::Ended(item.topic.to_string()));
            }
            if log.is_none() && !fresh.contains(&&item.topic) {
                fresh.push(&item.topic);
                let limit = self.retention.topics_max;
                if limit > 0 && self.logs.len() + fresh.len() > limit {
                    return Err(BrokerError::TooManyTopics(limit as u64));
                }
            }
            if item.end {
                ends.push(&item.topic);
            }
        }
        Ok(())
    }

    /// Reads pages and the clock.
    pub fn read(&mut self, requests: &[ReadRequest], now_ms: u64) -> Reading {
        self.expire(now_ms);
        Reading {
            horizon: self.horizon(now_ms),
            pages: requests
                .iter()
                .map(|request| self.page(request, now_ms))
                .collect(),
        }
    }

    /// The clock.
    #[must_use]
    pub fn horizon(&self, now_ms: u64) -> Horizon {
        Horizon {
            last: self.last,
            born: self.born,
            seams: self.seams.iter().copied().collect(),
            losses: self.losses.iter().copied().collect(),
            now_ms: now_ms.max(self.last.ms),
            run: self.run.to_string().into(),
        }
    }

    fn page(&self, request: &ReadRequest, now_ms: u64) -> Page {
        let log = self.logs.get(&request.topic);
        let mut frames: Vec<Frame> = Vec::new();
        let mut cut_at = (request.limit == 0).then_some(request.after);
        if let Some(log) = log.filter(|_| request.limit > 0) {
            let start = log
                .entries
                .partition_point(|(entry, _)| entry.id <= request.after);
            let rest = log.entries.range(start..);
            let more = rest.len() > request.limit;
            frames.extend(rest.take(request.limit).map(|(_, frame)| frame.clone()));
            cut_at = frames.last().map(|frame| frame.id).filter(|_| more);
        }
        Page {
            topic: request.topic.clone(),
            after: request.after,
            floor: self.floor(&request.topic, now_ms),
            ended: log.and_then(|log| log.ended),
            frames,
            cut_at,
        }
    }

    fn floor(&self, topic: &Topic, now_ms: u64) -> Floor {
        let log = self.logs.get(topic);
        if let Some((first, _)) = log.and_then(|log| log.entries.front()) {
            return Floor::Log(first.prev);
        }
        match self.retention.of(topic) {
            Some(_) => {
                let oldest = self.oldest(topic, now_ms.max(self.last.ms));
                Floor::Empty(Id::before_ms(oldest))
            }
            None => Floor::Unlogged,
        }
    }

    /// The position before what a first visit asks for.
    pub fn history(&mut self, topics: &[Topic], history: History, now_ms: u64) -> Id {
        self.expire(now_ms);
        let after = match history {
            History::Since { ms } => Id::before_ms(now_ms.max(self.last.ms).saturating_sub(ms)),
            History::Earliest | History::Last { .. } => Id::ZERO,
        };
        let mut ids: Vec<Id> = topics
            .iter()
            .filter_map(|topic| self.logs.get(topic))
            .flat_map(|log| log.entries.iter().map(|(entry, _)| entry.id))
            .filter(|id| *id > after)
            .collect();
        ids.sort_unstable();
        let first = match history {
            History::Last { events } => ids.len().saturating_sub(events),
            History::Earliest | History::Since { .. } => 0,
        };
        ids.get(first).map_or(self.last, |id| id.just_before())
    }

    /// Moves the clock to the present and says it.
    pub fn tick(&mut self, now_ms: u64) -> Id {
        self.take_over(now_ms);
        self.last = self.last.max(Id::before_ms(now_ms));
        self.last
    }

    /// Appends `tidegate.deleted` and drops everything before it. None if there is no log.
    pub fn delete(&mut self, topic: &Topic, now_ms: u64) -> Option<Frame> {
        self.expire(now_ms);
        self.logs.get(topic)?;
        let data = serde_json::json!({ "topic": topic }).to_string();
        let frame = self.append(
            topic,
            Mark::Deleted,
            "tidegate.deleted".into(),
            data,
            now_ms,
        );
        if let Some(log) = self.logs.get_mut(topic) {
            log.entries.drain(..log.entries.len().saturating_sub(1));
        }
        Some(frame)
    }

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
        let since = self.unfollowed_since(&followed);
        if self.is_beyond_seams(followed.heard) {
            self.leap_over(followed.heard);
        }
        let mut told = Vec::new();
        for (topic, id) in topics {
            if let Some(frame) = self.report_one(topic, *id, followed.heard, since, now_ms) {
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

    /// Whether this id is above everything that the newest seam covers.
    fn is_beyond_seams(&self, id: Id) -> bool {
        id >= self.seams.back().map_or(self.born, |seam| seam.after)
    }

    /// Where the seam begins that an id lies in.
    fn seam_around(&self, id: Id) -> Option<Id> {
        let around = |seam: &&Seam| seam.before < id && id < seam.after;
        self.seams.iter().find(around).map(|seam| seam.before)
    }

    /// Widens the newest seam so that it covers `id`, and goes on behind it.
    fn leap_over(&mut self, id: Id) {
        let beyond = Id::before_ms(self.last.max(id).ms + 1);
        self.last = beyond;
        match self.seams.back_mut() {
            Some(seam) => seam.after = beyond,
            None => self.seams.push_back(Seam {
                before: self.born,
                after: beyond,
            }),
        }
    }

    /// What a replica knew of one topic: `id` last, and nothing at or below `heard` is shown there
    /// any more, although `since` the log was written by processes that it did not follow.
    fn report_one(
        &mut self,
        topic: &Topic,
        id: Id,
        heard: Id,
        since: Option<Id>,
        now_ms: u64,
    ) -> Option<Frame> {
        if let Some(from) = since.or_else(|| self.seam_around(heard))
            && self.has_between(topic, from, heard)
        {
            return self.write_gap(topic, from, heard, now_ms);
        }
        if let Some(from) = since.filter(|since| *since < id) {
            return self.write_gap(topic, from, id, now_ms);
        }
        if self.is_beyond_seams(id) && self.lacks(topic, id) {
            self.leap_over(id);
        }
        let from = self.seam_around(id)?;
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

    /// Whether an id that must be in the log is not.
    fn lacks(&self, topic: &Topic, id: Id) -> bool {
        if id > self.last {
            return true;
        }
        match self.logs.get(topic).map(|log| &log.entries) {
            Some(entries) => {
                entries.front().is_some_and(|(first, _)| first.prev < id)
                    && entries
                        .binary_search_by_key(&id, |(entry, _)| entry.id)
                        .is_err()
            }
            None => Id::before_ms(self.oldest(topic, self.last.ms)) < id,
        }
    }

    /// Topics that have a log.
    pub fn topics(&mut self, after: &str, limit: usize, now_ms: u64) -> Vec<Topic> {
        self.expire(now_ms);
        self.logs
            .keys()
            .filter(|topic| topic.as_str() > after)
            .take(limit)
            .cloned()
            .collect()
    }

    /// One topic's log.
    pub fn topic(&mut self, topic: &Topic, now_ms: u64) -> Option<TopicState> {
        self.expire(now_ms);
        let log = self.logs.get(topic)?;
        let ends = log.entries.front().zip(log.entries.back());
        Some(TopicState {
            range: ends.map(|((first, _), (last, _))| (first.id, last.id)),
            length: log.entries.len() as u64,
            ended: log.ended.is_some(),
            subscribers_elsewhere: 0,
        })
    }

    fn append(
        &mut self,
        topic: &Topic,
        mark: Mark,
        event_type: String,
        data: String,
        now_ms: u64,
    ) -> Frame {
        self.take_over(now_ms);
        self.last = if now_ms > self.last.ms {
            Id::new(now_ms, 1)
        } else {
            Id::new(self.last.ms, self.last.seq + 1)
        };
        let id = self.last;
        let bounds = self.bounds(topic);
        let fresh = Id::before_ms(self.oldest(topic, id.ms));
        let log = self.logs.entry(topic.clone()).or_insert_with(|| Log {
            entries: VecDeque::new(),
            head: fresh,
            ended: None,
            expires_ms: 0,
            gaps: VecDeque::new(),
        });
        let entry = Entry {
            id,
            prev: log.head,
            mark,
            event_type,
            data,
        };
        let frame = Frame::encode(topic, &entry);
        log.entries.push_back((entry, frame.clone()));
        log.head = id;
        log.ended = (mark == Mark::End).then_some(id);
        log.expires_ms = id.ms + bounds.age_ms + EXPIRY_SLACK_MS;
        let oldest = id.ms.saturating_sub(bounds.age_ms);
        let old = log
            .entries
            .partition_point(|(entry, _)| entry.id.ms < oldest);
        let excess = log.entries.len().saturating_sub(bounds.events_max);
        log.entries.drain(..old.max(excess));
        frame
    }

    /// The first write of another process leaves a seam.
    fn take_over(&mut self, now_ms: u64) {
        if self.written_by == Some(self.run) {
            return;
        }
        self.written_by = Some(self.run);
        let after = Id::before_ms(now_ms.max(self.last.ms) + self.retention.leap_ms);
        self.seams.push_back(Seam {
            before: self.last,
            after,
        });
        if self.seams.len() > SEAMS_MAX {
            self.seams.pop_front();
        }
        self.last = after;
    }

    fn expire(&mut self, now_ms: u64) {
        self.logs.retain(|_, log| log.expires_ms > now_ms);
        self.keys.retain(|_, (_, until)| *until > now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventType;

    const LEAP: u64 = 50;
    const AGE: u64 = 1_000;

    fn ledger(events_max: usize) -> Ledger {
        let retention = Retention {
            bounds: Bounds {
                events_max,
                age_ms: AGE,
            },
            rules: Vec::new(),
            event_bytes_max: 100,
            topics_max: 0,
            idempotency_ms: 1_000,
            leap_ms: LEAP,
        };
        Ledger::new(retention, 10_000)
    }

    fn topic() -> Topic {
        Topic::parse("a").unwrap()
    }

    /// Publishes so many events at once.
    fn publish(ledger: &mut Ledger, count: usize, now_ms: u64) -> Vec<Id> {
        let event = Publication {
            topic: topic(),
            event_type: EventType::default(),
            data: "x".into(),
            end: false,
            idempotency_key: None,
        };
        let (ids, _) = ledger.publish(&vec![event; count], now_ms).unwrap();
        ids.into_iter().flatten().collect()
    }

    fn read(ledger: &mut Ledger, now_ms: u64) -> Reading {
        let request = ReadRequest {
            topic: topic(),
            after: Id::ZERO,
            limit: 100,
        };
        ledger.read(&[request], now_ms)
    }

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
            born: Some(Id::new(90_000, 0)),
            seam: Some(Id::ZERO),
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

    /// The process that a replica followed went, and so did the next one before the report.
    #[test]
    fn what_two_processes_wrote_that_a_replica_did_not_follow_is_told() {
        let mut log = ledger(10);
        let known = publish(&mut log, 1, 10_001)[0];
        let seen = log.horizon(10_001);
        // It followed a clock that was ahead, and which the log has forgotten.
        let followed = Followed::by(&seen, Id::new(10_400, 0));
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

    /// Told as lost is only what a replica did not follow.
    #[test]
    fn a_replica_that_has_followed_everything_writes_no_gap() {
        let mut log = ledger(10);
        publish(&mut log, 1, 10_001);
        log.run = 1;
        let last = publish(&mut log, 2, 10_100)[1];
        let followed = Followed::by(&log.horizon(10_100), last);
        log.run = 2;
        publish(&mut log, 1, 10_200);
        let told = log.report(followed, &[(topic(), last)], 10_300);
        assert_eq!(gap_of(&told), None);
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

    /// Events of the very millisecond in which other ages were configured were kept by the old ones.
    #[test]
    fn what_expired_by_the_ages_before_is_below_the_floor() {
        let mut log = ledger(10);
        let burst = publish(&mut log, 3, 20_000);
        let mut retention = log.retention.clone();
        retention.bounds.age_ms = 100 * EXPIRY_SLACK_MS;
        log.configure(retention, 20_000);
        let later = 20_000 + AGE + EXPIRY_SLACK_MS + 1;
        let page = read(&mut log, later).pages.remove(0);
        assert!(page.frames.is_empty(), "it has expired");
        assert_eq!(page.floor, Floor::Empty(Id::before_ms(20_001)));
        assert!(burst.iter().all(|id| *id < Id::before_ms(20_001)));
        // And a log that begins then.
        publish(&mut log, 1, later);
        let page = read(&mut log, later).pages.remove(0);
        assert_eq!(page.floor, Floor::Log(Id::before_ms(20_001)));
    }
}
