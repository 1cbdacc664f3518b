//! Networks of containers: namespaces, bridges, addresses, published ports.
//!
//! Every network is a bridge of its own, and every network is one tenant's, so
//! tenants share no Ethernet; each has a network `bridge` that nobody made. Or
//! it is on the Ethernet of one of the host's interfaces (`macvlan.rs`), where
//! the firewall has no say; `segment.rs` knows the two apart.
//! Everything is done by netlink from threads of its own: the *owner*
//! (`owner/`) holds all state and does what must be done now, the *maker*
//! (`namespace.rs`) makes namespaces ahead. A thread and not a task, since
//! netlink answers before `sendto(2)` returns and `unshare(2)` is a property of
//! a thread. Names are a room of their own, [`dns`], which knows nothing of the
//! rest.
//!
//! Addresses are unique within a tenant; subnets that nobody chose, among all.
//! A network whose subnet overlaps another tenant's has a routing table, a mark
//! and a conntrack zone of its own (`zones.rs`): the host's other tables know
//! the way to whoever was there first.
//!
//! What must stay true:
//! - A namespace is held by file descriptors only. When the engine and the
//!   container are gone, so are the namespace, both ends of its veth, its macvlans.
//! - An address is free again only when the interface that had it is gone.
//! - No bridge's own address can be a container's, whosever.
//! - The firewall's tables say what `Owner::attached` says, in one transaction
//!   each; a request that fails leaves nothing behind.
//! - A published port is also held by a bound socket, so that nobody else on
//!   the host can take it.
//! - A caller may go away at any time: the owner finishes or undoes the work.
//!
//! May be used by `service` and `container`; uses only the base.

use crate::ids::{ContainerId, NetworkId, TenantName};
use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        mpsc::{Sender, channel},
    },
};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

mod bridge;
mod cable;
mod conntrack;
mod definition;
pub mod dns;
mod error;
pub mod files;
mod firewall;
mod ipam;
mod link;
mod macvlan;
mod names;
mod namespace;
mod netlink;
mod nft;
mod owner;
mod ports;
mod routes;
mod segment;
mod types;
mod ways;
mod zones;

pub use definition::{AddressPool, BRIDGE_NAME, Definition, Driver};
pub use error::Error;
pub use types::{
    AttachRequest, Attachment, BadMac, Connected, Endpoint, EndpointRequest, Mac, Network,
    NetworkConfig, Proto, PublishRequest, Published,
};
pub use zones::Zone;

/// The network that every tenant has without making it.
pub const DEFAULT: &str = "bridge";

/// What was running when the engine stopped, out of its record.
#[derive(Debug, Clone)]
pub struct Running {
    pub container: ContainerId,
    pub tenant: TenantName,
    pub endpoints: Vec<Endpoint>,
    /// What it wants published, and what is.
    pub wanted: Vec<PublishRequest>,
    pub ports: Vec<Published>,
}

/// A handle on the host's networks. Cheap to clone.
///
/// With the last handle the threads stop, as by [`Networks::stop`].
#[derive(Debug, Clone)]
pub struct Networks {
    owner: Arc<Owner>,
    names: names::Names,
}

/// The way to the owner's thread.
#[derive(Debug)]
struct Owner(Sender<owner::Command>);

impl Drop for Owner {
    fn drop(&mut self) {
        // An error only says that it has stopped already.
        drop(self.0.send(owner::Command::Stop));
    }
}

impl Networks {
    /// Opens the sockets, finds or makes the operator's bridge, and starts
    /// making namespaces. Acts in the network namespace of the caller's thread.
    ///
    /// Call [`Networks::readopt`] next; the firewall's rules are as the last
    /// engine left them until then.
    ///
    /// # Errors
    /// The kernel refuses (no root, no nf_tables), or no subnet is free.
    pub async fn start(config: NetworkConfig, tracker: &TaskTracker) -> Result<Self, Error> {
        let names = names::Names::new(&config.bridge)?;
        let (sender, commands) = channel();
        let (ready, started) = oneshot::channel();
        owner::spawn(config, sender.clone(), commands, ready, tracker.token())?;
        started.await.map_err(|_| Error::Stopped)??;
        Ok(Self { owner: Arc::new(Owner(sender)), names })
    }

    /// The id of one of a tenant's networks that nobody made: `bridge`, `none`, `host`.
    #[must_use]
    pub fn id(&self, tenant: &TenantName, network: &str) -> NetworkId {
        self.names.id(tenant, network)
    }

