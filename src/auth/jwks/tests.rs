//! What strangers show, what fetches bring and what the time does, in any order; and sets as the judge of tokens asks them.

use super::*;
use crate::auth::jwk::key_set;
use crate::auth::tests::tokens;
use crate::auth::{Algorithm, Authority, Credential, Key, Place, Seconds, Settings, Tokens};
use crate::metrics::AuthRefusal;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

const TIMING: Timing = Timing {
    refresh: Duration::from_secs(300),
    floor: Duration::from_secs(10),
    stale_max: Duration::from_secs(3600),
    unknown_max: 4,
};

/// Who keeps a set that was never settled.
const KEEPER: Keeper = Keeper::FIRST;

fn at(seconds: u64) -> Moment {
    Duration::from_secs(seconds)
}

#[track_caller]
fn begin(upkeep: &mut Upkeep, now: Moment) -> Fetch {
    match upkeep.next(KEEPER, now) {
        Next::Fetch(fetch) => fetch,
        wait @ Next::Wait(_) => panic!("{wait:?}"),
    }
}

fn waits_until(upkeep: &mut Upkeep, now: Moment) -> Option<Moment> {
    match upkeep.next(KEEPER, now) {
        Next::Wait(until) => until,
        Next::Fetch(_) => panic!("a fetch at {now:?}"),
    }
}

#[test]
fn a_set_is_fetched_at_once_and_then_by_and_by() {
    let mut upkeep = Upkeep::new(TIMING);
    assert_eq!((upkeep.state(), upkeep.age(at(5))), (State::Away, None));
    let fetch = begin(&mut upkeep, at(5));
    assert_eq!(waits_until(&mut upkeep, at(6)), None, "one at a time");
    assert!(upkeep.fetched(fetch, at(7), 0.0));
    assert!(!upkeep.fetched(fetch, at(7), 0.0), "once");
    assert_eq!(upkeep.state(), State::Fresh);
    // Its age counts from the question, not from the answer.
    assert_eq!(upkeep.age(at(15)), Some(at(10)));
    assert_eq!(waits_until(&mut upkeep, at(8)), Some(at(307)));
    let fetch = begin(&mut upkeep, at(307));
    assert!(upkeep.fetched(fetch, at(307), 1.0));
    assert_eq!(waits_until(&mut upkeep, at(308)), Some(at(307 + 240)));
}

#[test]
fn a_fetch_that_fails_is_made_again_later_and_later() {
    let mut upkeep = Upkeep::new(TIMING);
    let mut now = at(0);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let fetch = begin(&mut upkeep, now);
        assert!(upkeep.failed(fetch, now, 0.0));
        assert_eq!(upkeep.state(), State::Away);
        let next = waits_until(&mut upkeep, now).unwrap();
        pauses.push(next.saturating_sub(now).as_secs());
        now = next;
    }
    assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300, 300]);
    let fetch = begin(&mut upkeep, now);
    assert!(upkeep.fetched(fetch, now, 0.0));
    assert_eq!(upkeep.state(), State::Fresh);
}

#[test]
fn the_last_good_set_serves_until_it_is_too_old() {
    let mut upkeep = Upkeep::new(TIMING);
    let fetch = begin(&mut upkeep, at(0));
    upkeep.fetched(fetch, at(1), 0.0);
    let mut now = at(301);
    while now < at(3600) {
        let fetch = begin(&mut upkeep, now);
        upkeep.failed(fetch, now, 0.0);
        assert_eq!(upkeep.state(), State::Stale, "{now:?}");
        now = waits_until(&mut upkeep, now).unwrap();
    }
    // It is waited for, whatever else is due.
    assert_eq!(now, at(3600));
    let _next = upkeep.next(KEEPER, now);
    assert_eq!(upkeep.state(), State::Away);
}

