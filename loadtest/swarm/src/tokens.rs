//! Rights in a run of faults: who reads must bring a token, and each token runs out soon, so streams are cut on account of
//! that, too, and come back with another one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac::{HMAC_SHA256, Key, sign};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::time::{SystemTime, UNIX_EPOCH};

/// What every replica is told.
pub const SETTINGS: &[(&str, &str)] = &[
    ("TIDEGATE__AUTH__TOKEN_SECRET", SECRET),
    ("TIDEGATE__AUTH__PUBLISH_KEY", "publishers-know-it"),
    ("TIDEGATE__AUTH__LEEWAY", "0s"),
];

const SECRET: &str = "what signs the tokens of a run, and of nothing else";
/// `{"alg":"HS256"}`
const HEADER: &str = r#"{"alg":"HS256"}"#;
/// For how long tokens are good, in seconds: a reader needs several in a run.
const LIFE: u64 = 20;

/// A fresh token of one subscriber, who may read these topics (JWT, RFC 7519; HS256, RFC 7518, section 3.2).
#[must_use]
pub fn fresh(subscriber: usize, topics: &[String]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let claims = json!({
        "sub": format!("subscriber-{subscriber}"),
        "exp": now.unwrap_or_default().as_secs() + LIFE,
        "tidegate": {"subscribe": topics},
    });
    let key = Key::new(HMAC_SHA256, SECRET.as_bytes());
    let Ok(token) = compact(HEADER, &claims, |signed| {
        Ok::<_, Infallible>(sign(&key, signed))
    });
    token
}

/// The form of a token that goes over HTTP (RFC 7515, section 7.1), signed by `sign`.
///
/// # Errors
/// Those of `sign`.
pub(crate) fn compact<S: AsRef<[u8]>, E>(
    header: &str,
    claims: &Value,
    sign: impl FnOnce(&[u8]) -> Result<S, E>,
) -> Result<String, E> {
    let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
    let signed = format!("{}.{claims}", URL_SAFE_NO_PAD.encode(header));
    let signature = sign(signed.as_bytes())?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}
