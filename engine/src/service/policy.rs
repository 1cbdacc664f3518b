//! What a tenant may ask for. The operator's own tenant may ask for anything
//! that root may; everybody else for nothing that reaches out of a container.

use crate::{
    container::{MountPoint, Mounted, is_docker_socket},
    error::Error,
    ids::TenantName,
    image,
    network::{self, Definition, Driver},
    spec::HostConfig,
};
use ipnet::IpNet;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Capabilities that a tenant may add: Docker's default set, so that
/// `--cap-drop ALL --cap-add CHOWN` works.
const CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Refuses what reaches out of the container.
///
/// # Errors
/// `Denied`, naming the option.
pub(super) fn allow(tenant: &TenantName, host: &HostConfig) -> Result<(), Error> {
    if tenant.is_operator() {
        return Ok(());
    }
    match forbidden(host) {
        Some(what) => Err(Error::Denied(format!("tenant {tenant} may not use {what}"))),
        None => Ok(()),
    }
}

/// Refuses to show what is the host's. The Docker socket is not: a tenant finds
/// its own behind that name.
///
/// # Errors
/// `Denied`, naming the mount.
pub(super) fn allow_mounts(tenant: &TenantName, points: &[MountPoint]) -> Result<(), Error> {
    if tenant.is_operator() {
        return Ok(());
    }
    for point in points {
        let Mounted::Bind { source, .. } = &point.what else { continue };
        if is_docker_socket(source) && point.propagation == "rprivate" {
            continue;
        }
        return Err(Error::Denied(format!(
            "tenant {tenant} may not use a bind mount of the host's files ({})",
            source.display()
        )));
    }
    Ok(())
}

/// The same for one more process in a container.
///
/// # Errors
/// `Denied`: it would have rights that its container may not have.
pub(super) fn allow_exec(tenant: &TenantName, privileged: bool) -> Result<(), Error> {
    if privileged && !tenant.is_operator() {
        let what = "exec --privileged";
        return Err(Error::Denied(format!("tenant {tenant} may not use {what}")));
    }
    Ok(())
}

/// Refuses volumes that are mounts of the host's: directories, disks, servers
/// that only the host reaches. A tmpfs is the tenant's own memory.
///
/// # Errors
/// `Denied`.
pub(super) fn allow_volume(
    tenant: &TenantName,
    options: &BTreeMap<String, String>,
) -> Result<(), Error> {
    if tenant.is_operator() || options.is_empty() {
        return Ok(());
    }
    let text = |key: &str| options.get(key).map(String::as_str).unwrap_or_default();
    let flags = ["bind", "rbind", "shared", "rshared"];
    let plain = text("type") == "tmpfs" && !text("o").split(',').any(|word| flags.contains(&word));
    if plain {
        return Ok(());
    }
    Err(Error::Denied(format!(
        "tenant {tenant} may not use a volume of type {:?} on device {:?}: only tmpfs",
        text("type"),
        text("device")
    )))
}

/// How many networks a tenant may have: about as many as Docker's own pools
/// of addresses are good for.
const MOST_NETWORKS: usize = 32;

/// Refuses networks that take what is the host's, or more than a fair share
/// of addresses. `others`: what the tenant has made already.
///
/// # Errors
/// `Denied`, naming the option.
pub(super) fn allow_network(definition: &Definition, others: usize) -> Result<(), Error> {
    let tenant = &definition.tenant;
    if tenant.is_operator() {
        return Ok(());
    }
    let denied = |what: &str| Err(Error::Denied(format!("tenant {tenant} may not use {what}")));
    if others >= MOST_NETWORKS {
        return denied(&format!("more than {MOST_NETWORKS} networks"));
    }
    // Its frames would go out on the host's Ethernet by no firewall of ours.
    if definition.driver == Driver::Macvlan {
        return denied("networks of driver macvlan");
    }
    if definition.options.contains_key(network::BRIDGE_NAME) {
        return denied(network::BRIDGE_NAME);
    }
    // What the host itself sends to a subnet would go to the tenant.
    match definition.pools.iter().find(|pool| !is_private(pool.subnet)) {
        Some(pool) => denied(&format!("the public subnet {}", pool.subnet)),
        None => Ok(()),
    }
}

/// RFC 1918, RFC 6598, RFC 2544 and RFC 4193.
fn is_private(subnet: IpNet) -> bool {
    const PRIVATE: [(IpAddr, u8); 6] = [
        (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 8),
        (IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), 12),
        (IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), 16),
        (IpAddr::V4(Ipv4Addr::new(100, 64, 0, 0)), 10),
        (IpAddr::V4(Ipv4Addr::new(198, 18, 0, 0)), 15),
        (IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), 7),
    ];
    let mut private = PRIVATE.iter().map(|(address, prefix)| IpNet::new_assert(*address, *prefix));
    private.any(|private| private.contains(&subnet))
}

