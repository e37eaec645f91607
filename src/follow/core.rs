//! The follower's rules, without I/O: what a replica asks of the log to keep its hub complete.
//!
//! Inputs are what the live path tells, answers, what the hub wants, and time. Outputs are [`Ask`]s,
//! which somebody carries out in any time and in any order, but for [`Ask::Interest`], whose order
//! is kept. [`super::task`] is the shell around it; `tests/simulation/` runs the same type.
//!
//! ```text
//! Up ─► settle: report what was heard of a log that may have gone back, have the clock said
//!         └► settled: topics that were confirmed are read, in batches ─► the hub repairs them
//! frame ─► hub ─► a hole: that topic is read
//!             └► an id that is not new, a topic or a clock that begins anew: the log has gone back;
//!                the path begins anew, and a report is owed until it has arrived
//! Down ─► every topic is broken where it was; answers that are under way count for nothing
//! ```

use super::ask::{Answer, Ask, ConnectionNo, Failed, Note, Report};
use super::clock::Clock;
use crate::broker::{Interest, Live};
use crate::hub::feed::{Feed, Repaired, Wanted};
use crate::hub::partition::Learned;
use crate::hub::reader::PAGE_EVENTS;
use crate::hub::{Hearing, Hub};
use crate::id::Id;
use crate::log::{ReadRequest, Reading, Tick};
use crate::sse::Mark;
use crate::topic::{PartitionNo, Topic};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Topics of one repairing read, and of one report.
pub const BATCH: usize = 256;
/// Between two ticks of one partition.
pub const TICK_PAUSE: Duration = Duration::from_millis(100);

/// What the follower goes by.
#[derive(Clone, Copy, Debug)]
pub struct FollowSettings {
    /// Repairing reads at the same time.
    pub reads_max: usize,
    /// Silence after which the clock is said aloud.
    pub tick_after: Duration,
    /// Time for a tick to come back.
    pub deaf_after: Duration,
    /// How long a topic without readers is kept.
    pub keep: Duration,
}

/// The follower's state.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "three say how the present connection stands, one what the log is owed"
)]
pub struct FollowerCore {
    hub: Arc<Hub>,
    settings: FollowSettings,
    connection: ConnectionNo,
    /// The process that the last connection led to.
    run: Option<Box<str>>,
    /// The log may have gone back, and has not been told yet what was heard of it. Stays set until
    /// a report has arrived, however often the connection breaks meanwhile.
    owes_report: bool,
    /// What is asked for on this connection includes a report.
    reports: bool,
    /// The live path was asked to begin anew.
    resetting: bool,
    /// The log knows everything of the past that this replica knows; topics may be read.
    settled: bool,
    to_repair: VecDeque<Arc<Feed>>,
    /// Reads that are under way.
    reading: usize,
    clocks: Vec<Clock>,
    asks: VecDeque<Ask>,
    notes: Vec<Note>,
}

impl FollowerCore {
    /// A follower of `hub` that has not heard anything yet.
    #[must_use]
    pub fn new(hub: Arc<Hub>, settings: FollowSettings, now: Instant) -> Self {
        let clock = Clock::new(now);
        Self {
            clocks: vec![clock; usize::from(hub.partitions())],
            hub,
            settings,
            connection: ConnectionNo::default(),
            run: None,
            owes_report: false,
            reports: false,
            resetting: false,
            settled: false,
            to_repair: VecDeque::new(),
            reading: 0,
            asks: VecDeque::new(),
            notes: Vec::new(),
        }
    }

    /// The next thing to be done; none for now.
    pub fn next_ask(&mut self) -> Option<Ask> {
        self.ask_for_reads();
        self.asks.pop_front()
    }

    /// What has been noted since the last call.
    pub fn notes(&mut self) -> impl Iterator<Item = Note> {
        self.notes.drain(..)
    }

    /// The present connection.
    #[must_use]
    pub fn connection(&self) -> ConnectionNo {
        self.connection
    }

