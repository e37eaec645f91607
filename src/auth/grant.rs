//! What one request, or one stream, may do, and in whose name.

use super::action::Action;
use super::holder::Holder;
use super::rights::Rights;
use crate::topic::{Pattern, Topic};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use std::sync::Arc;

/// In whose name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Whoever can reach the gateway.
    Anyone,
    /// Who has `auth.publish_key`.
    KeyHolder,
    /// One of `auth.publishers`.
    Publisher(Arc<str>),
    /// Who has a token.
    Bearer {
        /// Whom it is about (`sub`).
        subject: Option<String>,
        /// Who has made it (`iss`).
        issuer: Option<String>,
    },
}

impl Who {
    /// The name for the log: a publisher's, or the kind of all others. Subjects are people, and stay out of it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Anyone => "anyone",
            Self::KeyHolder => "publish_key",
            Self::Publisher(name) => name,
            Self::Bearer { .. } => "token",
        }
    }
}

/// A stretch of the alphabet in which names of topics lie that are listed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stretch {
    /// What all of them begin with.
    pub begin: String,
    /// Which of those that begin so.
    pub lists: Lists,
}

/// Which names of a [`Stretch`] are listed. The wider comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lists {
    /// Each.
    All,
    /// Those that also fit the rest of a pattern.
    Some,
    /// The one that is no longer.
    One,
}

impl Stretch {
    fn of(pattern: &Pattern) -> Self {
        let lists = match (pattern.is_exact(), pattern.is_prefix()) {
            (true, _) => Lists::One,
            (_, true) => Lists::All,
            _ => Lists::Some,
        };
        let begin = pattern.prefix().to_owned();
        Self { begin, lists }
    }
}

/// Rights that hold until a time. Cloning shares them, and takes no lock. What a stream keeps of it is its [`Holder`],
/// behind eight bytes.
#[derive(Clone, Debug)]
pub struct Grant {
    who: Arc<Who>,
    holder: Arc<Holder>,
    own: Arc<Rights>,
    everyones: Option<Arc<Rights>>,
    has_credential: bool,
}

impl Grant {
    /// Of whom with these rights, and with those of everyone.
    #[must_use]
    pub(super) fn new(
        who: Who,
        holder: Holder,
        own: Arc<Rights>,
        everyones: Option<Arc<Rights>>,
    ) -> Self {
        Self {
            has_credential: who != Who::Anyone,
            who: Arc::new(who),
            holder: Arc::new(holder),
            own,
            everyones,
        }
    }

    /// Whether this may be done to this topic.
    #[must_use]
    pub fn allows(&self, action: Action, topic: &Topic) -> bool {
        let everyones = self.everyones.as_ref();
        self.own.allow(action, topic) || everyones.is_some_and(|all| all.allow(action, topic))
    }

    /// Whether there is any topic to which this may be done.
    #[must_use]
    pub fn has_any(&self, action: Action) -> bool {
        let has = |rights: &Arc<Rights>| rights.is_all() || !rights.patterns(action).is_empty();
        has(&self.own) || self.everyones.as_ref().is_some_and(has)
    }

    /// Whether this may be done to every topic that fits the pattern. Only what is plain is seen: the same pattern, one
    /// that is a beginning and a `*`, or all.
    #[must_use]
    pub fn covers(&self, action: Action, wanted: &Pattern) -> bool {
        let everyones = self.everyones.as_ref();
        self.own.cover(action, wanted) || everyones.is_some_and(|all| all.cover(action, wanted))
    }

    /// Whom a stream of these topics is of, that this grant allows to read them.
    #[must_use]
    pub fn holder_of(&self, topics: impl Iterator<Item = Topic>) -> Arc<Holder> {
        if self.holder.is_everybody() {
            return self.holder.clone();
        }
        let is_lent = |topic: &Topic| !self.own.allow(Action::Subscribe, topic);
        let lent: Vec<Topic> = topics.filter(is_lent).collect();
        if lent.is_empty() {
            return self.holder.clone();
        }
        Arc::new(self.holder.with_lent(lent))
    }

    /// Whom this is of.
    #[must_use]
    pub fn holder(&self) -> &Arc<Holder> {
        &self.holder
    }

    /// Whether what operators ask is answered.
    #[must_use]
    pub fn allows_operating(&self) -> bool {
        let everyones = self.everyones.as_ref();
        self.own.allow_operate() || everyones.is_some_and(|all| all.allow_operate())
    }

    /// Whether the topic is listed to whom this is of: whatever may be read, and what may be listed besides.
    #[must_use]
    pub fn lists(&self, topic: &Topic) -> bool {
        self.allows(Action::List, topic) || self.allows(Action::Subscribe, topic)
    }

    /// Where the names of topics lie that are listed, ascending, and no two overlap.
    #[must_use]
    pub fn listed(&self) -> Vec<Stretch> {
        self.stretches(|_| true)
    }

    /// The same of those patterns of which nothing but the beginning of a name decides.
    #[must_use]
    pub fn listed_wholly(&self) -> Vec<Stretch> {
        self.stretches(|stretch| stretch.lists != Lists::Some)
    }

    fn stretches(&self, counts: impl Fn(&Stretch) -> bool) -> Vec<Stretch> {
        let rights = || std::iter::once(&self.own).chain(&self.everyones);
        if rights().any(|rights| rights.is_all()) {
            let (begin, lists) = (String::new(), Lists::All);
            return vec![Stretch { begin, lists }];
        }
        let patterns = rights().flat_map(|rights| {
            let read = rights.patterns(Action::Subscribe).iter();
            read.chain(rights.patterns(Action::List))
        });
        let mut stretches: Vec<_> = patterns.map(Stretch::of).filter(counts).collect();
        stretches.sort_unstable();
        stretches.dedup_by(|later, earlier| {
            let is_within = later.begin.starts_with(&earlier.begin);
            is_within && (earlier.lists != Lists::One || later == earlier)
        });
        stretches
    }

