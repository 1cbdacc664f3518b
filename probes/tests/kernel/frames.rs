//! Ethernet frames that no container may send, and honest ones, byte by byte.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Names of one end.
#[derive(Clone, Copy)]
pub(crate) struct End {
    pub(crate) mac: [u8; 6],
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
}

/// Stands in every frame that has room, so that a listener knows it.
pub(crate) const MARK: &[u8] = b"tritium-frame-";

const BROADCAST: [u8; 6] = [0xff; 6];
const NOBODY: [u8; 6] = [0x02, 0x66, 0x66, 0x66, 0x66, 0x66];
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// What it is, the rule that drops it, and the frame.
pub(crate) type Hostile = (&'static str, &'static str, Vec<u8>);

/// Frames from `me` that say they are from or of somebody else, to and about `other`.
pub(crate) fn hostile(me: End, other: End, gateway: End) -> Vec<Hostile> {
    let mut all = spoofed(me, other);
    all.extend(claims(me, other, gateway));
    all.extend(services(me, other));
    all.extend(odd(me, other));
    all
}

fn spoofed(me: End, other: End) -> Vec<Hostile> {
    let nobody = Ipv4Addr::new(10, 66, 66, 66);
    let nobody6 = "fd66::66".parse().expect("an address");
    let v4 = |source| ipv4([source, other.v4], UDP, 0, &[], &udp(4000, 4000));
    let v6 = |source| ipv6(source, other.v6, UDP, &udp(4000, 4000));
    let own = ipv4([me.v4, other.v4], UDP, 0, &[], &udp(4000, 4000));
    let fragment = ipv4([nobody, other.v4], UDP, 0x2000, &[], &udp(4000, 4000));
    let later = ipv4([nobody, other.v4], UDP, 2, &[], &marked(&[]));
    vec![
        ("IPv4 in the other's name", "spoofed-ip", to(other, me.mac, IPV4, &v4(other.v4))),
        ("IPv4 in nobody's name", "spoofed-ip", to(other, me.mac, IPV4, &v4(nobody))),
        ("IPv4 from 0.0.0.0", "spoofed-ip", to(other, me.mac, IPV4, &v4(Ipv4Addr::UNSPECIFIED))),
        ("a first fragment in nobody's name", "spoofed-ip", to(other, me.mac, IPV4, &fragment)),
        ("a later fragment in nobody's name", "spoofed-ip", to(other, me.mac, IPV4, &later)),
        ("IPv6 in the other's name", "spoofed-ip", to(other, me.mac, IPV6, &v6(other.v6))),
        ("IPv6 in nobody's name", "spoofed-ip", to(other, me.mac, IPV6, &v6(nobody6))),
        ("the other's Ethernet address", "spoofed-mac", to(other, other.mac, IPV4, &own)),
        ("nobody's Ethernet address", "spoofed-mac", to(other, NOBODY, IPV4, &own)),
    ]
}

fn claims(me: End, other: End, gateway: End) -> Vec<Hostile> {
    let solicited = "ff02::1:ff00:66".parse().expect("an address");
    let probe = neighbour(135, other.v6, &[]);
    let lie = neighbour(135, other.v6, &[1, 1, 2, 0x66, 0x66, 0x66, 0x66, 0x66]);
    let advertisement = neighbour(136, other.v6, &own_option(2, me.mac));
    vec![
        ("ARP reply: the gateway is here", "arp", arp(me.mac, 2, me.mac, gateway.v4, other.v4)),
        ("gratuitous ARP for the other", "arp", arp(me.mac, 1, me.mac, other.v4, other.v4)),
        ("ARP with another's hardware address", "arp", arp(me.mac, 2, NOBODY, me.v4, other.v4)),
        (
            "neighbour advertisement for the other",
            "neighbour",
            to(other, me.mac, IPV6, &icmpv6(me.v6, other.v6, &advertisement)),
        ),
        (
            "duplicate address detection of the other's",
            "neighbour",
            to(other, me.mac, IPV6, &icmpv6(Ipv6Addr::UNSPECIFIED, solicited, &probe)),
        ),
        (
            "solicitation with another's Ethernet address",
            "neighbour",
            to(other, me.mac, IPV6, &icmpv6(me.v6, other.v6, &lie)),
        ),
    ]
}

