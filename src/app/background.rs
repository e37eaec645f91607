//! What goes on behind the requests: following the log, the heartbeat among replicas, the ear.

use crate::broker::{Broker, LivePath};
use crate::config::Config;
use crate::follow::fleet;
use crate::follow::{FollowSettings, Follower};
use crate::hub::Hub;
use crate::ingest::ear::OwedMax;
use crate::ingest::{inbox, link};
use crate::metrics::Metrics;
use crate::stream::registry::OpenStreams;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the tasks behind the requests work with.
pub(super) struct Background<'a> {
    pub(super) config: &'a Config,
    pub(super) hub: &'a Arc<Hub>,
    pub(super) broker: &'a Arc<Broker>,
    pub(super) metrics: &'a Arc<Metrics>,
    pub(super) open_streams: &'a Arc<OpenStreams>,
    pub(super) tasks: &'a TaskTracker,
    pub(super) stop: &'a CancellationToken,
}

impl Background<'_> {
    /// Begins to follow the log, to speak with the other replicas, and to hear raw publishes.
    /// `reached` is set once the log was reached.
    pub(super) fn spawn(&self, path: LivePath, reached: Arc<AtomicBool>) {
        let follower = Follower::new(
            self.hub.clone(),
            self.broker.clone(),
            self.metrics.clone(),
            follow_settings(self.config),
            reached,
        );
        self.tasks.spawn(follower.run(path, self.stop.clone()));
        let (replicas, others) = watch::channel(Arc::from([]));
        let open = self.open_streams.clone();
        self.tasks.spawn(fleet::run(
            self.hub.clone(),
            self.broker.clone(),
            self.metrics.clone(),
            self.config.replica.name.clone(),
            move || open.count() as u64,
            replicas,
            self.stop.clone(),
        ));
        self.tasks
            .spawn(say_left_out(self.open_streams.clone(), self.stop.clone()));
        self.spawn_ingest(&others);
    }

    fn spawn_ingest(&self, replicas: &fleet::Replicas) {
        let config = self.config;
        let (Broker::Redis(redis), true) = (&**self.broker, config.ingest.enabled) else {
            return;
        };
        let settings = link::EarSettings {
            name: config.replica.name.clone(),
            channel: config.ingest.channel.clone(),
            map: config.ingest.map.clone(),
            ears: config.ingest.ears,
            owed_max: OwedMax {
                publishes: config.ingest.owed_max,
                bytes: config.ingest.owed_bytes_max,
            },
            event_bytes_max: config.publish.event_bytes_max,
        };
        self.tasks.spawn(link::run(
            redis.clone(),
            settings,
            replicas.clone(),
            self.stop.clone(),
        ));
        self.tasks.spawn(inbox::run(
            redis.clone(),
            config.replica.name.clone(),
            config.ingest.ears,
            replicas.clone(),
            self.stop.clone(),
        ));
    }
}

fn follow_settings(config: &Config) -> FollowSettings {
    FollowSettings {
        reads_max: config.repair.reads_max,
        tick_after: config.redis.tick_after,
        deaf_after: config.repair.time,
        keep: config.redis.unsubscribe_after,
    }
}

/// Says once a second what the log has left out; for the last time at the stop.
async fn say_left_out(open: Arc<OpenStreams>, stop: CancellationToken) {
    let mut beat = tokio::time::interval(Duration::from_secs(1));
    while stop.run_until_cancelled(beat.tick()).await.is_some() {
        open.say_left_out();
    }
    open.say_left_out();
}
