//! Resolvers inside network namespaces, asked with real packets, without a guard that would lead
//! to them: they listen on port 53 themselves.

use crate::host::{container, inside, on_a_host, run, until};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};
use nix::sched::{CloneFlags, unshare};
use std::{
    fs::File,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tokio_util::task::TaskTracker;
use tritium_engine::{
    ids::{ContainerId, NetworkId, TenantName},
    network::dns::{ADDRESS_INSIDE, Dns, Membership, Served, Settings, Upstream},
};
use tritium_probes::{Probes, Resolvers};

const NETWORK: NetworkId = NetworkId::of([7; 32]);
const RESOLVER: (Ipv4Addr, u16) = (ADDRESS_INSIDE, 53);
/// Where the "host" of a test has its own resolver.
const STUB: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);

/// A container's namespace.
fn namespace() -> OwnedFd {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        run("ip link set lo up");
        File::open("/proc/thread-self/ns/net").unwrap().into()
    };
    thread::spawn(make).join().unwrap()
}

fn nobody_leads() -> Resolvers {
    Probes::off("for a test of networks").resolvers().clone()
}

fn upstream(address: Ipv4Addr, from_host: bool) -> Upstream {
    Upstream { address: address.into(), zone: None, from_host }
}

async fn serve(dns: &Dns, container: ContainerId, netns: &OwnedFd, upstreams: &[Upstream]) {
    dns.join(
        container,
        Membership {
            network: NETWORK,
            network_name: "net".into(),
            internal: false,
            gateway_priority: 0,
            names: vec!["web".into()],
            addresses: vec![IpAddr::from([10, 9, 0, 2])],
            links: Vec::new(),
        },
    );
    dns.serve(Served {
        container,
        tenant: TenantName::operator(),
        netns: netns.try_clone().unwrap(),
        settings: Settings { upstreams: upstreams.to_vec(), ndots_set: false },
    })
    .await
    .unwrap();
}

fn question(name: &str) -> Vec<u8> {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

fn client() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

fn by_udp(socket: &UdpSocket, name: &str) -> io::Result<Message> {
    socket.send_to(&question(name), RESOLVER)?;
    let mut answer = [0; 4096];
    let (length, from) = socket.recv_from(&mut answer)?;
    assert_eq!(from, SocketAddr::from(RESOLVER));
    Ok(Message::from_vec(&answer[..length]).unwrap())
}

fn by_tcp(name: &str) -> Message {
    let mut stream = TcpStream::connect(RESOLVER).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    tcp_message(&mut stream, &question(name))
}

fn tcp_message(stream: &mut TcpStream, question: &[u8]) -> Message {
    let length = u16::try_from(question.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length, question].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).unwrap();
    Message::from_vec(&answer).unwrap()
}

fn address(message: &Message) -> IpAddr {
    assert_eq!(message.metadata.id, 0x1234);
    let first = message.answers.first().and_then(|record| record.data.ip_addr());
    first.unwrap_or_else(|| panic!("no address in {message:?}"))
}

/// A server of names: answers with `address`, each time after a forged answer
/// and one to another question. `nx.` does not exist; `long.` only fits TCP;
/// `fails.` fails. How often it was asked.
fn authority(at: Ipv4Addr, address: Ipv4Addr) -> Arc<AtomicUsize> {
    let asked = Arc::new(AtomicUsize::new(0));
    let udp = UdpSocket::bind((at, 53)).unwrap();
    let tcp = TcpListener::bind((at, 53)).unwrap();
    let counter = asked.clone();
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok((length, peer)) = udp.recv_from(&mut bytes) {
            counter.fetch_add(1, Ordering::Relaxed);
            let answer = answer_of(&bytes[..length], address, false);
            let mut forged = answer.clone();
            forged.metadata.id ^= 1;
            forged.answers.clear();
            let mut other = answer.clone();
            other.queries[0].set_name(Name::from_ascii("other.").unwrap());
            for message in [forged, other, answer] {
                udp.send_to(&message.to_vec().unwrap(), peer).unwrap();
            }
        }
    });
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut bytes).unwrap();
            let answer = answer_of(&bytes, address, true).to_vec().unwrap();
            let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
            stream.write_all(&[&length, answer.as_slice()].concat()).unwrap();
        }
    });
    asked
}

fn answer_of(bytes: &[u8], address: Ipv4Addr, tcp: bool) -> Message {
    let question = Message::from_vec(bytes).unwrap();
    let name = question.queries[0].name.clone();
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    answer.add_query(question.queries[0].clone());
    match name.to_ascii().as_str() {
        "nx." => answer.metadata.response_code = ResponseCode::NXDomain,
        "fails." => answer.metadata.response_code = ResponseCode::ServFail,
        "long." if !tcp => answer.metadata.truncation = true,
        _ => {
            answer.add_answer(Record::from_rdata(name, 60, RData::A(address.into())));
        }
    }
    answer
}

