//! Whose an address is.
//!
//! Nearly every address has one owner. Where tenants use the same subnet, it
//! has one of each tenant: the first in one map, the others in a second one,
//! which the programs look into only when the first owner is another tenant.

use aya::maps::{HashMap, MapData, MapError};
use tritium_common::{
    guard::{Owner, SharedKey},
    ids::CgroupId,
};

use crate::{
    guard::{absent_is_fine, hash},
    load::{GuardObject, Load},
};

pub(crate) struct Addresses {
    first: HashMap<MapData, [u8; 16], Owner>,
    others: HashMap<MapData, SharedKey, CgroupId>,
}

impl Addresses {
    pub(crate) fn open(object: &mut GuardObject) -> Result<Self, Load> {
        Ok(Self { first: hash(object, "ADDRESSES")?, others: hash(object, "SHARED")? })
    }

    /// Every address of every owner.
    pub(crate) fn all(&self) -> Vec<([u8; 16], CgroupId)> {
        let first = self.first.iter().flatten().map(|(address, owner)| (address, owner.cgroup));
        let others = self.others.iter().flatten().map(|(key, cgroup)| (key.address, cgroup));
        first.chain(others).collect()
    }

    /// Says that an address is `owner`'s; other tenants may have it, too.
    pub(crate) fn claim(&mut self, address: [u8; 16], owner: Owner) -> Result<(), MapError> {
        match self.first.get(&address, 0) {
            Ok(first) if first.tenant != owner.tenant => {
                let key = SharedKey { address, tenant: owner.tenant };
                self.others.insert(key, owner.cgroup, 0)
            }
            Ok(_) | Err(MapError::KeyNotFound) => self.first.insert(address, owner, 0),
            Err(error) => Err(error),
        }
    }

    /// Takes one address back, unless another container of the tenant has it by now. What another
    /// tenant has is never unowned in between.
    pub(crate) fn release(&mut self, cgroup: CgroupId, address: &[u8; 16]) -> Result<(), MapError> {
        let others: Vec<(SharedKey, CgroupId)> =
            self.others.iter().flatten().filter(|(key, _)| key.address == *address).collect();
        if let Some((key, _)) = others.iter().find(|(_, other)| *other == cgroup) {
            absent_is_fine(self.others.remove(key))?;
        }
        match self.first.get(address, 0) {
            Ok(owner) if owner.cgroup == cgroup => {}
            Ok(_) | Err(MapError::KeyNotFound) => return Ok(()),
            Err(error) => return Err(error),
        }
        let Some((key, next)) = others.into_iter().find(|(_, other)| *other != cgroup) else {
            return absent_is_fine(self.first.remove(address));
        };
        self.first.insert(*address, Owner { tenant: key.tenant, cgroup: next }, 0)?;
        absent_is_fine(self.others.remove(&key))
    }
}
