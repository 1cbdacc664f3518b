//! What Tritium has beside Docker, below `/tritium/`: for the `tritium` command.

use super::{
    Shared,
    error::{self, Answer, invalid},
    extract::{Json, Params},
};
use axum::{
    Router,
    extract::{Path, State},
    response::Response,
    routing::{delete, get, post},
};
use http::StatusCode;
use serde::Deserialize;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/tritium/tenants", get(tenants).post(create_tenant))
        .route("/tritium/tenants/{name}", delete(remove_tenant))
        .route("/tritium/syscalls", get(syscalls))
        .route("/tritium/top", get(top))
        .route("/tritium/denials", get(denials))
        .route("/tritium/net", get(net))
        .route("/tritium/doctor", get(doctor))
        .route("/tritium/fsck", post(fsck))
}

#[derive(Debug, Deserialize)]
struct CreateTenant {
    name: String,
}

async fn tenants(State(shared): State<Shared>) -> Answer {
    Ok(error::json(StatusCode::OK, &shared.scope.tenants()?))
}

async fn create_tenant(
    State(shared): State<Shared>,
    Json(request): Json<CreateTenant>,
) -> Answer<StatusCode> {
    shared.scope.create_tenant(&request.name).await?;
    Ok(StatusCode::CREATED)
}

async fn remove_tenant(
    State(shared): State<Shared>,
    Path(name): Path<String>,
) -> Answer<StatusCode> {
    shared.scope.remove_tenant(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn syscalls(State(shared): State<Shared>, params: Params) -> Answer {
    let container = params.some("container").ok_or_else(|| invalid("which container?"))?;
    Ok(error::json(StatusCode::OK, &shared.scope.syscalls(container).await?))
}

async fn top(State(shared): State<Shared>) -> Answer {
    Ok(error::json(StatusCode::OK, &shared.scope.all_syscalls().await?))
}

async fn denials(State(shared): State<Shared>) -> Answer {
    Ok(error::json(StatusCode::OK, &shared.scope.denials()?))
}

async fn net(State(shared): State<Shared>) -> Answer {
    Ok(error::json(StatusCode::OK, &shared.scope.traffic().await?))
}

async fn doctor(State(shared): State<Shared>) -> Response {
    error::json(StatusCode::OK, &shared.scope.verdicts())
}

async fn fsck(State(shared): State<Shared>, params: Params) -> Answer {
    let checked = shared.scope.check_images(params.flag("mend")).await?;
    Ok(error::json(StatusCode::OK, &checked))
}
