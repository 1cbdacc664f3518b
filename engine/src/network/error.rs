//! How connecting a container can fail.

use crate::error::Error as Outer;
use ipnet::IpNet;
use std::{io, net::IpAddr};

/// What went wrong, in Docker's words where Docker has words for it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another container has published it.
    #[error("Bind for {}:{port} failed: port is already allocated", bracketed(ip))]
    PortAllocated { ip: IpAddr, port: u16 },
    /// All of a range are taken, by containers or by the host.
    #[error("all ports are allocated")]
    RangeTaken { ip: IpAddr, first: u16, last: u16 },
    /// Something else on the host has it, or the host has no such address.
    #[error(
        "failed to bind host port for {}:{port}:{}:{container_port}/{proto}: {why}",
        bracketed(ip),
        bracketed(to)
    )]
    Bind {
        ip: IpAddr,
        port: u16,
        to: IpAddr,
        container_port: u16,
        proto: super::Proto,
        /// The kernel's reason, in lower case as Go prints it.
        why: String,
    },
    /// The container has no address of that version of IP.
    #[error(
        "cannot publish on {0}: the container has no IPv6 address, and nothing here copies \
         between versions of IP"
    )]
    NoIpv6(IpAddr),
    /// Every address of the subnet is taken.
    #[error(
        "no available IPv{version} addresses on this network's address pools: {network} ({id})"
    )]
    NoAddress { version: u8, network: String, id: crate::ids::NetworkId },
    /// The address that was asked for is taken.
    #[error("Address already in use")]
    AddressInUse(IpAddr),
    /// The address that was asked for is not in the subnet.
    #[error("invalid address {address}: It does not belong to any of this network's subnets")]
    AddressOutside { address: IpAddr },
    /// There is no such network, or it is another tenant's.
    #[error("network {0} not found")]
    NoNetwork(String),
    #[error("network {0} is ambiguous")]
    Ambiguous(String),
    #[error("network with name {0} already exists")]
    NetworkExists(String),
    /// No subnet is free for a network whose user chose none.
    #[error("all predefined address pools have been fully subnetted")]
    NoPool,
    /// A subnet that was asked for is somebody's already, perhaps the host's.
    #[error("invalid pool request: Pool overlaps with other one on this address space")]
    PoolOverlaps,
    #[error("failed to allocate gateway ({0}): Address already in use")]
    GatewayInUse(IpAddr),
    #[error("failed to allocate secondary ip address ({name}:{address}): Address already in use")]
    AuxiliaryInUse { name: String, address: IpAddr },
    /// Containers are on it.
    #[error("network {name} has active endpoints")]
    Active { name: String, endpoints: Vec<(crate::ids::ContainerId, crate::ids::NetworkId)> },
    /// Other networks are made of it.
    #[error("configuration network \"{0}\" is in use")]
    ConfigurationInUse(String),
    /// An option of a network makes no sense.
    #[error("{0}")]
    Option(String),
    /// Docker has it, we do not.
    #[error("{0} is not built")]
    Unbuilt(String),
    #[error("container {container} is not connected to network {network}")]
    NotConnected { container: crate::ids::ContainerId, network: String },
    /// The container is attached already.
    #[error("container {0} is attached to a network already")]
    Attached(crate::ids::ContainerId),
    /// The pool is used up, by us or by the host's own routes.
    #[error("no subnet of {0} is free")]
    NoSubnet(IpNet),
    /// An interface of that name exists and is not this engine's.
    #[error("the interface {0} exists already and is not this engine's bridge")]
    ForeignInterface(String),
    /// Only one network can be on a macvlan's parent in mode passthru.
    #[error("{0}")]
    ParentInUse(String),
    /// A macvlan's parent has gone.
    #[error("the requested parent interface {0} was not found on the host")]
    NoParent(String),
    /// The kernel was built without, and has no module.
    #[error("this kernel has no {kind} interfaces ({option})")]
    NoKind { kind: &'static str, option: &'static str },
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
    pub(super) fn bind(port: &super::Published, to: IpAddr, errno: nix::errno::Errno) -> Self {
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

/// An address as it stands before a port.
fn bracketed(ip: &IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

impl From<Error> for Outer {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Unbuilt(_) | Error::NoKind { .. } => Self::Unsupported(text),
            Error::AddressOutside { .. }
            | Error::Option(_)
            | Error::Ambiguous(_)
            | Error::NoPool
            | Error::NoIpv6(_) => Self::Invalid(text),
            Error::AddressInUse(_)
            | Error::PoolOverlaps
            | Error::GatewayInUse(_)
            | Error::AuxiliaryInUse { .. }
            | Error::Active { .. }
            | Error::ConfigurationInUse(_)
            | Error::ForeignInterface(_)
            | Error::ParentInUse(_)
            | Error::NotConnected { .. } => Self::Denied(text),
            Error::NoNetwork(_) => Self::NotFound(text),
            Error::Attached(_) | Error::NetworkExists(_) => Self::Conflict(text),
            Error::Stopped => Self::Unavailable(text),
            Error::PortAllocated { .. }
            | Error::RangeTaken { .. }
            | Error::Bind { .. }
            | Error::NoAddress { .. }
            | Error::NoSubnet(_)
            | Error::NoParent(_)
            | Error::BridgeName(_)
            | Error::Kernel { .. } => Self::internal(text, error),
        }
    }
}
