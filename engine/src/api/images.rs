//! Images: list, look at, tag, remove. What brings them in and out is in
//! `transfer.rs`.

use super::{
    Shared,
    error::{self, Answer, unbuilt},
    extract::{Params, go_duration, moment},
    filters::Filters,
    transfer,
    version::{self, Version},
    wire::image::{self as wire, ImageInspect, ImageSummary},
};
use crate::{
    error::Error,
    service::seen::{Image, Platform, Removal},
};
use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, State},
    response::Response,
    routing::get,
};
use http::{HeaderMap, StatusCode};
use std::{collections::HashSet, sync::Arc};

const LIST_FILTERS: &[&str] = &["before", "dangling", "label", "reference", "since", "until"];

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/images/json", get(list))
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
    let until = filters.values("until").next().map(until).transpose()?;
    let dangling = filters.flag("dangling")?;
    let version = spoken(version);
    let containers = scope.containers();
    let shared_size = params.flag("shared-size");
    let all = params.flag("all");
    let everything = scope.images();
    let parents: HashSet<_> = everything.iter().filter_map(|image| image.parent).collect();
    // Steps on the way to another image are shown to who wants all.
    let shown = |image: &Arc<Image>| {
        all || !image.repo_tags.is_empty()
            || !image.repo_digests.is_empty()
            || !parents.contains(&image.id)
    };
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
    let mut images: Vec<_> =
        everything.iter().filter(|image| shown(image) && fits(image)).cloned().collect();
    images.sort_by_key(|image| std::cmp::Reverse(wire::created(image)));
    // Who asks for some names is not told the others.
    let wanted = |name: &str| filters.any("reference", |pattern| is_named(name, pattern));
    let summaries = images.iter().map(|image| {
        let users = containers.iter().filter(|it| it.record.image == image.id).count();
        let counted = version >= Version::one(51);
        let users = if counted { i64::try_from(users).unwrap_or(-1) } else { -1 };
        let shared = shared_size.then(|| scope.shared_size(image));
        let mut shown = Image::clone(image);
        shown.repo_tags.retain(|name| wanted(name));
        shown.repo_digests.retain(|name| wanted(name));
        ImageSummary::of(&shown, users, shared, is_old(version))
    });
    Ok(error::json(StatusCode::OK, &summaries.collect::<Vec<_>>()))
}

/// A moment, or how long ago, in nanoseconds since 1970.
fn until(text: &str) -> Answer<i64> {
    let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
    match go_duration(text) {
        Some(ago) => Ok(now.saturating_sub(ago)),
        None => Ok(moment(text)?),
    }
}

/// Whether one of its names fits the pattern, with or without the tag.
fn named(image: &Image, pattern: &str) -> bool {
    image.repo_tags.iter().chain(&image.repo_digests).any(|name| is_named(name, pattern))
}

fn is_named(name: &str, pattern: &str) -> bool {
    let bare = name.split('@').next().unwrap_or(name);
    let bare = match bare.rsplit_once(':') {
        Some((bare, tag)) if !tag.contains('/') => bare,
        _ => bare,
    };
    glob(pattern.as_bytes(), name.as_bytes()) || glob(pattern.as_bytes(), bare.as_bytes())
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
    params: Params,
    version: Option<Extension<Version>>,
) -> Answer {
    let scope = &shared.scope;
    match rest.rsplit_once('/') {
        Some((name, "json")) => {
            let image = for_platform(scope.image(name)?, name, &params)?;
            let old = is_old(spoken(version));
            Ok(error::json(StatusCode::OK, &ImageInspect::of(&image, old)))
        }
        Some((name, "history")) => {
            let image = for_platform(scope.image(name)?, name, &params)?;
            let sizes = scope.layer_sizes(&image);
            let line = scope.lineage(&image);
            Ok(error::json(StatusCode::OK, &wire::history(&image, &sizes, &line)))
        }
        Some((name, "get")) => transfer::archive(scope, &[name.to_owned()], &params).await,
        Some((_, "attestations")) => Err(unbuilt("looking at attestations")),
        Some(_) | None => Ok(super::page_not_found().await),
    }
}

/// The image itself, if it is for the platform that was asked for.
fn for_platform(image: Arc<Image>, name: &str, params: &Params) -> Answer<Arc<Image>> {
    match transfer::wanted(params)? {
        Some(platform) if !platform.is_of(&image) => {
            let found = Platform::of(&image);
            Err(Error::NotFound(format!(
                "image with reference {name} was found but its platform ({found}) does not match \
                 the specified platform ({platform})"
            ))
            .into())
        }
        Some(_) | None => Ok(image),
    }
}

/// `POST /images/NAME/WORD`.
async fn change(
    State(shared): State<Shared>,
    Path(rest): Path<String>,
    params: Params,
    headers: HeaderMap,
) -> Answer {
    match rest.rsplit_once('/') {
        Some((name, "tag")) => {
            let reference = transfer::reference(params.text("repo"), params.text("tag"))?;
            let reference = reference.or_latest();
            shared.scope.tag_image(name, &reference).await?;
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::CREATED;
            Ok(response)
        }
        Some((name, "push")) => transfer::push(shared.scope, name, &params, &headers).await,
        Some(_) | None => Ok(super::page_not_found().await),
    }
}

async fn remove(State(shared): State<Shared>, Path(name): Path<String>, params: Params) -> Answer {
    let how = Removal { force: params.flag("force"), no_prune: params.flag("noprune") };
    let removed = shared.scope.remove_image(&name, how).await?;
    let lines: Vec<_> = removed.iter().map(wire::removed).collect();
    Ok(error::json(StatusCode::OK, &lines))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