    /// Takes what the live path tells, in its order.
    pub fn hear(&mut self, event: Live, now: Instant) {
        match event {
            Live::Up { run } => self.up(run),
            Live::Down => self.down(),
            Live::Confirmed(topics) => {
                for (topic, number) in topics {
                    // A confirmation for an earlier feed of the topic says nothing of this one: the
                    // request to stop may be on its way still.
                    let feed = self.hub.feed(&topic);
                    self.to_repair
                        .extend(feed.filter(|feed| feed.number() == number));
                }
            }
            Live::Frame(topic, frame) => {
                let partition = topic.partition(self.hub.partitions());
                let (mark, ms) = (frame.mark, frame.id.ms);
                if self.is_ahead(partition, frame.id, now) {
                    self.hub.lose_frame(&topic);
                    self.repair(&topic);
                    return;
                }
                if matches!(mark, Mark::Event | Mark::End) {
                    self.notes.push(Note::Heard(ms));
                }
                let Hearing { hole, backwards } = self.hub.hear(&topic, frame);
                if let Some(clock) = self.clocks.get_mut(usize::from(partition)) {
                    clock.heard = now;
                    clock.moved_on |= !backwards && mark != Mark::Unlogged;
                }
                if backwards {
                    self.went_back(partition);
                } else if hole {
                    self.repair(&topic);
                    self.notes.push(Note::Missing(topic));
                }
            }
            Live::Unreadable(topic) => {
                self.hub.lose_frame(&topic);
                self.repair(&topic);
                self.notes.push(Note::Unreadable(topic));
            }
            Live::Tick(partition, tick) => self.heard_tick(partition, tick, now),
        }
    }

    /// Has a topic read that has a hole. One that opens is read once it is subscribed to: the frame was of the
    /// subscription before, and what is read now would not reach as far as what is heard then.
    fn repair(&mut self, topic: &Topic) {
        let feed = self.hub.feed(topic);
        let broken = |feed: &Arc<Feed>| matches!(feed.wants(), Some(Wanted::Entries(_)));
        self.to_repair.extend(feed.filter(broken));
    }

    /// Takes what has come of an ask.
    pub fn answer(&mut self, answer: Answer, now: Instant) {
        match answer {
            Answer::Settled { connection, told } => {
                // What has gone back since the report must be reported on the next connection.
                if connection == self.connection && !self.resetting {
                    self.settled = true;
                    self.owes_report = false;
                    self.hub.begin_following(&told);
                }
            }
            Answer::Ticked(connection, partition, said) => {
                self.ticked(connection, partition, said, now);
            }
            Answer::Read {
                connection,
                feeds,
                reading,
            } => {
                self.reading -= 1;
                if let (Some(feed), Ok(reading)) = (feeds.first(), &reading) {
                    let partition = usize::from(feed.partition().number());
                    if let Some(clock) = self.clocks.get_mut(partition) {
                        clock.answer(reading.horizon.now_ms, now);
                    }
                }
                if connection == self.connection {
                    self.take_reading(feeds, reading);
                }
            }
        }
    }

    /// The hub wants something: new topics, or a clock.
    pub fn hub_wants(&mut self, now: Instant) {
        let added = self.hub.take_added();
        if !added.is_empty() {
            let topics = added
                .iter()
                .map(|feed| (feed.topic().clone(), feed.number()));
            let interest = Interest::Add(topics.collect());
            self.asks.push_back(Ask::Interest(interest));
        }
        self.tick_for_waiting(now);
    }

    /// What is due from time to time; call it every [`TICK_PAUSE`] or so.
    pub fn beat(&mut self, now: Instant) {
        self.tick_for_waiting(now);
        for partition in 0..self.hub.partitions() {
            // A stream may have read what the live path does not show.
            if self.settled && self.hub.partition(partition).is_estranged() {
                self.went_back(partition);
            }
            let Some(clock) = self
                .clocks
                .get_mut(usize::from(partition))
                .filter(|_| self.settled)
            else {
                continue;
            };
            let is_late =
                |(_, since): (Id, Instant)| now.duration_since(since) > self.settings.deaf_after;
            if clock.awaited.is_some_and(is_late) {
                clock.awaited = None;
                self.notes.push(Note::Deaf(partition));
                self.begin_anew();
            } else if clock.awaited.is_none() && clock.is_due(now, self.settings.tick_after) {
                // Counted as heard, so that the next silence begins here.
                clock.heard = now;
                self.tick(partition, now);
            }
        }
        let gone = self.hub.sweep(now, self.settings.keep);
        if !gone.is_empty() {
            self.asks.push_back(Ask::Interest(Interest::Remove(gone)));
        }
    }

