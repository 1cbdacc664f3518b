//! Each fence refuses who it should, lets through who it should, and leaves the host alone.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, TcpListener, UdpSocket},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use tritium_probes::{
    Admission, Cable, Device, DeviceKind, DevicePolicy, Interface, Probes, Rule, Running,
};

use crate::house::{Container, House, admission, denied, in_a_namespace, outside};

fn has(probes: &Probes, rule: Rule) -> bool {
    probes.in_force().contains(&rule)
}

/// Starts an act that goes on, and gives what it said first.
fn start(container: &Container, act: &[&str]) -> (Child, String) {
    let mut child =
        container.command(act).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let first =
        lines.find_map(|line| line.unwrap().split_once("act: ").map(|(_, said)| said.to_owned()));
    (child, first.unwrap())
}

#[test]
fn what_this_kernel_takes_is_in_force_and_what_it_refuses_is_said() {
    let house = House::new();
    let probes = house.start();
    for rule in [Rule::Connect, Rule::Packet, Rule::RawSocket, Rule::Device, Rule::Sysctl] {
        assert!(has(&probes, rule), "{rule:?}: {:#?}", probes.verdicts());
    }
    let refused = probes.verdicts().iter().filter(|verdict| !verdict.have);
    assert!(refused.clone().all(|verdict| !verdict.cost.is_empty()));
    let lsm = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    if lsm.split(',').any(|name| name.trim() == "bpf") {
        assert_eq!(refused.count(), 0, "a kernel with BPF LSM takes all: {:?}", probes.verdicts());
    }
    assert!(probes.security_option().unwrap().contains("connect+packet+raw-socket+device+sysctl"));
}

#[test]
fn another_tenants_address_can_be_neither_connected_to_nor_sent_to() {
    let house = House::new();
    let probes = house.start();
    let (mine, theirs) = (house.container("mine"), house.container("theirs"));
    probes.guard().admit(mine.id, &admission("a", "mine")).unwrap();
    probes.guard().admit(theirs.id, &admission("b", "theirs")).unwrap();
    let address: IpAddr = "127.77.0.2".parse().unwrap();
    probes.guard().claim_address(address, "b").unwrap();
    probes.guard().claim_address("fd00:77::2".parse().unwrap(), "b").unwrap();
    let tcp = TcpListener::bind((address, 0)).unwrap();
    let udp = UdpSocket::bind((address, 0)).unwrap();
    let (tcp, udp) = (tcp.local_addr().unwrap().to_string(), udp.local_addr().unwrap().to_string());

    assert_eq!(mine.act(&["connect", &tcp]), "EPERM");
    assert_eq!(mine.act(&["send", &udp]), "EPERM");
    assert_eq!(mine.act(&["connect", "[fd00:77::2]:80"]), "EPERM");
    assert_eq!(mine.act(&["send", "[fd00:77::2]:80"]), "EPERM");
    assert_eq!(
        mine.act(&["connect", &format!("[::ffff:127.77.0.2]:{}", tcp.rsplit(':').next().unwrap())]),
        "EPERM"
    );
    assert_eq!(denied(&probes, "mine", Rule::Connect), 5);

    assert_eq!(theirs.act(&["connect", &tcp]), "ok", "their own");
    assert_eq!(theirs.act(&["send", &udp]), "ok", "their own");
    assert_eq!(outside(&["connect", &tcp]), "ok", "the host's");
    probes.guard().release_address(address).unwrap();
    assert_eq!(mine.act(&["connect", &tcp]), "ok", "nobody's any more");
    assert_eq!(denied(&probes, "theirs", Rule::Connect), 0);
}

