//! Plays one scenario on a running cluster, and collects the evidence.

mod script;

use crate::abuse::{Kind, Seen};
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::event::Way;
use crate::id::Id;
use crate::log::{self, Entry};
use crate::publish::{self, Record, Sender};
use crate::redis_link::RedisLink;
use crate::scenario::{Expectation, Scenario, Size};
use crate::subscriber::{Diary, Habits, Subscriber};
use rand::rngs::StdRng;
use rand::seq::index;
use rand::{Rng, RngCore as _, SeedableRng as _};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Time for all first streams to be live.
const OPEN: Duration = Duration::from_secs(20);
/// Time for raw publishes and the inbox to be logged, once everything is published.
const SETTLE: Duration = Duration::from_secs(20);
/// The logs have settled when they have not grown for so long.
const STILL: Duration = Duration::from_millis(1500);
/// Where the logs may have lost something, there is no telling when they hold everything.
const STILL_UNSURE: Duration = Duration::from_secs(2);
/// Time for all subscribers to come to the end of their topics.
const FINISH: Duration = Duration::from_secs(40);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// What is asked of a run.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// The scenario.
    pub scenario: &'static Scenario,
    /// How large.
    pub size: Size,
    /// Everything random.
    pub seed: u64,
    /// Whoever reads brings a token.
    pub with_tokens: bool,
}

/// What was sent, seen and logged.
#[derive(Debug, Default)]
pub struct Evidence {
    /// What publishers were told.
    pub records: Vec<Record>,
    /// What subscribers saw.
    pub diaries: Vec<Diary>,
    /// The log of each topic.
    pub logs: Vec<Vec<Entry>>,
    /// From and to when events were published, by the run's clock.
    pub windows: Vec<(u64, u64)>,
    /// What was done to which part.
    pub deeds: Vec<Done>,
    /// Topics that were deleted.
    pub deletions: Vec<Deletion>,
    /// How clients misbehaved.
    pub abuses: Vec<Abused>,
    /// What of the run itself did not go as planned.
    pub troubles: Vec<String>,
}

/// Something that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// When it began, by the run's clock.
    pub from_us: u64,
    /// When it was done.
    pub to_us: u64,
    /// What.
    pub what: String,
    /// Whether Redis may have forgotten something by it, or ears may have been cut.
    pub may_lose: bool,
}

/// Clients have misbehaved.
#[derive(Clone, Debug)]
pub struct Abused {
    /// How.
    pub kind: Kind,
    /// When they began, by the run's clock.
    pub from_us: u64,
    /// When they ended.
    pub to_us: u64,
    /// What came of it, as they saw it.
    pub said: String,
    /// What it cost.
    pub seen: Seen,
}

/// A topic was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// Which.
    pub topic: usize,
    /// What came before this is gone.
    pub id: Id,
    /// When Redis had answered, by the run's clock.
    pub at_us: u64,
}

/// A run under way.
struct Play<'a> {
    order: Order,
    cluster: &'a Cluster,
    clock: Clock,
    rng: StdRng,
    /// Raw publishes in pipes until now.
    piped: u32,
    /// Subscribers below this number do not read.
    stopped: watch::Sender<usize>,
    evidence: Evidence,
}

/// Plays a scenario.
///
/// # Errors
/// What kept it from being played to its end; nothing can be said of the gateway then.
pub async fn play(order: Order, cluster: &Cluster) -> Result<Evidence, String> {
    let mut play = Play {
        order,
        cluster,
        clock: Clock::start(),
        rng: StdRng::seed_from_u64(order.seed),
        piped: 0,
        stopped: watch::Sender::new(0),
        evidence: Evidence::default(),
    };
    let mut supervisor = Supervisor {
        clock: play.clock,
        cluster,
        restarts: Vec::new(),
    };
    tokio::select! {
        played = play.play_on() => played?,
        why = supervisor.watch() => return Err(why),
    }
    play.doubt(supervisor.restarts);
    Ok(play.evidence)
}

