//! File systems and bind mounts, put together out of sight and then attached
//! at places below the container's root.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, OFlags};
use rustix::io::{Errno, Result};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
    open_tree,
};
use std::path::Path;
use tritium_supervisor::protocol::{Failure, Mount, MountKind, Propagation};
use tritium_sys::mount::{Change, change};

use crate::cgroups::Hierarchy;
use crate::failure::{errno_of, sentence, with_message};
use crate::inside::{self, Kind};

/// Docker's hint behind "not a directory".
pub(crate) const WRONG_TYPE: &str = ": Are you trying to mount a directory onto a file (or vice-versa)? \
     Check if the specified host path exists and is the expected type";

/// `MS_PRIVATE`, `MS_SLAVE` and `MS_SHARED` of linux/mount.h.
const PRIVATE: u64 = 1 << 18;
const SLAVE: u64 = 1 << 19;
const SHARED: u64 = 1 << 20;

/// A mount on its way: a bind's source is taken before the container's mount
/// namespace is cut off from the host's, since a shared bind stays connected.
#[derive(Debug)]
pub(crate) struct Planned<'a> {
    mount: &'a Mount,
    tree: Option<OwnedFd>,
}

/// Takes the sources of all binds. `donor`: the mount namespace of the
/// container whose shared memory is wanted.
pub(crate) fn plan<'a>(
    mounts: &'a [Mount],
    donor: Option<BorrowedFd<'_>>,
) -> std::result::Result<Vec<Planned<'a>>, Failure> {
    mounts.iter().map(|mount| plan_one(mount, donor)).collect()
}

fn plan_one<'a>(
    mount: &'a Mount,
    donor: Option<BorrowedFd<'_>>,
) -> std::result::Result<Planned<'a>, Failure> {
    let taken = match &mount.kind {
        MountKind::Bind { source, subpath, recursive, propagation } => {
            take(source, subpath, *recursive)
                .and_then(|tree| propagate(tree.as_fd(), *propagation).map(|()| tree))
        }
        MountKind::SharedMemory { .. } => donor.ok_or(Errno::BADF).and_then(shared_memory),
        MountKind::Proc
        | MountKind::Sysfs
        | MountKind::Cgroup
        | MountKind::Mqueue
        | MountKind::Devpts
        | MountKind::Tmpfs { .. }
        | MountKind::Layers { .. } => return Ok(Planned { mount, tree: None }),
    };
    match taken {
        Ok(tree) => Ok(Planned { mount, tree: Some(tree) }),
        Err(errno) => Err(refused(mount, "open", errno)),
    }
}

/// The source of a bind, or what is at `subpath` of it.
fn take(source: &Path, subpath: &str, recursive: bool) -> Result<OwnedFd> {
    if subpath.is_empty() {
        return clone_tree(CWD, source, recursive);
    }
    let open = OFlags::PATH | OFlags::CLOEXEC;
    let source = rustix::fs::open(source, open, rustix::fs::Mode::empty())?;
    clone_tree(inside::beneath(source.as_fd(), subpath)?.as_fd(), "", recursive)
}

/// The donor's /dev/shm. A mount can be copied only by one who is in its
/// namespace; so this goes there, and comes back.
fn shared_memory(donor: BorrowedFd<'_>) -> Result<OwnedFd> {
    let open = OFlags::RDONLY | OFlags::CLOEXEC;
    let home = rustix::fs::open("/proc/self/ns/mnt", open, rustix::fs::Mode::empty())?;
    let enter = |namespace: BorrowedFd<'_>| {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNS)
            .map_err(|errno| Errno::from_raw_os_error(errno as i32))
    };
    enter(donor)?;
    let taken = inside::shared_memory().and_then(|memory| clone_tree(memory.as_fd(), "", false));
    enter(home.as_fd())?;
    taken
}

