//! Ports of the host, each held by a socket while it is published.
//!
//! The socket is bound and never listens: traffic is translated before it gets
//! that far. It only keeps everybody else away, and asks the kernel whether
//! the port is free at all.

use super::{Error, Proto, PublishRequest, Published, zones::Zone};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, bind, setsockopt, socket,
        sockopt::{Ipv6V6Only, ReuseAddr},
    },
};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
};

/// Published ports of one container, with the sockets that hold them.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) ports: Vec<Published>,
    /// Shared while one set of ports takes the place of another.
    sockets: Vec<Arc<OwnedFd>>,
}

/// Who else has published something, and where the last search ended.
#[derive(Debug)]
pub(super) struct Ports {
    /// The kernel's `ip_local_port_range`.
    ephemeral: RangeInclusive<u16>,
    next: HashMap<(Proto, Vec<IpAddr>), u16>,
}

impl Ports {
    pub(super) fn new(ephemeral: RangeInclusive<u16>) -> Self {
        Self { ephemeral, next: HashMap::new() }
    }

    /// Holds all that is asked, or nothing: what is held already goes on.
    ///
    /// # Errors
    /// A port is taken by a container or by the host. Then nothing has changed.
    pub(super) fn hold(
        &mut self,
        requests: &[PublishRequest],
        to: Target,
        taken: &[Published],
        held: &Held,
    ) -> Result<Held, Error> {
        let mut new = Held::default();
        let mut old: Vec<(Published, Arc<OwnedFd>)> =
            held.ports.iter().copied().zip(held.sockets.iter().cloned()).collect();
        for request in requests {
            let mut places = to.places(request.host_ip)?;
            let mut number = None;
            places.retain(|(host, _)| {
                let kept = old.iter().position(|(port, _)| goes_on(port, request, *host, number));
                let Some((port, socket)) = kept.map(|at| old.remove(at)) else { return true };
                number = Some(port.host_port);
                new.ports.push(port);
                new.sockets.push(socket);
                false
            });
            if !places.is_empty() {
                let host_port = number.map(|number| number..=number);
                let host_port = host_port.or_else(|| request.host_port.clone());
                let request = PublishRequest { host_port, ..request.clone() };
                self.find(&request, &places, taken, &mut new)?;
            }
        }
        Ok(new)
    }

    /// Holds one port, the same number on all of the host's `places`.
    fn find(
        &mut self,
        request: &PublishRequest,
        places: &[(IpAddr, IpAddr)],
        taken: &[Published],
        held: &mut Held,
    ) -> Result<(), Error> {
        let ips: Vec<IpAddr> = places.iter().map(|(host, _)| *host).collect();
        let first = ips[0];
        let wanted = request.host_port.clone().filter(|range| *range.start() != 0);
        let candidates: Vec<u16> = match &wanted {
            Some(range) => range.clone().collect(),
            None => self.ephemeral_from_next(request.proto, &ips),
        };
        let single = candidates.len() == 1;
        for candidate in candidates {
            let port = |host_ip| Published {
                container_port: request.container_port,
                proto: request.proto,
                host_ip,
                host_port: candidate,
            };
            let taken_by = |ip: &&IpAddr| {
                taken.iter().chain(&held.ports).any(|other| clash(other, &port(**ip)))
            };
            if let Some(ip) = ips.iter().find(taken_by) {
                if single {
                    return Err(Error::PortAllocated { ip: *ip, port: candidate });
                }
                continue;
            }
            let all = places.iter().map(|(host, to)| {
                let port = port(*host);
                hold_one(&port).map(|socket| (port, socket)).map_err(|errno| (port, *to, errno))
            });
            match all.collect::<Result<Vec<_>, _>>() {
                Ok(all) => {
                    if wanted.is_none() {
                        self.next.insert((request.proto, ips), candidate.wrapping_add(1));
                    }
                    for (port, socket) in all {
                        held.ports.push(port);
                        held.sockets.push(Arc::new(socket));
                    }
                    return Ok(());
                }
                Err((_, _, Errno::EADDRINUSE)) if !single => {}
                Err((port, to, errno)) => return Err(Error::bind(&port, to, errno)),
            }
        }
        let range = wanted.unwrap_or_else(|| self.ephemeral.clone());
        Err(Error::RangeTaken { ip: first, first: *range.start(), last: *range.end() })
    }

