//! Bytes that survive a crash: records, blobs, layers, containers' root
//! filesystems; and archives, as which such bytes come and go.
//!
//! One directory holds it all:
//!
//! ```text
//! lock                 locked for as long as an engine uses the directory; its pid
//! state.redb           the records: what exists
//! blobs/sha256/        bytes that were downloaded and verified, not unpacked yet
//! layers/NAME/         unpacked layers, shared by images and tenants (overlay's lowerdir)
//! recipes/NAME/        how a layer's archive is made again from its directory
//! containers/HEX/      one container's upper, work, merged, and its other files
//! volumes/TENANT/NAME/ what outlives containers (its own front door: `volumes/mod.rs`)
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

pub mod archive;
pub mod atomic;
mod blobs;
mod changes;
mod draft;
mod error;
mod layers;
mod lock;
mod recipe;
mod records;
mod rootfs;
mod scratch;
mod size;
mod sweep;
mod trash;
mod volumes;
mod writer;

use crate::ids::{ContainerId, Digest};
use layers::Layers;
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use serde::de::DeserializeOwned;
use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs::DirBuilder,
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use trash::Trash;
use writer::Writer;

pub use blobs::{Blob, BlobWriter};
pub use changes::{ChangeKind, FileChange, changes};
pub use draft::{Draft, Upper};
pub use error::StoreError;
pub use layers::{MOST as MOST_LAYERS, Pin, Staged};
pub use lock::Lock;
pub use recipe::{LayerArchive, RecipeWriter};
pub use records::{Batch, Table};
pub use rootfs::Rootfs;
pub use scratch::in_memory;
pub use volumes::{
    BadOption, Fill, NotMounted, NotRemoved, UsedVolume, Volume, Volumes, check_options, size_of,
};

/// A handle on the state directory. Blocking work happens on other threads,
/// and goes on to its end when the caller's future is dropped.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    lock: Lock,
    writer: Writer,
    layers: Layers,
    trash: Trash,
    /// Which layers each container counts on: its image's.
    containers: Mutex<HashMap<ContainerId, Vec<Digest>>>,
    /// And those of images that are mounted in it.
    mounted: Mutex<HashMap<ContainerId, Vec<Digest>>>,
    tracker: TaskTracker,
    runtime: Handle,
    next: AtomicU64,
}

impl Store {
    /// Opens the directory, or makes it, and sweeps what a crash left.
    ///
    /// # Errors
    /// [`StoreError::InUse`]; the directory cannot be written to; its records
    /// are a newer engine's.
    pub async fn open(state_dir: &Path, tracker: TaskTracker) -> Result<Self, StoreError> {
        let dir = state_dir.to_owned();
        let runtime = Handle::current();
        let opened = tracker.spawn_blocking({
            let tracker = tracker.clone();
            move || open(dir, tracker, runtime)
        });
        opened.await.map_err(|_| StoreError::Stopping)?
    }

    /// Keeps other engines out for longer than this handle lives.
    #[must_use]
    pub fn lock(&self) -> Lock {
        self.0.lock.clone()
    }

