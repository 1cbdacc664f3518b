//! What is asked of a container's places on networks: resolved and checked.

use super::{CreateContainer, Scope};
use crate::{
    container::{EndpointRecord, link_parts},
    error::Error,
    network::{DEFAULT, Definition, Network},
    spec::{Config, EndpointSettings, HostConfig, NetworkingConfig},
};
use std::{collections::BTreeMap, net::IpAddr};

/// The endpoints of a new container, by the names of their networks. A network
/// that does not exist (yet) is found missing when the container starts.
pub(super) fn plan(
    config: &Config,
    host: &HostConfig,
    asked: &NetworkingConfig,
    networks: &[Network],
) -> Result<BTreeMap<String, EndpointRecord>, Error> {
    let mode = host.network_mode.as_str();
    if mode.starts_with("container:") || config.network_disabled == Some(true) {
        return Ok(BTreeMap::new());
    }
    let first = named(networks, mode);
    let mut endpoints = BTreeMap::new();
    let entry = EndpointRecord { first: true, ..EndpointRecord::default() };
    endpoints.insert(first.clone(), entry);
    for (reference, settings) in &asked.endpoints_config {
        let name = named(networks, reference);
        if name != first && (mode == "host" || mode == "none") {
            return Err(Error::Invalid(
                "conflicting options: cannot attach both user-defined and non-user-defined \
                 network-modes"
                    .into(),
            ));
        }
        let settings = settings.clone().unwrap_or_default();
        check_built(&settings)?;
        let network = networks.iter().find(|network| network.definition.name == name);
        if let Some(network) = network {
            check(&network.definition, &settings).map_err(|said| {
                Error::Invalid(format!("invalid config for network {name}: {said}"))
            })?;
        }
        endpoints.entry(name).or_default().asked = settings;
    }
    Ok(endpoints)
}

/// The network's name, if there is such a network; else what it was called.
fn named(networks: &[Network], reference: &str) -> String {
    if reference == "default" {
        return DEFAULT.to_owned();
    }
    let of = |network: &Network| network.definition.name.clone();
    find(networks, reference).ok().flatten().map_or_else(|| reference.to_owned(), of)
}

/// By name, id or a prefix of an id that is one only. None: there is none.
///
/// # Errors
/// `Invalid` for an ambiguous prefix.
pub(super) fn find<'a>(
    networks: &'a [Network],
    reference: &str,
) -> Result<Option<&'a Network>, Error> {
    let by_name = networks.iter().find(|network| network.definition.name == reference);
    if by_name.is_some() || reference.is_empty() {
        return Ok(by_name);
    }
    let id = |network: &&Network| network.definition.id.to_string().starts_with(reference);
    let mut fitting = networks.iter().filter(id);
    match (fitting.next(), fitting.next()) {
        (Some(_), Some(_)) => Err(Error::Invalid(format!("network {reference} is ambiguous"))),
        (network, _) => Ok(network),
    }
}

/// Options of one endpoint that Docker has and we do not.
const UNBUILT: [&str; 2] =
    ["com.docker.network.endpoint.ifname", "com.docker.network.endpoint.sysctls"];

/// # Errors
/// `Unsupported`, naming the option.
pub(super) fn check_built(asked: &EndpointSettings) -> Result<(), Error> {
    let mut given = asked.driver_opts.iter().flatten().map(|(key, _)| key.as_str());
    match given.find(|key| UNBUILT.contains(key)) {
        Some(key) => Err(Error::Unsupported(format!("the option {key} is not built yet"))),
        None => Ok(()),
    }
}

/// What makes no sense of the settings on this network, in Docker's words.
pub(super) fn check(network: &Definition, asked: &EndpointSettings) -> Result<(), String> {
    let mut wrong = Vec::new();
    let users = network.driver.is_joined() && network.name != DEFAULT;
    if asked.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty()) && !users {
        wrong.push(
            "network-scoped alias is supported only for containers in user defined networks"
                .to_owned(),
        );
    }
    let ipam = asked.ipam_config.as_ref();
    for (key, version) in [("IPv4Address", "IPv4"), ("IPv6Address", "IPv6")] {
        let text = ipam.and_then(|ipam| ipam.get(key)).and_then(|text| text.as_str());
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            check_address(network, users, (text, version), &mut wrong);
        }
    }
    if !asked.mac_address.is_empty() && asked.mac_address.parse::<crate::network::Mac>().is_err() {
        return Err(format!("invalid MAC address {}", asked.mac_address));
    }
    if wrong.is_empty() { Ok(()) } else { Err(listed("invalid endpoint settings", &wrong)) }
}

