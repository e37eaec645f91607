//! The live path: one connection that carries the frames of all topics that are wanted here.
//!
//! It reconnects for ever, with back-off and jitter, and subscribes again to everything in
//! batches. What was missed meanwhile is not its concern: it says [`Live::Down`], then
//! [`Live::Confirmed`] for each batch, and the follower reads the log.
//!
//! | a session | ends when | what follows |
//! |---|---|---|
//! | is opened: library, connection, run id, ticks | any of it fails | a pause, another try |
//! | stands: [`Live::Up`], then everything wanted is subscribed | a push says so (closed, silent, too much waits, another master), a subscription fails, [`Interest::Reset`] | [`Live::Down`], a pause, another one |
//! | stands | the other end is dropped | the task ends |
//!
//! Its future may be dropped at any point (at a stop): the connection goes with it, and with it all
//! that Redis knows of this replica's subscriptions.

use super::error::CommandError;
use super::outage::Outage;
use super::pubsub::{PubSub, Push};
use super::{Redis, decode};
use crate::broker::{BrokerError, Interest, Live, Subscriptions};
use crate::metrics::Role;
use crate::topic::{PartitionNo, Topic};
use redis::aio::MultiplexedConnection;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Channels of one SUBSCRIBE.
const BATCH: usize = 256;
/// Pushes passed on in a row. Then what is wanted has its turn, however many wait.
const PUSHES: usize = 256;
/// The first pause before a reconnect; it doubles up to `redis.backoff_max`.
const BACKOFF_MIN: Duration = Duration::from_millis(20);

/// Keeps the live path going until the other end is dropped.
pub async fn run(redis: Redis, live: mpsc::Sender<Live>, mut wanted: mpsc::Receiver<Interest>) {
    let mut topics = Subscriptions::default();
    let mut pause = BACKOFF_MIN;
    let mut first = true;
    let mut outage = Outage::default();
    loop {
        let mut failed = None;
        match Session::open(&redis).await {
            Ok(mut session) => {
                if !std::mem::take(&mut first) {
                    redis.metrics().redis_reconnected(Role::Live);
                }
                let began = Instant::now();
                outage.over();
                redis.metrics().redis_up(Role::Live, true);
                tracing::info!("the live path stands");
                let ended = session.run(&redis, &live, &mut wanted, &mut topics).await;
                redis.metrics().redis_up(Role::Live, false);
                if ended == Ended::Stopped || live.send(Live::Down).await.is_err() {
                    return;
                }
                // A subscription that is refused ends every session at once.
                if began.elapsed() > redis.settings().backoff_max {
                    pause = BACKOFF_MIN;
                }
                tracing::warn!("the live path broke; it is made again");
            }
            Err(why) => {
                redis.count_error(Role::Live, &why);
                failed = Some(why);
            }
        }
        let nap = pause.mul_f64(rand::random_range(0.5..1.0));
        if let Some(why) = failed.map(|why| why.to_string())
            && let Some(left_out) = outage.may_say(&why, Instant::now())
        {
            tracing::warn!(why, left_out, "no live path to Redis; trying again");
        }
        pause = (pause * 2).min(redis.settings().backoff_max.max(BACKOFF_MIN));
        if !rest(nap, &mut wanted, &mut topics).await {
            return;
        }
    }
}

/// Waits, and keeps account of what is wanted meanwhile. False when nobody wants anything any more.
async fn rest(
    nap: Duration,
    wanted: &mut mpsc::Receiver<Interest>,
    topics: &mut Subscriptions,
) -> bool {
    let until = Instant::now() + nap;
    while let Ok(interest) = tokio::time::timeout_at(until, wanted.recv()).await {
        match interest {
            Some(Interest::Add(added)) => topics.want(added),
            Some(Interest::Remove(removed)) => topics.give_up(&removed),
            Some(Interest::Reset) => {}
            None => return false,
        }
    }
    true
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Lost,
    Stopped,
}

