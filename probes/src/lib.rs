//! The engine's eyes and fences in the kernel: loads and pins the eBPF
//! programs, and turns their maps into answers.
//!
//! Two rooms stand side by side. [`Guard`] is always in force: its programs
//! hang on the engine's parent cgroup once, and a container is let in by a map
//! write before its first instruction. [`Trace`] counts system calls and is
//! attached only while somebody watches. Both are pinned below
//! [`ProbesConfig::pin_dir`], so that they go on while no engine runs.
//!
//! The engine calls this crate; this crate never calls back.
#![forbid(unsafe_code)]

use std::{path::PathBuf, sync::Arc};

pub mod export;
pub mod guard;
pub mod metrics;
pub mod sample;
pub mod trace;

pub use guard::{Admission, Denial, Device, DeviceKind, DevicePolicy, Guard, Rule};
pub use sample::{ContainerLabels, ContainerSample, EngineSample, NetworkSample, Sample, Snapshot};
pub use trace::{ErrorCount, Percentiles, SyscallStats, Trace, TraceSnapshot};

/// Where the programs go, and who already runs there.
#[derive(Debug, Clone)]
pub struct ProbesConfig {
    /// The cgroup v2 mount: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on a hybrid host.
    pub cgroup_root: PathBuf,
    /// The engine's group below it, as `tritium`. Made if it is missing; every
    /// container's cgroup is a child of it.
    pub cgroup: String,
    /// A directory of a bpffs, as `/sys/fs/bpf/tritium`. A bpffs is mounted
    /// on `/sys/fs/bpf` when the path is below it and none is there.
    pub pin_dir: PathBuf,
    /// Containers that run already (the engine was restarted): admitted before
    /// new programs are attached, so that no running container is refused
    /// for an instant.
    pub running: Vec<Running>,
    /// How many (container, system call) rows the trace may fill at a time;
    /// each costs 2 KiB per two CPUs, and only while somebody watches.
    pub trace_rows: u32,
}

/// A container that was running when the probes started.
#[derive(Debug, Clone)]
pub struct Running {
    /// Id of its cgroup on the v2 tree (inode number of the directory).
    pub cgroup: u64,
    /// What it may do.
    pub admission: Admission,
    /// Whether its label asks for tracing: holds one watch from the start.
    pub traced: bool,
}

/// One thing the probes need of this kernel, and whether it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What is needed, as `cgroup/connect4` or `BTF`.
    pub need: String,
    /// Whether this kernel gave it.
    pub have: bool,
    /// What is lost without it, or why the kernel said no.
    pub cost: String,
}

/// The guard and the trace of one engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Probes {
    guard: Guard,
    trace: Trace,
    verdicts: Arc<[Verdict]>,
}

/// Why the probes could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartProbes {
    /// The cgroup tree, the bpffs or BTF is not as needed; the verdict says which.
    #[error("this host has no {need}: {cost}")]
    Missing {
        /// What is missing.
        need: String,
        /// What that costs.
        cost: String,
    },
}

impl Probes {
    /// Puts the guard in force on the engine's cgroup, taking over what an
    /// engine of the same build left pinned, and replacing what another left.
    ///
    /// # Errors
    /// When not even a part of the guard can be in force here.
    pub fn start(config: &ProbesConfig) -> Result<Self, StartProbes> {
        Err(StartProbes::Missing { need: config.cgroup.clone(), cost: "being built".into() })
    }

    /// Probes that do nothing, for a host where they cannot or shall not run.
    /// The guard admits all, and to watch fails with `why`.
    #[must_use]
    pub fn off(why: &str) -> Self {
        let verdict = Verdict { need: "probes".into(), have: false, cost: why.to_owned() };
        Self { guard: Guard::off(), trace: Trace::off(why), verdicts: Arc::new([verdict]) }
    }

    /// Detaches and unpins all that is below `pin_dir`. A missing directory is no error.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn remove(pin_dir: &std::path::Path) -> std::io::Result<()> {
        match std::fs::remove_dir_all(pin_dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The fences round each container.
    #[must_use]
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The counting of system calls.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// What this kernel takes and what it refuses.
    #[must_use]
    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    /// Names for `SecurityOptions` in `docker info`: the rules really in force.
    #[must_use]
    pub fn in_force(&self) -> Vec<String> {
        Vec::new()
    }

    /// Logs denials as they happen and ends watches whose time is over, until
    /// `stop` is cancelled. To be spawned once.
    pub async fn run(&self, stop: tokio_util::sync::CancellationToken) {
        stop.cancelled().await;
    }

    /// Adds what the kernel counted (system calls of watched containers,
    /// denials) to what the engine knows, for the exporters.
    #[must_use]
    pub fn collect(&self, sample: Sample) -> Snapshot {
        Snapshot {
            at: std::time::SystemTime::now(),
            sample,
            syscalls: Vec::new(),
            denials: Vec::new(),
        }
    }
}
