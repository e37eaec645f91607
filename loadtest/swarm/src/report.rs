//! A run in figures: one row of a table, and what was found wrong in words.

use crate::event::{Way, read_payload};
use crate::run::{Done, Evidence};
use crate::subscriber::{Diary, Opened, Seen};
use crate::verdict::{Offence, Verdict};
use std::fmt::{self, Display, Write as _};
use std::ops::Range;

/// The columns of the table.
const COLUMNS: [&str; 15] = [
    "scenario",
    "events",
    "acknowledged",
    "explained",
    "deliveries",
    "drops",
    "resumes",
    "cuts",
    "lost",
    "repeated",
    "out of order",
    "gaps",
    "silence",
    "p50 / p99",
    "seed",
];

/// One run.
#[derive(Clone, Debug)]
pub struct Row {
    cells: [String; COLUMNS.len()],
}

impl Row {
    /// Counts what happened.
    #[must_use]
    pub fn of(scenario: &str, seed: u64, evidence: &Evidence, verdict: &Verdict) -> Self {
        let diaries = &evidence.diaries;
        let sum = |count: fn(&Diary) -> usize| diaries.iter().map(count).sum::<usize>().to_string();
        let acknowledged = evidence
            .records
            .iter()
            .filter(|record| record.fate.is_owed())
            .count();
        let latencies = latencies(diaries, 0..u64::MAX);
        let at = |percent| {
            Millis(
                latencies
                    .get(latencies.len() * percent / 100)
                    .copied()
                    .unwrap_or_default(),
            )
        };
        Self {
            cells: [
                scenario.to_owned(),
                evidence.records.len().to_string(),
                acknowledged.to_string(),
                verdict.explained.to_string(),
                sum(|diary| diary.seen.len()),
                sum(|diary| diary.drops),
                sum(|diary| diary.resumes),
                sum(|diary| diary.cuts),
                verdict.count(Offence::Lost).to_string(),
                verdict.count(Offence::Repeated).to_string(),
                verdict.count(Offence::OutOfOrder).to_string(),
                sum(|diary| diary.gaps.len()),
                Millis(longest_silence(evidence).time_us).to_string(),
                format!("{} / {}", at(50), at(99)),
                seed.to_string(),
            ],
        }
    }
}

/// Rows under each other; a table in Markdown too.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<[String; COLUMNS.len()]>,
}

impl Table {
    /// Adds a row.
    pub fn push(&mut self, row: Row) {
        self.rows.push(row.cells);
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = COLUMNS.map(str::to_owned);
        write_table(f, &heads, &self.rows)
    }
}

/// A table in Markdown, in columns for the terminal too.
pub(crate) fn write_table<const N: usize>(
    f: &mut fmt::Formatter<'_>,
    heads: &[String; N],
    rows: &[[String; N]],
) -> fmt::Result {
    let lines = || std::iter::once(heads).chain(rows);
    let mut widths = [0; N];
    for cells in lines() {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = cell.len().max(*width);
        }
    }
    for (number, cells) in lines().enumerate() {
        for (cell, width) in cells.iter().zip(widths) {
            write!(f, "| {cell:width$} ")?;
        }
        f.write_str("|\n")?;
        if number == 0 {
            for width in widths {
                write!(f, "|{:-<1$}", "", width + 2)?;
            }
            f.write_str("|\n")?;
        }
    }
    Ok(())
}

/// What was done, and what was found wrong, in words.
#[must_use]
pub fn story(evidence: &Evidence, verdict: &Verdict) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "{line}");
    };
    for Done {
        from_us,
        to_us,
        what,
        ..
    } in &evidence.deeds
    {
        let mut text = format!(
            "    at {}, for {}: {what}",
            Millis(*from_us),
            Millis(to_us - from_us)
        );
        let seen = |ways: fn(Way) -> bool| seen_after(&evidence.diaries, *from_us, ways);
        if let (Some((median, last)), Some((raw, _))) = (seen(|_| true), seen(Way::is_raw)) {
            // Writing to a String cannot fail.
            let _infallible = write!(
                text,
                "; what was sent from then on was seen after {} (raw {}), by the last after {}",
                Millis(median),
                Millis(raw),
                Millis(last)
            );
        }
        line(text);
    }
    for said in story_of_silence(evidence) {
        line(format!("    {said}"));
    }
    for (offence, count, shown) in verdict.offences() {
        line(format!("  {offence}: {count}"));
        for described in shown {
            line(format!("    {described}"));
        }
        if count > shown.len() {
            line(format!("    and {} more", count - shown.len()));
        }
    }
    text
}

