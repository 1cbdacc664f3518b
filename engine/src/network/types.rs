//! What is asked of this room, and what it answers.

use crate::ids::{ContainerId, NetworkId, TenantName};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
    os::fd::OwnedFd,
    str::FromStr,
};

/// What an operator can turn.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// The operator's bridge, also the name of the firewall's table. At most
    /// 15 characters of `a-z A-Z 0-9 _ -`.
    pub bridge: String,
    /// Where subnets are cut from, beginning at the address as written.
    pub address_pool: Ipv4Net,
    /// Namespaces kept ready, each for mode none and the operator's bridge.
    /// Other tenants' bridges have one.
    pub ready: usize,
    /// Fences each interface before anything can come out of it.
    pub guard: tritium_probes::Guard,
}

/// How a container is connected. (`host` and `container:` need nothing of us.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A namespace with a loopback interface.
    None,
    /// That, and `eth0` on the tenant's bridge.
    Bridge,
}

/// Please connect a container.
#[derive(Debug, Clone)]
pub struct AttachRequest {
    pub container: ContainerId,
    pub tenant: TenantName,
    pub mode: Mode,
    /// `--mac-address`. Otherwise it follows from the address.
    pub mac: Option<Mac>,
    /// `-p`; ignored with [`Mode::None`], as Docker does.
    pub ports: Vec<PublishRequest>,
    /// Exactly this address. Otherwise the lowest free one.
    pub address: Option<Ipv4Addr>,
}

/// One `-p`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishRequest {
    pub container_port: u16,
    pub proto: Proto,
    /// Where the host listens. Otherwise everywhere (on IPv4).
    pub host_ip: Option<IpAddr>,
    /// One of these; none or 0 means any of the kernel's ephemeral ports.
    pub host_port: Option<RangeInclusive<u16>>,
}

/// One port as it is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Published {
    pub container_port: u16,
    pub proto: Proto,
    pub host_ip: Ipv4Addr,
    pub host_port: u16,
}

/// A container's place on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub network_id: NetworkId,
    pub endpoint_id: NetworkId,
    pub address: Ipv4Addr,
    /// Length of the subnet's prefix, in bits.
    pub prefix: u8,
    pub gateway: Ipv4Addr,
    pub mac: Mac,
    /// The host's end of the veth.
    pub host_interface: String,
}

/// A connected namespace. Whoever holds `netns` keeps it alive.
#[derive(Debug)]
pub struct Attachment {
    pub netns: OwnedFd,
    /// None with [`Mode::None`].
    pub endpoint: Option<Endpoint>,
    pub ports: Vec<Published>,
}

/// A tenant's network `bridge`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub id: NetworkId,
    /// The bridge's interface on the host.
    pub bridge: String,
    pub subnet: Ipv4Net,
    pub gateway: Ipv4Addr,
    /// Who is on it, by container.
    pub endpoints: Vec<(ContainerId, Endpoint)>,
}

/// What an interface has counted, seen from inside the container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

/// A transport protocol that can be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    Tcp,
    Udp,
}

impl Proto {
    /// Its number in an IP header (IANA).
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// An Ethernet address, as text `02:42:ac:11:00:02`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

/// The text is not six pairs of hexadecimal digits with colons between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an Ethernet address")]
pub struct BadMac;

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = BadMac;
    fn from_str(text: &str) -> Result<Self, BadMac> {
        let mut bytes = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut bytes {
            let pair = pairs.next().ok_or(BadMac)?;
            if pair.len() != 2 || !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(BadMac);
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| BadMac)?;
        }
        if pairs.next().is_some() { Err(BadMac) } else { Ok(Self(bytes)) }
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ethernet_address_reads_back_as_it_was_written() {
        let mac = Mac([2, 0x42, 0xac, 0x11, 0, 2]);
        assert_eq!(mac.to_string(), "02:42:ac:11:00:02");
        assert_eq!("02:42:AC:11:00:02".parse(), Ok(mac));
    }

    #[test]
    fn text_that_is_no_ethernet_address_is_refused() {
        for text in
            ["", "02:42:ac:11:00", "02:42:ac:11:00:02:03", "2:42:ac:11:0:2", "+2:42:ac:11:00:02"]
        {
            assert_eq!(text.parse::<Mac>(), Err(BadMac), "{text}");
        }
    }
}
