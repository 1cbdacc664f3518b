//! Networks on the Ethernet of one of the host's interfaces: the cable `up0`.

use crate::host::*;
use std::{
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
    process::Command,
};
use tritium_engine::{
    ids::TenantName,
    network::{Attachment, Definition, Driver, EndpointRequest, Error, Networks, Running},
};

/// The subnet of the cable; the outside is its gateway.
const LAN: &str = "198.51.100.0/24";

/// So that what changes later is not the engine's own doing.
const FULL: &str = "two wait ready, with the bridge, the cable and lo";

fn lan(name: &str, subnets: &[&str], options: &[(&str, &str)]) -> Definition {
    let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let driver = Driver::Macvlan;
    let mut lan =
        Definition { driver, options: options.collect(), ..network(name, "default", subnets) };
    for pool in &mut lan.pools {
        if pool.subnet.to_string() == LAN {
            pool.gateway = Some(OUTSIDE.into());
            pool.range = Some("198.51.100.64/26".parse().unwrap());
        }
    }
    lan
}

fn on_up0(name: &str, mode: &str) -> Definition {
    lan(name, &[LAN], &[("parent", "up0"), ("macvlan_mode", mode)])
}

fn netns(attachment: &Attachment) -> OwnedFd {
    attachment.netns.try_clone().unwrap()
}

fn interfaces(attachment: &Attachment) -> Vec<String> {
    let links = inside(&attachment.netns, || run("ip -o link"));
    links.lines().map(|line| line.split([':', '@']).nth(1).unwrap().trim().to_owned()).collect()
}

#[test]
fn containers_on_a_macvlan_are_neighbours_of_whoever_is_on_the_parents_ethernet() {
    on_a_host(|outside| async move {
        let networks = start("t0").await;
        networks.create(on_up0("lan", "")).await.unwrap();
        until(FULL, || inventory().links.len() == 5);
        let before = inventory();
        let a = networks.attach(&on_all(&["lan"], &[tcp(8080, 80)])).await.unwrap();
        let b = networks.attach(&on_all(&["lan"], &[])).await.unwrap();
        assert_eq!(inventory(), before, "it has no end on the host");
        assert_eq!(a.ports, [], "it has no ports of the host's");
        let there = Ipv4Addr::new(198, 51, 100, 64);
        assert_eq!((address(&a), a.endpoints[0].gateway), (there, Some(OUTSIDE)));
        serve_tcp(&a.netns, 80);
        serve_tcp(&outside.0, 81);
        assert_eq!(inside(&b.netns, || call_tcp(there, 80)).unwrap(), address(&b));
        assert_eq!(inside(&a.netns, || call_tcp(OUTSIDE, 81)).unwrap(), there, "as itself");
        assert_eq!(inside(&outside.0, || call_tcp(there, 80)).unwrap(), OUTSIDE);
        let route = inside(&a.netns, || run("ip route show default"));
        assert_eq!(route, format!("default via {OUTSIDE} dev eth0 \n"));
        let shown = inside(&a.netns, || run("ip -d -o link show eth0"));
        let index = a.endpoints[0].index.unwrap();
        assert!(shown.starts_with(&format!("{index}: ")), "{shown}");
        assert!(shown.contains("macvlan mode bridge"), "{shown}");
        assert!(shown.contains(&a.endpoints[0].mac.to_string()), "{shown}");
    });
}

#[test]
fn an_address_of_a_macvlans_is_free_when_its_interface_has_gone_and_not_before() {
    on_a_host(|_| async {
        let networks = start("t0").await;
        let made = networks.create(on_up0("lan", "")).await.unwrap();
        until(FULL, || inventory().links.len() == 5);
        let before = inventory();
        let chosen = EndpointRequest { ipv4: Some([198, 51, 100, 9].into()), ..on("lan") };
        for _ in 0..5 {
            let mut request = on_all(&["lan"], &[]);
            request.endpoints = vec![chosen.clone()];
            let attachment = networks.attach(&request).await.unwrap();
            let refused = networks.attach(&request).await.unwrap_err();
            assert!(matches!(refused, Error::Attached(_)), "{refused}");
            networks.detach(request.container, Some(netns(&attachment))).await.unwrap();
            // Somebody holds the namespace still, and has the interface no more.
            until("it is gone", || interfaces(&attachment) == ["lo"]);
        }
        networks.retire(made.id).await.unwrap();
        networks.remove(made.id, true).await.unwrap();
        assert_eq!(inventory(), before, "the parent is the user's");
    });
}

