//! Making files below one directory, whatever their names say.

use super::{Extract, Recipe, UnpackError};
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, XattrFlags},
    io::Errno,
};
use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// `openat2` may ask to be called again while others rename; nobody does here.
const TRIES: usize = 8;

/// A name inside the layer: no `..`, no leading `/`; empty for the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inside(PathBuf);

impl Inside {
    /// # Errors
    /// It has `..` or a NUL in it.
    pub(super) fn parse(name: &[u8]) -> Result<Self, UnpackError> {
        let mut inside = PathBuf::new();
        for component in name.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err(outside(name)),
                _ if component.contains(&0) => return Err(outside(name)),
                _ => inside.push(OsStr::from_bytes(component)),
            }
        }
        Ok(Self(inside))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The directory and the last component; none for the root itself.
    pub(super) fn split(&self) -> Option<(&Path, &OsStr)> {
        Some((self.0.parent()?, self.0.file_name()?))
    }
}

fn outside(name: &[u8]) -> UnpackError {
    UnpackError::Outside { path: OsString::from(OsStr::from_bytes(name)).into() }
}

/// For `map_err`.
pub(super) fn write(doing: &'static str, path: &Path) -> impl FnOnce(Errno) -> UnpackError + use<> {
    let path = path.to_owned();
    move |errno| match errno {
        Errno::XDEV => UnpackError::Outside { path },
        _ => UnpackError::Write { doing, path, source: errno.into() },
    }
}

/// The layer's directory, or the root of a tree, open.
#[derive(Debug)]
pub(super) struct Root {
    directory: OwnedFd,
    /// Of a tree: where in it the archive goes.
    below: PathBuf,
    /// Of a tree.
    how: Option<Extract>,
    /// The last parent that was opened: entries come in the order of the tree.
    parent: Option<Parent>,
    /// Set last, since making what is in a directory changes its time.
    times: Vec<(PathBuf, Timespec)>,
    explicit: bool,
    recipe: Option<Recipe>,
}

#[derive(Debug)]
struct Parent {
    /// As the archive calls it.
    path: PathBuf,
    directory: OwnedFd,
    /// Without links on the way, once somebody asked.
    real: Option<PathBuf>,
}

