//! What may come out of a container's cable, on a bridge of the test's own.

use std::{
    collections::BTreeMap, fs::File, os::fd::OwnedFd, sync::mpsc::channel, thread, time::Instant,
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
};
use tritium_probes::{Cable, Interface, Probes, Running};

use crate::{
    frames::{End, MARK, honest, hostile},
    house::{House, admission, furnish, in_a_namespace},
    tap::Tap,
};

const ME: End = end([2, 0x42, 10, 77, 0, 2], 2);
const OTHER: End = end([2, 0x42, 10, 77, 0, 3], 3);
const GATEWAY: End = end([2, 0x42, 10, 77, 0, 1], 1);

const fn end(mac: [u8; 6], last: u8) -> End {
    let v4 = std::net::Ipv4Addr::new(10, 77, 0, last);
    End { mac, v4, v6: std::net::Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last as u16) }
}

fn interface(of: End) -> Interface {
    let addresses = vec![of.v4.into(), of.v6.into()];
    let cable = Cable::Veth("mine".into());
    Interface { cable, mac: of.mac, addresses, network: None }
}

/// In a namespace with a bridge and two cables on it, `mine` to `inside` and `theirs` to `victim`.
fn on_a_bridge(test: impl FnOnce() + Send) {
    // A bridge that leaves packets as they are.
    let script = "
        sysctl -q -e net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0
        ip link add br0 type bridge mcast_snooping 0 && ip link set br0 up
        ip link add mine type veth peer name inside
        ip link add theirs type veth peer name victim
        for end in mine theirs; do ip link set $end master br0 up; done
        for end in inside victim; do ip link set $end up; done";
    in_a_namespace(script, test);
}

/// Another namespace with a macvlan `inside`, of this index; and a tap on it when it is fenced.
fn macvlan(parent: &str, index: u32, fence: impl FnOnce(OwnedFd) + Send) -> Tap {
    let (tell, told) = channel();
    let (made, until) = channel();
    thread::scope(|scope| {
        let there = scope.spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tell.send(nix::unistd::gettid()).unwrap();
            until.recv().unwrap();
            furnish("ip link set inside up");
            fence(File::open("/proc/thread-self/ns/net").unwrap().into());
            Tap::on("inside")
        });
        let netns = told.recv().unwrap();
        furnish(&format!(
            "ip link add link {parent} name inside index {index} netns {netns} type macvlan mode bridge"
        ));
        made.send(()).unwrap();
        there.join().unwrap()
    })
}

fn counted(probes: &Probes) -> BTreeMap<&'static str, u64> {
    let denials = probes.guard().denials().unwrap();
    denials.into_iter().map(|denial| (denial.rule.name(), denial.count)).collect()
}

fn fenced(house: &House, probes: &Probes) -> u64 {
    let container = house.container("me");
    probes.guard().admit(container.id, &admission("a", "me")).unwrap();
    probes.guard().fence("mine").unwrap();
    container.id
}

/// What arrives at the victim's before a frame that surely may pass.
fn arrived(inside: &Tap, victim: &Tap) -> Vec<Vec<u8>> {
    let (_, mut last) = honest(ME, OTHER).swap_remove(0);
    last.extend(b"the last");
    inside.send(&last);
    let mut all = Vec::new();
    loop {
        let frame = victim.receive();
        if frame == last {
            return all;
        }
        all.push(frame);
    }
}

#[test]
fn frames_in_anothers_name_are_dropped_and_counted_and_the_own_pass() {
    let house = House::new();
    on_a_bridge(|| {
        let probes = house.start();
        let started = Instant::now();
        let id = fenced(&house, &probes);
        let fenced = started.elapsed();
        probes.guard().bind(id, &interface(ME)).unwrap();
        println!("admitted and fenced in {fenced:?}, bound after {:?}", started.elapsed());
        let (inside, victim) = (Tap::on("inside"), Tap::on("victim"));
        let mut wanted = BTreeMap::new();
        for (name, rule, frame) in hostile(ME, OTHER, GATEWAY) {
            inside.send(&frame);
            *wanted.entry(rule).or_default() += 1;
            assert_eq!(counted(&probes), wanted, "{name}");
            assert_eq!(arrived(&inside, &victim), Vec::<Vec<u8>>::new(), "{name}");
        }
        for (name, frame) in honest(ME, OTHER) {
            inside.send(&frame);
            assert_eq!(arrived(&inside, &victim), [frame], "{name}");
        }
        assert_eq!(counted(&probes), wanted, "an honest frame was counted");
        inside.send(&honest(ME, OTHER)[0].1[..20]);
        *wanted.entry("frame").or_default() += 1;
        assert_eq!(counted(&probes), wanted, "a frame that is cut off");
    });
}

