//! By which of its networks a container reaches the world. Pure.

use super::Endpoint;
use std::{cmp::Reverse, net::IpAddr};

/// A way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    /// Which of the endpoints.
    pub(super) endpoint: usize,
    pub(super) gateway: IpAddr,
}

/// The ways out by IPv4 and by IPv6. As in Docker, the highest priority wins;
/// among equals a network that has both versions, then the first by name.
pub(super) fn ways_out(endpoints: &[Endpoint]) -> [Option<Way>; 2] {
    let best = |gateway: fn(&Endpoint) -> Option<IpAddr>| {
        let ways = endpoints.iter().enumerate().filter_map(|(nth, endpoint)| {
            let both = endpoint.gateway.is_some() && endpoint.gateway6.is_some();
            let rank = (endpoint.priority, both, Reverse(&endpoint.network));
            Some((rank, Way { endpoint: nth, gateway: gateway(endpoint)? }))
        });
        ways.max_by(|(a, _), (b, _)| a.cmp(b)).map(|(_, way)| way)
    };
    [
        best(|it| it.gateway.filter(|_| it.address.is_some()).map(IpAddr::V4)),
        best(|it| it.gateway6.filter(|_| it.address6.is_some()).map(IpAddr::V6)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NetworkId;
    use crate::network::Mac;

    fn on(network: &str, priority: i64, [ipv4, ipv6]: [bool; 2]) -> Endpoint {
        Endpoint {
            internal: false,
            isolated: false,
            network_id: NetworkId::of([0; 32]),
            network: network.into(),
            endpoint_id: NetworkId::of([0; 32]),
            address: ipv4.then_some([10, 0, 0, 2].into()),
            prefix: 24,
            gateway: ipv4.then_some([10, 0, 0, 1].into()),
            address6: ipv6.then_some("fd00::2".parse().unwrap()),
            prefix6: 64,
            gateway6: ipv6.then_some("fd00::1".parse().unwrap()),
            mac: Mac([0; 6]),
            interface: "eth0".into(),
            host_interface: "veth0".into(),
            index: None,
            priority,
        }
    }

    fn chosen(endpoints: &[Endpoint]) -> [Option<&str>; 2] {
        ways_out(endpoints).map(|way| way.map(|way| endpoints[way.endpoint].network.as_str()))
    }

    #[test]
    fn the_way_out_is_by_priority_then_by_versions_then_by_name() {
        let (b, a) = (on("b", 0, [true, false]), on("a", 0, [true, false]));
        assert_eq!(chosen(&[b.clone(), a.clone()]), [Some("a"), None]);
        let dual = on("z", 0, [true, true]);
        assert_eq!(chosen(&[b.clone(), a, dual.clone()]), [Some("z"), Some("z")]);
        let first = on("y", 1, [true, false]);
        assert_eq!(chosen(&[dual, first]), [Some("y"), Some("z")]);
        assert_eq!(chosen(&[on("internal", 9, [false, false]), b]), [Some("b"), None]);
        assert_eq!(chosen(&[]), [None, None]);
    }
}
