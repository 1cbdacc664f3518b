//! The owner's networks: find, make, remove.

use super::{Batch, Owner, Reply, answer};
use crate::{
    error::chain,
    ids::{ContainerId, NetworkId, TenantName},
    network::{
        DEFAULT, Definition, Driver, Error, Network,
        bridge::{Bridge, bridge},
        definition::{AddressPool, Settings},
        firewall,
        ipam::{default_gateway, free_subnet, is_own, overlap, prefix_in},
        segment::{Carrier, Segment},
    },
};
use ipnet::IpNet;
use std::collections::BTreeSet;
use tracing::{error, warn};

/// The length of the prefix of a subnet of IPv6 that nobody chose, in bits.
const PREFIX6: u8 = 64;

impl Owner {
    /// A tenant's network `bridge`, made if there is none yet.
    pub(super) fn default_bridge(&mut self, tenant: &TenantName) -> Result<NetworkId, Error> {
        let id = self.names.id(tenant, DEFAULT);
        if !self.segments.contains_key(&id) {
            let pool = self.config.address_pool;
            let prefix = prefix_in(pool, tenant.is_operator());
            let subnet = free_subnet(pool.into(), prefix, &self.used()?);
            let subnet = subnet.ok_or(Error::NoSubnet(pool.into()))?;
            let definition = self.names.default_network(tenant, subnet, self.started);
            self.make(definition)?;
        }
        Ok(id)
    }

    /// All subnets that are somebody's: the host's and ours.
    fn used(&mut self) -> Result<Vec<IpNet>, Error> {
        let refused = |error| Error::kernel("look at the host's routes", error);
        let routes = self.rtnl.routes().map_err(refused)?;
        let mut used: Vec<IpNet> = routes.into_iter().filter_map(|route| route.to).collect();
        used.extend(self.rtnl.addresses().map_err(refused)?.into_iter().map(|(_, net)| net));
        used.extend(self.subnets());
        Ok(used)
    }

    fn subnets(&self) -> Vec<IpNet> {
        self.segments.values().flat_map(Segment::subnets).collect()
    }

    /// Makes what a network is on this host.
    fn make(&mut self, definition: Definition) -> Result<(), Error> {
        match definition.driver {
            Driver::Macvlan => self.make_macvlan(definition),
            Driver::Bridge | Driver::Host | Driver::Null => self.make_bridge(definition),
        }
    }

    /// Makes a network's bridge, and lets the firewall know it.
    fn make_bridge(&mut self, mut definition: Definition) -> Result<(), Error> {
        self.shadow(&mut definition)?;
        let (id, ipv6, zone) = (definition.id, definition.ipv6, definition.zone);
        let made = self.names.make(&mut self.rtnl, definition)?;
        self.segments.insert(id, made);
        // First, so that the firewall's change is the last, and undone by itself.
        let forwarded = if ipv6 && self.built { self.forward_ipv6() } else { Ok(()) };
        forwarded.and_then(|()| self.let_in(id)).inspect_err(|_| {
            let made = self.segments.remove(&id);
            let Some(Bridge { name, .. }) = made.as_ref().and_then(Segment::bridge) else { return };
            let ruled = zone.map_or(Ok(()), |zone| self.rtnl.unlead(zone));
            if let Err(error) = ruled.and_then(|()| self.rtnl.delete(name)) {
                warn!(%name, error = %chain(&error), "a bridge that nobody needs stays");
            }
        })?;
        self.leave_gateways();
        Ok(())
    }

    /// Has the firewall know a new bridge.
    fn let_in(&mut self, network: NetworkId) -> Result<(), Error> {
        let wall = self.segments.get(&network).and_then(Segment::wall);
        let Some(wall) = wall else { return Ok(()) };
        let others = self.walls_without(&wall.name);
        let mut batch = Batch::new(&self.config.bridge);
        firewall::change_bridge(&mut batch, &self.host.families, &wall, &others, true);
        self.change_zones(&mut batch, None);
        self.change(batch)
    }

    /// Takes over the networks on record, and removes those that are not.
    pub(super) fn readopt_networks(&mut self, networks: Vec<Definition>) -> Result<(), Error> {
        let refused = |error| Error::kernel("look at the host's routes", error);
        let routes = self.rtnl.routes().map_err(refused)?;
        for mut definition in networks {
            let (id, name) = (definition.id, definition.name.clone());
            if definition.config_only {
                self.configurations.insert(id, definition);
                continue;
            }
            let taken = match self.found.remove(&id) {
                Some(link) => self
                    .lead_again(&mut definition, &link, Self::live_zone(&routes, &link))
                    .and_then(|()| bridge(definition, link.name, link.index))
                    .map(|segment| drop(self.segments.insert(id, segment))),
                None if definition.driver == Driver::Macvlan => self.take_macvlan(definition),
                None => self.make_bridge(definition),
            };
            // The others can go on without it: who needs it will hear of it.
            if let Err(error) = taken {
                error!(network = name, error = %chain(&error), "cannot make a network again");
            }
        }
        for link in std::mem::take(&mut self.found).into_values() {
            let doing = || format!("remove the bridge {}", link.name);
            let ruled = Self::live_zone(&routes, &link);
            let ruled = ruled.map_or(Ok(()), |zone| self.rtnl.unlead(zone));
            let gone = ruled.and_then(|()| self.rtnl.delete(&link.name));
            gone.map_err(|error| Error::kernel(doing(), error))?;
        }
        self.leave_gateways();
        self.sweep_parents()?;
        self.sweep_rules()
    }

