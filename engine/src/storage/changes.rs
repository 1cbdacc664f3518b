//! What a container has changed of its image: `docker diff`.
//!
//! Read from the upper directory; the lower ones are asked, from the top, what
//! they show at the same path.

use super::{Rootfs, StoreError, archive::MOUNT_POINTS};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};
use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// What has become of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    Modified,
    Added,
    Deleted,
}

/// One path that is not as in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// From the container's root, with a leading `/`.
    pub path: PathBuf,
    pub kind: ChangeKind,
}

/// Compares a container's upper directory with its layers. Blocks.
///
/// # Errors
/// A directory cannot be read.
pub fn changes(rootfs: &Rootfs) -> Result<Vec<FileChange>, StoreError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |errno: Errno| StoreError::io("read", &path)(errno.into())
    };
    let upper = rustix::fs::openat(CWD, &rootfs.upper, DIRECTORY, Mode::empty());
    let upper = upper.map_err(failed(&rootfs.upper))?;
    let mut lower = Vec::new();
    for name in &rootfs.lower {
        let path = rootfs.layers_dir.join(name);
        let open = rustix::fs::openat(CWD, &path, DIRECTORY, Mode::empty());
        lower.push(open.map_err(failed(&path))?);
    }
    let mut walk = Walk { upper, lower, found: Vec::new() };
    walk.directory(Path::new(""), false).map_err(failed(&rootfs.upper))?;
    Ok(walk.found)
}

struct Walk {
    upper: OwnedFd,
    lower: Vec<OwnedFd>,
    found: Vec<FileChange>,
}

impl Walk {
    fn note(&mut self, path: &Path, kind: ChangeKind) {
        self.found.push(FileChange { path: Path::new("/").join(path), kind });
    }

