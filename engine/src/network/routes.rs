//! Routing tables of shadowed networks, and the rules that lead to them.

use super::{
    link::{Rtnl, as_destination},
    zones::Zone,
};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage as Message,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use nix::libc;
use std::{collections::BTreeSet, io, net::IpAddr};

/// After the host's own addresses (0; Cilium moves those to 100), before
/// everything that catches whatever is left.
const MARKED: u32 = 150;
/// After the default routes: what has no mark yet finds a way at all, and so
/// comes to where it is marked; and the kernel takes no source for impossible.
const OTHERWISE: u32 = 32_800;

/// Where the kernel would send something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    /// Not for default routes.
    pub(super) to: Option<IpNet>,
    pub(super) table: u32,
    /// Index of the interface, if it is one.
    pub(super) by: Option<u32>,
}

impl Rtnl {
    /// Every route of every table.
    pub(super) fn routes(&mut self) -> io::Result<Vec<Route>> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut all = RouteMessage::default();
            all.header.address_family = family;
            found.extend(self.ask(vec![(Message::GetRoute(all), NLM_F_DUMP)])?);
        }
        Ok(found.into_iter().filter_map(as_route).collect())
    }

    /// The numbers that rules are there for, whoever's they are.
    pub(super) fn zones(&mut self) -> io::Result<BTreeSet<Zone>> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut all = RuleMessage::default();
            all.header.family = family;
            found.extend(self.ask(vec![(Message::GetRule(all), NLM_F_DUMP)])?);
        }
        Ok(found.into_iter().filter_map(zone_of).collect())
    }

    /// Leads what is marked so to a bridge, and nothing else but what has no
    /// other way. `nets`: the bridge's own address in each of its subnets.
    ///
    /// # Errors
    /// `AlreadyExists`: the number is somebody's.
    pub(super) fn lead(&mut self, zone: Zone, index: u32, nets: &[IpNet]) -> io::Result<()> {
        let replace = NLM_F_CREATE | NLM_F_REPLACE;
        let routes = nets.iter().map(|net| (Message::NewRoute(route(zone, index, *net)), replace));
        self.ask(routes.collect())?;
        let create = NLM_F_CREATE | NLM_F_EXCL;
        let rules = rules(zone, nets).map(|rule| (Message::NewRule(rule), create));
        self.ask(rules.collect()).map(drop)
    }

    /// Takes the rules back; the routes go with their bridge.
    pub(super) fn unlead(&mut self, zone: Zone) -> io::Result<()> {
        for rule in all_rules(zone) {
            match self.ask(vec![(Message::DelRule(rule), 0)]) {
                // There is none, or no such version of IP.
                Err(error) if !is_absent(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EAFNOSUPPORT | libc::EOPNOTSUPP))
}

fn family(ipv4: bool) -> AddressFamily {
    if ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn address(ip: IpAddr) -> RouteAddress {
    match ip {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    }
}

fn route(zone: Zone, index: u32, net: IpNet) -> RouteMessage {
    let mut message = RouteMessage::default();
    let ipv4 = net.addr().is_ipv4();
    message.header.address_family = family(ipv4);
    message.header.destination_prefix_length = net.prefix_len();
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = if ipv4 { RouteScope::Link } else { RouteScope::Universe };
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        RouteAttribute::Destination(address(net.network())),
        RouteAttribute::PrefSource(address(net.addr())),
        RouteAttribute::Oif(index),
        RouteAttribute::Table(zone.table()),
    ];
    message
}

/// When a rule is asked.
#[derive(Debug, Clone, Copy)]
enum When {
    Marked,
    Otherwise,
}

/// The rules for the versions of IP of `nets`.
fn rules(zone: Zone, nets: &[IpNet]) -> impl Iterator<Item = RuleMessage> {
    let has = |ipv4: bool| nets.iter().any(|net| net.addr().is_ipv4() == ipv4);
    let versions = [true, false].map(|ipv4| has(ipv4).then_some(ipv4));
    versions.into_iter().flatten().flat_map(move |ipv4| both_rules(zone, ipv4))
}

fn all_rules(zone: Zone) -> impl Iterator<Item = RuleMessage> {
    [true, false].into_iter().flat_map(move |ipv4| both_rules(zone, ipv4))
}

fn both_rules(zone: Zone, ipv4: bool) -> [RuleMessage; 2] {
    [When::Marked, When::Otherwise].map(|when| rule(zone, ipv4, when))
}

fn rule(zone: Zone, ipv4: bool, when: When) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(ipv4);
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![RuleAttribute::Table(zone.table())];
    match when {
        When::Marked => message.attributes.extend([
            RuleAttribute::Priority(MARKED),
            RuleAttribute::FwMark(zone.mark()),
            RuleAttribute::FwMask(Zone::MASK),
        ]),
        When::Otherwise => message.attributes.push(RuleAttribute::Priority(OTHERWISE)),
    }
    message
}

fn as_route(message: Message) -> Option<Route> {
    let Message::NewRoute(message) = message else { return None };
    let (mut table, mut by) = (u32::from(message.header.table), None);
    for attribute in &message.attributes {
        if let RouteAttribute::Table(number) = attribute {
            table = *number;
        } else if let RouteAttribute::Oif(index) = attribute {
            by = Some(*index);
        }
    }
    Some(Route { to: as_destination(message), table, by })
}

fn zone_of(message: Message) -> Option<Zone> {
    let Message::NewRule(message) = message else { return None };
    message.attributes.iter().find_map(|attribute| {
        if let RuleAttribute::Table(table) = attribute { Zone::of_table(*table) } else { None }
    })
}
