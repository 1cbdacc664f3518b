//! What is mounted in a container beside its root.

use super::{Files, Shown, UserMount};
use crate::{error::Error, spec::HostConfig};
use std::path::PathBuf;
use tritium_supervisor::protocol::{Mount, MountKind, Propagation};

/// Docker's: unreadable, for they tell about the host or harm it.
pub const MASKED_PATHS: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Docker's: readable only.
pub const READONLY_PATHS: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Docker's default for /dev/shm.
const SHM_SIZE: i64 = 64 << 20;

/// All of it, in the order of mounting: outer before inner.
pub(super) fn mounts(
    host: &HostConfig,
    ipc: Option<i32>,
    files: &Files,
    user: &[UserMount],
) -> Result<Vec<Mount>, Error> {
    let mut asked = user.iter().map(users).collect::<Result<Vec<_>, _>>()?;
    for (destination, options) in host.tmpfs.iter().flatten() {
        asked.push(tmpfs(destination, options)?);
    }
    for request in host.mounts.iter().flatten().filter(|request| request.kind == "tmpfs") {
        let options = request.tmpfs_options.clone().unwrap_or_default();
        let size = options.size_bytes.filter(|size| *size > 0).map(|size| format!("size={size}"));
        let mode = options.mode.filter(|mode| *mode > 0).map(|mode| format!("mode={mode:o}"));
        let flags = options.options.into_iter().flatten().flatten();
        let words: Vec<String> = size.into_iter().chain(mode).chain(flags).collect();
        let mut mount = tmpfs(&request.target, &words.join(","))?;
        mount.readonly = request.read_only;
        asked.push(mount);
    }
    let mut mounts = defaults(host, ipc);
    mounts.retain(|mount| !asked.iter().any(|other| hides(other, mount)));
    mounts.extend(asked);
    for (source, destination) in [
        (&files.resolv_conf, "/etc/resolv.conf"),
        (&files.hostname, "/etc/hostname"),
        (&files.hosts, "/etc/hosts"),
    ] {
        if !mounts.iter().any(|mount| mount.destination == destination) {
            mounts.push(Mount {
                readonly: host.readonly_rootfs,
                ..shared(source.clone(), destination)
            });
        }
    }
    // Stable: what Docker mounts first stays first among equals.
    mounts.sort_by_key(|mount| depth(&mount.destination));
    Ok(mounts)
}

/// Something of the user's at the same place, or a whole /dev of theirs.
fn hides(asked: &Mount, default: &Mount) -> bool {
    let (asked, default) = (asked.destination.as_str(), default.destination.as_str());
    asked == default || (asked == "/dev" && default.starts_with("/dev/"))
}

fn depth(path: &str) -> usize {
    path.split('/').filter(|part| !part.is_empty()).count()
}

fn mount(kind: MountKind, destination: &str) -> Mount {
    let destination = destination.to_owned();
    let (nosuid, nodev, noexec) = (true, true, true);
    Mount { kind, destination, readonly: false, shallow: false, nosuid, nodev, noexec }
}

fn shared(source: PathBuf, destination: &str) -> Mount {
    let (subpath, propagation) = (String::new(), Propagation::Rprivate);
    let kind = MountKind::Bind { source, subpath, recursive: true, propagation };
    Mount { nosuid: false, nodev: false, noexec: false, ..mount(kind, destination) }
}

