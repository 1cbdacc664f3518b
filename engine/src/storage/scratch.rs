//! A file system in memory, for what is small and read once: it is mounted
//! nowhere, and goes with its descriptor, also when the engine is killed.

use super::StoreError;
use rustix::{
    fd::OwnedFd,
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
        fsopen,
    },
};
use std::path::Path;

/// Files, directories and links in it, at most.
const MOST: &str = "65536";

/// Its root directory; it holds so many bytes at most.
///
/// # Errors
/// The kernel refuses.
pub fn in_memory(bytes: u64) -> Result<OwnedFd, StoreError> {
    mount(bytes).map_err(|errno| StoreError::io("mount", Path::new("tmpfs"))(errno.into()))
}

fn mount(bytes: u64) -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let size = bytes.to_string();
    for (key, value) in [("size", size.as_str()), ("nr_inodes", MOST), ("mode", "0755")] {
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_create(&context)?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)
}
