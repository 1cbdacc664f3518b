//! Who asks port 53 of 127.0.0.11 in a container is led to its network namespace's resolver.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    net::{TcpListener, UdpSocket},
    os::fd::AsFd as _,
    thread,
};

use tritium_probes::ResolverPorts;

use crate::house::{House, outside};

/// Answers whoever asks; in which network namespace, and where.
fn resolver() -> (u64, ResolverPorts) {
    let udp = UdpSocket::bind("127.0.0.11:0").unwrap();
    let tcp = TcpListener::bind("127.0.0.11:0").unwrap();
    let [udp_port, tcp_port] = [udp.local_addr(), tcp.local_addr()].map(|it| it.unwrap().port());
    let netns = tritium_sys::socket::netns_cookie(udp.as_fd()).unwrap();
    thread::spawn(move || {
        while let Ok((_, from)) = udp.recv_from(&mut [0; 8]) {
            udp.send_to(b"!", from).unwrap();
        }
    });
    thread::spawn(move || {
        while let Ok((mut stream, _)) = tcp.accept() {
            stream.read_exact(&mut [0; 1]).unwrap();
            stream.write_all(b"!").unwrap();
        }
    });
    (netns, ResolverPorts { udp: udp_port, tcp: tcp_port })
}

#[test]
fn a_question_is_led_to_the_resolver_and_its_answer_seems_to_come_from_port_53() {
    let house = House::new();
    let probes = house.start();
    let asker = house.admitted(&probes, "asker");
    let (netns, ports) = resolver();
    let way = probes.resolvers();
    assert!(way.lead(), "{:?}", probes.verdicts());
    let refused = |place: &str| {
        assert_eq!(asker.act(&["ask-by-tcp", place]), "ECONNREFUSED");
        assert_eq!(asker.act(&["ask-connected", place]), "ECONNREFUSED");
    };
    refused("127.0.0.11:53");
    way.lead_to(netns, ports).unwrap();
    for place in ["127.0.0.11:53", "[::ffff:127.0.0.11]:53"] {
        for act in ["ask", "ask-connected", "ask-by-tcp"] {
            assert_eq!(asker.act(&[act, place]), place, "{act}");
        }
    }
    refused("127.0.0.12:53");
    refused("127.0.0.11:54");
    assert_eq!(outside(&["ask-by-tcp", "127.0.0.11:53"]), "ECONNREFUSED", "the host");
    way.forget(netns).unwrap();
    way.forget(netns).unwrap();
    refused("127.0.0.11:53");
    way.lead_to(netns + 1, ports).unwrap();
    refused("127.0.0.11:53");
}

#[test]
fn the_next_engine_knows_where_resolvers_have_listened_and_leads_nobody_there() {
    let house = House::new();
    let probes = house.start();
    let asker = house.admitted(&probes, "asker");
    let (netns, ports) = resolver();
    probes.resolvers().lead_to(netns, ports).unwrap();
    drop(probes);
    assert_eq!(asker.act(&["ask", "127.0.0.11:53"]), "127.0.0.11:53", "no engine is needed");
    let next = house.start();
    assert_eq!(next.resolvers().take_all().unwrap(), HashMap::from([(netns, ports)]));
    assert_eq!(next.resolvers().take_all().unwrap(), HashMap::new());
    next.guard().admit(asker.id, &crate::house::admission("default", "asker")).unwrap();
    assert_eq!(asker.act(&["ask-by-tcp", "127.0.0.11:53"]), "ECONNREFUSED");
}
