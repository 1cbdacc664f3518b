//! What a container gets that is attached, and what of it stays.

use crate::host::*;
use std::{
    net::{Ipv4Addr, TcpListener},
    time::Instant,
};
use tritium_engine::{
    ids::TenantName,
    network::{AttachRequest, EndpointRequest, Networks, PublishRequest},
};

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
            networks.detach(request.container, None).await.unwrap();
            networks.detach(request.container, None).await.unwrap();
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
            networks.detach(request.container, None).await.unwrap();
        }
        networks.detach(request.container, None).await.unwrap();
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
                networks.detach(request.container, None).await.unwrap();
            }
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
                networks.detach(request.container, None).await.unwrap();
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
