//! Bodies of publishes while they come and are worked on: how many, how many bytes, for how long.
//!
//! A publisher has its key judged first, and then needs a place. Only then its body is read. Bytes are
//! charged as they come, not as they are announced: whoever announces much and sends nothing takes a
//! place from others, and no memory.

use super::problem::Problem;
use crate::config::Publish;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The places, and what stands in them.
#[derive(Debug)]
pub struct Intake {
    bodies: AtomicUsize,
    bytes: AtomicUsize,
    bodies_max: usize,
    bytes_max: usize,
}

impl Intake {
    /// With the bounds of the configuration.
    #[must_use]
    pub fn new(publish: &Publish) -> Self {
        Self {
            bodies: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            bodies_max: publish.bodies_max,
            bytes_max: publish.bodies_bytes_max,
        }
    }

    /// A place for one body, until it is dropped.
    ///
    /// # Errors
    /// 503, if there is none.
    pub(super) fn enter(&self) -> Result<Place<'_>, Problem> {
        if !add(&self.bodies, 1, self.bodies_max) {
            return Err(Problem::unavailable("too many publishes are on their way"));
        }
        Ok(Place {
            intake: self,
            bytes: 0,
        })
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
    /// What is charged to it.
    bytes: usize,
}

impl Place<'_> {
    /// Appends to a body that will have `most` bytes at most.
    ///
    /// # Errors
    /// 503, if all bodies together would take more memory than they may.
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
        if !add(&self.intake.bytes, more, self.intake.bytes_max) {
            return Err(Problem::unavailable(
                "publishes that are on their way take as much memory as they may",
            ));
        }
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.intake.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.intake.bodies.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intake(bodies_max: usize, bytes_max: usize) -> Intake {
        Intake {
            bodies: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            bodies_max,
            bytes_max,
        }
    }

    #[test]
    fn no_more_enter_than_there_are_places() {
        let intake = intake(2, 100);
        let first = intake.enter().unwrap();
        let _second = intake.enter().unwrap();
        assert!(intake.enter().is_err());
        drop(first);
        intake.enter().unwrap();
        assert_eq!(intake.counts(), (1, 0));
    }

    #[test]
    fn all_bodies_together_take_no_more_than_they_may() {
        let intake = intake(10, 100);
        let (mut one, mut other) = (Vec::new(), Vec::new());
        let mut first = intake.enter().unwrap();
        let mut second = intake.enter().unwrap();
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
}