/// One connection's life.
struct Session {
    pubsub: PubSub,
    run: Box<str>,
    /// Orders that the clerk has no hand free for: no more than the topics need.
    waiting: VecDeque<Order>,
    orders: mpsc::Sender<Order>,
    clerk: JoinSet<()>,
}

/// A command for the connection. They are sent one after the other, so a topic's order is kept.
enum Order {
    Subscribe(Vec<String>),
    Unsubscribe(Vec<String>),
}

impl Session {
    async fn open(redis: &Redis) -> Result<Self, BrokerError> {
        // Each time: it may be another server than before, or an emptied one.
        redis.prepare().await?;
        let mut pubsub = redis.subscribe_connection().await?;
        let run = redis.run_of(&mut pubsub).await?;
        // Whoever is told that this connection stands may say the clock at once, and will hear it.
        let ticks: Vec<String> = (0..redis.partitions())
            .map(|p| redis.key(&format!("{{{p}}}:tick")))
            .collect();
        pubsub.subscribe(ticks).await?;
        let (orders, queue) = mpsc::channel(1);
        let mut clerk = JoinSet::new();
        clerk.spawn(carry_out(pubsub.commands.clone(), queue));
        Ok(Self {
            pubsub,
            run,
            waiting: VecDeque::new(),
            orders,
            clerk,
        })
    }

    async fn run(
        &mut self,
        redis: &Redis,
        live: &mpsc::Sender<Live>,
        wanted: &mut mpsc::Receiver<Interest>,
        topics: &mut Subscriptions,
    ) -> Ended {
        if live
            .send(Live::Up {
                run: self.run.clone(),
            })
            .await
            .is_err()
        {
            return Ended::Stopped;
        }
        // What became wanted or was given up since the last connection is in here, and in no order.
        let all = topics.begin_connection();
        self.subscribe(redis, topics, &all);
        let orders = self.orders.clone();
        loop {
            tokio::select! {
                // All have their turn: pushes that never end would keep topics from being subscribed,
                // and a path that must begin anew from ending.
                push = self.pubsub.recv() => match self.hear(redis, live, topics, push).await {
                    None => {}
                    Some(ended) => return ended,
                },
                interest = wanted.recv() => match interest {
                    Some(Interest::Add(added)) => {
                        let names: Vec<Topic> =
                            added.iter().map(|(topic, _)| topic.clone()).collect();
                        topics.want(added);
                        self.subscribe(redis, topics, &names);
                    }
                    Some(Interest::Remove(removed)) => {
                        // Frames of these may come until Redis has read it; the follower knows them
                        // no more and passes over them.
                        topics.give_up(&removed);
                        for batch in removed.chunks(BATCH) {
                            let channels = batch.iter().map(|topic| redis.live_channel(topic)).collect();
                            self.waiting.push_back(Order::Unsubscribe(channels));
                        }
                    }
                    Some(Interest::Reset) => return Ended::Lost,
                    None => return Ended::Stopped,
                },
                room = orders.reserve(), if !self.waiting.is_empty() => {
                    if let (Ok(room), Some(order)) = (room, self.waiting.pop_front()) {
                        room.send(order);
                    }
                }
                // It ends only when a subscription has failed: nobody would hear those topics.
                _ = self.clerk.join_next() => return Ended::Lost,
            }
        }
    }

    fn subscribe(&mut self, redis: &Redis, topics: &mut Subscriptions, names: &[Topic]) {
        for batch in names.chunks(BATCH) {
            for topic in batch {
                topics.subscribing(topic);
            }
            let channels = batch
                .iter()
                .map(|topic| redis.live_channel(topic))
                .collect();
            self.waiting.push_back(Order::Subscribe(channels));
        }
    }

