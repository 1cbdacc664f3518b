//! Limits as version 1 files (Documentation/admin-guide/cgroup-v1).

use super::{Setting, limits};
use crate::spec::HostConfig;

/// In the order of writing.
pub(super) fn settings(host: &HostConfig) -> Vec<Setting> {
    let mut settings = memory(host);
    settings.extend(cpu(host));
    match host.pids_limit {
        // The supervisor counts as well.
        Some(limit @ 1..) => {
            settings.push(Setting::new("pids", "pids.max", limit.saturating_add(1)));
        }
        // `docker update` has taken the limit away.
        Some(_) => settings.push(Setting::new("pids", "pids.max", "max")),
        None => {}
    }
    if host.blkio_weight > 0 {
        settings.push(Setting::new("blkio", "blkio.weight", host.blkio_weight).optional());
        settings.push(Setting::new("blkio", "blkio.bfq.weight", host.blkio_weight).optional());
    }
    // Which one there is depends on the scheduler; Docker discards it where
    // there is none.
    for (device, weight) in limits::weights(host.blkio_weight_device.as_deref()) {
        for file in ["blkio.weight_device", "blkio.bfq.weight_device"] {
            settings.push(Setting::new("blkio", file, format!("{device} {weight}")).optional());
        }
    }
    for (file, devices) in [
        ("blkio.throttle.read_bps_device", &host.blkio_device_read_bps),
        ("blkio.throttle.write_bps_device", &host.blkio_device_write_bps),
        ("blkio.throttle.read_iops_device", &host.blkio_device_read_iops),
        ("blkio.throttle.write_iops_device", &host.blkio_device_write_iops),
    ] {
        for (device, rate) in limits::throttles(devices.as_deref()) {
            settings.push(Setting::new("blkio", file, format!("{device} {rate}")));
        }
    }
    settings
}

fn memory(host: &HostConfig) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut set = |file, value: i64| settings.push(Setting::new("memory", file, value));
    if host.memory != 0 {
        set("memory.limit_in_bytes", host.memory);
    }
    if host.memory_reservation != 0 {
        set("memory.soft_limit_in_bytes", host.memory_reservation);
    }
    if let Some(swappiness) = host.memory_swappiness.filter(|value| *value >= 0) {
        set("memory.swappiness", swappiness);
    }
    if host.oom_kill_disable == Some(true) {
        set("memory.oom_control", 1);
    }
    if let Some(limit) = host.kernel_memory_tcp.filter(|limit| *limit > 0) {
        // Not there in every kernel.
        let tcp = Setting::new("memory", "memory.kmem.tcp.limit_in_bytes", limit).optional();
        settings.push(tcp);
    }
    let swap = limits::memory_and_swap(host);
    if swap != 0 {
        // Not there when the kernel was booted with swapaccount=0.
        let memsw = Setting::new("memory", "memory.memsw.limit_in_bytes", swap).optional();
        settings.insert(usize::from(host.memory != 0), memsw);
    }
    settings
}

fn cpu(host: &HostConfig) -> Vec<Setting> {
    let mut settings = Vec::new();
    let (quota, period) = limits::cpu_time(host);
    if period != 0 {
        settings.push(Setting::new("cpu", "cpu.cfs_period_us", period));
    }
    if quota != 0 {
        settings.push(Setting::new("cpu", "cpu.cfs_quota_us", quota));
    }
    // What the engine's own group has been given of it is the most there is: nothing,
    // until the operator writes it there.
    for (file, micros) in [
        ("cpu.rt_period_us", host.cpu_realtime_period),
        ("cpu.rt_runtime_us", host.cpu_realtime_runtime),
    ] {
        if micros != 0 {
            settings.push(Setting::new("cpu", file, micros));
        }
    }
    if host.cpu_shares != 0 {
        settings.push(Setting::new("cpu", "cpu.shares", host.cpu_shares));
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
    fn nothing_asked_for_is_nothing_written() {
        assert_eq!(written(&HostConfig::default()), []);
    }

    #[test]
    fn memory_alone_limits_swap_to_as_much_again() {
        let host = HostConfig { memory: 1 << 26, ..HostConfig::default() };
        assert_eq!(
            written(&host),
            [
                ("memory.limit_in_bytes", "67108864".into()),
                ("memory.memsw.limit_in_bytes", "134217728".into()),
            ]
        );
        let unlimited = HostConfig { memory_swap: -1, ..host };
        assert_eq!(written(&unlimited)[1].1, "-1");
    }

    #[test]
    fn the_period_is_written_before_what_is_had_of_it() {
        let host = HostConfig {
            cpu_realtime_period: 500_000,
            cpu_realtime_runtime: 1000,
            ..HostConfig::default()
        };
        assert_eq!(
            written(&host),
            [("cpu.rt_period_us", "500000".into()), ("cpu.rt_runtime_us", "1000".into())]
        );
    }

    #[test]
    fn the_buffers_of_tcp_have_a_limit_of_their_own() {
        let host = HostConfig { kernel_memory_tcp: Some(1 << 20), ..HostConfig::default() };
        assert_eq!(written(&host), [("memory.kmem.tcp.limit_in_bytes", "1048576".into())]);
    }

    #[test]
    fn processors_become_a_quota_and_the_supervisor_has_its_own_place() {
        let host = HostConfig {
            nano_cpus: 500_000_000,
            pids_limit: Some(50),
            cpuset_cpus: "0".into(),
            ..HostConfig::default()
        };
        assert_eq!(
            written(&host),
            [
                ("cpu.cfs_period_us", "100000".into()),
                ("cpu.cfs_quota_us", "50000".into()),
                ("cpuset.cpus", "0".into()),
                ("pids.max", "51".to_owned()),
            ]
        );
    }
}
