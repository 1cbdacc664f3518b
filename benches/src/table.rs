//! The figures, as a table that can stand in the README.

use crate::bar::Bar;
use anyhow::Result;
use std::{
    io::{Write, stdout},
    time::Duration,
};

/// What the figures of a line are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Milliseconds,
    Microseconds,
    /// Gbit/s.
    Speed,
    Kibibytes,
    Mebibytes,
}

impl Unit {
    pub(crate) fn text(self, figure: f64) -> String {
        match self {
            Self::Milliseconds if figure >= 1000.0 => format!("{:.2} s", figure / 1000.0),
            Self::Milliseconds => format!("{figure:.2} ms"),
            Self::Microseconds => format!("{figure:.1} µs"),
            Self::Speed => format!("{figure:.1} Gbit/s"),
            Self::Kibibytes => format!("{figure:.0} KiB"),
            Self::Mebibytes => format!("{figure:.0} MiB"),
        }
    }

    pub(crate) fn more_is_better(self) -> bool {
        self == Self::Speed
    }
}

/// Figures of one thing, one subject.
#[derive(Debug, Default, Clone)]
pub(crate) struct Row(Vec<f64>);

impl Row {
    pub(crate) fn push(&mut self, took: Duration) {
        self.0.push(milliseconds(took));
    }

    pub(crate) fn push_figure(&mut self, figure: f64) {
        self.0.push(figure);
    }

    pub(crate) fn extend(&mut self, figures: impl IntoIterator<Item = f64>) {
        self.0.extend(figures);
    }

    /// How much more each figure is than the one of the same round in `other`.
    pub(crate) fn minus(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(this, other)| this - other).collect())
    }

    /// The figure that `share` of them do not exceed.
    pub(crate) fn at(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        #[expect(clippy::cast_precision_loss, reason = "nobody measures 2^52 times")]
        let rank = (sorted.len() as f64 * share).ceil();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to len")]
        let index = (rank as usize).clamp(1, sorted.len().max(1)) - 1;
        sorted.get(index).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn median(&self) -> f64 {
        self.at(0.5)
    }

    /// What 99 of 100 are no worse than.
    pub(crate) fn worst(&self, unit: Unit) -> f64 {
        self.at(if unit.more_is_better() { 0.01 } else { 0.99 })
    }
}

pub(crate) fn milliseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}

/// One thing that was measured.
#[derive(Debug)]
pub(crate) struct Line {
    what: String,
    unit: Unit,
    /// In the order of the table's subjects.
    rows: Vec<Row>,
    floor: Option<Row>,
    bars: Vec<Bar>,
}

impl Line {
    pub(crate) fn new(what: &str, unit: Unit, rows: Vec<Row>) -> Self {
        Self { what: what.to_owned(), unit, rows, floor: None, bars: Vec::new() }
    }

    pub(crate) fn floor(self, floor: Row) -> Self {
        Self { floor: Some(floor), ..self }
    }

    pub(crate) fn bar(mut self, bar: Bar) -> Self {
        self.bars.push(bar);
        self
    }

    fn cells(&self, subjects: usize) -> Vec<String> {
        let mut cells = vec![self.what.clone()];
        for index in 0..subjects {
            match self.rows.get(index) {
                Some(row) => {
                    cells.push(self.unit.text(row.median()));
                    cells.push(self.unit.text(row.worst(self.unit)));
                }
                None => cells.extend([String::new(), String::new()]),
            }
        }
        let own = self.rows.first().map(Row::median);
        match (&self.floor, own) {
            (Some(floor), own) => {
                cells.push(self.unit.text(floor.median()));
                cells.push(own.map_or(String::new(), |own| ratio(own, floor.median())));
            }
            (None, _) => cells.extend([String::new(), String::new()]),
        }
        for index in 1..subjects {
            let row = self.rows.get(index);
            let own = own.unwrap_or(f64::NAN);
            cells.push(row.map_or(String::new(), |row| ratio(row.median(), own)));
        }
        let docker = self.rows.get(1);
        let judged = self
            .bars
            .iter()
            .map(|bar| bar.judge(self.unit, self.rows.first(), docker, self.floor.as_ref()));
        cells.push(judged.collect::<Vec<_>>().join("; "));
        cells
    }
}

fn ratio(this: f64, that: f64) -> String {
    let ratio = this / that;
    if ratio < 0.1 { format!("{ratio:.3}") } else { format!("{ratio:.2}") }
}

#[derive(Debug)]
pub(crate) struct Table {
    subjects: Vec<&'static str>,
    lines: Vec<Line>,
}

impl Table {
    pub(crate) fn new(subjects: Vec<&'static str>) -> Self {
        Self { subjects, lines: Vec::new() }
    }

    pub(crate) fn add(&mut self, line: Line) {
        self.lines.push(line);
    }

    fn head(&self) -> Vec<String> {
        let mut head = vec![String::new()];
        for subject in &self.subjects {
            head.push(format!("{subject} p50"));
            head.push("p99".into());
        }
        head.extend(["floor p50".to_owned(), "× floor".to_owned()]);
        head.extend(self.subjects.iter().skip(1).map(|subject| format!("{subject} ÷ tritium")));
        head.push("bar".into());
        head
    }

    /// Markdown, with aligned columns.
    pub(crate) fn print(&self) -> Result<()> {
        let mut lines = vec![self.head()];
        lines.extend(self.lines.iter().map(|line| line.cells(self.subjects.len())));
        let widths: Vec<usize> = (0..lines[0].len())
            .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
            .collect();
        let mut out = stdout().lock();
        for (number, line) in lines.iter().enumerate() {
            for (cell, width) in line.iter().zip(&widths) {
                write!(out, "| {cell}{} ", " ".repeat(width - cell.chars().count()))?;
            }
            writeln!(out, "|")?;
            if number == 0 {
                for width in &widths {
                    write!(out, "|{}", "-".repeat(width + 2))?;
                }
                writeln!(out, "|")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_figures_that_were_measured() {
        let row = Row((1..=100).rev().map(f64::from).collect());
        assert_eq!([row.at(0.0), row.at(0.5), row.at(0.99), row.at(1.0)], [1.0, 50.0, 99.0, 100.0]);
        assert_eq!(row.worst(Unit::Speed), 1.0);
        assert!(Row::default().median().is_nan());
    }
}
