//! What each address holds, and when it may go on: without I/O, with the time as an input.
//!
//! Times are spans from any fixed beginning. A rate is kept as one time, up to which what was taken is paid for
//! (the generic cell rate algorithm, [ITU-T I.371](https://www.itu.int/rec/T-REC-I.371)): each thing moves it by the
//! pause between two, and it may lie ahead of now by [`BURST`].
//!
//! The table is bounded. An address that holds nothing and owes nothing need not be known, and goes when others come.
//! One for which there is no room is not limited: a stranger with many addresses must not shut out others.

use crate::address::Network;
use crate::metrics::AddressLimit;
use slab::Slab;
use std::collections::HashMap;
use std::time::Duration;

/// What is not taken for so long may be taken at once: a company that comes back after an outage.
const BURST: Duration = Duration::from_secs(10);
/// Entries that are looked at for each one that comes, so that those let go keep up.
const LOOKS: usize = 4;
/// The same while the table is full.
const LOOKS_FULL: usize = 64;

/// What one address may take of a replica. 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressLimits {
    /// Streams that are open.
    pub streams_max: usize,
    /// Streams that are opened a second, over ten seconds.
    pub streams_per_second: usize,
    /// Topics that its open streams want, all together.
    pub topics_max: usize,
    /// Reads of the log at the same time. More wait.
    pub replays_max: usize,
    /// Events that are published a second over HTTP, over ten seconds.
    pub publishes_per_second: usize,
    /// Addresses that are known at the same time. Those beyond are not limited.
    pub entries_max: usize,
}

impl AddressLimits {
    /// Whether clients are counted at all.
    #[must_use]
    pub fn is_any(&self) -> bool {
        let limits = [
            self.streams_max,
            self.streams_per_second,
            self.topics_max,
            self.replays_max,
            self.publishes_per_second,
        ];
        limits.iter().any(|limit| *limit > 0)
    }
}

/// The addresses that are known.
#[derive(Debug, Default)]
pub(super) struct Table {
    places: HashMap<Network, usize>,
    entries: Slab<(Network, Entry)>,
    /// The next to be looked at.
    hand: usize,
}

#[derive(Debug, Default)]
struct Entry {
    streams: u32,
    topics: u32,
    /// Up to when what was opened is paid for, in microseconds.
    opened: u64,
    /// The same of what was published.
    published: u64,
}

impl Entry {
    fn is_idle(&self, now: u64) -> bool {
        self.streams == 0 && self.opened <= now && self.published <= now
    }
}

impl Table {
    /// Counts a stream. False if there is no room for its address.
    ///
    /// # Errors
    /// The limit that is reached. Nothing is counted then.
    pub(super) fn open(
        &mut self,
        network: Network,
        topics: u32,
        limits: &AddressLimits,
        now: Duration,
    ) -> Result<bool, AddressLimit> {
        let now = micros(now);
        let Some(entry) = self.entry(network, limits, now) else {
            return Ok(false);
        };
        if is_reached(limits.streams_max, entry.streams, 1) {
            return Err(AddressLimit::Streams);
        }
        if is_reached(limits.topics_max, entry.topics, topics) {
            return Err(AddressLimit::Topics);
        }
        let rate = limits.streams_per_second;
        if wait(entry.opened, rate, now).is_some() {
            return Err(AddressLimit::StreamRate);
        }
        entry.opened = after(entry.opened, 1, rate, now);
        entry.streams += 1;
        entry.topics = entry.topics.saturating_add(topics);
        Ok(true)
    }

    /// A stream that was counted is over.
    pub(super) fn close(&mut self, network: Network, topics: u32) {
        if let Some((_, entry)) = self
            .places
            .get(&network)
            .and_then(|place| self.entries.get_mut(*place))
        {
            entry.streams = entry.streams.saturating_sub(1);
            entry.topics = entry.topics.saturating_sub(topics);
        }
    }

    /// Counts an event. False if there is no room for its address.
    ///
    /// # Errors
    /// How long it must wait.
    pub(super) fn publish(
        &mut self,
        network: Network,
        limits: &AddressLimits,
        now: Duration,
    ) -> Result<bool, Duration> {
        let now = micros(now);
        let Some(entry) = self.entry(network, limits, now) else {
            return Ok(false);
        };
        let rate = limits.publishes_per_second;
        if let Some(wait) = wait(entry.published, rate, now) {
            return Err(wait);
        }
        entry.published = after(entry.published, 1, rate, now);
        Ok(true)
    }

