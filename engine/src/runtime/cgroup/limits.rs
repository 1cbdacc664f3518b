//! What limits are asked for, whichever version writes them.

use crate::{
    error::Error,
    runtime::failure::go_words,
    spec::{HostConfig, ThrottleDevice, WeightDevice},
};
use std::{collections::BTreeSet, fs, io, os::unix::fs::MetadataExt as _, path::Path};

/// A limit that the kernel does not take.
#[derive(Debug, thiserror::Error)]
#[error("failed to write \"{value}\": write {path}: {}", go_words(.why))]
pub(in super::super) struct Refused {
    pub(super) path: String,
    pub(super) value: String,
    /// Told above, in Go's words; so it is no source to be told again.
    pub(super) why: io::Error,
}

/// Microseconds in Docker's period for `--cpus`.
const PERIOD: i64 = 100_000;

/// `(quota, period)` in microseconds; 0: as it is.
pub(super) fn cpu_time(host: &HostConfig) -> (i64, i64) {
    if host.nano_cpus > 0 {
        (host.nano_cpus.saturating_mul(PERIOD) / 1_000_000_000, PERIOD)
    } else {
        (host.cpu_quota, host.cpu_period)
    }
}

/// Bytes of memory and swap together: Docker's default is twice the memory.
pub(super) fn memory_and_swap(host: &HostConfig) -> i64 {
    match (host.memory, host.memory_swap) {
        (memory, 0) if memory > 0 => memory.saturating_mul(2),
        (_, swap) => swap,
    }
}

/// `MAJOR:MINOR RATE` of each throttled device.
pub(super) fn throttles(devices: Option<&[ThrottleDevice]>) -> Vec<(String, u64)> {
    let devices = devices.unwrap_or_default().iter();
    devices.filter_map(|device| Some((number(&device.path).ok()?, device.rate))).collect()
}

/// `MAJOR:MINOR WEIGHT` of each weighed device.
pub(super) fn weights(devices: Option<&[WeightDevice]>) -> Vec<(String, u16)> {
    let devices = devices.unwrap_or_default().iter();
    devices.filter_map(|device| Some((number(&device.path).ok()?, device.weight))).collect()
}

fn number(path: &str) -> io::Result<String> {
    let device = fs::metadata(path)?.rdev();
    Ok(format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)))
}

/// Says at creation which limit cannot be meant.
///
/// # Errors
/// `Invalid` in Docker's words.
pub(in super::super) fn check(host: &HostConfig) -> Result<(), Error> {
    if host.cpu_shares < 0 {
        return Err(Error::Invalid(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            host.cpu_shares
        )));
    }
    let real_time = host.cpu_realtime_period != 0 || host.cpu_realtime_runtime != 0;
    // Only version 1 has them, where the kernel does (CONFIG_RT_GROUP_SCHED).
    if real_time && !Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        return Err(Error::Invalid("kernel does not support CPU real-time scheduler".into()));
    }
    if host.cpu_realtime_period != 0
        && host.cpu_realtime_runtime != 0
        && host.cpu_realtime_runtime > host.cpu_realtime_period
    {
        return Err(Error::Invalid(
            "cpu real-time runtime cannot be higher than cpu real-time period".into(),
        ));
    }
    check_set(&host.cpuset_cpus, "cpus", "CPUs", "/sys/devices/system/cpu/online")?;
    check_set(&host.cpuset_mems, "mems", "memory nodes", "/sys/devices/system/node/online")?;
    if host.blkio_weight != 0 && !(10..=1000).contains(&host.blkio_weight) {
        return Err(Error::Invalid("Range of blkio weight is from 10 to 1000".into()));
    }
    for device in host.blkio_weight_device.iter().flatten() {
        if !(10..=1000).contains(&device.weight) {
            return Err(Error::Invalid("Range of blkio weight is from 10 to 1000".into()));
        }
        number(&device.path).map_err(|error| {
            Error::Invalid(format!("stat {}: {}", device.path, go_words(&error)))
        })?;
    }
    if host.memory_swappiness.is_some_and(|value| !(-1..=100).contains(&value)) {
        return Err(Error::Invalid(format!(
            "Invalid value: {}, valid memory swappiness range is 0-100",
            host.memory_swappiness.unwrap_or_default()
        )));
    }
    let throttled = [
        &host.blkio_device_read_bps,
        &host.blkio_device_write_bps,
        &host.blkio_device_read_iops,
        &host.blkio_device_write_iops,
    ];
    for device in throttled.into_iter().flatten().flatten() {
        number(&device.path).map_err(|error| {
            Error::Invalid(format!("stat {}: {}", device.path, go_words(&error)))
        })?;
    }
    Ok(())
}

fn check_set(asked: &str, field: &str, what: &str, online: &str) -> Result<(), Error> {
    if asked.is_empty() {
        return Ok(());
    }
    let wanted = parse_set(asked).map_err(|part| {
        Error::Invalid(format!("Invalid value {asked} for cpuset {field}: invalid format: {part}"))
    })?;
    let failed = |error| Error::internal(format!("cannot read {online}"), error);
    let text = fs::read_to_string(online).map_err(failed)?;
    let available = parse_set(text.trim()).map_err(|part| {
        failed(io::Error::new(io::ErrorKind::InvalidData, format!("not a list: {part}")))
    })?;
    if wanted.is_subset(&available) {
        return Ok(());
    }
    let available = text.trim();
    Err(Error::Invalid(format!(
        "Requested {what} are not available - requested {asked}, available: {available}"
    )))
}

/// `0-3,7`; on error the part that is none.
fn parse_set(text: &str) -> Result<BTreeSet<u16>, &str> {
    let mut set = BTreeSet::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        match (from.parse::<u16>(), to.parse::<u16>()) {
            (Ok(from), Ok(to)) if from <= to && to < 8192 => set.extend(from..=to),
            _ => return Err(part),
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_processors_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_set("0-2,7"), Ok(BTreeSet::from([0, 1, 2, 7])));
        for (text, part) in [("foo", "foo"), ("1,,2", ""), ("3-1", "3-1"), ("0-99999", "0-99999")] {
            assert_eq!(parse_set(text), Err(part));
        }
    }

    #[test]
    fn limits_that_cannot_be_are_refused_in_dockers_words() {
        let words = |host: HostConfig| check(&host).unwrap_err().to_string();
        let cpus = |text: &str| HostConfig { cpuset_cpus: text.into(), ..HostConfig::default() };
        assert_eq!(words(cpus("foo")), "Invalid value foo for cpuset cpus: invalid format: foo");
        assert!(
            words(cpus("8000")).starts_with("Requested CPUs are not available - requested 8000")
        );
        let shares = HostConfig { cpu_shares: -1, ..HostConfig::default() };
        assert_eq!(words(shares), "invalid CPU shares (-1): value must be a positive integer");
        let nope = ThrottleDevice { path: "/dev/nope".into(), rate: 1 };
        let throttled =
            HostConfig { blkio_device_read_bps: Some(vec![nope]), ..HostConfig::default() };
        assert_eq!(words(throttled), "stat /dev/nope: no such file or directory");
    }
}