#[test]
fn a_token_is_refused_by_a_set_that_was_asked_for_after_it_alone() {
    let mut upkeep = Upkeep::new(TIMING);
    let fetch = begin(&mut upkeep, at(0));
    assert_eq!(upkeep.without_key(1), WithoutKey::AskedFor);
    assert!(upkeep.fetched(fetch, at(1), 0.0));
    assert_eq!(
        upkeep.without_key(1),
        WithoutKey::Open,
        "it came after the question"
    );
    assert_eq!(waits_until(&mut upkeep, at(2)), Some(at(10)));
    let fetch = begin(&mut upkeep, at(10));
    // While it is under way, what came before waits for it, and what comes now for another.
    assert_eq!(upkeep.without_key(1), WithoutKey::Open);
    assert_eq!(upkeep.without_key(2), WithoutKey::AskedFor);
    assert_eq!(upkeep.without_key(2), WithoutKey::Open);
    upkeep.fetched(fetch, at(11), 0.0);
    assert_eq!(upkeep.without_key(1), WithoutKey::Sure);
    assert_eq!(upkeep.without_key(2), WithoutKey::Open);
    // A fetch that fails decides of nothing.
    let fetch = begin(&mut upkeep, at(20));
    upkeep.failed(fetch, at(21), 0.0);
    assert_eq!(upkeep.without_key(2), WithoutKey::Open);
    assert_eq!(upkeep.without_key(1), WithoutKey::Sure);
    let fetch = begin(&mut upkeep, at(30));
    upkeep.fetched(fetch, at(31), 0.0);
    assert_eq!(upkeep.without_key(2), WithoutKey::Sure);
    assert_eq!(upkeep.waiting(), 0);
}

#[test]
fn a_fetch_that_nobody_waits_for_any_more_changes_nothing() {
    let mut upkeep = Upkeep::new(TIMING);
    upkeep.without_key(1);
    let old = begin(&mut upkeep, at(0));
    let keeper = upkeep.settle(TIMING, at(1));
    assert!(!upkeep.fetched(old, at(2), 0.0) && !upkeep.failed(old, at(2), 0.0));
    assert_eq!(upkeep.state(), State::Away);
    // Whoever kept it before does not begin one that nobody would wait for.
    assert_eq!(upkeep.next(KEEPER, at(10)), Next::Wait(None));
    let Next::Fetch(new) = upkeep.next(keeper, at(10)) else {
        panic!("a fetch is due");
    };
    assert!(!upkeep.fetched(old, at(11), 0.0));
    assert!(upkeep.fetched(new, at(11), 0.0));
    assert_eq!(
        upkeep.without_key(1),
        WithoutKey::Sure,
        "it was not forgotten"
    );
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Milliseconds.
    Pass(u64),
    Show(u64),
    Good,
    Bad,
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..20_000_u64).prop_map(Step::Pass),
        1 => (0..2_000_000_u64).prop_map(Step::Pass),
        6 => (0..12_u64).prop_map(Step::Show),
        3 => Just(Step::Good),
        2 => Just(Step::Bad),
        1 => Just(Step::Settle),
    ]
}

