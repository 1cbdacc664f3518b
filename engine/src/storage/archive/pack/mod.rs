//! A directory tree as an archive.
//!
//! The tree may be a running container's: it is open by descriptor, every step
//! down is one `openat2` without links, and what has vanished or changed its
//! kind since its name was read is left out. A file that grows is cut at the
//! size its header says; one that shrinks is filled up with zeros, since the
//! header has been sent (tar(1) does the same).
//!
//! Holes are not read but sent as zeros, as Docker does: not every reader knows
//! the headers of sparse files. Sockets have no entry in an archive.

mod header;

use header::{Entry, Xattr};
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, SeekFrom, Stat},
    io::Errno,
};
use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    io::{self, Write},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    vec,
};
use tar::EntryType;

const BUFFER: usize = 128 << 10;
/// Directories on the way down that are kept open; others are opened again.
const OPEN: usize = 64;
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What the tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Files are what they are.
    Plain,
    /// An upper directory of overlayfs: what it hides becomes `.wh.` files, and
    /// the engine's own [`MOUNT_POINTS`](super::MOUNT_POINTS) are left out.
    Upper,
}

/// Why an archive breaks off.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error("cannot {doing} {}", path.display())]
    Read {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// overlayfs has renamed a directory by reference; there is no entry for that.
    #[error("{} refers to a directory of a lower layer", path.display())]
    Redirected { path: PathBuf },
    #[error("cannot write the archive")]
    Out(#[source] io::Error),
}

/// For `map_err`.
fn read(doing: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> PackError + use<> {
    let path = PathBuf::from(OsStr::from_bytes(path));
    move |errno| PackError::Read { doing, path, source: errno.into() }
}

/// What others may have done to the tree between two looks at it.
fn vanished(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO | Errno::STALE)
}

/// Writes one archive. Blocks.
#[expect(missing_debug_implementations, reason = "a writer and a table of names")]
pub struct Pack<'a> {
    out: &'a mut dyn Write,
    style: Style,
    /// Files with several names, by device and number: the first name.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

/// A directory whose entries are being written.
struct Level {
    /// From the top of the tree.
    path: PathBuf,
    open: Option<OwnedFd>,
    names: vec::IntoIter<OsString>,
}

impl<'a> Pack<'a> {
    pub fn new(out: &'a mut dyn Write, style: Style) -> Self {
        Self { out, style, links: HashMap::new(), buffer: vec![0; BUFFER] }
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// Nobody reads it any more.
    pub fn finish(self) -> Result<(), PackError> {
        header::end(self.out).and_then(|()| self.out.flush()).map_err(PackError::Out)
    }

    /// What stands in `parent` as `name`, with everything below it, under the
    /// name `shown` in the archive. `name` may be `.`.
    ///
    /// # Errors
    /// It cannot be read; nobody reads the archive any more.
    pub fn one(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        shown: &[u8],
    ) -> Result<(), PackError> {
        if let Some(directory) = self.entry(parent, name, shown)? {
            self.tree(directory.as_fd(), &[shown, b"/"].concat())?;
        }
        Ok(())
    }

    /// Everything below `top`, but not `top` itself. `prefix` stands before
    /// each name: empty, or ending in `/`. Names in a directory are sorted.
    ///
    /// # Errors
    /// As [`Pack::one`].
    pub fn tree(&mut self, top: BorrowedFd<'_>, prefix: &[u8]) -> Result<(), PackError> {
        let mut levels = vec![Level {
            path: PathBuf::new(),
            open: None,
            names: names(top).map_err(read("list", prefix))?,
        }];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.next() else {
                levels.pop();
                continue;
            };
            let path = level.path.join(&name);
            let shown = [prefix, path.as_os_str().as_bytes()].concat();
            if level.open.is_none() && !level.path.as_os_str().is_empty() {
                match beneath(top, &level.path) {
                    Ok(open) => level.open = Some(open),
                    Err(errno) if vanished(errno) => {
                        levels.pop();
                        continue;
                    }
                    Err(errno) => return Err(read("open", &shown)(errno)),
                }
            }
            let parent = level.open.as_ref().map_or(top, OwnedFd::as_fd);
            if let Some(open) = self.entry(parent, &name, &shown)? {
                let names = names(open.as_fd()).map_err(read("list", &shown))?;
                levels.push(Level { path, open: Some(open), names });
                let depth = levels.len();
                if let Some(above) = depth.checked_sub(OPEN).and_then(|far| levels.get_mut(far)) {
                    above.open = None;
                }
            }
        }
        Ok(())
    }

    /// Writes one entry. The directory, open, if it is one.
    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        shown: &[u8],
    ) -> Result<Option<OwnedFd>, PackError> {
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(errno) if vanished(errno) => return Ok(None),
            Err(errno) => return Err(read("look at", shown)(errno)),
        };
        let Some(kind) = header::kind_of(&stat) else { return Ok(None) };
        let hidden = kind == EntryType::Char && stat.st_rdev == 0;
        if kind == EntryType::Directory {
            self.directory(parent, name, shown)
        } else if kind == EntryType::Regular {
            self.file(parent, name, shown).map(|()| None)
        } else if hidden && self.style == Style::Upper {
            self.whiteout(shown, &stat).map(|()| None)
        } else {
            self.special(parent, name, shown, (&stat, kind)).map(|()| None)
        }
    }

    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        shown: &[u8],
    ) -> Result<Option<OwnedFd>, PackError> {
        let open = match rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()) {
            Ok(open) => open,
            Err(errno) if vanished(errno) => return Ok(None),
            Err(errno) => return Err(read("open", shown)(errno)),
        };
        let stat = rustix::fs::fstat(&open).map_err(read("look at", shown))?;
        let (xattrs, hides) = self.xattrs(&Place::Open(open.as_fd()), shown)?;
        if self.is_mount_point(shown) {
            return Ok(Some(open));
        }
        let name = [shown, b"/"].concat();
        let kind = EntryType::Directory;
        let entry = Entry { name: &name, kind, target: b"", stat: &stat, size: 0, xattrs: &xattrs };
        self.header(&entry)?;
        if hides {
            self.empty(&[&name, b".wh..wh..opq".as_slice()].concat(), &stat)?;
        }
        Ok(Some(open))
    }

    fn file(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        shown: &[u8],
    ) -> Result<(), PackError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(errno) if vanished(errno) => return Ok(()),
            Err(errno) => return Err(read("open", shown)(errno)),
        };
        let stat = rustix::fs::fstat(&file).map_err(read("look at", shown))?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !is_file || (stat.st_size == 0 && self.is_mount_point(shown)) {
            return Ok(());
        }
        if self.link(shown, &stat)? {
            return Ok(());
        }
        let (xattrs, _) = self.xattrs(&Place::Open(file.as_fd()), shown)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let kind = EntryType::Regular;
        let entry = Entry { name: shown, kind, target: b"", stat: &stat, size, xattrs: &xattrs };
        self.header(&entry)?;
        self.bytes(file.as_fd(), &stat, size, shown)?;
        header::pad(self.out, size).map_err(PackError::Out)
    }

    fn is_mount_point(&self, shown: &[u8]) -> bool {
        self.style == Style::Upper
            && super::MOUNT_POINTS.iter().any(|point| point.as_bytes() == shown)
    }

    /// Whether it has been written already under another name.
    fn link(&mut self, shown: &[u8], stat: &Stat) -> Result<bool, PackError> {
        if stat.st_nlink < 2 {
            return Ok(false);
        }
        let key = (stat.st_dev, stat.st_ino);
        let Some(first) = self.links.get(&key).cloned() else {
            self.links.insert(key, shown.to_owned());
            return Ok(false);
        };
        let kind = EntryType::Link;
        let entry = Entry { name: shown, kind, target: &first, stat, size: 0, xattrs: &[] };
        self.header(&entry)?;
        Ok(true)
    }

    /// A link, a device or a pipe: what is not opened.
    fn special(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        shown: &[u8],
        (stat, kind): (&Stat, EntryType),
    ) -> Result<(), PackError> {
        if self.link(shown, stat)? {
            return Ok(());
        }
        let mut target = Vec::new();
        if kind == EntryType::Symlink {
            target = match rustix::fs::readlinkat(parent, name, Vec::new()) {
                Ok(target) => target.into_bytes(),
                Err(errno) if vanished(errno) || errno == Errno::INVAL => return Ok(()),
                Err(errno) => return Err(read("read", shown)(errno)),
            };
        }
        let (xattrs, _) = self.xattrs(&Place::Name(parent, name), shown)?;
        let entry = Entry { name: shown, kind, target: &target, stat, size: 0, xattrs: &xattrs };
        self.header(&entry)
    }

    fn whiteout(&mut self, shown: &[u8], stat: &Stat) -> Result<(), PackError> {
        let at = shown.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let (directory, name) = shown.split_at(at);
        self.empty(&[directory, b".wh.", name].concat(), stat)
    }

    /// An empty file, as old as what it stands for.
    fn empty(&mut self, shown: &[u8], like: &Stat) -> Result<(), PackError> {
        let mut stat = *like;
        stat.st_mode = 0;
        let kind = EntryType::Regular;
        let entry = Entry { name: shown, kind, target: b"", stat: &stat, size: 0, xattrs: &[] };
        self.header(&entry)
    }

    fn header(&mut self, entry: &Entry<'_>) -> Result<(), PackError> {
        header::write(self.out, entry).map_err(PackError::Out)
    }

    /// Exactly `size` bytes of the file.
    fn bytes(
        &mut self,
        file: BorrowedFd<'_>,
        stat: &Stat,
        size: u64,
        shown: &[u8],
    ) -> Result<(), PackError> {
        let sparse = u64::try_from(stat.st_blocks).is_ok_and(|blocks| blocks * 512 < size);
        let mut at = 0;
        while at < size {
            let (mut data, mut end) = (at, size);
            if sparse {
                // Where there is none, the rest is a hole.
                data = rustix::fs::seek(file, SeekFrom::Data(at)).unwrap_or(size).min(size);
                end = rustix::fs::seek(file, SeekFrom::Hole(data)).unwrap_or(size).min(size);
            }
            self.zeros(data - at)?;
            at = data;
            while at < end {
                let most = usize::try_from(end - at).unwrap_or(BUFFER).min(BUFFER);
                let buffer = self.buffer.get_mut(..most).unwrap_or_default();
                let count = match rustix::io::pread(file, &mut *buffer, at) {
                    Err(Errno::INTR) => continue,
                    count => count.map_err(read("read", shown))?,
                };
                if count == 0 {
                    tracing::debug!("a file shrank while it was read");
                    return self.zeros(size - at);
                }
                let bytes = buffer.get(..count).unwrap_or_default();
                self.out.write_all(bytes).map_err(PackError::Out)?;
                at += count as u64;
            }
        }
        Ok(())
    }

    fn zeros(&mut self, mut count: u64) -> Result<(), PackError> {
        let zeros = [0; 64 << 10];
        while count > 0 {
            let now = usize::try_from(count).unwrap_or(zeros.len()).min(zeros.len());
            self.out.write_all(zeros.get(..now).unwrap_or_default()).map_err(PackError::Out)?;
            count -= now as u64;
        }
        Ok(())
    }

    /// Those that mean the same on another machine, and whether it is a
    /// directory that hides what lower layers have in it.
    fn xattrs(&self, place: &Place<'_>, shown: &[u8]) -> Result<(Vec<Xattr>, bool), PackError> {
        let mut kept = Vec::new();
        let mut hides = false;
        let list = match place.list() {
            Ok(list) => list,
            Err(errno) if vanished(errno) || errno == Errno::NOTSUP => return Ok((kept, hides)),
            Err(errno) => return Err(read("list the attributes of", shown)(errno)),
        };
        for name in list.split(|byte| *byte == 0) {
            let Ok(name) = std::str::from_utf8(name) else { continue };
            if self.style == Style::Upper {
                match name {
                    "trusted.overlay.opaque" => {
                        hides |= place.get(name).is_ok_and(|value| value == b"y");
                    }
                    "trusted.overlay.redirect" | "trusted.overlay.metacopy" => {
                        let path = PathBuf::from(OsStr::from_bytes(shown));
                        return Err(PackError::Redirected { path });
                    }
                    _ => {}
                }
            }
            if super::is_portable(name)
                && let Ok(value) = place.get(name)
            {
                kept.push((name.to_owned(), value));
            }
        }
        kept.sort_unstable();
        Ok((kept, hides))
    }
}

