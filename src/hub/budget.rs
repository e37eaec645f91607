//! Bytes of all windows of this replica together, and who gives some back when they are too many.
//!
//! The largest gives first, and of those of about the same size the one to which nothing was added for the
//! longest time. So what is below its fair share stays as it is, and readers that keep up find in
//! memory what they look for. Size is told in classes, four to each doubling: a publish costs one place in an
//! ordered list, and no other topic is looked at.

use super::lock::{Rank, Ranked, RankedGuard};
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// What holders take of a number of bytes that they share.
#[derive(Debug)]
pub(super) struct Budget<T> {
    most: usize,
    /// What all hold, as of the last change.
    bytes: AtomicUsize,
    /// Events that were given back since somebody asked.
    evicted: AtomicU64,
    state: Ranked<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    bytes: usize,
    /// Those that can give something back, the next one first.
    givers: BTreeMap<Place, Weak<T>>,
    /// Numbers changes, from 1.
    changes: u64,
}

/// Whose turn it is: of the largest class, and changed longest ago.
type Place = (Reverse<u32>, u64);

/// What one holder takes, as the budget knows it. It is kept with the holder, under its lock.
#[derive(Debug, Default)]
pub(super) struct Account {
    bytes: usize,
    /// The number of its last change, if it can give something back; else zero.
    change: u64,
}

impl Account {
    fn place(&self) -> Option<Place> {
        (self.change > 0).then(|| (Reverse(class_of(self.bytes)), self.change))
    }
}

/// Who gives back next, and how much.
#[derive(Debug)]
pub(super) struct Giver<T> {
    pub(super) holder: Arc<T>,
    /// So much would bring all within the bound.
    pub(super) excess: usize,
    /// With less than this it is one of the largest no more, and another gives.
    pub(super) keeps: usize,
}

impl<T> Budget<T> {
    /// A budget of which nothing is taken.
    pub(super) fn new(most: usize) -> Self {
        let state = State {
            bytes: 0,
            givers: BTreeMap::new(),
            changes: 0,
        };
        Self {
            most,
            bytes: AtomicUsize::new(0),
            evicted: AtomicU64::new(0),
            state: Ranked::new(Rank::Budget, state),
        }
    }

    fn state(&self) -> RankedGuard<'_, State<T>> {
        self.state.lock()
    }

    /// Bytes that are taken.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that may be taken yet.
    pub(super) fn room(&self) -> usize {
        self.most.saturating_sub(self.bytes())
    }

    /// Events were given back.
    pub(super) fn note_evicted(&self, events: usize) {
        self.evicted.fetch_add(events as u64, Ordering::Relaxed);
    }

    /// Events that were given back since the last call.
    pub(super) fn take_evicted(&self) -> u64 {
        self.evicted.swap(0, Ordering::Relaxed)
    }

    /// The holder takes `bytes` now, and can give some of them back or not. `me` is the holder.
    pub(super) fn settle(&self, account: &mut Account, bytes: usize, gives: bool, me: &Weak<T>) {
        let mut state = self.state();
        let listed = account
            .place()
            .and_then(|place| state.givers.remove(&place));
        state.bytes = state.bytes - account.bytes + bytes;
        account.bytes = bytes;
        account.change = 0;
        if gives {
            state.changes += 1;
            account.change = state.changes;
            let place = account.place();
            let me = listed.unwrap_or_else(|| me.clone());
            state.givers.extend(place.map(|place| (place, me)));
        }
        self.bytes.store(state.bytes, Ordering::Relaxed);
    }

    /// The holder is gone.
    pub(super) fn close(&self, account: &Account) {
        let mut state = self.state();
        if let Some(place) = account.place() {
            state.givers.remove(&place);
        }
        state.bytes -= account.bytes;
        self.bytes.store(state.bytes, Ordering::Relaxed);
    }

    /// Who gives back next, if more is taken than there may be; `spared` is not asked.
    pub(super) fn next_giver(&self, spared: Option<&T>) -> Option<Giver<T>> {
        if self.bytes() <= self.most {
            return None;
        }
        let state = self.state();
        let excess = state
            .bytes
            .checked_sub(self.most)
            .filter(|excess| *excess > 0)?;
        let is_spared =
            |holder: &Weak<T>| spared.is_some_and(|spared| std::ptr::eq(spared, holder.as_ptr()));
        let mut others = state
            .givers
            .iter()
            .filter(|(_, holder)| !is_spared(holder))
            // One that is going takes what it holds along.
            .filter_map(|(place, holder)| Some((place, holder.upgrade()?)));
        let (&(Reverse(class), _), holder) = others.next()?;
        Some(Giver {
            holder,
            excess,
            keeps: least_of(class),
        })
    }
}

