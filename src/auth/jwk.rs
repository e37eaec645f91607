//! Keys as identity providers publish them: a JWK set ([RFC 7517](https://www.rfc-editor.org/rfc/rfc7517)).

use super::algorithm::Algorithm;
use super::key::Key;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// Keys of one set, at most.
pub(super) const KEYS_MAX: usize = 64;

#[derive(Deserialize)]
struct Set {
    keys: Vec<Jwk>,
}

/// One key. What else it says is for others.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default, rename = "use")]
    purpose: Option<String>,
    #[serde(default)]
    key_ops: Option<Vec<String>>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
    #[serde(default)]
    k: Option<String>,
}

/// The keys of a set that tokens can be verified with. `algorithm` is that of keys that name none; without it, that of
/// their kind. Keys of other kinds and for other uses are passed over, as RFC 7517, section 5, has it.
///
/// # Errors
/// One sentence: it is no set, it is too large, none can be used, or one of a kind that is known is malformed.
pub fn key_set(text: &str, algorithm: Option<Algorithm>) -> Result<Vec<Key>, String> {
    let set: Set = serde_json::from_str(text).map_err(|_| {
        "this is no JWK set, {\"keys\":[...]}, of which each key has kty".to_owned()
    })?;
    if set.keys.len() > KEYS_MAX {
        return Err(format!(
            "a set has at most {KEYS_MAX} keys, and this one has {}",
            set.keys.len()
        ));
    }
    let mut keys = Vec::new();
    for (index, jwk) in set.keys.iter().enumerate() {
        let key = jwk.key(algorithm);
        let key = key.map_err(|why| format!("key {} of the set: {why}", index + 1))?;
        keys.extend(key);
    }
    if keys.is_empty() {
        return Err("no key of the set can verify a token".to_owned());
    }
    Ok(keys)
}

impl Jwk {
    fn key(&self, algorithm: Option<Algorithm>) -> Result<Option<Key>, String> {
        let is_for_signatures = self.purpose.as_deref().is_none_or(|it| it == "sig");
        let operations = self.key_ops.as_ref();
        let verifies = operations.is_none_or(|all| all.iter().any(|it| it == "verify"));
        if !is_for_signatures || !verifies {
            return Ok(None);
        }
        let said = match self.alg.as_deref().map(Algorithm::parse) {
            // It is for something that is not known here.
            Some(None) => return Ok(None),
            Some(said) => said,
            None => algorithm,
        };
        let key = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                let (n, e) = (bytes("n", self.n.as_ref())?, bytes("e", self.e.as_ref())?);
                Key::rsa(said.unwrap_or(Algorithm::Rs256), &n, &e)
            }
            ("EC", Some("P-256")) => self.on_curve(said.unwrap_or(Algorithm::Es256), 32),
            ("EC", Some("P-384")) => self.on_curve(said.unwrap_or(Algorithm::Es384), 48),
            ("OKP", Some("Ed25519")) => {
                let x = bytes("x", self.x.as_ref())?;
                Key::point(said.unwrap_or(Algorithm::EdDsa), &x)
            }
            ("oct", _) => {
                let secret = bytes("k", self.k.as_ref())?;
                Key::secret(said.unwrap_or(Algorithm::Hs256), &secret)
            }
            _ => return Ok(None),
        };
        Ok(Some(key?.called(self.kid.as_deref())))
    }

    fn on_curve(&self, algorithm: Algorithm, width: usize) -> Result<Key, String> {
        let (x, y) = (bytes("x", self.x.as_ref())?, bytes("y", self.y.as_ref())?);
        if x.len() != width || y.len() != width {
            return Err(format!("x and y have {width} bytes each"));
        }
        Key::point(algorithm, &[&[4], x.as_slice(), &y].concat())
    }
}

/// A member in base64url.
fn bytes(name: &str, text: Option<&String>) -> Result<Vec<u8>, String> {
    let text = text.ok_or_else(|| format!("it has no {name}"))?;
    let decoded = URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
    decoded.map_err(|_| format!("{name} is not base64url"))
}
