//! A tree of files, step by step, in the order of names.

use super::{DIRECTORY, failed};
use crate::error::Error;
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat},
};
use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    vec,
};

/// Every level is an open descriptor, on both sides of a copy.
const DEEPEST: usize = 200;

/// One file, directory, link or device.
pub(super) struct Entry<'a> {
    pub(super) parent: BorrowedFd<'a>,
    pub(super) name: &'a OsStr,
    /// From the top of the walk.
    pub(super) path: &'a Path,
    pub(super) stat: Stat,
}

impl Entry<'_> {
    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub(super) fn mode(&self) -> u32 {
        self.stat.st_mode & 0o7777
    }
}

/// Where the walk is.
pub(super) enum Visit<'a> {
    Enter(&'a Entry<'a>),
    Leaf(&'a Entry<'a>),
    Leave,
}

struct Level {
    directory: OwnedFd,
    path: PathBuf,
    names: vec::IntoIter<OsString>,
}

/// Walks everything below `top`; what `hidden` says, with all below it, is
/// passed over.
pub(super) fn walk(
    top: OwnedFd,
    hidden: &dyn Fn(&Path) -> bool,
    visit: &mut dyn FnMut(Visit<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut levels = vec![level(top, PathBuf::new())?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.next() else {
            levels.pop();
            if !levels.is_empty() {
                visit(Visit::Leave)?;
            }
            continue;
        };
        let path = level.path.join(&name);
        if hidden(&path) {
            continue;
        }
        let parent = level.directory.as_fd();
        let stat = rustix::fs::statat(parent, &name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("look at", &path))?;
        let entry = Entry { parent, name: &name, path: &path, stat };
        if entry.kind() != FileType::Directory {
            visit(Visit::Leaf(&entry))?;
            continue;
        }
        visit(Visit::Enter(&entry))?;
        let flags = DIRECTORY | OFlags::NOFOLLOW;
        let directory = rustix::fs::openat(parent, &name, flags, Mode::empty())
            .map_err(failed("open", &path))?;
        if levels.len() == DEEPEST {
            return Err(Error::Invalid(format!(
                "directories are nested more than {DEEPEST} deep: /{}",
                path.display()
            )));
        }
        levels.push(self::level(directory, path)?);
    }
    Ok(())
}

fn level(directory: OwnedFd, path: PathBuf) -> Result<Level, Error> {
    let mut names = Vec::new();
    for entry in Dir::read_from(&directory).map_err(failed("list", &path))? {
        let name = entry.map_err(failed("list", &path))?.file_name().to_bytes().to_owned();
        if !matches!(name.as_slice(), b"." | b"..") {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort_unstable();
    Ok(Level { directory, path, names: names.into_iter() })
}
