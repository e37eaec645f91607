//! What the doctor finds, and how bad it is.

use serde::Serialize;

/// Clocks that differ by more seconds are worth a look, as the alert `TidegateClockOff` has it: latencies, which are judged by
/// the second, are off by as much. By so much more, something is wrong.
pub(super) const SKEW: (f64, f64) = (0.5, 30.0);

/// How bad it is that two clocks differ by so many seconds, to either side.
pub(super) fn judge_skew(seconds: f64) -> Level {
    match seconds.abs() {
        skew if skew > SKEW.1 => Level::Fault,
        skew if skew > SKEW.0 => Level::Warning,
        _ => Level::Ok,
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    /// Worth a look; the exit code is 0.
    Warning,
    /// Something fails, or will under load.
    Fault,
}

/// What one check has found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    pub(super) area: &'static str,
    pub(super) check: &'static str,
    pub(super) level: Level,
    /// What is.
    pub(super) found: String,
    /// What to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

/// Findings of one area, as they come.
#[derive(Debug)]
pub(super) struct Findings {
    area: &'static str,
    pub(super) all: Vec<Finding>,
}

impl Findings {
    pub(super) fn of(area: &'static str) -> Self {
        Self {
            area,
            all: Vec::new(),
        }
    }

    pub(super) fn add(
        &mut self,
        level: Level,
        check: &'static str,
        found: String,
        advice: Option<String>,
    ) {
        self.all.push(Finding {
            area: self.area,
            check,
            level,
            found,
            advice,
        });
    }

    pub(super) fn ok(&mut self, check: &'static str, found: impl Into<String>) {
        self.add(Level::Ok, check, found.into(), None);
    }

    pub(super) fn warning(
        &mut self,
        check: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(Level::Warning, check, found.into(), Some(advice.into()));
    }

    pub(super) fn fault(
        &mut self,
        check: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(Level::Fault, check, found.into(), Some(advice.into()));
    }
}
