//! May this container look into that process?

use aya_ebpf::{macros::lsm, programs::LsmContext};
use tritium_common::{guard::rule, ids::CgroupId};

use crate::{
    denial::{self, Detail},
    kernel::{self, read},
    maps::{
        CGROUP__ANCESTORS, CGROUP__KN, CGROUP__LEVEL, CONTAINER_LEVEL, CSS_SET__DFL_CGRP,
        KERNFS_NODE__ID, TASK_STRUCT__CGROUPS,
    },
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
    let level = CONTAINER_LEVEL.load();
    // SAFETY: all of these are integers or addresses, which any bytes make.
    unsafe {
        let set: *const u8 = read(task, &TASK_STRUCT__CGROUPS)?;
        let cgroup: *const u8 = read(set, &CSS_SET__DFL_CGRP)?;
        let depth: i32 = read(cgroup, &CGROUP__LEVEL)?;
        if depth < level as i32 {
            return None;
        }
        let ancestor: *const u8 =
            read(cgroup.wrapping_add(8 * level as usize), &CGROUP__ANCESTORS)?;
        let node: *const u8 = read(ancestor, &CGROUP__KN)?;
        Some(CgroupId(read(node, &KERNFS_NODE__ID)?))
    }
}
