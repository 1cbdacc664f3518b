//! One bridge per tenant: its name, its subnet, who is on it.

use super::{
    Error,
    ipam::{self, Addresses, free_subnet, gateway_of, mac_of, prefix_in},
    link::{Link, Rtnl},
    namespace::{Prepared, set_sysctl, without_ipv6},
};
use crate::ids::{NetworkId, TenantName};
use ipnet::Ipv4Net;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;

/// `IFNAMSIZ` less the NUL.
const LONGEST_NAME: usize = 15;

/// A tenant's bridge.
#[derive(Debug)]
pub(super) struct Bridge {
    pub(super) id: NetworkId,
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) subnet: Ipv4Net,
    pub(super) addresses: Addresses,
    pub(super) pool: Pool,
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

/// The names that one engine gives its bridges.
#[derive(Debug, Clone)]
pub(super) struct Names {
    operator: String,
}

impl Names {
    /// # Errors
    /// An interface cannot be called that.
    pub(super) fn new(operator: &str) -> Result<Self, Error> {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let fits = (1..=LONGEST_NAME).contains(&operator.len());
        // The kernel's own folders beside the interfaces' in /proc/sys/net.
        let reserved = ["all", "default", "lo"].contains(&operator);
        if fits && !reserved && operator.chars().all(legal) {
            Ok(Self { operator: operator.into() })
        } else {
            Err(Error::BridgeName(operator.into()))
        }
    }

    /// What the bridge is called: the operator's as configured, another
    /// tenant's by six characters of that and eight of a digest.
    pub(super) fn of(&self, tenant: &TenantName) -> String {
        if tenant.is_operator() {
            return self.operator.clone();
        }
        let start: String = self.operator.chars().take(6).collect();
        let digest: String = self.digest(tenant)[..4].iter().map(|b| format!("{b:02x}")).collect();
        format!("{start}-{digest}")
    }

    /// The network's id: the same whenever the engine runs, with nothing kept.
    pub(super) fn id(&self, tenant: &TenantName) -> NetworkId {
        NetworkId::of(self.digest(tenant))
    }

    fn digest(&self, tenant: &TenantName) -> [u8; 32] {
        Sha256::digest(self.alias(tenant)).into()
    }

    /// What the interface carries to say whose it is.
    fn alias(&self, tenant: &TenantName) -> String {
        format!("tritium {} {tenant}", self.operator)
    }

    /// Whose bridge this is, if this engine's.
    pub(super) fn tenant(&self, link: &Link) -> Option<TenantName> {
        let tenant = link.alias.as_deref()?.rsplit(' ').next()?.parse().ok()?;
        let ours = link.is_bridge && link.alias == Some(self.alias(&tenant));
        (ours && link.name == self.of(&tenant)).then_some(tenant)
    }

    /// Takes over a bridge of the last engine. None when it has lost its address.
    pub(super) fn adopt(
        &self,
        tenant: &TenantName,
        link: &Link,
        addresses: &[(u32, Ipv4Net)],
    ) -> Option<Bridge> {
        let of_link = |(index, net): &(u32, Ipv4Net)| (*index == link.index).then_some(*net);
        let net = addresses.iter().find_map(of_link)?;
        let is_gateway = net.prefix_len() <= ipam::SMALLEST && gateway_of(net) == net.addr();
        is_gateway.then(|| self.bridge(tenant, link.index, net.trunc()))
    }

    /// Makes the bridge, on the first free subnet of `pool`.
    ///
    /// # Errors
    /// None is free, the name is taken, or the kernel refuses.
    pub(super) fn make(
        &self,
        rtnl: &mut Rtnl,
        tenant: &TenantName,
        pool: Ipv4Net,
    ) -> Result<Bridge, Error> {
        let name = self.of(tenant);
        let refused = |error| Error::kernel(format!("make the bridge {name}"), error);
        if rtnl.find(&name).map_err(refused)?.is_some() {
            return Err(Error::ForeignInterface(name));
        }
        let mut used = rtnl.destinations().map_err(refused)?;
        used.extend(rtnl.addresses().map_err(refused)?.into_iter().map(|(_, net)| net));
        let prefix = prefix_in(pool, tenant.is_operator());
        let subnet = free_subnet(pool, prefix, &used).ok_or(Error::NoSubnet(pool))?;
        let gateway = gateway_of(subnet);
        let net = Ipv4Net::new(gateway, prefix).map_err(|_| Error::NoSubnet(pool))?;
        let index =
            rtnl.add_bridge(&name, &self.alias(tenant), mac_of(gateway), net).map_err(refused)?;
        // So that the host reaches published ports by its 127.0.0.1, too; and so
        // that containers do not reach the host by IPv6, which no rule here sees.
        let route_localnet = format!("net/ipv4/conf/{name}/route_localnet");
        let set = set_sysctl(&route_localnet, "1").and_then(|()| without_ipv6(&name));
        if let Err(error) = set {
            rtnl.delete(&name).map_err(refused)?;
            return Err(refused(error));
        }
        Ok(self.bridge(tenant, index, subnet))
    }

    fn bridge(&self, tenant: &TenantName, index: u32, subnet: Ipv4Net) -> Bridge {
        Bridge {
            id: self.id(tenant),
            name: self.of(tenant),
            index,
            subnet,
            addresses: Addresses::new(subnet),
            pool: Pool::default(),
        }
    }
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
            assert_ne!(names.of(&long), names.of(&"b".parse().unwrap()));
            assert_ne!(names.id(&long), names.id(&"b".parse().unwrap()));
        }
        let [a, b] = ["tritium0", "tritium1"].map(|name| Names::new(name).unwrap());
        assert_ne!(a.of(&long), b.of(&long));
    }

    #[test]
    fn a_name_that_no_interface_can_have_is_refused() {
        for name in ["", "a/b", "..", "a b", "all", "default", "lo", "sixteen-letters-"] {
            assert!(Names::new(name).is_err(), "{name}");
        }
    }
}
