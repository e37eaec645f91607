//! An event-stream client, written by hand from
//! [WHATWG HTML, 9.2.6](https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation)
//! over a bare socket: it shares nothing with the encoder that it checks.
//!
//! Two promises are checked on every stream that any test reads: ids only grow, and no block comes
//! without data (some clients raise an empty event for one).

use super::http::{Body, Head, Headers, Progress, connect, read_head, read_some, request};
use super::{FAILSAFE, Gateway};
use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use tokio::time::Instant;

/// An event as a page would get it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The value of this block's own `id:` line.
    pub id: Option<String>,
    /// The value of `event:`; empty if there was none (a page reads `message`).
    pub event: String,
    /// The lines of `data:`, joined with LF.
    pub data: String,
}

impl Event {
    /// The data as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.data).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }

    /// The id, which must be there.
    pub fn id(&self) -> &str {
        self.id
            .as_deref()
            .unwrap_or_else(|| panic!("no id: {self:?}"))
    }

    /// Whether the gateway itself speaks: `tidegate.open`, `tidegate.gap` and so on.
    pub fn is_own(&self) -> bool {
        self.event.starts_with("tidegate.")
    }
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With the last chunk: the stream is truly over.
    Clean,
    /// The connection broke off; every client comes back.
    Cut,
}

/// One open stream, or what is left of it.
#[derive(Debug)]
pub struct Sse {
    socket: TcpStream,
    url: String,
    headers_sent: Vec<(String, String)>,
    head: Head,
    raw: Vec<u8>,
    framing: Body,
    body: Vec<u8>,
    parser: Parser,
    end: Option<End>,
}

impl Sse {
    /// Asks for a stream at `http://host:port/path` and reads the head of the answer.
    pub fn open(url: &str, headers: &[(&str, &str)]) -> Self {
        let rest = url.strip_prefix("http://").expect("an http URL");
        let (authority, path) = rest.split_at(rest.find('/').expect("a path"));
        let mut sent = vec![("Accept", "text/event-stream")];
        sent.extend(headers);
        let socket = connect(authority.parse().expect("an address"));
        let mut stream = Self::exchange(socket, &request("GET", path, &sent, b""));
        url.clone_into(&mut stream.url);
        stream.headers_sent = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        stream
    }

    /// Sends a request as it is and reads the head of the answer.
    pub fn exchange(mut socket: TcpStream, request: &[u8]) -> Self {
        socket.write_all(request).expect("the request is sent");
        let mut raw = Vec::new();
        let head = read_head(&mut socket, &mut raw);
        let framing = Body::of(&head.headers, head.status == 204);
        Self {
            socket,
            url: String::new(),
            headers_sent: Vec::new(),
            framing,
            raw,
            head,
            body: Vec::new(),
            parser: Parser::default(),
            end: (framing == Body::Over).then_some(End::Clean),
        }
    }

    /// Comes back as a browser would: same URL, with the last id if there is one.
    pub fn reconnect(self) -> Self {
        let url = self.url.clone();
        self.reconnect_at(&url)
    }

    /// Comes back to another replica.
    pub fn reconnect_to(self, gateway: &Gateway) -> Self {
        let rest = self.url.trim_start_matches("http://");
        let path = &rest[rest.find('/').expect("a path")..];
        let url = format!("{}{path}", gateway.url());
        self.reconnect_at(&url)
    }

    fn reconnect_at(self, url: &str) -> Self {
        let Self {
            headers_sent,
            parser,
            socket,
            ..
        } = self;
        drop(socket);
        let mut headers: Vec<(&str, &str)> = headers_sent
            .iter()
            .filter(|(name, _)| !name.eq_ignore_ascii_case("last-event-id"))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        if !parser.last_event_id.is_empty() {
            headers.push(("Last-Event-ID", &parser.last_event_id));
        }
        let mut stream = Self::open(url, &headers);
        stream
            .parser
            .last_event_id
            .clone_from(&parser.last_event_id);
        stream
    }

