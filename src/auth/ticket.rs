//! Tickets: names for a token that are good once, and for a moment.
//!
//! An `EventSource` sends no header, so what says who it is stands in its URL, and URLs are written down. A ticket in a URL is
//! worth nothing a moment later, whoever reads it.
//!
//! A store keeps what a ticket stands for, and is not trusted with it:
//!
//! ```text
//! ticket = "tgt_" and 32 random bytes in base64url                                     the caller has it
//! name   = SHA-256("tidegate ticket name" 0 ticket)                                    the store is asked by it
//! key    = HKDF-SHA-256(salt "tidegate ticket", ticket, "seal")                        made when it is needed
//! sealed = AES-256-GCM(key, nonce 0, token)                                            the store keeps it
//! ```
//!
//! So whoever reads the store neither finds a ticket there nor a token. A key seals one text, so its nonce need not differ.
//!
//! Sources: [RFC 5869](https://www.rfc-editor.org/rfc/rfc5869) (HKDF), [NIST SP
//! 800-38D](https://doi.org/10.6028/NIST.SP.800-38D) (GCM).

use super::grant::Who;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{aead, digest, hkdf};
use std::fmt;

/// What a ticket begins with, so that people tell it from a token.
const PREFIX: &str = "tgt_";
/// Letters of 32 bytes in base64url.
const LETTERS: usize = 43;

/// A ticket. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket([u8; 32]);

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket")
    }
}

impl Ticket {
    /// Of random bytes, which nothing else is made of.
    #[must_use]
    pub const fn of(random: [u8; 32]) -> Self {
        Self(random)
    }

    /// Of the kernel's random bytes.
    ///
    /// # Errors
    /// The kernel has none.
    pub fn new() -> Result<Self, String> {
        let mut bytes = [0; 32];
        let random = ring::rand::SystemRandom::new();
        ring::rand::SecureRandom::fill(&random, &mut bytes)
            .map_err(|_| "the kernel gives no random bytes".to_owned())?;
        Ok(Self(bytes))
    }

    /// As a caller sends it; none if it is none. One ticket has one text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let letters = text.strip_prefix(PREFIX)?;
        if letters.len() != LETTERS {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(letters).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// For its caller.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.0))
    }

    /// By which a store knows it: 43 letters, digits, `-` and `_`. It leads back to no ticket.
    #[must_use]
    pub fn name(&self) -> String {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(b"tidegate ticket name\0");
        hash.update(&self.0);
        URL_SAFE_NO_PAD.encode(hash.finish())
    }

    /// A token, for a store. None: the library refuses, which it does for no text that fits memory.
    #[must_use]
    pub fn seal(&self, token: &str) -> Option<Vec<u8>> {
        let mut bytes = token.as_bytes().to_vec();
        self.key()?
            .seal_in_place_append_tag(nonce(), aead::Aad::empty(), &mut bytes)
            .ok()?;
        Some(bytes)
    }

    /// The token that was sealed. None: by another ticket, or it was changed.
    #[must_use]
    pub fn open(&self, sealed: &[u8]) -> Option<String> {
        let mut bytes = sealed.to_vec();
        let token = self
            .key()?
            .open_in_place(nonce(), aead::Aad::empty(), &mut bytes)
            .ok()?;
        std::str::from_utf8(token).ok().map(str::to_owned)
    }

    fn key(&self) -> Option<aead::LessSafeKey> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"tidegate ticket");
        let secret = salt.extract(&self.0);
        let key = secret.expand(&[b"seal"], &aead::AES_256_GCM).ok()?;
        Some(aead::LessSafeKey::new(aead::UnboundKey::from(key)))
    }
}

/// Always the same: a key seals once.
fn nonce() -> aead::Nonce {
    aead::Nonce::assume_unique_for_key([0; aead::NONCE_LEN])
}

