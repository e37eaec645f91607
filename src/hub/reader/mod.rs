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
//! | module | what |
//! |---|---|
//! | `part` | the merge rule, over the topics of one partition |
//! | `source` | one topic: its page of the log, or its window |
//! | `step` | where a step begins, what it shows and to whom, how far it came |
//!
//! A reader of one topic costs some 150 bytes and no allocation; pages only while it is behind.

mod part;
mod source;
mod step;

pub use step::{Flow, OpenStep, PAGE_EVENTS, Shown, Sink, Start, Step};

use super::Hub;
use super::feed::Feed;
use super::waker::WakerId;
use crate::cursor::Cursor;
use crate::id::Id;
use crate::log::{LogRead, Reading};
use crate::sse::Gap;
use crate::topic::{PartitionNo, Topic};
use part::Part;
use smallvec::SmallVec;
use source::Source;
use std::sync::Arc;
use std::task::Waker;
use step::Showing;

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
    /// The part with which the next step begins, by its place: the one after that with which the last one stopped.
    first: PartitionNo,
    /// The last step has found a part that is held, and has shown nothing of it.
    was_held: bool,
}

impl Hub {
    /// A reader of `topics`, each once; unknown ones become feeds that open. `waker` is woken
    /// whenever there may be something to show.
    #[must_use]
    pub fn reader(
        self: &Arc<Self>,
        topics: &[Topic],
        waker: &Waker,
        starts: impl Fn(PartitionNo) -> Start,
    ) -> Reader {
        let serial = self.next_serial();
        let mut state = self.state();
        let feeds = topics
            .iter()
            .map(|topic| self.feed_for(&mut state, topic))
            .collect();
        state.changed.extend(topics.iter().cloned());
        // Feeds are joined under the hub's lock, so that no sweep takes one away in between.
        let reader = Reader::new(self.clone(), waker, feeds, serial, starts);
        let wanted = !state.added.is_empty();
        drop(state);
        if wanted {
            self.wanted.notify_one();
        }
        reader
    }
}

impl Reader {
    /// A reader of `feeds`, grouped by partition. Use [`Hub::reader`].
    fn new(
        hub: Arc<Hub>,
        waker: &Waker,
        feeds: Vec<Arc<Feed>>,
        serial: u64,
        starts: impl Fn(PartitionNo) -> Start,
    ) -> Self {
        let mut parts: SmallVec<[Part; 1]> = SmallVec::new();
        for feed in feeds {
            feed.join();
            let partition = feed.partition().clone();
            let number = partition.number();
            let waker_id = feed.add_waker(waker.clone());
            let source = Source::new(feed, waker_id);
            match parts
                .iter_mut()
                .find(|part| part.partition.number() == number)
            {
                Some(part) => part.sources.push(source),
                None => parts.push(Part::new(partition, source, starts(number))),
            }
        }
        parts.sort_by_key(|part| part.partition.number());
        Self {
            hub,
            parts,
            serial,
            skipped: 0,
            shares_wakers: false,
            first: 0,
            was_held: false,
        }
    }

    /// From here on wakers are woken that others have added: `waker_id` says where, for each feed.
    /// They stay there as long as this reader lives. What happened before is not told to them: step
    /// once.
    pub fn share_wakers(&mut self, mut waker_id: impl FnMut(&Arc<Feed>) -> WakerId) {
        self.remove_wakers();
        self.shares_wakers = true;
        for source in self.parts.iter_mut().flat_map(|part| &mut part.sources) {
            source.waker_id = waker_id(&source.feed);
        }
    }

    fn remove_wakers(&self) {
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

    /// The cursor as it stands; none without a topic that has a log.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        let positions = self
            .parts
            .iter()
            .map(|part| (part.partition.number(), part.cursor));
        match (self.parts.as_slice(), self.hub.partitions()) {
            ([], _) => None,
            ([part], 1) => Some(Cursor::One(part.cursor)),
            _ => Some(Cursor::Many(positions.collect())),
        }
    }

    /// Where its topics stand here; none without a topic that has a log.
    #[must_use]
    pub fn head(&self) -> Option<Cursor> {
        let mut head = self.cursor()?;
        for part in &self.parts {
            head.set(part.partition.number(), part.head());
        }
        Some(head)
    }

    /// Whether it has shown everything up to there. The cursor need not stand there: in a partition that is quiet it
    /// does not move.
    #[must_use]
    pub fn has_reached(&self, head: &Cursor) -> bool {
        self.parts.iter().all(|part| {
            let head = head.position(part.partition.number());
            head.is_none_or(|head| part.has_reached(head))
        })
    }

