//! The whole configuration, and what parts of the program make of it.

use super::auth::Auth;
use super::cors::Cors;
use super::ingest::Ingest;
use super::redis::RedisConfig;
use super::sections::{
    self, Drain, Engine, Limits, Log, Logging, Ops, Publish, Repair, Replica, Stream,
};
use super::server::Server;
use super::settled::Settled;
use super::source::{Faults, Flags, Source};
use crate::broker::redis::Settings;
use crate::broker::{Bounds, Retention};
use crate::hub::window::Windows;
use crate::limits::AddressLimits;
use std::net::SocketAddr;

/// Everything that can be configured, checked.
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "each section is a type of its own, documented there"
)]
pub struct Config {
    pub server: Server,
    pub ops: Ops,
    pub replica: Replica,
    pub redis: RedisConfig,
    pub log: Log,
    pub window: Windows,
    pub stream: Stream,
    pub engine: Engine,
    pub repair: Repair,
    pub publish: Publish,
    pub ingest: Ingest,
    pub limits: Limits,
    pub auth: Auth,
    pub cors: Cors,
    pub drain: Drain,
    pub logging: Logging,
    pub(super) settled: Settled,
}

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// [`Faults`], all of them.
    pub fn load(flags: &Flags) -> Result<Self, Faults> {
        let mut source = Source::read(flags)?;
        let mut config = Self::take(&mut source);
        config.settled = source.settled().into();
        source.finish()?;
        Ok(config)
    }

    /// The keys that exist, in the order in which they are read.
    #[must_use]
    pub fn keys() -> Vec<&'static str> {
        let mut source = Source::default();
        Self::take(&mut source);
        source.into_keys()
    }

    fn take(s: &mut Source) -> Self {
        let server = Server::take(s);
        let redis = RedisConfig::take(s);
        let ingest = Ingest::take(s, &redis.prefix);
        Self {
            auth: Auth::take(s, server.listen),
            cors: Cors::take(s),
            server,
            ops: Ops::take(s),
            replica: Replica::take(s),
            redis,
            log: Log::take(s),
            window: sections::window(s),
            stream: Stream::take(s),
            engine: Engine::take(s),
            repair: Repair::take(s),
            publish: Publish::take(s),
            ingest,
            limits: Limits::take(s),
            drain: Drain::take(s),
            logging: Logging::take(s),
            settled: Settled::default(),
        }
    }

    /// A number that is the same for replicas with the same settings: all but their own names and
    /// addresses, and secrets, which do not show in `Debug`.
    #[must_use]
    pub fn hash(&self) -> u32 {
        let mut common = self.clone();
        common.replica.name.clear();
        common.ops.listen = None;
        common.server.listen = SocketAddr::from(([0, 0, 0, 0], 0));
        crc32fast::hash(format!("{common:?}").as_bytes())
    }

    /// What one address may take.
    #[must_use]
    pub fn address_limits(&self) -> AddressLimits {
        let names_proxies = !self.server.trusted_proxies.is_empty();
        self.limits.address.settled(names_proxies)
    }

    /// What a log keeps by this config.
    #[must_use]
    pub fn retention(&self) -> Retention {
        Retention {
            bounds: Bounds {
                events_max: self.log.events_max,
                age_ms: crate::time::millis(self.log.age_max),
            },
            rules: self.log.overrides.clone(),
            event_bytes_max: self.publish.event_bytes_max,
            topics_max: self.limits.topics_max,
            idempotency_ms: crate::time::millis(self.publish.idempotency_window),
            leap_ms: crate::time::millis(self.redis.leap),
        }
    }

    /// How Redis is reached and used; none without `redis.url`.
    #[must_use]
    pub fn redis_settings(&self) -> Option<Settings> {
        let redis = &self.redis;
        Some(Settings {
            access: redis.access.clone()?,
            prefix: redis.prefix.clone(),
            partitions: redis.partitions,
            pool_size: redis.pool_size,
            connect_timeout: redis.connect_timeout,
            command_timeout: redis.command_timeout,
            backoff_max: redis.backoff_max,
            live_queue_bytes: redis.live_queue_bytes,
            allow_eviction: redis.allow_eviction,
            replica: self.replica.name.clone(),
            retention: self.retention(),
            wait_replicas: self.log.wait_replicas,
            wait_timeout: self.log.wait_timeout,
        })
    }
}
