//! What of a configuration can change while a replica runs.

use super::all::Config;
use super::source::Faults;

/// Keys that a reload takes: who may read and write, the way to Redis, the limits of requests, what the log keeps, and
/// what is logged. All others are taken at the start.
pub const RELOADABLE: [&str; 59] = [
    "auth.publish_key",
    "auth.publish_key_file",
    "auth.open_publishing",
    "auth.publishers",
    "auth.token_secret",
    "auth.token_secret_file",
    "auth.keys",
    "auth.jwks_ca_file",
    "auth.jwks_refresh",
    "auth.jwks_floor",
    "auth.jwks_stale_max",
    "auth.jwks_unknown_max",
    "auth.jwks_time_max",
    "auth.jwks_bytes_max",
    "auth.issuers",
    "auth.audiences",
    "auth.token_type",
    "auth.leeway",
    "auth.token_life_max",
    "auth.token_bytes_max",
    "auth.patterns_max",
    "auth.tokens_known_max",
    "auth.claim",
    "auth.rules",
    "auth.anonymous",
    "auth.cookie",
    "auth.query_token",
    "auth.denied_max",
    "auth.ticket_life",
    "auth.tickets_each_max",
    "redis.url",
    "redis.url_file",
    "redis.sentinel_username",
    "redis.sentinel_password",
    "redis.sentinel_password_file",
    "redis.tls_ca_file",
    "redis.tls_cert_file",
    "redis.tls_key_file",
    "limits.streams_max",
    "limits.topics_per_stream_max",
    "limits.types_per_stream_max",
    "limits.types_bytes_max",
    "limits.feeds_max",
    "limits.topics_max",
    "limits.replays_max",
    "limits.page_bytes_max",
    "limits.answer_bytes_max",
    "limits.history_events_max",
    "limits.address.streams_max",
    "limits.address.streams_per_second",
    "limits.address.topics_max",
    "limits.address.replays_max",
    "limits.address.publishes_per_second",
    "limits.address.entries_max",
    "log.events_max",
    "log.age_max",
    "log.overrides",
    "logging.level",
    "logging.stream_lines_max",
];

/// A configuration to go on with.
#[derive(Clone, Debug)]
pub struct Reload {
    /// What is in force from now on.
    pub config: Config,
    /// Keys that have changed and are in force now.
    pub taken: Vec<&'static str>,
    /// Keys that have changed, and are taken at the next start.
    pub left: Vec<&'static str>,
}

impl Config {
    /// What a replica with this configuration makes of a newer one.
    ///
    /// # Errors
    /// [`Faults`], if the two together are not safe.
    pub fn reload(&self, newer: Self) -> Result<Reload, Faults> {
        // The newer file may name another address; this one is listened at.
        let safe = newer.auth.check(self.server.listen);
        safe.map_err(|why| Faults(vec![format!("server.listen: {why}")]))?;
        // A log in memory does not become one in Redis while streams are open, nor the other way round.
        let stays = self.redis.access.is_some() == newer.redis.access.is_some();
        let keys: Vec<&str> = RELOADABLE
            .into_iter()
            .filter(|key| stays || !key.starts_with("redis."))
            .collect();
        let changed = self.settled.changed(&newer.settled);
        let (taken, left) = changed.into_iter().partition(|key| keys.contains(key));
        let mut config = self.clone();
        config.auth = newer.auth;
        if stays {
            config.redis.access = newer.redis.access;
        }
        config.limits = newer.limits;
        config.log.events_max = newer.log.events_max;
        config.log.age_max = newer.log.age_max;
        config.log.overrides = newer.log.overrides;
        config.logging.level = newer.logging.level;
        config.logging.stream_lines_max = newer.logging.stream_lines_max;
        config.settled.take(&newer.settled, &keys);
        Ok(Reload {
            config,
            taken,
            left,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reload_takes_are_keys_and_whole_sections_of_auth_and_limits() {
        let keys = Config::keys();
        for key in RELOADABLE {
            assert!(keys.contains(&key), "{key}");
        }
        let section = |key: &&&str| key.starts_with("auth.") || key.starts_with("limits.");
        for key in keys.iter().filter(section) {
            assert!(RELOADABLE.contains(key), "{key}");
        }
    }
}
