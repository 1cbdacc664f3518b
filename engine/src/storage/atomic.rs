//! A file that is either the old one or the new one, whole, after any crash:
//! write a temporary one, fsync it, rename it, fsync the directory.

use super::StoreError;
use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Writes `bytes` to `path` with permission bits `mode`. Blocks for two fsyncs.
///
/// # Errors
/// The directory cannot be written to or is full; the old file is as it was.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{:016x}", unguessable()));
    let written = write_and_rename(&temporary, path, bytes, mode);
    if written.is_err() {
        // Best effort: what stands in the way of this has just been reported.
        drop(std::fs::remove_file(&temporary));
    }
    written
}

fn write_and_rename(from: &Path, to: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(from)
        .map_err(StoreError::io("create", from))?;
    file.write_all(bytes).map_err(StoreError::io("write", from))?;
    file.sync_all().map_err(StoreError::io("fsync", from))?;
    std::fs::rename(from, to).map_err(StoreError::io("rename into place", to))?;
    sync_directory(to.parent().unwrap_or(Path::new("/")))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let directory = File::open(path).map_err(StoreError::io("open", path))?;
    directory.sync_all().map_err(StoreError::io("fsync", path))
}

fn unguessable() -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = crate::ids::random();
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        for text in ["first", "second, which is longer"] {
            write(&path, text.as_bytes(), 0o600).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        std::fs::create_dir_all(path.join("by a directory")).unwrap();
        assert!(write(&path, b"x", 0o600).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
