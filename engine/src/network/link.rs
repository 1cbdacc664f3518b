//! Interfaces, addresses and routes: the part of rtnetlink(7) that is needed.

use super::{
    Counters, Mac,
    netlink::{Ack, Conversation},
};
use ipnet::Ipv4Net;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage as Message,
    address::{AddressAttribute, AddressMessage},
    link::{
        BridgePortState, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth,
        LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
    },
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};
use netlink_sys::protocols::NETLINK_ROUTE;
use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// An interface as the kernel tells it.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) alias: Option<String>,
    /// Index of the bridge it is a port of.
    pub(super) master: Option<u32>,
    pub(super) is_bridge: bool,
    /// Whether its bridge passes frames from it and to it.
    pub(super) is_forwarding: bool,
    /// From the container's side, so for the host's end of a veth.
    pub(super) counters: Counters,
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            alias: None,
            master: None,
            is_bridge: false,
            is_forwarding: false,
            counters: Counters::default(),
        };
        for attribute in message.attributes {
            #[expect(clippy::wildcard_enum_match_arm, reason = "the kernel tells more than we ask")]
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Controller(index) => link.master = Some(index),
                LinkAttribute::LinkInfo(info) => {
                    link.is_bridge = info.contains(&LinkInfo::Kind(InfoKind::Bridge));
                    link.is_forwarding = info.iter().any(is_forwarding);
                }
                LinkAttribute::Stats64(host) => {
                    link.counters = Counters {
                        rx_bytes: host.tx_bytes,
                        rx_packets: host.tx_packets,
                        rx_errors: host.tx_errors,
                        rx_dropped: host.tx_dropped,
                        tx_bytes: host.rx_bytes,
                        tx_packets: host.rx_packets,
                        tx_errors: host.rx_errors,
                        tx_dropped: host.rx_dropped,
                    }
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

fn link(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    message
}

fn upped(mut message: LinkMessage) -> LinkMessage {
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

fn address(index: u32, net: Ipv4Net) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = net.prefix_len();
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(IpAddr::V4(net.addr())),
        AddressAttribute::Address(IpAddr::V4(net.addr())),
        AddressAttribute::Broadcast(net.broadcast()),
    ];
    message
}

fn default_route(index: u32, gateway: Ipv4Addr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes =
        vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway)), RouteAttribute::Oif(index)];
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

    fn ask(&mut self, messages: Vec<(Message, u16)>) -> io::Result<Vec<Message>> {
        self.0.ask(messages, Ack::Each)
    }

    /// Every interface.
    pub(super) fn links(&mut self) -> io::Result<Vec<Link>> {
        let dump = Message::GetLink(LinkMessage::default());
        Ok(self.ask(vec![(dump, NLM_F_DUMP)])?.into_iter().filter_map(as_link).collect())
    }

    /// The interface of that name; none when there is none.
    pub(super) fn find(&mut self, name: &str) -> io::Result<Option<Link>> {
        let get = Message::GetLink(link(0, vec![LinkAttribute::IfName(name.into())]));
        match self.ask(vec![(get, 0)]) {
            Ok(found) => Ok(found.into_iter().find_map(as_link)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every IPv4 address, with the index of its interface.
    pub(super) fn addresses(&mut self) -> io::Result<Vec<(u32, Ipv4Net)>> {
        let mut all = AddressMessage::default();
        all.header.family = AddressFamily::Inet;
        let found = self.ask(vec![(Message::GetAddress(all), NLM_F_DUMP)])?;
        Ok(found.into_iter().filter_map(as_address).collect())
    }

    /// Every IPv4 route's destination, of every table; not default routes.
    pub(super) fn destinations(&mut self) -> io::Result<Vec<Ipv4Net>> {
        let mut all = RouteMessage::default();
        all.header.address_family = AddressFamily::Inet;
        let found = self.ask(vec![(Message::GetRoute(all), NLM_F_DUMP)])?;
        Ok(found.into_iter().filter_map(as_destination).collect())
    }

    /// Makes a bridge that is up and has this address.
    pub(super) fn add_bridge(
        &mut self,
        name: &str,
        alias: &str,
        mac: Mac,
        net: Ipv4Net,
    ) -> io::Result<u32> {
        // With a MAC of its own, or it would take its lowest port's.
        let new = upped(link(
            0,
            vec![
                LinkAttribute::IfName(name.into()),
                LinkAttribute::Address(mac.0.to_vec()),
                LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
            ],
        ));
        self.ask(vec![(Message::NewLink(new), CREATE)])?;
        let finish = |rtnl: &mut Self| {
            let made = rtnl.find(name)?.ok_or(io::ErrorKind::NotFound)?;
            let named = link(made.index, vec![LinkAttribute::IfAlias(alias.into())]);
            rtnl.ask(vec![
                (Message::SetLink(named), 0),
                (Message::NewAddress(address(made.index, net)), CREATE),
            ])?;
            Ok(made.index)
        };
        finish(self).inspect_err(|_| {
            // What matters is why it could not be finished.
            drop(self.delete(name));
        })
    }

    /// Makes a veth: `name` here, up and a port of `bridge`; `eth0`, down, in `netns`.
    pub(super) fn add_veth(
        &mut self,
        name: &str,
        bridge: u32,
        netns: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let peer = link(
            0,
            vec![LinkAttribute::IfName("eth0".into()), LinkAttribute::NetNsFd(netns.as_raw_fd())],
        );
        let new = upped(link(
            0,
            vec![
                LinkAttribute::IfName(name.into()),
                LinkAttribute::Controller(bridge),
                LinkAttribute::LinkInfo(vec![
                    LinkInfo::Kind(InfoKind::Veth),
                    LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
                ]),
            ],
        ));
        // With br_netfilter, what a container sends to a port it has itself
        // published goes back by the port of the bridge it came from.
        let hairpin = link(
            0,
            vec![
                LinkAttribute::IfName(name.into()),
                LinkAttribute::LinkInfo(vec![
                    LinkInfo::PortKind(InfoPortKind::Bridge),
                    LinkInfo::PortData(InfoPortData::BridgePort(vec![
                        InfoBridgePort::HairpinMode(true),
                    ])),
                ]),
            ],
        );
        self.ask(vec![(Message::NewLink(new), CREATE), (Message::NewLink(hairpin), 0)]).map(drop)
    }

    pub(super) fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.ask(vec![(Message::SetLink(upped(link(index, Vec::new()))), 0)]).map(drop)
    }

    /// Gives an interface that is up its MAC, its address, and the way out.
    pub(super) fn configure(
        &mut self,
        index: u32,
        mac: Mac,
        net: Ipv4Net,
        gateway: Ipv4Addr,
    ) -> io::Result<()> {
        let named = link(index, vec![LinkAttribute::Address(mac.0.to_vec())]);
        self.ask(vec![
            (Message::SetLink(named), 0),
            (Message::NewAddress(address(index, net)), CREATE),
            (Message::NewRoute(default_route(index, gateway)), CREATE),
        ])
        .map(drop)
    }

    /// Removes an interface; it is no error that it is gone already.
    pub(super) fn delete(&mut self, name: &str) -> io::Result<()> {
        let gone = link(0, vec![LinkAttribute::IfName(name.into())]);
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

fn as_address(message: Message) -> Option<(u32, Ipv4Net)> {
    let Message::NewAddress(message) = message else { return None };
    let header = message.header;
    message.attributes.into_iter().find_map(|attribute| {
        let AddressAttribute::Local(IpAddr::V4(ip)) = attribute else { return None };
        Some((header.index, Ipv4Net::new(ip, header.prefix_len).ok()?))
    })
}

fn as_destination(message: Message) -> Option<Ipv4Net> {
    let Message::NewRoute(message) = message else { return None };
    let prefix = message.header.destination_prefix_length;
    message.attributes.into_iter().find_map(|attribute| {
        let RouteAttribute::Destination(RouteAddress::Inet(ip)) = attribute else { return None };
        Ipv4Net::new(ip, prefix).ok().filter(|_| prefix > 0)
    })
}
