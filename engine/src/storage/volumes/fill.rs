//! An image's content for a volume that is empty: Docker's copy-up.
//!
//! A thread of its own sees the image's layers put together, in a mount
//! namespace of its own that vanishes with it: nothing is mounted on the host,
//! and nothing is left when the engine is killed. It copies beside the
//! volume's directory, so that a crash leaves the whole content or none.

use super::{
    DATA, NotMounted, StoreError, Volume, Volumes,
    copy::{self, CannotCopy},
    local, make_dir, mounted,
};
use crate::{
    ids::{ContainerId, Digest, TenantName, VolumeName},
    storage::Store,
};
use nix::{
    mount::MsFlags,
    sched::{CloneFlags, unshare},
};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Being copied; worth nothing after a crash.
const COPY: &str = "_copy";
/// Complete; what is left of it is still to be moved.
const COPIED: &str = "_copied";

/// A volume to be filled with what an image has at its destination.
#[derive(Debug, Clone)]
pub struct Fill {
    pub name: VolumeName,
    pub destination: String,
    /// Nobody gave it a name: Docker refuses in other words.
    pub anonymous: bool,
}

/// One of them, and how to get at it.
#[derive(Debug)]
struct Job {
    destination: String,
    anonymous: bool,
    volume: Arc<Volume>,
    directory: PathBuf,
}

impl Volumes {
    /// Fills those that are empty. The container's directories exist.
    ///
    /// # Errors
    /// The image has a file at a destination; the disk is full.
    pub async fn fill(
        &self,
        tenant: &TenantName,
        container: ContainerId,
        layers: &[Digest],
        wanted: Vec<Fill>,
    ) -> Result<(), NotMounted> {
        if wanted.is_empty() {
            return Ok(());
        }
        // By name: all who want several take their turns in the same order.
        let wanted: BTreeMap<VolumeName, Fill> =
            wanted.into_iter().map(|fill| (fill.name.clone(), fill)).collect();
        let (volumes, tenant, layers) = (self.clone(), tenant.clone(), layers.to_vec());
        let work = async move {
            let mut turns = Vec::new();
            let mut jobs = Vec::new();
            for (name, fill) in wanted {
                let directory = volumes.0.store.volume_dir(&tenant, &name);
                let Some(turn) = volumes.turn(&(tenant.clone(), name)).await else {
                    return Ok(Err(NotMounted::NoSuch));
                };
                let volume = turn.with(|entry| entry.volume.clone());
                turns.push(turn);
                let Fill { destination, anonymous, .. } = fill;
                jobs.push(Job { destination, anonymous, volume, directory });
            }
            let fill = move |store: &Store| {
                let (lower, _) = store.read_only_layers(&layers)?;
                let merged = store.container_dir(container).join("merged");
                Ok(apart(store, &lower, &merged, &jobs))
            };
            let filled = volumes.0.store.blocking(fill).await;
            drop(turns);
            filled
        };
        self.finish(work).await?
    }
}

/// On a thread whose mounts nobody else sees.
fn apart(store: &Store, lower: &[String], merged: &Path, jobs: &[Job]) -> Result<(), NotMounted> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("fill".to_owned());
        let spawned = thread.spawn_scoped(scope, || {
            let root = show(store, lower, merged)
                .map_err(|errno| StoreError::io("show the image at", merged)(errno.into()))?;
            jobs.iter().try_for_each(|job| one(store, &root, job))
        });
        let spawned = spawned.map_err(StoreError::io("start a thread for", merged))?;
        spawned.join().map_err(|_| StoreError::Stopping)?
    })
}

