//! Who is who, for both sides.

use bytemuck::{Pod, Zeroable};

/// A cgroup on the v2 tree: the inode number of its directory. Never reused while the host runs.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
pub struct CgroupId(pub u64);

/// A tenant: the first eight bytes of SHA-256 of its name, so that engine and
/// pinned maps agree over restarts without a register.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
pub struct TenantId(pub u64);

crate::record!(CgroupId, TenantId);
