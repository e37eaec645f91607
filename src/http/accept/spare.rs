//! What to do when a connection cannot be accepted.

use rustix::io::Errno;
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
        if why.kind() == io::ErrorKind::ConnectionAborted {
            // Its peer went before it was accepted, and it is off the queue
            // ([accept(2)](https://man7.org/linux/man-pages/man2/accept.2.html)). Whoever is next
            // there has done nothing.
            return true;
        }
        let is_out = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
        why.raw_os_error()
            .is_some_and(|code| is_out.contains(&code))
            && self.refuse(backlog)
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

    /// One line of the log for many failures: in a storm each would add its own.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    /// Connections of which `accept` says that they are gone were answered by closing the next.
    #[test]
    fn only_for_want_of_a_descriptor_the_next_connection_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let backlog = mio::net::TcpListener::from_std(listener);
        let (first, second) = [address; 2]
            .map(|at| TcpStream::connect(at).unwrap())
            .into();
        let local = |stream: &TcpStream| stream.local_addr().unwrap();
        let mut spare = Spare::new();

        let aborted = io::Error::from(Errno::CONNABORTED);
        assert!(
            spare.goes_on(&aborted, &backlog),
            "the next is taken at once"
        );
        let unknown = io::Error::from(Errno::INVAL);
        assert!(
            !spare.goes_on(&unknown, &backlog),
            "the loop waits a little"
        );
        let (_accepted, peer) = backlog.accept().unwrap();
        assert_eq!(peer, local(&first), "nobody was closed");

        let out = io::Error::from(Errno::MFILE);
        assert!(spare.goes_on(&out, &backlog));
        let mut byte = [0];
        let read = std::io::Read::read(&mut &second, &mut byte);
        assert!(matches!(read, Ok(0)) || read.is_err(), "closed: {read:?}");
    }
}