fn services(me: End, other: End) -> Vec<Hostile> {
    let all_nodes = "ff02::1".parse().expect("an address");
    let advertisement = marked(&[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
    let redirect6 = marked(&[[137, 0, 0, 0, 0, 0, 0, 0].as_slice(), &[0; 32]].concat());
    let redirect = ipv4([me.v4, other.v4], ICMP, 0, &[], &marked(&[5, 1, 0, 0, 10, 0, 0, 1]));
    let dhcp = ipv4([me.v4, Ipv4Addr::BROADCAST], UDP, 0, &[], &udp(67, 68));
    let dhcp6 = ipv6(me.v6, other.v6, UDP, &udp(547, 546));
    vec![
        (
            "router advertisement",
            "router",
            to(other, me.mac, IPV6, &icmpv6(me.v6, all_nodes, &advertisement)),
        ),
        (
            "ICMPv6 redirect",
            "router",
            to(other, me.mac, IPV6, &icmpv6(me.v6, other.v6, &redirect6)),
        ),
        ("ICMP redirect", "router", to(other, me.mac, IPV4, &redirect)),
        ("DHCP offer", "dhcp", ethernet(BROADCAST, me.mac, IPV4, &dhcp)),
        ("DHCPv6 reply", "dhcp", to(other, me.mac, IPV6, &dhcp6)),
    ]
}

fn odd(me: End, other: End) -> Vec<Hostile> {
    let own = ipv4([me.v4, other.v4], UDP, 0, &[], &udp(4000, 4000));
    let tagged = |proto: u16| {
        let mut tag = vec![0, 7];
        tag.extend(proto.to_be_bytes());
        tag.extend(&own);
        tag
    };
    let twice = [[0, 7, 0x81, 0].as_slice(), &tagged(IPV4)].concat();
    let loose = [131, 7, 4, 10, 0, 0, 1, 0];
    let strict = [1, 137, 7, 4, 10, 0, 0, 1];
    let routed = ipv4([me.v4, other.v4], UDP, 0, &loose, &udp(4000, 4000));
    let strictly = ipv4([me.v4, other.v4], UDP, 0, &strict, &udp(4000, 4000));
    let header = [[UDP, 2, 0, 1, 0, 0, 0, 0].as_slice(), &other.v6.octets()].concat();
    let routed6 = ipv6(me.v6, other.v6, 43, &[header, udp(4000, 4000)].concat());
    vec![
        ("a VLAN tag", "frame", to(other, me.mac, 0x8100, &tagged(IPV4))),
        ("two VLAN tags", "frame", to(other, me.mac, 0x88a8, &twice)),
        ("an EtherType of one's own", "frame", to(other, me.mac, 0x88b5, &marked(&[]))),
        ("a spanning tree's frame", "frame", to(other, me.mac, 0x0026, &marked(&[0x42, 0x42, 3]))),
        ("IPv4 with a loose source route", "source-route", to(other, me.mac, IPV4, &routed)),
        ("IPv4 with a strict source route", "source-route", to(other, me.mac, IPV4, &strictly)),
        ("IPv6 with a routing header", "source-route", to(other, me.mac, IPV6, &routed6)),
    ]
}

/// Frames that `me` may send, as any kernel does.
pub(crate) fn honest(me: End, other: End) -> Vec<(&'static str, Vec<u8>)> {
    let asks = neighbour(135, other.v6, &own_option(1, me.mac));
    let tells = neighbour(136, me.v6, &own_option(2, me.mac));
    let probes = neighbour(135, me.v6, &[]);
    let solicited = "ff02::1:ff00:2".parse().expect("an address");
    let alert = [148, 4, 0, 0];
    let fragment = ipv4([me.v4, other.v4], UDP, 2, &[], &marked(&[]));
    let first = [[UDP, 0, 0, 1, 0, 0, 0, 7].as_slice(), &udp(4000, 4000)].concat();
    let cases = [
        ("IPv4", IPV4, ipv4([me.v4, other.v4], UDP, 0, &[], &udp(4000, 4000))),
        ("IPv4 with an option", IPV4, ipv4([me.v4, other.v4], 2, 0, &alert, &marked(&[0x16]))),
        ("a later fragment", IPV4, fragment),
        ("a DHCP client", IPV4, ipv4([me.v4, other.v4], UDP, 0, &[], &udp(68, 67))),
        ("IPv6", IPV6, ipv6(me.v6, other.v6, UDP, &udp(4000, 4000))),
        ("a first IPv6 fragment", IPV6, ipv6(me.v6, other.v6, 44, &first)),
        ("a neighbour's question", IPV6, icmpv6(me.v6, other.v6, &asks)),
        ("a neighbour's answer", IPV6, icmpv6(me.v6, other.v6, &tells)),
        ("detection of the own", IPV6, icmpv6(Ipv6Addr::UNSPECIFIED, solicited, &probes)),
    ];
    let mut all: Vec<_> = cases
        .into_iter()
        .map(|(name, kind, packet)| (name, to(other, me.mac, kind, &packet)))
        .collect();
    all.push(("an ARP question", arp(me.mac, 1, me.mac, me.v4, other.v4)));
    all.push(("an ARP probe", arp(me.mac, 1, me.mac, Ipv4Addr::UNSPECIFIED, me.v4)));
    all
}

fn to(other: End, source: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    ethernet(other.mac, source, kind, payload)
}

fn ethernet(destination: [u8; 6], source: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    let kind = kind.to_be_bytes();
    [destination.as_slice(), &source, &kind, payload].concat()
}

fn marked(head: &[u8]) -> Vec<u8> {
    [head, MARK].concat()
}

fn udp(source: u16, destination: u16) -> Vec<u8> {
    let length = u16::try_from(8 + MARK.len()).expect("it is short");
    let numbers = [source, destination, length, 0];
    marked(&numbers.map(u16::to_be_bytes).concat())
}

fn ipv4(
    [source, destination]: [Ipv4Addr; 2],
    protocol: u8,
    fragment: u16,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let words = u8::try_from(header / 4).expect("it is short");
    let total = u16::try_from(header + payload.len()).expect("it is short").to_be_bytes();
    let [f, g] = fragment.to_be_bytes();
    let mut packet = vec![0x40 | words, 0, total[0], total[1], 0, 7, f, g, 64, protocol, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(options);
    let sum = checksum(&packet).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    packet.extend(payload);
    packet
}

fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("it is short").to_be_bytes();
    let head = [0x60, 0, 0, 0, length[0], length[1], next, 255];
    [head.as_slice(), &source.octets(), &destination.octets(), payload].concat()
}

fn icmpv6(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("it is short").to_be_bytes();
    let ends = [source.octets(), destination.octets()].concat();
    let pseudo = [ends.as_slice(), &length, &[0, 0, 0, ICMPV6], message].concat();
    let mut message = message.to_vec();
    let sum = checksum(&pseudo).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    ipv6(source, destination, ICMPV6, &message)
}

fn neighbour(kind: u8, target: Ipv6Addr, option: &[u8]) -> Vec<u8> {
    [[kind, 0, 0, 0, 0, 0, 0, 0].as_slice(), &target.octets(), option].concat()
}

fn own_option(kind: u8, mac: [u8; 6]) -> Vec<u8> {
    [[kind, 1].as_slice(), &mac].concat()
}

fn arp(
    source: [u8; 6],
    operation: u8,
    mac: [u8; 6],
    claimed: Ipv4Addr,
    asked: Ipv4Addr,
) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    let body = [head.as_slice(), &mac, &claimed.octets(), &[0; 6], &asked.octets()].concat();
    ethernet(BROADCAST, source, ARP, &marked(&body))
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}
