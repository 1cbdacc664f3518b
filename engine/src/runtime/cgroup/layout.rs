//! Where this host's hierarchies are.

use super::Group;
use crate::ids::ContainerId;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Version 1 controllers that a container's limits and numbers come from.
const USED: [&str; 6] = ["cpu", "cpuacct", "cpuset", "memory", "blkio", "pids"];
/// What a version 2 tree is asked to do for containers.
const WANTED: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// The host's hierarchies, and the engine's directory in each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Layout {
    /// Version 1 hierarchies, each once, by its first controller.
    pub(super) v1: Vec<Hierarchy>,
    /// The engine's directory on the version 2 tree.
    pub(super) v2: PathBuf,
    root: PathBuf,
}

/// One version 1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// The engine's directory.
    pub(super) dir: PathBuf,
    pub(super) controllers: Vec<String>,
}

/// The host's control groups cannot be used.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum Unusable {
    #[error("cannot read /proc/self/mountinfo")]
    Mounts(#[source] io::Error),
    #[error("no cgroup2 file system is mounted (usually at /sys/fs/cgroup)")]
    NoVersion2,
    #[error("cannot set up the control group {}", path.display())]
    SetUp { path: PathBuf, source: io::Error },
}

impl Layout {
    /// Looks where they are mounted.
    pub(in super::super) fn find(name: &str) -> Result<Self, Unusable> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(Unusable::Mounts)?;
        Self::parse(&mounts, name).ok_or(Unusable::NoVersion2)
    }

    /// The same, and makes the engine's directories.
    pub(in super::super) fn set_up(name: &str) -> Result<Self, Unusable> {
        let layout = Self::find(name)?;
        for hierarchy in &layout.v1 {
            let failed = |source| Unusable::SetUp { path: hierarchy.dir.clone(), source };
            make(&hierarchy.dir).map_err(failed)?;
            if hierarchy.has("cpuset") {
                inherit_cpuset(&hierarchy.dir).map_err(failed)?;
            }
        }
        let failed = |source| Unusable::SetUp { path: layout.v2.clone(), source };
        make(&layout.v2).map_err(failed)?;
        if layout.is_v2() {
            enable(&layout.v2).map_err(failed)?;
            make(&layout.supervisors()).map_err(failed)?;
        }
        Ok(layout)
    }

    /// Reads mountinfo's text (proc_pid_mountinfo(5)).
    fn parse(mountinfo: &str, name: &str) -> Option<Self> {
        let mut v1: Vec<Hierarchy> = Vec::new();
        let mut v2 = None;
        for line in mountinfo.lines() {
            let Some((place, kind)) = line.split_once(" - ") else { continue };
            let Some(mount_point) = place.split(' ').nth(4) else { continue };
            let mut kind = kind.split(' ');
            let dir = Path::new(mount_point).join(name);
            match (kind.next(), kind.nth(1)) {
                (Some("cgroup2"), _) => drop(v2.get_or_insert((dir, mount_point.into()))),
                (Some("cgroup"), Some(options)) => {
                    let controllers: Vec<String> = options
                        .split(',')
                        .filter(|option| USED.contains(option))
                        .map(str::to_owned)
                        .collect();
                    let known = v1
                        .iter()
                        .any(|other| other.controllers.iter().any(|one| controllers.contains(one)));
                    if !controllers.is_empty() && !known {
                        v1.push(Hierarchy { dir, controllers });
                    }
                }
                _ => {}
            }
        }
        let (v2, root) = v2?;
        Some(Self { v1, v2, root })
    }

    /// Where the version 2 tree is mounted.
    pub(in super::super) fn root(&self) -> &Path {
        &self.root
    }

    /// Whether the controllers are on the version 2 tree.
    pub(in super::super) fn is_v2(&self) -> bool {
        self.v1.is_empty()
    }

    /// A container's own.
    pub(in super::super) fn group(self: &Arc<Self>, id: ContainerId) -> Group {
        Group::new(self.clone(), id.hex())
    }

    /// A parked supervisor's.
    pub(in super::super) fn parking(self: &Arc<Self>, name: String) -> Group {
        Group::new(self.clone(), name)
    }

    /// Where supervisors live on a version 2 tree: beside the engine's own
    /// directory, since below it the guard lets nobody in but containers.
    pub(super) fn supervisors(&self) -> PathBuf {
        let mut name = self.v2.clone().into_os_string();
        name.push("-supervisors");
        name.into()
    }

    /// Removes the engine's own directories, unless somebody's are in them; whether it did.
    pub(in super::super) async fn take_down(&self) -> io::Result<bool> {
        if !self.names()?.is_empty() {
            return Ok(false);
        }
        let v1 = self.v1.iter().map(|hierarchy| hierarchy.dir.clone());
        // Without containers, the supervisors that are in theirs are leaving.
        for dir in v1.chain([self.supervisors(), self.v2.clone()]) {
            super::group::wait_to_remove(&dir).await?;
        }
        Ok(true)
    }

    /// Every directory of the engine in any hierarchy, by name.
    pub(in super::super) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for dir in self.v1.iter().map(|hierarchy| &hierarchy.dir).chain([&self.v2]) {
            let entries = match fs::read_dir(dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                if entry.file_type()?.is_dir() && !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        Ok(names)
    }
}

impl Hierarchy {
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|one| one == controller)
    }
}

/// Makes a directory that may be there already.
pub(super) fn make(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // A name like `a/b` is the operator's wish.
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(dir),
        outcome => outcome,
    }
}

/// An empty cpuset takes no process: fills this one, and has the kernel fill
/// its children (cgroup-v1/cpusets.rst, `cgroup.clone_children`).
fn inherit_cpuset(dir: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = fs::read_to_string(dir.join(file))?;
        if own.trim().is_empty() {
            let above = dir.parent().unwrap_or(Path::new("/")).join(file);
            super::group::write(&dir.join(file), fs::read_to_string(above)?.trim())?;
        }
    }
    super::group::write(&dir.join("cgroup.clone_children"), "1")
}

/// Hands the controllers down to the engine's directory and to containers.
fn enable(dir: &Path) -> io::Result<()> {
    let above = dir.parent().unwrap_or(Path::new("/"));
    for dir in [above, dir] {
        let offered = fs::read_to_string(dir.join("cgroup.controllers"))?;
        let wanted: Vec<String> = offered
            .split_whitespace()
            .filter(|controller| WANTED.contains(controller))
            .map(|controller| format!("+{controller}"))
            .collect();
        super::group::write(&dir.join("cgroup.subtree_control"), &wanted.join(" "))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn hierarchies_mounted_together_or_twice_are_used_once() {
        let layout = Layout::parse(HYBRID, "t").unwrap();
        assert!(!layout.is_v2());
        assert_eq!(layout.v2, Path::new("/sys/fs/cgroup/unified/t"));
        let dirs: Vec<_> = layout.v1.iter().map(|one| one.dir.to_str().unwrap()).collect();
        assert_eq!(dirs, ["/sys/fs/cgroup/cpu,cpuacct/t", "/sys/fs/cgroup/memory/t"]);
    }

    #[test]
    fn a_host_with_version_2_alone_is_seen() {
        let line = "25 20 0:22 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let layout = Layout::parse(line, "t").unwrap();
        assert!(layout.is_v2());
        assert_eq!(layout.v2, Path::new("/sys/fs/cgroup/t"));
        assert_eq!(Layout::parse("", "t"), None);
    }
}
