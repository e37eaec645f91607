//! The engine: brings hub and broker together, and streams to their sockets.
//!
//! - [`follow`] keeps the hub complete: interest out, live frames in, holes mended.
//! - [`reads`] reads the log for streams behind their window, once for all who want the same.
//! - [`stream`] is the life of one stream as a state machine: what to write next, when to wake.
//! - [`sockets`] is the way out for plain HTTP/1.1: a few threads that own the sockets.
//! - [`body`] is the way out as an ordinary HTTP body: for TLS, HTTP/2 and short streams.
//! - [`open`] is the open streams together: their number, who is slow, what is said at their end.
//! - [`moment`] is the time that streams go by.
//! - [`fleet`] tells the other replicas of this one.

pub mod body;
pub mod fleet;
pub mod follow;
pub mod moment;
pub mod open;
pub mod reads;
pub mod sockets;
pub mod stream;
mod tally;
