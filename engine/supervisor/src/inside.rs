//! Paths below the container's root, opened so that no link leads out of it.
//!
//! The kernel does the walking (`openat2` with `RESOLVE_IN_ROOT`): whatever an
//! image or another container that shares a volume puts in the way, a
//! descriptor that comes back lies below the root.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

/// As many links as the kernel itself follows: linux/namei.h `MAXSYMLINKS`.
const MAX_LINKS: u32 = 40;

/// What a mount destination has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File,
}

impl Kind {
    /// Of the open file `fd`.
    ///
    /// # Errors
    ///
    /// Those of fstat(2).
    pub fn of(fd: BorrowedFd<'_>) -> Result<Self> {
        let mode = fs::fstat(fd)?.st_mode;
        Ok(if FileType::from_raw_mode(mode) == FileType::Directory {
            Self::Directory
        } else {
            Self::File
        })
    }
}

/// Opens `path` below `root`.
///
/// # Errors
///
/// Those of openat2(2).
pub fn open(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let path = if path.is_empty() { "." } else { path };
    loop {
        match fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename somewhere in the system while the kernel looked up "..".
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
}

/// Opens `path` below `root` as a place (`O_PATH`), made if it is missing.
///
/// # Errors
///
/// Those of openat2(2), mkdirat(2) and mknodat(2).
pub fn ensure(root: BorrowedFd<'_>, path: &str, kind: Kind) -> Result<OwnedFd> {
    ensure_within(root, &cleaned(path), kind, MAX_LINKS)
}

fn ensure_within(root: BorrowedFd<'_>, path: &str, kind: Kind, links: u32) -> Result<OwnedFd> {
    match open(root, path, OFlags::PATH) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let directory = ensure_within(root, parent, Kind::Directory, links)?;
    let made = match kind {
        Kind::Directory => fs::mkdirat(&directory, name, Mode::from_raw_mode(0o755)),
        Kind::File => {
            let mode = Mode::from_raw_mode(0o644);
            fs::mknodat(&directory, name, FileType::RegularFile, mode, 0)
        }
    };
    match made {
        Ok(()) => open(directory.as_fd(), name, OFlags::PATH | OFlags::NOFOLLOW),
        // Something was there that did not open: a link that leads nowhere,
        // so what is missing is the link's target.
        Err(Errno::EXIST) => {
            let links = links.checked_sub(1).ok_or(Errno::LOOP)?;
            let target = fs::readlinkat(&directory, name, Vec::new())?;
            let target = target.to_str().map_err(|_| Errno::ILSEQ)?;
            let target = match target.strip_prefix('/') {
                Some(absolute) => cleaned(absolute),
                None => cleaned(&format!("{parent}/{target}")),
            };
            ensure_within(root, &target, kind, links)
        }
        Err(errno) => Err(errno),
    }
}

/// `path` without `.`, `..` and empty parts, and without a leading `/`: as
/// Go's `filepath.Clean` has it, which Docker's users see.
#[must_use]
pub fn cleaned(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cleaned_path_cannot_climb() {
        assert_eq!(cleaned("/a//./b/../c/"), "a/c");
        assert_eq!(cleaned("/../../etc"), "etc");
        assert_eq!(cleaned("/"), "");
    }

    #[test]
    fn a_link_out_of_the_root_is_followed_inside_it() {
        let top = std::env::temp_dir().join(format!("tritium-inside-{}", std::process::id()));
        let root_path = top.join("root");
        std::fs::create_dir_all(&root_path).unwrap();
        std::os::unix::fs::symlink("../../outside", root_path.join("data")).unwrap();
        std::os::unix::fs::symlink("loop", root_path.join("loop")).unwrap();
        let root = fs::open(&root_path, OFlags::PATH, Mode::empty()).unwrap();

        ensure(root.as_fd(), "/data/deep", Kind::Directory).unwrap();
        assert!(root_path.join("outside/deep").is_dir());
        assert!(!top.join("outside").exists());
        ensure(root.as_fd(), "/data/file", Kind::File).unwrap();
        assert!(root_path.join("outside/file").is_file());
        assert_eq!(ensure(root.as_fd(), "/loop", Kind::File).unwrap_err(), Errno::LOOP);

        std::fs::remove_dir_all(&top).unwrap();
    }
}
