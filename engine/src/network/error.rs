//! How connecting a container can fail.

use crate::error::Error as Outer;
use ipnet::Ipv4Net;
use std::{
    io,
    net::{IpAddr, Ipv4Addr},
};

/// What went wrong, in Docker's words where Docker has words for it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another container has published it.
    #[error("Bind for {ip}:{port} failed: port is already allocated")]
    PortAllocated { ip: Ipv4Addr, port: u16 },
    /// All of a range are taken, by containers or by the host.
    #[error("all ports are allocated")]
    RangeTaken { ip: Ipv4Addr, first: u16, last: u16 },
    /// Something else on the host has it, or the host has no such address.
    #[error("failed to bind host port for {ip}:{port}:{to}:{container_port}/{proto}: {why}")]
    Bind {
        ip: Ipv4Addr,
        port: u16,
        to: Ipv4Addr,
        container_port: u16,
        proto: super::Proto,
        /// The kernel's reason, in lower case as Go prints it.
        why: String,
    },
    /// Publishing on IPv6 is not built.
    #[error("publishing ports on the IPv6 address {0} is not supported")]
    Ipv6(IpAddr),
    /// Every address of the subnet is taken.
    #[error("no available IPv4 addresses on this network's address pools: {network} ({id})")]
    NoAddress { network: &'static str, id: crate::ids::NetworkId },
    /// The address that was asked for is taken.
    #[error("Address already in use")]
    AddressInUse(Ipv4Addr),
    /// The address that was asked for is not in the subnet, or not a host's.
    #[error("invalid address {address}: It does not belong to any of this network's subnets")]
    AddressOutside { address: Ipv4Addr, subnet: Ipv4Net },
    /// The container is attached already.
    #[error("container {0} is attached to a network already")]
    Attached(crate::ids::ContainerId),
    /// The pool is used up, by us or by the host's own routes.
    #[error("no subnet of {0} is free")]
    NoSubnet(Ipv4Net),
    /// An interface of that name exists and is not this engine's.
    #[error("the interface {0} exists already and is not this engine's bridge")]
    ForeignInterface(String),
    /// The configured name cannot be an interface's.
    #[error("{0:?} cannot be a bridge's name: 1 to 15 of a-z, A-Z, 0-9, _ and -")]
    BridgeName(String),
    /// The kernel refused.
    #[error("cannot {doing}")]
    Kernel {
        /// What was being done, and to what.
        doing: String,
        source: io::Error,
    },
    /// The engine is stopping.
    #[error("the networks are stopped")]
    Stopped,
}

impl Error {
    /// The host does not let us have `port`, which was to lead `to` a container.
    pub(super) fn bind(port: &super::Published, to: Ipv4Addr, errno: nix::errno::Errno) -> Self {
        Self::Bind {
            ip: port.host_ip,
            port: port.host_port,
            to,
            container_port: port.container_port,
            proto: port.proto,
            why: errno.desc().to_lowercase(),
        }
    }

    /// The kernel refused while `doing` something.
    pub(super) fn kernel(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Kernel { doing: doing.into(), source: source.into() }
    }
}

impl From<Error> for Outer {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Ipv6(_) => Self::Unsupported(text),
            Error::AddressOutside { .. } => Self::Invalid(text),
            Error::AddressInUse(_) => Self::Denied(text),
            Error::Attached(_) => Self::Conflict(text),
            Error::Stopped => Self::Unavailable(text),
            Error::PortAllocated { .. }
            | Error::RangeTaken { .. }
            | Error::Bind { .. }
            | Error::NoAddress { .. }
            | Error::NoSubnet(_)
            | Error::ForeignInterface(_)
            | Error::BridgeName(_)
            | Error::Kernel { .. } => Self::internal(text, error),
        }
    }
}
