//! Forgets where the kernel led datagrams of a published port before.
//!
//! A UDP "connection" lives as long as its client goes on sending; without
//! this it would stay with the container that had the port before, or with
//! nobody. TCP needs none of it: a new connection is looked up anew.

use super::netlink::{Ack, Conversation};
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple},
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use std::{
    io,
    net::{IpAddr, SocketAddr},
};

/// A conversation with ctnetlink in one namespace.
#[derive(Debug)]
pub(super) struct Conntrack(Conversation);

impl Conntrack {
    /// In the calling thread's network namespace.
    pub(super) fn open() -> io::Result<Self> {
        Conversation::open(NETLINK_NETFILTER).map(Self)
    }

    /// Forgets UDP flows to these ports of the host (on one address, or on any),
    /// of which `addresses` are its own. Flows through the host to ports of others'
    /// are none of ours. A flow's original direction names its zone, so that
    /// another network's like it stays.
    pub(super) fn forget(&mut self, ports: &[SocketAddr], addresses: &[IpAddr]) -> io::Result<()> {
        for family in [NetfilterProtoFamily::IPv4, NetfilterProtoFamily::IPv6] {
            let all = of(family, ConntrackMessage::Get(Vec::new()));
            for found in self.0.ask(vec![(all, NLM_F_DUMP)], Ack::Each)? {
                let Some(original) = flow_to(found, ports, addresses) else { continue };
                let original = vec![ConntrackAttribute::CtaTupleOrig(original)];
                let delete = of(family, ConntrackMessage::Delete(original));
                match self.0.ask(vec![(delete, 0)], Ack::Each) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn of(family: NetfilterProtoFamily, message: ConntrackMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message)
}

/// The flow's original direction, if it goes to one of the ports.
fn flow_to(
    found: NetfilterMessage,
    ports: &[SocketAddr],
    addresses: &[IpAddr],
) -> Option<Vec<Tuple>> {
    let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = found.inner else {
        return None;
    };
    let (mut original, mut answerer) = (None, None);
    for attribute in attributes {
        if let ConntrackAttribute::CtaTupleOrig(tuple) = attribute {
            original = Some(tuple);
        } else if let ConntrackAttribute::CtaTupleReply(tuple) = attribute {
            answerer = source(&tuple);
        }
    }
    let original = original?;
    let to = destination(&original)?;
    let ours = addresses.contains(&to) || answerer.is_some_and(|answerer| answerer != to);
    let is_one = |port: &SocketAddr| {
        let everywhere = port.ip().is_unspecified() && port.is_ipv4() == to.is_ipv4();
        (everywhere || port.ip() == to) && is_udp_to(&original, port.port())
    };
    (ours && ports.iter().any(is_one)).then_some(original)
}

fn is_udp_to(tuple: &[Tuple], port: u16) -> bool {
    tuple.iter().any(|part| {
        matches!(part, Tuple::Proto(proto)
            if proto.contains(&ProtoTuple::Protocol(Protocol::Udp))
                && proto.contains(&ProtoTuple::DestinationPort(port)))
    })
}

fn addresses_of(tuple: &[Tuple]) -> impl Iterator<Item = &IPTuple> {
    tuple.iter().filter_map(|part| if let Tuple::Ip(ip) = part { Some(ip) } else { None }).flatten()
}

fn source(tuple: &[Tuple]) -> Option<IpAddr> {
    addresses_of(tuple)
        .find_map(|ip| if let IPTuple::SourceAddress(ip) = ip { Some(*ip) } else { None })
}

fn destination(tuple: &[Tuple]) -> Option<IpAddr> {
    addresses_of(tuple)
        .find_map(|ip| if let IPTuple::DestinationAddress(ip) = ip { Some(*ip) } else { None })
}
