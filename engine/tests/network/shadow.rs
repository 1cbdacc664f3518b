//! Two tenants with the same subnet, and the same addresses in it.

use crate::host::*;
use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    thread,
};
use tritium_engine::{
    ids::NetworkId,
    network::{
        AttachRequest, Attachment, Definition, EndpointRequest, Error, Networks, PublishRequest,
        Running,
    },
};

const SUBNETS: [&str; 2] = ["10.9.0.0/24", "fd09::/64"];
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// The host's second address on the cable.
const SECOND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);
const TENANTS: [&str; 2] = ["red", "blue"];
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// A tenant with a network `n`, a client and a server in it, at the addresses that
/// every tenant's have here.
struct Side {
    name: &'static str,
    network: Definition,
    client: (AttachRequest, Attachment),
    server: (AttachRequest, Attachment),
}

fn at(tenant: &str, last: u8, ports: &[PublishRequest]) -> AttachRequest {
    let ipv6 = format!("fd09::{last}").parse().unwrap();
    let place =
        EndpointRequest { ipv4: Some([10, 9, 0, last].into()), ipv6: Some(ipv6), ..on("n") };
    AttachRequest { endpoints: vec![place], ..of(tenant, ports) }
}

impl Side {
    /// Its server is published on one of the host's addresses.
    async fn new(networks: &Networks, name: &'static str, host: Ipv4Addr) -> Self {
        let network = networks.create(network("n", name, &SUBNETS)).await.unwrap();
        let ports = [tcp(8080, 80), udp(8080, 80)];
        let ports = ports.map(|port| PublishRequest { host_ip: Some(host.into()), ..port });
        let client = at(name, 2, &[]);
        let client = (client.clone(), networks.attach(&client).await.unwrap());
        let server = at(name, 3, &ports);
        let server = (server.clone(), networks.attach(&server).await.unwrap());
        serve_as(&server.1.netns, 80, name);
        Self { name, network, client, server }
    }

    fn client(&self) -> &OwnedFd {
        &self.client.1.netns
    }

    /// Who answers its client at that address.
    fn finds(&self, address: impl Into<SocketAddr>) -> [String; 2] {
        let address = address.into();
        inside(self.client(), || [who_tcp(address), who_udp(address)])
            .map(|said| said.unwrap_or_else(|error| error.kind().to_string()))
    }

    async fn remove(self, networks: &Networks) {
        for (request, _) in [&self.client, &self.server] {
            networks.detach(request.container, None).await.unwrap();
        }
        networks.retire(self.network.id).await.unwrap();
        networks.remove(self.network.id, true).await.unwrap();
    }

    fn running(&self) -> [Running; 2] {
        [&self.client, &self.server].map(|(request, attachment)| Running {
            container: request.container,
            tenant: request.tenant.clone(),
            endpoints: attachment.endpoints.clone(),
            wanted: request.ports.clone(),
            ports: attachment.ports.clone(),
        })
    }
}

async fn both(networks: &Networks) -> [Side; 2] {
    run(&format!("ip addr add {SECOND}/24 dev up0"));
    [Side::new(networks, "red", HOST).await, Side::new(networks, "blue", SECOND).await]
}

fn peer(version: u8) -> SocketAddr {
    let ip: IpAddr = if version == 4 { [10, 9, 0, 3].into() } else { "fd09::3".parse().unwrap() };
    (ip, 80).into()
}

fn check_peers(sides: &[Side]) {
    for side in sides {
        assert_eq!(side.finds(peer(4)), [side.name; 2]);
        until("IPv6 is up", || inside(side.client(), || who_tcp(peer(6))).is_ok());
        assert_eq!(side.finds(peer(6)), [side.name; 2]);
    }
}

