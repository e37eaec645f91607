//! Clients that do the same side by side, again and again, and what came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout_at};

/// How often each outcome was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally(BTreeMap<String, u64>);

impl Tally {
    pub(super) fn add(&mut self, outcome: impl fmt::Display) {
        *self.0.entry(outcome.to_string()).or_default() += 1;
    }

    pub(super) fn count(&self, outcome: &str) -> u64 {
        self.0.get(outcome).copied().unwrap_or_default()
    }

    fn merge(&mut self, other: Self) {
        for (outcome, count) in other.0 {
            *self.0.entry(outcome).or_default() += count;
        }
    }

    /// In words, if at least one was seen, and none but those that are expected or no answer at all.
    pub(super) fn only(&self, expected: &[&str]) -> Result<String, String> {
        let is_expected = |outcome: &str| {
            expected.contains(&outcome) || outcome.starts_with("no ") || outcome == LEFT
        };
        let is_seen = expected.iter().any(|outcome| self.count(outcome) > 0);
        match self.0.keys().find(|outcome| !is_expected(outcome)) {
            Some(outcome) => Err(format!("answered {outcome}, of {self}")),
            None if !is_seen => Err(format!("none of {expected:?} was answered: {self}")),
            None => Ok(self.to_string()),
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = |(outcome, count): (&String, &u64)| format!("{count} x {outcome}");
        let all: Vec<String> = self.0.iter().map(each).collect();
        f.write_str(&all.join(", "))
    }
}

/// Under way when the time was over.
const LEFT: &str = "left";

/// Has `clients` clients do it, each so many times a second at most, until then. `act` is told which client it is and
/// how many times that one has done it.
pub(super) async fn crowd<A, F>(clients: usize, per_second: u32, until: Instant, act: A) -> Tally
where
    A: Fn(usize, u64) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = String> + Send,
{
    let mut all = JoinSet::new();
    for client in 0..clients {
        let act = act.clone();
        all.spawn(async move {
            let mut tally = Tally::default();
            let mut beat = interval(Duration::from_secs(1) / per_second);
            for time in 0.. {
                // Whoever falls behind does not make up for it.
                beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                if timeout_at(until, beat.tick()).await.is_err() {
                    break;
                }
                let done = timeout_at(until, act(client, time)).await;
                tally.add(done.unwrap_or_else(|_| LEFT.to_owned()));
            }
            tally
        });
    }
    let mut whole = Tally::default();
    while let Some(tally) = all.join_next().await {
        whole.merge(tally.unwrap_or_default());
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_expected_is_said() {
        let mut tally = Tally::default();
        tally.add("400");
        tally.add("400");
        tally.add("no answer");
        assert_eq!(tally.only(&["400"]), Ok("2 x 400, 1 x no answer".into()));
        assert!(tally.only(&["404"]).is_err());
        tally.add(200);
        assert!(tally.only(&["400"]).is_err());
        assert!(Tally::default().only(&["400"]).is_err());
    }
}
