//! The one HTTP client of the commands: `tail`, `publish`, `topics`, `doctor` and `healthcheck`.
//!
//! | part | what | after |
//! |---|---|---|
//! | [`Base`] | where a gateway is | RFC 3986 |
//! | [`Authorities`], [`send`] | one request on a connection of its own, with and without TLS | RFC 9112 |
//! | [`Client`], [`Answer`] | a request to a gateway, and what it answers, in a sentence | RFC 9457 |
//! | [`Parser`] | the interpretation of an event stream | WHATWG HTML 9.2.6 |
//! | [`Follower`] | a stream that comes back | WHATWG HTML 9.2.3 |
//!
//! It knows nothing of the gateway's insides: it is a client like any other.

mod answer;
mod base;
mod connect;
mod events;
mod follow;

pub use crate::dial::{Authorities, Error, chosen_protocol};
pub use answer::{Answer, Client};
pub use base::{Base, encode};
pub use connect::{send, text};
pub use events::{Endless, Event, Item, Parser};
pub use follow::{Follower, Told};