    pub(super) fn create_for(&mut self, definition: Definition, reply: Reply<Definition>) {
        let id = definition.id;
        if !self.built
            && let Err(error) = self.readopt(super::Found::default())
        {
            return answer(reply, Err(error));
        }
        if let Err(Ok(_)) = reply.send(self.create(definition)) {
            // The caller has gone, so nobody will record it.
            if let Err(error) = self.remove(id, true) {
                warn!(network = %id, error = %chain(&error), "cannot remove what nobody waits for");
            }
        }
    }

    fn create(&mut self, mut definition: Definition) -> Result<Definition, Error> {
        let same_name =
            |other: &Definition| other.tenant == definition.tenant && other.name == definition.name;
        if self.definitions().any(same_name) {
            return Err(Error::NetworkExists(definition.name));
        }
        Settings::of(&definition.options)?;
        if definition.config_only {
            self.configurations.insert(definition.id, definition.clone());
            return Ok(definition);
        }
        self.choose_subnets(&mut definition)?;
        for pool in &mut definition.pools {
            reserve(pool)?;
        }
        self.check_gateways(&definition)?;
        self.make(definition.clone())?;
        Ok(self.segments.get(&definition.id).map_or(definition, |made| made.definition.clone()))
    }

    fn definitions(&self) -> impl Iterator<Item = &Definition> {
        let segments = self.segments.values().map(|segment| &segment.definition);
        segments.chain(self.configurations.values())
    }

    /// Checks the subnets that the user chose, and chooses the others.
    fn choose_subnets(&mut self, definition: &mut Definition) -> Result<(), Error> {
        let own = self.segments.values().filter(|it| it.definition.tenant == definition.tenant);
        let mut used: Vec<IpNet> = own.flat_map(Segment::subnets).collect();
        // Another tenant's must not draw away what is the host's to send.
        if !definition.tenant.is_operator() {
            used.extend(self.of_the_host()?);
        }
        for pool in definition.used_pools() {
            if used.iter().any(|other| overlap(other, &pool.subnet)) {
                return Err(Error::PoolOverlaps);
            }
        }
        let ours = self.config.address_pool;
        let six = IpNet::V6(self.names.unique_local());
        for (ipv4, pool, prefix) in
            [(true, IpNet::V4(ours), prefix_in(ours, false)), (false, six, PREFIX6)]
        {
            if !definition.has(ipv4) || definition.pool(ipv4).is_some() {
                continue;
            }
            let mut used = self.used()?;
            used.extend(definition.pools.iter().map(|pool| pool.subnet));
            let subnet = free_subnet(pool, prefix, &used).ok_or(Error::NoPool)?;
            definition.pools.push(AddressPool { subnet, ..AddressPool::default() });
        }
        Ok(())
    }

    /// Nobody joins any more; the caller removes the record, then calls `remove`.
    pub(super) fn retire(&mut self, network: NetworkId) -> Result<(), Error> {
        if let Some(definition) = self.configurations.get(&network) {
            let name = &definition.name;
            let of_it = |other: &Definition| {
                other.tenant == definition.tenant && other.config_from == *name
            };
            if self.definitions().any(of_it) {
                return Err(Error::ConfigurationInUse(name.clone()));
            }
            return Ok(());
        }
        let on_it = |(container, attached): (&ContainerId, &super::Attached)| {
            let endpoint = attached.endpoints.iter().find(|it| it.network_id == network)?;
            Some((*container, endpoint.endpoint_id))
        };
        let endpoints: Vec<_> = self.attached.iter().filter_map(on_it).collect();
        let missing = || Error::NoNetwork(network.to_string());
        let segment = self.segments.get_mut(&network).ok_or_else(missing)?;
        if segment.leaving {
            return Err(Error::NoNetwork(segment.definition.name.clone()));
        }
        if !endpoints.is_empty() {
            return Err(Error::Active { name: segment.definition.name.clone(), endpoints });
        }
        segment.leaving = true;
        Ok(())
    }

    /// Removes a network that is not on record any more; or, if that could not
    /// be `removed`, lets it be as it was.
    pub(super) fn remove(&mut self, network: NetworkId, removed: bool) -> Result<(), Error> {
        if !removed {
            if let Some(segment) = self.segments.get_mut(&network) {
                segment.leaving = false;
            }
            return Ok(());
        }
        self.configurations.remove(&network);
        let Some(segment) = self.segments.remove(&network) else { return Ok(()) };
        match &segment.carrier {
            Carrier::Bridge(bridge) => self.remove_bridge(&segment, &bridge.name),
            Carrier::Macvlan(_) => self.sweep_parents(),
        }
    }

