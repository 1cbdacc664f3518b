//! Records of what containers say to each other.

use bytemuck::{Pod, Zeroable};

use crate::{ids::CgroupId, record};

/// Pairs of container and peer that are counted at a time; what finds no place is counted as such.
pub const MAX_PAIRS: u32 = 8192;
/// Buckets of round-trip times, of all pairs together.
pub const MAX_RTT_BUCKETS: u32 = 65_536;

/// [`PairKey::peer`] for what is no container's.
pub const OUTSIDE: CgroupId = CgroupId(0);
/// [`PairKey::peer`] for another tenant's container, whoever it is.
pub const OTHER_TENANT: CgroupId = CgroupId(u64::MAX);
/// [`PairKey::peer`] of frames that do not tell truly where they go.
pub const UNKNOWN: CgroupId = CgroupId(u64::MAX - 1);

/// Whether a [`PairKey::peer`] is a container.
#[inline(always)]
#[must_use]
pub fn is_container(peer: CgroupId) -> bool {
    peer != OUTSIDE && peer != OTHER_TENANT && peer != UNKNOWN
}

/// Who, with whom.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct PairKey {
    /// The container.
    pub container: CgroupId,
    /// The other end: a container of the same tenant, or one of the constants.
    pub peer: CgroupId,
}

/// What a container and one peer have exchanged, seen from the container. Bytes are those of
/// whole IP packets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Traffic {
    /// Bytes that reached a socket.
    pub received_bytes: u64,
    /// In as many packets.
    pub received_packets: u64,
    /// Bytes that left a socket.
    pub sent_bytes: u64,
    /// In as many packets.
    pub sent_packets: u64,
    /// Packets and frames that the guard dropped.
    pub dropped: u64,
    /// TCP connections that the container opened.
    pub opened: u64,
    /// TCP connections that it accepted.
    pub accepted: u64,
    /// TCP segments sent again.
    pub retransmits: u64,
    /// Sum of the round-trip times counted, in nanoseconds.
    pub rtt_nanos: u64,
}

/// Round-trip times of a pair in one slot of [`crate::bucket`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct RttKey {
    /// Whose.
    pub pair: PairKey,
    /// Which.
    pub slot: u32,
    /// Zero.
    pub reserved: u32,
}

/// What found no place in a full map. One value for all.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Overflow {
    /// Events of pairs.
    pub pairs: u64,
    /// Round-trip times.
    pub rtts: u64,
}

record!(PairKey, Traffic, RttKey, Overflow);

const _: () = assert!(size_of::<Traffic>() == 72);
const _: () = assert!(size_of::<RttKey>() == 24);
