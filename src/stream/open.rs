//! Opening a stream: what must be known before it can begin.
//!
//! [`Opener`] is a state machine without I/O: history for a first visit that asks for it, then the
//! subscription of each topic, then the clock. [`open`] carries it out.

use super::request::{Begin, StreamRequest};
use super::settings::{Jitter, StreamSettings};
use super::turn::{Now, Stream};
use crate::address::Network;
use crate::cursor::Cursor;
use crate::follow::reads::Reads;
use crate::hub::interest::Reserved;
use crate::hub::reader::{OpenStep, Reader, Start};
use crate::hub::{Hub, TaskWaker};
use crate::id::Id;
use crate::log::{History, LogRead};
use crate::sse::Gap;
use crate::topic::{PartitionNo, Topic};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// A future that gives the stream once it can begin.
pub type Opening = Pin<Box<dyn Future<Output = Stream> + Send>>;

/// A stream that has not begun.
#[derive(Debug)]
pub struct Opener {
    hub: Arc<Hub>,
    settings: Arc<StreamSettings>,
    request: StreamRequest,
    jitter: Jitter,
    waker: Waker,
    stage: Stage,
    /// Room for its topics, until its reader has them.
    room: Option<Reserved>,
}

#[derive(Debug)]
enum Stage {
    /// Nothing is known.
    New,
    /// The subscription and the clock are waited for. Gaps found on the way are told at once.
    Reading(Box<Reader>, Vec<Gap>),
    /// The stream was given out.
    Done,
}

/// What an opener needs next.
#[derive(Debug)]
pub enum Opened {
    /// It is woken when there is reason to look again.
    Wait,
    /// Where this history begins, for [`Opener::take_history`].
    History(Vec<Topic>, History),
    /// This must be read; the hub must have learnt of it before the next step.
    Read(LogRead),
    /// Nothing.
    Stream(Box<Stream>),
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

impl Opener {
    /// A stream that is to begin as `request` says; `waker` is woken when there is reason to look
    /// again, until the stream shares other wakers.
    #[must_use]
    pub fn new(
        hub: Arc<Hub>,
        settings: Arc<StreamSettings>,
        request: StreamRequest,
        jitter: Jitter,
        waker: Waker,
    ) -> Self {
        Self {
            hub,
            settings,
            request,
            jitter,
            waker,
            stage: Stage::New,
            room: None,
        }
    }

    /// The same, with room for its topics that is kept for it.
    #[must_use]
    pub fn with_room(self, room: Reserved) -> Self {
        Self {
            room: Some(room),
            ..self
        }
    }

    /// Goes on as far as it can.
    pub fn step(&mut self, now: Now) -> Opened {
        if matches!(self.stage, Stage::New) {
            let begin = match &self.request.begin {
                Begin::Live => BeginIn::All(Start::Live),
                Begin::After(cursor) if cursor.speaks_of(self.hub.partitions()) => {
                    BeginIn::After(cursor.clone())
                }
                Begin::Unreadable | Begin::After(_) => BeginIn::All(Start::Unreadable),
                Begin::History(history) => {
                    return Opened::History(self.request.topics.clone(), *history);
                }
            };
            self.read_from(&begin);
        }
        let Stage::Reading(reader, gaps) = &mut self.stage else {
            return Opened::Wait;
        };
        match reader.open(gaps) {
            OpenStep::Wait => Opened::Wait,
            OpenStep::Read(read) => Opened::Read(read),
            OpenStep::Open => {
                let Stage::Reading(reader, gaps) = std::mem::replace(&mut self.stage, Stage::Done)
                else {
                    return Opened::Wait;
                };
                Opened::Stream(Box::new(Stream::begin(
                    self.settings.clone(),
                    *reader,
                    &self.waker,
                    &self.request,
                    &gaps,
                    &self.jitter,
                    now,
                )))
            }
        }
    }

    /// Takes the positions before the history asked for.
    pub fn take_history(&mut self, starts: Vec<(PartitionNo, Id)>) {
        self.read_from(&BeginIn::History(starts));
    }

    fn read_from(&mut self, begin: &BeginIn) {
        let start = |partition| begin.start(partition);
        let reader = self.hub.reader(&self.request.topics, &self.waker, start);
        self.room = None;
        self.stage = Stage::Reading(Box::new(reader), Vec::new());
    }
}

/// Waits until everything that a stream needs to begin is known. Takes as long as Redis is away. What is read is read
/// in the name of its client's address.
///
/// # Cancel safety
/// Safe: dropped, it leaves nothing behind.
pub async fn open(
    hub: Arc<Hub>,
    reads: Reads,
    settings: Arc<StreamSettings>,
    task_waker: Arc<TaskWaker>,
    request: StreamRequest,
    room: Reserved,
    name: Option<Network>,
) -> Stream {
    let waker = Waker::from(task_waker.clone());
    let opener = Opener::new(hub, settings, request, Jitter::draw(), waker);
    let mut opener = opener.with_room(room);
    // Topics whose end stands in the log.
    let mut ended: Vec<Topic> = Vec::new();
    loop {
        let next = std::future::poll_fn(|cx| {
            // Registered before looking: what happens in between wakes this task again.
            task_waker.register(cx.waker());
            match opener.step(Now::read()) {
                Opened::Wait => Poll::Pending,
                next => Poll::Ready(next),
            }
        });
        match next.await {
            Opened::Stream(mut stream) => {
                // 204 is for good: a frame that somebody else published does not do for it.
                if stream.is_over_for_good() && !stream.topics().all(|t| ended.contains(t)) {
                    stream.doubt_end();
                }
                return *stream;
            }
            Opened::Read(read) => {
                let reading = reads.read(read, name).await;
                let pages = reading.pages.iter();
                ended.extend(
                    pages
                        .filter(|page| page.ended.is_some())
                        .map(|page| page.topic.clone()),
                );
            }
            Opened::History(topics, history) => {
                opener.take_history(reads.history(&topics, history, name).await);
            }
            Opened::Wait => {}
        }
    }
}

/// A stream, or what will become one.
#[allow(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, and moves on to where it stays"
)]
pub enum MaybeOpen {
    /// It is open.
    Open(Stream),
    /// It waits for Redis still, and goes on opening behind its head.
    Opening(Opening),
}

impl MaybeOpen {
    /// Waits for a stream to open, at most `wait`.
    pub async fn within(mut opening: Opening, wait: Duration) -> Self {
        match tokio::time::timeout(wait, &mut opening).await {
            Ok(stream) => Self::Open(stream),
            Err(_) => Self::Opening(opening),
        }
    }

    /// The stream, if it is open.
    #[must_use]
    pub fn stream(&self) -> Option<&Stream> {
        match self {
            Self::Open(stream) => Some(stream),
            Self::Opening(_) => None,
        }
    }

    /// The same, to be changed.
    pub fn stream_mut(&mut self) -> Option<&mut Stream> {
        match self {
            Self::Open(stream) => Some(stream),
            Self::Opening(_) => None,
        }
    }
}

impl std::fmt::Debug for MaybeOpen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open(_) => "Open",
            Self::Opening(_) => "Opening",
        })
    }
}
