//! What was measured, and the table that comes of it.

use super::servers::Contender;
use std::collections::BTreeMap;
use std::fmt::{self, Display};

/// What a figure is held against.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub enum Target {
    /// Times the base, at most.
    RatioAtMost(f64),
    /// Times the base, at least.
    RatioAtLeast(f64),
    /// In its own unit, at most.
    AtMost(f64),
    /// Told only.
    None,
}

/// One line of the table: what is measured, in which unit, and what it should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// What is measured.
    pub what: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// What it should be.
    pub target: Target,
    /// Whom the ratio is taken to.
    pub base: Contender,
}

/// The figures of one row, round by round.
#[derive(Clone, Debug)]
struct Figures {
    row: Row,
    values: BTreeMap<Contender, Vec<(usize, f64)>>,
}

/// All figures of a run.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    rows: Vec<Figures>,
}

impl Ledger {
    /// Notes a figure.
    pub fn note(&mut self, row: Row, contender: Contender, round: usize, value: f64) {
        let place = self
            .rows
            .iter()
            .position(|figures| figures.row.what == row.what);
        let place = place.unwrap_or_else(|| {
            self.rows.push(Figures {
                row,
                values: BTreeMap::new(),
            });
            self.rows.len() - 1
        });
        if let Some(figures) = self.rows.get_mut(place) {
            figures
                .values
                .entry(contender)
                .or_default()
                .push((round, value));
        }
    }

    fn lines(&self) -> Vec<[String; 7]> {
        let head = [
            "what",
            "contender",
            "median",
            "base",
            "ratio (rounds)",
            "target",
            "verdict",
        ];
        let mut lines = vec![head.map(str::to_owned)];
        for figures in &self.rows {
            let others = figures.values.iter().filter(|(contender, _)| {
                **contender != figures.row.base || figures.values.len() == 1
            });
            lines.extend(others.map(|(contender, values)| figures.line(*contender, values)));
        }
        lines
    }
}

impl Figures {
    fn line(&self, contender: Contender, values: &[(usize, f64)]) -> [String; 7] {
        let Row {
            what,
            unit,
            target,
            base,
        } = self.row;
        let bases = self
            .values
            .get(&base)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let median_of = |values: &[(usize, f64)]| median(values.iter().map(|(_, value)| *value));
        let ratios = values.iter().filter_map(|(round, value)| {
            let (_, base) = bases.iter().find(|(other, _)| other == round)?;
            (*base > 0.0).then(|| value / base)
        });
        let mut ratios: Vec<f64> = ratios.collect();
        ratios.sort_by(f64::total_cmp);
        let value = median_of(values);
        let ratio = (contender != base)
            .then(|| median(ratios.iter().copied()))
            .flatten();
        let target = if contender.is_gateway() {
            target
        } else {
            Target::None
        };
        let is_met = match target {
            Target::RatioAtMost(most) => ratio.map(|ratio| ratio <= most),
            Target::RatioAtLeast(least) => ratio.map(|ratio| ratio >= least),
            Target::AtMost(most) => value.map(|value| value <= most),
            Target::None => None,
        };
        let figure = |value: Option<f64>| {
            value.map_or_else(
                || "-".to_owned(),
                |value| format!("{} {unit}", Figure(value)),
            )
        };
        let spread = match (ratios.first(), ratios.last()) {
            (Some(least), Some(most)) => format!(" ({least:.2}-{most:.2})"),
            _ => String::new(),
        };
        [
            what.to_owned(),
            contender.to_string(),
            figure(value),
            figure(median_of(bases).filter(|_| contender != base)),
            ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}{spread}")),
            match target {
                Target::RatioAtMost(most) => format!("<= {most:.2} x {base}"),
                Target::RatioAtLeast(least) => format!(">= {least:.2} x {base}"),
                Target::AtMost(most) => format!("<= {most} {unit}"),
                Target::None => "-".to_owned(),
            },
            match is_met {
                Some(true) => "met".to_owned(),
                Some(false) => "**missed**".to_owned(),
                None => "-".to_owned(),
            },
        ]
    }
}

/// The one in the middle.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Three digits that matter.
struct Figure(f64);

impl Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            value if value >= 100.0 => write!(f, "{value:.0}"),
            value if value >= 10.0 => write!(f, "{value:.1}"),
            value => write!(f, "{value:.2}"),
        }
    }
}

impl Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines();
        let mut widths = [0; 7];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for (number, line) in lines.iter().enumerate() {
            for (cell, width) in line.iter().zip(widths) {
                write!(f, "| {cell:<width$} ")?;
            }
            writeln!(f, "|")?;
            if number == 0 {
                for width in widths {
                    write!(f, "|{:-<1$}", "", width + 2)?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_round_by_round() {
        let row = Row {
            what: "rate",
            unit: "/s",
            target: Target::RatioAtLeast(0.9),
            base: Contender::Floor,
        };
        let mut ledger = Ledger::default();
        for (round, (base, value)) in [(100.0, 50.0), (200.0, 190.0), (10.0, 9.5)]
            .into_iter()
            .enumerate()
        {
            ledger.note(row, Contender::Floor, round, base);
            ledger.note(row, Contender::Memory, round, value);
        }
        let text = ledger.to_string();
        let line = text.lines().last().unwrap();
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        assert_eq!(
            cells,
            [
                "",
                "rate",
                "memory broker",
                "50.0 /s",
                "100 /s",
                "0.95 (0.50-0.95)",
                ">= 0.90 x floor",
                "met",
                ""
            ]
        );
    }
}
