//! What `docker login` has stored, sent along or asked about; and what else is
//! asked of a registry: `/auth`, `/distribution/NAME/json`, `/images/search`.

use super::{
    Shared,
    error::{self, Answer, invalid},
    extract::{Json, Params},
    filters::Filters,
    transfer,
};
use crate::service::seen::{Auth, Distribution, FoundImage};
use axum::{
    Router,
    extract::{Path, State},
    routing::{get, post},
};
use base64::Engine as _;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const SEARCH_FILTERS: &[&str] = &["is-automated", "is-official", "stars"];
/// Docker's bounds for `limit`.
const MOST_FOUND: i64 = 100;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/auth", post(login))
        .route("/distribution/{*rest}", get(distribution))
        .route("/images/search", get(search))
}

/// What `docker login` has stored, sent along.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Credentials {
    username: String,
    password: String,
    /// `username:password` in base64, from the client's file.
    auth: String,
    identitytoken: String,
    registrytoken: String,
    serveraddress: String,
}

/// `X-Registry-Auth`. What cannot be read is no credentials, as in Docker: the
/// registry says whether it wants some.
pub(super) fn shown(headers: &HeaderMap) -> Option<Auth> {
    let text = headers.get("x-registry-auth")?.to_str().ok()?;
    let bytes = decode(text)?;
    let header: Credentials = serde_json::from_slice(&bytes).ok()?;
    header.auth()
}

/// `X-Registry-Config`: credentials by registry, for a build's bases.
pub(super) fn all_shown(headers: &HeaderMap) -> BTreeMap<String, Auth> {
    let text = headers.get("x-registry-config").and_then(|value| value.to_str().ok());
    let bytes = text.and_then(decode).unwrap_or_default();
    let given = serde_json::from_slice::<BTreeMap<String, Credentials>>(&bytes).unwrap_or_default();
    let named = given.into_iter().map(|(serveraddress, shown)| {
        let shown = Credentials { serveraddress, ..shown };
        (shown.registry().to_owned(), shown.auth())
    });
    named.filter_map(|(registry, auth)| Some((registry, auth?))).collect()
}

impl Credentials {
    fn auth(self) -> Option<Auth> {
        if !self.registrytoken.is_empty() {
            return Some(Auth::Bearer { token: self.registrytoken });
        }
        if !self.identitytoken.is_empty() {
            return Some(Auth::Refresh { token: self.identitytoken });
        }
        if !self.username.is_empty() {
            return Some(Auth::Basic { username: self.username, password: self.password });
        }
        let pair = String::from_utf8(decode(&self.auth)?).ok()?;
        let (username, password) = pair.split_once(':')?;
        Some(Auth::Basic { username: username.to_owned(), password: password.to_owned() })
    }

    /// `https://index.docker.io/v1/` is `docker.io`.
    fn registry(&self) -> &str {
        let address = self.serveraddress.as_str();
        let address = address.strip_prefix("https://").unwrap_or(address);
        let address = address.strip_prefix("http://").unwrap_or(address);
        match address.split('/').next().unwrap_or_default() {
            "" | "index.docker.io" | "registry-1.docker.io" => "docker.io",
            host => host,
        }
    }
}

/// Base64 of either alphabet, with padding or without.
fn decode(text: &str) -> Option<Vec<u8>> {
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    let bare = text.trim_end_matches('=');
    URL_SAFE_NO_PAD.decode(bare).or_else(|_| STANDARD_NO_PAD.decode(bare)).ok()
}

async fn login(State(shared): State<Shared>, Json(asked): Json<Credentials>) -> Answer {
    let registry = asked.registry().to_owned();
    // Nobody's credentials: the registry says whether it wants some.
    let auth =
        asked.auth().unwrap_or(Auth::Basic { username: String::new(), password: String::new() });
    let token = shared.scope.login(&registry, auth).await?;
    let told = json!({ "IdentityToken": token, "Status": "Login Succeeded" });
    Ok(error::json(StatusCode::OK, &told))
}

async fn distribution(
    State(shared): State<Shared>,
    Path(rest): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let Some((name, "json")) = rest.rsplit_once('/') else {
        return Ok(super::page_not_found().await);
    };
    let reference = transfer::reference(name, "")?.or_latest();
    let found = shared.scope.distribution(&reference, shown(&headers)).await?;
    Ok(error::json(StatusCode::OK, &described(&found)))
}

fn described(found: &Distribution) -> Value {
    let platforms = found.platforms.iter().map(|platform| {
        let mut one = json!({ "architecture": platform.architecture, "os": platform.os });
        if let Some(variant) = &platform.variant {
            one["variant"] = json!(variant);
        }
        one
    });
    json!({
        "Descriptor": {
            "mediaType": found.media_type,
            "digest": found.digest.to_string(),
            "size": found.size,
        },
        "Platforms": platforms.collect::<Vec<_>>(),
    })
}

async fn search(State(shared): State<Shared>, params: Params, headers: HeaderMap) -> Answer {
    let filters = Filters::of(&params, SEARCH_FILTERS)?;
    let limit = params.number("limit")?.unwrap_or(0);
    if limit != 0 && !(1..=MOST_FOUND).contains(&limit) {
        let text = format!("limit {limit} is outside the range of [1, {MOST_FOUND}]");
        return Err(invalid(text));
    }
    let limit = u32::try_from(limit).ok().filter(|limit| *limit > 0).unwrap_or(25);
    let automated = filters.flag("is-automated")?;
    let official = filters.flag("is-official")?;
    let stars = filters.values("stars").map(|text| {
        text.parse::<i64>().map_err(|_| invalid(format!("invalid filter 'stars=[{text}]'")))
    });
    let stars = stars.collect::<Answer<Vec<_>>>()?.into_iter().max();
    let auth = shown(&headers);
    let mut found = shared.scope.search(params.text("term"), limit, auth.as_ref()).await?;
    found.retain(|one| {
        automated.is_none_or(|wanted| one.is_automated == wanted)
            && official.is_none_or(|wanted| one.is_official == wanted)
            && stars.is_none_or(|least| one.star_count >= least)
    });
    let found = found.iter().map(shape).collect::<Vec<_>>();
    Ok(error::json(StatusCode::OK, &found))
}

fn shape(found: &FoundImage) -> Value {
    json!({
        "description": found.description.as_deref().unwrap_or_default(),
        "is_automated": found.is_automated,
        "is_official": found.is_official,
        "name": found.name,
        "star_count": found.star_count,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(json: &str) -> Option<Auth> {
        let mut headers = HeaderMap::new();
        let text = base64::engine::general_purpose::URL_SAFE.encode(json);
        headers.insert("x-registry-auth", text.parse().unwrap());
        shown(&headers)
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
    fn a_server_is_a_registry_whatever_scheme_it_was_stored_with() {
        let registry = |address: &str| {
            let serveraddress = address.to_owned();
            Credentials { serveraddress, ..Credentials::default() }.registry().to_owned()
        };
        for hub in ["", "https://index.docker.io/v1/", "docker.io", "registry-1.docker.io"] {
            assert_eq!(registry(hub), "docker.io", "{hub}");
        }
        assert_eq!(registry("http://127.0.0.1:5000/v2/"), "127.0.0.1:5000");
    }
}
