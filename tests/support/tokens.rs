//! Tokens (JWT, RFC 7519) for gateways that have [`TOKENS`] in their configuration.

use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};
use tidegate::auth::{Algorithm, Key, mint};

pub const SECRET: &str = "a secret of thirty-two bytes and a few more";
pub const TOKENS: (&str, &str) = ("auth.token_secret", SECRET);

/// Seconds since 1970.
pub fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(now.unwrap().as_secs()).unwrap()
}

/// A token with these claims, by [`SECRET`]. It is good for ten minutes, if they say nothing else.
pub fn token_of(claims: &Value) -> String {
    token_by(SECRET, claims)
}

/// The same by another secret.
pub fn token_by(secret: &str, claims: &Value) -> String {
    let key = Key::secret(Algorithm::Hs256, secret.as_bytes()).unwrap();
    let mut members = claims.as_object().unwrap().clone();
    members.entry("exp").or_insert(json!(now() + 600));
    mint(&key, &members).unwrap()
}
