//! The firewall's table: what it lets through, and what it translates.
//!
//! One table of family `ip`, named after the engine's bridge, so two engines
//! and everybody else's rules stay apart. Its rules never change; what changes
//! are the elements of its sets, some in one transaction per container:
//!
//! | set | what is in it |
//! |---|---|
//! | `bridges`, `same` | every bridge; and paired with itself |
//! | `subnets` | every bridge's addresses |
//! | `published` | protocol . port → container's address . port, on any local address |
//! | `published_at` | the same for one host address |
//! | `before` | interfaces of a host that forwarded nothing until we came |
//!
//! Our table can only refuse: what another table drops stays dropped. Where
//! dockerd has set the policy of `FORWARD` to drop, a rule in `DOCKER-USER`
//! must accept our bridges.

use super::{
    Published,
    nft::{
        ADDRESS, Base, Batch, INTERFACE, PORT, PROTOCOL, accept, dnat, drop_it, interface,
        ip_address, is_established, is_in, is_loopback, masquerade, meta, port, to_this_host,
        value_of, was_dnated,
    },
};
use ipnet::Ipv4Net;
use netlink_packet_netfilter::nftables::{Expressions, InetHookNumber, MetaKey};
use std::net::Ipv4Addr;

const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;

/// The name of the set of interfaces between which nothing was forwarded.
pub(super) const BEFORE: &str = "before";

/// The table as it is with no bridge and no port, in place of any that was.
pub(super) fn ruleset(batch: &mut Batch) {
    batch.fresh_table();
    let target = [ADDRESS, PORT];
    batch.set("bridges", &[INTERFACE], None);
    batch.set("same", &[INTERFACE, INTERFACE], None);
    batch.ranges("subnets", ADDRESS);
    batch.set("published", &[PROTOCOL, PORT], Some(&target));
    batch.set("published_at", &[ADDRESS, PROTOCOL, PORT], Some(&target));
    batch.set(BEFORE, &[INTERFACE], None);
    let hook = |kind, hook, priority| Base { kind, hook, priority };
    batch.chain("spoofed", hook("filter", InetHookNumber::PreRouting, -300));
    batch.chain("inward", hook("nat", InetHookNumber::PreRouting, -100));
    batch.chain("local", hook("nat", InetHookNumber::LocalOut, -100));
    batch.chain("through", hook("filter", InetHookNumber::Forward, 0));
    batch.chain("outward", hook("nat", InetHookNumber::PostRouting, 100));
    // `route_localnet` on the bridges would let containers reach the host's
    // loopback by sending to 127.0.0.1 through the gateway.
    batch.rule(
        "spoofed",
        from_bridge().into_iter().chain(is_loopback(DESTINATION)).chain([drop_it()]),
    );
    for chain in ["inward", "local"] {
        translate(batch, chain);
    }
    forward(batch);
    let to_elsewhere = [meta(MetaKey::Oifname, 0), is_in("bridges", false), masquerade()];
    batch.rule("outward", from_bridge().into_iter().chain(to_elsewhere));
    // By way of a published port and back into the same bridge: the answer must
    // come back this way too, so it must be asked from here. By address, since
    // br_netfilter does not say here by which interface a packet came.
    let from_subnet = [ip_address(SOURCE, 0), is_in("subnets", true)].into_iter();
    batch.rule("outward", from_subnet.chain(to_bridge()).chain(was_dnated()).chain([masquerade()]));
    let from_localhost = is_loopback(SOURCE).into_iter();
    batch.rule("outward", from_localhost.chain(to_bridge()).chain([masquerade()]));
}

fn translate(batch: &mut Batch, chain: &str) {
    let key = |nth| [meta(MetaKey::L4Proto, nth), port(nth + 1)];
    let at = [ip_address(DESTINATION, 0)].into_iter().chain(key(1));
    batch.rule(chain, at.chain([value_of("published_at", 4), dnat(4)]));
    let any = to_this_host().into_iter().chain(key(0));
    batch.rule(chain, any.chain([value_of("published", 4), dnat(4)]));
}

fn forward(batch: &mut Batch) {
    let chain = "through";
    batch.rule(chain, is_established().into_iter().chain([accept()]));
    batch.rule(chain, within_one_bridge().into_iter().chain([accept()]));
    batch.rule(chain, from_bridge().into_iter().chain(to_bridge()).chain([drop_it()]));
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

fn from_bridge() -> [Expressions; 2] {
    [meta(MetaKey::Iifname, 0), is_in("bridges", true)]
}

fn to_bridge() -> [Expressions; 2] {
    [meta(MetaKey::Oifname, 0), is_in("bridges", true)]
}

fn within_one_bridge() -> [Expressions; 3] {
    [meta(MetaKey::Iifname, 0), meta(MetaKey::Oifname, 4), is_in("same", true)]
}

/// Lets a bridge take part.
pub(super) fn add_bridge(batch: &mut Batch, name: &str, subnet: Ipv4Net) {
    batch.add("bridges", interface(name), None);
    batch.add("same", [interface(name), interface(name)].concat(), None);
    let end = subnet.broadcast().to_bits().wrapping_add(1);
    batch.add_range("subnets", subnet.network().octets().into(), end.to_be_bytes().into());
}

/// Forwards nothing between these interfaces, as it was before us.
pub(super) fn add_before(batch: &mut Batch, name: Vec<u8>) {
    batch.add(BEFORE, name, None);
}

/// Leads a host's port to a container's.
pub(super) fn publish(batch: &mut Batch, port: &Published, address: Ipv4Addr) {
    let (map, key) = key_of(port);
    let value = [address.octets(), padded(port.container_port)].concat();
    batch.add(map, key, Some(value));
}

/// Takes that back.
pub(super) fn unpublish(batch: &mut Batch, port: &Published) {
    let (map, key) = key_of(port);
    batch.remove(map, key);
}

fn key_of(port: &Published) -> (&'static str, Vec<u8>) {
    let key = [[port.proto.number(), 0, 0, 0], padded(port.host_port)].concat();
    if port.host_ip.is_unspecified() {
        ("published", key)
    } else {
        ("published_at", [port.host_ip.octets().to_vec(), key].concat())
    }
}

fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}
