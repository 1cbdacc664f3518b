//! The networks, with real packets, each test on a host of its own. Needs root,
//! `ip` and `nft`.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
#![expect(unreachable_pub, reason = "the test's own module is no library")]

#[path = "network/dns.rs"]
mod dns;
#[path = "network/host.rs"]
mod host;

use host::*;
use std::{
    net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket},
    time::Instant,
};
use tritium_engine::{
    ids::{NetworkId, TenantName, random},
    network::{
        AddressPool, AttachRequest, Attachment, Definition, Driver, EndpointRequest, Error,
        Network, Networks, Proto, PublishRequest, Running,
    },
};

fn none() -> AttachRequest {
    AttachRequest { endpoints: Vec::new(), ..bridged(&[]) }
}

async fn default_of(networks: &Networks, tenant: &TenantName) -> Network {
    networks.list(tenant).await.unwrap().swap_remove(0)
}

fn gateway_of(network: &Network) -> Ipv4Addr {
    let gateway = network.definition.pools[0].gateway.unwrap();
    gateway.to_string().parse().unwrap()
}

fn of(tenant: &str, ports: &[PublishRequest]) -> AttachRequest {
    AttachRequest { tenant: tenant.parse().unwrap(), ..bridged(ports) }
}

#[test]
fn without_a_network_there_is_only_loopback() {
    on_a_host(|_| async {
        let networks = start("t0").await;
        let attachment = networks.attach(&none()).await.unwrap();
        assert_eq!(attachment.endpoints, []);
        let links = inside(&attachment.netns, || run("ip -o link"));
        assert_eq!(links.lines().count(), 1, "{links}");
        assert!(links.contains("LOOPBACK,UP"), "{links}");
        let unprivileged = ["ip_unprivileged_port_start", "ping_group_range"];
        let sysctls = unprivileged.map(|name| format!("sysctl -n net.ipv4.{name}"));
        let values = inside(&attachment.netns, || sysctls.map(|sysctl| run(&sysctl)));
        assert_eq!(values, ["0\n", "0\t2147483647\n"]);
    });
}

#[test]
fn a_container_gets_the_next_address_and_a_way_out_behind_the_hosts() {
    on_a_host(|outside| async move {
        let networks = start("t0").await;
        serve_tcp(&outside.0, 80);
        serve_udp(&outside.0, 53);
        for last in 2..6 {
            let attachment = networks.attach(&bridged(&[])).await.unwrap();
            let endpoint = &attachment.endpoints[0];
            assert_eq!(endpoint.address, Some(Ipv4Addr::new(172, 17, 0, last)));
            assert_eq!(endpoint.mac.to_string(), format!("02:42:ac:11:00:0{last}"));
            inside(&attachment.netns, || {
                let link = run("ip -o link show eth0");
                assert!(link.contains(&endpoint.mac.to_string()), "{link}");
                let addresses = run("ip -o addr show eth0");
                assert!(addresses.contains(&format!("inet 172.17.0.{last}/16")), "{addresses}");
                assert!(!addresses.contains("inet6"), "{addresses}");
                assert_eq!(run("ip route show default"), "default via 172.17.0.1 dev eth0 \n");
                assert_eq!(call_tcp(OUTSIDE, 80).unwrap(), HOST);
                assert_eq!(call_udp(OUTSIDE, 53).unwrap(), HOST);
            });
        }
    });
}

