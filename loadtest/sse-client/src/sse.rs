//! The interpretation of an event stream, after
//! [WHATWG HTML, section 9.2.6](https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation).
//!
//! A block that is cut off raises no event and moves no id, which is what makes a drop in the middle
//! of a block harmless.

use std::mem;

/// An event as it is raised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The type; empty if none was given, for which a page reads `message`.
    pub kind: String,
    /// The lines of data, joined with LF.
    pub data: String,
    /// What the block's own `id:` line says, if it has one.
    pub id: Option<String>,
    /// The last event id from here on, which is an earlier block's if this one has no id.
    pub last_event_id: String,
}

/// What a browser passes over in silence, and whoever watches a server may not want to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassedOver {
    /// Comment lines.
    pub comments: usize,
    /// Blocks with fields and without data, which raise no event.
    pub blocks_without_data: usize,
    /// Lines that are not UTF-8, read with replacements.
    pub lines_not_utf8: usize,
}

/// The interpreter of one stream. [`Parser::resume`] gives the next stream's, with the id kept.
#[derive(Clone, Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    /// The last byte of all was CR: an LF right after it belongs to the same line end.
    after_cr: bool,
    /// A byte order mark may only lead.
    past_first_line: bool,
    has_fields: bool,
    kind: String,
    data: String,
    id: Option<String>,
    last_event_id: String,
    retry_ms: Option<u64>,
    passed_over: PassedOver,
}

impl Parser {
    /// The interpreter of a stream that resumes after `last_event_id`, which may be empty.
    #[must_use]
    pub fn resume(last_event_id: &str) -> Self {
        Self {
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

    /// What raised no event so far.
    #[must_use]
    pub fn passed_over(&self) -> PassedOver {
        self.passed_over
    }

    /// Takes bytes, and adds what they complete to `events`.
    pub fn feed(&mut self, mut bytes: &[u8], events: &mut impl Extend<Event>) {
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(at) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (line, end) = bytes.split_at(at);
            self.line.extend_from_slice(line);
            self.after_cr = end == b"\r";
            bytes = match end {
                [b'\r', b'\n', rest @ ..] | [_, rest @ ..] => rest,
                [] => end,
            };
            events.extend(self.end_line());
        }
        self.line.extend_from_slice(bytes);
    }

    fn end_line(&mut self) -> Option<Event> {
        let bytes = mem::take(&mut self.line);
        let line = String::from_utf8(bytes).unwrap_or_else(|why| {
            self.passed_over.lines_not_utf8 += 1;
            String::from_utf8_lossy(why.as_bytes()).into_owned()
        });
        let mut line = &*line;
        if !mem::replace(&mut self.past_first_line, true) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        match line.split_once(':').unwrap_or((line, "")) {
            _ if line.is_empty() => return self.end_block(),
            ("", _) => self.passed_over.comments += 1,
            (name, value) => self.field(name, value.strip_prefix(' ').unwrap_or(value)),
        }
        None
    }

    fn field(&mut self, name: &str, value: &str) {
        self.has_fields = true;
        match name {
            "event" => value.clone_into(&mut self.kind),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry_ms = value.parse().ok().or(self.retry_ms);
            }
            _ => {}
        }
    }

    fn end_block(&mut self) -> Option<Event> {
        let id = self.id.take();
        if let Some(id) = &id {
            self.last_event_id.clone_from(id);
        }
        let has_fields = mem::take(&mut self.has_fields);
        let (kind, mut data) = (mem::take(&mut self.kind), mem::take(&mut self.data));
        // Each line of data added an LF; the last one is not the data's. No line, no event.
        if data.pop().is_none() {
            self.passed_over.blocks_without_data += usize::from(has_fields);
            return None;
        }
        Some(Event {
            kind,
            data,
            id,
            last_event_id: self.last_event_id.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Event>, Parser) {
        let (mut parser, mut events) = (Parser::resume("before"), Vec::new());
        for piece in pieces {
            parser.feed(piece, &mut events);
        }
        (events, parser)
    }

    /// An event with an id of its own, or with none.
    fn event(kind: &str, data: &str, id: Option<&str>) -> Event {
        Event {
            kind: kind.to_owned(),
            data: data.to_owned(),
            id: id.map(str::to_owned),
            last_event_id: id.unwrap_or("before").to_owned(),
        }
    }

    #[test]
    fn streams_are_read_as_the_standard_says() {
        let after = |id: &str, event: Event| Event {
            last_event_id: id.to_owned(),
            ..event
        };
        let plain = |data: &str| event("", data, None);
        let table: [(&str, Vec<Event>); 16] = [
            ("data: a\n\n", vec![plain("a")]),
            ("data:a\ndata\ndata:  b\n\n", vec![plain("a\n\n b")]),
            ("data\n\n", vec![plain("")]),
            ("data\ndata\n\n", vec![plain("\n")]),
            (
                "data:test\n\ndata: test\n\n",
                vec![plain("test"), plain("test")],
            ),
            (
                "id: 1\nevent: x\ndata: a\n\n",
                vec![event("x", "a", Some("1"))],
            ),
            ("id: 1\n\ndata: a\n\n", vec![after("1", plain("a"))]),
            ("id\ndata: a\n\n", vec![event("", "a", Some(""))]),
            ("id: 1\0\ndata: a\n\n", vec![plain("a")]),
            (
                "\u{feff}data: a\r\rdata: b\r\n\r\n",
                vec![plain("a"), plain("b")],
            ),
            ("data: a\n\n\u{feff}data: b\n\n", vec![plain("a")]),
            (":\n: comment\ndata: a\n\n", vec![plain("a")]),
            ("event: x\n\ndata: a\n\n", vec![plain("a")]),
            ("Data: a\nfoo: b\n\n", vec![]),
            ("data: cut off\n", vec![]),
            ("data: ü: €\n\n", vec![plain("ü: €")]),
        ];
        for (text, events) in table {
            let bytes = text.as_bytes();
            assert_eq!(parse([bytes]).0, events, "{text:?}");
            for at in 0..bytes.len() {
                let (one, other) = bytes.split_at(at);
                assert_eq!(parse([one, other]).0, events, "cut at {at}: {text:?}");
            }
            assert_eq!(parse(bytes.chunks(1)).0, events, "byte by byte: {text:?}");
        }
    }

    #[test]
    fn a_cut_block_moves_no_id() {
        let (events, parser) = parse([&b"id: 7\ndata: a\n\nid: 8\ndata: b\n"[..]]);
        assert_eq!(events.len(), 1);
        assert_eq!(parser.last_event_id(), "7");
    }

    #[test]
    fn retry_is_digits_only() {
        let (_, parser) = parse([&b"retry: 2500\nretry: 3x\nretry:\n"[..]]);
        assert_eq!(parser.retry_ms(), Some(2500));
    }

    #[test]
    fn what_raises_no_event_is_counted() {
        let text = b":\n:\n\nretry: 1\n\nid: 1\nevent: x\n\ndata: \xff\n\n\n";
        let (events, parser) = parse(text.chunks(3));
        assert_eq!(
            events,
            [Event {
                last_event_id: "1".into(),
                ..event("", "\u{fffd}", None)
            }]
        );
        let expected = PassedOver {
            comments: 2,
            blocks_without_data: 2,
            lines_not_utf8: 1,
        };
        assert_eq!(parser.passed_over(), expected);
    }
}