#[test]
fn a_running_container_comes_and_goes_and_its_way_out_follows() {
    on_a_host(|outside| async move {
        let networks = start("t0").await;
        networks.create(on_up0("lan", "")).await.unwrap();
        networks.create(network("own", "default", &["10.7.0.0/24"])).await.unwrap();
        let request = on_all(&["own"], &[tcp(8080, 80)]);
        let attachment = networks.attach(&request).await.unwrap();
        serve_tcp(&attachment.netns, 80);
        inside(&outside.0, || call_tcp(HOST, 8080)).unwrap();
        let lan = EndpointRequest { priority: 1, ..on("lan") };
        let who = (request.container, &TenantName::operator());
        let joined =
            networks.connect(who, lan, request.ports.clone(), netns(&attachment)).await.unwrap();
        let route = || inside(&attachment.netns, || run("ip route show default"));
        assert_eq!(route(), format!("default via {OUTSIDE} dev eth1 \n"));
        assert_eq!(joined.ports, [], "its way out has no ports");
        inside(&outside.0, || call_tcp(HOST, 8080)).unwrap_err();
        let there = joined.endpoint.address.unwrap();
        inside(&outside.0, || call_tcp(there, 80)).unwrap();
        let id = joined.endpoint.network_id;
        let ports = networks.disconnect(request.container, id, netns(&attachment)).await.unwrap();
        assert_eq!((ports.len(), interfaces(&attachment).len()), (1, 2));
        assert_eq!(route(), "default via 10.7.0.1 dev eth0 \n");
        inside(&outside.0, || call_tcp(HOST, 8080)).unwrap();
    });
}

#[test]
fn each_mode_lets_through_what_it_says() {
    on_a_host(|outside| async move {
        let networks = start("t0").await;
        serve_tcp(&outside.0, 81);
        for mode in ["private", "vepa"] {
            let made = networks.create(on_up0("lan", mode)).await.unwrap();
            let (one, two) = (on_all(&["lan"], &[]), on_all(&["lan"], &[]));
            let a = networks.attach(&one).await.unwrap();
            let b = networks.attach(&two).await.unwrap();
            serve_tcp(&a.netns, 80);
            inside(&b.netns, || {
                call_tcp(OUTSIDE, 81).unwrap();
                // (By VEPA, a switch that sends frames back would be needed.)
                call_tcp(address(&a), 80).unwrap_err();
            });
            for (request, attachment) in [(one, a), (two, b)] {
                networks.detach(request.container, Some(attachment.netns)).await.unwrap();
            }
            networks.retire(made.id).await.unwrap();
            networks.remove(made.id, true).await.unwrap();
        }
        // One that is going is no reason to refuse its Ethernet address.
        networks.create(on_up0("lan", "")).await.unwrap();
        let own = EndpointRequest { mac: "02:00:00:00:00:07".parse().ok(), ..on("lan") };
        let mut request = on_all(&["lan"], &[]);
        request.endpoints = vec![own];
        for _ in 0..3 {
            let attachment = networks.attach(&request).await.unwrap();
            networks.detach(request.container, Some(attachment.netns)).await.unwrap();
        }
        let id = networks.list(&TenantName::operator()).await.unwrap().pop().unwrap().definition.id;
        networks.retire(id).await.unwrap();
        networks.remove(id, true).await.unwrap();
        let passthru = networks.create(on_up0("lan", "passthru")).await.unwrap();
        let beside = lan("beside", &["10.6.0.0/24"], &[("parent", "up0")]);
        let said = networks.create(beside).await.unwrap_err().to_string();
        let words = "is already using parent interface up0 in mode passthru";
        assert_eq!(said, format!("macvlan network {} {words}", passthru.id));
        let a = networks.attach(&on_all(&["lan"], &[])).await.unwrap();
        let shown = run("ip -o link show up0");
        assert!(shown.contains(&a.endpoints[0].mac.to_string()), "{shown}");
        inside(&a.netns, || call_tcp(OUTSIDE, 81)).unwrap();
    });
}

