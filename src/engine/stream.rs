//! The life of one stream, as a state machine without a socket: what to write next, what to read,
//! when to wake.
//!
//! ```text
//! opening ──(the start is known)──> live ──(limit, age, end, drain, held)──> over
//! ```
//!
//! Opening is a future ([`open`]); it waits for the subscription, for the clock, and for history.
//! From then on [`Stream::turn`] is called whenever the bell rings or the time it named has come.

use super::reads::Reads;
use crate::broker::{Bounds, Retention};
use crate::cursor::Cursor;
use crate::hub::reader::{Lag, PAGE_EVENTS, Reader, Shown, Start, Step};
use crate::hub::{Bell, Hub};
use crate::id::Id;
use crate::log::{History, ReadRequest, Reading};
use crate::metrics::{CloseReason, Metrics};
use crate::sse::{Block, Gap, HEARTBEAT, Mark, heartbeat_event, retry_line};
use crate::swap::Swap;
use crate::topic::{PartitionNo, Topic};
use bytes::Bytes;
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// What all streams of this replica go by.
#[derive(Debug)]
pub struct StreamSettings {
    /// This replica's name.
    pub replica: String,
    /// Pause between heartbeats.
    pub heartbeat: Duration,
    /// Reconnection time, plus or minus half.
    pub retry: Duration,
    /// Life of a stream, minus up to a quarter.
    pub age_max: Duration,
    /// Whether streams begin with `tidegate.open`.
    pub open_event: bool,
    /// A stream that is held longer is cut.
    pub repair_time: Duration,
    /// What the log keeps: a cursor is refreshed before half of the age, and before a filter has
    /// kept back half of the entries.
    pub retention: Swap<Retention>,
    /// The drain.
    pub drain: Arc<Drain>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

impl StreamSettings {
    /// A reconnection time for one client, in milliseconds.
    #[must_use]
    pub fn jittered_retry_ms(&self) -> u64 {
        crate::config::millis(self.retry.mul_f64(rand::random_range(0.5..1.5)))
    }
}

/// When this replica began to go, and how long it takes.
#[derive(Debug)]
pub struct Drain {
    began: OnceLock<Instant>,
    time: Duration,
}

impl Drain {
    /// A drain that has not begun.
    #[must_use]
    pub fn new(time: Duration) -> Self {
        Self {
            began: OnceLock::new(),
            time,
        }
    }

    /// Begins; a second call changes nothing. The hub's bells must be rung after it.
    pub fn begin(&self, now: Instant) {
        self.began.get_or_init(|| now);
    }

    /// Whether it has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.began.get().is_some()
    }

    /// When the stream that drew `slot`, 0 to 1, is cut: all of them over four fifths of the time,
    /// so that the last still have time to be flushed.
    fn cut_at(&self, slot: f64) -> Option<Instant> {
        self.began
            .get()
            .map(|began| *began + self.time.mul_f64(0.8 * slot))
    }
}

/// What a subscriber asked for, checked.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Topics with a log, each once, in the order given.
    pub topics: Vec<Topic>,
    /// `tidegate.connections` as well.
    pub connections: bool,
    /// Where to begin.
    pub begin: Begin,
    /// Only events of these types; empty for all.
    pub kinds: Vec<String>,
    /// Ends after so many events.
    pub limit: Option<u64>,
    /// Ends after this time.
    pub max_age: Option<Duration>,
    /// Heartbeats as events.
    pub heartbeat_events: bool,
}

/// Where a stream begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Begin {
    /// With what comes next.
    #[default]
    Live,
    /// After a cursor.
    After(Cursor),
    /// After a cursor that cannot be read.
    Unreadable,
    /// With history.
    History(History),
}

impl Begin {
    /// The word in logs.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::After(_) => "resumed",
            Self::Unreadable => "bad_cursor",
            Self::History(_) => "history",
        }
    }
}

/// How a stream is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The last chunk is sent: the stream is truly over.
    Clean(CloseReason),
    /// The connection breaks off, so that every client comes back.
    Cut(CloseReason),
}

impl Ending {
    /// Why.
    #[must_use]
    pub const fn reason(self) -> CloseReason {
        match self {
            Self::Clean(reason) | Self::Cut(reason) => reason,
        }
    }
}

