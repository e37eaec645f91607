//! Who a request is of, and what that one may do.

use super::action::Action;
use super::algorithm::Algorithm;
use super::claims::{self, Claims, Expected, Seconds};
use super::credentials::Credential;
use super::grant::{Grant, Who};
use super::holder::Holder;
use super::jwks::KeySets;
use super::jws::Jws;
use super::key::Key;
use super::keyring::{Keyring, find};
use super::known::{Known, hash_of};
use super::mark::Mark;
use super::publisher::{self, KEY_PREFIX, Publisher};
use super::rights::Rights;
use super::rule::ClaimRule;
use crate::metrics::AuthRefusal;
use crate::topic::Topic;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

/// How often the key of one token is looked for, at most, while sets come in.
const LOOKS_MAX: usize = 3;

/// How tokens are judged.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    /// What they are signed with.
    pub keys: Keyring,
    /// The same, fetched from addresses. Neither: there are no tokens.
    pub sets: KeySets,
    /// What they must say.
    pub expected: Expected,
    /// Bytes of one, at most.
    pub bytes_max: usize,
    /// Patterns that one grants, at most.
    pub patterns_max: usize,
    /// The claim that grants by itself.
    pub claim: String,
    /// What other claims grant.
    pub rules: Arc<[ClaimRule]>,
}

/// All that is known of who may do what. Made of the configuration, and anew with it.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Who has it may do everything.
    pub publish_key: Option<SecretString>,
    /// Publishers by name.
    pub publishers: Arc<[Publisher]>,
    /// Tokens.
    pub tokens: Tokens,
    /// What the world may do, if anything is said of it.
    pub anonymous: Option<Arc<Rights>>,
    /// Tokens that are remembered once they were verified, at most.
    pub tokens_known_max: usize,
}

/// Judges credentials. A credential that is there and not good is refused, whatever the world may do: who sent it takes
/// itself for somebody.
#[derive(Clone, Debug)]
pub struct Authority {
    settings: Settings,
    all: Arc<Rights>,
    /// Of whom nothing is asked.
    open: Grant,
    /// Of whom nothing is known.
    nobody: Grant,
    known: Arc<Known>,
    /// What rights may live by, but for keys that are fetched.
    marks: HashSet<Mark>,
}

/// A token that is good.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// What it grants.
    pub rights: Rights,
    /// The registered claims.
    pub claims: Claims,
    /// Until when.
    pub until: Seconds,
    /// What it was accepted and granted by.
    basis: Vec<Mark>,
}

