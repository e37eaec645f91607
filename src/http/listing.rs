//! `GET /topics`: names of topics that have a log, to whom may know them.
//!
//! A page has no name that its caller may neither read nor list, `next` included. Names are looked through in order, and
//! only where those that may be listed can lie: behind what their patterns begin with.
//!
//! A pattern that goes on after its first `*` is found only by looking through names that the caller may not know. How far
//! that goes must not depend on them, or a page would tell where they lie. So all are looked through, or none: where more
//! topics have a log than [`LOOKED_MAX`], such patterns are left out, and every page says that it is not complete.

use super::gateway::Gateway;
use super::problem::Problem;
use crate::auth::{Grant, Lists, Stretch};
use crate::topic::Topic;

/// Topics of one page, at most.
pub(super) const LIST_MAX: usize = 1000;
/// Names that are read at once.
const READ: usize = 256;
/// The same at first, of what begins as a pattern does: mostly there are few.
const READ_FIRST: usize = 16;
/// Topics of a log that one request looks through for those that it may list.
const LOOKED_MAX: usize = 20 * LIST_MAX;

/// One page of names.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) topics: Vec<Topic>,
    /// Whether all patterns of the caller were looked for.
    pub(super) is_complete: bool,
}

/// Names above `after` that may be listed, `limit` at most.
pub(super) async fn page(
    gateway: &Gateway,
    grant: &Grant,
    after: &str,
    limit: usize,
) -> Result<Listing, Problem> {
    let mut stretches = grant.listed();
    let mut is_complete = true;
    let is_searched = |stretch: &Stretch| stretch.lists == Lists::Some;
    if stretches.iter().any(is_searched) && gateway.broker.topics_count().await? > LOOKED_MAX {
        stretches = grant.listed_wholly();
        is_complete = false;
    }
    let (mut topics, mut looked) = (Vec::new(), 0);
    for stretch in &stretches {
        if topics.len() == limit {
            break;
        }
        let all = look_through(
            gateway,
            grant,
            stretch,
            after,
            limit,
            &mut topics,
            &mut looked,
        );
        if !all.await? {
            is_complete = false;
            break;
        }
    }
    Ok(Listing {
        topics,
        is_complete,
    })
}

/// Adds those of one stretch, until there are `limit`. `looked` counts all names that were looked at; false if there are
/// too many of them.
async fn look_through(
    gateway: &Gateway,
    grant: &Grant,
    Stretch { begin, lists }: &Stretch,
    after: &str,
    limit: usize,
    topics: &mut Vec<Topic>,
    looked: &mut usize,
) -> Result<bool, Problem> {
    let mut from = before(begin).max(after.to_owned());
    let mut most = if begin.is_empty() {
        limit.max(READ)
    } else {
        READ_FIRST
    };
    loop {
        // So many have come since they were counted.
        if *looked > 2 * LOOKED_MAX && *lists == Lists::Some {
            return Ok(false);
        }
        let names = gateway.broker.topics(&from, most).await?;
        let is_last = names.len() < most;
        most = most.max(READ);
        *looked += names.len();
        for topic in names {
            let name = topic.as_str();
            let is_within = name.starts_with(begin.as_str());
            if name > begin.as_str() && (!is_within || *lists == Lists::One) {
                return Ok(true);
            }
            name.clone_into(&mut from);
            if is_within && grant.lists(&topic) {
                topics.push(topic);
                if topics.len() == limit {
                    return Ok(true);
                }
            }
        }
        if is_last {
            return Ok(true);
        }
    }
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
