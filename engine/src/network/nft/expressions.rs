//! What rules are made of.
//!
//! What `netlink-packet-netfilter` lacks of the expressions (`nat`, `masq`,
//! `ct`, `fib`) is spelled out here by number, out of
//! include/uapi/linux/netfilter/nf_tables.h.

use super::Family;
use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, Expressions, Immediate, Lookup, Meta, MetaKey, Operator, Payload,
    Register, Verdict, VerdictAttribute,
};

/// `NF_DROP` and `NF_ACCEPT` of linux/netfilter.h.
const DROP: u32 = 0;
pub(super) const ACCEPT: u32 = 1;

/// The nth word of 4 bytes of the register file.
fn word(nth: u32) -> Register {
    Register::from(8 + nth)
}

fn attribute(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

fn other(expression_type: &str, attributes: Vec<DefaultNla>) -> Expressions {
    Expressions::Other { expression_type: expression_type.into(), attributes }
}

/// Loads a property of the packet into words from the nth on.
pub(in crate::network) fn meta(key: MetaKey, nth: u32) -> Expressions {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(word(nth))])
}

/// Which of a packet's two addresses.
#[derive(Debug, Clone, Copy)]
pub(in crate::network) enum End {
    Source,
    Destination,
}

/// Loads an address, which fills as many words as [`Family::words`] says.
pub(in crate::network) fn ip_address(family: Family, end: End, nth: u32) -> Expressions {
    let offset = match (family, end) {
        (Family::V4, End::Source) => 12,
        (Family::V4, End::Destination) => 16,
        (Family::V6, End::Source) => 8,
        (Family::V6, End::Destination) => 24,
    };
    payload(1, offset, family.length(), nth)
}

/// Loads the destination port.
pub(in crate::network) fn port(nth: u32) -> Expressions {
    payload(2, 2, 2, nth)
}

fn payload(base: u32, offset: u32, length: u32, nth: u32) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(word(nth)),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
}

/// Goes on only if the words from the first on are (not) in the set.
pub(in crate::network) fn is_in(set: &str, inside: bool) -> Expressions {
    Expressions::Lookup(vec![
        Lookup::Set(set.into()),
        Lookup::SourceRegister(word(0)),
        Lookup::Flags(u32::from(!inside)),
    ])
}

/// Goes on only if the words from the first on are in the map; loads its value.
pub(in crate::network) fn value_of(map: &str, nth: u32) -> Expressions {
    Expressions::Lookup(vec![
        Lookup::Set(map.into()),
        Lookup::SourceRegister(word(0)),
        Lookup::DestinationRegister(word(nth)),
    ])
}

/// Loads into the first word whether the destination is this host
/// (`fib daddr type`), and goes on only if so (`RTN_LOCAL` = 2).
pub(in crate::network) fn to_this_host() -> [Expressions; 2] {
    let fib = other("fib", vec![attribute(1, word(0).into()), attribute(2, 3), attribute(3, 2)]);
    [fib, compare(Operator::Equal, 2_u32.to_ne_bytes())]
}

/// Jumps to the chain that the map has for the words from the first on.
pub(in crate::network) fn jump_by(map: &str) -> Expressions {
    Expressions::Lookup(vec![
        Lookup::Set(map.into()),
        Lookup::SourceRegister(word(0)),
        Lookup::DestinationRegister(Register::Verdict),
    ])
}

/// Goes on only if the connection is established or related to one that is.
pub(in crate::network) fn is_established() -> [Expressions; 3] {
    ct_has(0, 2 | 4)
}

/// Goes on only if the connection's destination was translated (`IPS_DST_NAT`).
pub(in crate::network) fn was_dnated() -> [Expressions; 3] {
    ct_has(2, 1 << 5)
}

/// Goes on only if it was not.
pub(in crate::network) fn was_not_dnated() -> [Expressions; 3] {
    [ct(2, None), masked((1_u32 << 5).to_ne_bytes()), compare(Operator::Equal, [0; 4])]
}

fn ct_has(key: u32, bits: u32) -> [Expressions; 3] {
    [ct(key, None), masked(bits.to_ne_bytes()), compare(Operator::NotEqual, [0; 4])]
}

/// Loads a property of the connection into the first word.
fn ct(key: u32, direction: Option<u8>) -> Expressions {
    let mut attributes = vec![attribute(1, word(0).into()), attribute(2, key)];
    attributes.extend(direction.map(|direction| DefaultNla::new(3, vec![direction])));
    other("ct", attributes)
}

/// `NFT_CT_DIRECTION`, `NFT_CT_MARK`, `NFT_CT_ZONE`.
const DIRECTION: u32 = 1;
const CT_MARK: u32 = 3;
const ZONE: u32 = 17;

/// Goes on only if the packet goes the way of the connection's first (or not).
pub(in crate::network) fn is_original(original: bool) -> [Expressions; 2] {
    [ct(DIRECTION, None), compare(Operator::Equal, [u8::from(!original)])]
}

