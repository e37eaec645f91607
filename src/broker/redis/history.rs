//! Where the history begins that a first visit asks for, found in calls that cost Redis little each.
//!
//! | history | what is asked of each topic |
//! |---|---|
//! | everything, or what is younger than | its first id |
//! | the last `N` events of all topics together | its last ids: its share of `N` first, and more only where the `N`th id of all may lie further back |
//!
//! Redis answers for as many topics as one call has room for; the others are asked for again. Here is
//! only what to ask next, without I/O.

use super::decode;
use super::decode::Unreadable;
use crate::id::Id;
use crate::log::History;
use crate::topic::{PartitionNo, Topic};
use redis::Value;
use std::collections::BTreeMap;

/// A search for the position before the first event of a history.
#[derive(Debug)]
pub(super) struct Search {
    history: History,
    topics: Vec<Found>,
    /// The clock of each partition, as it stood when the first of its topics was looked at: what came
    /// later is above.
    clocks: BTreeMap<PartitionNo, Id>,
}

/// What is known of one topic.
#[derive(Debug)]
struct Found {
    partition: PartitionNo,
    topic: Topic,
    ids: Vec<Id>,
    next: Next,
}

/// Where to go on in a topic.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// It was not looked at.
    Begin,
    /// Before an id, as Redis has said it.
    Before(String),
    /// There is no more.
    End,
}

/// What to ask of one topic.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked<'a> {
    /// Which of the topics.
    pub(super) index: usize,
    pub(super) partition: PartitionNo,
    pub(super) topic: &'a Topic,
    /// Empty to begin.
    pub(super) from: &'a str,
    pub(super) limit: usize,
}

impl Search {
    pub(super) fn new(topics: &[Topic], history: History, partitions: PartitionNo) -> Self {
        let topics = topics.iter().map(|topic| Found {
            partition: topic.partition(partitions),
            topic: topic.clone(),
            ids: Vec::new(),
            next: Next::Begin,
        });
        Self {
            history,
            topics: topics.collect(),
            clocks: BTreeMap::new(),
        }
    }

    /// What is still to be asked; nothing if the search is over.
    pub(super) fn ask(&self) -> Vec<Asked<'_>> {
        let last = self.nth_last();
        let asked = self.topics.iter().enumerate().filter_map(|(index, found)| {
            let from = match &found.next {
                Next::Begin => "",
                Next::Before(from) if found.may_hold(last) => from,
                Next::Before(_) | Next::End => return None,
            };
            Some(Asked {
                index,
                partition: found.partition,
                topic: &found.topic,
                from,
                limit: 1,
            })
        });
        let mut asked: Vec<_> = asked.collect();
        // Events are spread over topics as a rule: a little more than the share of each.
        let wanted = self.wanted();
        let share = wanted / asked.len().max(1) + 1;
        for asked in &mut asked {
            asked.limit = share.min(wanted).max(1);
        }
        asked
    }

    /// Takes an answer to the first few of those that were asked, by their indexes. False if it is an
    /// answer to none.
    pub(super) fn take(&mut self, asked: &[usize], answer: &Value) -> Result<bool, Unreadable> {
        let answers = decode::list(answer)?;
        for (index, value) in asked.iter().zip(answers) {
            let [clock, next, ids] = decode::list(value)? else {
                return Err(Unreadable);
            };
            let Some(found) = self.topics.get_mut(*index) else {
                return Err(Unreadable);
            };
            let clock = decode::id(clock)?;
            self.clocks.entry(found.partition).or_insert(clock);
            for id in decode::list(ids)? {
                found.ids.push(decode::id(id)?);
            }
            found.next = match decode::text(next)? {
                "" => Next::End,
                // The first one is enough.
                _ if !matches!(self.history, History::Last { .. }) => Next::End,
                next => Next::Before(next.to_owned()),
            };
        }
        Ok(!answers.is_empty())
    }

    /// The position before the first event, in each partition: its clock if there is none.
    pub(super) fn positions(&self) -> Vec<(PartitionNo, Id)> {
        let first = self.nth_last().unwrap_or_default();
        let mut positions = self.clocks.clone();
        for found in &self.topics {
            let shown = found
                .ids
                .iter()
                .filter(|id| (**id, found.partition) >= first);
            if let Some(id) = shown.min()
                && let Some(position) = positions.get_mut(&found.partition)
            {
                *position = id.just_before().min(*position);
            }
        }
        positions.into_iter().collect()
    }

    /// How many ids are looked for in all.
    fn wanted(&self) -> usize {
        match self.history {
            History::Last { events } => events,
            History::Earliest | History::Since { .. } => 1,
        }
    }

    /// The first of the last events that are asked for, if as many are known. Clocks of partitions are
    /// those of one server: their ids compare.
    fn nth_last(&self) -> Option<(Id, PartitionNo)> {
        let History::Last { events } = self.history else {
            return None;
        };
        let known = self.topics.iter().flat_map(|found| {
            let ids = found.ids.iter();
            ids.map(|id| (*id, found.partition))
        });
        let mut known: Vec<_> = known.collect();
        known.sort_unstable();
        let first = known.len().checked_sub(events)?;
        // Of no events, everything is older.
        let none = (Id::new(u64::MAX, 0), 0);
        Some(known.get(first).copied().unwrap_or(none))
    }
}

