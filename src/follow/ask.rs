//! What the follower asks for, what may come of it, and what it has to tell.

use crate::broker::Interest;
use crate::hub::feed::Feed;
use crate::id::Id;
use crate::log::{ClockName, Followed, ReadRequest, Reading};
use crate::topic::{PartitionNo, Topic};
use std::sync::Arc;
use std::time::Duration;

/// Names a connection of the live path. What was asked for on an earlier one counts for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionNo(pub(super) u64);

impl ConnectionNo {
    /// Whether there was one before it.
    #[must_use]
    pub fn is_reconnect(self) -> bool {
        self.0 > 1
    }
}

/// What is to be done for the follower.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Tell the live path.
    Interest(Interest),
    /// Report to the log what was heard before, then have the clock of every partition said; answer
    /// with [`Answer::Settled`] when all of it was done.
    Settle {
        /// The connection that it is for.
        connection: ConnectionNo,
        /// What to report; empty if the log cannot have gone back.
        reports: Vec<Report>,
    },
    /// Read pages; answer with [`Answer::Read`].
    Read {
        /// The connection that it is for.
        connection: ConnectionNo,
        /// The partition of all of them.
        partition: PartitionNo,
        /// What the pages are for, in their order.
        feeds: Vec<Arc<Feed>>,
        /// The pages.
        requests: Vec<ReadRequest>,
    },
    /// Have the clock said; answer with [`Answer::Ticked`].
    Tick(ConnectionNo, PartitionNo),
}

/// What was heard of one partition before the log went back, perhaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The partition.
    pub partition: PartitionNo,
    /// Which clock was followed, and how far.
    pub followed: Followed,
    /// The last entry of each topic, zero for none.
    pub topics: Vec<(Topic, Id)>,
}

/// No answer came, or it was a refusal. It is asked for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

/// What has come of an [`Ask`].
#[derive(Debug)]
pub enum Answer {
    /// All was reported and said, or the connection is over.
    Settled {
        /// As asked.
        connection: ConnectionNo,
        /// Which clock of each partition was told; empty if nothing was to be reported.
        told: Vec<ClockName>,
    },
    /// The pages, or none.
    Read {
        /// As asked.
        connection: ConnectionNo,
        /// As asked.
        feeds: Vec<Arc<Feed>>,
        /// The pages in their order.
        reading: Result<Reading, Failed>,
    },
    /// The clock of this partition, as it was said.
    Ticked(ConnectionNo, PartitionNo, Result<Id, Failed>),
}

/// Something for logs and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// An event came over the live path; milliseconds of its id.
    Heard(u64),
    /// A frame is missing.
    Missing(Topic),
    /// A frame could not be read.
    Unreadable(Topic),
    /// The log has gone back: an id that is not above those before it, or another clock.
    WentBack(PartitionNo),
    /// Another process of the log's server answers.
    OtherProcess(Box<str>),
    /// An id came over the live path that is further ahead than the log's clock can be.
    Ahead(PartitionNo, Id),
    /// A tick did not come back.
    Deaf(PartitionNo),
    /// A tick came back after this time.
    TickCameBack(Duration),
    /// The log's server told its time, or its clock, which is never behind that: milliseconds since the
    /// Unix epoch.
    ClockRead(u64),
    /// Pages are asked for.
    RepairRead,
    /// A tick is asked for.
    TickAsked,
}
