//! A token, judged as a replica with this configuration would, with the keys that its key sets have now.

use crate::app::jwks::fetch_once;
use crate::auth::{Accepted, Authority, Seconds};
use crate::config::Config;
use crate::metrics::AuthRefusal;
use std::time::{SystemTime, UNIX_EPOCH};

/// A key set, and what came of fetching it: how many keys it has, or why there are none.
#[derive(Debug)]
pub(super) struct FetchedSet {
    pub(super) address: String,
    pub(super) keys: Result<usize, String>,
}

/// Fetches all key sets of a configuration.
pub(super) async fn fetch_sets(authority: &Authority, config: &Config) -> Vec<FetchedSet> {
    let mut fetched = Vec::new();
    for set in authority.tokens().sets.iter() {
        fetched.push(FetchedSet {
            address: set.source().address.to_string(),
            keys: fetch_once(set, &config.auth.jwks).await,
        });
    }
    fetched
}

/// Judges a token.
pub(super) async fn judge(
    authority: &Authority,
    config: &Config,
    token: &str,
) -> (Vec<FetchedSet>, Result<Accepted, AuthRefusal>) {
    let tokens = authority.tokens();
    // Sets that are fetched after the token was shown are sure not to have its key.
    let _not_known_yet = tokens.judge(token, now());
    let sets = fetch_sets(authority, config).await;
    (sets, tokens.judge(token, now()))
}

/// Seconds since 1970 by this machine's clock.
pub(super) fn now() -> Seconds {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Seconds::try_from(now.unwrap_or_default().as_secs()).unwrap_or(Seconds::MAX)
}
