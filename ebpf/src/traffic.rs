//! How much do containers say to whom, and how well does it arrive?
//!
//! Packets are counted where the guard judges them; connections, segments sent again and
//! round-trip times where TCP tells them. Whose they are is asked of the socket: in a
//! softirq the current task is anybody. The loopback is not counted. All counts are one map
//! value per container and peer, added to atomically.

use aya_ebpf::{
    bindings::bpf_sock_ops,
    helpers::generated,
    macros::sock_ops,
    programs::{SkBuffContext, SockOpsContext},
};
use tritium_common::{
    bucket,
    guard::UNPACED,
    ids::CgroupId,
    traffic::{PairKey, RttKey, Traffic, is_container},
};

use crate::{
    connection::{self, Partner, Socket},
    kernel,
    maps::{OVERFLOW, RTTS, SOCK__SK_CGRP_DATA, TRAFFIC},
    pacing, tenant,
};

/// Operations and flags of linux/bpf.h: `BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB` and so on.
const OPENED: u32 = 4;
const ACCEPTED: u32 = 5;
const RETRANSMITTED: u32 = 9;
const ROUND_TRIP: u32 = 12;
const TELL_RETRANSMITS: i32 = 1 << 1;
const TELL_ROUND_TRIPS: i32 = 1 << 3;
/// `AF_INET` and `AF_INET6` of linux/socket.h.
const IPV4: u32 = 2;
const IPV6: u32 = 10;
/// `BPF_NOEXIST` of linux/bpf.h.
const NO_EXIST: u64 = 1;

/// Counts a packet that passes.
#[inline(always)]
pub(crate) fn packet(ctx: &SkBuffContext, container: CgroupId, peer: CgroupId, out: bool) {
    // SAFETY: the kernel passes a whole __sk_buff.
    let (bytes, segments) = unsafe { ((*ctx.skb.skb).len, (*ctx.skb.skb).gso_segs) };
    let packets = if segments > 1 { u64::from(segments) } else { 1 };
    let Some(traffic) = traffic(PairKey { container, peer }) else { return };
    // SAFETY: `traffic` points to a value of the map, whose members are aligned.
    unsafe {
        if out {
            kernel::add(&raw mut (*traffic).sent_bytes, u64::from(bytes));
            kernel::add(&raw mut (*traffic).sent_packets, packets);
        } else {
            kernel::add(&raw mut (*traffic).received_bytes, u64::from(bytes));
            kernel::add(&raw mut (*traffic).received_packets, packets);
        }
    }
}

/// Counts one that does not.
#[inline(always)]
pub(crate) fn dropped(container: CgroupId, peer: CgroupId) {
    if let Some(traffic) = traffic(PairKey { container, peer }) {
        // SAFETY: as in `packet`.
        unsafe { kernel::add(&raw mut (*traffic).dropped, 1) };
    }
}

#[sock_ops]
pub(crate) fn count_tcp(ctx: SockOpsContext) -> u32 {
    let operation = ctx.op();
    if matches!(operation, OPENED | ACCEPTED | RETRANSMITTED | ROUND_TRIP) {
        count(&ctx, operation);
    }
    1
}

#[inline(always)]
fn count(ctx: &SockOpsContext, operation: u32) -> Option<()> {
    let pair = match partner(ctx.ops) {
        Some(partner) if operation == ROUND_TRIP && !is_told(partner) => return Some(()),
        // SAFETY: a note, which the kernel frees no sooner than this ends.
        Some(partner) => unsafe {
            PairKey { container: (*partner).container, peer: (*partner).peer }
        },
        None => {
            let remote = remote(ctx.ops)?;
            let container = owner(ctx.ops)?;
            let entry = tenant::entry(container)?;
            let peer = tenant::peer(&remote, entry.tenant);
            if is_new(operation) && entry.flags & UNPACED != 0 && is_container(peer) {
                pacing::leave_off(ctx.ops);
            }
            PairKey { container, peer }
        }
    };
    let traffic = traffic(pair)?;
    // SAFETY: as in `packet`.
    unsafe {
        match operation {
            OPENED => kernel::add(&raw mut (*traffic).opened, 1),
            ACCEPTED => kernel::add(&raw mut (*traffic).accepted, 1),
            RETRANSMITTED => {
                kernel::add(&raw mut (*traffic).retransmits, u64::from(ctx.arg(1)));
            }
            _ => {
                // In eighths of a microsecond, smoothed by TCP.
                let nanos = u64::from((*ctx.ops).srtt_us) * 125;
                kernel::add(&raw mut (*traffic).rtt_nanos, nanos);
                round_trip(pair, nanos);
            }
        }
    }
    if is_new(operation) {
        // Refused only for flags that this kernel does not know.
        ctx.set_cb_flags(ctx.cb_flags() as i32 | TELL_RETRANSMITS | TELL_ROUND_TRIPS).ok()?;
    }
    Some(())
}

