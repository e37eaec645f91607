//! What is said where nothing is: of a path that leads nowhere, and of a method that a path does not take.

use super::problem::Problem;
use super::shown::Shown;
use axum::http::{Method, Uri};

/// Paths for everybody.
pub(super) const PATHS: &[&str] = &[
    "/events",
    "/events/TOPIC",
    "/topics",
    "/topics/TOPIC",
    "/topics/TOPIC/events",
    "/disconnect",
    "/tickets",
    "/session",
];
/// Paths for operators.
pub(super) const OPS_PATHS: &[&str] = &["/healthz", "/readyz", "/metrics", "/streams"];
/// Bytes of a path that is told back as it should be.
const PATH_SHOWN_MAX: usize = 80;

/// Answers a path that leads nowhere; there are these.
pub(super) fn no_path(uri: &Uri, paths: &[&str]) -> Problem {
    let path = uri.path();
    let right = slash_at_the_end(path).or_else(|| slash_in_a_topic(path));
    let right = right
        .unwrap_or_else(|| format!("there is no such path; the paths are {}", paths.join(", ")));
    Problem::not_found(format!("path {}: {right}", Shown(path)))
}

/// Answers a method that the path does not take.
pub(super) async fn no_method(method: Method, uri: Uri) -> Problem {
    let (given, path) = (Shown(method.as_str()), Shown(uri.path()));
    let methods = methods_of(uri.path());
    Problem::method_not_allowed(format!("method {given}: {path} takes {methods}"))
}

/// What a path takes that is there.
pub(super) fn methods_of(path: &str) -> &'static str {
    let topic = path.strip_prefix("/topics/");
    if path == "/events" || path.starts_with("/events/") {
        "GET, HEAD, POST and OPTIONS"
    } else if path == "/tickets" {
        "POST"
    } else if path == "/session" {
        "POST and DELETE"
    } else if topic.is_some_and(|topic| !topic.contains('/')) {
        "GET, HEAD and DELETE"
    } else if path == "/disconnect" {
        "POST"
    } else {
        "GET and HEAD"
    }
}

fn slash_at_the_end(path: &str) -> Option<String> {
    let right = path.strip_suffix('/')?;
    let is_ours = ["/events", "/topics", "/tickets", "/session", "/disconnect"].contains(&right)
        || right.starts_with("/events/")
        || right.starts_with("/topics/");
    is_ours.then(|| {
        format!(
            "a path does not end with a slash; use {}",
            told(right, "/events")
        )
    })
}

/// A slash parts a path, and those of a topic's name are written another way.
fn slash_in_a_topic(path: &str) -> Option<String> {
    let (before, topic, after) = if let Some(topic) = path.strip_prefix("/events/") {
        ("/events/", topic, "")
    } else {
        let rest = path.strip_prefix("/topics/")?;
        let page = rest.strip_suffix("/events").map(|topic| (topic, "/events"));
        let (topic, after) = page.unwrap_or((rest, ""));
        ("/topics/", topic, after)
    };
    let right = format!("{before}{}{after}", topic.replace('/', "%2F"));
    Some(format!(
        "a slash in the name of a topic is written %2F; use {}",
        told(&right, "/events/a%2Fb")
    ))
}

/// A path as it should be, or another one in place of one that is long.
fn told<'a>(right: &'a str, other: &'a str) -> &'a str {
    if right.len() > PATH_SHOWN_MAX {
        other
    } else {
        right
    }
}
