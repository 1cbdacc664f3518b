//! The version of the API that a request speaks: `/v1.43/containers/json`.

use super::error;
use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use std::sync::LazyLock;

/// The newest that is spoken.
pub(super) const NEWEST: Version = Version { major: 1, minor: 51 };
/// The oldest that is spoken.
pub(super) const OLDEST: Version = Version { major: 1, minor: 24 };

/// `1.51`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    /// Version 1.`minor`.
    pub(super) const fn one(minor: u32) -> Self {
        Self { major: 1, minor }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Why a request's version is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadVersion {
    #[error(
        "client version {0} is too old. Minimum supported API version is {OLDEST}, please upgrade \
         your client to a newer version"
    )]
    TooOld(String),
    #[error("client version {0} is too new. Maximum supported API version is {NEWEST}")]
    TooNew(String),
}

/// The version that a path begins with, and the rest. Without a version: the
/// newest, and the path as it is.
fn split(path: &str) -> Result<(Version, &str), BadVersion> {
    let unversioned = Ok((NEWEST, path));
    let Some(rest) = path.strip_prefix("/v") else { return unversioned };
    let Some((text, _)) = rest.split_once('/') else { return unversioned };
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return unversioned;
    }
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    let mut part = || parts.next().unwrap_or(0);
    let version = Version { major: part(), minor: part() };
    let rest = rest.strip_prefix(text).unwrap_or(rest);
    if version < OLDEST {
        Err(BadVersion::TooOld(text.to_owned()))
    } else if version > NEWEST {
        Err(BadVersion::TooNew(text.to_owned()))
    } else {
        Ok((version, rest))
    }
}

/// Takes the version off the path, so that routes need not know it; handlers
/// find it among the request's extensions.
pub(super) async fn strip(mut request: Request, next: Next) -> Response {
    let mut response = match split(request.uri().path()) {
        Ok((version, path)) => {
            if path.len() != request.uri().path().len() {
                let query = request.uri().query().map(|query| format!("?{query}"));
                let shorter = format!("{path}{}", query.unwrap_or_default());
                match shorter.parse::<Uri>() {
                    Ok(uri) => *request.uri_mut() = uri,
                    Err(_) => return super::page_not_found().await,
                }
            }
            request.extensions_mut().insert(version);
            next.run(request).await
        }
        // Clients as old as that read plain text only.
        Err(bad @ BadVersion::TooOld(_)) => {
            (StatusCode::BAD_REQUEST, format!("{bad}\n")).into_response()
        }
        Err(bad) => error::message(StatusCode::BAD_REQUEST, &bad.to_string()),
    };
    response.headers_mut().extend(headers().clone());
    response
}

/// What stands on every answer.
pub(super) fn headers() -> &'static HeaderMap {
    static HEADERS: LazyLock<HeaderMap> = LazyLock::new(|| {
        let server = concat!("Tritium/", env!("CARGO_PKG_VERSION"), " (linux)");
        let api_version = HeaderValue::from_str(&NEWEST.to_string());
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert("api-version", api_version.expect("digits and a dot"));
        headers.insert("docker-experimental", HeaderValue::from_static("false"));
        headers.insert("ostype", HeaderValue::from_static("linux"));
        headers.insert(header::SERVER, HeaderValue::from_static(server));
        headers
    });
    &HEADERS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_taken_off_the_path() {
        assert_eq!(split("/v1.43/info"), Ok((Version::one(43), "/info")));
        assert_eq!(split("/info"), Ok((NEWEST, "/info")));
        assert_eq!(split("/version"), Ok((NEWEST, "/version")));
        assert_eq!(split("/vx/info"), Ok((NEWEST, "/vx/info")));
        assert_eq!(split("/volumes/v1.9"), Ok((NEWEST, "/volumes/v1.9")));
    }

    #[test]
    fn versions_out_of_range_are_refused_in_dockers_words() {
        assert_eq!(
            split("/v1.23/info").unwrap_err().to_string(),
            "client version 1.23 is too old. Minimum supported API version is 1.24, please \
             upgrade your client to a newer version"
        );
        assert_eq!(
            split("/v1.52/info").unwrap_err().to_string(),
            "client version 1.52 is too new. Maximum supported API version is 1.51"
        );
        assert!(split("/v1/info").is_err());
        assert!(split("/v2.0/info").is_err());
    }
}
