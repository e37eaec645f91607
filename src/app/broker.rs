//! The log of this replica: Redis, or memory where no `redis.url` is given.

use crate::broker::redis::{Redis, follow_access, follow_master, run_live};
use crate::broker::{Broker, LivePath, Memory};
use crate::config::Config;
use crate::metrics::Metrics;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Opens the log that the configuration names, with the tasks that it needs.
///
/// # Errors
/// A sentence about what is wrong with it.
pub(super) fn open(
    config: &Config,
    metrics: &Arc<Metrics>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(Arc<Broker>, LivePath), String> {
    let Some(settings) = config.redis_settings() else {
        tracing::warn!("no redis.url: the log is kept in memory and is gone with this process");
        let (memory, path, answers) = Memory::open(config.retention());
        let stop = stop.clone();
        tasks.spawn(async move { stop.run_until_cancelled(answers).await });
        return Ok((Arc::new(Broker::Memory(Box::new(memory))), path));
    };
    let redis = Redis::open(settings, metrics.clone())?;
    let (path, live, wanted) = Redis::live_path();
    let (until, master) = (stop.clone(), follow_master(redis.clone()));
    tasks.spawn(async move { until.run_until_cancelled(master).await });
    let (until, access) = (stop.clone(), follow_access(redis.clone()));
    tasks.spawn(async move { until.run_until_cancelled(access).await });
    let (stop, follower) = (stop.clone(), redis.clone());
    tasks.spawn(async move {
        let live = Box::pin(run_live(follower, live, wanted));
        stop.run_until_cancelled(live).await
    });
    Ok((Arc::new(Broker::Redis(redis)), path))
}
