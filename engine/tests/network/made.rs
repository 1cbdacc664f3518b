//! Networks that users make.

use crate::host::*;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use tritium_engine::{
    ids::TenantName,
    network::{AttachRequest, Attachment, Definition, EndpointRequest, Error, PublishRequest},
};

#[test]
fn networks_of_one_tenant_are_apart_but_for_published_ports() {
    on_a_host(|_| async {
        let networks = start("t0").await;
        for name in ["one", "two"] {
            networks.create(network(name, "default", &[])).await.unwrap();
        }
        let a = networks.attach(&on_all(&["one"], &[tcp(8080, 80)])).await.unwrap();
        let b = networks.attach(&on_all(&["two"], &[])).await.unwrap();
        let both = networks.attach(&on_all(&["two", "one"], &[])).await.unwrap();
        assert_eq!(
            both.endpoints.iter().map(|it| it.interface.as_str()).collect::<Vec<_>>(),
            ["eth0", "eth1"]
        );
        serve_tcp(&a.netns, 80);
        let gateway = a.endpoints[0].gateway.unwrap();
        inside(&b.netns, || {
            call_tcp(address(&a), 80).unwrap_err();
            assert_eq!(call_tcp(HOST, 8080).unwrap(), gateway);
            assert_eq!(call_tcp(gateway, 8080).unwrap(), gateway);
        });
        let there = both.endpoints[1].address.unwrap();
        assert_eq!(inside(&both.netns, || call_tcp(address(&a), 80)).unwrap(), there);
    });
}

#[test]
fn a_dual_stack_network_speaks_both_versions_of_ip() {
    on_a_host(|outside| async move {
        run("ip addr add 2001:db8::1/64 dev up0 nodad");
        inside(&outside.0, || run("ip addr add 2001:db8::2/64 dev out0 nodad"));
        let [host, out]: [Ipv6Addr; 2] =
            ["2001:db8::1", "2001:db8::2"].map(|ip| ip.parse().unwrap());
        let networks = start("t0").await;
        let made = networks.create(network("six", "default", &["10.9.0.0/24", "fd09::/64"])).await;
        assert_eq!(made.unwrap().pools[1].gateway, Some("fd09::1".parse().unwrap()));
        let ports = [tcp(8080, 80), udp(5353, 53)];
        let a = networks.attach(&on_all(&["six"], &ports)).await.unwrap();
        let b = networks.attach(&on_all(&["six"], &[])).await.unwrap();
        let hosts: Vec<String> = a.ports.iter().map(|port| port.host_ip.to_string()).collect();
        assert_eq!(hosts, ["0.0.0.0", "::", "0.0.0.0", "::"]);
        serve_tcp(&a.netns, 80);
        serve_tcp6(&a.netns, 80);
        serve_tcp6(&outside.0, 81);
        let gateway = "fd09::1".parse::<Ipv6Addr>().unwrap();
        until("IPv6 is up", || inside(&b.netns, || call_tcp6(address6(&a), 80)).is_ok());
        assert_eq!(inside(&b.netns, || call_tcp6(address6(&a), 80)).unwrap(), address6(&b));
        assert_eq!(inside(&b.netns, || call_tcp6(out, 81)).unwrap(), host, "the way out");
        assert_eq!(inside(&outside.0, || call_tcp6(host, 8080)).unwrap(), out, "from outside");
        assert_eq!(inside(&outside.0, || call_tcp(HOST, 8080)).unwrap(), OUTSIDE);
        assert_eq!(call_tcp6(host, 8080).unwrap(), host, "from the host by its address");
        let loopback = call_tcp6(Ipv6Addr::LOCALHOST, 8080).unwrap_err();
        assert_eq!(loopback.kind(), std::io::ErrorKind::ConnectionRefused);
        for target in [host, gateway] {
            assert_eq!(inside(&b.netns, || call_tcp6(target, 8080)).unwrap(), gateway, "a sibling");
            assert_eq!(inside(&a.netns, || call_tcp6(target, 8080)).unwrap(), gateway, "itself");
        }
        inside(&outside.0, || {
            run("ip route add fd09::/64 via 2001:db8::1");
            call_tcp6(address6(&a), 80).unwrap_err();
        });
    });
}

