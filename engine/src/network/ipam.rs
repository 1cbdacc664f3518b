//! Which address is free, and which subnet. Pure.

use super::{Error, Mac, definition::AddressPool};
use ipnet::{IpNet, Ipv4Net};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

/// The addresses of one subnet, as numbers.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    subnet: IpNet,
    /// Where addresses that nobody chose are from.
    range: RangeInclusive<u128>,
    taken: BTreeSet<u128>,
    /// Of those, the ones that are never given back.
    reserved: BTreeSet<u128>,
    /// Own addresses of other tenants' bridges, which are the host's.
    hosts: BTreeSet<u128>,
}

impl Addresses {
    /// All free but the subnet's own, the gateway's and the auxiliary ones.
    pub(super) fn new(pool: &AddressPool) -> Self {
        let mut addresses = Self::bare(pool.subnet, pool.range);
        let kept = pool.auxiliary.values().copied().chain(pool.gateway);
        addresses.taken.extend(kept.map(number));
        addresses.reserved.clone_from(&addresses.taken);
        addresses
    }

    fn bare(subnet: IpNet, range: Option<IpNet>) -> Self {
        let subnet = subnet.trunc();
        let range = range.unwrap_or(subnet);
        let span = number(range.network())..=number(range.broadcast());
        let taken: BTreeSet<u128> = own(subnet).map(number).collect();
        Self { subnet, range: span, reserved: taken.clone(), taken, hosts: BTreeSet::new() }
    }

    /// Leaves these to the host, as long as they are its own; those of the subnet count.
    pub(super) fn leave(&mut self, hosts: &[IpAddr]) {
        let within = hosts.iter().filter(|address| self.subnet.contains(*address));
        self.hosts = within.map(|address| number(*address)).collect();
    }

    /// Whether a container has it.
    pub(super) fn is_used(&self, address: IpAddr) -> bool {
        let number = number(address);
        let here = self.subnet.contains(&address);
        here && self.taken.contains(&number) && !self.reserved.contains(&number)
    }

    /// Takes the lowest free address, as Docker does, or exactly `wanted`.
    ///
    /// # Errors
    /// None is free; `wanted` is taken or not of this subnet.
    pub(super) fn take(
        &mut self,
        wanted: Option<IpAddr>,
        network: (&str, crate::ids::NetworkId),
    ) -> Result<IpAddr, Error> {
        let free = match wanted {
            None => self.lowest_free().ok_or_else(|| Error::NoAddress {
                version: if self.subnet.addr().is_ipv4() { 4 } else { 6 },
                network: network.0.to_owned(),
                id: network.1,
            })?,
            Some(address) if self.subnet.contains(&address) => address,
            Some(address) => return Err(Error::AddressOutside { address }),
        };
        let is_hosts = self.hosts.contains(&number(free));
        if !is_hosts && self.taken.insert(number(free)) {
            Ok(free)
        } else {
            Err(Error::AddressInUse(free))
        }
    }

    /// Gives an address back. What is reserved never is.
    pub(super) fn release(&mut self, address: IpAddr) {
        let number = number(address);
        if self.subnet.contains(&address) && !self.reserved.contains(&number) {
            self.taken.remove(&number);
        }
    }

    fn lowest_free(&self) -> Option<IpAddr> {
        let mut free = *self.range.start();
        loop {
            for taken in self.taken.range(free..).take_while(|taken| self.range.contains(*taken)) {
                if *taken > free {
                    break;
                }
                free = taken.checked_add(1)?;
            }
            if !self.hosts.contains(&free) {
                break;
            }
            free = free.checked_add(1)?;
        }
        self.range.contains(&free).then(|| address(free, self.subnet.addr().is_ipv4()))
    }
}

/// The addresses of a subnet that no host can have.
fn own(subnet: IpNet) -> impl Iterator<Item = IpAddr> {
    let has_own = match subnet {
        IpNet::V4(net) => net.prefix_len() < 31,
        IpNet::V6(net) => net.prefix_len() < 127,
    };
    let last = subnet.addr().is_ipv4().then(|| subnet.broadcast());
    [Some(subnet.network()), last].into_iter().flatten().filter(move |_| has_own)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn address(number: u128, is_ipv4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(bits) if is_ipv4 => Ipv4Addr::from_bits(bits).into(),
        Ok(_) | Err(_) => Ipv6Addr::from_bits(number).into(),
    }
}

/// The gateway of a subnet that nobody chose one for: the first address (of its range).
///
/// # Errors
/// The subnet has no address for it.
pub(super) fn default_gateway(subnet: IpNet, range: Option<IpNet>) -> Option<IpAddr> {
    Addresses::bare(subnet, range).lowest_free()
}

