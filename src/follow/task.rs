//! The follower's task: carries out what [`super::core`] asks for.
//!
//! One task owns the live path. Answers come back through a set of tasks of its own.

use super::ask::{Answer, Ask, ConnectionNo, Failed, Note, Report};
use super::complaints::Complaints;
use super::core::{BATCH, FollowSettings, FollowerCore, TICK_PAUSE};
use super::reads::Pause;
use crate::broker::{Broker, BrokerError, Interest, LivePath};
use crate::hub::Hub;
use crate::log::ClockName;
use crate::metrics::{Metrics, Role};
use crate::stderr;
use crate::topic::PartitionNo;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// Repairs of many replicas after one outage are spread over this time.
const SPREAD: Duration = Duration::from_millis(100);
/// The exit code of a process that cannot follow the log any more (`EX_TEMPFAIL` of sysexits.h).
const FAR_AHEAD: u8 = 75;
/// For so long the end waits for its reason to be written.
const PATIENCE: Duration = Duration::from_secs(2);
/// Frames taken in a row. Then everything else has its turn, however many wait.
const FRAMES: usize = 256;

/// The task's state.
#[derive(Debug)]
pub struct Follower {
    core: FollowerCore,
    hub: Arc<Hub>,
    broker: Arc<Broker>,
    metrics: Arc<Metrics>,
    /// Set once the log has been reached.
    reached: Arc<AtomicBool>,
    complaints: Complaints,
    /// In the order in which the path is to be told.
    interest: VecDeque<Interest>,
    /// The present connection, for tasks that are of no use on another.
    connection: watch::Sender<ConnectionNo>,
    work: JoinSet<Answer>,
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
        Self {
            core: FollowerCore::new(hub.clone(), settings, Instant::now()),
            hub,
            broker,
            metrics,
            reached,
            complaints: Complaints::default(),
            interest: VecDeque::new(),
            connection: watch::Sender::default(),
            work: JoinSet::new(),
        }
    }

    /// Follows until `stop`, or until the path ends.
    pub async fn run(mut self, mut path: LivePath, stop: CancellationToken) {
        let mut beat = tokio::time::interval(TICK_PAUSE);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // All have their turn: a queue that is always full would starve the rest, and with it
            // the repairs that the queue waits for.
            tokio::select! {
                () = stop.cancelled() => return,
                event = path.events.recv() => match event {
                    Some(first) => {
                        let more = std::iter::from_fn(|| path.events.try_recv().ok());
                        let now = Instant::now();
                        for event in std::iter::once(first).chain(more).take(FRAMES) {
                            self.core.hear(event, now);
                        }
                    }
                    None => return,
                },
                // Interest goes out only when there is room: the path may wait for us.
                room = path.interest.reserve(), if !self.interest.is_empty() => {
                    if let (Ok(room), Some(interest)) = (room, self.interest.pop_front()) {
                        room.send(interest);
                    }
                }
                Some(done) = self.work.join_next() => match done {
                    Ok(answer) => self.take(answer),
                    Err(why) => tracing::error!(%why, "a task of the follower failed"),
                },
                () = self.hub.wanted() => self.core.hub_wants(Instant::now()),
                _ = beat.tick() => self.core.beat(Instant::now()),
            }
            self.connection.send_if_modified(|known| {
                let now = self.core.connection();
                std::mem::replace(known, now) != now
            });
            while let Some(ask) = self.core.next_ask() {
                self.carry_out(ask);
            }
            for note in self.core.notes() {
                tell(&self.metrics, &mut self.complaints, note);
            }
        }
    }

    fn take(&mut self, answer: Answer) {
        if matches!(answer, Answer::Settled { connection, .. } if connection == self.core.connection())
        {
            self.reached.store(true, Ordering::Release);
        }
        self.core.answer(answer, Instant::now());
    }

    fn carry_out(&mut self, ask: Ask) {
        let broker = self.broker.clone();
        match ask {
            Ask::Interest(interest) => self.interest.push_back(interest),
            Ask::Settle {
                connection,
                reports,
            } => {
                let present = self.connection.subscribe();
                let partitions = self.hub.partitions();
                self.work
                    .spawn(settle(broker, connection, present, partitions, reports));
            }
            Ask::Read {
                connection,
                partition,
                feeds,
                requests,
            } => {
                self.work.spawn(async move {
                    let answer = broker.read(partition, &requests).await;
                    if let Err(why) = &answer {
                        Pause::default().after(why).await;
                    }
                    Answer::Read {
                        connection,
                        feeds,
                        reading: answer.map_err(|_| Failed),
                    }
                });
            }
            Ask::Tick(connection, partition) => {
                self.work.spawn(async move {
                    let said = broker.tick(partition).await;
                    Answer::Ticked(connection, partition, said.map_err(|_| Failed))
                });
            }
        }
    }
}

