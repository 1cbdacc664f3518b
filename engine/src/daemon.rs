//! Builds everything in order, waits for a signal, takes it down in reverse.

use crate::config::Config;

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// Something that the engine cannot do without is missing.
pub async fn run(config: Config) -> anyhow::Result<()> {
    drop(config);
    anyhow::bail!("not built yet")
}
