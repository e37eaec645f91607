//! What a subscriber asks for, checked, and where its stream begins.

use super::life::Life;
use crate::cursor::Cursor;
use crate::log::History;
use crate::time::CoarseInstant;
use crate::topic::Topic;

/// What a subscriber asked for, checked.
#[derive(Clone, Debug, Default)]
pub struct StreamRequest {
    /// Topics with a log, each once, in the order given.
    pub topics: Vec<Topic>,
    /// `tidegate.connections` as well.
    pub connections: bool,
    /// Where to begin.
    pub begin: Begin,
    /// Only events of these types; empty for all.
    pub event_types: Vec<String>,
    /// Ends after so many events.
    pub limit: Option<u64>,
    /// Ends then (`max_age`, counted from the request): also while it opens, or waits for the log.
    pub ends_at: Option<CoarseInstant>,
    /// By whose right. If that ends, the client is told before, and then the stream is cut.
    pub life: Life,
    /// Heartbeats as events.
    pub heartbeat_events: bool,
    /// Each event as one JSON object that says its topic.
    pub envelope: bool,
    /// Names in its query that nobody reads, some of them, for whoever wonders.
    pub ignored: Vec<String>,
}

impl StreamRequest {
    /// All that it asks for, `tidegate.connections` last.
    pub fn all_topics(&self) -> impl Iterator<Item = Topic> {
        let connections = self.connections.then(Topic::connections);
        self.topics.iter().cloned().chain(connections)
    }
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