/// Logs and counts. What anybody who publishes to live channels can cause is not said each time.
fn tell(metrics: &Metrics, complaints: &mut Complaints, note: Note) {
    let reason = match note {
        Note::Missing(_) => "missing",
        Note::Unreadable(_) => "unreadable",
        Note::WentBack(_) => "went back",
        Note::Ahead(..) => "ahead",
        _ => "",
    };
    if matches!(note, Note::Ahead(..)) {
        metrics.ids_ahead.inc();
    }
    let mut left_out = 0;
    if !reason.is_empty() {
        match complaints.may_say(reason, Instant::now()) {
            Some(some) => left_out = some,
            None => return,
        }
    }
    match note {
        Note::Heard(ms) => metrics.heard(ms),
        Note::Missing(topic) => {
            tracing::warn!(%topic, left_out, "a live frame is missing; the log is read");
        }
        Note::Unreadable(topic) => {
            tracing::warn!(%topic, left_out, "a live frame cannot be read; the log is read instead");
        }
        Note::WentBack(partition) => {
            tracing::warn!(
                partition,
                left_out,
                "the log has gone back; what was heard of it is reported, and the live path is begun anew"
            );
        }
        Note::OtherProcess(run) => {
            tracing::warn!(%run, "another Redis process answers; what was heard of the last one is reported");
        }
        Note::Ahead(partition, id) => {
            tracing::warn!(
                partition, %id, left_out,
                "an id on the live path is far ahead of Redis' clock; the log is asked. If it holds no such event, somebody else publishes to live channels"
            );
        }
        Note::Deaf(partition) => {
            tracing::warn!(
                partition,
                "a tick did not come back: the live path is deaf and begun anew"
            );
        }
        Note::TickCameBack(after) => metrics.redis_answered(Role::Live, after),
        Note::ClockRead(ms) => metrics.clock_read(ms),
        Note::RepairRead => metrics.repair_reads.inc(),
        Note::TickAsked => metrics.ticks.inc(),
    }
}

/// Before any frame of a new connection counts: reports what was heard of a log that may have gone
/// back, and has the clock said, which writes down where it goes on. Tried until it is done, or
/// until the connection is another one.
async fn settle(
    broker: Arc<Broker>,
    connection: ConnectionNo,
    mut present: watch::Receiver<ConnectionNo>,
    partitions: PartitionNo,
    reports: Vec<Report>,
) -> Answer {
    let done = async {
        if connection.is_reconnect() {
            tokio::time::sleep(SPREAD.mul_f64(rand::random_range(0.0..1.0))).await;
        }
        let mut pause = Pause::default();
        loop {
            match settle_once(&broker, partitions, &reports).await {
                Ok(told) => return told,
                Err(why @ BrokerError::FarAhead(_)) => begin_again(&why),
                Err(why) => pause.after(&why).await,
            }
        }
    };
    let over = present.wait_for(|now| *now != connection);
    let told = tokio::select! {
        told = done => told,
        // Whether the log has heard it or not, the next connection reports again.
        _ = over => Vec::new(),
    };
    Answer::Settled { connection, told }
}

/// Ends the process: this log gives out ids that streams here have passed long ago. Its clients come back to one
/// that has shown nothing yet, and are told that their cursors are ahead.
fn begin_again(why: &BrokerError) -> ! {
    tracing::error!(%why, "Redis' clock has gone back, and its log with it: the process ends, to begin anew");
    let _is_written = stderr::flush(PATIENCE);
    std::process::exit(FAR_AHEAD.into())
}

/// Which clock of each partition was told.
async fn settle_once(
    broker: &Broker,
    partitions: PartitionNo,
    reports: &[Report],
) -> Result<Vec<ClockName>, BrokerError> {
    let mut told = Vec::with_capacity(reports.len());
    for Report {
        partition,
        followed,
        topics,
    } in reports
    {
        // How far the clock was followed is reported also where no topic is read now.
        let (first, more) = topics.split_at(topics.len().min(BATCH));
        // The first is the one that knows least: a log that takes its place meanwhile is another clock.
        let clock = broker.report(*partition, *followed, first).await?;
        for batch in more.chunks(BATCH) {
            broker.report(*partition, *followed, batch).await?;
        }
        told.push(clock);
    }
    for partition in 0..partitions {
        broker.tick(partition).await?;
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Bounds, Live, Memory, Retention};
    use crate::hub::reader::Start;
    use crate::hub::window::WindowBounds;
    use crate::id::Id;
    use crate::log::Tick;
    use crate::topic::Topic;
    use std::task::Waker;
    use tokio::sync::mpsc;

    fn retention() -> Retention {
        Retention {
            bounds: Bounds {
                events_max: 1,
                age_ms: 1000,
            },
            rules: Vec::new(),
            event_bytes_max: 1,
            topics_max: 0,
            idempotency_ms: 1,
            leap_ms: 1,
        }
    }

    /// Frames were taken before everything else, so a queue that was never empty kept the follower
    /// from asking for topics, and from reading what was missing.
    #[tokio::test]
    async fn a_live_queue_that_is_never_empty_keeps_nothing_else_from_its_turn() {
        const FRAMES: usize = 100_000;
        let bounds = WindowBounds {
            events_max: 1,
            bytes_max: 1,
        };
        let hub = Hub::new(1, bounds);
        let (memory, _path, _answers) = Memory::open(retention());
        let settings = FollowSettings {
            reads_max: 1,
            tick_after: Duration::from_secs(60),
            deaf_after: Duration::from_secs(60),
            keep: Duration::from_secs(60),
        };
        let follower = Follower::new(
            hub.clone(),
            Arc::new(Broker::Memory(Box::new(memory))),
            Metrics::new(),
            settings,
            Arc::default(),
        );
        let (live, events) = mpsc::channel(FRAMES);
        let (interest, mut wanted) = mpsc::channel(8);
        for ms in 1..=FRAMES as u64 {
            let (id, of) = (Id::new(ms, 0), None);
            live.try_send(Live::Tick(0, Tick { id, of })).unwrap();
        }
        let topic = Topic::parse("news").unwrap();
        let _reader = hub.reader(&[topic], Waker::noop(), |_| Start::Live);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(follower.run(LivePath { events, interest }, stop.clone()));
        let asked = wanted.recv().await;
        assert!(matches!(asked, Some(Interest::Add(_))), "{asked:?}");
        let left = FRAMES - live.capacity();
        assert!(left > FRAMES / 2, "only {left} frames are left by then");
        stop.cancel();
        tasks.join_all().await;
    }
}
