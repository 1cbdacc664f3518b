//! Names and bytes of images.
//!
//! An image is a configuration (its digest is the image's id), a stack of
//! layers, and names. It comes by `pull` from a registry, by `load` from an
//! archive, or by `import` from a root filesystem; from there on all are the
//! same: archives are unpacked into the store's layers, then one order to the
//! `ledger` makes records and names durable, all or none.
//!
//! Why so: bytes may come slowly, from anybody, and break off. So the long work
//! touches nothing that others see, and the one task that changes what images
//! there are never waits for a network.
//!
//! What must stay true: a tenant sees only its own images; layers are shared on
//! disk, but nobody gets a layer by its name alone (it shows the bytes, or had
//! them before); an image is listed only when all its layers are complete; what
//! is unpacked stays inside its directory.
//!
//! `service` may use this room; it uses `storage`.

mod archive;
mod catalog;
mod changes;
mod check;
mod config;
mod distribution;
mod import;
mod layer;
mod ledger;
mod load;
mod manifest;
mod pipe;
mod progress;
mod pull;
mod push;
mod reference;
mod registry;
mod remote;
mod remove;
mod save;

use crate::{
    error::Error,
    ids::{Digest, ImageId, TenantName},
    storage::{Store, archive::ahead},
};
use pull::Pulls;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::io::AsyncRead;
use tokio_util::task::TaskTracker;

pub use crate::storage::archive::unpack::Limits;
pub use changes::{apply as apply_changes, ports as exposed};
pub use check::{Checked, Problem};
pub use config::{Healthcheck, History, ImageConfig, RootFs, RunConfig};
pub use distribution::Distribution;
pub use pipe::Flow;
pub use progress::{Detail, Message, Progress};
pub use reference::{BadReference, Reference};
pub use registry::{Found, is_private_registry};
pub(crate) use registry::{embedded, web_client};
pub use save::Saved;

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
#[derive(Clone, PartialEq, Eq, Hash)]
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
pub struct Images(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    ledger: ledger::Handle,
    tracker: TaskTracker,
    limits: Limits,
    pulls: Mutex<Pulls>,
}

/// Finds out whether a container is in the way of an image's removal.
pub type Users = dyn Fn(&ImageId) -> Option<InUse> + Send + Sync;

