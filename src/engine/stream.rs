//! The life of one stream, as a state machine without a socket: what to write next, what to read,
//! when to wake.
//!
//! ```text
//! opening ──(the start is known)──> live ──(limit, age, end, drain, held)──> over
//! ```
//!
//! Opening is a future ([`open`]); it waits for the subscription, for the clock, and for history.
//! From then on [`Stream::turn`] is called whenever the bell rings or the time it named has come.

use super::moment::Moment;
use super::reads::Reads;
use crate::broker::{Bounds, Retention};
use crate::cursor::Cursor;
use crate::hub::reader::{Lag, PAGE_EVENTS, Reader, Shown, Start, Step};
use crate::hub::{Bell, Hook, Hub, WakeSource};
use crate::id::Id;
use crate::log::{History, ReadRequest, Reading};
use crate::metrics::{CloseReason, Metrics};
use crate::sse::{Block, Frame, Gap, HEARTBEAT, Mark, Span, chunk, heartbeat_event, retry_line};
use crate::swap::Swap;
use crate::topic::{PartitionNo, Topic};
use bytes::Bytes;
use serde::Serialize;
use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};
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
    began: OnceLock<Moment>,
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
        self.began.get_or_init(|| now.into());
    }

    /// Whether it has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.began.get().is_some()
    }

    /// When the stream that drew `slot`, 0 to 1, is cut: all of them over four fifths of the time,
    /// so that the last still have time to be flushed.
    fn cut_at(&self, slot: f32) -> Option<Moment> {
        self.began
            .get()
            .map(|began| *began + self.time.mul_f32(0.8 * slot))
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
    Wait(Moment),
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

/// What turns have made.
#[derive(Debug, Default)]
pub struct Out {
    /// To be written, one after the other.
    pub pieces: Vec<Span>,
    /// The pieces are chunks of HTTP/1.1; otherwise somebody else sees to that.
    chunked: bool,
    /// Bytes of the body among them.
    pub bytes: usize,
    /// Events among them.
    pub delivered: u64,
    /// Milliseconds of the id of one of them, if the stream was up to date.
    pub fresh_ms: Option<u64>,
}

impl Out {
    /// For a socket of our own.
    #[must_use]
    pub fn chunked() -> Self {
        Self {
            chunked: true,
            ..Self::default()
        }
    }

    /// Adds a block.
    pub fn push(&mut self, block: impl Into<Bytes>) {
        let block = block.into();
        self.push_parts(block.len(), [block]);
    }

    /// Adds a frame as it is.
    fn push_frame(&mut self, frame: &Frame) {
        if self.chunked {
            self.bytes += frame.block_len();
            let last = self.pieces.last_mut();
            if !last.is_some_and(|last| last.join(frame.chunk())) {
                self.pieces.push(frame.chunk().clone());
            }
        } else {
            self.push(frame.block());
        }
    }

    fn push_parts(&mut self, bytes: usize, parts: impl IntoIterator<Item = Bytes>) {
        if bytes == 0 {
            return;
        }
        self.bytes += bytes;
        if self.chunked {
            self.pieces.push(Bytes::from(chunk::head(bytes)).into());
            self.pieces.extend(parts.into_iter().map(Span::from));
            self.pieces.push(Bytes::from_static(chunk::TAIL).into());
        } else {
            self.pieces.extend(parts.into_iter().map(Span::from));
        }
    }
}

/// One open stream. There are very many of them: what few need stands behind a pointer.
#[derive(Debug)]
pub struct Stream {
    settings: Arc<StreamSettings>,
    reader: Reader,
    rare: Option<Box<Rare>>,
    greeting: Option<Box<Greeting>>,
    next_heartbeat: Moment,
    cut_by_age: Moment,
    held_since: Option<Moment>,
    told: Told,
    /// Events shown.
    events: u64,
    refresh: Refresh,
    drain_slot: f32,
    caught_up: bool,
    replay: Replay,
}

/// What few streams ask for.
#[derive(Debug, Default)]
struct Rare {
    kinds: Box<[String]>,
    limit: Option<u64>,
    counts: Option<Watch>,
    heartbeat_events: bool,
    end_by_age: Option<Moment>,
}

impl Rare {
    fn of(wish: &Wish, hub: &Hub, waker: &Waker, now: Moment) -> Option<Box<Self>> {
        let plain = wish.kinds.is_empty()
            && wish.limit.is_none()
            && wish.max_age.is_none()
            && !wish.connections
            && !wish.heartbeat_events;
        (!plain).then(|| {
            Box::new(Self {
                kinds: wish.kinds.clone().into(),
                limit: wish.limit,
                counts: wish.connections.then(|| Watch {
                    hook: Some(hub.counts().hang(waker.clone())),
                    seen: 0,
                }),
                heartbeat_events: wish.heartbeat_events,
                end_by_age: wish.max_age.map(|age| now + age),
            })
        })
    }

    fn shows(&self, kind: &str) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|wanted| is_kind(kind, wanted))
    }
}

