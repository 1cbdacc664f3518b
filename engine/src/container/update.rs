//! `docker update`: what can be changed of a container that exists.

use crate::spec::{HostConfig, RestartPolicy};
use serde::Deserialize;

/// Docker's `UpdateConfig`: what is absent, empty or 0 stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Update {
    pub cpu_shares: i64,
    pub memory: i64,
    pub nano_cpus: i64,
    pub blkio_weight: u16,
    pub cpu_period: i64,
    pub cpu_quota: i64,
    pub cpu_realtime_period: i64,
    pub cpu_realtime_runtime: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub memory_reservation: i64,
    pub memory_swap: i64,
    pub pids_limit: Option<i64>,
    pub restart_policy: RestartPolicy,
}

impl Update {
    pub(crate) fn apply(self, host: &mut HostConfig) {
        fn set<T: Default + PartialEq>(field: &mut T, value: T) {
            if value != T::default() {
                *field = value;
            }
        }
        set(&mut host.cpu_shares, self.cpu_shares);
        set(&mut host.memory, self.memory);
        set(&mut host.nano_cpus, self.nano_cpus);
        set(&mut host.blkio_weight, self.blkio_weight);
        set(&mut host.cpu_period, self.cpu_period);
        set(&mut host.cpu_quota, self.cpu_quota);
        set(&mut host.cpu_realtime_period, self.cpu_realtime_period);
        set(&mut host.cpu_realtime_runtime, self.cpu_realtime_runtime);
        set(&mut host.cpuset_cpus, self.cpuset_cpus);
        set(&mut host.cpuset_mems, self.cpuset_mems);
        set(&mut host.memory_reservation, self.memory_reservation);
        set(&mut host.memory_swap, self.memory_swap);
        set(&mut host.pids_limit, self.pids_limit.map(|limit| limit.max(0)));
        if !self.restart_policy.name.is_empty() {
            host.restart_policy = self.restart_policy;
        }
    }
}

impl Update {
    /// What Docker refuses to change of a container that has been made with
    /// other limits; the reason.
    #[must_use]
    pub fn conflict(&self, host: &HostConfig) -> Option<&'static str> {
        if self.memory != 0 && self.memory_swap == 0 && self.memory > host.memory_swap {
            // -1 is no limit, which nothing exceeds.
            return (host.memory_swap >= 0).then_some(
                "Memory limit should be smaller than already set memoryswap limit, update the \
                 memoryswap at the same time",
            );
        }
        if self.nano_cpus > 0 && host.cpu_period > 0 {
            return Some(
                "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been \
                 set",
            );
        }
        if self.nano_cpus > 0 && host.cpu_quota > 0 {
            return Some(
                "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been \
                 set",
            );
        }
        if self.cpu_period > 0 && host.nano_cpus > 0 {
            return Some(
                "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been \
                 set",
            );
        }
        (self.cpu_quota > 0 && host.nano_cpus > 0).then_some(
            "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_exclude_each_other_are_not_mixed() {
        let host = HostConfig { nano_cpus: 1, memory_swap: 10, ..HostConfig::default() };
        let refused = |change: Update| change.conflict(&host).is_some();
        assert!(refused(Update { cpu_period: 1_000, ..Update::default() }));
        assert!(refused(Update { memory: 11, ..Update::default() }));
        assert!(!refused(Update { memory: 11, memory_swap: 22, ..Update::default() }));
        assert!(!refused(Update { nano_cpus: 2, ..Update::default() }));
    }

    #[test]
    fn a_limit_on_processes_can_be_taken_away() {
        let mut host = HostConfig { pids_limit: Some(50), ..HostConfig::default() };
        Update { pids_limit: Some(-1), ..Update::default() }.apply(&mut host);
        assert_eq!(host.pids_limit, Some(0));
    }

    #[test]
    fn what_is_not_mentioned_stays() {
        let mut host = HostConfig { memory: 7, cpu_shares: 3, ..HostConfig::default() };
        Update { memory: 9, ..Update::default() }.apply(&mut host);
        assert_eq!((host.memory, host.cpu_shares), (9, 3));
    }
}
