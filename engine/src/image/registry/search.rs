//! `docker search`: a registry of version 1's index, which only Docker Hub has.

use super::{client, document, is_loopback, reach::Reach, token::basic};
use crate::{error::Error, ids::TenantName, image::Auth};
use reqwest::{StatusCode, header};
use serde::Deserialize;

/// An image that was found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Found {
    pub name: String,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub is_official: bool,
    #[serde(default)]
    pub is_automated: bool,
    #[serde(default)]
    pub star_count: i64,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    results: Vec<Found>,
}

/// `term` may begin with the registry's name.
pub(in crate::image) async fn search(
    tenant: &TenantName,
    term: &str,
    limit: u32,
    auth: Option<&Auth>,
) -> Result<Vec<Found>, Error> {
    let (host, term) = split(term);
    let loopback = is_loopback(host);
    let secure = format!("https://{host}/v1/search");
    let unreachable = |url: &str| {
        let doing = format!("Get \"{url}\"");
        move |source| Error::internal(doing, source)
    };
    let client = client(loopback, &Reach::of(tenant, &secure)).map_err(unreachable(&secure))?;
    let plain = loopback && client.get(format!("https://{host}/v1/_ping")).send().await.is_err();
    let url = if plain { format!("http://{host}/v1/search") } else { secure };
    let number = limit.to_string();
    let mut request = client.get(&url).query(&[("q", term), ("n", &number)]);
    if let Some(Auth::Basic { username, password }) = auth {
        request = request.header(header::AUTHORIZATION, basic(username, password));
    }
    let response = request.send().await.map_err(unreachable(&url))?;
    let status = response.status();
    if status != StatusCode::OK {
        return Err(Error::internal(format!("Unexpected status code {}", status.as_u16()), url));
    }
    let bytes = document(response, &url).await.map_err(crate::image::distribution::told)?;
    let answer = serde_json::from_slice::<Answer>(&bytes);
    let bad = |source| Error::internal(format!("read the answer to \"{url}\""), source);
    Ok(answer.map_err(bad)?.results)
}

/// As Docker does: what is before the first slash is a registry if it looks
/// like one.
fn split(term: &str) -> (&str, &str) {
    const HUB: &str = "index.docker.io";
    match term.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => match first {
            "docker.io" | HUB => (HUB, rest.strip_prefix("library/").unwrap_or(rest)),
            first => (first, rest),
        },
        Some(("library", rest)) => (HUB, rest),
        Some(_) | None => (HUB, term),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_may_begin_with_a_registry() {
        assert_eq!(split("busybox"), ("index.docker.io", "busybox"));
        assert_eq!(split("team/box"), ("index.docker.io", "team/box"));
        assert_eq!(split("library/box"), ("index.docker.io", "box"));
        assert_eq!(split("docker.io/library/box"), ("index.docker.io", "box"));
        assert_eq!(split("127.0.0.1:5000/a/b"), ("127.0.0.1:5000", "a/b"));
    }
}
