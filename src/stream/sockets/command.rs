//! What a thread is told to do.

use super::handoff::HandedOff;
use super::table::Key;
use crate::log::{LogRead, Reading};
use crate::stream::listing::Top;
use crate::stream::turn::Stream;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Something for the thread to do.
#[derive(Debug)]
pub(super) enum Command {
    /// A new connection, and its number.
    Adopt(u32, Box<HandedOff>),
    /// The stream of a connection has opened.
    Opened(Key, Box<Stream>),
    /// The answer to a wait of this number.
    Pages(u64, LogRead, Arc<Reading>),
    /// Let the pages go that are held for peers who take nothing now: a read waits for room.
    ReleasePages,
    /// Offer the connections from this number on to a list, some at a time.
    List(usize, Top, oneshot::Sender<Top>),
    /// End: the streams that are left are cut.
    Stop,
}
