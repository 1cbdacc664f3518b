//! Who is called what, and on which network. Pure.
//!
//! Whoever asks is answered out of the networks that he is on himself and out
//! of nothing else: that no name of another tenant's is ever told follows from
//! the shape of [`Directory::resolve`], not from a check in it.

use crate::ids::{ContainerId, NetworkId};
use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
};

/// A container's place on one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    pub network: NetworkId,
    /// Names may carry it as their last labels: `web.backend`.
    pub network_name: String,
    /// Nothing outside is asked on behalf of who is on internal networks only.
    pub internal: bool,
    /// Of a container's networks, the one with the highest is asked first.
    pub gateway_priority: i64,
    /// What others on this network may call it; the first is what its address
    /// is called.
    pub names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// `--link`: what it alone calls others here, and what they are called.
    pub links: Vec<(String, String)>,
}

/// The kind of address that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
    Any,
    /// Only whether there is such a name.
    Nothing,
}

impl Family {
    fn has(self, address: IpAddr) -> bool {
        match self {
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
            Self::Any => true,
            Self::Nothing => false,
        }
    }
}

/// All networks and who is on them.
#[derive(Debug, Default)]
pub(super) struct Directory {
    networks: HashMap<NetworkId, Network>,
    /// A container's networks, the one that is asked first at the front.
    members: HashMap<ContainerId, Vec<Membership>>,
}

#[derive(Debug, Default)]
struct Network {
    /// By name in lower case: several may share an alias.
    names: HashMap<String, Vec<ContainerId>>,
    addresses: HashMap<IpAddr, ContainerId>,
}

impl Directory {
    /// Puts a container on a network, or changes what is known of it there.
    pub(super) fn join(&mut self, container: ContainerId, membership: Membership) {
        self.leave(container, membership.network);
        let network = self.networks.entry(membership.network).or_default();
        for name in &membership.names {
            let called = network.names.entry(name.to_ascii_lowercase()).or_default();
            if !called.contains(&container) {
                called.push(container);
            }
        }
        for address in &membership.addresses {
            network.addresses.insert(*address, container);
        }
        let mine = self.members.entry(container).or_default();
        mine.push(membership);
        mine.sort_by(|a, b| {
            let rank = |it: &Membership| (-i128::from(it.gateway_priority), it.internal);
            rank(a).cmp(&rank(b)).then_with(|| a.network_name.cmp(&b.network_name))
        });
    }

    /// Takes a container off a network. Nothing, if it is not on it.
    pub(super) fn leave(&mut self, container: ContainerId, network: NetworkId) {
        let Entry::Occupied(mut mine) = self.members.entry(container) else { return };
        let Some(place) = mine.get().iter().position(|it| it.network == network) else { return };
        let left = mine.get_mut().remove(place);
        if mine.get().is_empty() {
            mine.remove();
        }
        let Entry::Occupied(mut network) = self.networks.entry(network) else { return };
        let known = network.get_mut();
        for name in &left.names {
            let name = name.to_ascii_lowercase();
            if let Entry::Occupied(mut called) = known.names.entry(name) {
                called.get_mut().retain(|other| *other != container);
                if called.get().is_empty() {
                    called.remove();
                }
            }
        }
        known.addresses.retain(|_, owner| *owner != container);
        if known.names.is_empty() && known.addresses.is_empty() {
            network.remove();
        }
    }

    /// Takes a container off every network.
    pub(super) fn forget(&mut self, container: ContainerId) {
        let mine = self.members.get(&container);
        let networks: Vec<NetworkId> = mine.into_iter().flatten().map(|it| it.network).collect();
        networks.into_iter().for_each(|network| self.leave(container, network));
    }

    /// Whether questions about the world outside may be asked for it.
    pub(super) fn reaches_out(&self, container: ContainerId) -> bool {
        self.members.get(&container).into_iter().flatten().any(|it| !it.internal)
    }

    /// The addresses of a name (in lower case, no dot at its end) as `asker`
    /// sees it. None: nobody there is called that.
    ///
    /// A dot may be part of a name or stand before a network's: `a.b.c` is
    /// looked for as itself, as `a.b` on network `c` and as `a` on network `b.c`.
    pub(super) fn resolve(
        &self,
        asker: ContainerId,
        name: &str,
        family: Family,
    ) -> Option<Vec<IpAddr>> {
        let mine = self.members.get(&asker)?;
        let dots = name.rmatch_indices('.').filter_map(|(dot, _)| {
            let (name, network) = name.split_at_checked(dot)?;
            Some((name, network.get(1..)))
        });
        [(name, None)].into_iter().chain(dots).find_map(|(name, network)| {
            let called = |it: &&Membership| {
                network.is_none_or(|network| it.network_name.eq_ignore_ascii_case(network))
            };
            let here: Vec<&Membership> = mine.iter().filter(called).collect();
            self.on(&here, name, family)
        })
    }

    /// Links come first; then the first network where the name has what is wanted.
    fn on(&self, networks: &[&Membership], name: &str, family: Family) -> Option<Vec<IpAddr>> {
        let linked = networks.iter().filter_map(|it| {
            let (_, target) =
                it.links.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(name))?;
            self.named(it.network, &target.to_ascii_lowercase(), family)
        });
        let named = networks.iter().filter_map(|it| self.named(it.network, name, family));
        let mut known = None;
        for addresses in linked.chain(named) {
            if !addresses.is_empty() {
                return Some(addresses);
            }
            known = Some(addresses);
        }
        known
    }

    fn named(&self, network: NetworkId, name: &str, family: Family) -> Option<Vec<IpAddr>> {
        let called = self.networks.get(&network)?.names.get(name)?;
        let memberships = called.iter().filter_map(|it| self.membership(*it, network));
        let addresses = memberships.flat_map(|it| &it.addresses);
        Some(addresses.copied().filter(|address| family.has(*address)).collect())
    }

    fn membership(&self, container: ContainerId, network: NetworkId) -> Option<&Membership> {
        self.members.get(&container)?.iter().find(|it| it.network == network)
    }

    /// What an address is called, as `asker` sees it: `web.backend`.
    pub(super) fn reverse(&self, asker: ContainerId, address: IpAddr) -> Option<String> {
        self.members.get(&asker)?.iter().find_map(|it| {
            let owner = self.networks.get(&it.network)?.addresses.get(&address)?;
            let name = self.membership(*owner, it.network)?.names.first()?;
            Some(format!("{name}.{}", it.network_name))
        })
    }
}
