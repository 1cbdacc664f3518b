//! Records of the guard's maps.

use bytemuck::{Pod, Zeroable};

use crate::{
    ids::{CgroupId, TenantId},
    record,
};

/// Containers that may be in at a time.
pub const MAX_CONTAINERS: u32 = 16_384;

/// [`Entry::flags`]: may open raw and packet sockets.
pub const RAW_SOCKETS: u64 = 1;
/// [`Entry::flags`]: may use every device.
pub const ALL_DEVICES: u64 = 1 << 1;
/// [`Entry::flags`]: may write sysctls.
pub const SYSCTL_WRITES: u64 = 1 << 2;
/// [`Entry::flags`]: has devices of its own in the device map.
pub const OWN_DEVICES: u64 = 1 << 3;
/// [`Entry::flags`]: its connections to other containers are not paced.
pub const UNPACED: u64 = 1 << 4;

/// Rule numbers, as they stand in [`DenialKey::rule`].
pub mod rule {
    /// connect or sendto towards another tenant's address.
    pub const CONNECT: u32 = 1;
    /// A packet from or to another tenant.
    pub const PACKET: u32 = 2;
    /// A raw or packet socket, or what such a socket was not opened for.
    pub const RAW_SOCKET: u32 = 3;
    /// A device outside the allow-list.
    pub const DEVICE: u32 = 4;
    /// A write to a sysctl.
    pub const SYSCTL: u32 = 5;
    /// exec of a denied or nameless file.
    pub const EXEC: u32 = 6;
    /// ptrace towards another container or the host.
    pub const PTRACE: u32 = 7;
    /// A frame from an Ethernet address that is not the interface's.
    pub const SPOOFED_MAC: u32 = 8;
    /// A packet from an address that is not the interface's.
    pub const SPOOFED_IP: u32 = 9;
    /// ARP that claims another's address.
    pub const ARP: u32 = 10;
    /// Neighbour discovery that claims another's address.
    pub const NEIGHBOUR: u32 = 11;
    /// A router's advertisement or redirect.
    pub const ROUTER: u32 = 12;
    /// A DHCP server's answer.
    pub const DHCP: u32 = 13;
    /// A source-routed packet.
    pub const SOURCE_ROUTE: u32 = 14;
    /// A frame that is neither IPv4, IPv6 nor ARP, has a VLAN tag, or is broken.
    pub const FRAME: u32 = 15;
}

/// What the kernel must know of a container. Key: [`CgroupId`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Entry {
    /// Whose it is.
    pub tenant: TenantId,
    /// `RAW_SOCKETS` and the like.
    pub flags: u64,
}

/// What a container is called; only user space reads it. Key: [`CgroupId`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Label {
    /// Whose it is.
    pub tenant_id: TenantId,
    /// Container id.
    pub container: [u8; 64],
    /// Name; longer ones are cut, the rest is zeros.
    pub name: [u8; 128],
    /// Image reference, cut likewise.
    pub image: [u8; 192],
    /// Tenant name, cut likewise.
    pub tenant: [u8; 64],
}

/// Whose an address is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Owner {
    /// The tenant.
    pub tenant: TenantId,
    /// The container; 0 where only the tenant is known.
    pub cgroup: CgroupId,
}

/// Another owner of an address that has one already: two tenants may use the same subnet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct SharedKey {
    /// The address, an IPv4 one as ::ffff:a.b.c.d.
    pub address: [u8; 16],
    /// The tenant.
    pub tenant: TenantId,
}

/// Addresses that one interface may have.
pub const MAX_ADDRESSES: usize = 6;

/// Whose a container's interface is, and what it may call itself. Key: the index of the host's end.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Binding {
    /// The container.
    pub cgroup: CgroupId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its addresses, IPv4 ones as ::ffff:a.b.c.d, as [`words`] gives them; zeros are none.
    pub addresses: [[u64; 2]; MAX_ADDRESSES],
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Zero.
    pub reserved: u16,
    /// The network whose interfaces it may send to directly; 0 for none.
    pub network: u64,
}

/// An interface among those of its network. The value is the index of the host's end.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct PeerKey {
    /// As in [`Binding`].
    pub network: u64,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Zero.
    pub reserved: u16,
}

/// An address as two numbers, which are compared faster than sixteen.
#[inline(always)]
#[must_use]
pub fn words(address: &[u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *address;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
}

/// Where a container finds its resolver, 127.0.0.11, as the maps know addresses.
pub const RESOLVER: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 11];
/// And the port there.
pub const DNS_PORT: u16 = 53;

/// The ports of [`RESOLVER`] that one really listens on. Key: a network namespace's cookie.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Ports {
    /// For datagrams.
    pub udp: u16,
    /// For connections.
    pub tcp: u16,
}

