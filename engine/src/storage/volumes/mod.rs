//! Volumes: directories that outlive the containers that write to them.
//!
//! ```text
//! volumes/TENANT/NAME/_data     what the containers see
//! volumes/TENANT/NAME/_copy     an image's content on its way into an empty volume
//! volumes/TENANT/NAME/_copied   the same, complete: what is left to move into `_data`
//! ```
//!
//! The record says that a volume exists. One operation at a time works on one
//! volume ([`Volumes::turn`]): making, filling, mounting, removing. Who wants
//! the next waits for its turn; other volumes are not in the way.
//!
//! A volume with options of the local driver (`type`, `device`, `o`) is a
//! mount, made on the host at `_data` while a container that uses it runs: the
//! containers share one tmpfs, one connection to an NFS server. That is the
//! only mount that Tritium makes outside of containers; [`Volumes::settle`]
//! takes away what a crash left.
//!
//! What must stay true: a volume that a container's record names is not
//! removed; nothing is removed through a mount.

mod copy;
mod fill;
mod local;
mod measure;
mod mounted;
mod turn;

use super::{Batch, Store, StoreError, Table, atomic};
use crate::ids::{ContainerId, TenantName, VolumeName};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::sync::watch;

pub use fill::Fill;
pub use local::{BadOption, check as check_options};
pub use measure::size_of;
pub(super) use mounted::unmount_below;

/// What is on disk about a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Of this struct; grows with it.
    pub version: u32,
    pub tenant: TenantName,
    pub name: VolumeName,
    /// Nanoseconds since 1970.
    pub created: i64,
    /// The local driver's: `type`, `device`, `o`.
    pub options: BTreeMap<String, String>,
    pub labels: Option<BTreeMap<String, String>>,
}

impl Volume {
    /// What is written now.
    pub const VERSION: u32 = 1;

    fn key(&self) -> Key {
        (self.tenant.clone(), self.name.clone())
    }
}

/// A volume and the containers whose records name it.
#[derive(Debug, Clone)]
pub struct UsedVolume {
    pub volume: Arc<Volume>,
    pub users: Vec<ContainerId>,
}

/// Why a volume was not removed.
#[derive(Debug, thiserror::Error)]
pub enum NotRemoved {
    #[error("no such volume")]
    NoSuch,
    #[error("volume is in use")]
    InUse(Vec<ContainerId>),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a volume could not be given to a container.
#[derive(Debug, thiserror::Error)]
pub enum NotMounted {
    #[error("no such volume")]
    NoSuch,
    /// In Docker's words: what was mounted where, and the kernel's reason.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

type Key = (TenantName, VolumeName);

#[derive(Debug)]
struct Entry {
    volume: Arc<Volume>,
    users: BTreeSet<ContainerId>,
    /// Running containers that its mount is kept for.
    mounted_for: BTreeSet<ContainerId>,
    /// Somebody works on it.
    busy: bool,
}

/// A cheap handle on all volumes.
#[derive(Debug, Clone)]
pub struct Volumes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    entries: Mutex<BTreeMap<Key, Entry>>,
    changed: watch::Sender<()>,
}

impl Volumes {
    /// Reads what volumes there are, and finishes what a crash interrupted.
    ///
    /// # Errors
    /// The records or a directory cannot be read.
    pub async fn open(store: Store) -> Result<Self, StoreError> {
        let mut entries = BTreeMap::new();
        for (_, volume) in store.all::<Volume>(Table::Volumes).await? {
            let volume = Arc::new(volume);
            let mended = volume.clone();
            store.blocking(move |store| fill::mend(store, &mended)).await?;
            let (users, mounted_for) = (BTreeSet::new(), BTreeSet::new());
            entries.insert(volume.key(), Entry { volume, users, mounted_for, busy: false });
        }
        let (entries, changed) = (Mutex::new(entries), watch::Sender::new(()));
        Ok(Self(Arc::new(Inner { store, entries, changed })))
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.0.entries.lock().expect("no panic happens under this lock")
    }

    /// What a volume's containers see.
    #[must_use]
    pub fn path(&self, tenant: &TenantName, name: &VolumeName) -> PathBuf {
        self.0.store.volume_dir(tenant, name).join(DATA)
    }

    /// One volume.
    #[must_use]
    pub fn get(&self, tenant: &TenantName, name: &VolumeName) -> Option<UsedVolume> {
        let entries = self.entries();
        entries.get(&(tenant.clone(), name.clone())).map(used)
    }

    /// All of a tenant's, by name.
    #[must_use]
    pub fn of(&self, tenant: &TenantName) -> Vec<UsedVolume> {
        let entries = self.entries();
        entries.iter().filter(|((owner, _), _)| owner == tenant).map(|(_, it)| used(it)).collect()
    }

    /// The volume of that name, made if there is none, and from now on used by
    /// `user`. Whether it has been made.
    ///
    /// # Errors
    /// The directory or the record cannot be written; then nothing is left.
    pub async fn create(
        &self,
        wanted: Volume,
        user: Option<ContainerId>,
    ) -> Result<(Arc<Volume>, bool), StoreError> {
        let volumes = self.clone();
        self.finish(async move { volumes.create_now(wanted, user).await }).await
    }

