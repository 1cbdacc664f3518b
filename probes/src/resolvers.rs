//! Where the resolvers of network namespaces listen: who asks port 53 of 127.0.0.11 in a
//! container is led there by the guard's programs.
//!
//! The map is pinned as the guard's others are, but nothing listens while no engine runs. So the
//! next engine takes everything out of it, and knows by that which ports were used before.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aya::maps::{self, MapData, MapError};
use tritium_common::guard::Ports;

use crate::{
    Verdict,
    guard::{GuardFault, absent_is_fine, hash},
    load::{GuardObject, Load},
};

/// Programs that must all be attached: parts of [`Verdict::need`].
const NEEDS: [&str; 7] =
    ["connect4", "connect6", "sendmsg4", "recvmsg4", "recvmsg6", "getpeername4", "getpeername6"];

/// What a resolver really listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResolverPorts {
    /// For datagrams.
    pub udp: u16,
    /// For connections.
    pub tcp: u16,
}

/// The way to each resolver. Cheap to clone; every method is a few map calls and never waits.
#[derive(Clone)]
pub struct Resolvers(Option<Arc<Mutex<Map>>>);

type Map = maps::HashMap<MapData, u64, Ports>;

impl std::fmt::Debug for Resolvers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Resolvers").field(&self.lead()).finish()
    }
}

impl Resolvers {
    pub(crate) fn off() -> Self {
        Self(None)
    }

    /// For the programs that are attached, as the verdicts say.
    pub(crate) fn open(object: &mut GuardObject, verdicts: &[Verdict]) -> Result<Self, Load> {
        let have = |need: &&str| verdicts.iter().any(|it| it.have && it.need.contains(*need));
        if !NEEDS.iter().all(have) {
            return Ok(Self::off());
        }
        Ok(Self(Some(Arc::new(Mutex::new(hash(object, "RESOLVERS")?)))))
    }

    /// A panic elsewhere cannot leave the map half changed: each call is one write.
    fn map(&self) -> Option<MutexGuard<'_, Map>> {
        self.0.as_ref().map(|map| map.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether anybody is led anywhere. Where not, a resolver is found only if it listens on
    /// port 53 itself.
    #[must_use]
    pub fn lead(&self) -> bool {
        self.0.is_some()
    }

    /// Where resolvers of an earlier engine listened, by the cookie of their network namespace.
    /// Nobody is led there any more.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take_all(&self) -> Result<HashMap<u64, ResolverPorts>, GuardFault> {
        let Some(mut map) = self.map() else { return Ok(HashMap::new()) };
        let failed = || GuardFault::while_("forget an earlier engine's resolvers");
        let all: Result<Vec<(u64, Ports)>, MapError> = map.iter().collect();
        let all = all.map_err(failed())?;
        for (netns, _) in &all {
            absent_is_fine(map.remove(netns)).map_err(failed())?;
        }
        let public = |(netns, Ports { udp, tcp })| (netns, ResolverPorts { udp, tcp });
        Ok(all.into_iter().map(public).collect())
    }

    /// Leads to a resolver all who are in its network namespace and in the engine's cgroup.
    ///
    /// # Errors
    /// When the kernel refuses, as when there are 16384.
    pub fn lead_to(&self, netns: u64, ports: ResolverPorts) -> Result<(), GuardFault> {
        let Some(mut map) = self.map() else { return Ok(()) };
        let ResolverPorts { udp, tcp } = ports;
        let led = map.insert(netns, Ports { udp, tcp }, 0);
        led.map_err(GuardFault::while_("lead a container to its resolver"))
    }

    /// Takes `lead_to` back.
    ///
    /// # Errors
    /// When the kernel refuses; that nobody was led is no error.
    pub fn forget(&self, netns: u64) -> Result<(), GuardFault> {
        let Some(mut map) = self.map() else { return Ok(()) };
        absent_is_fine(map.remove(&netns)).map_err(GuardFault::while_("forget a resolver"))
    }
}
