//! Images: list, look at, tag, remove, and bring in (pull, load, import).

use super::{
    Shared,
    error::{self, Answer, invalid, unbuilt},
    extract::{self, Params},
    filters::Filters,
    progress,
    version::{self, Version},
    wire::image::{self as wire, ImageInspect, ImageSummary},
};
use crate::service::seen::{Auth, Image, Import, Platform, Progress, Reference, Removal};
use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, State},
    response::Response,
    routing::{get, post},
};
use base64::Engine as _;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc};

const LIST_FILTERS: &[&str] = &["before", "dangling", "label", "reference", "since", "until"];

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/images/json", get(list))
        .route("/images/create", post(create))
        .route("/images/load", post(load))
        // Names have slashes in them, so the last word is looked at by hand.
        .route("/images/{*rest}", get(look).post(change).delete(remove))
}

/// Whether the client still wants to hear of virtual sizes.
fn is_old(version: Version) -> bool {
    version < Version::one(44)
}

fn spoken(version: Option<Extension<Version>>) -> Version {
    version.map_or(version::NEWEST, |Extension(version)| version)
}

async fn list(
    State(shared): State<Shared>,
    params: Params,
    version: Option<Extension<Version>>,
) -> Answer {
    let filters = Filters::of(&params, LIST_FILTERS)?;
    let scope = &shared.scope;
    let made = |name: &str| -> Answer<Option<jiff::Timestamp>> {
        let image = filters.values(name).next().map(|name| scope.image(name)).transpose()?;
        Ok(image.and_then(|image| wire::created(&image)))
    };
    let (before, since) = (made("before")?, made("since")?);
    let until = Params::parse(&format!("t={}", filters.values("until").next().unwrap_or_default()));
    let until = until.moment("t")?;
    let dangling = filters.flag("dangling")?;
    let version = spoken(version);
    let containers = scope.containers();
    let fits = |image: &Arc<Image>| {
        let at = wire::created(image);
        let nanos = at.and_then(|at| i64::try_from(at.as_nanosecond()).ok());
        dangling.is_none_or(|dangling| dangling == image.repo_tags.is_empty())
            && before.is_none_or(|before| at.is_some_and(|at| at < before))
            && since.is_none_or(|since| at.is_some_and(|at| at > since))
            && until.is_none_or(|until| nanos.is_none_or(|nanos| nanos < until))
            && filters.labels("label", &image.config.config.labels)
            && filters.any("reference", |pattern| named(image, pattern))
    };
    let mut images: Vec<_> = scope.images().into_iter().filter(fits).collect();
    images.sort_by_key(|image| std::cmp::Reverse(wire::created(image)));
    let summaries = images.iter().map(|image| {
        let users = containers.iter().filter(|it| it.record.image == image.id).count();
        let counted = version >= Version::one(51);
        let users = if counted { i64::try_from(users).unwrap_or(-1) } else { -1 };
        ImageSummary::of(image, users, is_old(version))
    });
    Ok(error::json(StatusCode::OK, &summaries.collect::<Vec<_>>()))
}

/// Whether one of its names fits the pattern, with or without the tag.
fn named(image: &Image, pattern: &str) -> bool {
    let mut names = image.repo_tags.iter().chain(&image.repo_digests);
    names.any(|name| {
        let bare = name.split('@').next().unwrap_or(name);
        let bare = match bare.rsplit_once(':') {
            Some((bare, tag)) if !tag.contains('/') => bare,
            _ => bare,
        };
        glob(pattern.as_bytes(), name.as_bytes()) || glob(pattern.as_bytes(), bare.as_bytes())
    })
}

