//! The owner's networks on the Ethernet of one of the host's interfaces.

use super::Owner;
use crate::{
    ids::{NetworkId, random},
    network::{
        Definition, Error,
        cable::{Cable, Socket},
        macvlan::{Macvlan, Port},
        segment::{Carrier, Segment},
    },
};
use std::net::IpAddr;

impl Owner {
    pub(super) fn make_macvlan(&mut self, definition: Definition) -> Result<(), Error> {
        let (id, macvlan) = (definition.id, Macvlan::of(&definition)?);
        for other in self.segments.values() {
            let its = other.macvlan();
            its.map_or(Ok(()), |its| macvlan.check_beside(&other.definition, its))?;
        }
        self.take_macvlan(definition).inspect_err(|_| {
            self.segments.remove(&id);
        })
    }

    /// Knows a network from now on, also if its parent cannot be made: the
    /// user's interface may come back.
    pub(super) fn take_macvlan(&mut self, definition: Definition) -> Result<(), Error> {
        let macvlan = Macvlan::of(&definition)?;
        let segment = Segment::new(definition, Carrier::Macvlan(macvlan.clone()))?;
        self.segments.insert(segment.id(), segment);
        macvlan.make_parent(&mut self.rtnl, &self.names.parent_alias())
    }

    /// Removes the parents that this engine has made and nobody needs any more.
    pub(super) fn sweep_parents(&mut self) -> Result<(), Error> {
        let refused = |error| Error::kernel("remove the parent of a macvlan", error);
        let alias = self.names.parent_alias();
        for link in self.rtnl.links().map_err(refused)? {
            let mut macvlans = self.segments.values().filter_map(Segment::macvlan);
            let needed = macvlans.any(|macvlan| macvlan.parent.name() == link.name);
            if link.alias.as_deref() == Some(&alias) && !needed {
                self.rtnl.delete(&link.name).map_err(refused)?;
            }
        }
        Ok(())
    }

    /// Has all macvlans that are about to go be gone at once; whether there was any.
    pub(super) fn hasten_macvlans(&mut self) -> Result<bool, Error> {
        let inside = self.leaving.iter().filter(|(_, cable)| matches!(cable, Cable::Inside { .. }));
        let places: Vec<(NetworkId, IpAddr)> = inside.map(|(place, _)| *place).collect();
        for (network, address) in &places {
            self.hasten(*network, *address)?;
        }
        Ok(!places.is_empty())
    }

    /// Where interfaces of a network's are plugged in. None: there is no such network.
    pub(super) fn socket(
        &mut self,
        network: NetworkId,
        fenced: bool,
    ) -> Result<Option<Socket>, Error> {
        let Some(segment) = self.segments.get(&network) else { return Ok(None) };
        let macvlan = match &segment.carrier {
            Carrier::Bridge(bridge) => {
                let isolated = !segment.settings.icc;
                return Ok(Some(Socket::Bridge { index: bridge.index, isolated }));
            }
            Carrier::Macvlan(macvlan) => macvlan.clone(),
        };
        let name = macvlan.parent.name();
        let found = self.rtnl.find(name);
        let found = found.map_err(|error| Error::kernel(format!("look at {name}"), error))?;
        let parent = found.ok_or_else(|| Error::NoParent(name.to_owned()))?.index;
        let port = Port { parent, mode: macvlan.mode, index: self.free_index(), fenced };
        Ok(Some(Socket::Macvlan(port)))
    }

    /// An index that no interface has: above those that kernels count up to.
    fn free_index(&self) -> u32 {
        let used = |index| {
            let mut endpoints = self.attached.values().flat_map(|it| &it.endpoints);
            endpoints.any(|endpoint| endpoint.index == Some(index))
        };
        loop {
            let [a, b, c, d, ..] = random();
            let index = u32::from_ne_bytes([a, b, c, d]) >> 2 | 1 << 30;
            if !used(index) {
                return index;
            }
        }
    }
}
