//! `GET /networks`, `GET /networks/{id}`, and what is sent to them.

use crate::{
    api::human,
    service::{
        CreateNetwork, IpamPool, Member, NetworkView,
        seen::{AddressPool, Definition},
    },
    spec::EndpointSettings,
};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(clippy::struct_excessive_bools, reason = "Docker's own struct has them")]
pub(in crate::api) struct Network {
    name: String,
    id: String,
    created: String,
    scope: &'static str,
    driver: &'static str,
    #[serde(rename = "EnableIPv4")]
    enable_ipv4: bool,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    ipam: Ipam,
    internal: bool,
    attachable: bool,
    ingress: bool,
    config_from: ConfigFrom,
    config_only: bool,
    containers: BTreeMap<String, MemberOf>,
    options: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ipam {
    driver: &'static str,
    options: Option<BTreeMap<String, String>>,
    config: Option<Vec<IpamConfig>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct IpamConfig {
    subnet: String,
    #[serde(rename = "IPRange", skip_serializing_if = "Option::is_none")]
    range: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
    #[serde(rename = "AuxiliaryAddresses", skip_serializing_if = "BTreeMap::is_empty")]
    auxiliary: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ConfigFrom {
    network: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct MemberOf {
    name: String,
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
    mac_address: String,
    #[serde(rename = "IPv4Address")]
    ipv4_address: String,
    #[serde(rename = "IPv6Address")]
    ipv6_address: String,
}

impl From<&AddressPool> for IpamConfig {
    fn from(pool: &AddressPool) -> Self {
        let gateway = pool.gateway.filter(|_| pool.gateway_shown);
        let auxiliary = pool.auxiliary.iter();
        Self {
            subnet: pool.subnet.to_string(),
            range: pool.range.map(|range| range.to_string()),
            gateway: gateway.map(|gateway| gateway.to_string()),
            auxiliary: auxiliary.map(|(name, ip)| (name.clone(), ip.to_string())).collect(),
        }
    }
}

impl From<Member> for MemberOf {
    fn from(member: Member) -> Self {
        let mut shown = Self {
            name: member.name,
            endpoint_id: String::new(),
            mac_address: String::new(),
            ipv4_address: String::new(),
            ipv6_address: String::new(),
        };
        if let Some(endpoint) = member.endpoint {
            shown.endpoint_id = endpoint.endpoint_id.to_string();
            shown.mac_address = endpoint.mac.to_string();
            if let Some(address) = endpoint.address {
                shown.ipv4_address = format!("{address}/{}", endpoint.prefix);
            }
            if let Some(address) = endpoint.address6 {
                shown.ipv6_address = format!("{address}/{}", endpoint.prefix6);
            }
        }
        shown
    }
}

impl Network {
    /// Docker lists the members of one network only (`detailed`).
    pub(in crate::api) fn of(view: NetworkView, detailed: bool) -> Self {
        let members = if detailed { view.members } else { Vec::new() };
        let Definition { name, id, created, driver, pools, options, labels, .. } =
            view.network.definition.clone();
        let definition = view.network.definition;
        let config: Vec<IpamConfig> = pools.iter().map(IpamConfig::from).collect();
        let bare = definition.pools.is_empty() && !definition.config_only;
        Self {
            name,
            id: id.to_string(),
            created: human::moment(Some(created)),
            scope: "local",
            driver: driver.name(),
            enable_ipv4: definition.ipv4,
            enable_ipv6: definition.ipv6,
            ipam: Ipam {
                driver: "default",
                options: definition.ipam_options,
                config: (!bare).then_some(config),
            },
            internal: definition.internal,
            attachable: definition.attachable,
            ingress: false,
            config_from: ConfigFrom { network: definition.config_from },
            config_only: definition.config_only,
            containers: members.into_iter().map(|it| (it.id.hex(), it.into())).collect(),
            options,
            labels,
        }
    }
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// `POST /networks/create`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[expect(clippy::struct_excessive_bools, reason = "Docker's own struct has them")]
pub(in crate::api) struct CreateBody {
    #[serde(deserialize_with = "null_is_default")]
    name: String,
    #[serde(deserialize_with = "null_is_default")]
    driver: String,
    #[serde(deserialize_with = "null_is_default")]
    scope: String,
    #[serde(rename = "EnableIPv4")]
    ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6", deserialize_with = "null_is_default")]
    ipv6: bool,
    #[serde(deserialize_with = "null_is_default")]
    internal: bool,
    #[serde(deserialize_with = "null_is_default")]
    attachable: bool,
    #[serde(deserialize_with = "null_is_default")]
    ingress: bool,
    #[serde(deserialize_with = "null_is_default")]
    config_only: bool,
    #[serde(deserialize_with = "null_is_default")]
    config_from: ConfigFromBody,
    #[serde(rename = "IPAM", deserialize_with = "null_is_default")]
    ipam: IpamBody,
    #[serde(deserialize_with = "null_is_default")]
    options: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_is_default")]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ConfigFromBody {
    #[serde(deserialize_with = "null_is_default")]
    network: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct IpamBody {
    #[serde(deserialize_with = "null_is_default")]
    driver: String,
    options: Option<BTreeMap<String, String>>,
    #[serde(deserialize_with = "null_is_default")]
    config: Vec<IpamConfigBody>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct IpamConfigBody {
    #[serde(deserialize_with = "null_is_default")]
    subnet: String,
    #[serde(rename = "IPRange", deserialize_with = "null_is_default")]
    range: String,
    #[serde(deserialize_with = "null_is_default")]
    gateway: String,
    #[serde(rename = "AuxiliaryAddresses", deserialize_with = "null_is_default")]
    auxiliary: BTreeMap<String, String>,
}

impl From<CreateBody> for CreateNetwork {
    fn from(body: CreateBody) -> Self {
        let pools = body.ipam.config.into_iter().map(|pool| IpamPool {
            subnet: pool.subnet,
            range: pool.range,
            gateway: pool.gateway,
            auxiliary: pool.auxiliary,
        });
        Self {
            name: body.name,
            driver: body.driver,
            scope: body.scope,
            ipv4: body.ipv4,
            ipv6: body.ipv6,
            internal: body.internal,
            attachable: body.attachable,
            ingress: body.ingress,
            config_only: body.config_only,
            config_from: body.config_from.network,
            ipam_driver: body.ipam.driver,
            ipam_options: body.ipam.options,
            pools: pools.collect(),
            options: body.options,
            labels: body.labels,
        }
    }
}

/// `POST /networks/{id}/connect`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(in crate::api) struct ConnectBody {
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::api) container: String,
    pub(in crate::api) endpoint_config: Option<EndpointSettings>,
}

/// `POST /networks/{id}/disconnect`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(in crate::api) struct DisconnectBody {
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::api) container: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::api) force: bool,
}
