//! How much a tree of files holds.

use super::StoreError;
use std::{collections::HashSet, os::unix::fs::MetadataExt, path::Path};

/// Bytes of the files below a directory that is the engine's own; a file with
/// several names counts once. Blocks.
///
/// # Errors
/// It cannot be read.
pub(super) fn of_files(top: &Path) -> Result<u64, StoreError> {
    let mut directories = vec![top.to_owned()];
    let mut seen = HashSet::new();
    let mut bytes = 0;
    while let Some(directory) = directories.pop() {
        let read = StoreError::io("read", &directory);
        for entry in std::fs::read_dir(&directory).map_err(read)? {
            let entry = entry.map_err(StoreError::io("read", &directory))?;
            let found = entry.metadata().map_err(StoreError::io("look at", &entry.path()))?;
            if found.is_dir() {
                directories.push(entry.path());
            } else if found.is_file()
                && (found.nlink() == 1 || seen.insert((found.dev(), found.ino())))
            {
                bytes += found.len();
            }
        }
    }
    Ok(bytes)
}
