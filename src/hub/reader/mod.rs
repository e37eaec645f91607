//! The reader: one subscriber's cursor, and the merge of its topics into one stream.
//!
//! The merge rule, for the topics of one partition: an event with id X is shown only if the cursor
//! is below X and X is at most the least *complete* of the topics. So one id is a cursor for all
//! of them. Each topic comes from a page of the log while the cursor is behind its window, and
//! from the window after that; replay, live and catching up are the same motion.
//!
//! Over several partitions each part of the cursor obeys its own clock, and the `id:` line lists
//! them all.
//!
//! Events of topics that are not logged stand outside the rule: they are shown at every step,
//! whatever is held or read, without an id, and the cursor stays where it is. So they neither wait
//! for an event of another topic, nor let one be skipped.
//!
//! A reader of one topic costs some 150 bytes and no allocation; pages only while it is behind.

use super::Hub;
use super::feed::{BehindWindow, Feed, Reach};
use super::partition::Partition;
use super::waker::WakerId;
use crate::cursor::Cursor;
use crate::gap;
use crate::id::Id;
use crate::log::{Page, ReadRequest, Reading};
use crate::sse::{Frame, Gap, GapReason, Mark};
use crate::topic::{PartitionNo, Topic};
use smallvec::{SmallVec, smallvec};
use std::sync::Arc;
use std::task::Waker;

/// Where a stream begins, in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what comes next.
    Live,
    /// After this id, and what is missing is told.
    After(Id),
    /// After this id, which was found for a first visit: nothing is missing.
    History(Id),
    /// The cursor could not be read: with what comes next, after a gap that says so.
    Unreadable,
}

/// What a reader shows its stream.
#[derive(Clone, Debug)]
pub enum Shown<'a> {
    /// A frame; `anchored` if its id may be written as the cursor.
    Frame {
        /// The entry.
        frame: &'a Frame,
        /// False if something else with the same id follows.
        anchored: bool,
    },
    /// A gap that this reader alone is told.
    Gap {
        /// What may be missing.
        gap: Gap,
        /// False if something else with the same id follows.
        anchored: bool,
    },
}

impl Shown<'_> {
    /// The id that it stands at.
    #[must_use]
    pub fn id(&self) -> Id {
        match self {
            Self::Frame { frame, .. } => frame.id,
            Self::Gap { gap, .. } => gap.to,
        }
    }

    /// Whether its id may be written as the cursor.
    #[must_use]
    pub fn is_anchored(&self) -> bool {
        match self {
            Self::Frame { anchored, .. } | Self::Gap { anchored, .. } => *anchored,
        }
    }
}

/// How far one step came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Everything that can be shown was shown; the bell will ring.
    Idle,
    /// An event is known, but another topic is not complete up to it; the bell will ring.
    Held,
    /// The stream's `take` wants no more for now.
    Full,
    /// These must be read from the log, and given to [`Reader::take_pages`].
    Behind(PartitionNo, Vec<ReadRequest>),
    /// The partition's clock must be read, and given to [`Hub::learn`].
    Clock(PartitionNo),
    /// Every topic has ended, and the cursor is past it.
    Ended,
}

/// How far a stream is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Entries of its topics that are in memory here and that it has not shown.
    pub events: usize,
    /// It is behind a window, so that there are more in the log.
    pub at_least: bool,
}

/// One subscriber's position in its topics.
#[derive(Debug)]
pub struct Reader {
    hub: Arc<Hub>,
    /// One as a rule, which then stands right here.
    parts: SmallVec<[Part; 1]>,
    serial: u64,
    /// Events that were not logged and were gone before this stream looked.
    skipped: u32,
    /// The wakers are somebody else's, who wakes more than this stream with them.
    shares_wakers: bool,
}

#[derive(Debug)]
struct Part {
    partition: Arc<Partition>,
    sources: SmallVec<[Source; 1]>,
    opening: Option<Box<Opening>>,
    cursor: Id,
    since: Id,
    /// The stream goes on from a cursor that it got elsewhere.
    resumed: bool,
    /// Events that are not logged have filled the last step.
    passing_filled: bool,
}

/// A part that has not begun.
#[derive(Debug)]
struct Opening {
    start: Start,
    /// The clock was read for this stream.
    asked: bool,
}

