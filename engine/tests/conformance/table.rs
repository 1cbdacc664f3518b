//! What the runs said, as a person reads it and as the README shows it.

use crate::{
    cases::Case,
    run::{Column, Outcome},
};
use std::{
    fmt::Write as _,
    io::{self, Write as _},
    time::Duration,
};

/// Standard output, whoever listens.
pub(crate) fn say(text: &str) {
    drop(writeln!(io::stdout().lock(), "{text}"));
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "ok",
        Outcome::Unbuilt => "not built",
        Outcome::Failed(_) => "FAILED",
    }
}

/// Of an area, or of all.
fn outcomes<'a>(column: &'a Column, area: Option<&str>) -> Vec<&'a Outcome> {
    let here =
        |(case, _, _): &&(&Case, Outcome, Duration)| area.is_none_or(|area| case.area == area);
    column.results.iter().filter(here).map(|(_, outcome, _)| outcome).collect()
}

/// How many cases came out how.
#[derive(Debug, Default)]
struct Counts {
    passed: usize,
    unbuilt: usize,
    failed: usize,
}

fn counts(outcomes: &[&Outcome]) -> Counts {
    let mut counts = Counts::default();
    for outcome in outcomes {
        *match outcome {
            Outcome::Passed => &mut counts.passed,
            Outcome::Unbuilt => &mut counts.unbuilt,
            Outcome::Failed(_) => &mut counts.failed,
        } += 1;
    }
    counts
}

/// The last word on an engine.
fn closing(column: &Column) -> String {
    let Column { name, asked, took, left, .. } = column;
    let Counts { passed, unbuilt, failed } = counts(&outcomes(column, None));
    let mut out = String::new();
    if !left.is_empty() {
        writeln!(out, "\n{name}: left behind: {left:?}").unwrap();
    }
    let took = took.as_secs();
    write!(
        out,
        "\n{name}: {passed} passed, {failed} failed, {unbuilt} not built; {asked} of 107 operations \
         asked for, {took} s"
    )
    .unwrap();
    out
}

pub(crate) fn print(columns: &[Column]) {
    let Some(first) = columns.first() else { return };
    let heads: Vec<String> = columns.iter().map(|column| format!("{:<10}", column.name)).collect();
    let mut out = format!("{:<80} {}\n", "case", heads.join(" "));
    for (row, (case, _, _)) in first.results.iter().enumerate() {
        let cells = columns.iter().map(|column| {
            let (_, outcome, took) = &column.results[row];
            format!("{:<10}", format!("{} {:.1}s", word(outcome), took.as_secs_f32()))
        });
        let cells: Vec<String> = cells.collect();
        writeln!(out, "{:<80} {}", case.full_name(), cells.join(" ").trim_end()).unwrap();
    }
    for column in columns {
        for (case, outcome, _) in &column.results {
            let (name, engine) = (case.full_name(), &column.name);
            if let Outcome::Failed(why) = outcome {
                let why: String = why.chars().take(1000).collect();
                write!(out, "\n{name} failed at {engine}:\n{why}\n").unwrap();
            }
        }
    }
    for column in columns {
        out.push_str(&closing(column));
    }
    say(&out);
}

/// A row per area: passed of all, for each engine.
pub(crate) fn markdown(columns: &[Column]) -> String {
    let Some(first) = columns.first() else { return String::new() };
    let mut areas: Vec<&str> = first.results.iter().map(|(case, _, _)| case.area).collect();
    areas.dedup();
    let cells = |of: &dyn Fn(&Column) -> String| -> String {
        columns.iter().map(|column| format!(" {} |", of(column))).collect()
    };
    let mut out = format!("| area |{}\n|---|", cells(&|column| column.name.clone()));
    out.push_str(&"---|".repeat(columns.len()));
    for area in areas {
        let row = cells(&|column| {
            let outcomes = outcomes(column, Some(area));
            format!("{} of {}", counts(&outcomes).passed, outcomes.len())
        });
        write!(out, "\n| {area} |{row}").unwrap();
    }
    let all = cells(&|column| {
        let outcomes = outcomes(column, None);
        format!("**{} of {}**", counts(&outcomes).passed, outcomes.len())
    });
    write!(out, "\n| **all** |{all}\n").unwrap();
    out
}

/// No case fails anywhere, and nothing is left behind.
pub(crate) fn is_good(columns: &[Column]) -> bool {
    columns.iter().all(|column| column.lost == 0 && column.left.is_empty())
}
