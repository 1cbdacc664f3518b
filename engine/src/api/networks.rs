//! `/networks`.

use super::{
    Shared,
    error::{self, Answer, invalid},
    extract::{Json, Params},
    filters::Filters,
    wire::network::{ConnectBody, CreateBody, DisconnectBody, Network},
};
use crate::service::{NetworkView, Scope};
use axum::{
    Router,
    extract::{Path, State},
    routing::{get, post},
};
use http::StatusCode;
use serde_json::json;

const FILTERS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/", get(list))
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/{id}", get(inspect).delete(remove))
        .route("/networks/{id}/connect", post(connect))
        .route("/networks/{id}/disconnect", post(disconnect))
}

async fn list(State(shared): State<Shared>, params: Params) -> Answer {
    let filters = Filters::of(&params, FILTERS)?;
    let dangling = filters.flag("dangling")?;
    if let Some(kind) = filters.values("type").find(|kind| !["builtin", "custom"].contains(kind)) {
        return Err(invalid(format!("invalid filter: 'type'='{kind}'")));
    }
    let networks = shared.scope.networks().await?;
    let wanted = networks.into_iter().filter(|it| fits(&shared.scope, &filters, dangling, it));
    let networks: Vec<_> = wanted.map(|network| Network::of(network, false)).collect();
    Ok(error::json(StatusCode::OK, &networks))
}

fn fits(scope: &Scope, filters: &Filters, dangling: Option<bool>, view: &NetworkView) -> bool {
    let network = &view.network.definition;
    let custom = !scope.is_predefined(network);
    filters.any("name", |wanted| network.name.contains(wanted))
        && filters.prefix("id", &network.id.to_string())
        && filters.exact("driver", network.driver.name())
        && filters.exact("scope", "local")
        && filters.exact("type", if custom { "custom" } else { "builtin" })
        && dangling.is_none_or(|wanted| (custom && view.members.is_empty()) == wanted)
        && filters.labels("label", &network.labels)
}

async fn inspect(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    let network = shared.scope.network(&id).await?;
    Ok(error::json(StatusCode::OK, &Network::of(network, true)))
}

async fn create(State(shared): State<Shared>, Json(body): Json<CreateBody>) -> Answer {
    let made = shared.scope.create_network(body.into()).await?;
    let answer = json!({ "Id": made.id.to_string(), "Warning": "" });
    Ok(error::json(StatusCode::CREATED, &answer))
}

async fn remove(State(shared): State<Shared>, Path(id): Path<String>) -> Answer<StatusCode> {
    shared.scope.remove_network(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn connect(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Json(body): Json<ConnectBody>,
) -> Answer<StatusCode> {
    let container = body.container;
    if container.is_empty() {
        return Err(invalid("invalid name or ID supplied: \"\""));
    }
    let asked = body.endpoint_config.unwrap_or_default();
    shared.scope.connect_network(&id, &container, asked).await?;
    Ok(StatusCode::OK)
}

async fn disconnect(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Json(body): Json<DisconnectBody>,
) -> Answer<StatusCode> {
    shared.scope.disconnect_network(&id, &body.container, body.force).await?;
    Ok(StatusCode::OK)
}

async fn prune(State(shared): State<Shared>, params: Params) -> Answer {
    let filters = Filters::of(&params, &["label", "label!", "until"])?;
    let now = crate::events::now();
    let until = filters.values("until").map(|text| super::containers::until(text, now));
    let until = until.collect::<Answer<Vec<_>>>()?;
    let pruned = shared.scope.prune_networks(|network| {
        filters.labels("label", &network.labels)
            && !(filters.has("label!") && filters.labels("label!", &network.labels))
            && until.iter().all(|until| network.created < *until)
    });
    let pruned = pruned.await?;
    shared.scope.announce_pruned_networks();
    let pruned = (!pruned.is_empty()).then_some(pruned);
    Ok(error::json(StatusCode::OK, &json!({ "NetworksDeleted": pruned })))
}
