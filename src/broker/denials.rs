//! What was taken back, as a log's store keeps it. Its texts are the business of whoever reads them (`auth`).
//!
//! These are the rules; Redis has the same in Lua (`deny` and `denied` in `redis/internal.lua`).

use super::BrokerError;
use std::collections::HashMap;

/// Denials of one page, at most.
const PAGE: usize = 1000;

/// How a denial is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenialKind {
    /// Somebody is refused.
    Denied,
    /// Streams were ended, and nobody is refused.
    Disconnected,
}

impl DenialKind {
    /// The word in Redis.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Disconnected => "disconnected",
        }
    }
}

/// Some of what was taken back, in the order of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DenialPage {
    /// When the last was.
    pub last: u64,
    /// Now by the store's clock, in milliseconds since 1970, as all times here.
    pub now_ms: u64,
    /// How many there are in all.
    pub count: u64,
    /// There is nothing more up to here.
    pub up_to: u64,
    /// When, and what.
    pub entries: Vec<(u64, String)>,
}

/// The denials of a log in memory.
#[derive(Debug, Default)]
pub(super) struct Denials {
    lists: [HashMap<String, u64>; 2],
    last: u64,
}

impl Denials {
    /// Takes a right back, and says when that was. The same text again counts from now on. What is older than `keep_ms`
    /// makes room.
    ///
    /// # Errors
    /// [`BrokerError::TooManyDenials`]: there are `most` already.
    pub(super) fn deny(
        &mut self,
        kind: DenialKind,
        text: &str,
        keep_ms: u64,
        most: usize,
        now_ms: u64,
    ) -> Result<u64, BrokerError> {
        let [denied, disconnected] = &mut self.lists;
        let list = match kind {
            DenialKind::Denied => denied,
            DenialKind::Disconnected => disconnected,
        };
        list.retain(|_, at| at.saturating_add(keep_ms) > now_ms);
        // Each list by itself: whoever may end streams of a few topics must not keep others from locking a subject out, or
        // from ending all.
        if text != "all" && !list.contains_key(text) && list.len() >= most {
            return Err(BrokerError::TooManyDenials(most as u64));
        }
        self.last = now_ms.max(self.last + 1);
        list.insert(text.to_owned(), self.last);
        Ok(self.last)
    }

    /// What was taken back after a time, a page of it.
    pub(super) fn since(&self, since: u64, now_ms: u64) -> DenialPage {
        let all = self.lists.iter().flatten();
        let after = all.filter(|(_, at)| **at > since);
        let mut entries: Vec<_> = after.map(|(text, at)| (*at, text.clone())).collect();
        entries.sort_unstable();
        let is_cut = entries.len() > PAGE;
        entries.truncate(PAGE);
        let last_shown = entries.last().map(|(at, _)| *at);
        DenialPage {
            last: self.last,
            now_ms,
            count: self.lists.iter().map(HashMap::len).sum::<usize>() as u64,
            up_to: last_shown.filter(|_| is_cut).unwrap_or(self.last),
            entries,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::DenialKind::{Denied, Disconnected};
    use super::*;

    fn texts(page: &DenialPage) -> Vec<&str> {
        page.entries.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn each_has_a_time_of_its_own_that_only_grows() {
        let mut denials = Denials::default();
        let deny = |denials: &mut Denials, text: &str, now| {
            denials.deny(Denied, text, 1000, 10, now).unwrap()
        };
        assert_eq!(deny(&mut denials, "a", 100), 100);
        assert_eq!(deny(&mut denials, "b", 100), 101);
        assert_eq!(deny(&mut denials, "c", 50), 102, "the clock went back");
        let page = denials.since(100, 60);
        assert_eq!(texts(&page), ["b", "c"]);
        assert_eq!(
            (page.last, page.up_to, page.count, page.now_ms),
            (102, 102, 3, 60)
        );
        assert_eq!(deny(&mut denials, "a", 200), 200, "again");
        assert_eq!(texts(&denials.since(0, 200)), ["b", "c", "a"]);
        assert!(denials.since(200, 200).entries.is_empty());
    }

    #[test]
    fn there_are_no_more_than_may_be_and_the_oldest_stay_for_their_time() {
        let mut denials = Denials::default();
        denials.deny(Denied, "a", 1000, 1, 100).unwrap();
        denials.deny(Disconnected, "b", 10, 1, 200).unwrap();
        let full = Err(BrokerError::TooManyDenials(1));
        assert_eq!(denials.deny(Denied, "c", 1000, 1, 205), full);
        assert_eq!(denials.deny(Disconnected, "c", 10, 1, 205), full);
        assert_eq!(denials.deny(Denied, "a", 1000, 1, 300), Ok(300), "again");
        assert_eq!(denials.deny(Disconnected, "c", 10, 1, 300), Ok(301));
        assert_eq!(texts(&denials.since(0, 300)), ["a", "c"]);
        // Endings that are over, or not, keep nobody in.
        assert_eq!(denials.deny(Denied, "d", 1000, 1, 1301), Ok(1301));
        assert_eq!(texts(&denials.since(0, 1301)), ["c", "d"]);
        assert_eq!(
            denials.deny(Disconnected, "all", 1 << 20, 1, 1301),
            Ok(1302)
        );
    }

    #[test]
    fn many_come_in_pages_that_leave_nothing_out() {
        let mut denials = Denials::default();
        for n in 0..2500 {
            let kind = [Denied, Disconnected][n % 2];
            denials
                .deny(kind, &n.to_string(), 1 << 40, 1 << 20, 7)
                .unwrap();
        }
        let (mut since, mut found) = (0, Vec::new());
        loop {
            let page = denials.since(since, 7);
            found.extend(page.entries);
            since = page.up_to;
            if page.up_to == page.last {
                break;
            }
        }
        assert_eq!(found.len(), 2500);
        assert!(found.is_sorted());
    }
}
