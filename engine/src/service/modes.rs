//! Words of the host configuration that must be one of a few, and settings of
//! the kernel that a container can have for itself.

use crate::{error::Error, spec::HostConfig};

/// Runtimes that clients name; all of them are Tritium's own here.
const RUNTIMES: [&str; 4] = ["", "tritium", "runc", "io.containerd.runc.v2"];
/// Settings that belong to an IPC namespace (ipc_namespaces(7)).
const OF_IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Refuses what means nothing.
///
/// # Errors
/// `Invalid` in Docker's words; `Unsupported`.
pub(super) fn check(host: &HostConfig) -> Result<(), Error> {
    let joins = |mode: &str| mode.strip_prefix("container:").is_some_and(|name| !name.is_empty());
    let uts = matches!(host.uts_mode.as_str(), "" | "host");
    let pid = matches!(host.pid_mode.as_str(), "" | "host") || joins(&host.pid_mode);
    let ipc = matches!(host.ipc_mode.as_str(), "" | "none" | "private" | "shareable" | "host")
        || joins(&host.ipc_mode);
    let cgroup = matches!(host.cgroupns_mode.as_str(), "" | "host" | "private");
    let isolation = matches!(host.isolation.as_str(), "" | "default");
    let refused = [
        (!uts, format!("invalid UTS mode: {}", host.uts_mode)),
        (!pid, format!("invalid PID mode: {}", host.pid_mode)),
        (!ipc, format!("invalid IPC mode: {}", host.ipc_mode)),
        (!cgroup, format!("invalid cgroup namespace mode: {}", host.cgroupns_mode)),
        (
            !isolation,
            format!("invalid isolation ({}): linux only supports 'default'", host.isolation),
        ),
        (
            !RUNTIMES.contains(&host.runtime.as_str()),
            format!("unknown or invalid runtime name: {}", host.runtime),
        ),
        (host.shm_size < 0, "SHM size can not be less than 0".to_owned()),
        (
            host.annotations.iter().flatten().any(|(key, _)| key.is_empty()),
            "invalid Annotations: the empty string is not permitted as an annotation key".into(),
        ),
    ];
    if let Some((_, words)) = refused.into_iter().find(|(wrong, _)| *wrong) {
        return Err(Error::Invalid(words));
    }
    // The guard knows a container by its control group's place below the engine's own.
    if !host.cgroup_parent.is_empty() {
        return Err(Error::Unsupported(format!(
            "cgroup-parent {:?} is not supported: containers stay in the engine's control group, \
             where the guard is in force",
            host.cgroup_parent
        )));
    }
    host.extra_hosts.iter().flatten().try_for_each(|entry| extra_host(entry))?;
    host.sysctls.iter().flatten().try_for_each(|(name, _)| sysctl(name, host))?;
    devices(host)
}

fn extra_host(entry: &str) -> Result<(), Error> {
    let bad = || Error::Invalid(format!("bad format for add-host: \"{entry}\""));
    let (name, address) = entry.split_once(':').ok_or_else(bad)?;
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(bad());
    }
    let bare = address.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(address);
    if bare == "host-gateway" || bare.parse::<std::net::IpAddr>().is_ok() {
        return Ok(());
    }
    Err(Error::Invalid(format!("invalid IP address in add-host: \"{address}\"")))
}

/// A setting of the host's own must not be changed by starting a container.
/// runc's rules (libcontainer/configs/validate).
fn sysctl(name: &str, host: &HostConfig) -> Result<(), Error> {
    let refused = |why: &str| Err(Error::Invalid(format!("sysctl {name:?} {why}")));
    let dotted = name.replace('/', ".");
    let plain = dotted.bytes().all(|byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b':' | b'@')
    });
    if !plain || dotted.split('.').any(str::is_empty) {
        return refused("is no name of a setting");
    }
    if dotted.starts_with("net.") {
        if host.network_mode == "host" {
            return refused("not allowed in host network namespace");
        }
        return Ok(());
    }
    if OF_IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
        if host.ipc_mode == "host" {
            return refused("is not allowed in the hosts ipc namespace");
        }
        return Ok(());
    }
    if dotted == "kernel.domainname" && host.uts_mode != "host" {
        return Ok(());
    }
    refused("is not in a separate kernel namespace")
}

/// There is no driver that a request could be for.
fn devices(host: &HostConfig) -> Result<(), Error> {
    let Some(request) = host.device_requests.iter().flatten().next() else { return Ok(()) };
    let driver = request.get("Driver").and_then(|it| it.as_str()).unwrap_or_default();
    let sets = request.get("Capabilities").and_then(|it| it.as_array()).into_iter().flatten();
    let sets = sets.map(|set| {
        let names = set.as_array().into_iter().flatten().filter_map(|it| it.as_str());
        format!("[{}]", names.collect::<Vec<_>>().join(" "))
    });
    let sets = sets.collect::<Vec<_>>().join(" ");
    Err(Error::Invalid(format!(
        "could not select device driver {driver:?} with capabilities: [{sets}]"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(json: &str) -> String {
        let host: HostConfig = serde_json::from_str(json).unwrap();
        check(&host).unwrap_err().to_string()
    }

    #[test]
    fn words_that_are_none_are_refused_in_dockers_words() {
        assert_eq!(words(r#"{"UTSMode":"bla"}"#), "invalid UTS mode: bla");
        assert_eq!(words(r#"{"PidMode":"container:"}"#), "invalid PID mode: container:");
        assert_eq!(words(r#"{"IpcMode":"bla"}"#), "invalid IPC mode: bla");
        assert_eq!(words(r#"{"Runtime":"nope"}"#), "unknown or invalid runtime name: nope");
        assert_eq!(words(r#"{"ExtraHosts":["a"]}"#), "bad format for add-host: \"a\"");
        assert_eq!(
            words(r#"{"ExtraHosts":["a:300.1.1.1"]}"#),
            "invalid IP address in add-host: \"300.1.1.1\""
        );
        assert_eq!(
            words(r#"{"DeviceRequests":[{"Driver":"","Capabilities":[["gpu","x"]]}]}"#),
            "could not select device driver \"\" with capabilities: [[gpu x]]"
        );
        let fine = r#"{"ExtraHosts":["a:host-gateway","b:[::1]","c:10.0.0.1"],"Runtime":"runc",
            "PidMode":"container:x","IpcMode":"shareable"}"#;
        check(&serde_json::from_str(fine).unwrap()).unwrap();
    }

    #[test]
    fn only_settings_of_the_containers_own_namespaces_can_be_given() {
        let refused = |name: &str, rest: &str| {
            let json = format!(r#"{{"Sysctls":{{"{name}":"1"}}{rest}}}"#);
            check(&serde_json::from_str(&json).unwrap()).is_err()
        };
        for name in [
            "vm.swappiness",
            "kernel.core_pattern",
            "kernel.hostname",
            "vm/swappiness",
            "/proc/sys/vm/swappiness",
            "net.../../vm/swappiness",
            "net./etc/passwd",
            "",
        ] {
            assert!(refused(name, ""), "{name}");
        }
        for name in
            ["net.ipv4.ip_forward", "net/core/somaxconn", "kernel.shmmax", "fs.mqueue.msg_max"]
        {
            assert!(!refused(name, ""), "{name}");
        }
        assert!(refused("net.ipv4.ip_forward", r#","NetworkMode":"host""#));
        assert!(refused("kernel.shmmax", r#","IpcMode":"host""#));
    }
}
