//! What the handlers share.

use super::answers::Answers;
use super::intake::Intake;
use crate::address::Network;
use crate::auth::Authority;
use crate::broker::Broker;
use crate::config::{Limits, Publish};
use crate::follow::denials::Denials;
use crate::follow::reads::Reads;
use crate::hub::Hub;
use crate::limits::places::Place;
use crate::limits::{AddressLimits, Addresses};
use crate::metrics::Metrics;
use crate::stream::body::Bodies;
use crate::stream::registry::OpenStreams;
use crate::stream::settings::StreamSettings;
use crate::stream::sockets::{Sockets, Standing};
use crate::swap::Swap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Who may do what, and where a request says who it is.
#[derive(Clone, Debug)]
pub struct Auth {
    /// Judges credentials.
    pub authority: Authority,
    /// Anyone may publish, on purpose.
    pub is_open: bool,
    /// The cookie that may hold a token; empty for none.
    pub cookie: String,
    /// Whether a token may stand in the query.
    pub query_token: bool,
    /// What may be taken back at a time, at most.
    pub denied_max: usize,
    /// How long a ticket waits to be used.
    pub ticket_life: Duration,
    /// Tickets of one owner that wait to be used, at most.
    pub tickets_each_max: usize,
}

/// What requests are judged by. A reload of the configuration replaces it.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "parts that are documented where they are made")]
pub struct Rules {
    pub auth: Auth,
    pub limits: Limits,
    pub address: AddressLimits,
}

/// The parts of a replica that handlers work with, and how it stands.
#[derive(Debug)]
#[expect(missing_docs, reason = "parts that are documented where they are made")]
pub struct Gateway {
    pub hub: Arc<Hub>,
    pub broker: Arc<Broker>,
    pub reads: Reads,
    pub denials: Arc<Denials>,
    pub streams: Arc<StreamSettings>,
    pub metrics: Arc<Metrics>,
    pub rules: Swap<Rules>,
    pub publish: Publish,
    pub publishing: Semaphore,
    pub intake: Intake,
    pub answers: Answers,
    pub body_timeout: Duration,
    pub open_wait: Duration,
    pub addresses: Arc<Addresses>,
    pub open_streams: Arc<OpenStreams>,
    pub bodies: Arc<Bodies>,
    /// The threads that own sockets; none if all streams go out as bodies.
    pub sockets: Option<Arc<Sockets>>,
    /// The log was reached once.
    pub reached: Arc<AtomicBool>,
    /// The balancer is to send nobody any more; what comes is served until the drain begins.
    pub leaving: AtomicBool,
}

impl Gateway {
    /// Whether this replica is stopping.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// Why this replica cannot serve yet, if it cannot: the log was not reached, or tokens cannot be judged, since it is not
    /// known which were taken back.
    #[must_use]
    pub fn is_not_ready(&self) -> Option<&'static str> {
        if !self.reached.load(Ordering::Acquire) {
            return Some("the log was not reached yet");
        }
        let has_tokens = self.rules.get().auth.authority.has_tokens();
        (has_tokens && !self.denials.was_read()).then_some("what was taken back was not read yet")
    }

    /// A place to ask the log for little, in the name of a client's address: whoever asks much waits behind nobody but
    /// itself.
    ///
    /// # Errors
    /// One sentence: none was free in time.
    pub async fn place(&self, network: Option<Network>) -> Result<Option<Place>, &'static str> {
        let place = tokio::time::timeout(self.open_wait, self.reads.place(network));
        place
            .await
            .map_err(|_| "too many reads of the log are in progress")
    }

    /// A thread that writes streams and does not go on, if there is one.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        self.sockets.as_ref()?.standing()
    }
}
