//! The open streams of this replica: how many there are, and what the log says when one ends.

use super::turn::Standing;
use crate::address::{Address, Network};
use crate::limits::Lease;
use crate::metrics::{CloseReason, Metrics, WayOut};
use crate::time::CoarseInstant;
use crate::topic::Topic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What all open streams share.
#[derive(Debug)]
pub struct OpenStreams {
    count: AtomicUsize,
    pub(super) metrics: Arc<Metrics>,
    opened: Lines,
    closed: Lines,
}

/// Topics of one stream that the log names.
const NAMED_MAX: usize = 16;

impl OpenStreams {
    /// None yet; of those that open, and of those that end, `lines_max` a second are logged.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, lines_max: usize) -> Arc<Self> {
        Arc::new(Self {
            count: AtomicUsize::new(0),
            metrics,
            opened: Lines::new(lines_max),
            closed: Lines::new(lines_max),
        })
    }

    /// How many streams are open on this replica, whatever their way out.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Takes one of `most` places.
    fn enter(&self, most: usize) -> bool {
        let entered = self
            .count
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
                (taken < most).then_some(taken + 1)
            });
        entered.is_ok()
    }

    fn leave(&self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
    }

    /// Says in the log that a stream is opened, unless too many are in this second.
    pub fn say_opened(&self, opened: &Opened<'_>) {
        if tracing::enabled!(tracing::Level::INFO) && self.opened.may_say(Instant::now()) {
            let named: Vec<&str> = opened
                .topics
                .iter()
                .take(NAMED_MAX)
                .map(Topic::as_str)
                .collect();
            tracing::info!(
                topics = opened.topics_count,
                topic_names = ?named,
                address = opened.address.map(tracing::field::display),
                begin = opened.begin,
                way = opened.way.as_str(),
                "stream opened"
            );
        }
    }

    /// Says in the log that a stream has ended, unless too many have in this second.
    pub(super) fn say_closed(&self, closed: &Closed) {
        if tracing::enabled!(tracing::Level::INFO) && self.closed.may_say(Instant::now()) {
            tracing::info!(
                close_reason = closed.reason.as_str(),
                duration_ms = crate::time::millis(closed.duration),
                address = closed.address.map(tracing::field::display),
                topics = closed.topics,
                events = closed.standing.events,
                bytes = closed.bytes,
                lag = closed.standing.lag.events,
                lag_at_least = closed.standing.lag.at_least,
                "stream closed"
            );
        }
    }

    /// Another number of lines a second.
    pub fn set_lines_max(&self, lines_max: usize) {
        for lines in [&self.opened, &self.closed] {
            lines.most.store(lines_max, Ordering::Relaxed);
        }
    }

    /// Says how many were left out of the log since the last call, if any.
    pub fn say_left_out(&self) {
        let left_out = self.opened.take_left_out();
        if left_out > 0 {
            tracing::info!(left_out, "more streams opened");
        }
        let left_out = self.closed.take_left_out();
        if left_out > 0 {
            tracing::info!(left_out, "more streams closed");
        }
    }
}

/// What is said of a stream that is opened.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the words of the line in the log")]
pub struct Opened<'a> {
    pub topics: &'a [Topic],
    pub topics_count: usize,
    pub address: Option<Address>,
    pub begin: &'static str,
    pub way: WayOut,
}

/// What is said of a stream that has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed {
    pub(super) reason: CloseReason,
    pub(super) duration: Duration,
    pub(super) address: Option<Address>,
    pub(super) topics: usize,
    pub(super) bytes: u64,
    pub(super) standing: Standing,
}

/// Lines of the log: so many a second, and a count of those left out.
#[derive(Debug)]
struct Lines {
    most: AtomicUsize,
    state: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    since: Option<Instant>,
    lines: usize,
    left_out: u64,
}

impl Lines {
    fn new(most: usize) -> Self {
        Self {
            most: AtomicUsize::new(most),
            state: Mutex::default(),
        }
    }