#[test]
fn tenants_share_no_path_of_ipv6_nor_a_gateways_address() {
    on_a_host(|_| async {
        let networks = start("t0").await;
        networks.create(network("n", "red", &["10.9.0.0/24", "fd09::/64"])).await.unwrap();
        networks.create(network("n", "blue", &["10.8.0.0/24", "fd08::/64"])).await.unwrap();
        let on_n = |tenant: &str| AttachRequest { endpoints: vec![on("n")], ..of(tenant, &[]) };
        let a = networks.attach(&on_n("red")).await.unwrap();
        let b = networks.attach(&on_n("blue")).await.unwrap();
        let again = networks.attach(&on_n("blue")).await.unwrap();
        serve_tcp(&a.netns, 80);
        serve_tcp6(&a.netns, 80);
        serve_tcp6(&again.netns, 80);
        let everywhere = (Ipv6Addr::UNSPECIFIED, 7);
        let _host = (TcpListener::bind(everywhere).unwrap(), serve_tcp6_here(90));
        until("IPv6 is up", || inside(&b.netns, || call_tcp6(address6(&again), 80)).is_ok());
        inside(&b.netns, || {
            call_tcp6(address6(&a), 80).unwrap_err();
            call_tcp(address(&a), 80).unwrap_err();
            call_tcp6("fd08::1".parse().unwrap(), 90).unwrap();
            call_tcp6("fd09::1".parse().unwrap(), 90).unwrap_err();
            run("ip -6 neigh flush all");
            let multicast = "busybox ping -6 -c1 -W1 ff02::1%eth0";
            let said = std::process::Command::new("sh").args(["-c", multicast]).output().unwrap();
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            assert!(!said.contains(&link_local(&a)), "{said}");
        });
    });
}

fn link_local(attachment: &Attachment) -> String {
    let [a, b, c, d, e, f] = attachment.endpoints[0].mac.0;
    let halves = [
        u16::from(a ^ 2) << 8 | u16::from(b),
        u16::from(c) << 8 | 0xff,
        0xfe00 | u16::from(d),
        u16::from(e) << 8 | u16::from(f),
    ];
    Ipv6Addr::new(0xfe80, 0, 0, 0, halves[0], halves[1], halves[2], halves[3]).to_string()
}

#[test]
fn an_internal_network_has_no_way_out_and_an_icy_one_none_within() {
    on_a_host(|outside| async move {
        let networks = start("t0").await;
        let inner = Definition { internal: true, ..network("inner", "default", &[]) };
        networks.create(inner).await.unwrap();
        let icc = "com.docker.network.bridge.enable_icc";
        let icy = with_option(network("icy", "default", &[]), icc, "false");
        networks.create(icy).await.unwrap();
        serve_tcp(&outside.0, 81);
        let a = networks.attach(&on_all(&["inner"], &[tcp(8080, 80)])).await.unwrap();
        assert_eq!((a.endpoints[0].gateway, a.ports.len()), (None, 0));
        let b = networks.attach(&on_all(&["inner"], &[])).await.unwrap();
        serve_tcp(&a.netns, 80);
        inside(&b.netns, || {
            call_tcp(address(&a), 80).unwrap();
            let gateway = Ipv4Addr::from(u32::from(address(&a)) & !0xf | 1);
            run(&format!("ip route add default via {gateway}"));
            call_tcp(OUTSIDE, 81).unwrap_err();
        });
        let c = networks.attach(&on_all(&["icy"], &[tcp(8081, 80)])).await.unwrap();
        let d = networks.attach(&on_all(&["icy"], &[])).await.unwrap();
        serve_tcp(&c.netns, 80);
        inside(&outside.0, || call_tcp(HOST, 8081)).unwrap();
        inside(&d.netns, || {
            call_tcp(OUTSIDE, 81).unwrap();
            call_tcp(address(&c), 80).unwrap_err();
            // Nor round by the gateway.
            run(&format!("ip route add {} via {}", address(&c), d.endpoints[0].gateway.unwrap()));
            call_tcp(address(&c), 80).unwrap_err();
        });
    });
}

