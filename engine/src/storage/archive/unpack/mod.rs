//! A layer's archive into a directory, as root, with nothing trusted.
//!
//! The archive is read once, from front to end: what comes out of the
//! decompression is hashed (that is the layer's diff id), parsed, and written
//! below one directory. Names are resolved by the kernel, relative to that
//! directory's descriptor, with `openat2(RESOLVE_BENEATH)`: a name that leads
//! out, by `..` or through a link that the archive itself made, is refused.
//!
//! Docker's `.wh.` files become what overlayfs understands: a character device
//! 0:0 for a removed name, the xattr `trusted.overlay.opaque` for a directory
//! that hides what is below. An archive cannot set overlayfs's xattrs itself.
//!
//! As with Docker, of two entries with one name the later one wins, but in a
//! layer a directory is never replaced by something else.
//!
//! [`extract`] does the same into a container's root or a build's context,
//! where others may be at work: names lead where they lead for a process whose
//! root that directory is (`RESOLVE_IN_ROOT`), also across mounts, and `.wh.`
//! files are files.

mod beneath;
mod entry;

use crate::{
    ids::Digest,
    storage::{
        RecipeWriter, StoreError,
        recipe::{Noted, Shared as Recipe},
    },
};
use beneath::Root;
use rustix::fd::OwnedFd;
use sha2::{Digest as _, Sha256};
use std::{
    cell::RefCell,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Long names and extended attributes before one entry, in bytes.
const METADATA: u64 = 4 << 20;
/// Reads as long as this go past it: a large file's bytes are copied once less.
const BUFFER: usize = 64 << 10;

/// What one layer may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of the uncompressed archive, in bytes.
    pub bytes: u64,
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 4 << 20 }
    }
}

/// What was in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    pub diff_id: Digest,
    /// Bytes of its files.
    pub size: u64,
    /// It said who owns the root directory.
    pub root: bool,
    /// Bytes of the archive, if a recipe was written.
    pub archive: Option<u64>,
}

/// Why a layer was refused.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("cannot read the archive: {0}", source_text(.source))]
    Read { source: io::Error },
    #[error("{:?} is outside of the layer", path)]
    Outside { path: PathBuf },
    #[error("{:?} is there twice, first as a directory", path)]
    WasDirectory { path: PathBuf },
    #[error("cannot overwrite directory {path:?} with non-directory")]
    OverDirectory { path: PathBuf },
    #[error("cannot overwrite non-directory {path:?} with directory")]
    OverFile { path: PathBuf },
    #[error("{:?} has an entry type that is not supported ({kind})", path)]
    Kind { path: PathBuf, kind: String },
    #[error("{:?} may not have the extended attribute {name}", path)]
    Xattr { path: PathBuf, name: String },
    #[error("the archive has more than {bytes} bytes")]
    TooManyBytes { bytes: u64 },
    #[error("the archive has more than {entries} entries")]
    TooManyEntries { entries: u64 },
    #[error("cannot {doing} {path:?}: {}", source_text(.source))]
    Write { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Recipe(#[from] StoreError),
}

/// A client that sent a bad archive must see what is bad about it, and it only
/// sees messages, not causes.
fn source_text(source: &io::Error) -> String {
    source.to_string()
}

/// How an archive goes into a tree that is there already.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extract {
    /// A directory stays one, and what is none does not become one.
    pub keep_kinds: bool,
    /// Who owns what comes; else the archive says.
    pub owner: Option<(u32, u32)>,
    pub limits: Limits,
}

/// Unpacks `archive` (compressed or not) into the directory `below` of `root`,
/// over what is there. Blocks.
///
/// # Errors
/// The archive is damaged, or tries something that is refused, or the disk is
/// full; what came before that stays.
pub fn extract(
    archive: impl Read,
    root: OwnedFd,
    below: &Path,
    how: Extract,
) -> Result<(), UnpackError> {
    place_all(archive, Root::of_tree(root, below, how), how.limits, (None, None)).map(drop)
}

/// Unpacks `archive` (compressed or not) below `directory`, which becomes a
/// layer, and notes in `recipe` how to make the archive again. Blocks.
///
/// # Errors
/// The archive is damaged, or tries something that is refused, or the disk is
/// full; `directory` then holds a part of it and is of no use.
pub fn unpack(
    archive: impl Read,
    directory: &Path,
    recipe: Option<RecipeWriter>,
    limits: Limits,
) -> Result<Unpacked, UnpackError> {
    let recipe = recipe.map(RefCell::new).map(Rc::new);
    let root = Root::open(directory, recipe.clone())?;
    let noted = (Some(Sha256::new()), recipe.clone());
    let (size, root, read) = place_all(archive, root, limits, noted)?;
    // The other two have gone with the stream and the root.
    let recipe = recipe.and_then(Rc::into_inner).map(RefCell::into_inner);
    let archive = recipe.map(RecipeWriter::finish).transpose()?;
    Ok(Unpacked { diff_id: read.digest(), size, root, archive })
}

