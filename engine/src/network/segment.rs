//! A network that containers join, and what carries it: the one place that
//! knows the drivers apart.

use super::{
    Endpoint, Error, Mac,
    bridge::Bridge,
    definition::{AddressPool, Definition, Driver, Settings},
    ipam::{Addresses, mac_of},
    macvlan::Macvlan,
};
use crate::ids::{ContainerId, NetworkId};
use ipnet::IpNet;
use std::net::IpAddr;

/// A network that containers join.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) definition: Definition,
    pub(super) settings: Settings,
    pub(super) addresses: Vec<Addresses>,
    /// About to be removed: nobody may join.
    pub(super) leaving: bool,
    pub(super) carrier: Carrier,
}

/// What brings its frames to where they go.
#[derive(Debug)]
pub(super) enum Carrier {
    Bridge(Bridge),
    Macvlan(Macvlan),
}

impl Segment {
    pub(super) fn new(definition: Definition, carrier: Carrier) -> Result<Self, Error> {
        Ok(Self {
            settings: Settings::of(&definition.options)?,
            addresses: definition.used_pools().map(Addresses::new).collect(),
            definition,
            leaving: false,
            carrier,
        })
    }

    pub(super) fn id(&self) -> NetworkId {
        self.definition.id
    }

    pub(super) fn bridge(&self) -> Option<&Bridge> {
        match &self.carrier {
            Carrier::Bridge(bridge) => Some(bridge),
            Carrier::Macvlan(_) => None,
        }
    }

    pub(super) fn bridge_mut(&mut self) -> Option<&mut Bridge> {
        match &mut self.carrier {
            Carrier::Bridge(bridge) => Some(bridge),
            Carrier::Macvlan(_) => None,
        }
    }

    pub(super) fn macvlan(&self) -> Option<&Macvlan> {
        match &self.carrier {
            Carrier::Bridge(_) => None,
            Carrier::Macvlan(macvlan) => Some(macvlan),
        }
    }

    /// It leads nowhere else.
    pub(super) fn is_internal(&self) -> bool {
        self.definition.internal || self.macvlan().is_some_and(|it| it.parent.is_dummy())
    }

    /// The way out of one version of IP, if there is one.
    pub(super) fn way_out(&self, ipv4: bool) -> Option<IpAddr> {
        if self.is_internal() {
            return None;
        }
        self.definition.pool(ipv4)?.gateway
    }

    /// The host's own address in each subnet.
    pub(super) fn nets(&self) -> Vec<IpNet> {
        own_nets(&self.definition)
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

    pub(super) fn subnets(&self) -> impl Iterator<Item = IpNet> {
        self.definition.used_pools().map(|pool| pool.subnet)
    }

    pub(super) fn release(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        for address in addresses {
            self.addresses.iter_mut().for_each(|free| free.release(address));
        }
    }
}

/// The host's own address in each subnet: a bridge's gateway is the bridge, any
/// other is somebody's on the parent's Ethernet.
pub(super) fn own_nets(definition: &Definition) -> Vec<IpNet> {
    if definition.driver != Driver::Bridge {
        return Vec::new();
    }
    let own = |pool: &AddressPool| Some(with_prefix(pool.gateway?, pool.subnet));
    definition.used_pools().filter_map(own).collect()
}

/// An address with the length of its subnet's prefix.
fn with_prefix(address: IpAddr, subnet: IpNet) -> IpNet {
    IpNet::new(address, subnet.prefix_len()).unwrap_or(subnet)
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