/// Whatever strangers show, and whatever comes of fetches.
#[test]
fn a_flood_is_fetched_for_once_a_floor_and_no_token_is_refused_too_early() {
    proptest!(|(steps in prop::collection::vec(step(), 0..200))| {
        let mut upkeep = Upkeep::new(TIMING);
        let mut now = at(0);
        let mut fetch: Option<(Fetch, Moment)> = None;
        let (mut begun_at, mut good_at) = (None::<Moment>, None::<Moment>);
        let mut first_shown: HashMap<u64, Moment> = HashMap::new();
        let mut is_asked = false;
        let mut keeper = KEEPER;
        for step in steps {
            match step {
                Step::Pass(ms) => now += Duration::from_millis(ms),
                Step::Show(token) => {
                    let said = upkeep.without_key(token);
                    if said == WithoutKey::Sure {
                        let shown = first_shown.get(&token).copied();
                        prop_assert!(shown.is_some_and(|shown| Some(shown) <= good_at), "{token}");
                    } else {
                        is_asked |= fetch.is_none();
                    }
                    first_shown.entry(token).or_insert(now);
                }
                Step::Good | Step::Bad => if let Some((fetch, began)) = fetch.take() {
                    if matches!(step, Step::Good) {
                        prop_assert!(upkeep.fetched(fetch, now, 0.5));
                        good_at = Some(began);
                        prop_assert_eq!(upkeep.state(), State::Fresh);
                    } else {
                        prop_assert!(upkeep.failed(fetch, now, 0.5));
                        prop_assert!(upkeep.state() != State::Fresh);
                    }
                },
                Step::Settle => {
                    let before = std::mem::replace(&mut keeper, upkeep.settle(TIMING, now));
                    prop_assert_eq!(upkeep.next(before, now), Next::Wait(None));
                    fetch = None;
                }
            }
            match upkeep.next(keeper, now) {
                Next::Fetch(begun) => {
                    prop_assert!(fetch.is_none());
                    prop_assert!(begun_at.is_none_or(|at| now >= at + TIMING.floor));
                    begun_at = Some(now);
                    fetch = Some((begun, now));
                    is_asked = false;
                }
                Next::Wait(until) => {
                    prop_assert!(until.is_none_or(|until| until > now));
                    prop_assert!(fetch.is_some() || until.is_some(), "it sleeps for ever");
                    let may = begun_at.is_none_or(|at| now >= at + TIMING.floor);
                    prop_assert!(!(is_asked && fetch.is_none() && may), "it is asked for and may");
                }
            }
            good_at = good_at.filter(|at| now < *at + TIMING.stale_max);
            prop_assert_eq!(upkeep.state() == State::Away, good_at.is_none());
            prop_assert!(upkeep.waiting() <= 2 * TIMING.unknown_max);
        }
    });
}

// --- sets ---------------------------------------------------------------------------------------------------------------

static MADE: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../tests/data/tokens.json")).unwrap()
});
const NOW: Seconds = 1_700_000_100;

fn made(path: &str) -> &'static str {
    MADE.pointer(path).unwrap().as_str().unwrap()
}

/// A set of these keys, each called so.
fn set_of(keys: &[(&str, &str)]) -> String {
    let keys = keys.iter().map(|(name, id)| {
        let mut key = MADE.pointer(&format!("/jwk/{name}")).unwrap().clone();
        if id.is_empty() {
            key.as_object_mut().unwrap().remove("kid");
        } else {
            key["kid"] = json!(id);
        }
        key
    });
    json!({"keys": keys.collect::<Vec<_>>()}).to_string()
}

fn source(url: &str) -> Source {
    Source {
        address: url.parse().unwrap(),
        issuer: None,
        algorithm: None,
    }
}

fn authority(sets: &KeySets, keys: Vec<Key>) -> Authority {
    Authority::new(Settings {
        tokens: Tokens {
            sets: sets.clone(),
            ..tokens(keys)
        },
        tokens_known_max: 100,
        ..Settings::default()
    })
}

fn judged(authority: &Authority, token: &str) -> Option<AuthRefusal> {
    let credential = Credential {
        place: Place::Given,
        text: token,
    };
    authority.grant(Some(credential), NOW).err()
}

/// Fetches once, at this time.
#[track_caller]
fn fetch(set: &KeySet, now: Moment, text: &str) -> Result<bool, String> {
    match set.next(KEEPER, now) {
        Next::Fetch(fetch) => set.take(fetch, text, now, 0.0),
        wait @ Next::Wait(_) => panic!("{wait:?}"),
    }
}

#[test]
fn nothing_is_open_for_want_of_keys_and_nobody_is_refused_for_it() {
    let sets = KeySets::new(vec![source("https://a/")], TIMING);
    let authority = authority(&sets, Vec::new());
    for action in crate::auth::Action::ALL {
        assert!(authority.asks(action), "{action:?}");
    }
    let token = made("/tokens/ES256");
    for _ in 0..3 {
        assert_eq!(judged(&authority, token), Some(AuthRefusal::KeysAway));
    }
    // What no key can mend is refused at once.
    assert_eq!(judged(&authority, "a.b.c"), Some(AuthRefusal::Malformed));
    let by_secret = judged(&authority, made("/tokens/HS256"));
    assert_eq!(by_secret, Some(AuthRefusal::Key));
    let set = sets.iter().next().unwrap();
    assert_eq!(fetch(set, at(0), &set_of(&[("p256", "")])), Ok(true));
    assert_eq!(judged(&authority, token), None);
    assert_eq!(
        judged(&authority, made("/tokens/RS256")),
        Some(AuthRefusal::KeysAway)
    );
}

