//! May this container look into that process?

use aya_ebpf::{macros::lsm, programs::LsmContext};
use tritium_common::{guard::rule, ids::CgroupId};

use crate::{
    denial::{self, Detail},
    kernel::{self, read},
    maps::{CSS_SET__DFL_CGRP, TASK_STRUCT__CGROUPS},
    socket::guarded,
};

const EPERM: i32 = -1;

#[lsm(hook = "ptrace_access_check")]
pub(crate) fn lsm_ptrace(ctx: LsmContext) -> i32 {
    if !guarded() {
        return 0;
    }
    let cgroup = kernel::current_container();
    if cgroup.0 != 0 && container_of(ctx.arg(0)) == Some(cgroup) {
        return 0;
    }
    denial::count(cgroup, rule::PTRACE, &Detail::numbers([0; 4]));
    EPERM
}

/// The ancestor cgroup at the containers' level of a `task_struct`.
#[inline(always)]
fn container_of(task: *const u8) -> Option<CgroupId> {
    // SAFETY: both are addresses, which any bytes make.
    let cgroup: *const u8 = unsafe {
        let set: *const u8 = read(task, &TASK_STRUCT__CGROUPS)?;
        read(set, &CSS_SET__DFL_CGRP)?
    };
    kernel::container_of(cgroup)
}
