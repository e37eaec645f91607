//! The log's server: the real [`Ledger`] of each partition, a clock that may be wrong, and everything
//! that was ever sent over the live path, in its order.

use crate::client::Published;
use crate::mix::Mix;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tidegate::broker::{Bounds, Ledger, Publication, Retention, Rule};
use tidegate::id::Id;
use tidegate::log::{ClockName, Followed, LogRead, Reading, Tick};
use tidegate::sse::{Frame, Mark};
use tidegate::topic::{PartitionNo, Pattern, Topic};

/// Milliseconds that the log keeps an entry, where time matters.
pub const AGE: u64 = 1_000;
/// How long a log outlives its age at most, as in the ledger.
pub const EXPIRY_SLACK: u64 = 3_600_000;
const LEAP: u64 = 50;
/// States that a rewind may go back to.
const BEFORE: usize = 4;

/// Something sent over the live path.
#[derive(Clone, Debug)]
pub enum Sent {
    /// A frame, to all who have subscribed to its topic.
    Frame(Topic, Frame),
    /// The clock, to all.
    Tick(PartitionNo, Tick),
    /// To one connection: a SUBSCRIBE was carried out.
    Confirmed(u64, Vec<Topic>),
}

/// Where a log has it that something was lost before it.
pub enum Record {
    /// It is from before the log was born, as every reader is told.
    Birth,
    /// Last told at this id, to those that come past it.
    At(Id),
    /// No replica has said so.
    Nowhere,
}

/// The server.
pub struct Server {
    pub ledgers: Vec<Ledger>,
    /// What replicas say that should be kept.
    pub retention: Retention,
    /// True time, in milliseconds.
    pub now: u64,
    /// How far the server's clock is off.
    pub skew: i64,
    pub sent: Vec<Sent>,
    before: VecDeque<Vec<Ledger>>,
    /// Connections of the live path that there were.
    pub connections: u64,
    /// When each topic was seen as ended last, as a step of the simulation.
    pub ended_at: BTreeMap<Topic, usize>,
    /// The greatest id that each partition ever gave out or said.
    greatest: BTreeMap<usize, Id>,
}

impl Server {
    pub fn new(mix: &Mix, partitions: PartitionNo) -> Self {
        let now = 1_000_000;
        let retention = Retention {
            bounds: Bounds {
                events_max: if mix.trimming { 6 } else { 10_000 },
                age_ms: if mix.expiry { AGE } else { 1_000_000_000 },
            },
            rules: vec![Rule {
                topics: Pattern::parse(super::UNLOGGED).unwrap(),
                bounds: None,
            }],
            event_bytes_max: 1000,
            topics_max: 0,
            idempotency_ms: 1_000,
            leap_ms: LEAP,
        };
        let ledgers = (0..partitions).map(|_| Ledger::new(retention.clone(), now));
        Self {
            ledgers: ledgers.collect(),
            retention,
            now,
            skew: 0,
            sent: Vec::new(),
            before: VecDeque::new(),
            connections: 0,
            ended_at: BTreeMap::new(),
            greatest: BTreeMap::new(),
        }
    }

    /// The time as the server has it.
    pub fn wall(&self) -> u64 {
        self.now.saturating_add_signed(self.skew)
    }

    pub fn run(&self) -> u64 {
        self.ledgers[0].run
    }

    pub fn partition_of(&self, topic: &Topic) -> usize {
        usize::from(topic.partition(self.ledgers.len().try_into().unwrap()))
    }

    pub fn ledger_of(&mut self, topic: &Topic) -> &mut Ledger {
        let partition = self.partition_of(topic);
        &mut self.ledgers[partition]
    }

    fn send(&mut self, frames: Vec<(Topic, Frame)>) {
        let sent = frames.into_iter();
        self.sent
            .extend(sent.map(|(topic, frame)| Sent::Frame(topic, frame)));
    }

    /// Publishes a batch of one partition; the ids, none if the log refuses it.
    pub fn publish(&mut self, batch: &[Publication]) -> Option<Vec<Option<Id>>> {
        self.before.push_back(self.ledgers.clone());
        if self.before.len() > BEFORE {
            self.before.pop_front();
        }
        let wall = self.wall();
        let ledger = self.ledger_of(&batch[0].topic);
        let (ids, frames) = ledger.publish(batch, wall).ok()?;
        self.send(frames);
        Some(ids)
    }

    /// Whether the next event of a topic begins a log.
    pub fn begins(&mut self, topic: &Topic) -> bool {
        let wall = self.wall();
        self.ledger_of(topic).topic(topic, wall).is_none()
    }

    /// Whether this id, or a greater one, was given out or said before, by a log that is gone.
    pub fn goes_below(&mut self, topic: &Topic, id: Id) -> bool {
        let partition = self.partition_of(topic);
        let greatest = self.greatest.entry(partition).or_default();
        let below = id <= *greatest;
        *greatest = id.max(*greatest);
        below
    }

