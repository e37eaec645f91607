//! Gives an ear its connection, its clock and the append function.
//!
//! One connection, which never reconnects by itself: `SUBSCRIBE <channel>`, `PSUBSCRIBE
//! <channel>:*`, the channels of the map, then `SUBSCRIBE <prefix>:ingest`. After all confirmations a
//! `start` begins an epoch. The connection ends counting when it breaks; what was counted is still appended.

use super::ear::{Append, Ear, Outcome, OwedMax, Unfit};
use super::hearing::Hearing;
use super::told::Told;
use crate::broker::BrokerError;
use crate::broker::channels::ChannelMap;
use crate::broker::raw::Refusal;
use crate::broker::redis::{Outage, PubSub, Push, Redis};
use crate::follow::complaints::Complaints;
use crate::follow::fleet::Replicas;
use crate::metrics::{AppendOutcome, IngestRefusal, Role, Source};
use bytes::Bytes;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Pushes that are taken before the ear reads its clock again.
const TAKE: usize = 512;
/// The longest pause before a reconnect.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// A `start` that was not heard by then is said again.
const START_WAIT: Duration = Duration::from_secs(2);
/// Between two tries of a `start` that failed. Until it succeeds this ear is a receiver of raw publishes that
/// counts none, and publishers take it for one that does.
const START_RETRY: Duration = Duration::from_millis(50);
/// So many fail in a row before it is none, and listens again once Redis takes writes.
const STARTS_MAX: u32 = 3;
/// Time to append what is owed, at a stop.
const FLUSH: Duration = Duration::from_secs(5);

/// What an ear goes by.
#[derive(Clone, Debug)]
pub struct EarSettings {
    /// This replica's name.
    pub name: String,
    /// `ingest.channel`.
    pub channel: String,
    /// `ingest.map`.
    pub map: ChannelMap,
    /// `ingest.ears`.
    pub ears: usize,
    /// `ingest.owed_max` and `ingest.owed_bytes_max`.
    pub owed_max: OwedMax,
    /// `publish.event_bytes_max`.
    pub event_bytes_max: usize,
}

/// Whether this replica is among the first `ears` by name.
#[must_use]
pub fn rank(replicas: &[String], name: &str, ears: usize) -> Option<usize> {
    replicas
        .iter()
        .position(|other| other == name)
        .filter(|rank| *rank < ears)
}

/// The task's state.
#[derive(Debug)]
struct Link {
    redis: Redis,
    settings: EarSettings,
    ear: Ear,
    appends: JoinSet<(Outcome, Vec<Refusal>)>,
    starts: JoinSet<Result<String, BrokerError>>,
    start_again: Instant,
    failed_starts: u32,
    hearing: Hearing,
    complaints: Complaints,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The connection is of no more use, for this reason.
    Lost(&'static str),
    /// As much is owed as may be.
    Full,
    Retired,
}

/// Why a connection is of no more use.
const OVERFLOW: &str = "more came at once than redis.live_queue_bytes";
const BROKEN: &str = "it broke, or Redis closed it: one PUBLISH above client-output-buffer-limit pubsub closes all \
                      ears, and the log of Redis says so";
const UNREADABLE: &str = "what the ears tell one another cannot be read";
const NO_START: &str = "Redis takes no writes";

/// Listens whenever this replica is elected, until `stop`; then appends what is owed.
pub async fn run(
    redis: Redis,
    settings: EarSettings,
    mut replicas: Replicas,
    stop: CancellationToken,
) {
    let mut link = Link {
        ear: Ear::new(settings.name.clone(), settings.owed_max),
        hearing: Hearing {
            channel: settings.channel.clone(),
            map: ChannelMap::default(),
            event_bytes_max: settings.event_bytes_max,
        },
        redis,
        settings,
        appends: JoinSet::new(),
        starts: JoinSet::new(),
        start_again: Instant::now(),
        failed_starts: 0,
        complaints: Complaints::default(),
    };
    let mut pause = Duration::from_millis(20);
    let mut outage = Outage::default();
    loop {
        // Answers may have come since the last work, and an ear that was replaced works no more.
        link.tell_metrics();
        if !link.elected(&replicas) {
            if link.ear.owes() > 0 && !stop.is_cancelled() {
                // Whoever listens now has not heard it.
                link.work_until(Instant::now() + START_RETRY).await;
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                changed = replicas.changed() => if changed.is_err() { break },
            }
            continue;
        }
        if !link.ear.has_room() && !stop.is_cancelled() {
            // It would be a receiver that counts nothing.
            link.work_until(Instant::now() + START_RETRY).await;
            continue;
        }
        match link.connect().await {
            Ok(mut pubsub) => {
                pause = Duration::from_millis(20);
                outage.over();
                let ended = link.session(&mut pubsub, &mut replicas, &stop).await;
                link.redis.metrics().redis_up(Role::Ear, false);
                link.ear.cut();
                link.ended(ended, pubsub).await;
            }
            Err(why) => {
                link.redis.count_error(Role::Ear, &why);
                let why = why.to_string();
                if let Some(left_out) = outage.may_say(&why, Instant::now()) {
                    tracing::warn!(why, left_out, "no connection for the ear; trying again");
                }
            }
        }
        if stop.is_cancelled() {
            break;
        }
        let until = Instant::now() + pause.mul_f64(rand::random_range(0.5..1.0));
        pause = (pause * 2).min(BACKOFF_MAX);
        link.work_until(until).await;
    }
    link.flush().await;
}

impl Link {
    fn elected(&self, replicas: &Replicas) -> bool {
        rank(&replicas.borrow(), &self.settings.name, self.settings.ears).is_some()
    }

