//! Which address is free, and which subnet. Pure.

use super::{Error, Mac};
use crate::ids::NetworkId;
use ipnet::Ipv4Net;
use std::{collections::BTreeSet, net::Ipv4Addr};

/// The addresses of one subnet. The first is the gateway's.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    subnet: Ipv4Net,
    taken: BTreeSet<u32>,
}

impl Addresses {
    pub(super) fn new(subnet: Ipv4Net) -> Self {
        let subnet = subnet.trunc();
        let reserved = [
            subnet.network().to_bits(),
            gateway_of(subnet).to_bits(),
            subnet.broadcast().to_bits(),
        ];
        Self { subnet, taken: reserved.into() }
    }

    /// Takes the lowest free address, as Docker does, or exactly `wanted`.
    ///
    /// # Errors
    /// None is free; `wanted` is taken or not of this subnet.
    pub(super) fn take(
        &mut self,
        wanted: Option<Ipv4Addr>,
        network: NetworkId,
    ) -> Result<Ipv4Addr, Error> {
        let free = match wanted {
            None => {
                self.lowest_free().ok_or(Error::NoAddress { network: "bridge", id: network })?
            }
            Some(address) if self.subnet.contains(&address) => address,
            Some(address) => return Err(Error::AddressOutside { address, subnet: self.subnet }),
        };
        if self.taken.insert(free.to_bits()) { Ok(free) } else { Err(Error::AddressInUse(free)) }
    }

    /// Gives an address back. The gateway's and the subnet's own never are.
    pub(super) fn release(&mut self, address: Ipv4Addr) {
        let last = self.subnet.broadcast().to_bits();
        let host = gateway_of(self.subnet).to_bits() + 1..last;
        if host.contains(&address.to_bits()) {
            self.taken.remove(&address.to_bits());
        }
    }

    fn lowest_free(&self) -> Option<Ipv4Addr> {
        let mut free = self.subnet.network().to_bits();
        for taken in &self.taken {
            if *taken > free {
                break;
            }
            free = taken.checked_add(1)?;
        }
        Some(Ipv4Addr::from_bits(free)).filter(|address| self.subnet.contains(address))
    }
}

/// The first address of a subnet, which the bridge has.
pub(super) fn gateway_of(subnet: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from_bits(subnet.network().to_bits() + 1)
}

/// The Ethernet address that goes with an IPv4 address, so that a reused
/// address never meets a stale neighbour entry.
pub(super) fn mac_of(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    Mac([0x02, 0x42, a, b, c, d])
}

/// The longest prefix that a bridge can have, in bits: 5 containers.
pub(super) const SMALLEST: u8 = 29;

/// How long a bridge's prefix is, in bits, when cut from `pool`: 16 subnets of
/// the operator's size, each as large as 16 of another tenant's. With the
/// default pool the operator's bridge is a /16, as Docker's.
pub(super) fn prefix_in(pool: Ipv4Net, operator: bool) -> u8 {
    let bits = if operator { 4 } else { 8 };
    (pool.prefix_len() + bits).clamp(16, SMALLEST)
}

/// The first subnet of `pool`, from the pool's address as written, that
/// overlaps nothing `used`; after the pool's end it goes on at its beginning.
pub(super) fn free_subnet(pool: Ipv4Net, prefix: u8, used: &[Ipv4Net]) -> Option<Ipv4Net> {
    let from = Ipv4Net::new(pool.addr(), prefix).ok()?.trunc();
    let all = || pool.trunc().subnets(prefix);
    let later = all().ok()?.filter(|subnet| subnet.network() >= from.network());
    let earlier = all().ok()?.filter(|subnet| subnet.network() < from.network());
    later
        .chain(earlier)
        .find(|subnet| !used.iter().any(|other| other.contains(subnet) || subnet.contains(other)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NetworkId;

    const ID: NetworkId = NetworkId::of([7; 32]);

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn the_lowest_free_address_is_taken_first_and_again_once_released() {
        let mut addresses = Addresses::new(net("172.17.0.0/16"));
        assert_eq!(addresses.take(None, ID).unwrap(), ip("172.17.0.2"));
        assert_eq!(addresses.take(None, ID).unwrap(), ip("172.17.0.3"));
        addresses.release(ip("172.17.0.2"));
        assert_eq!(addresses.take(None, ID).unwrap(), ip("172.17.0.2"));
        assert_eq!(addresses.take(None, ID).unwrap(), ip("172.17.0.4"));
    }

    #[test]
    fn an_exhausted_subnet_says_so_in_dockers_words() {
        let mut addresses = Addresses::new(net("10.0.0.0/29"));
        for _ in 2..=6 {
            addresses.take(None, ID).unwrap();
        }
        let refused = addresses.take(None, ID).unwrap_err().to_string();
        let words = "no available IPv4 addresses on this network's address pools: bridge (0707";
        assert!(refused.starts_with(words), "{refused}");
    }

    #[test]
    fn gateway_network_and_broadcast_are_never_given_away() {
        let mut addresses = Addresses::new(net("10.0.0.0/29"));
        for address in ["10.0.0.0", "10.0.0.1", "10.0.0.7"].map(ip) {
            addresses.release(address);
            let refused = addresses.take(Some(address), ID);
            assert!(matches!(refused, Err(Error::AddressInUse(_))), "{refused:?}");
        }
        let refused = addresses.take(Some(ip("10.0.1.1")), ID);
        assert!(matches!(refused, Err(Error::AddressOutside { .. })), "{refused:?}");
    }

    #[test]
    fn the_last_subnet_of_all_is_exhausted_without_overflow() {
        let mut addresses = Addresses::new(net("255.255.255.248/29"));
        for _ in 2..=6 {
            addresses.take(None, ID).unwrap();
        }
        assert!(addresses.take(None, ID).is_err());
    }

    #[test]
    fn a_subnet_that_the_host_uses_is_skipped() {
        let pool = net("172.17.0.0/12");
        let used = [net("172.17.0.0/16"), net("172.18.5.0/24"), net("172.16.0.0/15")];
        assert_eq!(free_subnet(pool, 16, &[]), Some(net("172.17.0.0/16")));
        assert_eq!(free_subnet(pool, 16, &used), Some(net("172.19.0.0/16")));
        assert_eq!(free_subnet(pool, 16, &[net("172.16.0.0/12")]), None);
        assert_eq!(free_subnet(pool, 16, &[net("10.0.0.0/8")]), Some(net("172.17.0.0/16")));
    }

    #[test]
    fn the_search_goes_on_at_the_pools_beginning() {
        assert_eq!(
            free_subnet(net("10.0.0.32/26"), 28, &[net("10.0.0.32/27")]),
            Some(net("10.0.0.0/28"))
        );
    }

    #[test]
    fn a_subnet_is_never_larger_than_its_pool() {
        for prefix in 0..=SMALLEST {
            let pool = Ipv4Net::new(ip("10.0.0.0"), prefix).unwrap();
            for operator in [true, false] {
                assert!(prefix_in(pool, operator) >= prefix);
            }
        }
        assert_eq!(prefix_in(net("172.17.0.0/12"), true), 16);
        assert_eq!(prefix_in(net("172.17.0.0/12"), false), 20);
    }

    #[test]
    fn the_mac_follows_from_the_address() {
        assert_eq!(mac_of(ip("172.17.0.2")).to_string(), "02:42:ac:11:00:02");
    }
}
