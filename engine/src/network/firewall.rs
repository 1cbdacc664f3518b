//! The firewall's tables: what they let through, and what they translate.
//!
//! One table of family `ip` and one of family `ip6`, both named after the
//! engine's bridge, so two engines and everybody else's rules stay apart. Their
//! rules never change; what changes are the elements of their sets, all of a
//! container's in one transaction:
//!
//! | set | what is in it |
//! |---|---|
//! | `bridges` | every bridge |
//! | `same` | paired with itself, a bridge whose containers reach each other |
//! | `masked` | bridges whose containers leave with the host's address |
//! | `internal` | bridges that nothing passes on to or from |
//! | `subnets` | every bridge's addresses (of such as overlap, the widest) |
//! | `gateways` | every bridge's own addresses |
//! | `reachable` | bridge . gateway, of one tenant's bridges each with each |
//! | `published` | protocol . port → container's address . port, on any local address |
//! | `published_at` | the same for one host address |
//! | `before` | interfaces of a host that forwarded nothing until we came |
//!
//! What networks need whose addresses are another tenant's, too, is in `zones.rs`.
//!
//! Our tables can only refuse: what another table drops stays dropped, so the
//! host's own firewall is in force over published ports, too (they pass its
//! chain of hook `forward`, as packets to the container). Where dockerd has set
//! the policy of `FORWARD` to drop, a rule in `DOCKER-USER` must accept our bridges.

use super::{
    Published,
    nft::{
        Base, Batch, End, Family, INTERFACE, PORT, PROTOCOL, accept, dnat, drop_it, interface,
        ip_address, is_established, is_in, is_loopback, jump, masquerade, meta, port, to_this_host,
        value_of, was_dnated,
    },
};
use crate::ids::TenantName;
use ipnet::IpNet;
use netlink_packet_netfilter::nftables::{Expressions, InetHookNumber, MetaKey};
use std::net::IpAddr;

/// The name of the set of interfaces between which nothing was forwarded.
pub(super) const BEFORE: &str = "before";

/// The chain that knows internal bridges.
const APART: &str = "apart";

/// The words of the register file that the name of an interface fills.
const NAME: u32 = 4;

/// The table of one family as it is with no bridge and no port, in place of
/// any that was.
pub(super) fn ruleset(batch: &mut Batch, family: Family) {
    let batch = batch.family(family);
    batch.fresh_table();
    let (address, target) = (family.address(), [family.address(), PORT]);
    for name in ["bridges", "masked", "internal", BEFORE] {
        batch.set(name, &[INTERFACE], None);
    }
    batch.set("same", &[INTERFACE, INTERFACE], None);
    batch.ranges("subnets", address);
    batch.set("gateways", &[address], None);
    batch.set("reachable", &[INTERFACE, address], None);
    batch.set("published", &[PROTOCOL, PORT], Some(&target));
    batch.set("published_at", &[address, PROTOCOL, PORT], Some(&target));
    let hook = |kind, hook, priority| Base { kind, hook, priority };
    batch.chain("spoofed", hook("filter", InetHookNumber::PreRouting, -300));
    batch.chain("inward", hook("nat", InetHookNumber::PreRouting, -100));
    batch.chain("local", hook("nat", InetHookNumber::LocalOut, -100));
    batch.chain("through", hook("filter", InetHookNumber::Forward, 0));
    batch.chain("outward", hook("nat", InetHookNumber::PostRouting, 100));
    spoofed(batch, family);
    for chain in ["inward", "local"] {
        translate(batch, family, chain);
    }
    forward(batch);
    outward(batch, family);
}

/// One look for what comes from no bridge: this is asked of every packet.
fn spoofed(batch: &mut Batch, family: Family) {
    let chain = "from_bridge";
    batch.inner_chain(chain);
    let from_bridge = [meta(MetaKey::Iifname, 0), is_in("bridges", true)];
    batch.rule("spoofed", from_bridge.into_iter().chain([jump(chain)]));
    // `route_localnet` on the bridges would let containers reach the host's
    // loopback by sending to 127.0.0.1 through the gateway.
    let to_loopback = is_loopback(family, End::Destination);
    batch.rule(chain, to_loopback.into_iter().chain([drop_it()]));
    // Bridges' own addresses are the host's, which answers on any of them by
    // any interface. A tenant reaches its own only.
    let to_a_gateway = [ip_address(family, End::Destination, 0), is_in("gateways", true)];
    let of_another = [
        meta(MetaKey::Iifname, 0),
        ip_address(family, End::Destination, NAME),
        is_in("reachable", false),
        drop_it(),
    ];
    batch.rule(chain, to_a_gateway.into_iter().chain(of_another));
}

