//! The container's root: mounted, its hidden paths, and the change of root.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{chdir, fchdir, pivot_root};
use std::path::Path;
use tritium_supervisor::overlay;
use tritium_supervisor::protocol::{Failure, Launch, MountKind, Propagation, Rootfs};

use crate::channel::Speaker;
use crate::failure::{Step, during_init};
use crate::inside::{self, Kind};
use crate::{devices, mounts};

/// Cuts this mount namespace off from the host's: nothing goes out any more,
/// and in only where a bind asks for it.
pub(crate) fn detach_from_host(launch: &Launch) -> std::result::Result<(), Failure> {
    let listens = launch.mounts.iter().any(|mount| {
        matches!(
            mount.kind,
            MountKind::Bind { propagation: Propagation::Slave | Propagation::Rslave, .. }
        )
    });
    let flags =
        if listens { MountPropagationFlags::DOWNSTREAM } else { MountPropagationFlags::PRIVATE };
    rustix::mount::mount_change("/", flags | MountPropagationFlags::REC).step("make / private")
}

/// Mounts the root at its target and answers with its directory.
pub(crate) fn mount(rootfs: &Rootfs) -> std::result::Result<OwnedFd, Failure> {
    let step = "mount the root file system";
    chdir(&rootfs.layers_dir).step(&format!("chdir {}", rootfs.layers_dir.display()))?;
    overlay::mount(rootfs).step(step)
}

/// Makes `paths` unreadable; those that are not there need no hiding.
pub(crate) fn mask(root: BorrowedFd<'_>, paths: &[String]) -> std::result::Result<(), Failure> {
    let mut empty = None;
    for path in paths {
        mask_one(root, path, &mut empty).step(&format!("mask {path}"))?;
    }
    Ok(())
}

fn mask_one(root: BorrowedFd<'_>, path: &str, empty: &mut Option<OwnedFd>) -> Result<()> {
    let place = match inside::open(root, &inside::cleaned(path), OFlags::PATH) {
        Ok(place) => place,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    if Kind::of(place.as_fd())? == Kind::Directory {
        // One empty tmpfs serves all: each place shows a copy of it.
        let tree = match empty {
            Some(shown) => mounts::clone_tree(shown.as_fd(), "", false)?,
            None => mounts::new(
                "tmpfs",
                &[("nr_inodes", Some("1"))],
                MountAttrFlags::MOUNT_ATTR_RDONLY,
            )?,
        };
        mounts::attach(tree.as_fd(), place.as_fd())?;
        empty.get_or_insert(tree);
        return Ok(());
    }
    // The container's own node: through the host's it could change the mode
    // of the host's /dev/null.
    let null = inside::open(root, "dev/null", OFlags::PATH)?;
    if rustix::fs::fstat(&null)?.st_rdev != devices::NULL {
        return Err(Errno::NODEV);
    }
    let tree = mounts::clone_tree(null.as_fd(), "", false)?;
    mounts::attach(tree.as_fd(), place.as_fd())
}

/// Makes `paths` read-only, with all that is mounted below them.
pub(crate) fn protect(root: BorrowedFd<'_>, paths: &[String]) -> std::result::Result<(), Failure> {
    for path in paths {
        protect_one(root, path).step(&format!("make {path} read-only"))?;
    }
    Ok(())
}

fn protect_one(root: BorrowedFd<'_>, path: &str) -> Result<()> {
    let place = match inside::open(root, &inside::cleaned(path), OFlags::PATH) {
        Ok(place) => place,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let tree = mounts::clone_tree(place.as_fd(), "", true)?;
    mounts::read_only(tree.as_fd(), true)?;
    mounts::attach(tree.as_fd(), place.as_fd())
}

/// Makes `root` this process's root and lets go of the host's.
pub(crate) fn enter(root: BorrowedFd<'_>) -> std::result::Result<(), Failure> {
    fchdir(root).step("chdir to the root")?;
    pivot_root(".", ".").step("pivot_root")?;
    // The old root lies on top of the new one now: pivot_root(2), "NOTES".
    rustix::mount::unmount(".", UnmountFlags::DETACH).step("unmount the host's root")?;
    chdir("/").step("chdir to the root")
}

/// Makes the working directory if it is missing, as Docker does.
pub(crate) fn make_cwd(root: BorrowedFd<'_>, cwd: &str) -> std::result::Result<(), Failure> {
    let not_a_directory = || {
        let message = format!("Cannot mkdir: {cwd} is not a directory");
        crate::failure::with_message(format!("mkdir {cwd}"), Errno::NOTDIR, message)
    };
    match inside::ensure(root, cwd, Kind::Directory) {
        Ok(place) => match Kind::of(place.as_fd()).step("stat the working directory")? {
            Kind::Directory => Ok(()),
            Kind::File => Err(not_a_directory()),
        },
        Err(Errno::NOTDIR) => Err(not_a_directory()),
        Err(errno) => Err(during_init(format!("mkdir {cwd}"), errno)),
    }
}

/// Writes `value` to the kernel setting `key`: `net.ipv4.ip_forward`. Opened
/// here, where the namespaces are the container's; written by the supervisor.
pub(crate) fn sysctl(
    key: &str,
    value: &str,
    speaker: &Speaker,
) -> std::result::Result<(), Failure> {
    let path = Path::new("/proc/sys").join(key.replace('.', "/"));
    let open = OFlags::WRONLY | OFlags::CLOEXEC;
    let file =
        rustix::fs::open(&path, open, Mode::empty()).step(&format!("open {}", path.display()))?;
    speaker.sysctl(file.as_fd(), value).step(&format!("write {}", path.display()))
}
