//! Ingest: a raw `PUBLISH` becomes a logged event, exactly once, although every replica hears it.
//!
//! A few replicas of the fleet are *ears*. All of them count the raw publishes of one Redis node,
//! so that `(epoch, n)` names a publish alike at every ear, and append what they counted by a
//! compare-and-set on n. Repeats, lost replies, two ears at once, one that wakes up an hour later
//! are harmless; there is no leader among them.
//!
//! - [`ear`] is the protocol as a state machine without I/O, simulated in `tests/simulation_ingest.rs`.
//!   What it counts by stands in `counting`, what ears tell one another in [`told`].
//! - [`link`] gives it a connection, a clock and the append function. What both ask of Redis is in
//!   `broker/redis/ingest.rs`.
//! - [`inbox`] moves what was added to the inbox stream.

mod counting;
pub mod ear;
mod hearing;
pub mod inbox;
pub mod link;
pub mod told;
