//! What the host and the engine are: for `info`, `version` and `inspect`.

use super::{About, Scope};
use crate::{
    container::{ExecHandle, Record},
    error::Error,
    events::Event,
    ids::ContainerId,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::broadcast;

/// The host as it is now.
#[derive(Debug, Clone, Default)]
pub struct Host {
    pub name: String,
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub machine: String,
    /// PRETTY_NAME and VERSION_ID of os-release(5).
    pub system: String,
    pub system_version: String,
    /// Bytes.
    pub memory: u64,
    pub cpus: usize,
    /// 1: controllers are (also) on v1 hierarchies.
    pub cgroup_version: u8,
    /// Control-group controllers that can be used.
    pub controllers: Vec<String>,
    pub swap_accounting: bool,
    /// TCP's buffers can be limited (`memory.kmem.tcp`, version 1 only).
    pub tcp_accounting: bool,
    pub ipv4_forwarding: bool,
    /// Docker's name of the file system below the state directory.
    pub backing_filesystem: String,
    /// This process's open files.
    pub open_files: usize,
}

/// How many containers there are of each kind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub all: usize,
    pub running: usize,
    pub paused: usize,
    pub images: usize,
}

/// Where the files of a container are, for `inspect`.
#[derive(Debug, Clone)]
pub struct Places {
    pub directory: PathBuf,
    pub log: PathBuf,
    /// Uppermost first. None if the layers cannot be found (any more).
    pub layers: Option<LayerPlaces>,
}

/// The parts of a container's overlay file system.
#[derive(Debug, Clone)]
pub struct LayerPlaces {
    pub lower: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
    pub merged: PathBuf,
}

impl Scope {
    /// Of the engine itself.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.engine.about
    }

    /// This tenant's containers and images.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let containers = self.containers();
        let of = |name| containers.iter().filter(|it| it.state.name() == name).count();
        Counts {
            all: containers.len(),
            running: of("running") + of("restarting"),
            paused: of("paused"),
            images: self.images().len(),
        }
    }

    /// What the kernel really enforces on this host, as `SecurityOptions` has it.
    #[must_use]
    pub fn in_force(&self) -> Vec<String> {
        self.engine.tools.probes.security_option().into_iter().collect()
    }

    /// For the metrics: a request has been answered.
    pub fn count_request(&self, method: &str, status: u16) {
        self.engine.requests.count(method, status);
    }

    /// What happened to this tenant's things lately, and what happens from now on.
    #[must_use]
    pub fn events(&self) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let (mut past, coming) = self.engine.tools.events.subscribe();
        past.retain(|event| self.sees(event));
        (past, coming)
    }

    /// Whether an event is this tenant's.
    #[must_use]
    pub fn sees(&self, event: &Event) -> bool {
        event.tenant == self.tenant
    }

    /// The execs of a container that can still be asked for.
    #[must_use]
    pub fn execs(&self, id: ContainerId) -> Vec<ExecHandle> {
        self.engine.tools.registry.execs_of(id)
    }

    /// Where the files of one of this tenant's containers are.
    #[must_use]
    pub fn places(&self, record: &Record) -> Places {
        let tools = &self.engine.tools;
        let layers = tools.store.rootfs(record.id, &record.layers).ok();
        Places {
            directory: tools.store.container_dir(record.id),
            log: tools.log_path(record.id),
            layers: layers.map(|rootfs| LayerPlaces {
                lower: rootfs.lower.iter().map(|name| rootfs.layers_dir.join(name)).collect(),
                upper: rootfs.upper,
                work: rootfs.work,
                merged: rootfs.target,
            }),
        }
    }

    /// Looks at the host.
    ///
    /// # Errors
    /// The kernel does not say.
    pub async fn host(&self) -> Result<Host, Error> {
        let state_dir = self.engine.about.state_dir.clone();
        let looked = tokio::task::spawn_blocking(move || look(&state_dir)).await;
        looked.map_err(|error| Error::internal("cannot look at the host", error))
    }
}

fn look(state_dir: &Path) -> Host {
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let release = os_release(&read("/etc/os-release"));
    let (cgroup_version, controllers) = controllers();
    Host {
        name: text(uname.nodename()),
        kernel: text(uname.release()),
        machine: text(uname.machine()),
        system: release.get("PRETTY_NAME").cloned().unwrap_or_else(|| "Linux".into()),
        system_version: release.get("VERSION_ID").cloned().unwrap_or_default(),
        memory: memory(&read("/proc/meminfo")),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        cgroup_version,
        swap_accounting: swap_accounting(cgroup_version),
        tcp_accounting: Path::new("/sys/fs/cgroup/memory/memory.kmem.tcp.limit_in_bytes").exists(),
        controllers,
        ipv4_forwarding: read("/proc/sys/net/ipv4/ip_forward").trim() == "1",
        backing_filesystem: backing(state_dir),
        open_files: std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
    }
}

/// What cannot be read says nothing: the answer leaves it out.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// os-release(5): `KEY="value"`.
fn os_release(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.trim_matches(['"', '\'']).to_owned())).collect()
}

/// `MemTotal` of proc_meminfo(5), in bytes.
fn memory(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok());
    kilobytes.map_or(0, |kilobytes: u64| kilobytes * 1024)
}

/// cgroups(7): which version holds the controllers, and which there are.
fn controllers() -> (u8, Vec<String>) {
    let unified = read("/sys/fs/cgroup/cgroup.controllers");
    if !unified.trim().is_empty() {
        return (2, unified.split_whitespace().map(str::to_owned).collect());
    }
    (1, v1_controllers(&read("/proc/cgroups")))
}

/// `/proc/cgroups`: name, hierarchy, groups, enabled.
fn v1_controllers(text: &str) -> Vec<String> {
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    rows.filter_map(|line| {
        let mut columns = line.split_whitespace();
        let name = columns.next()?;
        // Hierarchy 0: mounted nowhere (or on the v2 tree).
        (columns.next()? != "0").then(|| name.to_owned())
    })
    .collect()
}

fn swap_accounting(cgroup_version: u8) -> bool {
    if cgroup_version == 1 {
        return Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists();
    }
    // The root group has no such file; any other has it if the kernel counts swap.
    let groups = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    groups.into_iter().any(|group| group.path().join("memory.swap.max").exists())
}

/// statfs(2)'s magic numbers, in Docker's words.
fn backing(path: &Path) -> String {
    let Ok(found) = rustix::fs::statfs(path) else { return "<unknown>".into() };
    match found.f_type {
        0xEF53 => "extfs",
        0x5846_5342 => "xfs",
        0x9123_683E => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794C_7630 => "overlayfs",
        0x2FC1_2FC1 => "zfs",
        _ => "<unknown>",
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_loses_its_quotes() {
        let release = os_release("PRETTY_NAME=\"Debian GNU/Linux 12\"\nVERSION_ID='12'\nX\n");
        assert_eq!(release["PRETTY_NAME"], "Debian GNU/Linux 12");
        assert_eq!(release["VERSION_ID"], "12");
    }

    #[test]
    fn memory_is_said_in_bytes() {
        assert_eq!(memory("MemFree: 1 kB\nMemTotal:    2048 kB\n"), 2048 * 1024);
        assert_eq!(memory(""), 0);
    }

    #[test]
    fn controllers_that_are_mounted_nowhere_do_not_count() {
        let text = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t3\t1\t1\nrdma\t0\t1\t1\n";
        assert_eq!(v1_controllers(text), ["cpu"]);
    }
}
