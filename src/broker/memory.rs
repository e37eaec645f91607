//! The memory broker: a [`Ledger`] in this process. One replica, nothing to install.

use super::denials::{DenialKind, DenialPage, Denials};
use super::tickets::Tickets;
use super::{
    BrokerError, Fleet, Interest, Ledger, Live, LivePath, NewTicket, Publication, PutTicket,
    Retention, TopicState,
};
use crate::id::Id;
use crate::log::{ClockName, Followed, History, ReadRequest, Reading};
use crate::sse::Frame;
use crate::topic::{PartitionNo, Topic};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// Frames under way between a publisher and the hub; a publisher waits when it is full.
const LIVE_QUEUE: usize = 1024;

/// A log that lives and dies with this process.
#[derive(Debug)]
pub struct Memory {
    ledger: Mutex<Ledger>,
    live: mpsc::Sender<Live>,
    denials: Mutex<Denials>,
    tickets: Mutex<Tickets>,
}

impl Memory {
    /// An empty log, and its live path.
    ///
    /// The returned future answers what the replica asks of the live path: every topic is heard
    /// at once. It ends when the other end is dropped.
    pub fn open(
        retention: Retention,
    ) -> (Self, LivePath, impl Future<Output = ()> + Send + 'static) {
        let (live, events) = mpsc::channel(LIVE_QUEUE);
        let (interest, wanted) = mpsc::channel(LIVE_QUEUE);
        let ledger = Mutex::new(Ledger::new(retention, now_ms()));
        let answers = confirm_all(wanted, live.clone());
        (
            Self {
                ledger,
                live,
                denials: Mutex::default(),
                tickets: Mutex::default(),
            },
            LivePath { events, interest },
            answers,
        )
    }

    /// Keeps other bounds from now on.
    pub(super) fn retain(&self, retention: Retention) {
        self.ledger().configure(retention, now_ms());
    }