fn translate(batch: &mut Batch, family: Family, chain: &str) {
    if family == Family::V6 && chain == "local" {
        // The kernel takes no answer to ::1 from another interface (IPv6 has no
        // `route_localnet`): so it is refused at once, and not after a minute.
        batch.rule(chain, is_loopback(family, End::Destination).into_iter().chain([accept()]));
    }
    // The value stands behind the longer of both keys.
    let value = family.words() + 2;
    for (map, key) in translated(family) {
        batch.rule(chain, key.into_iter().chain([value_of(map, value), dnat(family, value)]));
    }
}

/// Both maps of published ports, and what loads the key that a packet has in it.
pub(super) fn translated(family: Family) -> [(&'static str, Vec<Expressions>); 2] {
    let words = family.words();
    let key = |nth| [meta(MetaKey::L4Proto, nth), port(nth + 1)];
    let at = [ip_address(family, End::Destination, 0)].into_iter().chain(key(words));
    let any = to_this_host().into_iter().chain(key(0));
    [("published_at", at.collect()), ("published", any.collect())]
}

fn forward(batch: &mut Batch) {
    let chain = "through";
    batch.inner_chain(APART);
    batch.rule(chain, [jump(APART)]);
    // Nearly every packet is such a one. It was let through here when it was new.
    batch.rule(chain, is_established().into_iter().chain([accept()]));
    batch.rule(chain, within_one_bridge().into_iter().chain([accept()]));
    // A published port is everybody's, also other networks' and tenants'.
    batch.rule(chain, to_bridge().into_iter().chain(was_dnated()).chain([accept()]));
    batch.rule(chain, to_bridge().into_iter().chain([drop_it()]));
    let between = [
        meta(MetaKey::Iifname, 0),
        is_in(BEFORE, true),
        meta(MetaKey::Oifname, 0),
        is_in(BEFORE, true),
        drop_it(),
    ];
    batch.rule(chain, between);
}

/// Keeps internal bridges apart, or not any more: asked of every packet, so only while there are any.
fn keep_apart(batch: &mut Batch, there: bool) {
    if !there {
        return batch.flush(APART);
    }
    batch.rule(APART, within_one_bridge().into_iter().chain([accept()]));
    for end in [MetaKey::Iifname, MetaKey::Oifname] {
        batch.rule(APART, [meta(end, 0), is_in("internal", true), drop_it()]);
    }
}

fn outward(batch: &mut Batch, family: Family) {
    let masked = [meta(MetaKey::Iifname, 0), is_in("masked", true)];
    let to_elsewhere = [meta(MetaKey::Oifname, 0), is_in("bridges", false), masquerade()];
    batch.rule("outward", masked.into_iter().chain(to_elsewhere));
    // From one container to another's published port, perhaps of the same
    // bridge: the answer must come back this way too, so it must be asked from
    // here. By address, since br_netfilter does not say here by which interface
    // a packet came.
    let from_subnet = [ip_address(family, End::Source, 0), is_in("subnets", true)].into_iter();
    batch.rule("outward", from_subnet.chain(to_bridge()).chain(was_dnated()).chain([masquerade()]));
    let from_localhost = is_loopback(family, End::Source).into_iter();
    batch.rule("outward", from_localhost.chain(to_bridge()).chain([masquerade()]));
}

fn to_bridge() -> [Expressions; 2] {
    [meta(MetaKey::Oifname, 0), is_in("bridges", true)]
}

fn within_one_bridge() -> [Expressions; 3] {
    [meta(MetaKey::Iifname, 0), meta(MetaKey::Oifname, NAME), is_in("same", true)]
}

/// A bridge as the firewall sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wall {
    pub(super) tenant: TenantName,
    pub(super) name: String,
    pub(super) icc: bool,
    pub(super) masquerade: bool,
    pub(super) internal: bool,
    /// The bridge's own address in each of its subnets.
    pub(super) nets: Vec<IpNet>,
}

