//! What of the host can be seen without an engine.

use std::{fs, path::Path};

/// One need of the engine, and what this host has of it.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) need: String,
    pub(crate) found: String,
    pub(crate) verdict: Verdict,
    /// What is lost without it.
    pub(crate) cost: String,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    /// Tritium works, with less.
    Less,
    /// Tritium does not work.
    Missing,
}

impl Verdict {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Less => "less",
            Self::Missing => "MISSING",
        }
    }
}

/// Everything that can be looked at, in the order in which a container needs it.
pub(crate) fn findings() -> Vec<Finding> {
    let mut findings = vec![
        root(&read("/proc/self/status")),
        cgroups(&read("/proc/self/mounts"), &read("/sys/fs/cgroup/cgroup.controllers")),
    ];
    findings
        .extend(controllers(&read("/sys/fs/cgroup/cgroup.controllers"), &read("/proc/cgroups")));
    findings.push(overlay(&read("/proc/filesystems")));
    findings.push(namespaces());
    findings.push(seccomp(&read("/proc/sys/kernel/seccomp/actions_avail")));
    findings.push(nftables(&read("/proc/modules")));
    findings.push(forwarding(&read("/proc/sys/net/ipv4/ip_forward")));
    findings.push(btf(Path::new("/sys/kernel/btf/vmlinux").exists()));
    findings.push(bpffs(&read("/proc/self/mounts"), &read("/proc/filesystems")));
    findings.push(lsm(&read("/sys/kernel/security/lsm")));
    findings
}

/// What cannot be read is not there.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn finding(need: &str, found: &str, verdict: Verdict, cost: &str) -> Finding {
    let cost = if verdict == Verdict::Good { "" } else { cost };
    Finding { need: need.into(), found: found.into(), verdict, cost: cost.into() }
}

fn when(good: bool, bad: Verdict) -> Verdict {
    if good { Verdict::Good } else { bad }
}

/// proc_pid_status(5): the effective capabilities.
fn root(status: &str) -> Finding {
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let uid = uid.and_then(|ids| ids.split_whitespace().nth(1)).unwrap_or("?");
    let verdict = when(uid == "0", Verdict::Missing);
    finding("root", &format!("uid {uid}"), verdict, "no container can be made")
}

fn cgroups(mounts: &str, unified: &str) -> Finding {
    let kind = |wanted: &str| mounts.lines().any(|line| line.split(' ').nth(2) == Some(wanted));
    let (found, verdict) = match (kind("cgroup2"), kind("cgroup")) {
        (true, false) => ("version 2", Verdict::Good),
        (true, true) if !unified.trim().is_empty() => ("version 2, and version 1", Verdict::Good),
        (true, true) => ("hybrid: controllers on version 1, a tree of version 2", Verdict::Good),
        (false, true) => ("version 1 only", Verdict::Less),
        (false, false) => ("none mounted", Verdict::Missing),
    };
    finding("control groups", found, verdict, "without a tree of version 2 no guard, no trace")
}

/// Either version's list of controllers.
fn controllers(unified: &str, v1: &str) -> Vec<Finding> {
    let has = |name: &str| {
        let second = unified.split_whitespace().any(|own| own == name);
        let first = v1.lines().any(|line| {
            let mut columns = line.split_whitespace();
            columns.next() == Some(name) && columns.next().is_some_and(|at| at != "0")
        });
        second || first
    };
    [
        ("cpu", "--cpus and --cpu-shares are refused"),
        ("memory", "-m is refused, and no OOM kill is seen"),
        ("pids", "--pids-limit is refused"),
        ("cpuset", "--cpuset-cpus is refused"),
    ]
    .into_iter()
    .map(|(name, cost)| {
        let has = has(name);
        let found = if has { "there" } else { "not there" };
        finding(&format!("controller {name}"), found, when(has, Verdict::Less), cost)
    })
    .collect()
}

fn filesystem(filesystems: &str, name: &str) -> bool {
    filesystems.lines().any(|line| line.split_whitespace().last() == Some(name))
}