/// What is written before anything else.
#[derive(Debug)]
struct Greeting(Vec<Bytes>);

/// When a cursor that was written is too old to come back with: after half of what the log keeps
/// of that topic of which it keeps least.
#[derive(Clone, Copy, Debug)]
struct Refresh {
    /// Entries.
    events: u32,
    /// Age in milliseconds.
    age_ms: u32,
}

impl Refresh {
    fn of<'a>(retention: &Retention, topics: impl Iterator<Item = &'a Topic>) -> Self {
        let bounds = topics.filter_map(|topic| retention.of(topic));
        let least = bounds.reduce(|a, b| Bounds {
            events_max: a.events_max.min(b.events_max),
            age_ms: a.age_ms.min(b.age_ms),
        });
        let Bounds { events_max, age_ms } = least.unwrap_or(retention.bounds);
        Self {
            events: u32::try_from(events_max / 2).unwrap_or(u32::MAX),
            age_ms: u32::try_from(age_ms / 2).unwrap_or(u32::MAX),
        }
    }
}

/// What the stream shows before it is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replay {
    /// Nothing.
    None,
    /// History, or what is left after a gap.
    Begun,
    /// Everything after the client's own cursor.
    Resumed,
    /// Any of that, and where it came from is counted already.
    Counted,
}

/// What of the cursor was written: a client comes back with that, not with the reader's.
#[derive(Debug)]
struct Told {
    /// Milliseconds of its oldest part.
    oldest: Option<NonZeroU64>,
    /// How often the cursor has moved since.
    behind: u32,
}

impl Told {
    fn new(oldest: Option<Id>) -> Self {
        Self {
            oldest: oldest.and_then(|id| NonZeroU64::new(id.ms)),
            behind: 0,
        }
    }

    fn written(&mut self, cursor: &Cursor) {
        *self = Self::new(cursor.oldest());
    }
}

/// Watching the number of connections.
#[derive(Debug)]
struct Watch {
    /// Where its own waker hangs, if it has one.
    hook: Option<Hook>,
    seen: u64,
}

impl Watch {
    fn of(rare: &mut Option<Box<Rare>>) -> Option<&mut Self> {
        rare.as_mut()?.counts.as_mut()
    }

