//! `_ping`, `version`, `info`.

use super::{
    Shared,
    error::{self, Answer},
    human,
    wire::system::{Info, Version},
};
use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderValue, Method, StatusCode, header};

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/_ping", get(ping))
        .route("/version", get(version))
        .route("/info", get(info))
}

async fn ping(method: Method) -> Response {
    let body = if method == Method::HEAD { "" } else { "OK" };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    let fixed = HeaderValue::from_static;
    // 1: `docker build` shall not look for BuildKit here.
    headers.insert("builder-version", fixed("1"));
    headers.insert("swarm", fixed("inactive"));
    headers.insert(header::CACHE_CONTROL, fixed("no-cache, no-store, must-revalidate"));
    headers.insert(header::PRAGMA, fixed("no-cache"));
    headers.insert(header::CONTENT_LENGTH, fixed(if body.is_empty() { "0" } else { "2" }));
    response
}

async fn version(State(shared): State<Shared>) -> Answer {
    let host = shared.scope.host().await?;
    Ok(error::json(StatusCode::OK, &Version::of(&host)))
}

async fn info(State(shared): State<Shared>) -> Answer {
    let scope = &shared.scope;
    let host = scope.host().await?;
    let about = scope.about();
    let info = Info {
        host: &host,
        counts: scope.counts(),
        id: &about.id,
        root: about.state_dir.to_string_lossy().into_owned(),
        in_force: scope.in_force(),
        now: human::moment(Some(crate::events::now())),
    };
    Ok(error::json(StatusCode::OK, &info.json()))
}