#[test]
fn an_address_of_several_tenants_is_each_ones_own_and_foreign_to_others() {
    let house = House::new();
    let probes = house.start();
    let address: IpAddr = "127.77.0.5".parse().unwrap();
    let listener = TcpListener::bind((address, 0)).unwrap();
    let tcp = listener.local_addr().unwrap().to_string();
    let people = ["a", "b", "c", "d"].map(|tenant| {
        let container = house.container(tenant);
        probes.guard().admit(container.id, &admission(tenant, tenant)).unwrap();
        container
    });
    let reached = || [0, 1, 2, 3].map(|nth: usize| people[nth].act(&["connect", &tcp]) == "ok");
    let bind = |nth: usize, addresses: Vec<IpAddr>| {
        let interface =
            Interface { cable: Cable::Veth("lo".into()), mac: [0; 6], addresses, network: None };
        probes.guard().bind(people[nth].id, &interface).unwrap();
    };
    (0..3).for_each(|nth| bind(nth, vec![address]));
    assert_eq!(reached(), [true, true, true, false]);
    // Another engine finds all of them.
    let running = (0..4).map(|nth| Running {
        cgroup: people[nth].id,
        admission: admission(["a", "b", "c", "d"][nth], "x"),
        interfaces: Vec::new(),
        traced: false,
    });
    let next = Probes::start(&house.with_running(running.collect())).unwrap();
    assert_eq!(reached(), [true, true, true, false]);
    // Whoever had it first goes, and the others go on.
    next.guard().dismiss(people[0].id).unwrap();
    next.guard().admit(people[0].id, &admission("a", "a")).unwrap();
    assert_eq!(reached(), [false, true, true, false]);
    next.guard().dismiss(people[2].id).unwrap();
    next.guard().admit(people[2].id, &admission("c", "c")).unwrap();
    assert_eq!(reached(), [false, true, false, false]);
    next.guard().dismiss(people[1].id).unwrap();
    next.guard().admit(people[1].id, &admission("b", "b")).unwrap();
    assert_eq!(reached(), [true; 4], "nobody's any more");
}

#[test]
fn a_socket_connected_before_the_address_was_claimed_sends_nothing() {
    let house = House::new();
    let probes = house.start();
    let mine = house.container("mine");
    probes.guard().admit(mine.id, &admission("a", "mine")).unwrap();
    let receiver = UdpSocket::bind("127.77.1.2:0").unwrap();
    let address = receiver.local_addr().unwrap();
    let (mut sender, ready) = start(&mine, &["send-when-told", &address.to_string()]);
    assert_eq!(ready, "ready");
    probes.guard().claim_address(address.ip(), "b").unwrap();
    sender.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    assert!(sender.wait().unwrap().success());
    assert_eq!(denied(&probes, "mine", Rule::Packet), 1);
    receiver.set_nonblocking(true).unwrap();
    assert!(receiver.recv(&mut [0; 8]).is_err());
}

#[test]
fn tenants_on_the_hosts_network_do_not_reach_each_others_sockets() {
    let house = House::new();
    let probes = house.start();
    let (server, friend, stranger) =
        (house.container("server"), house.container("friend"), house.container("stranger"));
    probes.guard().admit(server.id, &admission("a", "server")).unwrap();
    probes.guard().admit(friend.id, &admission("a", "friend")).unwrap();
    probes.guard().admit(stranger.id, &admission("b", "stranger")).unwrap();
    for any in ["127.0.0.1:0", "[::1]:0"] {
        let (mut listening, address) = start(&server, &["listen", any]);
        assert_eq!(friend.act(&["connect-within", &address]), "ok");
        assert_eq!(outside(&["connect-within", &address]), "ok");
        let before = denied(&probes, "stranger", Rule::Packet);
        assert_ne!(stranger.act(&["connect-within", &address]), "ok");
        assert!(denied(&probes, "stranger", Rule::Packet) > before);
        listening.kill().unwrap();
        listening.wait().unwrap();
    }
}

/// Two containers, the second of which has asked for raw sockets.
fn plain_and_asked(house: &House, probes: &Probes) -> [Container; 2] {
    [("plain", false), ("asked", true)].map(|(name, raw_sockets)| {
        let container = house.container(name);
        let admission = Admission { raw_sockets, ..admission("a", name) };
        probes.guard().admit(container.id, &admission).unwrap();
        container
    })
}