    /// `HTTP/1.1` or `HTTP/1.0`.
    pub fn version(&self) -> &str {
        &self.head.version
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// The header fields.
    pub fn headers(&self) -> &Headers {
        &self.head.headers
    }

    /// Every byte of the body up to now, chunks taken apart.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body up to now as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("an event stream is UTF-8")
    }

    /// What a reconnect would send.
    pub fn last_event_id(&self) -> &str {
        &self.parser.last_event_id
    }

    /// The last reconnection time that was told, in milliseconds.
    pub fn retry(&self) -> Option<u64> {
        self.parser.retry
    }

    /// Comment lines up to now.
    pub fn comments(&self) -> usize {
        self.parser.comments
    }

    /// How the body ended, if it has.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Reads once from the socket; false at the end of the body.
    fn read(&mut self) -> bool {
        if self.end.is_some() {
            return false;
        }
        let before = self.body.len();
        loop {
            let progress = self.framing.take(&mut self.raw, &mut self.body);
            if progress == Progress::Over {
                self.end = Some(End::Clean);
            }
            if self.body.len() > before || self.end.is_some() {
                break;
            }
            match read_some(&mut self.socket, &mut self.raw) {
                Ok(0) => {
                    self.end = Some(End::Cut);
                    break;
                }
                Ok(_) => {}
                Err(why) => panic!("{why}; the stream so far:\n{}", self.text()),
            }
        }
        let fresh = self.body[before..].to_vec();
        self.parser.feed(&fresh);
        self.end.is_none() || self.body.len() > before
    }

    /// As [`Sse::read`], for something that was waited for since `begun`: heartbeats alone would
    /// keep a stream from ever timing out.
    fn read_since(&mut self, begun: Instant) -> bool {
        assert!(
            begun.elapsed() < FAILSAFE,
            "what was waited for did not come within {FAILSAFE:?}; the stream so far:\n{}",
            self.text()
        );
        self.read()
    }

    /// The next event of any kind; none once the body is over.
    pub fn try_next_event(&mut self) -> Option<Event> {
        let begun = Instant::now();
        loop {
            if let Some(event) = self.parser.events.pop_front() {
                return Some(event);
            }
            if !self.read_since(begun) {
                return None;
            }
        }
    }

    /// The next event of any kind.
    ///
    /// # Panics
    /// If the stream ends first, or nothing comes within the failsafe.
    pub fn next_event(&mut self) -> Event {
        self.try_next_event().unwrap_or_else(|| {
            panic!(
                "status {}, the stream ended ({:?}) after:\n{}",
                self.status(),
                self.end,
                self.text()
            )
        })
    }

    /// The next event that is not the gateway's own.
    pub fn next_published(&mut self) -> Event {
        loop {
            let event = self.next_event();
            if !event.is_own() {
                return event;
            }
        }
    }

    /// The next event of this type; those before it are dropped.
    pub fn next_of(&mut self, kind: &str) -> Event {
        loop {
            let event = self.next_event();
            if event.event == kind {
                return event;
            }
        }
    }

    /// The data of the next `count` events that are not the gateway's own.
    pub fn next_data(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.next_published().data).collect()
    }

    /// The first event, which must be `tidegate.open`: the stream is live from here on.
    pub fn opened(&mut self) -> Event {
        assert_eq!(self.status(), 200, "{:?}", self.head);
        let event = self.next_event();
        assert_eq!(event.event, "tidegate.open", "{event:?}");
        event
    }

    /// Events that were read from the socket already, and not asked for yet: what a reconnect's
    /// last id covers.
    pub fn received(&mut self) -> Vec<Event> {
        self.parser.events.drain(..).collect()
    }

    /// Every event up to the end of the body, and how it ended.
    pub fn rest(&mut self) -> (Vec<Event>, End) {
        let events = std::iter::from_fn(|| self.try_next_event()).collect();
        (events, self.end.expect("the body is over"))
    }

    /// Waits until the body up to now satisfies `enough`.
    pub fn read_until(&mut self, enough: impl Fn(&str) -> bool) {
        let begun = Instant::now();
        while !enough(&self.text()) {
            assert!(
                self.read_since(begun),
                "the stream ended ({:?}) after:\n{}",
                self.end,
                self.text()
            );
        }
    }

    /// Waits for `more` comment lines beyond those that were read.
    pub fn next_comments(&mut self, more: usize) {
        let (begun, wanted) = (Instant::now(), self.comments() + more);
        while self.comments() < wanted {
            assert!(self.read_since(begun), "the stream ended ({:?})", self.end);
        }
    }

    /// Goes without a word, as a client whose network went away.
    pub fn drop_connection(&self) {
        drop(self.socket.shutdown(Shutdown::Both));
    }
}

