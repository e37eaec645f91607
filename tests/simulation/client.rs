//! A subscriber: what it asked for, what it was shown, and the strict oracle over both.

use crate::wire::{Block, Wire};
use rand::Rng as _;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;
use tidegate::cursor::Cursor;
use tidegate::hub::WakerId;
use tidegate::hub::wake_source::WakeSource;
use tidegate::id::Id;
use tidegate::stream::open::Opener;
use tidegate::stream::turn::Stream;
use tidegate::time::CoarseInstant;
use tidegate::topic::{PartitionNo, Topic};

/// An event as its publisher knows it.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says something else of it"
)]
pub struct Published {
    pub topic: Topic,
    pub partition: PartitionNo,
    pub id: Id,
    /// It has the type that some clients filter by.
    pub typed: bool,
    /// Greater ids were given out before it, by a log that was lost, with a clock that was ahead.
    pub below: bool,
    /// The log has forgotten it before any replica that still knows it heard it.
    pub unknowable: bool,
    /// Replicas from whose connection it vanished, and the connection stayed up.
    pub vanished: BTreeSet<usize>,
    /// It vanished, and the next event of its topic began another log, or is gone, too: nothing shows the hole
    /// any more.
    pub outlived: bool,
    /// When the log was emptied or went back last, it was not there any more.
    pub lost: bool,
    /// It was lost, and the log after that was emptied or went back before a replica had told it so.
    pub record_lost: bool,
}

impl Published {
    pub fn new(topic: Topic, partition: PartitionNo, id: Id, typed: bool, below: bool) -> Self {
        Self {
            topic,
            partition,
            id,
            typed,
            below,
            unknowable: false,
            vanished: BTreeSet::new(),
            outlived: false,
            lost: false,
            record_lost: false,
        }
    }
}

/// A gap that a client was told.
#[derive(Debug)]
pub struct Told {
    pub topic: Topic,
    pub reason: String,
    pub from: Option<Id>,
    pub to: Id,
    /// Events published by then.
    pub published: usize,
}

impl Told {
    /// Strictly what the gap says: above `from`, up to `to`. Two reasons speak of another log, of
    /// which the client's cursor was, and so of everything in this one up to `to`.
    pub fn covers(&self, event: &Published, number: usize) -> bool {
        let above = match self.reason.as_str() {
            "ahead" | "bad_cursor" => true,
            // Of a log that came and went in between, with a clock behind the cursor's.
            "log_lost" | "rewound" if event.below => true,
            _ => self.from.is_some_and(|from| from < event.id),
        };
        self.topic == event.topic && number < self.published && above && event.id <= self.to
    }
}

/// A stream that is open, as a client and its replica have it.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says something else of it"
)]
pub struct Open {
    pub replica: usize,
    pub stage: Stage,
    pub woken: Arc<Woken>,
    /// A read is under way for it.
    pub asking: bool,
    /// When it wants to be turned, whoever wakes it.
    pub due: Option<CoarseInstant>,
    /// Wakers that are shared, and are removed when it goes.
    pub shared: Vec<(WakeSource, WakerId)>,
    /// On the way to the client.
    pub wire: Wire,
    /// Events published when it was asked for.
    pub published: usize,
    pub asked_at: usize,
    /// The newest deletion of each topic that its replica had heard by then.
    pub deleted: BTreeMap<Topic, Id>,
    /// The last cursor that was written.
    pub last: Option<Cursor>,
    /// The last event seen that was not logged.
    pub whisper: Option<usize>,
    /// It was told that it has everything that was there.
    pub is_live: bool,
    /// It is to be told that, once all is quiet.
    pub awaits_live: bool,
    /// It has asked for history, and not caught up since.
    pub reads_history: bool,
    /// Events published when its replica had opened it.
    pub opened_at: usize,
    /// Events that vanished on the way to its replica, which knew of the hole when it ended the stream.
    pub known_holes: BTreeSet<usize>,
}

pub enum Stage {
    Opening(Box<Opener>),
    Live(Box<Stream>),
    /// What is on the way still arrives.
    Over,
}

impl Drop for Open {
    fn drop(&mut self) {
        for (source, waker_id) in self.shared.drain(..) {
            source.remove_waker(waker_id);
        }
    }
}

/// Notes that a stream was woken.
#[derive(Default)]
pub struct Woken(AtomicBool);

impl Woken {
    pub fn yes() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }

    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.set();
    }
}

