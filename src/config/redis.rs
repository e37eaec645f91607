//! `redis`: where the log lives, and how it is reached.

use super::source::Source;
use crate::broker::redis::{Access, Identity};
use crate::topic::PartitionNo;
use secrecy::SecretString;
use std::time::Duration;

/// Where the log lives, and how it is reached.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// None keeps the log in memory.
    pub access: Option<Access>,
    /// Begins every key, channel and function.
    pub prefix: String,
    /// Ordering domains, each with a clock of its own. All replicas must agree, and a log that was
    /// written with another number is not found.
    pub partitions: PartitionNo,
    /// Connections for commands: so many can be under way at once, others wait for one.
    pub pool_size: usize,
    /// Time for a connection to stand.
    pub connect_timeout: Duration,
    /// Time for a command's answer, waiting for a connection included.
    pub command_timeout: Duration,
    /// Longest pause between two attempts to reconnect.
    pub backoff_max: Duration,
    /// How far the clock leaps when another process takes the log over.
    pub leap: Duration,
    /// How long a topic without subscribers stays subscribed.
    pub unsubscribe_after: Duration,
    /// Bytes of live frames that may wait in memory.
    pub live_queue_bytes: usize,
    /// Silence on the live path after which it is probed.
    pub tick_after: Duration,
    /// Run although Redis may evict keys.
    pub allow_eviction: bool,
}

/// Whether a Redis is named; without one the log is kept in memory.
pub(super) fn names_redis(s: &Source) -> bool {
    s.has("redis.url") || s.has("redis.url_file")
}

impl RedisConfig {
    pub(super) fn take(s: &mut Source) -> Self {
        let redis = Self {
            access: access(s),
            prefix: s.get("redis.prefix", "tidegate"),
            partitions: s.get("redis.partitions", "1"),
            pool_size: s.count("redis.pool_size", "8"),
            connect_timeout: s.positive("redis.connect_timeout", "2s"),
            command_timeout: s.positive("redis.command_timeout", "2s"),
            backoff_max: s.duration("redis.backoff_max", "1s"),
            leap: s.duration("redis.leap", "2s"),
            unsubscribe_after: s.duration("redis.unsubscribe_after", "30s"),
            live_queue_bytes: s.count("redis.live_queue_bytes", "67108864"),
            tick_after: s.positive("redis.tick_after", "15s"),
            allow_eviction: s.flag("redis.allow_eviction", "false"),
        };
        redis.check(s);
        redis
    }

    fn check(&self, s: &mut Source) {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let begins = self.prefix.starts_with(|c: char| c.is_ascii_lowercase());
        if !begins || !self.prefix.chars().all(plain) {
            s.fault(
                "redis.prefix",
                "must be lower-case letters, digits and _, and begin with a letter: function names contain it",
            );
        }
        if self.partitions == 0 {
            s.fault("redis.partitions", "must be at least 1");
        }
        if self.partitions > 1 && !names_redis(s) {
            s.fault("redis.partitions", "must be 1 without redis.url");
        }
    }
}

/// The way to Redis, with its certificates and users.
fn access(s: &mut Source) -> Option<Access> {
    // A file that is there is read, whether it counts or not: one that is at fault shall not be found out at night.
    let in_file = s.file("redis.url_file");
    let (said_in, url) = match s.optional::<String>("redis.url") {
        Some(url) => ("redis.url", Some(url)),
        None => ("redis.url_file", in_file),
    };
    let sentinel_user = s.optional::<String>("redis.sentinel_username");
    let in_file = s.file("redis.sentinel_password_file");
    let sentinel_password = s.optional("redis.sentinel_password").or(in_file);
    let authorities = s.pem("redis.tls_ca_file", "CERTIFICATE");
    let certificates = s.pem("redis.tls_cert_file", "CERTIFICATE");
    let key = s.pem("redis.tls_key_file", "PRIVATE KEY");
    if s.has("redis.tls_cert_file") != s.has("redis.tls_key_file") {
        s.fault("redis.tls_cert_file", "goes with redis.tls_key_file");
    }
    let parsed = Access::parse(&url?.into());
    let access = parsed.map_err(|why| s.fault(said_in, &why)).ok()?;
    if !access.has_sentinels() && (sentinel_user.is_some() || sentinel_password.is_some()) {
        let what = "must begin with redis+sentinel:// if redis.sentinel_* is set";
        s.fault(said_in, what);
    }
    let password = sentinel_password.map(SecretString::from);
    let access = access.with_sentinel_user(sentinel_user.as_deref(), password.as_ref());
    let identity = certificates.zip(key).map(|(certificates, key)| Identity {
        certificates,
        key: key.into(),
    });
    if authorities.is_none() && identity.is_none() {
        return Some(access);
    }
    if !access.is_tls() {
        let what = "must begin with rediss if redis.tls_* is set";
        s.fault(said_in, what);
        return None;
    }
    let access = access.with_certificates(authorities, identity);
    access
        .map_err(|why| s.fault("redis.tls_ca_file, tls_cert_file or tls_key_file", &why))
        .ok()
}
