//! What nobody else asks a socket: what its other end has not read yet, and where it is.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// How much of what was sent waits for the peer to read it: of a Unix socket in bytes of the
/// kernel's buffers, so that only zero has a meaning by itself.
///
/// # Errors
///
/// `ENOTTY` if it is no socket (unix(7), `SIOCOUTQ`, which is `TIOCOUTQ`).
pub fn unread(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut waiting: libc::c_int = 0;
    // SAFETY: whatever knows TIOCOUTQ writes one int, which `waiting` is and which outlives the
    // call; whatever does not know it writes nothing.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut waiting) };
    crate::checked(result.into())?;
    Ok(u32::try_from(waiting).unwrap_or(0))
}

/// A number for the network namespace that a socket is in: no other has it or will have it until
/// the machine is started anew.
///
/// # Errors
///
/// `ENOTSOCK`, or `ENOPROTOOPT` before Linux 5.14.
pub fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = 8;
    // SAFETY: the kernel writes at most `length` bytes to `cookie`, which are as many as it has,
    // and the length; both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    crate::checked(result.into())?;
    Ok(cookie)
}
