//! tritiumd: arguments, logging, runtime; all else is in the library.
#![forbid(unsafe_code)]

use clap::Parser;
use std::process::ExitCode;
use tritium_engine::{config::Config, daemon, error::chain, telemetry};

fn main() -> ExitCode {
    let config = Config::parse();
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %chain(error.as_ref()), "the engine stops");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    telemetry::start(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(daemon::run(config))
}
