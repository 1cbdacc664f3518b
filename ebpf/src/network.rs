//! May this container talk to that address?
//!
//! Three looks at the same question. connect and sendto answer at once with EPERM;
//! packets are looked at on their way out and in, for what got round that (an address
//! translated after the first look, a socket made before the container was
//! admitted); and on the loopback, which containers on the host's network share, the
//! receiving socket's owner is looked up, for there the address says nothing.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    bindings::{bpf_sock, bpf_sock_addr, bpf_sock_tuple},
    helpers::generated,
    macros::{cgroup_skb, cgroup_sock_addr},
    programs::{SkBuffContext, SockAddrContext},
};
use tritium_common::{
    guard::{self, RAW_SOCKETS, rule},
    ids::{CgroupId, TenantId},
    traffic::OTHER_TENANT,
};

use crate::{
    connection::{self, Partner, Socket, TCP},
    denial::{self, Detail},
    headers::Ipv4Header,
    kernel,
    maps::CONTAINER_LEVEL,
    names, socket, tenant, traffic,
};

/// The loopback's index in every network namespace.
const LOOPBACK: u32 = 1;
const UDP: u8 = 17;
/// `BPF_F_CURRENT_NETNS` of linux/bpf.h.
const CURRENT_NAMESPACE: u64 = u64::MAX;

#[cgroup_sock_addr(connect4)]
pub(crate) fn guard_connect4(ctx: SockAddrContext) -> i32 {
    judge_and_lead(ctx.sock_addr, address4(ctx.sock_addr))
}

#[cgroup_sock_addr(connect6)]
pub(crate) fn guard_connect6(ctx: SockAddrContext) -> i32 {
    judge_and_lead(ctx.sock_addr, address6(ctx.sock_addr))
}

// What a socket of IPv6 sends to an address of IPv4 comes by here, too.
#[cgroup_sock_addr(sendmsg4)]
pub(crate) fn guard_sendmsg4(ctx: SockAddrContext) -> i32 {
    judge_and_lead(ctx.sock_addr, address4(ctx.sock_addr))
}

#[cgroup_sock_addr(sendmsg6)]
pub(crate) fn guard_sendmsg6(ctx: SockAddrContext) -> i32 {
    i32::from(may_send(address6(ctx.sock_addr), port(ctx.sock_addr)))
}

#[inline(always)]
fn judge_and_lead(ctx: *mut bpf_sock_addr, address: [u8; 16]) -> i32 {
    let may = may_send(address, port(ctx));
    if may {
        names::lead(ctx, &address);
    }
    i32::from(may)
}

// These four cannot refuse: the kernel takes no other answer than 1.

#[cgroup_sock_addr(recvmsg4)]
pub(crate) fn names_recvmsg4(ctx: SockAddrContext) -> i32 {
    names::lead_back(ctx.sock_addr, &address4(ctx.sock_addr));
    1
}

#[cgroup_sock_addr(recvmsg6)]
pub(crate) fn names_recvmsg6(ctx: SockAddrContext) -> i32 {
    names::lead_back(ctx.sock_addr, &address6(ctx.sock_addr));
    1
}

#[cgroup_sock_addr(getpeername4)]
pub(crate) fn names_getpeername4(ctx: SockAddrContext) -> i32 {
    names::lead_back(ctx.sock_addr, &address4(ctx.sock_addr));
    1
}

#[cgroup_sock_addr(getpeername6)]
pub(crate) fn names_getpeername6(ctx: SockAddrContext) -> i32 {
    names::lead_back(ctx.sock_addr, &address6(ctx.sock_addr));
    1
}

#[inline(always)]
fn address4(ctx: *mut bpf_sock_addr) -> [u8; 16] {
    // SAFETY: the kernel passes a whole bpf_sock_addr.
    tenant::mapped(unsafe { (*ctx).user_ip4 })
}