    /// Every ephemeral port once, beginning after the last that was given.
    fn ephemeral_from_next(&self, proto: Proto, ips: &[IpAddr]) -> Vec<u16> {
        let next = self.next.get(&(proto, ips.to_vec())).copied().unwrap_or_default();
        let (before, after): (Vec<u16>, Vec<u16>) =
            self.ephemeral.clone().partition(|port| *port < next);
        [after, before].concat()
    }
}

/// Whether a port that is held is what is asked for, at that address of the host.
fn goes_on(port: &Published, request: &PublishRequest, host: IpAddr, number: Option<u16>) -> bool {
    let wanted = request.host_port.as_ref().filter(|range| *range.start() != 0);
    port.container_port == request.container_port
        && port.proto == request.proto
        && port.host_ip == host
        && wanted.is_none_or(|range| range.contains(&port.host_port))
        && number.is_none_or(|number| number == port.host_port)
}

/// Where published ports lead: a container's addresses on its way out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) ipv4: Option<Ipv4Addr>,
    pub(super) ipv6: Option<Ipv6Addr>,
    /// The network's own idea of where to listen when the user has none.
    pub(super) binding: Option<Ipv4Addr>,
    /// If that network is shadowed, its number: by IPv4, and by IPv6.
    pub(super) zones: [Option<Zone>; 2],
}

impl Target {
    /// Of this port.
    pub(super) fn of(self, port: &Published) -> Option<IpAddr> {
        match port.host_ip {
            IpAddr::V4(_) => self.ipv4.map(IpAddr::V4),
            IpAddr::V6(_) => self.ipv6.map(IpAddr::V6),
        }
    }

    /// The number of the network where that is.
    pub(super) fn zone(self, port: &Published) -> Option<Zone> {
        let [four, six] = self.zones;
        if port.host_ip.is_ipv4() { four } else { six }
    }

    /// The host's addresses to listen on, each with the container's it leads to.
    fn places(self, wanted: Option<IpAddr>) -> Result<Vec<(IpAddr, IpAddr)>, Error> {
        let four = |host: Ipv4Addr| self.ipv4.map(|to| (IpAddr::V4(host), IpAddr::V4(to)));
        let six = |host: Ipv6Addr| self.ipv6.map(|to| (IpAddr::V6(host), IpAddr::V6(to)));
        let places = match (wanted, self.binding) {
            // No way out of the container, and none in.
            _ if self.ipv4.is_none() && self.ipv6.is_none() => [None, None],
            (Some(IpAddr::V4(host)), _) => [four(host), None],
            (Some(IpAddr::V6(Ipv6Addr::LOCALHOST)), _) => {
                return Err(Error::Unbuilt("publishing on ::1".into()));
            }
            (Some(IpAddr::V6(host)), _) => {
                [Some(six(host).ok_or(Error::NoIpv6(host.into()))?), None]
            }
            (None, Some(host)) if !host.is_unspecified() => [four(host), None],
            (None, _) => [four(Ipv4Addr::UNSPECIFIED), six(Ipv6Addr::UNSPECIFIED)],
        };
        Ok(places.into_iter().flatten().collect())
    }
}

/// Holds these very ports again; answers also those that somebody has taken.
pub(super) fn hold_again(ports: Vec<Published>) -> (Held, Vec<Published>) {
    let (mut held, mut lost) = (Held::default(), Vec::new());
    for port in ports {
        match hold_one(&port) {
            Ok(socket) => {
                held.ports.push(port);
                held.sockets.push(Arc::new(socket));
            }
            Err(_) => lost.push(port),
        }
    }
    (held, lost)
}

/// Whether both cannot be published at once.
fn clash(a: &Published, b: &Published) -> bool {
    let everywhere = a.host_ip.is_unspecified() || b.host_ip.is_unspecified();
    a.proto == b.proto
        && a.host_port == b.host_port
        && a.host_ip.is_ipv4() == b.host_ip.is_ipv4()
        && (everywhere || a.host_ip == b.host_ip)
}

