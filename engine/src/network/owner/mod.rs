//! The thread that owns all networks: what is attached, and what follows.
//!
//! Every change goes the same way: first what is known changes, then the
//! kernel is told; when it refuses, both are taken back. Should someone have
//! emptied the firewall under us, the next change builds it anew.

use super::{
    AttachRequest, Attachment, Counters, Endpoint, Error, Network, NetworkConfig, Published,
    Running,
    bridge::{Bridge, Names, Pool},
    firewall,
    ipam::{self, gateway_of},
    link::{Link, Rtnl},
    namespace::{Maker, Prepared, Unplugged, set_sysctl, sysctl},
    nft::{Batch, Nft, interface},
    ports::{Held, Ports, hold_again},
};
use crate::ids::{ContainerId, TenantName};
use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::Ipv4Addr,
    sync::mpsc::{Receiver, Sender},
    thread,
};
use tokio::sync::oneshot;
use tokio_util::task::task_tracker::TaskTrackerToken;

const FORWARDING: &str = "net/ipv4/ip_forward";

mod attach;
mod worker;

use worker::Worker;

type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What the owner can be asked, or told by the threads that work for it.
#[derive(Debug)]
pub(super) enum Command {
    Readopt { running: Vec<Running>, reply: Reply<Vec<(ContainerId, Published)>> },
    Attach { request: AttachRequest, reply: Reply<Attachment> },
    Detach { container: ContainerId, reply: Reply<()> },
    Describe { tenant: TenantName, reply: Reply<Network> },
    Stats { container: ContainerId, reply: Reply<Option<Counters>> },
    RemoveAll { reply: Reply<()> },
    Made { place: Option<TenantName>, made: Result<Prepared, Error> },
    Gone { what: Unplugged, gone: Result<(), Error> },
    Stop,
}

/// Starts the owner and, when it is `ready`, serves until told to stop.
pub(super) fn spawn(
    config: NetworkConfig,
    sender: Sender<Command>,
    commands: Receiver<Command>,
    ready: Reply<()>,
    token: TaskTrackerToken,
) -> Result<(), Error> {
    let serve = move || match Owner::start(config, &sender, &token) {
        Ok(owner) => {
            drop(sender);
            // The caller may have gone: its handle then sends `Stop`.
            drop(ready.send(Ok(())));
            owner.serve(commands);
        }
        Err(error) => drop(ready.send(Err(error))),
    };
    thread::Builder::new()
        .name("networks".into())
        .spawn(serve)
        .map(drop)
        .map_err(|error| Error::kernel("start the networks' thread", error))
}

/// A container's connection.
#[derive(Debug)]
struct Attached {
    tenant: TenantName,
    endpoint: Endpoint,
    held: Held,
}

#[derive(Debug)]
struct Owner {
    config: NetworkConfig,
    names: Names,
    rtnl: Rtnl,
    nft: Nft,
    /// For a namespace that is wanted when none is ready.
    maker: Maker,
    /// Makes namespaces ahead.
    making: Worker,
    /// Removes interfaces: tens of milliseconds each, so not in anybody's way.
    unplugging: Worker,
    ports: Ports,
    bridges: BTreeMap<TenantName, Bridge>,
    bare: Pool,
    attached: HashMap<ContainerId, Attached>,
    /// Interfaces (at least loopback) between which the host forwarded nothing
    /// before us; empty if it forwarded already.
    before: Vec<Vec<u8>>,
    /// Ports of our bridges that the last engine left, until `readopt`.
    left: Vec<String>,
    /// Whether the firewall's table is ours and not the last engine's.
    built: bool,
}

