//! The merge of the topics of one partition into one stream.

use super::source::{Front, Source, Teller};
use super::step::{
    Flow, OpenStep, PAGE_EVENTS, PAGE_EVENTS_MIN, Showing, Shown, Sink, Start, Step,
};
use crate::gap;
use crate::hub::partition::Partition;
use crate::id::Id;
use crate::log::{LogRead, ReadRequest};
use crate::sse::{Gap, GapReason};
use smallvec::{SmallVec, smallvec};
use std::sync::Arc;

/// The topics of one partition, and where the stream stands among their events.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) partition: Arc<Partition>,
    /// One as a rule, which then stands right here.
    pub(super) sources: SmallVec<[Source; 1]>,
    opening: Option<Box<Opening>>,
    pub(super) cursor: Id,
    pub(super) since: Id,
    /// The stream goes on from a cursor that it got elsewhere.
    resumed: bool,
    /// Events that are not logged have filled the last step.
    unlogged_filled: bool,
    /// An event is known that is not shown, because a topic is not complete up to it. What is not logged is shown
    /// meanwhile, and pages are read again.
    pub(super) is_held: bool,
}

/// A part that has not begun.
#[derive(Debug)]
struct Opening {
    start: Start,
    /// The clock was read for this stream.
    asked_clock: bool,
    /// The log was asked whether topics that have ended here have ended still.
    asked_ends: bool,
}

/// The sources' next ids.
struct Fronts {
    /// The source with the smallest, and that id.
    first: Option<(usize, Id)>,
    /// The smallest of the others.
    second: Option<Id>,
    /// What must be read from the log before any of that counts.
    behind: Vec<ReadRequest>,
}

impl Part {
    pub(super) fn new(partition: Arc<Partition>, source: Source, start: Start) -> Self {
        Self {
            partition,
            sources: smallvec![source],
            opening: Some(Box::new(Opening {
                start,
                asked_clock: false,
                asked_ends: false,
            })),
            cursor: Id::ZERO,
            since: Id::ZERO,
            resumed: false,
            unlogged_filled: false,
            is_held: false,
        }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.opening.is_none()
    }

    /// Up to where any of its topics is known here.
    pub(super) fn head(&self) -> Id {
        let complete = self
            .sources
            .iter()
            .filter_map(|source| source.feed.complete());
        complete.fold(self.cursor, Id::max)
    }

    /// Up to where nothing can still come, as far as is known; none while a topic lacks something.
    pub(super) fn whole_to(&self) -> Option<Id> {
        let mut sources = self.sources.iter();
        let is_whole = sources.all(|source| source.feed.wants().is_none());
        self.limit().filter(|_| is_whole)
    }

    /// Whether entries of pages are held for it.
    pub(super) fn holds_page(&self) -> bool {
        self.sources.iter().any(Source::holds_page)
    }

    /// Whether everything up to there was shown.
    pub(super) fn has_reached(&self, head: Id) -> bool {
        // What is known first, and then what of it was not shown.
        let is_quiet = || {
            let fronts = self.fronts();
            fronts.behind.is_empty() && fronts.first.is_none_or(|(_, id)| head < id)
        };
        head <= self.cursor || (Some(head) <= self.whole_to() && is_quiet())
    }

    /// Tells, of each topic, what was found late, and, if it lacks something, what the stream may have gone past: it
    /// ends now, and may come back to a replica that lacks nothing.
    pub(super) fn tell_untold(&mut self, serial: u64, showing: &mut Showing<'_, impl Sink>) {
        if !self.has_begun() {
            return;
        }
        let teller = self.teller(serial);
        let began = if self.resumed { Id::ZERO } else { self.since };
        for source in &mut self.sources {
            // It ends whether or not there is room.
            let _is_full = source.tell_late(&teller, showing);
            source.tell_untold(self.cursor, began, showing);
        }
    }

    fn teller(&self, serial: u64) -> Teller {
        Teller {
            since: self.since,
            resumed: self.resumed,
            serial,
        }
    }

    /// The least *complete* of the topics; none while one is opening.
    fn limit(&self) -> Option<Id> {
        self.sources.iter().map(Source::limit).min().flatten()
    }

