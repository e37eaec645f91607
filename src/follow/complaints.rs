//! Lines of the log about what others do wrong: who is wrong is wrong often.

use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Between two lines for one reason.
const AGAIN: Duration = Duration::from_secs(10);
/// Reasons that are remembered; the oldest goes first.
const REASONS_MAX: usize = 64;

/// What was said of each reason: one line in ten seconds, so that many of one reason hide no other.
#[derive(Debug, Default)]
pub(crate) struct Complaints(BTreeMap<String, Said>);

#[derive(Clone, Copy, Debug)]
struct Said {
    at: Instant,
    left_out: u64,
}

impl Complaints {
    /// Whether to say it now, and then how many were left out since the last line for this reason.
    pub(crate) fn may_say(&mut self, reason: &str, now: Instant) -> Option<u64> {
        if let Some(said) = self.0.get_mut(reason) {
            if now < said.at + AGAIN {
                said.left_out += 1;
                return None;
            }
            let left_out = std::mem::take(&mut said.left_out);
            said.at = now;
            return Some(left_out);
        }
        if self.0.len() >= REASONS_MAX {
            let oldest = self.0.iter().min_by_key(|(_, said)| said.at);
            let oldest = oldest.map(|(reason, _)| reason.clone());
            oldest.and_then(|reason| self.0.remove(&reason));
        }
        let said = Said {
            at: now,
            left_out: 0,
        };
        self.0.insert(reason.to_owned(), said);
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_said_once_in_a_while_and_the_others_are_counted() {
        let mut complaints = Complaints::default();
        let start = Instant::now();
        assert_eq!(complaints.may_say("a", start), Some(0));
        assert_eq!(complaints.may_say("a", start), None);
        assert_eq!(complaints.may_say("b", start), Some(0));
        assert_eq!(complaints.may_say("a", start + AGAIN / 2), None);
        assert_eq!(complaints.may_say("a", start + AGAIN), Some(2));
        assert_eq!(complaints.may_say("a", start + AGAIN * 2), Some(0));
        for number in 0..1_000 {
            complaints.may_say(&number.to_string(), start);
        }
        assert_eq!(complaints.0.len(), REASONS_MAX);
    }
}
