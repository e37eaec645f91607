//! A subscriber that drops its stream again and again, resumes anywhere, and keeps a diary.
//!
//! It behaves as an `EventSource` does: the id of the last complete block is what a reconnect
//! sends, a cut and a refused connection are followed by the reconnection time that the stream
//! asked for, and any status but 200 would have ended it for good (which is counted, as a fault).

use crate::clock::Clock;
use crate::cluster::Door;
use crate::event::{FOREIGN, Way, foreign_name, topic_index, topic_name};
use crate::http::{self, Answer, Request};
use crate::id::Id;
use crate::tokens;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::Value;
use sse_client::sse::{Event, Parser};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};

/// Until a stream says otherwise.
const RETRY: Duration = Duration::from_secs(3);
/// Heartbeats come every 15 s; a stream that is silent for longer than two of them is dead.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// One drop in four comes within so many bytes: in the first block, or just after it.
const EARLY_BYTES: u64 = 400;

/// How a subscriber lives.
#[derive(Clone, Debug)]
pub struct Habits {
    /// Topics of its one stream, by index.
    pub topics: Vec<usize>,
    /// How many of the topics that others write to are in its stream, too.
    pub foreign: usize,
    /// When it drops a stream.
    pub stay: Stay,
    /// The longest pause after a drop of its own.
    pub away_max: Duration,
    /// It waits no longer than this, whatever the stream asks for.
    pub retry_max: Duration,
    /// What the kernel keeps for it while it does not read.
    pub receive_buffer: Option<u32>,
    /// Its place among all subscribers.
    pub number: usize,
    /// It brings a token, another one to each stream.
    pub with_tokens: bool,
    /// Those below this number do not read.
    pub stopped: watch::Receiver<usize>,
}

/// When a stream is dropped: drawn anew for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// After up to so many bytes, in the middle of a block, too.
    Bytes(u64),
    /// After up to so long.
    Time(Duration),
}

/// One event as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its id; none if it cannot be read.
    pub id: Option<Id>,
    /// When, by the run's clock.
    pub at_us: u64,
    /// On which of the subscriber's streams.
    pub stream: usize,
    /// Its type.
    pub kind: String,
    /// Its data.
    pub data: String,
}

/// One stream of a subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Where.
    pub door: String,
    /// When it was asked for, by the run's clock.
    pub opened_us: u64,
    /// When it was live, by the run's clock: when its first block came.
    pub live_us: Option<u64>,
    /// The cursor it was asked for.
    pub cursor: String,
    /// How it ended.
    pub ended: Ended,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Not yet.
    Open,
    /// The subscriber closed it.
    Dropped,
    /// The server closed it, or the connection broke.
    Cut,
    /// It has shown everything.
    Finished,
}

/// A `tidegate.gap` event: the stream itself says that events of a topic may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The topic, an index; none if every topic is meant, or a strange one.
    pub topic: Option<usize>,
    /// Why.
    pub reason: String,
    /// After which id; none if the cursor was none.
    pub from: Option<Id>,
    /// Where the stream goes on.
    pub to: Id,
    /// Where the stream stood before.
    pub after: Option<Id>,
    /// Whether the stream stands elsewhere after it. What it has gone past already is told without an id.
    pub moves: bool,
    /// How many events the subscriber had seen by then.
    pub seen: usize,
    /// As it came.
    pub text: String,
}

