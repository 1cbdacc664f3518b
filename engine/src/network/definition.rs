//! What a network is to be: what its record keeps, and what its options mean.

use super::{Error, zones::Zone};
use crate::ids::{NetworkId, TenantName};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

/// Options of networks, as Docker's users spell them.
const MTU: &str = "com.docker.network.driver.mtu";
const PREFIX: &str = "com.docker.network.container_iface_prefix";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const INHIBIT: &str = "com.docker.network.bridge.inhibit_ipv4";
/// The name of a network's bridge.
pub const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const GATEWAY_MODES: [&str; 2] =
    ["com.docker.network.bridge.gateway_mode_ipv4", "com.docker.network.bridge.gateway_mode_ipv6"];

/// What makes a network's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    Bridge,
    /// One of the host's interfaces, which containers are on beside the host.
    Macvlan,
    /// The host's own network.
    Host,
    /// Nothing: network `none`, and networks that are only a configuration.
    Null,
}

impl Driver {
    /// Docker's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Macvlan => "macvlan",
            Self::Host => "host",
            Self::Null => "null",
        }
    }

    /// Whether containers have addresses on its networks, and can come and go.
    #[must_use]
    pub fn is_joined(self) -> bool {
        match self {
            Self::Bridge | Self::Macvlan => true,
            Self::Host | Self::Null => false,
        }
    }
}

/// A network of a tenant's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "Docker's own struct has them")]
pub struct Definition {
    pub id: NetworkId,
    pub tenant: TenantName,
    pub name: String,
    /// Nanoseconds since 1970.
    pub created: i64,
    pub driver: Driver,
    pub ipv4: bool,
    pub ipv6: bool,
    /// No way in or out but to each other and to the bridge.
    pub internal: bool,
    pub attachable: bool,
    /// At most one of each version of IP.
    pub pools: Vec<AddressPool>,
    pub ipam_options: Option<BTreeMap<String, String>>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// A configuration for other networks, and nothing else.
    pub config_only: bool,
    /// The configuration that this one is made of; empty if none.
    pub config_from: String,
    /// Some of its addresses are another tenant's, too, who had them first.
    #[serde(default)]
    pub zone: Option<Zone>,
}

/// A subnet, and who has what of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPool {
    pub subnet: IpNet,
    /// Where addresses that nobody chose are from.
    pub range: Option<IpNet>,
    /// The bridge's own, or somebody's on the Ethernet of macvlans. None until
    /// the network is made if nobody chose it.
    pub gateway: Option<IpAddr>,
    /// Docker shows the gateway only if the user chose it, or chose nothing.
    pub gateway_shown: bool,
    /// Used by others, by name.
    pub auxiliary: BTreeMap<String, IpAddr>,
    /// The user chose the subnet, and so may choose addresses of it.
    pub chosen: bool,
}

impl Default for AddressPool {
    fn default() -> Self {
        Self {
            subnet: IpNet::default(),
            range: None,
            gateway: None,
            gateway_shown: true,
            auxiliary: BTreeMap::new(),
            chosen: false,
        }
    }
}

impl Definition {
    /// The subnets that addresses are from: not those of a version of IP that
    /// the network does not have.
    pub fn used_pools(&self) -> impl Iterator<Item = &AddressPool> {
        self.pools.iter().filter(|pool| self.has(pool.subnet.addr().is_ipv4()))
    }

    /// The subnet of one version of IP.
    #[must_use]
    pub fn pool(&self, ipv4: bool) -> Option<&AddressPool> {
        self.used_pools().find(|pool| pool.subnet.addr().is_ipv4() == ipv4)
    }

    pub(super) fn has(&self, ipv4: bool) -> bool {
        if ipv4 { self.ipv4 } else { self.ipv6 }
    }
}

/// What the options of a network mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) mtu: Option<u32>,
    /// Containers reach each other.
    pub(super) icc: bool,
    /// What leaves has the host's address.
    pub(super) masquerade: bool,
    /// Where ports are published when the user names no address.
    pub(super) binding: Option<Ipv4Addr>,
    pub(super) bridge: Option<String>,
    /// What interfaces inside are called before their number.
    pub(super) prefix: String,
}