#[test]
fn containers_of_one_tenant_reach_each_other_and_the_host() {
    on_a_host(|_| async {
        let networks = start("t0").await;
        let a = networks.attach(&bridged(&[])).await.unwrap();
        let b = networks.attach(&bridged(&[])).await.unwrap();
        serve_tcp(&b.netns, 80);
        assert_eq!(inside(&a.netns, || call_tcp(address(&b), 80)).unwrap(), address(&a));
        let listener = TcpListener::bind("172.17.0.1:81").unwrap();
        let gateway = listener.local_addr().unwrap();
        inside(&a.netns, || std::net::TcpStream::connect(gateway).map(drop)).unwrap();
    });
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    on_a_host(|outside| async move {
        let networks = start("t0").await;
        let a = networks.attach(&bridged(&[tcp(8080, 80), udp(5353, 53)])).await.unwrap();
        let b = networks.attach(&bridged(&[])).await.unwrap();
        serve_tcp(&a.netns, 80);
        serve_udp(&a.netns, 53);
        let gateway = Ipv4Addr::new(172, 17, 0, 1);
        for call in [|ip| call_tcp(ip, 8080), |ip| call_udp(ip, 5353)] {
            assert_eq!(inside(&outside.0, || call(HOST)).unwrap(), OUTSIDE, "from outside");
            assert_eq!(call(HOST).unwrap(), HOST, "from the host by its address");
            assert_eq!(call(LOCALHOST).unwrap(), gateway, "from the host by loopback");
            for target in [HOST, gateway] {
                assert_eq!(inside(&b.netns, || call(target)).unwrap(), gateway, "a sibling");
                assert_eq!(inside(&a.netns, || call(target)).unwrap(), gateway, "itself");
            }
        }
    });
}

#[test]
fn a_port_published_on_one_address_is_not_on_another() {
    on_a_host(|outside| async move {
        let networks = start("t0").await;
        let local = PublishRequest { host_ip: Some(LOCALHOST.into()), ..tcp(8080, 80) };
        let cable = PublishRequest { host_ip: Some(HOST.into()), ..tcp(8081, 80) };
        let a = networks.attach(&bridged(&[local, cable])).await.unwrap();
        serve_tcp(&a.netns, 80);
        call_tcp(LOCALHOST, 8080).unwrap();
        call_tcp(HOST, 8080).unwrap_err();
        inside(&outside.0, || call_tcp(HOST, 8080)).unwrap_err();
        call_tcp(HOST, 8081).unwrap();
        inside(&outside.0, || call_tcp(HOST, 8081)).unwrap();
        call_tcp(LOCALHOST, 8081).unwrap_err();
    });
}

#[test]
fn what_is_not_published_is_not_reached_from_outside() {
    on_a_host(|outside| async move {
        let networks = start("t0").await;
        let a = networks.attach(&bridged(&[tcp(8080, 80)])).await.unwrap();
        serve_tcp(&a.netns, 80);
        serve_tcp(&a.netns, 81);
        inside(&outside.0, || {
            run(&format!("ip route add 172.16.0.0/12 via {HOST}"));
            call_tcp(HOST, 8080).unwrap();
            call_tcp(address(&a), 81).unwrap_err();
            call_tcp(address(&a), 80).unwrap_err();
            call_tcp(HOST, 80).unwrap_err();
        });
    });
}

#[test]
fn a_container_does_not_reach_the_hosts_loopback() {
    on_a_host(|_| async {
        let networks = start("t0").await;
        let a = networks.attach(&bridged(&[])).await.unwrap();
        let _listener = TcpListener::bind((LOCALHOST, 9000)).unwrap();
        inside(&a.netns, || {
            std::fs::File::options()
                .write(true)
                .open("/proc/sys/net/ipv4/conf/all/route_localnet")
                .and_then(|mut file| std::io::Write::write_all(&mut file, b"1"))
                .unwrap();
            run("ip addr del 127.0.0.1/8 dev lo");
            run("ip route add 127.0.0.0/8 via 172.17.0.1");
            let reached = std::net::TcpStream::connect_timeout(
                &(LOCALHOST, 9000).into(),
                std::time::Duration::from_millis(400),
            );
            reached.unwrap_err();
        });
    });
}

