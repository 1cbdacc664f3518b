//! May this container write a sysctl?

use aya_ebpf::{macros::cgroup_sysctl, programs::SysctlContext};
use tritium_common::guard::{SYSCTL_WRITES, rule};

use crate::{
    denial::{self, Detail},
    tenant,
};

#[cgroup_sysctl]
pub(crate) fn guard_sysctl(ctx: SysctlContext) -> i32 {
    // SAFETY: the kernel passes a whole bpf_sysctl.
    let writes = unsafe { (*ctx.sysctl).write } != 0;
    if !writes {
        return 1;
    }
    let (cgroup, entry) = tenant::current();
    if entry.is_some_and(|entry| entry.flags & SYSCTL_WRITES != 0) {
        return 1;
    }
    denial::count(cgroup, rule::SYSCTL, &Detail::numbers([0; 4]));
    0
}