pub struct Client {
    pub topics: Vec<Topic>,
    /// It wants only events with the type.
    pub filters: bool,
    /// Its first visit asks for everything that is retained.
    pub asks_history: bool,
    /// What the log held when its first visit asked for history, and until that had read it.
    pub history: BTreeSet<usize>,
    /// Events published by then; what comes later is due in any case.
    pub history_until: usize,
    pub cursor: Option<Cursor>,
    /// The first position, and the events published by then.
    pub began: Option<(Cursor, usize)>,
    /// Events published by the time that the first stream was open: what comes later is due whatever its id.
    pub opened_at: Option<usize>,
    pub seen: BTreeSet<usize>,
    /// Events whose loss was written down in a log that went before this client came to that.
    pub records_lost: BTreeSet<usize>,
    /// Events that had vanished from a replica when this client left it, past them.
    pub passed: BTreeSet<usize>,
    /// The last event seen that was not logged.
    pub whisper: Option<usize>,
    pub told: Vec<Told>,
    pub open: Option<Open>,
    pub streams: u64,
    /// It was told that everything has ended.
    pub stays_away: bool,
}

impl Client {
    pub fn new(rng: &mut StdRng, history: bool) -> Self {
        let mut all = super::topics();
        let count = rng.random_range(1..=3);
        let chosen = (0..count).map(|_| all.remove(rng.random_range(0..all.len())));
        let mut topics: Vec<Topic> = chosen.collect();
        if rng.random_bool(0.4) {
            topics.push(Topic::parse(super::UNLOGGED).unwrap());
        }
        Self {
            topics,
            filters: rng.random_bool(0.2),
            asks_history: history && rng.random_bool(0.5),
            history: BTreeSet::new(),
            history_until: 0,
            cursor: None,
            began: None,
            opened_at: None,
            seen: BTreeSet::new(),
            records_lost: BTreeSet::new(),
            passed: BTreeSet::new(),
            whisper: None,
            told: Vec::new(),
            open: None,
            streams: 0,
            stays_away: false,
        }
    }

    /// The next block arrives. What the client says of it, for the trace.
    pub fn arrive(&mut self, published: &[Published]) -> Option<String> {
        let open = self.open.as_mut()?;
        let block = open.wire.arrive()?;
        if block.event == "message" || block.event.is_empty() || block.event == super::TYPE {
            return Some(self.event(&block, published));
        }
        let open = self.open.as_mut()?;
        let may_stand = matches!(
            block.event.as_str(),
            "tidegate.open" | "tidegate.cursor" | "tidegate.live"
        );
        move_cursor(open, &block, may_stand);
        if let Some(cursor) = &block.id {
            self.cursor = Some(cursor.clone());
        }
        match block.event.as_str() {
            "tidegate.open" => {
                let opened = block.json();
                let cursor = opened["cursor"].as_str();
                let cursor: Option<Cursor> = cursor.map(|text| text.parse().unwrap());
                if let Some(cursor) = cursor {
                    self.opened_at.get_or_insert(open.opened_at);
                    self.began.get_or_insert((cursor, open.published));
                }
                Some(format!("begins with {}", block.data))
            }
            "tidegate.live" => {
                assert!(
                    !std::mem::replace(&mut open.is_live, true),
                    "is live once more"
                );
                Some(format!("is live at {:?}", block.id))
            }
            "tidegate.cursor" | "tidegate.deleted" => {
                Some(format!("gets {} at {:?}", block.event, block.id))
            }
            "tidegate.gap" => {
                let gap = block.json();
                let told = Told {
                    topic: Topic::parse(gap["topic"].as_str().unwrap()).unwrap(),
                    reason: gap["reason"].as_str().unwrap().to_owned(),
                    from: gap["from"].as_str().map(|id| id.parse().unwrap()),
                    to: gap["to"].as_str().unwrap().parse().unwrap(),
                    published: published.len(),
                };
                let said = format!("is told {told:?}");
                self.told.push(told);
                Some(said)
            }
            other => panic!("nobody sends {other}"),
        }
    }

    fn event(&mut self, block: &Block, published: &[Published]) -> String {
        let open = self.open.as_mut().unwrap();
        let number = super::number_of(&block.data).unwrap();
        if block.data.starts_with('w') {
            assert!(block.id.is_none(), "whisper {number} has an id");
            assert!(
                open.whisper < Some(number),
                "whisper {number} after {:?}",
                open.whisper
            );
            open.whisper = Some(number);
            self.whisper = Some(number);
            return format!("hears whisper {number}");
        }
        let event = &published[number];
        move_cursor(open, block, false);
        if let Some(cursor) = &block.id {
            self.cursor = Some(cursor.clone());
        }
        let deleted = open.deleted.get(&event.topic);
        // A log that was lost may have given out the greater id.
        assert!(
            event.below || deleted.is_none_or(|id| *id < event.id),
            "{number} of {} comes back after its deletion at {deleted:?}",
            event.topic
        );
        assert!(
            self.topics.contains(&event.topic),
            "sees an event of another topic"
        );
        assert!(
            !self.filters || event.typed,
            "sees {number} of another type"
        );
        assert!(self.seen.insert(number), "sees {number} again");
        format!("sees {number} of {} at {:?}", event.topic, block.id)
    }