#[test]
fn raw_sockets_are_for_those_who_asked() {
    let house = House::new();
    let probes = house.start();
    let [plain, asked] = plain_and_asked(&house, &probes);
    assert_eq!(plain.act(&["raw"]), "EPERM");
    assert_eq!(asked.act(&["raw"]), "ok");
    assert_eq!(outside(&["raw"]), "ok");
    assert_eq!(denied(&probes, "plain", Rule::RawSocket), 1);
    let packet = if has(&probes, Rule::Exec) { "EPERM" } else { "ok" };
    assert_eq!(plain.act(&["packet"]), packet, "packet sockets need the LSM hook");
    assert_eq!(asked.act(&["packet"]), "ok");
}

#[test]
fn a_raw_socket_that_nobody_asked_for_pings_and_does_nothing_else() {
    // Where the host's firewall follows connections, it would gather the fragments first, and
    // the whole packet is judged.
    in_a_namespace("ip link set lo up", || {
        let house = House::new();
        let probes = house.start();
        let [plain, asked] = plain_and_asked(&house, &probes);
        let pings: [&[&str]; 3] =
            [&["icmp", "8", "127.0.0.1"], &["icmp", "128", "::1"], &["header", "1", "0"]];
        for ping in pings {
            assert_eq!(plain.act(ping), "ok", "{ping:?}");
        }
        // A redirect, a router's advertisement, another protocol, fragments.
        let forged: [&[&str]; 5] = [
            &["icmp", "5", "127.0.0.1"],
            &["icmp", "134", "::1"],
            &["header", "17", "0"],
            &["header", "1", "32"],
            &["header", "1", "1"],
        ];
        for (count, message) in (1..).zip(forged) {
            assert_eq!(plain.act(message), "EPERM", "{message:?}");
            assert_eq!(denied(&probes, "plain", Rule::RawSocket), count, "{message:?}");
            assert_eq!(asked.act(message), "ok", "{message:?}");
        }
    });
}

#[test]
fn devices_are_open_by_docker_s_list_and_the_container_s_own() {
    let house = House::new();
    let probes = house.start();
    let (plain, given, all) =
        (house.container("plain"), house.container("given"), house.container("all"));
    let kmsg = Device {
        kind: DeviceKind::Character,
        major: Some(1),
        minor: Some(11),
        read: true,
        write: false,
        mknod: false,
    };
    let own = DevicePolicy::List(vec![kmsg]);
    probes.guard().admit(plain.id, &admission("a", "plain")).unwrap();
    probes.guard().admit(given.id, &Admission { devices: own, ..admission("a", "given") }).unwrap();
    probes
        .guard()
        .admit(all.id, &Admission { devices: DevicePolicy::All, ..admission("a", "all") })
        .unwrap();
    for device in ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"] {
        assert_eq!(plain.act(&["open", device]), "ok", "{device}");
    }
    let outside_says = outside(&["open", "/dev/kmsg"]);
    assert_eq!(plain.act(&["open", "/dev/kmsg"]), "EPERM");
    assert_eq!(given.act(&["open", "/dev/kmsg"]), outside_says);
    assert_eq!(given.act(&["write", "/dev/kmsg", "x"]), "EPERM", "given for reading only");
    assert_eq!(all.act(&["open", "/dev/kmsg"]), outside_says);
    assert_eq!(denied(&probes, "plain", Rule::Device), 1);
    probes.guard().dismiss(given.id).unwrap();
    probes.guard().admit(given.id, &admission("a", "given")).unwrap();
    assert_eq!(
        given.act(&["open", "/dev/kmsg"]),
        "EPERM",
        "a dismissed container takes its devices along"
    );
}

#[test]
fn sysctls_are_written_by_the_privileged_only() {
    let house = House::new();
    let probes = house.start();
    let (plain, privileged) = (house.container("plain"), house.container("privileged"));
    probes.guard().admit(plain.id, &admission("a", "plain")).unwrap();
    probes
        .guard()
        .admit(privileged.id, &Admission { sysctl_writes: true, ..admission("a", "privileged") })
        .unwrap();
    let sysctl = "/proc/sys/kernel/threads-max";
    let now = std::fs::read_to_string(sysctl).unwrap();
    assert_eq!(plain.act(&["open", sysctl]), "ok");
    assert_eq!(plain.act(&["write", sysctl, now.trim()]), "EPERM");
    assert_eq!(privileged.act(&["write", sysctl, now.trim()]), "ok");
    assert_eq!(denied(&probes, "plain", Rule::Sysctl), 1);
}