#[test]
fn one_tenants_containers_do_not_reach_anothers() {
    on_a_host(|outside| async move {
        let networks = start("t0").await;
        let a = networks.attach(&of("red", &[tcp(8080, 80), udp(5353, 53)])).await.unwrap();
        let b = networks.attach(&of("blue", &[])).await.unwrap();
        let [red, blue] = ["red", "blue"].map(|name| name.parse::<TenantName>().unwrap());
        let (red, blue) = (default_of(&networks, &red).await, default_of(&networks, &blue).await);
        assert_ne!((red.definition.id, &red.bridge), (blue.definition.id, &blue.bridge));
        let [subnet, other] = [&red, &blue].map(|network| network.definition.pools[0].subnet);
        assert!(!subnet.contains(&other) && !other.contains(&subnet));
        assert_eq!(red.endpoints.len(), 1);
        serve_tcp(&a.netns, 80);
        serve_udp(&a.netns, 53);
        inside(&outside.0, || call_tcp(HOST, 8080)).unwrap();
        inside(&outside.0, || call_udp(HOST, 5353)).unwrap();
        inside(&b.netns, || {
            call_tcp(address(&a), 80).unwrap_err();
            call_udp(address(&a), 53).unwrap_err();
            // What is published is everybody's, but never by an address of the other's.
            for host in [HOST, gateway_of(&blue)] {
                assert_eq!(call_tcp(host, 8080).unwrap(), gateway_of(&red));
                assert_eq!(call_udp(host, 5353).unwrap(), gateway_of(&red));
            }
            call_tcp(gateway_of(&red), 8080).unwrap_err();
            call_udp(gateway_of(&red), 5353).unwrap_err();
        });
    });
}

#[test]
fn a_port_is_had_by_one_at_a_time() {
    on_a_host(|_| async {
        let networks = start("t0").await;
        let first = bridged(&[tcp(8080, 80)]);
        networks.attach(&first).await.unwrap();
        let refused = networks.attach(&bridged(&[tcp(8080, 81)])).await.unwrap_err().to_string();
        assert_eq!(refused, "Bind for 0.0.0.0:8080 failed: port is already allocated");
        let twice = networks.attach(&bridged(&[udp(9, 9), udp(9, 10)])).await.unwrap_err();
        assert_eq!(twice.to_string(), "Bind for 0.0.0.0:9 failed: port is already allocated");
        let others = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080));
        assert_eq!(others.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
        networks.attach(&bridged(&[udp(8080, 80)])).await.unwrap();
        networks.detach(first.container).await.unwrap();
        networks.attach(&bridged(&[tcp(8080, 81)])).await.unwrap();
    });
}

#[test]
fn a_port_that_the_host_uses_is_refused() {
    on_a_host(|_| async {
        let networks = start("t0").await;
        let _tcp = TcpListener::bind((LOCALHOST, 8080)).unwrap();
        let _udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).unwrap();
        for (request, words) in [
            (tcp(8080, 80), ["0.0.0.0:8080:172.17.0.", ":80/tcp: address already in use"]),
            (udp(53, 5353), ["0.0.0.0:53:172.17.0.", ":5353/udp: address already in use"]),
        ] {
            let refused = networks.attach(&bridged(&[request])).await.unwrap_err().to_string();
            let rest = refused.strip_prefix("failed to bind host port for ").unwrap();
            assert!(rest.starts_with(words[0]) && rest.ends_with(words[1]), "{refused}");
        }
        let nowhere = PublishRequest { host_ip: Some("203.0.113.9".parse().unwrap()), ..tcp(1, 1) };
        let refused = networks.attach(&bridged(&[nowhere])).await.unwrap_err().to_string();
        assert!(refused.ends_with("cannot assign requested address"), "{refused}");
        let v6 = PublishRequest { host_ip: Some("::".parse().unwrap()), ..tcp(1, 1) };
        let refused = networks.attach(&bridged(&[v6])).await.unwrap_err();
        assert!(matches!(refused, Error::NoIpv6(_)), "{refused}");
        // Nor is an address lost.
        let request = bridged(&[]);
        while address(&networks.attach(&request).await.unwrap()).octets()[3] != 2 {
            networks.detach(request.container).await.unwrap();
        }
    });
}

#[test]
fn a_port_that_nobody_chose_is_ephemeral_and_of_a_range_the_first_free() {
    on_a_host(|_| async {
        let networks = start("t0").await;
        let any = PublishRequest { host_port: None, ..tcp(0, 80) };
        let zero = PublishRequest { host_port: Some(0..=0), ..udp(0, 80) };
        let range = PublishRequest { host_port: Some(8000..=8001), ..tcp(0, 80) };
        let mut seen = Vec::new();
        for _ in 0..2 {
            let request = bridged(&[any.clone(), zero.clone(), range.clone()]);
            let attachment = networks.attach(&request).await.unwrap();
            seen.push([0, 1, 2].map(|nth: usize| attachment.ports[nth].host_port));
        }
        assert_eq!(seen, [[32768, 32768, 8000], [32769, 32769, 8001]]);
        let full = networks.attach(&bridged(&[range])).await.unwrap_err().to_string();
        assert_eq!(full, "all ports are allocated");
    });
}