/// By whom a store counts tickets: whom their token is about, or the token if it says nobody. 43 letters, digits, `-` and `_`.
#[must_use]
pub fn ticket_owner(who: &Who, token: &str) -> String {
    let parts = match who {
        Who::Bearer {
            subject: Some(subject),
            issuer,
            ..
        } => ["subject", subject, issuer.as_deref().unwrap_or_default()],
        _ => ["token", token, ""],
    };
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(b"tidegate ticket owner\0");
    for part in parts {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    URL_SAFE_NO_PAD.encode(hash.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(byte: u8) -> Ticket {
        Ticket::of([byte; 32])
    }

    #[test]
    fn a_ticket_has_one_text() {
        for ticket in [ticket(0), ticket(255), Ticket::new().unwrap()] {
            let text = ticket.text();
            assert_eq!(text.len(), 47);
            assert_eq!(Ticket::parse(&text), Some(ticket));
        }
        let good = ticket(7).text();
        let letters = good.strip_prefix(PREFIX).unwrap();
        let bad = [
            String::new(),
            PREFIX.to_owned(),
            letters.to_owned(),
            format!("tgk_{letters}"),
            format!("TGT_{letters}"),
            format!("{good}A"),
            format!("{good}="),
            format!(" {good}"),
            good.replace('H', "+"),
            good.replace('H', "\u{e9}"),
            // Bits beyond the last byte: another text of the same bytes.
            format!("{}d", good.strip_suffix('c').unwrap()),
            format!("{PREFIX}{}", "A".repeat(1 << 20)),
        ];
        for text in bad {
            assert_eq!(Ticket::parse(&text), None, "{text:.60}");
        }
    }

    #[test]
    fn what_a_ticket_seals_it_alone_opens() {
        let (one, other) = (ticket(1), ticket(2));
        for token in ["", "a.b.c", &"x".repeat(65_536)] {
            let sealed = one.seal(token).unwrap();
            assert_eq!(one.open(&sealed).as_deref(), Some(token));
            assert_eq!(other.open(&sealed), None);
            for at in [0, sealed.len() / 2, sealed.len() - 1] {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert_eq!(one.open(&changed), None, "{at}");
            }
            assert_eq!(one.open(&sealed[1..]), None);
        }
        assert_eq!(one.open(b""), None);
        assert_ne!(one.seal("a"), other.seal("a"));
    }

    /// What two builds have written on one store, each reads.
    #[test]
    fn names_and_seals_stay_as_they_are() {
        let ticket = ticket(0);
        assert_eq!(ticket.name(), NAME_OF_ZEROS);
        let sealed = ticket.seal("a.b.c").unwrap();
        assert_eq!(URL_SAFE_NO_PAD.encode(sealed), SEALED_BY_ZEROS);
    }

    const NAME_OF_ZEROS: &str = "pwQ5k_otdV5orNmID6AUT7t9SZryDmKyNrbXHxf89QU";
    const SEALED_BY_ZEROS: &str = "R6Rs2j3R4z7Ex0XlEMTYV1w0zVU6";

    #[test]
    fn a_store_learns_neither_ticket_nor_token() {
        let ticket = ticket(3);
        let sealed = ticket.seal("a-token-that-is-long-enough").unwrap();
        let stored = [ticket.name().as_bytes(), &sealed].concat();
        for secret in [ticket.text().as_bytes(), b"a-token"] {
            assert!(!stored.windows(secret.len()).any(|part| part == secret));
        }
        assert_eq!(ticket.name().len(), LETTERS);
        assert!(!ticket.text().ends_with(&ticket.name()));
        assert_eq!(format!("{ticket:?}"), "Ticket");
    }

    #[test]
    fn tickets_are_counted_by_whom_they_are_for() {
        let bearer = |subject: Option<&str>, issuer: Option<&str>| Who::Bearer {
            subject: subject.map(str::to_owned),
            issuer: issuer.map(str::to_owned),
        };
        let owner = |who: &Who, token: &str| ticket_owner(who, token);
        let alice = owner(&bearer(Some("alice"), Some("us")), "one");
        assert_eq!(alice, owner(&bearer(Some("alice"), Some("us")), "other"));
        let others = [
            owner(&bearer(Some("alice"), None), "one"),
            owner(&bearer(Some("aliceus"), None), "one"),
            owner(&bearer(Some("alice"), Some("them")), "one"),
            owner(&bearer(None, Some("us")), "one"),
            owner(&bearer(None, Some("us")), "other"),
            owner(&bearer(None, None), "alice"),
        ];
        for (at, other) in others.iter().enumerate() {
            assert_ne!(*other, alice, "{at}");
            assert_eq!(others.iter().filter(|one| *one == other).count(), 1, "{at}");
        }
    }
}
