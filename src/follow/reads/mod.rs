//! Reads of the log for streams that are behind their window.
//!
//! Streams that want the same pages share one read ([`shared`]), reads at the same time are bounded and shared out
//! fairly among addresses ([`Places`]), and a read that fails is tried again for as long as somebody waits: streams outlive an outage of
//! Redis. Pages, clock and states are read only while the live path is settled. Where a history begins
//! is asked at any time: what follows from there is read as all else.
//!
//! A thread of sockets coalesces the same reads once more (`stream::sockets`): there it spares a
//! task for each stream, here a question to Redis for each thread and each body.

mod budget;
pub mod shared;

use crate::address::Network;
use crate::broker::Broker;
use crate::hub::Hub;
use crate::id::Id;
use crate::limits::places::{Place, Places, WaiterNo};
use crate::log::{History, LogRead, Reading};
use crate::metrics::Metrics;
use crate::topic::{PartitionNo, Topic};
use budget::PageBudget;
use shared::{Begun, Finished, SharedReads};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

/// Who waits for a reading, and in whose name.
#[derive(Debug)]
struct Waiter {
    answer: oneshot::Sender<Arc<Reading>>,
    name: Option<Network>,
}

/// Shared reads. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Reads(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    hub: Arc<Hub>,
    broker: Arc<Broker>,
    metrics: Arc<Metrics>,
    tracker: TaskTracker,
    /// For pages. Whoever has one may have to wait for room.
    places: Places,
    /// For what brings little, as clocks, states and lists of topics, and for streams that hold pages until they have
    /// the rest: they do not wait behind pages that wait for room.
    light_places: Places,
    budget: Arc<PageBudget>,
    under_way: Mutex<UnderWay>,
}

#[derive(Debug, Default)]
struct UnderWay {
    reads: SharedReads<Waiter>,
    /// Of those that wait for a place.
    waiter_nos: HashMap<LogRead, WaiterNo>,
}

/// Pause after a failed read, at most.
const PAUSE_MAX: Duration = Duration::from_millis(500);

impl Reads {
    /// As many reads of pages at the same time as there are places, and as many others; their tasks belong to
    /// `tracker`. With `page_bytes_max` bytes of pages in memory, or on their way there, further ones wait.
    #[must_use]
    pub fn new(
        hub: Arc<Hub>,
        broker: Arc<Broker>,
        metrics: Arc<Metrics>,
        tracker: TaskTracker,
        [places, light_places]: [Places; 2],
        page_bytes_max: usize,
    ) -> Self {
        let budget = Arc::new(PageBudget::new(metrics.clone(), page_bytes_max));
        Self(Arc::new(Shared {
            hub,
            broker,
            metrics,
            tracker,
            places,
            light_places,
            budget,
            under_way: Mutex::default(),
        }))
    }

    /// Another bound of the memory of pages.
    pub fn set_page_bytes_max(&self, bytes: usize) {
        self.0.budget.set_most(bytes);
    }

    /// Whether a read waits for room: then nobody holds pages that its client does not take.
    #[must_use]
    pub fn is_short_of_room(&self) -> bool {
        self.0.budget.is_short()
    }

