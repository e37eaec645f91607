//! An event stream over HTTP/1.1 as its bytes come in: head, chunks, lines, blocks.
//!
//! It takes bytes cut anywhere and allocates nothing: of a line that is split over two reads only
//! the beginning is kept, which holds all that is looked at. A stream costs under 250 bytes.

use super::payload::{decimal, read};
use memchr::memchr;

/// Bytes kept of a line: what an envelope says before its data, and the smallest payload.
const LINE: usize = 160;
/// Where the data of an envelope begins, if it is text. The benchmark's data needs no escapes.
const ENVELOPED: &[u8] = b",\"encoding\":\"text\",\"data\":\"";
/// What comes after it.
const ENVELOPE_END: usize = b"\"}".len();

/// What a stream brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// The block `tidegate.open`: the stream is live.
    Opened,
    /// An event of the benchmark.
    Event {
        /// Its number.
        number: u64,
        /// When it was sent.
        sent: u64,
        /// Bytes of its data.
        size: usize,
    },
    /// The stream tells that something may be missing.
    Gap,
    /// An event that the benchmark did not send.
    Foreign,
    /// A status that is not 200.
    Refused(u16),
    /// The response is complete.
    Ended,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    /// In the line that tells a chunk's size.
    Size,
    /// In a chunk, or in a body of known length.
    Body,
    /// In the line end after a chunk.
    AfterChunk,
    Over,
}

/// The beginning of a line, and its whole length so far.
#[derive(Clone, Copy, Debug)]
struct Line {
    start: [u8; LINE],
    length: usize,
}

impl Line {
    const EMPTY: Self = Self {
        start: [0; LINE],
        length: 0,
    };

    fn push(&mut self, piece: &[u8]) {
        let room = self.start.get_mut(self.length..).unwrap_or_default();
        for (to, from) in room.iter_mut().zip(piece) {
            *to = *from;
        }
        self.length += piece.len();
    }

    fn start(&self) -> &[u8] {
        self.start.get(..self.length).unwrap_or(&self.start)
    }
}

/// The kind of block that is being read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Event,
    Open,
    Gap,
    /// Heartbeats and cursors, which say nothing here.
    Own,
}

#[derive(Clone, Copy, Debug, Default)]
struct Block {
    kind: Kind,
    /// Whether it has data at all; a block without raises no event.
    has_data: bool,
    payload: Option<(u64, u64)>,
    size: usize,
}

/// Reads one stream.
#[derive(Debug)]
pub struct Wire {
    state: State,
    is_chunked: bool,
    /// Bytes left of the chunk, or of the body.
    left: usize,
    status: Option<u16>,
    line: Line,
    block: Block,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            state: State::Head,
            is_chunked: false,
            left: 0,
            status: None,
            line: Line::EMPTY,
            block: Block::default(),
        }
    }
}

impl Wire {
    /// Takes what was read, and tells what is complete.
    pub fn feed(&mut self, mut bytes: &[u8], seen: &mut impl FnMut(Item)) {
        while let Some((&byte, rest)) = bytes.split_first() {
            bytes = match self.state {
                State::Head => self.head(bytes, seen),
                State::Size => {
                    self.size(byte, seen);
                    rest
                }
                State::Body => self.body(bytes, seen),
                State::AfterChunk => {
                    if byte == b'\n' {
                        self.state = State::Size;
                    }
                    rest
                }
                State::Over => return,
            };
        }
    }

    fn head<'a>(&mut self, bytes: &'a [u8], seen: &mut impl FnMut(Item)) -> &'a [u8] {
        let Some(at) = memchr(b'\n', bytes) else {
            self.line.push(bytes);
            return &[];
        };
        let (piece, rest) = bytes.split_at(at);
        self.line.push(piece);
        let line = std::mem::replace(&mut self.line, Line::EMPTY);
        let text = line.start().trim_ascii_end();
        if text.is_empty() {
            self.begin_body(seen);
        } else if self.status.is_none() {
            let code = text.split(|byte| *byte == b' ').nth(1).and_then(decimal);
            self.status = Some(code.and_then(|code| code.try_into().ok()).unwrap_or(0));
        } else if let Some(length) = header(text, b"content-length:") {
            self.left = decimal(length)
                .and_then(|length| length.try_into().ok())
                .unwrap_or(0);
        } else if header(text, b"transfer-encoding:") == Some(b"chunked") {
            self.is_chunked = true;
        }
        rest.get(1..).unwrap_or_default()
    }

    fn begin_body(&mut self, seen: &mut impl FnMut(Item)) {
        match self.status {
            Some(200) => {}
            status => seen(Item::Refused(status.unwrap_or(0))),
        }
        self.state = if self.is_chunked {
            State::Size
        } else {
            State::Body
        };
    }

    fn size(&mut self, byte: u8, seen: &mut impl FnMut(Item)) {
        if let Some(digit) = char::from(byte).to_digit(16) {
            self.left = self.left * 16 + digit as usize;
        } else if byte == b'\n' && self.left > 0 {
            self.state = State::Body;
        } else if byte == b'\n' {
            self.state = State::Over;
            seen(Item::Ended);
        }
    }

    fn body<'a>(&mut self, bytes: &'a [u8], seen: &mut impl FnMut(Item)) -> &'a [u8] {
        let (part, rest) = bytes.split_at(self.left.min(bytes.len()));
        self.left -= part.len();
        self.text(part, seen);
        if self.left == 0 && self.is_chunked {
            self.state = State::AfterChunk;
        } else if self.left == 0 {
            self.state = State::Over;
            seen(Item::Ended);
        }
        rest
    }

    fn text(&mut self, mut part: &[u8], seen: &mut impl FnMut(Item)) {
        while let Some(at) = memchr(b'\n', part) {
            let (piece, rest) = part.split_at(at);
            part = rest.get(1..).unwrap_or_default();
            if self.line.length == 0 {
                self.field(piece, piece.len(), seen);
            } else {
                self.line.push(piece);
                let line = std::mem::replace(&mut self.line, Line::EMPTY);
                self.field(line.start(), line.length, seen);
            }
        }
        self.line.push(part);
    }

    /// One line of a block: its beginning, and its whole length.
    fn field(&mut self, start: &[u8], length: usize, seen: &mut impl FnMut(Item)) {
        if length == 0 {
            self.dispatch(seen);
        } else if let Some(data) = start.strip_prefix(b"data: ") {
            self.block.has_data = true;
            (self.block.payload, self.block.size) = payload(data, length - b"data: ".len());
        } else if let Some(kind) = start.strip_prefix(b"event: tidegate.") {
            self.block.kind = match kind {
                b"open" => Kind::Open,
                b"gap" => Kind::Gap,
                _ => Kind::Own,
            };
        }
    }

    fn dispatch(&mut self, seen: &mut impl FnMut(Item)) {
        let block = std::mem::take(&mut self.block);
        match (block.kind, block.payload) {
            _ if !block.has_data => {}
            (Kind::Event, Some((number, sent))) => seen(Item::Event {
                number,
                sent,
                size: block.size,
            }),
            (Kind::Event, None) => seen(Item::Foreign),
            (Kind::Open, _) => seen(Item::Opened),
            (Kind::Gap, _) => seen(Item::Gap),
            (Kind::Own, _) => {}
        }
    }
}

