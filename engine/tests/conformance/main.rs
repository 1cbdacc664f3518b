//! The conformance suite: cases that hold on Docker Engine 28.5, run against any engine.
//!
//! A case is a sentence and a function over a `Scene`. `make conformance` runs all of them against
//! a real Docker Engine, so that the cases themselves are right, and against Tritium, and prints both
//! columns; `cargo test` runs the Tritium column alone, against an engine of its own. What an engine
//! says is not built is counted apart: it is honest, but it is not conformance.
//!
//! Every answer that a case reads is also held against Docker's description of its API.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
#![expect(clippy::disallowed_methods, reason = "files of a test need not survive a crash")]

mod cases;
mod description;
#[path = "../docker/engine.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod engine;
mod host;
mod http;
mod run;
mod scene;
mod shape;
mod table;

use clap::Parser;
use std::{
    path::PathBuf,
    process::{Command, ExitCode},
};

/// Runs the conformance suite.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// An engine to run against, `NAME=SOCKET`; the first one is the reference.
    #[arg(long = "against", value_name = "NAME=SOCKET")]
    against: Vec<String>,
    /// Run against a Tritium of its own, too (alone, if no other is named).
    #[arg(long)]
    tritium: bool,
    /// Cases at a time.
    #[arg(long, default_value_t = 4)]
    jobs: usize,
    /// Write down the shapes of the first engine's answers.
    #[arg(long)]
    record: bool,
    /// Write the table by area, as Markdown, to this file.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Say what the cases are.
    #[arg(long)]
    list: bool,
    /// Start an engine, run this command with its `DOCKER_HOST`, and see what is left behind.
    #[arg(long, num_args = 1.., allow_hyphen_values = true, value_name = "COMMAND")]
    serve: Vec<String>,
    /// Only cases whose name has one of these.
    only: Vec<String>,
}

fn main() -> ExitCode {
    // What `cargo test` passes to every test program means nothing here.
    let meant = |argument: &String| !matches!(argument.as_str(), "--nocapture" | "--quiet" | "-q");
    let options = Options::parse_from(std::env::args().filter(meant));
    if let Some((program, arguments)) = options.serve.split_first() {
        return serve(program, arguments);
    }
    if options.list {
        table::say(&cases::names().join("\n"));
        return ExitCode::SUCCESS;
    }
    let mut hosts = Vec::new();
    for against in &options.against {
        let Some((name, socket)) = against.split_once('=') else {
            table::say(&format!("not NAME=SOCKET: {against}"));
            return ExitCode::from(64);
        };
        let host = host::Host::new(name, socket.trim_start_matches("unix://").into());
        hosts.push(host.with_reference(hosts.is_empty()));
    }
    let own = (options.tritium || hosts.is_empty()).then(engine::Engine::start);
    hosts.extend(own.as_ref().map(|engine| host::Host::new("tritium", engine.socket())));
    if options.record {
        shape::RECORDING.get_or_init(Default::default);
    }
    let columns = run::all(&hosts, &options);
    shape::write();
    let log = own.as_ref().map(engine::Engine::log).unwrap_or_default();
    // Counts what was left behind, and fails if there is any.
    drop(own);
    table::print(&columns);
    if let Some(file) = &options.markdown {
        std::fs::write(file, table::markdown(&columns)).unwrap();
    }
    if columns.iter().any(|column| column.lost > 0) {
        table::say(&format!("the engine's last words:\n{log}"));
    }
    if table::is_good(&columns) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// An engine for one command: for clients that are not written here, and for fuzzing.
fn serve(program: &str, arguments: &[String]) -> ExitCode {
    let engine = engine::Engine::start();
    let status = Command::new(program)
        .args(arguments)
        .env("DOCKER_HOST", format!("unix://{}", engine.socket().display()))
        .env("TRITIUM_LOG", engine.dir.join("log"))
        // Where the engine's published ports are.
        .env("TRITIUM_NET", format!("/proc/{}/ns/net", engine.pid()))
        .status()
        .unwrap();
    let log = std::fs::read_to_string(engine.dir.join("log")).unwrap_or_default();
    let panicked: Vec<&str> = log.lines().filter(|line| line.contains("panicked")).collect();
    drop(engine);
    if !panicked.is_empty() {
        table::say(&format!("the engine panicked:\n{}", panicked.join("\n")));
        return ExitCode::FAILURE;
    }
    table::say(&format!("{program} ended with {status}; the engine left nothing behind"));
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