    /// Makes changes durable, all or none. They are made even if the caller
    /// does not wait for the answer, and in the order of calls.
    ///
    /// # Errors
    /// The disk is full or read-only; then none has been made.
    pub async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.0.writer.commit(batch).await.map_err(|_| StoreError::Stopping)?
    }

    /// Every record of a table with its key, ordered by key.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub async fn all<T: DeserializeOwned>(
        &self,
        table: Table,
    ) -> Result<Vec<(String, T)>, StoreError> {
        let rows = self.0.writer.read(table).await.map_err(|_| StoreError::Stopping)??;
        rows.into_iter()
            .map(|(key, value)| records::read(table, &key, &value).map(|record| (key, record)))
            .collect()
    }

    /// Runs blocking work to its end, whether or not the caller waits.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        let done = self.0.tracker.spawn_blocking(move || work(&store));
        done.await.map_err(|_| StoreError::Stopping)?
    }

    fn dir(&self) -> &Path {
        &self.0.dir
    }

    fn tracker(&self) -> &TaskTracker {
        &self.0.tracker
    }

    fn layers_dir(&self) -> PathBuf {
        self.0.dir.join("layers")
    }

    fn recipes_dir(&self) -> PathBuf {
        self.0.dir.join("recipes")
    }

    fn layers(&self) -> &Layers {
        &self.0.layers
    }

    fn trash(&self) -> &Trash {
        &self.0.trash
    }

    fn containers(&self) -> MutexGuard<'_, HashMap<ContainerId, Vec<Digest>>> {
        self.0.containers.lock().expect("no panic happens under this lock")
    }

    fn mounted(&self) -> MutexGuard<'_, HashMap<ContainerId, Vec<Digest>>> {
        self.0.mounted.lock().expect("no panic happens under this lock")
    }

    /// A new name in `tmp`.
    fn temporary_path(&self) -> PathBuf {
        self.0.dir.join("tmp").join(self.0.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Moves directories to the trash once their records have been removed.
    fn trash_after(&self, batch: Batch, paths: Vec<PathBuf>) {
        let removed = self.0.writer.commit(batch);
        let store = self.clone();
        let work = async move {
            match removed.await {
                Ok(Ok(())) => {}
                // The records are still there, and so must be the directories.
                Ok(Err(error)) => {
                    tracing::warn!(error = %error, "layers stay until the next start");
                    return;
                }
                Err(_) => return,
            }
            let moved = store.blocking(move |store| {
                paths.iter().try_for_each(|path| store.trash().take(path).map(drop))
            });
            if let Err(error) = moved.await {
                tracing::warn!(error = %error, "cannot remove a layer");
            }
        };
        // The handle is not needed: nobody waits, the tracker does.
        drop(self.0.tracker.spawn_on(work, &self.0.runtime));
    }
}

fn open(dir: PathBuf, tracker: TaskTracker, runtime: Handle) -> Result<Store, StoreError> {
    make_directories(&dir)?;
    let lock = Lock::take(&dir)?;
    sweep::refuse_lost_records(&dir)?;
    let writer = Writer::open(&dir, lock.clone())?;
    let trash = Trash::open(dir.join("trash"))?;
    let rows = |table| writer.read(table).blocking_recv().map_err(|_| StoreError::Stopping)?;
    let layers = Layers::default();
    let lost = layers.load(&dir.join("layers"), rows(Table::Layers)?)?;
    let keys = |table| -> Result<HashSet<OsString>, StoreError> {
        Ok(rows(table)?.into_iter().map(|(key, _)| OsString::from(key)).collect())
    };
    let (containers, volumes) = (keys(Table::Containers)?, keys(Table::Volumes)?);
    sweep::sweep(&dir, &trash, (&layers.names(), &layers.recipes()), &containers)?;
    sweep::volumes(&dir, &trash, &volumes)?;
    let forget = lost.into_iter().fold(Batch::default(), |b, key| b.remove(Table::Layers, key));
    writer.commit(forget).blocking_recv().map_err(|_| StoreError::Stopping)??;
    let (containers, mounted, next) = (Mutex::default(), Mutex::default(), AtomicU64::new(0));
    let inner =
        Inner { dir, lock, writer, layers, trash, containers, mounted, tracker, runtime, next };
    Ok(Store(Arc::new(inner)))
}

/// Nobody but root looks in: below are other people's files, with their setuid bits.
fn make_directories(dir: &Path) -> Result<(), StoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(StoreError::io("create", dir))?;
    set_mode(dir, 0o700)?;
    for below in [
        "blobs",
        "blobs/sha256",
        "layers",
        "layers/0",
        "recipes",
        "containers",
        "tmp",
        "trash",
        "volumes",
    ] {
        let path = dir.join(below);
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(StoreError::io("create", &path)(error)),
        }
    }
    spread(&dir.join("tmp"))?;
    set_mode(&dir.join("layers").join(layers::EMPTY), 0o755)?;
    make_mount_points(&dir.join("layers").join(layers::MOUNT_POINTS))
}

/// What is made in this directory has nothing to do with its neighbours, so
/// ext4 shall give each a part of the disk of its own. Else a layer is made
/// where another was just removed, and without a journal ext4 looks at each
/// inode that it freed lately, for every file anew.
fn spread(dir: &Path) -> Result<(), StoreError> {
    let open = std::fs::File::open(dir).map_err(StoreError::io("open", dir))?;
    let outcome =
        ioctl_getflags(&open).and_then(|flags| ioctl_setflags(&open, flags | IFlags::TOPDIR));
    if let Err(errno) = outcome {
        // It is a hint, and others than ext4 do not take it.
        tracing::debug!(error = %errno, "directories are not spread");
    }
    Ok(())
}

fn make_mount_points(top: &Path) -> Result<(), StoreError> {
    for below in ["", "dev", "etc", "proc", "sys"] {
        let path = top.join(below);
        DirBuilder::new().recursive(true).create(&path).map_err(StoreError::io("create", &path))?;
        set_mode(&path, 0o755)?;
    }
    for file in ["etc/hostname", "etc/hosts", "etc/resolv.conf"] {
        let path = top.join(file);
        std::fs::File::create(&path).map_err(StoreError::io("create", &path))?;
        set_mode(&path, 0o644)?;
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<(), StoreError> {
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, mode).map_err(StoreError::io("set the mode of", path))
}
