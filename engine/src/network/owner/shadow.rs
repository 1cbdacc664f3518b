//! The owner's networks whose addresses are another tenant's, too.

use super::{Batch, Owner, firewall};
use crate::network::{
    Definition, Error,
    ipam::overlap,
    link::Link,
    routes::Route,
    segment::Segment,
    zones::{self, Shadowed, Zone},
};
use ipnet::IpNet;
use std::{
    collections::{BTreeSet, HashSet},
    io,
    net::IpAddr,
};

impl Owner {
    /// What the host itself has addresses and routes for, without our bridges'.
    pub(super) fn of_the_host(&mut self) -> Result<Vec<IpNet>, Error> {
        let refused = |error| Error::kernel("look at the host's routes", error);
        let ours: HashSet<u32> = self.bridges().map(|bridge| bridge.index).collect();
        let theirs = |by: Option<u32>| by.is_none_or(|index| !ours.contains(&index));
        let routes = self.rtnl.routes().map_err(refused)?;
        let routes = routes.into_iter().filter(|route| theirs(route.by));
        let addresses = self.rtnl.addresses().map_err(refused)?;
        let addresses = addresses.into_iter().filter(|(index, _)| theirs(Some(*index)));
        let routes = routes.filter_map(|route| route.to);
        Ok(routes.chain(addresses.map(|(_, net)| net)).collect())
    }

    /// Gives a network that is to be made a number, if it needs one.
    pub(super) fn shadow(&mut self, definition: &mut Definition) -> Result<(), Error> {
        let others = self.others(definition);
        let taken: Vec<IpNet> = others.flat_map(Segment::subnets).collect();
        let overlaps = |subnet: IpNet| taken.iter().any(|other| overlap(other, &subnet));
        let needs = definition.used_pools().any(|pool| overlaps(pool.subnet));
        if needs || definition.zone.is_some() {
            definition.zone = Some(self.free_zone(definition.zone)?);
        }
        Ok(())
    }

    /// The networks of other tenants that are bridges: to others the host has no way.
    fn others<'a>(&'a self, than: &Definition) -> impl Iterator<Item = &'a Segment> {
        let tenant = than.tenant.clone();
        let bridges = self.segments.values().filter(|it| it.bridge().is_some());
        bridges.filter(move |it| it.definition.tenant != tenant)
    }

    /// A number that no engine on this host uses: the wanted one, or any; not the
    /// lowest, since of the last network of a number conntrack may still know something.
    fn free_zone(&mut self, wanted: Option<Zone>) -> Result<Zone, Error> {
        let mut used = self.rtnl.zones().map_err(|e| Error::kernel("list routing rules", e))?;
        used.extend(self.segments.values().filter_map(|it| it.definition.zone));
        if let Some(zone) = wanted.filter(|zone| !used.contains(zone)) {
            return Ok(zone);
        }
        let [a, b, ..] = crate::ids::random();
        let start = u16::from_ne_bytes([a, b]) & Zone::LAST;
        let mut all = (start..=Zone::LAST).chain(1..start).filter_map(Zone::new);
        all.find(|zone| !used.contains(zone)).ok_or(Error::NoPool)
    }

    /// A bridge's own address is the host's, so no container may have it, whosever.
    pub(super) fn check_gateways(&self, definition: &Definition) -> Result<(), Error> {
        let used = |gateway: IpAddr| {
            let all = self.others(definition).flat_map(|bridge| &bridge.addresses);
            all.into_iter().any(|addresses| addresses.is_used(gateway))
        };
        let own = crate::network::segment::own_nets(definition);
        if own.iter().any(|net| used(net.addr())) { Err(Error::PoolOverlaps) } else { Ok(()) }
    }

    /// Tells each network which addresses other tenants' bridges have.
    pub(super) fn leave_gateways(&mut self) {
        let all = self.segments.values();
        let all = all.map(|segment| (segment.definition.tenant.clone(), segment.nets()));
        let all: Vec<_> = all.collect();
        for segment in self.segments.values_mut().filter(|it| it.bridge().is_some()) {
            let others = all.iter().filter(|(tenant, _)| *tenant != segment.definition.tenant);
            let hosts: Vec<IpAddr> = others.flat_map(|(_, nets)| nets).map(IpNet::addr).collect();
            segment.addresses.iter_mut().for_each(|addresses| addresses.leave(&hosts));
        }
    }

    fn shadowed(&self) -> Vec<Shadowed> {
        self.segments.values().filter_map(Segment::shadowed).collect()
    }

    /// The tables for shadowed networks as a whole, with where ports lead; no
    /// tables if there are none.
    pub(super) fn build_zones(&self, batch: &mut Batch) {
        let shadowed = self.shadowed();
        let plain = self.segments.values().filter(|it| it.definition.zone.is_none());
        let plain = plain.filter_map(|it| it.bridge().map(|bridge| bridge.name.clone()));
        let plain: Vec<String> = plain.collect();
        batch.in_table(zones::table(&self.config.bridge), |batch| {
            for family in &self.host.families {
                if shadowed.is_empty() {
                    batch.family(*family).no_table();
                } else {
                    zones::ruleset(batch, *family, &shadowed, &plain);
                }
            }
        });
        for attached in self.attached.values() {
            super::publish_zones(batch, &self.config.bridge, &attached.held, attached.target);
        }
    }

    /// Adds to the changes for one bridge more (or less, that `was` there) those
    /// that shadowed networks need.
    pub(super) fn change_zones(&self, batch: &mut Batch, was: Option<Zone>) {
        if self.built && (was.is_some() || !self.shadowed().is_empty()) {
            self.build_zones(batch);
        }
    }

    /// The number that a bridge of the last engine's has.
    pub(super) fn live_zone(routes: &[Route], link: &Link) -> Option<Zone> {
        let its = routes.iter().filter(|route| route.by == Some(link.index));
        its.filter_map(|route| Zone::of_table(route.table)).next()
    }

    /// Has what leads to a bridge that is there already be there, too.
    pub(super) fn lead_again(
        &mut self,
        definition: &mut Definition,
        link: &Link,
        live: Option<Zone>,
    ) -> Result<(), Error> {
        definition.zone = match live {
            None if definition.zone.is_none() => return Ok(()),
            None => Some(self.free_zone(definition.zone)?),
            live => live,
        };
        let Some(zone) = definition.zone else { return Ok(()) };
        let nets = crate::network::segment::own_nets(definition);
        match self.rtnl.lead(zone, link.index, &nets) {
            Err(error) if live.is_some() && error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            led => led.map_err(|error| Error::kernel(format!("lead to {}", link.name), error)),
        }
    }

    /// Removes rules that lead nowhere: their bridge has gone without them.
    pub(super) fn sweep_rules(&mut self) -> Result<(), Error> {
        let refused = |error| Error::kernel("sweep routing rules", error);
        let routes = self.rtnl.routes().map_err(refused)?;
        let led: BTreeSet<Zone> =
            routes.iter().filter_map(|route| Zone::of_table(route.table)).collect();
        for zone in self.rtnl.zones().map_err(refused)?.difference(&led) {
            self.rtnl.unlead(*zone).map_err(refused)?;
        }
        Ok(())
    }

    /// All bridges but one, as the firewall sees them.
    pub(super) fn walls_without(&self, bridge: &str) -> Vec<firewall::Wall> {
        let walls = self.segments.values().filter_map(Segment::wall);
        walls.filter(|wall| wall.name != bridge).collect()
    }
}