/// What attributes are read of.
enum Place<'a> {
    Open(BorrowedFd<'a>),
    /// Links and devices are not opened.
    Name(BorrowedFd<'a>, &'a OsStr),
}

impl Place<'_> {
    fn list(&self) -> Result<Vec<u8>, Errno> {
        self.grow(|buffer| match self {
            Self::Open(open) => rustix::fs::flistxattr(open, buffer),
            Self::Name(parent, name) => rustix::fs::llistxattr(path(*parent, name), buffer),
        })
    }

    fn get(&self, key: &str) -> Result<Vec<u8>, Errno> {
        self.grow(|buffer| match self {
            Self::Open(open) => rustix::fs::fgetxattr(open, key, buffer),
            Self::Name(parent, name) => rustix::fs::lgetxattr(path(*parent, name), key, buffer),
        })
    }

    /// With a larger buffer until it fits; the kernel allows 64 KiB.
    fn grow(&self, fill: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
        let mut buffer = vec![0; 256];
        loop {
            match fill(&mut buffer) {
                Ok(count) => {
                    buffer.truncate(count);
                    return Ok(buffer);
                }
                Err(Errno::RANGE) if buffer.len() <= 64 << 10 => buffer.resize(buffer.len() * 4, 0),
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// There is no `lgetxattrat` before Linux 6.13; `name` is one component.
fn path(parent: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    Path::new(&format!("/proc/self/fd/{}", parent.as_raw_fd())).join(name)
}

fn beneath(top: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(top, path, DIRECTORY, Mode::empty(), resolve)
}

fn names(directory: BorrowedFd<'_>) -> Result<vec::IntoIter<OsString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_owned();
        if !matches!(name.as_slice(), b"." | b"..") {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort_unstable();
    Ok(names.into_iter())
}

#[cfg(test)]
mod tests;
