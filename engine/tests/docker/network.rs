//! The default network, from inside and from outside.

use crate::engine::{Engine, wait_for};

#[test]
fn a_container_has_an_address_a_route_and_a_name() {
    let engine = Engine::with(&["--address-pool", "10.201.0.0/16"]);
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "nn",
        "--cap-add",
        "NET_RAW",
        "--hostname",
        "web",
        "busybox",
        "sleep",
        "1000",
    ]);
    let address = engine.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "nn"]);
    let inside = engine.ok(&["exec", "nn", "ip", "-4", "addr", "show", "eth0"]);
    let prefix = engine.ok(&["inspect", "-f", "{{.NetworkSettings.IPPrefixLen}}", "nn"]);
    assert!(inside.contains(&format!("inet {address}/{prefix} ")), "{inside}");
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

/// The lines of an interface's addresses, inside.
fn addresses(engine: &Engine, container: &str) -> String {
    engine.ok(&["exec", container, "ip", "-o", "addr"])
}

fn field(engine: &Engine, container: &str, field: &str) -> String {
    engine.ok(&["inspect", "-f", &format!("{{{{{field}}}}}"), container])
}

#[test]
fn a_network_is_made_shown_used_and_removed() {
    let engine = Engine::with(&["--address-pool", "10.210.0.0/16"]);
    let id = engine.ok(&["network", "create", "--label", "a=b", "n1"]);
    assert_eq!(id.len(), 64);
    assert_eq!(engine.ok(&["network", "ls", "-q", "--no-trunc", "-f", "name=n1"]), id);
    let shown = engine.ok(&["network", "inspect", "n1"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let shown = &shown[0];
    assert_eq!(shown["Driver"], "bridge");
    assert_eq!(shown["Labels"]["a"], "b");
    assert_eq!(shown["Options"], serde_json::json!({}));
    let subnet = shown["IPAM"]["Config"][0]["Subnet"].as_str().unwrap();
    let taken = engine.fails(1, &["network", "create", "n1"]);
    assert!(taken.contains("network with name n1 already exists"), "{taken}");
    let overlap = engine.fails(1, &["network", "create", "--subnet", subnet, "n2"]);
    assert!(overlap.contains("Pool overlaps with other one on this address space"), "{overlap}");
    engine.ok(&["run", "-d", "--name", "aa", "--network", "n1", "busybox", "sleep", "1000"]);
    let address = field(&engine, "aa", ".NetworkSettings.Networks.n1.IPAddress");
    assert!(addresses(&engine, "aa").contains(&format!("inet {address}/")));
    let members =
        engine.ok(&["network", "inspect", "-f", "{{range .Containers}}{{.Name}}{{end}}", "n1"]);
    assert_eq!(members, "aa");
    let used = engine.fails(1, &["network", "rm", "n1"]);
    assert!(used.contains("network n1 has active endpoints (name:\"aa\" id:\""), "{used}");
    engine.ok(&["rm", "-f", "aa"]);
    engine.ok(&["network", "rm", "n1"]);
    assert!(engine.fails(1, &["network", "inspect", "n1"]).contains("network n1 not found"));
    assert_eq!(
        engine.on_host(&["ip", "-o", "link", "show", "type", "bridge"]).out.lines().count(),
        1
    );
}

#[test]
fn a_running_container_joins_networks_and_leaves_them() {
    let engine = Engine::with(&["--address-pool", "10.211.0.0/16"]);
    for (name, subnet) in [("n1", "10.1.0.0/24"), ("n2", "10.2.0.0/24")] {
        engine.ok(&["network", "create", "--subnet", subnet, name]);
    }
    engine.ok(&["run", "-d", "--name", "aa", "--network", "n1", "busybox", "sleep", "1000"]);
    engine.ok(&["network", "connect", "--ip", "10.2.0.7", "--alias", "x", "n2", "aa"]);
    let twice = engine.fails(1, &["network", "connect", "n2", "aa"]);
    assert!(twice.contains("endpoint with name aa already exists in network n2"), "{twice}");
    let seen = addresses(&engine, "aa");
    assert!(seen.contains("eth0") && seen.contains("inet 10.1.0.2/24"), "{seen}");
    assert!(seen.contains("eth1") && seen.contains("inet 10.2.0.7/24"), "{seen}");
    let route = || {
        let all = engine.ok(&["exec", "aa", "ip", "route"]);
        all.lines().find(|line| line.starts_with("default")).unwrap_or_default().trim().to_owned()
    };
    assert_eq!(route(), "default via 10.1.0.1 dev eth0");
    let hosts = || engine.ok(&["exec", "aa", "cat", "/etc/hosts"]);
    assert!(hosts().contains("10.1.0.2\t") && hosts().contains("10.2.0.7\t"), "{}", hosts());
    engine.ok(&[
        "run",
        "--rm",
        "--cap-add",
        "NET_RAW",
        "--network",
        "n2",
        "busybox",
        "ping",
        "-c1",
        "-W5",
        "10.2.0.7",
    ]);
    engine.ok(&["network", "disconnect", "n1", "aa"]);
    let seen = addresses(&engine, "aa");
    assert!(!seen.contains("10.1.0.2") && seen.contains("10.2.0.7"), "{seen}");
    assert_eq!(route(), "default via 10.2.0.1 dev eth1");
    assert!(!hosts().contains("10.1.0.2"), "{}", hosts());
    let gone = engine.fails(1, &["network", "disconnect", "n1", "aa"]);
    assert!(gone.contains("is not connected to network n1"), "{gone}");
    engine.ok(&["network", "connect", "--gw-priority", "1", "n1", "aa"]);
    assert_eq!(route(), "default via 10.1.0.1 dev eth0");
    // What was asked holds when it starts again.
    engine.ok(&["restart", "-t", "0", "aa"]);
    let seen = addresses(&engine, "aa");
    assert!(seen.contains("inet 10.1.0.") && seen.contains("inet 10.2.0.7/24"), "{seen}");
    assert_eq!(route().split(" dev").next(), Some("default via 10.1.0.1"));
}

#[test]
fn networks_survive_a_crash_with_what_containers_asked_of_them() {
    let mut engine = Engine::with(&["--address-pool", "10.212.0.0/16"]);
    let options = ["--subnet", "10.3.0.0/24", "--gateway", "10.3.0.9", "--label", "a=b"];
    engine.ok(&[&["network", "create"], &options[..], &["n1"]].concat());
    engine.ok(&["network", "create", "n2"]);
    engine.ok(&["network", "rm", "n2"]);
    let arguments = ["--network", "n1", "--ip", "10.3.0.5", "--network-alias", "x"];
    engine
        .ok(&[&["create", "--name", "aa"], &arguments[..], &["busybox", "sleep", "1000"]].concat());
    let before = engine.ok(&["network", "inspect", "n1"]);
    engine.crash_and_restart();
    assert_eq!(engine.ok(&["network", "inspect", "n1"]), before);
    assert!(engine.fails(1, &["network", "inspect", "n2"]).contains("network n2 not found"));
    engine.ok(&["start", "aa"]);
    assert!(addresses(&engine, "aa").contains("inet 10.3.0.5/24"));
    let names = field(&engine, "aa", "json .NetworkSettings.Networks.n1.DNSNames");
    assert!(names.starts_with("[\"aa\",\"x\",\""), "{names}");
    // A network is gone while a container that is down still names it.
    engine.ok(&["stop", "-t", "0", "aa"]);
    engine.ok(&["network", "rm", "n1"]);
    let error = engine.fails(1, &["start", "aa"]);
    assert!(
        error.contains("failed to set up container networking: network n1 not found"),
        "{error}"
    );
}

#[test]
fn what_makes_no_sense_of_a_network_is_refused_in_dockers_words() {
    let engine = Engine::with(&["--address-pool", "10.213.0.0/16"]);
    let create = |body: &str| engine.api("POST", "/v1.51/networks/create", body);
    for (body, status, words) in [
        (r#"{"Name":""}"#, 400, "invalid name: name is empty"),
        (r#"{"Name":"host"}"#, 403, "operation is not permitted on predefined host network "),
        (r#"{"Name":"n","Driver":"nope"}"#, 404, r#"plugin \"nope\" not found"#),
        (r#"{"Name":"n","Driver":"ipvlan"}"#, 501, "not built"),
        (r#"{"Name":"n","EnableIPv4":false}"#, 400, "IPv4 or IPv6 must be enabled"),
        (
            r#"{"Name":"n","IPAM":{"Config":[{"Subnet":"10.1.5.1/24"}]}}"#,
            400,
            "invalid subnet 10.1.5.1/24: it should be 10.1.5.0/24",
        ),
        (
            r#"{"Name":"n","IPAM":{"Config":[{"Subnet":"10.1.5.0/24","Gateway":"10.1.5.0"}]}}"#,
            403,
            "failed to allocate gateway (10.1.5.0): Address already in use",
        ),
        (
            r#"{"Name":"n","Options":{"com.docker.network.driver.mtu":"x"}}"#,
            400,
            "failed to parse com.docker.network.driver.mtu value: x",
        ),
        (r#"{"Name":"n","Scope":"swarm"}"#, 403, "swarm is not active"),
        ("{", 400, ""),
    ] {
        let (code, said) = create(body);
        assert_eq!(code, status, "{body}: {said}");
        assert!(said.contains(words), "{body}: {said}");
    }
    engine.ok(&["network", "create", "--subnet", "10.5.0.0/29", "n1"]);
    for (options, words) in [
        (["--ip", "10.7.0.1"], "no configured subnet or ip-range contain the IP address 10.7.0.1"),
        (["--ip", "10.5.0.1"], "failed to set up container networking: Address already in use"),
        (["--ip6", "fd00::1"], "only when connecting to networks with user configured subnets"),
    ] {
        let arguments = [&["run", "--rm", "--network", "n1"], &options[..], &["busybox", "true"]];
        let error = engine.fails(125, &arguments.concat());
        assert!(error.contains(words), "{error}");
    }
    for nth in 2..=6 {
        let name = format!("c{nth}");
        engine.ok(&["run", "-d", "--name", &name, "--network", "n1", "busybox", "sleep", "1000"]);
    }
    let full = engine.fails(125, &["run", "--network", "n1", "busybox", "true"]);
    assert!(
        full.contains("no available IPv4 addresses on this network's address pools: n1"),
        "{full}"
    );
    let error = engine.fails(1, &["network", "connect", "host", "c2"]);
    assert!(error.contains("cannot connect container to host network"), "{error}");
    let error = engine.fails(1, &["network", "rm", "bridge"]);
    assert!(error.contains("bridge is a pre-defined network and cannot be removed"), "{error}");
}

#[test]
fn a_linked_container_is_known_by_its_alias_and_events_tell_of_networks() {
    let engine = Engine::with(&["--address-pool", "10.214.0.0/16"]);
    engine.ok(&["run", "-d", "--name", "dbc", "busybox", "sleep", "1000"]);
    let address = field(&engine, "dbc", ".NetworkSettings.IPAddress");
    let hosts = engine.ok(&["run", "--rm", "--link", "dbc:db", "busybox", "cat", "/etc/hosts"]);
    assert!(hosts.contains(&format!("{address}\tdb ")), "{hosts}");
    let host = ["--add-host", "me:host-gateway", "--network", "none"];
    let hosts =
        engine.ok(&[&["run", "--rm"], &host[..], &["busybox", "cat", "/etc/hosts"]].concat());
    let gateway = field(&engine, "dbc", ".NetworkSettings.Gateway");
    assert!(hosts.contains(&format!("{gateway}\tme")), "{hosts}");
    let error = engine.fails(125, &["run", "--rm", "--link", "nope:db", "busybox", "true"]);
    assert!(error.contains("could not get container for nope: No such container: nope"), "{error}");
    let id = engine.ok(&["network", "create", "--label", "keep=no", "n1"]);
    engine.ok(&["network", "connect", "n1", "dbc"]);
    engine.ok(&["network", "disconnect", "n1", "dbc"]);
    assert!(engine.ok(&["network", "prune", "-f", "--filter", "label=keep=no"]).contains("n1"));
    // The CLI sends whole seconds.
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let until = (now + 1).to_string();
    let events = ["events", "--since", "1h", "--until", &until, "--filter", "type=network"];
    let format = ["--format", "{{.Action}} {{.Actor.ID}}"];
    let said = engine.ok(&[&events[..], &format[..]].concat());
    let of_it = said.lines().filter_map(|line| line.strip_suffix(&format!(" {id}")));
    assert_eq!(of_it.collect::<Vec<_>>(), ["create", "connect", "disconnect", "destroy"]);
}

#[test]
fn publishing_sctp_is_refused_clearly_and_exposing_it_is_not() {
    let engine = Engine::start();
    let error = engine.fails(125, &["run", "--rm", "-p", "80:80/sctp", "busybox", "true"]);
    assert!(error.contains("publishing SCTP ports (80/sctp) is not built yet"), "{error}");
    assert_eq!(engine.ok(&["ps", "-aq"]), "", "it was refused before anything was made");
    engine.ok(&["run", "--rm", "--expose", "80/sctp", "busybox", "true"]);
    let context = engine.dir.join("sctp");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), "FROM busybox\nEXPOSE 80/sctp\n").unwrap();
    let mut build = engine.docker(&["build", "-q", "-t", "s", context.to_str().unwrap()]);
    let built: crate::engine::Said = build.env("DOCKER_BUILDKIT", "0").output().unwrap().into();
    assert_eq!(built.code, 0, "{built:?}");
    engine.ok(&["run", "--rm", "s", "true"]);
    let error = engine.fails(125, &["run", "--rm", "-P", "s", "true"]);
    assert!(error.contains("publishing SCTP ports (80/sctp)"), "{error}");
}