/// One after the other connects from the same address and port, then all speak at once.
fn check_at_once(sides: &[Side], target: SocketAddr) {
    let from = SocketAddr::from(([10, 9, 0, 2], 4000));
    let mut streams: Vec<TcpStream> = Vec::new();
    let mut sockets: Vec<UdpSocket> = Vec::new();
    for side in sides {
        let (stream, socket) = inside(side.client(), || {
            let socket = UdpSocket::bind(from).unwrap();
            socket.connect(target).unwrap();
            (connect_from(from, target), socket)
        });
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        streams.push(stream);
        sockets.push(socket);
    }
    for round in 0..2 {
        let said = |nth: usize| format!("{} {round}", sides[nth].name);
        for nth in 0..sides.len() {
            streams[nth].write_all(said(nth).as_bytes()).unwrap();
            sockets[nth].send(said(nth).as_bytes()).unwrap();
        }
        for nth in (0..sides.len()).rev() {
            let mut answer = vec![0; said(nth).len()];
            streams[nth].read_exact(&mut answer).unwrap();
            assert_eq!(String::from_utf8_lossy(&answer), said(nth), "by TCP");
            let mut answer = [0; 32];
            let length = sockets[nth].recv(&mut answer).unwrap();
            assert_eq!(String::from_utf8_lossy(&answer[..length]), said(nth), "by UDP");
        }
    }
}

fn connect_from(from: SocketAddr, to: SocketAddr) -> TcpStream {
    use nix::sys::socket::*;
    use std::os::fd::AsRawFd;
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else { panic!("IPv4") };
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    setsockopt(&socket, sockopt::ReuseAddr, &true).unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::from(from)).unwrap();
    connect(socket.as_raw_fd(), &SockaddrIn::from(to)).unwrap();
    socket.into()
}

/// Sends back what it is sent, by TCP and UDP; in this thread's namespace.
fn echo(port: u16) {
    let any = (Ipv4Addr::UNSPECIFIED, port);
    let (listener, socket) = (TcpListener::bind(any).unwrap(), UdpSocket::bind(any).unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut other = stream.try_clone().unwrap();
            thread::spawn(move || std::io::copy(&mut stream, &mut other));
        }
    });
    thread::spawn(move || {
        let mut question = [0; 32];
        while let Ok((length, peer)) = socket.recv_from(&mut question) {
            drop(socket.send_to(&question[..length], peer));
        }
    });
}

/// What hosts differ in: whether bridged packets pass the firewall, and how
/// strictly the source of a packet is looked at.
const HOSTS: [&[&str]; 3] = [
    &["net.bridge.bridge-nf-call-iptables=1", "net.bridge.bridge-nf-call-ip6tables=1"],
    &["net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0"],
    &["net.ipv4.conf.all.rp_filter=1", "net.bridge.bridge-nf-call-iptables=0"],
];

fn be(settings: &[&str]) {
    // Where bridges have no netfilter, there is nothing to say about it.
    let known = |setting: &&&str| {
        !setting.starts_with("net.bridge") || std::path::Path::new("/proc/sys/net/bridge").exists()
    };
    for setting in settings.iter().filter(known) {
        run(&format!("sysctl -qw {setting}"));
    }
}

#[test]
fn each_tenant_reaches_its_own_peer_and_all_reach_outside_at_once() {
    HOSTS.into_iter().for_each(each_reaches_its_own_on);
}

fn each_reaches_its_own_on(settings: &'static [&str]) {
    on_a_host(move |outside| async move {
        be(settings);
        run(&format!("ip route add default via {OUTSIDE}"));
        let networks = start("t0").await;
        let sides = both(&networks).await;
        assert_eq!(sides[0].network.zone, None);
        assert!(sides[1].network.zone.is_some());
        check_peers(&sides);
        inside(&outside.0, || echo(90));
        check_at_once(&sides, (OUTSIDE, 90).into());
        // And the host, by the address that both bridges have.
        inside(&inside_host(), || echo(91));
        check_at_once(&sides, (GATEWAY, 91).into());
        for side in &sides {
            inside(side.client(), || {
                run("busybox ping -c1 -W5 10.9.0.1");
                run(&format!("busybox ping -c1 -W5 {OUTSIDE}"));
                run("busybox ping -6 -c1 -W5 fd09::1");
                run(&format!("busybox ping -c1 -W5 -s 20000 {OUTSIDE}"));
            });
        }
    });
}

