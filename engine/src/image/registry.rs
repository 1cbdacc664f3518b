//! One repository of a registry, over HTTP (distribution-spec v1.1).
//!
//! Written on an HTTP client rather than on a registry client, since what
//! comes from a registry is not trusted here: every document has a greatest
//! size, every digest is checked, and its errors are told in Docker's words.

use super::{Auth, Reference};
use crate::ids::Digest;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Manifests, indexes, configurations, tokens, errors: in bytes.
const DOCUMENT: usize = 8 << 20;
const CONNECT: Duration = Duration::from_secs(15);
/// Without any byte.
const SILENCE: Duration = Duration::from_secs(60);

/// Why a registry did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum RegistryError {
    #[error("{method} \"{url}\": {}", crate::error::chain(.source))]
    Unreachable { method: Method, url: String, source: reqwest::Error },
    /// What the registry says, by the code and message of its first error.
    #[error("{}: {message}", .code.to_lowercase().replace('_', " "))]
    Refused { status: StatusCode, code: String, message: String },
    #[error("received unexpected HTTP status: {status}")]
    Status { status: StatusCode },
    #[error("the answer to \"{url}\" is longer than {DOCUMENT} bytes")]
    TooLong { url: String },
    #[error("the registry sent {received} for {expected}")]
    WrongDigest { expected: Digest, received: Digest },
    #[error("the registry sent more bytes than it announced for {digest}")]
    TooManyBytes { digest: Digest },
    #[error("the registry stopped in the middle of {digest}")]
    Cut { digest: Digest },
    #[error("invalid token response from \"{url}\"")]
    BadToken { url: String, source: serde_json::Error },
    #[error("invalid WWW-Authenticate header: {text}")]
    BadChallenge { text: String },
}

/// A manifest's bytes and their digest.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) bytes: Bytes,
    pub(super) digest: Digest,
}

/// A repository, and the token that the registry gave us for it.
#[derive(Debug)]
pub(super) struct Repository {
    client: Client,
    /// `https://host/v2/name`
    base: String,
    name: String,
    auth: Option<Auth>,
    authorization: Mutex<Option<String>>,
}

/// Docker's rule: what is on this machine may do without TLS.
fn is_loopback(registry: &str) -> bool {
    let authority = format!("http://{registry}").parse::<http::Uri>().ok();
    let host = authority.as_ref().and_then(http::Uri::host).unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

impl Repository {
    /// Finds out how the registry is reached.
    pub(super) async fn open(
        reference: &Reference,
        auth: Option<Auth>,
    ) -> Result<Self, RegistryError> {
        let host = match reference.registry() {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        let loopback = is_loopback(host);
        let client = client(loopback).map_err(|source| RegistryError::Unreachable {
            method: Method::GET,
            url: format!("https://{host}/v2/"),
            source,
        })?;
        let name = reference.repository().to_owned();
        let open = |scheme: &str| Self {
            client: client.clone(),
            base: format!("{scheme}://{host}/v2/{name}"),
            name: name.clone(),
            auth,
            authorization: Mutex::default(),
        };
        if !loopback {
            return Ok(open("https"));
        }
        let secure = client.get(format!("https://{host}/v2/")).send().await.is_ok();
        Ok(open(if secure { "https" } else { "http" }))
    }

    /// A manifest or index, by tag or digest.
    pub(super) async fn manifest(&self, name: &str) -> Result<Fetched, RegistryError> {
        let url = format!("{}/manifests/{name}", self.base);
        let accept =
            |request: RequestBuilder| request.header(header::ACCEPT, super::manifest::ACCEPT);
        let response = self.get(&url, &accept).await?;
        let bytes = document(response, &url).await?;
        let digest = Digest::of(Sha256::digest(&bytes).into());
        check(name.parse().ok(), digest)?;
        Ok(Fetched { bytes, digest })
    }

    /// A small blob.
    pub(super) async fn config(&self, digest: Digest) -> Result<Bytes, RegistryError> {
        let url = format!("{}/blobs/{digest}", self.base);
        let bytes = document(self.get(&url, &|request| request).await?, &url).await?;
        check(Some(digest), Digest::of(Sha256::digest(&bytes).into()))?;
        Ok(bytes)
    }

    /// A blob's bytes from `offset` on, unchecked. A registry that cannot do
    /// that gives them from the start: the second value says from where.
    pub(super) async fn blob(
        &self,
        digest: Digest,
        offset: u64,
    ) -> Result<(impl Stream<Item = Result<Bytes, RegistryError>> + use<>, u64), RegistryError>
    {
        let url = format!("{}/blobs/{digest}", self.base);
        let range = |request: RequestBuilder| match offset {
            0 => request,
            _ => request.header(header::RANGE, format!("bytes={offset}-")),
        };
        let response = self.get(&url, &range).await?;
        let from = if response.status() == StatusCode::PARTIAL_CONTENT { offset } else { 0 };
        let unreachable = move |source| {
            let url = url.clone();
            RegistryError::Unreachable { method: Method::GET, url, source }
        };
        Ok((response.bytes_stream().map(move |bytes| bytes.map_err(&unreachable)), from))
    }

    /// Asks, and asks again with credentials if the registry wants some.
    async fn get(
        &self,
        url: &str,
        prepare: &(dyn Fn(RequestBuilder) -> RequestBuilder + Sync),
    ) -> Result<Response, RegistryError> {
        let first = self.send(prepare(self.client.get(url)), url).await?;
        if first.status() != StatusCode::UNAUTHORIZED {
            return accepted(first, url).await;
        }
        let challenge = first.headers().get(header::WWW_AUTHENTICATE);
        let challenge = challenge.and_then(|text| text.to_str().ok()).map(str::to_owned);
        let Some(challenge) = challenge else { return accepted(first, url).await };
        let Some(authorization) = self.authorize(&challenge).await? else {
            return accepted(first, url).await;
        };
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(authorization);
        accepted(self.send(prepare(self.client.get(url)), url).await?, url).await
    }

    async fn send(&self, request: RequestBuilder, url: &str) -> Result<Response, RegistryError> {
        let known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let request = match known {
            Some(authorization) => request.header(header::AUTHORIZATION, authorization),
            None => request,
        };
        request.send().await.map_err(|source| RegistryError::Unreachable {
            method: Method::GET,
            url: url.to_owned(),
            source,
        })
    }

    /// The value of the `Authorization` header that answers a challenge.
    async fn authorize(&self, challenge: &str) -> Result<Option<String>, RegistryError> {
        let bad = || RegistryError::BadChallenge { text: challenge.to_owned() };
        let (scheme, parameters) = challenge.split_once(' ').unwrap_or((challenge, ""));
        if let Some(Auth::Bearer { token }) = &self.auth {
            return Ok(Some(format!("Bearer {token}")));
        }
        if scheme.eq_ignore_ascii_case("basic") {
            let Some(Auth::Basic { username, password }) = &self.auth else { return Ok(None) };
            return Ok(Some(basic(username, password)));
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(bad());
        }
        let parameters = parameters_of(parameters);
        let find = |name: &str| {
            parameters
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, v)| v.clone())
        };
        let realm = find("realm").ok_or_else(bad)?;
        let scope = find("scope").unwrap_or_else(|| format!("repository:{}:pull", self.name));
        let service = find("service").unwrap_or_default();
        self.token(&realm, &service, &scope).await.map(|token| Some(format!("Bearer {token}")))
    }

    async fn token(
        &self,
        realm: &str,
        service: &str,
        scope: &str,
    ) -> Result<String, RegistryError> {
        #[derive(Deserialize)]
        struct Token {
            #[serde(alias = "access_token")]
            token: String,
        }
        let mut query = vec![("service", service), ("scope", scope)];
        let request = match &self.auth {
            Some(Auth::Refresh { token }) => {
                query.extend([
                    ("grant_type", "refresh_token"),
                    ("refresh_token", token),
                    ("client_id", "tritium"),
                ]);
                self.client.post(realm).form(&query)
            }
            Some(Auth::Basic { username, password }) => {
                query.push(("account", username));
                let authorization = basic(username, password);
                self.client.get(realm).query(&query).header(header::AUTHORIZATION, authorization)
            }
            Some(Auth::Bearer { .. }) | None => self.client.get(realm).query(&query),
        };
        let response = request.send().await.map_err(|source| RegistryError::Unreachable {
            method: Method::GET,
            url: realm.to_owned(),
            source,
        })?;
        let bytes = document(accepted(response, realm).await?, realm).await?;
        let token = serde_json::from_slice::<Token>(&bytes);
        let bad = |source| RegistryError::BadToken { url: realm.to_owned(), source };
        token.map(|token| token.token).map_err(bad)
    }
}

