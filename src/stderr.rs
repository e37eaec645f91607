//! Standard error, for all threads of this process: lines wait in a bounded queue, and one thread writes them.
//!
//! Whoever reads standard error may stand still: a collector that hangs, a terminal that was paused. A write waits for it
//! then, for ever, and with it stands whatever its thread was about: a thread that writes streams, and all that wait for a
//! lock that it holds. So:
//!
//! - Nobody waits for a line of theirs. It is queued, or dropped and counted.
//! - The queue holds so many bytes ([`open`]); as many again may be on their way out.
//! - Once lines are taken again, one more says how many were dropped before it.
//! - Whoever ends the process waits for what is queued ([`flush`]), for a bounded time.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Between two tries to write where a write does not wait. Others who have standard error open may have set it so.
const TRY_EVERY: Duration = Duration::from_millis(20);
/// Memory that a queue keeps when it is empty.
const KEPT_BYTES: usize = 64 * 1024;

static STDERR: Queue = Queue::new();

/// Begins to write what is queued, `bytes_max` bytes at most. Lines from before are dropped.
///
/// # Errors
/// If the system has no thread left.
pub fn open(bytes_max: usize) -> io::Result<()> {
    STDERR.state().bytes_max = bytes_max;
    let write = || STDERR.write_all(&mut io::stderr());
    let thread = std::thread::Builder::new().name("stderr".to_owned());
    thread.spawn(write).map(drop)
}

/// Queues a line, or drops it.
pub fn say(line: &str) {
    STDERR.put(format!("{line}\n").as_bytes());
}

/// Waits until all that was queued is written, for no longer than `patience`. False if it is not.
#[must_use]
pub fn flush(patience: Duration) -> bool {
    STDERR.flush(patience)
}

/// How many lines were dropped.
#[must_use]
pub fn dropped() -> u64 {
    STDERR.dropped.load(Ordering::Relaxed)
}

/// Where the log is written to: each write is one line.
#[derive(Clone, Copy, Debug)]
pub struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        STDERR.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines that wait for one thread to write them.
#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    /// The thread is told that there are lines.
    filled: Condvar,
    /// Others are told that lines are written.
    emptied: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct State {
    lines: Vec<u8>,
    bytes_max: usize,
    /// Lines were taken and are not written yet.
    is_writing: bool,
    /// Lines that were dropped and not told of.
    untold: u64,
}

