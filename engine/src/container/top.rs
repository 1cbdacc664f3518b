//! `docker top`: what ps(1) of the host says of the container's processes.
//!
//! The one place where a program of the host is run: users pass ps's own
//! options, and nobody can answer them but ps.

use super::Top;
use crate::error::Error;
use std::collections::BTreeSet;
use tokio::process::Command;

/// Runs ps(1) with the user's options and keeps the rows of `pids`.
pub(super) async fn top(arguments: &str, pids: &BTreeSet<i32>) -> Result<Top, Error> {
    let arguments = if arguments.trim().is_empty() { "-ef" } else { arguments };
    let output = Command::new("ps")
        .args(arguments.split_whitespace())
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| Error::internal("cannot run ps", error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().next().unwrap_or_default();
        return Err(Error::Invalid(format!("ps: {}", first.trim())));
    }
    parse(&String::from_utf8_lossy(&output.stdout), pids)
}

fn parse(text: &str, pids: &BTreeSet<i32>) -> Result<Top, Error> {
    let mut lines = text.lines();
    let titles: Vec<String> =
        lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let Some(pid_column) = titles.iter().position(|title| title == "PID") else {
        return Err(Error::Invalid("Couldn't find PID field in ps output".into()));
    };
    let processes = lines
        .map(|line| columns(line, titles.len()))
        .filter(|row| {
            let pid = row.get(pid_column).and_then(|pid| pid.parse().ok());
            pid.is_some_and(|pid| pids.contains(&pid))
        })
        .collect();
    Ok(Top { titles, processes })
}

/// The last column (the command) keeps its spaces.
fn columns(line: &str, count: usize) -> Vec<String> {
    let mut words = line.split_whitespace();
    let mut row: Vec<String> =
        words.by_ref().take(count.saturating_sub(1)).map(str::to_owned).collect();
    let rest = words.collect::<Vec<_>>().join(" ");
    if !rest.is_empty() {
        row.push(rest);
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_processes_are_shown_and_commands_stay_whole() {
        let text = "UID  PID PPID CMD\nroot 1 0 init\nroot 42 1 sleep 100 \nme 7 1 x\n";
        let top = parse(text, &BTreeSet::from([42, 7])).unwrap();
        assert_eq!(top.titles, ["UID", "PID", "PPID", "CMD"]);
        assert_eq!(
            top.processes,
            [vec!["root", "42", "1", "sleep 100"], vec!["me", "7", "1", "x"]]
        );
    }

    #[test]
    fn options_that_hide_the_pid_are_refused() {
        assert!(parse("CMD\nsleep\n", &BTreeSet::new()).is_err());
    }
}
