//! What was sent, seen and logged, compared event by event.
//!
//! The promise is checked from both sides. Each acknowledged event is looked for in every diary of
//! its topic, so an event that the log never held is missed as well. Then each entry of the log is
//! looked for: an event that nobody was told of may exist, but then everyone must have seen it.

use crate::event::{Event, Key, Way, read_payload, topic_name};
use crate::id::Id;
use crate::log::Entry;
use crate::publish::{Fate, Record};
use crate::run::{Deletion, Evidence};
use crate::scenario::{Expectation, RESUMES_MIN};
use crate::subscriber::{Diary, Gap, Seen};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

/// What a run can do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offence {
    /// A subscriber misses an event that was acknowledged or logged, and was told of no gap there.
    Lost,
    /// A subscriber has an event twice, or the log has.
    Repeated,
    /// An id is not above the one before it, or a producer's events are in another order in the log.
    OutOfOrder,
    /// A gap was told that the scenario does not explain.
    Gap,
    /// An event was shown on a stream that was opened after its topic had been deleted.
    Deleted,
    /// A publish was not taken, with so many tries as should be enough.
    Refused,
    /// What was acknowledged, logged and seen is not the same.
    Altered,
    /// An acknowledged event is not in the log.
    Unlogged,
    /// An `EventSource` would have given up.
    GivenUp,
    /// The run did not go as planned, and so proves nothing.
    Unproven,
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost",
            Self::Repeated => "repeated",
            Self::OutOfOrder => "out of order",
            Self::Gap => "gap",
            Self::Deleted => "deleted, and shown",
            Self::Refused => "refused",
            Self::Altered => "altered",
            Self::Unlogged => "not in the log",
            Self::GivenUp => "given up",
            Self::Unproven => "unproven",
        })
    }
}

/// So many of each kind are described; all are counted.
const SHOWN_MAX: usize = 5;

/// What was found wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged events that are not in the log, as the scenario explains.
    pub explained: usize,
    offences: BTreeMap<Offence, (usize, Vec<String>)>,
}

impl Verdict {
    /// Whether the promise was kept.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.offences.is_empty()
    }

    /// How often something was done wrong.
    #[must_use]
    pub fn count(&self, offence: Offence) -> usize {
        self.offences.get(&offence).map_or(0, |(count, _)| *count)
    }

    /// Each kind of offence: how often, and the first of them in words.
    pub fn offences(&self) -> impl Iterator<Item = (Offence, usize, &[String])> {
        let all = self.offences.iter();
        all.map(|(offence, (count, shown))| (*offence, *count, shown.as_slice()))
    }

    fn add(&mut self, offence: Offence, describe: impl FnOnce() -> String) {
        let (count, shown) = self.offences.entry(offence).or_default();
        *count += 1;
        if shown.len() < SHOWN_MAX {
            shown.push(describe());
        }
    }
}

/// Judges a run.
#[must_use]
pub fn judge(evidence: &Evidence, expectation: &Expectation) -> Verdict {
    let mut verdict = Verdict::default();
    let records = evidence.records.iter();
    let told: HashMap<Key, &Record> = records.map(|record| (record.event.key, record)).collect();
    for trouble in &evidence.troubles {
        verdict.add(Offence::Unproven, || trouble.clone());
    }
    let logs = Logs::read(evidence, &told, &mut verdict);
    logs.judge_acknowledgements(evidence, expectation, &mut verdict);
    Logs::judge_tries(evidence, expectation, &mut verdict);
    logs.judge_producers(&told, expectation, &mut verdict);
    for (number, diary) in evidence.diaries.iter().enumerate() {
        Judge {
            number,
            diary,
            logs: &logs,
            evidence,
            told: &told,
            expectation,
        }
        .judge(&mut verdict);
    }
    verdict
}

/// The events of all logs.
#[derive(Debug, Default)]
struct Logs<'a> {
    by_key: HashMap<Key, &'a Entry>,
    /// The id of every event that has one: by the log, by its acknowledgement, or by who has seen it.
    ids: HashMap<Key, Id>,
}

