//! What the host configuration's texts mean; said at creation, needed at start.

use super::{capabilities, cgroup, devices, log_options, mounts, seccomp};
use crate::{error::Error, spec::HostConfig};
use std::path::Path;
use tritium_supervisor::protocol::Rlimit;

/// Says at creation what would fail at start: capabilities, security options,
/// seccomp profile, limits, devices, tmpfs and log options.
///
/// # Errors
/// `Invalid` in Docker's words, or `Unsupported`.
pub fn check(host: &HostConfig) -> Result<(), Error> {
    capabilities::asked(host, capabilities::own()?)?;
    let security = security(host)?;
    if let seccomp::Policy::Custom(text) = &security.seccomp {
        seccomp::Profile::parse(text).map_err(|error| Error::Invalid(error.to_string()))?;
    }
    rlimits(host)?;
    // The mode may be wrong now; whether the device is there is asked at start.
    for (destination, options) in host.tmpfs.iter().flatten() {
        mounts::tmpfs(destination, options)?;
    }
    log_options::log(&host.log_config, Path::new(""), None)?;
    cgroup::check(host)?;
    devices::check_rules(host)
}

/// What `--security-opt` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Security {
    pub(super) seccomp: seccomp::Policy,
    pub(super) no_new_privileges: bool,
}

/// Reads the security options; those of AppArmor and SELinux say nothing on
/// a host without them, as with Docker.
pub(super) fn security(host: &HostConfig) -> Result<Security, Error> {
    let mut security = Security::default();
    if host.privileged {
        security.seccomp = seccomp::Policy::Unconfined;
    }
    for option in host.security_opt.iter().flatten() {
        if matches!(option.as_str(), "no-new-privileges") {
            security.no_new_privileges = true;
            continue;
        }
        let Some((key, value)) = option.split_once('=').or_else(|| option.split_once(':')) else {
            return Err(Error::Invalid(format!("invalid --security-opt 1: {option:?}")));
        };
        match key {
            "label" | "apparmor" | "systempaths" => {}
            "seccomp" => {
                security.seccomp = match value {
                    "unconfined" => seccomp::Policy::Unconfined,
                    "builtin" => seccomp::Policy::Default,
                    text => seccomp::Policy::Custom(text.to_owned()),
                }
            }
            "no-new-privileges" => {
                security.no_new_privileges = match value {
                    "true" | "1" => true,
                    "false" | "0" => false,
                    _ => {
                        return Err(Error::Invalid(format!(
                            "invalid --security-opt 2: {option:?}"
                        )));
                    }
                }
            }
            _ => return Err(Error::Invalid(format!("invalid --security-opt 2: {option:?}"))),
        }
    }
    Ok(security)
}

/// getrlimit(2)'s resources by Docker's names, in the kernel's order.
const RLIMITS: [&str; 16] = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
];

pub(super) fn rlimits(host: &HostConfig) -> Result<Vec<Rlimit>, Error> {
    let mut limits = Vec::new();
    for ulimit in host.ulimits.iter().flatten() {
        let known = RLIMITS.iter().position(|name| *name == ulimit.name && *name != "as");
        let Some(resource) = known.and_then(|at| u32::try_from(at).ok()) else {
            return Err(Error::Invalid(format!("invalid ulimit type: {}", ulimit.name)));
        };
        let limit = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
        let (soft, hard) = (limit(ulimit.soft), limit(ulimit.hard));
        if soft > hard {
            return Err(Error::Invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                ulimit.soft, ulimit.hard
            )));
        }
        limits.push(Rlimit { resource, soft, hard });
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Ulimit;

    fn with_options(options: &[&str]) -> HostConfig {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        HostConfig { security_opt: Some(options), ..HostConfig::default() }
    }

    #[test]
    fn security_options_are_read_as_docker_reads_them() {
        let read = |options: &[&str]| security(&with_options(options));
        assert!(read(&["no-new-privileges"]).unwrap().no_new_privileges);
        assert!(read(&["no-new-privileges:true"]).unwrap().no_new_privileges);
        assert!(!read(&["no-new-privileges=false"]).unwrap().no_new_privileges);
        assert_eq!(read(&["seccomp=unconfined"]).unwrap().seccomp, seccomp::Policy::Unconfined);
        assert_eq!(read(&["label=disable", "apparmor=x"]).unwrap(), Security::default());
        let words = |options: &[&str]| read(options).unwrap_err().to_string();
        assert_eq!(words(&["foo=bar"]), "invalid --security-opt 2: \"foo=bar\"");
        assert_eq!(words(&["foo"]), "invalid --security-opt 1: \"foo\"");
    }

    #[test]
    fn a_privileged_container_is_unconfined_unless_a_profile_is_named() {
        let privileged = HostConfig { privileged: true, ..HostConfig::default() };
        assert_eq!(security(&privileged).unwrap().seccomp, seccomp::Policy::Unconfined);
        let named = HostConfig { privileged: true, ..with_options(&["seccomp={}"]) };
        assert_eq!(security(&named).unwrap().seccomp, seccomp::Policy::Custom("{}".into()));
    }

    #[test]
    fn limits_get_the_kernels_numbers() {
        let ulimit = |name: &str, soft, hard| HostConfig {
            ulimits: Some(vec![Ulimit { name: name.into(), soft, hard }]),
            ..HostConfig::default()
        };
        let nofile = rlimits(&ulimit("nofile", 10, -1)).unwrap();
        assert_eq!(nofile, [Rlimit { resource: 7, soft: 10, hard: u64::MAX }]);
        let words = |host| rlimits(&host).unwrap_err().to_string();
        assert_eq!(words(ulimit("foo", 1, 1)), "invalid ulimit type: foo");
        assert!(words(ulimit("nofile", 5, 4)).ends_with("hard limit: 5 > 4"));
    }
}
