//! Interfaces, addresses and routes: the part of rtnetlink(7) that is needed.

use super::{
    Mac,
    netlink::{Ack, Conversation},
};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage as Message,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage},
    link::{
        BridgePortState, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth,
        LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State,
    },
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};
use netlink_sys::protocols::NETLINK_ROUTE;
use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

pub(super) const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// An interface as the kernel tells it.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) alias: Option<String>,
    /// Index of the bridge it is a port of.
    pub(super) master: Option<u32>,
    pub(super) is_bridge: bool,
    /// Whether it can send: its queue takes packets.
    pub(super) is_up: bool,
    /// Whether its bridge passes frames from it and to it.
    pub(super) is_forwarding: bool,
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            alias: None,
            master: None,
            is_bridge: false,
            is_up: false,
            is_forwarding: false,
        };
        for attribute in message.attributes {
            #[expect(clippy::wildcard_enum_match_arm, reason = "the kernel tells more than we ask")]
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::OperState(state) => link.is_up = state == State::Up,
                LinkAttribute::Controller(index) => link.master = Some(index),
                LinkAttribute::LinkInfo(info) => {
                    link.is_bridge = info.contains(&LinkInfo::Kind(InfoKind::Bridge));
                    link.is_forwarding = info.iter().any(is_forwarding);
                }
                _ => {}
            }
        }
        link
    }
}

fn is_forwarding(info: &LinkInfo) -> bool {
    let state = InfoBridgePort::State(BridgePortState::Forwarding);
    matches!(info, LinkInfo::PortData(InfoPortData::BridgePort(port)) if port.contains(&state))
}

/// A bridge that is to be made.
#[derive(Debug)]
pub(super) struct BridgePlan<'a> {
    pub(super) name: &'a str,
    pub(super) alias: &'a str,
    pub(super) mac: Mac,
    pub(super) mtu: Option<u32>,
}

/// A veth that is to be made.
#[derive(Debug)]
pub(super) struct VethPlan<'a> {
    /// Of the host's end.
    pub(super) name: &'a str,
    /// Of the container's end.
    pub(super) inside: &'a str,
    /// Index of the bridge.
    pub(super) bridge: u32,
    /// The container's.
    pub(super) mac: Option<Mac>,
    pub(super) mtu: Option<u32>,
    /// Passes no frames to other isolated ports of the bridge.
    pub(super) isolated: bool,
}

pub(super) fn link(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    message
}