impl<'a> Logs<'a> {
    /// Reads the logs, and judges them by themselves and against what was sent.
    fn read(evidence: &'a Evidence, told: &HashMap<Key, &Record>, verdict: &mut Verdict) -> Self {
        let mut logs = Self::default();
        for (topic, entries) in evidence.logs.iter().enumerate() {
            let name = topic_name(topic);
            for (before, entry) in [None]
                .into_iter()
                .chain(entries.iter().map(Some))
                .zip(entries)
            {
                if before.is_some_and(|before| before.id != entry.prev) {
                    verdict.add(Offence::Altered, || {
                        format!("{name} {}: its predecessor is not {}", entry.id, entry.prev)
                    });
                }
                if entry.is_gap || Self::is_deletion(evidence, topic, entry) {
                    continue;
                }
                let Some(key) = sent_as(told, topic, &entry.kind, &entry.data) else {
                    verdict.add(Offence::Altered, || {
                        format!("{name} {}: nobody sent it: {}", entry.id, entry.data)
                    });
                    continue;
                };
                let first = *logs.by_key.entry(key).or_insert(entry);
                if first.id != entry.id {
                    verdict.add(Offence::Repeated, || {
                        format!(
                            "{key} is in the log of {name} as {} and as {}",
                            first.id, entry.id
                        )
                    });
                }
            }
        }
        logs.collect_ids(evidence);
        logs
    }

    /// Whether the entry says that all before it was deleted, and nothing else.
    fn is_deletion(evidence: &Evidence, topic: usize, entry: &Entry) -> bool {
        entry.kind == "tidegate.deleted"
            && evidence
                .deletions
                .iter()
                .any(|deletion| deletion.topic == topic && deletion.id == entry.id)
    }

    fn collect_ids(&mut self, evidence: &Evidence) {
        let logged = self.by_key.iter().map(|(key, entry)| (*key, entry.id));
        self.ids = logged.collect();
        for Record { event, fate, .. } in &evidence.records {
            if let Fate::Accepted(Some(id)) = fate {
                self.ids.entry(event.key).or_insert(*id);
            }
        }
        for seen in evidence.diaries.iter().flat_map(|diary| &diary.seen) {
            if let (Some((key, _)), Some(id)) = (read_payload(&seen.data), seen.id) {
                self.ids.entry(key).or_insert(id);
            }
        }
    }

    /// What publishers were told is true.
    fn judge_acknowledgements(
        &self,
        evidence: &Evidence,
        expectation: &Expectation,
        verdict: &mut Verdict,
    ) {
        for record in evidence
            .records
            .iter()
            .filter(|record| record.fate.is_owed())
        {
            let Record { event, fate, .. } = record;
            match (self.by_key.get(&event.key), fate) {
                (None, _) if self.may_be_unlogged(event, evidence, expectation) => {
                    verdict.explained += 1;
                }
                (None, _) => verdict.add(Offence::Unlogged, || format!("{event} ({fate:?})")),
                (Some(entry), Fate::Accepted(Some(id))) if entry.id != *id => {
                    verdict.add(Offence::Altered, || {
                        format!(
                            "{} was acknowledged as {id} and logged as {}",
                            event.key, entry.id
                        )
                    });
                }
                (Some(_), _) => {}
            }
        }
    }

    /// Whether an acknowledged event may be missing in the log.
    fn may_be_unlogged(
        &self,
        event: &Event,
        evidence: &Evidence,
        expectation: &Expectation,
    ) -> bool {
        let is_deleted = |deletion: &&Deletion| {
            deletion.topic == event.topic
                && self
                    .ids
                    .get(&event.key)
                    // Nobody has seen it, so there is no telling when it was logged.
                    .map_or(event.sent_us < deletion.at_us, |id| *id < deletion.id)
        };
        expectation.explains_unlogged(event, &evidence.deeds)
            || evidence
                .deletions
                .iter()
                .any(|deletion| is_deleted(&deletion))
    }

    /// What can be repeated is taken soon.
    fn judge_tries(evidence: &Evidence, expectation: &Expectation, verdict: &mut Verdict) {
        let Some(most) = expectation.tries_max else {
            return;
        };
        let repeated = |record: &&Record| !record.event.key.way.is_raw();
        for Record { event, fate, tries } in evidence.records.iter().filter(repeated) {
            if *fate == Fate::Unknown || *tries > most {
                verdict.add(Offence::Refused, || {
                    format!("{event} ({fate:?}) was sent {tries} times")
                });
            }
        }
    }

