//! A question as it comes in, the answer as it goes out: the wire format, by
//! hickory-proto. Pure.
//!
//! Whatever is not one question of an ordinary query is refused before the
//! rest is looked at. What goes on to a server outside is written anew, so that
//! nothing malformed ever reaches the host's resolver through us.

use hickory_proto::{
    ProtoError,
    op::{Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType},
    serialize::binary::{BinDecodable, BinDecoder},
};
use std::net::IpAddr;

/// How long an answer may be taken for true, in seconds; as in Docker.
const LIFETIME: u32 = 600;
/// What we take and give in one datagram: room for 200 addresses, and on
/// loopback nothing is gained by less.
pub(super) const LONGEST_DATAGRAM: u16 = 4096;
/// What may be in a datagram if nobody says otherwise (RFC 1035, 4.2.1).
const SHORTEST_DATAGRAM: u16 = 512;
/// An OPT, perhaps a signature.
const MOST_ADDITIONALS: u16 = 2;

/// How somebody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// One well-formed question.
#[derive(Debug, Clone)]
pub(super) struct Question {
    header: Metadata,
    query: Query,
    edns: Option<Edns>,
}

/// What is no question that could be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoQuestion {
    /// Not even worth an answer: an answer itself, or no header.
    Noise,
    /// Say so.
    Refused(Vec<u8>),
}

impl Question {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, NoQuestion> {
        let mut decoder = BinDecoder::new(bytes);
        let header = Header::read(&mut decoder).map_err(|_| NoQuestion::Noise)?;
        let (counts, header) = (header.counts, header.metadata);
        if header.message_type == MessageType::Response {
            return Err(NoQuestion::Noise);
        }
        let refused = |code| refusal(header, code);
        if header.op_code != OpCode::Query {
            return Err(refused(ResponseCode::NotImp));
        }
        let ordinary = counts.queries == 1
            && counts.answers == 0
            && counts.authorities == 0
            && counts.additionals <= MOST_ADDITIONALS;
        if !ordinary {
            return Err(refused(ResponseCode::FormErr));
        }
        let malformed = |_| refused(ResponseCode::FormErr);
        let query = Query::read(&mut decoder).map_err(malformed)?;
        let additionals = usize::from(counts.additionals);
        let (_, edns, _) = Message::read_records(&mut decoder, additionals, true, OpCode::Query)
            .map_err(malformed)?;
        let question = Self { header, query, edns };
        if question.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
            return Err(NoQuestion::Refused(question.answer(ResponseCode::BADVERS)));
        }
        Ok(question)
    }

    pub(super) fn kind(&self) -> RecordType {
        self.query.query_type
    }

    /// Whether it is about the Internet, as all but a handful are.
    pub(super) fn is_of_internet(&self) -> bool {
        matches!(self.query.query_class, DNSClass::IN | DNSClass::ANY)
    }

    /// The name in lower case without the dot at its end. None if it has bytes
    /// that no name here can have (a dot within a label, say).
    pub(super) fn name(&self) -> Option<String> {
        let mut name = String::with_capacity(self.query.name.len());
        for label in &self.query.name {
            let legal = label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.');
            let label = str::from_utf8(label).ok().filter(|_| legal)?;
            if !name.is_empty() {
                name.push('.');
            }
            name.push_str(label);
        }
        name.make_ascii_lowercase();
        Some(name)
    }

    /// The address that a question for its name asks about.
    pub(super) fn address(&self) -> Option<IpAddr> {
        let net = self.query.name.parse_arpa_name().ok()?;
        (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
    }

    /// Nothing but the code.
    pub(super) fn answer(&self, code: ResponseCode) -> Vec<u8> {
        let mut message = self.reply();
        message.metadata.response_code = code;
        encode(&message)
    }

    /// These addresses, or none.
    pub(super) fn addresses(&self, addresses: &[IpAddr], transport: Transport) -> Vec<u8> {
        let data = addresses.iter().map(|address| match address {
            IpAddr::V4(address) => RData::A((*address).into()),
            IpAddr::V6(address) => RData::AAAA((*address).into()),
        });
        self.records(data.collect(), transport)
    }

    /// This name. Nothing, if it is none that can be written.
    pub(super) fn pointer(&self, name: &str, transport: Transport) -> Vec<u8> {
        let name = Name::from_ascii(format!("{name}."));
        let data = name.map(|name| RData::PTR(hickory_proto::rr::rdata::PTR(name)));
        self.records(data.into_iter().collect(), transport)
    }

    fn records(&self, data: Vec<RData>, transport: Transport) -> Vec<u8> {
        let mut message = self.reply();
        message.metadata.recursion_available = true;
        let record = |data| Record::from_rdata(self.query.name.clone(), LIFETIME, data);
        message.add_answers(data.into_iter().map(record));
        let limit = self.limit(transport);
        let mut bytes = encode(&message);
        // Some resolvers never ask by TCP: they get as many as fit.
        while bytes.len() > limit && !message.answers.is_empty() {
            message.metadata.truncation = true;
            let fit = message.answers.len() * limit / bytes.len();
            message.answers.truncate(fit);
            bytes = encode(&message);
        }
        bytes
    }

    fn reply(&self) -> Message {
        let mut message = Message::response(self.header.id, OpCode::Query);
        message.metadata = Metadata::response_from_request(&self.header);
        message.add_query(self.query.clone());
        if self.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(LONGEST_DATAGRAM).set_version(0);
            message.set_edns(edns);
        }
        message
    }

    /// How long an answer may be.
    fn limit(&self, transport: Transport) -> usize {
        let datagram = self.edns.as_ref().map_or(SHORTEST_DATAGRAM, Edns::max_payload);
        usize::from(match transport {
            Transport::Udp => datagram.clamp(SHORTEST_DATAGRAM, LONGEST_DATAGRAM),
            Transport::Tcp => u16::MAX,
        })
    }

    /// The same question for a server outside.
    pub(super) fn onward(&self, id: u16) -> Result<Vec<u8>, ProtoError> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = self.header.recursion_desired;
        message.metadata.authentic_data = self.header.authentic_data;
        message.metadata.checking_disabled = self.header.checking_disabled;
        message.add_query(self.query.clone());
        if let Some(mut edns) = self.edns.clone() {
            let payload = edns.max_payload().clamp(SHORTEST_DATAGRAM, LONGEST_DATAGRAM);
            edns.set_max_payload(payload);
            message.set_edns(edns);
        }
        message.to_vec()
    }

    /// The answer of a server outside, for whoever asked us.
    pub(super) fn pass_on(&self, mut bytes: Vec<u8>, transport: Transport) -> Vec<u8> {
        if bytes.len() > self.limit(transport) {
            let mut message = self.reply();
            message.metadata.recursion_available = true;
            message.metadata.truncation = true;
            return encode(&message);
        }
        if let Some(id) = bytes.first_chunk_mut() {
            *id = self.header.id.to_be_bytes();
        }
        bytes
    }
}

fn refusal(header: Metadata, code: ResponseCode) -> NoQuestion {
    let mut message = Message::response(header.id, header.op_code);
    message.metadata = Metadata::response_from_request(&header);
    message.metadata.response_code = code;
    NoQuestion::Refused(encode(&message))
}

fn encode(message: &Message) -> Vec<u8> {
    message.to_vec().expect("names of at most 255 bytes and few records fit in a message")
}
