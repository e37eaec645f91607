//! Reads of the log for streams that are behind their window.
//!
//! Streams that want the same pages share one read ([`shared`]), reads at the same time are bounded,
//! and a read that fails is tried again for as long as somebody waits: streams outlive an outage of
//! Redis. Pages, clock and states are read only while the live path is settled. Where a history begins
//! is asked at any time: what follows from there is read as all else.
//!
//! A thread of sockets coalesces the same reads once more (`stream::sockets`): there it spares a
//! task for each stream, here a question to Redis for each thread and each body.

mod budget;
pub mod shared;

use crate::broker::Broker;
use crate::hub::Hub;
use crate::id::Id;
use crate::log::{History, LogRead, Reading};
use crate::metrics::Metrics;
use crate::topic::{PartitionNo, Topic};
use budget::PageBudget;
use shared::{Begun, Finished, SharedReads};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::task::TaskTracker;

type Waiter = oneshot::Sender<Arc<Reading>>;

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
    budget: Arc<PageBudget>,
    under_way: Mutex<SharedReads<Waiter>>,
}

/// Pause after a failed read, at most.
const PAUSE_MAX: Duration = Duration::from_millis(500);

impl Reads {
    /// At most `places` reads at the same time; their tasks belong to `tracker`. With more than
    /// `page_bytes_max` bytes of pages in memory further ones wait a little.
    #[must_use]
    pub fn new(
        hub: Arc<Hub>,
        broker: Arc<Broker>,
        metrics: Arc<Metrics>,
        tracker: TaskTracker,
        places: usize,
        page_bytes_max: usize,
    ) -> Self {
        let budget = Arc::new(PageBudget::new(metrics.clone(), page_bytes_max));
        Self(Arc::new(Shared {
            hub,
            broker,
            metrics,
            tracker,
            places: Semaphore::new(places),
            places_max: Mutex::new(places),
            budget,
            under_way: Mutex::default(),
        }))
    }

    /// Another bound of the memory of pages.
    pub fn set_page_bytes_max(&self, bytes: usize) {
        self.0.budget.set_most(bytes);
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

    /// Reads pages, the clock or the state of topics. The hub has learnt of the answer when it comes.
    ///
    /// # Cancel safety
    /// Safe: a read that nobody waits for any more is not asked of the log again.
    pub async fn read(&self, read: LogRead) -> Arc<Reading> {
        loop {
            let (answer, reading) = oneshot::channel();
            if self.0.lock().join(read.clone(), answer) {
                self.0
                    .tracker
                    .spawn(carry_out(self.0.clone(), read.clone()));
            }
            // Without an answer the task ended with the process, or panicked: asked anew.
            if let Ok(reading) = reading.await {
                return reading;
            }
        }
    }

    /// Where the history that a first visit asks for begins, in each partition of its topics.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn history(&self, topics: &[Topic], history: History) -> Vec<(PartitionNo, Id)> {
        let mut pause = Pause::default();
        loop {
            let place = self.0.places.acquire().await;
            let found = self.0.broker.history(topics, history).await;
            drop(place);
            match found {
                Ok(starts) => return starts,
                Err(why) => pause.after(&why).await,
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, SharedReads<Waiter>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a read back that is not finished when its task ends: by a panic, or with the process. Left
/// where it is, everybody who wants the same would wait for it for ever.
struct UnderWay {
    shared: Arc<Shared>,
    read: LogRead,
    is_over: bool,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.is_over {
            self.shared.lock().abandon(&self.read);
        }
    }
}

async fn carry_out(shared: Arc<Shared>, read: LogRead) {
    let mut under_way = UnderWay {
        shared: shared.clone(),
        read: read.clone(),
        is_over: false,
    };
    let mut pause = Pause::default();
    loop {
        if matches!(read, LogRead::Pages(..)) {
            shared.budget.room().await;
        }
        let place = shared.places.acquire().await;
        let waits = |waiter: &Waiter| !waiter.is_closed();
        let begun = shared.lock().begin(&read, &shared.hub, waits);
        match begun {
            Begun::Ask => {}
            Begun::Wait => {
                drop(place);
                // Looks from time to time whether somebody waits at all: in an outage visitors come
                // and go, each with a read of its own.
                let settled = shared.hub.settled(read.partition());
                drop(tokio::time::timeout(PAUSE_MAX, settled).await);
                continue;
            }
            Begun::Off => {
                under_way.is_over = true;
                return;
            }
        }
        let answer = shared.broker.read(read.partition(), read.requests()).await;
        drop(place);
        let mut reading = match answer {
            Ok(reading) => reading,
            Err(why) => {
                pause.after(&why).await;
                continue;
            }
        };
        shared.metrics.log_reads.inc_by(reading.pages.len() as u64);
        let finished = shared.lock().finish(&read, &mut reading, &shared.hub);
        // From here on the read may be another task's.
        let served = match finished {
            Finished::Done(served) => {
                under_way.is_over = true;
                served
            }
            Finished::Again(served) => served,
        };
        shared.budget.hold(&mut reading);
        let reading = Arc::new(reading);
        for waiter in served {
            // Whoever waited may have gone.
            drop(waiter.send(reading.clone()));
        }
        if under_way.is_over {
            return;
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
