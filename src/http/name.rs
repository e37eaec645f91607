//! The topic's name as it stands in a path.

use super::problem::Problem;
use super::shown::Shown;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

/// A name that was decoded, and not judged yet.
#[derive(Clone, Debug)]
pub(super) struct Name(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    /// axum's own answer is no `application/problem+json`.
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(_) => Err(Problem::bad_request(format!(
                "path {}: a topic must be UTF-8",
                Shown(parts.uri.path())
            ))),
        }
    }
}
