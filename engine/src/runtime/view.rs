//! A container's files as it sees them: for `docker cp` and `export`.
//!
//! A running container's are looked at from a copy of its mount namespace,
//! without the kernel's own file systems; a stopped one's are mounted in a
//! namespace made for that. Either is done by a thread that ends at once, since
//! what it does to itself cannot be undone; the namespace lives as long as its
//! descriptor. So nothing is ever mounted where the host could see it, and
//! nothing is left when the engine dies.

use super::{Files, Overlay, Runtime, Shown, UserMount, running::Running};
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
    /// Mounts the files of a container that does not run, with `mounts` in it.
    /// It must not be started before the view is dropped: overlayfs would have
    /// two masters.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn view(
        &self,
        rootfs: Overlay,
        mounts: Vec<UserMount>,
        files: Option<Files>,
    ) -> std::result::Result<View, Error> {
        let made = on_a_thread(move || stopped(&rootfs, &mounts, files.as_ref())).await;
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

fn stopped(rootfs: &Overlay, mounts: &[UserMount], files: Option<&Files>) -> Result<View> {
    let proc = place("/proc")?;
    unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    private()?;
    chdir(&rootfs.layers_dir)?;
    // Before the root is mounted: images use its place for a moment.
    let mut trees = Vec::new();
    for UserMount { destination, readonly, what } in mounts {
        let shallow = matches!(what, Shown::Bind { shallow: true, .. });
        if let Some(tree) = tree(what, &rootfs.target)? {
            if *readonly {
                read_only(tree.as_fd(), !shallow)?;
            }
            trees.push((tree, destination));
        }
    }
    let root = overlay::mount(rootfs)?;
    for (tree, destination) in trees {
        attach(root.as_fd(), &tree, destination)?;
    }
    for (source, destination) in files.into_iter().flat_map(|files| {
        [
            (&files.hosts, "/etc/hosts"),
            (&files.hostname, "/etc/hostname"),
            (&files.resolv_conf, "/etc/resolv.conf"),
        ]
    }) {
        if let Some(tree) = clone(source, "", false)? {
            attach(root.as_fd(), &tree, destination)?;
        }
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

/// What is to be seen at a mount point; none if it is not there (any more):
/// that is told, or made, when the container is started.
fn tree(what: &Shown, stage: &Path) -> Result<Option<OwnedFd>> {
    match what {
        Shown::Bind { source, subpath, recursive, .. } => clone(source, subpath, *recursive),
        Shown::Image { lower, layers_dir, subpath } => {
            if let [only] = lower.as_slice() {
                return clone(&layers_dir.join(only), subpath, false);
            }
            overlay::mount_layers(lower, stage)?;
            let tree = clone(stage, subpath, false);
            unmount(stage, UnmountFlags::DETACH)?;
            tree
        }
    }
}

fn clone(source: &Path, subpath: &str, recursive: bool) -> Result<Option<OwnedFd>> {
    let open = OFlags::PATH | OFlags::CLOEXEC;
    let found = rustix::fs::open(source, open, Mode::empty()).and_then(|source| {
        if subpath.is_empty() { Ok(source) } else { inside::beneath(source.as_fd(), subpath) }
    });
    let found = match found {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::LOOP) => return Ok(None),
        found => found?,
    };
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    open_tree(found, "", flags).map(Some)
}

fn attach(root: BorrowedFd<'_>, tree: &OwnedFd, destination: &str) -> Result<()> {
    let at = inside::ensure(root, destination, Kind::of(tree.as_fd())?)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", &at, "", flags)
}

fn read_only(mount: BorrowedFd<'_>, recursive: bool) -> Result<()> {
    let wanted = Change { set: READ_ONLY, recursive, ..Change::default() };
    change(mount, wanted).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))
}