/// What a gateway or an auxiliary address cannot be.
pub(super) fn is_own(subnet: IpNet, address: IpAddr) -> bool {
    own(subnet).any(|own| own == address)
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
/// the operator's size, each as large as 16 of all others. With the default
/// pool the operator's bridge is a /16, as Docker's.
pub(super) fn prefix_in(pool: Ipv4Net, operator: bool) -> u8 {
    let bits = if operator { 4 } else { 8 };
    (pool.prefix_len() + bits).clamp(16, SMALLEST)
}

/// The first subnet of `pool`, from the pool's address as written, that
/// overlaps nothing `used`; after the pool's end it goes on at its beginning.
pub(super) fn free_subnet(pool: IpNet, prefix: u8, used: &[IpNet]) -> Option<IpNet> {
    let from = IpNet::new(pool.addr(), prefix).ok()?.trunc();
    let all = || pool.trunc().subnets(prefix);
    let later = all().ok()?.filter(|subnet| subnet.network() >= from.network());
    let earlier = all().ok()?.filter(|subnet| subnet.network() < from.network());
    later.chain(earlier).find(|subnet| !used.iter().any(|other| overlap(other, subnet)))
}

pub(super) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NetworkId;

    const ID: (&str, NetworkId) = ("bridge", NetworkId::of([7; 32]));

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn pool(subnet: &str) -> AddressPool {
        AddressPool {
            subnet: net(subnet),
            gateway: default_gateway(net(subnet), None),
            ..AddressPool::default()
        }
    }

    fn addresses(subnet: &str) -> Addresses {
        Addresses::new(&pool(subnet))
    }

    #[test]
    fn the_lowest_free_address_is_taken_first_and_again_once_released() {
        for (subnet, free) in [
            ("172.17.0.0/16", ["172.17.0.2", "172.17.0.3", "172.17.0.4"]),
            ("fd00::/64", ["fd00::2", "fd00::3", "fd00::4"]),
        ] {
            let mut addresses = addresses(subnet);
            let [first, second, third] = free.map(ip);
            assert_eq!(addresses.take(None, ID).unwrap(), first);
            assert_eq!(addresses.take(None, ID).unwrap(), second);
            addresses.release(first);
            assert_eq!(addresses.take(None, ID).unwrap(), first);
            assert_eq!(addresses.take(None, ID).unwrap(), third);
        }
    }

    #[test]
    fn an_exhausted_subnet_says_so_in_dockers_words() {
        let mut addresses = addresses("10.0.0.0/29");
        for _ in 2..=6 {
            addresses.take(None, ID).unwrap();
        }
        let refused = addresses.take(None, ID).unwrap_err().to_string();
        let words = "no available IPv4 addresses on this network's address pools: bridge (0707";
        assert!(refused.starts_with(words), "{refused}");
    }

    #[test]
    fn gateway_network_and_broadcast_are_never_given_away() {
        let mut addresses = addresses("10.0.0.0/29");
        for address in ["10.0.0.0", "10.0.0.1", "10.0.0.7"].map(ip) {
            addresses.release(address);
            let refused = addresses.take(Some(address), ID);
            assert!(matches!(refused, Err(Error::AddressInUse(_))), "{refused:?}");
        }
        let refused = addresses.take(Some(ip("10.0.1.1")), ID);
        assert!(matches!(refused, Err(Error::AddressOutside { .. })), "{refused:?}");
    }

    #[test]
    fn only_a_range_is_given_away_unless_asked_and_auxiliary_addresses_never() {
        let mut pool = pool("10.0.0.0/24");
        pool.range = Some(net("10.0.0.64/30"));
        pool.auxiliary.insert("printer".into(), ip("10.0.0.65"));
        let mut addresses = Addresses::new(&pool);
        for last in [64, 66, 67] {
            assert_eq!(addresses.take(None, ID).unwrap(), ip(&format!("10.0.0.{last}")));
        }
        addresses.take(None, ID).unwrap_err();
        assert_eq!(addresses.take(Some(ip("10.0.0.9")), ID).unwrap(), ip("10.0.0.9"));
        addresses.release(ip("10.0.0.65"));
        addresses.take(Some(ip("10.0.0.65")), ID).unwrap_err();
    }

    #[test]
    fn the_last_subnet_of_all_is_exhausted_without_overflow() {
        for subnet in [
            "255.255.255.248/29",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff8/125",
            "10.0.0.0/31",
            "10.0.0.0/32",
        ] {
            let mut addresses = addresses(subnet);
            assert!((0..8).any(|_| addresses.take(None, ID).is_err()), "{subnet}");
        }
    }

    #[test]
    fn a_subnet_that_the_host_uses_is_skipped() {
        let pool = net("172.17.0.0/12");
        let used = [net("172.17.0.0/16"), net("172.18.5.0/24"), net("172.16.0.0/15")];
        assert_eq!(free_subnet(pool, 16, &[]), Some(net("172.17.0.0/16")));
        assert_eq!(free_subnet(pool, 16, &used), Some(net("172.19.0.0/16")));
        assert_eq!(free_subnet(pool, 16, &[net("172.16.0.0/12")]), None);
        assert_eq!(free_subnet(pool, 16, &[net("10.0.0.0/8")]), Some(net("172.17.0.0/16")));
        assert_eq!(free_subnet(pool, 16, &[net("::/0")]), Some(net("172.17.0.0/16")));
        let used = [net("fd00::/64"), net("fd00:0:0:1::1/128")];
        assert_eq!(free_subnet(net("fd00::/48"), 64, &used), Some(net("fd00:0:0:2::/64")));
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
            let pool = Ipv4Net::new(Ipv4Addr::new(10, 0, 0, 0), prefix).unwrap();
            for operator in [true, false] {
                assert!(prefix_in(pool, operator) >= prefix);
            }
        }
        assert_eq!(prefix_in("172.17.0.0/12".parse().unwrap(), true), 16);
        assert_eq!(prefix_in("172.17.0.0/12".parse().unwrap(), false), 20);
    }

    #[test]
    fn the_mac_follows_from_the_address() {
        assert_eq!(mac_of(Ipv4Addr::new(172, 17, 0, 2)).to_string(), "02:42:ac:11:00:02");
    }
}
