//! What a new network is to be: the request, checked and understood. Pure.

use super::endpoints::listed;
use crate::{
    error::Error,
    events,
    ids::{self, NetworkId, TenantName},
    network::{AddressPool, Definition, Driver, Network},
};
use ipnet::IpNet;
use std::{collections::BTreeMap, net::IpAddr};

const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker \
                        swarm join\" to connect this node to swarm and try again.";

/// What `POST /networks/create` asks.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "Docker's own struct has them")]
pub struct CreateNetwork {
    pub name: String,
    pub driver: String,
    pub scope: String,
    pub ipv4: Option<bool>,
    pub ipv6: bool,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    pub config_only: bool,
    pub config_from: String,
    pub ipam_driver: String,
    pub ipam_options: Option<BTreeMap<String, String>>,
    pub pools: Vec<IpamPool>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

/// One subnet, as text.
#[derive(Debug, Clone, Default)]
pub struct IpamPool {
    pub subnet: String,
    pub range: String,
    pub gateway: String,
    pub auxiliary: BTreeMap<String, String>,
}

/// `others`: the tenant's networks.
pub(super) fn plan(
    tenant: &TenantName,
    request: CreateNetwork,
    others: &[Network],
) -> Result<Definition, Error> {
    check_kind(&request)?;
    let from = configuration(&request, others)?;
    let pools = pools(&request.pools, &request.driver)?;
    let ipv4 = request.ipv4.unwrap_or(true);
    if !ipv4 && !request.ipv6 {
        return Err(Error::Invalid("IPv4 or IPv6 must be enabled".into()));
    }
    let driver = if request.config_only { Driver::Null } else { driver(&request.driver)? };
    let mut definition = Definition {
        id: NetworkId::of(ids::random()),
        tenant: tenant.clone(),
        name: request.name,
        created: events::now(),
        driver,
        ipv4,
        ipv6: request.ipv6,
        internal: request.internal,
        attachable: request.attachable,
        pools,
        ipam_options: request.ipam_options,
        options: request.options,
        labels: request.labels,
        config_only: request.config_only,
        config_from: request.config_from,
        zone: None,
    };
    if let Some(from) = from {
        definition.ipv4 = from.ipv4;
        definition.ipv6 = from.ipv6;
        definition.internal = from.internal;
        definition.attachable = from.attachable;
        definition.pools.clone_from(&from.pools);
        definition.ipam_options.clone_from(&from.ipam_options);
        definition.options.clone_from(&from.options);
        definition.labels.extend(from.labels.clone());
    }
    Ok(definition)
}

fn check_kind(request: &CreateNetwork) -> Result<(), Error> {
    let name = request.name.as_str();
    if name.trim().is_empty() {
        return Err(Error::Invalid("invalid name: name is empty".into()));
    }
    if ["bridge", "host", "none", "default"].contains(&name) || name.starts_with("container:") {
        return Err(Error::Denied(format!(
            "operation is not permitted on predefined {name} network "
        )));
    }
    // It is part of messages, records and JSON, and nothing else.
    if name.len() > 255 || name.chars().any(char::is_control) {
        return Err(Error::Invalid(format!("invalid name: {name:?}")));
    }
    if request.ingress {
        return Err(Error::Denied("Ingress network can only be global scope network".into()));
    }
    match request.scope.as_str() {
        "" | "local" => {}
        "swarm" => {
            return Err(Error::Denied(
                "cannot create a swarm scoped network when swarm is not active".into(),
            ));
        }
        other => return Err(Error::Invalid(format!("invalid network scope \"{other}\""))),
    }
    if !matches!(request.ipam_driver.as_str(), "" | "default") {
        return Err(Error::NotFound(format!("plugin \"{}\" not found", request.ipam_driver)));
    }
    Ok(())
}

fn driver(name: &str) -> Result<Driver, Error> {
    match name {
        "" | "default" | "bridge" => Ok(Driver::Bridge),
        "host" | "null" => {
            Err(Error::Denied(format!("only one instance of \"{name}\" network is allowed")))
        }
        "overlay" => Err(Error::Denied(NO_SWARM.into())),
        "macvlan" => Ok(Driver::Macvlan),
        "ipvlan" => Err(Error::Unsupported("networks of driver ipvlan are not built yet".into())),
        other => Err(Error::NotFound(format!("plugin \"{other}\" not found"))),
    }
}

/// The configuration that the network is to be made of.
fn configuration<'a>(
    request: &CreateNetwork,
    others: &'a [Network],
) -> Result<Option<&'a Definition>, Error> {
    if request.config_from.is_empty() {
        return Ok(None);
    }
    if request.config_only {
        return Err(Error::Denied(
            "a configuration network cannot depend on another configuration network".into(),
        ));
    }
    if !request.pools.is_empty() || !request.options.is_empty() {
        return Err(Error::Denied(
            "user specified configurations are not supported if the network depends on a \
             configuration network"
                .into(),
        ));
    }
    let wanted = |network: &&Network| {
        network.definition.config_only && network.definition.name == request.config_from
    };
    let missing = || {
        let name = &request.config_from;
        Error::NotFound(format!("configuration network \"{name}\" does not exist"))
    };
    let found = others.iter().find(wanted).ok_or_else(missing)?;
    Ok(Some(&found.definition))
}

