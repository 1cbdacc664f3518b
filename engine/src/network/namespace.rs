//! Network namespaces made ahead of need, and the thread that makes them.
//!
//! A namespace costs about a millisecond to make, so a few wait ready: with
//! loopback up, a netlink socket open inside, and for a bridge a veth whose
//! host end is already a port of it.

use super::{Error, conntrack::Conntrack, link::Rtnl, owner::Command};
use crate::{error::chain, ids::TenantName};
use nix::sched::{CloneFlags, setns, unshare};
use std::{
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd, OwnedFd},
    sync::mpsc::{Receiver, Sender},
    thread,
    time::{Duration, Instant},
};
use tracing::warn;
use tritium_probes::Guard;

/// Loopback's index in every network namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

/// A namespace that waits for its container. Dropping it takes it apart.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) netns: OwnedFd,
    pub(super) inside: Rtnl,
    pub(super) veth: Option<Veth>,
}

/// Both ends of a veth.
#[derive(Debug)]
pub(super) struct Veth {
    /// Index of `eth0` inside.
    pub(super) index: u32,
    /// Name of the host's end.
    pub(super) host_interface: String,
}

/// Makes namespaces. Belongs to one thread, of which it changes the network
/// namespace for the moment of making one.
#[derive(Debug)]
pub(super) struct Maker {
    home: OwnedFd,
    host: Rtnl,
    conntrack: Conntrack,
    guard: Guard,
}

impl Maker {
    /// For the calling thread, whose network namespace is the host's.
    pub(super) fn new(guard: Guard) -> io::Result<Self> {
        let (home, host, conntrack) = (own_namespace()?, Rtnl::open()?, Conntrack::open()?);
        Ok(Self { home, host, conntrack, guard })
    }

    /// A namespace; with the index of a bridge, one that is plugged into it.
    ///
    /// # Panics
    /// If this thread cannot come back: it must not go on in the wrong place.
    pub(super) fn make(&mut self, bridge: Option<u32>) -> Result<Prepared, Error> {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::kernel("make a network namespace", errno))?;
        let made = self.furnish(bridge);
        setns(&self.home, CloneFlags::CLONE_NEWNET)
            .expect("we came from this namespace and hold it open");
        made.map_err(|error| Error::kernel("furnish a network namespace", error))
    }

    fn furnish(&mut self, bridge: Option<u32>) -> io::Result<Prepared> {
        let netns = own_namespace()?;
        let mut inside = Rtnl::open()?;
        inside.set_up(LOOPBACK)?;
        // As Docker: in its own network no container needs a capability to
        // listen on any port or to ping.
        set_sysctl("net/ipv4/ip_unprivileged_port_start", "0")?;
        set_sysctl("net/ipv4/ping_group_range", "0 2147483647")?;
        let veth = bridge.map(|bridge| self.plug(&mut inside, &netns, bridge)).transpose()?;
        Ok(Prepared { netns, inside, veth })
    }

    fn plug(&mut self, inside: &mut Rtnl, netns: &OwnedFd, bridge: u32) -> io::Result<Veth> {
        let [a, b, c, d, ..] = crate::ids::random();
        let host_interface = format!("veth{a:02x}{b:02x}{c:02x}{:x}", d & 15);
        self.host.add_veth(&host_interface, bridge, netns.as_fd())?;
        // Before anybody is in there who could send.
        self.guard.fence(&host_interface).map_err(io::Error::other)?;
        without_ipv6("eth0")?;
        let index = inside.find("eth0")?.ok_or(io::ErrorKind::NotFound)?.index;
        inside.set_up(index)?;
        self.settle(&host_interface)?;
        Ok(Veth { index, host_interface })
    }

    /// Waits until the bridge has noticed that the other end is up, or the
    /// container's first packets would be lost. Looking makes it notice, since
    /// Linux 6.8 (`linkwatch_sync_dev` in net/core/link_watch.c); before, it
    /// does by itself after milliseconds, at most a second.
    fn settle(&mut self, host_interface: &str) -> io::Result<()> {
        let end = Instant::now() + Duration::from_millis(1200);
        while !self.host.find(host_interface)?.ok_or(io::ErrorKind::NotFound)?.is_forwarding
            && Instant::now() < end
        {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Removes the host's end of a veth, and with it the other end.
    pub(super) fn unplug(&mut self, host_interface: &str) -> Result<(), Error> {
        let doing = || format!("remove the interface {host_interface}");
        self.host.delete(host_interface).map_err(|error| Error::kernel(doing(), error))
    }

    /// Forgets UDP flows to these ports of the host.
    fn forget(&mut self, ports: &[u16]) -> Result<(), Error> {
        let refused = |error| Error::kernel("forget UDP flows", error);
        let addresses = self.host.addresses().map_err(refused)?;
        let addresses: Vec<IpAddr> =
            addresses.into_iter().map(|(_, net)| net.addr().into()).collect();
        self.conntrack.forget(ports, &addresses).map_err(refused)
    }
}

/// An interface without an IPv6 address has no IPv6 at all, as in Docker.
pub(super) fn without_ipv6(interface: &str) -> io::Result<()> {
    set_sysctl(&format!("net/ipv6/conf/{interface}/disable_ipv6"), "1").or_else(|error| {
        // The kernel has no IPv6.
        if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
    })
}

/// Writes below /proc/sys, where `net` is the calling thread's namespace's.
pub(super) fn set_sysctl(path: &str, value: &str) -> io::Result<()> {
    io::Write::write_all(
        &mut File::options().write(true).open(format!("/proc/sys/{path}"))?,
        value.as_bytes(),
    )
}

/// Reads below /proc/sys, without the end of line.
pub(super) fn sysctl(path: &str) -> io::Result<String> {
    Ok(fs::read_to_string(format!("/proc/sys/{path}"))?.trim_end().to_owned())
}

fn own_namespace() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// What the maker's thread is asked to do.
#[derive(Debug)]
pub(super) enum Order {
    /// One more namespace: bare, or for a tenant's bridge of this index.
    Make(Option<(TenantName, u32)>),
    /// Take an interface away, then say so.
    Unplug(Unplugged),
    /// Forget UDP flows to these ports of the host.
    Forget(Vec<u16>),
}

/// An interface that is gone (or never will be).
#[derive(Debug)]
pub(super) struct Unplugged {
    pub(super) tenant: TenantName,
    pub(super) address: Ipv4Addr,
    pub(super) host_interface: String,
}

/// Carries orders out until the owner is gone.
pub(super) fn work(mut maker: Maker, orders: &Receiver<Order>, owner: &Sender<Command>) {
    for order in orders {
        let report = match order {
            Order::Make(place) => {
                let made = maker.make(place.as_ref().map(|(_, bridge)| *bridge));
                Command::Made { place: place.map(|(tenant, _)| tenant), made }
            }
            Order::Unplug(what) => {
                let gone = maker.unplug(&what.host_interface);
                Command::Gone { what, gone }
            }
            Order::Forget(ports) => {
                if let Err(error) = maker.forget(&ports) {
                    warn!(error = %chain(&error), "flows to a port may go astray for a while");
                }
                continue;
            }
        };
        if owner.send(report).is_err() {
            break;
        }
    }
}