#[derive(Debug)]
struct Source {
    feed: Arc<Feed>,
    waker_id: WakerId,
    /// Nothing at or below this is still to come from this topic.
    done: Id,
    /// The last event that was not logged and was shown, by its number.
    passed: u64,
    /// What came before `done` is not missed: found for a first visit.
    history: bool,
    page: Option<Box<Replay>>,
}

/// A page of the log on its way to the stream.
#[derive(Debug)]
struct Replay {
    gap: Option<Gap>,
    /// None if there is a gap to tell and nothing else.
    frames: Option<Frames>,
    cap: Id,
}

impl Replay {
    fn left(&self) -> &[Frame] {
        self.frames.as_ref().map_or(&[], Frames::left)
    }

    fn is_shown(&self) -> bool {
        self.gap.is_none() && self.left().is_empty()
    }

    fn pass_one(&mut self) {
        if let Some(frames) = &mut self.frames {
            frames.next += 1;
        }
    }
}

/// What is left of a page that all who asked for it share.
#[derive(Debug)]
struct Frames {
    reading: Arc<Reading>,
    page: usize,
    next: usize,
}

impl Frames {
    fn left(&self) -> &[Frame] {
        let page = self.reading.pages.get(self.page);
        page.and_then(|page| page.frames.get(self.next..))
            .unwrap_or_default()
    }
}

impl Reader {
    /// A reader of `feeds`, grouped by partition. Use [`Hub::reader`].
    pub(super) fn new(
        hub: Arc<Hub>,
        waker: &Waker,
        feeds: Vec<Arc<Feed>>,
        serial: u64,
        starts: impl Fn(PartitionNo) -> Start,
    ) -> Self {
        let mut parts: SmallVec<[Part; 1]> = SmallVec::new();
        for feed in feeds {
            feed.join();
            let waker_id = feed.add_waker(waker.clone());
            let partition = feed.partition().clone();
            let source = Source {
                feed,
                waker_id,
                done: Id::ZERO,
                passed: 0,
                history: false,
                page: None,
            };
            match parts
                .iter_mut()
                .find(|part| part.partition.number() == partition.number())
            {
                Some(part) => part.sources.push(source),
                None => parts.push(Part {
                    opening: Some(Box::new(Opening {
                        start: starts(partition.number()),
                        asked: false,
                    })),
                    partition,
                    sources: smallvec![source],
                    cursor: Id::ZERO,
                    since: Id::ZERO,
                    resumed: false,
                    passing_filled: false,
                }),
            }
        }
        parts.sort_by_key(|part| part.partition.number());
        Self {
            hub,
            parts,
            serial,
            skipped: 0,
            shares_wakers: false,
        }
    }

    /// From here on wakers are woken that others have hung: `waker_id` says where, for each feed. They
    /// stay there as long as this reader lives. What happened before is not told to them: step once.
    pub fn share_wakers(&mut self, mut waker_id: impl FnMut(&Arc<Feed>) -> WakerId) {
        self.remove_waker();
        self.shares_wakers = true;
        for source in self.parts.iter_mut().flat_map(|part| &mut part.sources) {
            source.waker_id = waker_id(&source.feed);
        }
    }

    fn remove_waker(&self) {
        if !self.shares_wakers {
            for source in self.parts.iter().flat_map(|part| &part.sources) {
                source.feed.remove_waker(source.waker_id);
            }
        }
    }

