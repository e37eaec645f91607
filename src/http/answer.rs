//! Answers in JSON.

use super::problem::Problem;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// A JSON answer that ends its line: in a terminal the prompt stands below it, and tools that read lines read it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        // Our own structs of strings and numbers always serialise.
        let Ok(mut body) = serde_json::to_vec(&self.0) else {
            return Problem::internal().into_response();
        };
        body.push(b'\n');
        let kind = HeaderValue::from_static("application/json");
        ([(header::CONTENT_TYPE, kind)], body).into_response()
    }
}