#[inline(always)]
fn address6(ctx: *mut bpf_sock_addr) -> [u8; 16] {
    let mut address = [0; 16];
    for (word, bytes) in address.chunks_exact_mut(4).enumerate() {
        // SAFETY: the kernel passes a whole bpf_sock_addr; the verifier wants
        // its words read one by one, which `read_volatile` keeps.
        let part = unsafe { core::ptr::read_volatile(&raw const (*ctx).user_ip6[word & 3]) };
        bytes.copy_from_slice(&part.to_ne_bytes());
    }
    address
}

#[inline(always)]
pub(crate) fn port(ctx: *mut bpf_sock_addr) -> u32 {
    // SAFETY: the kernel passes a whole bpf_sock_addr.
    u32::from(u16::from_be(unsafe { (*ctx).user_port } as u16))
}

#[inline(always)]
fn may_send(address: [u8; 16], port: u32) -> bool {
    let (cgroup, entry) = tenant::current();
    if let Some(entry) = entry
        && !tenant::is_foreign(&address, entry.tenant)
    {
        return true;
    }
    let detail = Detail { pid: kernel::current_process(), address, numbers: [port, 0, 0, 0] };
    denial::count(cgroup, rule::CONNECT, &detail);
    false
}

#[cgroup_skb]
pub(crate) fn guard_egress(ctx: SkBuffContext) -> i32 {
    i32::from(may_pass(&ctx, true))
}

#[cgroup_skb]
pub(crate) fn guard_ingress(ctx: SkBuffContext) -> i32 {
    i32::from(may_pass(&ctx, false))
}

/// Judges a packet of the container whose socket it leaves or reaches.
#[inline(always)]
fn may_pass(ctx: &SkBuffContext, out: bool) -> bool {
    let changes = connection::changes();
    let Some(packet) = Packet::of(ctx, out) else { return false };
    // SAFETY: the kernel passes a whole __sk_buff.
    let inside = unsafe { (*ctx.skb.skb).ifindex } == LOOPBACK;
    let socket = if inside || packet.protocol != TCP { None } else { Socket::of(ctx.skb.skb) };
    if let Some(socket) = socket
        && let Some(partner) = socket.partner_at(changes, &packet.peer)
    {
        // SAFETY: a note, which the kernel frees no sooner than this ends.
        let (container, peer) = unsafe { ((*partner).container, (*partner).peer) };
        traffic::packet(ctx, container, peer, out);
        return true;
    }
    // SAFETY: the helper takes any level and answers 0 where there is none.
    let container = CgroupId(unsafe {
        generated::bpf_skb_ancestor_cgroup_id(ctx.skb.skb, CONTAINER_LEVEL.load() as i32)
    });
    if let Some(entry) = tenant::entry(container) {
        let peer = tenant::peer(&packet.peer, entry.tenant);
        if out && entry.flags & RAW_SOCKETS == 0 && socket::is_forged(ctx, &packet) {
            traffic::dropped(container, peer);
            socket::forged(container, &packet);
            return false;
        }
        if peer != OTHER_TENANT
            && !(out && inside && reaches_foreign_socket(ctx, &packet, entry.tenant))
        {
            if !inside {
                traffic::packet(ctx, container, peer, out);
            }
            if let Some(socket) = socket {
                let address = guard::words(&packet.peer);
                socket.set_partner(Partner { changes, container, peer, address, round_trips: 0 });
            }
            return true;
        }
        traffic::dropped(container, OTHER_TENANT);
    }
    denial::count(
        container,
        rule::PACKET,
        &Detail { pid: 0, address: packet.peer, numbers: [u32::from(out), 0, 0, 0] },
    );
    false
}

/// What a look at the headers tells.
pub(crate) struct Packet {
    pub(crate) version: u8,
    pub(crate) protocol: u8,
    /// Where the transport header starts.
    pub(crate) transport: usize,
    /// The other end's address.
    pub(crate) peer: [u8; 16],
}

