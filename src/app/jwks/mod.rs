//! The tasks that fetch key sets from their addresses: they have the clock and the network, and do what
//! [`crate::auth::jwks::Upkeep`] says.

mod fetch;

use crate::auth::jwks::{Fetch, Keeper, KeySet, KeySets, Moment, Next, State};
use crate::config::Jwks;
use crate::metrics::{KeySetFetch, Metrics};
use crate::time::passed;
use fetch::fetch;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Fetches a set once, for a command; how many keys it has then.
///
/// # Errors
/// Why it cannot be fetched, or is none.
pub(crate) async fn fetch_once(set: &KeySet, settings: &Jwks) -> Result<usize, String> {
    if let Next::Fetch(under_way) = set.next(Keeper::FIRST, passed()) {
        let text = fetch(set.source().address.url(), settings).await?;
        set.take(under_way, &text, passed(), 0.0)?;
    }
    Ok(set.count())
}

/// Fetches all key sets, one task each.
pub(super) struct Fetching {
    /// Told when a set has other keys.
    changed: Changed,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    /// Ends the tasks of the settings in force.
    running: Mutex<CancellationToken>,
    stop: CancellationToken,
}

/// What is done when a set has other keys than before.
pub(super) type Changed = Arc<dyn Fn() + Send + Sync>;

impl fmt::Debug for Fetching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetching").finish_non_exhaustive()
    }
}

impl Fetching {
    /// Fetches nothing yet; `stop` ends it.
    pub(super) fn new(
        changed: Changed,
        metrics: Arc<Metrics>,
        tasks: TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        Self {
            changed,
            metrics,
            tasks,
            running: Mutex::new(stop.child_token()),
            stop: stop.clone(),
        }
    }

    /// Fetches these from now on, and at once, and nothing else any more.
    pub(super) fn begin(&self, sets: &KeySets, settings: &Jwks) {
        let running = self.stop.child_token();
        let mut before = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        before.cancel();
        *before = running.clone();
        for set in sets.iter() {
            let keep = Keep {
                keeper: set.settle(settings.timing, passed()),
                set: set.clone(),
                settings: settings.clone(),
                changed: self.changed.clone(),
                metrics: self.metrics.clone(),
                told: None,
            };
            let running = running.clone();
            self.tasks.spawn(async move {
                running.run_until_cancelled(keep.run()).await;
            });
        }
    }
}

/// One set that is kept.
struct Keep {
    keeper: Keeper,
    set: Arc<KeySet>,
    settings: Jwks,
    changed: Changed,
    metrics: Arc<Metrics>,
    /// How it stood when that was last told.
    told: Option<State>,
}

impl Keep {
    async fn run(mut self) {
        loop {
            match self.set.next(self.keeper, passed()) {
                Next::Fetch(fetch) => self.fetch(fetch).await,
                Next::Wait(until) => {
                    tokio::select! {
                        () = self.set.wanted() => {}
                        () = comes(until) => {}
                    }
                }
            }
        }
    }

    async fn fetch(&mut self, under_way: Fetch) {
        let answer = self.answer().await;
        let spread = rand::random();
        let taken = match answer {
            Ok(text) => self.set.take(under_way, &text, passed(), spread),
            Err(why) => {
                self.set.failed(under_way, passed(), spread);
                Err(why)
            }
        };
        if taken == Ok(true) {
            (self.changed)();
        }
        self.metrics.key_set_fetched(match taken {
            Ok(true) => KeySetFetch::New,
            Ok(false) => KeySetFetch::Same,
            Err(_) => KeySetFetch::Failed,
        });
        self.tell(taken.err());
    }

    async fn answer(&self) -> Result<String, String> {
        let url = self.set.source().address.url();
        let mut fetching = pin!(fetch(url, &self.settings));
        loop {
            // The set that serves may become too old meanwhile.
            let until = match self.set.next(self.keeper, passed()) {
                Next::Wait(until) => until,
                Next::Fetch(_) => None,
            };
            tokio::select! {
                answer = &mut fetching => return answer,
                () = comes(until) => {}
            }
        }
    }

    /// Says once how it stands, and not each time that it still does.
    fn tell(&mut self, why: Option<String>) {
        let state = self.set.state();
        if self.told.replace(state) == Some(state) {
            return;
        }
        let address = &self.set.source().address;
        match (state, why) {
            (State::Fresh, _) => tracing::info!(%address, "a key set was fetched"),
            (State::Stale, why) => tracing::warn!(
                %address,
                why,
                "a key set cannot be fetched, and the last good one serves"
            ),
            (State::Away, why) => tracing::warn!(
                %address,
                why,
                "a key set cannot be fetched, and there is none: its tokens cannot be judged"
            ),
        }
    }
}

/// Waits for a moment; none does not come.
async fn comes(moment: Option<Moment>) {
    match moment {
        Some(moment) => tokio::time::sleep(moment.saturating_sub(passed())).await,
        None => std::future::pending().await,
    }
}
