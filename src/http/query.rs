//! Query strings, in which a key may stand several times. Keys that nobody asks for are left
//! alone: pages add cache breakers and proxies add their own.

use super::problem::Problem;
use std::str::FromStr;
use std::time::Duration;

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
                "{key} is a whole number from 1 to {most}"
            ))),
        }
    }

    /// A span of time such as `20s` or `5m`.
    ///
    /// # Errors
    /// A [`Problem`] that names the key.
    pub(super) fn duration(&self, key: &str) -> Result<Option<Duration>, Problem> {
        let Some(text) = self.first(key) else {
            return Ok(None);
        };
        match humantime::parse_duration(text) {
            Ok(duration) if !duration.is_zero() => Ok(Some(duration)),
            _ => Err(Problem::bad_request(format!(
                "{key} is a span of time such as 20s or 5m"
            ))),
        }
    }
}
