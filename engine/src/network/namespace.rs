//! Network namespaces made ahead of need, and the thread that makes them.
//!
//! A namespace costs about a millisecond to make, so a few wait ready: with
//! loopback up, a netlink socket open inside, and for a bridge a veth whose
//! host end is already a port of it.

use super::{
    Error, Published,
    cable::{Cable, PlugPlan, Socket},
    conntrack::Conntrack,
    link::{Rtnl, VethPlan},
    macvlan::Port,
    owner::Command,
};
use crate::{error::chain, ids::NetworkId};
use nix::sched::{CloneFlags, setns, unshare};
use std::{
    fs::{self, File},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::mpsc::{Receiver, Sender},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;
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
        let host_interface = veth_name();
        let plan = VethPlan {
            name: &host_interface,
            inside: "eth0",
            bridge,
            mac: None,
            mtu: None,
            isolated: false,
        };
        self.host.add_veth(&plan, netns.as_fd())?;
        // Before anybody is in there who could send.
        self.guard.fence(&host_interface).map_err(io::Error::other)?;
        without_ipv6("eth0")?;
        let index = inside.find("eth0")?.ok_or(io::ErrorKind::NotFound)?.index;
        inside.set_up(index)?;
        self.settle(&host_interface, bridge)?;
        Ok(Veth { index, host_interface })
    }

    /// Does something in a namespace.
    ///
    /// # Panics
    /// If this thread cannot come back: it must not go on in the wrong place.
    pub(super) fn within<T>(
        &mut self,
        netns: BorrowedFd<'_>,
        work: impl FnOnce(&mut Self, &mut Rtnl) -> io::Result<T>,
    ) -> io::Result<T> {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        let done = Rtnl::open().and_then(|mut inside| work(self, &mut inside));
        setns(&self.home, CloneFlags::CLONE_NEWNET)
            .expect("we came from this namespace and hold it open");
        done
    }

    /// Gives a namespace one more interface, ready to use but for a way out;
    /// answers the name of the host's end, if it has one. On an error there is
    /// nothing of it.
    pub(super) fn plug_in(
        &mut self,
        netns: BorrowedFd<'_>,
        plan: &PlugPlan<'_>,
    ) -> io::Result<String> {
        match plan.socket {
            Socket::Bridge { index, isolated } => {
                self.plug_into_bridge(netns, plan, (index, isolated))
            }
            Socket::Macvlan(port) => {
                self.plug_into_parent(netns, plan, port)?;
                Ok(String::new())
            }
        }
    }

    fn plug_into_bridge(
        &mut self,
        netns: BorrowedFd<'_>,
        plan: &PlugPlan<'_>,
        (bridge, isolated): (u32, bool),
    ) -> io::Result<String> {
        let host_interface = veth_name();
        let veth = VethPlan {
            name: &host_interface,
            inside: plan.inside,
            bridge,
            mac: Some(plan.mac),
            mtu: plan.mtu,
            isolated,
        };
        let plugged = self.within(netns, |maker, inside| {
            maker.host.add_veth(&veth, netns)?;
            // Before anything can come out of it.
            maker.guard.fence(&host_interface).map_err(io::Error::other)?;
            let index = inside.find(plan.inside)?.ok_or(io::ErrorKind::NotFound)?.index;
            finish(inside, index, plan)?;
            maker.settle(&host_interface, bridge)
        });
        match plugged {
            Ok(()) => Ok(host_interface),
            Err(error) => {
                // Perhaps it was never made; what matters is why.
                drop(self.host.delete(&host_interface));
                Err(error)
            }
        }
    }

    fn plug_into_parent(
        &mut self,
        netns: BorrowedFd<'_>,
        plan: &PlugPlan<'_>,
        port: Port,
    ) -> io::Result<()> {
        self.within(netns, |maker, inside| {
            maker.host.add_macvlan(port, (plan.inside, plan.mac, plan.mtu), netns)?;
            let mut dress = || {
                if port.fenced {
                    // Before anything can come out of it.
                    let netns = netns.try_clone_to_owned()?;
                    let fenced = maker.guard.fence_within(netns, plan.inside);
                    fenced.map_err(io::Error::other)?;
                }
                // In mode passthru it has begun with its parent's.
                inside.set_mac(port.index, plan.mac)?;
                finish(inside, port.index, plan)
            };
            dress().inspect_err(|_| {
                // What matters is why it could not be finished.
                drop(inside.delete_at(port.index));
            })
        })
    }

    /// Waits until the bridge has noticed that the other end is up, or the
    /// container's first packets would be lost; and, on its first port, that it
    /// has itself come up, or the host's first packets would be. Looking makes it notice, since
    /// Linux 6.8 (`linkwatch_sync_dev` in net/core/link_watch.c); before, it
    /// does by itself after milliseconds, at most a second.
    fn settle(&mut self, host_interface: &str, bridge: u32) -> io::Result<()> {
        let end = Instant::now() + Duration::from_millis(1200);
        loop {
            let port = self.host.find(host_interface)?.ok_or(io::ErrorKind::NotFound)?;
            let bridge = self.host.at(bridge)?.ok_or(io::ErrorKind::NotFound)?;
            if (port.is_forwarding && bridge.is_up) || Instant::now() >= end {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Removes an interface: a veth with both its ends.
    pub(super) fn unplug(&mut self, cable: &Cable) -> Result<(), Error> {
        match cable {
            Cable::Host(name) => self
                .host
                .delete(name)
                .map_err(|error| Error::kernel(format!("remove the interface {name}"), error)),
            Cable::Inside { netns, index } => self
                .within(netns.as_fd(), |_, inside| inside.delete_at(*index))
                .map_err(|error| Error::kernel(format!("remove the interface {index}"), error)),
        }
    }

    /// Forgets UDP flows to these ports of the host.
    fn forget(&mut self, ports: &[SocketAddr]) -> Result<(), Error> {
        let refused = |error| Error::kernel("forget UDP flows", error);
        let addresses = self.host.addresses().map_err(refused)?;
        let addresses: Vec<IpAddr> = addresses.into_iter().map(|(_, net)| net.addr()).collect();
        self.conntrack.forget(ports, &addresses).map_err(refused)
    }
}

/// Gives an interface inside its addresses, and has it be up.
fn finish(inside: &mut Rtnl, index: u32, plan: &PlugPlan<'_>) -> io::Result<()> {
    if plan.nets.iter().any(|net| net.addr().is_ipv6()) {
        with_ipv6(plan.inside)?;
    } else {
        without_ipv6(plan.inside)?;
    }
    inside.add_addresses(index, plan.nets)?;
    inside.set_up(index)
}

fn veth_name() -> String {
    let [a, b, c, d, ..] = crate::ids::random();
    format!("veth{a:02x}{b:02x}{c:02x}{:x}", d & 15)
}

/// With the addresses that we give it only, and without waiting whether others
/// have them.
pub(super) fn with_ipv6(interface: &str) -> io::Result<()> {
    for (name, value) in [("disable_ipv6", "0"), ("accept_ra", "0"), ("accept_dad", "0")] {
        set_sysctl(&format!("net/ipv6/conf/{interface}/{name}"), value)?;
    }
    Ok(())
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
    /// One more namespace: bare, or for a network whose bridge has this index.
    Make(Option<(NetworkId, u32)>),
    /// Take an interface away, then say so.
    Unplug(Unplugged),
    /// Forget UDP flows to these ports of the host.
    Forget(Vec<SocketAddr>),
}

/// An interface that is gone (or never will be).
#[derive(Debug)]
pub(super) struct Unplugged {
    pub(super) network: Option<NetworkId>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) cable: Cable,
    /// Whoever waits for it.
    pub(super) waiting: Option<Waiting>,
}

/// Who waits until an interface has gone, and what is to be told then.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) reply: oneshot::Sender<Result<Vec<Published>, Error>>,
    pub(super) ports: Vec<Published>,
}

/// Carries orders out until the owner is gone.
pub(super) fn work(mut maker: Maker, orders: &Receiver<Order>, owner: &Sender<Command>) {
    for order in orders {
        let report = match order {
            Order::Make(place) => {
                let made = maker.make(place.map(|(_, bridge)| bridge));
                Command::Made { place: place.map(|(network, _)| network), made }
            }
            Order::Unplug(what) => {
                let gone = maker.unplug(&what.cable);
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