/// What a turn came to. Bytes that it made are written first in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There is more to write at once.
    More,
    /// Nothing more until the bell rings or this time has come.
    Wait(Instant),
    /// Read these, give them to [`Stream::take`], and turn again.
    Read(PartitionNo, Vec<ReadRequest>),
    /// It is over.
    Over(Ending),
}

/// What a stream has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Events shown, gaps not counted.
    pub events: u64,
    /// How far it is behind.
    pub lag: Lag,
}

/// One open stream.
#[derive(Debug)]
pub struct Stream {
    settings: Arc<StreamSettings>,
    reader: Reader,
    hub: Arc<Hub>,
    kinds: Box<[String]>,
    limit: Option<u64>,
    counts: Option<Watch>,
    heartbeat_events: bool,
    next_heartbeat: Instant,
    cut_by_age: Instant,
    end_by_age: Option<Instant>,
    drain_slot: f64,
    held_since: Option<Instant>,
    caught_up: bool,
    greeting: Vec<Bytes>,
    replay: Replay,
    told: Told,
    /// Events shown.
    events: u64,
    /// The least that the log keeps of any of its topics, by this retention.
    bounds: Bounds,
    retention: Arc<Retention>,
}

/// What the stream shows before it is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replay {
    /// Nothing, or it is counted already where that came from.
    None,
    /// History, or what is left after a gap.
    Begun,
    /// Everything after the client's own cursor.
    Resumed,
}

/// What of the cursor was written: a client comes back with that, not with the reader's.
#[derive(Debug)]
struct Told {
    /// Its oldest part.
    oldest: Option<Id>,
    /// How often the cursor has moved since.
    behind: usize,
}

impl Told {
    fn written(&mut self, cursor: &Cursor) {
        self.oldest = cursor.oldest();
        self.behind = 0;
    }
}

/// Watching the number of connections.
#[derive(Debug)]
struct Watch {
    key: usize,
    seen: u64,
}

/// Bytes after which a turn stops, so that one stream does not starve the others.
const TURN_BYTES: usize = 64 * 1024;

#[derive(Serialize)]
struct Opened<'a> {
    topics: Vec<&'a str>,
    cursor: Option<String>,
    replica: &'a str,
}

/// Waits until everything that a stream needs to begin is known: the subscription of each topic,
/// and the cursor. Takes as long as Redis is away.
///
/// # Cancel safety
/// Safe: dropped, it leaves nothing behind.
pub async fn open(
    hub: Arc<Hub>,
    reads: Reads,
    settings: Arc<StreamSettings>,
    bell: Arc<Bell>,
    wish: Wish,
) -> Stream {
    let begin = begin_in(&hub, &reads, &wish).await;
    let mut reader = hub.reader(&wish.topics, bell.clone(), |partition| {
        begin.start(partition)
    });
    let mut gaps = Vec::new();
    while let Step::Clock(partition) = next_step(&bell, &mut reader, &mut gaps).await {
        reads.pages(partition, Vec::new()).await;
    }
    Stream::begin(hub, settings, reader, bell, &wish, &gaps)
}

/// Opens as far as it goes without reading the clock; waits for the bell where it has to.
async fn next_step(bell: &Bell, reader: &mut Reader, gaps: &mut Vec<Gap>) -> Step {
    std::future::poll_fn(|cx| {
        bell.register(cx.waker());
        match reader.open(gaps) {
            Step::Held => Poll::Pending,
            step => Poll::Ready(step),
        }
    })
    .await
}

/// Where each partition begins, as far as it can be said before subscribing.
enum BeginIn {
    All(Start),
    After(Cursor),
    History(Vec<(PartitionNo, Id)>),
}

impl BeginIn {
    fn start(&self, partition: PartitionNo) -> Start {
        match self {
            Self::All(start) => *start,
            // A partition that the cursor does not know is of a topic that was added since.
            Self::After(cursor) => cursor.position(partition).map_or(Start::Live, Start::After),
            Self::History(found) => found
                .iter()
                .find(|(number, _)| *number == partition)
                .map_or(Start::Live, |(_, id)| Start::History(*id)),
        }
    }
}

