//! Where does a container find its resolver?
//!
//! At port 53 of 127.0.0.11, it believes. The resolver listens there on another port, so that the
//! container may have port 53 on all its addresses itself: whoever asks is led to that port when
//! its socket is told where to connect or send to, and is told port 53 when it asks who answered.
//! No packet is changed, so none has to be followed: nothing is paid for by other connections.

use aya_ebpf::{bindings::bpf_sock_addr, helpers::generated};
use tritium_common::guard::{DNS_PORT, RESOLVER};

use crate::{maps::RESOLVERS, network};

const TCP: u32 = 6;
const UDP: u32 = 17;

/// A question goes to where the resolver of its network namespace listens.
#[inline(always)]
pub(crate) fn lead(ctx: *mut bpf_sock_addr, address: &[u8; 16]) {
    if *address == RESOLVER
        && network::port(ctx) == u32::from(DNS_PORT)
        && let Some(port) = listening(ctx)
    {
        set_port(ctx, port);
    }
}

/// An answer comes from where the question was meant for.
#[inline(always)]
pub(crate) fn lead_back(ctx: *mut bpf_sock_addr, address: &[u8; 16]) {
    if *address == RESOLVER
        && let Some(port) = listening(ctx)
        && network::port(ctx) == u32::from(port)
    {
        set_port(ctx, DNS_PORT);
    }
}

/// The resolver's port, if the socket's network namespace has one.
#[inline(always)]
fn listening(ctx: *mut bpf_sock_addr) -> Option<u16> {
    // SAFETY: the kernel passes a whole bpf_sock_addr, which the helper takes.
    let (netns, protocol) =
        unsafe { (generated::bpf_get_netns_cookie(ctx.cast()), (*ctx).protocol) };
    // SAFETY: entries are replaced as a whole by user space and freed after a
    // grace period, which this program's run is shorter than.
    let ports = unsafe { RESOLVERS.get(netns) }?;
    match protocol {
        TCP => Some(ports.tcp),
        UDP => Some(ports.udp),
        _ => None,
    }
}

#[inline(always)]
fn set_port(ctx: *mut bpf_sock_addr, port: u16) {
    // SAFETY: as above; the verifier lets these hooks write the whole of this member.
    unsafe { core::ptr::write_volatile(&raw mut (*ctx).user_port, u32::from(port.to_be())) };
}