    fn up(&mut self, run: Box<str>) {
        self.connection.0 += 1;
        self.settled = false;
        self.resetting = false;
        // A read that was asked for between the two connections may be answered by the process
        // before this one.
        self.hub.begin_generation();
        if self.run.as_ref().is_some_and(|before| *before != run) {
            self.owes_report = true;
            self.notes.push(Note::OtherProcess(run.clone()));
        }
        self.run = Some(run);
        self.owes_report |= self.hub.take_owes_report();
        self.reports = self.owes_report;
        let reports = if self.reports {
            self.reports()
        } else {
            Vec::new()
        };
        self.asks.push_back(Ask::Settle {
            connection: self.connection,
            reports,
        });
    }

    fn down(&mut self) {
        self.connection.0 += 1;
        self.settled = false;
        self.to_repair.clear();
        for clock in &mut self.clocks {
            clock.awaited = None;
            clock.moved_on = false;
        }
        self.hub.break_off();
    }

    /// The log has lost what it knew, by a restart from an older state or by FLUSHALL: it has shown an
    /// id that was given out before, a topic that begins anew, or another clock. It must be told, and
    /// goes on above all ids that streams have seen.
    ///
    /// Until the report has arrived the log shows ids from before, as it must: to begin anew for each of
    /// them would take the connection away from the very report that ends it.
    fn went_back(&mut self, partition: PartitionNo) {
        let clock = self.clocks.get(usize::from(partition));
        let has_moved_on = clock.is_some_and(|clock| clock.moved_on);
        if self.reports && !self.settled && !has_moved_on {
            return;
        }
        self.owes_report = true;
        if !self.resetting {
            self.notes.push(Note::WentBack(partition));
        }
        self.begin_anew();
    }

    /// Once for each connection: what follows on this one shows the same again.
    fn begin_anew(&mut self) {
        if !std::mem::replace(&mut self.resetting, true) {
            self.asks.push_back(Ask::Interest(Interest::Reset));
        }
    }

    /// What this replica knows up to now, of every partition.
    fn reports(&self) -> Vec<Report> {
        self.hub.begin_report();
        let report = |partition| Report {
            partition,
            followed: self.hub.partition(partition).followed(),
            topics: self.hub.last_entries(partition),
        };
        (0..self.hub.partitions()).map(report).collect()
    }

    /// Whether an id is too far ahead to be taken from the live path. The clock is asked for, and whatever it
    /// answers is believed.
    fn is_ahead(&mut self, partition: PartitionNo, id: Id, now: Instant) -> bool {
        let clock = self.clocks.get_mut(usize::from(partition));
        let Some(clock) = clock.filter(|clock| clock.is_ahead(id, now)) else {
            return false;
        };
        clock.doubted = true;
        self.notes.push(Note::Ahead(partition, id));
        self.tick(partition, now);
        true
    }

    fn heard_tick(&mut self, partition: PartitionNo, tick: Tick, now: Instant) {
        if self.is_ahead(partition, tick.id, now) {
            return;
        }
        let backwards = self.hub.tick(partition, tick);
        if backwards {
            self.went_back(partition);
        }
        let Some(clock) = self.clocks.get_mut(usize::from(partition)) else {
            return;
        };
        clock.heard = now;
        clock.doubted = false;
        clock.moved_on |= !backwards;
        if let Some((awaited, _)) = clock.awaited
            && awaited <= tick.id
        {
            clock.awaited = None;
            let asked = clock.asked.unwrap_or(now);
            self.notes.push(Note::TickCameBack(now - asked));
        }
    }

