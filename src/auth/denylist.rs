//! What was taken back, as one replica knows it.
//!
//! | taken back | open streams | who comes later |
//! |---|---|---|
//! | a subject | those whose token was made at that time or before end | is refused with such a token |
//! | a token | its streams end | is refused with it |
//! | topics, by a pattern; all | streams that were admitted before end | is admitted |
//!
//! Each is kept in the log's store as a text, and when it was taken back, in milliseconds of the store's clock. That number
//! is never given out twice. It is read again and again, with some that are known; so learning the same twice changes nothing.
//!
//! A text that cannot be read comes from a newer build, or from somebody else. It denies all tokens that were made before
//! it: nobody reads by a right that may have been taken back.

use super::claims::Seconds;
use super::holder::Holder;
use super::mark::Name;
use crate::topic::{Pattern, Topic};
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::time::Duration;

/// Milliseconds since 1970 by the store's clock.
pub type StoreMs = u64;
/// Counts the changes of what holds. A stream remembers which it has seen.
pub type Edition = u32;

/// Whole seconds of a time of the store, as claims tell them.
#[must_use]
pub fn store_seconds(at: StoreMs) -> Seconds {
    Seconds::try_from(at / 1000).unwrap_or(Seconds::MAX)
}

/// What a stream of a denied holder is answered when it comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeniedAnswer {
    /// 401: its page fetches another token.
    #[default]
    Unauthorized,
    /// 204: its page has nothing to come back for ([HTML, section
    /// 9.2](https://html.spec.whatwg.org/multipage/server-sent-events.html#server-sent-events-intro)).
    NoContent,
}

/// One right, or some, that are taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Tokens of a subject that were made until now.
    Subject(Name, DeniedAnswer),
    /// A token.
    Token(Name, DeniedAnswer),
    /// Streams of topics that fit.
    Topics(Pattern),
    /// All streams.
    All,
}

impl Denial {
    /// The text by which the store keeps it.
    #[must_use]
    pub fn text(&self) -> String {
        let answered = |answer: &DeniedAnswer| match answer {
            DeniedAnswer::Unauthorized => 401,
            DeniedAnswer::NoContent => 204,
        };
        match self {
            Self::Subject(name, answer) => format!("subject {name} {}", answered(answer)),
            Self::Token(name, answer) => format!("token {name} {}", answered(answer)),
            Self::Topics(pattern) => format!("topics {}", pattern.as_str()),
            Self::All => "all".to_owned(),
        }
    }

    /// What a text of the store says.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "all" {
            return Some(Self::All);
        }
        let (kind, rest) = text.split_once(' ')?;
        if kind == "topics" {
            return Pattern::parse_any(rest).ok().map(Self::Topics);
        }
        let (name, answer) = rest.split_once(' ')?;
        let name = Name::parse(name)?;
        let answer = match answer {
            "401" => DeniedAnswer::Unauthorized,
            "204" => DeniedAnswer::NoContent,
            _ => return None,
        };
        match kind {
            "subject" => Some(Self::Subject(name, answer)),
            "token" => Some(Self::Token(name, answer)),
            _ => None,
        }
    }

    /// Whether it ends streams, and refuses nobody after.
    #[must_use]
    pub fn ends_only(&self) -> bool {
        matches!(self, Self::Topics(_) | Self::All)
    }
}

/// How long each kind is kept: as long as the longest token lives, and as the longest stream does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the two kinds")]
pub struct Keep {
    pub denied: Duration,
    pub ended: Duration,
}

/// When something was taken back, and what is answered then.
#[derive(Clone, Copy, Debug)]
struct Entry {
    at: StoreMs,
    answer: DeniedAnswer,
}

/// Streams that were ended.
#[derive(Clone, Debug)]
struct Ending {
    at: StoreMs,
    edition: Edition,
}