    /// Events that are due and were not seen.
    fn missing<'a>(&'a self, published: &'a [Published]) -> impl Iterator<Item = usize> + 'a {
        let began = self.began.as_ref();
        let numbered = published.iter().enumerate();
        numbered.filter_map(move |(number, event)| {
            let (cursor, since) = began?;
            let after = cursor.position(event.partition).unwrap_or_default();
            // A first visit that asks for history begins before events that were there already.
            let since = if self.asks_history {
                self.history_until
            } else {
                *since
            };
            let due = (number >= since || self.history.contains(&number))
                && (event.id > after || self.opened_at.is_some_and(|at| number >= at))
                && self.topics.contains(&event.topic)
                && (event.typed || !self.filters);
            (due && !self.seen.contains(&number)).then_some(number)
        })
    }

    /// The log that tells of this event's loss at `told` is gone. Whoever is past the event, or may be with
    /// what is on its way to it, and not at the place where it is told, is not told any more.
    pub fn note_record_lost(&mut self, number: usize, event: &Published, told: Id) {
        let at = self
            .cursor
            .as_ref()
            .and_then(|cursor| cursor.position(event.partition));
        if at < Some(told) && (self.open.is_some() || at >= Some(event.id)) {
            self.records_lost.insert(number);
        }
    }

    /// An event is lost that got an id below what was given out before it. What the log that gave it out had
    /// written down of that is lost with it.
    pub fn note_passed_below(&mut self, number: usize, event: &Published) {
        let cursor = self.cursor.as_ref();
        if cursor.and_then(|cursor| cursor.position(event.partition)) >= Some(event.id) {
            self.records_lost.insert(number);
        }
    }

    /// Leaves its replica. Of an event that vanished there, and whose hole has not shown yet, a client that
    /// is past it and goes on elsewhere cannot be told.
    pub fn leave(&mut self, published: &[Published]) -> bool {
        let Some(open) = self.open.take() else {
            return false;
        };
        for (number, event) in published.iter().enumerate() {
            let at = self
                .cursor
                .as_ref()
                .and_then(|cursor| cursor.position(event.partition));
            let is_hidden =
                event.vanished.contains(&open.replica) && !open.known_holes.contains(&number);
            if is_hidden && at >= Some(event.id) {
                self.passed.insert(number);
            }
        }
        true
    }

    /// Whether the last gap told covers an event that was not seen, of whatever type.
    pub fn last_gap_is_needed(&self, published: &[Published]) -> bool {
        let (Some(told), Some((cursor, _))) = (self.told.last(), &self.began) else {
            return true;
        };
        published.iter().enumerate().any(|(number, event)| {
            cursor.position(event.partition) < Some(event.id)
                && !self.seen.contains(&number)
                && told.covers(event, number)
        })
    }

    /// Whether the last gap told is what its stream ends with: its replica lacks something there that the stream may have
    /// gone past, and the client may come back to one that lacks nothing. Whether there was an event, it cannot wait for.
    pub fn last_gap_is_an_end(&self) -> bool {
        let (Some(told), Some(open)) = (self.told.last(), &self.open) else {
            return false;
        };
        told.reason == "late"
            && matches!(open.stage, Stage::Over)
            && open.wire.has_only("tidegate.gap")
    }

    /// The frame never came to the replica that the client reads, and the topic had no other one that would
    /// show that: it has ended.
    fn is_never_shown(&self, number: usize, published: &[Published]) -> bool {
        let event = &published[number];
        let mut later = published[number + 1..].iter();
        let is_last = later.all(|later| later.topic != event.topic);
        let open = self.open.as_ref();
        is_last && open.is_some_and(|open| event.vanished.contains(&open.replica))
    }

    /// Holds everything against what was published; how many were seen, and how many lost in a way
    /// that nobody can know.
    pub fn check(&self, published: &[Published]) -> (u64, u64) {
        let mut unknowable = 0;
        for number in self.missing(published) {
            let event = &published[number];
            if self.told.iter().any(|told| told.covers(event, number)) {
                continue;
            }
            let excused = event.unknowable
                || event.outlived
                || event.record_lost
                || self.records_lost.contains(&number)
                || self.passed.contains(&number)
                || self.is_never_shown(number, published);
            assert!(
                excused,
                "lost event {number} of {} at {} silently",
                event.topic, event.id
            );
            unknowable += 1;
        }
        (self.seen.len() as u64, unknowable)
    }
}

/// Ids on one stream only grow; only what shows nothing may repeat the last.
fn move_cursor(open: &mut Open, block: &Block, may_stand: bool) {
    let Some(cursor) = &block.id else { return };
    if let Some(last) = &open.last {
        let positions = |cursor: &Cursor| match cursor {
            Cursor::One(id) => vec![*id],
            Cursor::Many(parts) => parts.iter().map(|(_, id)| *id).collect(),
        };
        let (before, after) = (positions(last), positions(cursor));
        let grows = before.iter().zip(&after).all(|(b, a)| b <= a);
        let moves = before != after;
        assert!(
            grows && (moves || may_stand),
            "cursor {cursor} after {last}: {block:?}"
        );
    }
    open.last = Some(cursor.clone());
}
