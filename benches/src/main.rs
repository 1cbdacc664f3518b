//! The promises of the README, measured: `make bench`.
//!
//! Every engine does the same, interleaved round by round, so that whatever
//! else the machine is doing hits all alike. Beside them runs the floor.
#![forbid(unsafe_code)]

mod api;
mod bar;
mod build;
mod cli;
mod cp;
mod crowd;
mod floor;
mod http;
mod images;
mod lifecycle;
mod names;
mod network;
mod rounds;
mod subject;
mod table;
mod tritiumd;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use network::pingpong;
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};
use subject::Subject;
use table::Table;
use tritiumd::Tritiumd;

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
    /// The docker CLI: without it, nothing is measured that is asked by it.
    #[arg(long)]
    cli: Option<PathBuf>,
    /// A dockerd to compare with.
    #[arg(long)]
    docker: Option<PathBuf>,
    /// A podman service to compare with, in what containers' lives cost.
    #[arg(long)]
    podman: Option<PathBuf>,
    /// What to measure; all if nothing is named.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Group>,
    /// Lives of a container, and execs.
    #[arg(long, default_value_t = 100)]
    rounds: usize,
    /// Containers that run while the engine is killed and started.
    #[arg(long, default_value_t = 100)]
    crowd: usize,
    /// Containers that are listed and inspected.
    #[arg(long, default_value_t = 1000)]
    containers: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    Lifecycle,
    Network,
    Images,
    Api,
    Build,
    Cp,
}

/// What the measurement runs itself as, inside of containers.
#[derive(Debug, Parser)]
enum Inside {
    Echo { port: u16 },
    Ask { to: SocketAddr },
    LookUp { server: IpAddr, name: String },
}

fn main() -> Result<()> {
    if !matches!(std::env::args().nth(1).as_deref(), Some("echo" | "ask" | "look-up")) {
        return measure_all(&Arguments::parse());
    }
    match Inside::parse() {
        Inside::Echo { port } => pingpong::echo(port),
        Inside::Ask { to } => pingpong::ask(to),
        Inside::LookUp { server, name } => names::look_up(server, &name),
    }
}

fn measure_all(arguments: &Arguments) -> Result<()> {
    let mut daemon = Tritiumd::start(&arguments.bin, &arguments.dir)?;
    let mut subjects = vec![Subject::new("tritium", &daemon.socket(), &arguments.sample)?];
    for (name, socket) in [("dockerd", &arguments.docker), ("podman", &arguments.podman)] {
        if let Some(socket) = socket {
            subjects.push(Subject::new(name, socket, &arguments.sample).context(name)?);
        }
    }
    let mut table = Table::new(subjects.iter().map(|it| it.name).collect());
    let measured = measure(arguments, &mut daemon, &mut subjects, &mut table);
    // What was measured before something failed is worth to be seen.
    table.print()?;
    let mut cleaned = Ok(());
    for subject in &mut subjects {
        let one = subject.clean().with_context(|| format!("cannot clean up {}", subject.name));
        cleaned = cleaned.and(one);
    }
    measured.and(cleaned)
}

fn measure(
    arguments: &Arguments,
    daemon: &mut Tritiumd,
    subjects: &mut [Subject],
    table: &mut Table,
) -> Result<()> {
    let wanted = |group| arguments.only.is_empty() || arguments.only.contains(&group);
    let dir: &Path = &arguments.dir;
    let cli = arguments.cli.as_deref().map(|program| cli::Cli::new(program, dir)).transpose()?;
    if wanted(Group::Lifecycle) {
        lifecycle::measure(arguments, daemon, subjects, table).context("lifecycle")?;
    }
    // podman differs too much from here on: it has no engine to look at.
    let count = subjects.iter().filter(|subject| subject.name != "podman").count();
    let subjects = &mut subjects[..count];
    if wanted(Group::Network) {
        network::measure(subjects, table).context("network")?;
    }
    if wanted(Group::Images) {
        images::measure(dir, daemon, subjects, table).context("images")?;
    }
    if wanted(Group::Api) {
        api::measure(arguments.containers, subjects, table).context("api")?;
    }
    if wanted(Group::Build) {
        build::measure(dir, cli.as_ref(), subjects, table).context("build")?;
    }
    if let (true, Some(cli)) = (wanted(Group::Cp), &cli) {
        cp::measure(dir, cli, daemon, subjects, table).context("cp")?;
    }
    Ok(())
}