    /// Where the log has it that an event was lost by the one before it.
    pub fn record_of(&self, event: &Published) -> Record {
        let horizon = self.ledgers[usize::from(event.partition)].horizon(self.wall());
        if event.id <= horizon.born {
            return Record::Birth;
        }
        let mut seams = horizon.seams.iter();
        if !seams.any(|seam| seam.before < event.id && event.id <= seam.after) {
            return Record::Nowhere;
        }
        let losses = horizon.losses.iter().filter(|loss| loss.from < event.id);
        losses
            .map(|loss| loss.told)
            .max()
            .map_or(Record::Nowhere, Record::At)
    }

    pub fn delete(&mut self, topic: &Topic) -> Option<Id> {
        let wall = self.wall();
        let frame = self.ledger_of(topic).delete(topic, wall)?;
        let id = frame.id;
        self.goes_below(topic, id);
        self.send(vec![(topic.clone(), frame)]);
        Some(id)
    }

    /// Another process takes over, with the log as it was `back` writes ago.
    pub fn rewind(&mut self, back: usize) {
        let run = self.run() + 1;
        self.reload(back);
        for ledger in &mut self.ledgers {
            ledger.run = run;
        }
    }

    /// The same process goes on, with the log as it was `back` writes ago.
    pub fn reload(&mut self, back: usize) {
        let kept = self.before.len().saturating_sub(back);
        if back > 0
            && let Some(older) = self.before.get(kept)
        {
            self.ledgers = older.clone();
        }
        self.before.clear();
    }

    /// FLUSHALL: the process goes on without anything.
    pub fn flush(&mut self) {
        let wall = self.wall();
        for ledger in &mut self.ledgers {
            ledger.flush(wall);
        }
        self.before.clear();
    }

    pub fn configure(&mut self) {
        let wall = self.wall();
        for ledger in &mut self.ledgers {
            ledger.configure(self.retention.clone(), wall);
        }
    }

    /// Which clock was told.
    pub fn report(
        &mut self,
        partition: PartitionNo,
        followed: Followed,
        topics: &[(Topic, Id)],
    ) -> ClockName {
        let wall = self.wall();
        let ledger = &mut self.ledgers[usize::from(partition)];
        let told = ledger.report(followed, topics, wall);
        let clock = ledger.name();
        self.send(told);
        clock
    }

    pub fn tick(&mut self, partition: PartitionNo) -> Id {
        let wall = self.wall();
        let tick = self.ledgers[usize::from(partition)].tick(wall);
        self.sent.push(Sent::Tick(partition, tick));
        let id = tick.id;
        let greatest = self.greatest.entry(usize::from(partition)).or_default();
        *greatest = id.max(*greatest);
        id
    }

    /// Reads; no page has more than `most` entries, and the answer has no more than `most` pages that may have
    /// entries.
    pub fn read(&mut self, read: &LogRead, most: usize) -> Reading {
        let wall = self.wall();
        let mut requests = read.requests().to_vec();
        for request in &mut requests {
            request.limit = request.limit.min(most);
        }
        let mut reading = self.ledgers[usize::from(read.partition())].read(&requests, wall);
        let mut limits = requests.iter().map(|request| request.limit);
        let mut room = most;
        reading.pages.retain(|_| {
            let has_entries = limits.next() != Some(0);
            let fits = !has_entries || room > 0;
            room -= usize::from(has_entries && fits);
            fits
        });
        reading
    }

    /// Notes which topics have ended by now.
    pub fn note_ends(&mut self, step: usize) {
        let wall = self.wall();
        for topic in super::topics() {
            let state = self.ledger_of(&topic).topic(&topic, wall);
            if state.is_some_and(|state| state.ended) {
                self.ended_at.insert(topic, step);
            }
        }
    }

    /// Everything that the log holds of these topics, by its number.
    pub fn held<'a>(&mut self, topics: impl IntoIterator<Item = &'a Topic>) -> BTreeSet<usize> {
        let held = topics.into_iter().map(|topic| self.held_of(topic));
        held.flatten().collect()
    }

    fn held_of(&mut self, topic: &Topic) -> Vec<usize> {
        let wall = self.wall();
        let request = tidegate::log::ReadRequest {
            topic: topic.clone(),
            after: Id::ZERO,
            limit: 1 << 20,
        };
        let reading = self.ledger_of(topic).read(&[request], wall);
        let frames = reading.pages.iter().flat_map(|page| &page.frames);
        let events = frames.filter(|frame| matches!(frame.mark, Mark::Event | Mark::End));
        events
            .filter_map(|frame| super::number_of(&frame.data()))
            .collect()
    }
}