    /// Subscribes in the order that the protocol asks for. Confirmations are awaited one by one.
    ///
    /// A publisher is told how many hear it. While Redis takes no writes (it loads, or lacks replicas) no
    /// ear can count, so none subscribes.
    ///
    /// Where Redis refuses channels of the map, nothing of it is heard, and all else is: of a part of it the first
    /// entry that fits would be another one here than at other ears.
    async fn connect(&mut self) -> Result<PubSub, BrokerError> {
        self.redis.tick(0).await?;
        self.hearing.map = self.settings.map.clone();
        match self.hearing.subscribe(&self.redis).await {
            Err(BrokerError::Refused(why)) if !self.hearing.map.is_empty() => {
                self.hearing.map = ChannelMap::default();
                let pubsub = self.hearing.subscribe(&self.redis).await?;
                let refused = BrokerError::Refused(why.clone());
                self.redis.count_error(Role::Ear, &refused);
                if let Some(left_out) = self.complaints.may_say(&why, Instant::now()) {
                    tracing::warn!(
                        why,
                        left_out,
                        "Redis refuses channels of ingest.map: this ear hears none of them until its next connection"
                    );
                }
                Ok(pubsub)
            }
            done => done,
        }
    }

    async fn session(
        &mut self,
        pubsub: &mut PubSub,
        replicas: &mut Replicas,
        stop: &CancellationToken,
    ) -> Ended {
        // Asked on the connection itself: the process that it leads to.
        let Ok(run) = self.redis.run_id_of(pubsub).await else {
            return Ended::Lost(BROKEN);
        };
        self.redis.metrics().redis_up(Role::Ear, true);
        self.start_again = Instant::now();
        let (subscriptions, mut confirmed) = (self.hearing.subscriptions(), 0);
        loop {
            self.work(confirmed >= subscriptions);
            let wake = self.wake_at();
            // All have their turn: publishes that never end would keep the answers to appends from being
            // taken, and what is owed would only grow.
            tokio::select! {
                () = stop.cancelled() => return Ended::Retired,
                first = pubsub.recv() => {
                    let more = std::iter::from_fn(|| pubsub.try_recv());
                    for push in std::iter::once(first).chain(more).take(TAKE) {
                        match push {
                            Push::Lost { overflow: true } => return Ended::Lost(OVERFLOW),
                            Push::Lost { overflow: false } => return Ended::Lost(BROKEN),
                            Push::Subscribed(_) => {
                                confirmed += 1;
                                if confirmed == subscriptions {
                                    self.ear.subscribed(&run, &self.hearing.map.heard());
                                }
                            }
                            Push::Message { channel, payload, pattern } => {
                                if self.hear(&channel, &payload, pattern.as_deref()).is_none() {
                                    return Ended::Lost(UNREADABLE);
                                }
                                if self.ear.is_full() {
                                    return Ended::Full;
                                }
                            }
                        }
                    }
                }
                Some(outcome) = self.appends.join_next() => self.answered(outcome),
                Some(started) = self.starts.join_next() => {
                    if matches!(started, Ok(Ok(_))) {
                        self.failed_starts = 0;
                    } else {
                        self.start_again = Instant::now() + START_RETRY;
                        self.failed_starts += 1;
                        if self.failed_starts >= STARTS_MAX {
                            self.failed_starts = 0;
                            return Ended::Lost(NO_START);
                        }
                    }
                }
                () = tokio::time::sleep_until(wake) => {}
                _ = replicas.changed() => if !self.elected(replicas) { return Ended::Retired },
            }
        }
    }

