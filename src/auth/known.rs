//! Tokens that were verified: when a stream comes back, the same one is shown again.
//!
//! To verify a signature with a public key takes longer than all else that opening a stream does. So what a
//! token grants is kept until it ends, by the hash of the token and not by the token itself. A token that is not good is not
//! kept: whoever makes them up fills nothing.
//!
//! There are two generations, each with half of the room. When the young one is full it becomes the old one, and what was old
//! is forgotten: it was not asked for since. Forgotten tokens are verified again.
//!
//! When keys are replaced that are fetched, all tokens are forgotten: one whose key went is good no more.

use super::claims::Seconds;
use super::grant::Grant;
use ring::digest;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The hash of a token.
pub(super) type TokenHash = [u8; 32];

/// Grants by the hashes of their tokens.
pub(super) struct Known {
    each_max: usize,
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    /// Which keys all of them were verified with: another number is of other keys.
    keys: u64,
    young: HashMap<TokenHash, Grant>,
    old: HashMap<TokenHash, Grant>,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known")
            .field("each_max", &self.each_max)
            .finish_non_exhaustive()
    }
}

/// The hash by which a token is known.
pub(super) fn hash_of(token: &str) -> TokenHash {
    let hash = digest::digest(&digest::SHA256, token.as_bytes());
    hash.as_ref().try_into().unwrap_or_default()
}

impl Known {
    /// With room for so many; none keeps nothing.
    pub(super) fn new(max: usize) -> Self {
        Self {
            each_max: max / 2,
            generations: Mutex::default(),
        }
    }

    fn generations(&self) -> MutexGuard<'_, Generations> {
        self.generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What the token grants, if it was verified before, with these keys or those that were there before, and still holds.
    /// `keys` goes up with each change of keys.
    pub(super) fn get(&self, hash: &TokenHash, now: Seconds, keys: u64) -> Option<Grant> {
        let mut generations = self.generations();
        generations.begin(keys);
        let (grant, is_old) = match generations.young.get(hash) {
            Some(grant) => (grant.clone(), false),
            None => (generations.old.remove(hash)?, true),
        };
        if grant.holder().expires_at().is_none_or(|at| now >= at) {
            generations.young.remove(hash);
            return None;
        }
        if is_old {
            self.keep(&mut generations, *hash, grant.clone());
        }
        Some(grant)
    }

    /// Remembers what a token grants that was verified with these keys, or later ones.
    pub(super) fn put(&self, hash: TokenHash, grant: Grant, keys: u64) {
        let mut generations = self.generations();
        generations.begin(keys);
        // Its key may have gone since.
        if generations.keys == keys {
            self.keep(&mut generations, hash, grant);
        }
    }

    fn keep(&self, generations: &mut Generations, hash: TokenHash, grant: Grant) {
        if self.each_max == 0 {
            return;
        }
        if generations.young.len() >= self.each_max {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(hash, grant);
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        let generations = self.generations();
        generations.young.len() + generations.old.len()
    }
}

impl Generations {
    /// Forgets all that earlier keys have verified.
    fn begin(&mut self, keys: u64) {
        if keys > self.keys {
            *self = Self {
                keys,
                ..Self::default()
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::claims::Claims;
    use crate::auth::grant::Who;
    use crate::auth::holder::Holder;
    use std::sync::Arc;

    fn grant(until: Seconds) -> Grant {
        let holder = Holder::of_token(&Claims::default(), Vec::new(), until);
        Grant::new(Who::KeyHolder, holder, Arc::default(), None)
    }

    #[test]
    fn a_token_is_known_until_it_ends() {
        let known = Known::new(10);
        let hash = hash_of("a");
        assert!(known.get(&hash, 0, 0).is_none());
        known.put(hash, grant(100), 0);
        assert!(known.get(&hash, 99, 0).is_some());
        assert!(known.get(&hash_of("b"), 99, 0).is_none());
        assert!(known.get(&hash, 100, 0).is_none());
        assert_eq!(known.count(), 0, "it is gone");
    }

    #[test]
    fn there_are_never_more_than_may_be_and_those_in_use_stay() {
        let known = Known::new(10);
        let used = hash_of("used");
        known.put(used, grant(100), 0);
        for n in 0..1000 {
            known.put(hash_of(&n.to_string()), grant(100), 0);
            assert!(known.count() <= 10);
            assert!(known.get(&used, 1, 0).is_some(), "{n}");
        }
        let none = Known::new(0);
        none.put(used, grant(100), 0);
        assert_eq!(none.count(), 0);
    }

    #[test]
    fn with_other_keys_all_are_forgotten_and_none_comes_late() {
        let known = Known::new(10);
        let hash = hash_of("a");
        known.put(hash, grant(100), 1);
        assert!(known.get(&hash, 1, 1).is_some());
        assert!(known.get(&hash, 1, 2).is_none());
        // Verified with the keys before, and told after the change.
        known.put(hash, grant(100), 1);
        assert!(known.get(&hash, 1, 2).is_none());
        assert!(known.get(&hash, 1, 1).is_none());
        known.put(hash, grant(100), 2);
        assert!(known.get(&hash, 1, 2).is_some());
    }
}
