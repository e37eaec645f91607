//! Query strings, in which a name may stand several times.
//!
//! A name that nobody reads is refused. On streams only one that is nearly known is, and all others are left alone
//! and told: pages add cache breakers, proxies add their own, and a refusal would end an `EventSource` for good.

use super::problem::Problem;
use super::shown::Shown;
use super::vocabulary::Vocabulary;
use std::str::FromStr;
use std::time::Duration;

/// Names that a stream says it ignored, at most, and bytes of each: a stranger chooses them.
const IGNORED_MAX: usize = 8;
const IGNORED_BYTES_MAX: usize = 32;

/// For what takes no parameter at all.
pub(super) const NOTHING: Vocabulary = Vocabulary {
    what: "parameter",
    names: &[],
    also: &[],
    elsewhere: &[],
    slips: &[],
};

/// The pairs of a query string, decoded.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes the part of a URI after `?`. Bytes that are not UTF-8 become NUL, which no topic,
    /// type, number, duration or cursor takes; decoding alone would make a good character of them.
    #[must_use]
    pub(super) fn parse(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self(
            pairs
                .map(|(key, value)| (key.into_owned(), value.replace('\u{fffd}', "\0")))
                .collect(),
        )
    }

    /// As [`Query::parse`], where each name must be known.
    ///
    /// # Errors
    /// A [`Problem`] that names the first that is not, and the one that was meant if that can be said.
    pub(super) fn read(query: Option<&str>, known: &Vocabulary) -> Result<Self, Problem> {
        let query = Self::parse(query);
        if let Some(unknown) = query.names().find(|name| !known.knows(name)) {
            return Err(Problem::bad_request(known.refusal(unknown)));
        }
        Ok(query)
    }

    /// As [`Query::parse`], where names may be those of others, and some that are: each once, the beginning of it.
    ///
    /// # Errors
    /// A [`Problem`] about the first that is nearly known.
    pub(super) fn read_among_others(
        query: Option<&str>,
        known: &Vocabulary,
    ) -> Result<(Self, Vec<String>), Problem> {
        let query = Self::parse(query);
        let mut ignored: Vec<String> = Vec::new();
        for name in query.names().filter(|name| !known.knows(name)) {
            if known.meant_by(name).is_some() {
                return Err(Problem::bad_request(known.refusal(name)));
            }
            let shown = beginning(name);
            if ignored.len() < IGNORED_MAX && ignored.iter().all(|other| other != shown) {
                ignored.push(shown.to_owned());
            }
        }
        Ok((query, ignored))
    }

    /// Refuses a topic beside the one that the path names.
    ///
    /// # Errors
    /// A [`Problem`] that names both.
    pub(super) fn has_no_topic_beside(&self, topic: &str) -> Result<(), Problem> {
        match self.first("topic") {
            Some(other) => Err(Problem::bad_request(format!(
                "topic {}: the path already names {}; GET /events?topic=A&topic=B reads several",
                Shown(other),
                Shown(topic)
            ))),
            None => Ok(()),
        }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Every value of a key.
    pub(super) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }

    /// The first value of a key.
    #[must_use]
    pub(super) fn first(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a key that is a switch is set: alone, or with any value but `false` and `0`.
    #[must_use]
    pub(super) fn switch(&self, key: &str) -> bool {
        self.first(key)
            .is_some_and(|value| !matches!(value, "false" | "0"))
    }

    /// A whole number from 1 to `most`.
    ///
    /// # Errors
    /// A [`Problem`] that names the key.
    pub(super) fn number<T>(&self, key: &str, most: &T) -> Result<Option<T>, Problem>
    where
        T: FromStr + PartialOrd + From<u8> + std::fmt::Display,
    {
        let Some(text) = self.first(key) else {
            return Ok(None);
        };
        match text.parse::<T>() {
            Ok(number) if number >= T::from(1) && number <= *most => Ok(Some(number)),
            _ => Err(Problem::bad_request(format!(
                "{key} {}: must be a whole number from 1 to {most}",
                Shown(text)
            ))),
        }
    }

    /// A span of time such as `20s` or `5m`; `others` says what else would be right.
    ///
    /// # Errors
    /// A [`Problem`] that names the key.
    pub(super) fn duration(&self, key: &str, others: &str) -> Result<Option<Duration>, Problem> {
        let Some(text) = self.first(key) else {
            return Ok(None);
        };
        match humantime::parse_duration(text) {
            Ok(duration) if !duration.is_zero() => Ok(Some(duration)),
            _ => Err(Problem::bad_request(format!(
                "{key} {}: must be {others}a span of time such as 20s or 5m",
                Shown(text)
            ))),
        }
    }
}

/// What of a name is told.
fn beginning(name: &str) -> &str {
    let ends = (0..=IGNORED_BYTES_MAX).rev();
    let mut beginnings = ends.filter_map(|end| name.get(..end));
    beginnings.next().unwrap_or_default()
}