fn pools(asked: &[IpamPool], driver: &str) -> Result<Vec<AddressPool>, Error> {
    let mut wrong = Vec::new();
    let pools: Vec<AddressPool> = asked.iter().filter_map(|pool| parse(pool, &mut wrong)).collect();
    if !wrong.is_empty() {
        return Err(Error::Invalid(listed("invalid network config", &wrong)));
    }
    let (four, six): (Vec<_>, Vec<_>) =
        pools.into_iter().partition(|pool| pool.subnet.addr().is_ipv4());
    for same in [&four, &six] {
        if let [first, second, ..] = same.as_slice() {
            let overlap =
                first.subnet.contains(&second.subnet) || second.subnet.contains(&first.subnet);
            return Err(if overlap {
                Error::Denied(
                    "invalid pool request: Pool overlaps with other one on this address space"
                        .into(),
                )
            } else if driver == "macvlan" {
                Error::Unsupported(
                    "several subnets of one version of IP on a network of driver macvlan are not \
                     built yet"
                        .into(),
                )
            } else {
                Error::Denied("bridge driver doesn't support multiple subnets".into())
            });
        }
    }
    Ok([four, six].concat())
}

fn parse(asked: &IpamPool, wrong: &mut Vec<String>) -> Option<AddressPool> {
    let text = &asked.subnet;
    let Ok(subnet) = text.parse::<IpNet>() else {
        wrong.push(format!("invalid subnet {text}: invalid CIDR block notation"));
        return None;
    };
    if subnet != subnet.trunc() {
        wrong.push(format!("invalid subnet {text}: it should be {}", subnet.trunc()));
    }
    let range = Some(&asked.range).filter(|range| !range.is_empty());
    let range = range.and_then(|text| parse_range(text, subnet, wrong));
    let mut inside = |what: &str, shown: &str, text: &str| {
        let Ok(address) = text.parse::<IpAddr>() else {
            wrong.push(format!("invalid {what} {shown}: invalid address"));
            return None;
        };
        if !subnet.contains(&address) {
            wrong.push(format!(
                "invalid {what} {shown}: parent subnet {subnet} doesn't contain this address"
            ));
        }
        Some(address)
    };
    let gateway = Some(&asked.gateway).filter(|gateway| !gateway.is_empty());
    let gateway = gateway.and_then(|text| inside("gateway", text, text));
    let auxiliary = asked.auxiliary.iter().filter_map(|(name, text)| {
        inside("auxiliary address", name, text).map(|address| (name.clone(), address))
    });
    let auxiliary = auxiliary.collect();
    Some(AddressPool { subnet, range, gateway, gateway_shown: true, auxiliary, chosen: true })
}

