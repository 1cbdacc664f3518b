//! Containers on networks: their addresses, their names, and whom they reach.

use crate::{
    cases::{
        cases,
        networks::{inspected, network, on},
    },
    scene::{Scene, wait_for},
};
use serde_json::json;

cases! { "networks":
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
    extra_hosts_and_dns_are_written_down,
    links_are_written_down,
    ipv6_is_given_where_it_is_asked_for,
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
