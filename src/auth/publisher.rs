//! Publishers by name: each has keys of its own, and rights.
//!
//! A key is `tgk_` and 43 letters that are 32 random bytes. The configuration has its SHA-256 alone, so that whoever reads
//! the file cannot publish. A hash that is slow on purpose would add nothing: nobody guesses 256 bits.

use super::mark::Mark;
use super::rights::Rights;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use std::fmt::Write as _;
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

/// What such a key begins with, so that it is told from a token.
pub(super) const KEY_PREFIX: &str = "tgk_";
/// What its hash begins with.
const HASH_PREFIX: &str = "sha256:";
/// Entries of `auth.publishers`, at most: each request with such a key is compared with all.
pub const PUBLISHERS_MAX: usize = 256;
/// Names in logs and metrics of whoever is no publisher with a name.
pub(super) const KINDS: [&str; 3] = ["anyone", "publish_key", "token"];
/// Bytes of a publisher's name, at most.
const NAME_BYTES_MAX: usize = 64;

/// The hash of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyHash([u8; 32]);

impl std::fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_string())
    }
}

impl std::fmt::Display for KeyHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::from(HASH_PREFIX);
        for byte in self.0 {
            write!(text, "{byte:02x}")?;
        }
        f.write_str(&text)
    }
}

impl KeyHash {
    /// Of a key.
    #[must_use]
    pub fn of(key: &str) -> Self {
        let hash = digest::digest(&digest::SHA256, key.as_bytes());
        Self(hash.as_ref().try_into().unwrap_or_default())
    }

    /// As `tidegate key new` prints it: `sha256:` and 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(HASH_PREFIX)?;
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if digits.len() != 64 || !is_hex {
            return None;
        }
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            let pair = digits.get(index * 2..index * 2 + 2)?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

/// A new key, of the kernel's random bytes.
///
/// # Errors
/// The kernel has none.
pub fn new_key() -> Result<String, String> {
    let mut bytes = [0; 32];
    let random = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&random, &mut bytes)
        .map_err(|_| "the kernel gives no random bytes".to_owned())?;
    Ok(format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// One entry of `auth.publishers`. Two with the same name are one publisher with two keys, as while one is replaced.
#[derive(Clone, Debug)]
pub struct Publisher {
    /// What it is called in logs and metrics.
    pub name: Arc<str>,
    /// Of its key.
    pub hash: KeyHash,
    /// What it may do.
    pub rights: Arc<Rights>,
}

impl Publisher {
    /// By which the same entry is known again: with other rights it is another one.
    pub(super) fn mark(&self) -> Mark {
        let rights = format!("{:?}", self.rights);
        Mark::of("publisher", &[&self.hash.0, rights.as_bytes()])
    }
}

/// Checks a publisher's name.
///
/// # Errors
/// One sentence.
pub fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if KINDS.contains(&name) {
        return Err(format!(
            "must not be one of {}: they stand for others",
            KINDS.join(", ")
        ));
    }
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(plain) {
        Ok(())
    } else {
        Err(format!(
            "must be 1 to {NAME_BYTES_MAX} letters, digits, - _ and ."
        ))
    }
}

/// Whose key this is. All are compared, whichever it is, so that time tells nothing.
#[must_use]
pub(super) fn find<'a>(publishers: &'a [Publisher], key: &str) -> Option<&'a Publisher> {
    let hash = KeyHash::of(key);
    let mut found = None;
    for publisher in publishers {
        if bool::from(publisher.hash.0.ct_eq(&hash.0)) {
            found = Some(publisher);
        }
    }
    found
}

#[cfg(test)]
#[allow(
    clippy::string_slice,
    reason = "keys and hashes are ASCII, and a failed step ends the test"
)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_hash_alone() {
        let keys = [(); 3].map(|()| new_key().unwrap());
        let publishers: Vec<Publisher> = keys
            .iter()
            .enumerate()
            .map(|(index, key)| Publisher {
                name: format!("p{index}").into(),
                hash: KeyHash::parse(&KeyHash::of(key).to_string()).unwrap(),
                rights: Arc::default(),
            })
            .collect();
        for (index, key) in keys.iter().enumerate() {
            assert_eq!(key.len(), 47);
            let name = find(&publishers, key).map(|publisher| publisher.name.to_string());
            assert_eq!(name, Some(format!("p{index}")));
        }
        for other in ["", "tgk_", &new_key().unwrap(), &keys[0][..46]] {
            assert!(find(&publishers, other).is_none());
        }
    }

    #[test]
    fn a_hash_is_of_one_form() {
        let hash = KeyHash::of("x").to_string();
        // sha256 of the letter x.
        let known = "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
        assert_eq!(hash, known);
        let (digits, long) = (&known[7..], format!("{known}0"));
        for bad in [
            digits,
            &known[..70],
            &long,
            "",
            "sha256:",
            "sha512:00",
            &known.replace('2', "+"),
        ] {
            assert_eq!(KeyHash::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_name_is_plain() {
        assert!(check_name("billing-eu_1.2").is_ok());
        for bad in ["", "a b", "a\n", "a\u{1f}", "ä", "token", &"x".repeat(65)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