/// What was taken back. Bounded where it is kept (`auth.denied_max`).
#[derive(Clone, Debug, Default)]
pub struct Denylist {
    subjects: HashMap<Name, Entry>,
    tokens: HashMap<Name, Entry>,
    endings: HashMap<Box<str>, Ending>,
    /// Patterns by edition, so that a stream looks at those alone that came since; none for all topics.
    by_edition: BTreeMap<(Edition, StoreMs), Option<Pattern>>,
    /// Texts that cannot be read: until the newest of them.
    unreadable: Option<StoreMs>,
    /// What was taken back before is forgotten, and not learnt again: the store has it until somebody takes another right
    /// back, and it would be new with each read. Of those who are denied, and of streams that were ended.
    denied_from: StoreMs,
    ended_from: StoreMs,
}

impl Denylist {
    /// Learns what was taken back at this time. Streams that have seen `edition` know of it. Whether it is new.
    pub(super) fn learn(&mut self, at: StoreMs, text: &str, edition: Edition) -> bool {
        let newer = |entries: &mut HashMap<Name, Entry>, name, answer| {
            let is_new = entries.get(&name).is_none_or(|known| known.at < at);
            if is_new {
                entries.insert(name, Entry { at, answer });
            }
            is_new
        };
        let denial = Denial::parse(text);
        let ends_only = denial.as_ref().is_some_and(Denial::ends_only);
        let from = if ends_only {
            self.ended_from
        } else {
            self.denied_from
        };
        if at < from {
            return false;
        }
        match denial {
            Some(Denial::Subject(name, answer)) => newer(&mut self.subjects, name, answer),
            Some(Denial::Token(name, answer)) => newer(&mut self.tokens, name, answer),
            Some(Denial::Topics(pattern)) => self.learn_ending(at, text, edition, Some(pattern)),
            Some(Denial::All) => self.learn_ending(at, text, edition, None),
            None => {
                let is_new = self.unreadable.is_none_or(|known| known < at);
                self.unreadable = self.unreadable.max(Some(at));
                is_new
            }
        }
    }

    fn learn_ending(
        &mut self,
        at: StoreMs,
        text: &str,
        edition: Edition,
        pattern: Option<Pattern>,
    ) -> bool {
        // Another time, and not only a later one: a store that has gone back gives earlier ones to what is newer.
        if let Some(known) = self.endings.get(text) {
            if known.at == at {
                return false;
            }
            self.by_edition.remove(&(known.edition, known.at));
        }
        self.by_edition.insert((edition, at), pattern);
        self.endings.insert(text.into(), Ending { at, edition });
        true
    }

    /// Forgets what was taken back before, of each kind, and learns none of it from now on.
    pub(super) fn forget(&mut self, denied_before: StoreMs, ended_before: StoreMs) {
        self.subjects.retain(|_, entry| entry.at >= denied_before);
        self.tokens.retain(|_, entry| entry.at >= denied_before);
        self.unreadable.take_if(|at| *at < denied_before);
        self.endings.retain(|_, ending| ending.at >= ended_before);
        self.by_edition.retain(|(_, at), _| *at >= ended_before);
        self.denied_from = denied_before;
        self.ended_from = ended_before;
    }

    /// What a holder is answered whose right was taken back; none if it was not.
    #[must_use]
    pub fn denial(&self, holder: &Holder) -> Option<DeniedAnswer> {
        if !holder.is_of_token() {
            return None;
        }
        // Claims tell whole seconds. Of one second it is not known which was first.
        let is_before = |at: StoreMs| holder.issued_at() <= store_seconds(at);
        let token = holder.token_id().and_then(|name| self.tokens.get(name));
        let subjects = holder.subjects().filter_map(|name| self.subjects.get(name));
        let subject = subjects
            .filter(|entry| is_before(entry.at))
            .max_by_key(|entry| entry.at);
        let unreadable = self.unreadable.filter(|at| is_before(*at));
        let denied = token.or(subject).map(|entry| entry.answer);
        denied.or(unreadable.map(|_| DeniedAnswer::Unauthorized))
    }

