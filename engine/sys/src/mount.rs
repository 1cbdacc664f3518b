//! `mount_setattr(2)`: a mount's flags and propagation, alone or with all
//! mounts below it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}
const _: () = assert!(size_of::<MountAttr>() == 32);

/// What shall change at a mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` bits to clear.
    pub clear: u64,
    /// One of `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE`; 0 leaves it.
    pub propagation: u64,
    /// For every mount below as well.
    pub recursive: bool,
}

/// Changes the mount that `mount` refers to.
///
/// # Errors
///
/// Those of mount_setattr(2); `EINVAL` if `mount` is not the root of a mount.
pub fn change(mount: BorrowedFd<'_>, change: Change) -> io::Result<()> {
    let attr = MountAttr {
        attr_set: change.set,
        attr_clr: change.clear,
        propagation: change.propagation,
        userns_fd: 0,
    };
    let recursive = if change.recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a static empty C string, `attr` outlives the call
    // and its size is the one passed; the kernel only reads both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    crate::checked(result).map(|_| ())
}
