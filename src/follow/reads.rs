//! Reads of the log for streams that are behind their window.
//!
//! Streams that want the same pages share one read, reads at the same time are bounded, and a read
//! that fails is tried again for as long as somebody waits: streams outlive an outage of Redis.

use crate::broker::Broker;
use crate::hub::Hub;
use crate::id::Id;
use crate::log::{History, ReadRequest, Reading};
use crate::metrics::Metrics;
use crate::topic::{PartitionNo, Topic};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

type Key = (PartitionNo, Vec<ReadRequest>);
type Answer = watch::Sender<Option<Arc<Reading>>>;

/// Shared reads. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Reads(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    hub: Arc<Hub>,
    broker: Arc<Broker>,
    metrics: Arc<Metrics>,
    tracker: TaskTracker,
    places: Semaphore,
    places_max: Mutex<usize>,
    under_way: Mutex<HashMap<Key, UnderWay>>,
}

#[derive(Debug)]
struct UnderWay {
    answer: Answer,
    /// It may have been asked of the log already.
    begun: bool,
}

/// Pause after a failed read, at most.
const PAUSE_MAX: Duration = Duration::from_millis(500);

impl Reads {
    /// At most `places` reads at the same time; their tasks belong to `tracker`.
    #[must_use]
    pub fn new(
        hub: Arc<Hub>,
        broker: Arc<Broker>,
        metrics: Arc<Metrics>,
        tracker: TaskTracker,
        places: usize,
    ) -> Self {
        Self(Arc::new(Shared {
            hub,
            broker,
            metrics,
            tracker,
            places: Semaphore::new(places),
            places_max: Mutex::new(places),
            under_way: Mutex::default(),
        }))
    }

    /// Another number of reads at the same time. Those that are under way go on.
    pub fn set_places(&self, places: usize) {
        let shared = self.0.clone();
        let had = {
            let mut most = shared
                .places_max
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *most, places)
        };
        shared.places.add_permits(places.saturating_sub(had));
        let fewer = had.saturating_sub(places);
        let busy = fewer - shared.places.forget_permits(fewer);
        if let (1.., Ok(busy)) = (busy, u32::try_from(busy)) {
            self.0.tracker.spawn(async move {
                if let Ok(places) = shared.places.acquire_many(busy).await {
                    places.forget();
                }
            });
        }
    }

    /// Reads pages, or only the clock if nothing is requested. The hub learns of both.
    ///
    /// The clock is read after this was called: who asks for it has a cursor to compare with it,
    /// which may be newer than a read that was under way. A page may be any that is under way; what
    /// it lacks is read next.
    ///
    /// # Cancel safety
    /// Safe: a read that nobody waits for any more ends.
    pub async fn pages(&self, partition: PartitionNo, requests: Vec<ReadRequest>) -> Arc<Reading> {
        loop {
            let (mut answer, begun) = self.join((partition, requests.clone()));
            if let Ok(reading) = answer.wait_for(Option::is_some).await
                && let Some(reading) = reading.as_ref()
                && !(begun && requests.is_empty())
            {
                return reading.clone();
            }
            // Too old, or the reader went away (it saw nobody waiting a moment ago): read anew.
        }
    }

    /// Where the history that a first visit asks for begins.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn history(&self, partition: PartitionNo, topics: &[Topic], history: History) -> Id {
        let mut pause = Pause::default();
        loop {
            let place = self.0.places.acquire().await;
            let found = self.0.broker.history(partition, topics, history).await;
            drop(place);
            match found {
                Ok(id) => return id,
                Err(why) => pause.after(&why).await,
            }
        }
    }

    /// The answer to come, and whether the read had begun before.
    fn join(&self, key: Key) -> (watch::Receiver<Option<Arc<Reading>>>, bool) {
        let mut under_way = self.0.lock();
        if let Some(read) = under_way.get(&key) {
            return (read.answer.subscribe(), read.begun);
        }
        let answer: Answer = watch::Sender::new(None);
        let receiver = answer.subscribe();
        let begun = false;
        under_way.insert(key.clone(), UnderWay { answer, begun });
        self.0.tracker.spawn(read(self.0.clone(), key));
        (receiver, begun)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, UnderWay>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the entry if nobody waits for it.
    fn is_abandoned(&self, key: &Key) -> bool {
        let mut under_way = self.lock();
        let abandoned = under_way
            .get(key)
            .is_none_or(|read| read.answer.receiver_count() == 0);
        if abandoned {
            under_way.remove(key);
        }
        abandoned
    }

    fn begin(&self, key: &Key) {
        if let Some(read) = self.lock().get_mut(key) {
            read.begun = true;
        }
    }
}

async fn read(shared: Arc<Shared>, key: Key) {
    let mut pause = Pause::default();
    while !shared.is_abandoned(&key) {
        let place = shared.places.acquire().await;
        shared.begin(&key);
        let answer = shared.broker.read(key.0, &key.1).await;
        drop(place);
        match answer {
            Ok(reading) => {
                shared.metrics.log_reads.inc_by(reading.pages.len() as u64);
                shared.hub.learn(key.0, &reading.horizon);
                reading
                    .pages
                    .iter()
                    .for_each(|page| shared.hub.prepend(page));
                if let Some(read) = shared.lock().remove(&key) {
                    read.answer.send_replace(Some(Arc::new(reading)));
                }
                return;
            }
            Err(why) => pause.after(&why).await,
        }
    }
}

/// Waits between attempts, longer each time, with jitter.
#[derive(Debug, Default)]
pub(super) struct Pause(Duration);

impl Pause {
    pub(super) async fn after(&mut self, why: &crate::broker::BrokerError) {
        tracing::debug!(%why, "a read of the log failed; trying again");
        self.0 = (self.0 * 2).clamp(Duration::from_millis(20), PAUSE_MAX);
        let nap = self.0.mul_f64(rand::random_range(0.5..1.0));
        tokio::time::sleep(nap).await;
    }
}