impl Gap {
    /// None if it cannot be read.
    fn read(text: &str, after: Option<Id>, moves: bool, seen: usize) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let field = |name: &str| value.get(name).and_then(Value::as_str);
        Some(Self {
            topic: field("topic").and_then(topic_index),
            reason: field("reason")?.to_owned(),
            from: field("from").and_then(|id| id.parse().ok()),
            to: field("to")?.parse().ok()?,
            after,
            moves,
            seen,
            text: text.to_owned(),
        })
    }

    /// Whether it stands where an event with the id `to` would. A cursor that was ahead of the log goes back; and a gap
    /// among what the stream has gone past moves no cursor, so it is told again after a drop.
    #[must_use]
    pub fn is_in_order(&self) -> bool {
        let is_behind = !self.moves && self.from < self.after;
        self.goes_back() || is_behind || self.after < Some(self.to)
    }

    /// The cursor was ahead of the log, which has begun anew: what the log holds now is shown from `to` on.
    #[must_use]
    pub fn goes_back(&self) -> bool {
        self.from > Some(self.to)
    }

    /// Whether an event with this id may be among the missing: above `from`, and up to `to`. Where the cursor goes
    /// back, that is what came after the cursor in the log that is no more, and nothing that is in the log now.
    #[must_use]
    pub fn holds(&self, topic: usize, id: Id, is_logged: bool) -> bool {
        let is_up_to = if self.goes_back() {
            !is_logged
        } else {
            id <= self.to
        };
        self.topic == Some(topic) && self.from.unwrap_or_default() < id && is_up_to
    }
}

/// The topic that an event of the gateway itself is about.
fn topic_of(data: &str) -> Option<String> {
    let value: Value = serde_json::from_str(data).ok()?;
    Some(value.get("topic")?.as_str()?.to_owned())
}

/// Everything that a subscriber saw.
#[derive(Clone, Debug, Default)]
pub struct Diary {
    /// Topics of its stream.
    pub topics: Vec<usize>,
    /// Events, in the order in which they came.
    pub seen: Vec<Seen>,
    /// `tidegate.gap` events.
    pub gaps: Vec<Gap>,
    /// `tidegate.deleted` events: of which topic everything up to which id was deleted.
    pub deleted: Vec<(usize, Id)>,
    /// Every stream that it opened.
    pub streams: Vec<Opened>,
    /// Streams that it dropped.
    pub drops: usize,
    /// Streams that the server or a fault cut.
    pub cuts: usize,
    /// Connections that were refused or broke before an answer.
    pub refused: usize,
    /// Drops after which a stream with the cursor went live.
    pub resumes: usize,
    /// What an `EventSource` would not have survived: statuses, content types, strange cursors.
    pub faults: Vec<String>,
    /// It has seen the marker of each of its topics.
    pub is_finished: bool,
}

/// A subscriber.
#[derive(Debug)]
pub struct Subscriber {
    habits: Habits,
    doors: Vec<Door>,
    clock: Clock,
    rng: StdRng,
    diary: Diary,
    last_event_id: String,
    /// The id of the last event, on whichever stream.
    position: Option<Id>,
    retry: Duration,
    /// The last stream was dropped by us, and none has gone live since.
    resuming: bool,
    markers: BTreeSet<u32>,
    opened: Option<oneshot::Sender<()>>,
}

impl Subscriber {
    /// A subscriber who will say on `opened` that its first stream is live.
    #[must_use]
    pub fn new(
        habits: Habits,
        doors: Vec<Door>,
        clock: Clock,
        rng: StdRng,
        opened: oneshot::Sender<()>,
    ) -> Self {
        let markers = habits
            .topics
            .iter()
            .filter_map(|topic| u32::try_from(*topic).ok());
        Self {
            markers: markers.collect(),
            diary: Diary {
                topics: habits.topics.clone(),
                ..Diary::default()
            },
            habits,
            doors,
            clock,
            rng,
            last_event_id: String::new(),
            position: None,
            retry: RETRY,
            resuming: false,
            opened: Some(opened),
        }
    }

    /// Lives until it has seen the marker of each topic, or until `over`.
    pub async fn run(mut self, mut over: watch::Receiver<bool>) -> Diary {
        tokio::select! {
            () = self.live() => {}
            // An error means that nobody is there to say so.
            _ = over.wait_for(|over| *over) => {}
        }
        self.diary
    }