    /// Whether a stream of these topics that has seen an edition was ended since.
    pub(super) fn ends(&self, topics: &[Topic], seen: Edition) -> bool {
        let after = Bound::Excluded((seen, StoreMs::MAX));
        let mut since = self.by_edition.range((after, Bound::Unbounded));
        since.any(|(_, pattern)| {
            let is_of = |pattern: &Pattern| topics.iter().any(|topic| pattern.covers(topic));
            pattern.as_ref().is_none_or(is_of)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::claims::Claims;
    use crate::auth::rights::pattern;
    use proptest::prelude::*;
    use serde_json::json;

    /// Of whom, and made when.
    fn holder(subject: &str, issuer: &str, id: &str, issued_at: Option<Seconds>) -> Holder {
        let mut members = json!({"exp": 1, "sub": subject, "iss": issuer, "jti": id});
        if let Some(at) = issued_at {
            members["iat"] = at.into();
        }
        let claims = Claims::read(members.as_object().unwrap()).unwrap();
        Holder::of_token(&claims, Vec::new(), 1)
    }

    fn subject(name: &str, issuer: Option<&str>) -> String {
        Denial::Subject(Name::subject(name, issuer), DeniedAnswer::NoContent).text()
    }

    fn token(id: &str) -> String {
        Denial::Token(Name::token_id(id), DeniedAnswer::Unauthorized).text()
    }

    const GONE: Option<DeniedAnswer> = Some(DeniedAnswer::NoContent);
    const REFUSED: Option<DeniedAnswer> = Some(DeniedAnswer::Unauthorized);

    #[test]
    fn a_subject_is_denied_by_tokens_that_were_made_until_then() {
        let mut list = Denylist::default();
        assert!(list.learn(5_999, &subject("a", None), 1));
        let table = [
            ("a", Some(4), GONE),
            ("a", Some(5), GONE),
            ("a", Some(6), None),
            ("a", None, GONE),
            ("b", Some(4), None),
        ];
        for (name, issued_at, expected) in table {
            let found = list.denial(&holder(name, "x", "t", issued_at));
            assert_eq!(found, expected, "{name} {issued_at:?}");
        }
        assert_eq!(list.denial(&Holder::default()), None);
        // Later ones count, and earlier ones that come late change nothing.
        assert!(list.learn(7_000, &subject("a", None), 2));
        assert!(!list.learn(6_000, &subject("a", None), 3));
        assert_eq!(list.denial(&holder("a", "x", "t", Some(7))), GONE);
        assert_eq!(list.denial(&holder("a", "x", "t", Some(8))), None);
    }

    #[test]
    fn one_issuers_subject_is_not_anothers() {
        let mut list = Denylist::default();
        list.learn(5_000, &subject("a", Some("x")), 1);
        assert_eq!(list.denial(&holder("a", "x", "t", None)), GONE);
        assert_eq!(list.denial(&holder("a", "y", "t", None)), None);
    }

    #[test]
    fn a_token_is_denied_whenever_it_was_made_and_its_answer_goes_first() {
        let mut list = Denylist::default();
        list.learn(5_000, &token("t"), 1);
        list.learn(5_001, &subject("a", None), 1);
        assert_eq!(list.denial(&holder("a", "x", "t", Some(9))), REFUSED);
        assert_eq!(list.denial(&holder("a", "x", "u", Some(9))), None);
        assert_eq!(list.denial(&holder("a", "x", "u", Some(5))), GONE);
        list.forget(5_001, 0);
        assert_eq!(list.denial(&holder("a", "x", "t", Some(9))), None);
        assert_eq!(list.denial(&holder("a", "x", "t", Some(5))), GONE);
    }

    #[test]
    fn what_cannot_be_read_denies_all_that_it_may_have_meant() {
        for text in [
            "",
            "else",
            "subject",
            "subject 0 401",
            &subject("a", None).replace("204", "403"),
            "topics a,b",
            "group 00000000000000000000000000000001 401",
        ] {
            let mut list = Denylist::default();
            assert!(list.learn(5_000, text, 1), "{text}");
            assert!(!list.learn(5_000, text, 2), "{text}");
            assert_eq!(
                list.denial(&holder("b", "x", "t", Some(5))),
                REFUSED,
                "{text}"
            );
            assert_eq!(list.denial(&holder("b", "x", "t", Some(6))), None, "{text}");
            list.forget(5_001, 0);
            assert_eq!(list.denial(&holder("b", "x", "t", Some(5))), None, "{text}");
        }
    }

    #[test]
    fn an_ending_ends_streams_that_have_not_seen_it() {
        let topics = ["team:7:x", "news"].map(|name| Topic::parse(name).unwrap());
        let mut list = Denylist::default();
        list.learn(5_000, "topics team:7:*", 3);
        assert!(list.ends(&topics, 2));
        assert!(!list.ends(&topics, 3));
        assert!(!list.ends(&topics[1..], 0));
        assert!(!list.learn(5_000, "topics team:7:*", 4), "known");
        assert!(!list.ends(&topics, 3));
        assert!(list.learn(6_000, "topics team:7:*", 4), "once more");
        assert!(list.ends(&topics, 3) && !list.ends(&topics, 4));
        // A store that has gone back gives an earlier time to what is newer.
        assert!(list.learn(4_000, "topics team:7:*", 5));
        assert!(list.ends(&topics, 4) && !list.ends(&topics, 5));
        assert!(list.learn(7_000, "all", 6));
        assert!(list.ends(&[], 5) && !list.ends(&[], 6));
        list.forget(0, 7_001);
        assert!(!list.ends(&topics, 0));
        let own = [Topic::parse(Topic::CONNECTIONS).unwrap()];
        list.learn(8_000, "topics *", 7);
        assert!(list.ends(&topics, 6) && !list.ends(&own, 6));
    }

    proptest! {
        /// Whatever comes in whatever order, and however often: what is denied is what any of it denies.
        #[test]
        fn what_is_learnt_does_not_depend_on_the_order(
            entries in proptest::collection::vec((0..3_u8, 0..3_usize, 1..20_u64), 0..30),
            order in proptest::collection::vec(0..30_usize, 0..60),
            issued_at in proptest::option::of(0..20_i64),
            (name, id) in (0..3_usize, 0..3_usize),
        ) {
            const NAMES: [&str; 3] = ["a", "b", "c"];
            let texts: Vec<(StoreMs, String)> = entries
                .iter()
                .map(|(kind, name, at)| {
                    let text = match kind {
                        0 => subject(NAMES[*name], None),
                        1 => subject(NAMES[*name], Some("x")),
                        _ => token(NAMES[*name]),
                    };
                    (at * 1000, text)
                })
                .collect();
            let mut list = Denylist::default();
            let twice = order.iter().filter_map(|at| texts.get(*at));
            for (at, text) in twice.chain(&texts) {
                list.learn(*at, text, 1);
            }
            let is_before = |at: u64| issued_at.is_none_or(|issued| issued <= i64::try_from(at).unwrap());
            let is_denied = entries.iter().any(|(kind, denied, at)| match kind {
                0 | 1 => *denied == name && is_before(*at),
                _ => *denied == id,
            });
            let found = list.denial(&holder(NAMES[name], "x", NAMES[id], issued_at));
            prop_assert_eq!(found.is_some(), is_denied);
            // Nobody is denied who has no token.
            prop_assert!(list.denial(&Holder::default()).is_none());
        }

        /// Each stream is ended once by each ending that came after it was admitted, and by no other.
        #[test]
        fn a_stream_that_looks_at_each_edition_misses_none(
            endings in proptest::collection::vec((0..3_usize, 1..50_u64), 0..20),
            admitted in 0..20_usize,
        ) {
            const PATTERNS: [&str; 3] = ["a*", "b", "*c"];
            let topics = [Topic::parse("ac").unwrap()];
            let mut list = Denylist::default();
            let mut seen = 0;
            for (edition, (which, at)) in endings.iter().enumerate() {
                let edition = u32::try_from(edition).unwrap() + 1;
                let text = format!("topics {}", PATTERNS[*which]);
                let is_new = list.learn(*at, &text, edition);
                if edition as usize <= admitted {
                    seen = edition;
                    continue;
                }
                let fits = pattern(PATTERNS[*which]).unwrap().covers(&topics[0]);
                prop_assert_eq!(list.ends(&topics, seen), fits && is_new);
                seen = edition;
            }
        }
    }
}
