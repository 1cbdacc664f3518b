//! Networks whose addresses are another tenant's, too: what keeps their packets apart.
//!
//! Such a network is *shadowed*: it has a number, and with it a routing table
//! that alone knows the way to its bridge (`routes.rs`), a mark that leads
//! there, and a conntrack zone for the connections that begin in it. The tables
//! made here (named as the firewall's, with `.zones` behind) put the marks on.
//! They exist only while a network is shadowed, and are built as a whole;
//! what changes more often is where published ports lead.
//!
//! Which mark a packet has to have is decided when all is known of it, after
//! conntrack and translation and just before it is routed:
//!
//! | the packet | is marked for |
//! |---|---|
//! | from a shadowed bridge, first of all | that bridge |
//! | on its way to a published port | the bridge of the container (`ct mark`) |
//! | an answer | the bridge where the connection began (`ct original zone`) |
//!
//! An answer carries no zone (the world's answers have none), so two tenants'
//! containers of one address could answer for each other: what comes from a
//! bridge that the connection does not lead to is dropped.
//!
//! What the host itself answers is routed once before it has a mark, and again
//! when it has: the kernel's ICMP errors, too, which belong to the connection
//! of the packet they are about (`nf_ct_attach`). Of marks, only the bits of
//! [`Zone::MASK`] are ever changed.

use super::{
    Published,
    firewall::{key_of, translated},
    nft::{
        Base, Batch, CT_ZONE, Family, INTERFACE, MARK, PORT, PROTOCOL, ct_mark, drop_it, interface,
        is, is_in, is_not_interface, is_original, is_short, jump_by, meta, original_zone,
        set_ct_mark, set_mark, set_original_zone, was_dnated, was_not_dnated,
    },
};
use netlink_packet_netfilter::nftables::{InetHookNumber, MetaKey};
use serde::{Deserialize, Serialize};

/// The number of a shadowed network: one on this host among all engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16")]
pub struct Zone(u16);

/// The upper bits of our conntrack zones, of which the lower are the number.
const ZONES: u16 = 0xa000;

impl Zone {
    pub(super) const LAST: u16 = 0x7ff;
    /// The bits of a mark that hold a number.
    pub(super) const MASK: u32 = 0xffe0_0000;
    /// What our routing tables are numbered from.
    const TABLES: u32 = 0x7472_0000;

    pub(super) fn new(number: u16) -> Option<Self> {
        (1..=Self::LAST).contains(&number).then_some(Self(number))
    }

    pub(super) fn of_table(table: u32) -> Option<Self> {
        Self::new(u16::try_from(table.checked_sub(Self::TABLES)?).ok()?)
    }

    /// The routing table.
    pub(super) fn table(self) -> u32 {
        Self::TABLES + u32::from(self.0)
    }

    /// The packets' mark, and the connections'.
    pub(super) fn mark(self) -> u32 {
        u32::from(self.0) << 21
    }

    /// The conntrack zone.
    fn conntrack(self) -> u16 {
        ZONES | self.0
    }

    fn zone_key(self) -> Vec<u8> {
        let [a, b] = self.conntrack().to_ne_bytes();
        vec![a, b, 0, 0]
    }

    fn chain(self, verb: &str) -> String {
        format!("{verb}_{}", self.0)
    }
}

impl TryFrom<u16> for Zone {
    type Error = String;
    fn try_from(number: u16) -> Result<Self, String> {
        Self::new(number).ok_or_else(|| format!("{number} is no shadowed network's number"))
    }
}

/// A shadowed bridge.
#[derive(Debug)]
pub(super) struct Shadowed {
    pub(super) zone: Zone,
    pub(super) bridge: String,
}

/// The name of the tables.
pub(super) fn table(firewall: &str) -> String {
    // No bridge can be called so.
    format!("{firewall}.zones")
}