/// This thread's namespace, for threads to be born in.
fn inside_host() -> OwnedFd {
    std::fs::File::open("/proc/thread-self/ns/net").unwrap().into()
}

#[test]
fn a_published_port_leads_to_the_tenant_that_has_published_it() {
    HOSTS.into_iter().for_each(a_port_leads_home_on);
}

fn a_port_leads_home_on(settings: &'static [&str]) {
    on_a_host(move |outside| async move {
        be(settings);
        let networks = start("t0").await;
        let sides = both(&networks).await;
        let third = networks.create(network("m", "green", &["10.9.0.0/16"])).await.unwrap();
        assert!(third.zone.is_some());
        let place = EndpointRequest { ipv4: Some([10, 9, 0, 2].into()), ..on("m") };
        let third = AttachRequest { endpoints: vec![place], ..of("green", &[]) };
        let third = networks.attach(&third).await.unwrap();
        let elsewhere = networks.attach(&of("red", &[])).await.unwrap();
        for (host, name) in [(HOST, "red"), (SECOND, "blue")] {
            let target: SocketAddr = (host, 8080).into();
            for who in [who_tcp, who_udp] {
                assert_eq!(inside(&outside.0, || who(target)).unwrap(), name, "from outside");
                assert_eq!(who(target).unwrap(), name, "from the host");
                for netns in [&third.netns, &elsewhere.netns] {
                    assert_eq!(
                        inside(netns, || who(target)).unwrap(),
                        name,
                        "from another network"
                    );
                }
            }
            for side in &sides {
                assert_eq!(side.finds(target), [name; 2], "from {}", side.name);
                let itself = &side.server.1.netns;
                assert_eq!(inside(itself, || who_tcp(target)).unwrap(), name);
            }
        }
    });
}

#[test]
fn a_port_of_a_shadowed_container_may_be_on_all_addresses() {
    on_a_host(|outside| async move {
        let networks = start("t0").await;
        run(&format!("ip addr add {SECOND}/24 dev up0"));
        let red = Side::new(&networks, "red", HOST).await;
        networks.create(network("n", "blue", &SUBNETS)).await.unwrap();
        let request = at("blue", 3, &[tcp(8081, 80), udp(8081, 80)]);
        let blue = networks.attach(&request).await.unwrap();
        serve_as(&blue.netns, 80, "blue");
        let asked = [LOCALHOST, HOST, SECOND, GATEWAY];
        for who in [who_tcp, who_udp] {
            for host in asked {
                assert_eq!(who((host, 8081).into()).unwrap(), "blue", "{host}");
            }
            assert_eq!(inside(&outside.0, || who((HOST, 8081).into())).unwrap(), "blue");
            for netns in [red.client(), &blue.netns] {
                for host in [HOST, GATEWAY] {
                    assert_eq!(inside(netns, || who((host, 8081).into())).unwrap(), "blue");
                }
            }
        }
    });
}

#[test]
fn no_tenants_container_answers_for_anothers_of_the_same_address() {
    on_a_host(|outside| async move {
        let networks = start("t0").await;
        let sides = both(&networks).await;
        let mut answer = [0; 32];
        for (nth, (host, port)) in [(HOST, 5000), (SECOND, 5001)].into_iter().enumerate() {
            let client = inside(&outside.0, || UdpSocket::bind((OUTSIDE, port)).unwrap());
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.send_to(b"?", (host, 8080)).unwrap();
            let (length, from) = client.recv_from(&mut answer).unwrap();
            assert_eq!(from, (host, 8080).into());
            assert_eq!(&answer[..length], sides[nth].name.as_bytes());
            // The server of the other tenant has the very address and port.
            let other = &sides[1 - nth].server.1.netns;
            let forged = inside(other, || {
                use nix::sys::socket::*;
                use std::os::fd::AsRawFd;
                let flags = SockFlag::SOCK_CLOEXEC;
                let socket = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Raw);
                let socket = socket.unwrap();
                let to = SockaddrIn::from(std::net::SocketAddrV4::new(OUTSIDE, 0));
                let packet = datagram([10, 9, 0, 3].into(), 80, OUTSIDE, port, b"forged");
                sendto(socket.as_raw_fd(), &packet, &to, MsgFlags::empty())
            });
            forged.unwrap();
            client.send_to(b"?", (host, 8080)).unwrap();
            let (length, from) = client.recv_from(&mut answer).unwrap();
            assert_eq!(&answer[..length], sides[nth].name.as_bytes(), "from {from}");
        }
    });
}

