//! Once a second this replica says how many streams and subscribers it has, and hears the same of
//! the others: for `tidegate.connections`, for `GET /topics/{topic}`, and to agree on the ears. That a topic's
//! subscribers have changed it says within a tenth of that, so that nobody is counted who has long gone.

use crate::broker::{Broker, Fleet};
use crate::hub::Hub;
use crate::hub::counts::Connections;
use crate::metrics::Metrics;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether subscribers have changed.
const EVERY: Duration = Duration::from_millis(100);
/// Looks from one heartbeat to the next, if nothing changes: a second.
const HEARTBEAT_EACH: u64 = 10;
/// Topics whose count is sent at once: half a millisecond of the log, for which all others wait.
const CHANGES_MAX: usize = 250;
/// Calls at each beat in which topics that are gone are forgotten.
const SWEEPS_MAX: usize = 200;
/// Calls at each beat in which topics that are not noted are noted.
const NOTES_MAX: usize = 4;
/// Looks from one question of how the log's server stands to the next: five seconds.
const INSPECT_EACH: u64 = 50;

/// Names of the replicas that live, in order.
pub type Replicas = watch::Receiver<Arc<[String]>>;

/// Says what has changed, in as many parts as it takes; what the fleet is after the last of them.
async fn tell(hub: &Hub, broker: &Broker, here: u64) -> Option<Fleet> {
    loop {
        let changed = hub.take_changed(CHANGES_MAX);
        let is_last = changed.len() < CHANGES_MAX;
        let anew = hub.take_changes_lost();
        match broker.heartbeat(here, &changed, anew).await {
            Ok(fleet) => {
                if fleet.forgotten {
                    hub.mark_all_changed();
                }
                if is_last {
                    return Some(fleet);
                }
            }
            Err(why) => {
                tracing::debug!(%why, "a heartbeat failed");
                hub.mark_changed(changed.into_iter().map(|(topic, _)| topic));
                if anew {
                    hub.mark_changes_lost();
                }
                return None;
            }
        }
    }
}

/// Takes what was heard of the others, and names all that live.
fn take(hub: &Hub, name: &str, here: u64, fleet: Fleet) -> Arc<[String]> {
    let others = fleet.streams.iter().filter(|(other, _)| *other != name);
    let elsewhere: u64 = others.map(|(_, streams)| streams).sum();
    hub.counts().set(Connections {
        fleet: here + elsewhere,
        replica: here,
    });
    fleet.streams.into_keys().collect()
}

/// Has the log forget topics that are gone: a little in each call, so that no other waits for long.
async fn sweep(hub: &Hub, broker: &Broker) {
    let mut left = SWEEPS_MAX;
    for partition in 0..hub.partitions() {
        // Each at least once, so that no partition waits for another.
        loop {
            left = left.saturating_sub(1);
            match broker.sweep(partition).await {
                Ok(true) if left > 0 => {}
                Ok(_) => break,
                Err(why) => {
                    tracing::debug!(%why, "topics that are gone cannot be forgotten");
                    return;
                }
            }
        }
    }
}

/// Has the log note topics that are not noted, a little in each call as well. Not with what is told of subscribers: that
/// readers bring about, ten times a second.
async fn note_topics(broker: &Broker) {
    for _ in 0..NOTES_MAX {
        match broker.note_topics().await {
            Ok(true) => {}
            Ok(false) => return,
            Err(why) => {
                tracing::debug!(%why, "topics that are not noted cannot be");
                return;
            }
        }
    }
}

/// Tells and hears until `stop`. `open` says how many streams are open here.
pub async fn run(
    hub: Arc<Hub>,
    broker: Arc<Broker>,
    metrics: Arc<Metrics>,
    name: String,
    open: impl Fn() -> u64,
    replicas: watch::Sender<Arc<[String]>>,
    stop: CancellationToken,
) {
    let mut look = tokio::time::interval(EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_heard = false;
    for number in 0_u64.. {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = look.tick() => {}
        }
        let is_heartbeat = number % HEARTBEAT_EACH == 0;
        // A log that does not answer is asked once a second.
        let is_due = is_heartbeat || (is_heard && hub.has_changed());
        if !is_due {
            continue;
        }
        let here = open();
        let fleet = tell(&hub, &broker, here).await;
        is_heard = fleet.is_some();
        if let Some(fleet) = fleet {
            let names = take(&hub, &name, here, fleet);
            metrics
                .replicas
                .set(i64::try_from(names.len()).unwrap_or(i64::MAX));
            replicas.send_if_modified(|known| {
                let other = *known != names;
                *known = names;
                other
            });
        }
        if !is_heartbeat {
            continue;
        }
        if is_heard {
            note_topics(&broker).await;
            sweep(&hub, &broker).await;
        }
        if number % INSPECT_EACH == 0
            && let Err(why) = broker.inspect_server().await
        {
            tracing::debug!(%why, "how Redis stands cannot be asked");
        }
        let feeds = hub.feeds();
        metrics
            .topics
            .set(i64::try_from(feeds.len()).unwrap_or(i64::MAX));
        metrics
            .window_bytes
            .set(i64::try_from(hub.window_bytes()).unwrap_or(i64::MAX));
        metrics.window_evicted.inc_by(hub.take_evicted());
    }
    // At a stop nobody waits for this; the entry expires anyway.
    if let Err(why) = broker.farewell().await {
        tracing::debug!(%why, "this replica could not take itself off the list");
    }
}