fn defaults(host: &HostConfig, ipc: Option<i32>) -> Vec<Mount> {
    let readonly = !host.privileged;
    let dev = MountKind::Tmpfs { data: "mode=755,size=65536k".into() };
    let mut mounts = vec![
        mount(MountKind::Proc, "/proc"),
        Mount { noexec: false, nodev: false, ..mount(dev, "/dev") },
        Mount { nodev: false, ..mount(MountKind::Devpts, "/dev/pts") },
        Mount { readonly, ..mount(MountKind::Sysfs, "/sys") },
        Mount { readonly, ..mount(MountKind::Cgroup, "/sys/fs/cgroup") },
        mount(MountKind::Mqueue, "/dev/mqueue"),
    ];
    let shm = match (ipc, host.ipc_mode.as_str()) {
        (Some(pid), _) => Some(mount(MountKind::SharedMemory { pid }, "/dev/shm")),
        (None, "host") => Some(shared("/dev/shm".into(), "/dev/shm")),
        (None, "none") => None,
        (None, _) => {
            let size = if host.shm_size > 0 { host.shm_size } else { SHM_SIZE };
            let data = format!("mode=1777,size={size}");
            Some(mount(MountKind::Tmpfs { data }, "/dev/shm"))
        }
    };
    mounts.extend(shm);
    mounts
}

fn users(user: &UserMount) -> Result<Mount, Error> {
    let mut shallow = false;
    let kind = match &user.what {
        Shown::Bind { source, subpath, recursive, propagation, .. } => {
            let propagation = match propagation.as_str() {
                "" | "rprivate" => Propagation::Rprivate,
                "private" => Propagation::Private,
                "shared" => Propagation::Shared,
                "rshared" => Propagation::Rshared,
                "slave" => Propagation::Slave,
                "rslave" => Propagation::Rslave,
                other => return Err(Error::Invalid(format!("invalid propagation mode: {other}"))),
            };
            shallow = matches!(user.what, Shown::Bind { shallow: true, .. });
            let (source, subpath, recursive) = (source.clone(), subpath.clone(), *recursive);
            MountKind::Bind { source, subpath, recursive, propagation }
        }
        Shown::Image { lower, layers_dir, subpath } => MountKind::Layers {
            lower: lower.clone(),
            layers_dir: layers_dir.clone(),
            subpath: subpath.clone(),
        },
    };
    let (nosuid, nodev, noexec) = (false, false, false);
    let readonly = user.readonly;
    Ok(Mount { readonly, shallow, nosuid, nodev, noexec, ..mount(kind, &user.destination) })
}

