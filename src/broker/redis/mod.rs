//! The Redis broker: the log in streams, live frames over pub/sub, each operation one atomic function.
//!
//! | key or channel | type | what |
//! |---|---|---|
//! | `tidegate:meta` | hash | `partitions`, written once |
//! | `tidegate:{p}:clock` | hash | last id given out, `born`, run id of the process that wrote last, seams, losses, settings and rules |
//! | `tidegate:{p}:log:<topic>` | stream | `prev`, `type`, `data`, and `end` or `gap` |
//! | `tidegate:{p}:heads` | hash | topic to last id, and `end` |
//! | `tidegate:{p}:gaps` | hash | topic to the gaps that its log tells of: `from,lost`, the newest last |
//! | `tidegate:{p}:idem:<topic>:<key>` | string | id, with expiry; of a topic with a colon `idem::<bytes>:<topic>:<key>` |
//! | `tidegate:{p}:ingest` | hash | epochs and positions of ingest, and of the inbox |
//! | `tidegate:{p}:live:<topic>`, `tidegate:{p}:tick` | pub/sub | frames, ticks |
//! | `tidegate:ingest` | pub/sub | `start` and `done` among the ears |
//! | `tidegate:inbox` | stream | XADD ingestion |
//! | `tidegate:replicas`, `tidegate:subscribers:<replica>` | hash | heartbeats |
//! | `tidegate:libraries` | hash | function library to when a replica has used it last |
//!
//! `p` is the partition's number.
//!
//! | file | what |
//! |---|---|
//! | `access` | how a server is reached: addresses, users, TLS |
//! | `node` | one server: pools for commands, and the `lane` on which publishes go together |
//! | `master`, `sentinel` | which server is asked, and what is done when it changes |
//! | `error` | what a failure is, from what Redis says |
//! | `library`, `functions` | the Lua sources; loading, calling and removing them |
//! | `log`, `ingest` | what is asked: operations of the log; epochs, appends and the inbox |
//! | `live`, `pubsub` | the connection that hears, on its own so that Redis dropping a slow subscriber takes no command along |
//! | `decode` | reading answers, entries and frames |

mod access;
pub(crate) mod decode;
mod error;
mod functions;
mod ingest;
mod lane;
mod library;
mod live;
mod log;
mod master;
mod node;
mod pubsub;
mod sentinel;

pub use access::{Access, Identity};
pub(crate) use functions::code_of;
pub(crate) use library::words as library_words;
pub use live::run as run_live;
pub use pubsub::{PubSub, Push};
pub use sentinel::follow_master;

use super::{BrokerError, LivePath, Retention};
use crate::metrics::Metrics;
use crate::swap::Swap;
use crate::topic::PartitionNo;
use library::Library;
use node::Node;
use redis::AsyncConnectionConfig;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// How Redis is reached and used.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it is, and who we are to it.
    pub access: Access,
    /// Begins every key, channel and function.
    pub prefix: String,
    /// Ordering domains.
    pub partitions: PartitionNo,
    /// Command connections.
    pub pool_size: usize,
    /// Time for a connection to stand.
    pub connect_timeout: Duration,
    /// Time for a command's answer.
    pub command_timeout: Duration,
    /// Longest pause between attempts.
    pub backoff_max: Duration,
    /// Bytes of pushes that may wait.
    pub live_queue_bytes: usize,
    /// Run although keys may be evicted.
    pub allow_eviction: bool,
    /// This replica's name.
    pub replica: String,
    /// What the log keeps.
    pub retention: Retention,
    /// Replicas of Redis that must have what is published before it is answered; 0 for none.
    pub wait_replicas: usize,
    /// Time for them to confirm it.
    pub wait_timeout: Duration,
}

impl Settings {
    /// For how long bytes may stay unacknowledged.
    fn silence(&self) -> Duration {
        self.command_timeout * 4
    }

    /// How a connection is made whose commands are answered within `response`.
    fn connection(&self, response: Duration) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(response))
    }
}

/// Live events that may wait for the hub; the bound in bytes is `live_queue_bytes`.
const LIVE_QUEUE: usize = 8192;

/// A log in Redis. Cloning shares its connections.
#[derive(Clone, Debug)]
pub struct Redis(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// None until sentinels have named one.
    master: watch::Sender<Option<Arc<Node>>>,
    /// Told when a command fails: the master may be another one.
    doubts: watch::Sender<()>,
    settings: Arc<Settings>,
    /// What the log keeps now.
    retention: Swap<Retention>,
    library: Library,
    metrics: Arc<Metrics>,
    /// This server was found fit for these settings, and not found unfit since.
    prepared: AtomicBool,
    /// What Redis refused, and when that was said last.
    refused: Mutex<HashMap<String, Instant>>,
    /// When libraries that nobody uses are looked for again.
    tidy_at: Mutex<Instant>,
}

impl Redis {
    /// Prepares the ways there; connects to nothing yet.
    ///
    /// # Errors
    /// A sentence, if the URL cannot be used.
    pub fn open(settings: Settings, metrics: Arc<Metrics>) -> Result<Self, String> {
        let settings = Arc::new(settings);
        let server = settings.access.server(settings.silence());
        let master = server.map(|info| Node::new(info, &settings)).transpose()?;
        let library = Library::new(&settings.prefix);
        Ok(Self(Arc::new(Shared {
            master: watch::Sender::new(master.map(Arc::new)),
            doubts: watch::Sender::new(()),
            retention: Swap::new(settings.retention.clone()),
            settings,
            library,
            metrics,
            prepared: AtomicBool::new(false),
            refused: Mutex::default(),
            tidy_at: Mutex::new(Instant::now()),
        })))
    }

    /// The ends of a live path, and what [`run_live`] needs to keep it going.
    #[must_use]
    pub fn live_path() -> (
        LivePath,
        mpsc::Sender<super::Live>,
        mpsc::Receiver<super::Interest>,
    ) {
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
    fn key(&self, tail: &str) -> String {
        format!("{}:{tail}", self.settings().prefix)
    }

    pub(super) fn partitions(&self) -> PartitionNo {
        self.settings().partitions
    }

    /// What to say of an answer that is none of the functions'.
    fn unreadable(&self) -> BrokerError {
        self.0.metrics.unreadable.inc();
        BrokerError::Refused("the answer cannot be read".into())
    }
}
