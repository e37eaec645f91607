//! Whether the right of an open stream still holds: what was taken back, and what the configuration in force grants.
//!
//! Each change makes an *edition*. A stream remembers the last edition that it has seen, which is one number to compare
//! in each of its turns. Only after a change it asks.

use super::authority::Authority;
use super::denylist::{DeniedAnswer, Denylist, Edition, Keep, StoreMs};
use super::holder::Holder;
use crate::topic::Topic;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

/// What is added to the life of this process when it is judged whether something was taken back before it began: clocks
/// of two stores may differ.
const BEFORE_START: Duration = Duration::from_secs(60);

/// What all streams of a replica are judged by.
#[derive(Debug)]
pub struct Revocations {
    /// That of `state`, which is set first.
    edition: AtomicU32,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    edition: Edition,
    list: Denylist,
    authority: Authority,
    /// The longest life of a stream.
    age_max: Duration,
}

impl Default for Revocations {
    fn default() -> Self {
        Self::new(Authority::new(super::Settings::default()), Duration::ZERO)
    }
}

impl Revocations {
    /// Nothing was taken back. Streams live for `age_max` at most.
    #[must_use]
    pub fn new(authority: Authority, age_max: Duration) -> Self {
        Self {
            edition: AtomicU32::new(0),
            state: RwLock::new(State {
                edition: 0,
                list: Denylist::default(),
                authority,
                age_max,
            }),
        }
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what holds, in a new edition if it says that it has.
    fn change(&self, change: impl FnOnce(&mut State, Edition) -> bool) -> bool {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let next = state.edition.saturating_add(1);
        let has_changed = change(&mut state, next);
        if has_changed {
            state.edition = next;
            self.edition.store(next, Ordering::Release);
        }
        has_changed
    }

    /// The edition that is in force. Taken before a right is judged, it is one that the judgement has seen.
    #[must_use]
    pub fn edition(&self) -> Edition {
        self.edition.load(Ordering::Acquire)
    }

    /// What a holder is answered whose right was taken back, as far as is known.
    #[must_use]
    pub fn denial(&self, holder: &Holder) -> Option<DeniedAnswer> {
        // Most are looked at without a lock.
        holder
            .is_of_token()
            .then(|| self.state().list.denial(holder))?
    }

    /// Whether the right of a stream of these topics was taken back, or has lost what it lives by, since an edition.
    #[must_use]
    pub fn is_revoked(&self, holder: &Holder, topics: &[Topic], seen: Edition) -> bool {
        let state = self.state();
        state.list.denial(holder).is_some()
            || state.list.ends(topics, seen)
            || !state.authority.still_grants(holder, topics)
    }

    /// Judges by the configuration in force from now on. It is asked for when nobody else can change it here: of two that come
    /// at once, the later one must not bring what was in force before. Streams are to be woken after it.
    pub fn judge_by(&self, in_force: impl FnOnce() -> Authority) {
        self.change(|state, _| {
            state.authority = in_force();
            true
        });
    }

    /// How long what is taken back is kept.
    #[must_use]
    pub fn keep(&self) -> Keep {
        self.state().keep()
    }

    /// Learns what the store has, at this time of its clock; the process has lived for so long. Whether anything is new:
    /// streams are to be woken after it.
    pub fn learn<'a>(
        &self,
        entries: impl Iterator<Item = (StoreMs, &'a str)>,
        now: StoreMs,
        lived: Duration,
    ) -> bool {
        let began = now.saturating_sub(crate::time::millis(lived + BEFORE_START));
        let mut entries = entries.peekable();
        // Nothing is locked for nothing, twice a second.
        if entries.peek().is_none() {
            return false;
        }
        self.change(|state, next| {
            let keep = state.keep();
            let before = |keep: Duration| now.saturating_sub(crate::time::millis(keep));
            state.list.forget(before(keep.denied), before(keep.ended));
            let mut is_any_new = false;
            for (at, text) in entries {
                // It was before the first stream of this process: nobody here is to be ended by it.
                let edition = if at < began { 0 } else { next };
                is_any_new |= state.list.learn(at, text, edition);
            }
            is_any_new
        })
    }
}

impl State {
    fn keep(&self) -> Keep {
        let expected = &self.authority.tokens().expected;
        // Both ends of a token's life may be seen by clocks that differ.
        let denied = expected.life_max + expected.leeway * 2;
        Keep {
            denied: denied + BEFORE_START,
            ended: self.age_max + BEFORE_START,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::claims::Expected;
    use crate::auth::{
        Action, Algorithm, ClaimRule, Credential, Key, KeyHash, Keyring, Place, Publisher, Rights,
        Settings, Tokens, mint, new_key, pattern,
    };
    use serde_json::{Value, json};
    use std::sync::Arc;

    const NOW: i64 = 1_700_000_000;
    const HOUR: Duration = Duration::from_secs(3600);

    fn key(letter: u8) -> Key {
        Key::secret(Algorithm::Hs256, &[letter; 32]).unwrap()
    }

    fn rule(text: &str) -> ClaimRule {
        ClaimRule::parse(text, vec![Action::Subscribe], None).unwrap()
    }

    fn settings(keys: Vec<Key>, rules: &[&str], anonymous: &[&str]) -> Settings {
        let anonymous: Vec<_> = anonymous
            .iter()
            .map(|text| pattern(text).unwrap())
            .collect();
        Settings {
            tokens: Tokens {
                keys: Keyring::new(keys),
                expected: Expected {
                    life_max: HOUR,
                    ..Expected::default()
                },
                bytes_max: 8192,
                patterns_max: 64,
                claim: "tidegate".to_owned(),
                rules: rules.iter().map(|text| rule(text)).collect(),
                ..Tokens::default()
            },
            anonymous: (!anonymous.is_empty())
                .then(|| Arc::new(Rights::of(&anonymous, &[Action::Subscribe]))),
            ..Settings::default()
        }
    }

    fn token(by: &Key, claims: &Value) -> String {
        let mut members = claims.as_object().unwrap().clone();
        members.insert("exp".to_owned(), (NOW + 60).into());
        mint(by, &members).unwrap()
    }

    /// Whom a stream of these topics is of.
    fn holder(settings: &Settings, text: Option<&str>, topics: &[Topic]) -> Arc<Holder> {
        let credential = text.map(|text| Credential {
            place: Place::Given,
            text,
        });
        let authority = Authority::new(settings.clone());
        let grant = authority.grant(credential, NOW).unwrap();
        for topic in topics {
            assert!(grant.allows(Action::Subscribe, topic), "{topic}");
        }
        grant.holder_of(topics.iter().cloned())
    }

    fn topics(names: &[&str]) -> Vec<Topic> {
        let names = names.iter().map(|name| Topic::parse(name).unwrap());
        names.collect()
    }

    /// Whether a stream goes on when the one configuration is replaced by the other.
    fn goes_on(before: &Settings, after: &Settings, text: Option<&str>, names: &[&str]) -> bool {
        let topics = topics(names);
        let holder = holder(before, text, &topics);
        let revocations = Revocations::new(Authority::new(before.clone()), HOUR);
        let seen = revocations.edition();
        assert!(!revocations.is_revoked(&holder, &topics, seen));
        revocations.judge_by(|| Authority::new(after.clone()));
        assert_ne!(revocations.edition(), seen);
        !revocations.is_revoked(&holder, &topics, seen)
    }

    #[test]
    fn a_stream_ends_with_the_key_or_the_rule_that_it_lives_by_and_with_no_other() {
        let before = settings(
            vec![key(1), key(2)],
            &["user:{sub}", "team:{team}"],
            &["news"],
        );
        let claims = json!({"sub": "a", "team": "t"});
        let (of_one, of_two) = (token(&key(1), &claims), token(&key(2), &claims));
        let without_team = token(&key(1), &json!({"sub": "a"}));
        let all = ["user:{sub}", "team:{team}"];
        let other_key = settings(vec![key(2), key(1)], &all, &["news"]);
        assert!(
            goes_on(&before, &other_key, Some(&of_one), &["user:a"]),
            "the same"
        );
        let only_one = settings(vec![key(1)], &all, &["news"]);
        assert!(goes_on(&before, &only_one, Some(&of_one), &["user:a"]));
        assert!(!goes_on(&before, &only_one, Some(&of_two), &["user:a"]));
        let no_team = settings(vec![key(1), key(2)], &["user:{sub}"], &["news"]);
        assert!(!goes_on(&before, &no_team, Some(&of_one), &["team:t"]));
        assert!(goes_on(&before, &no_team, Some(&without_team), &["user:a"]));
        // What a token grants by itself needs its claim.
        let granted = token(&key(1), &json!({"tidegate": {"subscribe": ["x"]}}));
        let mut renamed = before.clone();
        renamed.tokens.claim = "other".to_owned();
        assert!(!goes_on(&before, &renamed, Some(&granted), &["x"]));
        assert!(goes_on(&before, &renamed, Some(&without_team), &["user:a"]));
        // A key that is called otherwise, or is for one issuer now, is another one.
        let called = settings(vec![key(1).called(Some("k"))], &all, &["news"]);
        assert!(!goes_on(&before, &called, Some(&of_one), &["user:a"]));
    }

    #[test]
    fn a_stream_ends_with_its_issuer_or_audience() {
        let with = |issuers: &[&str], audiences: &[&str]| {
            let mut settings = settings(vec![key(1)], &["user:{sub}"], &[]);
            let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect();
            settings.tokens.expected.issuers = texts(issuers);
            settings.tokens.expected.audiences = texts(audiences);
            settings
        };
        let token = token(&key(1), &json!({"sub": "a", "iss": "i", "aud": ["x", "y"]}));
        let before = with(&["i", "j"], &["y"]);
        let table = [
            (with(&["j", "i"], &["y"]), true),
            (with(&["i"], &["z", "y"]), true),
            (with(&["j"], &["y"]), false),
            (with(&["i"], &["x"]), false),
        ];
        for (after, expected) in table {
            assert_eq!(
                goes_on(&before, &after, Some(&token), &["user:a"]),
                expected
            );
        }
    }

    #[test]
    fn what_a_stream_reads_as_everybody_does_it_reads_for_as_long_as_everybody_may() {
        let before = settings(vec![key(1)], &["user:{sub}"], &["news", "public:*"]);
        let token = token(&key(1), &json!({"sub": "a"}));
        let less = settings(vec![key(1)], &["user:{sub}"], &["public:*", "more"]);
        assert!(goes_on(&before, &less, None, &["public:a", "public:b"]));
        assert!(!goes_on(&before, &less, None, &["public:a", "news"]));
        assert!(goes_on(
            &before,
            &less,
            Some(&token),
            &["user:a", "public:a"]
        ));
        assert!(!goes_on(&before, &less, Some(&token), &["user:a", "news"]));
        assert!(goes_on(&before, &less, Some(&token), &["user:a"]));
        // Where nothing was asked, and now something is.
        let open = settings(Vec::new(), &[], &[]);
        let revocations = Revocations::new(Authority::new(open.clone()), HOUR);
        let everybody = Authority::new(open).open().holder().clone();
        assert!(!revocations.is_revoked(&everybody, &topics(&["x"]), 0));
        revocations.judge_by(|| Authority::new(before));
        assert!(revocations.is_revoked(&everybody, &topics(&["x"]), 0));
        assert!(!revocations.is_revoked(&everybody, &topics(&["news"]), 0));
    }

    #[test]
    fn keys_of_publishers_end_their_streams_when_they_go() {
        let keys = [(); 2].map(|()| new_key().unwrap());
        let publishers = |rows: &[(&str, &str)]| -> Arc<[Publisher]> {
            let publisher = |(key, topics): &(&str, &str)| Publisher {
                name: "p".into(),
                hash: KeyHash::of(key),
                rights: Arc::new(Rights::of(
                    &[pattern(topics).unwrap()],
                    &[Action::Subscribe],
                )),
            };
            rows.iter().map(publisher).collect()
        };
        let mut before = settings(vec![key(1)], &[], &[]);
        before.publishers = publishers(&[(&keys[0], "a"), (&keys[1], "b")]);
        before.publish_key = Some("own".to_owned().into());
        let mut after = before.clone();
        after.publishers = publishers(&[(&keys[1], "b")]);
        assert!(!goes_on(&before, &after, Some(&keys[0]), &["a"]));
        assert!(goes_on(&before, &after, Some(&keys[1]), &["b"]));
        assert!(goes_on(&before, &after, Some("own"), &["z"]));
        after.publishers = publishers(&[(&keys[0], "b"), (&keys[1], "b")]);
        assert!(
            !goes_on(&before, &after, Some(&keys[0]), &["a"]),
            "other rights"
        );
        after.publish_key = Some("another".to_owned().into());
        assert!(!goes_on(&before, &after, Some("own"), &["z"]));
    }

    #[test]
    fn what_was_before_this_process_ends_none_of_its_streams() {
        let revocations = Revocations::new(Authority::new(Settings::default()), HOUR);
        let now = 1_700_000_000_000;
        let learn = |at, text: &str, lived: u64| {
            let lived = Duration::from_secs(lived);
            revocations.learn([(at, text)].into_iter(), now, lived)
        };
        let topics = topics(&["a"]);
        let nobody = Holder::default();
        assert!(learn(now - 100_000, "topics a*", 3));
        assert!(!revocations.is_revoked(&nobody, &topics, 0), "long before");
        // Shortly before may be after: clocks differ.
        assert!(learn(now - 30_000, "topics *a", 3));
        assert!(revocations.is_revoked(&nobody, &topics, 0));
        let seen = revocations.edition();
        assert!(!revocations.is_revoked(&nobody, &topics, seen));
        assert!(!learn(now - 30_000, "topics *a", 4), "known");
        assert!(!learn(now - 2 * 3_600_000, "all", 4), "over");
        assert_eq!(revocations.edition(), seen);
    }
}