#[test]
fn everything_goes_again() {
    on_a_host(|_| async {
        let before = inventory();
        let forwarding = run("sysctl -n net.ipv4.ip_forward");
        let networks = start("t0").await;
        let built = run("nft list ruleset");
        let request = bridged(&[tcp(8080, 80), udp(8080, 80)]);
        for _ in 0..3 {
            let attachment = networks.attach(&request).await.unwrap();
            let endpoint = &attachment.endpoints[0];
            assert!(run("nft list ruleset").contains(&address(&attachment).to_string()));
            networks.detach(request.container).await.unwrap();
            networks.detach(request.container).await.unwrap();
            assert_eq!(run("nft list ruleset"), built);
            until("its interface is gone", || {
                !inventory().links.contains(&endpoint.host_interface)
            });
        }
        networks.attach(&of("red", &[tcp(80, 80)])).await.unwrap();
        networks.remove_all().await.unwrap();
        assert_eq!(inventory(), before);
        assert_eq!(run("sysctl -n net.ipv4.ip_forward"), forwarding);
        networks.attach(&bridged(&[])).await.unwrap_err();
    });
}

#[test]
fn nothing_is_left_of_an_attachment_that_fails_half_way() {
    on_a_host(|_| async {
        let networks = start("t0").await;
        let built = run("nft list ruleset");
        // The kernel takes no multicast address for an interface's own: this
        // fails inside the namespace, after ports and address were taken.
        let mac = Some("01:00:5e:00:00:01".parse().unwrap());
        let request = AttachRequest {
            endpoints: vec![EndpointRequest { mac, ..on("bridge") }],
            ..bridged(&[tcp(8080, 80)])
        };
        networks.attach(&request).await.unwrap_err();
        assert_eq!(run("nft list ruleset"), built);
        // An element that is there already: this fails at the very last step.
        run("nft add element ip t0 published { tcp . 8081 : 172.17.9.9 . 80 }");
        let meddled = run("nft list ruleset");
        networks.attach(&bridged(&[tcp(8080, 80), tcp(8081, 80)])).await.unwrap_err();
        assert_eq!(run("nft list ruleset"), meddled);
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).unwrap();
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8081)).unwrap();
        let describe = default_of(&networks, &TenantName::operator()).await;
        assert_eq!(describe.endpoints, []);
        // An address is free again as soon as the interface that had it is gone.
        let request = bridged(&[tcp(8080, 80)]);
        while address(&networks.attach(&request).await.unwrap()).octets()[3] != 2 {
            networks.detach(request.container).await.unwrap();
        }
        networks.detach(request.container).await.unwrap();
        // lo, the cable, the bridge, and the two that wait ready.
        until("only prepared interfaces are left", || inventory().links.len() == 5);
    });
}

#[test]
fn a_caller_that_goes_away_leaves_nothing_attached() {
    on_a_host(|_| async {
        let networks = start("t0").await;
        let built = run("nft list ruleset");
        for _ in 0..20 {
            let request = bridged(&[tcp(8080, 80)]);
            let attaching = networks.attach(&request);
            // Polled once, so that the owner has been asked; then dropped.
            tokio::select! { biased; done = attaching => drop(done), () = async {} => {} }
            let describe = default_of(&networks, &TenantName::operator()).await;
            if describe.endpoints.is_empty() {
                assert_eq!(run("nft list ruleset"), built);
            } else {
                networks.detach(request.container).await.unwrap();
            }
        }
    });
}