    /// Each way sends one event after the other, and waits for the answer.
    fn judge_producers(
        &self,
        told: &HashMap<Key, &Record>,
        expectation: &Expectation,
        verdict: &mut Verdict,
    ) {
        let is_promised = |way: &Way| !way.is_raw() || expectation.ears_lost_within.is_none();
        for way in Way::ALL.into_iter().filter(is_promised) {
            let is_sure = |key: &Key| {
                key.way == way && told.get(key).is_some_and(|record| record.fate.is_owed())
            };
            let mut logged: Vec<(u32, Id)> = self
                .by_key
                .iter()
                .filter(|(key, _)| is_sure(key))
                .map(|(key, entry)| (key.number, entry.id))
                .collect();
            logged.sort_unstable();
            for ((number, id), (later, later_id)) in logged.iter().zip(logged.iter().skip(1)) {
                if id > later_id {
                    verdict.add(Offence::OutOfOrder, || {
                        format!(
                            "{}/{number} was logged as {id}, {}/{later} as {later_id}",
                            way.as_str(),
                            way.as_str()
                        )
                    });
                }
            }
        }
    }
}

/// Which event this is, if it was sent with this topic, type and data.
fn sent_as(told: &HashMap<Key, &Record>, topic: usize, kind: &str, data: &str) -> Option<Key> {
    let (key, _) = read_payload(data)?;
    let Event {
        topic: sent_to,
        data: sent,
        ..
    } = &told.get(&key)?.event;
    (*sent_to == topic && kind == key.way.as_str() && sent == data).then_some(key)
}

/// One subscriber's judge.
struct Judge<'a> {
    number: usize,
    diary: &'a Diary,
    logs: &'a Logs<'a>,
    evidence: &'a Evidence,
    told: &'a HashMap<Key, &'a Record>,
    expectation: &'a Expectation,
}