#[test]
fn ports_and_the_way_out_follow_the_networks_that_a_container_is_on() {
    on_a_host(|outside| async move {
        let networks = start("t0").await;
        for (name, subnets) in
            [("one", &["10.1.0.0/24"][..]), ("six", &["10.2.0.0/24", "fd02::/64"])]
        {
            networks.create(network(name, "default", subnets)).await.unwrap();
        }
        let any = PublishRequest { host_port: None, ..tcp(0, 80) };
        let request = on_all(&["one"], &[tcp(8080, 80), any]);
        let attachment = networks.attach(&request).await.unwrap();
        let operator = TenantName::operator();
        let netns = || attachment.netns.try_clone().unwrap();
        serve_tcp(&attachment.netns, 80);
        let connected = networks
            .connect((request.container, &operator), on("six"), Vec::new(), netns())
            .await
            .unwrap();
        assert_eq!(connected.endpoint.interface, "eth1");
        let shown: Vec<String> =
            connected.ports.iter().map(|it| format!("{} {}", it.host_ip, it.host_port)).collect();
        assert_eq!(shown, ["0.0.0.0 8080", ":: 8080", "0.0.0.0 32768", ":: 32768"]);
        let route = || inside(&attachment.netns, || run("ip route show default"));
        assert_eq!(route(), "default via 10.2.0.1 dev eth1 \n");
        assert!(run("nft list ruleset").contains("10.2.0.2 . 80"));
        inside(&outside.0, || call_tcp(HOST, 8080)).unwrap();
        let six = connected.endpoint.network_id;
        let left = networks.disconnect(request.container, six, netns()).await.unwrap();
        assert_eq!(left.len(), 2);
        assert_eq!(route(), "default via 10.1.0.1 dev eth0 \n");
        inside(&outside.0, || call_tcp(HOST, 8080)).unwrap();
        networks.disconnect(request.container, six, netns()).await.unwrap_err();
        let one = attachment.endpoints[0].network_id;
        assert_eq!(networks.disconnect(request.container, one, netns()).await.unwrap(), []);
        inside(&outside.0, || call_tcp(HOST, 8080)).unwrap_err();
        let links = inside(&attachment.netns, || run("ip -o link"));
        assert_eq!(links.lines().count(), 1, "{links}");
        networks
            .connect((request.container, &operator), on("one"), Vec::new(), netns())
            .await
            .unwrap();
        inside(&outside.0, || call_tcp(HOST, 8080)).unwrap();
    });
}

#[test]
fn a_network_that_cannot_be_made_or_joined_leaves_nothing() {
    on_a_host(|_| async {
        let networks = start("t0").await;
        until("two wait ready, with the bridge, the cable and lo", || inventory().links.len() == 5);
        let before = inventory();
        let subnet = &["10.7.0.0/24"];
        run("ip link add taken type bridge");
        let name = "com.docker.network.bridge.name";
        let taken = with_option(network("n", "default", subnet), name, "taken");
        networks.create(taken).await.unwrap_err();
        run("ip link del taken");
        // The kernel refuses so short a packet's length for IPv6; it fails half way.
        let mtu = "com.docker.network.driver.mtu";
        let small = with_option(network("n", "default", &["fd07::/64"]), mtu, "1000");
        networks.create(small).await.unwrap_err();
        // An element that is there already: this fails at the very last step.
        run("nft add element ip t0 gateways { 10.7.0.1 }");
        let meddled = inventory();
        networks.create(network("n", "default", subnet)).await.unwrap_err();
        assert_eq!(inventory(), meddled);
        run("nft delete element ip t0 gateways { 10.7.0.1 }");
        assert_eq!(inventory(), before);
        let made = networks.create(network("n", "default", subnet)).await.unwrap();
        let there = inventory();
        for (bad, subnets) in [("n", &["10.6.0.0/24"]), ("m", &["10.7.0.128/25"])] {
            networks.create(network(bad, "default", subnets)).await.unwrap_err();
        }
        networks.create(network("n", "red", &["198.51.100.0/25"])).await.unwrap_err();
        let wanted = EndpointRequest { ipv4: Some([10, 7, 0, 1].into()), ..on("n") };
        let request =
            AttachRequest { endpoints: vec![on("bridge"), wanted], ..bridged(&[tcp(80, 80)]) };
        assert_eq!(
            networks.attach(&request).await.unwrap_err().to_string(),
            "Address already in use"
        );
        let request = on_all(&["n", "nope"], &[tcp(80, 80)]);
        assert_eq!(
            networks.attach(&request).await.unwrap_err().to_string(),
            "network nope not found"
        );
        // (Those that wait ready are others by now.)
        let shape = |all: Inventory| (all.links.len(), all.rules);
        let there = shape(there);
        until("half-made interfaces are gone", || shape(inventory()) == there);
        let foreign = AttachRequest { endpoints: vec![on("n")], ..of("red", &[]) };
        assert_eq!(networks.attach(&foreign).await.unwrap_err().to_string(), "network n not found");
        let attached = networks.attach(&on_all(&["n"], &[])).await.unwrap();
        assert_eq!(attached.endpoints[0].address, Some([10, 7, 0, 2].into()));
        // A chosen address is had again at once by a container that restarts.
        let chosen = EndpointRequest { ipv4: Some([10, 7, 0, 99].into()), ..on("n") };
        let request = AttachRequest { endpoints: vec![chosen], ..bridged(&[]) };
        for _ in 0..10 {
            let attachment = networks.attach(&request).await.unwrap();
            networks.detach(request.container, None).await.unwrap();
            drop(attachment);
        }
        assert!(matches!(networks.retire(made.id).await, Err(Error::Active { .. })));
    });
}
