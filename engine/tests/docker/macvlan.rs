//! Containers on the Ethernet of one of the host's interfaces.

use crate::{
    engine::{Engine, Said, wait_for},
    tenants::{at, with_tenant},
};
use nix::sched::{CloneFlags, setns};
use std::{fs::File, net::UdpSocket, time::Duration};

fn on_host(engine: &Engine, command: &str) -> Said {
    let said = engine.on_host(&command.split(' ').collect::<Vec<_>>());
    assert_eq!(said.code, 0, "{command}: {said:?}");
    said
}

/// A cable from `lan0` to a machine that is 10.88.0.1.
fn with_lan(engine: &Engine) {
    for command in [
        "ip link add lan0 type veth peer name lan1",
        "ip link set lan0 up",
        "ip addr add 10.88.0.1/24 dev lan1",
        "ip link set lan1 up",
    ] {
        on_host(engine, command);
    }
}

const CREATE: [&str; 10] = [
    "network",
    "create",
    "-d",
    "macvlan",
    "-o",
    "parent=lan0",
    "--subnet",
    "10.88.0.0/24",
    "--gateway",
    "10.88.0.1",
];

fn lan(engine: &Engine) {
    let range = ["--ip-range", "10.88.0.64/26", "--aux-address", "printer=10.88.0.64", "lan"];
    engine.ok(&[&CREATE[..], &range].concat());
}

fn links(engine: &Engine) -> usize {
    on_host(engine, "ip -o link").out.lines().count()
}

fn run_on(engine: &Engine, name: &str, options: &[&str]) {
    let run = ["run", "-d", "--name", name, "--stop-signal", "KILL", "--cap-add", "NET_RAW"];
    engine.ok(&[&run[..], options, &["busybox", "sleep", "1000"]].concat());
}

#[test]
fn a_container_on_a_macvlan_is_a_neighbour_of_the_parents() {
    let engine = Engine::with(&["--address-pool", "10.205.0.0/16"]);
    with_lan(&engine);
    wait_for("the namespace that waits ready", || links(&engine) >= 5);
    lan(&engine);
    let shown = engine.ok(&["network", "inspect", "-f", "{{.Driver}} {{json .Options}}", "lan"]);
    assert_eq!(shown, r#"macvlan {"parent":"lan0"}"#);
    let before = links(&engine);
    run_on(&engine, "aa", &["--network", "lan", "-p", "8080:80"]);
    let field = |field: &str| engine.ok(&["inspect", "-f", field, "aa"]);
    assert_eq!(field("{{.NetworkSettings.Networks.lan.IPAddress}}"), "10.88.0.65");
    assert_eq!(field("{{.NetworkSettings.Networks.lan.Gateway}}"), "10.88.0.1");
    assert_eq!(
        (field("{{json .NetworkSettings.Ports}}"), engine.ok(&["port", "aa"])),
        ("{}".into(), String::new())
    );
    engine.ok(&["exec", "aa", "ping", "-c", "1", "-W", "5", "10.88.0.1"]);
    on_host(&engine, "busybox ping -c 1 -W 5 10.88.0.65");
    assert_eq!(links(&engine), before, "it has no end on the host");
    let given = ["--network", "lan", "--ip", "10.88.0.9", "--mac-address", "02:00:00:00:00:09"];
    run_on(&engine, "bb", &given);
    engine.ok(&["exec", "bb", "ping", "-c", "1", "-W", "5", "aa"]);
    let inside = engine.ok(&["exec", "bb", "ip", "addr", "show", "eth0"]);
    assert!(inside.contains("02:00:00:00:00:09") && inside.contains("10.88.0.9/24"), "{inside}");
    let error = engine.fails(1, &["network", "rm", "lan"]);
    assert!(error.contains("network lan has active endpoints"), "{error}");
    engine.ok(&["rm", "-f", "aa", "bb"]);
    engine.ok(&["network", "rm", "lan"]);
    assert_eq!(links(&engine), before);
}

#[test]
fn a_running_container_joins_and_leaves_a_macvlan() {
    let engine = Engine::with(&["--address-pool", "10.205.0.0/16"]);
    with_lan(&engine);
    lan(&engine);
    engine.ok(&["network", "create", "own"]);
    run_on(&engine, "aa", &["--network", "own"]);
    engine.ok(&["network", "connect", "--gw-priority", "1", "lan", "aa"]);
    let route = || engine.ok(&["exec", "aa", "ip", "route"]);
    assert!(route().contains("default via 10.88.0.1 dev eth1"), "{}", route());
    engine.ok(&["network", "disconnect", "lan", "aa"]);
    assert!(!route().contains("eth1"), "{}", route());
    for _ in 0..3 {
        engine.ok(&["network", "connect", "--ip", "10.88.0.7", "lan", "aa"]);
        on_host(&engine, "busybox ping -c 1 -W 5 10.88.0.7");
        engine.ok(&["restart", "aa"]);
        on_host(&engine, "busybox ping -c 1 -W 5 10.88.0.7");
        engine.ok(&["network", "disconnect", "lan", "aa"]);
    }
}

#[test]
fn what_runs_on_a_macvlan_is_kept_by_the_next_engine_though_the_parent_has_gone() {
    let mut engine = Engine::with(&["--address-pool", "10.205.0.0/16"]);
    with_lan(&engine);
    lan(&engine);
    run_on(&engine, "aa", &["--network", "lan"]);
    // Into another network namespace, where there is no lan0.
    engine.crash_and_restart();
    let members = "{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}";
    let shown = engine.ok(&["network", "inspect", "-f", members, "lan"]);
    assert_eq!(shown, "aa 10.88.0.65/24");
    let error = engine.fails(125, &["run", "--rm", "--network", "lan", "busybox", "true"]);
    let words = "the requested parent interface lan0 was not found on the host";
    assert!(error.contains(words), "{error}");
    engine.ok(&["rm", "-f", "aa"]);
    engine.ok(&["network", "rm", "lan"]);
}

#[test]
fn a_container_on_a_macvlan_answers_no_dhcp_unless_its_interfaces_are_its_own() {
    let engine = Engine::with(&["--address-pool", "10.205.0.0/16"]);
    with_lan(&engine);
    lan(&engine);
    let netns = File::open(format!("/proc/{}/ns/net", engine.pid())).unwrap();
    // Where a client would wait for an answer.
    let client = std::thread::spawn(move || {
        setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
        UdpSocket::bind("10.88.0.1:68").unwrap()
    });
    let client = client.join().unwrap();
    client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let answers = |options: &[&str]| {
        let send = "syslogd -n -R 10.88.0.1:68 & sleep 1; logger offer; sleep 1";
        let run = [&["run", "--rm", "--network", "lan"], options, &["busybox", "sh", "-c", send]];
        engine.ok(&run.concat());
        client.recv(&mut [0; 1500]).is_ok()
    };
    assert!(!answers(&[]), "the guard lets it through");
    assert!(answers(&["--cap-add", "NET_ADMIN"]), "it could take the guard's program off");
}

#[test]
fn only_the_operator_makes_networks_on_the_hosts_own_ethernet() {
    let (engine, socket) = with_tenant("red", "10.205.0.0/16");
    with_lan(&engine);
    let said = at(&engine, &socket, &[&CREATE[..], &["lan"]].concat());
    assert_eq!(said.code, 1);
    assert!(said.err.contains("tenant red may not use networks of driver macvlan"), "{said:?}");
    lan(&engine);
    let said = at(&engine, &socket, &["network", "inspect", "lan"]);
    assert!(said.err.contains("network lan not found"), "{said:?}");
}
