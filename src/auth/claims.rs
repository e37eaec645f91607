//! What a token says, once its signature is good: for whom it is, from when until when, and what it grants ([RFC
//! 7519](https://www.rfc-editor.org/rfc/rfc7519#section-4.1)).

use super::action::Action;
use super::rights::{Rights, pattern};
use crate::metrics::AuthRefusal;
use serde_json::{Map, Value};
use std::time::Duration;

/// Seconds since 1970.
pub type Seconds = i64;

/// What a token must say.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// One of these issuers; none asks for none.
    pub issuers: Vec<String>,
    /// One of these audiences. Without any, a token that is for an audience is for somebody else.
    pub audiences: Vec<String>,
    /// The type in its header, such as `at+jwt`.
    pub kind: Option<String>,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// How long a token may still be good.
    pub life_max: Duration,
}

/// The registered claims of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Whom it is about.
    pub subject: Option<String>,
    /// Who has made it.
    pub issuer: Option<String>,
    audiences: Option<Vec<String>>,
    /// What it is called.
    pub id: Option<String>,
    /// When it was made.
    pub issued_at: Option<Seconds>,
    not_before: Option<Seconds>,
    expires_at: Seconds,
}

impl Claims {
    /// Reads them.
    ///
    /// # Errors
    /// [`AuthRefusal::Malformed`]: one is not what it must be, a time in quotes for one.
    /// [`AuthRefusal::NoExpiry`]: it would be good for ever.
    pub fn read(members: &Map<String, Value>) -> Result<Self, AuthRefusal> {
        let expires_at = seconds(members, "exp")?.ok_or(AuthRefusal::NoExpiry)?;
        Ok(Self {
            subject: text(members, "sub")?,
            issuer: text(members, "iss")?,
            audiences: audiences(members)?,
            id: text(members, "jti")?,
            issued_at: seconds(members, "iat")?,
            not_before: seconds(members, "nbf")?,
            expires_at,
        })
    }

    /// Until when its rights hold: its own time, and as much as clocks may differ.
    #[must_use]
    pub fn holds_until(&self, expected: &Expected) -> Seconds {
        self.expires_at.saturating_add(whole(expected.leeway))
    }

    /// The audience by which it is for us; none if it is for none.
    #[must_use]
    pub(super) fn audience<'a>(&self, expected: &'a Expected) -> Option<&'a str> {
        let said = self.audiences.as_ref()?;
        let mut ours = expected.audiences.iter();
        ours.find(|ours| said.contains(ours)).map(String::as_str)
    }

    /// Judges them at a time.
    ///
    /// # Errors
    /// [`AuthRefusal::Issuer`], [`AuthRefusal::Audience`], [`AuthRefusal::Expired`], [`AuthRefusal::NotYet`];
    /// [`AuthRefusal::LongLife`]: it would be good for longer than any may.
    pub fn judge(&self, expected: &Expected, now: Seconds) -> Result<(), AuthRefusal> {
        let is_issuer = |known: &String| Some(known) == self.issuer.as_ref();
        if !expected.issuers.is_empty() && !expected.issuers.iter().any(is_issuer) {
            return Err(AuthRefusal::Issuer);
        }
        let is_for_us = match self.audiences {
            Some(_) => self.audience(expected).is_some(),
            None => expected.audiences.is_empty(),
        };
        if !is_for_us {
            return Err(AuthRefusal::Audience);
        }
        let leeway = whole(expected.leeway);
        let is_ahead = |time: Seconds| time > now.saturating_add(leeway);
        if now >= self.holds_until(expected) {
            return Err(AuthRefusal::Expired);
        }
        if self.not_before.is_some_and(is_ahead) || self.issued_at.is_some_and(is_ahead) {
            return Err(AuthRefusal::NotYet);
        }
        // A token that says when it was made is judged by its whole life: one that is too long does not become good when
        // less of it is left, which may be after its denial was forgotten.
        let begins = self.issued_at.map_or(now, |at| at.min(now));
        let left = self.expires_at.saturating_sub(begins);
        if left > whole(expected.life_max).saturating_add(leeway) {
            return Err(AuthRefusal::LongLife);
        }
        Ok(())
    }
}

fn whole(duration: Duration) -> Seconds {
    Seconds::try_from(duration.as_secs()).unwrap_or(Seconds::MAX)
}

fn text(members: &Map<String, Value>, name: &str) -> Result<Option<String>, AuthRefusal> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(AuthRefusal::Malformed),
    }
}

/// A time, which may have a fraction: that is cut off.
#[expect(
    clippy::cast_possible_truncation,
    reason = "what is beyond the range becomes its end, which is long ago or far ahead"
)]
fn seconds(members: &Map<String, Value>, name: &str) -> Result<Option<Seconds>, AuthRefusal> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => {
            let whole = number.as_i64();
            let seconds = whole.or_else(|| number.as_f64().map(|seconds| seconds.floor() as i64));
            seconds.map(Some).ok_or(AuthRefusal::Malformed)
        }
        Some(_) => Err(AuthRefusal::Malformed),
    }
}

/// One audience, or a list of them.
fn audiences(members: &Map<String, Value>) -> Result<Option<Vec<String>>, AuthRefusal> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match members.get("aud") {
        None => Ok(None),
        Some(Value::String(one)) => Ok(Some(vec![one.clone()])),
        Some(Value::Array(several)) => {
            let several: Option<Vec<String>> = several.iter().map(text).collect();
            several.map(Some).ok_or(AuthRefusal::Malformed)
        }
        Some(_) => Err(AuthRefusal::Malformed),
    }
}

/// Adds what a token grants by itself: `{"subscribe": ["a", "b:*"], "operate": true}`.
///
/// # Errors
/// [`AuthRefusal::Grant`]: anything in it is none. Half of what was meant is not taken: whoever made the token has
/// another idea of it. [`AuthRefusal::Rights`]: there would be more patterns than `patterns_max`.
pub(super) fn grant(
    value: &Value,
    patterns_max: usize,
    rights: &mut Rights,
) -> Result<(), AuthRefusal> {
    let malformed = AuthRefusal::Grant;
    let members = value.as_object().ok_or(malformed)?;
    for (word, value) in members {
        match (Action::parse(word).ok_or(malformed)?, value) {
            (Action::Operate, Value::Bool(may)) => {
                if *may {
                    rights.add_operate();
                }
            }
            (Action::Operate, _) => return Err(malformed),
            (action, Value::Array(patterns)) => {
                for text in patterns {
                    let text = text.as_str().ok_or(malformed)?;
                    rights.add(action, pattern(text).map_err(|_| malformed)?);
                    if rights.count() > patterns_max {
                        return Err(AuthRefusal::Rights);
                    }
                }
            }
            _ => return Err(malformed),
        }
    }
    Ok(())
}
