//! What a crash left, taken away at start: everything without a record.

use super::{StoreError, layers, trash::Trash, volumes::unmount_below};
use std::{
    collections::HashSet,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

/// Empties `tmp`, `trash` and `blobs` (nothing in there outlives an engine),
/// and takes away layers and containers that are not recorded.
pub(super) fn sweep(
    dir: &Path,
    trash: &Trash,
    (layers, recipes): (&HashSet<OsString>, &HashSet<OsString>),
    containers: &HashSet<OsString>,
) -> Result<(), StoreError> {
    unmount_below(&dir.join("trash"))?;
    for left in entries(&dir.join("trash"))? {
        trash.remove(left);
    }
    for left in entries(&dir.join("tmp"))?.into_iter().chain(entries(&dir.join("blobs/sha256"))?) {
        trash.take(&left)?;
    }
    for (room, recorded) in [("layers", layers), ("recipes", recipes), ("containers", containers)] {
        for left in entries(&dir.join(room))? {
            let name = left.file_name().unwrap_or_default();
            if recorded.contains(name)
                || (room == "layers" && (name == layers::EMPTY || name == layers::MOUNT_POINTS))
            {
                continue;
            }
            tracing::info!(path = %left.display(), "removing what a crash left");
            trash.take(&left)?;
        }
    }
    Ok(())
}

/// Takes away volumes that are not recorded, by `tenant/name`; never through a
/// mount.
pub(super) fn volumes(
    dir: &Path,
    trash: &Trash,
    recorded: &HashSet<OsString>,
) -> Result<(), StoreError> {
    for tenant in entries(&dir.join("volumes"))? {
        let mut empty = true;
        for left in entries(&tenant)? {
            let mut key = tenant.file_name().unwrap_or_default().to_owned();
            key.push("/");
            key.push(left.file_name().unwrap_or_default());
            if recorded.contains(&key) {
                empty = false;
                continue;
            }
            tracing::info!(path = %left.display(), "removing what a crash left");
            unmount_below(&left)?;
            trash.take(&left)?;
        }
        if empty {
            trash.take(&tenant)?;
        }
    }
    Ok(())
}

/// Volumes without any records: the database was lost, or the directory is
/// another engine's. To sweep them would be to lose what people keep.
pub(super) fn refuse_lost_records(dir: &Path) -> Result<(), StoreError> {
    let lost = !dir.join("state.redb").exists() && !entries(&dir.join("volumes"))?.is_empty();
    if lost { Err(StoreError::NoRecords { dir: dir.to_owned() }) } else { Ok(()) }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let read: io::Result<Vec<PathBuf>> =
        std::fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    read.map_err(StoreError::io("read", dir))
}
