//! What is remembered of topics that nobody reads any more, for a log that may have gone back: nobody
//! else may have heard their last events.

use super::feed::LastKnown;
use crate::topic::Topic;
use std::collections::{HashMap, VecDeque};

/// Topics that are remembered.
const SWEPT_MAX: usize = 4096;

/// Topics whose feeds were dropped.
#[derive(Debug, Default)]
pub(super) struct Swept {
    known: HashMap<Topic, Remembered>,
    /// In the order in which they were dropped; some were read again since, and perhaps dropped again.
    order: VecDeque<(Topic, u64)>,
    /// The first so many of them were told to the log once.
    told: usize,
    /// How many were ever dropped.
    dropped: u64,
    /// How many of these by the time when the report was made that is under way, or was the last.
    reported: u64,
}

#[derive(Debug)]
struct Remembered {
    last: LastKnown,
    /// Which place in the order is its own.
    number: u64,
}

impl Swept {
    /// Remembers a topic; the oldest one may be forgotten for it.
    pub(super) fn remember(&mut self, topic: Topic, last: LastKnown) {
        if last == LastKnown::default() {
            return;
        }
        self.dropped += 1;
        let number = self.dropped;
        self.order.push_back((topic.clone(), number));
        self.known.insert(topic, Remembered { last, number });
        let many = self.order.len().saturating_sub(SWEPT_MAX);
        self.forget(many);
        self.told = self.told.saturating_sub(many);
    }

    /// The topic is read again: from here on its feed knows.
    pub(super) fn take(&mut self, topic: &Topic) -> LastKnown {
        let known = self.known.remove(topic);
        known.map_or_else(LastKnown::default, |known| known.last)
    }

    /// All that is known.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Topic, LastKnown)> {
        self.known
            .iter()
            .map(|(topic, known)| (topic, known.last.clone()))
    }

    /// A report is made of all that is known now. What is dropped until the log has answered may have been heard since.
    pub(super) fn note_reported(&mut self) {
        self.reported = self.dropped;
    }

    /// The log was told. It may go back again, to before that: all is kept for one more report.
    pub(super) fn were_told(&mut self) {
        self.forget(self.told);
        let reported = self.reported;
        for known in self.known.values_mut() {
            if known.number <= reported {
                known.last.note_told();
            }
        }
        self.told = self
            .order
            .partition_point(|(_, number)| *number <= reported);
    }

    fn forget(&mut self, many: usize) {
        for (topic, number) in self.order.drain(..many) {
            // Its feed may have been opened since, heard more, and been dropped again.
            if self
                .known
                .get(&topic)
                .is_some_and(|known| known.number == number)
            {
                self.known.remove(&topic);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;

    /// A topic was dropped and told, read again, and dropped again: what was heard last has not been told.
    #[test]
    fn what_was_heard_after_the_log_was_told_outlives_the_place_of_before() {
        let topic = Topic::parse("a").unwrap();
        let heard = |ms: u64| LastKnown {
            entry: Id::new(ms, 1),
            ..LastKnown::default()
        };
        let mut swept = Swept::default();
        let tell = |swept: &mut Swept| {
            swept.note_reported();
            swept.were_told();
        };
        swept.remember(topic.clone(), heard(1));
        tell(&mut swept);
        assert_eq!(swept.take(&topic).entry, heard(1).entry);
        swept.remember(topic.clone(), heard(2));
        tell(&mut swept);
        assert_eq!(swept.iter().count(), 1);
        tell(&mut swept);
        assert_eq!(swept.iter().count(), 0);
    }
}
