//! How the host was before us, and what of it we change.

use super::{Family, Nft, set_sysctl, sysctl};
use crate::network::firewall;
use std::{io, path::Path};

pub(super) const FORWARDING: &str = "net/ipv4/ip_forward";
const FORWARDING6: &str = "net/ipv6/conf/all/forwarding";
const INTERFACES6: &str = "/proc/sys/net/ipv6/conf";

/// How the host was.
#[derive(Debug, Default)]
pub(super) struct Host {
    /// The versions of IP that it has.
    pub(super) families: Vec<Family>,
    /// Interfaces (at least loopback) between which it forwarded nothing;
    /// empty if it forwarded already.
    before: Vec<Vec<u8>>,
    before6: Vec<Vec<u8>>,
}

impl Host {
    /// `others`: the interfaces that are not ours. Where an engine has been
    /// before us, its table knows better how the host was.
    pub(super) fn look(nft: &mut Nft, table: &str, others: &[Vec<u8>]) -> io::Result<Self> {
        let mut before = |family, path| {
            if sysctl(path)? == "0" {
                Ok(others.to_vec())
            } else {
                nft.keys(family, table, firewall::BEFORE)
            }
        };
        let mut host = Self { before: before(Family::V4, FORWARDING)?, ..Self::default() };
        host.families.push(Family::V4);
        if Path::new(INTERFACES6).exists() {
            host.families.push(Family::V6);
            host.before6 = before(Family::V6, FORWARDING6)?;
        }
        Ok(host)
    }

    pub(super) fn before(&self, family: Family) -> &[Vec<u8>] {
        match family {
            Family::V4 => &self.before,
            Family::V6 => &self.before6,
        }
    }

    /// For networks with IPv6. A host that forwards takes no router's word any
    /// more unless told so: what it learned from routers it goes on learning.
    pub(super) fn forward_ipv6(&self) -> io::Result<()> {
        if !self.families.contains(&Family::V6) {
            return Err(io::Error::other("this kernel has no IPv6"));
        }
        if sysctl(FORWARDING6)? == "1" {
            return Ok(());
        }
        for entry in std::fs::read_dir(INTERFACES6)? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            let path = format!("net/ipv6/conf/{name}/accept_ra");
            let special = ["all", "default"].contains(&name.as_str());
            // An interface may go while we look.
            if !special && sysctl(&path).is_ok_and(|value| value == "1") {
                set_sysctl(&path, "2").or_else(ignore_gone)?;
            }
        }
        set_sysctl(FORWARDING6, "1")
    }

    /// Forwarding as it was.
    pub(super) fn restore(&self) -> io::Result<()> {
        if !self.before.is_empty() {
            set_sysctl(FORWARDING, "0")?;
        }
        if !self.before6.is_empty() && sysctl(FORWARDING6)? == "1" {
            set_sysctl(FORWARDING6, "0")?;
        }
        Ok(())
    }
}

fn ignore_gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// The kernel's range for ports that nobody chose.
pub(super) fn ephemeral() -> io::Result<std::ops::RangeInclusive<u16>> {
    let text = sysctl("net/ipv4/ip_local_port_range")?;
    let mut ends = text.split_whitespace().map(str::parse);
    match (ends.next(), ends.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok(first..=last),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
