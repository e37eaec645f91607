//! RESP2 and RESP3 as they pass: where each value ends, and the words that a command begins with.
//!
//! Kept are the first words of a value, cut at [`WORD_MAX`], and how many values each open array still lacks; never
//! the bytes themselves. Types that stream (`$?`, `*?`) are refused: Redis sends none. Nor are inline commands known:
//! no client library sends any. Source: [the protocol](https://redis.io/docs/latest/develop/reference/protocol-spec/).

/// Words that are kept of a value: a command and its first argument.
const WORDS: usize = 2;
/// Bytes that are kept of a word.
const WORD_MAX: usize = 256;
/// Arrays within arrays.
const DEPTH_MAX: usize = 64;

/// Follows one direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    part: Part,
    /// How many values are missing of each array that is open, the outermost first.
    open: Vec<u64>,
    words: Vec<Vec<u8>>,
}

/// What comes next.
#[derive(Clone, Copy, Debug, Default)]
enum Part {
    /// The byte that tells the type of a value.
    #[default]
    Type,
    /// The rest of a line, and the number on it as far as it was read.
    Line(u8, Number),
    /// The end of that line.
    LineFeed(u8, Number),
    /// So many bytes of a string, which is one of the words or not.
    Body(u64, bool),
    /// The end of a string.
    BodyReturn,
    BodyFeed,
}

/// A length, or a count of values.
#[derive(Clone, Copy, Debug)]
enum Number {
    None,
    Whole(u64),
    /// `-1` stands for a null.
    Negative,
}

/// What a look at some bytes found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scanned {
    /// So many of them belong to the value.
    pub(super) taken: usize,
    /// It ends with them.
    pub(super) ended: bool,
}

/// These bytes are no RESP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Garbled;

impl Scanner {
    /// Whether the next byte begins a value that is part of no other.
    pub(super) fn is_between(&self) -> bool {
        self.open.is_empty() && matches!(self.part, Part::Type)
    }

    /// The first strings of the value that has just ended.
    pub(super) fn words(&self) -> &[Vec<u8>] {
        &self.words
    }

    /// Looks at bytes up to the end of the value, or of all of them.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Result<Scanned, Garbled> {
        if self.is_between() {
            self.words.clear();
        }
        let mut taken = 0;
        while let Some((byte, _)) = bytes.get(taken..).and_then(<[u8]>::split_first) {
            if let Part::Body(left, is_word) = self.part {
                let rest = bytes.get(taken..).unwrap_or_default();
                let most = usize::try_from(left).unwrap_or(usize::MAX);
                let body = rest.get(..most).unwrap_or(rest);
                self.take_body(body, left, is_word);
                taken += body.len();
                continue;
            }
            taken += 1;
            if self.step(*byte)? {
                return Ok(Scanned { taken, ended: true });
            }
        }
        Ok(Scanned {
            taken,
            ended: false,
        })
    }

    fn take_body(&mut self, body: &[u8], left: u64, is_word: bool) {
        if let Some(word) = self.words.last_mut().filter(|_| is_word) {
            let room = WORD_MAX - word.len();
            word.extend_from_slice(body.get(..room).unwrap_or(body));
        }
        self.part = match left - body.len() as u64 {
            0 => Part::BodyReturn,
            left => Part::Body(left, is_word),
        };
    }

    /// Takes one byte that is not part of a string's body. True if the outermost value ends with it.
    fn step(&mut self, byte: u8) -> Result<bool, Garbled> {
        let (next, ended) = match (self.part, byte) {
            (Part::Type, b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(') => {
                (Part::Line(b'+', Number::None), false)
            }
            (Part::Type, b'$' | b'=' | b'!') => (Part::Line(b'$', Number::None), false),
            (Part::Type, b'*' | b'%' | b'~' | b'>' | b'|') => {
                (Part::Line(byte, Number::None), false)
            }
            (Part::Line(of, number), b'\r') => (Part::LineFeed(of, number), false),
            // The text of a simple value says nothing about where it ends.
            (Part::Line(b'+', _), _) => (self.part, false),
            (Part::Line(of, number), _) => (Part::Line(of, number.read(byte)?), false),
            (Part::LineFeed(of, number), b'\n') => self.line(of, number)?,
            (Part::BodyReturn, b'\r') => (Part::BodyFeed, false),
            (Part::BodyFeed, b'\n') => (Part::Type, self.end_value()),
            _ => return Err(Garbled),
        };
        self.part = next;
        Ok(ended)
    }

    /// A line is read: what it begins, or that it was a whole value.
    fn line(&mut self, of: u8, number: Number) -> Result<(Part, bool), Garbled> {
        let count = match (of, number) {
            (b'+', _) | (_, Number::Negative) => return Ok((Part::Type, self.end_value())),
            (_, Number::None) => return Err(Garbled),
            (b'$', Number::Whole(length)) => {
                let is_word = self.words.len() < WORDS;
                if is_word {
                    self.words.push(Vec::new());
                }
                let body = match length {
                    0 => Part::BodyReturn,
                    _ => Part::Body(length, is_word),
                };
                return Ok((body, false));
            }
            (b'%', Number::Whole(pairs)) => pairs.checked_mul(2).ok_or(Garbled)?,
            // Attributes stand before the value that they belong to: one more than their own.
            (b'|', Number::Whole(pairs)) => pairs
                .checked_mul(2)
                .and_then(|all| all.checked_add(1))
                .ok_or(Garbled)?,
            (_, Number::Whole(count)) => count,
        };
        if count == 0 {
            return Ok((Part::Type, self.end_value()));
        }
        if self.open.len() == DEPTH_MAX {
            return Err(Garbled);
        }
        self.open.push(count);
        Ok((Part::Type, false))
    }

    /// A value has ended, and with it each array of which it was the last. True if none is open.
    fn end_value(&mut self) -> bool {
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                return false;
            }
            self.open.pop();
        }
        true
    }
}