#[test]
fn the_next_engine_serves_exactly_what_still_runs() {
    on_a_host(|outside| async move {
        let first = start("t0").await;
        let (kept, dead) = (bridged(&[tcp(8080, 80)]), of("red", &[tcp(8081, 80)]));
        let lives = first.attach(&kept).await.unwrap();
        let died = first.attach(&dead).await.unwrap();
        serve_tcp(&lives.netns, 80);
        first.stop();
        until("the first has let go of its ports", || {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8081)).is_ok()
        });
        inside(&outside.0, || call_tcp(HOST, 8080)).unwrap();
        let gone = died.endpoints[0].host_interface.clone();
        let running = Running {
            container: kept.container,
            tenant: kept.tenant.clone(),
            endpoints: lives.endpoints.clone(),
            wanted: kept.ports.clone(),
            ports: lives.ports.clone(),
        };
        let second = Networks::start(config("t0"), &tokio_util::task::TaskTracker::new()).await;
        let second = second.unwrap();
        inside(&outside.0, || call_tcp(HOST, 8080)).unwrap();
        assert_eq!(second.readopt(Vec::new(), vec![running]).await.unwrap(), []);
        inside(&outside.0, || call_tcp(HOST, 8080)).unwrap();
        let rules = run("nft list ruleset");
        assert!(rules.contains("tcp . 8080") && !rules.contains("8081"), "{rules}");
        until("the dead one's interface is gone", || !inventory().links.contains(&gone));
        let next = second.attach(&bridged(&[])).await.unwrap();
        assert_eq!(address(&next), Ipv4Addr::new(172, 17, 0, 3));
        second.attach(&bridged(&[tcp(8080, 80)])).await.unwrap_err();
        second.detach(kept.container).await.unwrap();
        second.attach(&bridged(&[tcp(8080, 80)])).await.unwrap();
        second.attach(&of("red", &[tcp(8081, 80)])).await.unwrap();
    });
}

#[test]
#[ignore = "the engine that another test kills"]
fn an_engine_that_waits_to_be_killed() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let networks = start("t0").await;
        let _attachment = networks.attach(&bridged(&[tcp(8080, 80)])).await.unwrap();
        std::future::pending::<()>().await;
    });
}

#[test]
fn a_killed_engine_leaves_only_what_the_next_one_finds() {
    on_a_host(|_| async {
        let before = inventory();
        let mut killed = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "an_engine_that_waits_to_be_killed"])
            .spawn()
            .unwrap();
        until("it has published a port", || inventory().rules.contains("tcp . 8080"));
        killed.kill().unwrap();
        killed.wait().unwrap();
        // Nobody holds a namespace any more, neither its container nor its pool.
        until("all but the bridge is gone", || inventory().links == ["lo", "t0", "up0"]);
        assert!(inventory().rules.contains("tcp . 8080"));
        let networks = start("t0").await;
        assert!(!inventory().rules.contains("8080"));
        networks.attach(&bridged(&[tcp(8080, 80)])).await.unwrap();
        networks.remove_all().await.unwrap();
        assert_eq!(inventory(), before);
    });
}

#[test]
fn a_port_that_was_lost_while_no_engine_ran_is_told() {
    on_a_host(|_| async {
        let first = start("t0").await;
        let request = bridged(&[tcp(8080, 80)]);
        let attachment = first.attach(&request).await.unwrap();
        first.stop();
        let mut thief = None;
        until("the port is free", || {
            thief = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).ok();
            thief.is_some()
        });
        let second = Networks::start(config("t0"), &tokio_util::task::TaskTracker::new()).await;
        let running = Running {
            container: request.container,
            tenant: request.tenant,
            endpoints: attachment.endpoints,
            wanted: request.ports,
            ports: attachment.ports.clone(),
        };
        let lost = second.unwrap().readopt(Vec::new(), vec![running]).await.unwrap();
        assert_eq!(lost, [(request.container, attachment.ports[0])]);
        assert!(!run("nft list ruleset").contains("8080"));
    });
}

#[test]
fn two_engines_do_not_disturb_each_other() {
    on_a_host(|outside| async move {
        let first = start("t0").await;
        let a = first.attach(&bridged(&[tcp(8080, 80)])).await.unwrap();
        let alone = run("nft list ruleset");
        let second = start("t1").await;
        let b = second.attach(&bridged(&[tcp(8081, 80)])).await.unwrap();
        assert_ne!(address(&a), address(&b));
        second.attach(&bridged(&[tcp(8080, 80)])).await.unwrap_err();
        serve_tcp(&a.netns, 80);
        serve_tcp(&b.netns, 80);
        inside(&outside.0, || {
            call_tcp(HOST, 8080).unwrap();
            call_tcp(HOST, 8081).unwrap();
        });
        second.remove_all().await.unwrap();
        assert_eq!(run("nft list ruleset"), alone);
        inside(&outside.0, || call_tcp(HOST, 8080)).unwrap();
    });
}