    /// The hub that it reads.
    #[must_use]
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The cursor as it stands.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        let [part] = self.parts.as_slice() else {
            let all = self
                .parts
                .iter()
                .map(|part| (part.partition.number(), part.cursor));
            return (!self.parts.is_empty()).then(|| Cursor::Many(all.collect()));
        };
        Some(match self.hub.partitions() {
            1 => Cursor::One(part.cursor),
            _ => Cursor::Many([(part.partition.number(), part.cursor)].into()),
        })
    }

    /// Whether ids on the wire are bare, so that a frame's own block can be written as it is.
    #[must_use]
    pub fn writes_bare_ids(&self) -> bool {
        self.hub.partitions() == 1
    }

    /// Finds where each partition of the stream begins, as far as that is known.
    ///
    /// Returns gaps that are told whatever the log holds, and [`Step::Idle`] once all is known.
    pub fn open(&mut self, tell: &mut Vec<Gap>) -> Step {
        for part in &mut self.parts {
            let Some(mut opening) = part.opening.take() else {
                continue;
            };
            if let Some(step) = part.open(&mut opening, tell) {
                part.opening = Some(opening);
                return step;
            }
        }
        Step::Idle
    }

    /// Shows what comes next, in order, until there is no more or `take` answers false.
    ///
    /// `take` gets, with each, the cursor as it stands once that was shown.
    pub fn step(&mut self, mut take: impl FnMut(Shown<'_>, &Cursor) -> bool) -> Step {
        let mut summary = Step::Ended;
        let mut vector = self.cursor();
        let mut skipped = 0;
        for index in 0..self.parts.len() {
            let Some(part) = self.parts.get_mut(index) else {
                break;
            };
            let number = part.partition.number();
            let mut take = |shown: Shown<'_>| match &mut vector {
                Some(cursor) => {
                    if shown.is_anchored() {
                        cursor.set(number, shown.id());
                    }
                    take(shown, cursor)
                }
                None => false,
            };
            let mut step = part.step(self.serial, &mut skipped, &mut take);
            if step == Step::Held {
                part.wait_for_clock();
                self.hub.ask_for_clock();
                // The clock may have moved between the look and the wait.
                step = part.step(self.serial, &mut skipped, &mut take);
            }
            summary = match (step, summary) {
                (Step::Idle, Step::Ended) => Step::Idle,
                (Step::Ended | Step::Idle, so_far) => so_far,
                (Step::Held, _) => Step::Held,
                (other, _) => {
                    self.note_skipped(skipped);
                    return other;
                }
            };
        }
        self.note_skipped(skipped);
        match summary {
            Step::Ended if self.parts.is_empty() => Step::Idle,
            summary => summary,
        }
    }

    fn note_skipped(&mut self, skipped: u64) {
        let skipped = u32::try_from(skipped).unwrap_or(u32::MAX);
        self.skipped = self.skipped.saturating_add(skipped);
    }

    /// How many events that are not logged came and went unseen, since the last call.
    pub fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.skipped).into()
    }

    /// Takes pages that were asked for.
    pub fn take_pages(&mut self, reading: &Arc<Reading>) {
        for (index, page) in reading.pages.iter().enumerate() {
            let sources = self
                .parts
                .iter_mut()
                .flat_map(|part| part.sources.iter_mut().map(|s| (part.cursor, s)));
            for (cursor, source) in sources {
                if source.feed.topic() == &page.topic && cursor.max(source.done) == page.after {
                    source.replay(reading, index, page);
                }
            }
        }
    }

    /// The position to which the whole stream is complete, where that is above the cursor.
    ///
    /// For the refresh of a quiet stream's cursor: nothing can still come at or below it.
    pub fn advance_to_complete(&mut self) -> bool {
        let mut moved = false;
        for part in &mut self.parts {
            if let Some(limit) = part.limit().filter(|limit| *limit > part.cursor) {
                part.cursor = limit;
                moved = true;
            }
        }
        moved
    }

    /// The oldest part of the cursor.
    #[must_use]
    pub fn oldest(&self) -> Option<Id> {
        self.parts.iter().map(|part| part.cursor).min()
    }

    /// How far the stream is behind what this replica has heard of its topics.
    #[must_use]
    pub fn lag(&self) -> Lag {
        let mut lag = Lag::default();
        for part in self.parts.iter().filter(|part| part.opening.is_none()) {
            for source in &part.sources {
                let (events, lacks) = source.feed.lag_of(part.cursor.max(source.done));
                lag.events += events;
                lag.at_least |= lacks;
            }
        }
        lag
    }

    /// The topics that are read, in no order that matters.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.parts
            .iter()
            .flat_map(|part| part.sources.iter().map(|source| source.feed.topic()))
    }

    /// Whether every topic has ended at or below the cursor.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        !self.parts.is_empty() && self.parts.iter().all(Part::has_ended)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.remove_waker();
        for source in self.parts.iter().flat_map(|part| &part.sources) {
            self.hub.leave(&source.feed);
        }
    }
}

impl Part {
    /// The least *complete* of the topics; none while one is opening.
    fn limit(&self) -> Option<Id> {
        self.sources.iter().map(Source::limit).min().flatten()
    }

    fn has_ended(&self) -> bool {
        self.opening.is_none()
            && self.sources.iter().all(|source| {
                let ended = source.feed.ended();
                ended.is_some_and(|end| end <= source.position(self.cursor))
                    && source.page.is_none()
            })
    }

