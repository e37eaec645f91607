//! A stream that comes back, as an `EventSource` does, and says how it fares.

use super::answer::{Answer, Client};
use super::base::encode;
use super::events::{Event, Item, Parser};
use crate::dial::Error;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{Response, StatusCode, header};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// The reconnection time until the server says otherwise.
const RETRY: Duration = Duration::from_secs(3);
/// No server is asked more often, whatever it says: `retry: 0` would have it asked hundreds of times a second.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// No server is believed that it wants to be asked later.
const RETRY_MAX: Duration = Duration::from_secs(3600);
/// A stream on which nothing comes for so long, not even a heartbeat, is taken for lost: five pauses between
/// heartbeats as they are by default, and what the shipped proxies wait.
const SILENCE: Duration = Duration::from_secs(75);

/// What becomes of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// An event, the gateway's own among them.
    Event(Event),
    /// There is no stream, nor can it be opened now, and why; it is tried again until there is one. Said once for
    /// each loss. A stream that is cut and comes back at once is none: all of them are cut in the end.
    Lost(String),
    /// There is a stream again, after so long.
    Back(Duration),
}

/// A stream of a gateway, over as many connections as it takes.
#[derive(Debug)]
pub struct Follower {
    client: Client,
    query: Vec<(&'static str, String)>,
    last_event_id: Option<String>,
    left: Option<u64>,
    retry: Duration,
    /// How long to wait before the next connection; none before the first.
    pause: Option<Duration>,
    connection: Option<Connection>,
    waiting: VecDeque<Event>,
    lost: Option<Instant>,
}

#[derive(Debug)]
struct Connection {
    body: Incoming,
    parser: Parser,
    /// The stream itself has begun: the head alone may be a proxy's.
    opened: bool,
}

impl Follower {
    /// A stream with these parameters, after a cursor if there is one, to its end or to that of `limit` events.
    #[must_use]
    pub fn new(
        client: Client,
        query: Vec<(&'static str, String)>,
        last_event_id: Option<String>,
        limit: Option<u64>,
    ) -> Self {
        Self {
            client,
            query,
            last_event_id,
            left: limit,
            retry: RETRY,
            pause: None,
            connection: None,
            waiting: VecDeque::new(),
            lost: None,
        }
    }

    /// What comes next; none once the stream has ended for good: its topics have, or the limit is reached.
    ///
    /// # Errors
    /// A sentence: nobody is there at first, or the stream can never be had. Whoever drops this future goes on
    /// with a new follower.
    pub async fn next(&mut self) -> Result<Option<Told>, Error> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(Some(self.show(event)));
            }
            if self.left == Some(0) {
                return Ok(None);
            }
            let lost = if let Some(connection) = &mut self.connection {
                let ended = connection.read(&mut self.waiting).await;
                self.take_over();
                ended
            } else {
                match self.connect().await? {
                    Begun::Stream => None,
                    Begun::Over => return Ok(None),
                    Begun::Later(why) => Some(why),
                }
            };
            if let Some(told) = lost.and_then(|why| self.lose(why)) {
                return Ok(Some(told));
            }
        }
    }

    /// What a connection has brought outlives it.
    fn take_over(&mut self) {
        let Some(connection) = &self.connection else {
            return;
        };
        if let Some(id) = connection.parser.last_event_id() {
            self.last_event_id = Some(id.to_owned()).filter(|id| !id.is_empty());
        }
        self.retry = connection.parser.retry().map_or(self.retry, believed);
    }

    fn show(&mut self, event: Event) -> Told {
        if let Some(lost) = self.lost.take() {
            // The event itself comes next.
            self.waiting.push_front(event);
            return Told::Back(lost.elapsed());
        }
        if !is_notice(&event.kind) {
            self.left = self.left.map(|left| left.saturating_sub(1));
        }
        Told::Event(event)
    }

    /// There is no connection any more. Without a reason nothing is said.
    fn lose(&mut self, why: String) -> Option<Told> {
        self.connection = None;
        let pause = self.pause.unwrap_or_default();
        self.pause = Some(pause.clamp(self.retry, RETRY_MAX));
        if why.is_empty() || self.lost.is_some() {
            return None;
        }
        self.lost = Some(Instant::now());
        Some(Told::Lost(why))
    }

    /// A connection, or why there is none now.
    async fn connect(&mut self) -> Result<Begun, Error> {
        let is_first = self.pause.is_none();
        if let Some(pause) = self.pause.replace(Duration::ZERO) {
            tokio::time::sleep(pause).await;
        }
        let left = self.left.map(|left| ("limit", left.to_string()));
        let pairs = self.query.iter().chain(&left);
        let pairs: Vec<String> = pairs
            .map(|(name, value)| format!("{name}={}", encode(value)))
            .collect();
        let path = format!("/events?{}", pairs.join("&"));
        let base = self.client.base();
        let late = format!("{base} does not answer within {SILENCE:?}");
        let opening = async {
            let last_event_id = self.last_event_id.as_deref();
            let answer = self.client.open(&path, last_event_id).await?;
            self.begin(answer).await
        };
        let begun = tokio::time::timeout(SILENCE, opening).await;
        match begun.unwrap_or(Err(Error::Broken(late))) {
            Err(why) if !is_first && !why.is_final() => Ok(Begun::Later(why.to_string())),
            begun => begun,
        }
    }

    async fn begin(&mut self, answer: Response<Incoming>) -> Result<Begun, Error> {
        let kind = answer.headers().get(header::CONTENT_TYPE);
        let is_stream = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        match answer.status() {
            StatusCode::NO_CONTENT => return Ok(Begun::Over),
            StatusCode::OK if is_stream => {
                self.connection = Some(Connection {
                    body: answer.into_body(),
                    parser: Parser::default(),
                    opened: false,
                });
                return Ok(Begun::Stream);
            }
            StatusCode::OK => {
                return Err(Error::Impossible(format!(
                    "{} answers with no event stream: is it a gateway? Check --url",
                    self.client.base()
                )));
            }
            _ => {}
        }
        let answer = Answer::read(self.client.base().as_str(), answer).await?;
        if answer.may_be_repeated() || answer.status.is_server_error() {
            self.pause = answer.retry_after;
            return Ok(Begun::Later(answer.refusal()));
        }
        Err(Error::Impossible(answer.refusal()))
    }
}

