//! The rules, without a network: what is answered to whom.

use super::{
    Membership, Settings,
    answer::{Verdict, consider},
    directory::Directory,
    question::{NoQuestion, Question, Transport},
};
use crate::ids::{ContainerId, NetworkId};
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RecordType},
};
use proptest::prelude::*;
use std::net::IpAddr;

const WEB: ContainerId = ContainerId::of([1; 32]);
const DB: ContainerId = ContainerId::of([2; 32]);
const OTHER: ContainerId = ContainerId::of([3; 32]);
const LONER: ContainerId = ContainerId::of([4; 32]);
const FRONT: NetworkId = NetworkId::of([1; 32]);
const BACK: NetworkId = NetworkId::of([2; 32]);
const THEIRS: NetworkId = NetworkId::of([3; 32]);

fn on(network: NetworkId, name: &str, names: &[&str], addresses: &[&str]) -> Membership {
    Membership {
        network,
        network_name: name.into(),
        internal: false,
        gateway_priority: 0,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        links: Vec::new(),
    }
}

/// `web` is on `front` and `back`, `db` on `back`; another tenant has a `back`
/// with a `db`, too; and one container is on internal networks only.
fn directory() -> Directory {
    let mut all = Directory::default();
    all.join(WEB, on(FRONT, "front", &["Web", "app", "a.dot"], &["10.1.0.2", "fd00::2"]));
    all.join(WEB, on(BACK, "back", &["Web", "app"], &["10.2.0.2"]));
    all.join(DB, on(BACK, "back", &["db", "app"], &["10.2.0.3"]));
    all.join(OTHER, on(THEIRS, "back", &["db", "secret"], &["10.2.0.3"]));
    let internal = Membership { internal: true, ..on(FRONT, "front", &["loner"], &["10.1.0.9"]) };
    all.join(LONER, internal);
    all
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), kind));
    message
}

fn verdict(asker: ContainerId, message: &Message, ndots_set: bool) -> Verdict {
    let settings = Settings { ndots_set, ..Settings::default() };
    let bytes = message.to_vec().unwrap();
    consider(&directory(), (asker, &settings), (&bytes, Transport::Udp), || 0)
}

/// The answer; None if it is for others to give.
fn ask(asker: ContainerId, name: &str, kind: RecordType) -> Option<Message> {
    match verdict(asker, &question(name, kind), false) {
        Verdict::Answer(answer) => Some(Message::from_vec(&answer).unwrap()),
        Verdict::Forward(_) => None,
        Verdict::Nothing => panic!("a question is always answered"),
    }
}

fn addresses(message: &Message) -> Vec<IpAddr> {
    message.answers.iter().map(|record| record.data.ip_addr().unwrap()).collect()
}

fn a(asker: ContainerId, name: &str) -> Option<Vec<String>> {
    let answer = ask(asker, name, RecordType::A)?;
    Some(addresses(&answer).iter().map(IpAddr::to_string).collect())
}

#[test]
fn names_are_known_on_the_networks_of_whoever_asks_and_nowhere_else() {
    let some = |address: &str| Some(vec![address.to_owned()]);
    assert_eq!(a(DB, "web"), some("10.2.0.2"));
    assert_eq!(a(DB, "WEB.Back"), some("10.2.0.2"));
    assert_eq!(a(DB, "web.front"), None, "it is not on that network");
    assert_eq!(a(WEB, "db"), some("10.2.0.3"));
    assert_eq!(a(WEB, "a.dot"), some("10.1.0.2"));
    assert_eq!(a(WEB, "a.dot.front"), some("10.1.0.2"));
    assert_eq!(a(WEB, "secret"), None, "another tenant's");
    assert_eq!(a(WEB, "secret.back"), None, "another tenant's network of the same name");
    assert_eq!(a(OTHER, "web"), None);
    assert_eq!(a(ContainerId::of([9; 32]), "db"), Some(vec![]), "nobody: refused");
}

