//! Times in eight bytes: every stream holds several, and an `Instant` takes sixteen.

use std::num::NonZeroU64;
use std::ops::Add;
use std::sync::LazyLock;
use std::time::Duration;
use tokio::time::Instant;

/// What every instant is counted from.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds of this process's monotonic clock. Zero is left out, so that an `Option` of it is
/// no larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CoarseInstant(NonZeroU64);

impl CoarseInstant {
    /// The present.
    #[must_use]
    pub fn now() -> Self {
        Instant::now().into()
    }

    /// The first instant that is not before it.
    #[must_use]
    pub fn instant(self) -> Instant {
        *START + Duration::from_millis(self.0.get() - 1)
    }

    /// Time from an earlier instant to this one; zero if that one is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl From<Instant> for CoarseInstant {
    /// Rounded down: a time that has come by this one has come by the instant.
    fn from(instant: Instant) -> Self {
        let passed = instant.saturating_duration_since(*START);
        Self(NonZeroU64::MIN.saturating_add(millis(passed)))
    }
}

impl Add<Duration> for CoarseInstant {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(millis(time)))
    }
}

/// Time since this process first looked, by a clock that does not jump.
#[must_use]
pub fn passed() -> Duration {
    Instant::now().saturating_duration_since(*START)
}

/// Whole milliseconds, the most that fit if there are more.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_an_instant_finds_it_come() {
        let now = CoarseInstant::now();
        for ms in [0, 1, 20, 86_400_000] {
            let then = now + Duration::from_millis(ms);
            assert_eq!(CoarseInstant::from(then.instant()), then);
            assert_eq!(then.since(now), Duration::from_millis(ms));
            assert_eq!(now.since(then), Duration::ZERO);
        }
        assert_eq!(size_of::<Option<CoarseInstant>>(), 8);
    }
}