/// Lets a bridge take part, or not any more. `others` are all the others that do.
pub(super) fn change_bridge(
    batch: &mut Batch,
    families: &[Family],
    wall: &Wall,
    others: &[Wall],
    there: bool,
) {
    let name = interface(&wall.name);
    for family in families {
        let mut put = |set, key| batch.family(*family).put(set, key, there);
        put("bridges", name.clone());
        if wall.icc {
            put("same", [name.clone(), name.clone()].concat());
        }
        if wall.internal {
            put("internal", name.clone());
            if !others.iter().any(|other| other.internal) {
                keep_apart(batch.family(*family), there);
            }
        } else if wall.masquerade {
            put("masked", name.clone());
        }
    }
    for net in &wall.nets {
        let theirs: Vec<IpNet> = others.iter().flat_map(|other| &other.nets).copied().collect();
        let batch = batch.family(Family::of(net.addr()));
        // Two tenants' bridges may have one address.
        if !theirs.iter().any(|other| other.addr() == net.addr()) {
            batch.put("gateways", octets(net.addr()), there);
        }
        change_subnets(batch, net.trunc(), &theirs, there);
    }
    let mut reach = |from: &Wall, to: &Wall| {
        for net in &to.nets {
            let key = [interface(&from.name), octets(net.addr())].concat();
            batch.family(Family::of(net.addr())).put("reachable", key, there);
        }
    };
    reach(wall, wall);
    for other in others.iter().filter(|other| other.tenant == wall.tenant) {
        reach(wall, other);
        reach(other, wall);
    }
}

/// Ranges of the set `subnets` may not overlap: of subnets that do, which
/// are tenants' that do not share, the widest is in it.
fn change_subnets(batch: &mut Batch, net: IpNet, theirs: &[IpNet], there: bool) {
    let theirs: Vec<IpNet> = theirs.iter().map(IpNet::trunc).collect();
    if theirs.iter().any(|other| other.contains(&net)) {
        return;
    }
    let within: Vec<IpNet> = theirs.into_iter().filter(|other| net.contains(other)).collect();
    let widest = |one: &&IpNet| !within.iter().any(|it| it != *one && it.contains(*one));
    let mut within: Vec<IpNet> = within.iter().filter(widest).copied().collect();
    within.sort();
    within.dedup();
    let (mut out, mut into) = (within, vec![net]);
    if !there {
        std::mem::swap(&mut out, &mut into);
    }
    for net in out {
        let (first, end) = range_of(net);
        batch.remove_range("subnets", first, end);
    }
    for net in into {
        let (first, end) = range_of(net);
        batch.add_range("subnets", first, end);
    }
}

/// A subnet's first address, and the one after its last.
pub(super) fn range_of(net: IpNet) -> (Vec<u8>, Vec<u8>) {
    (octets(net.network()), following(&octets(net.broadcast())))
}

/// Forwards nothing between these interfaces, as it was before us.
pub(super) fn add_before(batch: &mut Batch, family: Family, name: Vec<u8>) {
    batch.family(family).add(BEFORE, name, None);
}

/// Leads a host's port to a container's.
pub(super) fn publish(batch: &mut Batch, port: &Published, address: IpAddr) {
    let (map, key) = key_of(port);
    let value = [octets(address), padded(port.container_port).to_vec()].concat();
    batch.family(Family::of(port.host_ip)).add(map, key, Some(value));
}

/// Takes that back.
pub(super) fn unpublish(batch: &mut Batch, port: &Published) {
    let (map, key) = key_of(port);
    batch.family(Family::of(port.host_ip)).remove(map, key);
}

pub(super) fn key_of(port: &Published) -> (&'static str, Vec<u8>) {
    let key = [[port.proto.number(), 0, 0, 0], padded(port.host_port)].concat();
    if port.host_ip.is_unspecified() {
        ("published", key)
    } else {
        ("published_at", [octets(port.host_ip), key].concat())
    }
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().into(),
        IpAddr::V6(ip) => ip.octets().into(),
    }
}

/// The number after this one; after the last, zero.
fn following(number: &[u8]) -> Vec<u8> {
    let mut number = number.to_vec();
    for byte in number.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            break;
        }
    }
    number
}

fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_range_is_the_number_after_it() {
        assert_eq!(following(&[10, 0, 0, 255]), [10, 0, 1, 0]);
        assert_eq!(following(&[1, 255, 255, 255]), [2, 0, 0, 0]);
        assert_eq!(following(&[255; 16]), [0; 16]);
    }
}
