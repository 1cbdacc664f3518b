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
mod exec;
mod failure;
mod job;
mod launch;
mod log_options;
mod machine;
mod mounts;
mod options;
mod packet;
mod pool;
mod prepared;
mod process;
mod running;
mod seccomp;
mod spawner;
mod stdio;
mod view;

pub use adopt::Adopted;
pub use cgroup::{BlockUsage, CpuUsage, MemoryUsage, Usage};
pub use devices::{DeviceRule, devices};
pub use exec::{ExecRunning, ExecStdio};
pub use job::{ExecJob, Files, Job, NetworkNamespace, Shown, UserMount};
pub use machine::{Interface, Machine, Traffic, machine};
pub use mounts::{MASKED_PATHS, READONLY_PATHS};
pub use options::check;
pub use prepared::Prepared;
pub use running::Running;
pub use stdio::{Stdin, Stdio};
pub use tritium_supervisor::protocol::{Exit, Rootfs as Overlay, Streams};
pub use view::View;

use crate::{error::Error, ids::ContainerId, spec::HostConfig};
use cgroup::Layout;
use connection::{LastWord, Tasks};
use pool::Pool;
use process::Rights;
use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::PathBuf,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

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
pub struct Runtime(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    run_dir: PathBuf,
    layout: Arc<Layout>,
    pool: Arc<Pool>,
    rights: Arc<Rights>,
    tasks: Tasks,
}

/// Removes what a room that has ended left in the control groups of that name: those of
/// supervisors that were parked, and the engine's own unless there are containers, running or
/// ended meanwhile; whether it removed those, too.
///
/// # Errors
/// When the kernel refuses, or somebody stays in them.
pub async fn leave(cgroup: &str) -> io::Result<bool> {
    let layout = Arc::new(Layout::find(cgroup).map_err(io::Error::other)?);
    raze_parked(&layout).await?;
    layout.take_down().await
}

/// Removes the directories of supervisors that are leaving.
async fn raze_parked(layout: &Arc<Layout>) -> io::Result<()> {
    for name in layout.names()? {
        if name.starts_with(spawner::READY) || name.starts_with(pool::GONE) {
            layout.parking(name).raze().await?;
        }
    }
    Ok(())
}

/// Docker's exit code for what ended while nobody looked.
const LOST: i32 = 255;
/// The exit code of what was killed with SIGKILL.
const KILLED: i32 = 128 + 9;

