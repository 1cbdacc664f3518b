//! From a process inside the container's namespaces to the user's program:
//! the steps that the first process and an exec'd one share.
//!
//! What must stay true: rights only shrink from line to line, and a seccomp
//! policy is installed last, or, where it needs `CAP_SYS_ADMIN` because
//! `no_new_privs` is not wanted, right before the capabilities go.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::fd::AsFd;
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::convert::Infallible;
use std::ffi::CString;
use tritium_supervisor::protocol::{Capabilities, Failure, Process};
use tritium_sys::seccomp::{self, Instruction};

use crate::channel::Speaker;
use crate::failure::{Step, sentence, with_message};
use crate::{program, user};

/// `CAP_SYS_ADMIN` as a bit; capability.h.
const SYS_ADMIN: u64 = 1 << 21;

/// Executes `process`. Comes back only if that fails.
pub(crate) fn execute(
    process: &Process,
    args: &[String],
    speaker: &Speaker,
) -> Result<Infallible, Failure> {
    limit(process)?;
    let identity = user::look_up(&process.user, &process.groups)?;
    let programs = decoded(&process.seccomp)?;
    let entered = enter(&process.cwd);
    let path = program::find(args.first().map_or("", String::as_str), &process.env)?;
    let env = environment(process, &identity.home)?;
    let args = c_strings(args)?;
    let path = c_string(&path)?;
    own_stdio(identity.uid).step("prepare the standard streams")?;

    drop_bounding(process.capabilities.bounding).step("drop the bounding set")?;
    switch(&identity)?;
    match entered {
        Err(Errno::ACCESS) => enter(&process.cwd),
        entered => entered,
    }
    .map_err(|errno| bad_directory(&process.cwd, errno))?;

    tritium_sys::fd::close_on_exec().step("mark descriptors close-on-exec")?;
    tritium_sys::signal::default_all().step("reset signals")?;
    nix::sys::signal::SigSet::empty().thread_set_mask().step("reset the signal mask")?;
    speaker.executing().step("report")?;
    confine(process, &programs)?;
    let Err(errno) = nix::unistd::execve(&path, &args, &env);
    Err(not_executed(&path.to_string_lossy(), Errno::from_raw_os_error(errno as i32)))
}

fn limit(process: &Process) -> Result<(), Failure> {
    const RESOURCES: [Resource; 16] = [
        Resource::Cpu,
        Resource::Fsize,
        Resource::Data,
        Resource::Stack,
        Resource::Core,
        Resource::Rss,
        Resource::Nproc,
        Resource::Nofile,
        Resource::Memlock,
        Resource::As,
        Resource::Locks,
        Resource::Sigpending,
        Resource::Msgqueue,
        Resource::Nice,
        Resource::Rtprio,
        Resource::Rttime,
    ];
    let finite = |value: u64| (value != u64::MAX).then_some(value);
    for limit in &process.rlimits {
        let step = format!(
            "error setting rlimits for ready process: error setting rlimit type {}",
            limit.resource
        );
        let resource = usize::try_from(limit.resource).ok().and_then(|n| RESOURCES.get(n).copied());
        let resource = resource.ok_or(Errno::INVAL).step(&step)?;
        let limit = Rlimit { current: finite(limit.soft), maximum: finite(limit.hard) };
        rustix::process::setrlimit(resource, limit).step(&step)?;
    }
    Ok(())
}

fn decoded(programs: &[String]) -> Result<Vec<Vec<Instruction>>, Failure> {
    let decode = |text: &String| {
        let bytes = STANDARD.decode(text).map_err(|_| Errno::INVAL)?;
        seccomp::program_from(&bytes).ok_or(Errno::INVAL)
    };
    programs.iter().map(decode).collect::<Result<_, Errno>>().step("read the seccomp policy")
}

fn enter(cwd: &str) -> Result<(), Errno> {
    rustix::process::chdir(if cwd.is_empty() { "/" } else { cwd })?;
    // A directory that is not below the root shows itself here: runc's
    // answer to CVE-2024-21626.
    let here = rustix::process::getcwd(Vec::new())?;
    if here.as_bytes().starts_with(b"/") { Ok(()) } else { Err(Errno::NOENT) }
}

fn bad_directory(cwd: &str, errno: Errno) -> Failure {
    let hint = if errno == Errno::NOTDIR { crate::mounts::WRONG_TYPE } else { "" };
    let reason = sentence(errno);
    let message = format!("chdir to cwd (\"{cwd}\") set in config.json failed: {reason}{hint}");
    with_message(format!("chdir {cwd}"), errno, message)
}

