//! What is asked of this room, and what it answers.

use super::Definition;
use crate::ids::{ContainerId, NetworkId, TenantName};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
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
    /// Where subnets that nobody chose are cut from, beginning at the address
    /// as written. (Those of IPv6 are from a unique local prefix of this host's.)
    pub address_pool: Ipv4Net,
    /// Namespaces kept ready, each bare and for the operator's bridge. Other
    /// tenants' default bridges have one, networks that users make none.
    pub ready: usize,
    /// Fences each interface before anything can come out of it.
    pub guard: tritium_probes::Guard,
}

/// Please connect a container. (`host` and `container:` need nothing of us.)
#[derive(Debug, Clone)]
pub struct AttachRequest {
    pub container: ContainerId,
    pub tenant: TenantName,
    /// The first is `eth0`. None: only loopback.
    pub endpoints: Vec<EndpointRequest>,
    /// `-p`; of no effect without a way out, as in Docker.
    pub ports: Vec<PublishRequest>,
}

/// Please connect it to this network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointRequest {
    /// Its name or id.
    pub network: String,
    /// `--mac-address`. Otherwise it follows from the address.
    pub mac: Option<Mac>,
    /// Exactly these addresses. Otherwise the lowest free ones.
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    /// The way out is by the network of the highest.
    pub priority: i64,
    /// Where frames do not leave by the host's end of a veth: whether they are
    /// judged inside. Whoever may change interfaces could turn that off anyway.
    pub fenced: bool,
}

/// One `-p`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishRequest {
    pub container_port: u16,
    pub proto: Proto,
    /// Where the host listens. Otherwise everywhere, on each version of IP
    /// that the container has.
    pub host_ip: Option<IpAddr>,
    /// One of these; none or 0 means any of the kernel's ephemeral ports.
    pub host_port: Option<RangeInclusive<u16>>,
}

/// One port as it is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Published {
    pub container_port: u16,
    pub proto: Proto,
    pub host_ip: IpAddr,
    pub host_port: u16,
}

/// A container's place on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub network_id: NetworkId,
    /// The network's name.
    #[serde(default = "default_network")]
    pub network: String,
    /// The network has no way out.
    #[serde(default)]
    pub internal: bool,
    /// Those on it may not talk to each other.
    #[serde(default)]
    pub isolated: bool,
    pub endpoint_id: NetworkId,
    pub address: Option<Ipv4Addr>,
    /// Length of the subnet's prefix, in bits; 0 without an address.
    pub prefix: u8,
    pub gateway: Option<Ipv4Addr>,
    #[serde(default)]
    pub address6: Option<Ipv6Addr>,
    #[serde(default)]
    pub prefix6: u8,
    #[serde(default)]
    pub gateway6: Option<Ipv6Addr>,
    pub mac: Mac,
    /// As it is called inside.
    #[serde(default = "first_interface")]
    pub interface: String,
    /// The host's end of the veth; empty for a macvlan, which has none.
    pub host_interface: String,
    /// Of a macvlan, its index inside: on this host no other interface's is the
    /// same, so that it can be told by it where names and indices of different
    /// namespaces meet.
    #[serde(default)]
    pub index: Option<u32>,
    #[serde(default)]
    pub priority: i64,
}

fn default_network() -> String {
    super::DEFAULT.into()
}

fn first_interface() -> String {
    "eth0".into()
}

impl Endpoint {
    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.address.map(IpAddr::V4).into_iter().chain(self.address6.map(IpAddr::V6))
    }
}

/// A connected namespace. Whoever holds `netns` keeps it alive.
#[derive(Debug)]
pub struct Attachment {
    pub netns: OwnedFd,
    /// In the order in which they were asked for.
    pub endpoints: Vec<Endpoint>,
    pub ports: Vec<Published>,
}

/// What a running container has after it was connected to one more network.
#[derive(Debug)]
pub struct Connected {
    pub endpoint: Endpoint,
    /// All of its ports: they follow the way out.
    pub ports: Vec<Published>,
}

/// A network, and what is there of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub definition: Definition,
    /// The bridge's interface on the host; empty if it has none.
    pub bridge: String,
    /// Who is on it, by container.
    pub endpoints: Vec<(ContainerId, Endpoint)>,
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
