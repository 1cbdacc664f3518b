//! `blobs/sha256/HEX`: bytes whose digest has been verified. A blob here is
//! what was downloaded and not unpacked yet; it goes when its handle does.

use super::{Store, StoreError};
use crate::ids::Digest;
use sha2::{Digest as _, Sha256};
use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

/// A blob that is being written. Dropped before [`BlobWriter::finish`], it
/// leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    file: File,
    hash: Sha256,
    written: u64,
    temporary: Unlink,
    dir: PathBuf,
}

/// A verified blob. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct Blob {
    path: Unlink,
    size: u64,
}

/// A file that is removed when this is dropped.
#[derive(Debug)]
struct Unlink(PathBuf);

impl Drop for Unlink {
    fn drop(&mut self) {
        // Fails only where the next start sweeps.
        drop(std::fs::remove_file(&self.0));
    }
}

impl Store {
    /// Begins a blob. Blocks, as all of its methods do.
    ///
    /// # Errors
    /// The state directory cannot be written to.
    pub fn write_blob(&self) -> Result<BlobWriter, StoreError> {
        let path = self.temporary_path();
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io("create", &path))?;
        let dir = self.dir().join("blobs/sha256");
        Ok(BlobWriter { file, hash: Sha256::new(), written: 0, temporary: Unlink(path), dir })
    }
}

impl BlobWriter {
    /// # Errors
    /// The disk is full.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).map_err(StoreError::io("write", &self.temporary.0))?;
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Bytes so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Gives the bytes their name, if that is `expected` (or none is).
    ///
    /// # Errors
    /// [`StoreError::WrongDigest`]; nothing is left of it.
    pub fn finish(self, expected: Option<Digest>) -> Result<Blob, StoreError> {
        let received = Digest::of(self.hash.finalize().into());
        if let Some(expected) = expected
            && expected != received
        {
            return Err(StoreError::WrongDigest { expected, received });
        }
        // Two downloads of the same bytes are two files: each goes with its handle.
        let number = self.temporary.0.file_name().unwrap_or_default().to_string_lossy();
        let path = self.dir.join(format!("{}.{number}", received.hex()));
        std::fs::rename(&self.temporary.0, &path)
            .map_err(StoreError::io("rename into place", &path))?;
        Ok(Blob { path: Unlink(path), size: self.written })
    }
}

impl Blob {
    /// Opens it for reading from the start.
    ///
    /// # Errors
    /// The file is gone.
    pub fn open(&self) -> Result<File, StoreError> {
        File::open(&self.path.0).map_err(StoreError::io("open", &self.path.0))
    }

    /// In bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}
