//! `tritium doctor`: is this host fit? With an engine also: what did the
//! kernel say to each program?

use crate::{
    client::Client,
    host::{self, Finding, Verdict},
    table::{self, Side},
};
use serde::Deserialize;
use std::{io::Write, process::ExitCode};

#[derive(Debug, Deserialize)]
struct ProbeVerdict {
    need: String,
    have: bool,
    cost: String,
}

/// Fails (as a program) when something is missing that no container can do without.
pub(crate) async fn run(client: &Client) -> anyhow::Result<ExitCode> {
    let mut findings = host::findings();
    let asked: anyhow::Result<Vec<ProbeVerdict>> = client.get("/tritium/doctor").await;
    let away = match asked {
        Ok(verdicts) => {
            findings.extend(verdicts.into_iter().map(program));
            None
        }
        Err(error) => Some(format!(
            "\n{error:#}\nWhat the kernel says to each program is known to an engine only.\n"
        )),
    };
    let columns = [
        ("NEED", Side::Left),
        ("FOUND", Side::Left),
        ("VERDICT", Side::Left),
        ("COST", Side::Left),
    ];
    let rows = findings.iter().map(|finding| {
        let verdict = finding.verdict.word().to_owned();
        vec![finding.need.clone(), finding.found.clone(), verdict, finding.cost.clone()]
    });
    let mut text = table::render(&columns, &rows.collect::<Vec<_>>());
    text.push_str(&away.unwrap_or_default());
    std::io::stdout().lock().write_all(text.as_bytes())?;
    let unfit = findings.iter().any(|finding| finding.verdict == Verdict::Missing);
    Ok(if unfit { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn program(verdict: ProbeVerdict) -> Finding {
    let (found, word) = if verdict.have {
        ("taken by the kernel", Verdict::Good)
    } else {
        ("refused", Verdict::Less)
    };
    let cost = if verdict.have { String::new() } else { verdict.cost };
    Finding { need: verdict.need, found: found.into(), verdict: word, cost }
}