#[test]
fn an_internal_one_has_no_way_out_and_one_of_ipv6_has_both() {
    on_a_host(|outside| async move {
        inside(&outside.0, || run("ip addr add fd07::1/64 dev out0 nodad"));
        let networks = start("t0").await;
        networks.create(Definition { internal: true, ..on_up0("in", "") }).await.unwrap();
        networks
            .create(lan("six", &["10.6.0.0/24", "fd07::/64"], &[("parent", "up0")]))
            .await
            .unwrap();
        let a = networks.attach(&on_all(&["in"], &[])).await.unwrap();
        assert_eq!(a.endpoints[0].gateway, None);
        assert_eq!(inside(&a.netns, || run("ip route show default")), "");
        let b = networks.attach(&on_all(&["six"], &[])).await.unwrap();
        serve_tcp6(&outside.0, 81);
        let out: Ipv6Addr = "fd07::1".parse().unwrap();
        until("IPv6 is up", || inside(&b.netns, || call_tcp6(out, 81)).is_ok());
        assert_eq!(inside(&b.netns, || call_tcp6(out, 81)).unwrap(), address6(&b));
        let route = inside(&b.netns, || run("ip -6 route show default"));
        assert!(route.starts_with("default via fd07::1 dev eth0 "), "{route}");
    });
}

#[test]
fn what_makes_no_sense_is_refused_and_leaves_nothing() {
    on_a_host(|_| async {
        let networks = start("t0").await;
        until(FULL, || inventory().links.len() == 5);
        let before = inventory();
        for (options, words) in [
            (&[("parent", "lo")][..], "loopback interface is not a valid macvlan parent link"),
            (
                &[("parent", "nope")],
                "invalid subinterface vlan name nope, example formatting is eth0.10",
            ),
            (&[("parent", "nope.5")], "-o parent interface was not found on the host: nope"),
            (&[("parent", "up0.5000")], "vlan id must be between 1-4094, received: 5000"),
        ] {
            let said = networks.create(lan("n", &[LAN], options)).await.unwrap_err().to_string();
            assert_eq!(said, words);
        }
        networks.create(on_up0("lan", "")).await.unwrap();
        let overlapping = lan("n", &["198.51.100.0/25"], &[("parent", "up0")]);
        assert!(matches!(networks.create(overlapping).await, Err(Error::PoolOverlaps)));
        let taken = EndpointRequest { ipv4: Some(OUTSIDE), ..on("lan") };
        let request = on_all(&["bridge"], &[]);
        for wrong in [taken, EndpointRequest { mac: "01:00:00:00:00:01".parse().ok(), ..on("lan") }]
        {
            let endpoints = vec![on("bridge"), wrong];
            let request = tritium_engine::network::AttachRequest { endpoints, ..request.clone() };
            networks.attach(&request).await.unwrap_err();
        }
        // (Those that wait ready are others by now.)
        let shape = |all: Inventory| (all.links.len(), all.rules);
        until("nothing is left", || shape(inventory()) == shape(before.clone()));
        let next = networks.attach(&on_all(&["lan"], &[])).await.unwrap();
        assert_eq!(address(&next), Ipv4Addr::new(198, 51, 100, 64), "no address was lost");
    });
}

async fn restarted(networks: Networks, made: &[Definition], running: Vec<Running>) -> Networks {
    networks.stop();
    let next = Networks::start(config("t0"), &tokio_util::task::TaskTracker::new()).await.unwrap();
    assert_eq!(next.readopt(made.to_vec(), running).await.unwrap(), []);
    next
}

#[test]
fn the_next_engine_knows_who_runs_and_a_parent_that_has_gone_may_come_back() {
    on_a_host(|outside| async move {
        let networks = start("t0").await;
        let made = networks.create(on_up0("lan", "")).await.unwrap();
        let request = on_all(&["lan"], &[]);
        let lives = networks.attach(&request).await.unwrap();
        let running = Running {
            container: request.container,
            tenant: request.tenant.clone(),
            endpoints: lives.endpoints.clone(),
            wanted: Vec::new(),
            ports: Vec::new(),
        };
        let made = [made];
        let networks = restarted(networks, &made, vec![running]).await;
        serve_tcp(&lives.netns, 80);
        inside(&outside.0, || call_tcp(address(&lives), 80)).unwrap();
        let next = networks.attach(&on_all(&["lan"], &[])).await.unwrap();
        assert_eq!(address(&next), Ipv4Addr::new(198, 51, 100, 65));
        assert!(matches!(networks.retire(made[0].id).await, Err(Error::Active { .. })));
        networks.detach(request.container, Some(lives.netns)).await.unwrap();
        run("ip link del up0");
        let networks = restarted(networks, &made, Vec::new()).await;
        let refused = networks.attach(&on_all(&["lan"], &[])).await.unwrap_err();
        let words = "the requested parent interface up0 was not found on the host";
        assert_eq!(refused.to_string(), words);
        let elsewhere = another_outside();
        plug(&elsewhere, "up0", HOST, OUTSIDE);
        networks.attach(&on_all(&["lan"], &[])).await.unwrap();
    });
}

