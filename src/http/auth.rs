//! Who may do what. Today: publishing and deleting need the publish key, if there is one.
//! Reading is open. Tokens for readers and writers have their place here.

use super::problem::Problem;
use axum::http::{HeaderMap, header};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq as _;

/// What a request may do.
#[derive(Clone, Debug)]
pub struct Auth {
    publish_key: Option<SecretString>,
    is_open: bool,
}

impl Auth {
    /// With this key, if any; open to all on purpose if it is `is_open`.
    #[must_use]
    pub fn new(publish_key: Option<SecretString>, is_open: bool) -> Self {
        Self {
            publish_key,
            is_open,
        }
    }

    /// Whether a key is asked for.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.publish_key.is_some()
    }

    /// Whether anyone may publish, on purpose.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether the request may publish and delete.
    ///
    /// # Errors
    /// 401, without a word about what was wrong with the key.
    pub fn may_publish(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(key) = &self.publish_key else {
            return Ok(());
        };
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let given = given
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let matches = given.is_some_and(|(_, token)| {
            token
                .trim()
                .as_bytes()
                .ct_eq(key.expose_secret().as_bytes())
                .into()
        });
        if matches {
            Ok(())
        } else {
            // What was given may be the key of another gateway.
            let given = match headers.get(header::AUTHORIZATION) {
                Some(_) => "what was sent is not the publish key",
                None => "the header is missing",
            };
            Err(Problem::unauthorized(format!(
                "Authorization: {given}; publishing needs Bearer and the publish key"
            )))
        }
    }
}