#[test]
fn whoever_was_not_admitted_may_nothing() {
    let house = House::new();
    let probes = house.start();
    let nobody = house.container("nobody");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let refused = |act: &[&str]| {
        if has(&probes, Rule::Exec) {
            // Not even the actor is executed.
            assert_eq!(nobody.command(act).output().unwrap().status.code(), Some(126));
        } else {
            assert_eq!(nobody.act(act), "EPERM");
        }
    };
    refused(&["raw"]);
    refused(&["connect", &address]);
    assert!(
        denied(&probes, "", Rule::RawSocket) + denied(&probes, "", Rule::Exec) >= 2,
        "counted for nobody"
    );
    probes.guard().admit(nobody.id, &admission("a", "somebody")).unwrap();
    assert_eq!(nobody.act(&["connect", &address]), "ok");
    probes.guard().dismiss(nobody.id).unwrap();
    refused(&["connect", &address]);
}

/// Entries of a pinned map of the guard's.
fn entries<K: aya::Pod, V: aya::Pod>(house: &House, name: &str) -> usize {
    let pins = std::fs::read_dir(&house.config.pin_dir).unwrap().map(|it| it.unwrap().path());
    let mut found = pins.map(|dir| dir.join(name)).filter(|path| path.exists());
    let data = aya::maps::MapData::from_pin(found.next().unwrap()).unwrap();
    let map = aya::maps::HashMap::<_, K, V>::try_from(aya::maps::Map::HashMap(data)).unwrap();
    map.keys().count()
}

#[test]
fn what_is_started_anew_for_ever_loses_no_denial_and_takes_no_more_room() {
    use tritium_common::{
        guard::{DenialCount, DenialKey, Label},
        ids::CgroupId,
    };
    let house = House::new();
    let probes = house.start();
    let begun = Instant::now();
    let after = |seconds| begun + Duration::from_secs(seconds);
    for time in 0..8 {
        let container = house.container(&format!("c{time}"));
        probes.guard().admit(container.id, &admission("a", "c")).unwrap();
        assert_eq!(container.act(&["raw"]), "EPERM");
        probes.guard().dismiss(container.id).unwrap();
    }
    let last = house.container("last");
    probes.guard().admit(last.id, &admission("a", "c")).unwrap();
    let counts = || entries::<DenialKey, DenialCount>(&house, "DENIALS");
    let names = || entries::<CgroupId, Label>(&house, "LABELS");
    assert_eq!((counts(), names(), denied(&probes, "c", Rule::RawSocket)), (8, 9, 8));
    probes.guard().sweep(after(5));
    assert_eq!(counts(), 8, "it may still be counting");
    probes.guard().sweep(after(60));
    assert_eq!((counts(), names(), denied(&probes, "c", Rule::RawSocket)), (1, 9, 8));
    assert_eq!(last.act(&["raw"]), "EPERM");
    probes.guard().sweep(after(3600));
    assert_eq!((counts(), names(), denied(&probes, "c", Rule::RawSocket)), (2, 2, 9));
    probes.guard().dismiss(last.id).unwrap();
    probes.guard().sweep(after(7200));
    assert_eq!((counts(), names(), denied(&probes, "c", Rule::RawSocket)), (0, 0, 0));
}