impl Owner {
    fn start(
        config: NetworkConfig,
        sender: &Sender<Command>,
        token: &TaskTrackerToken,
    ) -> Result<Self, Error> {
        let names = Names::new(&config.bridge)?;
        if config.address_pool.prefix_len() >= ipam::SMALLEST {
            return Err(Error::NoSubnet(config.address_pool));
        }
        let opening = |error| Error::kernel("open netlink sockets", error);
        let worker = |name| {
            let guard = config.guard.clone();
            Worker::spawn(name, sender.clone(), token.clone(), guard).map_err(opening)
        };
        let range = ephemeral().map_err(|e| Error::kernel("read ip_local_port_range", e))?;
        let mut owner = Self {
            rtnl: Rtnl::open().map_err(opening)?,
            nft: Nft::open().map_err(opening)?,
            maker: Maker::new(config.guard.clone()).map_err(opening)?,
            making: worker("networks-make")?,
            unplugging: worker("networks-gone")?,
            ports: Ports::new(range),
            bridges: BTreeMap::new(),
            bare: Pool::default(),
            attached: HashMap::new(),
            before: Vec::new(),
            left: Vec::new(),
            built: false,
            config,
            names,
        };
        owner
            .look_round()
            .map_err(|error| Error::kernel("look at the host's interfaces", error))?;
        owner.bridge(&TenantName::operator())?;
        owner.refill();
        Ok(owner)
    }

    /// Finds what the last engine left, and how the host was before any.
    fn look_round(&mut self) -> io::Result<()> {
        let (links, addresses) = (self.rtnl.links()?, self.rtnl.addresses()?);
        for link in &links {
            let Some(tenant) = self.names.tenant(link) else { continue };
            match self.names.adopt(&tenant, link, &addresses) {
                Some(bridge) => drop(self.bridges.insert(tenant, bridge)),
                None => self.rtnl.delete(&link.name)?,
            }
        }
        let ours = |link: &Link| self.bridges.values().any(|bridge| bridge.index == link.index);
        let port = |link: &Link| {
            link.master.is_some_and(|master| self.bridges.values().any(|b| b.index == master))
        };
        self.left = links.iter().filter(|l| port(l)).map(|l| l.name.clone()).collect();
        self.before = if sysctl(FORWARDING)? == "0" {
            let others = links.iter().filter(|l| !ours(l) && !port(l));
            others.map(|link| interface(&link.name)).collect()
        } else {
            self.nft.keys(&self.config.bridge, firewall::BEFORE)?
        };
        Ok(())
    }

    fn serve(mut self, commands: Receiver<Command>) {
        for command in &commands {
            match command {
                Command::Readopt { running, reply } => answer(reply, self.readopt(running)),
                Command::Attach { request, reply } => self.attach_for(request, reply),
                Command::Detach { container, reply } => answer(reply, self.detach(container)),
                Command::Describe { tenant, reply } => answer(reply, self.describe(&tenant)),
                Command::Stats { container, reply } => answer(reply, self.stats(container)),
                Command::Made { place, made } => self.made(place.as_ref(), made),
                Command::Gone { what, gone } => self.gone(&what, gone),
                Command::RemoveAll { reply } => return answer(reply, self.remove_all(commands)),
                Command::Stop => return,
            }
        }
    }

    fn readopt(&mut self, running: Vec<Running>) -> Result<Vec<(ContainerId, Published)>, Error> {
        let mut lost = Vec::new();
        for Running { container, tenant, endpoint, ports } in running {
            let bridge = self.bridge(&tenant)?;
            match bridge.addresses.take(Some(endpoint.address), bridge.id) {
                // Outside when the bridge was removed meanwhile and made anew.
                Ok(_) | Err(Error::AddressOutside { .. }) => {}
                Err(error) => return Err(error),
            }
            let (held, gone) = hold_again(ports);
            lost.extend(gone.into_iter().map(|port| (container, port)));
            self.attached.insert(container, Attached { tenant, endpoint, held });
        }
        self.build()?;
        for host_interface in std::mem::take(&mut self.left) {
            if !self.attached.values().any(|a| a.endpoint.host_interface == host_interface) {
                self.unplug(TenantName::operator(), Ipv4Addr::UNSPECIFIED, host_interface);
            }
        }
        Ok(lost)
    }

    /// Makes the firewall's table say what is known, in place of any other.
    fn build(&mut self) -> Result<(), Error> {
        let mut batch = Batch::new(&self.config.bridge);
        firewall::ruleset(&mut batch);
        for bridge in self.bridges.values() {
            firewall::add_bridge(&mut batch, &bridge.name, bridge.subnet);
        }
        self.before.iter().for_each(|name| firewall::add_before(&mut batch, name.clone()));
        for attached in self.attached.values() {
            for port in &attached.held.ports {
                firewall::publish(&mut batch, port, attached.endpoint.address);
            }
        }
        let doing = || format!("build the firewall's table {}", self.config.bridge);
        self.nft.commit(batch).map_err(|error| Error::kernel(doing(), error))?;
        // Only now, so that the host never forwards what the table refuses.
        set_sysctl(FORWARDING, "1").map_err(|error| Error::kernel("set ip_forward", error))?;
        self.built = true;
        Ok(())
    }

