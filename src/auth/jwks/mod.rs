//! Key sets of identity providers, fetched from their addresses.
//!
//! ```text
//! gate: a token whose key is in no set ─► KeySets: are all sure not to have it? ─► a definite no
//!                                          │ no: asks for a fetch                 ─► come back
//! task: Upkeep::next ─► fetch ─► KeySet::take ─► keys, which serve at once
//! ```
//!
//! [`Upkeep`] decides, and is plain data. [`KeySet`] holds it beside the keys. Who fetches stands elsewhere (`app/jwks`).

mod address;
mod set;
#[cfg(test)]
mod tests;
mod upkeep;

pub use address::Address;
pub use set::{KeySet, KeySets, Source};
pub use upkeep::{Fetch, Keeper, Moment, Next, State, Timing, Upkeep, WithoutKey};
