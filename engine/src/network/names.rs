//! What one engine calls its networks and their interfaces: the same whenever it
//! runs, with nothing kept.

use super::{
    Error,
    definition::{AddressPool, Definition, Driver},
    ipam::default_gateway,
    link::Link,
};
use crate::ids::{NetworkId, TenantName};
use ipnet::{IpNet, Ipv6Net};
use sha2::{Digest, Sha256};
use std::{fs, net::Ipv6Addr};

/// `IFNAMSIZ` less the NUL.
const LONGEST_NAME: usize = 15;

/// The names that one engine gives its networks.
#[derive(Debug, Clone)]
pub(super) struct Names {
    operator: String,
}

impl Names {
    /// # Errors
    /// An interface cannot be called that.
    pub(super) fn new(operator: &str) -> Result<Self, Error> {
        check_interface(operator)?;
        Ok(Self { operator: operator.into() })
    }

    /// What a tenant's default bridge is called: the operator's as configured,
    /// another tenant's by six characters of that and eight of a digest.
    pub(super) fn of(&self, tenant: &TenantName) -> String {
        if tenant.is_operator() {
            return self.operator.clone();
        }
        let start: String = self.operator.chars().take(6).collect();
        let digest = digest(&self.alias(tenant, None));
        let digest: String = digest[..4].iter().map(|b| format!("{b:02x}")).collect();
        format!("{start}-{digest}")
    }

    /// The id of one of a tenant's three networks that nobody made: the same
    /// whenever the engine runs, with nothing kept.
    pub(super) fn id(&self, tenant: &TenantName, network: &str) -> NetworkId {
        let alias = self.alias(tenant, None);
        let text = if network == super::DEFAULT { alias } else { format!("{alias} {network}") };
        NetworkId::of(digest(&text))
    }

    /// What the interface carries to say whose it is.
    pub(super) fn alias(&self, tenant: &TenantName, network: Option<NetworkId>) -> String {
        let network = network.map(|id| format!(" {id}")).unwrap_or_default();
        format!("tritium {} {tenant}{network}", self.operator)
    }

    /// Whose default bridge this is, if this engine's.
    pub(super) fn tenant(&self, link: &Link) -> Option<TenantName> {
        let tenant = link.alias.as_deref()?.rsplit(' ').next()?.parse().ok()?;
        let ours = link.is_bridge && link.alias == Some(self.alias(&tenant, None));
        (ours && link.name == self.of(&tenant)).then_some(tenant)
    }

    /// Which network's bridge this is, if one that this engine made for users.
    pub(super) fn network(&self, link: &Link) -> Option<NetworkId> {
        let alias = link.alias.as_deref()?.strip_prefix(&format!("tritium {} ", self.operator))?;
        let (tenant, id) = alias.split_once(' ')?;
        let (tenant, id) = (tenant.parse().ok()?, id.parse().ok()?);
        let ours = link.is_bridge && link.alias == Some(self.alias(&tenant, Some(id)));
        ours.then_some(id)
    }

    /// What a parent of macvlans carries if this engine has made it.
    pub(super) fn parent_alias(&self) -> String {
        format!("tritium {} parent of macvlans", self.operator)
    }

    /// The prefix that this host's subnets of IPv6 are cut from when nobody
    /// chose one: unique local (RFC 4193), and always the same.
    pub(super) fn unique_local(&self) -> Ipv6Net {
        let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
        let [a, b, c, d, e, ..] = digest(&format!("tritium {} {machine}", self.operator));
        let bytes = [0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        Ipv6Net::new_assert(Ipv6Addr::from(bytes), 48)
    }

    /// A tenant's network `bridge`, on this subnet.
    pub(super) fn default_network(
        &self,
        tenant: &TenantName,
        subnet: IpNet,
        created: i64,
    ) -> Definition {
        let pool = AddressPool {
            subnet,
            gateway: default_gateway(subnet, None),
            ..AddressPool::default()
        };
        let options = [
            ("com.docker.network.bridge.default_bridge", "true"),
            ("com.docker.network.bridge.enable_icc", "true"),
            ("com.docker.network.bridge.enable_ip_masquerade", "true"),
            ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0"),
            ("com.docker.network.bridge.name", &self.of(tenant)),
            ("com.docker.network.driver.mtu", "1500"),
        ];
        let options = options.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Definition {
            pools: vec![pool],
            options: options.into(),
            ..self.nameless(tenant, super::DEFAULT, Driver::Bridge, created)
        }
    }

    /// A network that nobody made.
    pub(super) fn nameless(
        &self,
        tenant: &TenantName,
        name: &str,
        driver: Driver,
        created: i64,
    ) -> Definition {
        Definition {
            id: self.id(tenant, name),
            tenant: tenant.clone(),
            name: name.to_owned(),
            created,
            driver,
            ipv4: true,
            ipv6: false,
            internal: false,
            attachable: false,
            pools: Vec::new(),
            ipam_options: None,
            options: [].into(),
            labels: [].into(),
            config_only: false,
            config_from: String::new(),
            zone: None,
        }
    }
}

/// # Errors
/// An interface cannot be called that.
pub(super) fn check_interface(name: &str) -> Result<(), Error> {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let fits = (1..=LONGEST_NAME).contains(&name.len());
    // The kernel's own folders beside the interfaces' in /proc/sys/net.
    let reserved = ["all", "default", "lo"].contains(&name);
    if fits && !reserved && name.chars().all(legal) {
        Ok(())
    } else {
        Err(Error::BridgeName(name.into()))
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
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
            let short = "b".parse().unwrap();
            assert_ne!(names.of(&long), names.of(&short));
            assert_ne!(names.id(&long, "bridge"), names.id(&short, "bridge"));
            assert_ne!(names.id(&long, "bridge"), names.id(&long, "host"));
        }
        let [a, b] = ["tritium0", "tritium1"].map(|name| Names::new(name).unwrap());
        assert_ne!(a.of(&long), b.of(&long));
    }

    #[test]
    fn a_name_that_no_interface_can_have_is_refused() {
        for name in ["", "a/b", "..", "a b", "all", "default", "lo", "sixteen-letters-", "a.b"] {
            assert!(Names::new(name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_hosts_own_prefix_is_unique_local() {
        let prefix = Names::new("t").unwrap().unique_local();
        assert_eq!(prefix.addr().octets()[0], 0xfd);
        assert_ne!(prefix, Names::new("u").unwrap().unique_local());
    }
}
