//! The thread that owns all networks: what is attached, and what follows.
//!
//! Every change goes the same way: first what is known changes, then the
//! kernel is told; when it refuses, both are taken back. Should someone have
//! emptied the firewall under us, the next change builds it anew.
//!
//! `networks.rs` and `macvlan.rs` make and remove networks, `attach.rs` serves containers that
//! start and end, `connect.rs` those that run; `worker.rs` is for what takes long.

use super::{
    AttachRequest, Attachment, Connected, Definition, Endpoint, EndpointRequest, Error, Network,
    NetworkConfig, PublishRequest, Published, Running,
    bridge::{Bridge, Pool},
    cable::Cable,
    firewall,
    ipam::SMALLEST,
    link::{Link, Rtnl},
    names::Names,
    namespace::{Maker, Prepared, Unplugged, set_sysctl, sysctl},
    nft::{Batch, Family, Nft, interface},
    ports::{Held, Ports, Target, hold_again},
    segment::Segment,
    zones,
};
use crate::ids::{ContainerId, NetworkId, TenantName};
use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender},
    thread,
    time::Instant,
};
use tokio::sync::oneshot;
use tokio_util::task::task_tracker::TaskTrackerToken;

mod attach;
mod connect;
mod host;
mod macvlan;
mod networks;
mod publish;
mod shadow;
mod worker;

use publish::{publish, publish_plainly, publish_zones, unpublish};
use worker::Worker;

type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What the owner can be asked, or told by the threads that work for it.
#[derive(Debug)]
pub(super) enum Command {
    Readopt { found: Found, reply: Reply<Vec<(ContainerId, Published)>> },
    Create { definition: Box<Definition>, reply: Reply<Definition> },
    Retire { network: NetworkId, reply: Reply<()> },
    Remove { network: NetworkId, removed: bool, reply: Reply<()> },
    List { tenant: TenantName, reply: Reply<Vec<Network>> },
    Attach { request: AttachRequest, reply: Reply<Attachment> },
    Detach { container: ContainerId, netns: Option<OwnedFd>, reply: Reply<()> },
    Connect { request: ConnectRequest, reply: Reply<Connected> },
    Disconnect { request: DisconnectRequest, reply: Reply<Vec<Published>> },
    RemoveAll { reply: Reply<()> },
    Made { place: Option<NetworkId>, made: Result<Prepared, Error> },
    Gone { what: Unplugged, gone: Result<(), Error> },
    Stop,
}

/// What is on record when the engine starts.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) networks: Vec<Definition>,
    pub(super) running: Vec<Running>,
}

/// One more network for a container that runs.
#[derive(Debug)]
pub(super) struct ConnectRequest {
    pub(super) container: ContainerId,
    pub(super) tenant: TenantName,
    pub(super) endpoint: EndpointRequest,
    /// All that it wants published, wherever its way out is.
    pub(super) ports: Vec<PublishRequest>,
    pub(super) netns: OwnedFd,
}

/// One network less.
#[derive(Debug)]
pub(super) struct DisconnectRequest {
    pub(super) container: ContainerId,
    pub(super) network: NetworkId,
    pub(super) netns: OwnedFd,
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

/// A container's connections.
#[derive(Debug)]
struct Attached {
    endpoints: Vec<Endpoint>,
    /// What it wants published.
    wanted: Vec<PublishRequest>,
    held: Held,
    /// Where its ports lead.
    target: Target,
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
    segments: BTreeMap<NetworkId, Segment>,
    /// Networks that are nothing but a configuration for others.
    configurations: BTreeMap<NetworkId, Definition>,
    bare: Pool,
    /// When the pools are to be filled up again.
    refill_at: Option<Instant>,
    attached: HashMap<ContainerId, Attached>,
    /// Addresses that are free when their interface, which is going, is gone.
    leaving: HashMap<(NetworkId, IpAddr), Cable>,
    host: host::Host,
    /// Bridges of users' networks that the last engine left, until `readopt`.
    found: BTreeMap<NetworkId, Link>,
    /// Ports of our bridges that it left.
    left: Vec<String>,
    /// Whether the firewall's tables are ours and not the last engine's.
    built: bool,
    /// Nanoseconds since 1970.
    started: i64,
}

impl Owner {
    fn start(
        config: NetworkConfig,
        sender: &Sender<Command>,
        token: &TaskTrackerToken,
    ) -> Result<Self, Error> {
        let names = Names::new(&config.bridge)?;
        if config.address_pool.prefix_len() >= SMALLEST {
            return Err(Error::NoSubnet(config.address_pool.into()));
        }
        let opening = |error| Error::kernel("open netlink sockets", error);
        let worker = |name| {
            let guard = config.guard.clone();
            Worker::spawn(name, sender.clone(), token.clone(), guard).map_err(opening)
        };
        let range = host::ephemeral();
        let range = range.map_err(|e| Error::kernel("read ip_local_port_range", e))?;
        let mut owner = Self {
            rtnl: Rtnl::open().map_err(opening)?,
            nft: Nft::open().map_err(opening)?,
            maker: Maker::new(config.guard.clone()).map_err(opening)?,
            making: worker("networks-make")?,
            unplugging: worker("networks-gone")?,
            ports: Ports::new(range),
            segments: BTreeMap::new(),
            configurations: BTreeMap::new(),
            bare: Pool::default(),
            refill_at: None,
            attached: HashMap::new(),
            leaving: HashMap::new(),
            host: host::Host::default(),
            found: BTreeMap::new(),
            left: Vec::new(),
            built: false,
            started: crate::events::now(),
            config,
            names,
        };
        owner
            .look_round()
            .map_err(|error| Error::kernel("look at the host's interfaces", error))?;
        owner.default_bridge(&TenantName::operator())?;
        owner.refill();
        Ok(owner)
    }