#[test]
fn an_alias_of_several_answers_all_of_them_beginning_with_any() {
    assert_eq!(a(DB, "app").unwrap(), ["10.2.0.2", "10.2.0.3"]);
    let bytes = question("app", RecordType::A).to_vec().unwrap();
    let settings = Settings::default();
    let (all, asked) = (directory(), (bytes.as_slice(), Transport::Udp));
    let Verdict::Answer(answer) = consider(&all, (DB, &settings), asked, || 7) else { panic!() };
    let answer = addresses(&Message::from_vec(&answer).unwrap());
    assert_eq!(answer, ["10.2.0.3", "10.2.0.2"].map(|a| a.parse::<IpAddr>().unwrap()));
}

#[test]
fn a_known_name_without_what_is_asked_for_is_answered_with_nothing() {
    for kind in [RecordType::AAAA, RecordType::MX, RecordType::TXT, RecordType::HTTPS] {
        let answer = ask(WEB, "db", kind).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(answer.answers.is_empty() && answer.metadata.recursion_available);
        assert_eq!(answer.queries, question("db", kind).queries);
    }
    assert_eq!(ask(WEB, "web", RecordType::ANY).unwrap().answers.len(), 1, "on the first network");
    let six = ask(WEB, "web", RecordType::AAAA).unwrap();
    assert_eq!(addresses(&six), ["fd00::2".parse::<IpAddr>().unwrap()]);
}

#[test]
fn an_address_has_the_name_of_its_container_and_network() {
    let name = |asker, name| Some(ask(asker, name, RecordType::PTR)?.answers[0].data.to_string());
    assert_eq!(name(DB, "2.0.2.10.in-addr.arpa").unwrap(), "Web.back.");
    let six = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
    assert_eq!(name(WEB, six).unwrap(), "Web.front.");
    assert_eq!(name(DB, six), None);
    assert_eq!(name(OTHER, "2.0.2.10.in-addr.arpa"), None);
    assert_eq!(name(WEB, "2.10.in-addr.arpa"), None, "that is a network");
}

#[test]
fn links_are_names_for_whoever_has_them_only() {
    let mut all = directory();
    let links = vec![("Store".to_owned(), "DB".to_owned()), ("app".into(), "db".into())];
    all.join(WEB, Membership { links, ..on(BACK, "back", &["web"], &["10.2.0.2"]) });
    let resolve = |asker, name| all.resolve(asker, name, super::directory::Family::V4);
    let db: Vec<IpAddr> = vec!["10.2.0.3".parse().unwrap()];
    assert_eq!(resolve(WEB, "store"), Some(db.clone()));
    assert_eq!(resolve(WEB, "store.back"), Some(db.clone()));
    assert_eq!(resolve(WEB, "app"), Some(db), "before the alias on the first network");
    assert_eq!(resolve(DB, "store"), None);
}

#[test]
fn who_has_left_is_not_known_any_more() {
    let mut all = directory();
    all.leave(DB, BACK);
    let v4 = super::directory::Family::V4;
    assert_eq!(all.resolve(WEB, "db", v4), None);
    assert_eq!(all.reverse(WEB, "10.2.0.3".parse().unwrap()), None);
    assert_eq!(all.resolve(WEB, "app.back", v4).unwrap().len(), 1);
    for container in [WEB, DB, OTHER, LONER] {
        all.forget(container);
    }
    assert_eq!(format!("{all:?}"), format!("{:?}", Directory::default()));
}