#[test]
fn a_host_that_forwarded_nothing_does_not_become_a_router() {
    on_a_host(|outside| async move {
        let (host, other) = (Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(203, 0, 113, 2));
        let neighbour = another_outside();
        plug(&neighbour, "up1", host, other);
        inside(&outside.0, || run(&format!("ip route add 203.0.113.0/24 via {HOST}")));
        inside(&neighbour.0, || run(&format!("ip route add 198.51.100.0/24 via {host}")));
        serve_tcp(&neighbour.0, 80);
        let across = || inside(&outside.0, || call_tcp(other, 80));
        // A new namespace has what the machine's first one has.
        run("sysctl -w net.ipv4.ip_forward=0");
        across().unwrap_err();
        let networks = start("t0").await;
        assert_eq!(run("sysctl -n net.ipv4.ip_forward"), "1\n");
        across().unwrap_err();
        let container = networks.attach(&bridged(&[])).await.unwrap();
        inside(&container.netns, || call_tcp(other, 80)).unwrap();
        // Also after a restart, when forwarding is found on.
        networks.stop();
        let networks = start("t0").await;
        across().unwrap_err();
        networks.remove_all().await.unwrap();
        assert_eq!(run("sysctl -n net.ipv4.ip_forward"), "0\n");
        // A host that was a router stays one.
        run("sysctl -qw net.ipv4.ip_forward=1");
        across().unwrap();
        let networks = start("t0").await;
        across().unwrap();
        networks.remove_all().await.unwrap();
        across().unwrap();
    });
}

#[test]
fn a_firewall_that_somebody_emptied_is_built_anew() {
    on_a_host(|outside| async move {
        let networks = start("t0").await;
        let a = networks.attach(&bridged(&[tcp(8080, 80)])).await.unwrap();
        serve_tcp(&a.netns, 80);
        run("nft flush ruleset");
        inside(&outside.0, || call_tcp(HOST, 8080)).unwrap_err();
        networks.attach(&bridged(&[tcp(8081, 80)])).await.unwrap();
        inside(&outside.0, || call_tcp(HOST, 8080)).unwrap();
    });
}

#[test]
fn a_foreign_interface_of_the_bridges_name_is_left_alone() {
    on_a_host(|_| async {
        run("ip link add t0 type bridge");
        let refused = Networks::start(config("t0"), &tokio_util::task::TaskTracker::new()).await;
        assert!(matches!(refused, Err(Error::ForeignInterface(_))));
        run("ip link show t0");
    });
}

#[test]
fn a_subnet_that_the_host_routes_is_not_taken() {
    on_a_host(|_| async {
        run(&format!("ip route add 172.17.128.0/20 via {OUTSIDE}"));
        let networks = start("t0").await;
        let network = default_of(&networks, &TenantName::operator()).await;
        assert_eq!(network.definition.pools[0].subnet.to_string(), "172.18.0.0/16");
        assert_eq!(gateway_of(&network), Ipv4Addr::new(172, 18, 0, 1));
    });
}

#[test]
fn datagrams_of_a_client_that_never_stops_follow_the_port() {
    on_a_host(|outside| async move {
        let networks = start("t0").await;
        let client = inside(&outside.0, || UdpSocket::bind((OUTSIDE, 5000)).unwrap());
        client.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
        let answered = || {
            // Refused while nobody has the port.
            drop(client.send_to(b"?", (HOST, 5353)));
            client.recv(&mut [0; 32]).is_ok()
        };
        assert!(!answered());
        for last in [2, 3] {
            let request = AttachRequest {
                endpoints: vec![EndpointRequest {
                    ipv4: Some([172, 17, 0, last].into()),
                    ..on("bridge")
                }],
                ..bridged(&[udp(5353, 53)])
            };
            let attachment = networks.attach(&request).await.unwrap();
            serve_udp(&attachment.netns, 53);
            until("the new container answers the old client", answered);
            networks.detach(request.container).await.unwrap();
        }
    });
}

