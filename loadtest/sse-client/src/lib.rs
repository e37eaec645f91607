//! What a client of event streams reads, without I/O: bytes in, heads, bodies and events out.
//!
//! The tests of the gateway and the swarm watch it as a stranger would, so they share no code with
//! it; this is the one client that they share with each other. Sockets, time-outs and what is
//! thought of a fault are theirs.
//!
//! | part | what | after |
//! |---|---|---|
//! | [`http`] | one HTTP/1.1 request, the head of its answer, its body taken out of its framing | RFC 9112 |
//! | [`sse`] | the interpretation of an event stream | WHATWG HTML 9.2.6 |
//!
//! Bytes may be cut anywhere: every part keeps what it cannot read yet.

pub mod http;
pub mod sse;
