//! Networks, names on them, and published ports.

use crate::{
    cases::cases,
    scene::{Scene, encoded, wait_for},
};
use serde_json::{Value, json};

cases! { "networks":
    the_three_networks_are_there,
    the_bridge_has_dockers_fields,
    a_made_network_has_dockers_fields,
    a_subnet_and_its_options_come_back_as_given,
    what_makes_no_sense_is_refused_in_dockers_words,
    an_overlapping_subnet_is_refused,
    the_predefined_networks_can_neither_be_made_nor_removed,
    an_unknown_network_is_not_found,
    a_network_in_use_is_not_removed,
    networks_are_filtered,
    containers_on_a_network_find_each_other_by_name_and_alias,
    a_plain_container_may_ping,
    names_are_answered_as_dns_answers,
    networks_are_apart,
    a_container_can_be_connected_and_disconnected_while_it_runs,
    an_address_can_be_asked_for,
    a_container_shares_anothers_network,
    without_a_network_there_is_only_the_loopback,
    the_hosts_network_is_the_hosts,
    an_internal_network_has_no_way_out,
    a_mac_address_can_be_asked_for,
    a_port_is_published_on_the_host,
    an_ephemeral_port_is_told,
    a_taken_port_is_refused,
    a_range_of_ports_is_published,
    extra_hosts_and_dns_are_written_down,
    links_are_written_down,
    networks_tell_what_happened_to_them,
    ipv6_is_given_where_it_is_asked_for,
    a_macvlan_is_on_its_parents_ethernet,
    what_no_macvlan_can_be_is_refused_in_dockers_words,
}

/// A network called by `name(part)`; its id.
fn network(s: &Scene<'_>, part: &str, mut body: Value) -> String {
    body["Name"] = json!(s.name(part));
    s.post("/networks/create", &body).expect(201).json()["Id"].as_str().unwrap().to_owned()
}

/// One that runs on that network, and may ping.
fn on(s: &Scene<'_>, part: &str, net: &str, more: &[&str]) -> String {
    let (name, net) = (s.name(part), s.name(net));
    let own = ["run", "-d", "--name", &name, "--network", &net];
    let flags = [&own[..], &["--stop-signal", "KILL", "--cap-add", "NET_RAW"]].concat();
    s.ok(&[&flags[..], more, &["busybox", "sleep", "1000"]].concat())
}

fn inspected(s: &Scene<'_>, part: &str) -> Value {
    s.get(&format!("/networks/{}", s.name(part))).expect(200).json()
}

fn the_three_networks_are_there(s: &Scene<'_>) {
    let list = s.get("/networks").expect(200).json();
    for (name, driver) in [("bridge", "bridge"), ("host", "host"), ("none", "null")] {
        let network = list.as_array().unwrap().iter().find(|net| net["Name"] == name).unwrap();
        assert_eq!((&network["Driver"], &network["Scope"]), (&json!(driver), &json!("local")));
        assert_eq!(network["Id"].as_str().unwrap().len(), 64);
    }
    s.get("/networks/").expect(200);
}

fn the_bridge_has_dockers_fields(s: &Scene<'_>) {
    let bridge = s.get("/networks/bridge").expect(200).json();
    assert_eq!((&bridge["EnableIPv4"], &bridge["EnableIPv6"]), (&json!(true), &json!(false)));
    assert_eq!((&bridge["Internal"], &bridge["Attachable"]), (&json!(false), &json!(false)));
    assert_eq!(bridge["IPAM"]["Driver"], "default");
    assert!(bridge["IPAM"]["Config"][0]["Subnet"].as_str().unwrap().contains('/'));
    assert_eq!(bridge["Options"]["com.docker.network.bridge.default_bridge"], "true");
    let mut bare = bridge;
    bare["Containers"] = json!({});
    s.same_shape("NetworkInspect of the bridge", &bare);
}

