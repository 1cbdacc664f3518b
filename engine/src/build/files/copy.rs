//! Copies between trees, as `COPY` does it: owners are given, modes and times
//! kept; a directory's content goes into the target, a file over it.

use super::{
    DIRECTORY, FILE, failed, open,
    walk::{Entry, Visit, walk},
};
use crate::{build::ignore::Ignore, error::Error};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};
use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

/// Who owns what is copied, and with what mode, if not its own.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::build) struct Owner {
    pub(in crate::build) uid: u32,
    pub(in crate::build) gid: u32,
    pub(in crate::build) mode: Option<u32>,
}

/// Where to.
#[derive(Debug)]
pub(in crate::build) struct Put<'a> {
    pub(in crate::build) root: &'a OwnedFd,
    /// From the root; links in it are followed.
    pub(in crate::build) to: &'a Path,
    /// `to` is a directory, also when it is not there yet.
    pub(in crate::build) into: bool,
    pub(in crate::build) owner: Owner,
}

/// Copies what is at `path` of the tree `from`. Blocks.
///
/// # Errors
/// The two do not fit together; the disk is full.
pub(in crate::build) fn copy(
    from: &OwnedFd,
    path: &Path,
    exclude: &Ignore,
    put: &Put<'_>,
) -> Result<(), Error> {
    let found = open(from, path, OFlags::PATH | OFlags::CLOEXEC).map_err(failed("open", path))?;
    let stat = rustix::fs::fstat(&found).map_err(failed("look at", path))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let top = open(from, path, DIRECTORY).map_err(failed("open", path))?;
        let target = make_directory(put.root, put.to, put.owner)?;
        let hidden = |path: &Path| exclude.hides(&path.to_string_lossy());
        let mut copier = Copier::new(target, put.owner);
        return walk(top, &hidden, &mut |visit| copier.visit(&visit));
    }
    let (parent, name) = target(put, path.file_name().unwrap_or(OsStr::new("")))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::Invalid(format!("cannot copy /{}: not a regular file", path.display())));
    }
    let source = open(from, path, FILE).map_err(failed("open", path))?;
    file(source, parent.as_fd(), &name, &stat, put)
}

/// Makes a file of a text. Blocks.
///
/// # Errors
/// As [`copy`].
pub(in crate::build) fn put_text(text: &str, called: &str, put: &Put<'_>) -> Result<(), Error> {
    put_stream(&mut text.as_bytes(), (called, 0o644, None), put)
}

/// Makes a file, with a name, a mode and a time (seconds since 1970), of what
/// can be read. Blocks.
///
/// # Errors
/// As [`copy`].
pub(in crate::build) fn put_stream(
    stream: &mut dyn Read,
    (called, mode, time): (&str, u32, Option<i64>),
    put: &Put<'_>,
) -> Result<(), Error> {
    let (parent, name) = target(put, OsStr::new(called))?;
    let at = put.to;
    let mut file = File::from(create(parent.as_fd(), &name, at)?);
    io::copy(stream, &mut file)
        .map_err(|error| Error::internal(format!("cannot write /{}", at.display()), error))?;
    own(file.as_fd(), put.owner, mode, at)?;
    let Some(tv_sec) = time else { return Ok(()) };
    let time = Timespec { tv_sec, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::futimens(&file, &times).map_err(failed("set the time of", at))
}

/// The directory and the name in it that a single file goes to.
fn target(put: &Put<'_>, called: &OsStr) -> Result<(OwnedFd, OsString), Error> {
    let root = Owner::default();
    let there = open(put.root, put.to, DIRECTORY);
    if put.into || there.is_ok() {
        let directory = match there {
            Ok(directory) => directory,
            Err(_) => make_directory(put.root, put.to, root)?,
        };
        return Ok((directory, called.to_owned()));
    }
    let parent = put.to.parent().unwrap_or(Path::new(""));
    let name = put.to.file_name().unwrap_or(called).to_owned();
    Ok((make_directory(put.root, parent, root)?, name))
}

/// Opens a directory; those that are missing on the way are made, root's own,
/// the last one `owner`'s.
pub(in crate::build) fn make_directory(
    root: &OwnedFd,
    path: &Path,
    owner: Owner,
) -> Result<OwnedFd, Error> {
    match open(root, path, DIRECTORY) {
        Err(Errno::NOENT) => {}
        opened => return opened.map_err(failed("open", path)),
    }
    let mut so_far = PathBuf::new();
    let mut directory = open(root, &so_far, DIRECTORY).map_err(failed("open", path))?;
    let names: Vec<&OsStr> = path
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name),
            Component::RootDir
            | Component::CurDir
            | Component::ParentDir
            | Component::Prefix(_) => None,
        })
        .collect();
    for (at, name) in names.iter().enumerate() {
        so_far.push(name);
        directory = match open(root, &so_far, DIRECTORY) {
            Err(Errno::NOENT) => {
                let mode = Mode::from_raw_mode(0o755);
                // Exists: a link to nowhere, which the next line refuses.
                match rustix::fs::mkdirat(&directory, *name, mode) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(failed("make the directory", &so_far)(errno)),
                }
                let made = open(root, &so_far, DIRECTORY)
                    .map_err(failed("make the directory", &so_far))?;
                let last = at + 1 == names.len();
                let owner = if last { owner } else { Owner::default() };
                own(made.as_fd(), Owner { mode: None, ..owner }, 0o755, &so_far)?;
                made
            }
            opened => opened.map_err(failed("make the directory", &so_far))?,
        };
    }
    Ok(directory)
}

