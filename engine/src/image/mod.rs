//! Names and bytes of images.

mod config;
mod progress;
mod reference;

use crate::{
    error::Error,
    ids::{Digest, ImageId, TenantName},
    storage::Store,
};
use std::sync::Arc;
use tokio::io::AsyncRead;
use tokio_util::task::TaskTracker;

pub use config::{Healthcheck, ImageConfig, RunConfig};
pub use progress::{Message, Progress};
pub use reference::{BadReference, Reference};

/// An image as one tenant sees it.
#[derive(Debug, Clone)]
pub struct Image {
    pub id: ImageId,
    /// The configuration, parsed.
    pub config: ImageConfig,
    /// The configuration's own bytes; `id` is their digest.
    pub raw: Arc<str>,
    /// Diff ids, lowest first.
    pub layers: Vec<Digest>,
    /// Bytes of all layers, unpacked.
    pub size: u64,
    /// Familiar form: `busybox:latest`.
    pub repo_tags: Vec<String>,
    /// Familiar form: `busybox@sha256:…`.
    pub repo_digests: Vec<String>,
    pub parent: Option<ImageId>,
    /// When it was last tagged, nanoseconds since 1970.
    pub tagged_at: i64,
}

/// One line of `docker rmi`'s answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    Untagged(String),
    Deleted(ImageId),
}

/// A container that is in the way of an image's removal.
#[derive(Debug, Clone)]
pub struct InUse {
    /// The container's short id.
    pub container: String,
    pub running: bool,
}

/// What a user has said to a registry: `X-Registry-Auth`, parsed.
#[derive(Clone, PartialEq, Eq)]
pub enum Auth {
    Basic {
        username: String,
        password: String,
    },
    /// `identitytoken`.
    Refresh {
        token: String,
    },
    /// `registrytoken`.
    Bearer {
        token: String,
    },
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Auth(…)")
    }
}

/// `--platform`: `linux/amd64`, `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    pub variant: Option<String>,
}

/// What `docker import` says beside the bytes.
#[derive(Debug, Clone, Default)]
pub struct Import {
    pub reference: Option<Reference>,
    pub message: String,
    /// Dockerfile lines: `CMD ["sh"]`, `ENV a=b`.
    pub changes: Vec<String>,
    pub platform: Option<Platform>,
}

/// A handle on all images.
#[derive(Debug, Clone)]
pub struct Images(Arc<Store>);

/// Finds out whether a container is in the way of an image's removal.
pub type Users = dyn Fn(&ImageId) -> Option<InUse> + Send + Sync;

impl Images {
    pub async fn open(store: Store, tracker: TaskTracker) -> Result<Self, Error> {
        drop(tracker);
        Ok(Self(Arc::new(store)))
    }
    pub fn resolve(&self, tenant: &TenantName, name: &str) -> Result<Arc<Image>, Error> {
        let _ = (tenant, name);
        unimplemented!()
    }
    #[must_use]
    pub fn list(&self, tenant: &TenantName) -> Vec<Arc<Image>> {
        let _ = tenant;
        unimplemented!()
    }
    pub async fn tag(
        &self,
        tenant: &TenantName,
        name: &str,
        new: &Reference,
    ) -> Result<Arc<Image>, Error> {
        let _ = (tenant, name, new);
        unimplemented!()
    }
    pub async fn remove(
        &self,
        tenant: &TenantName,
        name: &str,
        how: Removal,
        in_use: Arc<Users>,
    ) -> Result<Vec<Removed>, Error> {
        let _ = (tenant, name, how, in_use);
        unimplemented!()
    }
    pub async fn load<R>(
        &self,
        tenant: &TenantName,
        archive: R,
        progress: Progress,
    ) -> Result<Vec<Arc<Image>>, Error>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        let _ = (tenant, archive, progress);
        unimplemented!()
    }
    pub async fn import<R>(
        &self,
        tenant: &TenantName,
        archive: R,
        how: Import,
        progress: Progress,
    ) -> Result<Arc<Image>, Error>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        let _ = (tenant, archive, how, progress);
        unimplemented!()
    }
    pub async fn pull(
        &self,
        tenant: &TenantName,
        reference: &Reference,
        platform: Option<Platform>,
        auth: Option<Auth>,
        progress: Progress,
    ) -> Result<Arc<Image>, Error> {
        let _ = (tenant, reference, platform, auth, progress);
        unimplemented!()
    }
}

/// How `docker rmi` was called.
#[derive(Debug, Clone, Copy, Default)]
pub struct Removal {
    pub force: bool,
    pub no_prune: bool,
}