/// How long after a moment subscribers saw the first event that was sent after it: the median, and
/// the last of them.
fn seen_after(diaries: &[Diary], from_us: u64, ways: fn(Way) -> bool) -> Option<(u64, u64)> {
    let of_diary = |diary: &Diary| {
        let is_meant = |seen: &&Seen| {
            read_payload(&seen.data)
                .is_some_and(|(key, sent_us)| sent_us >= from_us && ways(key.way))
        };
        let first = diary.seen.iter().find(is_meant)?;
        Some(first.at_us.saturating_sub(from_us))
    };
    let mut all: Vec<u64> = diaries.iter().filter_map(of_diary).collect();
    all.sort_unstable();
    Some((*all.get(all.len() / 2)?, *all.last()?))
}

/// From sending to seeing, in microseconds and in order, of events that came on a stream that was
/// open when they were sent, in that time: what a replay brings has waited for its subscriber.
pub(crate) fn latencies(diaries: &[Diary], sent: Range<u64>) -> Vec<u64> {
    let of_diary = |diary: &Diary| -> Vec<u64> {
        let latency = |seen: &Seen| {
            let live_us = diary.streams.get(seen.stream)?.live_us?;
            let (_, sent_us) = read_payload(&seen.data)?;
            (live_us <= sent_us && sent.contains(&sent_us))
                .then(|| seen.at_us.saturating_sub(sent_us))
        };
        diary.seen.iter().filter_map(latency).collect()
    };
    let mut all: Vec<u64> = diaries.iter().flat_map(of_diary).collect();
    all.sort_unstable();
    all
}

/// A time in which a subscriber saw nothing although events were published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Silence {
    /// How long, in microseconds.
    time_us: u64,
    /// When it ended, by the run's clock.
    until_us: u64,
    /// Whose.
    subscriber: usize,
}

/// The longest silence of all.
fn longest_silence(evidence: &Evidence) -> Silence {
    let of_diary = |(subscriber, diary): (usize, &Diary)| {
        let of_window = |(from, to): &(u64, u64)| {
            let seen = diary.seen.iter().map(|seen| seen.at_us);
            let inside = seen.filter(|at| (from..to).contains(&at));
            let silence = |before: &mut u64, until_us| {
                let time_us = until_us - std::mem::replace(before, until_us);
                Some(Silence {
                    time_us,
                    until_us,
                    subscriber,
                })
            };
            inside.chain([*to]).scan(*from, silence).max()
        };
        evidence.windows.iter().filter_map(of_window).max()
    };
    let all = evidence.diaries.iter().enumerate();
    all.filter_map(of_diary).max().unwrap_or_default()
}

/// Which streams the subscriber of the longest silence had in that time.
fn story_of_silence(evidence: &Evidence) -> Vec<String> {
    let Silence {
        time_us,
        until_us,
        subscriber,
    } = longest_silence(evidence);
    let from_us = until_us - time_us;
    let mut lines = vec![format!(
        "longest silence: subscriber {subscriber}, at {} for {}",
        Millis(from_us),
        Millis(time_us)
    )];
    let streams = evidence
        .diaries
        .get(subscriber)
        .into_iter()
        .flat_map(|diary| &diary.streams);
    for (stream, next) in streams.clone().zip(streams.skip(1).map(Some).chain([None])) {
        let is_before = next.is_some_and(|next| next.opened_us < from_us);
        if is_before || stream.opened_us > until_us {
            continue;
        }
        let live = stream.live_us.map_or_else(
            || "never live".to_owned(),
            |us| format!("live at {}", Millis(us)),
        );
        let Opened {
            door,
            opened_us,
            cursor,
            ended,
            ..
        } = stream;
        lines.push(format!(
            "  {door} opened at {}, {live}, after {cursor:?}, {ended:?}",
            Millis(*opened_us)
        ));
    }
    lines
}

/// Microseconds, shown as milliseconds or seconds.
struct Millis(u64);

impl Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            us @ ..100_000 => write!(f, "{}.{} ms", us / 1000, us / 100 % 10),
            us => write!(f, "{}.{} s", us / 1_000_000, us / 100_000 % 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diary(seen: &[(u64, Way, u64)]) -> Diary {
        let seen = seen.iter().map(|(at_us, way, sent_us)| Seen {
            id: None,
            at_us: *at_us,
            stream: 0,
            kind: way.as_str().to_owned(),
            data: format!("{}/0/fault0/{sent_us}/x", way.as_str()),
        });
        Diary {
            seen: seen.collect(),
            ..Diary::default()
        }
    }

    #[test]
    fn what_was_under_way_already_does_not_count_as_seen_again() {
        let diaries = [
            diary(&[
                (105, Way::Raw, 95),
                (150, Way::Post, 101),
                (300, Way::Raw, 102),
            ]),
            diary(&[(120, Way::Post, 110), (170, Way::Raw, 120)]),
            diary(&[(104, Way::Raw, 99)]),
        ];
        let any = |_: Way| true;
        assert_eq!(seen_after(&diaries, 100, any), Some((50, 50)));
        assert_eq!(seen_after(&diaries, 100, Way::is_raw), Some((200, 200)));
        assert_eq!(seen_after(&diaries, 90, any), Some((15, 30)));
        assert_eq!(seen_after(&diaries, 500, any), None);
    }
}
