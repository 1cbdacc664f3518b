//! `GET /metrics` for Prometheus, on a port of its own: the Docker API has no
//! such path, and whoever scrapes needs no right to run containers.

use crate::service::Engine;
use axum::{Router, extract::State, http::header, response::IntoResponse, routing::get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tritium_probes::export::prometheus_text;

/// Serves until `stopping`.
pub async fn serve_metrics(listener: TcpListener, engine: Engine, stopping: CancellationToken) {
    let router = Router::new().route("/metrics", get(scrape)).with_state(engine);
    let serving = axum::serve(listener, router).with_graceful_shutdown(stopping.cancelled_owned());
    if let Err(error) = serving.await {
        tracing::error!(%error, "the metrics are no longer served");
    }
}

async fn scrape(State(engine): State<Engine>) -> impl IntoResponse {
    let text = prometheus_text(&engine.measure().await);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