/// A device rule. A number of [`ANY`] stands for all.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct DeviceKey {
    /// The container.
    pub cgroup: CgroupId,
    /// `BPF_DEVCG_DEV_BLOCK` or `BPF_DEVCG_DEV_CHAR`.
    pub kind: u32,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Zero.
    pub reserved: u32,
}

/// Every major or minor number.
pub const ANY: u32 = u32::MAX;

/// `BPF_DEVCG_DEV_BLOCK` of linux/bpf.h.
pub const BLOCK: u32 = 1;
/// `BPF_DEVCG_DEV_CHAR` of linux/bpf.h.
pub const CHARACTER: u32 = 2;
/// `BPF_DEVCG_ACC_MKNOD` of linux/bpf.h.
pub const MKNOD: u32 = 1;
/// `BPF_DEVCG_ACC_READ` of linux/bpf.h.
pub const READ: u32 = 2;
/// `BPF_DEVCG_ACC_WRITE` of linux/bpf.h.
pub const WRITE: u32 = 4;

/// Whether Docker's default list allows `access` to a device: mknod of any,
/// and null, zero, full, random, urandom, tty, console, ptmx and the ptys.
#[inline(always)]
#[must_use]
pub fn allowed_by_default(kind: u32, major: u32, minor: u32, access: u32) -> bool {
    if access & !MKNOD == 0 {
        return true;
    }
    if kind != CHARACTER {
        return false;
    }
    match major {
        1 => matches!(minor, 3 | 5 | 7 | 8 | 9),
        5 => minor <= 2,
        136 => true,
        _ => false,
    }
}

/// A file that a tenant may not execute.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct ExecKey {
    /// Who may not.
    pub tenant: TenantId,
    /// Inode number.
    pub inode: u64,
    /// Device in the kernel's own encoding: major << 20 | minor.
    pub device: u64,
}

/// What is counted.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct DenialKey {
    /// The container; 0 for processes in none.
    pub cgroup: CgroupId,
    /// A number of [`rule`].
    pub rule: u32,
    /// Zero.
    pub reserved: u32,
}

/// How often, and when it was last told.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct DenialCount {
    /// Times refused.
    pub count: u64,
    /// `CLOCK_MONOTONIC` of the last record in the ring.
    pub told: u64,
}

/// One refusal, in the ring. At most one per second, container and rule.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Denied {
    /// The container; 0 for processes in none.
    pub cgroup: CgroupId,
    /// Refusals by this rule so far.
    pub count: u64,
    /// A number of [`rule`].
    pub rule: u32,
    /// Process id on the host; 0 for packets.
    pub pid: u32,
    /// The address: the other's for `CONNECT`, `PACKET` and what a raw socket sent, the one claimed for `SPOOFED_IP`, `ARP` and `NEIGHBOUR`; else zeros.
    pub address: [u8; 16],
    /// Kind, major, minor and access for `DEVICE`; the port for `CONNECT`; family and type for `RAW_SOCKET`;
    /// EtherType and protocol (0 where not known) for what was refused on the wire.
    pub detail: [u32; 4],
}

record!(
    Entry,
    Label,
    Owner,
    SharedKey,
    Binding,
    PeerKey,
    Ports,
    DeviceKey,
    ExecKey,
    DenialKey,
    DenialCount,
    Denied
);

const _: () = assert!(size_of::<Entry>() == 16);
const _: () = assert!(size_of::<Label>() == 456);
const _: () = assert!(size_of::<Owner>() == 16);
const _: () = assert!(size_of::<SharedKey>() == 24);
const _: () = assert!(size_of::<Binding>() == 128);
const _: () = assert!(size_of::<PeerKey>() == 16);
const _: () = assert!(size_of::<Ports>() == 4);
const _: () = assert!(size_of::<DeviceKey>() == 24);
const _: () = assert!(size_of::<ExecKey>() == 24);
const _: () = assert!(size_of::<DenialKey>() == 16);
const _: () = assert!(size_of::<DenialCount>() == 16);
const _: () = assert!(size_of::<Denied>() == 56);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_default_devices_are_allowed_and_disks_are_not() {
        assert!(allowed_by_default(CHARACTER, 1, 3, READ | WRITE), "null");
        assert!(allowed_by_default(CHARACTER, 136, 7, READ | WRITE), "a pty");
        assert!(allowed_by_default(BLOCK, 8, 0, MKNOD), "mknod of a disk");
        assert!(!allowed_by_default(BLOCK, 8, 0, READ), "reading it");
        assert!(!allowed_by_default(CHARACTER, 1, 1, READ), "mem");
        assert!(!allowed_by_default(CHARACTER, 10, 229, READ | WRITE), "fuse");
    }
}
