//! The thread that owns all networks: what is attached, and what follows.
//!
//! Every change goes the same way: first what is known changes, then the
//! kernel is told; when it refuses, both are taken back. Should someone have
//! emptied the firewall under us, the next change builds it anew.

use super::{
    AttachRequest, Attachment, Counters, Endpoint, Error, Mode, Network, NetworkConfig, Proto,
    Published, Running,
    bridge::{Bridge, Names, Pool},
    firewall,
    ipam::{self, gateway_of, mac_of},
    link::{Link, Rtnl},
    namespace::{Maker, Order, Prepared, Unplugged, Veth, set_sysctl, sysctl, work},
    nft::{Batch, Nft, interface},
    ports::{Held, Ports, hold_again},
};
use crate::{
    error::chain,
    ids::{ContainerId, NetworkId, TenantName, random},
};
use ipnet::Ipv4Net;
use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::Ipv4Addr,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};
use tokio::sync::oneshot;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::warn;

const FORWARDING: &str = "net/ipv4/ip_forward";

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

/// A thread that carries out orders.
#[derive(Debug)]
struct Worker {
    orders: Sender<Order>,
    thread: thread::JoinHandle<()>,
}

impl Worker {
    fn spawn(name: &str, owner: Sender<Command>, token: TaskTrackerToken) -> io::Result<Self> {
        let maker = Maker::new()?;
        let (orders, received) = channel();
        let run = move || {
            work(maker, &received, &owner);
            drop(token);
        };
        let thread = thread::Builder::new().name(name.into()).spawn(run)?;
        Ok(Self { orders, thread })
    }

    fn order(&self, order: Order) {
        if self.orders.send(order).is_err() {
            warn!("a thread of the networks has died");
        }
    }

