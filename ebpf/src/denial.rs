//! Counts a refusal, and tells it unless one like it was told within a second.

use core::mem::MaybeUninit;

use tritium_common::{
    guard::{DenialCount, DenialKey, Denied},
    ids::CgroupId,
};

use crate::{
    kernel,
    maps::{DENIALS, DENIED},
};

const SECOND: u64 = 1_000_000_000;

/// `BPF_NOEXIST` of linux/bpf.h.
const NO_EXIST: u64 = 1;

/// What there is to say of a refusal besides who and why.
pub(crate) struct Detail {
    pub(crate) pid: u32,
    pub(crate) address: [u8; 16],
    pub(crate) numbers: [u32; 4],
}

impl Detail {
    /// Of the current process.
    #[inline(always)]
    pub(crate) fn numbers(numbers: [u32; 4]) -> Self {
        Self { pid: kernel::current_process(), address: [0; 16], numbers }
    }
}

/// Counts one refusal by `rule` to `cgroup`.
#[inline(always)]
pub(crate) fn count(cgroup: CgroupId, rule: u32, detail: &Detail) {
    let key = DenialKey { cgroup, rule, reserved: 0 };
    let now = kernel::now();
    let mut told = 0;
    let mut so_far = 1;
    let fresh = DenialCount { count: 1, told: now };
    if DENIALS.insert(key, fresh, NO_EXIST).is_err() {
        let Some(entry) = DENIALS.get_ptr_mut(key) else { return };
        // SAFETY: `entry` points to a value of the map, whose members are aligned.
        unsafe {
            told = (*entry).told;
            kernel::add(&raw mut (*entry).count, 1);
            so_far = (*entry).count;
            if now.wrapping_sub(told) >= SECOND {
                (*entry).told = now;
            }
        }
    }
    if now.wrapping_sub(told) >= SECOND {
        tell(Denied {
            cgroup,
            count: so_far,
            rule,
            pid: detail.pid,
            address: detail.address,
            detail: detail.numbers,
        });
    }
}

/// Writes a record for user space; where the ring is full nobody reads, and the count is enough.
#[inline(always)]
fn tell(denied: Denied) {
    if let Some(mut record) = DENIED.reserve::<Denied>(0) {
        *record = MaybeUninit::new(denied);
        record.submit(0);
    }
}