impl Queue {
    const fn new() -> Self {
        Self {
            state: Mutex::new(State {
                lines: Vec::new(),
                bytes_max: 0,
                is_writing: false,
                untold: 0,
            }),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Held for no longer than a copy takes.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, line: &[u8]) {
        let mut state = self.state();
        if state.lines.len() + line.len() > state.bytes_max {
            self.drop_lines(&mut state, 1);
            return;
        }
        state.lines.extend_from_slice(line);
        drop(state);
        self.filled.notify_one();
    }

    fn drop_lines(&self, state: &mut State, count: u64) {
        state.untold += count;
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }

    /// Writes what is queued, for ever.
    fn write_all(&self, to: &mut impl Write) {
        let mut lines = Vec::new();
        let mut is_taken = true;
        loop {
            let dropped = self.take(&mut lines, is_taken);
            if dropped > 0 {
                // It comes right behind the lines that were queued before the first was dropped.
                tracing::warn!(
                    lines = dropped,
                    "lines of the log were dropped: standard error was not read in time"
                );
            }
            is_taken = write(to, &lines).is_ok();
            self.written(&mut lines, is_taken);
        }
    }

    /// Waits for lines and takes them, with how many were dropped since this was told. While nobody takes anything it is
    /// not told: it would be one more line to drop.
    fn take(&self, lines: &mut Vec<u8>, tell: bool) -> u64 {
        let state = self.state();
        let mut state = self
            .filled
            .wait_while(state, |state| state.lines.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut state.lines, lines);
        state.is_writing = true;
        if tell {
            std::mem::take(&mut state.untold)
        } else {
            0
        }
    }

    fn written(&self, lines: &mut Vec<u8>, is_taken: bool) {
        let mut state = self.state();
        state.is_writing = false;
        if !is_taken {
            let count = memchr::memchr_iter(b'\n', lines).count();
            self.drop_lines(&mut state, count as u64);
        }
        drop(state);
        self.emptied.notify_all();
        lines.clear();
        lines.shrink_to(KEPT_BYTES);
    }

    fn flush(&self, patience: Duration) -> bool {
        let is_waiting = |state: &mut State| state.is_writing || !state.lines.is_empty();
        let waited = self
            .emptied
            .wait_timeout_while(self.state(), patience, is_waiting)
            .unwrap_or_else(PoisonError::into_inner);
        !waited.1.timed_out()
    }
}

/// Writes all of it, and waits where `to` does not.
fn write(to: &mut impl Write, mut lines: &[u8]) -> io::Result<()> {
    while !lines.is_empty() {
        match to.write(lines) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => lines = lines.get(written..).unwrap_or_default(),
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
                std::thread::park_timeout(TRY_EVERY);
            }
            Err(why) => return Err(why),
        }
    }
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, PipeReader, Read as _};

    /// Longer than any test takes.
    const LONG: Duration = Duration::from_secs(30);

    /// A queue that is written to a pipe, and the pipe's other end.
    fn open(bytes_max: usize) -> (&'static Queue, PipeReader) {
        let (read, mut write) = io::pipe().unwrap();
        let queue: &Queue = Box::leak(Box::new(Queue::new()));
        queue.state().bytes_max = bytes_max;
        std::thread::spawn(move || queue.write_all(&mut write));
        (queue, read)
    }

    fn dropped(queue: &Queue) -> u64 {
        queue.dropped.load(Ordering::Relaxed)
    }

    #[test]
    fn lines_are_written_in_their_order() {
        let (queue, read) = open(1000);
        let mut lines = BufReader::new(read).lines();
        for number in 0..10_000 {
            queue.put(format!("{number}\n").as_bytes());
            assert_eq!(lines.next().unwrap().unwrap(), number.to_string());
        }
        assert!(queue.flush(LONG));
        assert_eq!(dropped(queue), 0);
    }

    #[test]
    fn what_nobody_reads_is_dropped_and_whoever_put_it_goes_on() {
        let (queue, read) = open(1000);
        let line = [b"x".repeat(99), b"\n".to_vec()].concat();
        let mut count = 0;
        let mut put = |lines| {
            (0..lines).for_each(|_| queue.put(&line));
            count += lines;
        };
        // Until the pipe is full.
        while queue.flush(Duration::from_millis(500)) {
            put(5);
        }
        put(1000);
        let missing = dropped(queue);
        assert!(missing > 0);
        assert!(queue.state().lines.len() <= 1000);
        // Now somebody does, and what was not dropped comes.
        let mut read = BufReader::new(read);
        for _ in missing..count {
            let mut found = vec![0; line.len()];
            read.read_exact(&mut found).unwrap();
            assert_eq!(found, line, "whole");
        }
        assert!(queue.flush(LONG));
        queue.put(b"after\n");
        let mut found = String::new();
        read.read_line(&mut found).unwrap();
        assert_eq!(found, "after\n");
    }

    #[test]
    fn what_is_longer_than_the_queue_is_dropped() {
        let (queue, _read) = open(10);
        queue.put(b"0123456789\n");
        assert_eq!(dropped(queue), 1);
        queue.put(b"012345678\n");
        assert_eq!(dropped(queue), 1);
    }

    /// To say so would be one more line for it, and so for ever.
    #[test]
    fn what_a_reader_that_is_gone_misses_is_counted_once() {
        let (queue, read) = open(1000);
        drop(read);
        for lines in 1..=3 {
            queue.put(b"nobody\n");
            assert!(queue.flush(LONG));
            assert_eq!(dropped(queue), lines);
        }
        assert_eq!(queue.state().untold, 3);
    }

    #[test]
    fn before_it_is_opened_nothing_waits() {
        let queue = Queue::new();
        queue.put(b"early\n");
        assert!(queue.flush(LONG));
        assert_eq!(dropped(&queue), 1);
    }
}