    async fn create_now(
        &self,
        wanted: Volume,
        user: Option<ContainerId>,
    ) -> Result<(Arc<Volume>, bool), StoreError> {
        let wanted = Arc::new(wanted);
        let turn = loop {
            match self.turn(&wanted.key()).await {
                Some(turn) => {
                    let found = turn.with(|entry| {
                        entry.users.extend(user);
                        entry.volume.clone()
                    });
                    return Ok((found, false));
                }
                None => {
                    if let Some(turn) = self.claim(&wanted, user) {
                        break turn;
                    }
                }
            }
        };
        let made = self.make(&wanted).await;
        if made.is_err() {
            turn.forget();
        }
        made.map(|()| (wanted, true))
    }

    async fn make(&self, volume: &Arc<Volume>) -> Result<(), StoreError> {
        let model = volume.clone();
        self.0.store.blocking(move |store| store.make_volume_dir(&model)).await?;
        let batch = Batch::default().put(Table::Volumes, key_text(volume), &**volume);
        let recorded = self.0.store.commit(batch).await;
        if recorded.is_err() {
            let model = volume.clone();
            // Best effort: without a record it is swept at the next start.
            drop(self.0.store.blocking(move |store| store.trash_volume_dir(&model)).await);
        }
        recorded
    }

    /// Removes a volume that nobody uses, and all that is in it.
    ///
    /// # Errors
    /// See [`NotRemoved`].
    pub async fn remove(&self, tenant: &TenantName, name: &VolumeName) -> Result<(), NotRemoved> {
        let (volumes, key) = (self.clone(), (tenant.clone(), name.clone()));
        let work = async move { Ok(volumes.remove_now(key).await) };
        self.finish(work).await?
    }

    async fn remove_now(&self, key: Key) -> Result<(), NotRemoved> {
        let turn = self.turn(&key).await.ok_or(NotRemoved::NoSuch)?;
        let (volume, users) = turn.with(|entry| (entry.volume.clone(), entry.users.clone()));
        if !users.is_empty() {
            return Err(NotRemoved::InUse(users.into_iter().collect()));
        }
        let batch = Batch::default().remove(Table::Volumes, key_text(&volume));
        self.0.store.commit(batch).await?;
        // Not before it is out of sight: the name may be wanted again.
        let trashed = self.0.store.blocking(move |store| store.trash_volume_dir(&volume)).await;
        turn.forget();
        Ok(trashed?)
    }

    /// A container that was there before this engine uses a volume. False if
    /// there is none of that name.
    #[must_use]
    pub fn hold(&self, tenant: &TenantName, name: &VolumeName, user: ContainerId) -> bool {
        let mut entries = self.entries();
        let entry = entries.get_mut(&(tenant.clone(), name.clone()));
        entry.map(|entry| entry.users.insert(user)).is_some()
    }

    /// A container is gone, and uses no volume any more.
    pub fn release(&self, user: ContainerId) {
        for entry in self.entries().values_mut() {
            entry.users.remove(&user);
        }
    }

    /// Work that goes on to its end when nobody waits for it any more.
    async fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let done = self.0.store.tracker().spawn(work).await;
        done.unwrap_or(Err(StoreError::Stopping))
    }
}

const DATA: &str = "_data";

fn used(entry: &Entry) -> UsedVolume {
    UsedVolume { volume: entry.volume.clone(), users: entry.users.iter().copied().collect() }
}

fn key_text(volume: &Volume) -> String {
    format!("{}/{}", volume.tenant, volume.name)
}

impl Store {
    fn volume_dir(&self, tenant: &TenantName, name: &VolumeName) -> PathBuf {
        self.dir().join("volumes").join(tenant.as_str()).join(name.as_str())
    }

    /// Made out of sight, then renamed into place; durable when this returns.
    fn make_volume_dir(&self, volume: &Volume) -> Result<(), StoreError> {
        let tenants = self.dir().join("volumes");
        let tenant = tenants.join(volume.tenant.as_str());
        if make_dir(&tenant, 0o700)? {
            atomic::sync_directory(&tenants)?;
        }
        let staged = self.temporary_path();
        make_dir(&staged, 0o701)?;
        make_dir(&staged.join(DATA), 0o755)?;
        super::set_mode(&staged.join(DATA), 0o755)?;
        let path = self.volume_dir(&volume.tenant, &volume.name);
        // Left by a failure, without a record.
        self.trash_volume_dir(volume)?;
        std::fs::rename(&staged, &path).map_err(StoreError::io("rename into place", &path))?;
        atomic::sync_directory(&path)?;
        atomic::sync_directory(&tenant)
    }

    fn trash_volume_dir(&self, volume: &Volume) -> Result<(), StoreError> {
        let path = self.volume_dir(&volume.tenant, &volume.name);
        unmount_below(&path)?;
        self.trash().take(&path).map(drop)
    }
}

/// Whether it was made, or was there.
fn make_dir(path: &Path, mode: u32) -> Result<bool, StoreError> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(StoreError::io("create", path)(error)),
    }
}