fn a_made_network_has_dockers_fields(s: &Scene<'_>) {
    let body = json!({ "Labels": { "a": "b" }, "Name": s.name("n") });
    let made = s.post("/networks/create", &body).expect(201).json();
    assert_eq!(made["Warning"], "");
    on(s, "c", "n", &[]);
    let network = inspected(s, "n");
    assert_eq!((&network["Id"], &network["Driver"]), (&made["Id"], &json!("bridge")));
    assert_eq!((&network["Labels"], &network["Options"]), (&json!({ "a": "b" }), &json!({})));
    let (_, container) = network["Containers"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(container["Name"], s.name("c"));
    assert!(container["IPv4Address"].as_str().unwrap().contains('/'), "{container}");
    s.same_shape("NetworkInspect of a made one", &network);
}

fn a_subnet_and_its_options_come_back_as_given(s: &Scene<'_>) {
    let config = json!([{
        "Subnet": "10.211.0.0/24", "Gateway": "10.211.0.7", "IPRange": "10.211.0.128/25",
        "AuxiliaryAddresses": { "router": "10.211.0.200" },
    }]);
    let options = json!({ "com.docker.network.driver.mtu": "1400" });
    network(s, "n", json!({ "IPAM": { "Config": config }, "Options": options }));
    let kept = inspected(s, "n");
    let aux = json!({ "router": "10.211.0.200" });
    let ipam = &kept["IPAM"]["Config"][0];
    assert_eq!(
        (&ipam["Subnet"], &ipam["Gateway"]),
        (&json!("10.211.0.0/24"), &json!("10.211.0.7"))
    );
    assert_eq!((&ipam["IPRange"], &ipam["AuxiliaryAddresses"]), (&json!("10.211.0.128/25"), &aux));
    assert_eq!(kept["Options"], options);
    let id = on(s, "c", "n", &[]);
    let net = s.inspect(&id)["NetworkSettings"]["Networks"][s.name("n")].clone();
    let address = net["IPAddress"].as_str().unwrap();
    let last: u8 = address.strip_prefix("10.211.0.").unwrap().parse().unwrap();
    assert!(last >= 128 && net["Gateway"] == "10.211.0.7", "{net}");
    assert_eq!(s.ok(&["exec", &id, "cat", "/sys/class/net/eth0/mtu"]), "1400");
}

fn what_makes_no_sense_is_refused_in_dockers_words(s: &Scene<'_>) {
    let make = |mut body: Value| {
        body["Name"] = json!(s.name("n"));
        s.post("/networks/create", &body)
    };
    let ipam = |config: Value| json!({ "IPAM": { "Config": [config] } });
    s.post("/networks/create", &json!({})).refuses(400, "invalid name: name is empty");
    make(json!({ "Driver": "nope" })).refuses(404, "plugin \"nope\" not found");
    make(ipam(json!({ "Subnet": "x" })))
        .refuses(400, "invalid subnet x: invalid CIDR block notation");
    make(ipam(json!({ "Subnet": "10.212.0.1/24" })))
        .refuses(400, "invalid subnet 10.212.0.1/24: it should be 10.212.0.0/24");
    make(ipam(json!({ "Subnet": "10.212.0.0/24", "Gateway": "10.2.0.1" }))).refuses(
        400,
        "invalid gateway 10.2.0.1: parent subnet 10.212.0.0/24 doesn't contain this address",
    );
    make(json!({ "IPAM": { "Driver": "nope" } })).refuses(404, "nope");
    s.get(&format!("/networks/{}", s.name("n"))).refuses(404, "not found");
}

fn an_overlapping_subnet_is_refused(s: &Scene<'_>) {
    network(s, "n", json!({ "IPAM": { "Config": [{ "Subnet": "10.213.0.0/24" }] } }));
    let body =
        json!({ "Name": s.name("m"), "IPAM": { "Config": [{ "Subnet": "10.213.0.0/25" }] } });
    s.post("/networks/create", &body)
        .refuses(403, "Pool overlaps with other one on this address space");
}

fn the_predefined_networks_can_neither_be_made_nor_removed(s: &Scene<'_>) {
    for name in ["bridge", "host", "none"] {
        let words = format!("operation is not permitted on predefined {name} network");
        s.post("/networks/create", &json!({ "Name": name })).refuses(403, &words);
        let words = format!("{name} is a pre-defined network and cannot be removed");
        s.delete(&format!("/networks/{name}")).refuses(403, &words);
    }
}

fn an_unknown_network_is_not_found(s: &Scene<'_>) {
    s.get("/networks/nobody").refuses(404, "network nobody not found");
    s.delete("/networks/nobody").refuses(404, "network nobody not found");
    let id = s.create("c", json!({ "HostConfig": { "NetworkMode": "nobody" } }));
    s.poke(&format!("/containers/{id}/start")).refuses(404, "network nobody not found");
    s.post("/networks/bridge/connect", &json!({ "Container": "nobody" }))
        .refuses(404, "No such container: nobody");
}

fn a_network_in_use_is_not_removed(s: &Scene<'_>) {
    let id = network(s, "n", json!({}));
    let again = s.post("/networks/create", &json!({ "Name": s.name("n") }));
    again.refuses(409, &format!("network with name {} already exists", s.name("n")));
    on(s, "c", "n", &[]);
    let words = format!(
        "error while removing network: network {} has active endpoints (name:\"{}\"",
        s.name("n"),
        s.name("c")
    );
    s.delete(&format!("/networks/{id}")).refuses(403, &words);
}

fn networks_are_filtered(s: &Scene<'_>) {
    let id = network(s, "one", json!({ "Labels": { "k": "1" } }));
    network(s, "two", json!({}));
    on(s, "c", "two", &[]);
    let listed = |filters: Value| -> Vec<String> {
        let path = format!("/networks?filters={}", encoded(&filters.to_string()));
        let list = s.get(&path).expect(200).json();
        let prefix = s.name("");
        let names = list.as_array().unwrap().iter();
        let names =
            names.filter_map(|net| net["Name"].as_str()?.strip_prefix(&prefix).map(str::to_owned));
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    };
    assert_eq!(listed(json!({ "name": [s.name("")] })), ["one", "two"]);
    assert_eq!(listed(json!({ "id": [id] })), ["one"]);
    assert_eq!(listed(json!({ "name": [s.name("")], "label": ["k=1"] })), ["one"]);
    assert_eq!(listed(json!({ "driver": ["bridge"], "name": [s.name("two")] })), ["two"]);
    assert_eq!(listed(json!({ "type": ["custom"], "name": [s.name("")] })), ["one", "two"]);
    assert_eq!(listed(json!({ "type": ["builtin"] })), [""; 0]);
    assert_eq!(listed(json!({ "scope": ["swarm"] })), [""; 0]);
}

fn containers_on_a_network_find_each_other_by_name_and_alias(s: &Scene<'_>) {
    network(s, "n", json!({}));
    let server = on(s, "server", "n", &["--network-alias", "web"]);
    let client = on(s, "client", "n", &[]);
    let short: String = server.chars().take(12).collect();
    for name in [s.name("server").as_str(), "web", short.as_str()] {
        s.ok(&["exec", &client, "ping", "-c1", "-W5", name]);
    }
    let names = s.inspect(&server)["NetworkSettings"]["Networks"][s.name("n")]["DNSNames"].clone();
    assert_eq!(names, json!([s.name("server"), "web", short]));
    s.fails(1, &["exec", &client, "ping", "-c1", "-W1", "nobody"]);
}

fn a_plain_container_may_ping(s: &Scene<'_>) {
    s.ok(&["run", "--rm", "--name", &s.name("a"), "busybox", "ping", "-c1", "-W5", "127.0.0.1"]);
}

fn names_are_answered_as_dns_answers(s: &Scene<'_>) {
    network(s, "n", json!({}));
    let server = on(s, "server", "n", &["--network-alias", "web"]);
    let second = on(s, "second", "n", &["--network-alias", "web"]);
    let client = on(s, "client", "n", &[]);
    assert!(s.ok(&["exec", &client, "cat", "/etc/resolv.conf"]).contains("nameserver 127.0.0.11"));
    let address = |id: &str| {
        s.inspect(id)["NetworkSettings"]["Networks"][s.name("n")]["IPAddress"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let lookup = |name: &str| s.said(&["exec", &client, "nslookup", name]);
    let both = lookup("web").out;
    assert!(both.contains(&address(&server)) && both.contains(&address(&second)), "{both}");
    let back = lookup(&address(&server)).out;
    assert!(back.contains(&s.name("server")), "{back}");
    let gone = address(&second);
    s.poke(&format!("/containers/{second}/stop?t=0")).expect(204);
    wait_for("the name to go", || !lookup("web").out.contains(&gone));
    assert!(lookup("web").out.contains(&address(&server)));
}

fn networks_are_apart(s: &Scene<'_>) {
    network(s, "n", json!({}));
    network(s, "m", json!({}));
    let server = on(s, "server", "n", &[]);
    let client = on(s, "client", "m", &[]);
    let address =
        s.inspect(&server)["NetworkSettings"]["Networks"][s.name("n")]["IPAddress"].clone();
    s.fails(1, &["exec", &client, "ping", "-c1", "-W1", address.as_str().unwrap()]);
    s.fails(1, &["exec", &client, "ping", "-c1", "-W1", &s.name("server")]);
}

fn a_container_can_be_connected_and_disconnected_while_it_runs(s: &Scene<'_>) {
    network(s, "n", json!({}));
    network(s, "m", json!({}));
    on(s, "server", "m", &[]);
    let client = on(s, "client", "n", &[]);
    let reach = || s.said(&["exec", &client, "ping", "-c1", "-W2", &s.name("server")]).code == 0;
    assert!(!reach());
    let body = json!({ "Container": client, "EndpointConfig": { "Aliases": ["known"] } });
    s.post(&format!("/networks/{}/connect", s.name("m")), &body).expect(200);
    assert!(reach());
    let networks = s.inspect(&client)["NetworkSettings"]["Networks"].clone();
    assert_eq!(networks.as_object().unwrap().len(), 2);
    assert_eq!(networks[s.name("m")]["Aliases"], json!(["known"]));
    let again = s.post(&format!("/networks/{}/connect", s.name("m")), &body);
    again.refuses(
        403,
        &format!(
            "endpoint with name {} already exists in network {}",
            s.name("client"),
            s.name("m")
        ),
    );
    let body = json!({ "Container": client });
    s.post(&format!("/networks/{}/disconnect", s.name("m")), &body).expect(200);
    assert!(!reach());
    let words = format!("container {client} is not connected to network {}", s.name("m"));
    let twice = s.post(&format!("/networks/{}/disconnect", s.name("m")), &body);
    // Docker says 500.
    assert!(twice.status() >= 400 && twice.message().contains(&words), "{}", twice.message());
}

fn an_address_can_be_asked_for(s: &Scene<'_>) {
    network(s, "n", json!({ "IPAM": { "Config": [{ "Subnet": "10.214.0.0/24" }] } }));
    let id = on(s, "a", "n", &["--ip", "10.214.0.77"]);
    let net = s.inspect(&id)["NetworkSettings"]["Networks"][s.name("n")].clone();
    assert_eq!(net["IPAddress"], "10.214.0.77");
    assert_eq!(net["IPAMConfig"]["IPv4Address"], "10.214.0.77");
    let (name, net) = (s.name("b"), s.name("n"));
    let with = |ip: &str| {
        s.fails(
            125,
            &["run", "--name", &name, "--rm", "--network", &net, "--ip", ip, "busybox", "true"],
        )
    };
    let taken = with("10.214.0.77");
    assert!(taken.contains("Address already in use"), "{taken}");
    let outside = with("10.215.0.1");
    assert!(
        outside.contains("no configured subnet or ip-range contain the IP address 10.215.0.1"),
        "{outside}"
    );
}

fn a_container_shares_anothers_network(s: &Scene<'_>) {
    let first = s.idle("a");
    let mode = format!("container:{}", s.name("a"));
    let address = s.inspect(&first)["NetworkSettings"]["IPAddress"].as_str().unwrap().to_owned();
    let out = s.ok(&[
        "run",
        "--rm",
        "--name",
        &s.name("b"),
        "--network",
        &mode,
        "busybox",
        "ip",
        "-4",
        "addr",
        "show",
        "eth0",
    ]);
    assert!(out.contains(&address), "{out}");
    let id = s.create("c", json!({ "HostConfig": { "NetworkMode": "container:nobody" } }));
    let nobodys = s.poke(&format!("/containers/{id}/start"));
    // Docker says 500.
    assert!(nobodys.status() >= 400);
    assert!(nobodys.message().contains("No such container: nobody"), "{}", nobodys.message());
}

fn without_a_network_there_is_only_the_loopback(s: &Scene<'_>) {
    let out = s.ok(&[
        "run",
        "--rm",
        "--name",
        &s.name("a"),
        "--network",
        "none",
        "busybox",
        "ls",
        "/sys/class/net",
    ]);
    assert_eq!(out, "lo");
}

fn the_hosts_network_is_the_hosts(s: &Scene<'_>) {
    let id = s.create("a", json!({ "Cmd": ["sleep", "1000"], "StopSignal": "KILL", "HostConfig": { "NetworkMode": "host" } }));
    s.start(&id);
    let networks = s.inspect(&id)["NetworkSettings"]["Networks"].clone();
    assert_eq!(networks["host"]["IPAddress"], "");
    assert_eq!(s.ok(&["exec", &id, "hostname"]), s.ok(&["info", "-f", "{{.Name}}"]));
}

fn an_internal_network_has_no_way_out(s: &Scene<'_>) {
    network(s, "n", json!({ "Internal": true }));
    let id = on(s, "a", "n", &[]);
    assert_eq!(inspected(s, "n")["Internal"], true);
    let routes = s.ok(&["exec", &id, "ip", "route"]);
    assert!(!routes.contains("default"), "{routes}");
}

fn a_mac_address_can_be_asked_for(s: &Scene<'_>) {
    let mac = "02:42:ac:11:99:aa";
    let out = s.ok(&[
        "run",
        "--rm",
        "--name",
        &s.name("a"),
        "--mac-address",
        mac,
        "busybox",
        "cat",
        "/sys/class/net/eth0/address",
    ]);
    assert_eq!(out, mac);
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

fn extra_hosts_and_dns_are_written_down(s: &Scene<'_>) {
    let out = s.ok(&[
        "run",
        "--rm",
        "--name",
        &s.name("a"),
        "-h",
        "box",
        "--domainname",
        "example.org",
        "--add-host",
        "a.b:192.0.2.5",
        "--dns",
        "192.0.2.1",
        "--dns-search",
        "example.org",
        "--dns-opt",
        "ndots:3",
        "busybox",
        "cat",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/etc/hostname",
    ]);
    for line in [
        "192.0.2.5\ta.b",
        "box.example.org box",
        "nameserver 192.0.2.1",
        "search example.org",
        "options ndots:3",
    ] {
        assert!(out.contains(line), "{line}: {out}");
    }
    assert!(out.ends_with("\nbox"), "{out}");
    let gateway = s.ok(&[
        "run",
        "--rm",
        "--name",
        &s.name("b"),
        "--add-host",
        "up:host-gateway",
        "busybox",
        "grep",
        "up",
        "/etc/hosts",
    ]);
    assert!(
        gateway.split_whitespace().next().unwrap().parse::<std::net::IpAddr>().is_ok(),
        "{gateway}"
    );
}

fn links_are_written_down(s: &Scene<'_>) {
    let server = s.idle("server");
    let link = format!("{}:db", s.name("server"));
    let address = s.inspect(&server)["NetworkSettings"]["IPAddress"].as_str().unwrap().to_owned();
    let out = s.ok(&[
        "run",
        "--rm",
        "--name",
        &s.name("a"),
        "--link",
        &link,
        "busybox",
        "grep",
        "db",
        "/etc/hosts",
    ]);
    assert!(out.starts_with(&address), "{out}");
}

fn networks_tell_what_happened_to_them(s: &Scene<'_>) {
    let now = || s.get("/info").expect(200).json()["SystemTime"].as_str().unwrap().to_owned();
    let since = now();
    let id = network(s, "n", json!({}));
    let container = on(s, "a", "n", &[]);
    s.delete(&format!("/containers/{container}?force=1")).expect(204);
    s.delete(&format!("/networks/{id}")).expect(204);
    let filter = format!("network={id}");
    let out = s.ok(&[
        "events",
        "--since",
        &since,
        "--until",
        &now(),
        "--filter",
        &filter,
        "--format",
        "{{.Action}}",
    ]);
    assert_eq!(out, "create\nconnect\ndisconnect\ndestroy");
}

fn ipv6_is_given_where_it_is_asked_for(s: &Scene<'_>) {
    let config = json!([{ "Subnet": "10.216.0.0/24" }, { "Subnet": "fd00:216::/64" }]);
    network(s, "n", json!({ "EnableIPv6": true, "IPAM": { "Config": config } }));
    let id = on(s, "a", "n", &[]);
    let net = s.inspect(&id)["NetworkSettings"]["Networks"][s.name("n")].clone();
    assert!(net["GlobalIPv6Address"].as_str().unwrap().starts_with("fd00:216::"), "{net}");
    assert_eq!(
        (&net["GlobalIPv6PrefixLen"], &net["IPv6Gateway"]),
        (&json!(64), &json!("fd00:216::1"))
    );
    let other = on(s, "b", "n", &[]);
    s.ok(&["exec", &other, "ping", "-6", "-c1", "-W5", &s.name("a")]);
}

fn macvlan(s: &Scene<'_>, options: &Value, subnet: &str) -> Value {
    let config = json!([{ "Subnet": subnet }]);
    json!({
        "Name": s.name("n"), "Driver": "macvlan", "Options": options, "IPAM": { "Config": config },
    })
}

fn on_the_bridge(s: &Scene<'_>) {
    s.ok(&[
        "run",
        "-d",
        "--name",
        &s.name("up"),
        "--stop-signal",
        "KILL",
        "busybox",
        "sleep",
        "1000",
    ]);
}

fn a_macvlan_is_on_its_parents_ethernet(s: &Scene<'_>) {
    let bridge = s.get("/networks/bridge").expect(200).json();
    // An interface that every engine's host has, and that is up while somebody is on it.
    on_the_bridge(s);
    let parent = &bridge["Options"]["com.docker.network.bridge.name"];
    let options = json!({ "parent": parent, "macvlan_mode": "bridge" });
    let id = network(s, "n", macvlan(s, &options, "10.224.0.0/24"));
    let kept = inspected(s, "n");
    assert_eq!((&kept["Driver"], &kept["Options"]), (&json!("macvlan"), &options));
    assert_eq!(kept["IPAM"]["Config"], json!([{ "Subnet": "10.224.0.0/24" }]));
    let a = on(s, "a", "n", &["-p", "80", "--expose", "81"]);
    let seen = s.inspect(&a)["NetworkSettings"].clone();
    assert_eq!(seen["Ports"], json!({}));
    let net = &seen["Networks"][s.name("n")];
    assert_eq!((&net["IPAddress"], &net["Gateway"]), (&json!("10.224.0.2"), &json!("10.224.0.1")));
    let b = on(s, "b", "n", &["--ip", "10.224.0.77", "--mac-address", "02:00:00:00:00:77"]);
    s.ok(&["exec", &b, "ping", "-c", "1", "-W", "5", &s.name("a")]);
    let link = s.ok(&["exec", &b, "ip", "addr", "show", "eth0"]);
    assert!(link.contains("02:00:00:00:00:77") && link.contains("10.224.0.77/24"), "{link}");
    let passthru = json!({ "parent": parent, "macvlan_mode": "passthru" });
    let mut beside = macvlan(s, &passthru, "10.225.0.0/24");
    beside["Name"] = json!(s.name("m"));
    let said = s.post("/networks/create", &beside);
    let parent = parent.as_str().unwrap();
    assert_eq!(
        said.message(),
        format!(
            "cannot use mode passthru, macvlan network {id} is already using parent interface {parent}"
        )
    );
}

fn what_no_macvlan_can_be_is_refused_in_dockers_words(s: &Scene<'_>) {
    for (options, words) in [
        (
            json!({ "parent": "nope", "macvlan_mode": "fast" }),
            "requested macvlan mode 'fast' is not valid, 'bridge' mode is the macvlan driver default",
        ),
        (json!({ "parent": "lo" }), "loopback interface is not a valid macvlan parent link"),
        (
            json!({ "parent": "nope" }),
            "invalid subinterface vlan name nope, example formatting is eth0.10",
        ),
        (json!({ "parent": "nope.5" }), "-o parent interface was not found on the host: nope"),
        (json!({ "parent": "lo.4095" }), "vlan id must be between 1-4094, received: 4095"),
    ] {
        let said = s.post("/networks/create", &macvlan(s, &options, "10.226.0.0/24"));
        assert_eq!(said.message(), words);
    }
}
