//! Makes a spec run: control groups, supervisors, seccomp, adoption.
//!
//! A container is started in two steps. [`Runtime::prepare`] takes a supervisor
//! that has been parked ahead of need, gives its control groups the container's
//! name and writes the limits; from then on the container's place in the
//! kernel has an identity ([`Prepared::cgroup_id`]) that a guard can know.
//! [`Prepared::launch`] then has the supervisor make the container.
//!
//! Why supervisors are parked: to move a process into a version 1 control
//! group costs an RCU grace period, 5 to 20 ms, and to start a program costs
//! another. Renaming a directory costs 20 µs. So the pool pays ahead of need.
//!
//! What must stay true: no process is started between a request and its
//! container; dropping a [`Prepared`] leaves nothing behind; a supervisor and
//! its container live on when the engine dies, and [`Runtime::adopt`] finds
//! them by the container's id alone; whatever belongs to no container that is
//! known is removed by [`Runtime::sweep`].
//!
//! ```text
//! RUN_DIR/containers/ID/supervisor.sock   where an engine meets the supervisor
//! RUN_DIR/containers/ID/exit.json         how it ended; written by the supervisor
//! HIERARCHY/CGROUP/ID                     limits, and who is in the container
//! HIERARCHY/CGROUP/ready-N                a parked supervisor's (version 1 only)
//! ```
//!
//! `container` and `service` may use this room. It uses the base, and the
//! supervisor's protocol.

mod adopt;
mod capabilities;
mod cgroup;
mod connection;
mod devices;
mod failure;
mod job;
mod launch;
mod mounts;
mod options;
mod packet;
mod pool;
mod prepared;
mod process;
mod running;
mod seccomp;
mod stdio;

pub use adopt::Adopted;
pub use cgroup::{BlockUsage, CpuUsage, MemoryUsage, Usage};
pub use devices::{DeviceRule, devices};
pub use job::{BindMount, ExecJob, Files, Job, NetworkNamespace};
pub use mounts::{MASKED_PATHS, READONLY_PATHS};
pub use options::check;
pub use prepared::Prepared;
pub use running::{ExecRunning, ExecStdio, Running};
pub use stdio::Stdin;
pub use tritium_supervisor::protocol::{Exit, Rootfs as Overlay, Streams};

use crate::{error::Error, ids::ContainerId, spec::HostConfig};
use std::path::PathBuf;
use tokio_util::task::TaskTracker;

/// What the room needs to know.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    pub run_dir: PathBuf,
    /// Name of the engine's directory in each hierarchy.
    pub cgroup: String,
    /// The supervisor's program.
    pub supervisor: PathBuf,
    /// How many parked supervisors are kept.
    pub ready: usize,
}

/// A cheap handle on the room.
#[derive(Debug, Clone)]
pub struct Runtime(());

impl Runtime {
    /// Looks at the host, compiles Docker's seccomp profile, and begins to
    /// park supervisors.
    ///
    /// # Errors
    /// The host has no usable control groups, or the run directory cannot be made.
    pub async fn start(config: RuntimeConfig, tracker: TaskTracker) -> Result<Self, Error> {
        let _ = (config, tracker);
        unimplemented!()
    }

    /// Ends the room's tasks and the parked supervisors; containers go on.
    pub fn stop(&self) {
        unimplemented!()
    }

    /// Takes a supervisor for a container and makes the container's control
    /// groups with their limits.
    ///
    /// # Errors
    /// A limit that the kernel refuses (`NotStarted`), or the host failed.
    pub async fn prepare(&self, id: ContainerId, host: &HostConfig) -> Result<Prepared, Error> {
        let _ = (id, host);
        unimplemented!()
    }

    /// Finds out what has become of a container that was started by an
    /// earlier engine. A corpse (processes without a supervisor) is removed.
    ///
    /// # Errors
    /// The supervisor is there but does not answer as it should.
    pub async fn adopt(&self, id: ContainerId, host: &HostConfig) -> Result<Adopted, Error> {
        let _ = (id, host);
        unimplemented!()
    }

    /// Forgets how a container ended: its exit is on record elsewhere now.
    pub fn forget_exit(&self, id: ContainerId) {
        let _ = id;
        unimplemented!()
    }

    /// Removes what is left of a container that does not run any more: control
    /// groups and the run directory. What cannot be removed is logged, and
    /// swept when an engine starts.
    pub async fn cleanup(&self, id: ContainerId) {
        let _ = id;
        unimplemented!()
    }

    /// Removes whatever belongs to no container in `known`: call it once,
    /// after every known container has been adopted.
    ///
    /// # Errors
    /// The run directory or a hierarchy cannot be read.
    pub async fn sweep(&self, known: &[ContainerId]) -> Result<(), Error> {
        let _ = known;
        unimplemented!()
    }

    /// What Docker calls the cgroup version: `"1"` or `"2"`.
    #[must_use]
    pub fn cgroup_version(&self) -> &'static str {
        unimplemented!()
    }
}