    /// Carries out changes that are in what is known already.
    fn change(&mut self, batch: Batch) -> Result<(), Error> {
        if !self.built || batch.is_empty() {
            return Ok(());
        }
        match self.nft.commit(batch) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.build(),
            done => done.map_err(|error| {
                Error::kernel(format!("change the firewall's table {}", self.config.bridge), error)
            }),
        }
    }

    /// A tenant's bridge, made if there is none yet.
    fn bridge(&mut self, tenant: &TenantName) -> Result<&mut Bridge, Error> {
        if !self.bridges.contains_key(tenant) {
            let made = self.names.make(&mut self.rtnl, tenant, self.config.address_pool)?;
            let mut batch = Batch::new(&self.config.bridge);
            firewall::add_bridge(&mut batch, &made.name, made.subnet);
            let name = made.name.clone();
            self.bridges.insert(tenant.clone(), made);
            if let Err(error) = self.change(batch) {
                self.bridges.remove(tenant);
                let doing = || format!("remove the bridge {name}");
                self.rtnl.delete(&name).map_err(|error| Error::kernel(doing(), error))?;
                return Err(error);
            }
        }
        Ok(self.bridges.get_mut(tenant).expect("it was there or is since a moment ago"))
    }

    fn describe(&mut self, tenant: &TenantName) -> Result<Network, Error> {
        let bridge = self.bridge(tenant)?;
        let (id, name, subnet) = (bridge.id, bridge.name.clone(), bridge.subnet);
        let theirs = self.attached.iter().filter(|(_, attached)| attached.tenant == *tenant);
        let endpoints = theirs.map(|(id, attached)| (*id, attached.endpoint.clone())).collect();
        Ok(Network { id, bridge: name, subnet, gateway: gateway_of(subnet), endpoints })
    }

    fn stats(&mut self, container: ContainerId) -> Result<Option<Counters>, Error> {
        let Some(attached) = self.attached.get(&container) else { return Ok(None) };
        let name = &attached.endpoint.host_interface;
        let found = self.rtnl.find(name);
        let found = found.map_err(|e| Error::kernel(format!("read counters of {name}"), e))?;
        Ok(found.map(|link| link.counters))
    }

    fn remove_all(mut self, commands: Receiver<Command>) -> Result<(), Error> {
        self.making.finish();
        self.unplugging.finish();
        // With the namespaces that were still on their way.
        drop(commands);
        self.bare.ready.clear();
        let refused = |doing: &'static str| move |error| Error::kernel(doing, error);
        let bridges = std::mem::take(&mut self.bridges);
        let links = self.rtnl.links().map_err(refused("list interfaces"))?;
        for bridge in bridges.into_values() {
            for port in links.iter().filter(|link| link.master == Some(bridge.index)) {
                self.rtnl.delete(&port.name).map_err(refused("remove a port of a bridge"))?;
            }
            self.rtnl.delete(&bridge.name).map_err(refused("remove a bridge"))?;
        }
        // Forwarding goes as it came, unless others have come to need it.
        let links = self.rtnl.links().map_err(refused("list interfaces"))?;
        if !self.before.is_empty() && self.built && !links.iter().any(|link| link.is_bridge) {
            set_sysctl(FORWARDING, "0").map_err(refused("set ip_forward"))?;
        }
        let mut batch = Batch::new(&self.config.bridge);
        batch.no_table();
        self.nft.commit(batch).map_err(refused("remove the firewall's table"))
    }
}

fn answer<T>(reply: Reply<T>, result: Result<T, Error>) {
    // Nobody listens when the caller has gone; the work is done all the same.
    drop(reply.send(result));
}

/// The kernel's range for ports that nobody chose.
fn ephemeral() -> io::Result<std::ops::RangeInclusive<u16>> {
    let text = sysctl("net/ipv4/ip_local_port_range")?;
    let mut ends = text.split_whitespace().map(str::parse);
    match (ends.next(), ends.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok(first..=last),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
