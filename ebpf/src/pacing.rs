//! Is a connection paced that does not leave this host?
//!
//! BBR sends each segment by a timer, for routers' sake. Between two containers there are none,
//! and the timers cost half the throughput. So connections of neighbours that would be paced only
//! because the host's are take what Linux does without: CUBIC, or Reno, which is always there.

use aya_ebpf::{bindings::bpf_sock_ops, helpers::generated};

/// `IPPROTO_TCP` of linux/in.h.
const TCP: i32 = 6;
/// `TCP_CONGESTION` of linux/tcp.h.
const CONGESTION: i32 = 13;
/// `TCP_CA_NAME_MAX` of net/tcp.h.
type Name = [u8; 16];

const CUBIC: Name = *b"cubic\0\0\0\0\0\0\0\0\0\0\0";
const RENO: Name = *b"reno\0\0\0\0\0\0\0\0\0\0\0\0";

/// Leaves pacing off, before the connection's congestion control has begun.
#[inline(always)]
pub(crate) fn leave_off(ops: *mut bpf_sock_ops) {
    let mut name: Name = [0; 16];
    let (at, length) = ((&raw mut name).cast(), size_of::<Name>() as i32);
    // SAFETY: the helper writes no more than `length` bytes.
    let known = unsafe { generated::bpf_getsockopt(ops.cast(), TCP, CONGESTION, at, length) };
    // Of all versions.
    if known == 0 && name[..3] == *b"bbr" && !set(ops, CUBIC) {
        // Refused where the container's network namespace may not have it, and then it stays.
        set(ops, RENO);
    }
}

#[inline(always)]
fn set(ops: *mut bpf_sock_ops, mut name: Name) -> bool {
    let (at, length) = ((&raw mut name).cast(), size_of::<Name>() as i32);
    // SAFETY: the helper reads no more than `length` bytes.
    unsafe { generated::bpf_setsockopt(ops.cast(), TCP, CONGESTION, at, length) == 0 }
}