/// The class of a size: four to each doubling.
fn class_of(bytes: usize) -> u32 {
    let bytes = bytes.max(4);
    let log = bytes.ilog2();
    let quarter = (bytes >> (log - 2)) & 3;
    log * 4 + u32::try_from(quarter).unwrap_or_default()
}

/// The least size of a class.
fn least_of(class: u32) -> usize {
    let quarter = usize::try_from(class % 4).unwrap_or_default();
    (4 + quarter) << (class / 4).saturating_sub(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Hub;
    use crate::hub::reader::{Reader, Start};
    use crate::hub::window::{WindowBounds, Windows};
    use crate::id::Id;
    use crate::log::{Floor, Horizon, Page, RunId};
    use crate::sse::{Entry, Frame, Mark};
    use crate::topic::Topic;
    use std::task::Waker;
    use std::time::Duration;
    use tokio::time::Instant;

    const KIB: usize = 1024;

    fn hub(total_bytes_max: usize) -> Arc<Hub> {
        let each = WindowBounds {
            events_max: 1_000,
            bytes_max: 1 << 20,
        };
        let windows = Windows {
            each,
            total_bytes_max,
        };
        let hub = Hub::new(1, windows);
        hub.begin_following(&[]);
        hub
    }

    fn topic(name: &str) -> Topic {
        Topic::parse(name).unwrap()
    }

    /// Somebody reads the topic, and it is live.
    fn read(hub: &Arc<Hub>, name: &str) -> Reader {
        let reader = hub.reader(&[topic(name)], Waker::noop(), |_| Start::Live);
        let page = Page {
            topic: topic(name),
            after: Id::ZERO,
            floor: Floor::Log(Id::ZERO),
            ended: None,
            frames: Vec::new(),
            cut_at: None,
        };
        let horizon = Horizon {
            last: Id::ZERO,
            born: Id::ZERO,
            seams: Vec::new(),
            losses: Vec::new(),
            now_ms: 0,
            run: RunId(1),
        };
        hub.repair(&hub.feed(&topic(name)).unwrap(), &page, &horizon);
        reader
    }

    /// The topic's event of this millisecond, after that of the one before; zero for one that is not logged.
    fn hear(hub: &Hub, name: &str, ms: u64, prev: u64, bytes: usize) {
        let id = |ms: u64| Id::new(ms, u64::from(ms > 0));
        let entry = Entry {
            id: id(ms),
            prev: id(prev),
            mark: if ms == 0 { Mark::Unlogged } else { Mark::Event },
            event_type: String::new(),
            data: "x".repeat(bytes),
        };
        let hearing = hub.hear(&topic(name), Frame::encode(&topic(name), &entry));
        assert!(!hearing.hole, "{name} {ms}");
    }

    /// How many events above this millisecond are in memory, and whether those are all.
    fn lag(hub: &Hub, name: &str, ms: u64) -> (usize, bool) {
        hub.feed(&topic(name)).unwrap().lag_of(Id::new(ms, 1))
    }

    #[test]
    fn the_largest_give_back_and_what_is_below_its_share_stays() {
        let hub = hub(64 * KIB);
        let _readers = ["large", "larger", "small"].map(|name| read(&hub, name));
        (1..=4).for_each(|ms| hear(&hub, "small", ms, ms - 1, 100));
        for ms in (5..200).step_by(2) {
            let prev = |ms: u64| if ms < 7 { 0 } else { ms - 2 };
            hear(&hub, "large", ms, prev(ms), KIB);
            hear(&hub, "larger", ms + 1, prev(ms + 1), 2 * KIB);
            assert!(hub.window_bytes() <= 64 * KIB, "{}", hub.window_bytes());
        }
        assert_eq!(lag(&hub, "small", 0), (4, false));
        let held = |name| hub.feed(&topic(name)).unwrap().held();
        let (large, larger) = (held("large"), held("larger"));
        assert!(
            large.abs_diff(larger) < 12 * KIB,
            "about the same: {large}, {larger}"
        );
        assert!(large + larger > 48 * KIB, "{large}, {larger}");
        assert!(hub.take_evicted() > 0);
        assert_eq!(hub.take_evicted(), 0);
    }

    #[test]
    fn of_topics_with_one_event_each_the_one_heard_last_stays_whatever_its_size() {
        let hub = hub(16 * KIB);
        let names: Vec<String> = (0..20).map(|number| format!("t{number}")).collect();
        let _readers: Vec<Reader> = names.iter().map(|name| read(&hub, name)).collect();
        for (ms, name) in (1..).zip(&names) {
            hear(&hub, name, ms, 0, KIB);
        }
        assert_eq!(lag(&hub, "t0", 0), (0, true), "it is in the log");
        assert_eq!(lag(&hub, "t19", 0), (1, false));
        hear(&hub, "t0", 21, 1, 12 * KIB);
        assert_eq!(
            lag(&hub, "t0", 1),
            (1, false),
            "its readers are on their way"
        );
        assert_eq!(lag(&hub, "t19", 0), (1, false));
        assert_eq!(lag(&hub, "t10", 0), (0, true));
        // One event alone may be larger than all there is.
        hear(&hub, "t1", 22, 2, 32 * KIB);
        assert_eq!(lag(&hub, "t1", 2), (1, false));
        assert_eq!(lag(&hub, "t0", 1), (0, true));
        hear(&hub, "t2", 23, 3, 10);
        assert_eq!(lag(&hub, "t1", 2), (0, true));
        assert!(hub.window_bytes() < KIB);
    }

    /// No reader could get it elsewhere.
    #[test]
    fn the_newest_event_of_a_topic_that_is_not_logged_stays() {
        let hub = hub(4 * KIB);
        let _readers = ["a", "b", "logged"].map(|name| read(&hub, name));
        for _ in 0..8 {
            hear(&hub, "a", 0, 0, KIB);
            hear(&hub, "b", 0, 0, KIB);
        }
        hear(&hub, "logged", 1, 0, 8 * KIB);
        for name in ["a", "b"] {
            let feed = hub.feed(&topic(name)).unwrap();
            assert_eq!(feed.passed(), 8);
            let view = feed.view();
            let (frames, passed) = view.unlogged_after(0);
            assert_eq!((frames.count(), passed.skipped), (1, 7), "{name}");
        }
        assert_eq!(lag(&hub, "logged", 0), (1, false));
    }

    /// It would be asked first, having the most, and nobody else after it.
    #[test]
    fn a_topic_that_can_give_nothing_back_keeps_no_other_from_it() {
        let hub = hub(16 * KIB);
        let _readers = ["unlogged", "logged"].map(|name| read(&hub, name));
        hear(&hub, "unlogged", 0, 0, 12 * KIB);
        for ms in 1..=8 {
            hear(&hub, "logged", ms, ms - 1, KIB);
            assert!(hub.window_bytes() <= 16 * KIB, "{}", hub.window_bytes());
        }
        assert!(hub.take_evicted() > 0);
    }

    #[test]
    fn what_a_topic_takes_is_free_once_it_is_given_up() {
        let hub = hub(16 * KIB);
        let readers = ["a", "b"].map(|name| read(&hub, name));
        hear(&hub, "a", 1, 0, KIB);
        hear(&hub, "b", 2, 0, KIB);
        assert!(hub.window_bytes() > 2 * KIB);
        drop(readers);
        assert_eq!(hub.sweep(Instant::now(), Duration::ZERO).len(), 2);
        assert_eq!(hub.window_bytes(), 0);
        let _reader = read(&hub, "c");
        hear(&hub, "c", 3, 0, 20 * KIB);
        assert_eq!(lag(&hub, "c", 0), (1, false));
    }

    #[test]
    fn classes_grow_with_sizes_and_begin_where_they_say() {
        let mut last = 0;
        for bytes in 0..10_000 {
            let class = class_of(bytes);
            assert!(class >= last && least_of(class) <= bytes.max(4), "{bytes}");
            assert!(bytes < least_of(class + 1), "{bytes}");
            last = class;
        }
        assert_eq!(least_of(class_of(usize::MAX)), 7 << 61);
    }
}