/// Starts replicas again that have ended by themselves: a replica may, and counts on somebody who does.
struct Supervisor<'a> {
    clock: Clock,
    cluster: &'a Cluster,
    restarts: Vec<Done>,
}

impl Supervisor<'_> {
    /// Returns why a part did not start again, if that happens.
    async fn watch(&mut self) -> String {
        loop {
            let revived = match self.cluster.revive().await {
                Ok(revived) => revived,
                Err(why) => return why,
            };
            let now_us = self.clock.micros();
            self.restarts.extend(revived.into_iter().map(|part| Done {
                from_us: now_us,
                to_us: now_us,
                what: format!("{part} had ended by itself, and is started again"),
                may_lose: false,
            }));
        }
    }
}

impl Play<'_> {
    async fn play_on(&mut self) -> Result<(), String> {
        let (over, until) = watch::channel(false);
        let mut subscribers = self.subscribe(&until).await?;
        let began = self.clock.micros();
        self.burst(self.order.size.burst).await?;
        self.evidence.windows.push((began, self.clock.micros()));
        self.publish_under_faults().await?;
        let mut redis = RedisLink::new(&self.cluster.redis_url).map_err(|why| why.to_string())?;
        self.settle(&mut redis).await?;
        let sender = Sender::new(Way::Marker, &self.run_name(), self.cluster)?;
        let rng = self.fork();
        let marked = publish::markers(self.order.size.shape, sender, self.clock, rng).await;
        self.evidence.records.extend(marked);
        self.finish(&mut subscribers, &over).await;
        for topic in 0..self.order.size.shape.topics {
            self.evidence.logs.push(log::read(&mut redis, topic).await?);
        }
        Ok(())
    }

    /// A generator of its own for each task: what one draws does not depend on when others do.
    fn fork(&mut self) -> StdRng {
        StdRng::seed_from_u64(self.rng.next_u64())
    }

    fn run_name(&self) -> String {
        format!("{}-{}", self.order.scenario.name, self.order.seed)
    }

    /// Opens every subscriber's first stream.
    async fn subscribe(&mut self, until: &watch::Receiver<bool>) -> Result<JoinSet<Diary>, String> {
        let (mut tasks, mut live) = (JoinSet::new(), Vec::new());
        let size = self.order.size;
        for number in 0..size.subscribers {
            let mut rng = self.fork();
            let count = rng.random_range(size.topics_each.0..=size.topics_each.1);
            let habits = Habits {
                topics: index::sample(&mut rng, size.shape.topics, count).into_vec(),
                foreign: if number % 2 == 0 {
                    self.order.scenario.foreign
                } else {
                    0
                },
                stay: size.stay(count),
                away_max: size.away_max,
                retry_max: size.retry_max,
                receive_buffer: size.receive_buffer,
                number,
                with_tokens: self.order.with_tokens,
                stopped: self.stopped.subscribe(),
            };
            let (opened, is_open) = oneshot::channel();
            live.push(is_open);
            let subscriber = Subscriber::new(habits, self.cluster.doors(), self.clock, rng, opened);
            tasks.spawn(subscriber.run(until.clone()));
        }
        let deadline = Instant::now() + OPEN;
        for is_open in live {
            let opened = timeout_at(deadline, is_open).await;
            opened
                .map_err(|_| "the first streams do not open")?
                .map_err(|_| "a subscriber has ended")?;
        }
        Ok(tasks)
    }

    /// Thousands of raw publishes in one pipe.
    async fn burst(&mut self, count: u32) -> Result<(), String> {
        if count == 0 {
            return Ok(());
        }
        let numbers = self.piped..self.piped + count;
        self.piped = numbers.end;
        let rng = self.fork();
        let records = publish::burst(
            numbers,
            self.order.size.shape,
            self.cluster,
            self.clock,
            rng,
        )
        .await?;
        self.evidence.records.extend(records);
        Ok(())
    }

    /// All ways at once, while the script is carried out.
    async fn publish_under_faults(&mut self) -> Result<(), String> {
        let (size, began) = (self.order.size, self.clock.micros());
        let mut publishers = JoinSet::new();
        for portion in publish::portions(size.per_second, self.order.scenario.ways) {
            let sender = Sender::new(portion.way, &self.run_name(), self.cluster)?;
            let rng = self.fork();
            let task = publish::publish(portion, size.time, size.shape, sender, self.clock, rng);
            publishers.spawn(async move { (portion, task.await) });
        }
        self.carry_out().await;
        while let Some(done) = publishers.join_next().await {
            let (portion, records) = done.map_err(|why| why.to_string())?;
            let (sent, total) = (records.len(), portion.total(size.time));
            if sent < total as usize {
                let way = portion.way.as_str();
                let trouble = format!("{way} has sent {sent} of {total} events, so slow was it");
                self.evidence.troubles.push(trouble);
            }
            self.evidence.records.extend(records);
        }
        self.evidence.windows.push((began, self.clock.micros()));
        Ok(())
    }

    /// Waits until the logs hold what they must, the inbox is empty, and nothing moves any more.
    async fn settle(&mut self, redis: &mut RedisLink) -> Result<(), String> {
        let deadline = Instant::now() + SETTLE;
        let Expectation {
            log_forgets,
            ears_lost_within,
            ..
        } = self.order.scenario.expectation;
        let mut owed = vec![0; self.order.size.shape.topics];
        let deletes = !self.evidence.deletions.is_empty();
        let owes_all = log_forgets.is_none() && ears_lost_within.is_none() && !deletes;
        for record in self
            .evidence
            .records
            .iter()
            .filter(|record| owes_all && record.fate.is_owed())
        {
            *owed.get_mut(record.event.topic).ok_or("a topic too many")? += 1;
        }
        let still = if owes_all { STILL } else { STILL_UNSURE };
        let (mut before, mut since) = (None, Instant::now());
        loop {
            let now = log::lengths(redis, owed.len()).await?;
            let is_whole =
                now.1 == 0 && now.0.iter().zip(&owed).all(|(length, owed)| length >= owed);
            if before.as_ref() != Some(&now) {
                (before, since) = (Some(now), Instant::now());
            }
            if since.elapsed() >= still && is_whole {
                return Ok(());
            }
            if Instant::now() > deadline {
                let short = before
                    .iter()
                    .flat_map(|(lengths, _)| lengths.iter().zip(&owed))
                    .filter(|(length, owed)| length < owed);
                let trouble = format!(
                    "the logs of {} topics do not hold what is owed",
                    short.count()
                );
                self.evidence.troubles.push(trouble);
                return Ok(());
            }
            sleep(LOOK).await;
        }
    }

    /// A run that nobody watched, or in which hardly anything was published, would be good by itself.
    fn doubt(&mut self, restarts: Vec<Done>) {
        let Evidence {
            records,
            diaries,
            deeds,
            troubles,
            ..
        } = &mut self.evidence;
        if self.order.scenario.expectation.replicas_end {
            deeds.extend(restarts);
            deeds.sort_by_key(|deed| deed.from_us);
        } else {
            troubles.extend(restarts.into_iter().map(|restart| restart.what));
        }
        let owed = records
            .iter()
            .filter(|record| record.fate.is_owed())
            .count();
        if owed < records.len() / 2 || owed == 0 {
            troubles.push(format!(
                "of {} events only {owed} were acknowledged",
                records.len()
            ));
        }
        let garbled = self.cluster.garbled();
        if garbled > 0 {
            troubles.push(format!(
                "{garbled} connections to Redis were not understood, and closed"
            ));
        }
        if diaries.len() < self.order.size.subscribers {
            troubles.push(format!("there are {} diaries only", diaries.len()));
        }
    }

    async fn finish(&mut self, subscribers: &mut JoinSet<Diary>, over: &watch::Sender<bool>) {
        let diaries = &mut self.evidence.diaries;
        let all = async {
            while let Some(done) = subscribers.join_next().await {
                diaries.extend(done.ok());
            }
        };
        if timeout(FINISH, all).await.is_err() {
            over.send_replace(true);
            while let Some(done) = subscribers.join_next().await {
                self.evidence.diaries.extend(done.ok());
            }
        }
    }
}
