//! One key set that is fetched, and all of them: what the gate asks, and what is told by whoever fetches.

use super::address::Address;
use super::upkeep::{Fetch, Keeper, Moment, Next, State, Timing, Upkeep, WithoutKey};
use crate::auth::algorithm::Algorithm;
use crate::auth::jwk::key_set;
use crate::auth::key::Key;
use crate::auth::mark::Mark;
use crate::swap::Swap;
use ring::digest;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Where keys come from, and what they are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where the set is.
    pub address: Address,
    /// The one issuer that its keys sign for.
    pub issuer: Option<String>,
    /// The algorithm of keys that name none.
    pub algorithm: Option<Algorithm>,
}

/// A set that is fetched from its address. Until then, and once it is too old, it has no keys.
///
/// Requests never wait for a fetch: they ask for one, and are told to come back.
pub struct KeySet {
    source: Source,
    upkeep: Mutex<Upkeep>,
    keys: Swap<Keys>,
    /// Of the keys that it had when it was fetched last, whether or not they serve still.
    marks: Swap<Vec<Mark>>,
    /// Goes up whenever the keys change, after they did.
    generation: AtomicU64,
    wanted: Notify,
}

/// Keys, and the hash of the text that they were read from.
#[derive(Debug, Default)]
pub(in crate::auth) struct Keys {
    keys: Vec<Key>,
    hash: Option<[u8; 32]>,
}

impl Keys {
    /// Each of them.
    pub(in crate::auth) fn iter(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }
}

/// What its source is: replicas with the same settings show the same, whatever they have fetched.
impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.source, f)
    }
}

impl KeySet {
    fn new(source: Source, timing: Timing) -> Self {
        Self {
            source,
            upkeep: Mutex::new(Upkeep::new(timing)),
            keys: Swap::new(Keys::default()),
            marks: Swap::new(Vec::new()),
            generation: AtomicU64::new(0),
            wanted: Notify::new(),
        }
    }

    fn upkeep(&self) -> MutexGuard<'_, Upkeep> {
        self.upkeep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it comes from.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// How it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.upkeep().state()
    }

    /// How old what serves is; none if nothing does.
    #[must_use]
    pub fn age(&self, now: Moment) -> Option<Duration> {
        self.upkeep().age(now)
    }

    /// Tokens that wait for a fetch.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.upkeep().waiting()
    }

    /// Keys that serve.
    #[must_use]
    pub fn count(&self) -> usize {
        self.keys.get().keys.len()
    }

    /// Begins, or goes on by other settings.
    pub fn settle(&self, timing: Timing, now: Moment) -> Keeper {
        self.upkeep().settle(timing, now)
    }

    /// Returns once a fetch may be due that was not before.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// What is due. Keys that are too old go at the same time.
    pub fn next(&self, keeper: Keeper, now: Moment) -> Next {
        let mut upkeep = self.upkeep();
        let next = upkeep.next(keeper, now);
        if upkeep.state() == State::Away && !self.keys.get().keys.is_empty() {
            self.put(Keys::default());
        }
        next
    }

    /// A fetch brought this text. Returns whether its keys are others than before.
    ///
    /// # Errors
    /// One sentence: it is no set that tokens can be verified with. The last good one goes on serving.
    pub fn take(&self, fetch: Fetch, text: &str, now: Moment, spread: f64) -> Result<bool, String> {
        let keys = self.read(text);
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        let hash = hash.as_ref().try_into().ok();
        let mut upkeep = self.upkeep();
        let keys = match keys {
            Ok(keys) => keys,
            Err(why) => {
                upkeep.failed(fetch, now, spread);
                return Err(why);
            }
        };
        if !upkeep.fetched(fetch, now, spread) || self.keys.get().hash == hash {
            return Ok(false);
        }
        // First: a stream that is open by one of them is not without its mark.
        self.marks.set(keys.iter().map(Key::mark).collect());
        self.put(Keys { keys, hash });
        Ok(true)
    }

    /// A fetch failed. The last good set goes on serving.
    pub fn failed(&self, fetch: Fetch, now: Moment, spread: f64) {
        self.upkeep().failed(fetch, now, spread);
    }

    /// Keys of a text. A secret is none: whoever can fetch it could sign.
    fn read(&self, text: &str) -> Result<Vec<Key>, String> {
        let mut keys = key_set(text, self.source.algorithm)?;
        keys.retain(|key| key.algorithm().secret_bytes_min().is_none());
        if keys.is_empty() {
            return Err("the set has secrets alone, and who can fetch them could sign".to_owned());
        }
        let issuer = self.source.issuer.as_deref();
        let named = keys.into_iter().map(|key| key.of_issuer(issuer));
        Ok(named.collect())
    }

    /// Whether it has this key, as far as anybody can tell: nothing ends by a provider that is away. But only a key that
    /// the set has had may come back with it.
    pub(in crate::auth) fn may_have(&self, key: Mark) -> bool {
        self.marks.get().contains(&key)
    }

    /// In this order: who reads the new generation finds the new keys.
    fn put(&self, keys: Keys) {
        self.keys.set(keys);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// A token was shown whose key is in no set. Returns whether this set is sure not to have it.
    fn is_without_key(&self, token: &str) -> bool {
        static HASH: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let without = self.upkeep().without_key(HASH.hash_one(token));
        // Once for all that are shown until it is fetched.
        if without == WithoutKey::AskedFor {
            self.wanted.notify_one();
        }
        without == WithoutKey::Sure
    }
}

/// All sets that are fetched. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct KeySets(Arc<[Arc<KeySet>]>);

impl KeySets {
    /// Sets of these sources, none of them fetched yet.
    #[must_use]
    pub fn new(sources: Vec<Source>, timing: Timing) -> Self {
        let sets = sources.into_iter();
        Self(
            sets.map(|source| Arc::new(KeySet::new(source, timing)))
                .collect(),
        )
    }

    /// The same; those that are of the same source as one of `others` are that one, with what it has fetched.
    #[must_use]
    pub fn taking_over(&self, others: &Self) -> Self {
        let sets = self.0.iter().map(|set| {
            let mut others = others.0.iter();
            let same = others.find(|other| other.source == set.source);
            same.unwrap_or(set).clone()
        });
        Self(sets.collect())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<KeySet>> {
        self.0.iter()
    }

    /// Another number than before means that keys have changed.
    #[must_use]
    pub fn generation(&self) -> u64 {
        let generations = self.0.iter();
        generations
            .map(|set| set.generation.load(Ordering::Acquire))
            .sum()
    }

    /// The keys of each set that serve now.
    #[must_use]
    pub(in crate::auth) fn keys(&self) -> Vec<Arc<Keys>> {
        self.0.iter().map(|set| set.keys.get()).collect()
    }

    /// A token was shown whose key is not known. Returns whether all sets are sure not to have it; those that are not are
    /// fetched, and the token may be good a little later.
    pub(in crate::auth) fn are_without_key(&self, token: &str) -> bool {
        // Each is asked, so that each is fetched.
        let answers: Vec<bool> = self.0.iter().map(|set| set.is_without_key(token)).collect();
        answers.into_iter().all(|is_sure| is_sure)
    }
}