    /// Ends the thread after its last order.
    fn finish(self) {
        drop(self.orders);
        if self.thread.join().is_err() {
            warn!("a thread of the networks has died");
        }
    }
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
        let worker = |name| Worker::spawn(name, sender.clone(), token.clone()).map_err(opening);
        let range = ephemeral().map_err(|e| Error::kernel("read ip_local_port_range", e))?;
        let mut owner = Self {
            rtnl: Rtnl::open().map_err(opening)?,
            nft: Nft::open().map_err(opening)?,
            maker: Maker::new().map_err(opening)?,
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

    fn attach_for(&mut self, request: AttachRequest, reply: Reply<Attachment>) {
        let container = request.container;
        if let Err(Ok(_)) = reply.send(self.attach(request)) {
            // The caller has gone, so nobody else will.
            if let Err(error) = self.detach(container) {
                warn!(%container, error = %chain(&error), "cannot detach what nobody waits for");
            }
        }
        self.refill();
    }

    fn attach(&mut self, request: AttachRequest) -> Result<Attachment, Error> {
        if !self.built {
            self.readopt(Vec::new())?;
        }
        if request.mode == Mode::None {
            let Prepared { netns, .. } = self.ready(None)?;
            return Ok(Attachment { netns, endpoint: None, ports: Vec::new() });
        }
        if self.attached.contains_key(&request.container) {
            return Err(Error::Attached(request.container));
        }
        let bridge = self.bridge(&request.tenant)?;
        let address = bridge.addresses.take(request.address, bridge.id)?;
        let begun = self.hold(&request, address).and_then(|held| {
            let prepared = self.ready(Some(&request.tenant))?;
            Ok((held, prepared))
        });
        let (held, prepared) = begun.inspect_err(|_| self.release(&request.tenant, address))?;
        let veth = prepared.veth.expect("a namespace for a bridge is made with a veth");
        let host_interface = veth.host_interface.clone();
        let Prepared { netns, inside, .. } = prepared;
        match self.plug_in(&request, address, (inside, veth), held) {
            Ok((endpoint, ports)) => Ok(Attachment { netns, endpoint: Some(endpoint), ports }),
            Err(error) => {
                self.unplug(request.tenant, address, host_interface);
                Err(error)
            }
        }
    }

    fn hold(&mut self, request: &AttachRequest, address: Ipv4Addr) -> Result<Held, Error> {
        if request.ports.is_empty() {
            return Ok(Held::default());
        }
        let all = self.attached.values().flat_map(|attached| &attached.held.ports);
        let taken: Vec<Published> = all.copied().collect();
        self.ports.hold(&request.ports, address, &taken)
    }

    /// Gives `eth0` its address, and the world a way to it.
    fn plug_in(
        &mut self,
        request: &AttachRequest,
        address: Ipv4Addr,
        (mut inside, veth): (Rtnl, Veth),
        held: Held,
    ) -> Result<(Endpoint, Vec<Published>), Error> {
        let bridge = self.bridge(&request.tenant)?;
        let endpoint = Endpoint {
            network_id: bridge.id,
            endpoint_id: NetworkId::of(random()),
            address,
            prefix: bridge.subnet.prefix_len(),
            gateway: gateway_of(bridge.subnet),
            mac: request.mac.unwrap_or_else(|| mac_of(address)),
            host_interface: veth.host_interface,
        };
        let net = Ipv4Net::new_assert(address, endpoint.prefix);
        inside.configure(veth.index, endpoint.mac, net, endpoint.gateway).map_err(|error| {
            Error::kernel(format!("give eth0 the address {address} and {}", endpoint.mac), error)
        })?;
        let ports = held.ports.clone();
        let mut batch = Batch::new(&self.config.bridge);
        ports.iter().for_each(|port| firewall::publish(&mut batch, port, address));
        let attached =
            Attached { tenant: request.tenant.clone(), endpoint: endpoint.clone(), held };
        self.attached.insert(request.container, attached);
        self.change(batch).inspect_err(|_| drop(self.attached.remove(&request.container)))?;
        self.forget_flows(&ports);
        Ok((endpoint, ports))
    }

    /// Has the kernel look up anew where datagrams to these ports go.
    fn forget_flows(&self, ports: &[Published]) {
        let udp = ports.iter().filter(|port| port.proto == Proto::Udp);
        let udp: Vec<u16> = udp.map(|port| port.host_port).collect();
        if !udp.is_empty() {
            self.unplugging.order(Order::Forget(udp));
        }
    }

    /// Removes an interface, and gives its address back when it is gone.
    fn unplug(&self, tenant: TenantName, address: Ipv4Addr, host_interface: String) {
        self.unplugging.order(Order::Unplug(Unplugged { tenant, address, host_interface }));
    }

    fn release(&mut self, tenant: &TenantName, address: Ipv4Addr) {
        if let Some(bridge) = self.bridges.get_mut(tenant) {
            bridge.addresses.release(address);
        }
    }

    /// A namespace out of a pool, or a new one when the pool is empty.
    fn ready(&mut self, tenant: Option<&TenantName>) -> Result<Prepared, Error> {
        let (pool, index) = match tenant {
            None => (&mut self.bare, None),
            Some(tenant) => {
                let bridge = self.bridge(tenant)?;
                let index = bridge.index;
                (&mut self.bridges.get_mut(tenant).expect("just there").pool, Some(index))
            }
        };
        pool.ready.pop_front().map_or_else(|| self.maker.make(index), Ok)
    }

    fn detach(&mut self, container: ContainerId) -> Result<(), Error> {
        let Some(attached) = self.attached.remove(&container) else { return Ok(()) };
        let mut batch = Batch::new(&self.config.bridge);
        attached.held.ports.iter().for_each(|port| firewall::unpublish(&mut batch, port));
        if let Err(error) = self.change(batch) {
            self.attached.insert(container, attached);
            return Err(error);
        }
        let Attached { tenant, endpoint, held } = attached;
        self.forget_flows(&held.ports);
        drop(held);
        let Endpoint { address, host_interface, .. } = endpoint;
        self.unplug(tenant, address, host_interface);
        Ok(())
    }

    fn gone(&mut self, what: &Unplugged, gone: Result<(), Error>) {
        match gone {
            Ok(()) => self.release(&what.tenant, what.address),
            // Its address stays taken, as the interface still has it.
            Err(error) => warn!(error = %chain(&error), "an interface stays"),
        }
    }

    fn made(&mut self, place: Option<&TenantName>, made: Result<Prepared, Error>) {
        let pool = match place {
            None => Some(&mut self.bare),
            Some(tenant) => self.bridges.get_mut(tenant).map(|bridge| &mut bridge.pool),
        };
        let Some(pool) = pool else { return };
        pool.coming -= 1;
        match made {
            Ok(prepared) => pool.ready.push_back(prepared),
            // Whoever needs it makes his own, and hears why that fails.
            Err(error) => warn!(error = %chain(&error), "cannot prepare a network namespace"),
        }
    }

    /// Orders as many namespaces as the pools lack.
    fn refill(&mut self) {
        for _ in 0..self.bare.lacks(self.config.ready) {
            self.bare.coming += 1;
            self.making.order(Order::Make(None));
        }
        for (tenant, bridge) in &mut self.bridges {
            let wanted = self.config.ready.min(if tenant.is_operator() { usize::MAX } else { 1 });
            for _ in 0..bridge.pool.lacks(wanted) {
                bridge.pool.coming += 1;
                self.making.order(Order::Make(Some((tenant.clone(), bridge.index))));
            }
        }
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
