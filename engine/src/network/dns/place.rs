//! Where a container's resolver listens, and what leads there.
//!
//! The container asks port 53 of 127.0.0.11. The resolver listens on another
//! port of that address, to which the guard's programs lead: so the container
//! may have port 53 on all its addresses, and there is no packet to translate.
//! Where the guard is not in force, it listens on port 53 itself.

use super::home::Home;
use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::fd::AsFd,
};
use tritium_probes::{ResolverPorts, Resolvers};

/// Where a container finds its resolver.
pub const ADDRESS_INSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const DNS_PORT: u16 = 53;

/// All resolvers' places.
#[derive(Debug)]
pub(super) struct Places {
    resolvers: Resolvers,
    /// Where those of an earlier engine listened, by network namespace.
    before: HashMap<u64, ResolverPorts>,
}

/// What a container's resolver listens on.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) udp: UdpSocket,
    pub(super) tcp: TcpListener,
}

/// By what it is found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    netns: u64,
    ports: ResolverPorts,
}

impl Places {
    pub(super) fn new(resolvers: Resolvers) -> io::Result<Self> {
        let before = resolvers.take_all().map_err(io::Error::other)?;
        Ok(Self { resolvers, before })
    }

    /// Makes a resolver's sockets, to which nobody is led yet.
    pub(super) fn listen(&mut self, home: &Home, netns: impl AsFd) -> io::Result<(Sockets, Place)> {
        home.inside(netns, || {
            if !self.resolvers.lead() {
                return bind(DNS_PORT, DNS_PORT);
            }
            let (sockets, place) = bind(0, 0)?;
            // Whoever connected a socket to an earlier engine's goes on asking there. That
            // others may have those ports by now is no error.
            let before = self.before.remove(&place.netns);
            let again = before.and_then(|before| bind(before.udp, before.tcp).ok());
            Ok(again.unwrap_or((sockets, place)))
        })
    }

    /// Leads the container there.
    pub(super) fn lead_to(&self, Place { netns, ports }: Place) -> io::Result<()> {
        self.resolvers.lead_to(netns, ports).map_err(io::Error::other)
    }

    /// Takes [`Places::lead_to`] back.
    pub(super) fn forget(&self, place: Place) {
        if let Err(error) = self.resolvers.forget(place.netns) {
            let error = crate::error::chain(&error);
            tracing::warn!(error, "whoever asks for names there is led to nobody");
        }
    }
}

/// In the namespace of the calling thread; 0 is a port of the kernel's choice.
fn bind(udp: u16, tcp: u16) -> io::Result<(Sockets, Place)> {
    let udp = UdpSocket::bind((ADDRESS_INSIDE, udp))?;
    let tcp = TcpListener::bind((ADDRESS_INSIDE, tcp))?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    let ports = ResolverPorts { udp: udp.local_addr()?.port(), tcp: tcp.local_addr()?.port() };
    let netns = tritium_sys::socket::netns_cookie(udp.as_fd())?;
    Ok((Sockets { udp, tcp }, Place { netns, ports }))
}