/// Whether this kernel can make such an interface.
fn kernel_has(kind: &str) -> bool {
    let add = format!("ip link add trial0 {kind}");
    let made = Command::new("sh").args(["-c", &add]).output().unwrap().status.success();
    if made {
        run("ip link del trial0");
    }
    made
}

/// Makes a network whose parent is made for it; where the kernel cannot, sees
/// that it is refused for that.
async fn with_made_parent(
    networks: &Networks,
    lan: Definition,
    missing: &str,
) -> Option<Definition> {
    until(FULL, || inventory().links.len() == 5);
    let (before, kind) = (
        inventory(),
        if missing.contains("DUMMY") { "type dummy" } else { "link up0 type vlan id 9" },
    );
    let made = networks.create(lan).await;
    if kernel_has(kind) {
        return Some(made.unwrap());
    }
    let refused = made.unwrap_err();
    assert!(matches!(refused, Error::NoKind { .. }), "{refused}");
    assert_eq!(refused.to_string(), missing);
    assert_eq!(inventory(), before);
    None
}

fn there(name: &str) -> bool {
    inventory().links.iter().any(|link| link == name)
}

#[test]
fn a_vlan_that_is_missing_is_made_shared_and_removed_with_the_last_network() {
    on_a_host(|_| async {
        let networks = start("t0").await;
        let of = |name: &str, subnet: &str| lan(name, &[subnet], &[("parent", "up0.50")]);
        let missing = "this kernel has no VLAN interfaces (CONFIG_VLAN_8021Q)";
        let first = with_made_parent(&networks, of("one", "10.1.0.0/24"), missing).await;
        let Some(first) = first else { return };
        let second = networks.create(of("two", "10.2.0.0/24")).await.unwrap();
        assert!(run("ip -d -o link show up0.50").contains("vlan protocol 802.1Q id 50"));
        let request = on_all(&["two"], &[]);
        let a = networks.attach(&request).await.unwrap();
        networks.retire(first.id).await.unwrap();
        networks.remove(first.id, true).await.unwrap();
        assert!(there("up0.50"));
        networks.detach(request.container, Some(a.netns)).await.unwrap();
        run("ip link del up0.50");
        let networks = restarted(networks, &[second], Vec::new()).await;
        assert!(there("up0.50"), "the next engine makes it again");
        let networks = restarted(networks, &[], Vec::new()).await;
        assert!(!there("up0.50"), "and removes what no record knows");
        run("ip link add link up0 name up0.50 type vlan id 50");
        let users = networks.create(of("one", "10.1.0.0/24")).await.unwrap();
        networks.retire(users.id).await.unwrap();
        networks.remove(users.id, true).await.unwrap();
        assert!(there("up0.50"), "what the user made stays");
    });
}

#[test]
fn without_a_parent_containers_have_each_other_and_nobody_else() {
    on_a_host(|_| async {
        let networks = start("t0").await;
        let missing = "this kernel has no dummy interfaces (CONFIG_DUMMY)";
        let made = with_made_parent(&networks, lan("n", &["10.1.0.0/24"], &[]), missing).await;
        let Some(made) = made else { return };
        let dummy = format!("dm-{}", made.id.short());
        assert!(there(&dummy));
        let (one, two) = (on_all(&["n"], &[]), on_all(&["n"], &[]));
        let a = networks.attach(&one).await.unwrap();
        let b = networks.attach(&two).await.unwrap();
        assert_eq!((a.endpoints[0].gateway, a.endpoints[0].internal), (None, true));
        serve_tcp(&a.netns, 80);
        inside(&b.netns, || call_tcp(address(&a), 80)).unwrap();
        for (request, attachment) in [(one, a), (two, b)] {
            networks.detach(request.container, Some(attachment.netns)).await.unwrap();
        }
        networks.retire(made.id).await.unwrap();
        networks.remove(made.id, true).await.unwrap();
        assert!(!there(&dummy));
    });
}