#[test]
fn a_resolver_answers_by_udp_and_tcp() {
    on_a_host(|_| async {
        let dns = Dns::start(nobody_leads(), &TaskTracker::new()).unwrap();
        let (netns, container) = (namespace(), container());
        let begun = Instant::now();
        serve(&dns, container, &netns, &[]).await;
        println!("a resolver is there after {:?}", begun.elapsed());
        inside(&netns, || {
            assert_eq!(address(&by_udp(&client(), "web.").unwrap()), Ipv4Addr::new(10, 9, 0, 2));
            assert_eq!(address(&by_tcp("web.net.")), Ipv4Addr::new(10, 9, 0, 2));
            let nobody = by_udp(&client(), "nobody.").unwrap().metadata.response_code;
            assert_eq!(nobody, ResponseCode::ServFail, "there is no server to ask");
        });
        dns.end(container);
        let gone = || inside(&netns, || TcpStream::connect(RESOLVER).is_err());
        until("the sockets are closed", gone);
    });
}

#[test]
fn unknown_names_are_asked_from_the_host_or_from_the_container() {
    on_a_host(|_| async {
        let dns = Dns::start(nobody_leads(), &TaskTracker::new()).unwrap();
        let (mine, theirs) = (Ipv4Addr::new(1, 1, 1, 1), Ipv4Addr::new(2, 2, 2, 2));
        let netns = namespace();
        let by_host = authority(STUB, mine);
        let by_container = inside(&netns, || authority(STUB, theirs));
        let silent = upstream(Ipv4Addr::new(127, 0, 0, 54), true);
        let ids = [container(), container()];
        serve(&dns, ids[0], &netns, &[silent.clone(), upstream(STUB, true)]).await;
        inside(&netns, || {
            assert_eq!(address(&by_udp(&client(), "example.org.").unwrap()), mine);
            assert_eq!(address(&by_tcp("example.org.")), mine);
            let code = |name| by_udp(&client(), name).unwrap().metadata.response_code;
            assert_eq!(code("nx."), ResponseCode::NXDomain);
            assert_eq!(code("fails."), ResponseCode::ServFail);
            assert!(by_udp(&client(), "long.").unwrap().metadata.truncation);
            assert_eq!(address(&by_tcp("long.")), mine);
        });
        assert_eq!(by_host.load(Ordering::Relaxed), 4);
        assert_eq!(by_container.load(Ordering::Relaxed), 0);
        dns.end(ids[0]);
        let ourselves = upstream(ADDRESS_INSIDE, false);
        serve(&dns, ids[1], &netns, &[ourselves, upstream(STUB, false)]).await;
        inside(&netns, || {
            assert_eq!(address(&by_udp(&client(), "example.org.").unwrap()), theirs);
            assert_eq!(address(&by_tcp("example.org.")), theirs);
        });
        assert_eq!(by_container.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_new_resolver_takes_the_place_of_one_whose_engine_has_died() {
    on_a_host(|_| async {
        let tracker = TaskTracker::new();
        let (netns, container) = (namespace(), container());
        let first = Dns::start(nobody_leads(), &tracker).unwrap();
        serve(&first, container, &netns, &[]).await;
        let socket = inside(&netns, client);
        inside(&netns, || by_udp(&socket, "web.")).unwrap();
        drop(first);
        tracker.close();
        tracker.wait().await;
        let second = Dns::start(nobody_leads(), &TaskTracker::new()).unwrap();
        serve(&second, container, &netns, &[]).await;
        let answer = inside(&netns, || by_udp(&socket, "web.")).unwrap();
        assert_eq!(address(&answer), Ipv4Addr::new(10, 9, 0, 2), "on the same socket");
    });
}

#[test]
fn a_flood_of_questions_is_answered_to_the_last() {
    on_a_host(|_| async {
        let dns = Dns::start(nobody_leads(), &TaskTracker::new()).unwrap();
        let (netns, container) = (namespace(), container());
        serve(&dns, container, &netns, &[]).await;
        let (askers, each, begun) = (8, 500, Instant::now());
        inside(&netns, || {
            thread::scope(|scope| {
                for _ in 0..askers {
                    scope.spawn(|| {
                        inside(&netns, || {
                            let socket = client();
                            for _ in 0..each {
                                by_udp(&socket, "web.").unwrap();
                            }
                        });
                    });
                }
            });
        });
        let a_second = f64::from(askers * each) / begun.elapsed().as_secs_f64();
        println!("{a_second:.0} questions a second");
    });
}