#[test]
fn keys_are_replaced_and_tokens_of_those_that_went_are_not_remembered() {
    let sets = KeySets::new(vec![source("https://a/"), source("https://b/")], TIMING);
    let authority = authority(&sets, Vec::new());
    let mut each = sets.iter();
    let (a, b) = (each.next().unwrap(), each.next().unwrap());
    fetch(b, at(0), &set_of(&[("rsa", "b")])).unwrap();
    let (old, new) = (set_of(&[("p256", "")]), set_of(&[("p384", "")]));
    assert_eq!(fetch(a, at(0), &old), Ok(true));
    let tokens = [made("/tokens/ES256"), made("/tokens/ES384")];
    let judge = || tokens.map(|token| judged(&authority, token));
    assert_eq!(judge(), [None, Some(AuthRefusal::KeysAway)]);
    assert_eq!(authority.tokens_known(), 1);
    assert_eq!(fetch(a, at(10), &old), Ok(false), "the same");
    assert_eq!(fetch(a, at(310), &new), Ok(true));
    assert_eq!(judge(), [Some(AuthRefusal::KeysAway), None]);
    // Both sets must be sure.
    assert!(fetch(a, at(320), &new).is_ok());
    assert_eq!(judge()[0], Some(AuthRefusal::KeysAway));
    assert!(fetch(b, at(320), &set_of(&[("rsa", "b")])).is_ok());
    assert_eq!(judge(), [Some(AuthRefusal::Algorithm), None]);
    // Too old: nothing serves, not even what was remembered, and nothing is sure.
    for set in [a, b] {
        let _due = set.next(KEEPER, at(320 + 3600));
        assert_eq!(set.state(), State::Away);
    }
    assert_eq!(judge(), [Some(AuthRefusal::KeysAway); 2]);
}

