//! Who reads what: topics that are wanted, that nobody reads any more, and whose number of readers changed.

use super::Hub;
use super::feed::Feed;
use crate::topic::Topic;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Topics that nobody reads and whose change is still to be told; beyond that all is told anew.
const CHANGED_MAX: usize = 10_000;

/// Room for feeds that a stream is about to need. Dropped, others may have it: once the stream's reader is
/// there, which has the feeds, or if it never comes.
#[derive(Debug)]
pub struct Reserved {
    hub: Arc<Hub>,
    feeds: usize,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.feeds > 0 {
            self.hub.state().reserved -= self.feeds;
        }
    }
}

impl Hub {
    /// Room for those of these topics that nobody reads here, each named once; none if there would be more
    /// than `most` that somebody reads. Those that nobody reads any more give way ([`Hub::sweep`]): else one
    /// client that opens and leaves streams of ever new topics would keep all others out.
    #[must_use]
    pub fn reserve(self: &Arc<Self>, topics: &[Topic], most: usize) -> Option<Reserved> {
        let mut state = self.state();
        state.most = Some(most);
        let is_unread =
            |topic: &Topic| state.idle.contains_key(topic) || state.left.contains(topic);
        let is_new = |topic: &&Topic| !state.feeds.contains_key(*topic) || is_unread(topic);
        let feeds = topics.iter().filter(is_new).count();
        let unread = state.idle.len() + state.left.len();
        let read = state.feeds.len().saturating_sub(unread);
        if feeds > 0 && read + state.reserved + feeds > most {
            return None;
        }
        state.reserved += feeds;
        drop(state);
        Some(Reserved {
            hub: self.clone(),
            feeds,
        })
    }

    /// A reader goes.
    pub(super) fn leave(&self, feed: &Feed) {
        let remaining = feed.leave();
        let mut state = self.state();
        state.changed.insert(feed.topic().clone());
        // Another reader may have come since.
        if remaining == 0 && feed.subscribers() == 0 {
            state.left.insert(feed.topic().clone());
        }
    }

    /// Feeds that became wanted since the last call.
    #[must_use]
    pub fn take_added(&self) -> Vec<Arc<Feed>> {
        std::mem::take(&mut self.state().added)
    }

    /// Drops feeds that nobody has read for `keep`, or for whatever time while there are more than there may
    /// be, and names them. What was heard of them last is remembered for a while ([`Hub::last_entries`]).
    #[must_use]
    pub fn sweep(&self, now: Instant, keep: Duration) -> Vec<Topic> {
        let mut state = self.state();
        for topic in std::mem::take(&mut state.left) {
            let unread = state
                .feeds
                .get(&topic)
                .is_some_and(|feed| feed.subscribers() == 0);
            if unread && !state.idle.contains_key(&topic) {
                state.idle.insert(topic.clone(), now);
                state.became_idle.push_back((now, topic));
            }
        }
        let mut due = Vec::new();
        while let Some((since, topic)) = state.became_idle.front()
            && (now.duration_since(*since) >= keep
                || state.most.is_some_and(|most| state.feeds.len() > most))
        {
            let is_idle = state.idle.get(topic) == Some(since);
            let Some((_, topic)) = state.became_idle.pop_front() else {
                break;
            };
            if is_idle {
                state.idle.remove(&topic);
                let last = state.feeds.remove(&topic).map(|feed| feed.last_known());
                state
                    .swept
                    .remember(topic.clone(), last.unwrap_or_default());
                // While the log is away nothing is told, and topics come and go.
                if state.changed.len() > CHANGED_MAX && state.changed.remove(&topic) {
                    state.changes_lost = true;
                }
                due.push(topic);
            }
        }
        // What nobody has asked to hear yet need not be asked for any more: the request would come
        // after the one to stop.
        if !due.is_empty() {
            let gone: HashSet<&Topic> = due.iter().collect();
            state.added.retain(|feed| !gone.contains(feed.topic()));
        }
        due
    }