/// The interpreter of the stream: bytes in, events out.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    after_cr: bool,
    lines_read: usize,
    id: Option<String>,
    event: String,
    data: Option<String>,
    fields: usize,
    last_event_id: String,
    /// Takes effect with the blank line, as the standard says.
    id_buffer: Option<String>,
    retry: Option<u64>,
    comments: usize,
    positions: Option<BTreeMap<u64, (u64, u64)>>,
    events: VecDeque<Event>,
}

impl Parser {
    fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' if self.after_cr => self.after_cr = false,
                b'\n' | b'\r' => {
                    self.after_cr = byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    let line = String::from_utf8(line).expect("an event stream is UTF-8");
                    self.take_line(&line);
                }
                _ => {
                    self.after_cr = false;
                    self.line.push(byte);
                }
            }
        }
    }

    fn take_line(&mut self, line: &str) {
        self.lines_read += 1;
        let line = match line.strip_prefix('\u{feff}') {
            Some(rest) if self.lines_read == 1 => rest,
            _ => line,
        };
        if line.is_empty() {
            return self.dispatch();
        }
        if line.starts_with(':') {
            self.comments += 1;
            return;
        }
        self.fields += 1;
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => {
                let data = self.data.get_or_insert_with(String::new);
                data.push_str(value);
                data.push('\n');
            }
            "id" if !value.contains('\0') => {
                self.id = Some(value.to_owned());
                self.id_buffer = self.id.clone();
            }
            "retry" if value.bytes().all(|b| b.is_ascii_digit()) => {
                self.retry = value.parse().ok().or(self.retry);
            }
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        if let Some(id) = self.id_buffer.take() {
            self.last_event_id = id;
        }
        let (id, event) = (self.id.take(), std::mem::take(&mut self.event));
        let fields = std::mem::take(&mut self.fields);
        match self.data.take() {
            Some(mut data) => {
                data.pop();
                id.iter().for_each(|id| self.check_growth(id));
                self.events.push_back(Event { id, event, data });
            }
            None => assert_eq!(fields, 0, "a block without data: {event:?} {id:?}"),
        }
    }

    /// Ids of one partition on one stream only ever grow; of a cursor over several partitions no
    /// part goes back, and one at least goes on.
    fn check_growth(&mut self, id: &str) {
        let Some(now) = positions(id) else { return };
        if let Some(before) = self.positions.replace(now.clone()) {
            let kept = before
                .iter()
                .all(|(partition, at)| now.get(partition) >= Some(at));
            assert!(kept && before != now, "{id} does not come after {before:?}");
        }
    }
}

/// Where a cursor stands in each partition; a bare id stands in partition 0.
pub fn positions(cursor: &str) -> Option<BTreeMap<u64, (u64, u64)>> {
    if !cursor.contains(':') {
        return Some(BTreeMap::from([(0, position(cursor)?)]));
    }
    let part = |pair: &str| {
        let (partition, id) = pair.split_once(':')?;
        Some((partition.parse().ok()?, position(id)?))
    };
    cursor.split(',').map(part).collect()
}

/// Both numbers of an id.
pub fn position(id: &str) -> Option<(u64, u64)> {
    let (ms, seq) = id.split_once('-')?;
    Some((ms.parse().ok()?, seq.parse().ok()?))
}
