//! Networks: made, told of, refused, removed.

use crate::{
    cases::cases,
    scene::{Scene, encoded},
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
    networks_tell_what_happened_to_them,
    a_macvlan_is_on_its_parents_ethernet,
    what_no_macvlan_can_be_is_refused_in_dockers_words,
}

/// A network called by `name(part)`; its id.
pub(super) fn network(s: &Scene<'_>, part: &str, mut body: Value) -> String {
    body["Name"] = json!(s.name(part));
    s.post("/networks/create", &body).expect(201).json()["Id"].as_str().unwrap().to_owned()
}

/// One that runs on that network, and may ping.
pub(super) fn on(s: &Scene<'_>, part: &str, net: &str, more: &[&str]) -> String {
    let (name, net) = (s.name(part), s.name(net));
    let own = ["run", "-d", "--name", &name, "--network", &net];
    let flags = [&own[..], &["--stop-signal", "KILL", "--cap-add", "NET_RAW"]].concat();
    s.ok(&[&flags[..], more, &["busybox", "sleep", "1000"]].concat())
}

pub(super) fn inspected(s: &Scene<'_>, part: &str) -> Value {
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