/// Go's `path.Match` without classes: `*` and `?` stop at a slash.
///
/// Goes back to the last star only, so that no pattern takes long.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(b'?') if text[t] != b'/' => {
                p += 1;
                t += 1;
            }
            Some(&byte) if byte == text[t] => {
                p += 1;
                t += 1;
            }
            Some(_) | None => match star {
                Some((at, from)) if text[from] != b'/' => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                Some(_) | None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// `GET /images/NAME/WORD`.
async fn look(
    State(shared): State<Shared>,
    Path(rest): Path<String>,
    version: Option<Extension<Version>>,
) -> Answer {
    let scope = &shared.scope;
    match rest.rsplit_once('/') {
        Some((name, "json")) => {
            let image = scope.image(name)?;
            let old = is_old(spoken(version));
            Ok(error::json(StatusCode::OK, &ImageInspect::of(&image, old)))
        }
        Some((name, "history")) => {
            let image = scope.image(name)?;
            let sizes = scope.layer_sizes(&image);
            Ok(error::json(StatusCode::OK, &wire::history(&image, &sizes)))
        }
        Some((_, "get")) => Err(unbuilt("docker save")),
        Some((_, "attestations")) => Err(unbuilt("looking at attestations")),
        Some(_) | None => Ok(super::page_not_found().await),
    }
}

/// `POST /images/NAME/WORD`.
async fn change(State(shared): State<Shared>, Path(rest): Path<String>, params: Params) -> Answer {
    match rest.rsplit_once('/') {
        Some((name, "tag")) => {
            let reference = reference(params.text("repo"), params.text("tag"))?;
            shared.scope.tag_image(name, &reference).await?;
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::CREATED;
            Ok(response)
        }
        Some((_, "push")) => Err(unbuilt("docker push")),
        Some(_) | None => Ok(super::page_not_found().await),
    }
}

async fn remove(State(shared): State<Shared>, Path(name): Path<String>, params: Params) -> Answer {
    let how = Removal { force: params.flag("force"), no_prune: params.flag("noprune") };
    let removed = shared.scope.remove_image(&name, how).await?;
    let lines: Vec<_> = removed.iter().map(wire::removed).collect();
    Ok(error::json(StatusCode::OK, &lines))
}

/// A name, and a tag or digest that may be given apart from it.
pub(super) fn reference(name: &str, tag: &str) -> Answer<Reference> {
    let text = match tag {
        "" => name.to_owned(),
        digest if digest.contains(':') => format!("{name}@{digest}"),
        tag => format!("{name}:{tag}"),
    };
    text.parse::<Reference>().map(Reference::or_latest).map_err(|error| invalid(error.to_string()))
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

/// What `docker login` has stored, sent along.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AuthHeader {
    username: String,
    password: String,
    /// `username:password` in base64, from the client's file.
    auth: String,
    identitytoken: String,
    registrytoken: String,
}

/// `X-Registry-Auth`. What cannot be read is no credentials, as in Docker: the
/// registry says whether it wants some.
fn auth(headers: &HeaderMap) -> Option<Auth> {
    let text = headers.get("x-registry-auth")?.to_str().ok()?;
    let bytes = decode(text)?;
    credentials(serde_json::from_slice(&bytes).ok()?)
}

fn credentials(header: AuthHeader) -> Option<Auth> {
    if !header.registrytoken.is_empty() {
        return Some(Auth::Bearer { token: header.registrytoken });
    }
    if !header.identitytoken.is_empty() {
        return Some(Auth::Refresh { token: header.identitytoken });
    }
    if !header.username.is_empty() {
        return Some(Auth::Basic { username: header.username, password: header.password });
    }
    let pair = String::from_utf8(decode(&header.auth)?).ok()?;
    let (username, password) = pair.split_once(':')?;
    Some(Auth::Basic { username: username.to_owned(), password: password.to_owned() })
}

/// `X-Registry-Config`: credentials by registry, for a build's bases.
pub(super) fn auths(headers: &HeaderMap) -> BTreeMap<String, Auth> {
    let text = headers.get("x-registry-config").and_then(|value| value.to_str().ok());
    let bytes = text.and_then(decode).unwrap_or_default();
    let given = serde_json::from_slice::<BTreeMap<String, AuthHeader>>(&bytes).unwrap_or_default();
    let named = given.into_iter().map(|(server, header)| {
        let bare = server.trim_start_matches("https://").trim_start_matches("http://");
        let host = bare.split('/').next().unwrap_or_default();
        let host = if host == "index.docker.io" { "docker.io" } else { host };
        (host.to_owned(), header)
    });
    named.filter_map(|(host, header)| Some((host, credentials(header)?))).collect()
}

/// Base64 of either alphabet, with padding or without.
fn decode(text: &str) -> Option<Vec<u8>> {
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    let bare = text.trim_end_matches('=');
    URL_SAFE_NO_PAD.decode(bare).or_else(|_| STANDARD_NO_PAD.decode(bare)).ok()
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
        let auth = auth(&headers);
        let work = async move { scope.pull_image(&reference, platform, auth, progress).await };
        return progress::answer(Box::pin(work), messages).await;
    }
    match params.text("fromSrc") {
        "" => Err(invalid("either fromImage or fromSrc must be given")),
        "-" => {
            let repo = params.some("repo");
            let reference = repo.map(|repo| reference(repo, params.text("tag"))).transpose()?;
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

async fn load(State(shared): State<Shared>, body: Body) -> Answer {
    let scope = shared.scope;
    let (progress, messages) = Progress::channel();
    let archive = extract::reader(body);
    let work = async move { scope.load_images(archive, progress).await };
    progress::answer(Box::pin(work), messages).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(json: &str) -> Option<Auth> {
        let mut headers = HeaderMap::new();
        let text = base64::engine::general_purpose::URL_SAFE.encode(json);
        headers.insert("x-registry-auth", text.parse().unwrap());
        auth(&headers)
    }

    #[test]
    fn credentials_are_read_in_each_of_dockers_forms() {
        let basic = Auth::Basic { username: "a".into(), password: "b".into() };
        assert!(header(r#"{"username":"a","password":"b"}"#) == Some(basic.clone()));
        assert!(header(r#"{"auth":"YTpi"}"#) == Some(basic));
        let refresh = Auth::Refresh { token: "t".into() };
        assert!(header(r#"{"identitytoken":"t","username":"a"}"#) == Some(refresh));
    }

    #[test]
    fn credentials_that_cannot_be_read_are_none() {
        for json in ["", "{}", "[", r#"{"auth":"!"}"#, r#"{"username":7}"#] {
            assert!(header(json).is_none(), "{json}");
        }
    }

    #[test]
    fn patterns_stop_at_slashes_and_end() {
        let fits = |pattern: &str, text: &str| glob(pattern.as_bytes(), text.as_bytes());
        assert!(fits("busy*", "busybox"));
        assert!(fits("b?sybox:*", "busybox:latest"));
        assert!(fits("*/a*b", "x/aab"));
        assert!(!fits("busy*", "busybox/x"));
        assert!(!fits("a", "ab"));
        assert!(!fits("?", "/"));
        let many = "*a".repeat(40);
        assert!(!fits(&many, &"b".repeat(10_000)));
    }

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