#[test]
fn many_attach_at_once_and_each_has_its_own_address() {
    on_a_host(|_| async {
        let networks = start("t0").await;
        let ports: Vec<PublishRequest> = (20_000..20_500).map(|port| tcp(port, 80)).collect();
        let requests = [bridged(&ports), bridged(&[]), of("red", &[]), none(), bridged(&[])];
        let all = requests.iter().cycle().take(20).cloned().enumerate().map(|(nth, request)| {
            let ports = if nth == 0 { request.ports } else { Vec::new() };
            AttachRequest { container: container(), ports, ..request }
        });
        let all: Vec<AttachRequest> = all.collect();
        let all = futures_util::future::join_all(all.iter().map(|r| networks.attach(r))).await;
        let all: Vec<_> = all.into_iter().map(Result::unwrap).collect();
        assert_eq!(all[0].ports.len(), 500);
        let mut addresses: Vec<Ipv4Addr> =
            all.iter().filter(|one| !one.endpoints.is_empty()).map(address).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 16);
    });
}

#[test]
fn traffic_is_counted_from_the_containers_side() {
    on_a_host(|_| async {
        let networks = start("t0").await;
        let request = bridged(&[]);
        let a = networks.attach(&request).await.unwrap();
        let sender = inside(&a.netns, || UdpSocket::bind("0.0.0.0:0").unwrap());
        let target = UdpSocket::bind("172.17.0.1:9").unwrap();
        let before = networks.stats(request.container).await.unwrap().unwrap();
        sender.send_to(&[0; 1000], target.local_addr().unwrap()).unwrap();
        target.recv(&mut [0; 1000]).unwrap();
        let after = networks.stats(request.container).await.unwrap().unwrap();
        assert!(after.tx_bytes - before.tx_bytes >= 1000, "{before:?} {after:?}");
        assert!(after.tx_packets > before.tx_packets);
        assert_eq!(networks.stats(container()).await.unwrap(), None);
    });
}

#[test]
#[ignore = "prints figures: cargo test --release --test network -- --ignored --nocapture attaching"]
fn attaching_and_detaching_takes() {
    on_a_host(|_| async {
        let ready = std::env::var("READY").map_or(4, |text| text.parse().unwrap());
        let settings = tritium_engine::network::NetworkConfig { ready, ..config("t0") };
        let networks = Networks::start(settings, &tokio_util::task::TaskTracker::new()).await;
        let networks = networks.unwrap();
        networks.readopt(Vec::new(), Vec::new()).await.unwrap();
        networks.create(network("n", "default", &[])).await.unwrap();
        let many: Vec<PublishRequest> = (20_000..20_200).map(|port| tcp(port, 80)).collect();
        let pause: u64 = std::env::var("PAUSE").map_or(10, |text| text.parse().unwrap());
        for (name, request) in [
            ("none", none()),
            ("bridge", bridged(&[])),
            ("bridge, 1 port", bridged(&[tcp(80, 80)])),
            ("network", on_all(&["n"], &[])),
            ("network, 200 ports", on_all(&["n"], &many)),
        ] {
            let (mut attach, mut detach) = (Vec::new(), Vec::new());
            for _ in 0..100 {
                // What a container does meanwhile; the pool is refilled.
                tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
                let start = Instant::now();
                let attachment = networks.attach(&request).await.unwrap();
                attach.push(start.elapsed());
                drop(attachment);
                let start = Instant::now();
                networks.detach(request.container).await.unwrap();
                detach.push(start.elapsed());
            }
            for (step, mut times) in [("attach", attach), ("detach", detach)] {
                times.sort();
                let [p50, p99] = [50, 98].map(|nth: usize| times[nth].as_micros());
                println!("{name:18} {step} p50 {p50:5} us  p99 {p99:5} us");
            }
        }
    });
}

