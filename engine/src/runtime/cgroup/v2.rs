//! Limits as version 2 files (Documentation/admin-guide/cgroup-v2.rst), with
//! the conversions that runc makes.

use super::{Setting, limits};
use crate::spec::HostConfig;

/// In the order of writing.
pub(super) fn settings(host: &HostConfig) -> Vec<Setting> {
    let mut settings = memory(host);
    settings.extend(cpu(host));
    match host.pids_limit {
        Some(limit @ 1..) => settings.push(Setting::new("pids", "pids.max", limit)),
        // `docker update` has taken the limit away.
        Some(_) => settings.push(Setting::new("pids", "pids.max", "max")),
        None => {}
    }
    if host.blkio_weight > 0 {
        let weight = 1 + (u64::from(host.blkio_weight).saturating_sub(10)) * 9999 / 990;
        settings.push(Setting::new("io", "io.weight", weight).optional());
        settings.push(Setting::new("io", "io.bfq.weight", host.blkio_weight).optional());
    }
    for (device, weight) in limits::weights(host.blkio_weight_device.as_deref()) {
        let value = format!("{device} {weight}");
        settings.push(Setting::new("io", "io.bfq.weight", value).optional());
    }
    for (key, devices) in [
        ("rbps", &host.blkio_device_read_bps),
        ("wbps", &host.blkio_device_write_bps),
        ("riops", &host.blkio_device_read_iops),
        ("wiops", &host.blkio_device_write_iops),
    ] {
        for (device, rate) in limits::throttles(devices.as_deref()) {
            settings.push(Setting::new("io", "io.max", format!("{device} {key}={rate}")));
        }
    }
    settings
}

fn memory(host: &HostConfig) -> Vec<Setting> {
    let bytes = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
    let mut settings = Vec::new();
    if host.memory != 0 {
        settings.push(Setting::new("memory", "memory.max", bytes(host.memory)));
    }
    let both = limits::memory_and_swap(host);
    if both != 0 {
        let swap = if both < 0 { both } else { both.saturating_sub(host.memory).max(0) };
        settings.push(Setting::new("memory", "memory.swap.max", bytes(swap)).optional());
    }
    if host.memory_reservation != 0 {
        settings.push(Setting::new("memory", "memory.low", bytes(host.memory_reservation)));
    }
    settings
}

fn cpu(host: &HostConfig) -> Vec<Setting> {
    let mut settings = Vec::new();
    if host.cpu_shares > 0 {
        // From 2..=262144 to 1..=10000.
        let shares = host.cpu_shares.clamp(2, 262_144);
        let weight = 1 + (shares - 2) * 9999 / 262_142;
        settings.push(Setting::new("cpu", "cpu.weight", weight));
    }
    let (quota, period) = limits::cpu_time(host);
    if quota != 0 || period != 0 {
        let quota = if quota > 0 { quota.to_string() } else { "max".to_owned() };
        let period = if period > 0 { period } else { 100_000 };
        settings.push(Setting::new("cpu", "cpu.max", format!("{quota} {period}")));
    }
    if !host.cpuset_cpus.is_empty() {
        settings.push(Setting::new("cpuset", "cpuset.cpus", &host.cpuset_cpus));
    }
    if !host.cpuset_mems.is_empty() {
        settings.push(Setting::new("cpuset", "cpuset.mems", &host.cpuset_mems));
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(host: &HostConfig) -> Vec<(&'static str, String)> {
        settings(host).into_iter().map(|setting| (setting.file, setting.value)).collect()
    }

    #[test]
    fn swap_is_counted_by_itself() {
        let host = HostConfig { memory: 100, memory_swap: 150, ..HostConfig::default() };
        let expected = [("memory.max", "100".to_owned()), ("memory.swap.max", "50".into())];
        assert_eq!(written(&host), expected);
        let unlimited = HostConfig { memory_swap: -1, ..host.clone() };
        assert_eq!(written(&unlimited)[1].1, "max");
        let twice = HostConfig { memory_swap: 0, ..host };
        assert_eq!(written(&twice)[1].1, "100");
    }

    #[test]
    fn shares_and_quotas_are_converted_as_by_runc() {
        let weight = |cpu_shares| {
            written(&HostConfig { cpu_shares, ..HostConfig::default() }).pop().unwrap().1
        };
        assert_eq!([weight(2), weight(1024), weight(262_144)], ["1", "39", "10000"]);
        let cpus = HostConfig { nano_cpus: 1_500_000_000, ..HostConfig::default() };
        assert_eq!(written(&cpus), [("cpu.max", "150000 100000".to_owned())]);
        let none = HostConfig { cpu_quota: -1, ..HostConfig::default() };
        assert_eq!(written(&none), [("cpu.max", "max 100000".to_owned())]);
    }
}