    /// A message. None if it cannot be understood, which ends the counting.
    fn hear(&mut self, channel: &Bytes, payload: &Bytes, pattern: Option<&[u8]>) -> Option<()> {
        if channel.as_ref() == self.redis.ingest_channel().as_bytes() {
            return self.hear_told(payload);
        }
        let Some((is_common, item)) = self.hearing.read(channel, payload, pattern) else {
            return Some(());
        };
        let now = Instant::now();
        if let Err(unfit) = &item {
            self.complain(unfit, now);
        }
        if self.ear.hear_raw(is_common, channel, payload, item, now) {
            self.redis.metrics().ingest_heard.inc();
        }
        Some(())
    }

    /// What the ears tell one another.
    fn hear_told(&mut self, payload: &[u8]) -> Option<()> {
        let now = Instant::now();
        let text = String::from_utf8_lossy(payload);
        if !self.ear.hear_told(Told::read(&text)?, now) {
            self.redis.metrics().unreadable.inc();
        }
        Some(())
    }

    fn complain(&mut self, unfit: &Unfit, now: Instant) {
        let Unfit { why, channel, size } = unfit;
        if let Some(left_out) = self.complaints.may_say(why.as_str(), now) {
            tracing::warn!(
                reason = why.as_str(),
                channel,
                bytes = size,
                left_out,
                "a raw publish is no event and is not logged"
            );
        }
    }

    /// What the end of a session means for whoever publishes.
    async fn ended(&mut self, ended: Ended, pubsub: PubSub) {
        let metrics = self.redis.metrics().clone();
        match ended {
            Ended::Retired => return self.retire().await,
            Ended::Lost(why) => {
                if let Some(left_out) = self.complaints.may_say(why, Instant::now()) {
                    tracing::warn!(
                        why,
                        left_out,
                        "this ear hears no raw publish until its next connection stands"
                    );
                }
            }
            Ended::Full => {
                let unheard = self.left_in(pubsub);
                metrics.ingest_refused(IngestRefusal::Full, unheard);
                tracing::warn!(
                    owed = self.ear.owes(),
                    owed_bytes = self.ear.owes_bytes(),
                    unheard,
                    "this ear owes the log as much as it may (ingest.owed_max, ingest.owed_bytes_max), \
                     and hears no raw publish until half of it is logged"
                );
            }
        }
        metrics.redis_reconnected(Role::Ear);
    }

    /// Raw publishes that have come over a connection and that nobody took.
    fn left_in(&self, mut pubsub: PubSub) -> usize {
        std::iter::from_fn(|| pubsub.try_recv())
            .take_while(|push| !matches!(push, Push::Lost { .. }))
            .filter(|push| self.hearing.is_raw(push))
            .count()
    }

    /// Begins what is due: a start, an append.
    fn work(&mut self, subscribed: bool) {
        let now = Instant::now();
        if subscribed && self.ear.wants_epoch() && now >= self.start_again && self.starts.is_empty()
        {
            self.start_again = now + START_WAIT;
            let (redis, name) = (self.redis.clone(), self.settings.name.clone());
            let (epoch, map) = (
                format!("{:016x}", rand::random::<u64>()),
                self.ear.map().clone(),
            );
            self.starts
                .spawn(async move { redis.start_epoch(&epoch, &name, &map).await });
        }
        if let Some(append) = self.ear.next(now) {
            let (redis, name) = (self.redis.clone(), self.settings.name.clone());
            self.appends
                .spawn(async move { carry(&redis, &name, &append).await });
        }
        self.tell_metrics();
    }

