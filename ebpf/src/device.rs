//! May this container open, or make, this device?

use aya_ebpf::{macros::cgroup_device, programs::DeviceContext};
use tritium_common::{
    guard::{ALL_DEVICES, ANY, DeviceKey, OWN_DEVICES, allowed_by_default, rule},
    ids::CgroupId,
};

use crate::{
    denial::{self, Detail},
    maps::DEVICES,
    tenant,
};

#[cgroup_device]
pub(crate) fn guard_device(ctx: DeviceContext) -> i32 {
    // SAFETY: the kernel passes a whole bpf_cgroup_dev_ctx.
    let device = unsafe { &*ctx.device };
    let (kind, access) = (device.access_type & 0xffff, device.access_type >> 16);
    let (major, minor) = (device.major, device.minor);
    let (cgroup, entry) = tenant::current();
    if let Some(entry) = entry {
        if entry.flags & ALL_DEVICES != 0 || allowed_by_default(kind, major, minor, access) {
            return 1;
        }
        if entry.flags & OWN_DEVICES != 0 && is_own(cgroup, kind, (major, minor), access) {
            return 1;
        }
    }
    denial::count(cgroup, rule::DEVICE, &Detail::numbers([kind, major, minor, access]));
    0
}

/// Whether the container was given the device, by number or by a wildcard.
#[inline(always)]
fn is_own(cgroup: CgroupId, kind: u32, (major, minor): (u32, u32), access: u32) -> bool {
    let mut granted = 0;
    for (major, minor) in [(major, minor), (major, ANY), (ANY, ANY)] {
        let key = DeviceKey { cgroup, kind, major, minor, reserved: 0 };
        // SAFETY: values are plain numbers, replaced as a whole.
        granted |= unsafe { DEVICES.get(key) }.copied().unwrap_or(0);
    }
    access & !granted == 0
}
