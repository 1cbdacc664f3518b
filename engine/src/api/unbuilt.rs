//! What Docker has and Tritium does not have yet: 501 and what it is, never 404.

use super::{
    Shared,
    error::{self, Failure, unbuilt},
};
use axum::{
    Router,
    extract::Path,
    response::{IntoResponse, Response},
    routing::{MethodRouter, any, delete, get, post, put},
};
use http::{Method, StatusCode};
use serde_json::json;

const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker \
                        swarm join\" to connect this node to swarm and try again.";

type Route = fn(&'static str) -> MethodRouter<Shared>;

/// Method, path, and what it is called in the answer.
const UNBUILT: &[(Route, &str, &str)] = &[
    (with_any, "/containers/{id}/checkpoints", "docker checkpoint"),
    (with_any, "/containers/{id}/checkpoints/{checkpoint}", "docker checkpoint"),
    (with_post, "/commit", "docker commit"),
    (with_post, "/build", "docker build"),
    (with_post, "/build/prune", "docker builder prune"),
    (with_post, "/build/cancel", "docker build"),
    (with_post, "/session", "docker build with BuildKit"),
    (with_post, "/grpc", "docker build with BuildKit"),
    (with_post, "/auth", "docker login"),
    (with_get, "/system/df", "docker system df"),
    (with_get, "/distribution/{*name}", "looking into a registry"),
    (with_get, "/images/search", "docker search"),
    (with_get, "/images/get", "docker save"),
    (with_post, "/images/prune", "docker image prune"),
    (with_post, "/volumes/create", "making volumes"),
    (with_put, "/volumes/{name}", "cluster volumes"),
    (with_post, "/swarm/init", "a swarm"),
    (with_post, "/swarm/join", "a swarm"),
];

fn with_get(what: &'static str) -> MethodRouter<Shared> {
    get(async move || unbuilt(what))
}

fn with_post(what: &'static str) -> MethodRouter<Shared> {
    post(async move || unbuilt(what))
}

fn with_put(what: &'static str) -> MethodRouter<Shared> {
    put(async move || unbuilt(what))
}

fn with_any(what: &'static str) -> MethodRouter<Shared> {
    any(async move || unbuilt(what))
}

pub(super) fn routes() -> Router<Shared> {
    let mut router = Router::new();
    for (route, path, what) in UNBUILT {
        router = router.route(path, route(what));
    }
    for part in ["swarm", "nodes", "services", "tasks", "secrets", "configs"] {
        router = router
            .route(&format!("/{part}"), any(no_swarm))
            .route(&format!("/{part}/{{*rest}}"), any(no_swarm));
    }
    // What a fresh Docker answers, too: there are none.
    router
        .route("/swarm/leave", post(no_swarm_to_leave))
        .route("/plugins/{*rest}", any(plugin))
        .route("/plugins", get(async || error::json(StatusCode::OK, &json!([]))))
        .route("/volumes", get(no_volumes))
        .route("/volumes/prune", post(nothing_pruned))
        .route("/volumes/{name}", get(no_such_volume))
        .route("/volumes/{name}", delete(no_such_volume))
}

/// There are none, so none is found; to install one is not built.
async fn plugin(method: Method, Path(rest): Path<String>) -> Response {
    let (name, verb) = rest.rsplit_once('/').unwrap_or((&rest, ""));
    match (method, verb) {
        (Method::GET, "json")
        | (Method::POST, "enable" | "disable" | "set" | "push")
        | (Method::DELETE, "") => {
            error::message(StatusCode::NOT_FOUND, &format!("plugin \"{name}\" not found"))
        }
        _ => unbuilt("plugins").into_response(),
    }
}

async fn no_swarm_to_leave() -> Response {
    error::message(StatusCode::SERVICE_UNAVAILABLE, "This node is not part of a swarm")
}

async fn no_swarm() -> Response {
    error::message(StatusCode::SERVICE_UNAVAILABLE, NO_SWARM)
}

async fn no_volumes() -> Response {
    error::json(StatusCode::OK, &json!({ "Volumes": [], "Warnings": null }))
}

async fn nothing_pruned() -> Response {
    error::json(StatusCode::OK, &json!({ "VolumesDeleted": null, "SpaceReclaimed": 0 }))
}

async fn no_such_volume(Path(name): Path<String>) -> Failure {
    Failure(crate::error::Error::NotFound(format!("get {name}: no such volume")))
}