impl Images {
    /// Reads what images there are.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn open(store: Store, tracker: TaskTracker) -> Result<Self, Error> {
        Self::with_limits(store, tracker, Limits::default()).await
    }

    /// The same with other limits on what one layer may hold.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn with_limits(
        store: Store,
        tracker: TaskTracker,
        limits: Limits,
    ) -> Result<Self, Error> {
        let ledger = ledger::Handle::open(store.clone(), &tracker).await?;
        Ok(Self(Arc::new(Inner { store, ledger, tracker, limits, pulls: Mutex::default() })))
    }

    /// Finds an image by name, digest, id, or the beginning of an id.
    ///
    /// # Errors
    /// `NotFound` in Docker's words (`No such image: x:latest`); `Invalid`.
    pub fn resolve(&self, tenant: &TenantName, name: &str) -> Result<Arc<Image>, Error> {
        self.0.ledger.look(tenant, |catalog| catalog.find(name).cloned())
    }

    /// Bytes of an image's layers that other images of the tenant have too.
    #[must_use]
    pub fn shared_size(&self, tenant: &TenantName, image: &Image) -> u64 {
        let shared = self.0.ledger.look(tenant, |catalog| catalog.shared_layers(image));
        shared.into_iter().filter_map(|layer| self.0.store.layer_size(layer)).sum()
    }

    /// All of a tenant's images, in no order.
    #[must_use]
    pub fn list(&self, tenant: &TenantName) -> Vec<Arc<Image>> {
        self.0.ledger.look(tenant, |catalog| catalog.all().cloned().collect())
    }

    /// Gives an image one more name, maybe away from another one.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a name with a digest.
    pub async fn tag(
        &self,
        tenant: &TenantName,
        name: &str,
        new: &Reference,
    ) -> Result<Arc<Image>, Error> {
        self.0.ledger.tag(tenant, name, new.clone()).await
    }

    /// Removes a name, and the image if that was its last one; or the image, if
    /// it is named by its id. `in_use` is asked about running containers first.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` in Docker's words.
    pub async fn remove(
        &self,
        tenant: &TenantName,
        name: &str,
        how: Removal,
        in_use: Arc<Users>,
    ) -> Result<Vec<Removed>, Error> {
        self.0.ledger.remove(tenant, name, how, in_use).await
    }

    /// Takes images out of a `docker save` archive or an OCI layout, compressed
    /// or not. All of them or none.
    ///
    /// # Errors
    /// `Invalid` says what is wrong with the archive; nothing of it is left.
    pub async fn load<R>(
        &self,
        tenant: &TenantName,
        archive: R,
        platform: Option<Platform>,
        progress: Progress,
    ) -> Result<Vec<Arc<Image>>, Error>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        let archive = ahead(&self.0.tracker, archive);
        self.finish(load::load(self.clone(), tenant.clone(), archive, platform, progress)).await
    }

    /// An archive of those images, Docker's and OCI's at once.
    ///
    /// # Errors
    /// `NotFound` for one of the names; a layer's archive cannot be made again.
    pub async fn save(
        &self,
        tenant: &TenantName,
        names: &[String],
        platform: Option<&Platform>,
    ) -> Result<Saved, Error> {
        save::save(self, tenant, names, platform).await
    }

    /// Makes an image of one layer out of an archive of a root filesystem.
    ///
    /// # Errors
    /// `Invalid` says what is wrong with the archive or the changes.
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
        let archive = ahead(&self.0.tracker, archive);
        self.finish(import::import(self.clone(), tenant.clone(), archive, how, progress)).await
    }

    /// Makes an image of a configuration and of layers that are here, pinned by
    /// the caller: of a build, of a container.
    ///
    /// # Errors
    /// A layer is gone; the disk is full.
    pub async fn create(
        &self,
        tenant: &TenantName,
        (raw, config): (String, ImageConfig),
        names: Vec<Reference>,
        parent: Option<ImageId>,
    ) -> Result<Arc<Image>, Error> {
        let pin = |digest: &Digest| {
            let gone = || Error::internal("cannot make the image", format!("no layer {digest}"));
            self.0.store.pin_layer(*digest).ok_or_else(gone)
        };
        let pins = config.rootfs.diff_ids.iter().map(pin).collect::<Result<_, _>>()?;
        let complete = self.complete((raw, config), pins, names, parent);
        self.0.ledger.register(tenant, complete).await
    }

    /// Downloads an image from its registry; all tags of the repository, if
    /// the reference has neither tag nor digest.
    ///
    /// # Errors
    /// `NotFound` and `Unauthorized` in Docker's words; `Invalid` for an image
    /// that is damaged or refused.
    #[expect(clippy::too_many_arguments, reason = "who, what, which of it, by what right, to whom")]
    pub async fn pull(
        &self,
        tenant: &TenantName,
        reference: &Reference,
        platform: Option<Platform>,
        auth: Option<Auth>,
        progress: Progress,
    ) -> Result<Vec<Arc<Image>>, Error> {
        pull::pull(self, tenant, reference.clone(), (platform, auth), progress).await
    }

    /// Uploads an image to its registry; all tags of the repository, if the
    /// reference has none. Stops when it is dropped.
    ///
    /// # Errors
    /// `NotFound`, `Unauthorized` and `Denied`, as Docker and the registry say.
    #[expect(clippy::too_many_arguments, reason = "who, what, which of it, by what right, to whom")]
    pub async fn push(
        &self,
        tenant: &TenantName,
        reference: &Reference,
        platform: Option<Platform>,
        auth: Option<Auth>,
        progress: Progress,
    ) -> Result<Vec<Arc<Image>>, Error> {
        let (tenant, reference) = (tenant.clone(), reference.clone());
        let wish = push::Wish { tenant, reference, platform, auth };
        push::push(self, &wish, progress).await
    }

    /// Whether a registry takes those credentials; a token to show instead of
    /// the password the next time, which may be empty.
    ///
    /// # Errors
    /// `Unauthorized`; the registry cannot be reached.
    pub async fn login(
        &self,
        tenant: &TenantName,
        registry: &str,
        auth: Auth,
    ) -> Result<String, Error> {
        registry::login(tenant, registry, auth).await.map_err(distribution::told)
    }

    /// What a registry says of an image.
    ///
    /// # Errors
    /// `NotFound` and `Unauthorized` as the registry says.
    pub async fn distribution(
        &self,
        tenant: &TenantName,
        reference: &Reference,
        auth: Option<Auth>,
    ) -> Result<Distribution, Error> {
        distribution::look(tenant, reference, auth).await
    }

    /// Asks a registry that can be searched.
    ///
    /// # Errors
    /// It cannot be reached, or cannot be searched.
    pub async fn search(
        &self,
        tenant: &TenantName,
        term: &str,
        limit: u32,
        auth: Option<&Auth>,
    ) -> Result<Vec<Found>, Error> {
        registry::search(tenant, term, limit, auth).await
    }

    /// Looks whether everything that is recorded is there and whole; with `mend`,
    /// removes records that lead nowhere. Of all tenants.
    ///
    /// # Errors
    /// The records cannot be written.
    pub async fn check(&self, mend: bool) -> Result<Checked, Error> {
        check::check(self, mend).await
    }

    /// Work that goes on to its end when nobody waits for it any more.
    async fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.0.tracker.spawn(work).await.unwrap_or_else(|stopped| Err(stopping(stopped)))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let done = self.0.tracker.spawn_blocking(work);
        done.await.unwrap_or_else(|stopped| Err(stopping(stopped)))
    }

    fn pulls(&self) -> MutexGuard<'_, Pulls> {
        self.0.pulls.lock().expect("no panic happens under this lock")
    }
}

/// The task was taken down with the runtime, or has panicked.
fn stopping(stopped: tokio::task::JoinError) -> Error {
    if stopped.is_panic() {
        return Error::internal("the work on an image has panicked", stopped);
    }
    Error::Unavailable("the engine is stopping".to_owned())
}

/// How `docker rmi` was called.
#[derive(Debug, Clone, Copy, Default)]
pub struct Removal {
    pub force: bool,
    pub no_prune: bool,
}
