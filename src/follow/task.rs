//! The follower: keeps the hub complete.
//!
//! One task owns the live path. It tells the path what is wanted, gives every frame to the hub,
//! and has the log read wherever the hub is not complete: at a first subscription, after a
//! reconnect, at a hole. It says the clock aloud when a stream waits for it or when it is quiet,
//! and begins the path anew when an answer does not come back: a healthy connection can be deaf.

use super::reads::Pause;
use crate::broker::{Broker, BrokerError, Interest, Live, LivePath};
use crate::hub::feed::{Feed, Mended, Wanted};
use crate::hub::reader::PAGE_EVENTS;
use crate::hub::{Hearing, Hub};
use crate::id::Id;
use crate::log::{ReadRequest, Reading};
use crate::metrics::{Metrics, Role};
use crate::sse::Mark;
use crate::topic::{PartitionNo, Topic};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// Topics of one mending read, and of one report.
const BATCH: usize = 256;
/// Between two ticks of one partition.
const TICK_PAUSE: Duration = Duration::from_millis(100);
/// Repairs of many replicas after one outage are spread over this time.
const SPREAD: Duration = Duration::from_millis(100);

/// What the follower goes by.
#[derive(Clone, Copy, Debug)]
pub struct FollowSettings {
    /// Mending reads at the same time.
    pub reads_max: usize,
    /// Silence after which the clock is said aloud.
    pub tick_after: Duration,
    /// Time for a tick to come back.
    pub deaf_after: Duration,
    /// How long a topic without readers is kept.
    pub keep: Duration,
}

/// The task's state.
#[derive(Debug)]
pub struct Follower {
    hub: Arc<Hub>,
    broker: Arc<Broker>,
    metrics: Arc<Metrics>,
    settings: FollowSettings,
    /// Set once the log has been reached.
    reached: Arc<AtomicBool>,
    interest: VecDeque<Interest>,
    /// Which connection this is; answers to reads of an earlier one count for nothing.
    generation: u64,
    run: Option<Box<str>>,
    settled: bool,
    to_mend: VecDeque<Arc<Feed>>,
    /// Feeds to be read again once the clock has moved on.
    after_tick: Vec<Arc<Feed>>,
    work: JoinSet<Done>,
    reading: usize,
    clocks: Vec<Clock>,
}

/// Ticks of one partition.
#[derive(Clone, Copy, Debug)]
struct Clock {
    asked: Instant,
    asking: bool,
    heard: Instant,
    /// A tick that was said and has not come back.
    awaited: Option<(Id, Instant)>,
}

/// What was heard of one partition.
#[derive(Clone, Debug)]
struct Report {
    partition: PartitionNo,
    heard: Id,
    topics: Vec<(Topic, Id)>,
}

/// Work that was done beside the loop.
#[derive(Debug)]
enum Done {
    Settled(u64),
    Read(u64, Vec<Arc<Feed>>, Result<Reading, BrokerError>),
    Ticked(PartitionNo, Result<Id, BrokerError>),
}

impl Follower {
    /// A follower of `hub` that has not heard anything yet.
    #[must_use]
    pub fn new(
        hub: Arc<Hub>,
        broker: Arc<Broker>,
        metrics: Arc<Metrics>,
        settings: FollowSettings,
        reached: Arc<AtomicBool>,
    ) -> Self {
        let now = Instant::now();
        let clock = Clock {
            asked: now.checked_sub(TICK_PAUSE).unwrap_or(now),
            asking: false,
            heard: now,
            awaited: None,
        };
        Self {
            clocks: vec![clock; usize::from(hub.partitions())],
            hub,
            broker,
            metrics,
            settings,
            reached,
            interest: VecDeque::new(),
            generation: 0,
            run: None,
            settled: false,
            to_mend: VecDeque::new(),
            after_tick: Vec::new(),
            work: JoinSet::new(),
            reading: 0,
        }
    }