#[test]
fn the_guard_stays_in_force_without_an_engine_and_is_taken_over() {
    let house = House::new();
    let container = house.container("c");
    let first = house.start();
    first.guard().admit(container.id, &admission("a", "c")).unwrap();
    first.guard().claim_address("127.77.3.2".parse().unwrap(), "b").unwrap();
    drop(first);
    assert_eq!(container.act(&["raw"]), "EPERM", "while no engine runs");
    let running = Running {
        cgroup: container.id,
        admission: admission("a", "c"),
        interfaces: Vec::new(),
        traced: false,
    };
    let second = Probes::start(&house.with_running(vec![running])).unwrap();
    assert_eq!(container.act(&["raw"]), "EPERM");
    assert_eq!(container.act(&["connect", "127.77.3.2:9"]), "EPERM", "addresses are kept");
    assert_eq!(denied(&second, "c", Rule::RawSocket), 2, "counts go on");
    let links = std::fs::read_dir(&house.config.pin_dir).unwrap().flatten();
    let guards =
        links.filter(|pin| pin.file_name().to_string_lossy().starts_with("guard-")).count();
    assert_eq!(guards, 2, "one directory of links, one of maps");
}

#[test]
fn pins_of_another_build_are_dropped_once_ours_are_in_force() {
    let house = House::new();
    let container = house.container("c");
    drop(house.start());
    let pins = &house.config.pin_dir;
    let ours = std::fs::read_dir(pins)
        .unwrap()
        .flatten()
        .find(|pin| {
            let name = pin.file_name().to_string_lossy().into_owned();
            name.starts_with("guard-") && !name.starts_with("guard-maps-")
        })
        .unwrap();
    std::fs::rename(ours.path(), pins.join("guard-0123-4-5")).unwrap();
    let probes = house.start();
    probes.guard().admit(container.id, &admission("a", "c")).unwrap();
    assert!(!pins.join("guard-0123-4-5").exists());
    assert_eq!(container.act(&["raw"]), "EPERM");
    assert_eq!(denied(&probes, "c", Rule::RawSocket), 1, "one guard refuses, not two");
}

#[test]
fn ptrace_stays_inside_a_container_where_the_kernel_takes_lsm_programs() {
    let house = House::new();
    let probes = house.start();
    if !has(&probes, Rule::Ptrace) {
        assert!(
            probes.verdicts().iter().any(|v| v.need.contains("ptrace_access_check") && !v.have)
        );
        return;
    }
    let (mine, theirs) = (house.container("mine"), house.container("theirs"));
    probes.guard().admit(mine.id, &admission("a", "mine")).unwrap();
    probes.guard().admit(theirs.id, &admission("b", "theirs")).unwrap();
    for (target, verdict) in [(&theirs, "EPERM"), (&mine, "ok")] {
        let (mut sleeper, _) = start(target, &["read-for-ever"]);
        assert_eq!(mine.act(&["ptrace", &sleeper.id().to_string()]), verdict);
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    }
    assert_eq!(mine.act(&["ptrace", &std::process::id().to_string()]), "EPERM", "the host's");
}

#[test]
fn denied_and_nameless_files_are_not_executed_where_the_kernel_takes_lsm_programs() {
    use std::os::unix::fs::MetadataExt as _;
    let house = House::new();
    let probes = house.start();
    if !has(&probes, Rule::Exec) {
        assert!(
            probes.verdicts().iter().any(|v| v.need.contains("bprm_check_security") && !v.have)
        );
        return;
    }
    let (mine, theirs) = (house.container("mine"), house.container("theirs"));
    probes.guard().admit(mine.id, &admission("a", "mine")).unwrap();
    probes.guard().admit(theirs.id, &admission("b", "theirs")).unwrap();
    let copy = std::env::temp_dir().join(format!("tritium-true-{}", std::process::id()));
    std::fs::copy("/bin/true", &copy).unwrap();
    let file = std::fs::metadata(&copy).unwrap();
    let path = copy.to_str().unwrap();
    assert_eq!(mine.act(&["exec", path]), "ok");
    probes.guard().deny_exec("a", file.dev(), file.ino()).unwrap();
    assert_eq!(mine.act(&["exec", path]), "EPERM");
    assert_eq!(theirs.act(&["exec", path]), "ok", "another tenant's list");
    probes.guard().allow_exec("a", file.dev(), file.ino()).unwrap();
    assert_eq!(mine.act(&["exec", path]), "ok");
    assert_eq!(mine.act(&["exec-memfd"]), "EPERM");
    assert_eq!(outside(&["exec-memfd"]), "ok");
    std::fs::remove_file(&copy).unwrap();
}