/// A directory's content on its way.
struct Copier {
    /// The target, and the directories in it that the walk is in.
    stack: Vec<OwnedFd>,
    /// What each directory's time is to be, once it is full.
    times: Vec<(PathBuf, Stat)>,
    owner: Owner,
    /// Files with several names, by device and number: the first name.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Copier {
    fn new(target: OwnedFd, owner: Owner) -> Self {
        Self { stack: vec![target], times: Vec::new(), owner, links: HashMap::new() }
    }

    fn visit(&mut self, visit: &Visit<'_>) -> Result<(), Error> {
        match visit {
            Visit::Enter(entry) => self.enter(entry),
            Visit::Leaf(entry) => self.leaf(entry),
            Visit::Leave => {
                let (Some(directory), Some((path, stat))) = (self.stack.pop(), self.times.pop())
                else {
                    return Ok(());
                };
                rustix::fs::futimens(&directory, &times(&stat))
                    .map_err(failed("set the time of", &path))
            }
        }
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.stack.last().expect("the target stays to the end").as_fd()
    }

    fn enter(&mut self, entry: &Entry<'_>) -> Result<(), Error> {
        let (here, name) = (self.here(), entry.name);
        let flags = DIRECTORY | OFlags::NOFOLLOW;
        let directory = match rustix::fs::openat(here, name, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(errno) => {
                if errno != Errno::NOENT {
                    rustix::fs::unlinkat(here, name, AtFlags::empty())
                        .map_err(failed("replace", entry.path))?;
                }
                rustix::fs::mkdirat(here, name, Mode::from_raw_mode(0o700))
                    .map_err(failed("make the directory", entry.path))?;
                rustix::fs::openat(here, name, flags, Mode::empty())
                    .map_err(failed("open", entry.path))?
            }
        };
        own(directory.as_fd(), self.owner, entry.mode(), entry.path)?;
        self.stack.push(directory);
        self.times.push((entry.path.to_owned(), entry.stat));
        Ok(())
    }

    fn leaf(&mut self, entry: &Entry<'_>) -> Result<(), Error> {
        let identity = (entry.stat.st_dev, entry.stat.st_ino);
        if entry.stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&identity) {
                return self.link(first, entry);
            }
            self.links.insert(identity, entry.path.to_owned());
        }
        let here = self.here();
        match entry.kind() {
            FileType::RegularFile => {
                let flags = FILE | OFlags::NOFOLLOW;
                let source = rustix::fs::openat(entry.parent, entry.name, flags, Mode::empty())
                    .map_err(failed("open", entry.path))?;
                let created = create(here, entry.name, entry.path)?;
                fill(source, created, &entry.stat, (self.owner, entry.path))
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(entry.parent, entry.name, Vec::new())
                    .map_err(failed("read the link", entry.path))?;
                clear(here, entry.name, entry.path)?;
                rustix::fs::symlinkat(&*target, here, entry.name)
                    .map_err(failed("link", entry.path))?;
                self.dress(entry)
            }
            // It says something only while somebody listens.
            FileType::Socket | FileType::Unknown | FileType::Directory => Ok(()),
            kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
                clear(here, entry.name, entry.path)?;
                let mode = Mode::from_raw_mode(self.owner.mode.unwrap_or(entry.mode()));
                rustix::fs::mknodat(here, entry.name, kind, mode, entry.stat.st_rdev)
                    .map_err(failed("make the device", entry.path))?;
                // It is no link: it has just been made, and nobody else is here.
                rustix::fs::chmodat(here, entry.name, mode, AtFlags::empty())
                    .map_err(failed("set the mode of", entry.path))?;
                self.dress(entry)
            }
        }
    }

    /// The directories of `first` have been made or opened by this very walk.
    fn link(&self, first: &Path, entry: &Entry<'_>) -> Result<(), Error> {
        let top = self.stack.first().expect("the target stays to the end");
        clear(self.here(), entry.name, entry.path)?;
        rustix::fs::linkat(top, first, self.here(), entry.name, AtFlags::empty())
            .map_err(failed("link", entry.path))
    }

    /// Owner and time of what cannot be opened.
    fn dress(&self, entry: &Entry<'_>) -> Result<(), Error> {
        let (uid, gid) = (Uid::from_raw(self.owner.uid), Gid::from_raw(self.owner.gid));
        let (here, nofollow) = (self.here(), AtFlags::SYMLINK_NOFOLLOW);
        rustix::fs::chownat(here, entry.name, Some(uid), Some(gid), nofollow)
            .map_err(failed("set the owner of", entry.path))?;
        rustix::fs::utimensat(here, entry.name, &times(&entry.stat), nofollow)
            .map_err(failed("set the time of", entry.path))
    }
}