async fn begin_in(hub: &Hub, reads: &Reads, wish: &Wish) -> BeginIn {
    match &wish.begin {
        Begin::Live => BeginIn::All(Start::Live),
        Begin::After(cursor) if cursor.speaks_of(hub.partitions()) => {
            BeginIn::After(cursor.clone())
        }
        Begin::Unreadable | Begin::After(_) => BeginIn::All(Start::Unreadable),
        Begin::History(history) => {
            let partitions: BTreeSet<PartitionNo> = wish
                .topics
                .iter()
                .map(|topic| topic.partition(hub.partitions()))
                .collect();
            let mut found = Vec::new();
            for partition in partitions {
                let here = wish
                    .topics
                    .iter()
                    .filter(|topic| topic.partition(hub.partitions()) == partition);
                let topics: Vec<Topic> = here.cloned().collect();
                found.push((partition, reads.history(partition, &topics, *history).await));
            }
            BeginIn::History(found)
        }
    }
}

impl Stream {
    fn begin(
        hub: Arc<Hub>,
        settings: Arc<StreamSettings>,
        reader: Reader,
        bell: Arc<Bell>,
        wish: &Wish,
        gaps: &[Gap],
    ) -> Self {
        let now = Instant::now();
        let counts = wish.connections.then(|| Watch {
            key: hub.counts().watch(bell),
            seen: 0,
        });
        let replay = match wish.begin {
            Begin::Live | Begin::Unreadable => Replay::None,
            Begin::After(_) if gaps.is_empty() => Replay::Resumed,
            Begin::After(_) | Begin::History(_) => Replay::Begun,
        };
        let retention = settings.retention.get();
        let mut stream = Self {
            next_heartbeat: now + settings.heartbeat.mul_f64(rand::random_range(0.0..1.0)),
            cut_by_age: now + settings.age_max.mul_f64(rand::random_range(0.75..1.0)),
            end_by_age: wish.max_age.map(|age| now + age),
            drain_slot: rand::random_range(0.0..1.0),
            kinds: wish.kinds.clone().into(),
            limit: wish.limit,
            heartbeat_events: wish.heartbeat_events,
            held_since: None,
            caught_up: false,
            greeting: Vec::new(),
            counts,
            told: Told {
                oldest: reader.oldest(),
                behind: 0,
            },
            events: 0,
            bounds: least(&retention, &wish.topics),
            retention,
            reader,
            settings,
            hub,
            replay,
        };
        stream.greet(wish, gaps);
        stream
    }

    /// The first block, and gaps that are told at once. As long as a gap is to come, no id is
    /// written: a drop in between leads to the same gap again.
    fn greet(&mut self, wish: &Wish, gaps: &[Gap]) {
        let retry = self.settings.jittered_retry_ms();
        let cursor = self.reader.cursor();
        if self.settings.open_event {
            let block = Block::default().retry(retry);
            let block = match &cursor {
                Some(cursor) if gaps.is_empty() => block.id(cursor),
                _ => block,
            };
            let connections = wish.connections.then_some(Topic::CONNECTIONS);
            let opened = Opened {
                topics: wish
                    .topics
                    .iter()
                    .map(Topic::as_str)
                    .chain(connections)
                    .collect(),
                cursor: cursor.as_ref().map(Cursor::to_string),
                replica: &self.settings.replica,
            };
            self.greeting
                .push(Bytes::from(block.event("tidegate.open").json(&opened)));
        } else {
            self.told.behind = 1;
            // Without a blank line it joins the first event's block.
            self.greeting.push(Bytes::from(retry_line(retry)));
        }
        for (index, gap) in gaps.iter().enumerate() {
            self.settings.metrics.gap(gap.reason);
            let last = index + 1 == gaps.len();
            self.greeting
                .push(Bytes::from(gap.block(cursor.as_ref().filter(|_| last))));
        }
    }

    /// Whether a client that came back has nothing to come back for: every topic has ended at or
    /// below its cursor. It is answered 204.
    #[must_use]
    pub fn is_over_for_good(&self) -> bool {
        self.replay == Replay::Resumed && self.counts.is_none() && self.reader.has_ended()
    }

