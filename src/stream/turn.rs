//! The life of one stream, as a state machine without a socket: what to write next, what to read,
//! when to wake.
//!
//! ```text
//! opening ──(the start is known)──> live ──(limit, age, end, drain, held)──> over
//! ```
//!
//! Opening is [`super::open`]'s. From then on [`Stream::turn`] is called whenever the stream's waker
//! was woken or the time it named has come. A turn is one pass:
//!
//! ```text
//! greeting ─► overdue? ─► show (the reader's step, into a Writer) ─► counts
//!          ─► limit, end, held too long? ─► beat: a heartbeat, or a newer cursor on a quiet stream
//! ```
//!
//! Time comes in as an argument, and so does chance ([`Jitter`]).

mod ends;

use super::cursor::{Refresh, SentCursor};
use super::expiry::Expiry;
use super::greeting::Greeting;
use super::options::{StreamOptions, Watch};
use super::out::Out;
use super::request::{Begin, StreamRequest};
use super::settings::{DrainSlot, Jitter, StreamSettings};
use super::show::{Unheeding, Writer};
use super::tally::age_of;
use crate::auth::{Edition, Holder};
use crate::hub::WakerId;
use crate::hub::reader::{Lag, Reader, Step};
use crate::hub::wake_source::WakeSource;
use crate::log::{LogRead, Reading};
use crate::metrics::{CloseReason, ReplaySource};
use crate::sse::{Block, Gap, HEARTBEAT, heartbeat_event};
use crate::time::CoarseInstant;
use crate::topic::Topic;
use bytes::Bytes;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

/// The time of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// On this process's monotonic clock.
    pub instant: CoarseInstant,
    /// On this machine's clock: since the Unix epoch.
    pub wall: Duration,
}