/// The tables of one family with these bridges, and as yet no port, in place of
/// any there were. `plain`: all bridges that are not shadowed.
pub(super) fn ruleset(batch: &mut Batch, family: Family, shadowed: &[Shadowed], plain: &[String]) {
    let batch = batch.family(family);
    batch.fresh_table();
    sets(batch, family);
    let hook = |kind, hook, priority| Base { kind, hook, priority };
    // Before defragmentation (-400): fragments are put together by zone.
    batch.chain("entered", hook("filter", InetHookNumber::PreRouting, -450));
    batch.chain("led", hook("nat", InetHookNumber::PreRouting, -101));
    batch.chain("led_local", hook("nat", InetHookNumber::LocalOut, -101));
    batch.chain("sorted", hook("filter", InetHookNumber::PreRouting, -90));
    // Of this type, so that a packet with another mark is routed anew.
    batch.chain("sent", hook("route", InetHookNumber::LocalOut, -150));
    batch.chain("left", hook("filter", InetHookNumber::PostRouting, -150));
    for Shadowed { zone, bridge, .. } in shadowed {
        chains_of(batch, *zone);
        stay(batch, *zone, bridge);
    }
    batch.rule("entered", [meta(MetaKey::Iifname, 0), jump_by("enter")]);
    for chain in ["led", "led_local"] {
        for (map, key) in translated(family) {
            batch.rule(chain, key.into_iter().chain([jump_by(map)]));
        }
    }
    sorted(batch);
    to_other_ends(batch, "sent", ["origins", "targets"]);
    left(batch);
    elements(batch, shadowed, plain);
}

fn sets(batch: &mut Batch, family: Family) {
    batch.set("plain", &[INTERFACE], None);
    batch.set("shadowed", &[INTERFACE], None);
    batch.jumps("enter", &[INTERFACE]);
    batch.jumps("check", &[INTERFACE]);
    batch.jumps("origins", &[CT_ZONE]);
    batch.jumps("targets", &[MARK]);
    batch.jumps("stay_origins", &[CT_ZONE]);
    batch.jumps("stay_targets", &[MARK]);
    batch.jumps("published", &[PROTOCOL, PORT]);
    batch.jumps("published_at", &[family.address(), PROTOCOL, PORT]);
}

/// What is done for one network. A rule can set a part of a mark only to what
/// stands in it, so each number has rules of its own.
fn chains_of(batch: &mut Batch, zone: Zone) {
    let [enter, check, turn, lead] =
        ["enter", "check", "turn", "lead"].map(|verb| zone.chain(verb));
    for chain in [&enter, &check, &turn, &lead] {
        batch.inner_chain(chain);
    }
    batch.rule(&enter, set_original_zone(zone.conntrack()));
    batch.rule(&enter, set_mark(Zone::MASK, zone.mark()));
    let answers = || is_original(false).into_iter();
    let elsewhere = ct_mark(Zone::MASK).into_iter().chain([is(zone.mark(), false), drop_it()]);
    batch.rule(&check, answers().chain(was_dnated()).chain(elsewhere));
    let began = [original_zone()].into_iter();
    let began_elsewhere = began.chain(is_short(u16::MAX, zone.conntrack(), false));
    let all = answers().chain(was_not_dnated()).chain(began_elsewhere);
    batch.rule(&check, all.chain([drop_it()]));
    batch.rule(&turn, set_mark(Zone::MASK, zone.mark()));
    batch.rule(&lead, set_ct_mark(Zone::MASK, zone.mark()));
    batch.rule(&lead, set_mark(Zone::MASK, zone.mark()));
}

/// Of our bridges, what belongs to this one leaves by no other.
fn stay(batch: &mut Batch, zone: Zone, bridge: &str) {
    let chain = zone.chain("stay");
    batch.inner_chain(&chain);
    for set in ["plain", "shadowed"] {
        let by_another = [meta(MetaKey::Oifname, 0), is_not_interface(bridge), is_in(set, true)];
        batch.rule(&chain, by_another.into_iter().chain([drop_it()]));
    }
}

