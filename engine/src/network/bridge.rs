//! What a network is on this host: its names, its interface, who has which address.

use super::{
    Endpoint, Error, Mac,
    definition::{AddressPool, Definition, Driver, Settings},
    firewall::Wall,
    ipam::{self, Addresses, default_gateway, mac_of},
    link::{BridgePlan, Link, Rtnl},
    namespace::{Prepared, set_sysctl, with_ipv6, without_ipv6},
    zones::{Shadowed, Zone},
};
use crate::ids::{ContainerId, NetworkId, TenantName};
use ipnet::{IpNet, Ipv6Net};
use sha2::{Digest, Sha256};
use std::{
    collections::VecDeque,
    fs, io,
    net::{IpAddr, Ipv6Addr},
};

/// `IFNAMSIZ` less the NUL.
const LONGEST_NAME: usize = 15;

/// A network of driver `bridge`.
#[derive(Debug)]
pub(super) struct Bridge {
    pub(super) definition: Definition,
    pub(super) settings: Settings,
    /// Of the interface.
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) addresses: Vec<Addresses>,
    pub(super) pool: Pool,
    /// About to be removed: nobody may join.
    pub(super) leaving: bool,
}

impl Bridge {
    pub(super) fn id(&self) -> NetworkId {
        self.definition.id
    }

    /// The bridge's own address in each subnet.
    pub(super) fn nets(&self) -> Vec<IpNet> {
        own_nets(&self.definition)
    }

    pub(super) fn wall(&self) -> Wall {
        Wall {
            tenant: self.definition.tenant.clone(),
            name: self.name.clone(),
            icc: self.settings.icc,
            masquerade: self.settings.masquerade,
            internal: self.definition.internal,
            nets: self.nets(),
        }
    }

    /// The way out of one version of IP, if there is one.
    pub(super) fn way_out(&self, ipv4: bool) -> Option<IpAddr> {
        if self.definition.internal {
            return None;
        }
        self.definition.pool(ipv4)?.gateway
    }

