//! A container's files as it sees them: for `docker cp` and `export`.
//!
//! A running container's are looked at from a copy of its mount namespace,
//! without the kernel's own file systems; a stopped one's are mounted in a
//! namespace made for that. Either is done by a thread that ends at once, since
//! what it does to itself cannot be undone; the namespace lives as long as its
//! descriptor. So nothing is ever mounted where the host could see it, and
//! nothing is left when the engine dies.

use super::{BindMount, Files, Overlay, Runtime, running::Running};
use crate::error::Error;
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{CWD, Mode, OFlags},
    io::{Errno, Result},
    mount::{
        MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change,
        move_mount, open_tree, unmount,
    },
    process::{chdir, fchdir, pivot_root},
    thread::{ThreadNameSpaceType, move_into_thread_name_spaces},
};
use std::{io, path::Path};
use tokio::sync::oneshot;
use tritium_supervisor::{
    inside::{self, Kind},
    overlay,
};
use tritium_sys::mount::{Change, change};

/// `MOUNT_ATTR_RDONLY` of linux/mount.h.
const READ_ONLY: u64 = 1;
/// What the container did not put there itself; Docker shows these empty, too.
const KERNELS: [&str; 3] = ["/proc", "/sys", "/dev"];

/// The root of a container's files; what it holds is let go when dropped.
#[derive(Debug)]
pub struct View {
    root: OwnedFd,
    /// Keeps what is mounted below the root.
    _namespace: Option<OwnedFd>,
}

impl View {
    /// The root directory.
    #[must_use]
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The same, to be kept; the mounts below go with the view all the same.
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn root_again(&self) -> io::Result<OwnedFd> {
        self.root.try_clone()
    }

    /// Opens what a process of the container would find there, with openat2(2)'s
    /// `RESOLVE_IN_ROOT`. Also links, which `path` may end in.
    ///
    /// # Errors
    /// Those of openat2(2).
    pub fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd> {
        inside::open(self.root.as_fd(), path, flags)
    }
}

impl Runtime {
    /// Mounts the files of a container that does not run, with `binds` in it.
    /// It must not be started before the view is dropped: overlayfs would have
    /// two masters.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn view(
        &self,
        rootfs: Overlay,
        binds: Vec<BindMount>,
        files: Option<Files>,
    ) -> std::result::Result<View, Error> {
        let made = on_a_thread(move || stopped(&rootfs, &binds, files.as_ref())).await;
        made.map_err(|error| Error::internal("cannot mount the container's files", error))
    }
}

impl Running {
    /// All that is mounted in the container but the kernel's own file systems.
    ///
    /// # Errors
    /// It has ended, or the kernel refuses.
    pub async fn view(&self) -> std::result::Result<View, Error> {
        self.look(false).await
    }

    /// The container's root without what is mounted in it.
    ///
    /// # Errors
    /// As [`Running::view`].
    pub async fn bare_view(&self) -> std::result::Result<View, Error> {
        self.look(true).await
    }

    async fn look(&self, bare: bool) -> std::result::Result<View, Error> {
        let failed = |error| Error::internal("cannot look at the container's files", error);
        let process = self.pidfd().map_err(failed)?;
        on_a_thread(move || running(process.as_fd(), bare)).await.map_err(failed)
    }
}

/// On a thread of its own, whose root and namespaces are nobody else's.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, outcome) = oneshot::channel();
    let work = move || {
        // Nobody may wait any more; then the view goes at once.
        drop(done.send(work()));
    };
    std::thread::Builder::new().name("view".to_owned()).spawn(work)?;
    let outcome = outcome.await.map_err(|_| io::Error::other("the thread has panicked"))?;
    Ok(outcome?)
}

fn place(path: &str) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn unshare(flags: nix::sched::CloneFlags) -> Result<()> {
    nix::sched::unshare(flags).map_err(|errno| Errno::from_raw_os_error(errno as i32))
}

/// The mount namespace that this thread is in. `proc`: the host's /proc, which
/// may not be at its place any more.
fn namespace(proc: &OwnedFd) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(proc, "thread-self/ns/mnt", flags, Mode::empty())
}

fn private() -> Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
}

fn running(process: BorrowedFd<'_>, bare: bool) -> Result<View> {
    let proc = place("/proc")?;
    unshare(nix::sched::CloneFlags::CLONE_FS)?;
    move_into_thread_name_spaces(process, ThreadNameSpaceType::MOUNT)?;
    if bare {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        return Ok(View { root: open_tree(CWD, "/", flags)?, _namespace: None });
    }
    unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    private()?;
    for path in KERNELS {
        match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // The container has unmounted it itself.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(View { root: place("/")?, _namespace: Some(namespace(&proc)?) })
}

fn stopped(rootfs: &Overlay, binds: &[BindMount], files: Option<&Files>) -> Result<View> {
    let proc = place("/proc")?;
    unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    private()?;
    chdir(&rootfs.layers_dir)?;
    let root = overlay::mount(rootfs)?;
    for mount in binds {
        let BindMount { source, destination, recursive, readonly, .. } = mount;
        bind(root.as_fd(), source, destination, (*recursive, *readonly))?;
    }
    for (source, destination) in files.into_iter().flat_map(|files| {
        [
            (&files.hosts, "/etc/hosts"),
            (&files.hostname, "/etc/hostname"),
            (&files.resolv_conf, "/etc/resolv.conf"),
        ]
    }) {
        bind(root.as_fd(), source, destination, (false, false))?;
    }
    if rootfs.readonly {
        read_only(root.as_fd(), false)?;
    }
    fchdir(&root)?;
    pivot_root(".", ".")?;
    // The host's root lies on top of the new one now: pivot_root(2), "NOTES".
    unmount(".", UnmountFlags::DETACH)?;
    Ok(View { root, _namespace: Some(namespace(&proc)?) })
}

fn bind(
    root: BorrowedFd<'_>,
    source: &Path,
    destination: &str,
    (recursive, readonly): (bool, bool),
) -> Result<()> {
    let below = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | below;
    let tree = match open_tree(CWD, source, flags) {
        // Docker makes it at the next start; until then there is nothing to see.
        Err(Errno::NOENT) => return Ok(()),
        tree => tree?,
    };
    if readonly {
        read_only(tree.as_fd(), recursive)?;
    }
    let at = inside::ensure(root, destination, Kind::of(tree.as_fd())?)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&tree, "", &at, "", flags)
}

fn read_only(mount: BorrowedFd<'_>, recursive: bool) -> Result<()> {
    let wanted = Change { set: READ_ONLY, recursive, ..Change::default() };
    change(mount, wanted).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))
}