impl Judge<'_> {
    fn judge(&self, verdict: &mut Verdict) {
        let seen = self.judge_what_was_seen(verdict);
        self.judge_what_was_not(&seen, verdict);
        self.judge_the_rest(verdict);
    }

    /// A stretch of a stream, for people.
    fn place(&self, seen: &Seen) -> String {
        let stream = self.diary.streams.get(seen.stream);
        let (door, cursor) = stream.map_or(("?", "?"), |stream| {
            (stream.door.as_str(), stream.cursor.as_str())
        });
        let id = seen
            .id
            .map_or_else(|| "no id".to_owned(), |id| id.to_string());
        format!(
            "subscriber {} at {} us: {id} {} on stream {} of {door} after {cursor:?}",
            self.number,
            seen.at_us,
            seen.data.get(..40).unwrap_or(&seen.data),
            seen.stream
        )
    }

    fn judge_what_was_seen(&self, verdict: &mut Verdict) -> HashSet<Key> {
        let (mut keys, mut ids, mut last) = (HashSet::new(), HashSet::new(), Id::default());
        let mut gaps = self.diary.gaps.iter().peekable();
        for (number, seen) in self.diary.seen.iter().enumerate() {
            while let Some(gap) = gaps.next_if(|gap| gap.seen <= number) {
                // The log has begun anew below.
                last = if gap.goes_back() { gap.to } else { last };
            }
            let key = self
                .diary
                .topics
                .iter()
                .find_map(|topic| sent_as(self.told, *topic, &seen.kind, &seen.data));
            let (Some(key), Some(id)) = (key, seen.id) else {
                verdict.add(Offence::Altered, || {
                    format!("{}: nobody sent it so", self.place(seen))
                });
                continue;
            };
            let known = self.logs.ids.get(&key).copied().unwrap_or(id);
            // Seen, forgotten by the log, and published again by whoever still had it.
            let is_forgotten = known != id && self.expectation.log_forgets.is_some();
            let is_new = ids.insert(id) & (is_forgotten || keys.insert(key));
            if !is_new {
                verdict.add(Offence::Repeated, || self.place(seen));
            } else if id <= last {
                verdict.add(Offence::OutOfOrder, || {
                    format!("{}, {last} came before it", self.place(seen))
                });
            }
            last = last.max(id);
            if known != id && !is_forgotten {
                verdict.add(Offence::Altered, || {
                    format!("{}: it is {known}", self.place(seen))
                });
            }
            let deletion = self.deletion_of(key, id);
            if deletion.is_some_and(|deletion| self.is_late(seen, deletion)) {
                verdict.add(Offence::Deleted, || self.place(seen));
            }
            let may_be_unlogged = self.expectation.log_forgets.is_some() || deletion.is_some();
            if !may_be_unlogged && !self.logs.by_key.contains_key(&key) {
                verdict.add(Offence::Altered, || {
                    format!("{}: the log does not have it", self.place(seen))
                });
            }
        }
        keys
    }

    /// The first deletion after this event.
    fn deletion_of(&self, key: Key, id: Id) -> Option<&Deletion> {
        let topic = self.told.get(&key)?.event.topic;
        let mut all = self.evidence.deletions.iter();
        all.find(|deletion| deletion.topic == topic && id < deletion.id)
    }

    /// Whether it came on a stream that was opened too long after the deletion.
    fn is_late(&self, seen: &Seen, deletion: &Deletion) -> bool {
        let within = self.expectation.deleted_within.unwrap_or_default();
        let within = u64::try_from(within.as_micros()).unwrap_or(u64::MAX);
        let stream = self.diary.streams.get(seen.stream);
        stream.is_some_and(|stream| stream.opened_us > deletion.at_us.saturating_add(within))
    }

    fn judge_what_was_not(&self, seen: &HashSet<Key>, verdict: &mut Verdict) {
        let mine = |record: &&Record| self.diary.topics.contains(&record.event.topic);
        for Record { event, fate, .. } in self.evidence.records.iter().filter(mine) {
            let is_explained = match self.logs.ids.get(&event.key) {
                _ if seen.contains(&event.key) => continue,
                Some(id) => self.is_told(event, *id),
                // Nobody has seen it, so all are alike.
                None => {
                    !fate.is_owed()
                        || self
                            .logs
                            .may_be_unlogged(event, self.evidence, self.expectation)
                }
            };
            if !is_explained {
                let id = self
                    .logs
                    .ids
                    .get(&event.key)
                    .map(Id::to_string)
                    .unwrap_or_default();
                verdict.add(Offence::Lost, || {
                    format!("subscriber {} misses {id} {event} ({fate:?})", self.number)
                });
            }
        }
    }

    /// A gap was told that holds this id, or that everything up to a greater one was deleted.
    fn is_told(&self, event: &Event, id: Id) -> bool {
        let Diary { gaps, deleted, .. } = self.diary;
        let is_logged = self.logs.by_key.contains_key(&event.key);
        let of_topic = |(topic, to): &(usize, Id)| *topic == event.topic && id < *to;
        gaps.iter().any(|gap| gap.holds(event.topic, id, is_logged))
            || !is_logged && deleted.iter().any(of_topic)
    }

    fn judge_the_rest(&self, verdict: &mut Verdict) {
        let Diary {
            gaps,
            faults,
            resumes,
            is_finished,
            ..
        } = self.diary;
        for gap in gaps {
            let Gap { reason, text, .. } = gap;
            if !gap.is_in_order() {
                verdict.add(Offence::OutOfOrder, || {
                    format!(
                        "subscriber {}, already at {:?}, was told {text}",
                        self.number, gap.after
                    )
                });
            }
            if !self.expectation.gaps.contains(&reason.as_str()) {
                verdict.add(Offence::Gap, || {
                    format!("subscriber {} was told {text}", self.number)
                });
            }
        }
        for fault in faults {
            verdict.add(Offence::GivenUp, || {
                format!("subscriber {}: {fault}", self.number)
            });
        }
        if *resumes < RESUMES_MIN {
            verdict.add(Offence::Unproven, || {
                format!(
                    "subscriber {} resumed {resumes} times, less than {RESUMES_MIN}",
                    self.number
                )
            });
        }
        if !is_finished {
            verdict.add(Offence::Lost, || {
                format!(
                    "subscriber {} never came to the end of its topics",
                    self.number
                )
            });
        }
    }
}

#[cfg(test)]
mod tests;
