//! The inbox: `XADD <prefix>:inbox * topic T [type E] data D [end 1] [key K]`. `event` is
//! taken for `type`, which it was called before.
//!
//! Every ear watches it; the first by name moves entries at once, the others give it time. The
//! function deletes an entry in the same step in which it publishes it: nothing is moved twice.
//!
//! What is in an entry never comes here: it may be of any size. So the inbox is looked at by its
//! length, again and again: `XREAD BLOCK` would bring the first entry to every ear.

use super::link::rank;
use crate::broker::BrokerError;
use crate::broker::raw::InboxMove;
use crate::broker::redis::{Outage, Redis};
use crate::follow::complaints::Complaints;
use crate::follow::fleet::Replicas;
use crate::metrics::{IngestRefusal, Source};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Between two looks of the first ear at an inbox that was empty: an event is later by half of it.
const LOOK: Duration = Duration::from_millis(20);
/// What an ear that is not the first waits, and up to as much again.
const PATIENCE: Duration = Duration::from_millis(300);
/// An inbox that looks empty is tried all the same after so long: it may take no entry any more.
const TRY_EMPTY: Duration = Duration::from_secs(1);
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
    let mut mover = Mover {
        redis,
        after: None,
        complaints: Complaints::default(),
        outage: Outage::default(),
    };
    loop {
        let place = rank(&replicas.borrow_and_update(), &name, ears);
        let turn = async {
            if let Some(place) = place {
                return mover.turn(place).await;
            }
            mover.redis.metrics().ingest_inbox.set(0);
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

/// What an ear knows of the inbox.
#[derive(Debug)]
struct Mover {
    redis: Redis,
    /// Where to go on; none to begin with the first entry.
    after: Option<String>,
    complaints: Complaints,
    outage: Outage,
}

impl Mover {
    /// Waits for entries and moves some. False if Redis is away, or fails at all of them.
    async fn turn(&mut self, place: usize) -> bool {
        if self.after.is_none()
            && let Err(why) = self.wait(place).await
        {
            tracing::debug!(%why, "the inbox cannot be watched");
            return false;
        }
        match self.redis.move_inbox(self.after.as_deref()).await {
            Ok(moved) => {
                self.outage.over();
                self.moved(moved)
            }
            Err(why) => {
                let why = why.to_string();
                if let Some(left_out) = self.outage.may_say(&why, Instant::now()) {
                    tracing::warn!(why, left_out, "the inbox cannot be moved");
                }
                false
            }
        }
    }

    /// Until the inbox holds something, and the ears before this one had time for it.
    async fn wait(&self, place: usize) -> Result<(), BrokerError> {
        let patience = || PATIENCE.mul_f64(rand::random_range(1.0..2.0));
        let since = Instant::now();
        loop {
            let entries = self.redis.inbox_entries().await?;
            self.redis.metrics().ingest_inbox.set(entries);
            if entries > 0 || since.elapsed() >= TRY_EMPTY {
                break;
            }
            tokio::time::sleep(if place == 0 { LOOK } else { patience() }).await;
        }
        if place > 0 {
            tokio::time::sleep(patience()).await;
        }
        Ok(())
    }

    /// Counts and tells what was moved. False if Redis failed, and there was no other entry.
    fn moved(&mut self, moved: InboxMove) -> bool {
        let metrics = self.redis.metrics().clone();
        metrics.published(Source::Inbox, moved.logged);
        metrics.ingest_inbox.set(moved.left);
        for refusal in &moved.refused {
            metrics.ingest_refused(IngestRefusal::by_log(refusal.is_invalid()), 1);
            let (topic, why) = (&refusal.topic, &refusal.why);
            // What is invalid is invalid for few reasons; all else names its topic.
            let reason = match refusal.code.as_str() {
                "TGINVALID" => why,
                code => code,
            };
            self.complain(reason, |left_out| {
                tracing::warn!(
                    topic,
                    code = refusal.code,
                    why,
                    left_out,
                    "an inbox entry is no event, or is refused by the log, and is gone"
                );
            });
        }
        if let Some(last) = &moved.begun_anew_at {
            tracing::warn!(
                last,
                "the inbox had come to an id after which it takes no entry, and is begun anew; \
                 somebody adds entries with ids of their own"
            );
        }
        let failed = moved.failed;
        if let Some(why) = &failed {
            self.complain("failed", |left_out| {
                tracing::warn!(
                    why,
                    left_out,
                    "Redis failed at an inbox entry; it stays, and is tried again after the others"
                );
            });
        }
        self.after = moved.more_after;
        failed.is_none() || moved.logged > 0
    }

    fn complain(&mut self, reason: &str, say: impl FnOnce(u64)) {
        if let Some(left_out) = self.complaints.may_say(reason, Instant::now()) {
            say(left_out);
        }
    }
}
