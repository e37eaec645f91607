//! Accept: from a listening socket to requests, and to streams that leave with their connection.
//!
//! `axum::serve` listens with a backlog of 128 and sets no header time-out, so a reconnect storm
//! overflows it and a slow client holds a socket for ever. This is what stands in its place:
//!
//! | module | what |
//! |---|---|
//! | `listener` | takes a place, then a connection; one task for each |
//! | `spare` | what to do when a connection cannot be accepted |
//! | `connection` | HTTP/1.1 or HTTP/2, requests within a time, the way out of hyper |
//! | `flood` | frames of HTTP/2 that ask for nothing, and too many of them |
//! | `carrier` | what a request goes out on, and how it is ended from outside |
//! | `proxy_protocol` | what a proxy says of a connection before its first byte |
//! | `socket` | a socket that is tried before the runtime watches it |
//! | `leftover` | what of a request's body nobody has read |
//! | `handoff` | how a connection is taken from hyper once the head of a stream is out |
//!
//! The places themselves ([`Gate`](crate::stream::sockets::Gate)) are kept by the threads that own
//! the sockets of streams, and stand there.

mod carrier;
mod connection;
mod flood;
mod handoff;
mod leftover;
mod listener;
mod proxy_protocol;
mod socket;
mod spare;

pub(in crate::http) use carrier::end_of_carrier;
pub(in crate::http) use connection::Peer;
#[cfg(any(test, fuzzing))]
pub(in crate::http) use flood::is_flood;
pub(in crate::http) use handoff::HandoffSlot;
pub use listener::Listener;