/// A UDP packet with its IP header; the kernel fills in length and checksum.
fn datagram(from: Ipv4Addr, port: u16, to: Ipv4Addr, to_port: u16, text: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    let length = u16::try_from(8 + text.len()).unwrap();
    for number in [port, to_port, length, 0] {
        packet.extend(number.to_be_bytes());
    }
    packet.extend(text);
    packet
}

#[test]
fn a_rule_of_somebody_elses_before_ours_leads_nobody_to_another_tenant() {
    on_a_host(|outside| async move {
        let networks = start("t0").await;
        let sides = both(&networks).await;
        // As VPNs do it: what the host has a way to goes there, marked or not.
        run("ip rule add pref 100 lookup main suppress_prefixlength 0");
        let target: SocketAddr = (SECOND, 8080).into();
        let asks = || inside(&outside.0, || [who_tcp(target), who_udp(target)]);
        assert!(asks().iter().all(Result::is_err), "nobody but blue answers: {:?}", asks());
        who_udp(target).unwrap_err();
        run("ip rule del pref 100");
        assert!(asks().iter().all(|said| said.as_ref().is_ok_and(|who| who == "blue")));
        // Or if somebody takes all marks away.
        run("nft add table ip other");
        run("nft add chain ip other clear { type filter hook prerouting priority -50 ; }");
        run("nft add rule ip other clear meta mark set 0");
        assert!(asks().iter().all(Result::is_err), "nobody but blue answers: {:?}", asks());
        inside(&outside.0, || echo(90));
        let socket = inside(sides[1].client(), || UdpSocket::bind("10.9.0.2:4001").unwrap());
        let heard = inside(sides[0].client(), || UdpSocket::bind("10.9.0.2:4001").unwrap());
        heard.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
        socket.send_to(b"?", (OUTSIDE, 90)).unwrap();
        assert!(heard.recv(&mut [0; 8]).is_err(), "blue's answer came to red");
    });
}

#[test]
fn the_kernels_own_errors_reach_the_container_that_they_are_about() {
    on_a_host(|outside| async move {
        // Only the host knows that the cable takes no longer packets.
        run("ip link set up0 mtu 1300");
        let networks = start("t0").await;
        let sides = both(&networks).await;
        inside(&outside.0, || swallow(90));
        for side in &sides {
            let counted = inside(side.client(), || {
                run("nft add table ip c");
                run("nft add chain ip c in { type filter hook input priority 0 ; }");
                run("nft add rule ip c in icmp type destination-unreachable counter");
                assert_eq!(pour((OUTSIDE, 90).into()), POURED, "out");
                run("nft list table ip c")
            });
            assert!(!counted.contains("packets 0"), "{}: {counted}", side.name);
        }
        // And on the way back of a connection from outside.
        for (side, host) in sides.iter().zip([HOST, SECOND]) {
            let ports = [PublishRequest { host_ip: Some(host.into()), ..tcp(8082, 82) }];
            let request = at(side.name, 4, &ports);
            let attached = networks.attach(&request).await.unwrap();
            let listener = inside(&attached.netns, || TcpListener::bind("0.0.0.0:82").unwrap());
            let poured = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(&vec![7; POURED]).unwrap();
            });
            let got = inside(&outside.0, || {
                let mut stream = TcpStream::connect((host, 8082)).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                std::io::copy(&mut stream, &mut std::io::sink()).unwrap()
            });
            poured.join().unwrap();
            assert_eq!(usize::try_from(got).unwrap(), POURED, "back, from {}", side.name);
        }
    });
}

