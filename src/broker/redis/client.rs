//! A log in Redis: what its operations share.

use super::access::Access;
use super::library::Library;
use super::node::Node;
use super::settings::Settings;
use crate::broker::{BrokerError, Interest, Live, LivePath, Retention};
use crate::metrics::Metrics;
use crate::swap::Swap;
use crate::topic::PartitionNo;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

/// Live events that may wait for the hub; the bound in bytes is `live_queue_bytes`.
const LIVE_QUEUE: usize = 8192;
/// Calls under way that may take the server a millisecond each. Redis does one after the other: a publish waits for all
/// that came before it. With one alone, a reply that is lost would hold up all others for `redis.command_timeout`.
const LONG_CALLS: usize = 2;

/// A log in Redis. Cloning shares its connections.
#[derive(Clone, Debug)]
pub struct Redis(pub(super) Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    /// How it is reached now.
    pub(super) access: watch::Sender<Arc<Access>>,
    /// How it shall be reached; not yet tried, or it does not work.
    pub(super) wanted: watch::Sender<Arc<Access>>,
    /// None until sentinels have named one.
    pub(super) master: watch::Sender<Option<Arc<Node>>>,
    /// Told when a command fails: the master may be another one.
    pub(super) doubts: watch::Sender<()>,
    pub(super) settings: Arc<Settings>,
    /// What the log keeps now.
    pub(super) retention: Swap<Retention>,
    pub(super) library: Library,
    pub(super) metrics: Arc<Metrics>,
    /// This server was found fit for these settings, and not found unfit since.
    pub(super) prepared: AtomicBool,
    /// What Redis refused, and when that was said last.
    pub(super) refused: Mutex<HashMap<String, Instant>>,
    /// Until when commands count as refused, whatever else succeeds.
    pub(super) refused_until: Mutex<Option<Instant>>,
    /// Who asks for much of the log takes turns, [`LONG_CALLS`] at a time.
    pub(super) long_calls: Semaphore,
    /// When libraries that nobody uses are looked for again.
    pub(super) tidy_at: Mutex<Instant>,
}

impl Redis {
    /// Prepares the ways there; connects to nothing yet.
    ///
    /// # Errors
    /// A sentence, if the URL cannot be used.
    pub fn open(settings: Settings, metrics: Arc<Metrics>) -> Result<Self, String> {
        let settings = Arc::new(settings);
        let access = Arc::new(settings.access.clone());
        let server = access.server(settings.silence());
        let master = server
            .map(|info| Node::new(&access, info, &settings))
            .transpose()?;
        let library = Library::new(&settings.prefix);
        Ok(Self(Arc::new(Shared {
            access: watch::Sender::new(access.clone()),
            wanted: watch::Sender::new(access),
            master: watch::Sender::new(master.map(Arc::new)),
            doubts: watch::Sender::new(()),
            retention: Swap::new(settings.retention.clone()),
            settings,
            library,
            metrics,
            prepared: AtomicBool::new(false),
            refused: Mutex::default(),
            refused_until: Mutex::default(),
            long_calls: Semaphore::new(LONG_CALLS),
            tidy_at: Mutex::new(Instant::now()),
        })))
    }

    /// The ends of a live path, and what [`run_live`](super::run_live) needs to keep it going.
    #[must_use]
    pub fn live_path() -> (LivePath, mpsc::Sender<Live>, mpsc::Receiver<Interest>) {
        let (live, events) = mpsc::channel(LIVE_QUEUE);
        let (interest, wanted) = mpsc::channel(64);
        (LivePath { events, interest }, live, wanted)
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The metrics of this process.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// The key or channel of this name.
    pub(super) fn key(&self, tail: &str) -> String {
        format!("{}:{tail}", self.settings().prefix)
    }

    pub(in crate::broker) fn partitions(&self) -> PartitionNo {
        self.settings().partitions
    }

    /// What to say of an answer that is none of the functions'.
    pub(super) fn unreadable(&self) -> BrokerError {
        self.0.metrics.unreadable.inc();
        BrokerError::Refused("the answer cannot be read".into())
    }
}
