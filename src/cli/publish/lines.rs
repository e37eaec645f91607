//! Lines of a file or of standard input, read as they come.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use tokio::sync::mpsc;

/// Lines of one batch: as many as a gateway takes at once by default.
const LINES_MAX: usize = 1000;
/// Bytes of one batch, unless a single line has more: a quarter of what a gateway takes by default, so that what JSON
/// adds has room.
const BYTES_MAX: usize = 1 << 20;
/// Bytes of one line. What is longer is no line.
const LINE_BYTES_MAX: usize = 16 << 20;
/// Batches that are read ahead.
const AHEAD: usize = 2;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Counted from 1.
    pub(super) number: u64,
    /// Without its end.
    pub(super) text: String,
    /// How many bytes it has in the input.
    pub(super) bytes: u64,
    /// It is the last of all; told only to who asked.
    pub(super) last: bool,
}

/// Why there are no more lines, though the input has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// This line is none.
    Bad(u64, String),
    /// Nothing can be read after this line.
    Unreadable(u64, String),
}

/// What was read: lines, and then perhaps why there are no more.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) lines: Vec<Line>,
    pub(super) stop: Option<Stop>,
}

/// Which lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// The number of the first.
    pub(super) from: u64,
    /// Whether the last is to be known, for which each waits for the next.
    pub(super) tell_last: bool,
}

/// Begins to read a file, or standard input if there is none.
pub(super) fn read(file: Option<&Path>, wanted: Wanted) -> Result<mpsc::Receiver<Batch>, String> {
    let from: Box<dyn Read + Send> = match file {
        Some(path) => {
            let file = File::open(path).map_err(|why| format!("{}: {why}", path.display()))?;
            Box::new(file)
        }
        None => Box::new(io::stdin()),
    };
    let (tell, told) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        let mut lines = Lines::new(from, wanted);
        while let Some(batch) = lines.next_batch() {
            let is_last = batch.stop.is_some();
            if tell.blocking_send(batch).is_err() || is_last {
                return;
            }
        }
    });
    Ok(told)
}

#[derive(Debug)]
struct Lines<R> {
    from: BufReader<R>,
    wanted: Wanted,
    /// The number of the line that was read last.
    number: u64,
    /// Waits for the next, to be known as the last or not.
    held: Option<Line>,
    over: bool,
}

impl<R: Read> Lines<R> {
    fn new(from: R, wanted: Wanted) -> Self {
        Self {
            from: BufReader::with_capacity(BYTES_MAX, from),
            wanted,
            number: 0,
            held: None,
            over: false,
        }
    }

    /// Waits for a line, and takes those with it that are there already. None at the end.
    fn next_batch(&mut self) -> Option<Batch> {
        let (mut batch, mut bytes) = (Batch::default(), 0);
        while !self.over && batch.stop.is_none() {
            match self.next_line() {
                Ok(line) => {
                    self.over = line.is_none();
                    if let Some(mut line) = self.release(line) {
                        line.last = self.over && self.wanted.tell_last;
                        bytes += line.text.len();
                        batch.lines.push(line);
                    }
                }
                Err(stop) => {
                    // It was whole, and is not the last.
                    batch.lines.extend(self.held.take());
                    batch.stop = Some(stop);
                }
            }
            let is_full = batch.lines.len() >= LINES_MAX || bytes >= BYTES_MAX;
            if is_full || (!batch.lines.is_empty() && !self.has_line()) {
                break;
            }
        }
        (batch.stop.is_some() || !batch.lines.is_empty()).then_some(batch)
    }

    /// Lines that need not wait any more: this one, or the one before it.
    fn release(&mut self, line: Option<Line>) -> Option<Line> {
        if self.wanted.tell_last {
            std::mem::replace(&mut self.held, line)
        } else {
            line
        }
    }

    /// Whether the next line can be read without waiting.
    fn has_line(&self) -> bool {
        memchr::memchr(b'\n', self.from.buffer()).is_some()
    }

