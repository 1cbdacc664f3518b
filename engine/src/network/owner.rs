//! The thread that owns all networks.

use super::{
    AttachRequest, Attachment, Counters, Error, Network, NetworkConfig, Published, Running,
};
use crate::ids::{ContainerId, TenantName};
use std::sync::mpsc::{Receiver, Sender};
use tokio::sync::oneshot;
use tokio_util::task::task_tracker::TaskTrackerToken;

type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What the owner can be asked.
#[derive(Debug)]
pub(super) enum Command {
    Readopt { running: Vec<Running>, reply: Reply<Vec<(ContainerId, Published)>> },
    Attach { request: AttachRequest, reply: Reply<Attachment> },
    Detach { container: ContainerId, reply: Reply<()> },
    Describe { tenant: TenantName, reply: Reply<Network> },
    Stats { container: ContainerId, reply: Reply<Option<Counters>> },
    RemoveAll { reply: Reply<()> },
    Stop,
}

pub(super) fn spawn(
    _config: NetworkConfig,
    _sender: Sender<Command>,
    _commands: Receiver<Command>,
    _ready: Reply<()>,
    _token: TaskTrackerToken,
) -> Result<(), Error> {
    Err(Error::Stopped)
}