    /// Takes over what outlived the last engine: the networks on record,
    /// made again where they are gone; reserves addresses of what runs, binds
    /// its ports, makes the firewall's tables say exactly that, and removes
    /// interfaces of what is gone. Answers the ports that something else on the
    /// host took while no engine ran, which are no longer published.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn readopt(
        &self,
        networks: Vec<Definition>,
        running: Vec<Running>,
    ) -> Result<Vec<(ContainerId, Published)>, Error> {
        let found = owner::Found { networks, running };
        self.ask(|reply| owner::Command::Readopt { found, reply }).await?
    }

    /// Makes a network; answers it with the subnets and gateways that nobody
    /// chose. The caller records it next, or removes it.
    ///
    /// # Errors
    /// See [`Error`]; nothing is left behind then.
    pub async fn create(&self, definition: Definition) -> Result<Definition, Error> {
        let definition = Box::new(definition);
        self.ask(|reply| owner::Command::Create { definition, reply }).await?
    }

    /// Begins to remove a network: nobody can join it any more. The caller
    /// takes it off the record next and calls [`Networks::remove`] either way.
    ///
    /// # Errors
    /// Containers are on it, or other networks are made of it.
    pub async fn retire(&self, network: NetworkId) -> Result<(), Error> {
        self.ask(|reply| owner::Command::Retire { network, reply }).await?
    }

    /// Removes a network, or if it could not be `removed` from the record, has
    /// it back as it was.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn remove(&self, network: NetworkId, removed: bool) -> Result<(), Error> {
        self.ask(|reply| owner::Command::Remove { network, removed, reply }).await?
    }

    /// All networks of a tenant: `bridge` (made if it was not there yet),
    /// `none`, `host`, then its own.
    ///
    /// # Errors
    /// No subnet is free, or the kernel refuses.
    pub async fn list(&self, tenant: &TenantName) -> Result<Vec<Network>, Error> {
        let tenant = tenant.clone();
        self.ask(|reply| owner::Command::List { tenant, reply }).await?
    }

    /// Connects a container that runs to one more network. `ports` is all that
    /// it wants published: they follow its way out.
    ///
    /// # Errors
    /// See [`Error`]; nothing has changed then.
    pub async fn connect(
        &self,
        container: (ContainerId, &TenantName),
        endpoint: EndpointRequest,
        ports: Vec<PublishRequest>,
        netns: OwnedFd,
    ) -> Result<Connected, Error> {
        let (container, tenant) = (container.0, container.1.clone());
        let request = owner::ConnectRequest { container, tenant, endpoint, ports, netns };
        self.ask(|reply| owner::Command::Connect { request, reply }).await?
    }

    /// Takes a container that runs from a network; answers the ports that are
    /// published still. Its interface is gone when this returns.
    ///
    /// # Errors
    /// It is not on it, or the kernel refuses.
    pub async fn disconnect(
        &self,
        container: ContainerId,
        network: NetworkId,
        netns: OwnedFd,
    ) -> Result<Vec<Published>, Error> {
        let request = owner::DisconnectRequest { container, network, netns };
        self.ask(|reply| owner::Command::Disconnect { request, reply }).await?
    }

    /// A namespace for a container, connected as asked.
    ///
    /// # Errors
    /// See [`Error`]; nothing is left behind then.
    pub async fn attach(&self, request: &AttachRequest) -> Result<Attachment, Error> {
        let request = request.clone();
        self.ask(|reply| owner::Command::Attach { request, reply }).await?
    }

    /// Takes back what `attach` gave. Does nothing when there is nothing (left).
    /// When this returns the ports are free; the interface and its address
    /// follow within milliseconds. Without its namespace, a macvlan stays until
    /// that goes.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn detach(
        &self,
        container: ContainerId,
        netns: Option<OwnedFd>,
    ) -> Result<(), Error> {
        self.ask(|reply| owner::Command::Detach { container, netns, reply }).await?
    }

    /// Removes every bridge, interface and rule of this engine, and stops.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn remove_all(&self) -> Result<(), Error> {
        self.ask(|reply| owner::Command::RemoveAll { reply }).await?
    }

    /// Stops all threads; what is attached stays as it is. The prepared
    /// namespaces go. Later calls answer [`Error::Stopped`].
    pub fn stop(&self) {
        // An error only says that it has stopped already.
        drop(self.owner.0.send(owner::Command::Stop));
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> owner::Command,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.owner.0.send(command(reply)).map_err(|_| Error::Stopped)?;
        answer.await.map_err(|_| Error::Stopped)
    }
}