    /// Passes on one push and those that wait behind it. Confirmations are gathered, and told before
    /// the first frame behind them: from there on the follower may take a frame for the next one.
    ///
    /// It waits while the hub's queue is full. Pushes gather behind `redis.live_queue_bytes` meanwhile;
    /// what is wanted waits, too, and nothing is lost of it.
    async fn hear(
        &mut self,
        redis: &Redis,
        live: &mpsc::Sender<Live>,
        topics: &mut Subscriptions,
        first: Push,
    ) -> Option<Ended> {
        let more = std::iter::from_fn(|| self.pubsub.try_recv());
        let mut confirmed = Vec::new();
        for push in std::iter::once(first).chain(more).take(PUSHES) {
            match push {
                Push::Subscribed(channel) => {
                    if let Some(Heard::Live(topic)) = redis.channel(&channel) {
                        confirmed.extend(topics.confirm(topic));
                    }
                }
                Push::Message {
                    channel, payload, ..
                } => {
                    if flush(live, &mut confirmed).await.is_err()
                        || pass(redis, live, &channel, &payload).await.is_err()
                    {
                        return Some(Ended::Stopped);
                    }
                }
                Push::Lost { overflow } => {
                    redis.metrics().live_overflows.inc_by(u64::from(overflow));
                    return Some(Ended::Lost);
                }
            }
        }
        flush(live, &mut confirmed)
            .await
            .is_err()
            .then_some(Ended::Stopped)
    }
}

async fn flush(
    live: &mpsc::Sender<Live>,
    confirmed: &mut Vec<(Topic, u64)>,
) -> Result<(), mpsc::error::SendError<Live>> {
    if confirmed.is_empty() {
        return Ok(());
    }
    live.send(Live::Confirmed(std::mem::take(confirmed))).await
}

async fn pass(
    redis: &Redis,
    live: &mpsc::Sender<Live>,
    channel: &[u8],
    payload: &[u8],
) -> Result<(), mpsc::error::SendError<Live>> {
    match redis.channel(channel) {
        Some(Heard::Live(topic)) => {
            if let Ok(frame) = decode::live(&topic, payload) {
                live.send(Live::Frame(topic, frame)).await
            } else {
                redis.metrics().unreadable.inc();
                live.send(Live::Unreadable(topic)).await
            }
        }
        Some(Heard::Tick(partition)) => {
            if let Some(tick) = decode::tick(payload) {
                live.send(Live::Tick(partition, tick)).await
            } else {
                redis.metrics().unreadable.inc();
                Ok(())
            }
        }
        None => Ok(()),
    }
}

/// The clerk: sends orders one by one, each when the last was answered, so that the session need not
/// wait for them.
async fn carry_out(mut commands: MultiplexedConnection, mut orders: mpsc::Receiver<Order>) {
    while let Some(order) = orders.recv().await {
        let done = match order {
            Order::Subscribe(channels) => commands.subscribe(channels).await,
            Order::Unsubscribe(channels) => commands.unsubscribe(channels).await,
        };
        if let Err(why) = done {
            let why = BrokerError::from(CommandError::from(why));
            tracing::warn!(%why, "a subscription failed");
            return;
        }
    }
}

/// What a channel carries.
enum Heard {
    Live(Topic),
    Tick(PartitionNo),
}

impl Redis {
    /// The channel of a topic's live frames.
    fn live_channel(&self, topic: &Topic) -> String {
        self.key(&format!(
            "{{{}}}:live:{topic}",
            topic.partition(self.partitions())
        ))
    }

    fn channel(&self, channel: &[u8]) -> Option<Heard> {
        let rest = std::str::from_utf8(channel)
            .ok()?
            .strip_prefix(self.settings().prefix.as_str())?;
        let (partition, kind) = rest.strip_prefix(":{")?.split_once("}:")?;
        match kind.strip_prefix("live:") {
            Some(topic) => Some(Heard::Live(Topic::parse(topic).ok()?)),
            None => (kind == "tick").then_some(Heard::Tick(partition.parse().ok()?)),
        }
    }
}
