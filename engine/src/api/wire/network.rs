//! `GET /networks`, `GET /networks/{id}`.

use crate::{api::human, service::NetworkView};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(clippy::struct_excessive_bools, reason = "Docker's own struct has them")]
pub(in crate::api) struct Network {
    name: &'static str,
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
    containers: BTreeMap<String, Member>,
    options: BTreeMap<&'static str, String>,
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
    gateway: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ConfigFrom {
    network: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Member {
    name: String,
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
    mac_address: String,
    #[serde(rename = "IPv4Address")]
    ipv4_address: String,
    #[serde(rename = "IPv6Address")]
    ipv6_address: &'static str,
}

impl Network {
    /// `created`: when the engine began, nanoseconds since 1970. Docker lists
    /// the members of one network only (`detailed`).
    pub(in crate::api) fn of(view: NetworkView, created: i64, detailed: bool) -> Self {
        let bridge = view.bridge.as_ref();
        let config = bridge.map(|bridge| {
            vec![IpamConfig {
                subnet: bridge.subnet.to_string(),
                gateway: bridge.gateway.to_string(),
            }]
        });
        let mut options = BTreeMap::new();
        if let Some(bridge) = bridge {
            for (key, value) in [
                ("com.docker.network.bridge.default_bridge", "true"),
                ("com.docker.network.bridge.enable_icc", "true"),
                ("com.docker.network.bridge.enable_ip_masquerade", "true"),
                ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0"),
                ("com.docker.network.bridge.name", bridge.bridge.as_str()),
                ("com.docker.network.driver.mtu", "1500"),
            ] {
                options.insert(key, value.to_owned());
            }
        }
        let members = if detailed { view.members } else { Vec::new() };
        let members = members.into_iter().map(|(id, name, endpoint)| {
            let member = Member {
                name,
                endpoint_id: endpoint
                    .as_ref()
                    .map(|it| it.endpoint_id.to_string())
                    .unwrap_or_default(),
                mac_address: endpoint.as_ref().map(|it| it.mac.to_string()).unwrap_or_default(),
                ipv4_address: endpoint
                    .as_ref()
                    .map(|it| format!("{}/{}", it.address, it.prefix))
                    .unwrap_or_default(),
                ipv6_address: "",
            };
            (id.hex(), member)
        });
        Self {
            name: view.name,
            id: view.id.to_string(),
            created: human::moment(Some(created)),
            scope: "local",
            driver: view.driver,
            enable_ipv4: true,
            enable_ipv6: false,
            ipam: Ipam { driver: "default", options: None, config },
            internal: false,
            attachable: false,
            ingress: false,
            config_from: ConfigFrom { network: "" },
            config_only: false,
            containers: members.collect(),
            options,
            labels: BTreeMap::new(),
        }
    }
}
