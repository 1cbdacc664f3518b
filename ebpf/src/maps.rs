//! Every map and every global. The interface to user space is this one file.
//!
//! The loader shrinks the maps of the half it does not load, sets the sizes of
//! `TASKS`, `ROWS` and `FREE_ROWS` by the host, and pins all of them.

use aya_ebpf::{
    Global,
    btf_maps::SkStorage,
    macros::{btf_map, map},
    maps::{Array, HashMap, RingBuf, Stack},
};
use tritium_common::{
    guard::{
        Binding, DenialCount, DenialKey, DeviceKey, Entry, ExecKey, Label, MAX_CONTAINERS, Owner,
        PeerKey, Ports, SharedKey,
    },
    ids::CgroupId,
    trace::{ErrorKey, MAX_WATCHED, Row, RowKey, State, Task, Watched},
    traffic::{MAX_PAIRS, MAX_RTT_BUCKETS, Overflow, PairKey, RttKey, Traffic},
};

use crate::connection::{Crossing, Partner};

/// `BPF_F_NO_PREALLOC` of linux/bpf.h.
const NO_PREALLOC: u32 = 1;

// The guard.

/// Who is in.
#[map]
pub(crate) static CONTAINERS: HashMap<CgroupId, Entry> =
    HashMap::with_max_entries(MAX_CONTAINERS, 0);
/// What they are called; only user space reads it.
#[map]
static LABELS: HashMap<CgroupId, Label> =
    HashMap::with_max_entries(2 * MAX_CONTAINERS, NO_PREALLOC);
/// Container addresses, IPv4 ones as ::ffff:a.b.c.d.
#[map]
pub(crate) static ADDRESSES: HashMap<[u8; 16], Owner> =
    HashMap::with_max_entries(4 * MAX_CONTAINERS, NO_PREALLOC);
/// The containers of further tenants that have an address of the above, too.
#[map]
pub(crate) static SHARED: HashMap<SharedKey, CgroupId> =
    HashMap::with_max_entries(4 * MAX_CONTAINERS, NO_PREALLOC);
/// Interfaces of containers, by index of the host's end, or a macvlan's own; what is not in here
/// sends nothing.
#[map]
pub(crate) static BINDINGS: HashMap<u32, Binding> =
    HashMap::with_max_entries(2 * MAX_CONTAINERS, NO_PREALLOC);
/// The same by Ethernet address, of networks whose containers may talk to each other.
#[map]
pub(crate) static PEERS: HashMap<PeerKey, u32> =
    HashMap::with_max_entries(2 * MAX_CONTAINERS, NO_PREALLOC);
/// How often user space has changed one of those above: what was found in them before is old.
#[map]
pub(crate) static CHANGES: Array<u64> = Array::with_max_entries(1, 0);
/// What was found in them, by socket.
#[btf_map]
pub(crate) static PARTNERS: SkStorage<Partner> = SkStorage::new();
/// The same, of frames on their way.
#[btf_map]
pub(crate) static CROSSINGS: SkStorage<Crossing> = SkStorage::new();
/// Where resolvers listen on 127.0.0.11, by the cookie of their network namespace.
#[map]
pub(crate) static RESOLVERS: HashMap<u64, Ports> =
    HashMap::with_max_entries(MAX_CONTAINERS, NO_PREALLOC);
/// Devices beyond the default ones, and what may be done to them.
#[map]
pub(crate) static DEVICES: HashMap<DeviceKey, u32> = HashMap::with_max_entries(65_536, NO_PREALLOC);
/// Files that a tenant may not execute.
#[map]
pub(crate) static EXEC_DENIED: HashMap<ExecKey, u32> = HashMap::with_max_entries(16_384, 0);
/// What was refused.
#[map]
pub(crate) static DENIALS: HashMap<DenialKey, DenialCount> = HashMap::with_max_entries(16_384, 0);
/// The same, told as it happens, at most once per second, container and rule.
#[map]
pub(crate) static DENIED: RingBuf = RingBuf::with_byte_size(64 * 1024, 0);

/// Who exchanged how much with whom.
#[map]
pub(crate) static TRAFFIC: HashMap<PairKey, Traffic> =
    HashMap::with_max_entries(MAX_PAIRS, NO_PREALLOC);
/// Round-trip times by bucket.
#[map]
pub(crate) static RTTS: HashMap<RttKey, u64> =
    HashMap::with_max_entries(MAX_RTT_BUCKETS, NO_PREALLOC);
/// What found no place in these two.
#[map]
pub(crate) static OVERFLOW: Array<Overflow> = Array::with_max_entries(1, 0);

// The trace.

/// Which slot a watched container has.
#[map]
pub(crate) static WATCHES: HashMap<CgroupId, u32> = HashMap::with_max_entries(MAX_WATCHED, 0);
/// The call each task is in.
#[map]
pub(crate) static TASKS: Array<Task> = Array::with_max_entries(131_072, 0);
/// What all programs share.
#[map]
pub(crate) static STATE: Array<State> = Array::with_max_entries(1, 0);
/// What is known of each watched container.
#[map]
pub(crate) static WATCHED: Array<Watched> = Array::with_max_entries(MAX_WATCHED, 0);
/// Durations.
#[map]
pub(crate) static ROWS: Array<Row> = Array::with_max_entries(4096, 0);
/// Rows that are nobody's.
#[map]
pub(crate) static FREE_ROWS: Stack<u32> = Stack::with_max_entries(2048, 0);
/// Whose the others are. Decides when two CPUs take a row for the same call.
#[map]
pub(crate) static ROW_OWNERS: HashMap<RowKey, u32> = HashMap::with_max_entries(2048, 0);
/// Failures by errno.
#[map]
pub(crate) static ERRORS: HashMap<ErrorKey, u64> = HashMap::with_max_entries(16_384, 0);

/// Level of a container's cgroup in the v2 tree; the root is 0.
#[unsafe(no_mangle)]
pub(crate) static CONTAINER_LEVEL: Global<u32> = Global::new(0);
/// Id of the engine's cgroup, whose children the containers are.
#[unsafe(no_mangle)]
pub(crate) static ENGINE_CGROUP: Global<u64> = Global::new(0);
/// Entries of `TASKS` less one; the number of entries is a power of two.
#[unsafe(no_mangle)]
pub(crate) static TASK_MASK: Global<u32> = Global::new(0);
/// Copies of each row less one; CPUs share a copy when there are more CPUs than copies.
#[unsafe(no_mangle)]
pub(crate) static SHARD_MASK: Global<u32> = Global::new(0);

/// Whether frames may go from interface to interface past the bridge.
#[unsafe(no_mangle)]
pub(crate) static DIRECT: Global<u32> = Global::new(0);

/// Byte offsets of kernel struct members, named STRUCT__MEMBER.
macro_rules! offsets {
    ($($name:ident),+ $(,)?) => {
        $(
            #[unsafe(no_mangle)]
            pub(crate) static $name: Global<u64> = Global::new(0);
        )+
    };
}
offsets!(
    PT_REGS__CS,
    TASK_STRUCT__CGROUPS,
    CSS_SET__DFL_CGRP,
    CGROUP__LEVEL,
    CGROUP__ANCESTORS,
    CGROUP__KN,
    KERNFS_NODE__ID,
    SOCK__SK_CGRP_DATA,
    LINUX_BINPRM__FILE,
    FILE__F_INODE,
    INODE__I_INO,
    INODE__I_NLINK,
    INODE__I_SB,
    SUPER_BLOCK__S_DEV,
);