impl Packet {
    #[inline(always)]
    fn of(ctx: &SkBuffContext, out: bool) -> Option<Self> {
        // No packet of either version is shorter than a header of IPv4.
        let header: Ipv4Header = ctx.load(0).ok()?;
        if header.version() == 6 {
            let peer = ctx.load(if out { 24 } else { 8 }).ok()?;
            return Some(Self { version: 6, protocol: ctx.load(6).ok()?, transport: 40, peer });
        }
        let peer = tenant::mapped(if out { header.destination } else { header.source });
        Some(Self { version: 4, protocol: header.protocol, transport: header.length(), peer })
    }
}

/// Whether a packet on the loopback goes to another tenant's socket.
#[inline(always)]
fn reaches_foreign_socket(ctx: &SkBuffContext, packet: &Packet, tenant: TenantId) -> bool {
    if packet.protocol != TCP && packet.protocol != UDP {
        return false;
    }
    let Ok(ports) = ctx.load::<[u16; 2]>(packet.transport) else { return false };
    // SAFETY: the union is of plain integers, which zeros make.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let size = if packet.version == 4 {
        let (Ok(source), Ok(destination)) = (ctx.load(12), ctx.load(16)) else { return false };
        let [sport, dport] = ports;
        tuple.__bindgen_anon_1.ipv4.saddr = source;
        tuple.__bindgen_anon_1.ipv4.daddr = destination;
        tuple.__bindgen_anon_1.ipv4.sport = sport;
        tuple.__bindgen_anon_1.ipv4.dport = dport;
        12
    } else {
        let (Ok(source), Ok(destination)) = (ctx.load(8), ctx.load(24)) else { return false };
        let [sport, dport] = ports;
        tuple.__bindgen_anon_1.ipv6.saddr = source;
        tuple.__bindgen_anon_1.ipv6.daddr = destination;
        tuple.__bindgen_anon_1.ipv6.sport = sport;
        tuple.__bindgen_anon_1.ipv6.dport = dport;
        36
    };
    let owner = socket_owner(ctx, &mut tuple, size, packet.protocol);
    match tenant::entry(owner) {
        Some(entry) => entry.tenant != tenant,
        None => false,
    }
}

/// The container whose socket the packet will reach; 0 for none.
#[inline(always)]
fn socket_owner(
    ctx: &SkBuffContext,
    tuple: &mut bpf_sock_tuple,
    size: u32,
    protocol: u8,
) -> CgroupId {
    if protocol == TCP {
        CgroupId(tcp_owner(ctx.as_ptr(), tuple, size))
    } else {
        CgroupId(udp_owner(ctx.as_ptr(), tuple, size))
    }
}

// Two functions that are not inlined: merged into one, the helper would be called
// through a register, which the kernel does not know.

#[inline(never)]
fn tcp_owner(ctx: *mut c_void, tuple: *mut bpf_sock_tuple, size: u32) -> u64 {
    // SAFETY: `tuple` lives through the call and is at least `size` bytes.
    owner_of(unsafe { generated::bpf_sk_lookup_tcp(ctx, tuple, size, CURRENT_NAMESPACE, 0) })
}

#[inline(never)]
fn udp_owner(ctx: *mut c_void, tuple: *mut bpf_sock_tuple, size: u32) -> u64 {
    // SAFETY: `tuple` lives through the call and is at least `size` bytes.
    owner_of(unsafe { generated::bpf_sk_lookup_udp(ctx, tuple, size, CURRENT_NAMESPACE, 0) })
}

/// The container of a socket that was looked up, which is released.
#[inline(always)]
fn owner_of(socket: *mut bpf_sock) -> u64 {
    if socket.is_null() {
        return 0;
    }
    // SAFETY: the look-up's reference is held until the release below.
    let owner = unsafe {
        generated::bpf_sk_ancestor_cgroup_id(socket.cast(), CONTAINER_LEVEL.load() as i32)
    };
    // SAFETY: releases the look-up's reference, once.
    unsafe { generated::bpf_sk_release(socket.cast()) };
    owner
}
