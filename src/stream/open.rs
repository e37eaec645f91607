//! Opening a stream: a future that waits for the subscription, for the clock, and for history.

use super::request::{Begin, StreamRequest};
use super::settings::StreamSettings;
use super::turn::Stream;
use crate::cursor::Cursor;
use crate::follow::reads::Reads;
use crate::hub::reader::{Reader, Start, Step};
use crate::hub::{Hub, TaskWaker};
use crate::id::Id;
use crate::sse::Gap;
use crate::topic::{PartitionNo, Topic};
use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// A future that gives the stream once it can begin.
pub type Opening = Pin<Box<dyn Future<Output = Stream> + Send>>;

/// Waits until everything that a stream needs to begin is known: the subscription of each topic,
/// and the cursor. Takes as long as Redis is away.
///
/// # Cancel safety
/// Safe: dropped, it leaves nothing behind.
pub async fn open(
    hub: Arc<Hub>,
    reads: Reads,
    settings: Arc<StreamSettings>,
    task_waker: Arc<TaskWaker>,
    request: StreamRequest,
) -> Stream {
    let begin = begin_in(&hub, &reads, &request).await;
    let waker = Waker::from(task_waker.clone());
    let mut reader = hub.reader(&request.topics, &waker, |partition| begin.start(partition));
    let mut gaps = Vec::new();
    while let Step::Clock(partition) = next_step(&task_waker, &mut reader, &mut gaps).await {
        reads.pages(partition, Vec::new()).await;
    }
    Stream::begin(settings, reader, &waker, &request, &gaps)
}

/// Opens as far as it goes without reading the clock; waits for the bell where it has to.
async fn next_step(task_waker: &TaskWaker, reader: &mut Reader, gaps: &mut Vec<Gap>) -> Step {
    std::future::poll_fn(|cx| {
        task_waker.register(cx.waker());
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

async fn begin_in(hub: &Hub, reads: &Reads, request: &StreamRequest) -> BeginIn {
    match &request.begin {
        Begin::Live => BeginIn::All(Start::Live),
        Begin::After(cursor) if cursor.speaks_of(hub.partitions()) => {
            BeginIn::After(cursor.clone())
        }
        Begin::Unreadable | Begin::After(_) => BeginIn::All(Start::Unreadable),
        Begin::History(history) => {
            let partitions: BTreeSet<PartitionNo> = request
                .topics
                .iter()
                .map(|topic| topic.partition(hub.partitions()))
                .collect();
            let mut found = Vec::new();
            for partition in partitions {
                let here = request
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
