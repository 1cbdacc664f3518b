//! `docker stats`: what a container has used up to a moment.

use super::Handle;
use crate::{
    error::Error,
    events,
    runtime::{Interface, Machine, Usage, machine},
};
use std::collections::BTreeMap;

/// One measurement.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Nanoseconds since 1970.
    pub at: i64,
    pub usage: Usage,
    /// Of its network namespace; empty on the host's.
    pub interfaces: BTreeMap<String, Interface>,
    pub machine: Machine,
}

impl Handle {
    /// Measures; `None` if it does not run.
    ///
    /// # Errors
    /// The kernel's files cannot be read.
    pub async fn sample(&self) -> Result<Option<Sample>, Error> {
        let Some(running) = self.running() else { return Ok(None) };
        let on_host = self.snapshot().record.host.network_mode == "host";
        let measured = tokio::task::spawn_blocking(move || -> Result<Sample, Error> {
            let interfaces = if on_host { BTreeMap::new() } else { running.interfaces()? };
            let usage = running.usage()?;
            let machine =
                machine().map_err(|error| Error::internal("cannot measure the machine", error))?;
            Ok(Sample { at: events::now(), usage, interfaces, machine })
        });
        let measured = measured.await.map_err(|error| Error::internal("cannot measure", error))?;
        match measured {
            Ok(sample) => Ok(Some(sample)),
            // It has ended meanwhile, and its control groups with it.
            Err(_) if self.running().is_none() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Completes when nothing is left of the container.
    pub async fn removed(&self) {
        let mut seen = self.seen();
        while seen.changed().await.is_ok() {}
    }
}