impl Authority {
    /// By these settings.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let all = Arc::new(Rights::all());
        let everyones = settings.anonymous.clone();
        Self {
            open: Grant::new(Who::Anyone, Holder::default(), all.clone(), None),
            nobody: Grant::new(Who::Anyone, Holder::default(), Arc::default(), everyones),
            all,
            known: Arc::new(Known::new(settings.tokens_known_max)),
            marks: settings.marks().collect(),
            settings,
        }
    }

    /// Whether anything is asked of whoever would do this. If not, everybody may, and no credential is looked at.
    ///
    /// Reading is open unless tokens are known, or it is said what the world may read.
    #[must_use]
    pub fn asks(&self, action: Action) -> bool {
        if action.is_read() {
            self.has_tokens() || self.settings.anonymous.is_some()
        } else {
            self.has_tokens() || self.has_keys()
        }
    }

    /// Whether there are keys for publishers.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.settings.publish_key.is_some() || !self.settings.publishers.is_empty()
    }

    /// Whether tokens are known. They are if their keys could not be fetched yet, too: nothing is open for want of keys.
    #[must_use]
    pub fn has_tokens(&self) -> bool {
        self.settings.tokens.are_known()
    }

    /// How tokens are judged.
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        &self.settings.tokens
    }

    /// Tokens that are remembered.
    #[must_use]
    pub fn tokens_known(&self) -> usize {
        self.known.count()
    }

    /// Publishers by name.
    #[must_use]
    pub fn publishers(&self) -> &[Publisher] {
        &self.settings.publishers
    }

    /// Who this is, at this time.
    ///
    /// # Errors
    /// Why the credential is not good; [`AuthRefusal::KeysAway`] is no definite no.
    pub fn grant(
        &self,
        credential: Option<Credential<'_>>,
        now: Seconds,
    ) -> Result<Grant, AuthRefusal> {
        let Some(Credential { text, .. }) = credential else {
            return Ok(self.nobody.clone());
        };
        if let Some(grant) = self.key_grant(text) {
            return Ok(grant);
        }
        if !self.has_tokens() || text.starts_with(KEY_PREFIX) {
            return Err(AuthRefusal::PublishKey);
        }
        let hash = hash_of(text);
        let keys = self.settings.tokens.sets.generation();
        if let Some(grant) = self.known.get(&hash, now, keys) {
            return Ok(grant);
        }
        let accepted = self.settings.tokens.judge(text, now)?;
        let holder = Holder::of_token(&accepted.claims, accepted.basis, accepted.until);
        let Claims {
            subject, issuer, ..
        } = accepted.claims;
        let who = Who::Bearer { subject, issuer };
        let everyones = self.settings.anonymous.clone();
        let grant = Grant::new(who, holder, Arc::new(accepted.rights), everyones);
        self.known.put(hash, grant.clone(), keys);
        Ok(grant)
    }

    /// What a key for publishers grants; none if it is none.
    #[must_use]
    pub fn key_grant(&self, text: &str) -> Option<Grant> {
        let everyones = self.settings.anonymous.clone();
        let own = self.settings.publish_key.as_ref();
        let is_own = own.is_some_and(|key| {
            let key = key.expose_secret().as_bytes();
            key.ct_eq(text.as_bytes()).into()
        });
        if is_own {
            let holder = Holder::of_key(publish_key_mark(text));
            return Some(Grant::new(
                Who::KeyHolder,
                holder,
                self.all.clone(),
                everyones,
            ));
        }
        if !text.starts_with(KEY_PREFIX) {
            return None;
        }
        let publisher = publisher::find(&self.settings.publishers, text)?;
        let who = Who::Publisher(publisher.name.clone());
        let holder = Holder::of_key(publisher.mark());
        Some(Grant::new(who, holder, publisher.rights.clone(), everyones))
    }

    /// Whether a stream of these topics may go on: all that its right lives by is there still, and what it reads by
    /// everybody's right everybody may read.
    ///
    /// It may be ended although another judgement would grant the same. Its client comes back, and is judged anew.
    #[must_use]
    pub(super) fn still_grants(&self, holder: &Holder, topics: &[Topic]) -> bool {
        let may_all_read = |topic: &Topic| {
            !self.asks(Action::Subscribe) || self.nobody.allows(Action::Subscribe, topic)
        };
        if holder.is_everybody() {
            return topics.iter().all(may_all_read);
        }
        let sets = &self.settings.tokens.sets;
        let is_there =
            |mark: &Mark| self.marks.contains(mark) || sets.iter().any(|set| set.may_have(*mark));
        holder.basis().iter().all(is_there) && holder.lent().iter().all(may_all_read)
    }

    /// What everybody may of whom nothing is asked.
    #[must_use]
    pub fn open(&self) -> Grant {
        self.open.clone()
    }
}

impl Settings {
    fn marks(&self) -> impl Iterator<Item = Mark> {
        let own = self.publish_key.as_ref();
        let own = own.map(|key| publish_key_mark(key.expose_secret()));
        let publishers = self.publishers.iter().map(Publisher::mark);
        own.into_iter().chain(publishers).chain(self.tokens.marks())
    }
}

fn publish_key_mark(key: &str) -> Mark {
    Mark::of("publish_key", &[key.as_bytes()])
}

/// Of what a token must say, and says; none where nothing is asked.
fn said_mark(kind: &str, said: Option<&str>) -> Mark {
    let parts = said.map(str::as_bytes);
    Mark::of(kind, parts.as_slice())
}

impl Tokens {
    /// Whether there is anything that signs tokens.
    #[must_use]
    pub fn are_known(&self) -> bool {
        !self.keys.is_empty() || !self.sets.is_empty()
    }

    /// What the right of a token may live by, but for keys that are fetched.
    fn marks(&self) -> Vec<Mark> {
        let Expected {
            issuers,
            audiences,
            kind,
            ..
        } = &self.expected;
        let mut marks = vec![
            said_mark("type", kind.as_deref()),
            said_mark("claim", Some(&self.claim)),
        ];
        for (word, each) in [("issuer", issuers), ("audience", audiences)] {
            if each.is_empty() {
                marks.push(said_mark(word, None));
            }
            marks.extend(each.iter().map(|one| said_mark(word, Some(one))));
        }
        marks.extend(self.rules.iter().map(ClaimRule::mark));
        marks.extend(self.keys.keys().iter().map(Key::mark));
        marks
    }

    /// What a token with this key and these claims was accepted by.
    fn basis(&self, key: Mark, claims: &Claims) -> Vec<Mark> {
        let expected = &self.expected;
        let issuer = claims.issuer.as_deref();
        vec![
            key,
            said_mark("type", expected.kind.as_deref()),
            said_mark("issuer", issuer.filter(|_| !expected.issuers.is_empty())),
            said_mark("audience", claims.audience(expected)),
        ]
    }

