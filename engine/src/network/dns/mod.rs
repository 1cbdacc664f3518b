//! Names for containers: a resolver at 127.0.0.11 inside each that is on a
//! network of its user's own.
//!
//! ```text
//! Dns ──join, leave──▶ directory   who is called what, on which network
//!  │                      ▲ read
//!  └──serve, end──▶ worker ── one task per container: server ── forward ─▶ outside
//!                     │
//!                   place   sockets in the container's namespace, the guard leads there
//! ```
//!
//! One thread does all of it, and nothing else: a container that floods its
//! resolver slows down names, not the engine. It is the thread, too, that steps
//! into a container's network namespace to make sockets there.
//!
//! What must stay true:
//! - Whoever asks is answered out of the networks that he is on himself.
//! - A container's sockets, questions under way, hold on its namespace and the
//!   way to its resolver end with [`Dns::end`].
//! - Nothing is kept on disk: after a restart of the engine, all is told anew
//!   ([`Dns::join`] and [`Dns::serve`], on the namespace of the process that
//!   runs), and takes the place of what the last engine left: its ports, too, if
//!   nobody else has them by now.
//! - Bytes from a container are parsed by `question` alone, and never panic.
//!
//! May be used by `network`, and through it by `container`.

use super::Error;
use crate::ids::{ContainerId, NetworkId, TenantName};
use std::{
    fmt,
    net::IpAddr,
    os::fd::OwnedFd,
    sync::{Arc, RwLock, RwLockWriteGuard},
};
use tokio::sync::{mpsc::UnboundedSender, oneshot};
use tokio_util::task::TaskTracker;
use tritium_probes::Resolvers;

mod answer;
mod directory;
mod forward;
mod home;
mod place;
mod question;
mod server;
#[cfg(test)]
mod tests;
mod worker;

pub use directory::Membership;
pub use place::ADDRESS_INSIDE;

type SharedDirectory = Arc<RwLock<directory::Directory>>;

/// Whom to ask for what is not known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    pub address: IpAddr,
    /// An interface's name, where a link-local address needs one.
    pub zone: Option<String>,
    /// Asked from the host's network, not from the container's (`--dns`).
    pub from_host: bool,
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        self.zone.iter().try_for_each(|zone| write!(f, "%{zone}"))
    }
}

/// What a container's resolver does with what is not known here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// In the order in which they are asked.
    pub upstreams: Vec<Upstream>,
    /// `ndots` was set by the user or on the host.
    pub ndots_set: bool,
}

/// A container that shall have a resolver.
#[derive(Debug)]
pub struct Served {
    pub container: ContainerId,
    pub tenant: TenantName,
    /// Its network namespace, with loopback up.
    pub netns: OwnedFd,
    pub settings: Settings,
}

/// A handle on all resolvers. Cheap to clone; with the last one they stop, as by
/// [`Dns::stop`].
#[derive(Debug, Clone)]
pub struct Dns {
    directory: SharedDirectory,
    worker: UnboundedSender<worker::Command>,
}

impl Dns {
    /// Starts the thread, in the network namespace of the caller's thread.
    ///
    /// # Errors
    /// The kernel refuses a thread, or to forget where an earlier engine's resolvers listened.
    pub fn start(resolvers: Resolvers, tracker: &TaskTracker) -> Result<Self, Error> {
        let directory = SharedDirectory::default();
        let worker = worker::spawn(directory.clone(), resolvers, tracker.token())
            .map_err(|error| Error::kernel("start the resolvers' thread", error))?;
        Ok(Self { directory, worker })
    }

    /// Puts a container on a network, or changes what is known of it there.
    pub fn join(&self, container: ContainerId, membership: Membership) {
        self.directory().join(container, membership);
    }

    /// Takes a container off a network.
    pub fn leave(&self, container: ContainerId, network: NetworkId) {
        self.directory().leave(container, network);
    }

    /// Answers a container's questions from now on, in place of what answered
    /// before (also before the engine was restarted).
    ///
    /// # Errors
    /// The kernel refuses sockets in that namespace, or to lead there.
    pub async fn serve(&self, served: Served) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let command = worker::Command::Serve { served, reply };
        self.worker.send(command).map_err(|_| Error::Stopped)?;
        let container = answer.await.map_err(|_| Error::Stopped)?;
        container.map_err(|error| Error::kernel("start a container's resolver", error))
    }

    /// Forgets a container and ends its resolver, if it has one.
    pub fn end(&self, container: ContainerId) {
        self.directory().forget(container);
        // An error only says that all have ended.
        drop(self.worker.send(worker::Command::End(container)));
    }

    /// Ends all resolvers; containers ask in vain until the next engine serves
    /// them. Later calls of [`Dns::serve`] answer [`Error::Stopped`].
    pub fn stop(&self) {
        // An error only says that they have ended already.
        drop(self.worker.send(worker::Command::Stop));
    }

    fn directory(&self) -> RwLockWriteGuard<'_, directory::Directory> {
        self.directory.write().expect("no panic happens under this lock")
    }
}