    /// Takes an address of each subnet: the one that is wanted, or the lowest free.
    pub(super) fn take(&mut self, wanted: &[IpAddr]) -> Result<Vec<IpNet>, Error> {
        let name = self.definition.name.clone();
        let called = (name.as_str(), self.definition.id);
        let (mut taken, mut refused) = (Vec::new(), None);
        for (pool, addresses) in self.definition.used_pools().zip(&mut self.addresses) {
            let same = |ip: &&IpAddr| ip.is_ipv4() == pool.subnet.addr().is_ipv4();
            match addresses.take(wanted.iter().find(same).copied(), called) {
                Ok(address) => taken.push(with_prefix(address, pool.subnet)),
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        let Some(error) = refused else { return Ok(taken) };
        self.release(taken.iter().map(IpNet::addr));
        Err(error)
    }

    /// If it is shadowed, as what.
    pub(super) fn shadowed(&self) -> Option<Shadowed> {
        let zone = self.definition.zone?;
        Some(Shadowed { zone, bridge: self.name.clone() })
    }

    pub(super) fn subnets(&self) -> impl Iterator<Item = IpNet> {
        self.definition.used_pools().map(|pool| pool.subnet)
    }

    pub(super) fn release(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        for address in addresses {
            self.addresses.iter_mut().for_each(|free| free.release(address));
        }
    }
}

pub(super) fn own_nets(definition: &Definition) -> Vec<IpNet> {
    let own = |pool: &AddressPool| Some(with_prefix(pool.gateway?, pool.subnet));
    definition.used_pools().filter_map(own).collect()
}

/// An address with the length of its subnet's prefix.
fn with_prefix(address: IpAddr, subnet: IpNet) -> IpNet {
    IpNet::new(address, subnet.prefix_len()).unwrap_or(subnet)
}

/// Namespaces that wait, and how many more are being made.
#[derive(Debug, Default)]
pub(super) struct Pool {
    pub(super) ready: VecDeque<Prepared>,
    pub(super) coming: usize,
}

impl Pool {
    /// How many must be ordered to have `wanted`.
    pub(super) fn lacks(&self, wanted: usize) -> usize {
        wanted.saturating_sub(self.ready.len() + self.coming)
    }
}

/// The names that one engine gives its networks.
#[derive(Debug, Clone)]
pub(super) struct Names {
    operator: String,
}

impl Names {
    /// # Errors
    /// An interface cannot be called that.
    pub(super) fn new(operator: &str) -> Result<Self, Error> {
        check_interface(operator)?;
        Ok(Self { operator: operator.into() })
    }

    /// What a tenant's default bridge is called: the operator's as configured,
    /// another tenant's by six characters of that and eight of a digest.
    pub(super) fn of(&self, tenant: &TenantName) -> String {
        if tenant.is_operator() {
            return self.operator.clone();
        }
        let start: String = self.operator.chars().take(6).collect();
        let digest = digest(&self.alias(tenant, None));
        let digest: String = digest[..4].iter().map(|b| format!("{b:02x}")).collect();
        format!("{start}-{digest}")
    }

    /// The id of one of a tenant's three networks that nobody made: the same
    /// whenever the engine runs, with nothing kept.
    pub(super) fn id(&self, tenant: &TenantName, network: &str) -> NetworkId {
        let alias = self.alias(tenant, None);
        let text = if network == super::DEFAULT { alias } else { format!("{alias} {network}") };
        NetworkId::of(digest(&text))
    }

    /// What the interface carries to say whose it is.
    fn alias(&self, tenant: &TenantName, network: Option<NetworkId>) -> String {
        let network = network.map(|id| format!(" {id}")).unwrap_or_default();
        format!("tritium {} {tenant}{network}", self.operator)
    }

    /// Whose default bridge this is, if this engine's.
    pub(super) fn tenant(&self, link: &Link) -> Option<TenantName> {
        let tenant = link.alias.as_deref()?.rsplit(' ').next()?.parse().ok()?;
        let ours = link.is_bridge && link.alias == Some(self.alias(&tenant, None));
        (ours && link.name == self.of(&tenant)).then_some(tenant)
    }

    /// Which network's bridge this is, if one that this engine made for users.
    pub(super) fn network(&self, link: &Link) -> Option<NetworkId> {
        let alias = link.alias.as_deref()?.strip_prefix(&format!("tritium {} ", self.operator))?;
        let (tenant, id) = alias.split_once(' ')?;
        let (tenant, id) = (tenant.parse().ok()?, id.parse().ok()?);
        let ours = link.is_bridge && link.alias == Some(self.alias(&tenant, Some(id)));
        ours.then_some(id)
    }

    /// The prefix that this host's subnets of IPv6 are cut from when nobody
    /// chose one: unique local (RFC 4193), and always the same.
    pub(super) fn unique_local(&self) -> Ipv6Net {
        let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
        let [a, b, c, d, e, ..] = digest(&format!("tritium {} {machine}", self.operator));
        let bytes = [0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        Ipv6Net::new_assert(Ipv6Addr::from(bytes), 48)
    }

    /// A tenant's network `bridge`, on this subnet.
    pub(super) fn default_network(
        &self,
        tenant: &TenantName,
        subnet: IpNet,
        created: i64,
    ) -> Definition {
        let pool = AddressPool {
            subnet,
            gateway: default_gateway(subnet, None),
            ..AddressPool::default()
        };
        let options = [
            ("com.docker.network.bridge.default_bridge", "true"),
            ("com.docker.network.bridge.enable_icc", "true"),
            ("com.docker.network.bridge.enable_ip_masquerade", "true"),
            ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0"),
            ("com.docker.network.bridge.name", &self.of(tenant)),
            ("com.docker.network.driver.mtu", "1500"),
        ];
        let options = options.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Definition {
            pools: vec![pool],
            options: options.into(),
            ..self.nameless(tenant, super::DEFAULT, Driver::Bridge, created)
        }
    }

    /// A network that nobody made.
    pub(super) fn nameless(
        &self,
        tenant: &TenantName,
        name: &str,
        driver: Driver,
        created: i64,
    ) -> Definition {
        Definition {
            id: self.id(tenant, name),
            tenant: tenant.clone(),
            name: name.to_owned(),
            created,
            driver,
            ipv4: true,
            ipv6: false,
            internal: false,
            attachable: false,
            pools: Vec::new(),
            ipam_options: None,
            options: [].into(),
            labels: [].into(),
            config_only: false,
            config_from: String::new(),
            zone: None,
        }
    }

    /// Takes over the default bridge of the last engine. None when it has lost its address.
    pub(super) fn adopt(
        &self,
        tenant: &TenantName,
        link: &Link,
        addresses: &[(u32, IpNet)],
        created: i64,
    ) -> Option<Bridge> {
        let of_link = |(index, net): &(u32, IpNet)| {
            (*index == link.index && net.addr().is_ipv4()).then_some(*net)
        };
        let net = addresses.iter().find_map(of_link)?;
        let is_gateway = net.prefix_len() <= ipam::SMALLEST
            && default_gateway(net.trunc(), None) == Some(net.addr());
        let definition = self.default_network(tenant, net.trunc(), created);
        is_gateway.then(|| bridge(definition, link.name.clone(), link.index).ok())?
    }

    /// What a network's bridge is called.
    pub(super) fn interface(&self, definition: &Definition, settings: &Settings) -> String {
        if definition.id == self.id(&definition.tenant, super::DEFAULT) {
            return self.of(&definition.tenant);
        }
        settings.bridge.clone().unwrap_or_else(|| format!("br-{}", definition.id.short()))
    }

    /// Makes a network's bridge, with its addresses, up.
    ///
    /// # Errors
    /// The name is taken, or the kernel refuses; then there is nothing of it.
    pub(super) fn make(&self, rtnl: &mut Rtnl, definition: Definition) -> Result<Bridge, Error> {
        let settings = Settings::of(&definition.options)?;
        let name = self.interface(&definition, &settings);
        check_interface(&name)?;
        let refused = |error| Error::kernel(format!("make the bridge {name}"), error);
        if rtnl.find(&name).map_err(refused)?.is_some() {
            return Err(Error::ForeignInterface(name));
        }
        let default = definition.id == self.id(&definition.tenant, super::DEFAULT);
        let alias = self.alias(&definition.tenant, (!default).then_some(definition.id));
        let nets = own_nets(&definition);
        let plan = BridgePlan { name: &name, alias: &alias, mac: mac(&nets), mtu: settings.mtu };
        let index = rtnl.add_bridge(&plan).map_err(refused)?;
        let made = furnish(rtnl, &name, index, &nets, definition.zone);
        let made = made.and_then(|()| match definition.zone {
            Some(zone) => rtnl.lead(zone, index, &nets).inspect_err(|error| {
                // Another's rules are left alone. What matters is why.
                if error.kind() != io::ErrorKind::AlreadyExists {
                    drop(rtnl.unlead(zone));
                }
            }),
            None => Ok(()),
        });
        if let Err(error) = made {
            rtnl.delete(&name).map_err(refused)?;
            return Err(refused(error));
        }
        bridge(definition, name, index)
    }
}

fn furnish(
    rtnl: &mut Rtnl,
    name: &str,
    index: u32,
    nets: &[IpNet],
    zone: Option<Zone>,
) -> io::Result<()> {
    // So that the host reaches published ports by its 127.0.0.1, too.
    set_sysctl(&format!("net/ipv4/conf/{name}/route_localnet"), "1")?;
    // Without an address of IPv6, containers do not reach the host by it.
    if nets.iter().any(|net| net.addr().is_ipv6()) {
        with_ipv6(name)?;
    } else {
        without_ipv6(name)?;
    }
    if zone.is_some() {
        // Questions by ARP have no mark: the host's other tables know another
        // way to who asks, or none. Of the host's setting and this, the higher
        // number is in force, so it has to be 2 (loose), not 0.
        set_sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "2")?;
        rtnl.add_bare_addresses(index, nets)?;
    } else {
        rtnl.add_addresses(index, nets)?;
    }
    rtnl.set_up(index)
}

/// What is known of a network whose interface is there.
pub(super) fn bridge(definition: Definition, name: String, index: u32) -> Result<Bridge, Error> {
    Ok(Bridge {
        settings: Settings::of(&definition.options)?,
        addresses: definition.used_pools().map(Addresses::new).collect(),
        definition,
        name,
        index,
        pool: Pool::default(),
        leaving: false,
    })
}

/// An Ethernet address that goes with the first address of IPv4, or any.
pub(super) fn mac(nets: &[IpNet]) -> Mac {
    let ipv4 = |net: &IpNet| if let IpAddr::V4(ip) = net.addr() { Some(ip) } else { None };
    nets.iter().find_map(ipv4).map_or_else(
        || {
            let [a, b, c, d, ..] = crate::ids::random();
            Mac([0x02, 0x42, a, b, c, d])
        },
        mac_of,
    )
}

/// # Errors
/// An interface cannot be called that.
fn check_interface(name: &str) -> Result<(), Error> {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let fits = (1..=LONGEST_NAME).contains(&name.len());
    // The kernel's own folders beside the interfaces' in /proc/sys/net.
    let reserved = ["all", "default", "lo"].contains(&name);
    if fits && !reserved && name.chars().all(legal) {
        Ok(())
    } else {
        Err(Error::BridgeName(name.into()))
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// Who is on a network.
pub(super) fn members<'a>(
    id: NetworkId,
    attached: impl Iterator<Item = (&'a ContainerId, &'a Vec<Endpoint>)>,
) -> Vec<(ContainerId, Endpoint)> {
    let on = |(container, endpoints): (&ContainerId, &'a Vec<Endpoint>)| {
        let endpoint = endpoints.iter().find(|endpoint| endpoint.network_id == id)?;
        Some((*container, endpoint.clone()))
    };
    attached.filter_map(on).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tenants_bridge_has_a_name_of_its_own_that_fits() {
        let long = "a".repeat(32).parse().unwrap();
        for operator in ["t", "tritium0", "a-long-name-15c"] {
            let names = Names::new(operator).unwrap();
            assert_eq!(names.of(&TenantName::operator()), operator);
            assert!(names.of(&long).len() <= LONGEST_NAME);
            let short = "b".parse().unwrap();
            assert_ne!(names.of(&long), names.of(&short));
            assert_ne!(names.id(&long, "bridge"), names.id(&short, "bridge"));
            assert_ne!(names.id(&long, "bridge"), names.id(&long, "host"));
        }
        let [a, b] = ["tritium0", "tritium1"].map(|name| Names::new(name).unwrap());
        assert_ne!(a.of(&long), b.of(&long));
    }

    #[test]
    fn a_name_that_no_interface_can_have_is_refused() {
        for name in ["", "a/b", "..", "a b", "all", "default", "lo", "sixteen-letters-", "a.b"] {
            assert!(Names::new(name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_hosts_own_prefix_is_unique_local() {
        let prefix = Names::new("t").unwrap().unique_local();
        assert_eq!(prefix.addr().octets()[0], 0xfd);
        assert_ne!(prefix, Names::new("u").unwrap().unique_local());
    }
}