#[test]
fn what_is_no_set_leaves_the_last_good_one() {
    let sets = KeySets::new(vec![source("https://a/")], TIMING);
    let authority = authority(&sets, Vec::new());
    let set = sets.iter().next().unwrap();
    let good = set_of(&[("p256", "")]);
    fetch(set, at(0), &good).unwrap();
    let secrets = json!({"keys":[{"kty":"oct","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}]});
    let many = json!({"keys": vec![MADE.pointer("/jwk/p256").unwrap(); 65]});
    let half = good.get(..good.len() / 2).unwrap();
    let bad = [
        "",
        "{}",
        "[]",
        "{\"keys\":[]}",
        "{\"keys\":{}}",
        "<html>",
        half,
        &secrets.to_string(),
        &many.to_string(),
    ];
    let mut now = at(10_000_000);
    // So that none is too old meanwhile.
    fetch(set, now, &good).unwrap();
    for text in bad {
        now += at(301);
        assert!(fetch(set, now, text).is_err(), "{text:.40}");
        assert_eq!(set.state(), State::Stale);
        assert_eq!(
            judged(&authority, made("/tokens/ES256")),
            None,
            "{text:.40}"
        );
        now += at(301);
        assert_eq!(fetch(set, now, &good), Ok(false));
        assert_eq!(set.state(), State::Fresh);
    }
}

#[test]
fn a_set_signs_for_its_issuer_and_a_key_of_the_configuration_beside_it_judges_on() {
    let mut of_other = source("https://a/");
    of_other.issuer = Some("https://other/".to_owned());
    of_other.algorithm = Some(Algorithm::Es256);
    let sets = KeySets::new(vec![of_other], TIMING);
    let secret = Key::secret(Algorithm::Hs256, made("/secret").as_bytes()).unwrap();
    let authority = authority(&sets, vec![secret]);
    assert_eq!(
        judged(&authority, made("/tokens/HS256")),
        None,
        "away or not"
    );
    let set = sets.iter().next().unwrap();
    fetch(set, at(0), &set_of(&[("p256", "")])).unwrap();
    assert_eq!(
        judged(&authority, made("/tokens/ES256")),
        Some(AuthRefusal::Issuer)
    );
    assert_eq!(judged(&authority, made("/tokens/HS256")), None);
}

#[test]
fn sets_of_the_same_source_are_taken_over_and_others_are_not() {
    let before = KeySets::new(vec![source("https://a/"), source("https://b/")], TIMING);
    for set in before.iter() {
        fetch(set, at(0), &set_of(&[("p256", "")])).unwrap();
    }
    let mut other = source("https://b/");
    other.issuer = Some("i".to_owned());
    let after = KeySets::new(
        vec![other, source("https://a/"), source("https://c/")],
        TIMING,
    );
    let after = after.taking_over(&before);
    let states: Vec<State> = after.iter().map(|set| set.state()).collect();
    assert_eq!(states, [State::Away, State::Fresh, State::Away]);
    assert!(!after.is_empty() && KeySets::default().is_empty());
    // Replicas with the same settings show the same.
    assert_eq!(
        format!("{:?}", after.iter().nth(1)),
        format!(
            "{:?}",
            Some(
                KeySets::new(vec![source("https://a/?secret")], TIMING)
                    .iter()
                    .next()
                    .unwrap()
            )
        )
        .replace("?secret", "")
    );
}

/// A set's keys are called as its provider likes, and the token names none.
#[test]
fn keys_of_one_issuer_crowd_out_no_key_of_another() {
    let mut of_other = source("https://a/");
    of_other.issuer = Some("https://other/".to_owned());
    let sets = KeySets::new(vec![of_other], TIMING);
    let own = key_set(&set_of(&[("p256", "own")]), None)
        .unwrap()
        .remove(0);
    let own = own.of_issuer(Some("https://login.example.com"));
    let authority = authority(&sets, vec![own]);
    let ids = ["1", "2", "3", "4", "5", "6", "7", "8", "9"];
    let many = ids.map(|id| ("p256", id));
    fetch(sets.iter().next().unwrap(), at(0), &set_of(&many)).unwrap();
    assert_eq!(judged(&authority, made("/tokens/ES256")), None);
}

/// A provider that is away spares the streams that live by a key of its own, which may come back with it, and no others.
#[test]
fn a_set_that_is_away_spares_its_own_keys_alone() {
    let sets = KeySets::new(vec![source("https://a/")], TIMING);
    let set = sets.iter().next().unwrap();
    let secret = Key::secret(Algorithm::Hs256, made("/secret").as_bytes()).unwrap();
    let before = authority(&sets, vec![secret]);
    fetch(set, at(0), &set_of(&[("p256", "")])).unwrap();
    let holder = |path: &str| {
        let credential = Credential {
            place: Place::Given,
            text: made(path),
        };
        let grant = before.grant(Some(credential), NOW).unwrap();
        grant.holder().clone()
    };
    let (by_set, by_secret) = (holder("/tokens/ES256"), holder("/tokens/HS256"));
    let after = authority(&sets, Vec::new());
    assert!(after.still_grants(&by_set, &[]) && !after.still_grants(&by_secret, &[]));
    let Next::Fetch(due) = set.next(KEEPER, at(3600)) else {
        panic!("it is not due");
    };
    assert_eq!(set.state(), State::Away);
    assert!(after.still_grants(&by_set, &[]) && !after.still_grants(&by_secret, &[]));
    // It comes back without that key.
    set.take(due, &set_of(&[("p384", "")]), at(3601), 0.0)
        .unwrap();
    assert!(!after.still_grants(&by_set, &[]));
    // One that was never there has had no key.
    let other = KeySets::new(vec![source("https://b/")], TIMING);
    assert!(!authority(&other, Vec::new()).still_grants(&by_set, &[]));
}
