//! Tokens as an identity provider makes them: JWT signed with ES256, and the set of keys that says so.

use crate::tokens::compact;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// For how long tokens are good, in seconds.
const LIFE: u64 = 24 * 3600;
/// `{"alg":"ES256","kid":"bench"}`
const HEADER: &str = r#"{"alg":"ES256","kid":"bench"}"#;

/// Who signs tokens.
#[derive(Debug)]
pub struct Provider {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    /// The configuration of a gateway that takes its tokens.
    pub configuration: PathBuf,
}

impl Provider {
    /// A new one, whose keys and configuration are written into this directory.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn new(directory: &Path) -> io::Result<Self> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(failed)?;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random);
        let pair = pair.map_err(failed)?;
        // A point that is not compressed: 4, and two numbers of 32 bytes (SEC 1, section 2.3.3).
        let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
        let (x, y) = point.split_at(point.len() / 2);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let keys = directory.join("jwks.json");
        let set = serde_json::json!({"keys": [
            {"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "bench", "x": x, "y": y}
        ]});
        std::fs::write(&keys, set.to_string())?;
        let configuration = directory.join("tidegate.toml");
        let lines = format!("[[auth.keys]]\nfile = \"{}\"\n", keys.display());
        std::fs::write(&configuration, lines)?;
        Ok(Self {
            pair,
            random,
            configuration,
        })
    }

    /// A token of one user, who may read and publish this topic.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn token(&self, user: usize, topic: &str) -> io::Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let ends = now.map_err(io::Error::other)?.as_secs() + LIFE;
        let claims = serde_json::json!({
            "sub": format!("user-{user}"),
            "exp": ends,
            "tidegate": {"subscribe": [topic], "publish": [topic]},
        });
        compact(HEADER, &claims, |signed| {
            self.pair.sign(&self.random, signed).map_err(failed)
        })
    }

    /// One for each of so many users.
    ///
    /// # Errors
    /// As [`Provider::token`].
    pub fn tokens(&self, users: usize, topic: &str) -> io::Result<Vec<String>> {
        (0..users).map(|user| self.token(user, topic)).collect()
    }
}

/// ring says no more of what it cannot do than that.
fn failed(why: impl std::fmt::Debug) -> io::Error {
    io::Error::other(format!("no token can be signed: {why:?}"))
}

/// The same token with the signature of another.
#[must_use]
pub fn spoiled(token: &str, other: &str) -> String {
    let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
    let signature = other
        .rsplit_once('.')
        .map_or("", |(_, signature)| signature);
    format!("{signed}.{signature}")
}
