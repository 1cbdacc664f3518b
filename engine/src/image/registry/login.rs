//! `docker login`: whether a registry takes those credentials.

use super::{Registry, RegistryError, accepted};
use crate::{ids::TenantName, image::Auth};
use reqwest::{Method, StatusCode, header};

/// What to show the next time instead of the password; may be empty.
pub(in crate::image) async fn login(
    tenant: &TenantName,
    host: &str,
    auth: Auth,
) -> Result<String, RegistryError> {
    let registry = Registry::open(tenant, host, Some(auth)).await?;
    let url = registry.base.clone();
    let first = registry.send(registry.request(Method::GET, &url), Method::GET, &url).await?;
    if first.status() != StatusCode::UNAUTHORIZED {
        // It lets everybody in.
        return accepted(first, &url).await.map(|_| String::new());
    }
    let challenge = first.headers().get(header::WWW_AUTHENTICATE);
    let challenge = challenge.and_then(|text| text.to_str().ok()).map(str::to_owned);
    let Some(challenge) = challenge else {
        return Err(RegistryError::LoginFailed { url, status: first.status() });
    };
    let (authorization, identity) = registry.authorize(&url, &challenge, &[]).await?;
    let request = registry.client.get(&url).header(header::AUTHORIZATION, authorization);
    let second = registry.send(request, Method::GET, &url).await?;
    match second.status() {
        status if status.is_success() => Ok(identity),
        status => Err(RegistryError::LoginFailed { url, status }),
    }
}
