//! Images that come and go: pull, push, load, save, import; and what a client
//! says of the registry on the other side.

use super::{
    Shared, credentials,
    error::{Answer, invalid, unbuilt},
    extract::{self, Params},
    progress,
};
use crate::service::{
    Scope,
    seen::{Import, Platform, Progress, Reference},
};
use axum::{
    Router,
    body::Body,
    extract::State,
    response::Response,
    routing::{get, post},
};
use http::{HeaderMap, HeaderValue, header};
use serde::Deserialize;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/images/create", post(create))
        .route("/images/load", post(load))
        .route("/images/get", get(save))
}

/// A name, and a tag or digest that may be given apart from it.
pub(super) fn reference(name: &str, tag: &str) -> Answer<Reference> {
    let text = match tag {
        "" => name.to_owned(),
        digest if digest.contains(':') => format!("{name}@{digest}"),
        tag => format!("{name}:{tag}"),
    };
    text.parse::<Reference>().map_err(|error| invalid(error.to_string()))
}

/// `linux/arm64/v8`; empty: any.
pub(super) fn platform(text: &str) -> Answer<Option<Platform>> {
    if text.is_empty() {
        return Ok(None);
    }
    let mut parts = text.split('/').map(str::to_ascii_lowercase);
    let (os, architecture, variant) = (parts.next(), parts.next(), parts.next());
    let well = |part: &Option<String>| part.as_ref().is_none_or(|part| !part.is_empty());
    match (os, architecture) {
        (Some(os), Some(architecture))
            if parts.next().is_none() && !os.is_empty() && !architecture.is_empty() =>
        {
            if !well(&variant) {
                return Err(invalid(format!("\"{text}\" is an invalid platform")));
            }
            Ok(Some(Platform { os, architecture, variant }))
        }
        _ => Err(invalid(format!(
            "\"{text}\" is an invalid platform: expected OS/ARCHITECTURE[/VARIANT]"
        ))),
    }
}

/// `platform={"os":"linux","architecture":"arm64"}`
pub(super) fn wanted(params: &Params) -> Answer<Option<Platform>> {
    #[derive(Deserialize)]
    struct Wanted {
        os: String,
        architecture: String,
        #[serde(default)]
        variant: String,
    }
    let Some(text) = params.some("platform") else { return Ok(None) };
    let wanted: Wanted = serde_json::from_str(text)
        .map_err(|error| invalid(format!("failed to parse platform: {error}")))?;
    if wanted.os.is_empty() || wanted.architecture.is_empty() {
        return Err(invalid("both OS and Architecture must be provided"));
    }
    let variant = Some(wanted.variant).filter(|variant| !variant.is_empty());
    Ok(Some(Platform { os: wanted.os, architecture: wanted.architecture, variant }))
}

async fn save(State(shared): State<Shared>, params: Params) -> Answer {
    let names: Vec<_> = params.all("names").map(str::to_owned).collect();
    archive(&shared.scope, &names, &params).await
}

pub(super) async fn archive(scope: &Scope, names: &[String], params: &Params) -> Answer {
    let flow = scope.save_images(names, wanted(params)?.as_ref()).await?;
    let mut response = Response::new(Body::from_stream(flow.into_stream()));
    let tar = HeaderValue::from_static("application/x-tar");
    response.headers_mut().insert(header::CONTENT_TYPE, tar);
    Ok(response)
}

/// Pull (`fromImage`) or import (`fromSrc`).
async fn create(
    State(shared): State<Shared>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let scope = shared.scope;
    let platform = platform(params.text("platform"))?;
    let (progress, messages) = Progress::channel();
    if let Some(name) = params.some("fromImage") {
        let reference = reference(name, params.text("tag"))?;
        let auth = credentials::shown(&headers);
        let work = async move { scope.pull_image(&reference, platform, auth, progress).await };
        return progress::answer(Box::pin(work), messages).await;
    }
    match params.text("fromSrc") {
        "" => Err(invalid("either fromImage or fromSrc must be given")),
        "-" => {
            let repo = params.some("repo");
            let reference = repo.map(|repo| reference(repo, params.text("tag"))).transpose()?;
            let reference = reference.map(Reference::or_latest);
            let how = Import {
                reference,
                message: params.some("message").unwrap_or("Imported from -").to_owned(),
                changes: params.all("changes").map(str::to_owned).collect(),
                platform,
            };
            let archive = extract::reader(body);
            let work = async move { scope.import_image(archive, how, progress).await };
            progress::answer(Box::pin(work), messages).await
        }
        _ => Err(unbuilt("importing from a URL")),
    }
}

async fn load(State(shared): State<Shared>, params: Params, body: Body) -> Answer {
    let scope = shared.scope;
    let platform = wanted(&params)?;
    let (progress, messages) = Progress::channel();
    if params.flag("quiet") {
        progress.without_bars();
    }
    let archive = extract::reader(body);
    let work = async move { scope.load_images(archive, platform, progress).await };
    progress::answer(Box::pin(work), messages).await
}

/// `POST /images/NAME/push`; the tag may be in the name or beside it.
pub(super) async fn push(scope: Scope, name: &str, params: &Params, headers: &HeaderMap) -> Answer {
    let reference = reference(name, params.text("tag"))?;
    let platform = wanted(params)?;
    let auth = credentials::shown(headers);
    let (progress, messages) = Progress::channel();
    let work = async move { scope.push_image(&reference, platform, auth, progress).await };
    progress::answer(Box::pin(work), messages).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_has_two_or_three_words() {
        assert!(platform("").unwrap().is_none());
        let arm = platform("linux/arm/v7").unwrap().unwrap();
        assert_eq!(arm.variant.as_deref(), Some("v7"));
        for text in ["linux", "linux/", "/amd64", "a/b/c/d", "a/b/"] {
            assert!(platform(text).is_err(), "{text}");
        }
    }
}