fn hold_one(port: &Published) -> Result<OwnedFd, Errno> {
    let kind = match port.proto {
        Proto::Tcp => SockType::Stream,
        Proto::Udp => SockType::Datagram,
    };
    let family = if port.host_ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if port.host_ip.is_ipv6() {
        setsockopt(&socket, Ipv6V6Only, &true)?;
    }
    // So that connections in TIME_WAIT do not count. Off again once bound, or
    // another socket with the option could listen here (`inet_bind_conflict`
    // in net/ipv4/inet_connection_sock.c).
    let tcp = port.proto == Proto::Tcp;
    if tcp {
        setsockopt(&socket, ReuseAddr, &true)?;
    }
    match SocketAddr::new(port.host_ip, port.host_port) {
        SocketAddr::V4(address) => bind(socket.as_raw_fd(), &SockaddrIn::from(address))?,
        SocketAddr::V6(address) => bind(socket.as_raw_fd(), &SockaddrIn6::from(address))?,
    }
    if tcp {
        setsockopt(&socket, ReuseAddr, &false)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(ip: &str, host_port: u16, proto: Proto) -> Published {
        Published { container_port: 80, proto, host_ip: ip.parse().unwrap(), host_port }
    }

    #[test]
    fn ports_clash_when_addresses_overlap_and_the_protocol_is_the_same() {
        let everywhere = published("0.0.0.0", 80, Proto::Tcp);
        let here = published("127.0.0.1", 80, Proto::Tcp);
        assert!(clash(&everywhere, &here) && clash(&here, &everywhere) && clash(&here, &here));
        assert!(!clash(&here, &published("127.0.0.2", 80, Proto::Tcp)));
        assert!(!clash(&here, &published("127.0.0.1", 81, Proto::Tcp)));
        assert!(!clash(&here, &published("127.0.0.1", 80, Proto::Udp)));
        let six = published("::", 80, Proto::Tcp);
        assert!(clash(&six, &published("::1", 80, Proto::Tcp)) && !clash(&six, &everywhere));
    }

    #[test]
    fn a_port_is_published_on_each_version_of_ip_that_the_container_has() {
        let ipv4 = Some(Ipv4Addr::new(10, 0, 0, 2));
        let ipv6 = Some("fd00::2".parse().unwrap());
        let both = Target { ipv4, ipv6, ..Target::default() };
        let hosts = |target: Target, wanted: Option<&str>| -> Vec<String> {
            let places = target.places(wanted.map(|ip| ip.parse().unwrap())).unwrap();
            places.into_iter().map(|(host, _)| host.to_string()).collect()
        };
        assert_eq!(hosts(both, None), ["0.0.0.0", "::"]);
        assert_eq!(hosts(both, Some("fd01::1")), ["fd01::1"]);
        assert!(matches!(both.places(Some(Ipv6Addr::LOCALHOST.into())), Err(Error::Unbuilt(_))));
        assert_eq!(hosts(Target { ipv6: None, ..both }, None), ["0.0.0.0"]);
        assert_eq!(hosts(Target { ipv4: None, ..both }, None), ["::"]);
        let binding = Some(Ipv4Addr::LOCALHOST);
        assert_eq!(hosts(Target { binding, ..both }, None), ["127.0.0.1"]);
        assert_eq!(hosts(Target::default(), Some("fd01::1")), [""; 0]);
        let refused = Target { ipv6: None, ..both }.places(Some(Ipv6Addr::UNSPECIFIED.into()));
        assert!(matches!(refused, Err(Error::NoIpv6(_))));
    }

    #[test]
    fn ephemeral_ports_are_searched_once_round_from_the_last() {
        let mut ports = Ports::new(10..=13);
        let any = [IpAddr::from(Ipv4Addr::UNSPECIFIED)];
        assert_eq!(ports.ephemeral_from_next(Proto::Tcp, &any), [10, 11, 12, 13]);
        ports.next.insert((Proto::Tcp, any.to_vec()), 12);
        assert_eq!(ports.ephemeral_from_next(Proto::Tcp, &any), [12, 13, 10, 11]);
        assert_eq!(ports.ephemeral_from_next(Proto::Udp, &any), [10, 11, 12, 13]);
        ports.next.insert((Proto::Tcp, any.to_vec()), 14);
        assert_eq!(ports.ephemeral_from_next(Proto::Tcp, &any), [10, 11, 12, 13]);
    }
}