    /// Whether every topic has ended at or below the cursor.
    pub(super) fn has_ended(&self) -> bool {
        self.has_begun()
            && self.sources.iter().all(|source| {
                let ended = source.feed.ended();
                ended.is_some_and(|end| end <= source.position(self.cursor))
                    && source.page.is_none()
            })
    }

    /// Wakes the stream when the clock has moved on.
    pub(super) fn wait_for_clock(&self) {
        let first = self.sources.first();
        let waker = first.and_then(|source| source.feed.waker(source.waker_id));
        if let Some(waker) = waker {
            self.partition.wait_for_clock(waker);
        }
    }

    /// Begins if enough is known; else says what is to be done first. Gaps that are told whatever
    /// the log holds are added to `tell`.
    pub(super) fn open(&mut self, tell: &mut Vec<Gap>) -> OpenStep {
        let Some(mut opening) = self.opening.take() else {
            return OpenStep::Open;
        };
        let step = self.try_open(&mut opening, tell);
        if step != OpenStep::Open {
            self.opening = Some(opening);
        }
        step
    }

    fn try_open(&mut self, opening: &mut Opening, tell: &mut Vec<Gap>) -> OpenStep {
        let complete = self.sources.iter().map(|source| source.feed.complete());
        let Some(complete) = complete.collect::<Option<SmallVec<[Id; 4]>>>() else {
            return OpenStep::Wait;
        };
        let Some(horizon) = self.partition.horizon() else {
            return OpenStep::Read(LogRead::Clock(self.partition.number()));
        };
        let start = opening.start;
        let last_known = self.partition.last_known();
        if let Start::After(id) | Start::History(id) = start
            && id > last_known
            && !std::mem::replace(&mut opening.asked_clock, true)
        {
            // Perhaps this replica has only not heard of it yet: the clock decides.
            return OpenStep::Read(LogRead::Clock(self.partition.number()));
        }
        let mut ahead = None;
        let at = match start {
            // Everything up to the greatest was published before this stream began.
            Start::Live | Start::Unreadable => complete.into_iter().max().unwrap_or_default(),
            Start::After(id) if id > last_known => {
                ahead = Some(id);
                gap::judge_partition(id, &horizon).map_or(horizon.last, |missing| missing.to)
            }
            // The log that named it is gone, and this one has not come as far: what it gives out next would be
            // below, and shown to nobody.
            Start::History(id) if id > last_known => id.min(horizon.last),
            Start::After(id) | Start::History(id) => id,
        };
        if self.any_has_ended(at) && !std::mem::replace(&mut opening.asked_ends, true) {
            // An end may have expired here unheard, or its key may be gone: nobody is turned away,
            // and no stream is ended, for what the log has forgotten.
            let requests = self.sources.iter().map(Source::state_request).collect();
            return OpenStep::Read(LogRead::State(self.partition.number(), requests));
        }
        self.resumed = matches!(start, Start::After(_));
        self.begin(at);
        match start {
            Start::Unreadable => self.tell_all(None, GapReason::BadCursor, tell),
            Start::After(_) if ahead.is_some() => self.tell_all(ahead, GapReason::Ahead, tell),
            Start::After(id) => {
                if let Some(missing) = gap::rewound(id, &horizon) {
                    // All are told, whether or not the window covers the cursor now: it may grow
                    // before the first look. What follows is judged by its own page.
                    for source in &mut self.sources {
                        if source.feed.is_logged() {
                            source.skip(missing);
                        }
                    }
                }
            }
            Start::History(_) => self.sources.iter_mut().for_each(Source::begin_history),
            Start::Live => {}
        }
        OpenStep::Open
    }

