//! A host of the test's own: a network namespace that is its "machine", with a
//! cable to another one, the "outside". The real machine is not touched.

use nix::sched::{CloneFlags, setns, unshare};
use std::{
    fs::File,
    future::Future,
    io::{self, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    process::Command,
    thread,
    time::{Duration, Instant},
};
use tokio_util::task::TaskTracker;
use tritium_engine::{
    ids::{ContainerId, NetworkId, TenantName, random},
    network::{
        AddressPool, AttachRequest, Attachment, DEFAULT, Definition, Driver, EndpointRequest,
        Network, NetworkConfig, Networks, Proto, PublishRequest,
    },
};

/// The host's address on the cable, and the outside's.
pub const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// How long an answer may take on a busy machine; and how long silence must
/// last to be taken for a refusal.
const PATIENCE: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(2);

/// Runs a test as if on a host of its own, whose outside it is handed.
pub fn on_a_host<F: Future<Output = ()>>(test: impl FnOnce(Outside) -> F + Send + 'static) {
    let body = move || {
        // This thread's children and the runtime's threads are born here, too.
        let outside = isolated();
        run("ip link set lo up");
        plug(&outside, "up0", HOST, OUTSIDE);
        let _kept = outside.0.try_clone().unwrap();
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
            .block_on(test(outside));
    };
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// What is at the other end of the host's cable.
pub struct Outside(pub OwnedFd);

fn isolated() -> Outside {
    unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
    let outside = Outside(here());
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    outside
}

/// A namespace that nothing is connected to.
pub fn another_outside() -> Outside {
    thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        Outside(here())
    })
    .join()
    .unwrap()
}

fn here() -> OwnedFd {
    File::open("/proc/thread-self/ns/net").unwrap().into()
}

/// Lays a cable to a namespace: `name` here, `out0` there.
pub fn plug(outside: &Outside, name: &str, host: Ipv4Addr, other: Ipv4Addr) {
    let home = here();
    inside(&outside.0, || {
        run(&format!("ip link add out0 type veth peer name {name}"));
        run("ip link set lo up");
        run(&format!("ip addr add {other}/24 dev out0"));
        run("ip link set out0 up");
        // A name for the host's namespace: the thread that came from there.
        let (tell, told) = std::sync::mpsc::channel();
        let (done, until) = std::sync::mpsc::channel::<()>();
        thread::scope(|scope| {
            let home = &home;
            scope.spawn(move || {
                setns(home, CloneFlags::CLONE_NEWNET).unwrap();
                tell.send(nix::unistd::gettid()).unwrap();
                assert!(until.recv().is_err());
            });
            let tid = told.recv().unwrap();
            run(&format!("ip link set {name} netns {tid}"));
            drop(done);
        });
    });
    run(&format!("ip addr add {host}/24 dev {name}"));
    run(&format!("ip link set {name} up"));
}

/// Does something in a namespace.
pub fn inside<T: Send>(netns: &OwnedFd, what: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let there = scope.spawn(|| {
            setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
            what()
        });
        there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs a command of words and returns what it printed.
pub fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until it is so.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "it never came about: {what}");
        thread::yield_now();
    }
}

pub fn config(bridge: &str) -> NetworkConfig {
    NetworkConfig {
        bridge: bridge.into(),
        address_pool: "172.17.0.0/12".parse().unwrap(),
        ready: 2,
        guard: tritium_probes::Probes::off("for a test of networks").guard().clone(),
    }
}

pub async fn start(bridge: &str) -> Networks {
    let networks = Networks::start(config(bridge), &TaskTracker::new()).await.unwrap();
    assert_eq!(networks.readopt(Vec::new(), Vec::new()).await.unwrap(), []);
    networks
}

pub fn container() -> ContainerId {
    ContainerId::of(random())
}

/// A container of the operator's on his bridge, with these ports.
pub fn bridged(ports: &[PublishRequest]) -> AttachRequest {
    AttachRequest {
        container: container(),
        tenant: TenantName::operator(),
        endpoints: vec![on(DEFAULT)],
        ports: ports.to_vec(),
    }
}

pub fn on(network: &str) -> EndpointRequest {
    EndpointRequest { network: network.into(), ..EndpointRequest::default() }
}

pub fn tcp(host_port: u16, container_port: u16) -> PublishRequest {
    PublishRequest {
        container_port,
        proto: Proto::Tcp,
        host_ip: None,
        host_port: Some(host_port..=host_port),
    }
}

pub fn udp(host_port: u16, container_port: u16) -> PublishRequest {
    PublishRequest { proto: Proto::Udp, ..tcp(host_port, container_port) }
}

pub fn address(attachment: &Attachment) -> Ipv4Addr {
    attachment.endpoints[0].address.unwrap()
}

/// Answers one TCP connection after the other with the caller's address.
pub fn serve_tcp(netns: &OwnedFd, port: u16) {
    let listener = inside(netns, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip().to_string();
            // The caller may have hung up.
            drop(stream.write_all(peer.as_bytes()));
        }
    });
}

/// The same by IPv6.
pub fn serve_tcp6(netns: &OwnedFd, port: u16) {
    inside(netns, || drop(serve_tcp6_here(port)));
}

pub fn serve_tcp6_here(port: u16) -> thread::JoinHandle<()> {
    let socket = listen_v6only(port);
    thread::spawn(move || {
        for stream in socket.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip().to_string();
            // The caller may have hung up.
            drop(stream.write_all(peer.as_bytes()));
        }
    })
}

