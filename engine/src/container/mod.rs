//! One container's life.
//!
//! A task, the driver (`driver.rs`), owns each container: its state, its
//! supervisor, its network attachment. Everybody else holds a [`Handle`] and
//! sends it requests, so that a client that hangs up abandons the answer and
//! never the work. What others may look at is published as a [`Snapshot`].
//!
//! Order on the way up: record, root filesystem, network, control group,
//! guard, process. On the way down the same backwards. A crash between any two
//! steps is mended by `storage`'s, `runtime`'s and `network`'s sweeps at the
//! next start.
//!
//! Used by `service` only.

mod archive;
mod attach;
mod bring_up;
mod driver;
mod ending;
mod exec;
mod files;
mod handle;
mod health;
mod input;
mod logs;
mod mounts;
mod names;
mod networking;
mod pacing;
pub mod ports;
mod record;
mod registry;
mod removal;
mod restart;
mod state;
mod stats;
mod tools;
mod top;
mod update;
mod users;

pub use archive::{Extraction, PathStat};
pub use bring_up::{admission, interface};
pub use driver::adopt;
pub use exec::{ExecHandle, ExecRequest, ExecSnapshot, ExecStart};
pub use handle::{
    AttachOptions, Attachment, Handle, Input, LogOptions, Output, RemoveOptions, Top,
    WaitCondition, WaitOutcome,
};
pub use health::{Health, HealthStatus, Probe};
pub use mounts::{Sockets, fill, is_docker_socket};
pub use names::{announce_names, resume_names};
pub use networking::{Joining, link_parts};
pub use record::{EndpointRecord, MountPoint, Mounted, Record};
pub use registry::Registry;
pub use restart::wanted_at_start;
pub use state::State;
pub use stats::Sample;
pub use tools::Tools;
pub use update::Update;

use std::sync::Arc;

/// What a container looked like at one moment; cheap to hold.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// What was asked for and what was decided at creation.
    pub record: Arc<Record>,
    /// Where it is now.
    pub state: State,
}
