//! What the other end of a socket has not read yet.

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
