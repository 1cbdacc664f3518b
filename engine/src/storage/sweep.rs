//! What a crash left, taken away at start: everything without a record.

use super::{StoreError, layers, trash::Trash};
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
    for left in entries(&dir.join("trash"))? {
        trash.remove(left);
    }
    for left in entries(&dir.join("tmp"))?.into_iter().chain(entries(&dir.join("blobs/sha256"))?) {
        trash.take(&left)?;
    }
    for (room, recorded) in [("layers", layers), ("recipes", recipes), ("containers", containers)] {
        for left in entries(&dir.join(room))? {
            let name = left.file_name().unwrap_or_default();
            if recorded.contains(name) || (room == "layers" && name == layers::EMPTY) {
                continue;
            }
            tracing::info!(path = %left.display(), "removing what a crash left");
            trash.take(&left)?;
        }
    }
    Ok(())
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let read: io::Result<Vec<PathBuf>> =
        std::fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    read.map_err(StoreError::io("read", dir))
}