    /// Judges a token: its form, its key, its signature, its time, and what it grants, in this order. Nothing that it says
    /// is told of before its signature is good.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn judge(&self, token: &str, now: Seconds) -> Result<Accepted, AuthRefusal> {
        let jws = Jws::read(token, self.bytes_max)?;
        let (issuer, key) = self.signer(&jws, token)?;
        if !fits_kind(self.expected.kind.as_deref(), jws.kind.as_deref()) {
            return Err(AuthRefusal::Type);
        }
        let members = jws.claims()?;
        let claims = Claims::read(&members)?;
        if issuer.is_some() && issuer.as_deref() != claims.issuer.as_deref() {
            return Err(AuthRefusal::Issuer);
        }
        claims.judge(&self.expected, now)?;
        let mut basis = self.basis(key, &claims);
        Ok(Accepted {
            rights: self.rights(&members, claims.issuer.as_deref(), &mut basis)?,
            until: claims.holds_until(&self.expected),
            claims,
            basis,
        })
    }

    /// Of the key that has signed the token: the one issuer that it signs for, none if it signs for any, and its mark.
    fn signer(&self, jws: &Jws<'_>, token: &str) -> Result<(Option<Box<str>>, Mark), AuthRefusal> {
        for _ in 0..LOOKS_MAX {
            let generation = self.sets.generation();
            let sets = self.sets.keys();
            let fetched = sets.iter().flat_map(|set| set.iter());
            let keys: Vec<&Key> = self.keys.keys().iter().chain(fetched).collect();
            let refusal = match signer(&keys, jws) {
                Ok(key) => return Ok((key.issuer.clone(), key.mark())),
                Err(refusal) => refusal,
            };
            if self.sets.is_empty() || !may_be_of_newer_key(&keys, jws) {
                return Err(refusal);
            }
            if !self.sets.are_without_key(token) {
                return Err(AuthRefusal::KeysAway);
            }
            // The fetch that has decided may have brought the key a moment after it was looked for.
            if generation == self.sets.generation() {
                return Err(refusal);
            }
        }
        Err(AuthRefusal::KeysAway)
    }

    fn rights(
        &self,
        members: &Map<String, Value>,
        issuer: Option<&str>,
        basis: &mut Vec<Mark>,
    ) -> Result<Rights, AuthRefusal> {
        let mut rights = Rights::default();
        if let Some(value) = members.get(&self.claim) {
            claims::grant(value, self.patterns_max, &mut rights)?;
            basis.push(said_mark("claim", Some(&self.claim)));
        }
        for rule in self.rules.iter() {
            let before = rights.count();
            rule.apply(members, issuer, self.patterns_max, &mut rights)?;
            if rights.count() > before {
                basis.push(rule.mark());
            }
            if rights.count() > self.patterns_max {
                return Err(AuthRefusal::Rights);
            }
        }
        Ok(rights)
    }
}

/// The key that the token is signed with.
fn signer<'a>(keys: &[&'a Key], jws: &Jws<'_>) -> Result<&'a Key, AuthRefusal> {
    let id = jws.key_id.as_deref();
    let fitting = find(keys.iter().copied(), id, jws.algorithm).or_else(|refusal| {
        // Perhaps too many fit, since another issuer has called its keys so: they cannot sign for the issuer that the token
        // names. What it says is believed for this alone, and can but leave keys out.
        let members = jws.claims().map_err(|_| refusal)?;
        let said = members.get("iss").and_then(Value::as_str);
        let may_sign = |key: &&Key| key.issuer.is_none() || key.issuer.as_deref() == said;
        find(keys.iter().copied().filter(may_sign), id, jws.algorithm).map_err(|_| refusal)
    })?;
    let mut fitting = fitting.into_iter();
    let signed = fitting.find(|key| key.verifies(jws.signed, &jws.signature));
    signed.ok_or(AuthRefusal::Signature)
}

/// Whether a token that no key has signed may be of one that is not known yet. It is not, if the key is known that it
/// names, or if it is signed with a secret: those are not fetched.
fn may_be_of_newer_key(keys: &[&Key], jws: &Jws<'_>) -> bool {
    let id = jws.key_id.as_deref();
    let is_named = id.is_some() && keys.iter().any(|key| key.id() == id);
    let is_public = |algorithm: Algorithm| algorithm.secret_bytes_min().is_none();
    !is_named && jws.algorithm.is_some_and(is_public)
}

/// Whether the type of a token is the one that is asked for, with or without `application/` ([RFC 7515, section
/// 4.1.9](https://www.rfc-editor.org/rfc/rfc7515#section-4.1.9)).
fn fits_kind(expected: Option<&str>, said: Option<&str>) -> bool {
    let bare = |kind: &str| {
        let kind = kind.to_ascii_lowercase();
        kind.strip_prefix("application/")
            .map_or(kind.clone(), str::to_owned)
    };
    expected.is_none_or(|expected| said.map(bare) == Some(bare(expected)))
}