/// More than a packet, in bytes.
const POURED: usize = 20_000;

/// Sends much; answers how much of it was received.
fn pour(to: SocketAddr) -> usize {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&vec![7; POURED]).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.parse().unwrap()
}

/// Answers how much was sent; in this thread's namespace.
fn swallow(port: u16) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let count = std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
            stream.write_all(count.to_string().as_bytes()).unwrap();
        }
    });
}

#[test]
fn whoever_is_left_goes_on_and_nothing_stays_of_those_that_go() {
    on_a_host(|outside| async move {
        let before = inventory();
        let networks = start("t0").await;
        until("two wait ready", || inventory().links.len() == 5);
        let started = inventory();
        let [red, blue] = both(&networks).await;
        let rules = run("ip rule");
        assert_eq!(rules.lines().count(), 5, "{rules}");
        let target: SocketAddr = (SECOND, 8080).into();
        let mut open = inside(blue.client(), || TcpStream::connect(target)).unwrap();
        red.remove(&networks).await;
        let mut name = String::new();
        open.read_to_string(&mut name).unwrap();
        assert_eq!(name, "blue");
        inside(&inside_host(), || echo(91));
        let left = [blue];
        check_peers(&left);
        check_at_once(&left, (GATEWAY, 91).into());
        assert_eq!(inside(&outside.0, || who_tcp(target)).unwrap(), "blue");
        assert_eq!(who_udp(target).unwrap(), "blue");
        // Whoever comes again is the second now.
        let red = Side::new(&networks, "red", HOST).await;
        assert!(red.network.zone.is_some() && red.network.zone != left[0].network.zone);
        let [blue] = left;
        let sides = [red, blue];
        check_peers(&sides);
        for (nth, host) in [HOST, SECOND].into_iter().enumerate() {
            let target: SocketAddr = (host, 8080).into();
            assert_eq!(inside(&outside.0, || who_tcp(target)).unwrap(), TENANTS[nth]);
        }
        for side in sides {
            side.remove(&networks).await;
        }
        run(&format!("ip addr del {SECOND}/24 dev up0"));
        let shape = |all: Inventory| (all.links.len(), all.rules, all.routing);
        let started = shape(started);
        until("interfaces are gone", || inventory().links.len() == started.0);
        assert_eq!(shape(inventory()), started);
        networks.remove_all().await.unwrap();
        assert_eq!(inventory(), before);
    });
}

#[test]
fn the_next_engine_finds_shadowed_networks_and_sweeps_rules_of_the_dead() {
    on_a_host(|outside| async move {
        let before = inventory();
        let first = start("t0").await;
        let sides = both(&first).await;
        let lost = first.create(network("lost", "green", &SUBNETS)).await.unwrap();
        let rules = run("ip rule");
        let target: SocketAddr = (SECOND, 8080).into();
        first.stop();
        until("the first has let go of its ports", || TcpListener::bind(target).is_ok());
        // One bridge goes without its rules; the other was never recorded.
        run(&format!("ip link del br-{}", lost.id.short()));
        assert_eq!(run("ip rule"), rules);
        assert_eq!(inside(&outside.0, || who_tcp(target)).unwrap(), "blue");
        let second = Networks::start(config("t0"), &tokio_util::task::TaskTracker::new()).await;
        let second = second.unwrap();
        let records = sides.iter().map(|side| side.network.clone()).collect();
        let running = sides.iter().flat_map(Side::running).collect();
        assert_eq!(second.readopt(records, running).await.unwrap(), []);
        assert_eq!(run("ip rule").lines().count(), rules.lines().count() - 2);
        check_peers(&sides);
        assert_eq!(inside(&outside.0, || who_tcp(target)).unwrap(), "blue");
        assert_eq!(who_udp(target).unwrap(), "blue");
        // As after a restart of the host.
        second.stop();
        until("the second has let go", || TcpListener::bind(target).is_ok());
        let ids: Vec<NetworkId> = sides.iter().map(|side| side.network.id).collect();
        for id in ids {
            run(&format!("ip link del br-{}", id.short()));
        }
        let records = sides.iter().map(|side| side.network.clone()).collect();
        for (_, attachment) in sides.iter().flat_map(|side| [&side.client, &side.server]) {
            run(&format!("ip link del {}", attachment.endpoints[0].host_interface));
        }
        let third = Networks::start(config("t0"), &tokio_util::task::TaskTracker::new()).await;
        let third = third.unwrap();
        third.readopt(records, Vec::new()).await.unwrap();
        for nth in [0, 1] {
            let attached = third.attach(&at(TENANTS[nth], 3, &[])).await.unwrap();
            let client = third.attach(&at(TENANTS[nth], 2, &[])).await.unwrap();
            serve_as(&attached.netns, 80, TENANTS[nth]);
            assert_eq!(inside(&client.netns, || who_tcp(peer(4))).unwrap(), TENANTS[nth]);
        }
        run(&format!("ip addr del {SECOND}/24 dev up0"));
        third.remove_all().await.unwrap();
        // What waited ready of the engines before goes when it goes.
        until("their interfaces are gone", || inventory().links == before.links);
        assert_eq!(inventory(), before);
    });
}

