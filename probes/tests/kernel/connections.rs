//! What the programs remember of a connection, and when they have to ask again.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Lines, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::{AsRawFd as _, OwnedFd},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};
use tritium_probes::{Admission, Cable, Counts, Interface, Probes, Rule};

use crate::house::{Container, House, admission, denied, furnish, in_a_namespace};

const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const PATIENT: &str = "hear 10000";
/// Longer than it takes to send a lost segment again.
const BRIEF: &str = "hear 400";

/// A container at the end of a cable from the namespace that the test is in.
struct Scene<'a> {
    house: &'a House,
    probes: Probes,
    container: Container,
    netns: OwnedFd,
}

/// A process in the container that has a connection.
struct Talker {
    child: Child,
    tell: ChildStdin,
    told: Lines<BufReader<ChildStdout>>,
}

fn interface() -> Interface {
    let cable = Cable::Veth("mine".into());
    let mac = [2, 0x42, 10, 77, 0, 2];
    Interface { cable, mac, addresses: vec![INSIDE.into()], network: None }
}

fn scene(policy: &Admission, test: impl FnOnce(&Scene<'_>) + Send) {
    let house = House::new();
    let script = "
        ip link add mine type veth peer name inside address 02:42:0a:4d:00:02
        ip link add spare type veth peer name unused
        ip address add 10.77.0.1/24 dev mine
        ip link set mine up";
    in_a_namespace(script, || {
        let netns = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let netns: OwnedFd = netns.join().unwrap().into();
        furnish(&format!(
            "ip link set inside netns /proc/{}/fd/{}",
            std::process::id(),
            netns.as_raw_fd()
        ));
        let probes = house.start();
        let container = house.container("me");
        probes.guard().admit(container.id, policy).unwrap();
        probes.guard().fence("mine").unwrap();
        probes.guard().bind(container.id, &interface()).unwrap();
        let scene = Scene { house: &house, probes, container, netns };
        // It was there before the namespace's default was set.
        scene.inside(|| {
            furnish(
                "sysctl -q net.ipv6.conf.inside.disable_ipv6=1
                ip address add 10.77.0.2/24 dev inside
                ip link set inside up",
            );
        });
        test(&scene);
    });
}

impl Scene<'_> {
    /// Does something in the container's network namespace.
    fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let there = || {
            setns(&self.netns, CloneFlags::CLONE_NEWNET).unwrap();
            act()
        };
        thread::scope(|scope| scope.spawn(there).join().unwrap())
    }

    /// A connection to somebody who says everything back; and its congestion control.
    fn talk(&self, control: &str) -> (Talker, String) {
        let listener = TcpListener::bind((HOST, 0)).unwrap();
        let to: SocketAddr = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut byte = [0];
            while stream.read(&mut byte).is_ok_and(|length| length == 1) {
                stream.write_all(&byte).unwrap();
            }
        });
        let mut command = self.container.command(&["talk", &to.to_string(), control]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = self.inside(|| command.spawn().unwrap());
        let (tell, told) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut talker = Talker { child, tell, told: BufReader::new(told).lines() };
        let control = talker.next();
        (talker, control)
    }

    /// What the container has exchanged with everybody.
    fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        self.probes.guard().traffic().unwrap().0.iter().for_each(|peer| sum.add(&peer.counts));
        sum
    }

    /// Packets and bytes that its namespace has sent and received.
    fn kernels(&self) -> [u64; 4] {
        let read = |file: &str, names: [&str; 2]| {
            let text = std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            names.map(|name| {
                let find = |pair: &&[&str]| pair[0].split(' ').any(|word| word == name);
                let pair = lines.chunks(2).find(find).unwrap();
                let at = pair[0].split(' ').position(|word| word == name).unwrap();
                pair[1].split(' ').nth(at).unwrap().parse().unwrap()
            })
        };
        self.inside(|| {
            let [sent, received] = read("snmp", ["OutRequests", "InReceives"]);
            let [sent_bytes, received_bytes] = read("netstat", ["OutOctets", "InOctets"]);
            [sent, sent_bytes, received, received_bytes]
        })
    }
}

