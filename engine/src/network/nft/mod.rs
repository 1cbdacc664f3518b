//! nf_tables in its own words: sets, chains, rules, and one batch of changes.
//!
//! Written over `netlink-packet-netfilter`, which knows the messages; rules are
//! made of `expressions.rs`. Nothing here knows what the firewall is for: that
//! is `firewall.rs` and `zones.rs`.

use super::netlink::{Ack, Conversation};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    nftables::{
        ChainAttribute, ChainMessage, DataAttribute, Expressions, Hook, HookNumber, InetHookNumber,
        ListAttribute, NfTablesMessage as Message, RuleAttribute, RuleMessage, SetAttribute,
        SetElementAttribute, SetElementFlags, SetElementList, SetElementMessage, SetFlags,
        SetMessage, TableAttribute, TableMessage, Verdict, VerdictAttribute,
    },
    none::ControlMessage,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use std::{io, net::IpAddr};

mod expressions;

pub(super) use expressions::*;

/// `NFNL_SUBSYS_NFTABLES`: whom a batch is for.
const SUBSYSTEM: u16 = 10;
const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// What a field of a key or value is, by nft(8)'s numbers for datatypes
/// (`enum datatypes` in nftables' include/datatype.h), which only make `nft
/// list` print it well; and its length in a register, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    datatype: u32,
    length: u32,
}

const IPV4_ADDRESS: Field = Field { datatype: 7, length: 4 };
const IPV6_ADDRESS: Field = Field { datatype: 8, length: 16 };
pub(super) const PROTOCOL: Field = Field { datatype: 12, length: 4 };
pub(super) const PORT: Field = Field { datatype: 13, length: 4 };
pub(super) const INTERFACE: Field = Field { datatype: 41, length: 16 };
pub(super) const MARK: Field = Field { datatype: 19, length: 4 };
/// An integer; of two bytes, but a register's word is four.
pub(super) const CT_ZONE: Field = Field { datatype: 4, length: 4 };

/// The datatype of a map whose values are verdicts (`NFT_DATA_VERDICT`).
const VERDICT: u32 = 0xffff_ff00;

/// A version of IP; each has a table of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(super) fn address(self) -> Field {
        match self {
            Self::V4 => IPV4_ADDRESS,
            Self::V6 => IPV6_ADDRESS,
        }
    }

    /// How many words of the register file an address fills.
    pub(super) fn words(self) -> u32 {
        self.address().length / 4
    }

    /// The length of an address, in bytes.
    pub(super) fn length(self) -> u32 {
        self.address().length
    }

    fn netfilter(self) -> NetfilterProtoFamily {
        match self {
            Self::V4 => NetfilterProtoFamily::IPv4,
            Self::V6 => NetfilterProtoFamily::IPv6,
        }
    }

    /// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
    pub(super) fn number(self) -> u32 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }
}

fn datatype(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |all, field| (all << 6) | field.datatype)
}

fn length(fields: &[Field]) -> u32 {
    fields.iter().map(|field| field.length).sum()
}

/// The name of an interface as a key.
pub(super) fn interface(name: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    key.resize(16, 0);
    key
}

/// A base chain: where it hooks in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Base {
    pub(super) kind: &'static str,
    pub(super) hook: InetHookNumber,
    pub(super) priority: i32,
}

/// Changes to the tables of one name, of both families, carried out all or none.
#[derive(Debug)]
pub(super) struct Batch {
    table: String,
    family: Family,
    sets: u32,
    changes: Vec<(Family, Message, u16)>,
}

impl Batch {
    pub(super) fn new(table: &str) -> Self {
        Self { table: table.into(), family: Family::V4, sets: 0, changes: Vec::new() }
    }

    /// What `changes` adds is for the tables of another name.
    pub(super) fn in_table(&mut self, name: String, changes: impl FnOnce(&mut Self)) {
        let own = std::mem::replace(&mut self.table, name);
        changes(self);
        self.table = own;
    }

    /// What follows is for this family's table.
    pub(super) fn family(&mut self, family: Family) -> &mut Self {
        self.family = family;
        self
    }