    /// Whether something holds back what is known of any partition, as of the last step that has looked at it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.parts.iter().any(|part| part.is_held)
    }

    /// The same of those that the last step has looked at, and of which it has shown nothing that is logged.
    #[must_use]
    pub fn was_held(&self) -> bool {
        self.was_held
    }

    /// Whether nothing at or below `head` can still come. If the clock alone is behind, it is asked for, and the
    /// stream is woken when it has moved on.
    #[must_use]
    pub fn is_whole_to(&self, head: &Cursor) -> bool {
        self.parts.iter().all(|part| {
            let head = head.position(part.partition.number());
            let is_there = || head <= part.whole_to();
            is_there() || {
                part.wait_for_clock();
                self.hub.ask_for_clock();
                // It may have moved between the look and the wait.
                is_there()
            }
        })
    }

    /// The stream ends, before holes that are known are filled: tells what it may have gone past, and was not told.
    pub fn tell_untold(&mut self, sink: &mut impl Sink) {
        let Some(cursor) = self.cursor() else { return };
        let mut showing = Showing {
            sink,
            cursor,
            partition: 0,
            skipped: 0,
        };
        for part in &mut self.parts {
            showing.partition = part.partition.number();
            part.tell_untold(self.serial, &mut showing);
        }
    }

    /// Whether ids on the wire are bare, so that a frame's own block can be written as it is.
    #[must_use]
    pub fn writes_bare_ids(&self) -> bool {
        self.hub.partitions() == 1
    }

    /// Finds where each partition of the stream begins, as far as that is known. Gaps that are told
    /// whatever the log holds are added to `tell`.
    pub fn open(&mut self, tell: &mut Vec<Gap>) -> OpenStep {
        for part in &mut self.parts {
            let step = part.open(tell);
            if step != OpenStep::Open {
                return step;
            }
        }
        OpenStep::Open
    }

    /// Shows what comes next, in order, until there is no more or `sink` is full.
    pub fn step(&mut self, sink: &mut impl Sink) -> Step {
        let Some(cursor) = self.cursor() else {
            return Step::Idle;
        };
        let mut showing = Showing {
            sink,
            cursor,
            partition: 0,
            skipped: 0,
        };
        let mut summary = Step::Ended;
        self.was_held = false;
        // None keeps the others waiting for longer than one step, however much it has to show, or to read.
        let first = usize::from(std::mem::take(&mut self.first)).min(self.parts.len());
        let (before, from) = self.parts.split_at_mut(first);
        let places = (first..).zip(from).chain((0..).zip(before));
        for (place, part) in places {
            showing.partition = part.partition.number();
            let begun = part.cursor;
            let mut step = part.step(self.serial, &mut showing);
            if step == Step::Held {
                part.wait_for_clock();
                self.hub.ask_for_clock();
                // The clock may have moved between the look and the wait.
                step = part.step(self.serial, &mut showing);
            }
            self.was_held |= step == Step::Held && part.cursor == begun;
            summary = match (step, summary) {
                (Step::Idle, Step::Ended) => Step::Idle,
                (Step::Ended | Step::Idle, so_far) => so_far,
                (step @ (Step::Held | Step::Opening), _) => step,
                (step @ (Step::Full | Step::Behind(_)), _) => {
                    self.first = PartitionNo::try_from(place + 1).unwrap_or_default();
                    summary = step;
                    break;
                }
            };
        }
        if let Some(source) = self.parts.first().and_then(|part| part.sources.first()) {
            // Envelopes that were made on the way have their bytes in windows, too.
            self.hub.make_room(&source.feed);
        }
        let skipped = u32::try_from(showing.skipped).unwrap_or(u32::MAX);
        self.skipped = self.skipped.saturating_add(skipped);
        match summary {
            Step::Behind(LogRead::Pages(partition, requests))
                if self.parts.iter().any(Part::holds_page) =>
            {
                Step::Behind(LogRead::Rest(partition, requests))
            }
            summary => summary,
        }
    }

    /// How many events that are not logged came and went unseen, since the last call.
    pub fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.skipped).into()
    }

    /// Takes pages that were asked for. Pages that fit no topic's present position are left out: the
    /// next step asks for others.
    pub fn take_pages(&mut self, reading: &Arc<Reading>) {
        for (index, page) in reading.pages.iter().enumerate() {
            for part in self.parts.iter_mut().filter(|part| part.has_begun()) {
                for source in &mut part.sources {
                    let fits = source.feed.topic() == &page.topic
                        && source.page.is_none()
                        && source.position(part.cursor) == page.after;
                    if fits {
                        source.take_page(reading, index, page, part.since);
                    }
                }
            }
        }
    }

    /// Lets the pages go that it holds, because its client takes nothing now: the next step asks for what it
    /// needs again.
    pub fn release_pages(&mut self) {
        self.parts.iter_mut().for_each(Part::release_pages);
    }

    /// Moves the cursor of a quiet stream to where all of its topics are complete, as far as nothing
    /// can still come at or below that. True if it has moved.
    pub fn refresh(&mut self, sink: &mut impl Sink) -> bool {
        let mut moved = false;
        for part in &mut self.parts {
            moved |= part.refresh(sink);
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
        for part in self.parts.iter().filter(|part| part.has_begun()) {
            for source in &part.sources {
                let (events, lacks) = source.feed.lag_of(source.position(part.cursor));
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
        self.remove_wakers();
        for source in self.parts.iter().flat_map(|part| &part.sources) {
            self.hub.leave(&source.feed);
        }
    }
}
