//! What a network is on this host: its interface, who has which address.

use super::{
    Endpoint, Error, Mac,
    definition::{AddressPool, Definition, Settings},
    firewall::Wall,
    ipam::{self, Addresses, default_gateway, mac_of},
    link::{BridgePlan, Link, Rtnl},
    names::{Names, check_interface},
    namespace::{Prepared, set_sysctl, with_ipv6, without_ipv6},
    zones::{Shadowed, Zone},
};
use crate::ids::{ContainerId, NetworkId, TenantName};
use ipnet::IpNet;
use std::{collections::VecDeque, io, net::IpAddr};

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

impl Names {
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