impl Number {
    fn read(self, byte: u8) -> Result<Self, Garbled> {
        match (self, byte) {
            (Self::None, b'-') | (Self::Negative, b'0'..=b'9') => Ok(Self::Negative),
            (Self::None, b'0'..=b'9') => Ok(Self::Whole(u64::from(byte - b'0'))),
            (Self::Whole(number), b'0'..=b'9') => number
                .checked_mul(10)
                .and_then(|tens| tens.checked_add(u64::from(byte - b'0')))
                .map(Self::Whole)
                .ok_or(Garbled),
            _ => Err(Garbled),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng as _};

    /// Lengths of the values in `bytes`, which come in pieces that end at `cuts`.
    fn lengths(bytes: &[u8], cuts: &[usize]) -> Result<Vec<usize>, Garbled> {
        let (mut scanner, mut found, mut length) = (Scanner::default(), Vec::new(), 0);
        let mut begin = 0;
        for cut in cuts.iter().copied().chain([bytes.len()]) {
            let mut piece = &bytes[begin..cut];
            begin = cut;
            while !piece.is_empty() {
                assert_eq!(scanner.is_between(), length == 0);
                let Scanned { taken, ended } = scanner.scan(piece)?;
                assert!(taken > 0 && (ended || taken == piece.len()));
                length += taken;
                if ended {
                    found.push(std::mem::take(&mut length));
                }
                piece = &piece[taken..];
            }
        }
        assert_eq!(length, 0, "the last value does not end");
        Ok(found)
    }

    const VALUES: &[&str] = &[
        "+OK\r\n",
        "-ERR no such thing: 5\r\n",
        ":-17\r\n",
        "_\r\n",
        "#t\r\n",
        ",3.25\r\n",
        "(3492890328409238509324850943850943825024385\r\n",
        "$0\r\n\r\n",
        "$-1\r\n",
        "$12\r\n*2\r\n$3\r\n+O\r\n\r\n",
        "=10\r\ntxt:a\r\nb\nc\r\n",
        "!5\r\nERR x\r\n",
        "*0\r\n",
        "*-1\r\n",
        "*3\r\n:1\r\n*2\r\n$1\r\na\r\n*0\r\n$-1\r\n",
        "%2\r\n+a\r\n*1\r\n_\r\n$1\r\nb\r\n%0\r\n",
        "~2\r\n$1\r\na\r\n$1\r\nb\r\n",
        ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\n>2\r\n:\r\n",
        "|1\r\n+ttl\r\n:5\r\n*2\r\n:1\r\n|0\r\n:2\r\n",
    ];

    #[test]
    fn each_value_ends_where_it_does_wherever_it_is_cut() {
        for value in VALUES {
            for cut in 0..=value.len() {
                assert_eq!(
                    lengths(value.as_bytes(), &[cut]),
                    Ok(vec![value.len()]),
                    "{value:?} at {cut}"
                );
            }
        }
        let all = VALUES.concat();
        let expected: Vec<usize> = VALUES.iter().map(|value| value.len()).collect();
        let everywhere: Vec<usize> = (0..all.len()).collect();
        assert_eq!(lengths(all.as_bytes(), &everywhere), Ok(expected.clone()));
        for cut in 0..=all.len() {
            assert_eq!(lengths(all.as_bytes(), &[cut]), Ok(expected.clone()));
        }
    }

    /// A value of any kind.
    pub(in crate::link) fn draw(rng: &mut StdRng, depth: usize) -> Vec<u8> {
        let count = rng.random_range(0..4);
        let kind = rng.random_range(0..if depth == 0 { 4 } else { 8_usize });
        let values = match kind {
            0 => return b"+OK\r\n".to_vec(),
            1 => return format!(":{}\r\n", rng.random::<i64>()).into_bytes(),
            2 => return b"$-1\r\n".to_vec(),
            3 => {
                let body: Vec<u8> = (0..rng.random_range(0..600))
                    .map(|_| rng.random())
                    .collect();
                let head = format!("${}\r\n", body.len()).into_bytes();
                return [head.as_slice(), &body, b"\r\n"].concat();
            }
            6 => 2 * count,     // a map
            7 => 2 * count + 1, // attributes, and what they belong to
            _ => count,
        };
        let sign = b"*~%|"[kind - 4];
        let head = format!("{}{count}\r\n", char::from(sign)).into_bytes();
        let all = (0..values).flat_map(|_| draw(rng, depth - 1));
        head.into_iter().chain(all).collect()
    }

    #[test]
    fn drawn_values_end_where_they_do_wherever_they_are_cut() {
        for seed in 0..500 {
            let rng = &mut StdRng::seed_from_u64(seed);
            let values: Vec<Vec<u8>> = (0..rng.random_range(1..6)).map(|_| draw(rng, 3)).collect();
            let all = values.concat();
            let mut cuts: Vec<usize> = (0..rng.random_range(0..20))
                .map(|_| rng.random_range(0..=all.len()))
                .collect();
            cuts.sort_unstable();
            let expected = values.iter().map(Vec::len).collect();
            assert_eq!(lengths(&all, &cuts), Ok(expected), "seed {seed}");
        }
    }

    #[test]
    fn words_are_those_that_a_command_begins_with_and_are_bounded() {
        let long = "x".repeat(1000);
        let text = format!("*4\r\n$5\r\nFCALL\r\n$1000\r\n{long}\r\n$0\r\n\r\n$1\r\na\r\n");
        let mut scanner = Scanner::default();
        assert!(scanner.scan(text.as_bytes()).unwrap().ended);
        let words: Vec<usize> = scanner.words().iter().map(Vec::len).collect();
        assert_eq!(words, [5, WORD_MAX]);
        assert!(scanner.scan(b"*1\r\n$4\r\nPING\r\n").unwrap().ended);
        assert_eq!(scanner.words(), [b"PING"]);
    }

    #[test]
    fn what_is_no_resp_is_refused() {
        let deep = "*1\r\n".repeat(DEPTH_MAX + 1);
        let garbled: [&[u8]; 8] = [
            b"PING\r\n",
            b"$?\r\n",
            b"$\r\n",
            b"*1x\r\n",
            b"$99999999999999999999\r\n",
            b"%9999999999999999999\r\n",
            b"$1\r\nab\r\n",
            deep.as_bytes(),
        ];
        for bytes in garbled {
            let scanned = Scanner::default().scan(bytes);
            assert_eq!(scanned, Err(Garbled), "{}", String::from_utf8_lossy(bytes));
        }
    }
}