/// Makes room for something that is no directory.
fn clear(parent: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<(), Error> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Err(Error::Invalid(format!(
            "failed to copy files: cannot copy to directory: /{}",
            path.display()
        ))),
        Err(errno) => Err(failed("replace", path)(errno)),
    }
}

fn create(parent: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<OwnedFd, Error> {
    clear(parent, name, path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))
        .map_err(failed("make", path))
}

fn file(
    source: OwnedFd,
    parent: BorrowedFd<'_>,
    name: &OsStr,
    stat: &Stat,
    put: &Put<'_>,
) -> Result<(), Error> {
    let created = create(parent, name, put.to)?;
    fill(source, created, stat, (put.owner, put.to))
}

fn fill(
    source: OwnedFd,
    target: OwnedFd,
    stat: &Stat,
    (owner, path): (Owner, &Path),
) -> Result<(), Error> {
    let xattrs = xattrs(source.as_fd(), path)?;
    let (mut source, mut target) = (File::from(source), File::from(target));
    // In the kernel, by `copy_file_range`, where it can.
    io::copy(&mut source, &mut target)
        .map_err(|error| Error::internal(format!("cannot copy /{}", path.display()), error))?;
    own(target.as_fd(), owner, stat.st_mode & 0o7777, path)?;
    for (name, value) in xattrs {
        rustix::fs::fsetxattr(&target, name.as_str(), &value, XattrFlags::empty())
            .map_err(failed("set an extended attribute of", path))?;
    }
    rustix::fs::futimens(&target, &times(stat)).map_err(failed("set the time of", path))
}

/// The owner first, since that takes away setuid bits and capabilities.
fn own(file: BorrowedFd<'_>, owner: Owner, mode: u32, path: &Path) -> Result<(), Error> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    rustix::fs::fchown(file, Some(uid), Some(gid)).map_err(failed("set the owner of", path))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(owner.mode.unwrap_or(mode)))
        .map_err(failed("set the mode of", path))
}

fn times(stat: &Stat) -> Timestamps {
    let tv_nsec = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec };
    Timestamps { last_access: time, last_modification: time }
}

/// What of a file's attributes goes along. Labels of security modules are the
/// host's business; overlayfs's own would let a layer reach into others.
pub(super) fn xattrs(file: BorrowedFd<'_>, path: &Path) -> Result<Vec<(String, Vec<u8>)>, Error> {
    // Most files have none: asked without a buffer, the kernel says how much.
    if matches!(rustix::fs::flistxattr(file, &mut [0; 0]), Ok(0) | Err(Errno::NOTSUP)) {
        return Ok(Vec::new());
    }
    let mut list = vec![0; 64 << 10];
    let count = rustix::fs::flistxattr(file, list.as_mut_slice())
        .map_err(failed("list the attributes of", path))?;
    list.truncate(count);
    let mut found = Vec::new();
    for name in list.split(|byte| *byte == 0) {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        let wanted = name == "security.capability"
            || (name.starts_with("user.") && !name.starts_with("user.overlay."))
            || name.starts_with("system.posix_acl_");
        if !wanted {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let count = rustix::fs::fgetxattr(file, name, value.as_mut_slice())
            .map_err(failed("read an attribute of", path))?;
        value.truncate(count);
        found.push((name.to_owned(), value));
    }
    found.sort_unstable();
    Ok(found)
}