    fn may_say(&self, now: Instant) -> bool {
        let mut said = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let second = Duration::from_secs(1);
        if said.since.is_none_or(|since| now >= since + second) {
            said.since = Some(now);
            said.lines = 0;
        }
        let may = said.lines < self.most.load(Ordering::Relaxed);
        if may {
            said.lines += 1;
        } else {
            said.left_out += 1;
        }
        may
    }

    fn take_left_out(&self) -> u64 {
        let mut said = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut said.left_out)
    }
}

/// A place among the open streams, before and while one is open in it; given back on drop.
#[derive(Debug)]
pub struct StreamPlace(Arc<OpenStreams>);

impl StreamPlace {
    /// Takes one, if fewer than `most` are taken.
    #[must_use]
    pub fn take(open: &Arc<OpenStreams>, most: usize) -> Option<Self> {
        open.enter(most).then(|| Self(open.clone()))
    }

    /// A stream of so many topics opens in it.
    #[must_use]
    pub fn open(self, topics: usize, lease: Option<Box<Lease>>) -> StreamGuard {
        self.0.metrics.opened(WayOut::Body);
        StreamGuard {
            place: self,
            lease,
            since: CoarseInstant::now(),
            bytes: 0,
            topics: u32::try_from(topics).unwrap_or(u32::MAX),
            way: WayOut::Body,
            reason: CloseReason::Client,
            is_said: false,
        }
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// An open stream, in its place; it is counted and said to have ended on drop, whatever way it went.
#[derive(Debug)]
pub struct StreamGuard {
    place: StreamPlace,
    /// What it takes of what one address may. None where addresses are neither told nor limited.
    lease: Option<Box<Lease>>,
    since: CoarseInstant,
    bytes: u64,
    topics: u32,
    way: WayOut,
    pub(super) reason: CloseReason,
    /// The log has its line already.
    is_said: bool,
}

impl StreamGuard {
    /// Its client's address, if a proxy has told it.
    pub(super) fn address(&self) -> Option<Address> {
        let client = self.lease.as_ref()?.client();
        client.is_told.then_some(client.address)
    }

    /// What its client is counted by, if it is.
    pub(super) fn network(&self) -> Option<Network> {
        self.lease.as_ref()?.client().network
    }

    /// What streams are counted in.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.place.0.metrics
    }

    /// How long it has been taken.
    pub(super) fn age(&self) -> Duration {
        CoarseInstant::now().since(self.since)
    }

    /// Bytes that were handed to the socket.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes were handed to the socket.
    pub(super) fn add_bytes(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Says in the log that the stream ends, while it is still there to tell how it stands.
    pub(super) fn say_closed(
        &mut self,
        reason: CloseReason,
        standing: Standing,
        address: Option<Address>,
    ) {
        if !std::mem::replace(&mut self.is_said, true) {
            self.place.0.say_closed(&Closed {
                reason,
                duration: self.age(),
                address,
                topics: self.topics as usize,
                bytes: self.bytes,
                standing,
            });
        }
    }

    /// It leaves hyper for a thread of [`sockets`](super::sockets).
    #[must_use]
    pub fn on_socket(mut self) -> Self {
        self.place.0.metrics.goes_by(self.way, WayOut::Socket);
        self.way = WayOut::Socket;
        self
    }

    /// Why the stream is over; without a word, its client went.
    pub(crate) fn close(&mut self, reason: CloseReason) {
        self.reason = reason;
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.place
            .0
            .metrics
            .closed(self.way, self.reason, self.age());
        self.say_closed(self.reason, Standing::default(), self.address());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_a_second_are_said_and_the_others_are_counted() {
        let lines = Lines::new(2);
        let start = Instant::now();
        let said = |at: Instant| (0..5).filter(|_| lines.may_say(at)).count();
        assert_eq!(said(start), 2);
        assert_eq!(said(start + Duration::from_millis(999)), 0);
        assert_eq!(lines.take_left_out(), 8);
        assert_eq!(said(start + Duration::from_secs(1)), 2);
        assert_eq!(lines.take_left_out(), 3);
        assert_eq!(lines.take_left_out(), 0);
    }
}
