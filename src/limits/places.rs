//! Places that are few, given to those who wait by turns of their addresses.
//!
//! First come, first served would give all places to whoever asks most often. Here addresses have turns, one place a
//! turn. Whoever has no address that is known has a turn alone.
//!
//! An address holds no more places at the same time than it may. It has no turn while it does.

use crate::address::Network;
use crate::metrics::{AddressLimit, Metrics};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Names one that waits.
pub type WaiterNo = u64;

/// The rules, without I/O.
#[derive(Debug)]
struct Rota<W> {
    most: usize,
    /// Places of one address; 0 for no limit.
    each_max: usize,
    taken: usize,
    addresses: HashMap<Network, OfAddress>,
    /// Whose turn it is, front to back.
    turns: VecDeque<Turn>,
    waiting: HashMap<WaiterNo, Waiting<W>>,
    next: WaiterNo,
}

#[derive(Debug)]
enum Turn {
    /// Nobody whose address is known.
    One(WaiterNo),
    Address(Network),
}

/// What one address has and wants.
#[derive(Debug, Default)]
struct OfAddress {
    held: usize,
    /// Some may have a place by now, in another name, or have left.
    waiter_nos: VecDeque<WaiterNo>,
    has_turn: bool,
}

#[derive(Debug)]
struct Waiting<W> {
    waiter: W,
    /// In whose name it waits.
    names: HashSet<Option<Network>>,
}

impl<W> Rota<W> {
    fn new(most: usize, each_max: usize) -> Self {
        Self {
            most,
            each_max,
            taken: 0,
            addresses: HashMap::new(),
            turns: VecDeque::new(),
            waiting: HashMap::new(),
            next: 0,
        }
    }

    /// One more waits, in nobody's name yet.
    fn enter(&mut self, waiter: W) -> WaiterNo {
        self.next += 1;
        let names = HashSet::new();
        self.waiting.insert(self.next, Waiting { waiter, names });
        self.next
    }

    /// It waits in this name, too, beside others. False if that name has all the places it may.
    fn name(&mut self, waiter_no: WaiterNo, name: Option<Network>) -> bool {
        let Some(waiting) = self.waiting.get_mut(&waiter_no) else {
            return true;
        };
        if !waiting.names.insert(name) {
            return true;
        }
        let Some(network) = name else {
            self.turns.push_back(Turn::One(waiter_no));
            return true;
        };
        let own = self.addresses.entry(network).or_default();
        own.waiter_nos.push_back(waiter_no);
        Self::settle(&mut self.turns, self.each_max, network, own);
        own.has_turn
    }

    /// It waits no more.
    fn leave(&mut self, waiter_no: WaiterNo) -> bool {
        self.waiting.remove(&waiter_no).is_some()
    }

    /// Gives one place, if there is one, and says in whose name.
    fn grant(&mut self) -> Option<(W, Option<Network>)> {
        while self.taken < self.most {
            let (waiter_no, name) = match self.turns.pop_front()? {
                Turn::One(waiter_no) => (Some(waiter_no), None),
                Turn::Address(network) => (self.next_of(network), Some(network)),
            };
            if let Some(waiting) = waiter_no.and_then(|waiter_no| self.waiting.remove(&waiter_no)) {
                self.taken += 1;
                return Some((waiting.waiter, name));
            }
        }
        None
    }

    /// The first that waits in this name still. It has a place then.
    fn next_of(&mut self, network: Network) -> Option<WaiterNo> {
        let own = self.addresses.get_mut(&network)?;
        own.has_turn = false;
        let mut found = None;
        while found.is_none()
            && let Some(waiter_no) = own.waiter_nos.pop_front()
        {
            found = self.waiting.contains_key(&waiter_no).then_some(waiter_no);
        }
        own.held += usize::from(found.is_some());
        Self::settle(&mut self.turns, self.each_max, network, own);
        if own.held == 0 {
            self.addresses.remove(&network);
        }
        found
    }

