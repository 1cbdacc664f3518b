//! Reading an archive that is made again from a recipe and a layer.

use super::{BYTES, CONTENT, END, FILE, MAGIC};
use crate::{ids::Digest, storage::StoreError};
use rustix::{
    fd::OwnedFd,
    fs::{CWD, Mode, OFlags, ResolveFlags},
    io::Errno,
};
use sha2::{Digest as _, Sha256};
use std::{
    ffi::OsStr,
    fs::File,
    io::{self, BufReader, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A layer's archive, as it was before it was unpacked. Its end is reached
/// only if the bytes were those of the digest: otherwise reading fails.
pub struct LayerArchive {
    digest: Digest,
    recipe: zstd::Decoder<'static, BufReader<File>>,
    layer: OwnedFd,
    kept: PathBuf,
    /// The directory of the last file: files come in the order of the tree.
    parent: Option<(PathBuf, OwnedFd)>,
    now: Now,
    /// Of files with a content.
    number: u32,
    size: u64,
    given: u64,
    hash: Sha256,
}

/// Where the next bytes come from.
enum Now {
    Between,
    Bytes(u64),
    Content { file: File, left: u64 },
    Ended,
}

impl std::fmt::Debug for LayerArchive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerArchive").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl LayerArchive {
    /// `kept` is the recipe's directory. Blocks, as reading does.
    pub(in crate::storage) fn open(
        digest: Digest,
        size: u64,
        layer: &Path,
        kept: &Path,
    ) -> Result<Self, StoreError> {
        let path = kept.join(FILE);
        let file = File::open(&path).map_err(StoreError::io("open", &path))?;
        let opened = zstd::Decoder::new(file).and_then(|mut recipe| {
            let mut magic = [0; MAGIC.len()];
            recipe.read_exact(&mut magic)?;
            if magic != *MAGIC {
                return Err(bad("it is no recipe"));
            }
            Ok(recipe)
        });
        let recipe = opened.map_err(StoreError::io("read", &path))?;
        let layer_fd = rustix::fs::openat(CWD, layer, DIRECTORY, Mode::empty())
            .map_err(|errno| StoreError::io("open", layer)(errno.into()))?;
        Ok(Self {
            digest,
            recipe,
            layer: layer_fd,
            kept: kept.to_owned(),
            parent: None,
            now: Now::Between,
            number: 0,
            size,
            given: 0,
            hash: Sha256::new(),
        })
    }

    /// Of the archive, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The layer's diff id.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    fn next(&mut self) -> io::Result<Now> {
        let [kind] = self.take()?;
        match kind {
            BYTES => Ok(Now::Bytes(u32::from_le_bytes(self.take()?).into())),
            CONTENT => {
                let left = u64::from_le_bytes(self.take()?);
                let mut path = vec![0; u16::from_le_bytes(self.take()?).into()];
                self.recipe.read_exact(&mut path)?;
                let file = self.content(Path::new(OsStr::from_bytes(&path)))?;
                self.number += 1;
                Ok(Now::Content { file, left })
            }
            END if u64::from_le_bytes(self.take()?) == self.given => {
                self.check()?;
                Ok(Now::Ended)
            }
            _ => Err(bad("its recipe is damaged")),
        }
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.recipe.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn check(&mut self) -> io::Result<()> {
        let found = Digest::of(std::mem::take(&mut self.hash).finalize().into());
        if found == self.digest && self.given == self.size {
            return Ok(());
        }
        Err(bad("its files are not those that were unpacked"))
    }

    fn content(&mut self, path: &Path) -> io::Result<File> {
        let replaced = self.kept.join(self.number.to_string());
        match File::open(replaced) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        let name = path.file_name().ok_or_else(|| bad("its recipe is damaged"))?;
        let parent = path.parent().unwrap_or(Path::new(""));
        if self.parent.as_ref().is_none_or(|(cached, _)| cached != parent) {
            let at = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            self.parent = Some((parent.to_owned(), beneath(&self.layer, at, DIRECTORY)?));
        }
        let parent = self.parent.as_ref().map_or(&self.layer, |(_, parent)| parent);
        // No device, should one stand there now: opening it may do something.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(beneath(parent, Path::new(name), flags)?.into())
    }
}

fn beneath(directory: &OwnedFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    loop {
        match rustix::fs::openat2(directory, path, flags, Mode::empty(), resolve) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            opened => return Ok(opened?),
        }
    }
}

fn bad(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl Read for LayerArchive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let (count, left) = match &mut self.now {
                Now::Ended => return Ok(0),
                Now::Between => (0, 0),
                Now::Bytes(left) => {
                    let count = (&mut self.recipe).take(*left).read(buffer)?;
                    *left -= count as u64;
                    (count, *left)
                }
                Now::Content { file, left } => {
                    let count = file.take(*left).read(buffer)?;
                    *left -= count as u64;
                    (count, *left)
                }
            };
            if count > 0 {
                self.hash.update(buffer.get(..count).unwrap_or_default());
                self.given += count as u64;
                return Ok(count);
            }
            if left > 0 {
                return Err(bad("one of its files is shorter than it was"));
            }
            self.now = self.next()?;
        }
    }
}