fn network(name: &str, tenant: &str, subnets: &[&str]) -> Definition {
    let pools = subnets.iter().map(|subnet| AddressPool {
        subnet: subnet.parse().unwrap(),
        chosen: true,
        ..AddressPool::default()
    });
    let pools: Vec<AddressPool> = pools.collect();
    Definition {
        id: NetworkId::of(random()),
        tenant: tenant.parse().unwrap(),
        name: name.into(),
        created: 0,
        driver: Driver::Bridge,
        ipv4: pools.is_empty() || pools.iter().any(|pool| pool.subnet.addr().is_ipv4()),
        ipv6: pools.iter().any(|pool| pool.subnet.addr().is_ipv6()),
        internal: false,
        attachable: false,
        pools,
        ipam_options: None,
        options: [].into(),
        labels: [].into(),
        config_only: false,
        config_from: String::new(),
    }
}

fn with_option(network: Definition, key: &str, value: &str) -> Definition {
    Definition { options: [(key.to_owned(), value.to_owned())].into(), ..network }
}

fn on_all(networks: &[&str], ports: &[PublishRequest]) -> AttachRequest {
    AttachRequest { endpoints: networks.iter().map(|name| on(name)).collect(), ..bridged(ports) }
}

fn address6(attachment: &Attachment) -> Ipv6Addr {
    attachment.endpoints[0].address6.unwrap()
}

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
            let multicast = "ping -6 -c1 -W1 ff02::1%eth0";
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
        networks.create(network("n", "red", &["10.7.0.0/16"])).await.unwrap_err();
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
            networks.detach(request.container).await.unwrap();
            drop(attachment);
        }
        assert!(matches!(networks.retire(made.id).await, Err(Error::Active { .. })));
    });
}

#[test]
fn networks_on_record_are_found_again_and_others_removed() {
    on_a_host(|outside| async move {
        let first = start("t0").await;
        let kept =
            first.create(network("kept", "default", &["10.7.0.0/24", "fd07::/64"])).await.unwrap();
        let lost = first.create(network("lost", "default", &[])).await.unwrap();
        let request = on_all(&["kept"], &[tcp(8080, 80)]);
        let lives = first.attach(&request).await.unwrap();
        serve_tcp(&lives.netns, 80);
        let bridges = || run("ip -o link show type bridge").lines().count();
        assert_eq!(bridges(), 3);
        first.stop();
        until("the first has let go of its port", || {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).is_ok()
        });
        // As after a restart of the host.
        run(&format!("ip link del br-{}", lost.id.short()));
        let again = Definition { name: "again".into(), id: NetworkId::of(random()), ..lost };
        let second = Networks::start(config("t0"), &tokio_util::task::TaskTracker::new()).await;
        let second = second.unwrap();
        let running = Running {
            container: request.container,
            tenant: request.tenant.clone(),
            endpoints: lives.endpoints.clone(),
            wanted: request.ports.clone(),
            ports: lives.ports.clone(),
        };
        second.readopt(vec![kept.clone(), again], vec![running]).await.unwrap();
        assert_eq!(bridges(), 3);
        inside(&outside.0, || call_tcp(HOST, 8080)).unwrap();
        let next = second.attach(&on_all(&["kept", "again"], &[])).await.unwrap();
        assert_eq!(address(&next), Ipv4Addr::new(10, 7, 0, 3));
        assert!(matches!(second.retire(kept.id).await, Err(Error::Active { .. })));
        second.stop();
        drop((lives, next));
        let third = start("t0").await;
        assert_eq!(bridges(), 1);
        third.remove_all().await.unwrap();
    });
}

#[test]
fn many_ports_of_one_container_are_one_transaction() {
    on_a_host(|_| async {
        let networks = start("t0").await;
        networks.create(network("n", "default", &[])).await.unwrap();
        let ports: Vec<PublishRequest> = (20_000..20_200).map(|port| tcp(port, 80)).collect();
        let request = on_all(&["n"], &ports);
        let begun = Instant::now();
        let attachment = networks.attach(&request).await.unwrap();
        println!("200 ports: {:?}", begun.elapsed());
        assert_eq!(attachment.ports.len(), 200);
        networks.detach(request.container).await.unwrap();
        assert!(!run("nft list ruleset").contains("20000"));
    });
}

#[test]
fn a_protocol_is_written_as_docker_writes_it() {
    assert_eq!([Proto::Tcp, Proto::Udp].map(|proto| proto.to_string()), ["tcp", "udp"]);
}
