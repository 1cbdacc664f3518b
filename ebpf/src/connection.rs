//! What was found out about a connection, so that it is asked once and not for each packet.
//!
//! Notes are kept with the socket, which takes them along when it goes. A packet is as good as an
//! earlier one of its socket that had the same addresses and came the same way, until user space
//! changes who is in or where; whatever else is new about it leads to the full look. Only what
//! passed is noted, and only of established TCP sockets: their packets are the kernel's own making.
//! A note is never changed but replaced, so that none is half old and half new.

use core::ptr;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    btf_maps::SkStorage,
    helpers::generated,
    programs::TcContext,
};
use tritium_common::{guard, ids::CgroupId};

use crate::{
    headers::Ethernet,
    maps::{CHANGES, CROSSINGS, PARTNERS},
};

/// `SOCK_STREAM` of linux/net.h.
const STREAM: u32 = 1;
/// `IPPROTO_TCP` of linux/in.h.
pub(crate) const TCP: u8 = 6;
/// `BPF_TCP_ESTABLISHED` of linux/bpf.h.
const ESTABLISHED: u32 = 1;

/// A socket whose connection can be noted.
#[derive(Clone, Copy)]
pub(crate) struct Socket(*mut bpf_sock);

/// Who is at the other end of a container's connection.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Partner {
    pub(crate) changes: u64,
    pub(crate) container: CgroupId,
    pub(crate) peer: CgroupId,
    /// The other end's.
    pub(crate) address: [u64; 2],
    /// Round-trip times that TCP has told: the one thing that is not replaced, as TCP tells them
    /// one by one.
    pub(crate) round_trips: u64,
}

/// Which frames of a connection pass an interface, and where they go.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Crossing {
    pub(crate) changes: u64,
    pub(crate) shape: Shape,
    /// The one they come by.
    pub(crate) interface: u32,
    /// The one that they are handed to; 0 for none.
    pub(crate) neighbour: u32,
}

/// How often user space has changed what notes are made of. To be read before anything is looked
/// up, so that a note made of what was old is old.
#[inline(always)]
pub(crate) fn changes() -> u64 {
    CHANGES.get(0).copied().unwrap_or(0)
}

impl Socket {
    /// That of a packet, if it is TCP's and established.
    #[inline(always)]
    pub(crate) fn of(skb: *mut __sk_buff) -> Option<Self> {
        // SAFETY: the kernel passes a whole __sk_buff.
        let socket = unsafe { (*skb).__bindgen_anon_2.sk };
        if socket.is_null() {
            return None;
        }
        // SAFETY: of the packet, and not null.
        let socket = unsafe { generated::bpf_sk_fullsock(socket) };
        if socket.is_null() {
            return None;
        }
        // SAFETY: a whole socket, as the helper says.
        let (kind, protocol, state) =
            unsafe { ((*socket).type_, (*socket).protocol, (*socket).state) };
        let is = kind == STREAM && protocol == u32::from(TCP) && state == ESTABLISHED;
        is.then_some(Self(socket))
    }

    /// One that TCP calls back for.
    #[inline(always)]
    pub(crate) fn called(socket: *mut bpf_sock) -> Option<Self> {
        (!socket.is_null()).then_some(Self(socket))
    }

    /// Whom it was found connected to.
    #[inline(always)]
    pub(crate) fn partner(self, changes: u64) -> Option<*mut Partner> {
        let note = self.note(&PARTNERS)?;
        // SAFETY: as in `note`.
        (unsafe { (*note).changes } == changes).then_some(note)
    }

    /// The same, if it has that address.
    #[inline(always)]
    pub(crate) fn partner_at(self, changes: u64, address: &[u8; 16]) -> Option<*mut Partner> {
        let note = self.partner(changes)?;
        // SAFETY: as in `note`.
        let known = unsafe { (*note).address };
        let [high, low] = guard::words(address);
        ((known[0] ^ high) | (known[1] ^ low) == 0).then_some(note)
    }

    #[inline(always)]
    pub(crate) fn set_partner(self, partner: Partner) {
        self.replace(&PARTNERS, partner);
    }