    /// `fresh`: nothing of the layers shows here.
    fn directory(&mut self, path: &Path, fresh: bool) -> Result<(), Errno> {
        let open = match beneath(self.upper.as_fd(), path, DIRECTORY) {
            Ok(open) => open,
            // It is a running container's; it has gone meanwhile.
            Err(errno) if vanished(errno) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        let names = names(open.as_fd())?;
        if !fresh && is_opaque(open.as_fd()) {
            self.hidden(path, &names)?;
        }
        for name in &names {
            let stat = match rustix::fs::statat(&open, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(errno) if vanished(errno) => continue,
                Err(errno) => return Err(errno),
            };
            self.entry(&path.join(name), &stat, fresh)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, stat: &Stat, fresh: bool) -> Result<(), Errno> {
        if is_whiteout(stat) {
            self.note(path, ChangeKind::Deleted);
            return Ok(());
        }
        let below = if fresh { None } else { self.below(path)? };
        let is_directory = kind_of(stat) == FileType::Directory;
        let ours = MOUNT_POINTS.iter().any(|point| Path::new(point) == path)
            && (is_directory || stat.st_size == 0);
        let before = self.found.len();
        let kind = if below.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
        self.note(path, kind);
        if is_directory {
            self.directory(path, below.is_none_or(|it| kind_of(&it) != FileType::Directory))?;
        }
        let inside = self.found.len() > before + 1;
        // A directory is here as soon as anything below it is.
        let same = below.is_some_and(|it| is_directory && same_directory(&it, stat));
        if (ours || same) && !inside {
            self.found.truncate(before);
        }
        Ok(())
    }

    /// What the layers have in a directory that hides all of it.
    fn hidden(&mut self, path: &Path, anew: &[OsString]) -> Result<(), Errno> {
        let mut gone = Vec::new();
        for layer in 0..self.lower.len() {
            let Some(layer) = self.lower.get(layer) else { break };
            let Ok(open) = beneath(layer.as_fd(), path, DIRECTORY) else { continue };
            gone.extend(names(open.as_fd())?.into_iter().filter(|name| !anew.contains(name)));
        }
        gone.sort_unstable();
        gone.dedup();
        for name in gone {
            let path = path.join(name);
            if self.below(&path)?.is_some() {
                self.note(&path, ChangeKind::Deleted);
            }
        }
        Ok(())
    }

    /// What the layers show at a path.
    fn below(&self, path: &Path) -> Result<Option<Stat>, Errno> {
        for layer in &self.lower {
            match beneath(layer.as_fd(), path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC) {
                Ok(open) => {
                    let stat = rustix::fs::fstat(&open)?;
                    return Ok((!is_whiteout(&stat)).then_some(stat));
                }
                Err(errno) if vanished(errno) => {
                    if hides(layer.as_fd(), path)? {
                        return Ok(None);
                    }
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(None)
    }
}

/// Whether a layer that has not got `path` keeps lower ones from showing it.
fn hides(layer: BorrowedFd<'_>, path: &Path) -> Result<bool, Errno> {
    for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        match beneath(layer, above, DIRECTORY) {
            Ok(open) => return Ok(is_opaque(open.as_fd())),
            Err(Errno::NOENT) => {}
            // A file, a link or a whiteout stands there.
            Err(errno) if vanished(errno) => return Ok(true),
            Err(errno) => return Err(errno),
        }
    }
    Ok(false)
}

fn beneath(top: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(top, path, flags, Mode::empty(), resolve)
}

fn vanished(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE)
}

fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn is_whiteout(stat: &Stat) -> bool {
    kind_of(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn is_opaque(directory: BorrowedFd<'_>) -> bool {
    let mut value = [0; 1];
    rustix::fs::fgetxattr(directory, "trusted.overlay.opaque", &mut value) == Ok(1)
        && value == *b"y"
}

/// overlayfs copies a directory as soon as something in it changes.
fn same_directory(one: &Stat, other: &Stat) -> bool {
    (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid)
}

fn names(directory: BorrowedFd<'_>) -> Result<Vec<OsString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = OsString::from_vec(entry?.file_name().to_bytes().to_owned());
        if name != OsStr::new(".") && name.as_bytes() != b".." {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    //! Needs root: whiteouts are devices, opaqueness is a `trusted.` attribute.
    use super::*;
    use std::fs;

    fn said(rootfs: &Rootfs) -> Vec<String> {
        let letter = |kind| match kind {
            ChangeKind::Modified => 'C',
            ChangeKind::Added => 'A',
            ChangeKind::Deleted => 'D',
        };
        let all = changes(rootfs).unwrap();
        all.iter().map(|it| format!("{} {}", letter(it.kind), it.path.display())).collect()
    }

    fn rootfs(top: &Path) -> Rootfs {
        for path in ["layers/1/etc", "layers/2/opt/old", "upper/etc", "upper/proc", "upper/opt"] {
            fs::create_dir_all(top.join(path)).unwrap();
        }
        for path in ["layers/1/etc/passwd", "layers/2/opt/old/file", "layers/2/gone"] {
            fs::File::create(top.join(path)).unwrap();
        }
        Rootfs {
            lower: vec!["2".into(), "1".into()],
            layers_dir: top.join("layers"),
            upper: top.join("upper"),
            work: top.join("work"),
            target: top.join("merged"),
            dir: top.to_owned(),
        }
    }

    fn whiteout(path: &Path) {
        rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    }

    #[test]
    fn what_is_new_changed_and_gone_is_told_apart() {
        let top = tempfile::tempdir().unwrap();
        let rootfs = rootfs(top.path());
        let upper = &rootfs.upper;
        assert_eq!(said(&rootfs), [""; 0], "mount points and copied directories are no change");
        fs::File::create(upper.join("etc/passwd")).unwrap();
        fs::create_dir_all(upper.join("new/deep")).unwrap();
        whiteout(&upper.join("gone"));
        rustix::fs::lsetxattr(
            upper.join("opt"),
            "trusted.overlay.opaque",
            b"y",
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
        let expected =
            ["C /etc", "C /etc/passwd", "D /gone", "A /new", "A /new/deep", "C /opt", "D /opt/old"];
        assert_eq!(said(&rootfs), expected);
    }

    #[test]
    fn what_an_upper_layer_hides_was_not_in_the_image() {
        let top = tempfile::tempdir().unwrap();
        let mut rootfs = rootfs(top.path());
        fs::create_dir(top.path().join("layers/3")).unwrap();
        whiteout(&top.path().join("layers/3/etc"));
        rootfs.lower.insert(0, "3".into());
        fs::File::create(rootfs.upper.join("etc/passwd")).unwrap();
        assert_eq!(said(&rootfs), ["A /etc", "A /etc/passwd"]);
    }
}