    /// Finds what the last engine left, and how the host was before any.
    fn look_round(&mut self) -> io::Result<()> {
        let (links, addresses) = (self.rtnl.links()?, self.rtnl.addresses()?);
        for link in &links {
            if let Some(network) = self.names.network(link) {
                self.found.insert(network, link.clone());
                continue;
            }
            let Some(tenant) = self.names.tenant(link) else { continue };
            match self.names.adopt(&tenant, link, &addresses, self.started) {
                Some(segment) => drop(self.segments.insert(segment.id(), segment)),
                None => self.rtnl.delete(&link.name)?,
            }
        }
        let found = self.found.values().map(|link| link.index);
        let ours: Vec<u32> = self.bridges().map(|it| it.index).chain(found).collect();
        let port = |link: &Link| link.master.is_some_and(|master| ours.contains(&master));
        self.left = links.iter().filter(|l| port(l)).map(|l| l.name.clone()).collect();
        let others = links.iter().filter(|link| !ours.contains(&link.index) && !port(link));
        let others: Vec<Vec<u8>> = others.map(|link| interface(&link.name)).collect();
        self.host = host::Host::look(&mut self.nft, &self.config.bridge, &others)?;
        Ok(())
    }

    fn bridges(&self) -> impl Iterator<Item = &Bridge> {
        self.segments.values().filter_map(Segment::bridge)
    }

    fn serve(mut self, commands: Receiver<Command>) {
        while let Some(command) = self.next(&commands) {
            match command {
                Command::Readopt { found, reply } => answer(reply, self.readopt(found)),
                Command::Create { definition, reply } => self.create_for(*definition, reply),
                Command::Retire { network, reply } => answer(reply, self.retire(network)),
                Command::Remove { network, removed, reply } => {
                    answer(reply, self.remove(network, removed));
                }
                Command::List { tenant, reply } => answer(reply, self.list(&tenant)),
                Command::Attach { request, reply } => self.attach_for(request, reply),
                Command::Detach { container, netns, reply } => {
                    answer(reply, self.detach(container, netns));
                }
                Command::Connect { request, reply } => self.connect_for(request, reply),
                Command::Disconnect { request, reply } => self.disconnect_for(request, reply),
                Command::Made { place, made } => self.made(place, made),
                Command::Gone { what, gone } => self.gone(what, gone),
                Command::RemoveAll { reply } => return answer(reply, self.remove_all(commands)),
                Command::Stop => return,
            }
        }
    }

