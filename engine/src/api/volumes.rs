//! Volumes: make, list, look at, remove, prune.

use super::{
    Shared,
    error::{self, Answer, invalid},
    extract::{OptionalJson, Params},
    filters::Filters,
    version::{self, Version},
    wire::volume::Volume,
};
use crate::{
    error::Error,
    service::{CreateVolume, VolumeView},
};
use axum::{
    Extension, Router,
    extract::{Path, State},
    routing::{get, post},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;

const LIST_FILTERS: &[&str] = &["dangling", "driver", "label", "name"];

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/volumes", get(list))
        .route("/volumes/", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/prune", post(prune))
        .route("/volumes/{name}", get(inspect).delete(remove).put(update))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CreateBody {
    name: Option<String>,
    driver: Option<String>,
    driver_opts: Option<BTreeMap<String, String>>,
    labels: Option<BTreeMap<String, String>>,
    cluster_volume_spec: Option<serde_json::Value>,
}

async fn create(
    State(shared): State<Shared>,
    OptionalJson(body): OptionalJson<CreateBody>,
) -> Answer {
    let body = body.unwrap_or_default();
    if body.cluster_volume_spec.is_some() {
        return Err(no_swarm("volume create only valid for cluster volumes"));
    }
    let request = CreateVolume {
        name: body.name.unwrap_or_default(),
        driver: body.driver.unwrap_or_default(),
        options: body.driver_opts.unwrap_or_default(),
        labels: body.labels.unwrap_or_default(),
    };
    let view = shared.scope.create_volume(request).await?;
    Ok(error::json(StatusCode::CREATED, &Volume::of(&view, None)))
}

async fn list(State(shared): State<Shared>, params: Params) -> Answer {
    let filters = Filters::of(&params, LIST_FILTERS)?;
    let dangling = filters.flag("dangling")?;
    let fits = |view: &VolumeView| {
        let volume = &view.used.volume;
        dangling.is_none_or(|dangling| dangling == view.used.users.is_empty())
            && filters.exact("driver", "local")
            && filters.any("name", |wanted| volume.name.as_str().contains(wanted))
            && filters.labels("label", &volume.labels.clone().unwrap_or_default())
    };
    let volumes = shared.scope.volumes();
    let volumes: Vec<_> =
        volumes.iter().filter(|view| fits(view)).map(|view| Volume::of(view, None)).collect();
    Ok(error::json(StatusCode::OK, &json!({ "Volumes": volumes, "Warnings": null })))
}

async fn inspect(State(shared): State<Shared>, Path(name): Path<String>) -> Answer {
    let view = shared.scope.volume(&name)?;
    Ok(error::json(StatusCode::OK, &Volume::of(&view, None)))
}

async fn remove(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    params: Params,
) -> Answer<StatusCode> {
    match shared.scope.remove_volume(&name).await {
        Err(Error::NotFound(_)) if params.flag("force") => {}
        outcome => outcome?,
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Docker has it for the volumes of a swarm only.
async fn update() -> Answer {
    Err(no_swarm("volume update only valid for cluster volumes"))
}

fn no_swarm(what: &str) -> error::Failure {
    error::Failure(Error::Unavailable(format!("{what}, but swarm is unavailable")))
}

/// By default only those that were given no name.
async fn prune(
    State(shared): State<Shared>,
    params: Params,
    version: Option<Extension<Version>>,
) -> Answer {
    let filters = Filters::of(&params, &["all", "label", "label!"])?;
    let spoken = version.map_or(version::NEWEST, |Extension(version)| version);
    // Before 1.42 there was no such difference.
    let all = spoken < Version::one(42)
        || match filters.values("all").next() {
            Some(text) => truth(text).ok_or_else(|| {
                invalid(format!(
                    "invalid filter 'all': strconv.ParseBool: parsing {text:?}: invalid syntax"
                ))
            })?,
            None => false,
        };
    let wanted = |labels: &BTreeMap<String, String>| {
        filters.labels("label", labels) && filters.unlabelled("label!", labels)
    };
    let pruned = shared.scope.prune_volumes(all, wanted).await?;
    let answer = json!({ "VolumesDeleted": pruned.removed, "SpaceReclaimed": pruned.reclaimed });
    Ok(error::json(StatusCode::OK, &answer))
}

/// Go's `strconv.ParseBool`.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