    fn tell_metrics(&self) {
        let now = Instant::now();
        let metrics = self.redis.metrics();
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.ingest_owed.set(gauge(self.ear.owes()));
        metrics.ingest_owed_bytes.set(gauge(self.ear.owes_bytes()));
        let lag = self.ear.owes_since().map(|since| now - since);
        metrics
            .ingest_lag
            .set(lag.unwrap_or_default().as_secs_f64());
        metrics.ingest_appends_first(self.ear.counts() && self.ear.is_eager());
    }

    fn wake_at(&self) -> Instant {
        let idle = Instant::now() + START_WAIT;
        let start = if self.ear.wants_epoch() {
            self.start_again.max(Instant::now())
        } else {
            idle
        };
        self.ear.due().unwrap_or(idle).min(start).min(idle)
    }

    fn answered(&mut self, answer: Result<(Outcome, Vec<Refusal>), tokio::task::JoinError>) {
        let (outcome, refusals) = answer.unwrap_or((Outcome::Unknown, Vec::new()));
        let now = Instant::now();
        self.ear.answered(outcome, now);
        for Refusal { topic, code, why } in refusals {
            if let Some(left_out) = self.complaints.may_say(&code, now) {
                tracing::warn!(
                    topic,
                    code,
                    why,
                    left_out,
                    "a raw publish is refused by the log"
                );
            }
        }
    }

    /// Goes on appending without listening.
    async fn work_until(&mut self, until: Instant) {
        while Instant::now() < until {
            self.work(false);
            let wake = self.wake_at().min(until);
            tokio::select! {
                Some(outcome) = self.appends.join_next() => self.answered(outcome),
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Says that this ear goes, so that another one appends at once.
    async fn retire(&self) {
        if let Err(why) = self.redis.leave_ears(&self.settings.name).await {
            tracing::debug!(%why, "the other ears could not be told");
        }
    }

    async fn flush(&mut self) {
        let until = Instant::now() + FLUSH;
        while self.ear.owes() > 0 && Instant::now() < until {
            let soon = (Instant::now() + Duration::from_millis(50)).min(until);
            self.work_until(soon).await;
        }
        if self.ear.owes() > 0 {
            tracing::warn!(
                owed = self.ear.owes(),
                "raw publishes are left to the other ears"
            );
        }
    }
}

/// Makes an append; also what the log has refused of it.
async fn carry(redis: &Redis, name: &str, append: &Append) -> (Outcome, Vec<Refusal>) {
    let metrics = redis.metrics();
    let done = match redis.append_raw(name, append).await {
        Ok(done) => done,
        Err(why) => {
            metrics.ingest_append(AppendOutcome::Error);
            tracing::debug!(%why, "an append failed; it is tried again");
            return (Outcome::Unknown, Vec::new());
        }
    };
    metrics.ingest_append(match done.outcome {
        Outcome::Logged(_) => AppendOutcome::Ok,
        Outcome::Stale => AppendOutcome::Stale,
        Outcome::Wait => AppendOutcome::Wait,
        Outcome::Hole => AppendOutcome::Hole,
        Outcome::Diverged => AppendOutcome::Diverged,
        Outcome::Unknown => AppendOutcome::Error,
    });
    match done.outcome {
        Outcome::Diverged => tracing::error!(
            "this ear and another one heard different publishes; what it owes is dropped"
        ),
        Outcome::Stale => metrics.ingest_refused(IngestRefusal::Unowned, append.items.len()),
        _ => {}
    }
    let invalid = append.items.iter().filter(|(.., item)| item.is_err());
    let invalid = invalid.count().min(done.refused);
    metrics.published(Source::Raw, done.logged);
    metrics.ingest_refused(IngestRefusal::Invalid, invalid);
    metrics.ingest_refused(IngestRefusal::Log, done.refused - invalid);
    (done.outcome, done.refusals)
}