    fn wait_for_clock(&self) {
        let hung = self.sources.first().map(|source| (source, source.waker_id));
        if let Some(waker) = hung.and_then(|(source, waker_id)| source.feed.waker(waker_id)) {
            self.partition.wait_for_clock(waker);
        }
    }

    /// Begins if enough is known; otherwise what is to be done first.
    fn open(&mut self, opening: &mut Opening, tell: &mut Vec<Gap>) -> Option<Step> {
        let start = opening.start;
        if self
            .sources
            .iter()
            .any(|source| source.feed.complete().is_none())
        {
            return Some(Step::Held);
        }
        let Some(horizon) = self.partition.horizon() else {
            return Some(Step::Clock(self.partition.number()));
        };
        self.resumed = matches!(start, Start::After(_));
        match start {
            Start::Live | Start::Unreadable => {
                // Everything up to the greatest was published before this stream began.
                self.begin(
                    self.sources
                        .iter()
                        .filter_map(|source| source.feed.complete())
                        .max()
                        .unwrap_or_default(),
                );
                if start == Start::Unreadable {
                    self.tell_all(None, GapReason::BadCursor, tell);
                }
            }
            Start::History(id) => {
                self.begin(id);
                for source in &mut self.sources {
                    source.history = !source.feed.covers(id);
                }
            }
            // Perhaps this replica has only not heard of it yet: the clock decides.
            Start::After(id) if id > self.partition.last_known() && !opening.asked => {
                opening.asked = true;
                return Some(Step::Clock(self.partition.number()));
            }
            Start::After(id) if id > self.partition.last_known() => {
                let to =
                    gap::judge_partition(id, &horizon).map_or(horizon.last, |missing| missing.to);
                self.begin(to);
                self.tell_all(Some(id), GapReason::Ahead, tell);
            }
            Start::After(id) => {
                self.begin(id);
                if let Some(missing) = gap::rewound(id, &horizon) {
                    for source in self
                        .sources
                        .iter_mut()
                        .filter(|source| source.feed.covers(id) && source.feed.is_logged())
                    {
                        source.skip(id, missing);
                    }
                }
            }
        }
        None
    }

    fn begin(&mut self, at: Id) {
        self.cursor = at;
        self.since = at;
        for source in &mut self.sources {
            source.passed = source.feed.passed();
        }
    }

    fn tell_all(&self, from: Option<Id>, reason: GapReason, tell: &mut Vec<Gap>) {
        let logged = self.sources.iter().filter(|source| source.feed.is_logged());
        tell.extend(logged.map(|source| Gap {
            topic: source.feed.topic().clone(),
            reason,
            from,
            to: self.cursor,
        }));
    }

