//! The numbers on their way out: OTLP pushed to a collector, and Prometheus' text to whoever asks.
//!
//! `environment` reads where to push, `otlp` and `prometheus` are the two shapes;
//! this file sends. A collector that is away costs a warning, never a container.

mod environment;
mod otlp;
mod prometheus;
#[cfg(test)]
mod tests;

use std::{future::Future, time::Duration};

use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient,
};
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::{
    metadata::{MetadataKey, MetadataMap, MetadataValue},
    transport::{Channel, ClientTlsConfig},
};
use tracing::{info, warn};

pub use environment::{BadExport, Protocol};
pub use prometheus::prometheus_text;

use crate::sample::Snapshot;

/// How long one push may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where and how to push, from OpenTelemetry's environment variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exporter {
    protocol: Protocol,
    /// For HTTP with the path.
    endpoint: String,
    headers: Vec<(String, String)>,
    interval: Duration,
    resource: Vec<(String, String)>,
}

/// Why a push failed.
#[derive(Debug, thiserror::Error)]
enum Push {
    #[error("cannot reach the collector")]
    Connect(#[source] tonic::transport::Error),
    #[error("the collector refused")]
    Grpc(#[source] Box<tonic::Status>),
    #[error("cannot post to the collector")]
    Http(#[source] reqwest::Error),
    #[error("header {0:?} cannot be sent over gRPC")]
    Header(String),
}

impl Exporter {
    /// Pushes what `collect` gives once per interval, and once more when `stop`
    /// is cancelled. A collector that is away costs a warning, nothing else.
    pub async fn run<F>(&self, collect: impl Fn() -> F + Send, stop: CancellationToken)
    where
        F: Future<Output = Snapshot> + Send,
    {
        let mut tick = tokio::time::interval(self.interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut well = true;
        loop {
            let last = tokio::select! {
                () = stop.cancelled() => true,
                _ = tick.tick() => false,
            };
            let request = otlp::request(&collect().await, &self.resource);
            let pushed = self.push(request).await;
            match &pushed {
                Ok(()) if !well => {
                    info!(endpoint = self.endpoint, "the collector takes metrics again")
                }
                // Once, not at every interval: it may be away for days.
                Err(error) if well => {
                    let error = error as &dyn std::error::Error;
                    warn!(error, endpoint = self.endpoint, "cannot push metrics");
                }
                Ok(()) | Err(_) => {}
            }
            well = pushed.is_ok();
            if last {
                return;
            }
        }
    }

    async fn push(&self, request: ExportMetricsServiceRequest) -> Result<(), Push> {
        match self.protocol {
            Protocol::Grpc => self.push_grpc(request).await,
            Protocol::HttpProtobuf => self.push_http(&request).await,
        }
    }

    async fn push_grpc(&self, request: ExportMetricsServiceRequest) -> Result<(), Push> {
        let mut endpoint = Channel::from_shared(self.endpoint.clone().into_bytes())
            .map_err(|_bad_uri| Push::Header(self.endpoint.clone()))?
            .timeout(TIMEOUT)
            .connect_timeout(TIMEOUT);
        if self.endpoint.starts_with("https://") {
            endpoint = endpoint
                .tls_config(ClientTlsConfig::new().with_native_roots())
                .map_err(Push::Connect)?;
        }
        let channel = endpoint.connect().await.map_err(Push::Connect)?;
        let mut request = tonic::Request::new(request);
        add_headers(request.metadata_mut(), &self.headers)?;
        let sent = MetricsServiceClient::new(channel).export(request).await;
        sent.map(drop).map_err(|status| Push::Grpc(Box::new(status)))
    }

    async fn push_http(&self, request: &ExportMetricsServiceRequest) -> Result<(), Push> {
        let client = reqwest::Client::builder().timeout(TIMEOUT).build().map_err(Push::Http)?;
        let mut post = client.post(&self.endpoint).header("content-type", "application/x-protobuf");
        for (key, value) in &self.headers {
            post = post.header(key, value);
        }
        let sent = post.body(request.encode_to_vec()).send().await;
        sent.and_then(reqwest::Response::error_for_status).map(drop).map_err(Push::Http)
    }
}

fn add_headers(metadata: &mut MetadataMap, headers: &[(String, String)]) -> Result<(), Push> {
    for (key, value) in headers {
        let bad = || Push::Header(key.clone());
        let name =
            MetadataKey::from_bytes(key.to_ascii_lowercase().as_bytes()).map_err(|_| bad())?;
        metadata.insert(name, MetadataValue::try_from(value).map_err(|_| bad())?);
    }
    Ok(())
}
