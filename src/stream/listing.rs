//! A list of open streams for operators: the first few by lag, age or bytes.

use super::turn::{Standing, Stream};
use crate::address::Address;
use crate::metrics::WayOut;
use crate::topic::Topic;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Streams that are offered in one go; others get their turn in between.
pub(super) const SLICE: usize = 256;
/// Topics of one stream that are named.
const NAMED_MAX: usize = 16;

/// What a list of streams is ordered by, greatest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Events that the stream is behind.
    Lag,
    /// How long it has been open.
    Age,
    /// Bytes of its body that were given to the socket.
    Bytes,
}

/// What a stream is at, for whoever reads a list of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// It waits for its subscription, or for where it begins.
    Opening,
    /// It has shown all there is, or is about to.
    Live,
    /// It waits for a page of the log.
    Reading,
    /// Its socket takes no more.
    Blocked,
    /// It has ended, and what is left is written.
    Over,
}

impl StreamState {
    /// The word in the list of streams.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Live => "live",
            Self::Reading => "reading",
            Self::Blocked => "blocked",
            Self::Over => "over",
        }
    }
}

/// One open stream, as `GET /streams` shows it.
#[derive(Clone, Debug)]
pub struct Row {
    /// Whose it is: the client that a proxy has told, else the other end of its connection.
    pub address: Option<Address>,
    /// Its topics, the first few.
    pub topics: Vec<Topic>,
    /// How many topics it has, those that are not named too.
    pub topics_count: usize,
    /// How long it has been open.
    pub age: Duration,
    /// What it has come to.
    pub standing: Standing,
    /// Bytes of its body that were given to the socket.
    pub bytes: u64,
    /// On a socket of our own, or as a body.
    pub way: WayOut,
    /// What it is at.
    pub state: StreamState,
}

/// What a connection or a body knows of its stream.
pub(super) struct Seen<'a> {
    /// None while it opens, and once it is over.
    pub(super) stream: Option<&'a Stream>,
    pub(super) age: Duration,
    pub(super) bytes: u64,
    pub(super) way: WayOut,
    pub(super) state: StreamState,
}

/// The first few of many streams. Topics and addresses of the others are never asked for.
#[derive(Debug)]
pub(super) struct Top {
    sort: Sort,
    most: usize,
    offered: usize,
    first: BinaryHeap<Reverse<Ranked>>,
}

#[derive(Debug)]
struct Ranked {
    key: (u128, usize),
    row: Row,
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

impl Top {
    pub(super) fn new(sort: Sort, most: usize) -> Self {
        Self {
            sort,
            most,
            offered: 0,
            first: BinaryHeap::new(),
        }
    }

    /// One that takes the first of some of the streams, for [`Top::merge`].
    pub(super) fn part(&self) -> Self {
        Self::new(self.sort, self.most)
    }

    /// Takes it, if it is among the first so far.
    pub(super) fn offer(&mut self, seen: &Seen<'_>, address: impl FnOnce() -> Option<Address>) {
        let standing = seen.stream.map(Stream::standing).unwrap_or_default();
        let rank = match self.sort {
            // Behind a window is further than any place within one.
            Sort::Lag => u128::from(standing.lag.at_least) << 64 | (standing.lag.events as u128),
            Sort::Age => seen.age.as_nanos(),
            Sort::Bytes => u128::from(seen.bytes),
        };
        self.offered += 1;
        let key = (rank, usize::MAX - self.offered);
        let least = self.first.peek().map(|Reverse(least)| least.key);
        if self.first.len() >= self.most && least.is_none_or(|least| key <= least) {
            return;
        }
        let connections = seen.stream.is_some_and(Stream::watches_connections);
        let topics = || seen.stream.into_iter().flat_map(Stream::topics);
        let topics_count = topics().count() + usize::from(connections);
        let connections = connections.then(Topic::connections);
        let row = Row {
            address: address(),
            topics: topics()
                .cloned()
                .chain(connections)
                .take(NAMED_MAX)
                .collect(),
            topics_count,
            age: seen.age,
            standing,
            bytes: seen.bytes,
            way: seen.way,
            state: seen.state,
        };
        self.insert(Ranked { key, row });
    }

    fn insert(&mut self, ranked: Ranked) {
        self.first.push(Reverse(ranked));
        if self.first.len() > self.most {
            self.first.pop();
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        for Reverse(ranked) in other.first {
            self.insert(ranked);
        }
    }

    pub(super) fn into_rows(self) -> Vec<Row> {
        let first = self.first.into_sorted_vec();
        first
            .into_iter()
            .map(|Reverse(ranked)| ranked.row)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_kept_in_their_order_whichever_part_they_come_from() {
        let offer = |top: &mut Top, bytes: u64| {
            let seen = Seen {
                stream: None,
                age: Duration::ZERO,
                bytes,
                way: WayOut::Socket,
                state: StreamState::Opening,
            };
            top.offer(&seen, || None);
        };
        let mut top = Top::new(Sort::Bytes, 3);
        let mut part = top.part();
        [5, 1, 9].iter().for_each(|bytes| offer(&mut top, *bytes));
        [7, 2, 8].iter().for_each(|bytes| offer(&mut part, *bytes));
        top.merge(part);
        let bytes: Vec<u64> = top.into_rows().iter().map(|row| row.bytes).collect();
        assert_eq!(bytes, [9, 8, 7]);
    }
}
