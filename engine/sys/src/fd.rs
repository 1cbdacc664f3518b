//! Descriptors: what a fresh child may still hold (`close_range(2)`), and what
//! is on its way to a disk.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Closes every descriptor above 2 except `keep`, in a child of
/// [`clone_into`](crate::clone::clone_into).
///
/// Owners of the closed descriptors are left with numbers that mean nothing:
/// the child must not use or drop them, so it ends in `execve` or `_exit` and
/// never returns to where they live.
///
/// # Errors
///
/// `EPERM` anywhere but in such a child: there somebody may still need them.
/// Otherwise those of close_range(2).
pub fn close_others(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    if !crate::clone::is_child() {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    let mut kept: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd().unsigned_abs()).collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept.into_iter().filter(|fd| *fd > 2) {
        if fd > first {
            close_range(first, fd - 1, 0)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX, 0)
}

/// Marks every descriptor from 3 on to be closed by the next `execve`.
///
/// # Errors
///
/// Those of close_range(2); `EINVAL` before Linux 5.11.
pub fn close_on_exec() -> io::Result<()> {
    close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes what this process has inherited above descriptor 2. To be called
/// before it has opened anything of its own.
///
/// # Errors
///
/// `EPERM` if the process has other threads, which may own some; otherwise
/// those of close_range(2).
pub fn close_inherited() -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task")?.take(2).count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    close_range(3, u32::MAX, 0)
}

/// Begins to write a file's content to its disk, and does not wait for it.
/// Only a hint: whether it gets there, an fsync(2) or syncfs(2) says, later.
pub fn begin_writing(file: BorrowedFd<'_>) {
    let flags = libc::SYNC_FILE_RANGE_WRITE;
    // SAFETY: the call takes numbers and touches no memory; the descriptor is
    // open while it is borrowed. What it returns is no answer to anything: it
    // neither waits for errors of the disk nor takes them from who asks later.
    let _hinted = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, flags) };
}

fn close_range(first: u32, last: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: the call takes three numbers and touches no memory. Whether
    // the descriptors may go is what the callers above have checked.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    crate::checked(result).map(|_| ())
}
