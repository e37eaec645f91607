//! Answers in JSON.

use super::problem::Problem;
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// A JSON answer that ends its line: in a terminal the prompt stands below it, and tools that read lines read it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<T> Json<T> {
    /// An answer whose body is JSON already.
    pub(super) fn response(body: impl Into<Body>) -> Response {
        let kind = HeaderValue::from_static("application/json");
        ([(header::CONTENT_TYPE, kind)], body.into()).into_response()
    }
}

impl<T: Serialize> Json<T> {
    /// The line.
    ///
    /// # Errors
    /// 500; our own structs of strings and numbers always serialise.
    pub(super) fn into_bytes(self) -> Result<Vec<u8>, Problem> {
        let mut body = serde_json::to_vec(&self.0).map_err(|_| Problem::internal())?;
        body.push(b'\n');
        Ok(body)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match self.into_bytes() {
            Ok(body) => Self::response(body),
            Err(problem) => problem.into_response(),
        }
    }
}