/// `--tmpfs DESTINATION:OPTIONS`, with Docker's noexec, nosuid, nodev unless
/// said otherwise.
pub(super) fn tmpfs(destination: &str, options: &str) -> Result<Mount, Error> {
    if !destination.starts_with('/') {
        return Err(Error::Invalid(format!(
            "invalid mount path: '{destination}' mount path must be absolute"
        )));
    }
    if depth(destination) == 0 {
        return Err(Error::Invalid("invalid specification: destination can't be '/'".into()));
    }
    let mut made = mount(MountKind::Tmpfs { data: String::new() }, destination);
    let mut data: Vec<&str> = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => made.readonly = true,
            "rw" => made.readonly = false,
            "exec" => made.noexec = false,
            "noexec" => made.noexec = true,
            "suid" => made.nosuid = false,
            "nosuid" => made.nosuid = true,
            "dev" => made.nodev = false,
            "nodev" => made.nodev = true,
            // How a private tmpfs propagates, and how it syncs, cannot be seen.
            "defaults" | "private" | "rprivate" | "async" | "relatime" => {}
            "sync" | "dirsync" | "mand" | "nomand" | "atime" | "noatime" | "diratime"
            | "nodiratime" | "norelatime" | "strictatime" | "nostrictatime" | "bind" | "rbind"
            | "remount" | "shared" | "rshared" | "slave" | "rslave" | "unbindable"
            | "runbindable" => {
                return Err(Error::Unsupported(format!("tmpfs option \"{option}\" is not built")));
            }
            _ => match option.split_once('=') {
                Some(("size" | "mode" | "uid" | "gid" | "nr_inodes" | "nr_blocks" | "mpol", _)) => {
                    let key = option.split('=').next().unwrap_or_default();
                    data.retain(|old| old.split('=').next() != Some(key));
                    data.push(option);
                }
                _ => return Err(Error::Invalid(format!("invalid tmpfs option \"{option}\""))),
            },
        }
    }
    made.kind = MountKind::Tmpfs { data: data.join(",") };
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Files {
        Files { hosts: "/h".into(), hostname: "/n".into(), resolv_conf: "/r".into() }
    }

    fn at<'a>(mounts: &'a [Mount], destination: &str) -> Option<&'a Mount> {
        mounts.iter().find(|mount| mount.destination == destination)
    }

    #[test]
    fn the_defaults_are_dockers() {
        let mounts = mounts(&HostConfig::default(), None, &files(), &[]).unwrap();
        let order: Vec<&str> = mounts.iter().map(|mount| mount.destination.as_str()).collect();
        assert_eq!(
            order,
            [
                "/proc",
                "/dev",
                "/sys",
                "/dev/pts",
                "/dev/mqueue",
                "/dev/shm",
                "/etc/resolv.conf",
                "/etc/hostname",
                "/etc/hosts",
                "/sys/fs/cgroup"
            ]
        );
        let shm = MountKind::Tmpfs { data: "mode=1777,size=67108864".into() };
        assert_eq!(at(&mounts, "/dev/shm").unwrap().kind, shm);
        assert!(at(&mounts, "/sys").unwrap().readonly);
    }

    #[test]
    fn a_users_mount_replaces_a_default_one() {
        let dev = UserMount {
            destination: "/dev".into(),
            readonly: false,
            what: Shown::Bind {
                source: "/dev".into(),
                subpath: String::new(),
                recursive: true,
                shallow: false,
                propagation: String::new(),
            },
        };
        let hosts = UserMount { destination: "/etc/hosts".into(), ..dev.clone() };
        let mounts = mounts(&HostConfig::default(), None, &files(), &[dev, hosts]).unwrap();
        assert!(at(&mounts, "/dev/shm").is_none());
        assert_eq!(mounts.iter().filter(|mount| mount.destination == "/dev").count(), 1);
        let hosts = at(&mounts, "/etc/hosts").unwrap();
        assert!(
            matches!(&hosts.kind, MountKind::Bind { source, .. } if source.as_os_str() == "/dev")
        );
    }

    #[test]
    fn shm_follows_the_ipc_mode() {
        let shm = |mode: &str, pid| {
            let host = HostConfig { ipc_mode: mode.into(), ..HostConfig::default() };
            at(&mounts(&host, pid, &files(), &[]).unwrap(), "/dev/shm").cloned()
        };
        assert_eq!(shm("none", None), None);
        let source = |mount: Option<Mount>| match mount.unwrap().kind {
            MountKind::Bind { source, .. } => source,
            other @ (MountKind::Proc
            | MountKind::Sysfs
            | MountKind::Cgroup
            | MountKind::Mqueue
            | MountKind::Devpts
            | MountKind::Tmpfs { .. }
            | MountKind::Layers { .. }
            | MountKind::SharedMemory { .. }) => panic!("{other:?}"),
        };
        assert_eq!(source(shm("host", None)), PathBuf::from("/dev/shm"));
        let of_other = shm("container:x", Some(7)).unwrap().kind;
        assert_eq!(of_other, MountKind::SharedMemory { pid: 7 });
    }

    #[test]
    fn tmpfs_options_become_flags_and_data() {
        let mount = tmpfs("/u", "size=1m,exec,mode=1770,uid=3,size=2m").unwrap();
        assert_eq!(mount.kind, MountKind::Tmpfs { data: "mode=1770,uid=3,size=2m".into() });
        assert!(!mount.noexec && mount.nosuid && mount.nodev);
        let words = |destination, options| tmpfs(destination, options).unwrap_err().to_string();
        assert_eq!(words("/t", "foo"), "invalid tmpfs option \"foo\"");
        assert_eq!(words("t", ""), "invalid mount path: 't' mount path must be absolute");
    }
}