    fn remove_bridge(&mut self, segment: &Segment, name: &str) -> Result<(), Error> {
        self.leave_gateways();
        let changed = self.keep_out(segment);
        if let Some(zone) = segment.definition.zone {
            let doing = || format!("remove the rules for {name}");
            self.rtnl.unlead(zone).map_err(|error| Error::kernel(doing(), error))?;
        }
        // Whatever the firewall says: without its interface nothing passes.
        let gone = self.rtnl.delete(name);
        gone.map_err(|error| Error::kernel(format!("remove the bridge {name}"), error))?;
        changed
    }

    /// Has the firewall forget a bridge that nobody is on.
    fn keep_out(&mut self, segment: &Segment) -> Result<(), Error> {
        let Some(wall) = segment.wall() else { return Ok(()) };
        let others = self.walls_without(&wall.name);
        let mut batch = Batch::new(&self.config.bridge);
        firewall::change_bridge(&mut batch, &self.host.families, &wall, &others, false);
        self.change_zones(&mut batch, segment.definition.zone);
        self.change(batch)
    }

    /// A tenant's networks: first those that nobody made, in Docker's order.
    pub(super) fn list(&mut self, tenant: &TenantName) -> Result<Vec<Network>, Error> {
        let bridge = self.default_bridge(tenant)?;
        let nameless = |(name, driver)| Network {
            definition: self.names.nameless(tenant, name, driver, self.started),
            bridge: String::new(),
            endpoints: Vec::new(),
        };
        let mut all: Vec<Network> = self.describe(&bridge).into_iter().collect();
        all.extend([("none", Driver::Null), ("host", Driver::Host)].map(nameless));
        let own = |id: &&NetworkId, definition: &Definition| {
            definition.tenant == *tenant && **id != bridge
        };
        let made = self.segments.iter().filter(|(id, it)| own(id, &it.definition) && !it.leaving);
        all.extend(made.filter_map(|(id, _)| self.describe(id)));
        let configurations = self.configurations.iter().filter(|(id, it)| own(id, it));
        all.extend(configurations.map(|(_, definition)| Network {
            definition: definition.clone(),
            bridge: String::new(),
            endpoints: Vec::new(),
        }));
        Ok(all)
    }

    fn describe(&self, id: &NetworkId) -> Option<Network> {
        let segment = self.segments.get(id)?;
        let attached = self.attached.iter().map(|(id, attached)| (id, &attached.endpoints));
        Some(Network {
            definition: segment.definition.clone(),
            bridge: segment.bridge().map(|bridge| bridge.name.clone()).unwrap_or_default(),
            endpoints: crate::network::segment::members(*id, attached),
        })
    }

    /// A network that containers can join: by name, id, or a prefix of an id
    /// that is one only.
    pub(super) fn joinable(
        &mut self,
        tenant: &TenantName,
        reference: &str,
    ) -> Result<NetworkId, Error> {
        if reference == DEFAULT || reference == "default" {
            return self.default_bridge(tenant);
        }
        let own = |it: &&Segment| it.definition.tenant == *tenant && !it.leaving;
        let all: Vec<&Segment> = self.segments.values().filter(own).collect();
        let exact = |it: &&&Segment| {
            it.definition.name == reference || it.definition.id.to_string() == reference
        };
        if let Some(segment) = all.iter().find(exact) {
            return Ok(segment.id());
        }
        let missing = || Error::NoNetwork(reference.to_owned());
        let mut all = all.into_iter().filter(|it| it.id().to_string().starts_with(reference));
        match (all.next(), all.next()) {
            _ if reference.is_empty() => Err(missing()),
            (Some(segment), None) => Ok(segment.id()),
            (Some(_), Some(_)) => Err(Error::Ambiguous(reference.to_owned())),
            (None, _) => Err(missing()),
        }
    }
}

/// Chooses the gateway, if nobody has, and checks what is to be kept free.
fn reserve(pool: &mut AddressPool) -> Result<(), Error> {
    match pool.gateway {
        Some(gateway) if is_own(pool.subnet, gateway) => {
            return Err(Error::GatewayInUse(gateway));
        }
        Some(_) => {}
        None => {
            let gateway = default_gateway(pool.subnet, pool.range);
            pool.gateway = Some(gateway.ok_or(Error::NoSubnet(pool.subnet))?);
            pool.gateway_shown = !pool.chosen;
        }
    }
    let mut taken: BTreeSet<_> = pool.gateway.into_iter().collect();
    for (name, address) in &pool.auxiliary {
        if is_own(pool.subnet, *address) || !taken.insert(*address) {
            return Err(Error::AuxiliaryInUse { name: name.clone(), address: *address });
        }
    }
    Ok(())
}
