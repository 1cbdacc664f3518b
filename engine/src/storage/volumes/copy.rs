//! Copies a tree as it is: owners, modes, times, extended attributes, hard
//! links, devices, and links unfollowed.

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{
        AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
        XattrFlags,
    },
    io::{Errno, Result},
};
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// What could not be copied.
#[derive(Debug)]
pub(super) struct CannotCopy {
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

/// A directory below `root`. Each path is walked anew, which costs little and
/// needs one descriptor, however deep the tree is.
pub(super) fn enter(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    loop {
        match rustix::fs::openat2(root, path, DIRECTORY, Mode::empty(), resolve) {
            // A rename somewhere in the system while the kernel looked up "..".
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Copies what is in the directory `from`, and the directory's own owner and
/// mode, to the empty directory `to`. Blocks.
pub(super) fn copy(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
) -> std::result::Result<(), CannotCopy> {
    let mut copy = Copy { to, linked: HashMap::new() };
    let mut directories = vec![PathBuf::new()];
    let mut at = 0;
    while let Some(path) = directories.get(at).cloned() {
        let failed = |errno: Errno| CannotCopy { path: path.clone(), source: errno.into() };
        let (source, target) =
            (enter(from, &path).map_err(failed)?, enter(to, &path).map_err(failed)?);
        for entry in Dir::read_from(&source).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let path = path.join(name);
            let copied = copy.entry(source.as_fd(), target.as_fd(), &path);
            if copied.map_err(|source| CannotCopy { path: path.clone(), source })? {
                directories.push(path);
            }
        }
        at += 1;
    }
    // Last, and the inner ones first: making entries changes the times.
    for path in directories.iter().rev() {
        let finish = || {
            let (source, target) = (enter(from, path)?, enter(to, path)?);
            let stat = rustix::fs::fstat(&source)?;
            dress(source.as_fd(), target.as_fd(), &stat)
        };
        finish().map_err(|errno| CannotCopy { path: path.clone(), source: errno.into() })?;
    }
    Ok(())
}

struct Copy<'a> {
    to: BorrowedFd<'a>,
    /// Where the first name of an inode with several has been copied to.
    linked: HashMap<(u64, u64), PathBuf>,
}

impl Copy<'_> {
    /// True if it is a directory, whose entries are still to be copied.
    fn entry(
        &mut self,
        source: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        path: &Path,
    ) -> io::Result<bool> {
        let name = path.file_name().unwrap_or_default();
        let stat = rustix::fs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            rustix::fs::mkdirat(target, name, Mode::RWXU)?;
            return Ok(true);
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.linked.get(&(stat.st_dev, stat.st_ino)) {
                rustix::fs::linkat(self.to, first, target, name, AtFlags::empty())?;
                return Ok(false);
            }
            self.linked.insert((stat.st_dev, stat.st_ino), path.to_owned());
        }
        match kind {
            FileType::RegularFile => regular(source, target, name, &stat)?,
            FileType::Symlink => {
                let to = rustix::fs::readlinkat(source, name, Vec::new())?;
                rustix::fs::symlinkat(&to, target, name)?;
                own_and_time(target, name, &stat)?;
            }
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Directory
            | FileType::Unknown => {
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                rustix::fs::mknodat(target, name, kind, mode, stat.st_rdev)?;
                own_and_time(target, name, &stat)?;
                // The umask, and the change of owner, have had a say.
                rustix::fs::chmodat(target, name, mode, AtFlags::empty())?;
            }
        }
        Ok(false)
    }
}

fn regular(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    name: &OsStr,
    stat: &Stat,
) -> io::Result<()> {
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut from = File::from(rustix::fs::openat(source, name, read, Mode::empty())?);
    let mode = Mode::RUSR | Mode::WUSR;
    let mut to = File::from(rustix::fs::openat(target, name, write, mode)?);
    io::copy(&mut from, &mut to)?;
    Ok(dress(from.as_fd(), to.as_fd(), stat)?)
}

/// Owner, extended attributes, mode and times, in this order: a change of
/// owner clears file capabilities and setuid bits.
fn dress(source: BorrowedFd<'_>, target: BorrowedFd<'_>, stat: &Stat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(target, Some(uid), Some(gid))?;
    attributes(source, target)?;
    rustix::fs::fchmod(target, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    rustix::fs::futimens(target, &times(stat))
}

/// The owner, attributes, mode and times of one directory for another.
pub(super) fn dress_like(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    dress(source, target, &rustix::fs::fstat(source)?)
}

fn own_and_time(directory: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::utimensat(directory, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

fn times(stat: &Stat) -> Timestamps {
    let moment =
        |tv_sec, nanos: u64| Timespec { tv_sec, tv_nsec: i64::try_from(nanos).unwrap_or(0) };
    Timestamps {
        last_access: moment(stat.st_atime, stat.st_atime_nsec),
        last_modification: moment(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn attributes(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let names = match whole(|buffer| rustix::fs::flistxattr(source, buffer)) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        names => names?,
    };
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = OsStr::from_bytes(name);
        let value = match whole(|buffer| rustix::fs::fgetxattr(source, name, buffer)) {
            // Only listed, or gone meanwhile.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => continue,
            value => value?,
        };
        match rustix::fs::fsetxattr(target, name, &value, XattrFlags::empty()) {
            // The volume's file system has no room for attributes of that kind.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Asks until the buffer is large enough.
fn whole(read: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 4, 0),
            Err(errno) => return Err(errno),
        }
    }
}
