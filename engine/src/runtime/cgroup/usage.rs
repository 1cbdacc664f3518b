//! What a container has used, as `docker stats` asks.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

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
    pub stat: BTreeMap<String, u64>,
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

/// Reads the version 2 files of one directory.
pub(super) fn v2(dir: &Path) -> io::Result<Usage> {
    let cpu = keyed(&fs::read_to_string(dir.join("cpu.stat"))?);
    let micros = |key: &str| cpu.get(key).copied().unwrap_or(0).saturating_mul(1000);
    let count = |key: &str| cpu.get(key).copied().unwrap_or(0);
    let events = keyed(&optional(&dir.join("memory.events"))?);
    let (pids, pids_limit) = pids(dir)?;
    Ok(Usage {
        cpu: CpuUsage {
            total: micros("usage_usec"),
            user: micros("user_usec"),
            system: micros("system_usec"),
            per_cpu: Vec::new(),
            periods: count("nr_periods"),
            throttled_periods: count("nr_throttled"),
            throttled: micros("throttled_usec"),
        },
        memory: MemoryUsage {
            usage: number(&optional(&dir.join("memory.current"))?).unwrap_or(0),
            max_usage: number(&optional(&dir.join("memory.peak"))?).unwrap_or(0),
            limit: number(&optional(&dir.join("memory.max"))?),
            failures: events.get("max").copied().unwrap_or(0),
            stat: keyed(&optional(&dir.join("memory.stat"))?),
        },
        pids,
        pids_limit,
        block: io_stat(&optional(&dir.join("io.stat"))?),
    })
}

/// Reads the version 1 files, wherever each controller is.
pub(super) fn v1(dir: impl Fn(&'static str) -> Option<PathBuf>) -> io::Result<Usage> {
    let mut usage = Usage::default();
    if let Some(dir) = dir("cpuacct") {
        let cpu = &mut usage.cpu;
        cpu.total = number(&fs::read_to_string(dir.join("cpuacct.usage"))?).unwrap_or(0);
        cpu.user = number(&optional(&dir.join("cpuacct.usage_user"))?).unwrap_or(0);
        cpu.system = number(&optional(&dir.join("cpuacct.usage_sys"))?).unwrap_or(0);
        let per_cpu = optional(&dir.join("cpuacct.usage_percpu"))?;
        cpu.per_cpu = per_cpu.split_whitespace().filter_map(number).collect();
    }
    if let Some(dir) = dir("cpu") {
        let stat = keyed(&optional(&dir.join("cpu.stat"))?);
        let count = |key: &str| stat.get(key).copied().unwrap_or(0);
        usage.cpu.periods = count("nr_periods");
        usage.cpu.throttled_periods = count("nr_throttled");
        usage.cpu.throttled = count("throttled_time");
    }
    if let Some(dir) = dir("memory") {
        let read = |file: &str| optional(&dir.join(file)).map(|text| number(&text));
        usage.memory = MemoryUsage {
            usage: read("memory.usage_in_bytes")?.unwrap_or(0),
            max_usage: read("memory.max_usage_in_bytes")?.unwrap_or(0),
            limit: read("memory.limit_in_bytes")?.filter(|limit| *limit < NO_LIMIT),
            failures: read("memory.failcnt")?.unwrap_or(0),
            stat: keyed(&optional(&dir.join("memory.stat"))?),
        };
    }
    if let Some(dir) = dir("pids") {
        let (pids, limit) = pids(&dir)?;
        // Without the supervisor.
        usage.pids = pids.saturating_sub(1);
        usage.pids_limit = limit.map(|limit| limit.saturating_sub(1));
    }
    if let Some(dir) = dir("blkio") {
        let bytes = optional(&dir.join("blkio.throttle.io_service_bytes_recursive"))?;
        let operations = optional(&dir.join("blkio.throttle.io_serviced_recursive"))?;
        usage.block = blkio(&bytes, &operations);
    }
    Ok(usage)
}

/// Version 1 writes "no limit" as the largest number of whole pages.
const NO_LIMIT: u64 = 1 << 62;

fn optional(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        outcome => outcome,
    }
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// Lines of `KEY NUMBER`.
fn keyed(text: &str) -> BTreeMap<String, u64> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.filter_map(|(key, value)| Some((key.to_owned(), number(value)?))).collect()
}

fn pids(dir: &Path) -> io::Result<(u64, Option<u64>)> {
    let current = number(&optional(&dir.join("pids.current"))?).unwrap_or(0);
    Ok((current, number(&optional(&dir.join("pids.max"))?)))
}

fn device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …`
fn io_stat(text: &str) -> Vec<BlockUsage> {
    let mut all = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let Some((major, minor)) = words.next().and_then(device) else { continue };
        let mut usage = BlockUsage { major, minor, ..BlockUsage::default() };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = number(value).unwrap_or(0);
            match key {
                "rbytes" => usage.read_bytes = value,
                "wbytes" => usage.written_bytes = value,
                "rios" => usage.reads = value,
                "wios" => usage.writes = value,
                _ => {}
            }
        }
        all.push(usage);
    }
    all
}

/// `8:0 Read 4096`, in one file bytes and in the other operations.
fn blkio(bytes: &str, operations: &str) -> Vec<BlockUsage> {
    let mut all: BTreeMap<(u32, u32), BlockUsage> = BTreeMap::new();
    for (text, is_bytes) in [(bytes, true), (operations, false)] {
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [at, kind, value] = words[..] else { continue };
            let Some((major, minor)) = device(at) else { continue };
            let usage = all.entry((major, minor)).or_default();
            (usage.major, usage.minor) = (major, minor);
            let value = number(value).unwrap_or(0);
            match (kind, is_bytes) {
                ("Read", true) => usage.read_bytes = value,
                ("Write", true) => usage.written_bytes = value,
                ("Read", false) => usage.reads = value,
                ("Write", false) => usage.writes = value,
                _ => {}
            }
        }
    }
    all.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_block_numbers_read_alike() {
        let expected = [BlockUsage {
            major: 8,
            minor: 16,
            read_bytes: 1,
            written_bytes: 2,
            reads: 3,
            writes: 4,
        }];
        assert_eq!(io_stat("8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\n"), expected);
        let bytes = "8:16 Read 1\n8:16 Write 2\n8:16 Sync 3\nTotal 3\n";
        assert_eq!(blkio(bytes, "8:16 Read 3\n8:16 Write 4\n"), expected);
    }

    #[test]
    fn lines_that_are_no_numbers_are_passed_over() {
        let map = keyed("anon 4096\nnonsense\nfile x\n");
        assert_eq!(map, BTreeMap::from([("anon".to_owned(), 4096)]));
    }
}
