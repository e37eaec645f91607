//! What the good ones noticed of a kind, and what it cost: one row of the table.

use super::{Kind, Seen};
use crate::report::{latencies, write_table};
use crate::run::{Abused, Evidence};
use crate::verdict::{Offence, Verdict};
use std::fmt::{self, Display};

/// The columns of the table.
const COLUMNS: [&str; 12] = [
    "abuse",
    "good events",
    "lost",
    "repeated",
    "p99 quiet",
    "p99 abused",
    "ratio",
    "replica, MB",
    "Redis, MB",
    "Redis busy",
    "longest call",
    "what was done, and what was refused",
];

/// One kind in one run.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was done.
    pub kind: Kind,
    events: usize,
    lost: usize,
    repeated: usize,
    quiet_us: u64,
    abused_us: u64,
    said: String,
    seen: Seen,
}

impl Row {
    /// A row for each kind of a run. What was lost and repeated is that of the whole run.
    #[must_use]
    pub fn all(evidence: &Evidence, verdict: &Verdict) -> Vec<Self> {
        let first = evidence.abuses.iter().map(|abused| abused.from_us).min();
        let quiet_us = p99(evidence, 0, first.unwrap_or_default());
        let row = |abused: &Abused| {
            let Abused {
                kind,
                from_us,
                to_us,
                said,
                seen,
            } = abused;
            let good = evidence.records.iter().filter(|record| {
                record.fate.is_owed() && (*from_us..*to_us).contains(&record.event.sent_us)
            });
            Self {
                kind: *kind,
                events: good.count(),
                lost: verdict.count(Offence::Lost),
                repeated: verdict.count(Offence::Repeated),
                quiet_us,
                abused_us: p99(evidence, *from_us, *to_us),
                said: said.clone(),
                seen: seen.clone(),
            }
        };
        evidence.abuses.iter().map(row).collect()
    }

    /// How many times as long the good ones waited, in hundredths.
    #[must_use]
    pub fn ratio_hundredths(&self) -> u64 {
        self.abused_us * 100 / self.quiet_us.max(1)
    }

    fn cells(&self) -> [String; COLUMNS.len()] {
        let millis = |us: u64| format!("{}.{} ms", us / 1000, us / 100 % 10);
        let ratio = self.ratio_hundredths();
        let seen = &self.seen;
        let longest = seen.longest.as_ref();
        let longest = longest.map(|(us, name)| format!("{} {name}", millis(*us)));
        let refused = seen
            .refused
            .iter()
            .map(|(name, count)| format!("{name} {count}"));
        let refused: Vec<String> = refused.collect();
        [
            self.kind.described().0.to_owned(),
            self.events.to_string(),
            self.lost.to_string(),
            self.repeated.to_string(),
            millis(self.quiet_us),
            millis(self.abused_us),
            format!("{}.{:02}", ratio / 100, ratio % 100),
            (seen.replica_kb / 1024).to_string(),
            (seen.redis_kb / 1024).to_string(),
            format!("{} %", seen.redis_busy),
            longest.unwrap_or_else(|| "below 0.5 ms".to_owned()),
            format!("{}; {}", self.said, refused.join(", ")),
        ]
    }
}

/// Of events that were sent in that time, on streams that were open by then.
fn p99(evidence: &Evidence, from_us: u64, to_us: u64) -> u64 {
    let all = latencies(&evidence.diaries, from_us..to_us);
    all.get(all.len() * 99 / 100).copied().unwrap_or_default()
}

/// Rows under each other; a table in Markdown too.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<[String; COLUMNS.len()]>,
}

impl Table {
    /// Adds a row.
    pub fn push(&mut self, row: &Row) {
        self.rows.push(row.cells());
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_table(f, &COLUMNS.map(str::to_owned), &self.rows)
    }
}
