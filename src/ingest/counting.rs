//! How an ear counts what it hears in one epoch.
//!
//! Ears with different maps hear different channels. So each publish is counted in the class of its channel: which
//! of the epoch's maps have it. Whoever hears a channel hears all channels of its class, so that all who count a class
//! count it alike.

use crate::broker::channels::Heard;
use crate::broker::raw::Class;
use std::collections::BTreeMap;
use std::sync::Arc;

/// An epoch, and how far this ear has counted in it.
#[derive(Clone, Debug)]
pub(super) struct Counting {
    pub(super) epoch: Arc<str>,
    /// This ear's map, and its place among the maps of the epoch; none if they do not have it.
    map: Arc<str>,
    place: Option<usize>,
    maps: Arc<[Heard]>,
    tallies: BTreeMap<Class, Tally>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    n: u64,
    hash: u32,
}

/// The name of a publish, and the hash of its class before and after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    pub(super) class: Class,
    pub(super) n: u64,
    pub(super) before: u32,
    pub(super) hash: u32,
}

impl Counting {
    /// Begins to count, as an ear with this map among these.
    pub(super) fn new(epoch: &str, map: &Heard, maps: Arc<[Heard]>) -> Self {
        let tallies = [(Class::COMMON, Tally::default())];
        Self {
            epoch: epoch.into(),
            map: map.name().clone(),
            place: maps.iter().position(|other| other == map),
            maps,
            tallies: tallies.into(),
        }
    }

    /// The maps of the epoch.
    pub(super) fn maps(&self) -> &Arc<[Heard]> {
        &self.maps
    }

    /// Whether what this map alone has can be counted.
    pub(super) fn has(&self, map: &Heard) -> bool {
        map.is_empty() || self.place.is_some()
    }

    /// Counts a publish on a channel that is common to all, or of this ear's map. None if no number can be given.
    pub(super) fn count(
        &mut self,
        is_common: bool,
        channel: &[u8],
        payload: &[u8],
    ) -> Option<Counted> {
        let class = if is_common {
            Class::COMMON
        } else {
            self.class_of(channel)?
        };
        let tally = self.tallies.entry(class).or_default();
        let before = tally.hash;
        tally.n += 1;
        tally.hash = roll(before, channel, payload);
        Some(Counted {
            class,
            n: tally.n,
            before,
            hash: tally.hash,
        })
    }

    fn class_of(&self, channel: &[u8]) -> Option<Class> {
        let mine = self.place?;
        let maps = self.maps.iter().enumerate();
        // That this map has it is known.
        let having = maps.filter(|(place, map)| *place == mine || map.has(channel));
        Some(Class::of(having.map(|(place, _)| place)))
    }

    /// The name of the map; and of each class the last number, and the hash after it.
    pub(super) fn end(self) -> (Arc<str>, Vec<(Class, u64, u32)>) {
        let tallies = self.tallies.into_iter();
        let ends = tallies.map(|(class, Tally { n, hash })| (class, n, hash));
        (self.map, ends.collect())
    }
}

/// The hash of everything counted so far and one more.
pub(super) fn roll(before: u32, channel: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(before);
    hasher.update(channel);
    hasher.update(&[0]);
    hasher.update(payload);
    hasher.update(&[1]);
    hasher.finalize()
}
