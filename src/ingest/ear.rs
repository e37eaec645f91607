//! The ear: counts raw publishes, keeps what is owed to the log, and says what to append when.
//!
//! Why it holds: what an ear counts is a function of one node's order of publishes, which all of
//! its connections see alike; and the log takes number n of a class of an epoch only after n-1, in the
//! same atomic step as the event itself. What ears with other maps hear besides is counted in other
//! classes (`counting`).

use super::counting::{Counted, Counting};
use super::told::Told;
use crate::broker::channels::Heard;
use crate::broker::raw::Class;
pub use crate::broker::raw::{Append, Item, Outcome, Positions, Unfit};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Clone, Debug)]
enum Owed {
    Raw {
        epoch: Arc<str>,
        counted: Counted,
        item: Result<Item, Unfit>,
        heard: Instant,
    },
    End {
        epoch: Arc<str>,
        map: Arc<str>,
        /// Of each class the last number, and the hash after it.
        ends: Vec<(Class, u64, u32)>,
    },
}

impl Owed {
    fn epoch(&self) -> &Arc<str> {
        match self {
            Self::Raw { epoch, .. } | Self::End { epoch, .. } => epoch,
        }
    }

    /// Bytes of memory, about.
    fn bytes(&self) -> usize {
        let texts = match self {
            Self::Raw { item, .. } => item
                .as_ref()
                .map_or_else(|unfit| unfit.channel.len(), Item::bytes),
            Self::End { .. } => 0,
        };
        size_of::<Self>() + texts
    }
}

/// Items of one append.
const BATCH: usize = 128;
/// Bytes of one append, about.
const BATCH_BYTES: usize = 256 * 1024;
/// An ear that did not append last gives the others this time, and up to as much again.
const PATIENCE: Duration = Duration::from_millis(300);
/// Then it goes on without what is missing.
const FORCE_AFTER: Duration = Duration::from_secs(1);
/// Between two tries.
const RETRY: Duration = Duration::from_millis(30);

/// How much an ear may owe.
#[derive(Clone, Copy, Debug)]
pub struct OwedMax {
    /// Publishes.
    pub publishes: usize,
    /// Bytes of memory that they take, about. One publish is taken whatever its size.
    pub bytes: usize,
}

/// One replica's ear.
#[derive(Debug)]
pub struct Ear {
    name: String,
    owed_max: OwedMax,
    /// The node's process, once all subscriptions stand.
    node: Option<Box<str>>,
    /// What is heard on this connection besides the common channels.
    map: Heard,
    /// The log knows that this ear has this map: it has begun an epoch with it on this connection.
    is_known: bool,
    counting: Option<Counting>,
    owed: VecDeque<Owed>,
    /// Bytes of all that is owed.
    owed_bytes: usize,
    /// Who appended last.
    appender: Option<String>,
    /// An epoch that this ear appended, and whose rest and end it appends although another ear has
    /// begun the next: nothing of that can be logged before.
    finishes: Option<Arc<str>>,
    under_way: Option<Append>,
    blocked_since: Option<Instant>,
    not_before: Option<Instant>,
}

impl Ear {
    /// An ear that hears nothing yet. What it owes is bounded by `owed_max`.
    #[must_use]
    pub fn new(name: String, owed_max: OwedMax) -> Self {
        Self {
            name,
            owed_max,
            node: None,
            map: Heard::default(),
            is_known: false,
            counting: None,
            owed: VecDeque::new(),
            owed_bytes: 0,
            appender: None,
            finishes: None,
            under_way: None,
            blocked_since: None,
            not_before: None,
        }
    }

    /// Publishes counted and not known to be logged.
    #[must_use]
    pub fn owes(&self) -> usize {
        self.owed.len()
    }

    /// Bytes of memory that they take, about.
    #[must_use]
    pub fn owes_bytes(&self) -> usize {
        self.owed_bytes
    }

