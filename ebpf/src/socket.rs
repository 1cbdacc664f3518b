//! May this container open a raw or packet socket?
//!
//! The cgroup hook sees internet sockets only (`inet_create` calls it, `packet_create`
//! does not): packet sockets are refused by the LSM hook where the kernel takes it,
//! and are the runtime's to refuse elsewhere.

use aya_ebpf::{
    macros::{cgroup_sock, lsm},
    programs::{LsmContext, SockContext},
};
use tritium_common::{
    guard::{Entry, RAW_SOCKETS, rule},
    ids::CgroupId,
};

use crate::{
    denial::{self, Detail},
    kernel,
    maps::{CONTAINER_LEVEL, ENGINE_CGROUP},
    tenant,
};

/// `SOCK_RAW` of linux/net.h.
const RAW: u32 = 3;
/// `AF_PACKET` of linux/socket.h.
const PACKET: u32 = 17;
const EPERM: i32 = -1;

#[cgroup_sock(sock_create)]
pub(crate) fn guard_socket(ctx: SockContext) -> i32 {
    // SAFETY: the verifier lets this hook read these two members.
    let (family, kind) = unsafe { ((*ctx.sock).family, (*ctx.sock).type_) };
    let (cgroup, entry) = tenant::current();
    i32::from(may_open(cgroup, entry, family, kind))
}

#[lsm(hook = "socket_create")]
pub(crate) fn lsm_socket(ctx: LsmContext) -> i32 {
    let (family, kind, in_kernel): (u32, u32, u32) = (ctx.arg(0), ctx.arg(1), ctx.arg(3));
    if family != PACKET || in_kernel != 0 || !guarded() {
        return 0;
    }
    let (cgroup, entry) = tenant::current();
    if may_open(cgroup, entry, family, kind) { 0 } else { EPERM }
}

#[inline(always)]
fn may_open(cgroup: CgroupId, entry: Option<&Entry>, family: u32, kind: u32) -> bool {
    let Some(entry) = entry else {
        denial::count(cgroup, rule::RAW_SOCKET, &Detail::numbers([family, kind, 0, 0]));
        return false;
    };
    if (kind != RAW && family != PACKET) || entry.flags & RAW_SOCKETS != 0 {
        return true;
    }
    denial::count(cgroup, rule::RAW_SOCKET, &Detail::numbers([family, kind, 0, 0]));
    false
}

/// Whether the current task is below the engine's cgroup. LSM hooks, unlike
/// cgroup ones, run for the whole host.
#[inline(always)]
pub(crate) fn guarded() -> bool {
    let level = CONTAINER_LEVEL.load();
    level > 0 && kernel::current_ancestor(level - 1).0 == ENGINE_CGROUP.load()
}
