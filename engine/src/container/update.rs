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
        set(&mut host.cpuset_cpus, self.cpuset_cpus);
        set(&mut host.cpuset_mems, self.cpuset_mems);
        set(&mut host.memory_reservation, self.memory_reservation);
        set(&mut host.memory_swap, self.memory_swap);
        set(&mut host.pids_limit, self.pids_limit);
        if !self.restart_policy.name.is_empty() {
            host.restart_policy = self.restart_policy;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_mentioned_stays() {
        let mut host = HostConfig { memory: 7, cpu_shares: 3, ..HostConfig::default() };
        Update { memory: 9, ..Update::default() }.apply(&mut host);
        assert_eq!((host.memory, host.cpu_shares), (9, 3));
    }
}