    /// Follows until `stop`, or until the path ends.
    pub async fn run(mut self, mut path: LivePath, stop: CancellationToken) {
        let mut beat = tokio::time::interval(TICK_PAUSE);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // Frames before everything else: they fill a bounded queue.
                biased;
                () = stop.cancelled() => return,
                event = path.events.recv() => match event {
                    Some(event) => self.take(event),
                    None => return,
                },
                // Interest goes out only when there is room: the path may wait for us.
                room = path.interest.reserve(), if !self.interest.is_empty() => {
                    if let (Ok(room), Some(interest)) = (room, self.interest.pop_front()) {
                        room.send(interest);
                    }
                }
                Some(done) = self.work.join_next() => match done {
                    Ok(done) => self.finish(done),
                    Err(why) => tracing::error!(%why, "a task of the follower failed"),
                },
                () = self.hub.wanted() => {
                    let added = self.hub.take_added();
                    if !added.is_empty() {
                        self.interest.push_back(Interest::Add(added));
                    }
                    self.tick_for_waiting();
                }
                _ = beat.tick() => self.beat(),
            }
            self.mend();
        }
    }

    fn take(&mut self, event: Live) {
        match event {
            Live::Up { run } => self.up(&run),
            Live::Down => self.down(),
            Live::Confirmed(topics) => {
                let feeds = topics.iter().filter_map(|topic| self.hub.feed(topic));
                self.to_mend.extend(feeds);
            }
            Live::Frame(topic, frame) => {
                let now = Instant::now();
                let partition = topic.partition(self.hub.partitions());
                if let Some(clock) = self.clocks.get_mut(usize::from(partition)) {
                    clock.heard = now;
                }
                if matches!(frame.mark, Mark::Event | Mark::End) {
                    self.metrics.heard(frame.id.ms);
                }
                let Hearing { hole, backwards } = self.hub.hear(&topic, frame);
                if backwards {
                    tracing::warn!(%topic, "the log has gone back; the live path is begun anew");
                    self.interest.push_back(Interest::Reset);
                } else if hole {
                    tracing::warn!(%topic, "a live frame is missing; the log is read");
                    self.to_mend.extend(self.hub.feed(&topic));
                }
            }
            Live::Unreadable(topic) => {
                tracing::warn!(%topic, "a live frame cannot be read; the log is read instead");
                self.hub.puncture(&topic);
                self.to_mend.extend(self.hub.feed(&topic));
            }
            Live::Tick(partition, id) => self.heard_tick(partition, id),
        }
    }

    fn up(&mut self, run: &str) {
        self.generation += 1;
        self.settled = false;
        let rewound = self
            .run
            .replace(run.into())
            .is_some_and(|before| *before != *run);
        if rewound {
            tracing::warn!(%run, "another Redis process answers; what was heard of the last one is reported");
        }
        let reports = if rewound { self.reports() } else { Vec::new() };
        self.work.spawn(settle(
            self.broker.clone(),
            self.generation,
            self.hub.partitions(),
            reports,
        ));
    }

    fn down(&mut self) {
        self.generation += 1;
        self.settled = false;
        self.to_mend.clear();
        self.after_tick.clear();
        self.clocks
            .iter_mut()
            .for_each(|clock| clock.awaited = None);
        self.hub.break_off();
    }

    /// What the replica has heard up to now, of every partition.
    fn reports(&self) -> Vec<Report> {
        let feeds = self.hub.feeds();
        let report = |partition| Report {
            partition,
            heard: self.hub.partition(partition).heard(),
            topics: feeds
                .iter()
                .filter(|feed| feed.partition().number() == partition)
                .map(|feed| (feed.topic().clone(), feed.last_entry().unwrap_or_default()))
                .collect(),
        };
        (0..self.hub.partitions()).map(report).collect()
    }

    fn heard_tick(&mut self, partition: PartitionNo, id: Id) {
        self.hub.tick(partition, id);
        self.to_mend.extend(self.after_tick.drain(..));
        if let Some(clock) = self.clocks.get_mut(usize::from(partition)) {
            clock.heard = Instant::now();
            if clock.awaited.is_some_and(|(awaited, _)| awaited <= id) {
                self.metrics
                    .redis_answered(Role::Live, clock.asked.elapsed());
            }
            clock.awaited = clock.awaited.filter(|(awaited, _)| *awaited > id);
        }
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Settled(generation) => {
                self.settled |= generation == self.generation;
                self.reached.store(true, Ordering::Release);
            }
            Done::Ticked(partition, said) => {
                let Some(clock) = self.clocks.get_mut(usize::from(partition)) else {
                    return;
                };
                clock.asking = false;
                if let Ok(id) = said {
                    self.metrics.clock_read(id.ms);
                    let late = self.hub.partition(partition).heard() < id;
                    if !late {
                        self.metrics
                            .redis_answered(Role::Live, clock.asked.elapsed());
                    }
                    clock.awaited = clock.awaited.or(late.then(|| (id, Instant::now())));
                }
            }
            Done::Read(generation, feeds, answer) => {
                self.reading -= 1;
                if generation != self.generation {
                    return;
                }
                match answer {
                    Ok(reading) => {
                        self.metrics.clock_read(reading.horizon.now_ms);
                        for (feed, page) in feeds.iter().zip(&reading.pages) {
                            match self.hub.mend(feed, page, &reading.horizon) {
                                Mended::Live => {}
                                Mended::More(_) => self.to_mend.push_back(feed.clone()),
                                Mended::AwaitsClock => self.after_tick.push(feed.clone()),
                            }
                        }
                    }
                    Err(_) => self.to_mend.extend(feeds),
                }
            }
        }
    }

    /// Reads for feeds that wait, in batches of one partition, a few at a time.
    fn mend(&mut self) {
        while self.settled && self.reading < self.settings.reads_max {
            let Some(first) = self.to_mend.pop_front() else {
                return;
            };
            let partition = first.partition().number();
            let mut feeds = vec![first];
            while feeds.len() < BATCH
                && self
                    .to_mend
                    .front()
                    .is_some_and(|feed| feed.partition().number() == partition)
            {
                feeds.extend(self.to_mend.pop_front());
            }
            let (feeds, requests): (Vec<_>, Vec<_>) = feeds.into_iter().filter_map(request).unzip();
            if requests.is_empty() {
                continue;
            }
            self.reading += 1;
            self.metrics.repair_reads.inc();
            let broker = self.broker.clone();
            let generation = self.generation;
            self.work.spawn(async move {
                let answer = broker.read(partition, &requests).await;
                if let Err(why) = &answer {
                    Pause::default().after(why).await;
                }
                Done::Read(generation, feeds, answer)
            });
        }
    }

    fn tick_for_waiting(&mut self) {
        for partition in 0..self.hub.partitions() {
            let mends = |feed: &Arc<Feed>| feed.partition().number() == partition;
            if self.hub.partition(partition).is_waited_for() || self.after_tick.iter().any(mends) {
                self.tick(partition);
            }
        }
    }

    fn tick(&mut self, partition: PartitionNo) {
        let Some(clock) = self.clocks.get_mut(usize::from(partition)) else {
            return;
        };
        let now = Instant::now();
        if clock.asking || !self.settled || now.duration_since(clock.asked) < TICK_PAUSE {
            return;
        }
        clock.asked = now;
        clock.asking = true;
        self.metrics.ticks.inc();
        let broker = self.broker.clone();
        self.work
            .spawn(async move { Done::Ticked(partition, broker.tick(partition).await) });
    }

    /// What is due from time to time.
    fn beat(&mut self) {
        let now = Instant::now();
        self.tick_for_waiting();
        for partition in 0..self.hub.partitions() {
            let Some(clock) = self
                .clocks
                .get_mut(usize::from(partition))
                .filter(|_| self.settled)
            else {
                continue;
            };
            if clock
                .awaited
                .is_some_and(|(_, since)| now.duration_since(since) > self.settings.deaf_after)
            {
                clock.awaited = None;
                tracing::warn!(
                    partition,
                    "a tick did not come back: the live path is deaf and begun anew"
                );
                self.interest.push_back(Interest::Reset);
            } else if now.duration_since(clock.heard) > self.settings.tick_after
                && clock.awaited.is_none()
            {
                clock.heard = now;
                self.tick(partition);
            }
        }
        let gone = self.hub.sweep(now, self.settings.keep);
        if !gone.is_empty() {
            self.interest.push_back(Interest::Remove(gone));
        }
    }
}