/// Loads the zone of the connection's original direction into the first word.
pub(in crate::network) fn original_zone() -> Expressions {
    ct(ZONE, Some(0))
}

/// Has conntrack look for connections that begin here in a zone of their own.
pub(in crate::network) fn set_original_zone(zone: u16) -> [Expressions; 2] {
    let [a, b] = zone.to_ne_bytes();
    let set = vec![attribute(2, ZONE), DefaultNla::new(3, vec![0]), attribute(4, word(0).into())];
    [load([a, b, 0, 0]), other("ct", set)]
}

/// Loads some bits of the connection's mark into the first word.
pub(in crate::network) fn ct_mark(bits: u32) -> [Expressions; 2] {
    [ct(CT_MARK, None), masked(bits.to_ne_bytes())]
}

/// Sets some bits of the connection's mark; the others stay.
pub(in crate::network) fn set_ct_mark(bits: u32, to: u32) -> [Expressions; 3] {
    let set = vec![attribute(2, CT_MARK), attribute(4, word(0).into())];
    [ct(CT_MARK, None), replaced(bits, to), other("ct", set)]
}

/// Sets some bits of the packet's mark; the others stay.
pub(in crate::network) fn set_mark(bits: u32, to: u32) -> [Expressions; 3] {
    let set = Expressions::Meta(vec![Meta::Key(MetaKey::Mark), Meta::SourceRegister(word(0))]);
    [meta(MetaKey::Mark, 0), replaced(bits, to), set]
}

fn replaced(bits: u32, to: u32) -> Expressions {
    bitwise((!bits).to_ne_bytes(), (to & bits).to_ne_bytes())
}

/// Goes on only if what the first word holds is (not) that.
pub(in crate::network) fn is(value: u32, so: bool) -> Expressions {
    let operator = if so { Operator::Equal } else { Operator::NotEqual };
    compare(operator, value.to_ne_bytes())
}

/// Goes on only if the name in the first words is not that.
pub(in crate::network) fn is_not_interface(name: &str) -> Expressions {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    compare(Operator::NotEqual, bytes)
}

/// Goes on only if of the two bytes that the first word holds, those bits are (not) that.
pub(in crate::network) fn is_short(bits: u16, value: u16, so: bool) -> [Expressions; 2] {
    let wide = |short: u16| {
        let [a, b] = short.to_ne_bytes();
        [a, b, 0, 0]
    };
    let operator = if so { Operator::Equal } else { Operator::NotEqual };
    [masked(wide(bits)), compare(operator, wide(value))]
}

fn load(bytes: [u8; 4]) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(word(0)),
        Immediate::Data(DataAttribute::Value(bytes.to_vec())),
    ])
}

/// Goes on only if the address is of 127.0.0.0/8, or is ::1.
pub(in crate::network) fn is_loopback(family: Family, end: End) -> Vec<Expressions> {
    let address = ip_address(family, end, 0);
    match family {
        Family::V4 => {
            vec![address, masked([255, 0, 0, 0]), compare(Operator::Equal, [127, 0, 0, 0])]
        }
        Family::V6 => {
            vec![address, compare(Operator::Equal, std::net::Ipv6Addr::LOCALHOST.octets())]
        }
    }
}

fn masked(mask: [u8; 4]) -> Expressions {
    bitwise(mask, [0; 4])
}

fn bitwise(mask: [u8; 4], xor: [u8; 4]) -> Expressions {
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(word(0)),
        Bitwise::DestinationRegister(word(0)),
        Bitwise::Length(4),
        Bitwise::Mask(DataAttribute::Value(mask.to_vec())),
        Bitwise::Xor(DataAttribute::Value(xor.to_vec())),
    ])
}

fn compare<const N: usize>(operator: Operator, with: [u8; N]) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(word(0)),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(with.to_vec())),
    ])
}

/// To the address in the nth word (and its next) and the port after that.
pub(in crate::network) fn dnat(family: Family, nth: u32) -> Expressions {
    let (address, port) = (word(nth).into(), word(nth + family.words()).into());
    let (to_destination, family) = (attribute(1, 1), attribute(2, family.number()));
    other("nat", vec![to_destination, family, attribute(3, address), attribute(5, port)])
}

/// From the address of the interface it leaves by.
pub(in crate::network) fn masquerade() -> Expressions {
    other("masq", Vec::new())
}

pub(in crate::network) fn accept() -> Expressions {
    verdict(vec![VerdictAttribute::Code(Verdict::Other(ACCEPT))])
}

pub(in crate::network) fn drop_it() -> Expressions {
    verdict(vec![VerdictAttribute::Code(Verdict::Other(DROP))])
}

/// Goes on in the chain, and then here if that has not decided.
pub(in crate::network) fn jump(chain: &str) -> Expressions {
    let chain = VerdictAttribute::Chain(chain.to_owned());
    verdict(vec![VerdictAttribute::Code(Verdict::Jump), chain])
}

fn verdict(verdict: Vec<VerdictAttribute>) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(verdict)),
    ])
}
