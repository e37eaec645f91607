//! An event-stream client over a bare socket. What it reads is interpreted by `sse_client`, which shares
//! nothing with the encoder that is checked.
//!
//! Two promises are checked on every stream that any test reads: ids only grow, and no block comes
//! without data (some clients raise an empty event for one).

use super::http::{body_after, connect, read_head, read_some, request, take};
use super::{FAILSAFE, Gateway, Headers};
use sse_client::http::{Body, Head};
use sse_client::sse::{Parser, PassedOver};
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
    events: Events,
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
        let framing = body_after(&head, false);
        Self {
            socket,
            url: String::new(),
            headers_sent: Vec::new(),
            end: framing.is_over().then_some(End::Clean),
            framing,
            raw,
            head,
            body: Vec::new(),
            events: Events::default(),
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
            events,
            socket,
            ..
        } = self;
        drop(socket);
        let mut headers: Vec<(&str, &str)> = headers_sent
            .iter()
            .filter(|(name, _)| !name.eq_ignore_ascii_case("last-event-id"))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let last_event_id = events.parser.last_event_id();
        if !last_event_id.is_empty() {
            headers.push(("Last-Event-ID", last_event_id));
        }
        let mut stream = Self::open(url, &headers);
        stream.events.parser = Parser::resume(last_event_id);
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
        self.events.parser.last_event_id()
    }

    /// The last reconnection time that was told, in milliseconds.
    pub fn retry(&self) -> Option<u64> {
        self.events.parser.retry_ms()
    }

    /// Comment lines up to now.
    pub fn comments(&self) -> usize {
        self.events.parser.passed_over().comments
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
            take(&mut self.framing, &mut self.raw, &mut self.body);
            if self.framing.is_over() {
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
        self.events.feed(&fresh);
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

    /// The next event of any kind but `tidegate.live`; none once the body is over.
    pub fn try_next_event(&mut self) -> Option<Event> {
        let begun = Instant::now();
        loop {
            // Of many tests it is no part, and would stand at another place in each run.
            while let Some(event) = self.events.ready.pop_front() {
                if event.event != "tidegate.live" {
                    return Some(event);
                }
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
        let ready = self.events.ready.drain(..);
        ready
            .filter(|event| event.event != "tidegate.live")
            .collect()
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

/// The events of the stream, and the promises that each of them keeps.
#[derive(Debug, Default)]
struct Events {
    parser: Parser,
    positions: Option<BTreeMap<u64, (u64, u64)>>,
    ready: VecDeque<Event>,
}

impl Events {
    fn feed(&mut self, bytes: &[u8]) {
        let mut events = Vec::new();
        self.parser.feed(bytes, &mut events);
        let PassedOver {
            blocks_without_data,
            lines_not_utf8,
            comments: _,
        } = self.parser.passed_over();
        assert_eq!(blocks_without_data, 0, "a block without data");
        assert_eq!(lines_not_utf8, 0, "an event stream is UTF-8");
        for event in events {
            // Where it stands is what the last event said, or further on.
            let may_stand = event.kind == "tidegate.live";
            event
                .id
                .iter()
                .for_each(|id| self.check_growth(id, may_stand));
            self.ready.push_back(Event {
                id: event.id,
                event: event.kind,
                data: event.data,
            });
        }
    }

    /// Ids of one partition on one stream only ever grow; of a cursor over several partitions no
    /// part goes back, and one at least goes on.
    fn check_growth(&mut self, id: &str, may_stand: bool) {
        let Some(now) = positions(id) else { return };
        if let Some(before) = self.positions.replace(now.clone()) {
            let kept = before
                .iter()
                .all(|(partition, at)| now.get(partition) >= Some(at));
            let grows = may_stand || before != now;
            assert!(kept && grows, "{id} does not come after {before:?}");
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
