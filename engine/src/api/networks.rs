//! `GET /networks`, `GET /networks/{id}`; making networks is in `unbuilt.rs`.

use super::{
    Shared,
    error::{self, Answer, Failure},
    extract::Params,
    filters::Filters,
    wire::network::Network,
};
use crate::{error::Error, service::NetworkView};
use axum::{
    Router,
    extract::{Path, State},
    routing::{get, post},
};
use http::StatusCode;
use serde_json::json;
use std::collections::BTreeMap;

const FILTERS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/", get(list))
        .route("/networks/prune", post(prune))
        .route("/networks/{id}", get(inspect).delete(remove))
}

/// Nanoseconds since 1970: the networks are as old as the engine.
fn since(shared: &Shared) -> i64 {
    i64::try_from(shared.scope.about().started.as_nanosecond()).unwrap_or(0)
}

async fn list(State(shared): State<Shared>, params: Params) -> Answer {
    let filters = Filters::of(&params, FILTERS)?;
    let created = since(&shared);
    let networks = shared.scope.networks().await?;
    let wanted = networks.into_iter().filter(|network| fits(&filters, network));
    let networks: Vec<_> = wanted.map(|network| Network::of(network, created, false)).collect();
    Ok(error::json(StatusCode::OK, &networks))
}

fn fits(filters: &Filters, network: &NetworkView) -> bool {
    filters.any("name", |wanted| network.name.contains(wanted))
        && filters.prefix("id", &network.id.to_string())
        && filters.exact("driver", network.driver)
        && filters.exact("scope", "local")
        && filters.exact("type", "builtin")
        && !filters.values("dangling").any(|wanted| matches!(wanted, "1" | "true"))
        && filters.labels("label", &BTreeMap::new())
}

async fn inspect(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    let created = since(&shared);
    let network = shared.scope.network(&id).await?;
    Ok(error::json(StatusCode::OK, &Network::of(network, created, true)))
}

async fn remove(State(shared): State<Shared>, Path(id): Path<String>) -> Failure {
    match shared.scope.network(&id).await {
        Ok(network) => Failure(Error::Denied(format!(
            "{} is a pre-defined network and cannot be removed",
            network.name
        ))),
        Err(error) => Failure(error),
    }
}

async fn prune(params: Params) -> Answer {
    // There are none but the three that Docker never removes.
    Filters::of(&params, &["label", "label!", "until"])?;
    Ok(error::json(StatusCode::OK, &json!({ "NetworksDeleted": null })))
}
