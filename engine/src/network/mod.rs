//! Networks of containers: namespaces, bridges, addresses, published ports.
//!
//! Every tenant has one bridge of its own, so tenants share no Ethernet; to
//! each of them it looks like Docker's network `bridge`. Everything is done by
//! netlink from threads of its own: the *owner* (`owner.rs`) holds all state and does
//! what must be done now, the *maker* (`namespace.rs`) makes namespaces ahead. A thread and not a task, since netlink answers
//! before `sendto(2)` returns and `unshare(2)` is a property of a thread.
//!
//! What must stay true:
//! - A namespace is held by file descriptors only. When the engine and the
//!   container are gone, so are the namespace and both ends of its veth.
//! - An address is free again only when the interface that had it is gone.
//! - The firewall's table says what `Owner::attached` says, in one transaction
//!   each; a request that fails leaves nothing behind.
//! - A published port is also held by a bound socket, so that nobody else on
//!   the host can take it.
//! - A caller may go away at any time: the owner finishes or undoes the work.
//!
//! May be used by `service` and `container`; uses only the base.

use crate::ids::{ContainerId, TenantName};
use std::sync::{
    Arc,
    mpsc::{Sender, channel},
};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

mod bridge;
mod conntrack;
pub mod dns;
mod error;
pub mod files;
mod firewall;
mod ipam;
mod link;
mod namespace;
mod netlink;
mod nft;
mod owner;
mod ports;
mod types;

pub use error::Error;
pub use types::{
    AttachRequest, Attachment, BadMac, Counters, Endpoint, Mac, Mode, Network, NetworkConfig,
    Proto, PublishRequest, Published,
};

/// What was running when the engine stopped, out of its record.
#[derive(Debug, Clone)]
pub struct Running {
    pub container: ContainerId,
    pub tenant: TenantName,
    pub endpoint: Endpoint,
    pub ports: Vec<Published>,
}

/// A handle on the host's networks. Cheap to clone.
///
/// With the last handle the threads stop, as by [`Networks::stop`].
#[derive(Debug, Clone)]
pub struct Networks {
    owner: Arc<Owner>,
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
        let (sender, commands) = channel();
        let (ready, started) = oneshot::channel();
        owner::spawn(config, sender.clone(), commands, ready, tracker.token())?;
        started.await.map_err(|_| Error::Stopped)??;
        Ok(Self { owner: Arc::new(Owner(sender)) })
    }

    /// Takes over what outlived the last engine: reserves its addresses, binds
    /// its ports, makes the firewall's table say exactly that, and removes
    /// interfaces of what is gone. Answers the ports that something else on the
    /// host took while no engine ran, which are no longer published.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn readopt(
        &self,
        running: Vec<Running>,
    ) -> Result<Vec<(ContainerId, Published)>, Error> {
        self.ask(|reply| owner::Command::Readopt { running, reply }).await?
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
    /// follow within milliseconds.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn detach(&self, container: ContainerId) -> Result<(), Error> {
        self.ask(|reply| owner::Command::Detach { container, reply }).await?
    }

    /// The network called `bridge` of a tenant, made if it was not there yet.
    ///
    /// # Errors
    /// No subnet is free, or the kernel refuses.
    pub async fn describe(&self, tenant: &TenantName) -> Result<Network, Error> {
        let tenant = tenant.clone();
        self.ask(|reply| owner::Command::Describe { tenant, reply }).await?
    }

    /// What a container has sent and received; none if it has no interface.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn stats(&self, container: ContainerId) -> Result<Option<Counters>, Error> {
        self.ask(|reply| owner::Command::Stats { container, reply }).await?
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