/// What every client of ours says and how long it waits.
pub(crate) fn builder() -> reqwest::ClientBuilder {
    // Fails when it has been installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::builder()
        .user_agent(concat!("tritium/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
}

fn client(loopback: bool) -> Result<Client, reqwest::Error> {
    let builder = builder();
    match loopback {
        true => builder.no_proxy().tls_danger_accept_invalid_certs(true).build(),
        false => builder.build(),
    }
}

fn basic(username: &str, password: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

/// `a="b, c",d=e`
fn parameters_of(text: &str) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',']);
    while let Some((name, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        parameters.push((name.trim().to_owned(), value.trim().to_owned()));
        rest = next.trim_start_matches([' ', ',']);
    }
    parameters
}

async fn accepted(response: Response, url: &str) -> Result<Response, RegistryError> {
    #[derive(Deserialize)]
    struct Errors {
        #[serde(default)]
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let bytes = document(response, url).await?;
    let first =
        serde_json::from_slice::<Errors>(&bytes).ok().and_then(|e| e.errors.into_iter().next());
    Err(match first {
        Some(One { code, message }) => RegistryError::Refused { status, code, message },
        None => RegistryError::Status { status },
    })
}

async fn document(response: Response, url: &str) -> Result<Bytes, RegistryError> {
    let mut bytes = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|source| RegistryError::Unreachable {
            method: Method::GET,
            url: url.to_owned(),
            source,
        })?;
        bytes.extend_from_slice(&chunk);
        if bytes.len() > DOCUMENT {
            return Err(RegistryError::TooLong { url: url.to_owned() });
        }
    }
    Ok(bytes.into())
}

fn check(expected: Option<Digest>, received: Digest) -> Result<(), RegistryError> {
    match expected {
        Some(expected) if expected != received => {
            Err(RegistryError::WrongDigest { expected, received })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_may_do_without_tls() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:1", "127.8.9.1", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["registry-1.docker.io", "10.0.0.1:5000", "localhost.evil.com", "[::2]:1"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_challenge_is_taken_apart() {
        let found = parameters_of(r#"realm="https://a/t?x=1,2",service=b, scope="c:d:pull,push""#);
        let expected =
            [("realm", "https://a/t?x=1,2"), ("service", "b"), ("scope", "c:d:pull,push")];
        assert_eq!(found, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
}
