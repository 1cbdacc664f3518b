//! Bytes that survive a crash: records, blobs, layers, containers' root filesystems.
//!
//! One directory holds it all:
//!
//! ```text
//! lock                 flock'ed for as long as an engine uses the directory; its pid
//! state.redb           the records: what exists
//! blobs/sha256/HEX     bytes that were downloaded and have been verified
//! layers/NAME/         unpacked layers, shared by images and tenants (overlay's lowerdir)
//! containers/HEX/      one container's upper, work, merged, and its other files
//! tmp/  trash/         half-made and half-removed things; emptied at start
//! ```
//!
//! Why so: the records say what exists, everything else follows. A thing on
//! disk is made in `tmp`, renamed into place when complete, and only then
//! recorded; it is unrecorded first, then renamed into `trash`, and removed in
//! the background. So a crash at any moment leaves at most things without a
//! record, which [`Store::open`] sweeps.
//!
//! What must stay true: whoever was told that a commit succeeded finds it
//! after `kill -9`; a layer's directory holds the whole layer or does not
//! exist; one engine per directory.
//!
//! `service`, `container` and `image` may use this room. It uses none.

mod records;

use crate::ids::{ContainerId, Digest};
use std::path::{Path, PathBuf};
use tokio_util::task::TaskTracker;

pub use records::{Batch, Table};

/// A handle on the state directory. Blocking work happens on other threads,
/// and goes on to its end when the caller's future is dropped.
#[derive(Debug, Clone)]
pub struct Store(std::sync::Arc<()>);

/// Why the state directory could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("storage")]
pub struct StoreError;

/// Where one container's root filesystem is, ready to be mounted as overlayfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// Uppermost first; names in `layers_dir`. Never empty: an image without
    /// layers has one empty directory below it.
    pub lower: Vec<String>,
    pub layers_dir: PathBuf,
    pub upper: PathBuf,
    pub work: PathBuf,
    /// An empty directory to mount at.
    pub target: PathBuf,
    /// The container's own directory: for its log, hosts file, and so on.
    pub dir: PathBuf,
}

impl Store {
    pub async fn open(state_dir: &Path, tracker: TaskTracker) -> Result<Self, StoreError> {
        let _ = (state_dir, tracker);
        unimplemented!()
    }

    /// Makes a batch of changes durable, all or none.
    pub async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let _ = batch;
        unimplemented!()
    }

    /// Every record of a table, by key.
    pub async fn all<T: serde::de::DeserializeOwned>(
        &self,
        table: Table,
    ) -> Result<Vec<(String, T)>, StoreError> {
        let _ = table;
        unimplemented!()
    }

    /// Makes a new container's directories. `layers` are diff ids, lowest first.
    pub async fn create_rootfs(
        &self,
        id: ContainerId,
        layers: &[Digest],
    ) -> Result<Rootfs, StoreError> {
        let _ = (id, layers);
        unimplemented!()
    }

    /// The same for a container that exists already. Call it for every
    /// container when the engine starts: it holds the layers.
    pub fn rootfs(&self, id: ContainerId, layers: &[Digest]) -> Result<Rootfs, StoreError> {
        let _ = (id, layers);
        unimplemented!()
    }

    /// Removes a container's directories; no error if there are none.
    pub async fn remove_rootfs(&self, id: ContainerId) -> Result<(), StoreError> {
        let _ = id;
        unimplemented!()
    }
}