pub(super) fn upped(mut message: LinkMessage) -> LinkMessage {
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

fn address(index: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(net.addr());
    message.header.prefix_len = net.prefix_len();
    message.header.index = index;
    message.attributes =
        vec![AddressAttribute::Local(net.addr()), AddressAttribute::Address(net.addr())];
    match net {
        IpNet::V4(net) => message.attributes.push(AddressAttribute::Broadcast(net.broadcast())),
        // Nobody else can have it: there is nothing to detect and wait for.
        IpNet::V6(_) => {
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    message
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn default_route(index: u32, gateway: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(gateway);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    let gateway = match gateway {
        IpAddr::V4(gateway) => RouteAddress::Inet(gateway),
        IpAddr::V6(gateway) => RouteAddress::Inet6(gateway),
    };
    message.attributes = vec![RouteAttribute::Gateway(gateway), RouteAttribute::Oif(index)];
    message
}

/// A conversation with rtnetlink in one namespace.
#[derive(Debug)]
pub(super) struct Rtnl(Conversation);

impl Rtnl {
    /// In the calling thread's network namespace.
    pub(super) fn open() -> io::Result<Self> {
        Conversation::open(NETLINK_ROUTE).map(Self)
    }

    pub(super) fn ask(&mut self, messages: Vec<(Message, u16)>) -> io::Result<Vec<Message>> {
        self.0.ask(messages, Ack::Each)
    }

    /// Every interface.
    pub(super) fn links(&mut self) -> io::Result<Vec<Link>> {
        let dump = Message::GetLink(LinkMessage::default());
        Ok(self.ask(vec![(dump, NLM_F_DUMP)])?.into_iter().filter_map(as_link).collect())
    }

    /// The interface of that name; none when there is none.
    pub(super) fn find(&mut self, name: &str) -> io::Result<Option<Link>> {
        self.get(link(0, vec![LinkAttribute::IfName(name.into())]))
    }

    /// The interface of that index; none when there is none.
    pub(super) fn at(&mut self, index: u32) -> io::Result<Option<Link>> {
        self.get(link(index, Vec::new()))
    }

    fn get(&mut self, wanted: LinkMessage) -> io::Result<Option<Link>> {
        match self.ask(vec![(Message::GetLink(wanted), 0)]) {
            Ok(found) => Ok(found.into_iter().find_map(as_link)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every address, with the index of its interface.
    pub(super) fn addresses(&mut self) -> io::Result<Vec<(u32, IpNet)>> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut all = AddressMessage::default();
            all.header.family = family;
            found.extend(self.ask(vec![(Message::GetAddress(all), NLM_F_DUMP)])?);
        }
        Ok(found.into_iter().filter_map(as_address).collect())
    }

    /// Makes a bridge, down.
    pub(super) fn add_bridge(&mut self, plan: &BridgePlan<'_>) -> io::Result<u32> {
        // With a MAC of its own, or it would take its lowest port's.
        let mut attributes = vec![
            LinkAttribute::IfName(plan.name.into()),
            LinkAttribute::Address(plan.mac.0.to_vec()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ];
        attributes.extend(plan.mtu.map(LinkAttribute::Mtu));
        self.ask(vec![(Message::NewLink(link(0, attributes)), CREATE)])?;
        let finish = |rtnl: &mut Self| {
            let made = rtnl.find(plan.name)?.ok_or(io::ErrorKind::NotFound)?;
            let named = link(made.index, vec![LinkAttribute::IfAlias(plan.alias.into())]);
            rtnl.ask(vec![(Message::SetLink(named), 0)])?;
            Ok(made.index)
        };
        finish(self).inspect_err(|_| {
            // What matters is why it could not be finished.
            drop(self.delete(plan.name));
        })
    }

    /// Gives an interface addresses.
    pub(super) fn add_addresses(&mut self, index: u32, nets: &[IpNet]) -> io::Result<()> {
        let all = nets.iter().map(|net| (Message::NewAddress(address(index, *net)), CREATE));
        self.ask(all.collect()).map(drop)
    }

    /// Gives it addresses, but the host no way to their subnets. Each stands
    /// alone: the kernel would take a subnet's last address for its own, too,
    /// and that may be somebody else's.
    pub(super) fn add_bare_addresses(&mut self, index: u32, nets: &[IpNet]) -> io::Result<()> {
        let bare = |net: &IpNet| {
            let mut message = address(index, IpNet::from(net.addr()));
            let mut flags = AddressFlags::Noprefixroute;
            if net.addr().is_ipv6() {
                flags |= AddressFlags::Nodad;
            }
            let is_other = |it: &AddressAttribute| {
                !matches!(it, AddressAttribute::Flags(_) | AddressAttribute::Broadcast(_))
            };
            message.attributes.retain(is_other);
            message.attributes.push(AddressAttribute::Flags(flags));
            (Message::NewAddress(message), CREATE)
        };
        self.ask(nets.iter().map(bare).collect()).map(drop)
    }

    /// Makes a veth: one end here, up and a port of a bridge; the other, down, in `netns`.
    pub(super) fn add_veth(
        &mut self,
        plan: &VethPlan<'_>,
        netns: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let mut there = vec![
            LinkAttribute::IfName(plan.inside.into()),
            LinkAttribute::NetNsFd(netns.as_raw_fd()),
        ];
        there.extend(plan.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        there.extend(plan.mtu.map(LinkAttribute::Mtu));
        let peer = link(0, there);
        let mut here = vec![
            LinkAttribute::IfName(plan.name.into()),
            LinkAttribute::Controller(plan.bridge),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        here.extend(plan.mtu.map(LinkAttribute::Mtu));
        // With br_netfilter, what a container sends to a port it has itself
        // published goes back by the port of the bridge it came from.
        let mut port = vec![InfoBridgePort::HairpinMode(true)];
        if plan.isolated {
            port.push(InfoBridgePort::Isolated(true));
        }
        let port = link(
            0,
            vec![
                LinkAttribute::IfName(plan.name.into()),
                LinkAttribute::LinkInfo(vec![
                    LinkInfo::PortKind(InfoPortKind::Bridge),
                    LinkInfo::PortData(InfoPortData::BridgePort(port)),
                ]),
            ],
        );
        // A port that is to be isolated is up only when it is.
        let new = if plan.isolated { link(0, here) } else { upped(link(0, here)) };
        self.ask(vec![(Message::NewLink(new), CREATE), (Message::NewLink(port), 0)]).map(drop)?;
        if plan.isolated {
            let up = upped(link(0, vec![LinkAttribute::IfName(plan.name.into())]));
            self.ask(vec![(Message::NewLink(up), 0)])?;
        }
        Ok(())
    }

    pub(super) fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.ask(vec![(Message::SetLink(upped(link(index, Vec::new()))), 0)]).map(drop)
    }

    pub(super) fn set_mac(&mut self, index: u32, mac: Mac) -> io::Result<()> {
        let named = link(index, vec![LinkAttribute::Address(mac.0.to_vec())]);
        self.ask(vec![(Message::SetLink(named), 0)]).map(drop)
    }

    /// The way out, in place of any other of that family.
    pub(super) fn set_default_route(&mut self, index: u32, gateway: IpAddr) -> io::Result<()> {
        let replace = NLM_F_CREATE | NLM_F_REPLACE;
        self.ask(vec![(Message::NewRoute(default_route(index, gateway)), replace)]).map(drop)
    }

    /// Removes an interface; it is no error that it is gone already.
    pub(super) fn delete(&mut self, name: &str) -> io::Result<()> {
        self.remove(link(0, vec![LinkAttribute::IfName(name.into())]))
    }

    /// The same by its index.
    pub(super) fn delete_at(&mut self, index: u32) -> io::Result<()> {
        self.remove(link(index, Vec::new()))
    }

    fn remove(&mut self, gone: LinkMessage) -> io::Result<()> {
        match self.ask(vec![(Message::DelLink(gone), 0)]) {
            Err(error) if !is_gone(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::ENODEV)
}

fn as_link(message: Message) -> Option<Link> {
    if let Message::NewLink(message) = message { Some(message.into()) } else { None }
}

fn as_address(message: Message) -> Option<(u32, IpNet)> {
    let Message::NewAddress(message) = message else { return None };
    let header = message.header;
    let (mut local, mut address) = (None, None);
    for attribute in message.attributes {
        if let AddressAttribute::Local(ip) = attribute {
            local = Some(ip);
        } else if let AddressAttribute::Address(ip) = attribute {
            address = Some(ip);
        }
    }
    // IPv6 has no `Local`; of a point-to-point interface, `Address` is the peer's.
    let ip = local.or(address)?;
    Some((header.index, IpNet::new(ip, header.prefix_len).ok()?))
}

/// None for a default route.
pub(super) fn as_destination(message: RouteMessage) -> Option<IpNet> {
    let prefix = message.header.destination_prefix_length;
    message.attributes.into_iter().find_map(|attribute| {
        let RouteAttribute::Destination(destination) = attribute else { return None };
        let ip = if let RouteAddress::Inet(ip) = destination {
            IpAddr::V4(ip)
        } else if let RouteAddress::Inet6(ip) = destination {
            IpAddr::V6(ip)
        } else {
            return None;
        };
        IpNet::new(ip, prefix).ok().filter(|_| prefix > 0)
    })
}
