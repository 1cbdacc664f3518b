//! One process per container: holds its stdio and its exit status.
//!
//! Started by the engine ahead of need with one end of a socket pair as its
//! standard input; see the protocol for the rest of its life. It has one
//! thread (clone and setns need that) and outlives the engine.
//!
//! Under the name `docker-init` it is what `--init` puts in front of a
//! container's command.
#![forbid(unsafe_code)]

mod cgroups;
mod channel;
mod container;
mod control;
mod devices;
mod execute;
mod failure;
mod launch;
mod log;
mod mounts;
mod packet;
mod program;
mod reaper;
mod root;
mod setup;
mod squeeze;
mod stdio;
mod user;
mod watch;

use nix::sys::signal::{SigSet, Signal};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::process::DumpableBehavior;
use std::ffi::CString;
use std::path::Path;
use std::process::ExitCode;
use tritium_supervisor::inside;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    if Path::new(&name).file_name().is_some_and(|name| name == "docker-init") {
        return reaper::run(args);
    }
    match prepare().and_then(|(socket, home)| Ok(watch::Supervisor::park(socket, home).run()?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(u8::try_from(error.raw_os_error().unwrap_or(1)).unwrap_or(1)),
    }
}

/// Cuts this process off from whoever started it, but for the socket. Answers
/// with that and the pid namespace.
fn prepare() -> std::io::Result<(OwnedFd, OwnedFd)> {
    tritium_sys::memory::keep_little();
    outlive_others();
    tritium_sys::fd::close_inherited()?;
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    match rustix::process::setsid() {
        // Whoever leads its group already has been put in one for itself.
        Ok(_) | Err(rustix::io::Errno::PERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    // Blocked rather than ignored: a child would inherit that.
    let mut deaf = SigSet::empty();
    for signal in
        [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGPIPE]
    {
        deaf.add(signal);
    }
    deaf.thread_set_mask()?;
    // So that a container that a child joins can neither trace that child
    // nor open its descriptors (CVE-2016-9962). execve ends it.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::chdir("/")?;
    let home =
        rustix::fs::open("/proc/self/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    name_process("parked");
    Ok((socket, home))
}

/// Where memory is short, the kernel shall take a container's processes and not
/// who reports their end. Every child sets a score of its own.
fn outlive_others() {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open("/proc/self/oom_score_adj", flags, Mode::empty());
    // Refused without CAP_SYS_RESOURCE: then it is one among others.
    let _refused = file.and_then(|file| rustix::io::write(file, b"-999")).is_err();
}

/// What ps(1) shows: 15 characters of the kernel's.
fn name_process(id: &str) {
    let short: String = id.chars().take(7).collect();
    if let Ok(name) = CString::new(format!("tritium:{short}")) {
        // Only for people's eyes.
        let _unnamed = rustix::thread::set_name(&name).is_err();
    }
}