    async fn live(&mut self) {
        let mut last = None;
        while !self.diary.is_finished {
            let door = self.another_door(last);
            last = Some(door);
            let Some(Door { name, address }) = self.doors.get(door).cloned() else {
                return;
            };
            let ended = self.stream(name, &address).await;
            if let Some(stream) = self.diary.streams.last_mut() {
                stream.ended = ended;
            }
            match ended {
                Ended::Open | Ended::Finished => {}
                Ended::Dropped => {
                    self.diary.drops += 1;
                    self.resuming = true;
                    let pause = self
                        .habits
                        .away_max
                        .mul_f64(self.rng.random_range(0.0..1.0));
                    sleep(pause).await;
                }
                Ended::Cut => {
                    self.diary.cuts += 1;
                    sleep(self.retry.min(self.habits.retry_max)).await;
                }
            }
        }
    }

    /// Any door but the last one.
    fn another_door(&mut self, last: Option<usize>) -> usize {
        let others: Vec<usize> = (0..self.doors.len())
            .filter(|door| Some(*door) != last)
            .collect();
        let drawn = self.rng.random_range(0..others.len().max(1));
        others.get(drawn).copied().unwrap_or_default()
    }

    /// One stream, from the request to its end.
    async fn stream(&mut self, door: String, address: &str) -> Ended {
        self.diary.streams.push(Opened {
            door: door.clone(),
            opened_us: self.clock.micros(),
            live_us: None,
            cursor: self.last_event_id.clone(),
            ended: Ended::Open,
        });
        let topics: Vec<String> = self
            .habits
            .topics
            .iter()
            .map(|topic| topic_name(*topic))
            .chain((0..self.habits.foreign).map(foreign_name))
            .collect();
        let cursor = self.last_event_id.clone();
        let bearer = if self.habits.with_tokens {
            format!("Bearer {}", tokens::fresh(self.habits.number, &topics))
        } else {
            String::new()
        };
        let headers: Vec<(&str, &str)> = [
            ("Accept", "text/event-stream"),
            ("Last-Event-ID", cursor.as_str()),
            ("Authorization", bearer.as_str()),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .collect();
        let query: Vec<String> = topics.iter().map(|name| format!("topic={name}")).collect();
        let request = Request {
            method: "GET",
            target: &format!("/events?{}", query.join("&")),
            headers: &headers,
            body: &[],
        };
        let Ok(answer) = http::send(address, request, self.habits.receive_buffer).await else {
            self.diary.refused += 1;
            return Ended::Cut;
        };
        let kind = answer.header("content-type").unwrap_or_default();
        if answer.status() != 200 || !kind.starts_with("text/event-stream") {
            let fault = format!(
                "{door} answered {} {kind:?}: an EventSource would have given up",
                answer.status()
            );
            self.diary.faults.push(fault);
            return Ended::Cut;
        }
        self.listen(answer).await
    }

    /// Reads a stream until it ends, or until it is dropped: at a byte that was drawn, which may lie
    /// in the middle of a block, with whatever has been received after it thrown away.
    async fn listen(&mut self, mut answer: Answer) -> Ended {
        let mut parser = Parser::resume(&self.last_event_id);
        let mut bytes = Vec::new();
        let mut left = self.draw_bytes();
        let mut until = self.draw_time();
        let ended = loop {
            bytes.clear();
            let number = self.habits.number;
            // An error means that nobody stops it any more.
            let _gone = self
                .habits
                .stopped
                .wait_for(|stopped| number >= *stopped)
                .await
                .is_err();
            let silence = Instant::now() + SILENCE_MAX;
            let patience = until.map_or(silence, |until| until.min(silence));
            match timeout_at(patience, answer.read(&mut bytes)).await {
                Ok(Ok(true)) => {}
                Err(_) if patience < silence => break Ended::Dropped,
                Ok(Ok(false) | Err(_)) | Err(_) => break Ended::Cut,
            }
            let taken = left.map_or(bytes.len(), |left| {
                bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX))
            });
            self.take(&mut parser, bytes.get(..taken).unwrap_or_default());
            if self.diary.is_finished {
                break Ended::Finished;
            }
            left = match left {
                // The first stream of all: from here on there is a cursor to come back with.
                None if self.opened.is_none() => self.draw_bytes(),
                None => None,
                Some(left) => Some(left - taken as u64),
            };
            if until.is_none() {
                until = self.draw_time();
            }
            // A stream that always has something to read is dropped as well.
            if left == Some(0) || until.is_some_and(|until| until <= Instant::now()) {
                break Ended::Dropped;
            }
        };
        parser.last_event_id().clone_into(&mut self.last_event_id);
        if let Some(ms) = parser.retry_ms() {
            self.retry = Duration::from_millis(ms);
        }
        ended
    }

    /// After how many bytes this stream is dropped; none before the first stream has been live.
    fn draw_bytes(&mut self) -> Option<u64> {
        let Stay::Bytes(most) = self.habits.stay else {
            return None;
        };
        self.opened.is_none().then(|| {
            let early = self.rng.random_bool(0.25);
            let most = if early { EARLY_BYTES } else { most.max(1) };
            self.rng.random_range(1..=most)
        })
    }

    /// When this stream is dropped, likewise.
    fn draw_time(&mut self) -> Option<Instant> {
        let Stay::Time(most) = self.habits.stay else {
            return None;
        };
        let stay = self
            .opened
            .is_none()
            .then(|| self.rng.random_range(0.0..1.0));
        stay.map(|part| Instant::now() + most.mul_f64(part))
    }

    fn take(&mut self, parser: &mut Parser, bytes: &[u8]) {
        let at_us = self.clock.micros();
        let mut events = Vec::new();
        parser.feed(bytes, &mut events);
        for event in events {
            let position = event.last_event_id.parse().ok();
            match event.kind.as_str() {
                "tidegate.open" => self.went_live(&event, at_us),
                // What others write is none of this run's events, whatever becomes of it.
                "tidegate.cursor" | "tidegate.live" | FOREIGN => {}
                "tidegate.gap"
                    if topic_of(&event.data).is_some_and(|name| name.starts_with(FOREIGN)) => {}
                "tidegate.deleted" => {
                    let topic = topic_of(&event.data).and_then(|name| topic_index(&name));
                    self.diary.deleted.extend(topic.zip(position));
                }
                "tidegate.gap" => {
                    let (after, seen) = (self.position, self.diary.seen.len());
                    match Gap::read(&event.data, after, position != after, seen) {
                        Some(gap) => self.diary.gaps.push(gap),
                        None => self
                            .diary
                            .faults
                            .push(format!("a gap that cannot be read: {}", event.data)),
                    }
                }
                _ => self.see(event, at_us),
            }
            self.position = position;
        }
    }

    fn went_live(&mut self, event: &Event, at_us: u64) {
        let Some(stream) = self.diary.streams.last_mut() else {
            return;
        };
        stream.live_us = Some(at_us);
        if !stream.cursor.is_empty() && stream.cursor != event.last_event_id {
            let fault = format!(
                "{} resumed at {} instead of {}",
                stream.door, event.last_event_id, stream.cursor
            );
            self.diary.faults.push(fault);
        }
        if std::mem::take(&mut self.resuming) {
            self.diary.resumes += 1;
        }
        if let Some(opened) = self.opened.take() {
            // Nobody waits any more if the run has been given up.
            let _unheard = opened.send(());
        }
    }

    fn see(&mut self, event: Event, at_us: u64) {
        if event.kind == Way::Marker.as_str()
            && let Some((key, _)) = crate::event::read_payload(&event.data)
        {
            self.markers.remove(&key.number);
            self.diary.is_finished = self.markers.is_empty();
        }
        self.diary.seen.push(Seen {
            id: event.last_event_id.parse().ok(),
            at_us,
            stream: self.diary.streams.len() - 1,
            kind: event.kind,
            data: event.data,
        });
    }
}
