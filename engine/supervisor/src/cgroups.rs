//! What a container sees of its control groups.
//!
//! On the v2 tree one file system. On a v1 or hybrid host what Docker shows: a
//! tmpfs with the container's own group of each hierarchy, read-only. A
//! hierarchy in which the container has no group of its own is left out: it
//! would show the host's.

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{CWD, statfs, symlinkat};
use rustix::io::{Errno, Result};
use rustix::mount::MountAttrFlags;
use std::fs::read_to_string;
use std::path::PathBuf;
use tritium_supervisor::protocol::Mount;

use crate::inside::{self, Kind};
use crate::mounts;

/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2: i64 = 0x6367_7270;

/// One v1 hierarchy that the container has a group in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Its directory's name below /sys/fs/cgroup: `memory`, `cpu,cpuacct`.
    name: String,
    /// The container's group in it.
    group: PathBuf,
}

/// The v1 hierarchies of this process; empty where the v2 tree is all there
/// is. To be asked before a cgroup namespace hides the paths.
pub(crate) fn hierarchies() -> Result<Vec<Hierarchy>> {
    if is_unified()? {
        return Ok(Vec::new());
    }
    let read = |path| read_to_string(path).map_err(|error| crate::failure::errno_of(&error));
    Ok(join(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?))
}

fn is_unified() -> Result<bool> {
    Ok(statfs("/sys/fs/cgroup")?.f_type == CGROUP2)
}

/// Joins cgroups(7)'s `/proc/PID/cgroup` with proc(5)'s `mountinfo`.
fn join(groups: &str, mounts: &str) -> Vec<Hierarchy> {
    let group_of = |options: &str| {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let all =
                controllers.split(',').all(|one| options.split(',').any(|option| option == one));
            (!controllers.is_empty() && all && path != "/").then(|| path.trim_start_matches('/'))
        })
    };
    mounts
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut left = left.split(' ').skip(3);
            let (root, point) = (left.next()?, left.next()?);
            let mut right = right.split(' ');
            let (kind, options) = (right.next()?, right.nth(1)?);
            let group = group_of(options).filter(|_| kind == "cgroup" && root == "/")?;
            let name = point.rsplit('/').next()?.to_owned();
            Some(Hierarchy { name, group: PathBuf::from(point).join(group) })
        })
        .collect()
}

/// Mounts the view at `place`.
pub(crate) fn show(place: BorrowedFd<'_>, mount: &Mount, hierarchies: &[Hierarchy]) -> Result<()> {
    if is_unified()? {
        let tree = mounts::new("cgroup2", &[], mounts::flags(mount))?;
        return mounts::attach(tree.as_fd(), place);
    }
    let flags = mounts::flags(mount).difference(MountAttrFlags::MOUNT_ATTR_RDONLY);
    let view = mounts::new("tmpfs", &[("mode", Some("755"))], flags)?;
    mounts::attach(view.as_fd(), place)?;
    for hierarchy in hierarchies {
        let tree = mounts::clone_tree(CWD, &hierarchy.group, false)?;
        mounts::restrict(tree.as_fd(), mount, false)?;
        let at = inside::ensure(view.as_fd(), &hierarchy.name, Kind::Directory)?;
        mounts::attach(tree.as_fd(), at.as_fd())?;
        for alias in hierarchy.name.split(',').filter(|alias| *alias != hierarchy.name) {
            match symlinkat(&hierarchy.name, &view, alias) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hierarchies_with_a_group_of_its_own_are_shown() {
        let groups = "4:memory:/tritium/a\n3:cpu,cpuacct:/tritium/a\n2:freezer:/\n0::/x\n";
        let mounts = "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                      32 25 0:28 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n\
                      33 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let shown = join(groups, mounts);
        let names: Vec<&str> = shown.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["memory", "cpu,cpuacct"]);
        assert_eq!(shown[0].group, PathBuf::from("/sys/fs/cgroup/memory/tritium/a"));
    }
}