/// The image's layers put together, in this thread's own mount namespace.
fn show(store: &Store, lower: &[String], merged: &Path) -> Result<OwnedFd, Errno> {
    let raw = |errno: nix::errno::Errno| Errno::from_raw_os_error(errno as i32);
    unshare(CloneFlags::CLONE_NEWNS).map_err(raw)?;
    let none = None::<&str>;
    nix::mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(raw)?;
    if let [only] = lower {
        let only = store.layers_dir().join(only);
        return rustix::fs::openat(CWD, only, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    }
    // Their names are short, and all of them fit into one page.
    rustix::process::chdir(store.layers_dir())?;
    let data = format!("lowerdir={}", lower.join(":"));
    let overlay = Some("overlay");
    nix::mount::mount(overlay, merged, overlay, MsFlags::MS_RDONLY, Some(data.as_str()))
        .map_err(raw)?;
    rustix::fs::openat(CWD, merged, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

fn one(store: &Store, root: &OwnedFd, job: &Job) -> Result<(), NotMounted> {
    let Job { destination, volume, directory, .. } = job;
    let data = directory.join(DATA);
    let Some(source) = find(root, destination).map_err(|errno| {
        StoreError::io("look into the image at", Path::new(destination))(errno.into())
    })?
    else {
        return Ok(());
    };
    let stat = rustix::fs::fstat(&source).map_err(|errno| {
        StoreError::io("look into the image at", Path::new(destination))(errno.into())
    })?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(NotMounted::Refused(if job.anonymous {
            format!("cannot mount volume over existing file, file exists {destination}")
        } else {
            format!("source {destination} is not directory")
        }));
    }
    let source = copy::enter(source.as_fd(), Path::new("")).map_err(|errno| {
        StoreError::io("look into the image at", Path::new(destination))(errno.into())
    })?;
    match local::mount(&volume.options) {
        // What is written to it now is gone before the container runs.
        Some(mount) if mount.kind == "tmpfs" => return Ok(()),
        Some(mount) => {
            mounted::mount_at(mount, &data).map_err(NotMounted::Refused)?;
            if is_empty(&data)? {
                let target = open(&data)?;
                copy::copy(source.as_fd(), target.as_fd()).map_err(|error| cannot(&data, error))?;
            }
        }
        None => {
            if is_empty(&data)? {
                let staged = directory.join(COPY);
                store.trash().take(&staged)?;
                make_dir(&staged, 0o700)?;
                let target = open(&staged)?;
                let copied = copy::copy(source.as_fd(), target.as_fd());
                if let Err(error) = copied {
                    store.trash().take(&staged)?;
                    return Err(cannot(&data, error).into());
                }
                let copied = directory.join(COPIED);
                std::fs::rename(&staged, &copied)
                    .map_err(StoreError::io("rename into place", &copied))?;
                move_in(store, directory)?;
            }
        }
    }
    Ok(())
}

/// What the image has there, its links followed inside of it.
fn find(root: &OwnedFd, destination: &str) -> Result<Option<OwnedFd>, Errno> {
    let path = match destination.trim_start_matches('/') {
        "" => ".",
        path => path,
    };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            found => return found.map(Some),
        }
    }
}

fn cannot(data: &Path, CannotCopy { path, source }: CannotCopy) -> StoreError {
    StoreError::io("copy the image's content to", &data.join(path))(source)
}

fn open(path: &Path) -> Result<OwnedFd, StoreError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map_err(|errno| StoreError::io("open", path)(errno.into()))
}

fn is_empty(path: &Path) -> Result<bool, StoreError> {
    let mut entries = std::fs::read_dir(path).map_err(StoreError::io("read", path))?;
    Ok(entries.next().is_none())
}

/// Moves a complete copy to where it belongs. What is in its way was written
/// by a container meanwhile, and stays.
fn move_in(store: &Store, directory: &Path) -> Result<(), StoreError> {
    let (data, copied) = (directory.join(DATA), directory.join(COPIED));
    let (from, to) = (open(&copied)?, open(&data)?);
    for entry in Dir::read_from(&from).map_err(|e| StoreError::io("read", &copied)(e.into()))? {
        let entry = entry.map_err(|errno| StoreError::io("read", &copied)(errno.into()))?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let no_replace = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&from, name, &to, name, no_replace) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(StoreError::io("fill", &data)(errno.into())),
        }
    }
    copy::dress_like(from.as_fd(), to.as_fd())
        .map_err(|errno| StoreError::io("set the owner of", &data)(errno.into()))?;
    store.trash().take(&copied).map(drop)
}

/// Finishes what a crash interrupted. Blocks.
pub(super) fn mend(store: &Store, volume: &Volume) -> Result<(), StoreError> {
    let directory = store.volume_dir(&volume.tenant, &volume.name);
    let data = directory.join(DATA);
    let is_there = |path: &Path| path.symlink_metadata().is_ok();
    if !is_there(&data) {
        tracing::error!(path = %data.display(), "a volume's directory was lost, and is empty now");
        store.make_volume_dir(volume)?;
    }
    store.trash().take(&directory.join(COPY))?;
    if is_there(&directory.join(COPIED)) { move_in(store, &directory) } else { Ok(()) }
}
