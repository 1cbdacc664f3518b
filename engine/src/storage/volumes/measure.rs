//! How much a directory holds, as Docker counts it: the lengths of its files,
//! each inode once.

use super::copy;
use rustix::{
    fd::AsFd,
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags},
    io::Errno,
};
use std::{
    collections::HashSet,
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Bytes of everything below `root`. Files that come and go meanwhile count or
/// do not; what lies deeper than the longest path does not. Blocks.
///
/// # Errors
/// The directory cannot be read.
pub fn size_of(root: &Path) -> io::Result<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
    let mut size = 0;
    let mut linked = HashSet::new();
    let mut left = vec![PathBuf::new()];
    while let Some(path) = left.pop() {
        let directory = match copy::enter(root.as_fd(), &path) {
            Ok(directory) => directory,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG)
                if !path.as_os_str().is_empty() =>
            {
                continue;
            }
            Err(errno) => return Err(errno.into()),
        };
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let found = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) => found,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno.into()),
            };
            if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                left.push(path.join(name));
            } else if found.st_nlink == 1 || linked.insert((found.st_dev, found.st_ino)) {
                size += u64::try_from(found.st_size).unwrap_or(0);
            }
        }
    }
    Ok(size)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a crash")]
mod tests {
    use super::*;

    #[test]
    fn files_count_once_and_directories_and_what_links_lead_to_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/b/file"), [0; 1000]).unwrap();
        std::fs::hard_link(root.join("a/b/file"), root.join("again")).unwrap();
        std::os::unix::fs::symlink("/usr", root.join("link")).unwrap();
        assert_eq!(size_of(root).unwrap(), 1004);
        assert!(size_of(&root.join("link/../nothing")).is_err());
    }
}
