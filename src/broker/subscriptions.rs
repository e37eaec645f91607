//! Which topics a live path carries, and which of them are confirmed: the rules, without a
//! connection.
//!
//! | what happens | what follows |
//! |---|---|
//! | a topic is wanted | it is subscribed; it counts as confirmed when as many confirmations have come as were asked for on this connection |
//! | a topic is given up | it is unsubscribed; confirmations that are on their way tell nobody |
//! | it is wanted again before that | both orders go out, in their order, and only the last confirmation counts |
//! | the connection is another one | everything that is wanted is subscribed anew |
//!
//! A confirmation carries the number under which the topic was wanted last. The number tells a
//! follower whether it is the topic as it knows it now that is heard.

use crate::topic::Topic;
use std::collections::HashMap;

/// Topics of one live path.
#[derive(Debug, Default)]
pub struct Subscriptions {
    /// What is wanted, with the number under which it was wanted last.
    wanted: HashMap<Topic, u64>,
    /// SUBSCRIBEs on their way on the present connection.
    unconfirmed: HashMap<Topic, u32>,
}

impl Subscriptions {
    /// These are wanted. While a connection stands, they must be subscribed on it.
    pub fn want(&mut self, topics: impl IntoIterator<Item = (Topic, u64)>) {
        self.wanted.extend(topics);
    }

    /// These are wanted no more.
    pub fn give_up(&mut self, topics: &[Topic]) {
        for topic in topics {
            self.wanted.remove(topic);
        }
    }

    /// A new connection stands: nothing is subscribed on it. Everything that is wanted.
    pub fn begin_connection(&mut self) -> Vec<Topic> {
        self.unconfirmed = HashMap::new();
        let mut all: Vec<Topic> = self.wanted.keys().cloned().collect();
        // In an order that can be repeated.
        all.sort_unstable();
        all
    }

    /// A SUBSCRIBE for this topic is on its way.
    pub fn subscribing(&mut self, topic: &Topic) {
        *self.unconfirmed.entry(topic.clone()).or_default() += 1;
    }

    /// A SUBSCRIBE was confirmed. The topic with its number, if from here on it is heard and wanted.
    pub fn confirm(&mut self, topic: Topic) -> Option<(Topic, u64)> {
        let left = self.unconfirmed.get_mut(&topic)?;
        *left = left.saturating_sub(1);
        if *left > 0 {
            return None;
        }
        self.unconfirmed.remove(&topic);
        if self.unconfirmed.is_empty() {
            // As large as it was when all topics were subscribed at once.
            self.unconfirmed = HashMap::new();
        }
        let number = *self.wanted.get(&topic)?;
        Some((topic, number))
    }
}