    fn change(&mut self, message: Message, flags: u16) {
        self.changes.push((self.family, message, flags));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The table, empty, whatever was in it.
    pub(super) fn fresh_table(&mut self) {
        self.table_if_missing();
        self.delete_table();
        self.table_if_missing();
    }

    /// Nothing of the table, nor an error when there is nothing.
    pub(super) fn no_table(&mut self) {
        self.table_if_missing();
        self.delete_table();
    }

    fn table_if_missing(&mut self) {
        let attributes = vec![TableAttribute::Name(self.table.clone())];
        self.change(Message::NewTable(TableMessage { attributes }), NLM_F_CREATE);
    }

    fn delete_table(&mut self) {
        let attributes = vec![TableAttribute::Name(self.table.clone())];
        self.change(Message::DeleteTable(TableMessage { attributes }), 0);
    }

    /// A set of ranges of a field: see [`Batch::add_range`].
    pub(super) fn ranges(&mut self, name: &str, key: Field) {
        self.new_set(name, &[key], None, SetFlags::Interval);
    }

    /// A map from keys to chains that are jumped to.
    pub(super) fn jumps(&mut self, name: &str, key: &[Field]) {
        let verdict = Field { datatype: VERDICT, length: 0 };
        self.new_set(name, key, Some(&[verdict]), SetFlags::empty());
    }

    /// A set of keys, or with a `value` a map.
    pub(super) fn set(&mut self, name: &str, key: &[Field], value: Option<&[Field]>) {
        self.new_set(name, key, value, SetFlags::empty());
    }

    fn new_set(&mut self, name: &str, key: &[Field], value: Option<&[Field]>, mut flags: SetFlags) {
        self.sets += 1;
        let mut attributes = vec![
            SetAttribute::Table(self.table.clone()),
            SetAttribute::Name(name.into()),
            SetAttribute::KeyType(datatype(key)),
            SetAttribute::KeyLen(length(key)),
            SetAttribute::Id(self.sets),
        ];
        if let Some(value) = value {
            flags |= SetFlags::Map;
            attributes.push(SetAttribute::DataType(datatype(value)));
            if length(value) > 0 {
                attributes.push(SetAttribute::DataLen(length(value)));
            }
        }
        attributes.push(SetAttribute::Flags(flags));
        self.change(Message::NewSet(SetMessage { attributes }), CREATE);
    }

    /// A chain that others jump to.
    pub(super) fn inner_chain(&mut self, name: &str) {
        let attributes =
            vec![ChainAttribute::Table(self.table.clone()), ChainAttribute::Name(name.into())];
        self.change(Message::NewChain(ChainMessage { attributes }), CREATE);
    }

    pub(super) fn chain(&mut self, name: &str, base: Base) {
        let attributes = vec![
            ChainAttribute::Table(self.table.clone()),
            ChainAttribute::Name(name.into()),
            ChainAttribute::Type(base.kind.into()),
            ChainAttribute::Hook(vec![
                Hook::Number(HookNumber::Inet(base.hook)),
                Hook::Priority(base.priority.cast_unsigned()),
            ]),
            ChainAttribute::Policy(ACCEPT),
        ];
        self.change(Message::NewChain(ChainMessage { attributes }), CREATE);
    }

    /// A rule after the chain's others.
    pub(super) fn rule(&mut self, chain: &str, expressions: impl IntoIterator<Item = Expressions>) {
        let expressions = expressions.into_iter().map(ListAttribute::from).collect();
        let attributes = vec![
            RuleAttribute::Table(self.table.clone()),
            RuleAttribute::Chain(chain.into()),
            RuleAttribute::Expressions(expressions),
        ];
        let append = NLM_F_CREATE | NLM_F_APPEND;
        self.change(Message::NewRule(RuleMessage { attributes }), append);
    }

    /// No rule of the chain's any more.
    pub(super) fn flush(&mut self, chain: &str) {
        let attributes =
            vec![RuleAttribute::Table(self.table.clone()), RuleAttribute::Chain(chain.into())];
        self.change(Message::DeleteRule(RuleMessage { attributes }), 0);
    }

    /// An element that the set must not have yet.
    pub(super) fn add(&mut self, set: &str, key: Vec<u8>, value: Option<Vec<u8>>) {
        let mut element = vec![SetElementAttribute::Key(DataAttribute::Value(key))];
        element.extend(value.map(|value| SetElementAttribute::Data(DataAttribute::Value(value))));
        let message = self.elements(set, vec![ListAttribute::Element(element)]);
        self.change(Message::NewSetElement(message), CREATE);
    }

    /// An element of a map to chains.
    pub(super) fn add_jump(&mut self, map: &str, key: Vec<u8>, chain: &str) {
        let verdict =
            vec![VerdictAttribute::Code(Verdict::Jump), VerdictAttribute::Chain(chain.to_owned())];
        let element = vec![
            SetElementAttribute::Key(DataAttribute::Value(key)),
            SetElementAttribute::Data(DataAttribute::Verdict(verdict)),
        ];
        let message = self.elements(map, vec![ListAttribute::Element(element)]);
        self.change(Message::NewSetElement(message), CREATE);
    }

    /// An element that the set must not have yet; or takes it out again.
    pub(super) fn put(&mut self, set: &str, key: Vec<u8>, there: bool) {
        if there { self.add(set, key, None) } else { self.remove(set, key) }
    }

    /// All keys from `first` on and before `end`.
    pub(super) fn add_range(&mut self, set: &str, first: Vec<u8>, end: Vec<u8>) {
        let message = self.elements(set, range(first, end));
        self.change(Message::NewSetElement(message), CREATE);
    }

    /// Takes out a range that the set must have.
    pub(super) fn remove_range(&mut self, set: &str, first: Vec<u8>, end: Vec<u8>) {
        let message = self.elements(set, range(first, end));
        self.change(Message::DeleteSetElement(message), 0);
    }

    /// Takes out an element that the set must have.
    pub(super) fn remove(&mut self, set: &str, key: Vec<u8>) {
        let element = vec![SetElementAttribute::Key(DataAttribute::Value(key))];
        let message = self.elements(set, vec![ListAttribute::Element(element)]);
        self.change(Message::DeleteSetElement(message), 0);
    }

    fn elements(
        &self,
        set: &str,
        elements: Vec<ListAttribute<SetElementAttribute>>,
    ) -> SetElementMessage {
        let mut attributes =
            vec![SetElementList::Table(self.table.clone()), SetElementList::Set(set.into())];
        if !elements.is_empty() {
            attributes.push(SetElementList::Elements(elements));
        }
        SetElementMessage { attributes }
    }
}

fn range(first: Vec<u8>, end: Vec<u8>) -> Vec<ListAttribute<SetElementAttribute>> {
    let start = vec![SetElementAttribute::Key(DataAttribute::Value(first))];
    let end = vec![
        SetElementAttribute::Key(DataAttribute::Value(end)),
        SetElementAttribute::Flags(SetElementFlags::IntervalEnd),
    ];
    [start, end].map(ListAttribute::Element).into()
}

/// A conversation with nf_tables in one namespace.
#[derive(Debug)]
pub(super) struct Nft(Conversation);

impl Nft {
    /// In the calling thread's network namespace.
    pub(super) fn open() -> io::Result<Self> {
        Conversation::open(NETLINK_NETFILTER).map(Self)
    }

