//! Ports published on the host.

use crate::{cases::cases, scene::Scene};
use serde_json::json;

cases! { "networks":
    a_port_is_published_on_the_host,
    an_ephemeral_port_is_told,
    a_taken_port_is_refused,
    a_range_of_ports_is_published,
}

/// What the host gets at that port of its own.
fn fetched(s: &Scene<'_>, port: &str) -> String {
    let script =
        format!("for i in 1 2 3 4 5 6 7 8 9; do nc -w 3 127.0.0.1 {port} && exit; sleep 0.2; done");
    s.ok(&[
        "run",
        "--rm",
        "--name",
        &s.name("client"),
        "--network",
        "host",
        "busybox",
        "sh",
        "-c",
        &script,
    ])
}

const SERVER: [&str; 4] = ["busybox", "sh", "-c", "while :; do echo hello | nc -l -p 80; done"];

fn a_port_is_published_on_the_host(s: &Scene<'_>) {
    let name = s.name("server");
    let flags = ["run", "-d", "--name", &name, "--stop-signal", "KILL", "-p", "127.0.0.1:18432:80"];
    let id = s.ok(&[&flags[..], &SERVER].concat());
    let ports = s.inspect(&id)["NetworkSettings"]["Ports"].clone();
    assert_eq!(ports, json!({ "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "18432" }] }));
    assert_eq!(s.ok(&["port", &name]), "80/tcp -> 127.0.0.1:18432");
    assert_eq!(fetched(s, "18432"), "hello");
}

fn an_ephemeral_port_is_told(s: &Scene<'_>) {
    let name = s.name("server");
    let flags = ["run", "-d", "--name", &name, "--stop-signal", "KILL", "-p", "127.0.0.1::80"];
    s.ok(&[&flags[..], &SERVER].concat());
    let told = s.ok(&["port", &name, "80"]);
    let port = told.strip_prefix("127.0.0.1:").unwrap();
    assert!(port.parse::<u16>().unwrap() >= 32768, "{port}");
    assert_eq!(fetched(s, port), "hello");
}

fn a_taken_port_is_refused(s: &Scene<'_>) {
    let publish = "127.0.0.1:18433:80";
    s.ok(&[
        "run",
        "-d",
        "--name",
        &s.name("a"),
        "--stop-signal",
        "KILL",
        "-p",
        publish,
        "busybox",
        "sleep",
        "1000",
    ]);
    let err = s.fails(
        125,
        &["run", "-d", "--name", &s.name("b"), "-p", publish, "busybox", "sleep", "1000"],
    );
    assert!(err.contains("Bind for 127.0.0.1:18433 failed: port is already allocated"), "{err}");
    assert_eq!(s.inspect(&s.name("b"))["State"]["Status"], "created");
}

fn a_range_of_ports_is_published(s: &Scene<'_>) {
    let name = s.name("a");
    s.ok(&[
        "run",
        "-d",
        "--name",
        &name,
        "--stop-signal",
        "KILL",
        "-p",
        "127.0.0.1:18440-18442:80-82/udp",
        "busybox",
        "sleep",
        "1000",
    ]);
    let mut ports: Vec<String> = s.ok(&["port", &name]).lines().map(str::to_owned).collect();
    ports.sort();
    assert_eq!(ports, [0, 1, 2].map(|n| format!("{}/udp -> 127.0.0.1:{}", 80 + n, 18440 + n)));
}
