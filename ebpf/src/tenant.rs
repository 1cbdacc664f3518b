//! Whose is this? The question every fence asks first.

use tritium_common::{
    guard::{Entry, SharedKey},
    ids::{CgroupId, TenantId},
    traffic::{OTHER_TENANT, OUTSIDE},
};

use crate::{
    kernel,
    maps::{ADDRESSES, CONTAINERS, SHARED},
};

/// The container of the current task, and what it may do. The entry is
/// `None` for a task below the engine's cgroup that was never admitted: it may nothing.
#[inline(always)]
pub(crate) fn current() -> (CgroupId, Option<&'static Entry>) {
    let cgroup = kernel::current_container();
    (cgroup, entry(cgroup))
}

/// What a container may do.
#[inline(always)]
pub(crate) fn entry(cgroup: CgroupId) -> Option<&'static Entry> {
    // SAFETY: entries are replaced as a whole by user space and freed after a
    // grace period, which this program's run is shorter than.
    unsafe { CONTAINERS.get(cgroup) }
}

/// Who has `address`, as a container of `tenant` may know it: where several tenants have it, its own.
#[inline(always)]
pub(crate) fn peer(address: &[u8; 16], tenant: TenantId) -> CgroupId {
    // SAFETY: as in `entry`.
    match unsafe { ADDRESSES.get(address) } {
        Some(owner) if owner.tenant == tenant => owner.cgroup,
        // SAFETY: as in `entry`.
        Some(_) => match unsafe { SHARED.get(SharedKey { address: *address, tenant }) } {
            Some(cgroup) => *cgroup,
            None => OTHER_TENANT,
        },
        None => OUTSIDE,
    }
}

/// Whether `address` is a container's of another tenant.
#[inline(always)]
pub(crate) fn is_foreign(address: &[u8; 16], tenant: TenantId) -> bool {
    peer(address, tenant) == OTHER_TENANT
}

/// An IPv4 address as ::ffff:a.b.c.d, from network order in memory.
#[inline(always)]
pub(crate) fn mapped(v4: u32) -> [u8; 16] {
    let [a, b, c, d] = v4.to_ne_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}