fn listen_v6only(port: u16) -> TcpListener {
    use nix::sys::socket::*;
    let kind = (AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_CLOEXEC);
    let socket = socket(kind.0, kind.1, kind.2, None).unwrap();
    setsockopt(&socket, sockopt::Ipv6V6Only, &true).unwrap();
    let any = std::net::SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrIn6::from(any)).unwrap();
    listen(&socket, Backlog::new(16).unwrap()).unwrap();
    TcpListener::from(socket)
}

/// The same for datagrams.
pub fn serve_udp(netns: &OwnedFd, port: u16) {
    let socket = inside(netns, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    thread::spawn(move || {
        let mut question = [0; 16];
        while let Ok((_, peer)) = socket.recv_from(&mut question) {
            drop(socket.send_to(peer.ip().to_string().as_bytes(), peer));
        }
    });
}

/// Whom a TCP server at that address sees calling; an error if nobody answers.
pub fn call_tcp(ip: Ipv4Addr, port: u16) -> io::Result<Ipv4Addr> {
    call((ip, port).into())?.parse().map_err(io::Error::other)
}

/// The same by IPv6.
pub fn call_tcp6(ip: Ipv6Addr, port: u16) -> io::Result<Ipv6Addr> {
    call((ip, port).into())?.parse().map_err(io::Error::other)
}

fn call(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, SILENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The same for datagrams.
pub fn call_udp(ip: Ipv4Addr, port: u16) -> io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((ip, port))?;
    socket.set_read_timeout(Some(SILENCE))?;
    socket.send(b"?")?;
    let mut answer = [0; 32];
    let length = socket.recv(&mut answer)?;
    String::from_utf8_lossy(&answer[..length]).parse().map_err(io::Error::other)
}

/// Answers by TCP and UDP, of either version of IP, who it is.
pub fn serve_as(netns: &OwnedFd, port: u16, name: &'static str) {
    let any = (Ipv6Addr::UNSPECIFIED, port);
    let (listener, socket) =
        inside(netns, || (TcpListener::bind(any).unwrap(), UdpSocket::bind(any).unwrap()));
    thread::spawn(move || {
        for stream in listener.incoming() {
            // The caller may have hung up.
            drop(stream.unwrap().write_all(name.as_bytes()));
        }
    });
    thread::spawn(move || {
        let mut question = [0; 16];
        while let Ok((_, peer)) = socket.recv_from(&mut question) {
            drop(socket.send_to(name.as_bytes(), peer));
        }
    });
}

/// Who is there, by TCP.
pub fn who_tcp(address: SocketAddr) -> io::Result<String> {
    call(address)
}

/// Who is there, by UDP.
pub fn who_udp(address: SocketAddr) -> io::Result<String> {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(SILENCE))?;
    socket.send(b"?")?;
    let mut answer = [0; 32];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// All that a network could leave on this host: interfaces, rules, and what is
/// routed by other tables than everybody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    pub links: Vec<String>,
    pub rules: String,
    pub routing: String,
}

fn routing() -> String {
    let mut all: Vec<String> = Vec::new();
    for version in ["-4", "-6"] {
        all.push(run(&format!("ip {version} rule")));
        let routes = run(&format!("ip {version} route show table all"));
        // Those of shadowed networks are numbered.
        let numbered = |line: &&str| line.contains(" table 19");
        all.extend(routes.lines().filter(numbered).map(str::to_owned));
    }
    all.join("\n")
}

pub fn inventory() -> Inventory {
    let links = run("ip -o link");
    let name = |line: &str| line.split(": ").nth(1).unwrap().split('@').next().unwrap().to_owned();
    let mut links: Vec<String> = links.lines().map(name).collect();
    links.sort();
    Inventory { links, rules: run("nft list ruleset"), routing: routing() }
}

pub fn none() -> AttachRequest {
    AttachRequest { endpoints: Vec::new(), ..bridged(&[]) }
}

pub async fn default_of(networks: &Networks, tenant: &TenantName) -> Network {
    networks.list(tenant).await.unwrap().swap_remove(0)
}

pub fn gateway_of(network: &Network) -> Ipv4Addr {
    let gateway = network.definition.pools[0].gateway.unwrap();
    gateway.to_string().parse().unwrap()
}

pub fn of(tenant: &str, ports: &[PublishRequest]) -> AttachRequest {
    AttachRequest { tenant: tenant.parse().unwrap(), ..bridged(ports) }
}

pub fn network(name: &str, tenant: &str, subnets: &[&str]) -> Definition {
    let pools = subnets.iter().map(|subnet| AddressPool {
        subnet: subnet.parse().unwrap(),
        chosen: true,
        ..AddressPool::default()
    });
    let pools: Vec<AddressPool> = pools.collect();
    Definition {
        id: NetworkId::of(random()),
        tenant: tenant.parse().unwrap(),
        name: name.into(),
        created: 0,
        driver: Driver::Bridge,
        ipv4: pools.is_empty() || pools.iter().any(|pool| pool.subnet.addr().is_ipv4()),
        ipv6: pools.iter().any(|pool| pool.subnet.addr().is_ipv6()),
        internal: false,
        attachable: false,
        pools,
        ipam_options: None,
        options: [].into(),
        labels: [].into(),
        config_only: false,
        config_from: String::new(),
        zone: None,
    }
}

pub fn with_option(network: Definition, key: &str, value: &str) -> Definition {
    Definition { options: [(key.to_owned(), value.to_owned())].into(), ..network }
}

pub fn on_all(networks: &[&str], ports: &[PublishRequest]) -> AttachRequest {
    AttachRequest { endpoints: networks.iter().map(|name| on(name)).collect(), ..bridged(ports) }
}

pub fn address6(attachment: &Attachment) -> Ipv6Addr {
    attachment.endpoints[0].address6.unwrap()
}
