//! The kernel's helpers, wrapped once.

use aya_ebpf::{
    Global,
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel, generated},
};
use tritium_common::ids::CgroupId;

use crate::maps::{CGROUP__ANCESTORS, CGROUP__KN, CGROUP__LEVEL, CONTAINER_LEVEL, KERNFS_NODE__ID};

/// `CLOCK_MONOTONIC` in nanoseconds.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper takes nothing and changes nothing.
    unsafe { generated::bpf_ktime_get_ns() }
}

/// The kernel's pid of the current task, which user space calls its thread id.
#[inline(always)]
pub(crate) fn current_thread() -> u32 {
    (bpf_get_current_pid_tgid() & 0xffff_ffff) as u32
}

/// The current task's process id.
#[inline(always)]
pub(crate) fn current_process() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// The CPU this runs on.
#[inline(always)]
pub(crate) fn cpu() -> u32 {
    // SAFETY: the helper takes nothing and changes nothing.
    unsafe { generated::bpf_get_smp_processor_id() }
}

/// The current task's ancestor cgroup at `level`; 0 where it is not that deep.
#[inline(always)]
pub(crate) fn current_ancestor(level: u32) -> CgroupId {
    // SAFETY: any level is answered, with 0 where there is none.
    CgroupId(unsafe { generated::bpf_get_current_ancestor_cgroup_id(level as i32) })
}

/// The container's cgroup that the current task is in; 0 for none.
#[inline(always)]
pub(crate) fn current_container() -> CgroupId {
    current_ancestor(CONTAINER_LEVEL.load())
}

/// Reads a `T` at `offset` from `base`, a kernel address; `None` where nothing is mapped.
///
/// # Safety
/// Any bytes must make a `T`.
#[inline(always)]
pub(crate) unsafe fn read<T>(base: *const u8, offset: &Global<u64>) -> Option<T> {
    let address = base.wrapping_add(offset.load() as usize).cast::<T>();
    // SAFETY: the helper takes any address and fails on a bad one; the caller
    // answers for `T`.
    unsafe { bpf_probe_read_kernel(address) }.ok()
}

/// The ancestor at the containers' level of a `cgroup`.
#[inline(always)]
pub(crate) fn container_of(cgroup: *const u8) -> Option<CgroupId> {
    let level = CONTAINER_LEVEL.load();
    // SAFETY: all of these are integers or addresses, which any bytes make.
    unsafe {
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

/// Adds to a number in a map that other CPUs may be adding to as well.
///
/// Written out, for Rust's atomics have no `fetch_add` on a target without compare-and-swap.
///
/// # Safety
/// `number` must point into a map's value and be aligned.
#[inline(always)]
pub(crate) unsafe fn add(number: *mut u64, value: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: one atomic addition to the memory the caller answers for.
    unsafe {
        core::arch::asm!("lock *(u64 *)({number} + 0) += {value}", number = in(reg) number, value = in(reg) value, options(nostack));
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as above; this target only reads the program, it never runs it.
    unsafe {
        *number += value;
    }
}

/// The value modulo 512, as an instruction the compiler cannot prove needless: kernels before 6.8
/// follow branches that cannot be taken, and lose the bound that a comparison has set there.
#[inline(always)]
pub(crate) fn modulo_512(mut value: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    // SAFETY: one bitwise and of a register.
    unsafe {
        core::arch::asm!("{value} &= 511", value = inout(reg) value, options(pure, nomem, nostack));
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        value &= 511;
    }
    value
}
