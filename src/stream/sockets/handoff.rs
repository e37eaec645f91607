//! What accept hands over: a connection that hyper has let go of, and the stream that goes out on it.

use super::gate::Place;
use crate::stream::life::Life;
use crate::stream::open::MaybeOpen;
use crate::stream::registry::StreamGuard;
use bytes::Bytes;
use std::net::TcpStream;

/// What a request handler leaves for whoever takes the connection over.
pub struct Handoff {
    /// The stream, or what will become it.
    pub opened: MaybeOpen,
    /// Its place among the open streams.
    pub guard: StreamGuard,
    /// As in the request, for as long as there is no stream that knows of it.
    pub life: Life,
}

impl Handoff {
    /// What the stream begins with, if it is known already: it goes out with the head.
    pub fn take_beginning(&mut self) -> Option<Bytes> {
        let stream = self.opened.stream_mut()?;
        let bytes = stream.take_greeting()?;
        self.guard.add_bytes(bytes.len() as u64);
        Some(bytes)
    }
}

impl std::fmt::Debug for Handoff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handoff")
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}

/// A connection that hyper has let go of.
pub struct HandedOff {
    /// The socket, not blocking, with the head already written.
    pub socket: TcpStream,
    /// Its place among the sockets of this process.
    pub place: Place,
    /// The stream that goes out on it, as the handler left it.
    pub handoff: Handoff,
}

impl std::fmt::Debug for HandedOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HandedOff")
            .field("handoff", &self.handoff)
            .finish_non_exhaustive()
    }
}
