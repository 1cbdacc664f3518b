//! Where log lines go, and the vocabulary of their fields:
//! `tenant container image network exec pid cgroup request error took`.

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

/// Starts logging to standard error. `filter` is tracing's directive syntax
/// (`info`, `tritium_engine=debug`).
///
/// # Errors
/// The filter cannot be read.
pub fn start(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)?;
    tracing_subscriber::registry()
        .with(filter)
        .with(fmt::layer().with_writer(std::io::stderr).with_target(false))
        .init();
    Ok(())
}