    fn ticked(
        &mut self,
        connection: ConnectionNo,
        partition: PartitionNo,
        said: Result<Id, Failed>,
        now: Instant,
    ) {
        let Some(clock) = self.clocks.get_mut(usize::from(partition)) else {
            return;
        };
        clock.asking = false;
        let Ok(id) = said else { return };
        clock.answer(id.ms, now);
        if connection != self.connection {
            // It was said on a connection that is gone, and does not come back on this one.
            return;
        }
        self.notes.push(Note::ClockRead(id.ms));
        if clock.doubted {
            // The tick itself may have come before its answer, and was not believed then. The next is.
            return;
        }
        // The tick itself may have come before its answer.
        if self.hub.partition(partition).heard() < id {
            clock.awaited = clock.awaited.or(Some((id, now)));
        } else {
            let asked = clock.asked.unwrap_or(now);
            self.notes.push(Note::TickCameBack(now - asked));
        }
    }

    fn take_reading(&mut self, feeds: Vec<Arc<Feed>>, reading: Result<Reading, Failed>) {
        let Ok(mut reading) = reading else {
            self.to_repair.extend(feeds);
            return;
        };
        self.notes.push(Note::ClockRead(reading.horizon.now_ms));
        if let Some(partition) = feeds.first().map(|feed| feed.partition()) {
            let learned = partition.settled().map(|generation| {
                self.hub
                    .learn(partition.number(), generation, &mut reading.horizon)
            });
            if learned != Some(Learned::Counts) {
                // The connection has not changed, so the live path has not broken since it was
                // asked: it is estranged, or is now.
                self.went_back(partition.number());
                return;
            }
        }
        let mut pages = reading.pages.iter().peekable();
        for feed in feeds {
            // There was no room for some: they are asked for again.
            let page = pages.next_if(|page| page.topic == *feed.topic());
            if let Some(page) = page
                && self.hub.finds_log_lost(&feed, page, &reading.horizon)
            {
                self.went_back(feed.partition().number());
                return;
            }
            let repaired = page.map(|page| self.hub.repair(&feed, page, &reading.horizon));
            if repaired != Some(Repaired::Live) {
                self.to_repair.push_back(feed);
            }
        }
    }

    /// Asks for pages for feeds that wait: in batches of one partition, a few at a time.
    fn ask_for_reads(&mut self) {
        while self.settled && self.reading < self.settings.reads_max {
            let Some(first) = self.to_repair.front() else {
                return;
            };
            let partition = first.partition().number();
            let mut feeds = Vec::new();
            let mut requests = Vec::new();
            while requests.len() < BATCH
                && let Some(next) = self.to_repair.front()
                && next.partition().number() == partition
                && let Some(feed) = self.to_repair.pop_front()
            {
                // One that is live by now needs nothing, and one that is listed twice is asked for
                // twice: the second page then changes nothing.
                if let Some(request) = request(&feed) {
                    requests.push(request);
                    feeds.push(feed);
                }
            }
            if requests.is_empty() {
                continue;
            }
            self.reading += 1;
            self.notes.push(Note::RepairRead);
            self.asks.push_back(Ask::Read {
                connection: self.connection,
                partition,
                feeds,
                requests,
            });
        }
    }

    fn tick_for_waiting(&mut self, now: Instant) {
        for partition in 0..self.hub.partitions() {
            if self.hub.partition(partition).is_waited_for() {
                self.tick(partition, now);
            }
        }
    }

    fn tick(&mut self, partition: PartitionNo, now: Instant) {
        let Some(clock) = self.clocks.get_mut(usize::from(partition)) else {
            return;
        };
        let is_recent = |asked: Instant| now.duration_since(asked) < TICK_PAUSE;
        if clock.asking || !self.settled || clock.asked.is_some_and(is_recent) {
            return;
        }
        clock.asked = Some(now);
        clock.asking = true;
        self.notes.push(Note::TickAsked);
        self.asks.push_back(Ask::Tick(self.connection, partition));
    }
}

fn request(feed: &Feed) -> Option<ReadRequest> {
    let (after, limit) = match feed.wants()? {
        Wanted::State(known) => (known, usize::from(known > Id::ZERO)),
        Wanted::Entries(after) => (after, PAGE_EVENTS),
    };
    Some(ReadRequest {
        topic: feed.topic().clone(),
        after,
        limit,
    })
}
