//! Ports of the host, each held by a socket while it is published.
//!
//! The socket is bound and never listens: traffic is translated before it gets
//! that far. It only keeps everybody else away, and asks the kernel whether
//! the port is free at all.

use super::{Error, Proto, PublishRequest, Published};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt::ReuseAddr,
    },
};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    ops::RangeInclusive,
    os::fd::{AsRawFd, OwnedFd},
};

/// Published ports of one container, with the sockets that hold them.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) ports: Vec<Published>,
    sockets: Vec<OwnedFd>,
}

/// Who else has published something, and where the last search ended.
#[derive(Debug)]
pub(super) struct Ports {
    /// The kernel's `ip_local_port_range`.
    ephemeral: RangeInclusive<u16>,
    next: HashMap<(Proto, Ipv4Addr), u16>,
}

impl Ports {
    pub(super) fn new(ephemeral: RangeInclusive<u16>) -> Self {
        Self { ephemeral, next: HashMap::new() }
    }

    /// Holds all that is asked, or nothing.
    ///
    /// # Errors
    /// A port is taken by a container or by the host.
    pub(super) fn hold(
        &mut self,
        requests: &[PublishRequest],
        to: Ipv4Addr,
        taken: &[Published],
    ) -> Result<Held, Error> {
        let mut held = Held::default();
        for request in requests {
            let host_ip = match request.host_ip {
                None => Ipv4Addr::UNSPECIFIED,
                Some(IpAddr::V4(ip)) => ip,
                Some(ip @ IpAddr::V6(_)) => return Err(Error::Ipv6(ip)),
            };
            let (port, socket) = self.find(request, host_ip, to, &[taken, &held.ports])?;
            held.ports.push(port);
            held.sockets.push(socket);
        }
        Ok(held)
    }

    fn find(
        &mut self,
        request: &PublishRequest,
        host_ip: Ipv4Addr,
        to: Ipv4Addr,
        taken: &[&[Published]],
    ) -> Result<(Published, OwnedFd), Error> {
        let at = |host_port| Published {
            container_port: request.container_port,
            proto: request.proto,
            host_ip,
            host_port,
        };
        let wanted = request.host_port.clone().filter(|range| *range.start() != 0);
        let candidates: Vec<u16> = match &wanted {
            Some(range) => range.clone().collect(),
            None => self.ephemeral_from_next(request.proto, host_ip),
        };
        let single = candidates.len() == 1;
        for candidate in candidates {
            let port = at(candidate);
            if taken.iter().copied().flatten().any(|other| clash(other, &port)) {
                if single {
                    return Err(Error::PortAllocated { ip: host_ip, port: candidate });
                }
                continue;
            }
            match hold_one(&port) {
                Ok(socket) => {
                    if wanted.is_none() {
                        self.next.insert((port.proto, host_ip), candidate.wrapping_add(1));
                    }
                    return Ok((port, socket));
                }
                Err(Errno::EADDRINUSE) if !single => {}
                Err(errno) => return Err(Error::bind(&port, to, errno)),
            }
        }
        let range = wanted.unwrap_or_else(|| self.ephemeral.clone());
        Err(Error::RangeTaken { ip: host_ip, first: *range.start(), last: *range.end() })
    }

    /// Every ephemeral port once, beginning after the last that was given.
    fn ephemeral_from_next(&self, proto: Proto, host_ip: Ipv4Addr) -> Vec<u16> {
        let next = self.next.get(&(proto, host_ip)).copied().unwrap_or_default();
        let (before, after): (Vec<u16>, Vec<u16>) =
            self.ephemeral.clone().partition(|port| *port < next);
        [after, before].concat()
    }
}

/// Holds these very ports again; answers also those that somebody has taken.
pub(super) fn hold_again(ports: Vec<Published>) -> (Held, Vec<Published>) {
    let (mut held, mut lost) = (Held::default(), Vec::new());
    for port in ports {
        match hold_one(&port) {
            Ok(socket) => {
                held.ports.push(port);
                held.sockets.push(socket);
            }
            Err(_) => lost.push(port),
        }
    }
    (held, lost)
}

/// Whether both cannot be published at once.
fn clash(a: &Published, b: &Published) -> bool {
    let everywhere = a.host_ip.is_unspecified() || b.host_ip.is_unspecified();
    a.proto == b.proto && a.host_port == b.host_port && (everywhere || a.host_ip == b.host_ip)
}

fn hold_one(port: &Published) -> Result<OwnedFd, Errno> {
    let kind = match port.proto {
        Proto::Tcp => SockType::Stream,
        Proto::Udp => SockType::Datagram,
    };
    let socket = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None)?;
    // So that connections in TIME_WAIT do not count. Off again once bound, or
    // another socket with the option could listen here (`inet_bind_conflict`
    // in net/ipv4/inet_connection_sock.c).
    let tcp = port.proto == Proto::Tcp;
    if tcp {
        setsockopt(&socket, ReuseAddr, &true)?;
    }
    let address = SockaddrIn::from(SocketAddrV4::new(port.host_ip, port.host_port));
    bind(socket.as_raw_fd(), &address)?;
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
    }

    #[test]
    fn ephemeral_ports_are_searched_once_round_from_the_last() {
        let mut ports = Ports::new(10..=13);
        let any = Ipv4Addr::UNSPECIFIED;
        assert_eq!(ports.ephemeral_from_next(Proto::Tcp, any), [10, 11, 12, 13]);
        ports.next.insert((Proto::Tcp, any), 12);
        assert_eq!(ports.ephemeral_from_next(Proto::Tcp, any), [12, 13, 10, 11]);
        assert_eq!(ports.ephemeral_from_next(Proto::Udp, any), [10, 11, 12, 13]);
        ports.next.insert((Proto::Tcp, any), 14);
        assert_eq!(ports.ephemeral_from_next(Proto::Tcp, any), [10, 11, 12, 13]);
    }
}
