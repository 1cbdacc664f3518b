//! `clone3(2)`: a child that is counted from its first instruction.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// `struct clone_args` of linux/sched.h, as of Linux 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}
const _: () = assert!(size_of::<CloneArgs>() == 88);

/// Which namespaces a child gets of its own. All off: the parent's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one flag of clone(2)")]
pub struct NewNamespaces {
    /// `CLONE_NEWNS`.
    pub mount: bool,
    /// `CLONE_NEWPID`.
    pub pid: bool,
    /// `CLONE_NEWNET`.
    pub network: bool,
    /// `CLONE_NEWIPC`.
    pub ipc: bool,
    /// `CLONE_NEWUTS`.
    pub uts: bool,
}

/// Which side of a [`clone_into`] this is.
#[derive(Debug)]
pub enum Side {
    /// The new process. Every descriptor is a copy of the parent's.
    Child,
    /// The one that asked.
    Parent {
        /// As the parent's pid namespace numbers it.
        pid: i32,
        /// Refers to the child for as long as it is held; close-on-exec.
        pidfd: OwnedFd,
    },
}

static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// Whether this process was made by [`clone_into`] and has not executed
/// another program since.
pub fn is_child() -> bool {
    IS_CHILD.load(Ordering::Relaxed)
}

/// Makes a child straight into the control group whose directory (of the v2
/// tree) is `cgroup`, so that no instant exists in which it runs uncounted.
///
/// Not for a new cgroup namespace: the kernel would root that in the parent's
/// group (`copy_cgroup_ns`, kernel/cgroup/namespace.c); the child unshares it.
///
/// # Errors
///
/// `EDEADLK` if this process has other threads: the child would get only this
/// one, and a lock that another thread held would stay locked for ever.
/// Otherwise those of clone3(2).
pub fn clone_into(cgroup: BorrowedFd<'_>, new: NewNamespaces) -> io::Result<Side> {
    be_alone()?;
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs {
        flags: flags_of(new),
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        cgroup: u64::from(cgroup.as_raw_fd().unsigned_abs()),
        ..CloneArgs::default()
    };
    // SAFETY: `args` and `pidfd` outlive the call, and the size given is that
    // of the struct passed. Without CLONE_VM and without a stack the child
    // gets a copy of this address space and goes on from here as after
    // fork(2); this is the only thread, as checked above, so that copy has
    // no lock that somebody else holds.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match i32::try_from(crate::checked(pid)?).map_err(io::Error::other)? {
        0 => {
            IS_CHILD.store(true, Ordering::Relaxed);
            Ok(Side::Child)
        }
        pid => {
            // SAFETY: with CLONE_PIDFD the kernel has put a new descriptor
            // into `pidfd` before the call returned in the parent, and
            // nobody else knows its number.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Side::Parent { pid, pidfd })
        }
    }
}

/// fork(2), for where a seccomp policy refuses clone3. Answers with the
/// child's number, and `None` in the child.
///
/// # Errors
///
/// `EDEADLK` if this process has other threads; otherwise those of fork(2).
pub fn fork() -> io::Result<Option<i32>> {
    be_alone()?;
    // SAFETY: this is the only thread, as just checked, so the child's copy
    // of memory has no lock that somebody else holds, and it may do all that
    // its parent may.
    let pid = unsafe { libc::fork() };
    match crate::checked(pid.into())? {
        0 => {
            IS_CHILD.store(true, Ordering::Relaxed);
            Ok(None)
        }
        _ => Ok(Some(pid)),
    }
}

fn be_alone() -> io::Result<()> {
    match fs::read_dir("/proc/self/task")?.take(2).count() {
        1 => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::EDEADLK)),
    }
}

fn flags_of(new: NewNamespaces) -> u64 {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let of = |wanted: bool, flag: libc::c_int| {
        if wanted { u64::from(flag.unsigned_abs()) } else { 0 }
    };
    CLONE_INTO_CGROUP
        | of(true, libc::CLONE_PIDFD)
        | of(new.mount, libc::CLONE_NEWNS)
        | of(new.pid, libc::CLONE_NEWPID)
        | of(new.network, libc::CLONE_NEWNET)
        | of(new.ipc, libc::CLONE_NEWIPC)
        | of(new.uts, libc::CLONE_NEWUTS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_process_with_two_threads_is_refused() {
        let stop = std::sync::Arc::new(std::sync::Barrier::new(2));
        let other = std::thread::spawn({
            let stop = stop.clone();
            move || stop.wait()
        });
        let null = fs::File::open("/dev/null").unwrap();
        let refused = clone_into(null.as_fd(), NewNamespaces::default()).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EDEADLK));
        stop.wait();
        other.join().unwrap();
    }
}