/// Puts the layers of images together. For that they are mounted at `stage`,
/// for a moment, and in this mount namespace only: it has been cut off from the
/// host's.
pub(crate) fn plan_images(
    planned: &mut [Planned<'_>],
    stage: &Path,
) -> std::result::Result<(), Failure> {
    for Planned { mount, tree } in planned {
        let MountKind::Layers { lower, layers_dir, subpath } = &mount.kind else { continue };
        let image = image(lower, layers_dir, subpath, stage);
        *tree = Some(image.map_err(|errno| refused(mount, "open", errno))?);
    }
    Ok(())
}

fn image(lower: &[String], layers_dir: &Path, subpath: &str, stage: &Path) -> Result<OwnedFd> {
    if let [only] = lower {
        return take(&layers_dir.join(only), subpath, false);
    }
    rustix::process::chdir(layers_dir)?;
    tritium_supervisor::overlay::mount_layers(lower, stage)?;
    let taken = take(stage, subpath, false);
    rustix::mount::unmount(stage, UnmountFlags::DETACH)?;
    taken
}

/// Puts one planned mount at its place below `root`.
pub(crate) fn place(
    root: BorrowedFd<'_>,
    planned: Planned<'_>,
    hierarchies: &[Hierarchy],
) -> std::result::Result<(), Failure> {
    let Planned { mount, tree } = planned;
    let fail = |step: &str| {
        let step = step.to_owned();
        move |errno| refused(mount, &step, errno)
    };
    let kind = match &tree {
        Some(tree) => Kind::of(tree.as_fd()).map_err(fail("stat"))?,
        None => Kind::Directory,
    };
    let existed = inside::open(root, &inside::cleaned(&mount.destination), OFlags::PATH);
    let at =
        inside::ensure(root, &mount.destination, kind).map_err(fail("create the mount point"))?;
    if Kind::of(at.as_fd()).map_err(fail("stat the mount point"))? != kind {
        return Err(refused(mount, "mount", Errno::NOTDIR));
    }
    let tree = match (&mount.kind, tree) {
        (kind, Some(tree)) => {
            let recursive = matches!(kind, MountKind::Bind { recursive: true, .. });
            restrict(tree.as_fd(), mount, recursive && !mount.shallow)
                .map_err(fail("set the flags"))?;
            tree
        }
        (MountKind::Cgroup, _) => {
            return crate::cgroups::show(at.as_fd(), mount, hierarchies).map_err(fail("mount"));
        }
        (MountKind::Tmpfs { data }, _) => {
            let mode = existed
                .ok()
                .and_then(|place| rustix::fs::fstat(place).ok())
                .map(|stat| stat.st_mode & 0o7777);
            tmpfs(data, mode, flags(mount)).map_err(fail(&format!("mount tmpfs with {data}")))?
        }
        (kind, _) => special(kind, flags(mount)).map_err(fail("mount"))?,
    };
    attach(tree.as_fd(), at.as_fd()).map_err(fail("mount"))
}

fn special(kind: &MountKind, flags: MountAttrFlags) -> Result<OwnedFd> {
    match kind {
        MountKind::Proc => new("proc", &[], flags),
        MountKind::Sysfs => new("sysfs", &[], flags),
        MountKind::Mqueue => new("mqueue", &[], flags),
        MountKind::Devpts => {
            let options = [
                ("newinstance", None),
                ("ptmxmode", Some("0666")),
                ("mode", Some("0620")),
                ("gid", Some("5")),
            ];
            new("devpts", &options, flags)
        }
        MountKind::Cgroup
        | MountKind::Tmpfs { .. }
        | MountKind::Bind { .. }
        | MountKind::Layers { .. }
        | MountKind::SharedMemory { .. } => Err(Errno::INVAL),
    }
}

/// A new file system of this type, mounted nowhere yet.
pub(crate) fn new(
    kind: &str,
    options: &[(&str, Option<&str>)],
    flags: MountAttrFlags,
) -> Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    // What /proc/mounts shows in its first column.
    fsconfig_set_string(&context, "source", kind)?;
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(&context, *key, *value)?,
            None => fsconfig_set_flag(&context, *key)?,
        }
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

/// A tmpfs with options in mount(8)'s words. Without a mode among them it gets
/// that of the directory it hides, as runc does it.
fn tmpfs(data: &str, hidden: Option<u32>, mut flags: MountAttrFlags) -> Result<OwnedFd> {
    let mode = hidden.map(|mode| format!("{mode:o}"));
    let mut options = Vec::new();
    if let Some(mode) = &mode {
        options.push(("mode", Some(mode.as_str())));
    }
    for option in data.split(',').filter(|option| !option.is_empty()) {
        let (remove, add) = match option {
            "ro" => (MountAttrFlags::empty(), MountAttrFlags::MOUNT_ATTR_RDONLY),
            "rw" => (MountAttrFlags::MOUNT_ATTR_RDONLY, MountAttrFlags::empty()),
            "nosuid" => (MountAttrFlags::empty(), MountAttrFlags::MOUNT_ATTR_NOSUID),
            "suid" => (MountAttrFlags::MOUNT_ATTR_NOSUID, MountAttrFlags::empty()),
            "nodev" => (MountAttrFlags::empty(), MountAttrFlags::MOUNT_ATTR_NODEV),
            "dev" => (MountAttrFlags::MOUNT_ATTR_NODEV, MountAttrFlags::empty()),
            "noexec" => (MountAttrFlags::empty(), MountAttrFlags::MOUNT_ATTR_NOEXEC),
            "exec" => (MountAttrFlags::MOUNT_ATTR_NOEXEC, MountAttrFlags::empty()),
            "noatime" => (MountAttrFlags::empty(), MountAttrFlags::MOUNT_ATTR_NOATIME),
            "strictatime" => (MountAttrFlags::empty(), MountAttrFlags::MOUNT_ATTR_STRICTATIME),
            "nodiratime" => (MountAttrFlags::empty(), MountAttrFlags::MOUNT_ATTR_NODIRATIME),
            "relatime" | "defaults" | "async" | "private" | "rprivate" | "slave" | "rslave" => {
                continue;
            }
            option => {
                options.push(
                    option
                        .split_once('=')
                        .map_or((option, None), |(key, value)| (key, Some(value))),
                );
                continue;
            }
        };
        flags = flags.difference(remove).union(add);
    }
    new("tmpfs", &options, flags)
}

