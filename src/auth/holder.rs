//! Whom a stream is of, as far as that can end it: when its right ends, what the right lives by, and what a denial would
//! call it.

use super::claims::{Claims, Seconds};
use super::mark::{Mark, Name};
use crate::topic::Topic;
use std::time::Duration;

/// What kind of right it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    /// That of everybody, by the configuration alone.
    #[default]
    Everyones,
    /// That of a key.
    Key,
    /// That of a token.
    Token,
}

/// Who holds a right. Streams share one behind a pointer, so it is kept small, and has no text of a person.
#[derive(Clone, Debug)]
pub struct Holder {
    kind: Kind,
    /// By subject, by subject and issuer, by token.
    names: [Option<Name>; 3],
    /// When its token was made; the beginning of time if that does not say: then it counts as made before whatever is asked.
    issued_at: Seconds,
    /// The end of time if the right does not end.
    expires_at: Seconds,
    /// Each of these must be there.
    basis: Box<[Mark]>,
    /// Topics that it reads by everybody's right, and not by its own.
    lent: Box<[Topic]>,
}

/// Everybody, for as long as everybody may.
impl Default for Holder {
    fn default() -> Self {
        Self {
            kind: Kind::Everyones,
            names: [None; 3],
            issued_at: Seconds::MIN,
            expires_at: Seconds::MAX,
            basis: Box::default(),
            lent: Box::default(),
        }
    }
}

impl Holder {
    /// Whoever has a key with this mark.
    pub(super) fn of_key(mark: Mark) -> Self {
        Self {
            kind: Kind::Key,
            basis: [mark].into(),
            ..Self::default()
        }
    }

    /// Whoever has a token with these claims, which was accepted on this basis and holds until then.
    pub(super) fn of_token(claims: &Claims, basis: Vec<Mark>, until: Seconds) -> Self {
        let subject = claims.subject.as_deref();
        let issuer = claims.issuer.as_deref();
        Self {
            kind: Kind::Token,
            names: [
                subject.map(|subject| Name::subject(subject, None)),
                subject
                    .filter(|_| issuer.is_some())
                    .map(|subject| Name::subject(subject, issuer)),
                claims.id.as_deref().map(Name::token_id),
            ],
            issued_at: claims.issued_at.unwrap_or(Seconds::MIN),
            expires_at: until,
            basis: basis.into(),
            lent: Box::default(),
        }
    }

    /// The same, which reads these topics by everybody's right.
    pub(super) fn with_lent(&self, lent: Vec<Topic>) -> Self {
        Self {
            lent: lent.into(),
            ..self.clone()
        }
    }

    /// Whether it is known by its token alone: then it may be denied although its key is good.
    #[must_use]
    pub fn is_of_token(&self) -> bool {
        self.kind == Kind::Token
    }

    /// Whether it is everybody.
    pub(super) fn is_everybody(&self) -> bool {
        self.kind == Kind::Everyones
    }

    /// What a denial of its subject may call it.
    pub(super) fn subjects(&self) -> impl Iterator<Item = &Name> {
        self.names.iter().take(2).flatten()
    }

    /// What a denial of its token calls it.
    pub(super) fn token_id(&self) -> Option<&Name> {
        self.names.last()?.as_ref()
    }

    /// When its token was made.
    pub(super) fn issued_at(&self) -> Seconds {
        self.issued_at
    }

    pub(super) fn basis(&self) -> &[Mark] {
        &self.basis
    }

    pub(super) fn lent(&self) -> &[Topic] {
        &self.lent
    }

    /// When the right ends, in seconds since 1970; none if it does not.
    #[must_use]
    pub fn expires_at(&self) -> Option<Seconds> {
        (self.expires_at < Seconds::MAX).then_some(self.expires_at)
    }

    /// The same, since the Unix epoch.
    #[must_use]
    pub fn ends(&self) -> Option<Duration> {
        let seconds = u64::try_from(self.expires_at()?).unwrap_or_default();
        Some(Duration::from_secs(seconds))
    }
}
