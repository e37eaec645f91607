//! Who may do what: from a credential to a [`Grant`], which is asked once for each topic.
//!
//! ```text
//! Authorization, cookie, query -> credentials: the one that counts
//!   a ticket                   -> ticket: the token that it stands for
//!   a key of publishers        -> publisher: whose it is
//!   a token                    -> jws: its parts -> keyring: its key -> claims: for whom, until when
//!                              -> claims, rule: what it grants; known: what was verified before
//!                              -> Grant: may this be done to this topic?
//!   while its stream is open   -> revocations: denylist, and what the configuration grants now
//! ```
//!
//! There is no HTTP in it, no time and no input or output: who asks brings the time along, and keys are known before, or are
//! brought by whoever fetches them ([`jwks`]).
//!
//! What holds:
//!
//! 1. The algorithm belongs to the key. What a token says of it must be the same, and chooses nothing.
//! 2. Nothing that a token says is looked at before its signature is good, but its header.
//! 3. Half of a token is none: one grant that cannot be read, one member that stands twice, and it is refused.
//! 4. What a claim says stays in its place within a topic (see `rule`).
//! 5. `*` does not mean the gateway's own topics.
//! 6. No action follows from another.
//! 7. A secret is in no `Debug`, no error and no reason.
//! 8. A token is refused for good only by keys that are newer than its first use; before that it is told to come back.
//! 9. What was taken back ends what lives by it, whatever else it could live by.
//!
//! What it costs is bounded: bytes of a token (`auth.token_bytes_max`), how deep its JSON is, keys that it is tried with,
//! patterns that it grants (`auth.patterns_max`), tokens that are remembered (`auth.tokens_known_max`), what was taken back (`auth.denied_max`).

mod action;
mod algorithm;
mod authority;
mod claims;
mod credentials;
mod denylist;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod grant;
mod holder;
mod json;
mod jwk;
pub mod jwks;
mod jws;
mod key;
mod keyring;
mod known;
mod mark;
mod mint;
mod publisher;
mod revocations;
mod rights;
mod rule;
mod spki;
#[cfg(test)]
mod tests;
mod ticket;

pub use action::Action;
pub use algorithm::Algorithm;
pub use authority::{Accepted, Authority, Settings, Tokens};
pub use claims::{Claims, Expected, Seconds};
pub use credentials::{Credential, Fields, Place, bearer};
pub use denylist::{Denial, DeniedAnswer, Denylist, Edition, Keep, StoreMs, store_seconds};
pub use grant::{Grant, Lists, Stretch, Who};
pub use holder::Holder;
pub use jwk::key_set;
pub use jws::Jws;
pub use key::Key;
pub use keyring::Keyring;
pub use mark::Name;
pub use mint::mint;
pub use publisher::{KeyHash, PUBLISHERS_MAX, Publisher, check_name, new_key};
pub use revocations::Revocations;
pub use rights::{Rights, pattern};
pub use rule::ClaimRule;
pub use spki::public_keys;
pub use ticket::{Ticket, ticket_owner};