    /// In whose name.
    #[must_use]
    pub fn who(&self) -> &Arc<Who> {
        &self.who
    }

    /// Whether the request brought something that says who it is.
    #[must_use]
    pub fn has_credential(&self) -> bool {
        self.has_credential
    }

    /// An idempotency key as the log knows it. Keys of one publisher are not those of another: each would take the other's
    /// event for its own, and publish nothing.
    ///
    /// Where there is one key or none, it stays as it was sent, as earlier builds have stored it. Otherwise it is a hash of
    /// its parts, each with its length before it, and begins with a character that no key has which is sent over HTTP. So
    /// it has a bounded length, and no two parts run together.
    #[must_use]
    pub fn scoped(&self, key: String) -> String {
        let parts: [&str; 3] = match &*self.who {
            Who::Anyone | Who::KeyHolder => return key,
            Who::Publisher(name) => ["publisher", name, ""],
            Who::Bearer {
                subject, issuer, ..
            } => [
                if subject.is_some() {
                    "subject"
                } else {
                    "token"
                },
                subject.as_deref().unwrap_or_default(),
                issuer.as_deref().unwrap_or_default(),
            ],
        };
        let mut hash = digest::Context::new(&digest::SHA256);
        for part in parts.into_iter().chain([key.as_str()]) {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        format!("\u{1e}{}", URL_SAFE_NO_PAD.encode(hash.finish().as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::rights::pattern;

    fn grant(who: Who, patterns: &[&str], everyones: &[&str]) -> Grant {
        let rights = |texts: &[&str]| {
            let patterns: Vec<_> = texts.iter().map(|text| pattern(text).unwrap()).collect();
            Arc::new(Rights::of(&patterns, &[Action::Subscribe]))
        };
        let (own, all) = (rights(patterns), rights(everyones));
        Grant::new(who, Holder::default(), own, Some(all))
    }

    fn bearer(subject: Option<&str>, issuer: Option<&str>) -> Who {
        Who::Bearer {
            subject: subject.map(str::to_owned),
            issuer: issuer.map(str::to_owned),
        }
    }

    #[test]
    fn what_everyone_may_adds_to_what_a_token_grants() {
        let grant = grant(bearer(None, None), &["user:a"], &["public:*"]);
        for (name, expected) in [("user:a", true), ("public:x", true), ("user:b", false)] {
            let topic = Topic::parse(name).unwrap();
            assert_eq!(grant.allows(Action::Subscribe, &topic), expected, "{name}");
            assert_eq!(grant.lists(&topic), expected, "{name}");
            assert!(!grant.allows(Action::Publish, &topic), "{name}");
        }
    }

    #[test]
    fn what_is_listed_lies_in_few_stretches() {
        let table: [(&[&str], &[(&str, Lists)], usize); 8] = [
            (
                &["a:*", "a:b:*", "b"],
                &[("a:", Lists::All), ("b", Lists::One)],
                2,
            ),
            (
                &["b", "a", "ab"],
                &[("a", Lists::One), ("ab", Lists::One), ("b", Lists::One)],
                3,
            ),
            (&["a", "a*", "a"], &[("a", Lists::All)], 1),
            (&["*:x", "a"], &[("", Lists::Some)], 1),
            (&["*:x", "*"], &[("", Lists::All)], 1),
            (
                &["a:*:x", "a:b:*", "c"],
                &[("a:", Lists::Some), ("c", Lists::One)],
                2,
            ),
            (&["*"], &[("", Lists::All)], 1),
            (&[], &[], 0),
        ];
        for (patterns, expected, wholly) in table {
            let grant = grant(Who::Anyone, patterns, &[]);
            let found = grant.listed();
            let found: Vec<_> = found.iter().map(|it| (&*it.begin, it.lists)).collect();
            assert_eq!(found, expected, "{patterns:?}");
            assert_eq!(grant.listed_wholly().len(), wholly, "{patterns:?}");
        }
        let all = Arc::new(Rights::all());
        let all = Grant::new(Who::KeyHolder, Holder::default(), all, None);
        assert_eq!(all.listed()[0].lists, Lists::All);
    }

    #[test]
    fn keys_of_one_are_not_keys_of_another() {
        let publisher = |name: &str| Who::Publisher(name.into());
        let table = [
            (Who::Anyone, "k"),
            (publisher("a"), "k"),
            (publisher("a"), "bk"),
            (publisher("ab"), "k"),
            (bearer(Some("a"), None), "k"),
            (bearer(Some("a"), Some("")), "\u{20}k"),
            (bearer(Some("a"), Some("b")), "k"),
            (bearer(Some("ab"), None), "k"),
            (bearer(Some(""), None), "k"),
            (bearer(None, None), "k"),
        ];
        let mut seen = Vec::new();
        for (who, key) in table {
            let scoped = grant(who, &[], &[]).scoped(key.to_owned());
            assert!(scoped.len() <= 44, "{scoped:?}");
            assert!(!seen.contains(&scoped), "{scoped:?}");
            seen.push(scoped);
        }
        // As it was stored before.
        let holder = grant(Who::KeyHolder, &[], &[]);
        assert_eq!(holder.scoped("k".to_owned()), "k");
    }
}