/// A detached copy of what is mounted at `path` (the whole of it if
/// `recursive`). An empty path means the file behind `at`.
pub(crate) fn clone_tree(
    at: BorrowedFd<'_>,
    path: impl AsRef<Path>,
    recursive: bool,
) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    open_tree(at, path.as_ref(), flags)
}

/// Attaches a detached mount.
pub(crate) fn attach(tree: BorrowedFd<'_>, place: BorrowedFd<'_>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", place, "", flags)
}

/// Makes the mount behind `tree` read-only.
pub(crate) fn read_only(tree: BorrowedFd<'_>, recursive: bool) -> Result<()> {
    let set = u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
    change(tree, Change { set, recursive, ..Change::default() }).map_err(|error| errno_of(&error))
}

pub(crate) fn restrict(tree: BorrowedFd<'_>, mount: &Mount, recursive: bool) -> Result<()> {
    let set = u64::from(flags(mount).bits());
    if set == 0 {
        return Ok(());
    }
    change(tree, Change { set, recursive, ..Change::default() }).map_err(|error| errno_of(&error))
}

fn propagate(tree: BorrowedFd<'_>, propagation: Propagation) -> Result<()> {
    let (propagation, recursive) = match propagation {
        Propagation::Private => (PRIVATE, false),
        Propagation::Rprivate => (PRIVATE, true),
        Propagation::Shared => (SHARED, false),
        Propagation::Rshared => (SHARED, true),
        Propagation::Slave => (SLAVE, false),
        Propagation::Rslave => (SLAVE, true),
    };
    change(tree, Change { propagation, recursive, ..Change::default() })
        .map_err(|error| errno_of(&error))
}

pub(crate) fn flags(mount: &Mount) -> MountAttrFlags {
    let mut flags = MountAttrFlags::empty();
    flags.set(MountAttrFlags::MOUNT_ATTR_RDONLY, mount.readonly);
    flags.set(MountAttrFlags::MOUNT_ATTR_NOSUID, mount.nosuid);
    flags.set(MountAttrFlags::MOUNT_ATTR_NODEV, mount.nodev);
    flags.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, mount.noexec);
    flags
}

fn refused(mount: &Mount, step: &str, errno: Errno) -> Failure {
    let source = match &mount.kind {
        MountKind::Proc => "proc".to_owned(),
        MountKind::Sysfs => "sysfs".to_owned(),
        MountKind::Cgroup => "cgroup".to_owned(),
        MountKind::Mqueue => "mqueue".to_owned(),
        MountKind::Devpts => "devpts".to_owned(),
        MountKind::Tmpfs { .. } => "tmpfs".to_owned(),
        MountKind::Bind { source, subpath, .. } => source.join(subpath).display().to_string(),
        MountKind::Layers { subpath, .. } => format!("image/{subpath}"),
        MountKind::SharedMemory { .. } => "shm".to_owned(),
    };
    let source = source.trim_end_matches('/');
    if let Some(message) = outside(mount, source, errno) {
        return with_message(format!("mount {}", mount.destination), errno, message);
    }
    let to = &mount.destination;
    let hint = if errno == Errno::NOTDIR { WRONG_TYPE } else { "" };
    let reason = sentence(errno);
    let message = format!(
        "error during container init: error mounting \"{source}\" to rootfs at \"{to}\": {step} {source}:{to}: {reason}{hint}"
    );
    with_message(format!("mount {to}"), errno, message)
}

/// Docker's words for a subpath that is not there, or leads out.
fn outside(mount: &Mount, source: &str, errno: Errno) -> Option<String> {
    let (base, subpath) = match &mount.kind {
        MountKind::Bind { source, subpath, .. } => (source.display().to_string(), subpath),
        MountKind::Layers { subpath, .. } => ("image".to_owned(), subpath),
        MountKind::Proc
        | MountKind::Sysfs
        | MountKind::Cgroup
        | MountKind::Mqueue
        | MountKind::Devpts
        | MountKind::Tmpfs { .. }
        | MountKind::SharedMemory { .. } => return None,
    };
    if subpath.is_empty() {
        return None;
    }
    match errno {
        Errno::XDEV => Some(format!(
            "path concatenation escapes the base directory, base: {base}, subpath: {subpath}"
        )),
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => {
            Some(format!("cannot access path {source}: lstat {source}: {}", sentence(errno)))
        }
        _ => None,
    }
}
