//! `auth.token_secret` and `auth.keys`: what tokens are signed with.

use super::secret::{note_readable, secret_file};
use super::source::Source;
use crate::auth::jwks::{self, Address, KeySets, Timing};
use crate::auth::{Algorithm, Key, Keyring, key_set, public_keys};
use std::fmt::Write as _;

/// Keys of tokens, at most, those that are fetched not counted.
const KEYS_MAX: usize = 64;
/// Addresses of key sets, at most: a token of an unknown key has each of them asked.
const ADDRESSES_MAX: usize = 8;

/// Keys that are known, and sets that are fetched.
pub(super) struct TokenKeys {
    pub(super) keys: Keyring,
    pub(super) sets: KeySets,
}

pub(super) fn token_keys(
    s: &mut Source,
    timing: Timing,
    readable_by_all: &mut Vec<String>,
) -> TokenKeys {
    const KEY: &str = "auth.keys";
    let in_file = secret_file(s, "auth.token_secret_file", readable_by_all);
    let said = s.optional::<String>("auth.token_secret");
    let said_in = if said.is_some() {
        "auth.token_secret"
    } else {
        "auth.token_secret_file"
    };
    let (mut keys, mut sources) = (Vec::new(), Vec::<jwks::Source>::new());
    if let Some(secret) = said.or(in_file) {
        match Key::secret(Algorithm::Hs256, secret.as_bytes()) {
            Ok(key) => keys.push(key),
            Err(why) => s.fault(said_in, &why),
        }
    }
    let mut settled = String::new();
    for entry in s.tables(KEY, key_entry) {
        keys.extend(entry.keys);
        sources.extend(entry.source);
        readable_by_all.extend(entry.readable_by_all);
        // Of what is secret a hash is kept, which no other process can compare with.
        let _written = write!(settled, "{}\n\n", entry.settled);
    }
    if keys.len() > KEYS_MAX {
        s.fault(KEY, &format!("must be at most {KEYS_MAX} in all"));
    }
    if sources.len() > ADDRESSES_MAX {
        s.fault(KEY, &format!("at most {ADDRESSES_MAX} may have a url"));
    }
    for (index, source) in sources.iter().enumerate() {
        let mut before = sources.iter().take(index);
        if before.any(|other| other.address.url() == source.address.url()) {
            s.fault(KEY, &format!("{} stands twice", source.address));
        }
    }
    s.settle(KEY, &settled);
    TokenKeys {
        keys: Keyring::new(keys),
        sets: KeySets::new(sources, timing),
    }
}

/// What one of `auth.keys` comes to.
struct KeyEntry {
    keys: Vec<Key>,
    /// Where they are fetched from, in place of keys.
    source: Option<jwks::Source>,
    settled: String,
    readable_by_all: Option<String>,
}

fn key_entry(s: &mut Source) -> Option<KeyEntry> {
    let id = s.optional::<String>("id");
    let issuer = s.optional::<String>("issuer");
    let word = s.optional::<String>("algorithm");
    let algorithm = word.as_deref().and_then(Algorithm::parse);
    if let Some(word) = word.as_deref().filter(|_| algorithm.is_none()) {
        let all = Algorithm::words();
        s.fault("algorithm", &format!("{word:?} is not one of {all}"));
    }
    let mut readable = Vec::new();
    let secret = s.optional::<String>("secret");
    let secret_in_file = secret_file(s, "secret_file", &mut readable);
    let public = s.file("file");
    let url = s.optional::<String>("url");
    let texts = [&secret, &secret_in_file, &public, &url];
    if ["secret", "secret_file", "file", "url"]
        .iter()
        .filter(|key| s.has(key))
        .count()
        != 1
    {
        s.fault("file", "a key has one of secret, secret_file, file and url");
    }
    let settled = format!("{id:?} {issuer:?} {word:?} {texts:?}");
    if let Some(url) = url {
        return fetched(s, &url, issuer, algorithm, settled);
    }
    let made = match (secret.or(secret_in_file), public) {
        (Some(secret), _) => {
            let algorithm = algorithm.unwrap_or(Algorithm::Hs256);
            Key::secret(algorithm, secret.as_bytes()).map(|key| vec![key])
        }
        (None, Some(text)) if text.starts_with('{') => key_set(&text, algorithm),
        (None, Some(text)) => public_keys(&text, algorithm),
        (None, None) => return None,
    };
    let keys = match made {
        Ok(keys) => keys,
        Err(why) => {
            let key = if s.has("file") { "file" } else { "secret" };
            s.fault(key, &why);
            return None;
        }
    };
    let has_secret = |key: &Key| key.algorithm().secret_bytes_min().is_some();
    if s.has("file") && keys.iter().any(has_secret) {
        note_readable(&s.said("file").unwrap_or_default(), &mut readable);
    }
    let named = keys.into_iter().map(|key| {
        let own = key.id().map(str::to_owned);
        key.called(id.as_deref().or(own.as_deref()))
            .of_issuer(issuer.as_deref())
    });
    Some(KeyEntry {
        keys: named.collect(),
        source: None,
        settled,
        readable_by_all: readable.pop(),
    })
}

/// Keys that are fetched from an address.
fn fetched(
    s: &mut Source,
    url: &str,
    issuer: Option<String>,
    algorithm: Option<Algorithm>,
    settled: String,
) -> Option<KeyEntry> {
    if s.has("id") {
        s.fault(
            "id",
            "does not go with url: a set says what its keys are called",
        );
    }
    if algorithm.is_some_and(|algorithm| algorithm.secret_bytes_min().is_some()) {
        let what = "must be one with public keys, with url: who could fetch a secret could sign";
        s.fault("algorithm", what);
    }
    let address = url.parse::<Address>();
    // The URL may hold a secret.
    let address = address.map_err(|why| s.fault("url", &why)).ok()?;
    Some(KeyEntry {
        keys: Vec::new(),
        source: Some(jwks::Source {
            address,
            issuer,
            algorithm,
        }),
        settled,
        readable_by_all: None,
    })
}