    /// Counts more events of a publish that was let in as one. If it alone is owed then, the next one waits until it is paid
    /// for. Of several side by side, each let in as one, the first takes what there is.
    ///
    /// # Errors
    /// How long it must wait.
    pub(super) fn publish_more(
        &mut self,
        network: Network,
        events: usize,
        limits: &AddressLimits,
        now: Duration,
    ) -> Result<(), Duration> {
        let now = micros(now);
        let rate = limits.publishes_per_second;
        if let Some(entry) = self.entry(network, limits, now).filter(|_| events > 0) {
            if let Some(wait) = overdrawn(entry.published, now) {
                return Err(wait);
            }
            entry.published = after(entry.published, events, rate, now);
        }
        Ok(())
    }

    /// How many are known. Looks for some that need not be.
    pub(super) fn known(&mut self, now: Duration) -> usize {
        let most = self.entries.capacity();
        self.let_go(most, micros(now));
        self.entries.len()
    }

    /// The entry of an address; none if there is no room for it.
    fn entry(&mut self, network: Network, limits: &AddressLimits, now: u64) -> Option<&mut Entry> {
        let place = if let Some(place) = self.places.get(&network) {
            *place
        } else {
            self.let_go(LOOKS, now);
            if self.entries.len() >= limits.entries_max {
                self.let_go(LOOKS_FULL, now);
            }
            if self.entries.len() >= limits.entries_max {
                return None;
            }
            let place = self.entries.insert((network, Entry::default()));
            self.places.insert(network, place);
            place
        };
        self.entries.get_mut(place).map(|(_, entry)| entry)
    }