    fn take_down(&mut self, hub: &Hub) {
        if let Some(hook) = self.hook.take() {
            hub.counts().take_down(hook);
        }
    }
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
    let waker = Waker::from(bell.clone());
    let mut reader = hub.reader(&wish.topics, &waker, |partition| begin.start(partition));
    let mut gaps = Vec::new();
    while let Step::Clock(partition) = next_step(&bell, &mut reader, &mut gaps).await {
        reads.pages(partition, Vec::new()).await;
    }
    Stream::begin(settings, reader, &waker, &wish, &gaps)
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
        settings: Arc<StreamSettings>,
        reader: Reader,
        waker: &Waker,
        wish: &Wish,
        gaps: &[Gap],
    ) -> Self {
        let now = Moment::now();
        let replay = match wish.begin {
            Begin::Live | Begin::Unreadable => Replay::None,
            Begin::After(_) if gaps.is_empty() => Replay::Resumed,
            Begin::After(_) | Begin::History(_) => Replay::Begun,
        };
        let mut stream = Self {
            next_heartbeat: now + settings.heartbeat.mul_f64(rand::random_range(0.0..1.0)),
            cut_by_age: now + settings.age_max.mul_f64(rand::random_range(0.75..1.0)),
            drain_slot: rand::random_range(0.0..1.0),
            rare: Rare::of(wish, reader.hub(), waker, now),
            held_since: None,
            caught_up: false,
            greeting: None,
            told: Told::new(reader.oldest()),
            events: 0,
            refresh: Refresh::of(&settings.retention.get(), wish.topics.iter()),
            reader,
            settings,
            replay,
        };
        stream.greet(wish, gaps);
        stream
    }

    /// The first block, and gaps that are told at once. As long as a gap is to come, no id is
    /// written: a drop in between leads to the same gap again.
    fn greet(&mut self, wish: &Wish, gaps: &[Gap]) {
        let mut greeting = Vec::with_capacity(1 + gaps.len());
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
            greeting.push(Bytes::from(block.event("tidegate.open").json(&opened)));
        } else {
            self.told.behind = 1;
            // Without a blank line it joins the first event's block.
            greeting.push(Bytes::from(retry_line(retry)));
        }
        for (index, gap) in gaps.iter().enumerate() {
            self.settings.metrics.gap(gap.reason);
            let last = index + 1 == gaps.len();
            greeting.push(Bytes::from(gap.block(cursor.as_ref().filter(|_| last))));
        }
        self.greeting = Some(Box::new(Greeting(greeting)));
    }

    /// From here on wakers are woken that others have hung: `hook` says where, for each source.
    /// What happened before is not told to them: turn once.
    pub fn share_hooks(&mut self, mut hook: impl FnMut(WakeSource) -> Hook) {
        let hub = self.reader.hub();
        if let Some(watch) = Watch::of(&mut self.rare) {
            hook(WakeSource::Counts(hub.clone()));
            watch.take_down(hub);
        }
        self.reader
            .share_hooks(|feed| hook(WakeSource::Feed(feed.clone())));
    }

    fn watch(&self) -> Option<&Watch> {
        self.rare.as_ref().and_then(|rare| rare.counts.as_ref())
    }

    /// Whether a client that came back has nothing to come back for: every topic has ended at or
    /// below its cursor. It is answered 204.
    #[must_use]
    pub fn is_over_for_good(&self) -> bool {
        self.replay == Replay::Resumed && self.watch().is_none() && self.reader.has_ended()
    }

    /// Reads a little of it, so that it is in the cache when it is turned.
    pub(super) fn warm(&self) {
        std::hint::black_box((self.next_heartbeat, self.events, self.reader.oldest()));
    }

    /// The stream's topics.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.reader.topics()
    }

    /// Whether it shows the number of connections as well.
    pub(super) fn watches_connections(&self) -> bool {
        self.watch().is_some()
    }

    /// What it has come to, for whoever looks or reads the log.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing {
            events: self.events,
            lag: self.reader.lag(),
        }
    }

    /// What comes before everything else, once, where somebody else writes it.
    pub(super) fn take_greeting(&mut self) -> Option<Bytes> {
        let greeting = self.greeting.take()?;
        let bytes = Bytes::from(greeting.0.concat());
        self.settings.metrics.sent_bytes.inc_by(bytes.len() as u64);
        Some(bytes)
    }

    /// Takes what [`Turn::Read`] asked for.
    pub fn take(&mut self, reading: &Arc<Reading>) {
        self.reader.take_pages(reading);
    }

    /// Goes on as far as it can: adds what is to be written to `out`.
    pub fn turn(&mut self, now: Moment, out: &mut Out) -> Turn {
        if let Some(mut greeting) = self.greeting.take() {
            greeting.0.drain(..).for_each(|block| out.push(block));
        }
        if let Some(ending) = self.overdue(now) {
            return Turn::Over(ending);
        }
        let begun = out.bytes;
        let step = self.show(out);
        self.count_replay(&step);
        self.show_counts(out);
        if out.bytes > begun {
            // Something was written: silence begins anew.
            self.next_heartbeat = self
                .next_heartbeat
                .max(now + self.settings.heartbeat.mul_f64(0.5));
        }
        if self.rare.as_ref().is_some_and(|rare| rare.limit == Some(0)) {
            return Turn::Over(Ending::Clean(CloseReason::Limit));
        }
        self.caught_up |= step == Step::Idle;
        match step {
            Step::Full => return Turn::More,
            Step::Behind(partition, requests) => return Turn::Read(partition, requests),
            Step::Clock(partition) => return Turn::Read(partition, Vec::new()),
            Step::Ended if self.watch().is_none() => {
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

    fn count_replay(&mut self, step: &Step) {
        let outcome = match step {
            Step::Behind(..) => "log",
            Step::Full | Step::Idle | Step::Ended => "window",
            Step::Held | Step::Clock(_) => return,
        };
        if matches!(self.replay, Replay::Begun | Replay::Resumed) {
            self.replay = Replay::Counted;
            self.settings.metrics.replayed(outcome);
        }
        if self.replay == Replay::Counted && matches!(step, Step::Idle | Step::Ended) {
            self.replay = Replay::None;
            #[expect(
                clippy::cast_precision_loss,
                reason = "a count of events that were shown"
            )]
            let events = self.events as f64;
            self.settings.metrics.replay_events.observe(events);
        }
    }

    /// How the stream is over, if its time has come, whether or not its socket takes anything.
    pub(super) fn overdue(&self, now: Moment) -> Option<Ending> {
        if self
            .settings
            .drain
            .cut_at(self.drain_slot)
            .is_some_and(|at| now >= at)
        {
            return Some(Ending::Cut(CloseReason::Drain));
        }
        if self.end_by_age().is_some_and(|at| now >= at) {
            return Some(Ending::Clean(CloseReason::Limit));
        }
        (now >= self.cut_by_age).then_some(Ending::Cut(CloseReason::Age))
    }

    fn end_by_age(&self) -> Option<Moment> {
        self.rare.as_ref().and_then(|rare| rare.end_by_age)
    }

    fn wake_at(&self) -> Moment {
        let drain = self.settings.drain.cut_at(self.drain_slot);
        let held = self
            .held_since
            .map(|since| since + self.settings.repair_time);
        let times = [
            Some(self.next_heartbeat),
            Some(self.cut_by_age),
            self.end_by_age(),
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
    fn show(&mut self, out: &mut Out) -> Step {
        let bare = self.reader.writes_bare_ids();
        let metrics = &self.settings.metrics;
        let mut sample = self.caught_up;
        let most = out.bytes + TURN_BYTES;
        let (rare, told, events) = (&mut self.rare, &mut self.told, &mut self.events);

        let step = self.reader.step(|shown, cursor| {
            match shown {
                Shown::Gap { gap, anchored } => {
                    metrics.gap(gap.reason);
                    out.push(gap.block(anchored.then_some(cursor)));
                    if anchored {
                        told.written(cursor);
                    }
                }
                Shown::Frame { frame, anchored } => {
                    if let Some(reason) = frame.gap_reason() {
                        metrics.gap(reason);
                    } else if rare.as_ref().is_some_and(|rare| !rare.shows(frame.kind())) {
                        told.behind = told.behind.saturating_add(u32::from(anchored));
                        return true;
                    }
                    if anchored {
                        told.written(cursor);
                    }
                    match (anchored, bare) {
                        (true, true) => out.push_frame(frame),
                        (true, false) => {
                            let parts = frame.block_with(cursor);
                            out.push_parts(parts.iter().map(Bytes::len).sum(), parts);
                        }
                        (false, _) => out.push(frame.block_without_id()),
                    }
                    let is_logged = frame.mark != Mark::Unlogged;
                    if is_logged && std::mem::take(&mut sample) {
                        out.fresh_ms = Some(frame.id.ms);
                    }
                    if !matches!(frame.mark, Mark::Gap { .. } | Mark::Late { .. }) {
                        out.delivered += 1;
                        *events += 1;
                        let limit = rare.as_mut().and_then(|rare| rare.limit.as_mut());
                        if let Some(left) = limit.filter(|_| is_logged) {
                            *left = left.saturating_sub(1);
                        }
                    }
                }
            }
            let limit = rare.as_ref().and_then(|rare| rare.limit);
            limit != Some(0) && out.bytes < most
        });
        match self.reader.take_skipped() {
            0 => {}
            skipped => metrics.unlogged_skipped.inc_by(skipped),
        }
        if self.told.behind > self.refresh.events {
            self.tell_cursor(out);
        }
        step
    }

    /// Writes the cursor by itself.
    fn tell_cursor(&mut self, out: &mut Out) {
        let Some(cursor) = self.reader.cursor() else {
            return;
        };
        let data = serde_json::json!({ "cursor": cursor.to_string() });
        let block = Block::default().id(&cursor).event("tidegate.cursor");
        out.push(block.json(&data));
        self.told.written(&cursor);
    }

    fn show_counts(&mut self, out: &mut Out) {
        let watch = Watch::of(&mut self.rare);
        if let Some(watch) = watch
            && let Some((version, block)) = self.reader.hub().counts().newer_than(watch.seen)
        {
            watch.seen = version;
            out.push(block);
        }
    }

    /// Writes a heartbeat if one is due; on a quiet stream, a newer cursor instead.
    fn beat(&mut self, now: Moment, out: &mut Out) {
        if now < self.next_heartbeat {
            return;
        }
        self.next_heartbeat = now + self.settings.heartbeat;
        self.settings.metrics.heartbeats.inc();
        // A reload may have changed what the log keeps.
        let retention = self.settings.retention.get();
        self.refresh = Refresh::of(&retention, self.reader.topics());
        let old = self
            .told
            .oldest
            .is_some_and(|ms| age_of(ms.get(), clock()) * 1000.0 > self.refresh.age_ms.into());
        if old
            && self.held_since.is_none()
            && (self.reader.advance_to_complete() || self.told.behind > 0)
        {
            self.tell_cursor(out);
            return;
        }
        let as_events = self.rare.as_ref().is_some_and(|rare| rare.heartbeat_events);
        if as_events {
            out.push(heartbeat_event());
        } else {
            out.push(HEARTBEAT);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(watch) = Watch::of(&mut self.rare) {
            watch.take_down(self.reader.hub());
        }
    }
}

/// An event without a type is a `message`, as it is for `EventSource`.
fn is_kind(kind: &str, wanted: &str) -> bool {
    kind == wanted || (kind.is_empty() && wanted == "message")
}

/// This machine's clock: time since the Unix epoch.
pub(super) fn clock() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}

/// Seconds from `ms` of the Unix epoch until `now`.
pub(super) fn age_of(ms: u64, now: Duration) -> f64 {
    now.saturating_sub(Duration::from_millis(ms)).as_secs_f64()
}

const _: () = assert!(
    PAGE_EVENTS > 0,
    "a page that holds nothing never catches up"
);
