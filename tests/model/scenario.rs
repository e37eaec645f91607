//! What scenarios have in common: a hub with topics that are read.

use crate::cursor::Cursor;
use crate::hub::Hub;
use crate::hub::partition::Learned;
use crate::hub::reader::{Flow, OpenStep, Reader, Shown, Sink, Start};
use crate::hub::window::WindowBounds;
use crate::id::Id;
use crate::log::{Floor, Horizon, Page, RunId, Tick};
use crate::sse::{Entry, Frame, Mark};
use crate::sync::Arc;
use crate::topic::Topic;
use std::task::Waker;

/// Something that is played in every order.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// Moments at which a thread could go on and another one does.
    pub(crate) preemptions: usize,
    pub(crate) run: fn(),
}

pub(crate) fn topic(number: usize) -> Topic {
    Topic::parse(["a", "b"][number]).unwrap()
}

/// A clock that does not say when it was born.
pub(crate) fn tick(id: Id) -> Tick {
    Tick { id, of: None }
}

pub(crate) fn id(ms: u64) -> Id {
    if ms == 0 { Id::ZERO } else { Id::new(ms, 1) }
}

/// The event of this millisecond. The first topic has one in each, the second one its first.
pub(crate) fn frame(number: usize, ms: u64) -> Frame {
    let prev = if number == 0 { ms - 1 } else { 0 };
    encode(number, ms, prev, Mark::Event)
}

pub(crate) fn unlogged(number: usize) -> Frame {
    encode(number, 0, 0, Mark::Unlogged)
}

fn encode(number: usize, ms: u64, prev: u64, mark: Mark) -> Frame {
    let entry = Entry {
        id: id(ms),
        prev: id(prev),
        mark,
        event_type: String::new(),
        data: "x".into(),
    };
    Frame::encode(&topic(number), &entry)
}

pub(crate) fn horizon(ms: u64) -> Horizon {
    Horizon {
        last: id(ms),
        born: Id::ZERO,
        seams: Vec::new(),
        losses: Vec::new(),
        now_ms: ms,
        run: RunId(1),
    }
}

/// What the log holds of a topic above `after`.
pub(crate) fn page(number: usize, after: u64, events: &[u64]) -> Page {
    Page {
        topic: topic(number),
        after: id(after),
        floor: Floor::Log(Id::ZERO),
        ended: None,
        frames: events.iter().map(|ms| frame(number, *ms)).collect(),
        cut_at: None,
    }
}

/// A hub of one partition, whose live path is whole.
pub(crate) fn hub() -> Arc<Hub> {
    let bounds = WindowBounds {
        events_max: 8,
        bytes_max: 1 << 20,
    };
    let hub = Hub::new(1, bounds);
    hub.begin_following(&[]);
    hub
}

/// A reader of topics that are live, and have no events yet.
pub(crate) fn reader(hub: &Arc<Hub>, numbers: &[usize], waker: &Waker) -> Reader {
    let topics: Vec<Topic> = numbers.iter().map(|number| topic(*number)).collect();
    let mut reader = hub.reader(&topics, waker, |_| Start::Live);
    for number in numbers {
        let feed = hub.feed(&topic(*number)).unwrap();
        hub.repair(&feed, &page(*number, 0, &[]), &horizon(0));
    }
    let generation = hub.partition(0).settled().unwrap();
    assert_eq!(hub.learn(0, generation, &mut horizon(0)), Learned::Counts);
    let mut gaps = Vec::new();
    assert_eq!(reader.open(&mut gaps), OpenStep::Open);
    assert!(gaps.is_empty());
    reader
}

/// Notes in which milliseconds the events were that it is shown.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) all: Vec<u64>,
    /// Events that it takes at once; 0 if there is no such limit.
    pub(crate) most: usize,
    since: usize,
}

impl Seen {
    pub(crate) fn taking(most: usize) -> Self {
        Self {
            most,
            ..Self::default()
        }
    }

    /// A step begins.
    pub(crate) fn begin(&mut self) -> &mut Self {
        self.since = self.all.len();
        self
    }
}

impl Sink for Seen {
    fn show(&mut self, shown: Shown<'_>, _: &Cursor) -> Flow {
        assert!(matches!(shown, Shown::Frame { .. }), "a gap: {shown:?}");
        self.all.push(shown.id().ms);
        if self.all.len() - self.since == self.most {
            Flow::Full
        } else {
            Flow::More
        }
    }
}