fn forbidden(host: &HostConfig) -> Option<String> {
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let flags = [
        (host.privileged, "--privileged"),
        (host.network_mode == "host", "--network host"),
        (host.pid_mode == "host", "--pid host"),
        (host.ipc_mode == "host", "--ipc host"),
        (host.uts_mode == "host", "--uts host"),
        (host.cgroupns_mode == "host", "--cgroupns host"),
        (host.userns_mode == "host", "--userns host"),
        (!host.cgroup_parent.is_empty(), "--cgroup-parent"),
        (host.devices.as_ref().is_some_and(|list| !list.is_empty()), "--device"),
        (some(&host.device_cgroup_rules), "--device-cgroup-rule"),
        (host.oom_score_adj < 0, "a negative --oom-score-adj"),
        (host.oom_kill_disable == Some(true), "--oom-kill-disable"),
        (host.masked_paths.as_ref().is_some_and(Vec::is_empty), "systempaths=unconfined"),
        (host.readonly_paths.as_ref().is_some_and(Vec::is_empty), "systempaths=unconfined"),
    ];
    if let Some((_, what)) = flags.iter().find(|(asked, _)| *asked) {
        return Some((*what).to_owned());
    }
    // A profile of one's own can only be checked by understanding all of it.
    let option = host.security_opt.iter().flatten().find(|option| option.starts_with("seccomp"));
    if option.is_some() {
        return Some("--security-opt seccomp".to_owned());
    }
    let capability = host.cap_add.iter().flatten().find(|capability| {
        let name = capability.to_ascii_uppercase();
        !CAPABILITIES.contains(&name.strip_prefix("CAP_").unwrap_or(&name))
    });
    capability.map(|capability| format!("--cap-add {capability}"))
}

/// Refuses registries on the host itself: what listens there listens to the
/// host, and a tenant could find out what does. (Elsewhere TLS is demanded.)
///
/// # Errors
/// `Denied`, naming the registry.
pub(super) fn registry(tenant: &TenantName, registry: &str) -> Result<(), Error> {
    if tenant.is_operator() || !image::is_private_registry(registry) {
        return Ok(());
    }
    Err(Error::Denied(format!("tenant {tenant} may not use a registry on the host ({registry})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str) -> bool {
        let host: HostConfig = serde_json::from_str(json).unwrap();
        let tenant = "team".parse().unwrap();
        assert!(allow(&TenantName::operator(), &host).is_ok());
        matches!(allow(&tenant, &host), Err(Error::Denied(_)))
    }

    #[test]
    fn what_reaches_out_of_a_container_is_the_operators_only() {
        for json in [
            r#"{"Privileged":true}"#,
            r#"{"NetworkMode":"host"}"#,
            r#"{"PidMode":"host"}"#,
            r#"{"IpcMode":"host"}"#,
            r#"{"UTSMode":"host"}"#,
            r#"{"CgroupnsMode":"host"}"#,
            r#"{"CapAdd":["SYS_ADMIN"]}"#,
            r#"{"CapAdd":["all"]}"#,
            r#"{"SecurityOpt":["seccomp=unconfined"]}"#,
            r#"{"Devices":[{"PathOnHost":"/dev/sda"}]}"#,
            r#"{"DeviceCgroupRules":["a *:* rwm"]}"#,
            r#"{"CgroupParent":"/"}"#,
            r#"{"MaskedPaths":[]}"#,
        ] {
            assert!(refused(json), "{json}");
        }
    }

    fn bind(source: &str, propagation: &str) -> MountPoint {
        MountPoint {
            destination: "/x".into(),
            mode: String::new(),
            writable: true,
            propagation: propagation.into(),
            what: Mounted::Bind {
                source: source.into(),
                recursive: true,
                create: true,
                shallow: false,
            },
        }
    }

    #[test]
    fn of_the_host_a_tenant_may_see_nothing_but_what_stands_for_its_own_socket() {
        let tenant = "team".parse().unwrap();
        let allowed = |point: MountPoint| {
            let points = [point];
            assert!(allow_mounts(&TenantName::operator(), &points).is_ok());
            allow_mounts(&tenant, &points).is_ok()
        };
        assert!(allowed(bind("/var/run/docker.sock", "rprivate")));
        for source in ["/", "/var/run", "/var/run/docker.sock/..", "/run/tritium/tritium.sock"] {
            assert!(!allowed(bind(source, "rprivate")), "{source}");
        }
        assert!(!allowed(bind("/var/run/docker.sock", "rshared")));
    }

    #[test]
    fn of_volumes_that_are_mounts_a_tenant_may_have_tmpfs_only() {
        let tenant = "team".parse().unwrap();
        let allowed = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            let options = pairs.collect();
            assert!(allow_volume(&TenantName::operator(), &options).is_ok());
            allow_volume(&tenant, &options).is_ok()
        };
        assert!(allowed(&[]));
        assert!(allowed(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")]));
        assert!(!allowed(&[("type", "none"), ("o", "bind"), ("device", "/")]));
        assert!(!allowed(&[("type", "tmpfs"), ("o", "size=1m,bind"), ("device", "/")]));
        assert!(!allowed(&[("type", "nfs"), ("o", "addr=10.0.0.1"), ("device", ":/")]));
        assert!(!allowed(&[("type", "ext4"), ("device", "/dev/vda")]));
    }

    #[test]
    fn only_private_subnets_are_everybodys() {
        for (subnet, private) in [
            ("10.0.0.0/8", true),
            ("172.31.0.0/16", true),
            ("fd00::/64", true),
            ("8.8.8.0/24", false),
            ("0.0.0.0/0", false),
            ("127.0.0.0/8", false),
            ("172.0.0.0/8", false),
            ("fe80::/64", false),
            ("2000::/3", false),
        ] {
            assert_eq!(is_private(subnet.parse().unwrap()), private, "{subnet}");
        }
    }

    #[test]
    fn everyday_options_are_everybodys() {
        for json in [
            "{}",
            r#"{"CapAdd":["CAP_NET_RAW"],"CapDrop":["ALL"],"NetworkMode":"none","Memory":10000000}"#,
            r#"{"SecurityOpt":["no-new-privileges"],"Tmpfs":{"/tmp":""},"Binds":["data:/data"]}"#,
        ] {
            assert!(!refused(json), "{json}");
        }
    }
}
