//! Registries, over HTTP (distribution-spec v1.1).
//!
//! Written on an HTTP client rather than on a registry client, since what
//! comes from a registry is not trusted here: every document has a greatest
//! size, every digest is checked, and its errors are told in Docker's words.

mod login;
mod reach;
mod repository;
mod search;
mod token;

pub(super) use login::login;
pub(super) use reach::Astray;
pub(crate) use reach::embedded;
pub use reach::is_private_registry;
pub(super) use repository::{Access, Mount, Repository};
pub use search::Found;
pub(super) use search::search;

use super::Auth;
use crate::ids::{Digest, TenantName};
use bytes::Bytes;
use futures_util::StreamExt;
use reach::Reach;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url, header};
use serde::Deserialize;
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
    #[error("the answer to \"{url}\" cannot be read")]
    BadAnswer { url: String, source: serde_json::Error },
    #[error("the answer to \"{url}\" does not say where to go on")]
    NoLocation { url: String },
    /// For what was asked there.
    #[error("no basic auth credentials")]
    NoCredentials { url: String },
    #[error(transparent)]
    Astray(#[from] Astray),
    #[error("login attempt to {url} failed with status: {status}")]
    LoginFailed { url: String, status: StatusCode },
}

impl RegistryError {
    /// What the registry answered, if it did.
    pub(super) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. }
            | Self::Status { status }
            | Self::LoginFailed { status, .. } => Some(*status),
            Self::Unreachable { .. }
            | Self::TooLong { .. }
            | Self::WrongDigest { .. }
            | Self::TooManyBytes { .. }
            | Self::Cut { .. }
            | Self::BadToken { .. }
            | Self::BadChallenge { .. }
            | Self::BadAnswer { .. }
            | Self::Astray(_)
            | Self::NoLocation { .. } => None,
            Self::NoCredentials { .. } => Some(StatusCode::UNAUTHORIZED),
        }
    }
}

/// A registry, and what it gave us to show.
#[derive(Debug)]
struct Registry {
    reach: Reach,
    client: Client,
    sender: Client,
    /// `https://host/v2/`
    base: String,
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

impl Registry {
    /// Finds out how it is reached.
    async fn open(
        tenant: &TenantName,
        registry: &str,
        auth: Option<Auth>,
    ) -> Result<Self, RegistryError> {
        let host = match registry {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        let loopback = is_loopback(host);
        let unusable = |source| RegistryError::Unreachable {
            method: Method::GET,
            url: format!("https://{host}/v2/"),
            source,
        };
        let reach = Reach::of(tenant, &format!("https://{host}/v2/"));
        let client = client(loopback, &reach).map_err(unusable)?;
        let sender = sender(loopback, &reach).map_err(unusable)?;
        let secure = !loopback || client.get(format!("https://{host}/v2/")).send().await.is_ok();
        let scheme = if secure { "https" } else { "http" };
        let base = format!("{scheme}://{host}/v2/");
        Ok(Self { reach, client, sender, base, auth, authorization: Mutex::default() })
    }

    /// Asks, and asks again with credentials if the registry wants some.
    async fn ask(
        &self,
        method: Method,
        url: &str,
        scopes: &[String],
        prepare: &(dyn Fn(RequestBuilder) -> RequestBuilder + Sync),
    ) -> Result<Response, RegistryError> {
        let request = prepare(self.request(method.clone(), url));
        let first = self.send(request, method.clone(), url).await?;
        if first.status() != StatusCode::UNAUTHORIZED {
            return accepted(first, url).await;
        }
        let challenge = first.headers().get(header::WWW_AUTHENTICATE);
        let challenge = challenge.and_then(|text| text.to_str().ok()).map(str::to_owned);
        let Some(challenge) = challenge else { return accepted(first, url).await };
        let (authorization, _) = self.authorize(url, &challenge, scopes).await?;
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(authorization);
        let request = prepare(self.request(method.clone(), url));
        accepted(self.send(request, method, url).await?, url).await
    }

    /// With what the registry wants to be shown, if it is the registry's.
    fn request(&self, method: Method, url: &str) -> RequestBuilder {
        let client = match method {
            Method::PATCH | Method::PUT => &self.sender,
            _ => &self.client,
        };
        let request = client.request(method, url);
        let known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            Some(known) if Url::parse(url).is_ok_and(|url| self.is_own(&url)) => {
                request.header(header::AUTHORIZATION, known)
            }
            Some(_) | None => request,
        }
    }

    /// Whether a place that the registry sent us to is still the registry:
    /// nobody else gets to see credentials.
    fn is_own(&self, url: &Url) -> bool {
        Url::parse(&self.base).is_ok_and(|base| base.origin() == url.origin())
    }

    async fn send(
        &self,
        request: RequestBuilder,
        method: Method,
        url: &str,
    ) -> Result<Response, RegistryError> {
        self.reach.check(url)?;
        let unreachable = |source| {
            let url = url.to_owned();
            RegistryError::Unreachable { method, url, source }
        };
        request.send().await.map_err(unreachable)
    }
}

/// What every client of ours says and how long it waits.
pub(crate) fn web_client() -> reqwest::ClientBuilder {
    builder().read_timeout(SILENCE)
}

fn client(loopback: bool, reach: &Reach) -> Result<Client, reqwest::Error> {
    build(reach.limit(web_client()), loopback)
}

/// For what is sent: it has no answer until it has been sent, however long
/// that takes, as long as the other side takes it.
fn sender(loopback: bool, reach: &Reach) -> Result<Client, reqwest::Error> {
    build(reach.limit(builder().tcp_user_timeout(SILENCE)), loopback)
}

fn builder() -> reqwest::ClientBuilder {
    // Fails when it has been installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::builder()
        .user_agent(concat!("tritium/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
}

fn build(builder: reqwest::ClientBuilder, loopback: bool) -> Result<Client, reqwest::Error> {
    match loopback {
        true => builder.no_proxy().tls_danger_accept_invalid_certs(true).build(),
        false => builder.build(),
    }
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
}