    fn any_has_ended(&self, at: Id) -> bool {
        let mut ends = self.sources.iter().filter_map(|source| source.feed.ended());
        ends.any(|end| end <= at)
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

    /// Shows what comes next, until there is no more or the sink is full.
    pub(super) fn step(&mut self, serial: u64, showing: &mut Showing<'_, impl Sink>) -> Step {
        if !self.has_begun() {
            return Step::Opening;
        }
        // What has filled the last step comes second in this one, so that neither kind starves.
        let unlogged_first = !std::mem::take(&mut self.unlogged_filled);
        if unlogged_first && self.show_unlogged(showing) == Flow::Full {
            self.unlogged_filled = true;
            return Step::Full;
        }
        let cursor = self.cursor;
        let step = self.merge(serial, showing);
        self.is_held = match step {
            Step::Held => true,
            // A page that was let go is read again, and shows nothing more than before.
            Step::Behind(_) => self.is_held && self.cursor == cursor,
            Step::Full | Step::Idle | Step::Ended | Step::Opening => false,
        };
        if !unlogged_first && step != Step::Full && self.show_unlogged(showing) == Flow::Full {
            self.unlogged_filled = true;
            return Step::Full;
        }
        step
    }

    fn show_unlogged(&mut self, showing: &mut Showing<'_, impl Sink>) -> Flow {
        for source in &mut self.sources {
            if source.show_unlogged(showing) == Flow::Full {
                return Flow::Full;
            }
        }
        Flow::More
    }

    fn merge(&mut self, serial: u64, showing: &mut Showing<'_, impl Sink>) -> Step {
        let teller = self.teller(serial);
        if self.tell_late(&teller, showing) == Flow::Full {
            return Step::Full;
        }
        self.sources.iter_mut().for_each(Source::turn_page);
        while let [source] = self.sources.as_slice()
            && source.page.is_none()
        {
            if let Some(step) = self.follow(&teller, showing) {
                return step;
            }
            if self.tell_late(&teller, showing) == Flow::Full {
                return Step::Full;
            }
        }
        let step = self.merge_all(&teller, showing);
        if step == Step::Idle && self.has_ended() {
            Step::Ended
        } else {
            step
        }
    }

    fn tell_late(&mut self, teller: &Teller, showing: &mut Showing<'_, impl Sink>) -> Flow {
        for source in &mut self.sources {
            if source.tell_late(teller, showing) == Flow::Full {
                return Flow::Full;
            }
        }
        Flow::More
    }

    /// The merge of one topic that is read from its window: the common case, in one look. None if something was
    /// found late since the last one: that is told first.
    fn follow(&mut self, teller: &Teller, showing: &mut Showing<'_, impl Sink>) -> Option<Step> {
        let Some(source) = self.sources.first_mut() else {
            return Some(Step::Idle);
        };
        let position = source.position(self.cursor);
        // The cursor moves with what is shown, and with nothing else.
        let mut reached = self.cursor;
        let mut view = source.feed.view();
        let topic = source.feed.topic();
        let Some(complete) = view.complete() else {
            return Some(Step::Opening);
        };
        if source.has_late() {
            return None;
        }
        if !view.covers(position) {
            drop(view);
            let requests = vec![source.request(position, PAGE_EVENTS)];
            let asked = LogRead::Pages(self.partition.number(), requests);
            return Some(Step::Behind(asked));
        }
        source.history = false;
        let mut step = Step::Idle;
        for frame in view.after(position) {
            if frame.id > complete {
                step = Step::Held;
                break;
            }
            reached = frame.id;
            let shown = Shown::Frame {
                topic,
                frame,
                anchored: true,
            };
            if teller.tells(frame) && showing.show(shown) == Flow::Full {
                step = Step::Full;
                break;
            }
        }
        view.note_grown(showing.sink.take_grown());
        if step == Step::Idle && view.ended().is_some_and(|end| end <= position.max(reached)) {
            step = Step::Ended;
        }
        drop(view);
        source.done = source.done.max(reached);
        self.cursor = self.cursor.max(reached);
        Some(step)
    }

    /// The merge rule: the smallest id of all topics, as long as no topic can still bring a smaller
    /// one.
    fn merge_all(&mut self, teller: &Teller, showing: &mut Showing<'_, impl Sink>) -> Step {
        loop {
            self.sources.iter_mut().for_each(Source::turn_page);
            // Limits before fronts: what they cover is in the windows already. Between the two
            // looks windows may move on; then a front says that it is behind.
            let Some(limit) = self.limit() else {
                return Step::Opening;
            };
            // After the limit: what was found by then is told before the cursor moves on up to there.
            if self.tell_late(teller, showing) == Flow::Full {
                return Step::Full;
            }
            showing.sink.others_run();
            let fronts = self.fronts();
            if !fronts.behind.is_empty() {
                return Step::Behind(LogRead::Pages(self.partition.number(), fronts.behind));
            }
            for source in &mut self.sources {
                // It has found what it came for. What is gone from here on, it misses.
                source.history = false;
            }
            let Some((index, id)) = fronts.first else {
                return Step::Idle;
            };
            if self.tell_early(id.min(limit), showing) == Flow::Full {
                return Step::Full;
            }
            if id > limit {
                return Step::Held;
            }
            let second = fronts.second;
            let until = second.map_or(limit, |second| limit.min(second.just_before().max(id)));
            // The last of those with the same id carries it.
            let anchored = second.is_none_or(|second| second > id);
            let cursor = self.cursor;
            showing.sink.others_run();
            let Some(source) = self.sources.get_mut(index) else {
                return Step::Idle;
            };
            let (reached, flow) = source.show(cursor, until, anchored, teller, showing);
            source.done = source.done.max(reached);
            if anchored {
                self.cursor = self.cursor.max(reached);
            }
            if flow == Flow::Full {
                return Step::Full;
            }
        }
    }

    /// Entries of one page. What is held of all topics is bounded, and a stream of many topics is shown little
    /// of each before it needs the next page of another.
    fn page_events(&self) -> usize {
        (2 * PAGE_EVENTS / self.sources.len().max(1)).clamp(PAGE_EVENTS_MIN, PAGE_EVENTS)
    }

    /// The stream shows nothing for a while: pages that it holds are let go.
    pub(super) fn release_pages(&mut self) {
        for source in &mut self.sources {
            source.release_page();
        }
    }

    /// Gaps that end above what is shown next. They are told now and without an id, because the
    /// cursor is about to move on among the ids that they lack: a stream that dropped there and
    /// came back to a replica which still holds the rest would never be told.
    fn tell_early(&mut self, next: Id, showing: &mut Showing<'_, impl Sink>) -> Flow {
        for source in &mut self.sources {
            let early = source.page.as_mut();
            if let Some(gap) = early.and_then(|page| page.gap.take_if(|gap| gap.to > next)) {
                // Told once, also if the rest of its page is let go and read again.
                source.done = source.done.max(gap.to);
                let anchored = false;
                if showing.show(Shown::Gap { gap, anchored }) == Flow::Full {
                    return Flow::Full;
                }
            }
        }
        Flow::More
    }

    fn fronts(&self) -> Fronts {
        let mut fronts = Fronts {
            first: None,
            second: None,
            behind: Vec::new(),
        };
        let page_events = self.page_events();
        for (index, source) in self.sources.iter().enumerate() {
            let id = match source.front(self.cursor) {
                Front::Nothing => continue,
                Front::Behind => {
                    let position = source.position(self.cursor);
                    fronts.behind.push(source.request(position, page_events));
                    continue;
                }
                Front::At(id) => id,
            };
            match fronts.first {
                Some((_, least)) if id >= least => {
                    fronts.second = Some(fronts.second.map_or(id, |second| second.min(id)));
                }
                _ => {
                    fronts.second = fronts.first.map(|(_, least)| least).or(fronts.second);
                    fronts.first = Some((index, id));
                }
            }
        }
        fronts
    }

    /// Moves the cursor to where all topics are complete, if nothing at or below that is still to
    /// be shown. True if it has moved.
    pub(super) fn refresh(&mut self, sink: &mut impl Sink) -> bool {
        if !self.has_begun() {
            return false;
        }
        // The limit first: what it covers stands in the windows, so that the fronts show it, or has
        // left them since, so that they are behind.
        let Some(limit) = self.limit().filter(|limit| *limit > self.cursor) else {
            return false;
        };
        if self.sources.iter().any(Source::has_late) {
            // The stream is being woken for it.
            return false;
        }
        sink.others_run();
        let fronts = self.fronts();
        let is_due = |(_, id): (usize, Id)| id <= limit;
        if !fronts.behind.is_empty() || fronts.first.is_some_and(is_due) {
            // The stream is being woken for it.
            return false;
        }
        self.cursor = limit;
        true
    }
}
