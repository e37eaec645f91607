//! `GET /topics`: names of topics that have a log, to whom may know them.
//!
//! A page has no name that its caller may neither read nor list, `next` included. Names are looked through in order, and
//! only where those that may be listed can lie: behind what their patterns begin with. A pattern that begins with `*` may
//! lie anywhere; then so many names are looked through and no more, and the page says that there may be others.

use super::gateway::Gateway;
use super::problem::Problem;
use crate::auth::Grant;
use crate::topic::Topic;

/// Topics of one page, at most.
pub(super) const LIST_MAX: usize = 1000;
/// Names that are read at once.
const READ: usize = 256;
/// The same at first, of what begins as a pattern does: mostly there are few.
const READ_FIRST: usize = 16;
/// Names that one request looks through.
const LOOKED_MAX: usize = 20 * LIST_MAX;

/// One page of names.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) topics: Vec<Topic>,
    /// Whether there is nothing between these that was not looked at.
    pub(super) is_complete: bool,
}

/// Names above `after` that may be listed, `limit` at most.
pub(super) async fn page(
    gateway: &Gateway,
    grant: &Grant,
    after: &str,
    limit: usize,
) -> Result<Listing, Problem> {
    let prefixes = grant.listed_prefixes();
    let mut listing = Listing {
        topics: Vec::new(),
        is_complete: true,
    };
    let mut looked = 0;
    for prefix in prefixes.unwrap_or_else(|| vec![String::new()]) {
        let mut from = before(&prefix).max(after.to_owned());
        let mut most = if prefix.is_empty() {
            limit.max(READ)
        } else {
            READ_FIRST
        };
        loop {
            if looked >= LOOKED_MAX {
                listing.is_complete = false;
                return Ok(listing);
            }
            let names = gateway.broker.topics(&from, most).await?;
            let is_last = names.len() < most;
            most = most.max(READ);
            looked += names.len();
            for topic in names {
                if topic.as_str() > prefix.as_str() && !topic.as_str().starts_with(&prefix) {
                    from.clear();
                    break;
                }
                topic.as_str().clone_into(&mut from);
                if topic.as_str().starts_with(&prefix) && grant.lists(&topic) {
                    listing.topics.push(topic);
                    if listing.topics.len() == limit {
                        return Ok(listing);
                    }
                }
            }
            if is_last || from.is_empty() {
                break;
            }
        }
    }
    Ok(listing)
}

/// A text below every name that begins so, and above all but a few of the others.
fn before(prefix: &str) -> String {
    let mut chars = prefix.chars();
    let Some(last) = chars.next_back() else {
        return String::new();
    };
    let less = ('\0'..last).next_back().unwrap_or_default();
    format!("{}{less}{}", chars.as_str(), char::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_with_a_prefix_lies_behind_what_is_before_it() {
        for prefix in ["user:", "a", " ", "\u{e000}", "日本"] {
            let before = before(prefix);
            assert!(before.as_str() < prefix);
            for other in ["!", "a", "user", "user9", "users", "\u{d7ff}", "日"] {
                let is_below = other < prefix;
                assert!(!is_below || other < before.as_str(), "{prefix} {other}");
            }
        }
        assert_eq!(before(""), "");
    }
}
