//! Signal dispositions: what `execve` hands on must be the default.

use std::io;

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