#[test]
fn a_macvlan_is_judged_inside_where_its_frames_leave() {
    const INDEX: u32 = (1 << 30) + 7;
    let house = House::new();
    let script = "ip link add parent type veth peer name victim
        for end in parent victim; do ip link set $end up; done";
    in_a_namespace(script, || {
        let probes = house.start();
        let container = house.container("me");
        probes.guard().admit(container.id, &admission("a", "me")).unwrap();
        let fence = |netns| probes.guard().fence_within(netns, "inside").unwrap();
        let (inside, victim) = (macvlan("parent", INDEX, fence), Tap::on("victim"));
        let dropped = |frame: &[u8]| inside.try_send(frame) == Err(Errno::ENOBUFS);
        assert!(dropped(&honest(ME, OTHER)[0].1), "bound to nobody");
        let interface = Interface { cable: Cable::Macvlan(INDEX), ..interface(ME) };
        probes.guard().bind(container.id, &interface).unwrap();
        let mut wanted = BTreeMap::new();
        for (name, rule, frame) in hostile(ME, OTHER, GATEWAY) {
            assert!(dropped(&frame), "{name}");
            *wanted.entry(rule).or_default() += 1;
            assert_eq!(counted(&probes), wanted, "{name}");
            assert_eq!(arrived(&inside, &victim), Vec::<Vec<u8>>::new(), "{name}");
        }
        for (name, frame) in honest(ME, OTHER) {
            inside.send(&frame);
            assert_eq!(arrived(&inside, &victim), [frame], "{name}");
        }
        assert_eq!(counted(&probes), wanted, "an honest frame was counted");
    });
}

#[test]
fn a_packet_to_another_tenants_address_is_dropped_whoever_it_says_it_is_from() {
    let house = House::new();
    on_a_bridge(|| {
        let probes = house.start();
        let id = fenced(&house, &probes);
        probes.guard().bind(id, &interface(ME)).unwrap();
        probes.guard().claim_address(OTHER.v4.into(), "b").unwrap();
        let (inside, victim) = (Tap::on("inside"), Tap::on("victim"));
        inside.send(&honest(ME, OTHER)[0].1);
        assert_eq!(counted(&probes), BTreeMap::from([("packet", 1)]));
        assert_eq!(victim.waiting(), Vec::<Vec<u8>>::new());
        probes.guard().release_address(OTHER.v4.into()).unwrap();
        assert!(arrived(&inside, &victim).is_empty());
    });
}

#[test]
fn what_is_fenced_sends_nothing_before_it_is_bound_nor_after_it_is_dismissed() {
    let house = House::new();
    on_a_bridge(|| {
        let probes = house.start();
        let id = fenced(&house, &probes);
        let (inside, victim) = (Tap::on("inside"), Tap::on("victim"));
        let (_, frame) = honest(ME, OTHER).swap_remove(4);
        let sent = || {
            inside.send(&frame);
            // Nothing else may pass either: look from outside.
            let outside = Tap::on("theirs");
            let end = [frame.get(..12).unwrap(), MARK].concat();
            outside.send(&end);
            let mut all = Vec::new();
            loop {
                let got = victim.receive();
                if got == end {
                    return all.len();
                }
                all.push(got);
            }
        };
        assert_eq!(sent(), 0, "bound to nobody");
        probes.guard().bind(id, &interface(ME)).unwrap();
        assert_eq!(sent(), 1);
        probes.guard().unbind(id, &interface(ME)).unwrap();
        assert_eq!(sent(), 0, "taken back");
        probes.guard().bind(id, &interface(ME)).unwrap();
        assert_eq!(sent(), 1);
        probes.guard().dismiss(id).unwrap();
        assert_eq!(sent(), 0, "its container is gone");
        let refused = probes.guard().bind(id, &interface(ME)).unwrap_err();
        assert!(refused.to_string().contains("never admitted"), "{refused}");
        let nowhere = Interface { cable: Cable::Veth("nowhere".into()), ..interface(ME) };
        probes.guard().admit(id, &admission("a", "me")).unwrap();
        assert!(probes.guard().bind(id, &nowhere).is_err());
        assert!(probes.guard().fence("nowhere").is_err());
    });
}

#[test]
fn a_fence_needs_no_engine_and_the_next_one_takes_it_over() {
    let house = House::new();
    on_a_bridge(|| {
        let first = house.start();
        let id = fenced(&house, &first);
        first.guard().bind(id, &interface(ME)).unwrap();
        let (inside, victim) = (Tap::on("inside"), Tap::on("victim"));
        drop(first);
        let (_, _, frame) = hostile(ME, OTHER, GATEWAY).swap_remove(0);
        inside.send(&frame);
        assert!(arrived(&inside, &victim).is_empty(), "while no engine runs");
        let running = Running {
            cgroup: id,
            admission: admission("a", "me"),
            interfaces: vec![interface(ME)],
            traced: false,
        };
        let second = Probes::start(&house.with_running(vec![running])).unwrap();
        inside.send(&frame);
        assert!(arrived(&inside, &victim).is_empty());
        assert_eq!(counted(&second), BTreeMap::from([("spoofed-ip", 2)]), "counted once each");
    });
}