    /// A pointer that is good until the program ends, for the kernel frees a note no sooner.
    #[inline(always)]
    fn note<T>(self, notes: &'static SkStorage<T>) -> Option<*mut T> {
        let (map, none) = (ptr::from_ref(notes).cast_mut().cast(), ptr::null_mut());
        // SAFETY: a map and a whole socket.
        let note = unsafe { generated::bpf_sk_storage_get(map, self.0.cast(), none, 0) };
        (!note.is_null()).then_some(note.cast())
    }

    #[inline(always)]
    fn replace<T>(self, notes: &'static SkStorage<T>, mut note: T) {
        let map = ptr::from_ref(notes).cast_mut().cast();
        // Refused when there is none; and without memory for a new one the next packet is looked
        // at in full, too.
        // SAFETY: a map and a whole socket, and a value of the map's type.
        unsafe {
            generated::bpf_sk_storage_delete(map, self.0.cast());
            let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
            generated::bpf_sk_storage_get(map, self.0.cast(), (&raw mut note).cast(), create);
        }
    }
}

/// Where a frame goes that comes by `interface`: what was found for an earlier one like it; 0 for
/// the bridge.
#[inline(always)]
pub(crate) fn crossing(ctx: &TcContext, changes: u64, interface: u32) -> Option<u32> {
    // SAFETY: the kernel passes a whole __sk_buff.
    if unsafe { (*ctx.skb.skb).vlan_present } != 0 {
        return None;
    }
    let note = Socket::of(ctx.skb.skb)?.note(&CROSSINGS)?;
    // SAFETY: as in `Socket::note`.
    let known = unsafe { &*note };
    if known.changes != changes || known.interface != interface {
        return None;
    }
    known.shape.is(&Shape::of(ctx)?).then_some(known.neighbour)
}

/// Notes where a frame goes that was judged and found to be in order.
#[inline(always)]
pub(crate) fn note_crossing(ctx: &TcContext, changes: u64, interface: u32, neighbour: u32) {
    if let Some(socket) = Socket::of(ctx.skb.skb)
        && let Some(shape) = Shape::of(ctx)
    {
        socket.replace(&CROSSINGS, Crossing { changes, shape, interface, neighbour });
    }
}

/// A frame of TCP's as far as judgement depends on it: Ethernet's header, IP's version and
/// length, protocol and addresses.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Shape([u64; 6]);

impl Shape {
    /// Ethernet's header and the first byte of IP's; the next one may differ from packet to packet.
    const HEAD: u64 = u64::from_ne_bytes([255, 255, 255, 255, 255, 255, 255, 0]);
    /// The first byte of IPv4's header when it has no options.
    const PLAIN: u8 = 0x45;

    /// `None` for what is not TCP, or has options or extension headers of IP.
    #[inline(always)]
    pub(crate) fn of(ctx: &TcContext) -> Option<Self> {
        let [first, second]: [u64; 2] = ctx.load(0).ok()?;
        let [_, _, _, _, a, b, start, _] = second.to_ne_bytes();
        let second = second & Self::HEAD;
        match u16::from_be_bytes([a, b]) {
            Ethernet::IPV4 if start == Self::PLAIN => {
                // From the time to live on.
                let [rest, source, destination]: [u32; 3] = ctx.load(22).ok()?;
                let [_, protocol, _, _] = rest.to_ne_bytes();
                let ends = u64::from(source) << 32 | u64::from(destination);
                (protocol == TCP).then_some(Self([first, second, ends, 0, 0, 0]))
            }
            Ethernet::IPV6 => {
                let protocol: u8 = ctx.load(20).ok()?;
                let [a, b, c, d]: [u64; 4] = ctx.load(22).ok()?;
                (protocol == TCP).then_some(Self([first, second, a, b, c, d]))
            }
            _ => None,
        }
    }

    #[inline(always)]
    fn is(&self, other: &Self) -> bool {
        let mut differs = 0;
        for (this, that) in self.0.iter().zip(other.0) {
            differs |= this ^ that;
        }
        differs == 0
    }
}
