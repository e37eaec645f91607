//! What the log of a replica says while Redis is away: a line when that begins, not one with every try.

use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Between two lines for one reason.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// Reasons that are told apart. Whatever comes beyond them waits.
const REASONS_MAX: usize = 16;

/// Why something could not be had since it was there last, and when that was said.
#[derive(Debug, Default)]
pub(crate) struct Outage(BTreeMap<String, Said>);

#[derive(Debug)]
struct Said {
    at: Instant,
    left_out: u64,
}

impl Outage {
    /// Whether to say it now, and then how many were left out since it was last said.
    pub(crate) fn may_say(&mut self, why: &str, now: Instant) -> Option<u64> {
        if let Some(said) = self.0.get_mut(why) {
            if now < said.at + SAY_AGAIN {
                said.left_out += 1;
                return None;
            }
            said.at = now;
            return Some(std::mem::take(&mut said.left_out));
        }
        self.0.retain(|_, said| now < said.at + SAY_AGAIN);
        if self.0.len() >= REASONS_MAX {
            return None;
        }
        let said = Said {
            at: now,
            left_out: 0,
        };
        self.0.insert(why.to_owned(), said);
        Some(0)
    }

    /// It is there: what comes next is another outage.
    pub(crate) fn over(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_said_when_it_begins_and_rarely_again() {
        let (mut outage, start) = (Outage::default(), Instant::now());
        assert_eq!(outage.may_say("refused", start), Some(0));
        assert_eq!(outage.may_say("refused", start), None);
        assert_eq!(outage.may_say("password", start), Some(0));
        assert_eq!(outage.may_say("refused", start + SAY_AGAIN / 2), None);
        assert_eq!(outage.may_say("refused", start + SAY_AGAIN), Some(2));
        outage.over();
        assert_eq!(outage.may_say("refused", start + SAY_AGAIN), Some(0));
        for reason in 0..REASONS_MAX * 2 {
            outage.may_say(&reason.to_string(), start + SAY_AGAIN);
        }
        assert_eq!(outage.0.len(), REASONS_MAX);
    }
}