    /// Waits until a read has begun to wait for room since the last call.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn room_wanted(&self) {
        self.0.budget.wanted().await;
    }

    /// Other numbers of reads at the same time, in all and of one address. Those that are under way go on.
    pub fn set_places(&self, most: usize, each_max: usize) {
        self.0.places.set_most(most, each_max);
        self.0.light_places.set_most(most, each_max);
    }

    /// Reads pages, the clock or the state of topics, in the name of an address if it is known. The hub has learnt of
    /// the answer when it comes.
    ///
    /// # Cancel safety
    /// Safe: a read that nobody waits for any more is not asked of the log again.
    pub async fn read(&self, read: LogRead, name: Option<Network>) -> Arc<Reading> {
        loop {
            let (answer, reading) = oneshot::channel();
            if self.0.join(&read, Waiter { answer, name }) {
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

    /// A place to ask the log one thing that is shared with nobody, in the name of an address if it is known.
    /// None if this process ends.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn place(&self, name: Option<Network>) -> Option<Place> {
        self.0.light_places.wait([name]).place().await
    }

    /// Where the history that a first visit asks for begins, in each partition of its topics.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn history(
        &self,
        topics: &[Topic],
        history: History,
        name: Option<Network>,
    ) -> Vec<(PartitionNo, Id)> {
        let mut pause = Pause::default();
        loop {
            let place = self.place(name).await;
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
    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn places_of(&self, read: &LogRead) -> &Places {
        match read {
            LogRead::Pages(..) => &self.places,
            LogRead::Clock(..) | LogRead::State(..) | LogRead::Rest(..) => &self.light_places,
        }
    }

    /// As [`SharedReads::join`]. While the read waits for a place, it does so in the new name, too: nobody waits behind
    /// all that another address wants because it was the first to want this.
    fn join(&self, read: &LogRead, waiter: Waiter) -> bool {
        let name = waiter.name;
        let mut under_way = self.lock();
        let begins = under_way.reads.join(read.clone(), waiter);
        if let Some(waiter_no) = under_way.waiter_nos.get(read) {
            self.places_of(read).wait_also(*waiter_no, name);
        }
        begins
    }

    /// A place for this read, in the names of all who wait for it.
    async fn place(&self, read: &LogRead) -> Option<Place> {
        let queued = {
            let mut under_way = self.lock();
            let names = under_way.reads.waiting(read).map(|waiter| waiter.name);
            let queued = self.places_of(read).wait(names);
            under_way
                .waiter_nos
                .insert(read.clone(), queued.waiter_no());
            queued
        };
        let place = queued.place().await;
        self.lock().waiter_nos.remove(read);
        place
    }
}

/// Takes a read back that is not finished when its task ends: by a panic, or with the process. Left
/// where it is, everybody who wants the same would wait for it for ever.
struct Carried {
    shared: Arc<Shared>,
    read: LogRead,
    is_over: bool,
}

impl Drop for Carried {
    fn drop(&mut self) {
        if !self.is_over {
            let mut under_way = self.shared.lock();
            under_way.waiter_nos.remove(&self.read);
            under_way.reads.abandon(&self.read);
        }
    }
}

async fn carry_out(shared: Arc<Shared>, read: LogRead) {
    let mut carried = Carried {
        shared: shared.clone(),
        read: read.clone(),
        is_over: false,
    };
    let mut pause = Pause::default();
    loop {
        let place = shared.place(&read).await;
        // With the place: whose turn it is among addresses goes for room as well.
        let room = match &read {
            LogRead::Pages(_, requests) => shared.budget.room(requests.len()).await,
            LogRead::Rest(_, requests) => shared.budget.take(requests.len()),
            LogRead::Clock(_) | LogRead::State(..) => None,
        };
        let waits = |waiter: &Waiter| !waiter.answer.is_closed();
        let begun = shared.lock().reads.begin(&read, &shared.hub, waits);
        match begun {
            Begun::Ask => {}
            Begun::Wait => {
                drop((place, room));
                // Looks from time to time whether somebody waits at all: in an outage visitors come
                // and go, each with a read of its own.
                let settled = shared.hub.settled(read.partition());
                drop(tokio::time::timeout(PAUSE_MAX, settled).await);
                continue;
            }
            Begun::Off => {
                carried.is_over = true;
                return;
            }
        }
        let answer = shared
            .broker
            .replay(read.partition(), read.requests())
            .await;
        drop(place);
        let mut reading = match answer {
            Ok(reading) => reading,
            Err(why) => {
                drop(room);
                pause.after(&why).await;
                continue;
            }
        };
        shared.metrics.log_reads.inc_by(reading.pages.len() as u64);
        let finished = shared.lock().reads.finish(&read, &mut reading, &shared.hub);
        // From here on the read may be another task's.
        let served = match finished {
            Finished::Done(served) => {
                carried.is_over = true;
                served
            }
            Finished::Again(served) => served,
        };
        let missing = read.requests().len().saturating_sub(reading.pages.len());
        shared.budget.hold(&mut reading, missing, room);
        let reading = Arc::new(reading);
        for waiter in served {
            // Whoever waited may have gone.
            drop(waiter.answer.send(reading.clone()));
        }
        if carried.is_over {
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
