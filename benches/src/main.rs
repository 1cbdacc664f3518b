//! The promises of the README, measured: `make bench`.
//!
//! Every engine does the same, interleaved round by round, so that whatever
//! else the machine is doing hits all alike. Beside them runs the floor.
#![forbid(unsafe_code)]

mod floor;
mod http;
mod names;
mod subject;
mod table;
mod tritiumd;

use anyhow::{Context, Result};
use clap::Parser;
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use subject::Subject;
use table::{Row, Table};

#[derive(Debug, Parser)]
struct Arguments {
    /// Where tritiumd and its supervisor are.
    #[arg(long)]
    bin: PathBuf,
    /// A directory for everything that is made; removed by whoever called.
    #[arg(long)]
    dir: PathBuf,
    /// The sample image's root file system, a tar.
    #[arg(long)]
    sample: PathBuf,
    /// A dockerd to compare with.
    #[arg(long)]
    docker: Option<PathBuf>,
    /// A podman service to compare with.
    #[arg(long)]
    podman: Option<PathBuf>,
    #[arg(long, default_value_t = 100)]
    rounds: usize,
    /// Containers that run while the engine is killed and started.
    #[arg(long, default_value_t = 100)]
    crowd: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut daemon = tritiumd::Tritiumd::start(&arguments.bin, &arguments.dir)?;
    let sample = &arguments.sample;
    let mut subjects = vec![Subject::new("tritium", &daemon.socket(), sample)?];
    for (name, socket) in [("dockerd", &arguments.docker), ("podman", &arguments.podman)] {
        if let Some(socket) = socket {
            subjects.push(Subject::new(name, socket, sample).context(name)?);
        }
    }
    let floor = floor::Floor::new(&arguments.dir, sample)?;
    let mut table = Table::new(&subjects.iter().map(|it| it.name).collect::<Vec<_>>());
    for network in ["none", "bridge"] {
        let mut rows: Vec<Row> = subjects.iter().map(|_| Row::default()).collect();
        let mut floors = Row::default();
        for round in 0..arguments.rounds {
            floors.push(timed(|| floor.run(round, true))?);
            for (subject, row) in subjects.iter_mut().zip(&mut rows) {
                let name = subject.name;
                let took = timed(|| subject.lifecycle(network));
                row.push(took.with_context(|| format!("{name}, network {network}"))?);
            }
        }
        table.add(&format!("create+start+wait+remove, {network}"), &rows, Some(&floors));
    }
    let mut idle = Vec::new();
    let mut execs: Vec<Row> = subjects.iter().map(|_| Row::default()).collect();
    for subject in &mut subjects {
        idle.push(subject.idle()?);
    }
    for _ in 0..arguments.rounds {
        for ((subject, id), row) in subjects.iter_mut().zip(&idle).zip(&mut execs) {
            row.push(timed(|| subject.exec(id))?);
        }
    }
    table.add("exec round trip", &execs, None);
    let mut memory = Vec::new();
    for (subject, id) in subjects.iter_mut().zip(&idle) {
        memory.push(subject.supervisor_memory(id)?);
        subject.remove(id)?;
    }
    table.add_memory("supervisor of an idle container, PSS", &memory);
    table.add(&format!("{} names looked up", names::MANY), &names(&mut subjects)?, None);
    let subject = &mut subjects[0];
    let crowd: Vec<String> = (0..arguments.crowd).map(|_| subject.idle()).collect::<Result<_>>()?;
    let mut restarts = Row::default();
    for _ in 0..5 {
        restarts.push(daemon.crash_and_restart()?);
    }
    let mut subject = Subject::new("tritium", &daemon.socket(), sample)?;
    let each = subject.supervisor_memory(&crowd[0])?;
    for id in &crowd {
        subject.remove(id)?;
    }
    table.add(&format!("engine start with {} containers", crowd.len()), &[restarts], None);
    table.add_memory(&format!("supervisor, one of {} running, PSS", crowd.len()), &[each]);
    table.print()
}

/// podman's resolver is a program of its own that not every installation has.
fn names(subjects: &mut [Subject]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for subject in subjects.iter_mut().take_while(|subject| subject.name != "podman") {
        let mut row = Row::default();
        let (id, pid) = subject.named("bench-names")?;
        for _ in 0..10 {
            row.push(names::look_up(pid, "bench-names").context(subject.name)?);
        }
        subject.remove(&id)?;
        subject.remove_network("bench-names")?;
        rows.push(row);
    }
    Ok(rows)
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let since = Instant::now();
    work()?;
    Ok(since.elapsed())
}