fn overlay(filesystems: &str) -> Finding {
    let has = filesystem(filesystems, "overlay");
    // The kernel loads the module when it is mounted for the first time.
    let found = if has { "there" } else { "not loaded (yet)" };
    finding("overlayfs", found, when(has, Verdict::Less), "if it cannot be loaded: no container")
}

fn namespaces() -> Finding {
    let wanted = ["cgroup", "ipc", "mnt", "net", "pid", "uts"];
    let missing: Vec<_> =
        wanted.iter().filter(|name| !Path::new("/proc/self/ns").join(name).exists()).collect();
    let found = match missing.as_slice() {
        [] => "all six".to_owned(),
        missing => format!("without {missing:?}"),
    };
    let verdict = when(missing.is_empty(), Verdict::Missing);
    finding("namespaces", &found, verdict, "no container can be made")
}

fn seccomp(actions: &str) -> Finding {
    let has = actions.split_whitespace().any(|action| action == "errno");
    let found = if has { "filters" } else { "no filters" };
    finding("seccomp", found, when(has, Verdict::Missing), "no container but unconfined ones")
}

fn nftables(modules: &str) -> Finding {
    let loaded = modules.lines().any(|line| line.starts_with("nf_tables "));
    // Built in: sysfs shows it, /proc/modules does not.
    let there = loaded || Path::new("/sys/module/nf_tables").exists();
    let found = if there { "there" } else { "not loaded (yet)" };
    let cost = "if it cannot be loaded: no bridge, no published ports";
    finding("nftables", found, when(there, Verdict::Less), cost)
}

fn forwarding(text: &str) -> Finding {
    let on = text.trim() == "1";
    let found = if on { "on" } else { "off" };
    let cost = "containers reach no other host until the engine switches it on";
    finding("IPv4 forwarding", found, when(on, Verdict::Less), cost)
}

fn btf(there: bool) -> Finding {
    let found = if there { "/sys/kernel/btf/vmlinux" } else { "none" };
    finding("BTF", found, when(there, Verdict::Less), "no guard and no trace")
}

fn bpffs(mounts: &str, filesystems: &str) -> Finding {
    let mounted = mounts.lines().any(|line| line.split(' ').nth(2) == Some("bpf"));
    let (found, verdict) = match (mounted, filesystem(filesystems, "bpf")) {
        (true, _) => ("mounted", Verdict::Good),
        (false, true) => ("not mounted; the engine mounts it", Verdict::Good),
        (false, false) => ("none", Verdict::Less),
    };
    finding("bpffs", found, verdict, "no guard and no trace")
}

fn lsm(modules: &str) -> Finding {
    let has = modules.trim().split(',').any(|module| module == "bpf");
    let found = if modules.trim().is_empty() { "cannot be read" } else { modules.trim() };
    let cost = "exec and ptrace are not refused by tenant policy";
    finding("BPF among the LSMs", found, when(has, Verdict::Less), cost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_root_cannot_make_containers() {
        let status = "Name:\tx\nUid:\t1000\t1000\t1000\t1000\n";
        assert_eq!(root(status).verdict, Verdict::Missing);
        assert_eq!(root("Uid:\t0\t0\t0\t0\n").verdict, Verdict::Good);
    }

    #[test]
    fn a_hybrid_layout_is_told_from_either_version() {
        let v1 = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n";
        let v2 = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert!(cgroups(&format!("{v1}{v2}"), "").found.starts_with("hybrid"));
        assert_eq!(cgroups(v2, "cpu").found, "version 2");
        assert_eq!(cgroups(v1, "").verdict, Verdict::Less);
        assert_eq!(cgroups("", "").verdict, Verdict::Missing);
    }

    #[test]
    fn a_controller_counts_on_either_version_if_it_is_mounted() {
        let found = controllers("memory", "#name h n e\ncpu\t2\t1\t1\npids\t0\t1\t1\n");
        let verdicts: Vec<_> = found.iter().map(|finding| finding.verdict).collect();
        assert_eq!(verdicts, [Verdict::Good, Verdict::Good, Verdict::Less, Verdict::Less]);
    }

    #[test]
    fn what_is_good_costs_nothing() {
        assert_eq!(btf(true).cost, "");
        assert_eq!(btf(false).cost, "no guard and no trace");
    }
}
