//! `GET /distribution/…/json`: what a registry says of an image, unpulled.

use super::{
    Auth, Platform, Reference,
    config::ImageConfig,
    manifest::Document,
    registry::{Access, Astray, RegistryError, Repository},
};
use crate::{
    error::Error,
    ids::{Digest, TenantName},
};

/// A manifest or index, and what it is for.
#[derive(Debug, Clone)]
pub struct Distribution {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    pub platforms: Vec<Platform>,
}

pub(super) async fn look(
    tenant: &TenantName,
    reference: &Reference,
    auth: Option<Auth>,
) -> Result<Distribution, Error> {
    let repository = Repository::open(tenant, reference, auth, Access::Pull).await.map_err(told)?;
    let wanted = match reference.digest() {
        Some(digest) => digest.to_string(),
        None => reference.tag().unwrap_or("latest").to_owned(),
    };
    let fetched = repository.manifest(&wanted).await.map_err(told)?;
    let name = reference.familiar();
    let document = Document::parse(&fetched.bytes)
        .map_err(|bad| Error::Invalid(format!("cannot read the manifest of {name}: {bad}")))?;
    let platforms = match document {
        Document::Index(index) => index.platforms(),
        Document::Manifest(manifest) => {
            let raw = repository.config(manifest.config.digest).await.map_err(told)?;
            let config = serde_json::from_slice::<ImageConfig>(&raw)
                .map_err(|bad| Error::Invalid(format!("invalid image configuration: {bad}")))?;
            let variant = Some(config.variant).filter(|variant| !variant.is_empty());
            vec![Platform { os: config.os, architecture: config.architecture, variant }]
        }
    };
    let (digest, size) = (fetched.digest, fetched.bytes.len() as u64);
    Ok(Distribution { media_type: fetched.media_type, digest, size, platforms })
}

/// A registry's error, as it is.
pub(super) fn told(error: RegistryError) -> Error {
    use reqwest::StatusCode;
    if let Some(astray) = astray(&error) {
        return Error::Denied(astray.to_string());
    }
    match error.status() {
        Some(StatusCode::UNAUTHORIZED) => return Error::Unauthorized(error.to_string()),
        Some(StatusCode::FORBIDDEN) => return Error::Denied(error.to_string()),
        Some(StatusCode::NOT_FOUND) => return Error::NotFound(error.to_string()),
        Some(_) | None => {}
    }
    if let RegistryError::Unreachable { method, url, source } = error {
        // Its text has the causes in it: they are not to be told twice.
        return Error::internal(format!("{method} \"{url}\""), source);
    }
    Error::internal("the registry cannot be used", error)
}

/// Whether it, or what it comes from, is that a registry led to the host.
fn astray(error: &RegistryError) -> Option<&Astray> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(astray) = error.downcast_ref::<Astray>() {
            return Some(astray);
        }
        cause = match error.downcast_ref::<RegistryError>() {
            // As it says itself, it has no cause that is told apart.
            Some(RegistryError::Astray(astray)) => return Some(astray),
            _ => error.source(),
        };
    }
    None
}