fn parse_range(text: &str, subnet: IpNet, wrong: &mut Vec<String>) -> Option<IpNet> {
    let Ok(range) = text.parse::<IpNet>() else {
        wrong.push(format!("invalid ip-range {text}: invalid CIDR block notation"));
        return None;
    };
    let same = range.addr().is_ipv4() == subnet.addr().is_ipv4();
    if same && range.prefix_len() < subnet.prefix_len() {
        wrong.push(format!(
            "invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}"
        ));
    } else if !subnet.contains(&range) {
        wrong.push(format!(
            "invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range"
        ));
    }
    if range != range.trunc() {
        wrong.push(format!("invalid ip-range {text}: it should be {}", range.trunc()));
    }
    Some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> CreateNetwork {
        CreateNetwork { name: "n".into(), ..CreateNetwork::default() }
    }

    fn refused(request: CreateNetwork) -> String {
        plan(&TenantName::operator(), request, &[]).unwrap_err().to_string()
    }

    fn pool(subnet: &str, range: &str, gateway: &str, auxiliary: &[(&str, &str)]) -> IpamPool {
        let auxiliary = auxiliary.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        IpamPool { subnet: subnet.into(), range: range.into(), gateway: gateway.into(), auxiliary }
    }

    fn said(pools: &[IpamPool]) -> String {
        refused(CreateNetwork { pools: pools.to_vec(), ..request() })
    }

    #[test]
    fn subnets_that_make_no_sense_are_refused_in_dockers_words() {
        let head = "invalid network config:";
        for (pools, words) in [
            (
                vec![pool("10.1.5.1/24", "", "", &[])],
                "\ninvalid subnet 10.1.5.1/24: it should be 10.1.5.0/24",
            ),
            (vec![pool("foo", "", "", &[])], "\ninvalid subnet foo: invalid CIDR block notation"),
            (
                vec![
                    pool("", "", "10.1.1.1", &[]),
                    pool("10.2.3.0/24", "10.9.0.0/24", "1.1.1.1", &[("a", "b"), ("c", "10.3.3.3")]),
                ],
                "\n* invalid subnet : invalid CIDR block notation\
                 \n* invalid ip-range 10.9.0.0/24: parent subnet 10.2.3.0/24 doesn't contain ip-range\
                 \n* invalid gateway 1.1.1.1: parent subnet 10.2.3.0/24 doesn't contain this address\
                 \n* invalid auxiliary address a: invalid address\
                 \n* invalid auxiliary address c: parent subnet 10.2.3.0/24 doesn't contain this address",
            ),
            (
                vec![pool("10.63.0.0/16", "10.63.1.0/8", "", &[])],
                "\n* invalid ip-range 10.63.1.0/8: CIDR block is bigger than its parent subnet \
                 10.63.0.0/16\n* invalid ip-range 10.63.1.0/8: it should be 10.0.0.0/8",
            ),
        ] {
            assert_eq!(said(&pools), format!("{head}{words}"));
        }
        let two = ["10.2.0.0/16", "10.3.0.0/16"].map(|subnet| pool(subnet, "", "", &[]));
        assert_eq!(said(&two), "bridge driver doesn't support multiple subnets");
        let macvlan = CreateNetwork { driver: "macvlan".into(), ..request() };
        let unbuilt = refused(CreateNetwork { pools: two.to_vec(), ..macvlan });
        assert!(unbuilt.ends_with("are not built yet"), "{unbuilt}");
        let twice = ["10.2.0.0/16", "10.2.3.0/24"].map(|subnet| pool(subnet, "", "", &[]));
        assert!(said(&twice).contains("Pool overlaps with other one"));
    }

    #[test]
    fn what_cannot_be_a_network_is_refused_in_dockers_words() {
        let base = request();
        for (request, words) in [
            (CreateNetwork { name: String::new(), ..base.clone() }, "invalid name: name is empty"),
            (
                CreateNetwork { name: "host".into(), ..base.clone() },
                "operation is not permitted on predefined host network ",
            ),
            (CreateNetwork { driver: "foo".into(), ..base.clone() }, "plugin \"foo\" not found"),
            (
                CreateNetwork { driver: "host".into(), ..base.clone() },
                "only one instance of \"host\" network is allowed",
            ),
            (
                CreateNetwork { driver: "ipvlan".into(), ..base.clone() },
                "networks of driver ipvlan are not built yet",
            ),
            (CreateNetwork { ipv4: Some(false), ..base.clone() }, "IPv4 or IPv6 must be enabled"),
            (
                CreateNetwork { config_from: "x".into(), ..base.clone() },
                "configuration network \"x\" does not exist",
            ),
        ] {
            assert_eq!(refused(request), words);
        }
        for name in ["a\nb".to_owned(), "a".repeat(256), "container:x".into()] {
            refused(CreateNetwork { name, ..base.clone() });
        }
    }

    #[test]
    fn both_versions_of_ip_stand_in_dockers_order() {
        let pools = ["fd11::/64", "10.51.0.0/24"].map(|subnet| pool(subnet, "", "", &[]));
        let request = CreateNetwork { pools: pools.to_vec(), ipv6: true, ..request() };
        let planned = plan(&TenantName::operator(), request, &[]).unwrap();
        let subnets: Vec<String> = planned.pools.iter().map(|it| it.subnet.to_string()).collect();
        assert_eq!(subnets, ["10.51.0.0/24", "fd11::/64"]);
        assert!(planned.pools.iter().all(|pool| pool.chosen && pool.gateway.is_none()));
    }
}
