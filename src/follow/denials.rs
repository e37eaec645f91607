//! Reads what was taken back, again and again, so that a replica which was away misses nothing: there is no message that
//! could be lost.
//!
//! It is read every half second, and at once for whoever asks. One read is under way at a time, and who asks waits for one
//! that began after that.

use crate::auth::{Revocations, StoreMs};
use crate::broker::{Broker, BrokerError, DenialPage};
use crate::hub::Hub;
use crate::metrics::Metrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Between two reads that nobody asks for: the most by which a replica that hears the store is behind.
const EVERY: Duration = Duration::from_millis(500);
/// Between two that somebody asks for: in a storm of reconnects, one read is for all that came meanwhile.
const PAUSE: Duration = Duration::from_millis(5);
/// What was read before is not judged by any more: the store has been away for a while.
const STALE_AFTER: Duration = Duration::from_secs(5);
/// What is read again every half second. Time may have gone back in between, with another server; what is known changes
/// nothing. Not for each who asks: a lockout of thousands would be read again hundreds of times a second.
const AGAIN_MS: StoreMs = 10_000;

/// What was taken back, and how it is learnt.
#[derive(Debug)]
pub struct Denials {
    revocations: Arc<Revocations>,
    /// Reads that have begun.
    begun: AtomicU64,
    /// The last of them that was taken in; none has number 0.
    read: watch::Sender<(u64, Instant)>,
    asked: Notify,
}

impl Denials {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(revocations: Arc<Revocations>) -> Arc<Self> {
        Arc::new(Self {
            revocations,
            begun: AtomicU64::new(0),
            read: watch::Sender::new((0, Instant::now())),
            asked: Notify::new(),
        })
    }

    /// What is known.
    #[must_use]
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    /// Has it read now.
    pub fn ask(&self) {
        self.asked.notify_one();
    }

    /// Waits for a read that begins after this call. Takes as long as the store is away.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost.
    pub async fn read_anew(&self) {
        let begun = self.begun.load(Ordering::SeqCst);
        self.ask();
        let mut read = self.read.subscribe();
        // The sender lives as long as this does.
        drop(read.wait_for(|(number, _)| *number > begun).await);
    }

    /// How long ago it was read.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.read.borrow().1.elapsed()
    }

    /// Whether it was read once.
    #[must_use]
    pub fn was_read(&self) -> bool {
        self.read.borrow().0 > 0
    }

    /// Whether what is known is too old to judge by, or nothing was read yet.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        let (number, read_at) = *self.read.borrow();
        number == 0 || read_at.elapsed() > STALE_AFTER
    }

    /// Reads until `stop`, and wakes all streams when something is new.
    pub async fn run(
        self: Arc<Self>,
        broker: Arc<Broker>,
        hub: Arc<Hub>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) {
        let began = Instant::now();
        let mut place = Place::default();
        let mut is_away = false;
        let mut again_at: Option<Instant> = None;
        loop {
            let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            let read_at = Instant::now();
            let is_again = again_at.is_none_or(|at| at.elapsed() >= EVERY);
            let since = place.begin(is_again);
            let read = self.read_all(since, &mut place, &broker, &hub, &metrics, began);
            let Some(done) = stop.run_until_cancelled(Box::pin(read)).await else {
                return;
            };
            let pause = match done {
                Ok(()) => {
                    is_away = false;
                    if is_again {
                        again_at = Some(read_at);
                    }
                    self.read.send_replace((number, read_at));
                    PAUSE
                }
                Err(why) => {
                    // Whoever answers next may be another server, with another clock, and whoever is away for long does not
                    // see that it went back. All that it has is read again; there is not much.
                    place = Place::default();
                    if !std::mem::replace(&mut is_away, true) {
                        tracing::warn!(%why, "what was taken back cannot be read: streams with a token wait until it can");
                    }
                    EVERY
                }
            };
            let wait = async {
                tokio::time::sleep(pause).await;
                let asked = self.asked.notified();
                // Nobody has asked, which is as good.
                drop(tokio::time::timeout(EVERY.saturating_sub(pause), asked).await);
            };
            if stop.run_until_cancelled(wait).await.is_none() {
                return;
            }
        }
    }

    /// Reads all pages that there are, and learns each as it comes.
    async fn read_all(
        &self,
        mut since: StoreMs,
        place: &mut Place,
        broker: &Broker,
        hub: &Hub,
        metrics: &Metrics,
        began: Instant,
    ) -> Result<(), BrokerError> {
        loop {
            let page = broker.denied(since).await?;
            let entries = page.entries.iter();
            let entries = entries.map(|(at, text)| (*at, text.as_str()));
            let lived = began.elapsed();
            if self.revocations.learn(entries, page.now_ms, lived) {
                hub.wake_all_streams();
            }
            metrics
                .denied
                .set(i64::try_from(page.count).unwrap_or(i64::MAX));
            match place.take(since, &page) {
                Some(next) => since = next,
                None => return Ok(()),
            }
        }
    }
}

/// Up to where the list was read.
#[derive(Debug, Default)]
struct Place(StoreMs);

impl Place {
    /// After what the next page is asked for, some of what was read once more (`is_again`) or not.
    fn begin(&self, is_again: bool) -> StoreMs {
        let again = if is_again { AGAIN_MS } else { 0 };
        self.0.saturating_sub(again)
    }

    /// Takes a page that was asked for; after what the next one is, if there is more.
    fn take(&mut self, since: StoreMs, page: &DenialPage) -> Option<StoreMs> {
        if page.last < self.0 {
            // Another server, or one that has lost something: all that it has may be new.
            self.0 = 0;
            return (since > 0)
                .then_some(0)
                .or_else(|| self.goes_on(since, page));
        }
        self.goes_on(since, page)
    }

    fn goes_on(&mut self, since: StoreMs, page: &DenialPage) -> Option<StoreMs> {
        self.0 = page.up_to;
        // A page that comes no further would be asked for ever.
        (page.up_to < page.last && page.up_to > since).then_some(page.up_to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(last: StoreMs, up_to: StoreMs) -> DenialPage {
        DenialPage {
            last,
            up_to,
            ..DenialPage::default()
        }
    }

    #[test]
    fn pages_follow_one_another_and_some_is_read_again() {
        let mut place = Place::default();
        assert_eq!(place.begin(true), 0);
        assert_eq!(place.take(0, &page(50_000, 20_000)), Some(20_000));
        assert_eq!(place.take(20_000, &page(50_000, 50_000)), None);
        assert_eq!(place.begin(true), 40_000);
        assert_eq!(place.begin(false), 50_000);
        assert_eq!(place.take(40_000, &page(50_000, 50_000)), None);
        assert_eq!(place.begin(true), 40_000);
    }

    #[test]
    fn a_list_that_has_gone_back_is_read_from_its_beginning() {
        let mut place = Place(50_000);
        assert_eq!(place.take(40_000, &page(45_000, 45_000)), Some(0));
        assert_eq!(place.take(0, &page(45_000, 30_000)), Some(30_000));
        assert_eq!(place.take(30_000, &page(45_000, 45_000)), None);
        assert_eq!(place.begin(true), 35_000);
        let mut young = Place(5);
        assert_eq!(young.take(0, &page(0, 0)), None, "it is empty");
        assert_eq!(young.begin(true), 0);
    }
}
