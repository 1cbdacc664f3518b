//! Bridges, addresses, published ports.

use crate::ids::NetworkId;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};

/// One container's place on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub network_id: NetworkId,
    pub endpoint_id: NetworkId,
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub gateway: Ipv4Addr,
    /// `02:42:ac:11:00:02`.
    pub mac: String,
    /// Name of the host's end of the veth pair.
    pub host_interface: String,
}

/// One port of a container that the host offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub container_port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    pub host_ip: IpAddr,
    pub host_port: u16,
}