    /// All of the batch's changes, or on an error none.
    pub(super) fn commit(&mut self, batch: Batch) -> io::Result<()> {
        let begin = control(ControlMessage::BatchBegin);
        let end = control(ControlMessage::BatchEnd);
        let changes = batch.changes.into_iter();
        let changes = changes.map(|(family, change, flags)| (of(family, change), flags));
        let all = [(begin, 0)].into_iter().chain(changes).chain([(end, 0)]).collect();
        self.0.ask(all, Ack::Batch).map(drop)
    }

    /// The keys of a set; none when there is no such set or table.
    pub(super) fn keys(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
    ) -> io::Result<Vec<Vec<u8>>> {
        let question = Message::GetSetElement(Batch::new(table).elements(set, Vec::new()));
        let answer = match self.0.ask(vec![(of(family, question), NLM_F_DUMP)], Ack::Each) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            answer => answer?,
        };
        Ok(answer.into_iter().flat_map(keys_of).collect())
    }
}

fn keys_of(message: NetfilterMessage) -> Vec<Vec<u8>> {
    let NetfilterMessageInner::NfTables(Message::NewSetElement(message)) = message.inner else {
        return Vec::new();
    };
    let mut keys = Vec::new();
    for attribute in message.attributes {
        let SetElementList::Elements(elements) = attribute else { continue };
        for element in elements {
            let ListAttribute::Element(attributes) = element else { continue };
            keys.extend(attributes.into_iter().filter_map(key_of));
        }
    }
    keys
}

fn key_of(attribute: SetElementAttribute) -> Option<Vec<u8>> {
    if let SetElementAttribute::Key(DataAttribute::Value(key)) = attribute {
        Some(key)
    } else {
        None
    }
}

fn of(family: Family, message: Message) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(family.netfilter(), 0, 0), message)
}

fn control(message: ControlMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, SUBSYSTEM), message)
}
