//! The interpretation of an event stream, after
//! [WHATWG HTML, section 9.2.6](https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation).

use std::mem;
use std::time::Duration;

/// Bytes of one block that are kept, at most. No gateway sends as many.
const BLOCK_BYTES_MAX: usize = 64 << 20;

/// A block has no end: it is larger than 64 MiB. Retrying helps if somebody else answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is larger than {} MiB", BLOCK_BYTES_MAX >> 20)]
pub struct Endless;

/// An event as it is raised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The type; empty if none was given.
    pub kind: String,
    /// The lines of data, joined with LF.
    pub data: String,
    /// What the event's own `id:` line says, if it has one.
    pub id: Option<String>,
}

/// What a stream brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An event.
    Event(Event),
    /// A comment, such as a heartbeat.
    Comment,
}

/// The interpreter of one stream. Bytes may be cut anywhere; what is cut off at the end of a stream raises
/// nothing and moves no id.
#[derive(Clone, Debug)]
pub struct Parser {
    /// [`BLOCK_BYTES_MAX`], but for tests.
    bytes_max: usize,
    /// The line that has not ended.
    line: Vec<u8>,
    /// The last byte was CR: an LF right after it ends no line of its own.
    after_cr: bool,
    past_first_line: bool,
    event: Event,
    has_data: bool,
    last_event_id: Option<String>,
    retry: Option<Duration>,
}

impl Default for Parser {
    fn default() -> Self {
        Self {
            bytes_max: BLOCK_BYTES_MAX,
            line: Vec::new(),
            after_cr: false,
            past_first_line: false,
            event: Event::default(),
            has_data: false,
            last_event_id: None,
            retry: None,
        }
    }
}

impl Parser {
    /// The id after which a reconnect goes on, if this stream gave one; empty says that there is none.
    #[must_use]
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    /// The reconnection time that this stream asked for.
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Takes bytes, and tells what they complete.
    ///
    /// # Errors
    /// [`Endless`]. Nothing more can be read by this parser.
    pub fn feed(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Item)) -> Result<(), Endless> {
        if mem::take(&mut self.after_cr) {
            if bytes.is_empty() {
                self.after_cr = true;
            }
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some((line, end)) = memchr::memchr2(b'\n', b'\r', bytes)
            .and_then(|at| Some((bytes.get(..at)?, bytes.get(at..)?)))
        {
            self.line.extend_from_slice(line);
            self.after_cr = end == b"\r";
            bytes = match end {
                [b'\r', b'\n', rest @ ..] | [_, rest @ ..] => rest,
                [] => end,
            };
            let line = mem::take(&mut self.line);
            if let Some(item) = self.end_line(&String::from_utf8_lossy(&line)) {
                tell(item);
            }
        }
        self.line.extend_from_slice(bytes);
        let kept = self.line.len() + self.event.data.len();
        (kept <= self.bytes_max).then_some(()).ok_or(Endless)
    }

    fn end_line(&mut self, mut line: &str) -> Option<Item> {
        if !mem::replace(&mut self.past_first_line, true) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            return self.end_block();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => return Some(Item::Comment),
            "event" => value.clone_into(&mut self.event.kind),
            "data" => {
                if mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            "id" if !value.contains('\0') => self.event.id = Some(value.to_owned()),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                let millis = value.parse().ok().map(Duration::from_millis);
                self.retry = millis.or(self.retry);
            }
            _ => {}
        }
        None
    }

    /// A block without data raises no event; its id counts.
    fn end_block(&mut self) -> Option<Item> {
        let event = mem::take(&mut self.event);
        if event.id.is_some() {
            self.last_event_id.clone_from(&event.id);
        }
        mem::take(&mut self.has_data).then_some(Item::Event(event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The events of a stream that comes in pieces of so many bytes, the last id, the reconnection time, and
    /// the comments.
    fn ours(text: &[u8], size: usize) -> (Vec<Event>, String, Option<u64>, usize) {
        let (mut parser, mut events, mut comments) = (Parser::default(), Vec::new(), 0);
        for piece in text.chunks(size) {
            let fed = parser.feed(piece, |item| match item {
                Item::Event(event) => events.push(event),
                Item::Comment => comments += 1,
            });
            assert_eq!(fed, Ok(()));
        }
        let id = parser.last_event_id().unwrap_or_default().to_owned();
        let retry = parser
            .retry()
            .map(|retry| u64::try_from(retry.as_millis()).unwrap());
        (events, id, retry, comments)
    }

    /// The same by the parser of the tests, which shares no code with this one.
    fn theirs(text: &[u8]) -> (Vec<Event>, String, Option<u64>, usize) {
        let (mut parser, mut events) = (sse_client::sse::Parser::default(), Vec::new());
        parser.feed(text, &mut events);
        let events = events.into_iter().map(|event| Event {
            kind: event.kind,
            data: event.data,
            id: event.id,
        });
        let id = parser.last_event_id().to_owned();
        let comments = parser.passed_over().comments;
        (events.collect(), id, parser.retry_ms(), comments)
    }

    #[test]
    fn a_block_without_an_end_is_not_kept_and_comments_without_one_cost_nothing() {
        let fed = |piece: &[u8]| {
            let mut parser = Parser {
                bytes_max: 10_000,
                ..Parser::default()
            };
            (0..12).try_for_each(|_| parser.feed(piece, |_| {}))
        };
        let mut line = vec![b'x'; 1_000];
        assert_eq!(fed(&line), Err(Endless), "a line without an end");
        line.splice(..5, *b"data:");
        line.push(b'\n');
        assert_eq!(fed(&line), Err(Endless), "a line after another");
        line.splice(..1, *b":");
        assert_eq!(fed(&line), Ok(()), "comments");
        line.push(b'\n');
        line.splice(..5, *b"data:");
        assert_eq!(fed(&line), Ok(()), "one block after another");
    }

    proptest! {
        #[test]
        fn it_reads_what_another_parser_reads_wherever_it_is_cut(
            text in "((id|data|event|retry|x|):? ?|\u{feff}|a|7|ü|\r|\n|\0|\n\n){0,60}",
            size in 1..9_usize,
        ) {
            prop_assert_eq!(ours(text.as_bytes(), size), theirs(text.as_bytes()));
        }

        #[test]
        fn any_bytes_are_read(text in proptest::collection::vec(any::<u8>(), 0..200), size in 1..9_usize) {
            prop_assert_eq!(ours(&text, size), theirs(&text));
        }
    }
}