impl Now {
    /// This very moment.
    #[must_use]
    pub fn read() -> Self {
        Self {
            instant: CoarseInstant::now(),
            wall: super::tally::clock(),
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
    /// Nothing more until the stream is woken or this time has come.
    Wait(CoarseInstant),
    /// Read this, give it to [`Stream::take`], and turn again.
    Read(LogRead),
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

/// One open stream. There are very many of them: what few need stands behind a pointer.
#[derive(Debug)]
pub struct Stream {
    settings: Arc<StreamSettings>,
    reader: Reader,
    options: Option<Box<StreamOptions>>,
    greeting: Option<Box<Greeting>>,
    next_heartbeat: CoarseInstant,
    /// When it is looked at whether it has come of age, or its right has ended.
    life_at: CoarseInstant,
    /// The end of its right, if that has one.
    expiry: Option<Box<Expiry>>,
    /// By whose right it is open, as in [`Life`](crate::stream::life::Life); its two parts by themselves take less room.
    holder: Arc<Holder>,
    seen: Edition,
    held_since: Option<CoarseInstant>,
    sent: SentCursor,
    /// Events shown.
    events: u64,
    refresh: Refresh,
    drain_slot: DrainSlot,
    caught_up: bool,
    replay: Replay,
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
    /// The same, and the log does not know of an end that was heard.
    Doubted,
    /// Any of that, and where it came from is counted already.
    Counted,
}

/// Bytes after which a turn stops, so that one stream does not starve the others.
const TURN_BYTES: usize = 32 * 1024;

impl Stream {
    pub(super) fn begin(
        settings: Arc<StreamSettings>,
        reader: Reader,
        waker: &Waker,
        request: &StreamRequest,
        gaps: &[Gap],
        jitter: &Jitter,
        now: Now,
    ) -> Self {
        let aged_at = now.instant + settings.age_max.mul_f64(1.0 - jitter.age / 4.0);
        let expiry = request.life.holder.ends().map(|at| {
            let expiry = Expiry::new(at, aged_at, jitter.heartbeat, (now.instant, now.wall));
            Box::new(expiry)
        });
        let now = now.instant;
        let replay = match request.begin {
            Begin::Live | Begin::Unreadable => Replay::None,
            Begin::After(_) if gaps.is_empty() => Replay::Resumed,
            Begin::After(_) | Begin::History(_) => Replay::Begun,
        };
        let greeting = Greeting::of(&settings, &reader, request, gaps, jitter);
        let mut sent = SentCursor::new(reader.oldest());
        // The open event is what carries the first one.
        sent.behind = u32::from(!settings.open_event);
        Self {
            next_heartbeat: now + settings.heartbeat.mul_f64(jitter.heartbeat),
            life_at: expiry
                .as_ref()
                .map_or(aged_at, |expiry| expiry.look_at(now + settings.heartbeat)),
            expiry,
            holder: request.life.holder.clone(),
            seen: request.life.seen,
            drain_slot: DrainSlot::of(jitter.drain_slot),
            options: StreamOptions::of(request, reader.hub(), waker),
            held_since: None,
            caught_up: false,
            greeting: Some(Box::new(greeting)),
            sent,
            events: 0,
            refresh: Refresh::of(&settings.retention.get(), request.topics.iter()),
            reader,
            settings,
            replay,
        }
    }

    /// From here on wakers are woken that others have hung: `waker_id` says where, for each source.
    /// What happened before is not sent to them: turn once.
    pub fn share_wakers(&mut self, mut waker_id: impl FnMut(WakeSource) -> WakerId) {
        let hub = self.reader.hub();
        if let Some(watch) = Watch::of(&mut self.options) {
            waker_id(WakeSource::Counts(hub.clone()));
            watch.remove_waker(hub);
        }
        self.reader
            .share_wakers(|feed| waker_id(WakeSource::Feed(feed.clone())));
    }

    fn watch(&self) -> Option<&Watch> {
        self.options
            .as_ref()
            .and_then(|options| options.counts.as_ref())
    }

    /// Whether a client that came back has nothing to come back for: every topic has ended at or
    /// below its cursor. It is answered 204.
    #[must_use]
    pub fn is_over_for_good(&self) -> bool {
        self.replay == Replay::Resumed && self.watch().is_none() && self.reader.has_ended()
    }

    /// The log does not say that the topics of this stream have ended.
    pub(super) fn doubt_end(&mut self) {
        if self.replay == Replay::Resumed {
            self.replay = Replay::Doubted;
        }
    }

    /// Whether its topics have ended for this replica alone: somebody else published the end. Its client comes back.
    #[must_use]
    pub fn has_a_doubtful_end(&self) -> bool {
        self.replay == Replay::Doubted && self.reader.has_ended()
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
        let blocks = self.take_blocks();
        if blocks.is_empty() {
            return None;
        }
        let bytes = Bytes::from(blocks.concat());
        self.settings.metrics.sent_bytes.inc_by(bytes.len() as u64);
        Some(bytes)
    }

    fn take_blocks(&mut self) -> Vec<Bytes> {
        let Some(greeting) = &mut self.greeting else {
            return Vec::new();
        };
        let blocks = std::mem::take(&mut greeting.blocks);
        self.greeting.take_if(|greeting| greeting.head.is_none());
        blocks
    }

    /// Takes what [`Turn::Read`] asked for.
    pub fn take(&mut self, reading: &Arc<Reading>) {
        self.reader.take_pages(reading);
    }

    /// Its client takes nothing now: a reader that stops costs a cursor.
    pub fn release_pages(&mut self) {
        self.reader.release_pages();
    }

    /// Goes on as far as it can: adds what is to be written to `out`.
    pub fn turn(&mut self, now: Now, out: &mut Out) -> Turn {
        self.turn_while(now, out, || {})
    }

    /// As [`Stream::turn`], and calls `others` wherever other threads may change the hub between two
    /// looks at it: for a simulation that has them do so.
    pub fn turn_while(&mut self, now: Now, out: &mut Out, mut others: impl FnMut()) -> Turn {
        // Read before it is judged: what changes meanwhile is seen in the next turn.
        let edition = self.settings.revocations.edition();
        if self.is_revoked() {
            // Nothing more is said, not even what is missing.
            return Turn::Over(Ending::Cut(CloseReason::Revoked));
        }
        self.seen = edition;
        for block in self.take_blocks() {
            out.push(block);
        }
        let ending = self.over_by_time(now.instant);
        if let Some(ending) = ending.or_else(|| self.look_at_life(now, out)) {
            return self.leave(ending, out, &mut others);
        }
        let begun = out.bytes;
        let step = self.show(out, &mut others);
        self.count_replay(&step);
        self.tell_live(&step, out);
        self.show_counts(out);
        if out.bytes > begun && !self.is_cursor_old(now) {
            // Something was written: silence begins anew. A newer cursor is not put off by what has none.
            self.next_heartbeat = self
                .next_heartbeat
                .max(now.instant + self.settings.heartbeat.mul_f64(0.5));
        }
        if self.options.as_ref().is_some_and(|o| o.limit == Some(0)) {
            return self.leave(Ending::Clean(CloseReason::Limit), out, &mut others);
        }
        self.caught_up |= step == Step::Idle;
        if matches!(step, Step::Held | Step::Opening) || self.reader.was_held() {
            // Also where another partition is behind, or fills the socket, in each turn.
            let since = *self.held_since.get_or_insert(now.instant);
            if now.instant >= since + self.settings.repair_time {
                return self.leave(Ending::Cut(CloseReason::Held), out, &mut others);
            }
        } else if !self.reader.is_held() {
            // However slowly its client reads. What is held stays so while it is not looked at.
            self.held_since = None;
        }
        if matches!(step, Step::Full | Step::Behind(_)) && self.is_cursor_old(now) {
            // One partition has more in each turn, and another is quiet.
            self.beat(now, out, &mut others);
        }
        match step {
            Step::Full => return Turn::More,
            Step::Behind(read) => return Turn::Read(read),
            Step::Ended if self.watch().is_none() => {
                // A client that was not told of the end would come back for ever.
                if self.sent.behind > 0 {
                    self.tell_cursor(out);
                }
                return Turn::Over(Ending::Clean(CloseReason::Ended));
            }
            Step::Held | Step::Opening | Step::Idle | Step::Ended => {}
        }
        others();
        self.beat(now, out, &mut others);
        Turn::Wait(self.wake_at())
    }

    /// Whether it has shown everything that there was, once at least.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.caught_up
    }

    fn count_replay(&mut self, step: &Step) {
        let outcome = match step {
            Step::Behind(_) => ReplaySource::Log,
            Step::Full | Step::Idle | Step::Ended => ReplaySource::Window,
            Step::Held | Step::Opening => return,
        };
        if !matches!(self.replay, Replay::None | Replay::Counted) {
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

    /// Has the reader show something, and writes it.
    fn write<'a, F: FnMut(), T>(
        &'a mut self,
        out: &'a mut Out,
        others: &'a mut F,
        show: impl FnOnce(&mut Reader, &mut Writer<'a, F>) -> T,
    ) -> T {
        let mut writer = Writer {
            bare: self.reader.writes_bare_ids(),
            sample: self.caught_up,
            most: out.bytes + TURN_BYTES,
            metrics: &self.settings.metrics,
            options: self.options.as_deref_mut(),
            sent: &mut self.sent,
            events: &mut self.events,
            out,
            others,
            grown: 0,
        };
        show(&mut self.reader, &mut writer)
    }

    /// Shows what the reader has, filtered and counted.
    fn show(&mut self, out: &mut Out, others: &mut impl FnMut()) -> Step {
        let step = self.write(out, others, Reader::step);
        match self.reader.take_skipped() {
            0 => {}
            skipped => self.settings.metrics.unlogged_skipped.inc_by(skipped),
        }
        if self.sent.behind > self.refresh.events {
            self.tell_cursor(out);
        }
        step
    }

    /// Writes the cursor by itself.
    fn tell_cursor(&mut self, out: &mut Out) {
        self.write_cursor("tidegate.cursor", out);
    }

    fn write_cursor(&mut self, event_type: &str, out: &mut Out) {
        let Some(cursor) = self.reader.cursor() else {
            return;
        };
        let data = serde_json::json!({ "cursor": cursor.to_string() });
        let block = Block::default().id(&cursor).event(event_type);
        out.push(block.json(&data));
        self.sent.written(&cursor);
    }

    /// Says once that everything was shown that was there when the stream began.
    fn tell_live(&mut self, step: &Step, out: &mut Out) {
        let greeting = self.greeting.as_ref();
        let Some(head) = greeting.and_then(|greeting| greeting.head.as_ref()) else {
            return;
        };
        let is_live = match step {
            Step::Ended => true,
            // What is shown now is all that is known: not all there is, if a topic lacks something.
            Step::Idle => self.reader.is_whole_to(head),
            // However soon its window moves on again.
            Step::Full | Step::Held | Step::Behind(_) => self.reader.has_reached(head),
            Step::Opening => false,
        };
        if is_live {
            self.greeting = None;
            self.write_cursor("tidegate.live", out);
        }
    }

    fn show_counts(&mut self, out: &mut Out) {
        let watch = Watch::of(&mut self.options);
        if let Some(watch) = watch
            && let Some((version, block)) = self.reader.hub().counts().newer_than(watch.seen)
        {
            watch.seen = version;
            out.push(block);
        }
    }

    /// Whether what its client has of the cursor is too old to come back with.
    fn is_cursor_old(&self, now: Now) -> bool {
        let oldest = self.sent.oldest;
        oldest.is_some_and(|ms| age_of(ms.get(), now.wall) * 1000.0 > self.refresh.age_ms.into())
    }

    /// Writes a heartbeat if one is due; on a quiet stream, a newer cursor instead.
    fn beat(&mut self, now: Now, out: &mut Out, others: &mut impl FnMut()) {
        if now.instant < self.next_heartbeat {
            return;
        }
        self.next_heartbeat = now.instant + self.settings.heartbeat;
        self.settings.metrics.heartbeats.inc();
        // A reload may have changed what the log keeps.
        let retention = self.settings.retention.get();
        self.refresh = Refresh::of(&retention, self.reader.topics());
        // What was heard since the stream was shown keeps the cursor where it is.
        if self.is_cursor_old(now)
            && self.held_since.is_none()
            && (self.reader.refresh(&mut Unheeding(others)) || self.sent.behind > 0)
        {
            self.tell_cursor(out);
            return;
        }
        let as_events = self.options.as_ref().is_some_and(|o| o.heartbeat_events);
        if as_events {
            out.push(heartbeat_event());
        } else {
            out.push(HEARTBEAT);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(watch) = Watch::of(&mut self.options) {
            watch.remove_waker(self.reader.hub());
        }
    }
}
