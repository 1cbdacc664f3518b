//! Docker's HTTP, and only that.
//!
//! A handler parses what a client says, calls one method of `service`, and
//! shapes the answer as Docker does: status, headers, JSON and error texts
//! have been compared with Docker Engine 28.5. Who asks is decided by the
//! socket: one listener per tenant ([`serve`]), so no request names a tenant.
//!
//! ```text
//! connection.rs   one client; HTTP until a handler takes the socket over
//! version.rs      /v1.43/… → the version, and the path without it
//! extract.rs  filters.rs  detach.rs      what requests say
//! stream.rs  websocket.rs                hijacked connections
//! containers.rs  lifecycle.rs  attach.rs  exec.rs  archive.rs  stats.rs
//! images.rs  networks.rs
//! system.rs  events.rs  operator.rs  metrics.rs      the handlers
//! unbuilt.rs      what Docker has and Tritium does not have yet: 501, never 404
//! wire/  human.rs  error.rs              the answers
//! ```
//!
//! What must stay true: a handler that is dropped (the client has gone) leaves
//! nothing half done, since `service` does its work in tasks of its own; every
//! operation of Docker's API has a route; nothing here is known to `service`.
//!
//! Used by `daemon` only; uses `service` and the base.

mod archive;
mod attach;
mod connection;
mod containers;
mod detach;
mod error;
mod events;
mod exec;
mod extract;
mod filters;
mod human;
mod images;
mod lifecycle;
mod metrics;
mod networks;
mod operator;
mod progress;
mod stats;
mod stream;
mod system;
mod unbuilt;
mod version;
mod websocket;
mod wire;

pub use metrics::serve_metrics;

use crate::{
    ids::TenantName,
    service::{Engine, Scope},
};
use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};
use http::StatusCode;
use rustix::io::Errno;
use std::{io, time::Duration};
use tokio::net::UnixListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long to wait when the host has no more file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// What every handler knows.
#[derive(Debug, Clone)]
struct Shared {
    scope: Scope,
}

/// Serves one tenant's socket until `stopping` is cancelled. Connections run
/// on `tracker`.
pub async fn serve(
    listener: UnixListener,
    tenant: TenantName,
    engine: Engine,
    tracker: TaskTracker,
    stopping: CancellationToken,
) {
    let shared = Shared { scope: engine.tenant(tenant.clone()) };
    let router = router(shared);
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                tracker.spawn(connection::serve(stream, router.clone(), stopping.clone()));
            }
            Err(error) if is_passing(&error) => {
                tracing::warn!(%tenant, %error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                tracing::error!(%tenant, %error, "the socket is lost");
                return;
            }
        }
    }
}

/// accept(2): the client has gone, or the host is short of something.
fn is_passing(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    let shortage = [Errno::NFILE, Errno::MFILE, Errno::NOBUFS, Errno::NOMEM];
    error.kind() == io::ErrorKind::ConnectionAborted
        || error.kind() == io::ErrorKind::Interrupted
        || code.is_some_and(|code| shortage.iter().any(|known| known.raw_os_error() == code))
}

/// Every path below a version.
fn routes() -> Router<Shared> {
    Router::new()
        .merge(containers::routes())
        .merge(lifecycle::routes())
        .merge(archive::routes())
        .merge(attach::routes())
        .merge(exec::routes())
        .merge(images::routes())
        .merge(networks::routes())
        .merge(stats::routes())
        .merge(system::routes())
        .merge(events::routes())
        .merge(operator::routes())
        .merge(websocket::routes())
        .merge(unbuilt::routes())
        .fallback(page_not_found)
        .method_not_allowed_fallback(page_not_found)
}

fn router(shared: Shared) -> Router {
    let routes = routes().with_state(shared.clone());
    // Round the routes and not a layer of theirs: the path is changed before
    // a route is chosen.
    let inner = Router::new().fallback_service(routes);
    inner
        .layer(middleware::from_fn(version::strip))
        .layer(middleware::from_fn_with_state(shared, counted))
}

/// Hijacked connections are answered by nobody, and not counted.
async fn counted(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let response = next.run(request).await;
    shared.scope.count_request(method.as_str(), response.status().as_u16());
    response
}

/// A path that Docker does not have, or not with that method.
async fn page_not_found() -> Response {
    error::message(StatusCode::NOT_FOUND, "page not found")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_routes_are_in_each_others_way() {
        // Building panics where a path stands twice.
        assert!(routes().has_routes());
    }
}
