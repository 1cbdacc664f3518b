//! `docker-init`: process 1 of a container that was started with `--init`.
//!
//! Runs the command in a group of its own, hands every signal on to it, buries
//! the orphans that the kernel gives to process 1, and ends as the command
//! ends. What tini does, without its options.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, setpgid};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Runs `args` (after the `--`).
pub(crate) fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut args = args.skip_while(|arg| arg == "--");
    let Some(program) = args.next() else {
        return complain("no command given", 1);
    };
    // Blocked from before the command is there, so that none is missed.
    if let Err(errno) = SigSet::all().thread_set_mask() {
        return complain(errno.desc(), 1);
    }
    match tritium_sys::clone::fork() {
        Ok(Some(pid)) => watch(Pid::from_raw(pid)),
        Ok(None) => {
            let error = execute(Command::new(&program).args(args));
            let code = if error.raw_os_error() == Some(Errno::ENOENT as i32) { 127 } else { 126 };
            complain(&format!("exec {} failed: {error}", program.display()), code)
        }
        Err(error) => complain(&format!("fork failed: {error}"), 1),
    }
}

/// Becomes `command`; comes back only if that fails.
fn execute(command: &mut Command) -> std::io::Error {
    let ready = setpgid(Pid::from_raw(0), Pid::from_raw(0))
        .and_then(|()| SigSet::empty().thread_set_mask())
        .map_err(std::io::Error::from)
        .and_then(|()| tritium_sys::signal::default_all());
    match ready {
        Ok(()) => command.exec(),
        Err(error) => error,
    }
}

fn watch(main: Pid) -> ExitCode {
    // The command gets the terminal, if there is one; a background group
    // would be stopped when it reads from it.
    let grouped = setpgid(main, main);
    // Both sides do it, so that it is done whoever comes first; the child may
    // have executed (EACCES) or ended (ESRCH) by now.
    if !matches!(grouped, Ok(()) | Err(Errno::EACCES | Errno::ESRCH)) {
        return complain("setpgid failed", 1);
    }
    match rustix::termios::tcsetpgrp(rustix::stdio::stdin(), own(main)) {
        Ok(()) | Err(rustix::io::Errno::NOTTY | rustix::io::Errno::NXIO) => {}
        Err(errno) => return complain(&format!("tcsetpgrp failed: {errno}"), 1),
    }
    let all = SigSet::all();
    loop {
        match all.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = bury(main) {
                    return code;
                }
            }
            Ok(signal) => match kill(main, signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return complain(&format!("kill failed: {}", errno.desc()), 1),
            },
            // A real-time signal, which nix has no name for.
            Err(Errno::EINVAL | Errno::EINTR) => {}
            Err(errno) => return complain(errno.desc(), 1),
        }
    }
}

fn own(pid: Pid) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(pid.as_raw()).unwrap_or(rustix::process::Pid::INIT)
}

/// Waits for all that have ended; the command's code if it is among them.
fn bury(main: Pid) -> Option<ExitCode> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == main => code = Some(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == main => {
                code = Some(128 + signal as i32)
            }
            Ok(WaitStatus::StillAlive) | Err(_) => break,
            Ok(_) => {}
        }
    }
    code.map(|code| ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

#[expect(
    clippy::print_stderr,
    reason = "the container's standard error is where its first process complains"
)]
fn complain(what: &str, code: u8) -> ExitCode {
    eprintln!("[FATAL docker-init] {what}");
    ExitCode::from(code)
}
