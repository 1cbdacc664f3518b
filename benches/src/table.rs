//! The figures, as a table that can stand in the README.

use anyhow::Result;
use hdrhistogram::Histogram;
use std::{
    io::{Write, stdout},
    time::Duration,
};

/// Durations of one thing, one subject.
#[derive(Debug)]
pub(crate) struct Row(Histogram<u64>);

impl Default for Row {
    fn default() -> Self {
        let minute = Histogram::new_with_bounds(1, 60_000_000, 3);
        Self(minute.expect("these are bounds that HdrHistogram takes"))
    }
}

impl Row {
    pub(crate) fn push(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(micros.max(1));
    }

    /// Milliseconds.
    fn at(&self, quantile: f64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "2^52 µs are 142 years")]
        let micros = self.0.value_at_quantile(quantile) as f64;
        micros / 1000.0
    }
}

#[derive(Debug)]
pub(crate) struct Table {
    lines: Vec<Vec<String>>,
    subjects: usize,
}

impl Table {
    pub(crate) fn new(subjects: &[&str]) -> Self {
        let mut head = vec![String::new()];
        for subject in subjects {
            head.push(format!("{subject} p50"));
            head.push("p99".into());
        }
        head.extend(["floor p50".to_owned(), "× floor".to_owned()]);
        head.extend(subjects.iter().skip(1).map(|subject| format!("{subject} ÷ tritium")));
        Self { lines: vec![head], subjects: subjects.len() }
    }

    pub(crate) fn add(&mut self, what: &str, rows: &[Row], floor: Option<&Row>) {
        let mut line = vec![what.to_owned()];
        for index in 0..self.subjects {
            match rows.get(index) {
                Some(row) => {
                    line.push(format!("{:.2} ms", row.at(0.5)));
                    line.push(format!("{:.2} ms", row.at(0.99)));
                }
                None => line.extend([String::new(), String::new()]),
            }
        }
        let own = rows[0].at(0.5);
        match floor {
            Some(floor) => {
                line.push(format!("{:.2} ms", floor.at(0.5)));
                line.push(format!("{:.1}", own / floor.at(0.5)));
            }
            None => line.extend([String::new(), String::new()]),
        }
        line.extend(rows.iter().skip(1).map(|row| format!("{:.1}", row.at(0.5) / own)));
        self.lines.push(line);
    }

    pub(crate) fn add_memory(&mut self, what: &str, kibibytes: &[u64]) {
        let mut line = vec![what.to_owned()];
        for size in kibibytes {
            line.extend([format!("{size} KiB"), String::new()]);
        }
        self.lines.push(line);
    }

    /// Markdown, with aligned columns.
    pub(crate) fn print(&self) -> Result<()> {
        let columns = self.lines.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = stdout().lock();
        for (number, line) in self.lines.iter().enumerate() {
            for (column, width) in widths.iter().enumerate() {
                let cell = line.get(column).map_or("", String::as_str);
                let pad = " ".repeat(width - cell.chars().count());
                write!(out, "| {cell}{pad} ")?;
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