impl Found {
    /// Whether there may be more that is not older than the first event known.
    fn may_hold(&self, last: Option<(Id, PartitionNo)>) -> bool {
        let (Some(last), Some(oldest)) = (last, self.ids.last()) else {
            return true;
        };
        last < (*oldest, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// A server that answers for two topics a call, and gives three ids at most.
    struct Server {
        logs: BTreeMap<&'static str, Vec<u64>>,
        calls: Cell<usize>,
        ids: Cell<usize>,
    }

    impl Server {
        fn new(logs: &[(&'static str, &[u64])]) -> Self {
            let logs = logs.iter().map(|(name, ids)| (*name, ids.to_vec()));
            Self {
                logs: logs.collect(),
                calls: Cell::new(0),
                ids: Cell::new(0),
            }
        }

        fn text(text: &str) -> Value {
            Value::BulkString(text.as_bytes().to_vec())
        }

        fn answer(&self, asked: &[Asked<'_>], upwards: bool) -> Value {
            self.calls.set(self.calls.get() + 1);
            let answers = asked.iter().take(2).map(|asked| {
                let before: Option<Id> = asked.from.parse().ok();
                let ids = self.logs[asked.topic.as_str()].iter();
                let ids = ids.map(|ms| Id::new(*ms, 1));
                let mut ids: Vec<Id> = ids
                    .filter(|id| before.is_none_or(|before| *id < before))
                    .collect();
                if !upwards {
                    ids.reverse();
                }
                let more = ids.len() > asked.limit.min(3);
                ids.truncate(asked.limit.min(3));
                self.ids.set(self.ids.get() + ids.len());
                let next = ids.last().filter(|_| more).map(Id::to_string);
                let ids = ids.iter().map(|id| Self::text(&id.to_string()));
                Value::Array(vec![
                    Self::text("1000-0"),
                    Self::text(&next.unwrap_or_default()),
                    Value::Array(ids.collect()),
                ])
            });
            Value::Array(answers.collect())
        }

        fn search(&self, history: History) -> Vec<(PartitionNo, Id)> {
            let names = self.logs.keys().map(|name| Topic::parse(name).unwrap());
            let mut search = Search::new(&names.collect::<Vec<_>>(), history, 1);
            loop {
                let asked = search.ask();
                if asked.is_empty() {
                    return search.positions();
                }
                let answer = self.answer(&asked, !matches!(history, History::Last { .. }));
                let indexes: Vec<usize> = asked.iter().map(|asked| asked.index).collect();
                assert!(search.take(&indexes, &answer).unwrap());
            }
        }
    }

    #[test]
    fn the_last_events_are_counted_over_all_topics() {
        let all: Vec<u64> = (1..=60).collect();
        let logs: [(&str, &[u64]); 4] = [
            ("a", &all[..40]),
            ("b", &all[40..44]),
            ("c", &all[44..]),
            ("d", &[]),
        ];
        for events in 0..=70 {
            let server = Server::new(&logs);
            let expected = match 60_usize.checked_sub(events) {
                Some(60) => Id::new(1000, 0),
                first => Id::new(all[first.unwrap_or(0)], 0),
            };
            let positions = server.search(History::Last { events });
            assert_eq!(positions, [(0, expected)], "the last {events}");
        }
    }

    /// What is far older than the events asked for is not looked at.
    #[test]
    fn no_more_is_read_than_may_be_among_the_last() {
        let old: Vec<u64> = (1..=500).collect();
        let new: Vec<u64> = (501..=520).collect();
        let server = Server::new(&[("new", &new), ("old", &old)]);
        let positions = server.search(History::Last { events: 10 });
        assert_eq!(positions, [(0, Id::new(511, 0))]);
        assert!(server.ids.get() <= 20, "{} ids", server.ids.get());
    }

    #[test]
    fn the_first_event_of_all_topics_is_found() {
        let server = Server::new(&[("a", &[7, 8]), ("b", &[5]), ("c", &[]), ("d", &[9])]);
        assert_eq!(server.search(History::Earliest), [(0, Id::new(5, 0))]);
        assert_eq!(server.calls.get(), 2, "two topics a call");
        let server = Server::new(&[("a", &[])]);
        assert_eq!(server.search(History::Earliest), [(0, Id::new(1000, 0))]);
    }
}
