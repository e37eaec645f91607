//! The log of one partition as plain data: publish, read, delete, report; seams and losses.
//!
//! The memory broker is a ledger behind a lock. The same rules stand in Lua in `redis/core.lua` and
//! `redis/internal.lua`. `tests/ledger.rs` runs both side by side, so `tests/simulation/` may take a
//! ledger for its Redis. Time comes in as an argument.

mod report;
mod retention;

pub use retention::{Bounds, Retention, Rule};

use super::{BrokerError, Publication, TopicState};
use crate::id::Id;
use crate::log::{
    ClockName, Floor, History, Horizon, Loss, Page, ReadRequest, Reading, RunId, Seam, Tick,
};
use crate::sse::{Entry, Frame, Mark};
use crate::topic::Topic;
use std::collections::{BTreeMap, HashMap, VecDeque};

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

/// How long a log outlives its age at most, so that an empty one is not mistaken for a lost one.
const EXPIRY_SLACK_MS: u64 = 3_600_000;

/// When a log expires whose last entry is of this millisecond: some time after that entry is too old.
const fn expiry(ms: u64, age_ms: u64) -> u64 {
    let slack = if age_ms < EXPIRY_SLACK_MS {
        age_ms
    } else {
        EXPIRY_SLACK_MS
    };
    ms + age_ms + slack
}
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
    /// Where seams begin that the process which writes has left itself, in reports.
    leaps: VecDeque<Id>,
    losses: VecDeque<Loss>,
    logs: BTreeMap<Topic, Log>,
    /// The last entries of logs that expired before the clock says that they are too old.
    gone: HashMap<Topic, Id>,
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
            leaps: VecDeque::new(),
            losses: VecDeque::new(),
            logs: BTreeMap::new(),
            gone: HashMap::new(),
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

    /// Where a log begins that is not there. What it held may have expired. A last entry that is younger than
    /// that went early, as when the clock was put forward and back again.
    fn empty_floor(&self, topic: &Topic, at_ms: u64) -> Id {
        let floor = Id::before_ms(self.oldest(topic, at_ms));
        self.gone.get(topic).map_or(floor, |last| floor.max(*last))
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
                // No longer than the log of the event that it names.
                let logged = self.retention.of(&item.topic);
                let kept_ms = logged.map_or(u64::MAX, |bounds| expiry(0, bounds.age_ms));
                let until_ms = now_ms + self.retention.idempotency_ms.min(kept_ms);
                self.keys.insert(key, (id, until_ms));
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
            held: None,
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
            run: RunId(self.run),
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
        let floor = match self.floor(&request.topic, now_ms) {
            Floor::Log(_) if request.limit == 0 => Floor::Log(Id::ZERO),
            floor => floor,
        };
        Page {
            topic: request.topic.clone(),
            after: request.after,
            floor,
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
                let floor = self.empty_floor(topic, now_ms.max(self.last.ms));
                // Ids above the last one are still to be given out, if the clock is put back.
                Floor::Empty(floor.min(self.last))
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
    pub fn tick(&mut self, now_ms: u64) -> Tick {
        self.take_over(now_ms);
        self.last = self.last.max(Id::before_ms(now_ms));
        Tick {
            id: self.last,
            of: Some(self.name()),
        }
    }

    /// Which clock this is.
    #[must_use]
    pub fn name(&self) -> ClockName {
        ClockName {
            born: self.born,
            seam: self.seams.back().map_or(Id::ZERO, |seam| seam.before),
            run: RunId(self.run),
        }
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

    /// How many topics have a log.
    #[must_use]
    pub fn topics_count(&self) -> usize {
        self.logs.len()
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
        let fresh = self.empty_floor(topic, id.ms);
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
        log.ended = match mark {
            Mark::End => Some(id),
            // A loss that is written down opens nothing: who has seen the end is told, and has seen all then.
            Mark::Gap { .. } => log.ended.map(|_| id),
            Mark::Event | Mark::Deleted | Mark::Unlogged => None,
        };
        log.expires_ms = expiry(id.ms, bounds.age_ms);
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
        let mut gone = std::mem::take(&mut self.gone);
        self.logs.retain(|topic, log| {
            let stays = log.expires_ms > now_ms;
            if !stays {
                gone.insert(topic.clone(), log.head);
            }
            stays
        });
        gone.retain(|topic, last| !self.logs.contains_key(topic) && self.expired_to(topic) < *last);
        self.gone = gone;
        self.keys.retain(|_, (_, until)| *until > now_ms);
    }
}

#[cfg(test)]
pub(super) mod tests;