fn check_address(
    network: &Definition,
    users: bool,
    (text, version): (&str, &str),
    wrong: &mut Vec<String>,
) {
    let ipv4 = version == "IPv4";
    let address = text.parse::<IpAddr>().ok().filter(|address| address.is_ipv4() == ipv4);
    if address.is_none() {
        wrong.push(format!("invalid {version} address: {text}"));
    }
    if !users {
        wrong.push("user specified IP address is supported on user defined networks only".into());
    }
    match network.pool(ipv4).filter(|pool| pool.chosen) {
        None => wrong.push(
            "user specified IP address is supported only when connecting to networks with user \
             configured subnets"
                .into(),
        ),
        Some(pool) if !address.is_some_and(|address| pool.subnet.contains(&address)) => {
            wrong.push(format!("no configured subnet or ip-range contain the IP address {text}"))
        }
        Some(_) => {}
    }
}

/// Several reasons, as Go's `multierror` lists them.
pub(super) fn listed(what: &str, wrong: &[String]) -> String {
    match wrong {
        [one] => format!("{what}:\n{one}"),
        all => {
            let lines: String = all.iter().map(|one| format!("\n* {one}")).collect();
            format!("{what}:{lines}")
        }
    }
}

impl Scope {
    /// The tenant's networks, if the request speaks of any but those that
    /// everybody has, without more to say about them.
    pub(super) async fn networks_named(
        &self,
        request: &CreateContainer,
    ) -> Result<Vec<Network>, Error> {
        let plain = |name: &str| ["", DEFAULT, "default", "none", "host"].contains(&name);
        let mode = request.host.network_mode.as_str();
        let mut asked = request.networking.endpoints_config.iter();
        let none_asked = asked.all(|(name, settings)| {
            plain(name) && settings.as_ref().is_none_or(|it| *it == EndpointSettings::default())
        });
        if none_asked && (plain(mode) || mode.starts_with("container:")) {
            return Ok(Vec::new());
        }
        Ok(self.engine.tools.networks.list(&self.tenant).await?)
    }

    /// What is linked to must exist.
    pub(super) fn check_links(&self, host: &HostConfig) -> Result<(), Error> {
        for link in host.links.iter().flatten() {
            let (name, _) = link_parts(link);
            match self.container(name) {
                Err(Error::NotFound(said)) => {
                    let said = format!("could not get container for {name}: {said}");
                    // Not 404, which would have the CLI look for the image.
                    return Err(Error::Invalid(said));
                }
                found => drop(found?),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{NetworkId, TenantName},
        network::{AddressPool, Driver},
    };

    fn network(name: &str, chosen: bool) -> Network {
        let subnet = "10.5.0.0/24".parse().unwrap();
        let definition = Definition {
            id: NetworkId::of([name.as_bytes()[0]; 32]),
            tenant: TenantName::operator(),
            name: name.into(),
            created: 0,
            driver: Driver::Bridge,
            ipv4: true,
            ipv6: false,
            internal: false,
            attachable: false,
            pools: vec![AddressPool { subnet, chosen, ..AddressPool::default() }],
            ipam_options: None,
            options: [].into(),
            labels: [].into(),
            config_only: false,
            config_from: String::new(),
            zone: None,
        };
        Network { definition, bridge: "br0".into(), endpoints: Vec::new() }
    }

    fn settings(json: &str) -> EndpointSettings {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_makes_no_sense_of_an_endpoint_is_said_in_dockers_words() {
        let (own, auto, default) =
            (network("own", true), network("auto", false), network("bridge", false));
        let at = |ip: &str| settings(&format!(r#"{{"IPAMConfig":{{"IPv4Address":"{ip}"}}}}"#));
        let said = |network: &Network, ip: &str| check(&network.definition, &at(ip)).unwrap_err();
        check(&own.definition, &at("10.5.0.9")).unwrap();
        assert_eq!(
            said(&own, "10.7.0.1"),
            "invalid endpoint settings:\nno configured subnet or ip-range contain the IP address \
             10.7.0.1"
        );
        assert!(said(&own, "foo").contains("* invalid IPv4 address: foo\n* no configured subnet"));
        assert!(said(&own, "fd00::1").contains("invalid IPv4 address: fd00::1"));
        assert!(said(&auto, "10.5.0.9").ends_with("with user configured subnets"));
        assert_eq!(said(&default, "10.5.0.9").matches("\n* ").count(), 2);
        let alias = settings(r#"{"Aliases":["x"]}"#);
        check(&own.definition, &alias).unwrap();
        assert!(check(&default.definition, &alias).unwrap_err().contains("network-scoped alias"));
        let mac = check(&own.definition, &settings(r#"{"MacAddress":"zz"}"#)).unwrap_err();
        assert_eq!(mac, "invalid MAC address zz");
    }

    #[test]
    fn endpoints_are_known_by_their_networks_names() {
        let networks = [network("own", true), network("bridge", false)];
        let id = networks[0].definition.id.to_string();
        let short = networks[0].definition.id.short();
        let host = HostConfig { network_mode: short, ..HostConfig::default() };
        let asked =
            NetworkingConfig { endpoints_config: [(id, None), ("later".to_owned(), None)].into() };
        let planned = plan(&Config::default(), &host, &asked, &networks).unwrap();
        assert_eq!(planned.keys().collect::<Vec<_>>(), ["later", "own"]);
        assert!(planned["own"].first && !planned["later"].first);
    }
}
