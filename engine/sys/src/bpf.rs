//! bpf(2): links of cgroup programs, which aya makes but for two kinds cannot pin.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// `BPF_OBJ_PIN` of linux/bpf.h.
const OBJ_PIN: libc::c_int = 6;
/// `BPF_LINK_CREATE` of linux/bpf.h.
const LINK_CREATE: libc::c_int = 28;

/// Where in the kernel a cgroup program runs: `enum bpf_attach_type` of linux/bpf.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum CgroupHook {
    /// A packet reaches a socket.
    Ingress = 0,
    /// A packet leaves a socket.
    Egress = 1,
    /// An internet socket is made.
    SockCreate = 2,
    /// TCP opens, accepts, sends again, or has measured a round trip.
    SockOps = 3,
    /// A device file is opened or made.
    Device = 6,
    /// connect(2) to an IPv4 address.
    Connect4 = 10,
    /// connect(2) to an IPv6 address.
    Connect6 = 11,
    /// sendmsg(2) to an IPv4 address.
    Sendmsg4 = 14,
    /// sendmsg(2) to an IPv6 address.
    Sendmsg6 = 15,
    /// A sysctl is read or written.
    Sysctl = 18,
    /// recvmsg(2) of a datagram from an IPv4 address, on a socket of that family.
    Recvmsg4 = 19,
    /// recvmsg(2) of a datagram on a socket of IPv6.
    Recvmsg6 = 20,
    /// getpeername(2) of a socket of IPv4.
    Getpeername4 = 29,
    /// getpeername(2) of a socket of IPv6.
    Getpeername6 = 30,
}

/// The part of `union bpf_attr` that `BPF_LINK_CREATE` reads.
#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    hook: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that `BPF_OBJ_PIN` reads.
#[repr(C)]
struct ObjPin {
    path: u64,
    object: u32,
    flags: u32,
}

const _: () = assert!(size_of::<LinkCreate>() == 16);
const _: () = assert!(size_of::<ObjPin>() == 16);

/// Attaches a loaded program to a cgroup and all below it, beside others that are there. It
/// stays until the last descriptor of the link is closed and the last pin removed.
///
/// # Errors
/// bpf(2)'s: `EPERM` without `CAP_NET_ADMIN` and `CAP_BPF`, `EINVAL` for a program of another kind.
pub fn link_cgroup(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    hook: CgroupHook,
) -> io::Result<OwnedFd> {
    let attributes = LinkCreate {
        program: number(program),
        target: number(cgroup),
        hook: hook as u32,
        flags: 0,
    };
    // SAFETY: the kernel reads as many bytes as it is told from `attributes`,
    // which outlives the call, and writes nothing.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, LINK_CREATE, &raw const attributes, size_of::<LinkCreate>())
    };
    let fd = i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives a BPF object a name on a bpffs, which keeps it alive.
///
/// # Errors
/// bpf(2)'s: `EEXIST`, or `EPERM` where `path` is on no bpffs.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = ObjPin { path: path.as_ptr() as u64, object: number(object), flags: 0 };
    // SAFETY: the kernel reads as many bytes as it is told from `attributes`, and
    // the NUL-terminated path they point to; both outlive the call.
    let done = unsafe {
        libc::syscall(libc::SYS_bpf, OBJ_PIN, &raw const attributes, size_of::<ObjPin>())
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}
