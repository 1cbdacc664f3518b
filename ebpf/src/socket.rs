//! May this container open a raw or packet socket?
//!
//! A raw socket of ICMP's may be opened by everybody, for busybox and Alpine ping by
//! no other; whoever was not given more sends echo requests by it and nothing else.
//!
//! The cgroup hook sees internet sockets only (`inet_create` calls it, `packet_create`
//! does not): packet sockets are refused by the LSM hook where the kernel takes it,
//! and are the runtime's to refuse elsewhere.

use aya_ebpf::{
    helpers::generated,
    macros::{cgroup_sock, lsm},
    programs::{LsmContext, SkBuffContext, SockContext},
};
use tritium_common::{
    guard::{Entry, RAW_SOCKETS, rule},
    ids::CgroupId,
};

use crate::{
    denial::{self, Detail},
    kernel,
    maps::{CONTAINER_LEVEL, ENGINE_CGROUP},
    network::Packet,
    tenant,
};

/// `SOCK_RAW` of linux/net.h.
const RAW: u32 = 3;
/// Address families of linux/socket.h.
const INET: u32 = 2;
const INET6: u32 = 10;
const PACKET: u32 = 17;
/// Protocols of linux/in.h and linux/in6.h.
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
/// Types of RFC 792 and RFC 4443.
const ECHO: u8 = 8;
const ECHO6: u8 = 128;
/// In an IPv4 header's sixth to eighth byte: more fragments, or not the first.
const FRAGMENT: u16 = 0x3fff;
const EPERM: i32 = -1;

#[cgroup_sock(sock_create)]
pub(crate) fn guard_socket(ctx: SockContext) -> i32 {
    // SAFETY: the verifier lets this hook read these three members.
    let (family, kind, protocol) =
        unsafe { ((*ctx.sock).family, (*ctx.sock).type_, (*ctx.sock).protocol) };
    let (cgroup, entry) = tenant::current();
    let pings = entry.is_some()
        && (family == INET && protocol == u32::from(ICMP)
            || family == INET6 && protocol == u32::from(ICMP6));
    i32::from(pings || may_open(cgroup, entry, family, kind))
}

/// Whether a packet comes from a raw socket and is no echo request. Its header may be
/// of the sender's own making (`IP_HDRINCL`), so nothing in it is believed.
#[inline(always)]
pub(crate) fn is_forged(ctx: &SkBuffContext, packet: &Packet) -> bool {
    // SAFETY: the kernel passes a whole __sk_buff.
    let socket = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    if socket.is_null() {
        return false;
    }
    // SAFETY: of the packet, and not null.
    let socket = unsafe { generated::bpf_sk_fullsock(socket) };
    // SAFETY: a whole socket, if it is one.
    socket.is_null() || (unsafe { (*socket).type_ } == RAW && !is_echo(ctx, packet))
}

#[inline(always)]
fn is_echo(ctx: &SkBuffContext, packet: &Packet) -> bool {
    let kind: Option<u8> = ctx.load(packet.transport).ok();
    match (packet.version, packet.protocol) {
        (4, ICMP) => {
            let fragment = ctx.load::<u16>(6).map(u16::from_be);
            kind == Some(ECHO) && fragment.is_ok_and(|bits| bits & FRAGMENT == 0)
        }
        (6, ICMP6) => kind == Some(ECHO6),
        _ => false,
    }
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

/// Counts what [`is_forged`].
#[inline(always)]
pub(crate) fn forged(cgroup: CgroupId, packet: &Packet) {
    let family = if packet.version == 4 { INET } else { INET6 };
    let numbers = [family, RAW, 0, 0];
    denial::count(cgroup, rule::RAW_SOCKET, &Detail { pid: 0, address: packet.peer, numbers });
}

/// Whether the current task is below the engine's cgroup. LSM hooks, unlike
/// cgroup ones, run for the whole host.
#[inline(always)]
pub(crate) fn guarded() -> bool {
    let level = CONTAINER_LEVEL.load();
    level > 0 && kernel::current_ancestor(level - 1).0 == ENGINE_CGROUP.load()
}
