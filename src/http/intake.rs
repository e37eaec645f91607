//! Bodies of publishes while they come and are worked on: how many, how many bytes, for how long.
//!
//! A publisher has its key judged first, and then needs a place. Only then its body is read. Bytes are
//! charged as they come, not as they are announced: whoever announces much and sends nothing takes a
//! place from others, and no memory.
//!
//! An address that is known has no more than there is free besides: one alone has half of the places and of the memory
//! at most, and whoever comes next finds room
//! (dynamic thresholds, [Choudhury and Hahne](https://doi.org/10.1109/90.664262)).

use super::problem::Problem;
use crate::address::Network;
use crate::config::Publish;
use crate::metrics::{AddressLimit, Metrics};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// When an address that has its share may try again.
const AGAIN: Duration = Duration::from_secs(1);

/// The places, and what stands in them.
#[derive(Debug)]
pub struct Intake {
    bodies: AtomicUsize,
    bytes: AtomicUsize,
    bodies_max: usize,
    bytes_max: usize,
    /// What each address has of them.
    shares: Mutex<HashMap<Network, Share>>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Share {
    bodies: usize,
    bytes: usize,
}

impl Intake {
    /// With the bounds of the configuration.
    #[must_use]
    pub fn new(publish: &Publish, metrics: Arc<Metrics>) -> Self {
        Self {
            bodies: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            bodies_max: publish.bodies_max,
            bytes_max: publish.bodies_bytes_max,
            shares: Mutex::default(),
            metrics,
        }
    }

    /// A place for one body, until it is dropped; in the name of an address, if it is to be held to its share.
    ///
    /// # Errors
    /// 503, if there is none; 429, if the address has its share.
    pub(super) fn enter(&self, name: Option<Network>) -> Result<Place<'_>, Problem> {
        let mut shares = self.shares();
        let has = |name| shares.get(&name).map_or(0, |share| share.bodies);
        let has = name.map_or(0, has);
        let free = self.bodies_max - self.bodies.load(Ordering::Acquire);
        if has > 0 && free > 0 && has >= free {
            return Err(self.has_its_share());
        }
        if !add(&self.bodies, 1, self.bodies_max) {
            return Err(Problem::busy(
                "too many publishes are in progress (publish.bodies_max)",
            ));
        }
        if let Some(name) = name {
            shares.entry(name).or_default().bodies += 1;
        }
        Ok(Place {
            intake: self,
            name,
            bytes: 0,
        })
    }

    fn shares(&self) -> MutexGuard<'_, HashMap<Network, Share>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_its_share(&self) -> Problem {
        self.metrics.address_limited(AddressLimit::Bodies);
        Problem::too_many(
            "this address has its full share of the publishes in progress",
            AGAIN,
        )
    }

    /// Bodies, and the bytes of memory that they take.
    pub(super) fn counts(&self) -> (usize, usize) {
        let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (read(&self.bodies), read(&self.bytes))
    }
}

/// Adds, unless it would be more than `most`.
fn add(count: &AtomicUsize, more: usize, most: usize) -> bool {
    let sum = |now: usize| now.checked_add(more).filter(|sum| *sum <= most);
    count
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, sum)
        .is_ok()
}

/// A place for one body.
#[derive(Debug)]
pub(super) struct Place<'a> {
    intake: &'a Intake,
    name: Option<Network>,
    /// What is charged to it.
    bytes: usize,
}