/// Somebody else's rule may come before ours, or take the mark away: what then
/// would reach a container that only has the same address is dropped.
fn left(batch: &mut Batch) {
    let chain = "left";
    to_other_ends(batch, chain, ["stay_origins", "stay_targets"]);
    let leaves = || [meta(MetaKey::Oifname, 0), is_in("shadowed", true)].into_iter();
    let began = [original_zone()].into_iter().chain(is_short(!Zone::LAST, ZONES, false));
    let all = leaves().chain(is_original(false)).chain(began);
    batch.rule(chain, all.chain([drop_it()]));
    let led_elsewhere = ct_mark(Zone::MASK).into_iter().chain([is(0, true)]);
    let all = leaves().chain(is_original(true)).chain(was_dnated()).chain(led_elsewhere);
    batch.rule(chain, all.chain([drop_it()]));
}

fn sorted(batch: &mut Batch) {
    let chain = "sorted";
    let comes = |set| [meta(MetaKey::Iifname, 0), is_in(set, true)].into_iter();
    let answers = || is_original(false).into_iter();
    batch.rule(chain, [meta(MetaKey::Iifname, 0), jump_by("check")]);
    // Only a shadowed container's bridge answers for it.
    let from_elsewhere = [meta(MetaKey::Iifname, 0), is_in("shadowed", false)];
    let led_there = ct_mark(Zone::MASK).into_iter().chain([is(0, false)]);
    let all = answers().chain(was_dnated()).chain(led_there).chain(from_elsewhere);
    batch.rule(chain, all.chain([drop_it()]));
    // What begins in a shadowed network and is not translated, no other network answers.
    let began = [original_zone()].into_iter().chain(is_short(!Zone::LAST, ZONES, true));
    let all = comes("plain").chain(answers()).chain(was_not_dnated()).chain(began);
    batch.rule(chain, all.chain([drop_it()]));
    // What was translated has its other end elsewhere, perhaps at an address of this network's.
    batch.rule(chain, comes("shadowed").chain(was_dnated()).chain(set_mark(Zone::MASK, 0)));
    to_other_ends(batch, chain, ["origins", "targets"]);
}

/// Jumps by the bridge of a connection's other end: where it began, or where
/// it was led.
fn to_other_ends(batch: &mut Batch, chain: &str, [origins, targets]: [&str; 2]) {
    let back = is_original(false).into_iter().chain([original_zone(), jump_by(origins)]);
    batch.rule(chain, back);
    let there = is_original(true).into_iter().chain(was_dnated()).chain(ct_mark(Zone::MASK));
    batch.rule(chain, there.chain([jump_by(targets)]));
}

fn elements(batch: &mut Batch, shadowed: &[Shadowed], plain: &[String]) {
    for name in plain {
        batch.add("plain", interface(name), None);
    }
    for Shadowed { zone, bridge, .. } in shadowed {
        let bridge = interface(bridge);
        batch.add("shadowed", bridge.clone(), None);
        batch.add_jump("enter", bridge.clone(), &zone.chain("enter"));
        batch.add_jump("check", bridge, &zone.chain("check"));
        let mark = zone.mark().to_ne_bytes();
        for (before, verb) in [("", "turn"), ("stay_", "stay")] {
            batch.add_jump(&format!("{before}origins"), zone.zone_key(), &zone.chain(verb));
            batch.add_jump(&format!("{before}targets"), mark.to_vec(), &zone.chain(verb));
        }
    }
}

/// Leads a host's port to a container in a shadowed network; the address and
/// port are the firewall's to translate.
pub(super) fn publish(batch: &mut Batch, firewall: &str, port: &Published, zone: Zone) {
    batch.in_table(table(firewall), |batch| {
        let (map, key) = key_of(port);
        batch.family(Family::of(port.host_ip)).add_jump(map, key, &zone.chain("lead"));
    });
}

/// Takes that back.
pub(super) fn unpublish(batch: &mut Batch, firewall: &str, port: &Published) {
    batch.in_table(table(firewall), |batch| {
        let (map, key) = key_of(port);
        batch.family(Family::of(port.host_ip)).remove(map, key);
    });
}
