//! One object of `GET /containers/{id}/stats`.

use crate::{
    api::human,
    service::seen::{BlockUsage, Interface, Sample},
};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Debug, Serialize)]
pub(in crate::api) struct Stats {
    name: String,
    id: String,
    read: String,
    preread: String,
    pids_stats: Pids,
    blkio_stats: Block,
    /// Windows' own.
    num_procs: u32,
    storage_stats: BTreeMap<(), ()>,
    cpu_stats: Cpu,
    precpu_stats: Cpu,
    memory_stats: Memory,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    networks: BTreeMap<String, Network>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Debug, Default, Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "is_zero")]
    current: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
}

#[derive(Debug, Default, Serialize)]
struct Block {
    io_service_bytes_recursive: Option<Vec<BlockEntry>>,
    io_serviced_recursive: Option<Vec<BlockEntry>>,
    io_queue_recursive: Option<Vec<BlockEntry>>,
    io_service_time_recursive: Option<Vec<BlockEntry>>,
    io_wait_time_recursive: Option<Vec<BlockEntry>>,
    io_merged_recursive: Option<Vec<BlockEntry>>,
    io_time_recursive: Option<Vec<BlockEntry>>,
    sectors_recursive: Option<Vec<BlockEntry>>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct BlockEntry {
    major: u32,
    minor: u32,
    op: &'static str,
    value: u64,
}

#[derive(Debug, Default, Serialize)]
struct Cpu {
    cpu_usage: CpuTimes,
    #[serde(skip_serializing_if = "is_zero")]
    system_cpu_usage: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    online_cpus: Option<u32>,
    throttling_data: Throttling,
}

#[derive(Debug, Default, Serialize)]
struct CpuTimes {
    total_usage: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_usage: Vec<u64>,
    usage_in_kernelmode: u64,
    usage_in_usermode: u64,
}

#[derive(Debug, Default, Serialize)]
struct Throttling {
    periods: u64,
    throttled_periods: u64,
    throttled_time: u64,
}

#[derive(Debug, Default, Serialize)]
struct Memory {
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max_usage: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    stats: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "is_zero")]
    failcnt: u64,
    #[serde(skip_serializing_if = "is_zero")]
    limit: u64,
}

#[derive(Debug, Serialize)]
struct Network {
    rx_bytes: u64,
    rx_packets: u64,
    rx_errors: u64,
    rx_dropped: u64,
    tx_bytes: u64,
    tx_packets: u64,
    tx_errors: u64,
    tx_dropped: u64,
}

impl From<&Interface> for Network {
    fn from(interface: &Interface) -> Self {
        let (received, sent) = (interface.received, interface.sent);
        Self {
            rx_bytes: received.bytes,
            rx_packets: received.packets,
            rx_errors: received.errors,
            rx_dropped: received.dropped,
            tx_bytes: sent.bytes,
            tx_packets: sent.packets,
            tx_errors: sent.errors,
            tx_dropped: sent.dropped,
        }
    }
}

impl From<&Sample> for Cpu {
    fn from(sample: &Sample) -> Self {
        let cpu = &sample.usage.cpu;
        Self {
            cpu_usage: CpuTimes {
                total_usage: cpu.total,
                percpu_usage: cpu.per_cpu.clone(),
                usage_in_kernelmode: cpu.system,
                usage_in_usermode: cpu.user,
            },
            system_cpu_usage: sample.machine.cpu,
            online_cpus: Some(sample.machine.online),
            throttling_data: Throttling {
                periods: cpu.periods,
                throttled_periods: cpu.throttled_periods,
                throttled_time: cpu.throttled,
            },
        }
    }
}

impl From<&Sample> for Memory {
    fn from(sample: &Sample) -> Self {
        let memory = &sample.usage.memory;
        let most = sample.machine.memory;
        Self {
            usage: memory.usage,
            max_usage: memory.max_usage,
            stats: memory.stat.clone(),
            failcnt: memory.failures,
            limit: memory.limit.map_or(most, |limit| limit.min(most)),
        }
    }
}

impl From<&Sample> for Block {
    fn from(sample: &Sample) -> Self {
        // Only version 1 counts per processor, and it spells these otherwise.
        let first = !sample.usage.cpu.per_cpu.is_empty();
        let ops = if first { ["Read", "Write"] } else { ["read", "write"] };
        let list = |values: fn(&BlockUsage) -> [u64; 2]| -> Vec<BlockEntry> {
            let devices = sample.usage.block.iter();
            devices
                .flat_map(|device| {
                    let (major, minor) = (device.major, device.minor);
                    let pairs = ops.into_iter().zip(values(device));
                    pairs.map(move |(op, value)| BlockEntry { major, minor, op, value })
                })
                .collect()
        };
        let none = || first.then(Vec::new);
        Self {
            io_service_bytes_recursive: Some(list(|it| [it.read_bytes, it.written_bytes])),
            io_serviced_recursive: Some(list(|it| [it.reads, it.writes])),
            io_queue_recursive: none(),
            io_service_time_recursive: none(),
            io_wait_time_recursive: none(),
            io_merged_recursive: none(),
            io_time_recursive: none(),
            sectors_recursive: none(),
        }
    }
}

impl Stats {
    /// `sample`: none if the container does not run. `before`: the measurement
    /// that percentages are reckoned from.
    pub(in crate::api) fn of(
        name: &str,
        id: String,
        sample: Option<&Sample>,
        before: Option<&Sample>,
    ) -> Self {
        let usage = sample.map(|sample| &sample.usage);
        Self {
            name: format!("/{name}"),
            id,
            read: human::moment(sample.map(|sample| sample.at)),
            preread: human::moment(before.map(|before| before.at)),
            pids_stats: usage
                .map(|usage| Pids { current: usage.pids, limit: usage.pids_limit })
                .unwrap_or_default(),
            blkio_stats: sample.map(Block::from).unwrap_or_default(),
            num_procs: 0,
            storage_stats: BTreeMap::new(),
            cpu_stats: sample.map(Cpu::from).unwrap_or_default(),
            precpu_stats: before.map(Cpu::from).unwrap_or_default(),
            memory_stats: sample.map(Memory::from).unwrap_or_default(),
            networks: sample
                .into_iter()
                .flat_map(|sample| &sample.interfaces)
                .map(|(name, interface)| (name.clone(), interface.into()))
                .collect(),
        }
    }
}