impl Settings {
    /// # Errors
    /// Docker's words for a value that makes no sense.
    pub(super) fn of(options: &BTreeMap<String, String>) -> Result<Self, Error> {
        let given = |key: &str| options.get(key).map(String::as_str).filter(|it| !it.is_empty());
        for key in GATEWAY_MODES {
            if given(key).is_some_and(|mode| mode != "nat") {
                return Err(Error::Unbuilt(format!("{key} other than nat")));
            }
        }
        if given(INHIBIT).map(|text| flag(INHIBIT, text)).transpose()? == Some(true) {
            return Err(Error::Unbuilt(INHIBIT.into()));
        }
        let prefix = given(PREFIX).unwrap_or("eth");
        if prefix.len() > 10 || !prefix.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(bad(PREFIX, prefix, "invalid interface name"));
        }
        Ok(Self {
            mtu: given(MTU).map(mtu).transpose()?.flatten(),
            icc: given(ICC).map_or(Ok(true), |text| flag(ICC, text))?,
            masquerade: given(MASQUERADE).map_or(Ok(true), |text| flag(MASQUERADE, text))?,
            binding: given(BINDING).map(binding).transpose()?,
            bridge: given(BRIDGE_NAME).map(str::to_owned),
            prefix: prefix.to_owned(),
        })
    }
}

fn bad(key: &str, value: &str, why: &str) -> Error {
    Error::Option(format!("failed to parse {key} value: {value} ({why})"))
}

/// Go's `strconv.ParseBool`.
fn flag(key: &str, value: &str) -> Result<bool, Error> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(bad(key, value, &format!("strconv.ParseBool: parsing {value:?}: invalid syntax"))),
    }
}

fn mtu(value: &str) -> Result<Option<u32>, Error> {
    let number = i64::from_str(value);
    let number = number.map_err(|_| {
        bad(MTU, value, &format!("strconv.Atoi: parsing {value:?}: invalid syntax"))
    })?;
    match u32::try_from(number) {
        Ok(0) => Ok(None),
        // What a veth can have (`ETH_MIN_MTU`, `ETH_MAX_MTU`).
        Ok(mtu) if (68..=65_535).contains(&mtu) => Ok(Some(mtu)),
        Ok(_) | Err(_) => Err(Error::Option(format!("invalid MTU number: {number}"))),
    }
}

fn binding(value: &str) -> Result<Ipv4Addr, Error> {
    value.parse().map_err(|_| bad(BINDING, value, "nil ip"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(key: &str, value: &str) -> Result<Settings, Error> {
        Settings::of(&[(key.to_owned(), value.to_owned())].into())
    }

    #[test]
    fn options_mean_what_they_mean_to_docker() {
        let plain = Settings::of(&BTreeMap::new()).unwrap();
        assert!(plain.icc && plain.masquerade && plain.mtu.is_none());
        assert_eq!(settings(MTU, "1400").unwrap().mtu, Some(1400));
        assert_eq!(settings(MTU, "0").unwrap().mtu, None);
        assert!(!settings(ICC, "f").unwrap().icc);
        assert!(!settings(MASQUERADE, "False").unwrap().masquerade);
        assert_eq!(settings(BINDING, "127.0.0.1").unwrap().binding, Some(Ipv4Addr::LOCALHOST));
        assert_eq!(settings("unknown", "x").unwrap(), plain);
    }

    #[test]
    fn an_option_that_makes_no_sense_is_refused_in_dockers_words() {
        for (key, value, words) in [
            (MTU, "abc", "strconv.Atoi: parsing \"abc\": invalid syntax"),
            (ICC, "abc", "strconv.ParseBool: parsing \"abc\": invalid syntax"),
            (BINDING, "abc", "nil ip"),
        ] {
            let said = settings(key, value).unwrap_err().to_string();
            assert_eq!(said, format!("failed to parse {key} value: abc ({words})"));
        }
        for (key, value) in
            [(MTU, "67"), (MTU, "-1"), (MTU, "65536"), (PREFIX, "a/b"), (PREFIX, "01234567890")]
        {
            settings(key, value).unwrap_err();
        }
        let unbuilt = settings(GATEWAY_MODES[0], "routed").unwrap_err();
        assert!(matches!(unbuilt, Error::Unbuilt(_)));
    }
}
