//! A parser of event streams, after
//! [WHATWG HTML, section 9.2.6](https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation).
//!
//! Bytes come in pieces of any size. A block that is cut off dispatches nothing and moves no id,
//! which is what makes a drop in the middle of a block harmless.

use std::mem;

/// An event as it was dispatched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatched {
    /// The type; `message` if none was given.
    pub kind: String,
    /// The data, its lines joined by LF.
    pub data: String,
    /// The last event id at this moment.
    pub last_event_id: String,
}

/// The parser of one stream. [`Parser::resume`] gives the next stream's, with the id kept.
#[derive(Clone, Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    /// The last byte was CR: an LF right after it belongs to the same line end.
    after_cr: bool,
    /// A byte order mark may only lead.
    past_first_line: bool,
    kind: String,
    data: String,
    id: String,
    last_event_id: String,
    retry_ms: Option<u64>,
}

impl Parser {
    /// The parser of a stream that resumes after `last_event_id`, which may be empty.
    #[must_use]
    pub fn resume(last_event_id: &str) -> Self {
        Self {
            id: last_event_id.to_owned(),
            last_event_id: last_event_id.to_owned(),
            ..Self::default()
        }
    }

    /// The id that a reconnect sends; empty if there was none.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// The reconnection time that this stream has asked for.
    #[must_use]
    pub fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    /// Takes bytes, and adds what they complete to `events`.
    pub fn feed(&mut self, bytes: &[u8], events: &mut Vec<Dispatched>) {
        for &byte in bytes {
            let pair = mem::replace(&mut self.after_cr, byte == b'\r') && byte == b'\n';
            match byte {
                b'\n' if pair => {}
                b'\n' | b'\r' => self.end_line(events),
                _ => self.line.push(byte),
            }
        }
    }

    fn end_line(&mut self, events: &mut Vec<Dispatched>) {
        let bytes = mem::take(&mut self.line);
        let mut line = &*String::from_utf8_lossy(&bytes);
        if !mem::replace(&mut self.past_first_line, true) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            events.extend(self.dispatch());
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        self.field(field, value.strip_prefix(' ').unwrap_or(value));
    }

    /// A comment is a field without a name.
    fn field(&mut self, field: &str, value: &str) {
        match field {
            "event" => value.clone_into(&mut self.kind),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry_ms = value.parse().ok().or(self.retry_ms);
            }
            _ => {}
        }
    }

    fn dispatch(&mut self) -> Option<Dispatched> {
        self.last_event_id.clone_from(&self.id);
        let (kind, mut data) = (mem::take(&mut self.kind), mem::take(&mut self.data));
        // Each data line added an LF; the last one is not the data's. No line, no event.
        data.pop()?;
        Some(Dispatched {
            kind: if kind.is_empty() {
                "message".to_owned()
            } else {
                kind
            },
            data,
            last_event_id: self.last_event_id.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pieces: &[&[u8]]) -> (Vec<Plain>, Parser) {
        let (mut parser, mut events) = (Parser::resume("before"), Vec::new());
        for piece in pieces {
            parser.feed(piece, &mut events);
        }
        let plain = |event: Dispatched| (event.kind, event.data, event.last_event_id);
        (events.into_iter().map(plain).collect(), parser)
    }

    /// Type, data, last event id.
    type Plain = (String, String, String);

    fn event(kind: &str, data: &str, id: &str) -> Plain {
        (kind.to_owned(), data.to_owned(), id.to_owned())
    }

    #[test]
    fn streams_are_read_as_the_standard_says() {
        let table: [(&str, Vec<Plain>); 12] = [
            ("data: a\n\n", vec![event("message", "a", "before")]),
            (
                "data:a\ndata\ndata:  b\n\n",
                vec![event("message", "a\n\n b", "before")],
            ),
            ("data\n\n", vec![event("message", "", "before")]),
            ("id: 1\nevent: x\ndata: a\n\n", vec![event("x", "a", "1")]),
            ("id: 1\n\ndata: a\n\n", vec![event("message", "a", "1")]),
            ("id\ndata: a\n\n", vec![event("message", "a", "")]),
            (
                "id: 1\0\ndata: a\n\n",
                vec![event("message", "a", "before")],
            ),
            (
                "\u{feff}data: a\r\rdata: b\r\n\r\n",
                vec![
                    event("message", "a", "before"),
                    event("message", "b", "before"),
                ],
            ),
            (
                ":\n: comment\ndata: a\n\n",
                vec![event("message", "a", "before")],
            ),
            (
                "event: x\n\ndata: a\n\n",
                vec![event("message", "a", "before")],
            ),
            ("Data: a\nfoo: b\n\n", vec![]),
            ("data: cut off\n", vec![]),
        ];
        for (text, events) in table {
            assert_eq!(parse(&[text.as_bytes()]).0, events, "{text:?}");
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(parse(&bytes).0, events, "byte by byte: {text:?}");
        }
    }

    #[test]
    fn a_cut_block_moves_no_id() {
        let (events, parser) = parse(&[b"id: 7\ndata: a\n\nid: 8\ndata: b\n"]);
        assert_eq!(events.len(), 1);
        assert_eq!(parser.last_event_id(), "7");
    }

    #[test]
    fn retry_is_digits_only() {
        assert_eq!(
            parse(&[b"retry: 2500\nretry: 3x\nretry:\n"]).1.retry_ms(),
            Some(2500)
        );
    }
}
