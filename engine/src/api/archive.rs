//! A container's files: `docker cp`, `docker export`, `docker diff`.

use super::{
    Shared,
    error::{self, Answer, invalid},
    extract::{self, Params},
    wire::archive::{Change, Stat},
};
use crate::service::seen::{Extraction, Output};
use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, head},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderValue, StatusCode, header};

const STAT: &str = "x-docker-container-path-stat";

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/containers/{id}/archive", head(stat).get(fetch).put(put))
        .route("/containers/{id}/export", get(export))
        .route("/containers/{id}/changes", get(changes))
}

fn path(params: &Params) -> Answer<&str> {
    // Docker's own words, missing space and all.
    params.some("path").ok_or_else(|| invalid("bad parameter: pathcannot be empty"))
}

fn stat_header(found: &crate::service::seen::PathStat) -> Answer<HeaderValue> {
    let doing = "cannot describe the path";
    let internal = |error| crate::error::Error::internal(doing, error);
    let json = serde_json::to_vec(&Stat::from(found)).map_err(internal)?;
    let value = HeaderValue::try_from(BASE64_STANDARD.encode(json));
    Ok(value.map_err(|error| crate::error::Error::internal(doing, error))?)
}

async fn stat(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    params: Params,
) -> Answer<Response> {
    let path = path(&params)?;
    let found = shared.scope.container(&id)?.stat_path(path, &id).await?;
    let mut response = StatusCode::OK.into_response();
    response.headers_mut().insert(STAT, stat_header(&found)?);
    Ok(response)
}

async fn fetch(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    params: Params,
    headers: HeaderMap,
) -> Answer<Response> {
    let path = path(&params)?;
    let zipped = takes_gzip(&headers);
    let (found, archive) = shared.scope.container(&id)?.archive(path, &id, zipped).await?;
    let mut response = tar(archive, "application/x-tar");
    let headers = response.headers_mut();
    headers.insert(STAT, stat_header(&found)?);
    if zipped {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

/// `Accept-Encoding: gzip, deflate`, but not `gzip;q=0`.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let texts = headers.get_all(header::ACCEPT_ENCODING).iter();
    texts.filter_map(|text| text.to_str().ok()).flat_map(|text| text.split(',')).any(|coding| {
        let (name, quality) = coding.split_once(';').unwrap_or((coding, ""));
        name.trim() == "gzip" && !matches!(quality.trim(), "q=0" | "q=0.0")
    })
}

fn tar(archive: Output, kind: &'static str) -> Response {
    let mut response = Response::new(Body::from_stream(archive));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

async fn put(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    params: Params,
    body: Body,
) -> Answer<StatusCode> {
    let path = path(&params)?;
    let how = Extraction {
        keep_kinds: params.flag("noOverwriteDirNonDir"),
        to_user: params.flag("copyUIDGID"),
    };
    let handle = shared.scope.container(&id)?;
    handle.extract(path, &id, how, extract::reader(body)).await?;
    Ok(StatusCode::OK)
}

async fn export(State(shared): State<Shared>, Path(id): Path<String>) -> Answer<Response> {
    let archive = shared.scope.container(&id)?.export().await?;
    Ok(tar(archive, "application/octet-stream"))
}

async fn changes(State(shared): State<Shared>, Path(id): Path<String>) -> Answer<Response> {
    let changes = shared.scope.container(&id)?.changes().await?;
    let changes: Vec<Change> = changes.iter().map(Change::from).collect();
    // Docker says `null` where nothing has changed.
    let answer = (!changes.is_empty()).then_some(changes);
    Ok(error::json(StatusCode::OK, &answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_takes_gzip_gets_it() {
        let takes = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(text));
            takes_gzip(&headers)
        };
        assert!(takes("gzip, deflate") && takes("br, gzip;q=0.5"));
        assert!(!takes("identity") && !takes("gzip;q=0") && !takes_gzip(&HeaderMap::new()));
    }
}