impl Place<'_> {
    /// Appends to a body that will have `most` bytes at most.
    ///
    /// # Errors
    /// 503, if all bodies together would take more memory than they may; 429, if those of its address would.
    pub(super) fn append(
        &mut self,
        body: &mut Vec<u8>,
        data: &[u8],
        most: usize,
    ) -> Result<(), Problem> {
        let needed = body.len() + data.len();
        if needed > body.capacity() {
            // Twice as large each time, so that little is copied, and no larger than it may become.
            let room = needed.max(body.capacity().saturating_mul(2).min(most));
            self.charge(room)?;
            body.reserve_exact(room - body.len());
        }
        body.extend_from_slice(data);
        Ok(())
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Problem> {
        let more = bytes.saturating_sub(self.bytes);
        let intake = self.intake;
        let mut shares = intake.shares();
        let mut share = self.name.and_then(|name| shares.get_mut(&name));
        // The only body of an address may be as large as any.
        if let Some(share) = share.as_deref().filter(|share| share.bodies > 1) {
            let free = intake.bytes_max - intake.bytes.load(Ordering::Acquire);
            if share.bytes + more > free {
                return Err(intake.has_its_share());
            }
        }
        if !add(&intake.bytes, more, intake.bytes_max) {
            return Err(Problem::busy(
                "the publishes in progress use all of publish.bodies_bytes_max",
            ));
        }
        if let Some(share) = &mut share {
            share.bytes += more;
        }
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut shares = self.intake.shares();
        if let Some(name) = self.name
            && let Some(share) = shares.get_mut(&name)
        {
            share.bodies -= 1;
            share.bytes -= self.bytes;
            if share.bodies == 0 {
                shares.remove(&name);
            }
        }
        self.intake.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.intake.bodies.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::PublishRefusal;

    fn status(entered: Result<Place<'_>, Problem>) -> PublishRefusal {
        entered.unwrap_err().refusal()
    }

    fn intake(bodies_max: usize, bytes_max: usize) -> Intake {
        Intake {
            bodies: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            bodies_max,
            bytes_max,
            shares: Mutex::default(),
            metrics: Metrics::new(),
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "a name is what may be missing")]
    fn network(number: u32) -> Option<Network> {
        Some(Network::of(std::net::Ipv4Addr::from_bits(number).into()))
    }

    #[test]
    fn no_more_enter_than_there_are_places() {
        let intake = intake(2, 100);
        let first = intake.enter(None).unwrap();
        let _second = intake.enter(None).unwrap();
        assert!(intake.enter(None).is_err());
        drop(first);
        intake.enter(None).unwrap();
        assert_eq!(intake.counts(), (1, 0));
    }

    #[test]
    fn all_bodies_together_take_no_more_than_they_may() {
        let intake = intake(10, 100);
        let (mut one, mut other) = (Vec::new(), Vec::new());
        let mut first = intake.enter(None).unwrap();
        let mut second = intake.enter(None).unwrap();
        for _ in 0..6 {
            first.append(&mut one, &[0; 10], 70).unwrap();
        }
        assert!(one.capacity() <= 70, "{}", one.capacity());
        assert_eq!(intake.counts(), (2, one.capacity()));
        second.append(&mut other, &[0; 30], 70).unwrap();
        assert!(second.append(&mut other, &[0; 10], 70).is_err());
        assert_eq!(other.len(), 30, "what was refused is not there");
        drop(first);
        second.append(&mut other, &[0; 10], 70).unwrap();
        drop(second);
        assert_eq!(intake.counts(), (0, 0));
    }

    #[test]
    fn an_address_alone_has_half_of_the_places_and_others_find_room() {
        let intake = intake(8, 1000);
        let of_one: Vec<_> = std::iter::from_fn(|| intake.enter(network(1)).ok()).collect();
        assert_eq!(of_one.len(), 4);
        let of_another: Vec<_> = std::iter::from_fn(|| intake.enter(network(2)).ok()).collect();
        assert_eq!(of_another.len(), 2);
        assert_eq!(status(intake.enter(network(1))), PublishRefusal::Address);
        intake.enter(network(3)).unwrap();
        let unknown: Vec<_> = std::iter::from_fn(|| intake.enter(None).ok()).collect();
        assert_eq!(
            unknown.len(),
            2,
            "whoever is not known is not held to a share"
        );
        assert_eq!(status(intake.enter(network(1))), PublishRefusal::Busy);
        drop((of_one, of_another, unknown));
        assert_eq!(intake.counts(), (0, 0));
        assert!(intake.shares().is_empty());
    }

    #[test]
    fn the_bodies_of_an_address_take_half_of_the_memory_and_one_may_take_all() {
        let intake = intake(10, 100);
        let append =
            |place: &mut Place<'_>, bytes| place.append(&mut Vec::new(), &vec![0; bytes], 100);
        let mut largest = intake.enter(network(1)).unwrap();
        append(&mut largest, 100).unwrap();
        drop(largest);
        let mut first = intake.enter(network(1)).unwrap();
        let mut second = intake.enter(network(1)).unwrap();
        append(&mut first, 40).unwrap();
        assert!(append(&mut second, 30).is_err());
        append(&mut second, 10).unwrap();
        let mut other = intake.enter(network(2)).unwrap();
        append(&mut other, 50).unwrap();
        drop((first, second, other));
        assert_eq!(intake.counts(), (0, 0));
        assert!(intake.shares().is_empty());
    }
}
