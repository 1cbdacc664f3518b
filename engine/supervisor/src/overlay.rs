//! A container's root, mounted from its layers. Shared with the engine, which
//! mounts a stopped container's for `docker cp`.

use crate::protocol::Rootfs;
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

/// Mounts it at its target in this mount namespace and answers with its
/// directory. The lower directories' names are taken from the current
/// directory, which must be `layers_dir`.
///
/// # Errors
///
/// Those of mount(2).
pub fn mount(rootfs: &Rootfs) -> Result<OwnedFd> {
    match detached(rootfs) {
        Ok(tree) => {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(&tree, "", CWD, &rootfs.target, flags)?;
            Ok(tree)
        }
        // Linux before 6.7 has no `lowerdir+`, and fsconfig(2) takes strings
        // of at most 255 bytes: there the options go in one page.
        Err(Errno::INVAL) => {
            by_page(rootfs)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(&rootfs.target, flags, Mode::empty())
        }
        Err(errno) => Err(errno),
    }
}

fn detached(rootfs: &Rootfs) -> Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "overlay")?;
    for lower in &rootfs.lower {
        fsconfig_set_string(&context, "lowerdir+", lower.as_str())?;
    }
    fsconfig_set_string(&context, "upperdir", &rootfs.upper)?;
    fsconfig_set_string(&context, "workdir", &rootfs.work)?;
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

fn by_page(rootfs: &Rootfs) -> Result<()> {
    let mut data = b"lowerdir=".to_vec();
    for (index, lower) in rootfs.lower.iter().enumerate() {
        if index > 0 {
            data.push(b':');
        }
        escape(&mut data, lower.as_bytes());
    }
    for (key, path) in [("upperdir", &rootfs.upper), ("workdir", &rootfs.work)] {
        data.extend_from_slice(format!(",{key}=").as_bytes());
        escape(&mut data, path.as_os_str().as_bytes());
    }
    let data = CString::new(data).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount("overlay", &rootfs.target, "overlay", MountFlags::empty(), data.as_c_str())
}

/// overlayfs splits its options at `,` and layers at `:`; a backslash before
/// either makes it part of the name (Documentation/filesystems/overlayfs.rst).
fn escape(data: &mut Vec<u8>, name: &[u8]) {
    for byte in name {
        if matches!(byte, b':' | b',' | b'\\') {
            data.push(b'\\');
        }
        data.push(*byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_in_names_are_escaped() {
        let mut data = Vec::new();
        escape(&mut data, b"a:b,c\\d");
        assert_eq!(data, b"a\\:b\\,c\\\\d");
    }
}