/// Bytes of files, whether the root had an entry, and what has been read.
type Placed<'a> = (u64, bool, Metered<Box<dyn Read + 'a>>);

/// `noted`: what else wants to see what is read.
fn place_all<'a>(
    archive: impl Read + 'a,
    mut root: Root,
    limits: Limits,
    (hash, recipe): (Option<Sha256>, Option<Recipe>),
) -> Result<Placed<'a>, UnpackError> {
    let read = |source| UnpackError::Read { source };
    let plain = crate::storage::archive::decompress(archive).map_err(read)?;
    let metered = Metered::new(plain, limits.bytes, hash);
    let allowed = metered.allowed.clone();
    let mut stream = Noted { stream: BufReader::with_capacity(BUFFER, metered), recipe };
    let mut size = 0_u64;
    let mut count = 0_u64;
    let mut archive = tar::Archive::new(&mut stream);
    for entry in archive.entries().map_err(read)? {
        allowed.store(u64::MAX, Ordering::Relaxed);
        let mut entry = entry.map_err(|source| too_big(source, limits))?;
        count += 1;
        if count > limits.entries {
            return Err(UnpackError::TooManyEntries { entries: limits.entries });
        }
        let bytes = entry.size();
        if bytes > limits.bytes.saturating_sub(size) {
            return Err(UnpackError::TooManyBytes { bytes: limits.bytes });
        }
        size += entry::place(&mut root, &mut entry).map_err(|e| blame(e, limits))?;
        // What is not read yet of this entry is skipped by the next step.
        allowed.store(bytes.saturating_add(METADATA), Ordering::Relaxed);
    }
    allowed.store(u64::MAX, Ordering::Relaxed);
    let explicit_root = root.finish()?;
    // Padding counts: it is in the digest.
    io::copy(&mut stream, &mut io::sink()).map_err(|source| too_big(source, limits))?;
    Ok((size, explicit_root, stream.stream.into_inner()))
}

/// The diff id of an archive, without unpacking it. Blocks.
///
/// # Errors
/// The archive is damaged.
pub fn diff_id(archive: impl Read, limits: Limits) -> Result<Digest, UnpackError> {
    let read = |source| UnpackError::Read { source };
    let plain = crate::storage::archive::decompress(archive).map_err(read)?;
    let mut metered = Metered::new(plain, limits.bytes, Some(Sha256::new()));
    let mut buffer = vec![0; BUFFER];
    while metered.read(&mut buffer).map_err(|source| too_big(source, limits))? > 0 {}
    Ok(metered.digest())
}

fn blame(error: UnpackError, limits: Limits) -> UnpackError {
    if let UnpackError::Read { source } = error {
        return too_big(source, limits);
    }
    error
}

fn too_big(source: io::Error, limits: Limits) -> UnpackError {
    if source.kind() == io::ErrorKind::FileTooLarge {
        return UnpackError::TooManyBytes { bytes: limits.bytes };
    }
    UnpackError::Read { source }
}

/// Hashes what is read, and stops a stream that is too long: in all, and in
/// what the parser takes into memory between two entries.
struct Metered<R> {
    stream: R,
    /// Where somebody wants to know.
    hash: Option<Sha256>,
    /// Bytes in all.
    left: u64,
    /// Bytes until the next entry must have begun, less the buffer's.
    allowed: Arc<AtomicU64>,
}

impl<R: Read> Metered<R> {
    fn new(stream: R, bytes: u64, hash: Option<Sha256>) -> Self {
        let allowed = Arc::new(AtomicU64::new(METADATA));
        Self { stream, hash, left: bytes, allowed }
    }

    fn digest(self) -> Digest {
        Digest::of(self.hash.unwrap_or_default().finalize().into())
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        let bytes = count as u64;
        let allowed = self.allowed.load(Ordering::Relaxed);
        if bytes > self.left {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if bytes > allowed {
            let text = "a name or attribute is longer than 4 MiB";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.left -= bytes;
        if allowed != u64::MAX {
            self.allowed.store(allowed - bytes, Ordering::Relaxed);
        }
        if let Some(hash) = &mut self.hash {
            hash.update(buffer.get(..count).unwrap_or_default());
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