impl Talker {
    fn next(&mut self) -> String {
        loop {
            let line = self.told.next().unwrap().unwrap();
            if let Some((_, said)) = line.split_once("act: ") {
                return said.to_owned();
            }
        }
    }

    fn does(&mut self, what: &str) -> String {
        writeln!(self.tell, "{what}").unwrap();
        self.next()
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn a_connection_that_was_let_pass_is_judged_anew_when_something_changes() {
    scene(&admission("a", "me"), |scene| {
        let guard = scene.probes.guard();
        let (mut talker, _) = scene.talk("default");
        let mut cut = |taken: &dyn Fn(), given_back: &dyn Fn()| {
            for _ in 0..3 {
                assert_eq!([talker.does("say"), talker.does(PATIENT)], ["ok", "ok"]);
            }
            taken();
            assert_eq!([talker.does("say"), talker.does(BRIEF)], ["ok", "EAGAIN"]);
            given_back();
            assert_eq!(talker.does(PATIENT), "ok", "it is sent again");
        };
        let id = scene.container.id;
        cut(&|| guard.claim_address(HOST.into(), "b").unwrap(), &|| {
            guard.release_address(HOST.into()).unwrap();
        });
        assert_ne!(denied(&scene.probes, "me", Rule::Packet), 0);
        cut(&|| guard.unbind(id, &interface()).unwrap(), &|| {
            guard.bind(id, &interface()).unwrap();
        });
        cut(&|| guard.dismiss(id).unwrap(), &|| {
            guard.admit(id, &admission("a", "me")).unwrap();
            guard.bind(id, &interface()).unwrap();
        });
        let elsewhere = Interface { mac: [2, 0x42, 10, 77, 0, 9], ..interface() };
        cut(&|| guard.bind(id, &elsewhere).unwrap(), &|| {
            guard.bind(id, &interface()).unwrap();
        });
        assert_ne!(denied(&scene.probes, "me", Rule::SpoofedMac), 0);
    });
}

#[test]
fn every_packet_of_a_connection_is_counted_whether_it_is_remembered_or_not() {
    scene(&admission("a", "me"), |scene| {
        let (mut talker, _) = scene.talk("default");
        for turn in 0..20 {
            assert_eq!([talker.does("say"), talker.does(PATIENT)], ["ok", "ok"]);
            if turn == 10 {
                // What was remembered is old.
                scene.probes.guard().claim_address(Ipv4Addr::new(10, 9, 9, 9).into(), "b").unwrap();
            }
        }
        let counts = scene.counts();
        let counted = [
            counts.sent_packets,
            counts.sent_bytes,
            counts.received_packets,
            counts.received_bytes,
        ];
        assert_eq!(counted, scene.kernels());
        assert_eq!((counts.opened, counts.dropped), (1, 0));
        let round_trips: u64 = counts.rtt.iter().map(|(_, count)| count).sum();
        assert!((3..20).contains(&round_trips), "the first and every eighth: {round_trips}");
    });
}

#[test]
fn a_connection_between_containers_is_not_paced_if_only_the_hosts_are() {
    let known = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control");
    if !known.unwrap().split_whitespace().any(|name| name == "bbr") {
        println!("not tried: this kernel has no BBR");
        return;
    }
    for unpaced in [false, true] {
        scene(&Admission { unpaced, ..admission("a", "me") }, |scene| {
            let control = |of: &str| scene.talk(of).1;
            assert_eq!(control("bbr"), "bbr", "to the outside");
            let peer = scene.house.container("peer");
            let at = Interface {
                cable: Cable::Veth("spare".into()),
                addresses: vec![HOST.into()],
                ..interface()
            };
            scene.probes.guard().admit(peer.id, &admission("a", "peer")).unwrap();
            scene.probes.guard().bind(peer.id, &at).unwrap();
            assert_eq!(control("bbr"), if unpaced { "cubic" } else { "bbr" });
            assert_eq!(control("reno"), "reno");
        });
    }
}