fn environment(process: &Process, home: &str) -> Result<Vec<CString>, Failure> {
    let mut env = c_strings(&process.env)?;
    if !process.env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(c_string(&format!("HOME={home}"))?);
    }
    Ok(env)
}

fn c_strings(texts: &[String]) -> Result<Vec<CString>, Failure> {
    texts.iter().map(|text| c_string(text)).collect()
}

fn c_string(text: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Errno::INVAL).step("read an argument with a zero byte")
}

/// Lets the user open /dev/stdout anew, and swaps a /dev/null of the host's
/// for the container's own, so that a chmod of it stays inside.
fn own_stdio(uid: u32) -> Result<(), Errno> {
    for (number, fd) in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
        .into_iter()
        .enumerate()
    {
        let stat = rustix::fs::fstat(fd)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::CharacterDevice && stat.st_rdev == crate::devices::NULL {
            reopen_null(number)?;
        } else if matches!(kind, FileType::CharacterDevice | FileType::Fifo) {
            match rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), None) {
                // A read-only mount, or a stream that is not ours.
                Ok(()) | Err(Errno::PERM | Errno::ROFS | Errno::INVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

fn reopen_null(number: usize) -> Result<(), Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let null = match rustix::fs::open("/dev/null", flags, Mode::empty()) {
        Ok(null) if rustix::fs::fstat(&null)?.st_rdev == crate::devices::NULL => null,
        // A container without /dev/null keeps what it was given.
        Ok(_) | Err(_) => return Ok(()),
    };
    rustix::fs::fcntl_setfl(&null, OFlags::empty())?;
    match number {
        0 => rustix::stdio::dup2_stdin(null.as_fd()),
        1 => rustix::stdio::dup2_stdout(null.as_fd()),
        _ => rustix::stdio::dup2_stderr(null.as_fd()),
    }
}

fn drop_bounding(keep: u64) -> Result<(), Errno> {
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if keep & (1 << number) != 0 {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The first number that this kernel does not know.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn switch(identity: &user::Identity) -> Result<(), Failure> {
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    rustix::thread::set_keep_capabilities(true).step("keep capabilities")?;
    let groups: Vec<Gid> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    set_thread_groups(&groups).step("setgroups")?;
    let gid = Gid::from_raw(identity.gid);
    set_thread_res_gid(gid, gid, gid).step("setgid")?;
    let uid = Uid::from_raw(identity.uid);
    set_thread_res_uid(uid, uid, uid).step("setuid")?;
    rustix::thread::set_keep_capabilities(false).step("keep capabilities")
}

fn confine(process: &Process, programs: &[Vec<Instruction>]) -> Result<(), Failure> {
    let install = || {
        programs
            .iter()
            .try_for_each(|program| seccomp::install(program))
            .step("install the seccomp policy")
    };
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).step("set no_new_privs")?;
        hold(process.capabilities)?;
        return install();
    }
    if !programs.is_empty() {
        // setuid has emptied the effective set; this raises the one bit.
        let wanted = process.capabilities;
        set(Capabilities {
            permitted: wanted.permitted | SYS_ADMIN,
            effective: SYS_ADMIN,
            ..wanted
        })
        .step("prepare for the seccomp policy")?;
        install()?;
    }
    hold(process.capabilities)
}

/// Leaves exactly `wanted`.
fn hold(wanted: Capabilities) -> Result<(), Failure> {
    set(wanted).step("set the capabilities")?;
    rustix::thread::clear_ambient_capability_set().step("clear ambient capabilities")?;
    for number in (0..64).filter(|number| wanted.ambient & (1 << number) != 0) {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        rustix::thread::configure_capability_in_ambient_set(capability, true)
            .step("raise an ambient capability")?;
    }
    Ok(())
}

fn set(wanted: Capabilities) -> Result<(), Errno> {
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(wanted.effective),
        permitted: CapabilitySet::from_bits_retain(wanted.permitted),
        inheritable: CapabilitySet::from_bits_retain(wanted.inheritable),
    };
    rustix::thread::set_capabilities(None, sets)
}

fn not_executed(path: &str, errno: Errno) -> Failure {
    with_message(format!("exec {path}"), errno, format!("exec {path}: {}", sentence(errno)))
}