/// What the data of a block carries, and the bytes of that, whether it stands in an envelope or not. It may be
/// cut; `length` is its whole.
fn payload(data: &[u8], length: usize) -> (Option<(u64, u64)>, usize) {
    if data.first() != Some(&b'{') {
        return (read(data), length);
    }
    let at = memchr::memmem::find(data, ENVELOPED).map(|at| at + ENVELOPED.len());
    let found = at.and_then(|at| read(data.get(at..)?));
    let around = at.unwrap_or(0) + ENVELOPE_END;
    (found, length.saturating_sub(around))
}

/// The value of a header, if the line is this one.
pub(super) fn header<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::super::payload::write;
    use super::*;

    fn chunk(text: &str) -> String {
        format!("{:x}\r\n{text}\r\n", text.len())
    }

    fn items(bytes: &[u8], cuts: usize) -> Vec<Item> {
        let (mut wire, mut items) = (Wire::default(), Vec::new());
        for piece in bytes.chunks(cuts) {
            wire.feed(piece, &mut |item| items.push(item));
        }
        items
    }

    #[test]
    fn a_stream_is_read_alike_wherever_it_is_cut() {
        let mut payload = Vec::new();
        write(&mut payload, 7, 99, 128);
        let event = format!("id: 5-1\ndata: {}\n\n", String::from_utf8(payload).unwrap());
        let (first, second) = event.split_at(60);
        let stream = [
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            &chunk("retry: 9\nid: 5-0\nevent: tidegate.open\ndata: {}\n\n"),
            &chunk(":\n"),
            &chunk(first),
            &chunk(second),
            &chunk("event: tidegate.gap\ndata: {}\n\nevent: tidegate.cursor\ndata: {}\n\n"),
            &chunk(&format!("{event}data: hello\n\nid: 1\n\n")),
            "0\r\n\r\n",
        ]
        .concat();
        let event = Item::Event {
            number: 7,
            sent: 99,
            size: 128,
        };
        let expected = [
            Item::Opened,
            event,
            Item::Gap,
            event,
            Item::Foreign,
            Item::Ended,
        ];
        for cuts in 1..stream.len() {
            assert_eq!(items(stream.as_bytes(), cuts), expected, "cut at {cuts}");
        }
    }

    #[test]
    fn an_envelope_is_read_as_its_data_is() {
        let mut payload = Vec::new();
        write(&mut payload, 7, 99, 128);
        let data = String::from_utf8(payload).unwrap();
        let stream = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            chunk(&format!(
                "id: 1796007986204-1234\ndata: {{\"topic\":\"bench\",\"id\":\"1796007986204-1234\",\"event\":null,\
                 \"time\":1796007986204,\"encoding\":\"text\",\"data\":\"{data}\"}}\n\n"
            )),
        );
        let event = Item::Event {
            number: 7,
            sent: 99,
            size: 128,
        };
        for cuts in 1..stream.len() {
            assert_eq!(items(stream.as_bytes(), cuts), [event], "cut at {cuts}");
        }
    }

    #[test]
    fn a_body_of_known_length_ends() {
        let body = "event: tidegate.open\ndata: {}\n\n";
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        assert_eq!(items(answer.as_bytes(), 11), [Item::Opened, Item::Ended]);
    }

    #[test]
    fn a_refusal_is_told() {
        let answer = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno";
        assert_eq!(items(answer, 9), [Item::Refused(503), Item::Ended]);
    }
}