impl Root {
    pub(super) fn open(path: &Path, recipe: Option<Recipe>) -> Result<Self, UnpackError> {
        let directory =
            rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty()).map_err(write("open", path))?;
        Ok(Self { recipe, ..Self::new(directory, PathBuf::new(), None) })
    }

    pub(super) fn of_tree(directory: OwnedFd, below: &Path, how: Extract) -> Self {
        Self::new(directory, below.to_owned(), Some(how))
    }

    fn new(directory: OwnedFd, below: PathBuf, how: Option<Extract>) -> Self {
        let (parent, times) = (None, Vec::new());
        Self { directory, below, how, parent, times, explicit: false, recipe: None }
    }

    /// It becomes a layer: whiteouts mean something.
    pub(super) fn is_layer(&self) -> bool {
        self.how.is_none()
    }

    pub(super) fn owner(&self) -> Option<(u32, u32)> {
        self.how.and_then(|how| how.owner)
    }

    /// Whether something that is `directory` or not may come where something
    /// of the other kind is.
    pub(super) fn may_replace(
        &mut self,
        path: &Inside,
        directory: bool,
    ) -> Result<(), UnpackError> {
        if !self.how.is_some_and(|how| how.keep_kinds) {
            return Ok(());
        }
        let at = path.path().to_owned();
        match self.is_directory(path)? {
            Some(true) if !directory => Err(UnpackError::OverDirectory { path: at }),
            Some(false) if directory => Err(UnpackError::OverFile { path: at }),
            _ => Ok(()),
        }
    }

    /// The archive has an entry for the root itself.
    pub(super) fn explicit(&mut self) {
        self.explicit = true;
    }

    pub(super) fn time_later(&mut self, path: &Path, time: Timespec) {
        self.times.push((path.to_owned(), time));
    }

    /// Sets directories' times; whether the root had an entry.
    pub(super) fn finish(self) -> Result<bool, UnpackError> {
        for (path, time) in &self.times {
            let directory = self.enter(path).map_err(write("open", path))?;
            let times = Timestamps { last_access: *time, last_modification: *time };
            rustix::fs::futimens(&directory, &times).map_err(write("set the time of", path))?;
        }
        Ok(self.explicit)
    }

    /// Opens a directory. `XDEV` if it is outside.
    pub(super) fn enter(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = self.below.join(path);
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { &path };
        let resolve = ResolveFlags::NO_MAGICLINKS
            | match self.how {
                None => ResolveFlags::BENEATH | ResolveFlags::NO_XDEV,
                Some(_) => ResolveFlags::IN_ROOT,
            };
        let mut tries = 0;
        loop {
            let opened =
                rustix::fs::openat2(&self.directory, path, DIRECTORY, Mode::empty(), resolve);
            tries += 1;
            if !matches!(opened, Err(Errno::AGAIN | Errno::INTR)) || tries == TRIES {
                return opened;
            }
        }
    }

    /// Opens a directory, and makes it and those above it if they are missing.
    pub(super) fn parent(&mut self, path: &Path) -> Result<BorrowedFd<'_>, UnpackError> {
        if self.parent.as_ref().is_none_or(|cached| cached.path != path) {
            let opened = match self.enter(path) {
                Err(Errno::NOENT) => self.enter_making(path)?,
                opened => opened.map_err(write("open", path))?,
            };
            self.parent = Some(Parent { path: path.to_owned(), directory: opened, real: None });
        }
        let parent = self.parent.as_ref().map(|parent| &parent.directory);
        Ok(parent.unwrap_or(&self.directory).as_fd())
    }

    /// The next bytes of the archive are the content of `file`, which has just
    /// been made at `path`.
    pub(super) fn content(
        &mut self,
        path: &Inside,
        file: impl AsFd,
        size: u64,
    ) -> Result<(), UnpackError> {
        let Some(recipe) = self.recipe.clone() else { return Ok(()) };
        let Some((parent, name)) = path.split() else { return Ok(()) };
        let found = rustix::fs::fstat(file).map_err(write("look at", path.path()))?;
        let real = self.real(parent)?.join(name);
        recipe.borrow_mut().content(&real, size, found.st_ino);
        Ok(())
    }

    /// A directory's path without links, as they may change later.
    fn real(&mut self, path: &Path) -> Result<&Path, UnpackError> {
        self.parent(path)?;
        let known = self.parent.as_ref().and_then(|parent| parent.real.clone());
        let real = match known {
            Some(real) => real,
            None => self.find_real(path)?,
        };
        let parent = self.parent.as_mut().map(|parent| parent.real.insert(real).as_path());
        Ok(parent.unwrap_or(Path::new("")))
    }

    fn find_real(&mut self, path: &Path) -> Result<PathBuf, UnpackError> {
        let at = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat2(&self.directory, at, flags, Mode::empty(), resolve) {
            Ok(_) => return Ok(path.to_owned()),
            Err(Errno::LOOP | Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(write("open", path)(errno)),
        }
        let root = place(&self.directory, path)?;
        let real = place(self.parent(path)?, path)?;
        let below = real.strip_prefix(root).map_err(|_| outside(path.as_os_str().as_bytes()))?;
        Ok(below.to_owned())
    }

    fn enter_making(&self, path: &Path) -> Result<OwnedFd, UnpackError> {
        let mut so_far = PathBuf::new();
        let mut directory = self.enter(&so_far).map_err(write("open", path))?;
        for component in path {
            so_far.push(component);
            directory = match self.enter(&so_far) {
                Err(Errno::NOENT) => {
                    let mode = Mode::from_raw_mode(0o755);
                    // Exists: a link to nowhere, which the next line refuses.
                    match rustix::fs::mkdirat(&directory, component, mode) {
                        Ok(()) | Err(Errno::EXIST) => self.enter(&so_far),
                        Err(errno) => Err(errno),
                    }
                }
                opened => opened,
            }
            .map_err(write("make", &so_far))?;
        }
        Ok(directory)
    }

    /// Makes room for something new. True if a whiteout was there: what was
    /// below is hidden by it.
    pub(super) fn clear(&mut self, path: &Inside) -> Result<bool, UnpackError> {
        let Some((parent, name)) = path.split() else { return Ok(false) };
        let is_layer = self.is_layer();
        let directory = self.parent(parent)?;
        let found = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            found => found.map_err(write("look at", path.path()))?,
        };
        let kind = FileType::from_raw_mode(found.st_mode);
        if kind == FileType::Directory {
            if is_layer {
                return Err(UnpackError::WasDirectory { path: path.path().to_owned() });
            }
            // Without following links below, and the directory is ours by descriptor.
            let here = format!("/proc/self/fd/{}", directory.as_raw_fd());
            std::fs::remove_dir_all(Path::new(&here).join(name)).map_err(|source| {
                UnpackError::Write { doing: "replace", path: path.path().to_owned(), source }
            })?;
            self.parent = None;
            return Ok(false);
        }
        let recipe = self.recipe.as_ref().filter(|_| kind == FileType::RegularFile);
        let kept = recipe.and_then(|recipe| recipe.borrow().keep(found.st_ino));
        let directory = self.parent(parent)?;
        let replaced = match kept {
            // The archive cannot be made again without what it had here first.
            Some(kept) => rustix::fs::renameat(directory, name, CWD, kept),
            None => rustix::fs::unlinkat(directory, name, AtFlags::empty()),
        };
        replaced.map_err(write("replace", path.path()))?;
        // It may have been a link on the way to the remembered directory.
        self.parent = None;
        Ok(is_layer && kind == FileType::CharacterDevice && found.st_rdev == 0)
    }

    /// Whether there is something, and whether it is a directory.
    pub(super) fn is_directory(&mut self, path: &Inside) -> Result<Option<bool>, UnpackError> {
        let Some((parent, name)) = path.split() else { return Ok(Some(true)) };
        match rustix::fs::statat(self.parent(parent)?, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(FileType::from_raw_mode(found.st_mode) == FileType::Directory)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(write("look at", path.path())(errno)),
        }
    }
}

/// Where an open directory is.
fn place(directory: impl AsFd, path: &Path) -> Result<PathBuf, UnpackError> {
    let link = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
    let place = rustix::fs::readlinkat(CWD, link, Vec::new()).map_err(write("find", path))?;
    Ok(OsString::from_vec(place.into_bytes()).into())
}

/// The directory hides what lower layers have in it.
pub(super) fn make_opaque(directory: impl AsFd, path: &Path) -> Result<(), UnpackError> {
    rustix::fs::fsetxattr(directory, "trusted.overlay.opaque", b"y", XattrFlags::empty())
        .map_err(write("make opaque", path))
}
