//! Streams: from a position in the hub to bytes on a socket.
//!
//! | module | what |
//! |---|---|
//! | [`request`] | what a subscriber asks for, checked |
//! | [`open`] | how a stream begins: a state machine that waits for history, subscription and clock, and its future |
//! | [`turn`] | the life of one stream as a state machine: what to write next, what to read, when to wake |
//! | [`life`] | by whose right it is open, and whether that was taken back |
//! | `greeting`, `options`, `expiry`, `cursor`, [`out`] | its parts: what is written first, what few ask for, the end of its right, what the client knows, what is to be written |
//! | [`settings`] | what all streams of this replica go by, and the drain |
//! | [`registry`] | how many are open, and what is said at their end |
//! | [`listing`] | the list of them for operators |
//! | [`sockets`] | the way out for plain HTTP/1.1: a few threads that own the sockets |
//! | [`body`] | the way out as an ordinary HTTP body: for HTTP/2 and short streams |
//!
//! Arrows point down this table's last two rows to the others, never back: a way out knows the
//! stream, the stream knows no way out.

pub mod body;
mod cursor;
mod expiry;
mod greeting;
pub mod life;
pub mod listing;
pub mod open;
mod options;
pub mod out;
pub mod registry;
pub mod request;
pub mod settings;
mod show;
pub mod sockets;
mod tally;
pub mod turn;

use body::Bodies;
use listing::{Row, Sort, Top};
use sockets::Sockets;

/// The first `most` of all open streams by `sort`, whatever their way out.
pub async fn list(sockets: Option<&Sockets>, bodies: &Bodies, sort: Sort, most: usize) -> Vec<Row> {
    let mut top = Top::new(sort, most);
    if let Some(sockets) = sockets {
        sockets.list(&mut top).await;
    }
    bodies.list(&mut top).await;
    top.into_rows()
}