    /// Whether it owes as much as it may: it counts no more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.owed.len() >= self.owed_max.publishes || self.owed_bytes >= self.owed_max.bytes
    }

    /// Whether half of what it may owe is free: enough to begin to count.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.owed.len() * 2 < self.owed_max.publishes && self.owed_bytes * 2 < self.owed_max.bytes
    }

    /// When the oldest of them was heard.
    #[must_use]
    pub fn owes_since(&self) -> Option<Instant> {
        self.owed.iter().find_map(|owed| match owed {
            Owed::Raw { heard, .. } => Some(*heard),
            Owed::End { .. } => None,
        })
    }

    /// Whether raw publishes are being counted.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.counting.is_some()
    }

    /// Whether a new epoch should be begun: subscribed, not counting all that is heard, or with a map that the
    /// log does not know of this ear, and with room to count.
    #[must_use]
    pub fn wants_epoch(&self) -> bool {
        let counting = self.counting.as_ref();
        let counts_all = counting.is_some_and(|counting| counting.has(&self.map));
        let is_known = self.is_known || self.map.is_empty();
        self.node.is_some() && !(counts_all && is_known) && self.has_room()
    }

    /// All subscriptions stand, on the node of process `run`; `map` is what is heard besides the common
    /// channels.
    pub fn subscribed(&mut self, run: &str, map: &Heard) {
        self.node = Some(run.into());
        self.map = map.clone();
        self.is_known = false;
    }

    /// What is heard besides the common channels.
    #[must_use]
    pub fn map(&self) -> &Heard {
        &self.map
    }

    /// The connection is gone, or something on it could not be read: what was counted stays owed.
    pub fn cut(&mut self) {
        self.node = None;
        self.counting = None;
    }

    /// What ears tell one another. False if this build does not understand it.
    pub fn hear_told(&mut self, told: Told<'_>, now: Instant) -> bool {
        match told {
            Told::Start {
                epoch,
                by,
                run,
                maps,
            } => self.hear_start(epoch, by, run, maps, now),
            Told::Done { epoch, by, done } => self.hear_done(epoch, &done, by),
            Told::Leave { ear } => self.hear_leave(ear),
            Told::Other => return false,
        }
        true
    }

    /// `start`: an epoch begins here in the order of publishes, by an ear with a map of that name. `maps`
    /// are those of all ears. A build that knows of none leaves them as they were.
    pub fn hear_start(
        &mut self,
        epoch: &str,
        by: (&str, &str),
        run: &str,
        maps: Option<Arc<[Heard]>>,
        now: Instant,
    ) {
        let was_eager = self.is_eager();
        self.appeared(by);
        if *by.0 == *self.name {
            // One that was begun before the last restart, and came late, says what was.
            self.is_known = *by.1 == **self.map.name();
        }
        if self.node.as_deref() != Some(run) {
            return;
        }
        let known = || self.counting.as_ref().map(|old| old.maps().clone());
        let maps = maps.or_else(known).unwrap_or_default();
        let next = Counting::new(epoch, &self.map, maps);
        if let Some(old) = self.counting.replace(next) {
            if was_eager {
                self.finishes = Some(old.epoch.clone());
                self.not_before = None;
            }
            let epoch = old.epoch.clone();
            let (map, ends) = old.end();
            self.owe(Owed::End { epoch, map, ends }, now);
        }
    }

    /// `done`: everything up to these numbers of an epoch is logged.
    pub fn hear_done(&mut self, epoch: &str, done: &[(Class, u64)], by: (&str, &str)) {
        self.appeared(by);
        self.prune(epoch, done);
    }

    /// `leave`: an ear goes. If it was the one that appends, everybody else may at once.
    pub fn hear_leave(&mut self, ear: &str) {
        if self.appender.as_deref() == Some(ear) {
            self.appender = Some(self.name.clone());
            self.not_before = None;
        }
    }

    /// A raw publish, on a common channel or on one of this ear's map. False if it was not counted.
    pub fn hear_raw(
        &mut self,
        is_common: bool,
        channel: &[u8],
        payload: &[u8],
        item: Result<Item, Unfit>,
        now: Instant,
    ) -> bool {
        if self.is_full() {
            self.counting = None;
        }
        let Some(counting) = &mut self.counting else {
            return false;
        };
        let Some(counted) = counting.count(is_common, channel, payload) else {
            return false;
        };
        let raw = Owed::Raw {
            epoch: counting.epoch.clone(),
            counted,
            item,
            heard: now,
        };
        self.owe(raw, now);
        true
    }

    fn owe(&mut self, owed: Owed, now: Instant) {
        let was_empty = self.owed.is_empty();
        self.owed_bytes += owed.bytes();
        self.owed.push_back(owed);
        if was_empty {
            self.not_before = (!self.is_eager()).then(|| now + patience());
        }
    }

    /// Whether it appends at once: it did so last, or began the epoch, or who did has left.
    #[must_use]
    pub fn is_eager(&self) -> bool {
        let next = self.owed.front().map(Owed::epoch);
        self.appender.as_deref() == Some(self.name.as_str())
            || (next.is_some() && next == self.finishes.as_ref())
    }

    /// An ear appends. Those with another map are no help: what this one has alone they do not.
    fn appeared(&mut self, (ear, map): (&str, &str)) {
        if *map != **self.map.name() {
            return;
        }
        let was_eager = self.is_eager();
        self.appender = Some(ear.to_owned());
        if was_eager != self.is_eager() {
            self.not_before = None;
        }
    }

    /// When [`Ear::next`] should be asked again; none if there is nothing to do.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let idle = self.owed.is_empty() || self.under_way.is_some();
        (!idle).then(|| self.not_before.unwrap_or_else(Instant::now))
    }

    /// The next append, if one is due. Exactly one is under way at any time.
    pub fn next(&mut self, now: Instant) -> Option<Append> {
        if self.under_way.is_some() {
            return None;
        }
        let epoch = self.owed.front()?.epoch().clone();
        if self.not_before.is_none() && !self.is_eager() {
            self.not_before = Some(now + patience());
        }
        if self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        let force = self
            .blocked_since
            .is_some_and(|since| now >= since + FORCE_AFTER);
        let mut append = Append {
            epoch: epoch.clone(),
            map: self.map.name().clone(),
            force,
            end: None,
            classes: Vec::new(),
            items: Vec::new(),
        };
        let mut bytes = 0;
        for owed in self.owed.iter().take_while(|owed| *owed.epoch() == epoch) {
            match owed {
                Owed::Raw { counted, item, .. } => {
                    let Counted {
                        class,
                        n,
                        before,
                        hash,
                    } = *counted;
                    append.begin(class, n, before);
                    bytes += item.as_ref().map_or(0, |item| item.data.len());
                    append.items.push((class, hash, item.clone()));
                }
                Owed::End { map, ends, .. } => {
                    append.map = map.clone();
                    append.end = Some(ends.iter().map(|(class, n, _)| (*class, *n)).collect());
                    for (class, n, hash) in ends {
                        append.begin(*class, n + 1, *hash);
                    }
                }
            }
            if append.items.len() >= BATCH || bytes >= BATCH_BYTES {
                break;
            }
        }
        self.under_way = Some(append.clone());
        Some(append)
    }

    /// The answer to the append under way.
    pub fn answered(&mut self, outcome: Outcome, now: Instant) {
        let Some(append) = self.under_way.take() else {
            return;
        };
        match outcome {
            Outcome::Logged(done) => {
                self.blocked_since = None;
                self.not_before = None;
                self.prune(&append.epoch, &done);
                if append.end.is_some_and(|ends| is_reached(&ends, &done)) {
                    self.forget(
                        |owed| matches!(owed, Owed::End { epoch, .. } if *epoch == append.epoch),
                    );
                } else if append.items.is_empty() {
                    // The end is not reached: another ear still owes what we do not.
                    self.blocked_since = Some(now);
                    self.not_before = Some(now + RETRY);
                }
            }
            Outcome::Stale => self.drop_epoch(&append.epoch),
            Outcome::Diverged => {
                self.drop_epoch(&append.epoch);
                self.cut();
            }
            Outcome::Wait | Outcome::Hole => {
                self.blocked_since.get_or_insert(now);
                self.not_before = Some(now + RETRY);
            }
            Outcome::Unknown => self.not_before = Some(now + RETRY),
        }
    }

    fn prune(&mut self, epoch: &str, done: &[(Class, u64)]) {
        self.forget(|owed| match owed {
            Owed::Raw {
                epoch: mine,
                counted,
                ..
            } => **mine == *epoch && counted.n <= position(done, counted.class),
            Owed::End { .. } => false,
        });
    }

    /// Owes this no more.
    fn forget(&mut self, is_done: impl Fn(&Owed) -> bool) {
        let bytes = &mut self.owed_bytes;
        self.owed.retain(|owed| {
            let goes = is_done(owed);
            if goes {
                *bytes -= owed.bytes();
            }
            !goes
        });
    }

    fn drop_epoch(&mut self, epoch: &str) {
        self.forget(|owed| **owed.epoch() == *epoch);
        self.blocked_since = None;
        self.not_before = None;
        if self
            .counting
            .as_ref()
            .is_some_and(|counting| *counting.epoch == *epoch)
        {
            self.counting = None;
        }
    }
}

fn patience() -> Duration {
    PATIENCE.mul_f64(rand::random_range(1.0..2.0))
}

/// How far a class has come.
fn position(done: &[(Class, u64)], class: Class) -> u64 {
    let found = done.iter().find(|(known, _)| *known == class);
    found.map_or(0, |(_, n)| *n)
}

fn is_reached(ends: &[(Class, u64)], done: &[(Class, u64)]) -> bool {
    ends.iter().all(|(class, n)| *n <= position(done, *class))
}

#[cfg(test)]
mod tests;