#[inline(always)]
fn is_new(operation: u32) -> bool {
    operation == OPENED || operation == ACCEPTED
}

/// What is noted of a connection.
#[inline(always)]
fn partner(ops: *mut bpf_sock_ops) -> Option<*mut Partner> {
    // SAFETY: the kernel passes a whole bpf_sock_ops, in which this pointer is one or null.
    let socket = unsafe { (*ops).__bindgen_anon_2.sk };
    Socket::called(socket)?.partner(connection::changes())
}

/// Whether a round-trip time is worth telling: TCP's is smoothed, each new one moves it by an
/// eighth, so every eighth is, and the first.
#[inline(always)]
fn is_told(partner: *mut Partner) -> bool {
    // SAFETY: a note, as above, of a socket that TCP has locked for this call.
    unsafe {
        let told = (*partner).round_trips;
        (*partner).round_trips = told + 1;
        told.is_multiple_of(8)
    }
}

/// The other end's address; `None` on the loopback.
#[inline(always)]
fn remote(ops: *mut bpf_sock_ops) -> Option<[u8; 16]> {
    // SAFETY: the kernel passes a whole bpf_sock_ops.
    let family = unsafe { (*ops).family };
    let address = match family {
        // SAFETY: as above.
        IPV4 => tenant::mapped(unsafe { (*ops).remote_ip4 }),
        IPV6 => {
            let mut address = [0; 16];
            for (word, bytes) in address.chunks_exact_mut(4).enumerate() {
                // SAFETY: as above; the verifier wants its words read one by one, which
                // `read_volatile` keeps.
                let part =
                    unsafe { core::ptr::read_volatile(&raw const (*ops).remote_ip6[word & 3]) };
                bytes.copy_from_slice(&part.to_ne_bytes());
            }
            address
        }
        _ => return None,
    };
    let is_loopback = if address[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff] {
        address[12] == 127
    } else {
        address[..15] == [0; 15] && address[15] == 1
    };
    (!is_loopback).then_some(address)
}

/// The container that the socket belongs to.
#[inline(always)]
fn owner(ops: *mut bpf_sock_ops) -> Option<CgroupId> {
    // SAFETY: the kernel passes a whole bpf_sock_ops, in which this pointer is one or null.
    let socket = unsafe { (*ops).__bindgen_anon_2.sk };
    if socket.is_null() {
        return None;
    }
    // SAFETY: the helper takes any socket and answers null for one of another kind.
    let socket = unsafe { generated::bpf_skc_to_tcp_sock(socket.cast()) };
    if socket.is_null() {
        return None;
    }
    // A tcp_sock begins with its sock. SAFETY: an address, which any bytes make.
    let cgroup: *const u8 = unsafe { kernel::read(socket.cast(), &SOCK__SK_CGRP_DATA) }?;
    kernel::container_of(cgroup)
}

#[inline(always)]
fn traffic(pair: PairKey) -> Option<*mut Traffic> {
    if let Some(found) = TRAFFIC.get_ptr_mut(pair) {
        return Some(found);
    }
    let none = Traffic {
        received_bytes: 0,
        received_packets: 0,
        sent_bytes: 0,
        sent_packets: 0,
        dropped: 0,
        opened: 0,
        accepted: 0,
        retransmits: 0,
        rtt_nanos: 0,
    };
    // Refused when another CPU was faster, which is as good, or when the map is full.
    TRAFFIC.insert(pair, none, NO_EXIST).ok();
    let made = TRAFFIC.get_ptr_mut(pair);
    if made.is_none()
        && let Some(overflow) = OVERFLOW.get_ptr_mut(0)
    {
        // SAFETY: as in `packet`.
        unsafe { kernel::add(&raw mut (*overflow).pairs, 1) };
    }
    made
}

#[inline(always)]
fn round_trip(pair: PairKey, nanos: u64) {
    let key = RttKey { pair, slot: bucket::slot_of(nanos) as u32, reserved: 0 };
    let mut count = RTTS.get_ptr_mut(key);
    if count.is_none() {
        // As in `traffic`.
        RTTS.insert(key, 0, NO_EXIST).ok();
        count = RTTS.get_ptr_mut(key);
    }
    // SAFETY: both point to values of maps, whose members are aligned.
    unsafe {
        if let Some(count) = count {
            kernel::add(count, 1);
        } else if let Some(overflow) = OVERFLOW.get_ptr_mut(0) {
            kernel::add(&raw mut (*overflow).rtts, 1);
        }
    }
}