    /// A place is free again.
    fn release(&mut self, name: Option<Network>) {
        self.taken -= 1;
        let Some(network) = name else { return };
        if let Some(own) = self.addresses.get_mut(&network) {
            own.held -= 1;
            Self::settle(&mut self.turns, self.each_max, network, own);
            if own.held == 0 && own.waiter_nos.is_empty() {
                self.addresses.remove(&network);
            }
        }
    }

    /// Gives an address a turn, if it wants one and may have it.
    fn settle(turns: &mut VecDeque<Turn>, each_max: usize, network: Network, own: &mut OfAddress) {
        let may = each_max == 0 || own.held < each_max;
        if may && !own.has_turn && !own.waiter_nos.is_empty() {
            own.has_turn = true;
            turns.push_back(Turn::Address(network));
        }
    }

    fn set_most(&mut self, most: usize, each_max: usize) {
        (self.most, self.each_max) = (most, each_max);
        for (network, own) in &mut self.addresses {
            Self::settle(&mut self.turns, each_max, *network, own);
        }
    }
}

/// Places, and who waits for them. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Places {
    queue: Arc<Mutex<Rota<oneshot::Sender<Place>>>>,
    metrics: Arc<Metrics>,
}

impl Places {
    /// So many places, of which one address has `each_max` at most; 0 for no such limit.
    #[must_use]
    pub fn new(most: usize, each_max: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            queue: Arc::new(Mutex::new(Rota::new(most, each_max))),
            metrics,
        }
    }

    /// Other numbers. Places that are taken stay so.
    pub fn set_most(&self, most: usize, each_max: usize) {
        self.queue().set_most(most, each_max);
        self.give();
    }

    /// Begins to wait in these names.
    #[must_use]
    pub fn wait(&self, names: impl IntoIterator<Item = Option<Network>>) -> Queued {
        let (waiter, place) = oneshot::channel();
        let waiter_no = self.queue().enter(waiter);
        for name in names {
            self.name(waiter_no, name);
        }
        self.give();
        Queued {
            places: self.clone(),
            waiter_no,
            place,
        }
    }

    /// One that waits does so in this name, too: it is served when the first of its names has its turn.
    pub fn wait_also(&self, waiter_no: WaiterNo, name: Option<Network>) {
        self.name(waiter_no, name);
        self.give();
    }

    fn name(&self, waiter_no: WaiterNo, name: Option<Network>) {
        if !self.queue().name(waiter_no, name) {
            self.metrics.address_limited(AddressLimit::Replays);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Rota<oneshot::Sender<Place>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the places that are free. The lock is free while a place is sent: one that nobody takes comes back.
    fn give(&self) {
        loop {
            let granted = self.queue().grant();
            let Some((waiter, name)) = granted else {
                return;
            };
            let place = Place {
                places: self.clone(),
                name,
                is_held: true,
            };
            if let Err(mut place) = waiter.send(place) {
                // Not by its drop, which would give in turn.
                place.is_held = false;
                self.queue().release(name);
            }
        }
    }
}

/// One that waits for a place. Dropped, it waits no more.
#[derive(Debug)]
pub struct Queued {
    places: Places,
    waiter_no: WaiterNo,
    place: oneshot::Receiver<Place>,
}

impl Queued {
    /// Its name for [`Places::wait_also`].
    #[must_use]
    pub fn waiter_no(&self) -> WaiterNo {
        self.waiter_no
    }

    /// The place, once it is given.
    ///
    /// # Cancel safety
    /// Safe: dropped, it leaves nothing behind.
    pub async fn place(mut self) -> Option<Place> {
        // The sender is in the queue until it has sent.
        (&mut self.place).await.ok()
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        // One that was given and not taken is dropped with the channel, and is free again.
        self.places.queue().leave(self.waiter_no);
    }
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    name: Option<Network>,
    is_held: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_held {
            self.places.queue().release(self.name);
            self.places.give();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANYBODY: Option<Network> = None;

    #[expect(clippy::unnecessary_wraps, reason = "a name is what may be missing")]
    fn network(number: u32) -> Option<Network> {
        Some(Network::of(std::net::Ipv4Addr::from_bits(number).into()))
    }

    fn enter(queue: &mut Rota<u32>, waiter: u32, names: &[Option<Network>]) -> WaiterNo {
        let waiter_no = queue.enter(waiter);
        names.iter().for_each(|name| {
            queue.name(waiter_no, *name);
        });
        waiter_no
    }

    /// Gives one place after the other, each back before the next is given.
    fn served(queue: &mut Rota<u32>) -> Vec<u32> {
        let one = || {
            let (waiter, name) = queue.grant()?;
            queue.release(name);
            Some(waiter)
        };
        std::iter::from_fn(one).collect()
    }

    #[test]
    fn addresses_have_their_turns_however_much_one_asks() {
        let mut queue = Rota::new(1, 0);
        for n in 0..4 {
            enter(&mut queue, n, &[network(1)]);
        }
        enter(&mut queue, 10, &[network(2)]);
        enter(&mut queue, 20, &[ANYBODY]);
        enter(&mut queue, 21, &[ANYBODY]);
        enter(&mut queue, 11, &[network(2)]);
        assert_eq!(served(&mut queue), [0, 10, 20, 21, 1, 11, 2, 3]);
        assert!(queue.addresses.is_empty() && queue.waiting.is_empty());
    }

    #[test]
    fn without_addresses_first_come_is_first_served() {
        let mut queue = Rota::new(1, 1);
        for n in 0..5 {
            enter(&mut queue, n, &[ANYBODY]);
        }
        assert_eq!(served(&mut queue), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn an_address_holds_no_more_than_it_may() {
        let mut queue = Rota::new(4, 2);
        for n in 0..5 {
            enter(&mut queue, n, &[network(1)]);
        }
        let given: Vec<_> = std::iter::from_fn(|| queue.grant()).collect();
        assert_eq!(given, [(0, network(1)), (1, network(1))]);
        let waiter_no = queue.enter(5);
        assert!(!queue.name(waiter_no, network(1)), "it has all it may");
        enter(&mut queue, 10, &[network(2)]);
        assert_eq!(queue.grant(), Some((10, network(2))));
        assert_eq!(queue.grant(), None, "one is free, and nobody may have it");
        queue.release(network(1));
        assert_eq!(queue.grant(), Some((2, network(1))));
        queue.set_most(4, 3);
        assert_eq!(queue.grant(), Some((3, network(1))));
    }

    /// What several want is read for whoever of them has the first turn.
    #[test]
    fn who_waits_in_two_names_is_served_once_by_the_first() {
        let mut queue = Rota::new(1, 0);
        let first = enter(&mut queue, 0, &[network(1)]);
        for n in 1..4 {
            enter(&mut queue, n, &[network(1)]);
        }
        let last = enter(&mut queue, 4, &[network(1)]);
        queue.name(last, network(2));
        queue.name(first, network(2));
        assert_eq!(served(&mut queue), [0, 4, 1, 2, 3]);
        assert!(queue.addresses.is_empty(), "{queue:?}");
    }

    #[test]
    fn who_leaves_takes_no_place() {
        let mut queue = Rota::new(1, 1);
        let waiter_nos: Vec<_> = (0..3)
            .map(|n| enter(&mut queue, n, &[network(1)]))
            .collect();
        assert!(queue.leave(waiter_nos[0]) && queue.leave(waiter_nos[1]));
        assert_eq!(queue.grant(), Some((2, network(1))));
        queue.release(network(1));
        assert!(queue.addresses.is_empty() && queue.taken == 0, "{queue:?}");
    }

    #[tokio::test]
    async fn a_place_that_nobody_takes_is_free_again() {
        let places = Places::new(1, 0, Metrics::new());
        let first = places.wait([ANYBODY]).place().await.unwrap();
        let gone = places.wait([network(1)]);
        let given_and_gone = places.wait([network(2)]);
        let last = places.wait([network(3)]);
        drop(gone);
        drop(first);
        drop(given_and_gone);
        let last = last.place().await.unwrap();
        assert_eq!(places.queue().taken, 1);
        drop(last);
        assert_eq!(places.queue().taken, 0);
    }
}
