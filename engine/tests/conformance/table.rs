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

/// Passed, not built, failed.
fn counts(results: &[&Outcome]) -> (usize, usize, usize) {
    results.iter().fold((0, 0, 0), |(passed, unbuilt, failed), outcome| match outcome {
        Outcome::Passed => (passed + 1, unbuilt, failed),
        Outcome::Unbuilt => (passed, unbuilt + 1, failed),
        Outcome::Failed(_) => (passed, unbuilt, failed + 1),
    })
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
            if let Outcome::Failed(why) = outcome {
                let why: String = why.chars().take(1000).collect();
                write!(out, "\n{} failed at {}:\n{why}\n", case.full_name(), column.name).unwrap();
            }
        }
    }
    for column in columns {
        let (passed, unbuilt, failed) = counts(&outcomes(column, None));
        let (name, asked, took) = (&column.name, column.asked, column.took.as_secs());
        if !column.left.is_empty() {
            writeln!(out, "\n{name}: left behind: {:?}", column.left).unwrap();
        }
        write!(
            out,
            "\n{name}: {passed} passed, {failed} failed, {unbuilt} not built; {asked} of 107 \
             operations asked for, {took} s"
        )
        .unwrap();
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
            let (passed, unbuilt, failed) = counts(&outcomes(column, Some(area)));
            format!("{passed} of {}", passed + unbuilt + failed)
        });
        write!(out, "\n| {area} |{row}").unwrap();
    }
    let all = cells(&|column| {
        let (passed, unbuilt, failed) = counts(&outcomes(column, None));
        format!("**{passed} of {}**", passed + unbuilt + failed)
    });
    write!(out, "\n| **all** |{all}\n").unwrap();
    out
}

/// No case fails anywhere, and nothing is left behind.
pub(crate) fn is_good(columns: &[Column]) -> bool {
    columns.iter().all(|column| column.lost == 0 && column.left.is_empty())
}
