//! What the engine tells the exporters, and what they make of it.

use std::time::{Duration, SystemTime};

use crate::{
    guard::Denial,
    rule::Rule,
    trace::TraceSnapshot,
    traffic::{PeerTraffic, Uncounted},
};

/// Names that stand on each series of a container.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContainerLabels {
    /// `container.id`
    pub id: String,
    /// `container.name`
    pub name: String,
    /// `container.image.name`
    pub image: String,
    /// `tritium.tenant`
    pub tenant: String,
}

impl ContainerLabels {
    /// Of what runs in no admitted container.
    #[must_use]
    pub fn nobody() -> Self {
        Self { id: String::new(), name: String::new(), image: String::new(), tenant: String::new() }
    }
}

/// One container's resources at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSample {
    /// Its names.
    pub labels: ContainerLabels,
    /// Id of its cgroup on the v2 tree.
    pub cgroup: u64,
    /// When it was started; counters are cumulative from here.
    pub started: SystemTime,
    /// CPU time in user mode.
    pub cpu_user: Duration,
    /// CPU time in the kernel.
    pub cpu_system: Duration,
    /// Bytes of memory charged to it.
    pub memory_bytes: u64,
    /// Its memory limit in bytes, if it has one.
    pub memory_limit: Option<u64>,
    /// Processes and threads in it.
    pub processes: u64,
    /// Its network interfaces, if the caller knows them.
    pub network: Vec<NetworkSample>,
}

/// One network interface of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSample {
    /// As `eth0`.
    pub interface: String,
    /// Bytes received by the container.
    pub received: u64,
    /// Bytes sent by the container.
    pub sent: u64,
}

/// The engine's own numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EngineSample {
    /// `(state, containers in it)`, as `("running", 3)`.
    pub containers: Vec<(String, u64)>,
    /// `(method, status, requests answered)` since the engine started.
    pub requests: Vec<(String, u16, u64)>,
    /// Images in the store.
    pub images: u64,
}

/// Everything the engine tells at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// When the engine started; its counters are cumulative from here.
    pub engine_started: SystemTime,
    /// The engine's own numbers.
    pub engine: EngineSample,
    /// Every running container.
    pub containers: Vec<ContainerSample>,
}

/// What is exported: the engine's sample and what the kernel counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// When it was taken.
    pub at: SystemTime,
    /// Rules of the guard that this host enforces.
    pub in_force: std::sync::Arc<[Rule]>,
    /// What the engine told.
    pub sample: Sample,
    /// System calls of each watched container.
    pub syscalls: Vec<(ContainerLabels, TraceSnapshot)>,
    /// What the guard refused.
    pub denials: Vec<Denial>,
    /// Who exchanged how much with whom.
    pub traffic: Vec<PeerTraffic>,
    /// What is missing from that.
    pub uncounted: Uncounted,
}