    /// Whether the number of some topic's subscribers has changed and was not told.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        !self.state().changed.is_empty()
    }

    /// Topics whose number of subscribers changed since the last call, with that number; `most` at
    /// once.
    #[must_use]
    pub fn take_changed(&self, most: usize) -> Vec<(Topic, u64)> {
        let mut state = self.state();
        let mut taken = Vec::new();
        while taken.len() < most {
            let Some(topic) = state.changed.pop_first() else {
                break;
            };
            let subscribers = state.feeds.get(&topic).map_or(0, |feed| feed.subscribers());
            taken.push((topic, subscribers.into()));
        }
        taken
    }

    /// Marks topics as changed whose number did not get through.
    pub fn mark_changed(&self, topics: impl Iterator<Item = Topic>) {
        let mut state = self.state();
        for topic in topics {
            // A topic that is read is known anyway.
            if state.feeds.contains_key(&topic) || state.changed.len() < CHANGED_MAX {
                state.changed.insert(topic);
            } else {
                state.changes_lost = true;
            }
        }
    }

    /// Whether changes were lost since the last call: all that was told of subscribers is to be forgotten.
    #[must_use]
    pub fn take_changes_lost(&self) -> bool {
        std::mem::take(&mut self.state().changes_lost)
    }

    /// That changes were lost did not get through.
    pub fn mark_changes_lost(&self) {
        self.state().changes_lost = true;
    }

    /// Marks all topics as changed, for a log that has forgotten them.
    pub fn mark_all_changed(&self) {
        let mut state = self.state();
        let read: Vec<Topic> = state.feeds.keys().cloned().collect();
        state.changed.extend(read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::reader::{Reader, Start};
    use crate::hub::window::WindowBounds;
    use std::task::Waker;

    const KEEP: Duration = Duration::from_secs(30);

    fn hub_and_reader(topic: &Topic) -> (Arc<Hub>, impl Fn() -> Reader + use<>) {
        let bounds = WindowBounds {
            events_max: 1,
            bytes_max: 1,
        };
        let hub = Hub::new(1, bounds);
        let (ours, topic) = (hub.clone(), topic.clone());
        let reader = move || {
            let topics = std::slice::from_ref(&topic);
            ours.reader(topics, Waker::noop(), |_| Start::Live)
        };
        (hub, reader)
    }

    #[test]
    fn that_changes_were_lost_is_told_once() {
        let topic = Topic::parse("news").unwrap();
        let (hub, _) = hub_and_reader(&topic);
        assert!(!hub.take_changes_lost());
        hub.mark_changes_lost();
        assert!(hub.take_changes_lost() && !hub.take_changes_lost());
    }

    #[test]
    fn a_topic_goes_when_nobody_has_read_it_for_a_while() {
        let topic = Topic::parse("news").unwrap();
        let (hub, reader) = hub_and_reader(&topic);
        let now = Instant::now();
        drop(reader());
        let added = hub.take_added();
        assert_eq!(
            added.iter().map(|feed| feed.topic()).collect::<Vec<_>>(),
            [&topic]
        );
        assert!(hub.sweep(now, KEEP).is_empty());
        // Read once more, and left: the time begins anew.
        drop(reader());
        assert!(hub.sweep(now + KEEP / 2, KEEP).is_empty());
        assert!(hub.sweep(now + KEEP, KEEP).is_empty());
        let last = reader();
        assert!(hub.sweep(now + KEEP * 2, KEEP).is_empty());
        drop(last);
        assert!(hub.sweep(now + KEEP * 2, KEEP).is_empty());
        assert_eq!(hub.sweep(now + KEEP * 3, KEEP), [topic]);
        assert!(hub.take_added().is_empty() && hub.feeds().is_empty());
    }

    /// Else it would be subscribed after the request to stop, and stay so for ever.
    #[test]
    fn a_topic_that_goes_before_it_was_subscribed_is_not_subscribed() {
        let topic = Topic::parse("news").unwrap();
        let (hub, reader) = hub_and_reader(&topic);
        drop(reader());
        let gone = hub.sweep(Instant::now(), Duration::ZERO);
        assert_eq!(gone, std::slice::from_ref(&topic));
        assert!(hub.take_added().is_empty());
        let _again = reader();
        assert_eq!(hub.take_added().len(), 1);
    }

    #[test]
    fn room_that_is_reserved_is_given_to_nobody_else_until_its_reader_is_there() {
        let [a, b, c] = ["a", "b", "c"].map(|name| Topic::parse(name).unwrap());
        let (hub, reader) = hub_and_reader(&a);
        let both = [a.clone(), b.clone()];
        let room = hub.reserve(&both, 2).unwrap();
        assert!(hub.reserve(std::slice::from_ref(&c), 2).is_none());
        assert!(hub.reserve(&[], 2).is_some());
        let _reader = reader();
        drop(room);
        // What is read already needs no room.
        assert!(hub.reserve(&both, 2).is_some());
        assert!(hub.reserve(&[b, c], 2).is_none());
        assert!(hub.reserve(&[a], 0).is_some());
    }

    /// One client had opened and left streams of ever new topics, and no other found room for thirty seconds.
    #[test]
    fn topics_that_nobody_reads_any_more_give_way() {
        let name = |number: usize| Topic::parse(&format!("t{number}")).unwrap();
        let (hub, reader) = hub_and_reader(&name(0));
        let _reader = reader();
        let keep = Duration::from_secs(30);
        for number in 1..100 {
            let topic = [name(number)];
            let room = hub.reserve(&topic, 2).expect("nobody reads the others");
            assert!(hub.reserve(&[name(100)], 2).is_none());
            drop(hub.reader(&topic, Waker::noop(), |_| Start::Live));
            drop(room);
            let gone = hub.sweep(Instant::now(), keep);
            assert_eq!(gone.len(), usize::from(number > 1), "{gone:?}");
        }
        assert!(hub.feed(&name(0)).is_some(), "what is read stays");
        // One that is wanted again counts as any other.
        let _again = hub.reader(&[name(99)], Waker::noop(), |_| Start::Live);
        assert!(hub.reserve(&[name(98)], 2).is_none());
    }

    #[test]
    fn the_number_of_readers_is_told_once_after_it_changed() {
        let topic = Topic::parse("news").unwrap();
        let (hub, reader) = hub_and_reader(&topic);
        let mut readers = vec![reader(), reader()];
        let other = Topic::parse("weather").unwrap();
        let _other = hub.reader(std::slice::from_ref(&other), Waker::noop(), |_| Start::Live);
        assert_eq!(hub.take_changed(1), [(topic.clone(), 2)]);
        assert_eq!(hub.take_changed(2), [(other, 1)]);
        for left in [1, 0] {
            readers.pop();
            assert_eq!(hub.take_changed(2), [(topic.clone(), left)]);
        }
        assert!(hub.take_changed(2).is_empty());
    }

    /// While the log is away nothing is told: what is kept for it is bounded, and no change is forgotten in silence.
    #[test]
    fn changes_of_topics_that_are_gone_are_forgotten_only_beyond_the_bound() {
        for (topics, lost) in [(1, 0), (CHANGED_MAX, 0), (CHANGED_MAX + 2, 2)] {
            let (hub, _) = hub_and_reader(&Topic::parse("news").unwrap());
            for number in 0..topics {
                let topic = [Topic::parse(&format!("t{number}")).unwrap()];
                drop(hub.reader(&topic, Waker::noop(), |_| Start::Live));
            }
            assert_eq!(hub.sweep(Instant::now(), Duration::ZERO).len(), topics);
            let told = hub.take_changed(topics);
            assert!(told.iter().all(|(_, readers)| *readers == 0));
            let expected = (topics - lost, lost > 0);
            assert_eq!((told.len(), hub.take_changes_lost()), expected);
        }
    }

    #[test]
    fn topics_that_were_left_before_and_after_a_sweep_give_way_alike() {
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| Topic::parse(name).unwrap());
        let (hub, reader) = hub_and_reader(&a);
        let _reader = reader();
        drop(hub.reader(&[b], Waker::noop(), |_| Start::Live));
        assert!(hub.sweep(Instant::now(), KEEP).is_empty());
        drop(hub.reader(&[c], Waker::noop(), |_| Start::Live));
        let room = hub.reserve(std::slice::from_ref(&d), 2);
        assert!(room.is_some(), "one is read");
        assert!(hub.reserve(&[d], 2).is_none());
    }

    /// A reader that goes is noted a moment after it went, and another may have come in between.
    #[test]
    fn a_topic_that_is_read_stays_although_it_was_noted_as_left() {
        let topic = Topic::parse("news").unwrap();
        let (hub, reader) = hub_and_reader(&topic);
        let _reader = reader();
        hub.state().left.insert(topic.clone());
        assert!(hub.sweep(Instant::now(), Duration::ZERO).is_empty());
        assert!(hub.feed(&topic).is_some());
    }
}