fn request(feed: Arc<Feed>) -> Option<(Arc<Feed>, ReadRequest)> {
    let (after, limit) = match feed.wants_read_after()? {
        Wanted::State => (Id::ZERO, 0),
        Wanted::Entries(after) => (after, PAGE_EVENTS),
    };
    let topic = feed.topic().clone();
    Some((
        feed,
        ReadRequest {
            topic,
            after,
            limit,
        },
    ))
}

/// Before any frame of a new connection counts: reports what was heard of a process that is gone,
/// and has the clock said, which writes down where the new one goes on.
async fn settle(
    broker: Arc<Broker>,
    generation: u64,
    partitions: PartitionNo,
    reports: Vec<Report>,
) -> Done {
    if generation > 1 {
        tokio::time::sleep(SPREAD.mul_f64(rand::random_range(0.0..1.0))).await;
    }
    let mut pause = Pause::default();
    while let Err(why) = settle_once(&broker, partitions, &reports).await {
        pause.after(&why).await;
    }
    Done::Settled(generation)
}

async fn settle_once(
    broker: &Broker,
    partitions: PartitionNo,
    reports: &[Report],
) -> Result<(), BrokerError> {
    for report in reports {
        for batch in report.topics.chunks(BATCH) {
            broker.report(report.partition, report.heard, batch).await?;
        }
    }
    for partition in 0..partitions {
        broker.tick(partition).await?;
    }
    Ok(())
}
