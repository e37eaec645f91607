//! Tickets that wait to be used: what is kept of each, and how many of one owner. The rules as plain data, for the memory
//! broker; `redis/internal.lua` has the same in Lua.
//!
//! What is kept goes when it is taken, or when its time is over, whichever comes first. Nothing else removes it.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// A ticket that is to be kept. Names are letters, digits, `-` and `_`; what is sealed is any bytes.
#[derive(Clone, Copy, Debug)]
pub struct NewTicket<'a> {
    /// By which it is asked for.
    pub name: &'a str,
    /// What it stands for, which the log cannot read.
    pub sealed: &'a [u8],
    /// Who is counted for it.
    pub owner: &'a str,
    /// How long it is kept, in milliseconds.
    pub life_ms: u64,
    /// As many of one owner are kept at the same time.
    pub most: usize,
}

/// What became of a ticket that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutTicket {
    /// It is kept.
    Kept,
    /// Its owner has as many as may be. The first of them is over after this time.
    Full(Duration),
}

/// Those that are kept. Times are milliseconds of one clock.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    kept: HashMap<String, Kept>,
    /// The same by the time at which they are over.
    ends: BTreeSet<(u64, String)>,
    /// How many each owner has; no owner has none.
    owners: HashMap<String, usize>,
}

#[derive(Debug)]
struct Kept {
    sealed: Vec<u8>,
    owner: String,
    ends_ms: u64,
}

impl Tickets {
    /// Keeps one.
    pub(super) fn put(&mut self, new: &NewTicket<'_>, now_ms: u64) -> PutTicket {
        self.forget_over(now_ms);
        let count = self.owners.get(new.owner).copied().unwrap_or_default();
        if count >= new.most {
            let of_owner = self.kept.values().filter(|kept| kept.owner == new.owner);
            let first = of_owner.map(|kept| kept.ends_ms).min().unwrap_or(now_ms);
            return PutTicket::Full(Duration::from_millis(first.saturating_sub(now_ms)));
        }
        let ends_ms = now_ms.saturating_add(new.life_ms);
        let kept = Kept {
            sealed: new.sealed.to_vec(),
            owner: new.owner.to_owned(),
            ends_ms,
        };
        self.remove(new.name);
        self.ends.insert((ends_ms, new.name.to_owned()));
        self.kept.insert(new.name.to_owned(), kept);
        *self.owners.entry(new.owner.to_owned()).or_default() += 1;
        PutTicket::Kept
    }

    /// What is kept of one.
    pub(super) fn get(&mut self, name: &str, now_ms: u64) -> Option<Vec<u8>> {
        self.forget_over(now_ms);
        self.kept.get(name).map(|kept| kept.sealed.clone())
    }

    /// Removes one. Whether it was there.
    pub(super) fn take(&mut self, name: &str, now_ms: u64) -> bool {
        self.forget_over(now_ms);
        self.remove(name)
    }

    fn remove(&mut self, name: &str) -> bool {
        let Some(kept) = self.kept.remove(name) else {
            return false;
        };
        self.ends.remove(&(kept.ends_ms, name.to_owned()));
        if let Some(count) = self.owners.get_mut(&kept.owner) {
            *count -= 1;
            if *count == 0 {
                self.owners.remove(&kept.owner);
            }
        }
        true
    }

    fn forget_over(&mut self, now_ms: u64) {
        while let Some((ends_ms, name)) = self.ends.first()
            && *ends_ms <= now_ms
        {
            let name = name.clone();
            self.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new<'a>(name: &'a str, owner: &'a str) -> NewTicket<'a> {
        NewTicket {
            name,
            sealed: name.as_bytes(),
            owner,
            life_ms: 30,
            most: 2,
        }
    }

    fn is_empty(tickets: &Tickets) -> bool {
        tickets.kept.is_empty() && tickets.ends.is_empty() && tickets.owners.is_empty()
    }

    #[test]
    fn a_ticket_is_taken_once_and_in_time() {
        let mut tickets = Tickets::default();
        assert_eq!(tickets.put(&new("a", "o"), 100), PutTicket::Kept);
        for _ in 0..2 {
            assert_eq!(tickets.get("a", 129).as_deref(), Some(&b"a"[..]));
        }
        assert!(tickets.take("a", 129) && !tickets.take("a", 129));
        assert_eq!(tickets.get("a", 129), None);
        assert!(is_empty(&tickets));
        tickets.put(&new("b", "o"), 100);
        assert!(!tickets.take("b", 130), "its time is over");
        assert!(is_empty(&tickets));
    }

    #[test]
    fn an_owner_has_as_many_as_may_be_and_others_have_theirs() {
        let mut tickets = Tickets::default();
        for (name, now) in [("a", 100), ("b", 110)] {
            assert_eq!(tickets.put(&new(name, "o"), now), PutTicket::Kept);
        }
        let full = |ms| PutTicket::Full(Duration::from_millis(ms));
        assert_eq!(tickets.put(&new("c", "o"), 115), full(15));
        assert_eq!(tickets.get("c", 115), None);
        assert_eq!(tickets.put(&new("c", "p"), 115), PutTicket::Kept);
        // One that is used, and one that is over, make room.
        assert!(tickets.take("b", 116));
        assert_eq!(tickets.put(&new("d", "o"), 116), PutTicket::Kept);
        assert_eq!(tickets.put(&new("e", "o"), 129), full(1));
        assert_eq!(tickets.put(&new("e", "o"), 130), PutTicket::Kept);
        assert_eq!(tickets.get("z", 1000), None);
        assert!(is_empty(&tickets));
    }
}
