//! Published ports.

use crate::host::*;
use std::{
    net::{Ipv4Addr, TcpListener, UdpSocket},
    time::Instant,
};
use tritium_engine::network::{AttachRequest, EndpointRequest, Error, Proto, PublishRequest};

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
        networks.detach(first.container, None).await.unwrap();
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
            networks.detach(request.container, None).await.unwrap();
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
            networks.detach(request.container, None).await.unwrap();
        }
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
        networks.detach(request.container, None).await.unwrap();
        assert!(!run("nft list ruleset").contains("20000"));
    });
}

#[test]
fn a_protocol_is_written_as_docker_writes_it() {
    assert_eq!([Proto::Tcp, Proto::Udp].map(|proto| proto.to_string()), ["tcp", "udp"]);
}
