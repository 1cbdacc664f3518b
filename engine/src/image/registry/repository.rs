//! One repository: manifests and blobs, down and up.

use super::{Registry, RegistryError, accepted, check, document};
use crate::{
    ids::{Digest, TenantName},
    image::{Auth, Reference, manifest},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use reqwest::{Body, Method, RequestBuilder, Response, StatusCode, Url, header};
use sha2::{Digest as _, Sha256};

/// A manifest's bytes, their digest, and what kind the registry says it is.
#[derive(Debug)]
pub(in crate::image) struct Fetched {
    pub(in crate::image) bytes: Bytes,
    pub(in crate::image) digest: Digest,
    pub(in crate::image) media_type: String,
}

/// What shall be done with a repository: what to ask a token for.
#[derive(Debug, Clone)]
pub(in crate::image) enum Access {
    Pull,
    /// And mount blobs from those repositories of the same registry.
    Push {
        from: Vec<String>,
    },
}

/// What came of the wish to have another repository's blob.
#[derive(Debug)]
pub(in crate::image) enum Mount {
    Mounted,
    /// It has to be sent, to here.
    Upload(Url),
}

#[derive(Debug)]
pub(in crate::image) struct Repository {
    registry: Registry,
    /// `https://host/v2/name`
    base: String,
    scopes: Vec<String>,
}

impl Repository {
    /// Finds out how the registry is reached.
    pub(in crate::image) async fn open(
        tenant: &TenantName,
        reference: &Reference,
        auth: Option<Auth>,
        access: Access,
    ) -> Result<Self, RegistryError> {
        let registry = Registry::open(tenant, reference.registry(), auth).await?;
        let name = reference.repository();
        let base = format!("{}{name}", registry.base);
        let scopes = match access {
            Access::Pull => vec![format!("repository:{name}:pull")],
            Access::Push { from } => {
                let others = from.iter().map(|from| format!("repository:{from}:pull"));
                std::iter::once(format!("repository:{name}:pull,push")).chain(others).collect()
            }
        };
        Ok(Self { registry, base, scopes })
    }

    /// A manifest or index, by tag or digest.
    pub(in crate::image) async fn manifest(&self, name: &str) -> Result<Fetched, RegistryError> {
        let url = format!("{}/manifests/{name}", self.base);
        let accept = |request: RequestBuilder| request.header(header::ACCEPT, manifest::ACCEPT);
        let response = self.get(&url, &accept).await?;
        let kind = response.headers().get(header::CONTENT_TYPE);
        let media_type = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
        let bytes = document(response, &url).await?;
        let digest = Digest::of(Sha256::digest(&bytes).into());
        check(name.parse().ok(), digest)?;
        Ok(Fetched { bytes, digest, media_type })
    }

    /// A small blob.
    pub(in crate::image) async fn config(&self, digest: Digest) -> Result<Bytes, RegistryError> {
        let url = format!("{}/blobs/{digest}", self.base);
        let bytes = document(self.get(&url, &|request| request).await?, &url).await?;
        check(Some(digest), Digest::of(Sha256::digest(&bytes).into()))?;
        Ok(bytes)
    }

    /// A blob's bytes from `offset` on, unchecked. A registry that cannot do
    /// that gives them from the start: the second value says from where.
    pub(in crate::image) async fn blob(
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

    /// All of its tags.
    pub(in crate::image) async fn tags(&self) -> Result<Vec<String>, RegistryError> {
        #[derive(serde::Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let mut tags = Vec::new();
        let mut next = Some(format!("{}/tags/list", self.base));
        while let Some(url) = next {
            let response = self.get(&url, &|request| request).await?;
            next = self.next_page(&response, &url);
            let bytes = document(response, &url).await?;
            let page = serde_json::from_slice::<Page>(&bytes)
                .map_err(|source| RegistryError::BadAnswer { url, source })?;
            tags.extend(page.tags.unwrap_or_default());
            // A registry that never ends is none.
            next = next.filter(|_| tags.len() < 100_000);
        }
        Ok(tags)
    }

    /// `Link: </v2/x/tags/list?last=b&n=2>; rel="next"`
    fn next_page(&self, response: &Response, url: &str) -> Option<String> {
        let link = response.headers().get(header::LINK)?.to_str().ok()?;
        let (target, _) = link.strip_prefix('<')?.split_once('>')?;
        let next = Url::parse(url).ok()?.join(target).ok()?;
        self.registry.is_own(&next).then(|| next.to_string())
    }

    /// Whether the repository has that blob.
    pub(in crate::image) async fn has(&self, digest: Digest) -> Result<bool, RegistryError> {
        let url = format!("{}/blobs/{digest}", self.base);
        match self.ask(Method::HEAD, &url, &|request| request).await {
            Ok(_) => Ok(true),
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks for another repository's blob, or for a place to send it to.
    pub(in crate::image) async fn mount(
        &self,
        digest: Digest,
        from: &str,
    ) -> Result<Mount, RegistryError> {
        let url = format!("{}/blobs/uploads/", self.base);
        let mount = [("mount", digest.to_string()), ("from", from.to_owned())];
        let response = self.ask(Method::POST, &url, &|request| request.query(&mount)).await?;
        match response.status() {
            StatusCode::CREATED => Ok(Mount::Mounted),
            _ => Ok(Mount::Upload(location(&response, &url)?)),
        }
    }

    /// A place to send a blob to.
    pub(in crate::image) async fn upload(&self) -> Result<Url, RegistryError> {
        let url = format!("{}/blobs/uploads/", self.base);
        let response = self.ask(Method::POST, &url, &|request| request).await?;
        location(&response, &url)
    }

    /// Sends a blob, of which the digest need not be known yet; where to say it.
    pub(in crate::image) async fn send(
        &self,
        place: &Url,
        body: Body,
    ) -> Result<Url, RegistryError> {
        let request = self
            .registry
            .request(Method::PATCH, place.as_str())
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(body);
        let response = self.registry.send(request, Method::PATCH, place.as_str()).await?;
        let response = accepted(response, place.as_str()).await?;
        location(&response, place.as_str())
    }

    /// Says what the digest of the bytes sent is.
    pub(in crate::image) async fn finish(
        &self,
        place: &Url,
        digest: Digest,
    ) -> Result<(), RegistryError> {
        let mut place = place.clone();
        place.query_pairs_mut().append_pair("digest", &digest.to_string());
        let empty = |request: RequestBuilder| request.header(header::CONTENT_LENGTH, 0);
        self.ask(Method::PUT, place.as_str(), &empty).await.map(drop)
    }

    /// Takes back an upload that broke off.
    pub(in crate::image) async fn cancel(&self, place: &Url) -> Result<(), RegistryError> {
        self.ask(Method::DELETE, place.as_str(), &|request| request).await.map(drop)
    }

    pub(in crate::image) async fn put_manifest(
        &self,
        tag: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<(), RegistryError> {
        let url = format!("{}/manifests/{tag}", self.base);
        let fill = |request: RequestBuilder| {
            request.header(header::CONTENT_TYPE, media_type).body(bytes.clone())
        };
        self.ask(Method::PUT, &url, &fill).await.map(drop)
    }

    async fn get(
        &self,
        url: &str,
        prepare: &(dyn Fn(RequestBuilder) -> RequestBuilder + Sync),
    ) -> Result<Response, RegistryError> {
        self.ask(Method::GET, url, prepare).await
    }

    async fn ask(
        &self,
        method: Method,
        url: &str,
        prepare: &(dyn Fn(RequestBuilder) -> RequestBuilder + Sync),
    ) -> Result<Response, RegistryError> {
        self.registry.ask(method, url, &self.scopes, prepare).await
    }
}

/// Where to go on, absolute or relative to where we were.
fn location(response: &Response, url: &str) -> Result<Url, RegistryError> {
    let place = response.headers().get(header::LOCATION).and_then(|place| place.to_str().ok());
    let base = Url::parse(url).ok();
    let joined = place.and_then(|place| base?.join(place).ok());
    joined.ok_or_else(|| RegistryError::NoLocation { url: url.to_owned() })
}
