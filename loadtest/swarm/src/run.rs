//! Plays one scenario on a running cluster, and collects the evidence.

use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::event::Way;
use crate::log::{self, Entry};
use crate::publish::{self, Record, Sender, burst, shares};
use crate::redis_link::RedisLink;
use crate::scenario::{Deed, Scenario, Size, Step, Victim, Whom};
use crate::subscriber::{Diary, Habits, Subscriber};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, index};
use rand::{Rng, RngCore as _, SeedableRng as _};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

/// Time for all first streams to be live.
const OPEN: Duration = Duration::from_secs(20);
/// Time for raw publishes and the inbox to be logged, once everything is published.
const SETTLE: Duration = Duration::from_secs(20);
/// The logs have settled when they have not grown for so long.
const STILL: Duration = Duration::from_millis(1500);
/// Time for all subscribers to come to the end of their topics.
const FINISH: Duration = Duration::from_secs(40);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// What is asked of a run.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// The scenario.
    pub scenario: Scenario,
    /// How large.
    pub size: Size,
    /// Everything random.
    pub seed: u64,
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
    /// What was done to which part, and when.
    pub deeds: Vec<String>,
    /// What of the run itself did not go as planned.
    pub troubles: Vec<String>,
}

/// A run under way.
struct Play<'a> {
    order: Order,
    cluster: &'a Cluster,
    clock: Clock,
    rng: StdRng,
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
        evidence: Evidence::default(),
    };
    let (over, until) = watch::channel(false);
    let mut subscribers = play.subscribe(&until).await?;
    play.burst().await?;
    play.publish_under_faults().await?;
    let mut redis = RedisLink::new(&cluster.redis_url).map_err(|why| why.to_string())?;
    play.settle(&mut redis).await?;
    let sender = Sender::new(Way::Marker, &play.run_name(), cluster)?;
    let rng = play.fork();
    let marked = publish::markers(order.size.topics, sender, play.clock, rng).await;
    play.evidence.records.extend(marked);
    play.finish(&mut subscribers, &over).await;
    for topic in 0..order.size.topics {
        play.evidence.logs.push(log::read(&mut redis, topic).await?);
    }
    Ok(play.evidence)
}

impl Play<'_> {
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
        for _ in 0..self.order.size.subscribers {
            let mut rng = self.fork();
            let count = rng.random_range(1..=self.order.size.topics.min(3));
            let topics = index::sample(&mut rng, self.order.size.topics, count).into_vec();
            let habits = Habits {
                drop_bytes: self.order.size.drop_bytes(count),
                retry_max: self.order.size.retry_max,
                topics,
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

    async fn burst(&mut self) -> Result<(), String> {
        let (size, rng, began) = (self.order.size, self.fork(), self.clock.micros());
        let records = burst(size.burst, size.topics, self.cluster, self.clock, rng).await?;
        self.evidence.records.extend(records);
        self.evidence.windows.push((began, self.clock.micros()));
        Ok(())
    }

    /// All ways at once, while the script is carried out.
    async fn publish_under_faults(&mut self) -> Result<(), String> {
        let (size, began) = (self.order.size, self.clock.micros());
        let mut publishers = JoinSet::new();
        for share in shares(size.per_second) {
            let sender = Sender::new(share.way, &self.run_name(), self.cluster)?;
            publishers.spawn(publish::publish(
                share,
                size.time,
                size.topics,
                sender,
                self.clock,
                self.fork(),
            ));
        }
        self.carry_out().await;
        while let Some(done) = publishers.join_next().await {
            self.evidence
                .records
                .extend(done.map_err(|why| why.to_string())?);
        }
        self.evidence.windows.push((began, self.clock.micros()));
        Ok(())
    }

    async fn carry_out(&mut self) {
        let began = Instant::now();
        let mut rng = self.fork();
        let mut victim = String::new();
        for Step { at, deed } in (self.order.scenario.script)(&mut rng, self.order.size.time) {
            sleep_until(began + at).await;
            let asked = Instant::now();
            let done = match deed {
                Deed::Choose(kind) => self.choose(kind, &mut rng).await.map(|(chosen, why)| {
                    victim = chosen;
                    why
                }),
                Deed::Part(verb, whom) => {
                    let part = match whom {
                        Whom::Victim => victim.as_str(),
                        Whom::Named(part) => part,
                    };
                    self.cluster
                        .act(verb, part)
                        .await
                        .map(|()| format!("{} {part}", verb.as_str()))
                }
            };
            let (after, took) = (asked.duration_since(began), asked.elapsed());
            match done {
                Ok(deed) => {
                    let deed = format!("{after:.1?}: {deed}, took {took:.1?}");
                    self.evidence.deeds.push(deed);
                }
                Err(why) => self.evidence.troubles.push(why),
            }
        }
    }

    /// A replica, and why.
    async fn choose(&self, kind: Victim, rng: &mut StdRng) -> Result<(String, String), String> {
        let appender = self
            .cluster
            .appender()
            .await
            .ok_or("no replica appends raw publishes")?;
        let names = self.cluster.replicas.iter().map(|door| &door.name);
        let others: Vec<&String> = names.filter(|name| **name != appender).collect();
        let chosen = match kind {
            Victim::Appender => &appender,
            Victim::Other => *others.choose(rng).ok_or("there is but one replica")?,
        };
        Ok((
            chosen.clone(),
            format!("choose {chosen} while {appender} appends"),
        ))
    }

    /// Waits until the logs hold what they must, the inbox is empty, and nothing moves any more.
    async fn settle(&mut self, redis: &mut RedisLink) -> Result<(), String> {
        let deadline = Instant::now() + SETTLE;
        let mut owed = vec![0; self.order.size.topics];
        for record in self
            .evidence
            .records
            .iter()
            .filter(|record| record.fate.is_owed())
        {
            owed.get_mut(record.event.topic)
                .map(|owed| *owed += 1)
                .ok_or("a topic too many")?;
        }
        let (mut before, mut since) = (None, Instant::now());
        loop {
            let now = log::lengths(redis, self.order.size.topics).await?;
            let is_whole =
                now.1 == 0 && now.0.iter().zip(&owed).all(|(length, owed)| length >= owed);
            if before.as_ref() != Some(&now) {
                (before, since) = (Some(now), Instant::now());
            }
            if since.elapsed() >= STILL && is_whole {
                return Ok(());
            }
            if Instant::now() > deadline {
                self.evidence
                    .troubles
                    .push(format!("the logs do not settle: {before:?}, owed {owed:?}"));
                return Ok(());
            }
            sleep(LOOK).await;
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
