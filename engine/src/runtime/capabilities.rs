//! Which capabilities a container's root has.

use crate::{error::Error, spec::HostConfig};
use std::fs;
use tritium_supervisor::protocol::Capabilities;

/// capabilities(7), by number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A set: bit N is capability N.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Set(u64);

/// Docker's default: `CHOWN`, `DAC_OVERRIDE`, `FOWNER`, `FSETID`, `KILL`,
/// `SETGID`, `SETUID`, `SETPCAP`, `NET_BIND_SERVICE`, `NET_RAW`, `SYS_CHROOT`,
/// `MKNOD`, `AUDIT_WRITE`, `SETFCAP`.
pub(super) const DOCKER: Set = Set(0xa804_25fb);

impl Set {
    pub(super) const NONE: Self = Self(0);

    pub(super) fn has(self, number: u32) -> bool {
        self.0 & (1 << number) != 0
    }

    pub(super) fn with(self, number: u32) -> Self {
        Self(self.0 | 1 << number)
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// As Docker gives them: nothing inheritable, nothing ambient.
    pub(super) fn for_process(self) -> Capabilities {
        Capabilities {
            bounding: self.0,
            permitted: self.0,
            effective: self.0,
            inheritable: 0,
            ambient: 0,
        }
    }
}

/// The number of a capability: `CAP_CHOWN`, `chown`.
pub(super) fn number(name: &str) -> Option<u32> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let at = NAMES.iter().position(|known| *known == bare)?;
    u32::try_from(at).ok()
}

/// What the engine itself has: it cannot give more.
pub(super) fn own() -> Result<Set, Error> {
    let failed = |error: std::io::Error| Error::internal("cannot read /proc/self/status", error);
    let status = fs::read_to_string("/proc/self/status").map_err(failed)?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    set.map(Set).ok_or_else(|| {
        failed(std::io::Error::new(std::io::ErrorKind::InvalidData, "it has no line CapEff"))
    })
}

/// What the container gets: Docker's rules for `--privileged`, `--cap-add`
/// and `--cap-drop`.
///
/// # Errors
/// `Invalid` in Docker's words.
pub(super) fn asked(host: &HostConfig, own: Set) -> Result<Set, Error> {
    if host.privileged {
        return Ok(own);
    }
    let add = Named::parse(host.cap_add.as_deref().unwrap_or_default(), "CapAdd", own)?;
    let drop = Named::parse(host.cap_drop.as_deref().unwrap_or_default(), "CapDrop", own)?;
    Ok(if add.all {
        own.without(drop.set)
    } else if drop.all {
        add.set
    } else {
        Set(DOCKER.without(drop.set).0 | add.set.0).and(own)
    })
}

struct Named {
    all: bool,
    set: Set,
}

impl Named {
    fn parse(names: &[String], field: &str, own: Set) -> Result<Self, Error> {
        let mut named = Self { all: false, set: Set::NONE };
        for name in names {
            if name.eq_ignore_ascii_case("ALL") {
                named.all = true;
                continue;
            }
            let upper = name.to_ascii_uppercase();
            let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
            let Some(number) = number(&full) else {
                return Err(Error::Invalid(format!(
                    "invalid {field}: unknown capability: \"{full}\""
                )));
            };
            if !own.has(number) {
                return Err(Error::Invalid(format!(
                    "invalid {field}: capability not supported by your kernel or not available \
                     in the current environment: \"{full}\""
                )));
            }
            named.set = named.set.with(number);
        }
        Ok(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Set = Set((1 << 41) - 1);

    fn host(add: &[&str], drop: &[&str]) -> HostConfig {
        let list = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        HostConfig { cap_add: list(add), cap_drop: list(drop), ..HostConfig::default() }
    }

    fn bits(names: &[&str]) -> Set {
        names.iter().map(|name| number(name).unwrap()).fold(Set::NONE, Set::with)
    }

    #[test]
    fn the_default_is_dockers() {
        let docker = bits(&[
            "CHOWN",
            "DAC_OVERRIDE",
            "FSETID",
            "FOWNER",
            "MKNOD",
            "NET_RAW",
            "SETGID",
            "SETUID",
            "SETFCAP",
            "SETPCAP",
            "NET_BIND_SERVICE",
            "SYS_CHROOT",
            "KILL",
            "AUDIT_WRITE",
        ]);
        assert_eq!(docker, DOCKER);
        assert_eq!(asked(&host(&[], &[]), ALL).unwrap(), DOCKER);
    }

    #[test]
    fn names_are_read_with_and_without_prefix_and_in_any_case() {
        let expected = DOCKER.with(number("NET_ADMIN").unwrap()).without(bits(&["CHOWN"]));
        for (add, drop) in [("NET_ADMIN", "CHOWN"), ("cap_net_admin", "Cap_Chown")] {
            assert_eq!(asked(&host(&[add], &[drop]), ALL).unwrap(), expected);
        }
    }

    #[test]
    fn all_is_all_that_the_engine_has() {
        let own = ALL.without(bits(&["SYS_RESOURCE"]));
        assert_eq!(
            asked(&host(&["ALL"], &["sys_admin"]), own).unwrap(),
            own.without(bits(&["SYS_ADMIN"]))
        );
        assert_eq!(asked(&host(&["chown"], &["all"]), own).unwrap(), bits(&["CHOWN"]));
        let privileged = HostConfig { privileged: true, ..HostConfig::default() };
        assert_eq!(asked(&privileged, own).unwrap(), own);
    }

    #[test]
    fn what_is_unknown_or_lacking_is_refused_in_dockers_words() {
        let own = ALL.without(bits(&["SYS_RESOURCE"]));
        let words =
            |add: &[&str], drop: &[&str]| asked(&host(add, drop), own).unwrap_err().to_string();
        assert_eq!(words(&["nope"], &[]), "invalid CapAdd: unknown capability: \"CAP_NOPE\"");
        assert_eq!(words(&[], &["nope"]), "invalid CapDrop: unknown capability: \"CAP_NOPE\"");
        assert_eq!(
            words(&["SYS_RESOURCE"], &[]),
            "invalid CapAdd: capability not supported by your kernel or not available in the \
             current environment: \"CAP_SYS_RESOURCE\""
        );
    }
}