    fn step(
        &mut self,
        serial: u64,
        skipped: &mut u64,
        take: &mut impl FnMut(Shown<'_>) -> bool,
    ) -> Step {
        if self.opening.is_some() {
            return Step::Held;
        }
        // What has filled the last step comes second in this one, so that neither kind starves.
        if std::mem::take(&mut self.passing_filled) {
            let step = self.merge(serial, take);
            if step == Step::Full || !self.show_passing(skipped, take) {
                return step;
            }
        } else if !self.show_passing(skipped, take) {
            return self.merge(serial, take);
        }
        self.passing_filled = true;
        Step::Full
    }

    fn merge(&mut self, serial: u64, take: &mut impl FnMut(Shown<'_>) -> bool) -> Step {
        self.sources.iter_mut().for_each(Source::turn_page);
        if let [source] = self.sources.as_slice()
            && source.page.is_none()
        {
            return self.follow(serial, take);
        }
        let step = self.merge_all(serial, take);
        if step == Step::Idle && self.has_ended() {
            Step::Ended
        } else {
            step
        }
    }

    /// The merge of one topic that is read from its window: the common case, in one look.
    fn follow(&mut self, serial: u64, take: &mut impl FnMut(Shown<'_>) -> bool) -> Step {
        let teller = self.teller(serial);
        let Some(source) = self.sources.first_mut() else {
            return Step::Idle;
        };
        let position = source.position(self.cursor);
        // The cursor moves with what is shown, and with nothing else.
        let mut reached = self.cursor;
        let reach = source.feed.show(position, |frame| {
            reached = frame.id;
            !teller.tells(frame)
                || take(Shown::Frame {
                    frame,
                    anchored: true,
                })
        });
        source.done = source.done.max(reached);
        self.cursor = self.cursor.max(reached);
        match reach {
            Reach::Opening | Reach::Held => Step::Held,
            Reach::Behind => Step::Behind(self.partition.number(), vec![source.request(position)]),
            Reach::Full => Step::Full,
            Reach::All => Step::Idle,
            Reach::Ended => Step::Ended,
        }
    }

    fn teller(&self, serial: u64) -> Teller {
        Teller {
            since: self.since,
            resumed: self.resumed,
            serial,
        }
    }

    fn merge_all(&mut self, serial: u64, take: &mut impl FnMut(Shown<'_>) -> bool) -> Step {
        loop {
            self.sources.iter_mut().for_each(Source::turn_page);
            // Limits before fronts: what they cover is in the windows already.
            let Some(limit) = self.limit() else {
                return Step::Held;
            };
            let behind = self.behind();
            if !behind.is_empty() {
                return Step::Behind(self.partition.number(), behind);
            }
            let (first, second) = self.fronts();
            let Some((index, id)) = first else {
                return Step::Idle;
            };
            if self.tell_early(id.min(limit), take) {
                return Step::Full;
            }
            if id > limit {
                return Step::Held;
            }
            let until = second.map_or(limit, |second| limit.min(second.just_before().max(id)));
            let alone = second.is_none_or(|second| second > id);
            let cursor = self.cursor;
            let teller = self.teller(serial);
            let Some(source) = self.sources.get_mut(index) else {
                return Step::Idle;
            };
            let (reached, full) = source.show(cursor, until, alone, &teller, take);
            source.done = source.done.max(reached);
            if alone {
                self.cursor = self.cursor.max(reached);
            }
            if full {
                return Step::Full;
            }
        }
    }

    /// Shows events that are not logged. True if `take` is full.
    fn show_passing(
        &mut self,
        skipped_in_all: &mut u64,
        take: &mut impl FnMut(Shown<'_>) -> bool,
    ) -> bool {
        self.sources.iter_mut().any(|source| {
            let mut full = false;
            if source.passed < source.feed.passed() {
                let (passed, skipped) = source.feed.take_passing(source.passed, |frame| {
                    full = !take(Shown::Frame {
                        frame,
                        anchored: false,
                    });
                    !full
                });
                source.passed = passed;
                *skipped_in_all += skipped;
            }
            full
        })
    }

    /// Gaps that end above what is shown next. They are told now and without an id, because the
    /// cursor is about to move on among the ids that they lack: a stream that dropped there and
    /// came back to a replica which still holds the rest would never be told. True if `take` is
    /// full.
    fn tell_early(&mut self, next: Id, take: &mut impl FnMut(Shown<'_>) -> bool) -> bool {
        let pages = self.sources.iter_mut().filter_map(|s| s.page.as_mut());
        for page in pages {
            if let Some(gap) = page.gap.take_if(|gap| gap.to > next)
                && !take(Shown::Gap {
                    gap,
                    anchored: false,
                })
            {
                return true;
            }
        }
        false
    }

    /// Topics whose next stretch must be read from the log.
    fn behind(&self) -> Vec<ReadRequest> {
        let cursor = self.cursor;
        let needy = self.sources.iter().filter_map(|source| {
            let position = source.position(cursor);
            (source.page.is_none() && !source.feed.covers(position))
                .then(|| source.request(position))
        });
        needy.collect()
    }

    /// The source with the smallest next id, that id, and the next id of the others.
    fn fronts(&self) -> (Option<(usize, Id)>, Option<Id>) {
        let mut first: Option<(usize, Id)> = None;
        let mut second: Option<Id> = None;
        for (index, source) in self.sources.iter().enumerate() {
            let Some(id) = source.front(self.cursor) else {
                continue;
            };
            match first {
                Some((_, least)) if id >= least => second = Some(second.map_or(id, |s| s.min(id))),
                _ => {
                    second = first.map(|(_, least)| least).or(second);
                    first = Some((index, id));
                }
            }
        }
        (first, second)
    }
}

/// Entries that one page asks for.
pub const PAGE_EVENTS: usize = 256;

/// Decides which gap entries of a log concern a stream.
struct Teller {
    since: Id,
    resumed: bool,
    serial: u64,
}

impl Teller {
    /// A stream that came with a cursor may have gone past the lost ids before the gap was written
    /// down, on this replica or on another: it is told although it begins above them.
    fn tells(&self, frame: &Frame) -> bool {
        match frame.mark {
            Mark::Event | Mark::End | Mark::Deleted | Mark::Unlogged => true,
            Mark::Gap { lost, .. } => self.since < lost || self.resumed,
            Mark::Late { from, to, serial } => {
                let was_open = self.serial < serial && self.since < to;
                was_open || (self.resumed && self.since > from)
            }
        }
    }
}

impl Source {
    fn position(&self, cursor: Id) -> Id {
        cursor.max(self.done)
    }

    fn request(&self, after: Id) -> ReadRequest {
        ReadRequest {
            topic: self.feed.topic().clone(),
            after,
            limit: PAGE_EVENTS,
        }
    }

    /// Up to where this topic is known to this stream.
    fn limit(&self) -> Option<Id> {
        let complete = self.feed.complete()?;
        Some(
            self.page
                .as_ref()
                .map_or(complete.max(self.done), |page| page.cap),
        )
    }

    /// A page that was shown whole is done with; the window, or another page, follows.
    fn turn_page(&mut self) {
        if let Some(page) = self.page.take_if(|page| page.is_shown()) {
            self.done = self.done.max(page.cap);
        }
    }

    fn replay(&mut self, reading: &Arc<Reading>, index: usize, page: &Page) {
        let missing = gap::judge(page.after, &reading.horizon, page.floor)
            .filter(|missing| missing.to > page.after);
        let history = std::mem::take(&mut self.history);
        let from = missing.map_or(page.after, |missing| missing.to);
        let cap = page.cut_at.unwrap_or(reading.horizon.last);
        self.page = Some(Box::new(Replay {
            gap: missing.filter(|_| !history).map(|missing| Gap {
                topic: self.feed.topic().clone(),
                reason: missing.reason,
                from: Some(page.after),
                to: missing.to,
            }),
            frames: Some(Frames {
                reading: reading.clone(),
                page: index,
                next: page.frames.partition_point(|frame| frame.id <= from),
            }),
            cap: cap.max(from),
        }));
    }

    /// Tells a gap although the window covers the cursor.
    fn skip(&mut self, from: Id, missing: gap::Missing) {
        self.page = Some(Box::new(Replay {
            gap: Some(Gap {
                topic: self.feed.topic().clone(),
                reason: missing.reason,
                from: Some(from),
                to: missing.to,
            }),
            frames: None,
            cap: missing.to,
        }));
    }

    /// The id of what this topic shows next.
    fn front(&self, cursor: Id) -> Option<Id> {
        match &self.page {
            Some(page) => page
                .gap
                .as_ref()
                .map(|gap| gap.to)
                .or_else(|| page.left().first().map(|frame| frame.id)),
            None => self.feed.first_after(self.position(cursor)).ok().flatten(),
        }
    }

    /// Shows everything up to `until`; returns how far it came and whether `take` is full.
    fn show(
        &mut self,
        cursor: Id,
        until: Id,
        anchored: bool,
        teller: &Teller,
        take: &mut impl FnMut(Shown<'_>) -> bool,
    ) -> (Id, bool) {
        let position = self.position(cursor);
        let Some(page) = &mut self.page else {
            return self.show_window(position, until, anchored, teller, take);
        };
        let mut reached = position;
        if let Some(gap) = page.gap.take_if(|gap| gap.to <= until) {
            reached = gap.to;
            if !take(Shown::Gap { gap, anchored }) {
                return (reached, true);
            }
        }
        if page.gap.is_some() {
            return (reached, false);
        }
        while let Some(frame) = page.left().first().filter(|frame| frame.id <= until) {
            reached = frame.id;
            let full = teller.tells(frame) && !take(Shown::Frame { frame, anchored });
            page.pass_one();
            if full {
                return (reached, true);
            }
        }
        (reached, false)
    }

    fn show_window(
        &self,
        position: Id,
        until: Id,
        anchored: bool,
        teller: &Teller,
        take: &mut impl FnMut(Shown<'_>) -> bool,
    ) -> (Id, bool) {
        let mut reached = position;
        let mut full = false;
        let shown = self.feed.take_after(position, until, |frame| {
            reached = frame.id;
            full = teller.tells(frame) && !take(Shown::Frame { frame, anchored });
            !full
        });
        match shown {
            // The window moved on meanwhile: the next look reads the log.
            Err(BehindWindow) => (position, false),
            Ok(()) => (reached, full),
        }
    }
}
