//! `tritium fsck`: what the engine finds when it reads all of its images.

use crate::{
    client::Client,
    commands::print,
    table::{self, Side},
};
use serde::Deserialize;
use std::process::ExitCode;

#[derive(Debug, Deserialize)]
struct Checked {
    layers: u64,
    images: u64,
    bytes: u64,
    problems: Vec<Problem>,
}

#[derive(Debug, Deserialize)]
struct Problem {
    subject: String,
    problem: String,
    mended: bool,
}

/// Fails if there is something that is not mended.
pub(crate) async fn run(client: &Client, mend: bool) -> anyhow::Result<ExitCode> {
    let path = if mend { "/tritium/fsck?mend=1" } else { "/tritium/fsck" };
    let checked: Checked = client.post(path).await?;
    print(&shown(&checked))?;
    let left = checked.problems.iter().any(|problem| !problem.mended);
    Ok(if left { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn shown(checked: &Checked) -> String {
    let Checked { layers, images, bytes, problems } = checked;
    let megabytes = bytes / 1_000_000;
    let mut text = format!("{images} images, {layers} layers, {megabytes} MB of archives read\n");
    if problems.is_empty() {
        return text + "everything is whole\n";
    }
    let rows = problems.iter().map(|problem| {
        let state = if problem.mended { "mended" } else { "there" };
        vec![problem.subject.clone(), state.to_owned(), problem.problem.clone()]
    });
    let columns = [("SUBJECT", Side::Left), ("STATE", Side::Left), ("PROBLEM", Side::Left)];
    text.push_str(&table::render(&columns, &rows.collect::<Vec<_>>()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_problem_is_a_line() {
        let problem = Problem {
            subject: "layer sha256:00".to_owned(),
            problem: "its files are not those that were unpacked".to_owned(),
            mended: false,
        };
        let mut checked = Checked { layers: 2, images: 1, bytes: 7_000_000, problems: vec![] };
        assert!(shown(&checked).ends_with("everything is whole\n"));
        checked.problems.push(problem);
        let text = shown(&checked);
        assert!(text.starts_with("1 images, 2 layers, 7 MB of archives read\n"), "{text}");
        assert!(text.lines().last().unwrap().contains("there"), "{text}");
    }
}