    /// Looks at some entries, and lets those go that are idle.
    fn let_go(&mut self, looks: usize, now: u64) {
        // Places that are free lie between, so places are counted and not entries.
        for _ in 0..looks.max(1) {
            if self.hand >= self.entries.capacity() {
                self.hand = 0;
            }
            let idle = self.entries.get(self.hand);
            if let Some((network, _)) = idle.filter(|(_, entry)| entry.is_idle(now)) {
                self.places.remove(network);
                self.entries.remove(self.hand);
            }
            self.hand += 1;
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn is_reached(most: usize, taken: u32, more: u32) -> bool {
    let sum = taken as usize + more as usize;
    most > 0 && sum > most
}

/// The pause between two, in microseconds; 0 without a limit.
fn pause(rate: usize) -> u64 {
    1_000_000_u64.checked_div(rate as u64).unwrap_or(0)
}

/// How long one more has to wait, if it has to.
fn wait(paid: u64, rate: usize, now: u64) -> Option<Duration> {
    let pause = pause(rate);
    let may_lie = now.saturating_add(micros(BURST));
    let would_lie = paid.max(now).saturating_add(pause);
    (pause > 0 && would_lie > may_lie).then(|| Duration::from_micros(would_lie - may_lie))
}

/// How long until no more is owed than may be, if more is.
fn overdrawn(paid: u64, now: u64) -> Option<Duration> {
    let may_lie = now.saturating_add(micros(BURST));
    (paid > may_lie).then(|| Duration::from_micros(paid - may_lie))
}

/// Up to when it is paid for, with so many more.
fn after(paid: u64, more: usize, rate: usize, now: u64) -> u64 {
    match pause(rate) {
        // A limit that is set later begins with nothing owed.
        0 => paid,
        pause => paid
            .max(now)
            .saturating_add(pause.saturating_mul(more as u64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: AddressLimits = AddressLimits {
        streams_max: 0,
        streams_per_second: 0,
        topics_max: 0,
        replays_max: 0,
        publishes_per_second: 0,
        entries_max: 10,
    };

    fn network(number: u32) -> Network {
        Network::of(std::net::Ipv4Addr::from_bits(number).into())
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn streams_and_topics_of_an_address_are_counted_and_given_back() {
        let limits = AddressLimits {
            streams_max: 3,
            topics_max: 10,
            ..NONE
        };
        let mut table = Table::default();
        let open =
            |table: &mut Table, number, topics| table.open(network(number), topics, &limits, at(0));
        assert_eq!(open(&mut table, 1, 4), Ok(true));
        assert_eq!(open(&mut table, 1, 6), Ok(true));
        assert_eq!(open(&mut table, 1, 1), Err(AddressLimit::Topics));
        assert_eq!(open(&mut table, 1, 0), Ok(true));
        assert_eq!(open(&mut table, 1, 0), Err(AddressLimit::Streams));
        assert_eq!(open(&mut table, 2, 10), Ok(true), "another address");
        table.close(network(1), 6);
        assert_eq!(open(&mut table, 1, 7), Err(AddressLimit::Topics));
        assert_eq!(open(&mut table, 1, 6), Ok(true));
    }

    #[test]
    fn what_was_not_taken_for_ten_seconds_may_be_taken_at_once() {
        let limits = AddressLimits {
            streams_per_second: 5,
            ..NONE
        };
        let mut table = Table::default();
        let mut opened = |number, ms| {
            let open = |_: &i32| table.open(network(number), 1, &limits, at(ms)) == Ok(true);
            (0..1000).take_while(open).count()
        };
        assert_eq!(opened(1, 0), 50);
        assert_eq!(opened(1, 199), 0);
        assert_eq!(opened(1, 200), 1);
        assert_eq!(opened(1, 1200), 5);
        assert_eq!(opened(2, 1200), 50, "another address");
        assert_eq!(
            opened(1, 60_000),
            50,
            "and no more, however long it was away"
        );
    }

    #[test]
    fn a_batch_is_paid_off_before_the_next_publish() {
        let limits = AddressLimits {
            publishes_per_second: 10,
            ..NONE
        };
        let mut table = Table::default();
        let mut publish = |ms, more| {
            let done = table.publish(network(1), &limits, at(ms));
            if done.is_ok() {
                assert_eq!(
                    table.publish_more(network(1), more, &limits, at(ms)),
                    Ok(())
                );
            }
            done
        };
        assert_eq!(publish(0, 999), Ok(true));
        assert_eq!(publish(0, 0), Err(at(90_100)));
        assert_eq!(publish(90_000, 0), Err(at(100)));
        assert_eq!(publish(90_100, 0), Ok(true));
    }

    /// Each is let in before any of them is read.
    #[test]
    fn of_batches_side_by_side_one_is_taken() {
        let limits = AddressLimits {
            publishes_per_second: 10,
            ..NONE
        };
        let mut table = Table::default();
        for _ in 0..50 {
            assert_eq!(table.publish(network(1), &limits, at(0)), Ok(true));
        }
        let mut more = |events| table.publish_more(network(1), events, &limits, at(0));
        assert_eq!(more(999), Ok(()));
        assert_eq!(more(0), Ok(()), "it has no more events than were counted");
        assert_eq!(more(999), Err(at(94_900)));
        assert_eq!(more(1), Err(at(94_900)));
    }

    #[test]
    fn who_holds_nothing_goes_and_who_comes_when_it_is_full_is_not_limited() {
        let limits = AddressLimits {
            streams_max: 1,
            streams_per_second: 1,
            ..NONE
        };
        let mut table = Table::default();
        for number in 0..10 {
            assert_eq!(table.open(network(number), 1, &limits, at(0)), Ok(true));
        }
        for _ in 0..5 {
            assert_eq!(table.open(network(10), 1, &limits, at(0)), Ok(false));
        }
        // Who is known is limited as before.
        let known = table.open(network(3), 1, &limits, at(0));
        assert_eq!(known, Err(AddressLimit::Streams));
        table.close(network(3), 1);
        assert_eq!(table.known(at(999)), 10, "what it opened is not paid for");
        assert_eq!(table.known(at(1000)), 9);
        assert_eq!(table.open(network(10), 1, &limits, at(1000)), Ok(true));
        assert_eq!(table.open(network(11), 1, &limits, at(1000)), Ok(false));
    }

    /// However many come, one after the other, the table stays small.
    #[test]
    fn addresses_that_come_and_go_leave_nothing_behind() {
        let limits = AddressLimits {
            streams_per_second: 1000,
            entries_max: 100,
            ..NONE
        };
        let mut table = Table::default();
        for number in 0..10_000 {
            let now = at(u64::from(number) * 2);
            assert_eq!(table.open(network(number), 1, &limits, now), Ok(true));
            table.close(network(number), 1);
            assert!(table.entries.len() <= 10, "{}", table.entries.len());
        }
    }
}
