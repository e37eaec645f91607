//! The inbox: `XADD <prefix>:inbox * topic T event E data D [end 1] [key K]`.
//!
//! Every ear watches it; the first by name moves entries at once, the others give it time. The
//! function deletes an entry in the same step in which it publishes it: nothing is moved twice.

use super::link::rank;
use crate::broker::raw::InboxEntry;
use crate::broker::redis::Redis;
use crate::follow::fleet::Replicas;
use crate::metrics::{IngestRefusal, Source};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Entries moved at once.
const BATCH: usize = 128;
/// What an ear that is not the first waits, and up to as much again.
const PATIENCE: Duration = Duration::from_millis(300);
/// Pause after a failure.
const REST: Duration = Duration::from_millis(500);

/// Moves entries whenever this replica is elected, until `stop`.
pub async fn run(
    redis: Redis,
    name: String,
    ears: usize,
    mut replicas: Replicas,
    stop: CancellationToken,
) {
    loop {
        let place = rank(&replicas.borrow_and_update(), &name, ears);
        let turn = async {
            if let Some(place) = place {
                return watch(&redis, place).await;
            }
            redis.metrics().ingest_inbox.set(0);
            replicas.changed().await.is_ok()
        };
        tokio::select! {
            () = stop.cancelled() => return,
            goes_on = turn => if !goes_on {
                tokio::time::sleep(REST).await;
            },
        }
    }
}

/// Waits for entries and moves them once. False if Redis is away.
async fn watch(redis: &Redis, place: usize) -> bool {
    let waiting = &redis.metrics().ingest_inbox;
    match redis.wait_for_inbox().await {
        Ok(false) => {
            waiting.set(0);
            return true;
        }
        Ok(true) => {}
        Err(why) => {
            tracing::debug!(%why, "the inbox cannot be watched");
            return false;
        }
    }
    match redis.inbox_entries().await {
        Ok(entries) => waiting.set(entries),
        Err(why) => tracing::debug!(%why, "the inbox cannot be counted"),
    }
    if place > 0 {
        tokio::time::sleep(PATIENCE.mul_f64(rand::random_range(1.0..2.0))).await;
    }
    match move_batch(redis).await {
        Ok(()) => true,
        Err(why) => {
            tracing::warn!(%why, "the inbox cannot be moved");
            false
        }
    }
}

async fn move_batch(redis: &Redis) -> Result<(), crate::broker::BrokerError> {
    let entries: Vec<InboxEntry> = redis.read_inbox(BATCH).await?;
    let (logged, refused) = redis.move_inbox(&entries).await?;
    redis.metrics().published(Source::Inbox, logged);
    if refused > 0 {
        redis
            .metrics()
            .ingest_refused(IngestRefusal::Invalid, refused);
        tracing::warn!(
            refused,
            "inbox entries were no events (topic, event, data or an ended topic) and are gone"
        );
    }
    Ok(())
}
