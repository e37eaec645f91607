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
    known: HashMap<Topic, LastKnown>,
    /// In the order in which they were dropped; some are read again, and not known here.
    order: VecDeque<Topic>,
    /// The first so many of them were told to the log once.
    told: usize,
}

impl Swept {
    /// Remembers a topic; the oldest one may be forgotten for it.
    pub(super) fn remember(&mut self, topic: Topic, last: LastKnown) {
        if last == LastKnown::default() {
            return;
        }
        self.known.insert(topic.clone(), last);
        self.order.push_back(topic);
        let many = self.order.len().saturating_sub(SWEPT_MAX);
        self.forget(many);
        self.told = self.told.saturating_sub(many);
    }

    /// The topic is read again: from here on its feed knows.
    pub(super) fn take(&mut self, topic: &Topic) -> LastKnown {
        self.known.remove(topic).unwrap_or_default()
    }

    /// All that is known.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Topic, LastKnown)> {
        self.known.iter().map(|(topic, last)| (topic, *last))
    }

    /// The log was told. It may go back again, to before that: all is kept for one more report.
    pub(super) fn were_told(&mut self) {
        self.forget(self.told);
        self.known.values_mut().for_each(LastKnown::note_told);
        self.told = self.order.len();
    }

    fn forget(&mut self, many: usize) {
        for topic in self.order.drain(..many) {
            self.known.remove(&topic);
        }
    }
}
