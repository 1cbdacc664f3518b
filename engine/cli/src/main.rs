//! `tritium`: what Tritium has beside Docker, from the command line.
#![forbid(unsafe_code)]

mod client;
mod commands;
mod doctor;
mod fsck;
mod host;
mod net;
mod table;
mod units;

use clap::{Parser, Subcommand};
use std::{io::Write, path::PathBuf, process::ExitCode};

/// Tenants, system calls, denials, and whether this host is fit.
#[derive(Debug, Parser)]
#[command(name = "tritium", version)]
struct Arguments {
    /// The engine's socket.
    #[arg(long, global = true, default_value = "/run/tritium/tritium.sock")]
    socket: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tenants: each has a socket, containers, images and a network of its own.
    #[command(subcommand)]
    Tenant(Tenant),
    /// What a container's system calls are, how often, and how long they take.
    Syscalls {
        /// Its name or id.
        container: String,
        /// Go on until interrupted.
        #[arg(long)]
        watch: bool,
        /// How long to count, in seconds, where nobody counted before.
        #[arg(long, default_value_t = 2)]
        seconds: u64,
    },
    /// The same over all containers.
    Top {
        /// Go on until interrupted.
        #[arg(long)]
        watch: bool,
        /// How long to count, in seconds, where nobody counted before.
        #[arg(long, default_value_t = 2)]
        seconds: u64,
    },
    /// Who exchanges how much with whom, and how well it arrives.
    Net {
        /// Go on until interrupted.
        #[arg(long)]
        watch: bool,
    },
    /// What the guard has refused.
    Denials,
    /// Whether all images are whole: makes every layer's archive again.
    Fsck {
        /// Remove records that lead nowhere.
        #[arg(long)]
        mend: bool,
    },
    /// What this host has of what Tritium needs, and what it costs to lack it.
    Doctor,
}

#[derive(Debug, Subcommand)]
enum Tenant {
    /// Make one.
    Create { name: String },
    /// List them.
    Ls,
    /// Remove one that has nothing any more.
    Rm { name: String },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            // Nothing is left to tell when even this cannot be written.
            writeln!(std::io::stderr(), "tritium: {error:#}").ok();
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = client::Client::new(&arguments.socket);
    runtime.block_on(async {
        match &arguments.command {
            Command::Tenant(Tenant::Create { name }) => commands::create(&client, name).await?,
            Command::Tenant(Tenant::Ls) => commands::list(&client).await?,
            Command::Tenant(Tenant::Rm { name }) => commands::remove(&client, name).await?,
            Command::Syscalls { container, watch, seconds } => {
                commands::syscalls(&client, Some(container), *watch, *seconds).await?;
            }
            Command::Top { watch, seconds } => {
                commands::syscalls(&client, None, *watch, *seconds).await?;
            }
            Command::Net { watch } => net::show(&client, *watch).await?,
            Command::Denials => commands::denials(&client).await?,
            Command::Fsck { mend } => return fsck::run(&client, *mend).await,
            Command::Doctor => return doctor::run(&client).await,
        }
        Ok(ExitCode::SUCCESS)
    })
}