    /// The stream's topics.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.reader.topics()
    }

    /// Whether it shows the number of connections as well.
    pub(super) fn watches_connections(&self) -> bool {
        self.counts.is_some()
    }

    /// What it has come to, for whoever looks or reads the log.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing {
            events: self.events,
            lag: self.reader.lag(),
        }
    }

    /// Takes what [`Turn::Read`] asked for.
    pub fn take(&mut self, reading: &Reading) {
        let pages = reading.pages.iter().cloned().map(Arc::new).collect();
        self.reader.take_pages(&reading.horizon, pages);
    }

    /// Goes on as far as it can: appends what is to be written to `out`.
    pub fn turn(&mut self, now: Instant, out: &mut Vec<Bytes>) -> Turn {
        if !self.greeting.is_empty() {
            // Taken whole: a quiet stream holds no memory for it.
            out.append(&mut std::mem::take(&mut self.greeting));
        }
        if let Some(ending) = self.overdue(now) {
            return Turn::Over(ending);
        }
        let begun = out.len();
        let step = self.show(out);
        self.count_replay(&step);
        self.show_counts(out);
        if out.len() > begun {
            // Something was written: silence begins anew.
            self.next_heartbeat = self
                .next_heartbeat
                .max(now + self.settings.heartbeat.mul_f64(0.5));
        }
        if self.limit == Some(0) {
            return Turn::Over(Ending::Clean(CloseReason::Limit));
        }
        self.caught_up |= step == Step::Idle;
        match step {
            Step::Full => return Turn::More,
            Step::Behind(partition, requests) => return Turn::Read(partition, requests),
            Step::Clock(partition) => return Turn::Read(partition, Vec::new()),
            Step::Ended if self.counts.is_none() => {
                // A client that was not told of the end would come back for ever.
                if self.told.behind > 0 {
                    self.tell_cursor(out);
                }
                return Turn::Over(Ending::Clean(CloseReason::Ended));
            }
            Step::Held => {
                let since = *self.held_since.get_or_insert(now);
                if now >= since + self.settings.repair_time {
                    return Turn::Over(Ending::Cut(CloseReason::Held));
                }
            }
            Step::Idle | Step::Ended => self.held_since = None,
        }
        self.beat(now, out);
        Turn::Wait(self.wake_at())
    }

    fn count_replay(&mut self, first: &Step) {
        let outcome = match first {
            Step::Behind(..) => "log",
            Step::Full | Step::Idle | Step::Ended => "window",
            Step::Held | Step::Clock(_) => return,
        };
        if std::mem::replace(&mut self.replay, Replay::None) != Replay::None {
            self.settings.metrics.replayed(outcome);
        }
    }

    /// How the stream is over, if its time has come, whether or not its socket takes anything.
    pub(super) fn overdue(&self, now: Instant) -> Option<Ending> {
        if self
            .settings
            .drain
            .cut_at(self.drain_slot)
            .is_some_and(|at| now >= at)
        {
            return Some(Ending::Cut(CloseReason::Drain));
        }
        if self.end_by_age.is_some_and(|at| now >= at) {
            return Some(Ending::Clean(CloseReason::Limit));
        }
        (now >= self.cut_by_age).then_some(Ending::Cut(CloseReason::Age))
    }

    fn wake_at(&self) -> Instant {
        let drain = self.settings.drain.cut_at(self.drain_slot);
        let held = self
            .held_since
            .map(|since| since + self.settings.repair_time);
        let times = [
            Some(self.next_heartbeat),
            Some(self.cut_by_age),
            self.end_by_age,
            drain,
            held,
        ];
        times
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.next_heartbeat)
    }

    /// Shows what the reader has, filtered and counted.
    fn show(&mut self, out: &mut Vec<Bytes>) -> Step {
        let bare = self.reader.writes_bare_ids();
        let metrics = self.settings.metrics.clone();
        let sample = self.caught_up.then_some(&metrics.latency);
        let mut sampled = false;
        let mut bytes = 0;
        let (kinds, limit, told) = (&self.kinds, &mut self.limit, &mut self.told);
        let events = &mut self.events;

        let step = self.reader.step(|shown, cursor| {
            let before = out.len();
            match shown {
                Shown::Gap { gap, anchored } => {
                    metrics.gap(gap.reason);
                    out.push(Bytes::from(gap.block(anchored.then_some(cursor))));
                    if anchored {
                        told.written(cursor);
                    }
                }
                Shown::Frame { frame, anchored } => {
                    if let Some(reason) = frame.gap_reason() {
                        metrics.gap(reason);
                    } else if !kinds.is_empty()
                        && !kinds.iter().any(|kind| is_kind(frame.kind(), kind))
                    {
                        told.behind += usize::from(anchored);
                        return true;
                    }
                    if anchored {
                        told.written(cursor);
                    }
                    match (anchored, bare) {
                        (true, true) => out.push(frame.block().clone()),
                        (true, false) => out.extend(frame.block_with(cursor)),
                        (false, _) => out.push(frame.block_without_id()),
                    }
                    let is_logged = frame.mark != Mark::Unlogged;
                    if let (Some(latency), false, true) = (sample, sampled, is_logged) {
                        sampled = true;
                        latency.observe(age_of(frame.id));
                    }
                    if !matches!(frame.mark, Mark::Gap { .. } | Mark::Late { .. }) {
                        metrics.delivered.inc();
                        *events += 1;
                        if let Some(left) = limit.as_mut().filter(|_| is_logged) {
                            *left = left.saturating_sub(1);
                        }
                    }
                }
            }
            bytes += out
                .get(before..)
                .unwrap_or_default()
                .iter()
                .map(Bytes::len)
                .sum::<usize>();
            *limit != Some(0) && bytes < TURN_BYTES
        });
        let skipped = self.reader.take_skipped();
        metrics.unlogged_skipped.inc_by(skipped);
        if self.told.behind > self.bounds.events_max / 2 {
            self.tell_cursor(out);
        }
        step
    }

    /// Writes the cursor by itself.
    fn tell_cursor(&mut self, out: &mut Vec<Bytes>) {
        let Some(cursor) = self.reader.cursor() else {
            return;
        };
        let data = serde_json::json!({ "cursor": cursor.to_string() });
        let block = Block::default().id(&cursor).event("tidegate.cursor");
        out.push(Bytes::from(block.json(&data)));
        self.told.written(&cursor);
    }

    fn show_counts(&mut self, out: &mut Vec<Bytes>) {
        if let Some(watch) = &mut self.counts
            && let Some((version, block)) = self.hub.counts().newer_than(watch.seen)
        {
            watch.seen = version;
            out.push(block);
        }
    }

    /// A reload may have changed what the log keeps.
    fn keep_up_with_retention(&mut self) {
        let retention = self.settings.retention.get();
        if !Arc::ptr_eq(&retention, &self.retention) {
            let topics: Vec<Topic> = self.reader.topics().cloned().collect();
            self.bounds = least(&retention, &topics);
            self.retention = retention;
        }
    }

    /// Writes a heartbeat if one is due; on a quiet stream, a newer cursor instead.
    fn beat(&mut self, now: Instant, out: &mut Vec<Bytes>) {
        if now < self.next_heartbeat {
            return;
        }
        self.next_heartbeat = now + self.settings.heartbeat;
        self.settings.metrics.heartbeats.inc();
        self.keep_up_with_retention();
        let old = self
            .told
            .oldest
            .is_some_and(|id| age_of(id) * 2000.0 > as_float(self.bounds.age_ms));
        if old
            && self.held_since.is_none()
            && (self.reader.advance_to_complete() || self.told.behind > 0)
        {
            self.tell_cursor(out);
            return;
        }
        out.push(if self.heartbeat_events {
            Bytes::from(heartbeat_event())
        } else {
            Bytes::from_static(HEARTBEAT)
        });
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(watch) = &self.counts {
            self.hub.counts().unwatch(watch.key);
        }
    }
}

/// The least that is kept of any of these topics.
fn least(retention: &Retention, topics: &[Topic]) -> Bounds {
    let bounds = topics.iter().filter_map(|topic| retention.of(topic));
    let least = bounds.reduce(|a, b| Bounds {
        events_max: a.events_max.min(b.events_max),
        age_ms: a.age_ms.min(b.age_ms),
    });
    least.unwrap_or(retention.bounds)
}

/// An event without a type is a `message`, as it is for `EventSource`.
fn is_kind(kind: &str, wanted: &str) -> bool {
    kind == wanted || (kind.is_empty() && wanted == "message")
}

/// Seconds since an id was given out, by this machine's clock.
fn age_of(id: Id) -> f64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    now.saturating_sub(Duration::from_millis(id.ms))
        .as_secs_f64()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a comparison of ages, not of ids"
)]
fn as_float(ms: u64) -> f64 {
    ms as f64
}

const _: () = assert!(
    PAGE_EVENTS > 0,
    "a page that holds nothing never catches up"
);