    /// The next line that is wanted; none at the end.
    fn next_line(&mut self) -> Result<Option<Line>, Stop> {
        loop {
            let mut bytes = Vec::new();
            let mut line = self.from.by_ref().take(LINE_BYTES_MAX as u64);
            let read = line.read_until(b'\n', &mut bytes);
            let read = read.map_err(|why| Stop::Unreadable(self.number, why.to_string()))?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            if read == LINE_BYTES_MAX && bytes.last() != Some(&b'\n') {
                let why = format!("it has more than {LINE_BYTES_MAX} bytes");
                return Err(Stop::Bad(self.number, why));
            }
            if self.number < self.wanted.from {
                continue;
            }
            if bytes.last() == Some(&b'\n') {
                bytes.pop();
                if bytes.last() == Some(&b'\r') {
                    bytes.pop();
                }
            }
            let bad = |_| Stop::Bad(self.number, "it is not UTF-8".to_owned());
            return Ok(Some(Line {
                number: self.number,
                text: String::from_utf8(bytes).map_err(bad)?,
                bytes: read as u64,
                last: false,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives what it has, piece by piece, and then fails, if it is to.
    struct Pieces(Vec<&'static [u8]>, bool);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return if self.1 {
                    Err(io::Error::other("the disk is broken"))
                } else {
                    Ok(0)
                };
            }
            let piece = self.0.remove(0);
            buffer[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    /// Numbers and texts of lines, those of each batch, and why there are no more.
    fn all(
        from: Pieces,
        first: u64,
        tell_last: bool,
    ) -> (Vec<Vec<(u64, String, bool)>>, Option<Stop>) {
        let wanted = Wanted {
            from: first,
            tell_last,
        };
        let mut lines = Lines::new(from, wanted);
        let (mut batches, mut stop) = (Vec::new(), None);
        while let Some(batch) = lines.next_batch() {
            let part = batch.lines.into_iter();
            batches.push(
                part.map(|line| (line.number, line.text, line.last))
                    .collect(),
            );
            stop = batch.stop;
            if stop.is_some() {
                break;
            }
        }
        (batches, stop)
    }

    fn line(number: u64, text: &str) -> (u64, String, bool) {
        (number, text.to_owned(), false)
    }

    #[test]
    fn lines_wait_for_nothing_but_their_ends() {
        let pieces = || Pieces(vec![b"a\r\n\nb", b"c\nd\ne", b""], false);
        let (batches, stop) = all(pieces(), 1, false);
        let expected = vec![
            vec![line(1, "a"), line(2, "")],
            vec![line(3, "bc"), line(4, "d")],
            vec![line(5, "e")],
        ];
        assert_eq!((batches, stop), (expected, None));
        let (batches, _) = all(pieces(), 4, true);
        assert_eq!(batches.concat(), [line(4, "d"), (5, "e".to_owned(), true)]);
        assert_eq!(all(pieces(), 9, true).0.len(), 0);
    }

    #[test]
    fn what_fails_loses_no_line_before_it_and_invents_none() {
        for tell_last in [false, true] {
            let (batches, stop) = all(Pieces(vec![b"a\nb\nhalf"], true), 1, tell_last);
            assert_eq!(batches.concat(), [line(1, "a"), line(2, "b")]);
            let why = Stop::Unreadable(2, "the disk is broken".into());
            assert_eq!(stop, Some(why));
            let (batches, stop) = all(Pieces(vec![b"a\n\xff\nb\n"], false), 1, tell_last);
            assert_eq!(batches.concat(), [line(1, "a")]);
            assert_eq!(stop, Some(Stop::Bad(2, "it is not UTF-8".into())));
        }
    }

    #[test]
    fn batches_and_lines_are_bounded() {
        let many = "x\n".repeat(2500).leak().as_bytes();
        let (batches, _) = all(Pieces(vec![many], false), 1, false);
        let sizes: Vec<usize> = batches.iter().map(Vec::len).collect();
        assert_eq!(sizes, [1000, 1000, 500]);
        let piece: &[u8] = vec![b'x'; BYTES_MAX].leak();
        let endless = vec![piece; 17];
        let (batches, stop) = all(Pieces(endless, false), 1, false);
        assert_eq!(batches.concat(), []);
        assert!(matches!(stop, Some(Stop::Bad(1, _))), "{stop:?}");
    }
}