    /// The next command; meanwhile, when it is due, the pools are filled up.
    fn next(&mut self, commands: &Receiver<Command>) -> Option<Command> {
        loop {
            let Some(at) = self.refill_at else { return commands.recv().ok() };
            match commands.recv_timeout(at.saturating_duration_since(Instant::now())) {
                Ok(command) => return Some(command),
                Err(RecvTimeoutError::Timeout) => self.refill(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn readopt(&mut self, found: Found) -> Result<Vec<(ContainerId, Published)>, Error> {
        self.readopt_networks(found.networks)?;
        let mut lost = Vec::new();
        for Running { container, tenant, endpoints, wanted, ports } in found.running {
            for endpoint in &endpoints {
                self.readopt_endpoint(&tenant, endpoint)?;
            }
            let (held, gone) = hold_again(ports);
            lost.extend(gone.into_iter().map(|port| (container, port)));
            let target = self.target(&endpoints);
            let attached = Attached { endpoints, wanted, held, target };
            self.attached.insert(container, attached);
        }
        self.build()?;
        for host_interface in std::mem::take(&mut self.left) {
            let mut endpoints = self.attached.values().flat_map(|it| &it.endpoints);
            if !endpoints.any(|endpoint| endpoint.host_interface == host_interface) {
                self.unplug(None, Vec::new(), Some(Cable::Host(host_interface)));
            }
        }
        Ok(lost)
    }

    fn readopt_endpoint(&mut self, tenant: &TenantName, endpoint: &Endpoint) -> Result<(), Error> {
        if endpoint.network_id == self.names.id(tenant, super::DEFAULT) {
            self.default_bridge(tenant)?;
        }
        // Without a record of its network it keeps what it has.
        let Some(segment) = self.segments.get_mut(&endpoint.network_id) else { return Ok(()) };
        let addresses: Vec<_> = endpoint.addresses().collect();
        match segment.take(&addresses) {
            // Outside when the bridge was removed meanwhile and made anew.
            Ok(_) | Err(Error::AddressOutside { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes the firewall's tables say what is known, in place of any others.
    fn build(&mut self) -> Result<(), Error> {
        let mut batch = Batch::new(&self.config.bridge);
        for family in &self.host.families {
            firewall::ruleset(&mut batch, *family);
            for name in self.host.before(*family) {
                firewall::add_before(&mut batch, *family, name.clone());
            }
        }
        let mut walls: Vec<firewall::Wall> = Vec::new();
        for wall in self.segments.values().filter_map(Segment::wall) {
            firewall::change_bridge(&mut batch, &self.host.families, &wall, &walls, true);
            walls.push(wall);
        }
        self.build_zones(&mut batch);
        for attached in self.attached.values() {
            publish_plainly(&mut batch, &attached.held, attached.target);
        }
        let doing = || format!("build the firewall's tables {}", self.config.bridge);
        self.nft.commit(batch).map_err(|error| Error::kernel(doing(), error))?;
        // Only now, so that the host never forwards what the tables refuse.
        let set = set_sysctl(host::FORWARDING, "1");
        set.map_err(|error| Error::kernel("set ip_forward", error))?;
        if self.segments.values().any(|it| it.definition.ipv6 && it.bridge().is_some()) {
            self.forward_ipv6()?;
        }
        self.built = true;
        Ok(())
    }

    fn forward_ipv6(&self) -> Result<(), Error> {
        self.host.forward_ipv6().map_err(|error| Error::kernel("let IPv6 be forwarded", error))
    }

    /// Carries out changes that are in what is known already.
    fn change(&mut self, batch: Batch) -> Result<(), Error> {
        if !self.built || batch.is_empty() {
            return Ok(());
        }
        match self.nft.commit(batch) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.build(),
            done => done.map_err(|error| {
                Error::kernel(format!("change the firewall's tables {}", self.config.bridge), error)
            }),
        }
    }

    fn remove_all(mut self, commands: Receiver<Command>) -> Result<(), Error> {
        let segments = std::mem::take(&mut self.segments);
        self.sweep_parents()?;
        self.making.finish();
        self.unplugging.finish();
        // With the namespaces that were still on their way.
        drop(commands);
        self.bare.ready.clear();
        let refused = |doing: &'static str| move |error| Error::kernel(doing, error);
        let links = self.rtnl.links().map_err(refused("list interfaces"))?;
        for segment in segments.values() {
            let Some(bridge) = segment.bridge() else { continue };
            for port in links.iter().filter(|link| link.master == Some(bridge.index)) {
                self.rtnl.delete(&port.name).map_err(refused("remove a port of a bridge"))?;
            }
            if let Some(zone) = segment.definition.zone {
                self.rtnl.unlead(zone).map_err(refused("remove a routing rule"))?;
            }
            self.rtnl.delete(&bridge.name).map_err(refused("remove a bridge"))?;
        }
        // Forwarding goes as it came, unless others have come to need it.
        let links = self.rtnl.links().map_err(refused("list interfaces"))?;
        if self.built && !links.iter().any(|link| link.is_bridge) {
            self.host.restore().map_err(refused("set ip_forward"))?;
        }
        let mut batch = Batch::new(&self.config.bridge);
        self.host.families.iter().for_each(|family| batch.family(*family).no_table());
        batch.in_table(zones::table(&self.config.bridge), |batch| {
            self.host.families.iter().for_each(|family| batch.family(*family).no_table());
        });
        self.nft.commit(batch).map_err(refused("remove the firewall's tables"))
    }
}

fn answer<T>(reply: Reply<T>, result: Result<T, Error>) {
    // Nobody listens when the caller has gone; the work is done all the same.
    drop(reply.send(result));
}