#[test]
fn what_is_not_known_is_asked_outside_unless_there_is_no_outside() {
    assert!(ask(WEB, "example.org", RecordType::A).is_none());
    assert!(ask(WEB, "unknown", RecordType::A).is_none());
    let refused = ask(LONER, "example.org", RecordType::A).unwrap();
    assert_eq!(refused.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(a(LONER, "web").unwrap(), ["10.1.0.2"]);
    let single = question("unknown", RecordType::AAAA);
    let Verdict::Answer(answer) = verdict(WEB, &single, true) else { panic!("ndots was set") };
    assert_eq!(Message::from_vec(&answer).unwrap().metadata.response_code, ResponseCode::NoError);
    for (name, kind) in [("unknown", RecordType::MX), ("un.known", RecordType::A)] {
        assert!(matches!(verdict(WEB, &question(name, kind), true), Verdict::Forward(_)));
    }
    let mut chaos = question("web", RecordType::A);
    chaos.queries[0].query_class = DNSClass::CH;
    assert!(matches!(verdict(WEB, &chaos, false), Verdict::Forward(_)));
}

#[test]
fn an_answer_is_as_long_as_the_asker_can_take() {
    let mut all = Directory::default();
    for n in 0..100 {
        let id = ContainerId::of([n; 32]);
        all.join(id, on(FRONT, "front", &["many"], &[&format!("10.1.0.{n}")]));
    }
    let settings = Settings::default();
    let mut message = question("many", RecordType::A);
    let length = |message: &Message, transport| {
        let bytes = message.to_vec().unwrap();
        let asked = (bytes.as_slice(), transport);
        let verdict = consider(&all, (ContainerId::of([0; 32]), &settings), asked, || 3);
        let Verdict::Answer(answer) = verdict else { panic!("it is known") };
        let read = Message::from_vec(&answer).unwrap();
        (answer.len(), read.answers.len(), read.metadata.truncation)
    };
    let (bytes, answers, cut) = length(&message, Transport::Udp);
    assert!(bytes <= 512 && answers > 25 && cut, "{bytes} {answers}");
    assert_eq!(length(&message, Transport::Tcp).1, 100);
    message.edns = Some(Edns::new());
    message.edns.as_mut().unwrap().set_max_payload(4096);
    let (_, answers, cut) = length(&message, Transport::Udp);
    assert_eq!((answers, cut), (100, false));
}

#[test]
fn what_is_no_question_is_refused_or_not_answered() {
    let code = |bytes: &[u8]| match Question::parse(bytes) {
        Err(NoQuestion::Refused(answer)) => Some(Message::from_vec(&answer).unwrap().metadata),
        Err(NoQuestion::Noise) => None,
        Ok(question) => panic!("{question:?}"),
    };
    let good = question("web", RecordType::A).to_vec().unwrap();
    assert_eq!(code(&good[..11]), None);
    let change = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        code(&bytes)
    };
    assert_eq!(change(2, 0x81), None, "an answer");
    for (at, to, expected) in [
        (2, 0x29, ResponseCode::NotImp),
        (5, 0, ResponseCode::FormErr),
        (5, 2, ResponseCode::FormErr),
        (7, 1, ResponseCode::FormErr),
        (11, 200, ResponseCode::FormErr),
        (12, 0x3f, ResponseCode::FormErr),
        (12, 0xc0, ResponseCode::FormErr),
    ] {
        let refused = change(at, to).unwrap();
        assert_eq!((refused.response_code, refused.id), (expected, 0x1234), "{at}");
    }
    let mut message = question("web", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    message.set_edns(edns);
    let refused = code(&message.to_vec().unwrap()).unwrap();
    assert_eq!(refused.response_code.low(), ResponseCode::BADVERS.low());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_answer_more_than_a_datagram(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        survive(&bytes)?;
    }

    #[test]
    fn no_change_to_a_question_makes_it_panic(
        name in "[a-z.]{1,40}",
        kind in any::<u16>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let Ok(name) = Name::from_ascii(&name) else { return Ok(()) };
        let mut message = question("x", kind.into());
        message.queries[0].set_name(name);
        message.set_edns(Edns::new());
        let mut bytes = message.to_vec().unwrap();
        for (at, to) in changes {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        survive(&bytes)?;
        bytes.truncate(cut.index(bytes.len()));
        survive(&bytes)?;
    }
}

fn survive(bytes: &[u8]) -> Result<(), TestCaseError> {
    let settings = Settings::default();
    let asked = (bytes, Transport::Udp);
    match consider(&directory(), (WEB, &settings), asked, || 1) {
        Verdict::Nothing => {}
        Verdict::Answer(answer) => prop_assert!(answer.len() <= bytes.len().max(12) + 1024),
        Verdict::Forward(question) => {
            let onward = question.onward(7).unwrap();
            prop_assert!(Question::parse(&onward).is_ok());
            prop_assert!(question.pass_on(onward, Transport::Udp).len() <= 4096);
        }
    }
    Ok(())
}
