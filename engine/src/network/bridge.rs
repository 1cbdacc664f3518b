//! Networks of driver `bridge`: an interface of the host's that is one.

use super::{
    Error,
    definition::{Definition, Settings},
    firewall::Wall,
    ipam::{self, default_gateway},
    link::{BridgePlan, Link, Rtnl},
    names::{Names, check_interface},
    namespace::{Prepared, set_sysctl, with_ipv6, without_ipv6},
    segment::{Carrier, Segment, mac, own_nets},
    zones::{Shadowed, Zone},
};
use crate::ids::TenantName;
use ipnet::IpNet;
use std::{collections::VecDeque, io};

/// The bridge of a network.
#[derive(Debug)]
pub(super) struct Bridge {
    /// Of the interface.
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) pool: Pool,
}

impl Segment {
    /// As the firewall sees it; it sees bridges only.
    pub(super) fn wall(&self) -> Option<Wall> {
        Some(Wall {
            tenant: self.definition.tenant.clone(),
            name: self.bridge()?.name.clone(),
            icc: self.settings.icc,
            masquerade: self.settings.masquerade,
            internal: self.definition.internal,
            nets: self.nets(),
        })
    }

    /// If it is shadowed, as what.
    pub(super) fn shadowed(&self) -> Option<Shadowed> {
        let zone = self.definition.zone?;
        Some(Shadowed { zone, bridge: self.bridge()?.name.clone() })
    }
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
    ) -> Option<Segment> {
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
    pub(super) fn make(&self, rtnl: &mut Rtnl, definition: Definition) -> Result<Segment, Error> {
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
pub(super) fn bridge(definition: Definition, name: String, index: u32) -> Result<Segment, Error> {
    let bridge = Bridge { name, index, pool: Pool::default() };
    Segment::new(definition, Carrier::Bridge(bridge))
}
