//! What an engine finds, what it leaves, and who else is on the host.

use crate::host::*;
use std::net::{Ipv4Addr, TcpListener};
use tritium_engine::{
    ids::{NetworkId, TenantName, random},
    network::{Definition, Error, Networks, Running},
};

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
        second.detach(kept.container, None).await.unwrap();
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
            .args(["--ignored", "--exact", "engines::an_engine_that_waits_to_be_killed"])
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
