//! What the kernel counts for the machine and for network interfaces.

use super::running::Running;
use crate::error::Error;
use std::{collections::BTreeMap, fs, io};

/// USER_HZ is 100 on every architecture that is left (linux/param.h).
const TICK: u64 = 10_000_000;

/// The machine as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Machine {
    /// Nanoseconds that all processors together have been there, idle or not.
    pub cpu: u64,
    pub online: u32,
    /// Bytes.
    pub memory: u64,
}

/// One interface's counters, as its owner sees them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Interface {
    pub received: Traffic,
    pub sent: Traffic,
}

/// One direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub bytes: u64,
    pub packets: u64,
    pub errors: u64,
    pub dropped: u64,
}

/// Measures the machine.
///
/// # Errors
/// /proc cannot be read.
pub fn machine() -> io::Result<Machine> {
    let (cpu, online) = processors(&fs::read_to_string("/proc/stat")?);
    Ok(Machine { cpu, online, memory: memory(&fs::read_to_string("/proc/meminfo")?) })
}

/// Docker's sum: user, nice, system, idle, iowait, irq, softirq, steal. Time
/// in guests is part of user's.
fn processors(text: &str) -> (u64, u32) {
    let (mut total, mut online) = (0, 0);
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("cpu") => total = words.take(8).filter_map(|word| word.parse::<u64>().ok()).sum(),
            Some(name) if name.starts_with("cpu") => online += 1,
            _ => {}
        }
    }
    (total.saturating_mul(TICK), online)
}

fn memory(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

impl Running {
    /// The counters of its network namespace's interfaces, without loopback.
    ///
    /// # Errors
    /// It has ended.
    pub fn interfaces(&self) -> Result<BTreeMap<String, Interface>, Error> {
        let path = format!("/proc/{}/net/dev", self.pid());
        let text = fs::read_to_string(&path);
        let text = text.map_err(|error| Error::internal(format!("cannot read {path}"), error))?;
        // The number is still its own: nobody else's interfaces were read.
        self.is_there()?;
        Ok(interfaces(&text))
    }
}

/// `  eth0: 1 2 …`, sixteen columns.
fn interfaces(text: &str) -> BTreeMap<String, Interface> {
    let traffic = |columns: &[u64]| match columns {
        [bytes, packets, errors, dropped, ..] => {
            Traffic { bytes: *bytes, packets: *packets, errors: *errors, dropped: *dropped }
        }
        _ => Traffic::default(),
    };
    let mut found = BTreeMap::new();
    for line in text.lines().skip(2) {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let columns: Vec<u64> =
            rest.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
        let (received, sent) = columns.split_at(columns.len().min(8));
        let name = name.trim();
        if name != "lo" {
            let interface = Interface { received: traffic(received), sent: traffic(sent) };
            found.insert(name.to_owned(), interface);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_counts_and_processors_are_counted() {
        let text = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 0 0 0\ncpu1 1 0 0 0\nintr 7\n";
        assert_eq!(processors(text), (36 * TICK, 2));
        assert_eq!(memory("MemTotal:       1024 kB\nMemFree: 1 kB\n"), 1 << 20);
    }

    #[test]
    fn interfaces_are_read_in_both_directions_without_loopback() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 9 9 9 9 0 0 0 0 9 9 9 9 0 0 0 0\n  \
                    eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n";
        let found = interfaces(text);
        let traffic = |bytes, packets, errors, dropped| Traffic { bytes, packets, errors, dropped };
        let eth0 = Interface { received: traffic(1, 2, 3, 4), sent: traffic(5, 6, 7, 8) };
        assert_eq!(found, BTreeMap::from([("eth0".to_owned(), eth0)]));
    }
}
