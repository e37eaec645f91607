//! Credentials, read from any bytes. See [`crate::fuzz`].

use super::action::Action;
use super::algorithm::Algorithm;
use super::authority::Tokens;
use super::claims::{Expected, Seconds};
use super::credentials::Fields;
use super::denylist::{Denial, Denylist};
use super::jwk::key_set;
use super::jwks::KeySets;
use super::key::Key;
use super::keyring::Keyring;
use super::rule::ClaimRule;
use super::spki::public_keys;
use super::ticket::Ticket;
use crate::topic::Topic;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::sync::Arc;
use std::time::Duration;

const NOW: Seconds = 1_700_000_000;
const PATTERNS_MAX: usize = 16;

/// A token that nobody has signed, and one whose header and claims are these bytes, signed well.
pub(crate) fn token(bytes: &[u8]) {
    let Ok(key) = Key::secret(Algorithm::Hs256, &[7; 32]) else {
        return;
    };
    let rules = ["user:{sub}", "team:{teams}:*", "{path:path}"];
    let rules = rules.map(|rule| ClaimRule::parse(rule, vec![Action::Subscribe], None));
    let tokens = Tokens {
        keys: Keyring::new(vec![key.clone()]),
        sets: KeySets::default(),
        expected: Expected {
            leeway: Duration::from_secs(30),
            life_max: Duration::from_secs(3600),
            ..Expected::default()
        },
        bytes_max: 8192,
        patterns_max: PATTERNS_MAX,
        claim: "tidegate".to_owned(),
        rules: rules.into_iter().flatten().collect::<Arc<[ClaimRule]>>(),
    };
    assert!(tokens.judge(&String::from_utf8_lossy(bytes), NOW).is_err());
    let at = bytes.iter().position(|byte| *byte == b'\n');
    let (header, claims) = bytes.split_at(at.unwrap_or_default());
    let signed = [header, claims]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".");
    let signature = key.sign(signed.as_bytes()).unwrap_or_default();
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    let Ok(accepted) = tokens.judge(&token, NOW) else {
        return;
    };
    assert!(accepted.rights.count() <= PATTERNS_MAX && accepted.until > NOW);
    assert!(accepted.until <= NOW + 3600 + 60);
    // What rules grant lies below what they say, and the gateway's own is granted by name alone.
    for pattern in accepted.rights.patterns(Action::Subscribe) {
        assert!(Topic::parse(&pattern.as_str().replace('*', "x")).is_ok());
    }
}

/// Fields of a request: lines of `Authorization`, then `Cookie`, then the query, then tickets, apart by empty lines.
pub(crate) fn fields(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.split("\n\n");
    let mut lines = || parts.next().unwrap_or_default().lines();
    let fields = Fields {
        authorization: lines().map(Some).collect(),
        cookie: lines().collect(),
        query: lines().collect(),
        ticket: lines().collect(),
    };
    if let Ok(Some(credential)) = fields.credential(&["__Host-tidegate", "tidegate"]) {
        assert!(text.contains(credential.text));
    }
    for given in &fields.ticket {
        if let Some(ticket) = Ticket::parse(given) {
            assert_eq!(ticket.text(), *given);
            assert!(ticket.open(bytes).is_none());
        }
    }
}

/// A denial as a store keeps it. What cannot be read is learnt all the same.
pub(crate) fn denial(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(denial) = Denial::parse(&text) {
        assert_eq!(Denial::parse(&denial.text()), Some(denial));
    }
    let mut list = Denylist::default();
    assert!(list.learn(1, &text, 1) && !list.learn(1, &text, 2));
}

/// Keys in a file.
pub(crate) fn keys(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for read in [key_set(&text, None), public_keys(&text, None)] {
        for key in read.unwrap_or_default() {
            assert!(!key.verifies(b"signed", &[0; 64]));
        }
    }
}