impl Runtime {
    /// Looks at the host, compiles Docker's seccomp profile, and begins to
    /// park supervisors.
    ///
    /// # Errors
    /// The host has no usable control groups, or the run directory cannot be made.
    pub async fn start(config: RuntimeConfig, tracker: TaskTracker) -> Result<Self, Error> {
        let RuntimeConfig { run_dir, cgroup, supervisor, ready } = config;
        let unusable = |error| Error::internal("cannot use the host's control groups", error);
        let layout = Arc::new(Layout::set_up(&cgroup).map_err(unusable)?);
        // Of an engine that was killed.
        let razed = raze_parked(&layout).await;
        razed.map_err(|error| Error::internal("cannot remove a control group", error))?;
        let containers = run_dir.join("containers");
        let doing = || format!("cannot make {}", containers.display());
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&containers)
            .map_err(|error| Error::internal(doing(), error))?;
        fs::metadata(&supervisor).map_err(|error| {
            Error::internal(format!("cannot find the supervisor {}", supervisor.display()), error)
        })?;
        let rights = Rights { own: capabilities::own()?, programs: seccomp::Programs::default() };
        rights
            .programs
            .get(&seccomp::Policy::Default, capabilities::DOCKER)
            .map_err(|error| Error::internal("cannot make the seccomp filter", error))?;
        let tasks = Tasks { tracker, stopping: CancellationToken::new() };
        let pool = Pool::start(supervisor, ready, layout.clone(), &tasks)
            .map_err(|error| Error::internal("cannot park supervisors", error))?;
        let rights = Arc::new(rights);
        Ok(Self(Arc::new(Inner { run_dir, layout, pool, rights, tasks })))
    }

    /// Ends the room's tasks and the parked supervisors; containers go on.
    pub fn stop(&self) {
        self.0.tasks.stopping.cancel();
        self.0.pool.close();
    }

    /// How many supervisors are parked now.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.0.pool.parked()
    }

    /// Takes a supervisor for a container and makes the container's control
    /// groups with their limits.
    ///
    /// # Errors
    /// A limit that the kernel refuses (`NotStarted`), or the host failed.
    pub async fn prepare(&self, id: ContainerId, host: &HostConfig) -> Result<Prepared, Error> {
        Prepared::make(self.0.clone(), id, host).await
    }

    /// Finds out what has become of a container that was started by an
    /// earlier engine. A corpse (processes without a supervisor) is removed.
    ///
    /// # Errors
    /// The supervisor is there but does not answer as it should.
    pub async fn adopt(&self, id: ContainerId, host: &HostConfig) -> Result<Adopted, Error> {
        // What it was limited to is in force; its rights are asked for anew
        // at each exec.
        let _ = host;
        adopt::adopt(&self.0, id).await
    }

    /// Forgets how a container ended: its exit is on record elsewhere now.
    pub fn forget_exit(&self, id: ContainerId) {
        let removed = prepared::remove_file(&self.0.exit_file(id));
        if let Err(error) = removed.and_then(|()| self.0.remove_directory(id)) {
            tracing::warn!(container = %id, %error, "cannot remove an exit file");
        }
    }

    /// Removes what is left of a container that does not run any more: its
    /// control groups and its place in the run directory, but for its exit.
    /// What cannot be removed is logged, and swept when an engine starts.
    pub async fn cleanup(&self, id: ContainerId) {
        let janitor = self.0.pool.janitor();
        match self.0.layout.group(id).remove(janitor.name()).await {
            Ok(None) => {}
            Ok(Some(aside)) => janitor.remove(aside),
            Err(error) => {
                tracing::warn!(container = %id, %error, "cannot remove its control groups");
            }
        }
        let socket = self.0.directory(id).join(prepared::SOCKET);
        let removed = prepared::remove_file(&socket);
        if let Err(error) = removed.and_then(|()| self.0.remove_directory(id)) {
            tracing::warn!(container = %id, %error, "cannot remove its run directory");
        }
    }

    /// Removes whatever belongs to no container in `known`: call it once,
    /// after every known container has been adopted.
    ///
    /// # Errors
    /// The run directory or a hierarchy cannot be read.
    pub async fn sweep(&self, known: &[ContainerId]) -> Result<(), Error> {
        let failed = |error: io::Error| Error::internal("cannot sweep what is left", error);
        let known: HashSet<ContainerId> = known.iter().copied().collect();
        let stray = |name: &str| name.parse().is_ok_and(|id| !known.contains(&id));
        for name in self.0.layout.names().map_err(failed)? {
            if stray(&name) {
                self.0.layout.parking(name).raze().await.map_err(failed)?;
            }
        }
        for entry in fs::read_dir(self.0.run_dir.join("containers")).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_str().is_some_and(stray) {
                prepared::remove_run_directory(&entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Where the version 2 tree is mounted: the engine's own directory is
    /// below it, and BPF programs are attached there.
    #[must_use]
    pub fn cgroup_root(&self) -> PathBuf {
        self.0.layout.root().to_owned()
    }

    /// What Docker calls the cgroup version: `"1"` or `"2"`.
    #[must_use]
    pub fn cgroup_version(&self) -> &'static str {
        if self.0.layout.is_v2() { "2" } else { "1" }
    }
}

impl Inner {
    fn directory(&self, id: ContainerId) -> PathBuf {
        self.run_dir.join("containers").join(id.hex())
    }

    fn exit_file(&self, id: ContainerId) -> PathBuf {
        self.directory(id).join(prepared::EXIT)
    }

    /// Removes a container's run directory if nothing is in it.
    fn remove_directory(&self, id: ContainerId) -> io::Result<()> {
        match fs::remove_dir(self.directory(id)) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                ) =>
            {
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// What is known of an end when the supervisor goes without telling: what
    /// it wrote, or nothing. Its container does not outlive it.
    fn last_word(&self, id: ContainerId) -> LastWord {
        let path = self.exit_file(id);
        let group = self.layout.group(id);
        Box::new(move || {
            if let Err(error) = group.kill() {
                tracing::error!(container = %id, %error, "cannot kill what its supervisor left");
            }
            match adopt::last_word(&path) {
                Ok(Some(exit)) => exit,
                outcome => {
                    // On version 1 it was in its container's memory group, and
                    // the kernel may have taken it for the container.
                    let oom_killed = group.had_oom().unwrap_or(false);
                    tracing::error!(container = %id, ?outcome, oom_killed, "its supervisor has died");
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                    let at = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
                    Exit { code: if oom_killed { KILLED } else { LOST }, oom_killed, at }
                }
            }
        })
    }
}
