//! The default network, from inside and from outside.

use crate::engine::{Engine, wait_for};

#[test]
fn a_container_has_an_address_a_route_and_a_name() {
    let engine = Engine::with(&["--address-pool", "10.201.0.0/16"]);
    engine.ok(&["run", "-d", "--name", "nn", "--hostname", "web", "busybox", "sleep", "1000"]);
    let address = engine.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "nn"]);
    let inside = engine.ok(&["exec", "nn", "ip", "-4", "addr", "show", "eth0"]);
    assert!(inside.contains(&format!("inet {address}/16")), "{inside}");
    let gateway =
        engine.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.bridge.Gateway}}", "nn"]);
    assert!(engine.ok(&["exec", "nn", "ip", "route"]).contains(&format!("default via {gateway}")));
    assert!(engine.ok(&["exec", "nn", "cat", "/etc/hosts"]).contains(&format!("{address}\tweb")));
    engine.ok(&["exec", "nn", "ping", "-c", "1", "-W", "5", &gateway]);
}

#[test]
fn published_ports_reach_the_container_and_are_free_again_afterwards() {
    let engine = Engine::with(&["--address-pool", "10.202.0.0/16"]);
    let serve = "while :; do echo pong | nc -l -p 80; done";
    engine.ok(&["run", "-d", "--name", "pp", "-p", "8080:80", "busybox", "sh", "-c", serve]);
    assert_eq!(engine.ok(&["port", "pp"]), "80/tcp -> 0.0.0.0:8080");
    let ask = || engine.on_host(&["busybox", "nc", "-w", "2", "127.0.0.1", "8080"]).out;
    wait_for("the port to answer", || ask() == "pong\n");
    let error = engine.fails(125, &["run", "--name", "qq", "-p", "8080:80", "busybox", "true"]);
    assert!(error.contains("Bind for 0.0.0.0:8080 failed: port is already allocated"), "{error}");
    engine.ok(&["rm", "-f", "pp"]);
    engine.ok(&["start", "qq"]);
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "uu",
        "-p",
        "127.0.0.1::53/udp",
        "busybox",
        "sleep",
        "1000",
    ]);
    assert!(engine.ok(&["port", "uu", "53/udp"]).starts_with("127.0.0.1:"));
}

#[test]
fn two_containers_of_one_tenant_reach_each_other() {
    let engine = Engine::with(&["--address-pool", "10.203.0.0/16"]);
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "aa",
        "busybox",
        "sh",
        "-c",
        "while :; do echo pong | nc -l -p 80; done",
    ]);
    let address = engine.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "aa"]);
    wait_for("an answer", || {
        engine.said(&["run", "--rm", "busybox", "nc", "-w", "2", &address, "80"]).out == "pong\n"
    });
}

#[test]
fn network_none_has_a_loopback_and_nothing_else() {
    let engine = Engine::start();
    let links = engine.ok(&["run", "--rm", "--network", "none", "busybox", "ip", "-o", "link"]);
    assert_eq!(links.lines().count(), 1, "{links}");
    assert!(links.contains("lo: <LOOPBACK,UP"), "{links}");
}

#[test]
fn the_default_network_is_called_bridge() {
    let engine = Engine::start();
    let names = engine.ok(&["network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"]);
    assert_eq!(names, "bridge bridge local\nhost host local\nnone null local");
    assert_eq!(engine.ok(&["network", "inspect", "-f", "{{.IPAM.Driver}}", "bridge"]), "default");
    let error = engine.fails(125, &["run", "--rm", "--network", "nope", "busybox"]);
    assert!(error.contains("network nope not found"), "{error}");
}