#[test]
fn a_subnet_may_be_anothers_but_not_ones_own_nor_the_hosts_nor_its_gateway_a_containers() {
    on_a_host(|_| async {
        let networks = start("t0").await;
        let wide = networks.create(network("wide", "red", &["10.8.0.0/16"])).await.unwrap();
        assert_eq!(wide.zone, None);
        let refused = |answer: Result<Definition, Error>| {
            assert!(matches!(answer, Err(Error::PoolOverlaps)), "{answer:?}");
        };
        refused(networks.create(network("own", "red", &["10.8.3.0/24"])).await);
        refused(networks.create(network("host", "red", &["198.51.100.128/25"])).await);
        let place = |name: &str, ip: [u8; 4]| EndpointRequest { ipv4: Some(ip.into()), ..on(name) };
        let gateway =
            AttachRequest { endpoints: vec![place("wide", [10, 8, 3, 1])], ..of("red", &[]) };
        networks.attach(&gateway).await.unwrap();
        refused(networks.create(network("n", "blue", &["10.8.3.0/24"])).await);
        networks.detach(gateway.container, None).await.unwrap();
        let end = std::time::Instant::now() + PATIENCE;
        let narrow = loop {
            // Until the interface that has the address is gone.
            let made = networks.create(network("n", "blue", &["10.8.3.0/24"])).await;
            match made {
                Ok(narrow) => break narrow,
                Err(error) => assert!(std::time::Instant::now() < end, "{error}"),
            }
        };
        assert!(narrow.zone.is_some());
        let said = networks.attach(&gateway).await.unwrap_err().to_string();
        assert_eq!(said, "Address already in use");
        // What the engine chooses is everybody's own.
        let chosen = networks.create(network("m", "blue", &[])).await.unwrap();
        assert_eq!(chosen.zone, None);
        // Both have the whole of what is theirs.
        let request = |tenant: &str, name: &str, last| AttachRequest {
            endpoints: vec![place(name, [10, 8, 3, last])],
            ..of(tenant, &[])
        };
        let (a, b) = (request("red", "wide", 255), request("red", "wide", 5));
        let [a, b] = [networks.attach(&a).await.unwrap(), networks.attach(&b).await.unwrap()];
        let (c, d) = (request("blue", "n", 4), request("blue", "n", 5));
        let [c, d] = [networks.attach(&c).await.unwrap(), networks.attach(&d).await.unwrap()];
        for (client, server, name) in [(&a, &b, "red"), (&c, &d, "blue")] {
            serve_as(&server.netns, 80, name);
            let target: SocketAddr = ([10, 8, 3, 5], 80).into();
            assert_eq!(inside(&client.netns, || who_tcp(target)).unwrap(), name);
        }
        serve_as(&a.netns, 80, "the last");
        assert_eq!(who_tcp(([10, 8, 3, 255], 80).into()).unwrap(), "the last", "from the host");
    });
}
