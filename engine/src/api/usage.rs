//! `docker system df`, and removing images that nobody uses.

use super::{
    Shared, containers,
    error::{self, Answer, invalid},
    extract::Params,
    filters::Filters,
    version::{self, Version},
    wire::{
        build::BuildCache,
        image::{self as wire, ImageSummary},
        summary::Summary,
        volume::Volume,
    },
};
use crate::service::{Scope, seen::Image};
use axum::{
    Extension, Router,
    extract::State,
    routing::{get, post},
};
use http::StatusCode;
use serde_json::{Value, json};

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/system/df", get(df)).route("/images/prune", post(prune_images))
}

const KINDS: [&str; 4] = ["container", "image", "volume", "build-cache"];

async fn df(
    State(shared): State<Shared>,
    params: Params,
    version: Option<Extension<Version>>,
) -> Answer {
    let scope = &shared.scope;
    if let Some(kind) = params.all("type").find(|kind| !KINDS.contains(kind)) {
        return Err(invalid(format!("unknown object type: {kind}")));
    }
    let wants =
        |kind| params.all("type").next().is_none() || params.all("type").any(|it| it == kind);
    let spoken = version.map_or(version::NEWEST, |Extension(version)| version);
    let (images, layers) = match wants("image") {
        true => images(scope, spoken < Version::one(44)),
        false => (Value::Null, 0),
    };
    let mut answer = json!({
        "LayersSize": layers,
        "Images": images,
        "Containers": if wants("container") { sized_containers(scope).await? } else { Value::Null },
        "Volumes": if wants("volume") { sized_volumes(scope).await? } else { Value::Null },
        "BuildCache": Value::Null,
    });
    if wants("build-cache") {
        let cache = scope.build_cache();
        answer["BuildCache"] = json!(Vec::from_iter(cache.iter().map(BuildCache::from)));
        if spoken < Version::one(42) {
            let own = cache.iter().filter(|entry| !entry.shared);
            answer["BuilderSize"] = json!(own.map(|entry| entry.size).sum::<u64>());
        }
    }
    Ok(error::json(StatusCode::OK, &answer))
}

fn images(scope: &Scope, old: bool) -> (Value, u64) {
    let (usage, layers) = scope.image_usage();
    let images: Vec<_> = usage.iter().map(|usage| ImageSummary::of_usage(usage, old)).collect();
    (json!(images), layers)
}

async fn sized_containers(scope: &Scope) -> Answer<Value> {
    let now = crate::events::now();
    let usage = scope.container_usage().await?;
    let summaries = usage.iter().map(|(snapshot, size)| {
        let image = containers::image_name(scope, snapshot);
        Summary::of(snapshot, image, Some(*size), now)
    });
    Ok(json!(summaries.collect::<Vec<_>>()))
}

async fn sized_volumes(scope: &Scope) -> Answer<Value> {
    let usage = scope.volume_usage().await?;
    let volumes = usage.iter().map(|(view, size)| Volume::of(view, Some(*size)));
    Ok(json!(volumes.collect::<Vec<_>>()))
}

async fn prune_images(State(shared): State<Shared>, params: Params) -> Answer {
    let filters = Filters::of(&params, &["dangling", "label", "label!", "until"])?;
    let dangling = filters.flag("dangling")?.unwrap_or(true);
    let now = crate::events::now();
    let until = filters.values("until").map(|text| containers::until(text, now));
    let until = until.collect::<Answer<Vec<_>>>()?;
    let wanted = |image: &Image| {
        let labels = &image.config.config.labels;
        let made = wire::created(image).and_then(|at| i64::try_from(at.as_nanosecond()).ok());
        filters.labels("label", labels)
            && filters.unlabelled("label!", labels)
            && until.iter().all(|until| made.is_none_or(|made| made < *until))
    };
    let pruned = shared.scope.prune_images(dangling, wanted).await?;
    let lines: Vec<_> = pruned.removed.iter().map(wire::removed).collect();
    let lines = (!lines.is_empty()).then_some(lines);
    let answer = json!({ "ImagesDeleted": lines, "SpaceReclaimed": pruned.reclaimed });
    Ok(error::json(StatusCode::OK, &answer))
}
