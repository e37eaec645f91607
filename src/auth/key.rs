//! One key that tokens are verified with.

use super::algorithm::Algorithm;
use super::mark::Mark;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};
use ring::{digest, hmac};
use std::fmt;

/// Bits of an RSA key, at least and at most: what `ring` takes.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// A key, its one algorithm, and what it is called. Tokens of a key that names its issuer are of that one alone.
#[derive(Clone)]
pub struct Key {
    pub(super) id: Option<Box<str>>,
    pub(super) issuer: Option<Box<str>>,
    algorithm: Algorithm,
    material: Material,
    /// Of the material.
    mark: Mark,
}

/// What is behind it. An RSA key never becomes a secret: the two are never one variant.
#[derive(Clone)]
enum Material {
    Secret(hmac::Key),
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    /// An uncompressed point, or the 32 bytes of Ed25519.
    Point(Vec<u8>),
}

/// Secrets stay out of it, and of public keys there is enough to tell one from another: replicas with different keys
/// have different settings.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let public = match &self.material {
            Material::Secret(_) => None,
            Material::Rsa(key) => Some(fingerprint(&key.n)),
            Material::Point(key) => Some(fingerprint(key)),
        };
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("issuer", &self.issuer)
            .field("algorithm", &self.algorithm)
            .field("public", &public)
            .finish_non_exhaustive()
    }
}

fn fingerprint(public: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, public);
    URL_SAFE_NO_PAD.encode(hash.as_ref().get(..9).unwrap_or_default())
}

impl Key {
    /// A secret that whoever signs shares.
    ///
    /// # Errors
    /// One sentence: it is too short, or the algorithm has no secret.
    pub fn secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, String> {
        let word = algorithm.as_str();
        let kind = match algorithm {
            Algorithm::Hs256 => hmac::HMAC_SHA256,
            Algorithm::Hs384 => hmac::HMAC_SHA384,
            Algorithm::Hs512 => hmac::HMAC_SHA512,
            _ => return Err(format!("{word} has a public key, and no secret")),
        };
        let least = algorithm.secret_bytes_min().unwrap_or_default();
        if secret.len() < least {
            return Err(format!(
                "a secret for {word} has at least {least} bytes, and this one has {}",
                secret.len()
            ));
        }
        Ok(Self::new(
            algorithm,
            Material::Secret(hmac::Key::new(kind, secret)),
            &[secret],
        ))
    }

    /// An RSA key: modulus and exponent, the first byte of either not zero.
    ///
    /// # Errors
    /// One sentence: its size, or the algorithm is another kind's.
    pub fn rsa(algorithm: Algorithm, n: &[u8], e: &[u8]) -> Result<Self, String> {
        if rsa_parameters(algorithm).is_none() {
            return Err(format!("an RSA key is not for {}", algorithm.as_str()));
        }
        if !RSA_BYTES.contains(&n.len()) {
            return Err(format!(
                "an RSA key has 2048 to 8192 bits, and this one has {}",
                n.len() * 8
            ));
        }
        let key = RsaPublicKeyComponents {
            n: n.to_vec(),
            e: e.to_vec(),
        };
        Ok(Self::new(algorithm, Material::Rsa(key), &[n, e]))
    }

    /// A point of P-256 (65 bytes), of P-384 (97 bytes), or the key of Ed25519 (32 bytes).
    ///
    /// # Errors
    /// One sentence: it is none of these, or the algorithm is another kind's.
    pub fn point(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, String> {
        let (expected, uncompressed) = match algorithm {
            Algorithm::Es256 => (65, true),
            Algorithm::Es384 => (97, true),
            Algorithm::EdDsa => (32, false),
            _ => {
                let word = algorithm.as_str();
                return Err(format!("an elliptic key is not for {word}"));
            }
        };
        if bytes.len() != expected || (uncompressed && bytes.first() != Some(&4)) {
            return Err(format!("this is no key for {}", algorithm.as_str()));
        }
        let material = Material::Point(bytes.to_vec());
        Ok(Self::new(algorithm, material, &[bytes]))
    }

    fn new(algorithm: Algorithm, material: Material, parts: &[&[u8]]) -> Self {
        Self {
            id: None,
            issuer: None,
            algorithm,
            material,
            mark: Mark::of(algorithm.as_str(), parts),
        }
    }

    /// By which the same key is known again: its material, and what it is called and for whom.
    pub(super) fn mark(&self) -> Mark {
        let text = |text: &Option<Box<str>>| format!("{text:?}");
        let (id, issuer) = (text(&self.id), text(&self.issuer));
        Mark::of(
            "key",
            &[&self.mark.bytes(), id.as_bytes(), issuer.as_bytes()],
        )
    }

    /// The same, called so in the header of tokens (`kid`).
    #[must_use]
    pub fn called(mut self, id: Option<&str>) -> Self {
        self.id = id.map(Into::into);
        self
    }

    /// The same, for tokens of one issuer alone.
    #[must_use]
    pub fn of_issuer(mut self, issuer: Option<&str>) -> Self {
        self.issuer = issuer.map(Into::into);
        self
    }

    /// Its algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// What it is called, if it is called anything.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether the signature is of these bytes. Takes no longer for one that begins right.
    #[must_use]
    pub fn verifies(&self, bytes: &[u8], signed: &[u8]) -> bool {
        match &self.material {
            Material::Secret(key) => hmac::verify(key, bytes, signed).is_ok(),
            Material::Rsa(key) => rsa_parameters(self.algorithm)
                .is_some_and(|parameters| key.verify(parameters, bytes, signed).is_ok()),
            Material::Point(key) => {
                let algorithm: &dyn signature::VerificationAlgorithm = match self.algorithm {
                    Algorithm::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
                    Algorithm::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
                    _ => &signature::ED25519,
                };
                let key = UnparsedPublicKey::new(algorithm, key);
                key.verify(bytes, signed).is_ok()
            }
        }
    }

    /// Signs; none unless it is a secret.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        match &self.material {
            Material::Secret(key) => Some(hmac::sign(key, bytes).as_ref().to_vec()),
            _ => None,
        }
    }
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}
