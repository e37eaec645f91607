//! What to do when a connection cannot be accepted.

use std::fs::File;
use std::io;
use std::time::Duration;
use tokio::time::Instant;

/// The same trouble is said again after this time.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// A descriptor held back for the time when there is none: with it a connection is accepted only to
/// be closed. Its client hears at once, where it would wait in the backlog; a proxy tries the next
/// replica, an `EventSource` comes back.
#[derive(Debug)]
pub(super) struct Spare {
    file: Option<File>,
    said: Option<Instant>,
}

impl Spare {
    pub(super) fn new() -> Self {
        Self {
            file: open(),
            said: None,
        }
    }

    /// Says what is wrong, and does about it what can be done. False if that is nothing, and
    /// whoever accepts should wait a little.
    pub(super) fn goes_on(&mut self, why: &io::Error, backlog: &mio::net::TcpListener) -> bool {
        self.say(why);
        self.refuse(backlog)
    }

    /// Closes the connection for which there is no descriptor. False if nothing could be done.
    fn refuse(&mut self, backlog: &mio::net::TcpListener) -> bool {
        if self.file.take().is_none() {
            self.file = open();
            return false;
        }
        // It stands in the backlog still; if it has gone meanwhile, there is nobody to wait for.
        let done = backlog.accept().is_ok();
        self.file = open();
        done
    }

    /// One line for many.
    fn say(&mut self, why: &io::Error) {
        let now = Instant::now();
        if self.said.is_none_or(|said| now >= said + SAY_AGAIN) {
            self.said = Some(now);
            tracing::warn!(%why, "a connection cannot be accepted");
        }
    }
}

fn open() -> Option<File> {
    File::open("/dev/null").ok()
}