/// The reconnection time, when a server has told one.
fn believed(told: Duration) -> Duration {
    told.clamp(RETRY_MIN, RETRY_MAX)
}

/// What came of a connection.
enum Begun {
    Stream,
    /// For good.
    Over,
    /// Not now.
    Later(String),
}

impl Connection {
    /// Reads a piece. Some if there will be no more: why, or nothing if it was a cut.
    async fn read(&mut self, events: &mut VecDeque<Event>) -> Option<String> {
        let frame = match tokio::time::timeout(SILENCE, self.body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            // Whether it was cut, ended or fell silent, what counts is whether it can be had again.
            _ if self.opened => return Some(String::new()),
            _ => return Some("no replica takes the stream now".into()),
        };
        let bytes = frame.data_ref().map(AsRef::as_ref).unwrap_or_default();
        let opened = &mut self.opened;
        let fed = self.parser.feed(bytes, |item| {
            if let Item::Event(event) = item {
                *opened = true;
                events.push_back(event);
            }
        });
        fed.err().map(|why| why.to_string())
    }
}

/// What the gateway says of the stream itself, rather than of a topic that was asked for.
fn is_notice(kind: &str) -> bool {
    let notices = [
        "open",
        "live",
        "cursor",
        "heartbeat",
        "gap",
        "deleted",
        "expiring",
    ];
    let kind = kind.strip_prefix("tidegate.");
    kind.is_some_and(|kind| notices.contains(&kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_server_has_itself_asked_all_the_time_or_never_again() {
        for (told_ms, believed_ms) in [(0, 100), (99, 100), (3_000, 3_000), (u64::MAX, 3_600_000)] {
            let (told, expected) = (
                Duration::from_millis(told_ms),
                Duration::from_millis(believed_ms),
            );
            assert_eq!(believed(told), expected);
        }
    }
}