    fn denials(&self) -> MutexGuard<'_, Denials> {
        self.denials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(
        clippy::unused_async,
        reason = "the same shape as the broker that has to wait"
    )]
    pub(super) async fn deny(
        &self,
        kind: DenialKind,
        text: &str,
        keep_ms: u64,
        most: usize,
    ) -> Result<u64, BrokerError> {
        self.denials().deny(kind, text, keep_ms, most, now_ms())
    }

    #[expect(
        clippy::unused_async,
        reason = "the same shape as the broker that has to wait"
    )]
    pub(super) async fn denied(&self, since: u64) -> Result<DenialPage, BrokerError> {
        Ok(self.denials().since(since, now_ms()))
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tickets(&self) -> MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room in the live queue is taken before the lock, so that frames leave in the order of ids.
    async fn room(&self, frames: usize) -> Result<mpsc::PermitIterator<'_, Live>, BrokerError> {
        self.live
            .reserve_many(frames)
            .await
            .map_err(|_| BrokerError::Unavailable("shutting down".into()))
    }

    pub(super) async fn publish(
        &self,
        batch: &[Publication],
    ) -> Result<Vec<Option<Id>>, BrokerError> {
        let mut all = Vec::with_capacity(batch.len());
        if batch.len() <= LIVE_QUEUE {
            let room = self.room(batch.len()).await?;
            let mut ledger = self.ledger();
            let (ids, frames) = ledger.publish(batch, now_ms())?;
            send(room, frames);
            all.extend(ids);
            return Ok(all);
        }
        Err(BrokerError::Refused(format!(
            "a batch has at most {LIVE_QUEUE} events"
        )))
    }

    pub(super) async fn delete(&self, topic: &Topic) -> Result<Option<Id>, BrokerError> {
        let room = self.room(1).await?;
        let mut ledger = self.ledger();
        let deleted = ledger.delete(topic, now_ms());
        let id = deleted.as_ref().map(|frame| frame.id);
        send(room, deleted.map(|frame| (topic.clone(), frame)));
        Ok(id)
    }

    pub(super) async fn tick(&self, _: PartitionNo) -> Result<Id, BrokerError> {
        let mut room = self.room(1).await?;
        let mut ledger = self.ledger();
        let tick = ledger.tick(now_ms());
        if let Some(place) = room.next() {
            place.send(Live::Tick(0, tick));
        }
        Ok(tick.id)
    }

    #[expect(
        clippy::unused_async,
        reason = "the same shape as the broker that has to wait"
    )]
    pub(super) async fn read(
        &self,
        _: PartitionNo,
        requests: &[ReadRequest],
    ) -> Result<Reading, BrokerError> {
        Ok(self.ledger().read(requests, now_ms()))
    }

    #[expect(
        clippy::unused_async,
        reason = "the same shape as the broker that has to wait"
    )]
    pub(super) async fn history(
        &self,
        topics: &[Topic],
        history: History,
    ) -> Result<Vec<(PartitionNo, Id)>, BrokerError> {
        Ok(vec![(0, self.ledger().history(topics, history, now_ms()))])
    }

    #[expect(
        clippy::unused_async,
        reason = "the same shape as the broker that has to wait"
    )]
    pub(super) async fn report(
        &self,
        _: PartitionNo,
        _: Followed,
        _: &[(Topic, Id)],
    ) -> Result<ClockName, BrokerError> {
        Ok(self.ledger().name())
    }

    #[expect(
        clippy::unused_async,
        reason = "the same shape as the broker that has to wait"
    )]
    pub(super) async fn topics(
        &self,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Topic>, BrokerError> {
        Ok(self.ledger().topics(after, limit, now_ms()))
    }

    #[expect(
        clippy::unused_async,
        reason = "the same shape as the broker that has to wait"
    )]
    pub(super) async fn topics_count(&self) -> Result<usize, BrokerError> {
        Ok(self.ledger().topics_count())
    }

    #[expect(
        clippy::unused_async,
        reason = "the same shape as the broker that has to wait"
    )]
    pub(super) async fn topic(&self, topic: &Topic) -> Result<Option<TopicState>, BrokerError> {
        Ok(self.ledger().topic(topic, now_ms()))
    }

    #[expect(
        clippy::unused_async,
        reason = "the same shape as the broker that has to wait"
    )]
    pub(super) async fn heartbeat(
        &self,
        _: u64,
        _: &[(Topic, u64)],
        _: bool,
    ) -> Result<Fleet, BrokerError> {
        Ok(Fleet::default())
    }

    #[expect(
        clippy::unused_async,
        reason = "the same shape as the broker that has to wait"
    )]
    pub(super) async fn put_ticket(
        &self,
        ticket: &NewTicket<'_>,
    ) -> Result<PutTicket, BrokerError> {
        Ok(self.tickets().put(ticket, now_ms()))
    }

    #[expect(
        clippy::unused_async,
        reason = "the same shape as the broker that has to wait"
    )]
    pub(super) async fn ticket(&self, name: &str) -> Result<Option<Vec<u8>>, BrokerError> {
        Ok(self.tickets().get(name, now_ms()))
    }

    #[expect(
        clippy::unused_async,
        reason = "the same shape as the broker that has to wait"
    )]
    pub(super) async fn take_ticket(&self, name: &str, _: &str) -> Result<bool, BrokerError> {
        Ok(self.tickets().take(name, now_ms()))
    }

    #[expect(
        clippy::unused_self,
        reason = "the same shape as the broker that can have several"
    )]
    pub(super) fn partitions(&self) -> PartitionNo {
        1
    }
}

fn send(room: mpsc::PermitIterator<'_, Live>, frames: impl IntoIterator<Item = (Topic, Frame)>) {
    for (place, (topic, frame)) in room.zip(frames) {
        place.send(Live::Frame(topic, frame));
    }
}

async fn confirm_all(mut wanted: mpsc::Receiver<Interest>, live: mpsc::Sender<Live>) {
    if live.send(Live::Up { run: "0".into() }).await.is_err() {
        return;
    }
    while let Some(interest) = wanted.recv().await {
        let Interest::Add(topics) = interest else {
            continue;
        };
        if live.send(Live::Confirmed(topics)).await.is_err() {
            return;
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
