//! Which files a `COPY` names, and the digest of what is in them.

use super::{
    DIRECTORY, FILE, failed, open,
    walk::{Entry, Visit, walk},
};
use crate::{
    build::ignore::{Glob, Ignore},
    error::Error,
};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, FileType, Mode, OFlags},
    io::Errno,
};
use sha2::{Digest as _, Sha256};
use std::{
    ffi::OsStr,
    fs::File,
    io::Read,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

const BUFFER: usize = 256 << 10;

/// A source of a copy.
#[derive(Debug)]
pub(in crate::build) struct Found {
    /// From the root of its tree, as it was named.
    pub(in crate::build) path: PathBuf,
    pub(in crate::build) is_directory: bool,
    /// `file:` or `dir:`, and 64 digits: of content, names and modes, not of
    /// times and owners.
    pub(in crate::build) digest: String,
}

/// The files that `named` means: one path, or all that fit a pattern. Blocks.
///
/// # Errors
/// There is none; it leads out of the context.
pub(in crate::build) fn find(
    root: &OwnedFd,
    named: &str,
    exclude: &Ignore,
    context: bool,
) -> Result<Vec<Found>, Error> {
    let path = inside(named)?;
    let text = path.to_string_lossy();
    match Glob::parse(&text).map_err(Error::Invalid)? {
        None => Ok(vec![one(root, &path, exclude, context)?]),
        Some(glob) => {
            let mut fitting = Vec::new();
            let mut visit = |visit: Visit<'_>| {
                if let Visit::Enter(entry) | Visit::Leaf(entry) = visit
                    && glob.fits(&entry.path.to_string_lossy())
                {
                    fitting.push(entry.path.to_owned());
                }
                Ok(())
            };
            let top = open(root, Path::new(""), DIRECTORY).map_err(failed("open", &path))?;
            walk(top, &|_| false, &mut visit)?;
            fitting.retain(|path| !exclude.hides(&path.to_string_lossy()));
            fitting.iter().map(|path| one(root, path, exclude, context)).collect()
        }
    }
}

/// The path from the root, without `.` and `..`.
fn inside(named: &str) -> Result<PathBuf, Error> {
    let mut path = PathBuf::new();
    for component in Path::new(named).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                if !path.pop() {
                    return Err(Error::Invalid(format!(
                        "forbidden path outside the build context: {named} ()"
                    )));
                }
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(path)
}

fn one(root: &OwnedFd, path: &Path, exclude: &Ignore, context: bool) -> Result<Found, Error> {
    let opened = open(root, path, OFlags::PATH | OFlags::CLOEXEC);
    let found = match opened {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
            let hint = if context {
                "file not found in build context or excluded by .dockerignore: "
            } else {
                ""
            };
            let path = path.display();
            let text = format!("{hint}stat {path}: file does not exist");
            return Err(Error::Invalid(text));
        }
        opened => opened.map_err(failed("open", path))?,
    };
    let stat = rustix::fs::fstat(&found).map_err(failed("look at", path))?;
    let mut hash = Sha256::new();
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::Directory {
        let top = open(root, path, DIRECTORY).map_err(failed("open", path))?;
        let hidden = |path: &Path| exclude.hides(&path.to_string_lossy());
        walk(top, &hidden, &mut |visit| {
            if let Visit::Enter(entry) | Visit::Leaf(entry) = visit {
                add(&mut hash, entry)?;
            }
            Ok(())
        })?;
    } else {
        // By the path that the links led to: `RESOLVE_IN_ROOT` once more.
        let file = if kind == FileType::RegularFile {
            Some(open(root, path, FILE).map_err(failed("open", path))?)
        } else {
            None
        };
        field(&mut hash, &(stat.st_mode & 0o7777).to_le_bytes());
        field(&mut hash, &stat.st_rdev.to_le_bytes());
        content(&mut hash, file, path)?;
    }
    let is_directory = kind == FileType::Directory;
    let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let digest = format!("{}:{digits}", if is_directory { "dir" } else { "file" });
    Ok(Found { path: path.to_owned(), is_directory, digest })
}

/// With its length before it, so that no two lists of fields are the same text.
fn field(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

fn add(hash: &mut Sha256, entry: &Entry<'_>) -> Result<(), Error> {
    field(hash, entry.path.as_os_str().as_bytes());
    field(hash, &entry.stat.st_mode.to_le_bytes());
    let kind = entry.kind();
    match kind {
        FileType::RegularFile => {
            let flags = FILE | OFlags::NOFOLLOW;
            let file = rustix::fs::openat(entry.parent, entry.name, flags, Mode::empty())
                .map_err(failed("open", entry.path))?;
            for (name, value) in super::copy::xattrs(file.as_fd(), entry.path)? {
                field(hash, name.as_bytes());
                field(hash, &value);
            }
            content(hash, Some(file), entry.path)
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(entry.parent, entry.name, Vec::new())
                .map_err(failed("read the link", entry.path))?;
            field(hash, target.as_bytes());
            Ok(())
        }
        FileType::Directory
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => {
            field(hash, &entry.stat.st_rdev.to_le_bytes());
            Ok(())
        }
    }
}

fn content(hash: &mut Sha256, file: Option<OwnedFd>, path: &Path) -> Result<(), Error> {
    let Some(file) = file else { return Ok(()) };
    let mut file = File::from(file);
    let mut buffer = vec![0; BUFFER];
    let mut inner = Sha256::new();
    loop {
        let count = file
            .read(&mut buffer)
            .map_err(|error| Error::internal(format!("cannot read /{}", path.display()), error))?;
        match buffer.get(..count) {
            None | Some([]) => break,
            Some(bytes) => inner.update(bytes),
        }
    }
    field(hash, &inner.finalize());
    Ok(())
}

/// Takes away what `.dockerignore` says is not there. Blocks.
pub(in crate::build) fn hide(root: &OwnedFd, ignore: &Ignore) -> Result<(), Error> {
    if ignore.is_empty() {
        return Ok(());
    }
    let mut directories = Vec::new();
    let top = open(root, Path::new(""), DIRECTORY).map_err(failed("open", Path::new("")))?;
    walk(top, &|_| false, &mut |visit| {
        let (Visit::Enter(entry) | Visit::Leaf(entry)) = visit else { return Ok(()) };
        if !ignore.hides(&entry.path.to_string_lossy()) {
            return Ok(());
        }
        if entry.kind() == FileType::Directory {
            directories.push(entry.path.to_owned());
            return Ok(());
        }
        rustix::fs::unlinkat(entry.parent, entry.name, AtFlags::empty())
            .map_err(failed("remove", entry.path))
    })?;
    // Innermost first; one that still holds something was brought back by `!`.
    for path in directories.iter().rev() {
        let parent = path.parent().unwrap_or(Path::new(""));
        let name = path.file_name().unwrap_or(OsStr::new(""));
        let parent = open(root, parent, DIRECTORY).map_err(failed("open", path))?;
        match rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => return Err(failed("remove", path)(errno)),
        }
    }
    Ok(())
}
