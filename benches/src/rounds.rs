//! Round after round, one engine after the other, so that whatever else the
//! machine is doing hits all alike.

use crate::{subject::Subject, table::Row};
use anyhow::{Context, Result};
use std::time::{Duration, Instant};

/// Has every subject do `work` in every round, and another one begin each time.
pub(crate) fn each(
    subjects: &mut [Subject],
    rounds: usize,
    mut work: impl FnMut(&mut Subject, usize) -> Result<()>,
) -> Result<()> {
    for round in 0..rounds {
        for turn in 0..subjects.len() {
            let index = (round + turn) % subjects.len();
            let subject = &mut subjects[index];
            work(subject, index).with_context(|| format!("{}, round {round}", subject.name))?;
        }
    }
    Ok(())
}

/// How long `work` takes each of them.
pub(crate) fn timed_each(
    subjects: &mut [Subject],
    rounds: usize,
    mut work: impl FnMut(&mut Subject) -> Result<()>,
) -> Result<Vec<Row>> {
    let mut rows = rows(subjects);
    each(subjects, rounds, |subject, index| {
        rows[index].push(timed(|| work(subject))?);
        Ok(())
    })?;
    Ok(rows)
}

/// An empty row for each.
pub(crate) fn rows(subjects: &[Subject]) -> Vec<Row> {
    subjects.iter().map(|_| Row::default()).collect()
}

pub(crate) fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let since = Instant::now();
    work()?;
    Ok(since.elapsed())
}
