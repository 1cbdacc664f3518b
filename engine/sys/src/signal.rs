//! Signals: their dispositions, and sending one of any number.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sets every signal's disposition to the default. `execve` resets handlers by
/// itself, but an ignored signal stays ignored, and Rust ignores `SIGPIPE`.
///
/// # Errors
///
/// Those of sigaction(2), except for the signals that it may not change.
pub fn default_all() -> io::Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        // SIGKILL and SIGSTOP cannot be changed; 32 and 33 are the C
        // library's own, which nothing in a single thread has ignored.
        if matches!(signal, libc::SIGKILL | libc::SIGSTOP | 32 | 33) {
            continue;
        }
        // SAFETY: SIG_DFL installs no code of this process, so nothing can
        // be interrupted in an unfit state.
        let before = unsafe { libc::signal(signal, libc::SIG_DFL) };
        if before == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Sends a signal to the process behind a pidfd, real-time signals included,
/// which nix and rustix cannot name. pidfd_send_signal(2).
///
/// # Errors
///
/// `ESRCH` if the process has been waited for, `EINVAL` if there is no such
/// signal.
pub fn send(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open while it is borrowed; without a siginfo
    // the kernel reads nothing of this process's memory.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, info, 0) };
    crate::checked(result).map(|_| ())
}
