//! What a container has used, as `docker stats` asks.

/// Counters of a control group, either version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu: CpuUsage,
    pub memory: MemoryUsage,
    /// Processes and threads, and how many there may be (`None`: any number).
    pub pids: u64,
    pub pids_limit: Option<u64>,
    pub block: Vec<BlockUsage>,
}

/// Times in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuUsage {
    pub total: u64,
    pub user: u64,
    pub system: u64,
    /// One per processor; empty on version 2, which does not count them.
    pub per_cpu: Vec<u64>,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled: u64,
}

/// Bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    pub usage: u64,
    /// Version 1 only.
    pub max_usage: u64,
    /// `None`: as much as the host has.
    pub limit: Option<u64>,
    /// How often the limit was hit.
    pub failures: u64,
    /// `memory.stat`, as the kernel writes it.
    pub stat: std::collections::BTreeMap<String, u64>,
}

/// Of one block device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockUsage {
    pub major: u32,
    pub minor: u32,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}
