//! From a profile to the BPF program of seccomp(2).

use super::{
    profile::{Argument, BadProfile, Profile, Rule},
    shrink::shrink,
};
use crate::runtime::capabilities::Set;
use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
    error::SeccompError,
};
use nix::libc::{EPERM, SECCOMP_RET_ERRNO};
use std::{collections::BTreeMap, fs::File, io, io::Read as _, io::Seek as _};

/// The errno of calls that are newer than the profile.
const ENOSYS: u32 = 38;
/// Set in the number of an x32 call on x86_64.
const X32: u32 = 0x4000_0000;

/// A step of the compilation that failed.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum Failed {
    #[error("libseccomp")]
    Library(#[from] SeccompError),
    #[error("cannot read the program back")]
    Memfd(#[source] io::Error),
    #[error(transparent)]
    Profile(#[from] BadProfile),
}

/// The program: `struct sock_filter`s in the machine's byte order.
pub(super) fn compile(profile: &Profile, capabilities: Set) -> Result<Vec<u8>, Failed> {
    let long = long_program(profile, capabilities)?;
    Ok(shrink(&long).unwrap_or(long))
}

/// As libseccomp writes it.
pub(super) fn long_program(profile: &Profile, capabilities: Set) -> Result<Vec<u8>, Failed> {
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let mut filter = ScmpFilterContext::new(default)?;
    // The supervisor sets no_new_privs itself, and only if asked to.
    filter.set_ctl_nnp(false)?;
    // A binary tree: 8 comparisons a call and not 300.
    filter.set_ctl_optimize(2)?;
    for flag in profile.flags.iter().flatten() {
        match flag.as_str() {
            "SECCOMP_FILTER_FLAG_LOG" => drop(filter.set_ctl_log(true)?),
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => drop(filter.set_ctl_ssb(true)?),
            // TSYNC says nothing of a process with one thread.
            _ => {}
        }
    }
    let arches = architectures(profile)?;
    for arch in &arches {
        if !filter.is_arch_present(*arch)? {
            filter.add_arch(*arch)?;
        }
    }
    let kernel = kernel();
    let mut newest: BTreeMap<u32, u32> = BTreeMap::new();
    for rule in profile.rules(capabilities, kernel) {
        let action = action(&rule.action, rule.errno_ret)?;
        for name in rule.names() {
            note_newest(&mut newest, name, &arches);
            // libseccomp knows fewer calls than Docker's list; the kernel of
            // such a call answers with the default action, as under runc.
            let Ok(call) = ScmpSyscall::from_name(name) else { continue };
            if action != default {
                add(&mut filter, action, call, rule)?;
            }
        }
    }
    let program = export(&filter)?;
    Ok(if matches!(default, ScmpAction::Errno(number) if number != ENOSYS.cast_signed()) {
        let mut whole = unknown_is_enosys(&newest);
        whole.extend(program);
        whole
    } else {
        program
    })
}

fn add(
    filter: &mut ScmpFilterContext,
    action: ScmpAction,
    call: ScmpSyscall,
    rule: &Rule,
) -> Result<(), Failed> {
    let arguments: Vec<ScmpArgCompare> =
        rule.args.iter().flatten().map(comparison).collect::<Result<_, _>>()?;
    let mut seen = [0_u8; 6];
    for argument in rule.args.iter().flatten() {
        if let Some(count) = seen.get_mut(argument.index as usize) {
            *count += 1;
        }
    }
    // Two conditions on one argument are alternatives (as runc has it).
    if seen.iter().any(|count| *count > 1) {
        for argument in arguments {
            filter.add_rule_conditional(action, call, &[argument])?;
        }
    } else {
        filter.add_rule_conditional(action, call, &arguments)?;
    }
    Ok(())
}

fn export(filter: &ScmpFilterContext) -> Result<Vec<u8>, Failed> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let memory = rustix::fs::memfd_create("seccomp", flags);
    let mut file = File::from(memory.map_err(|error| Failed::Memfd(error.into()))?);
    filter.export_bpf(&file)?;
    let mut program = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut program)).map_err(Failed::Memfd)?;
    Ok(program)
}

/// What a profile's word for an action means.
pub(super) fn action(word: &str, errno: Option<u32>) -> Result<ScmpAction, BadProfile> {
    let number = errno.unwrap_or(EPERM.cast_unsigned());
    Ok(match word {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => ScmpAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => ScmpAction::KillProcess,
        "SCMP_ACT_TRAP" => ScmpAction::Trap,
        "SCMP_ACT_ERRNO" => ScmpAction::Errno(number.cast_signed()),
        "SCMP_ACT_TRACE" => ScmpAction::Trace(u16::try_from(number).unwrap_or(u16::MAX)),
        "SCMP_ACT_ALLOW" => ScmpAction::Allow,
        "SCMP_ACT_LOG" => ScmpAction::Log,
        "SCMP_ACT_NOTIFY" => return Err(BadProfile::Notify),
        other => return Err(BadProfile::Action(other.to_owned())),
    })
}

/// What a profile's condition on an argument means.
pub(super) fn comparison(argument: &Argument) -> Result<ScmpArgCompare, BadProfile> {
    let Argument { index, value, value_two, .. } = *argument;
    let (operator, datum) = match argument.op.as_str() {
        "SCMP_CMP_NE" => (ScmpCompareOp::NotEqual, value),
        "SCMP_CMP_LT" => (ScmpCompareOp::Less, value),
        "SCMP_CMP_LE" => (ScmpCompareOp::LessOrEqual, value),
        "SCMP_CMP_EQ" => (ScmpCompareOp::Equal, value),
        "SCMP_CMP_GE" => (ScmpCompareOp::GreaterEqual, value),
        "SCMP_CMP_GT" => (ScmpCompareOp::Greater, value),
        "SCMP_CMP_MASKED_EQ" => (ScmpCompareOp::MaskedEqual(value), value_two),
        other => return Err(BadProfile::Operator(other.to_owned())),
    };
    Ok(ScmpArgCompare::new(index, operator, datum))
}

/// What a profile's word for an architecture means.
pub(super) fn architecture(word: &str) -> Result<ScmpArch, BadProfile> {
    word.parse().map_err(|_| BadProfile::Architecture(word.to_owned()))
}

fn architectures(profile: &Profile) -> Result<Vec<ScmpArch>, BadProfile> {
    let mut words: Vec<&String> = profile.architectures.iter().flatten().collect();
    let native = match std::env::consts::ARCH {
        "x86_64" => "SCMP_ARCH_X86_64",
        "aarch64" => "SCMP_ARCH_AARCH64",
        _ => "",
    };
    for entry in profile.arch_map.iter().flatten().filter(|entry| entry.architecture == native) {
        words.push(&entry.architecture);
        words.extend(entry.sub_architectures.iter().flatten());
    }
    words.into_iter().map(|word| architecture(word)).collect()
}

fn kernel() -> (u32, u32) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The `AUDIT_ARCH_*` of seccomp_data; x32 is x86_64 with a bit in the number.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library knows more than this engine")]
fn audit(arch: ScmpArch) -> Option<(u32, u32)> {
    Some(match arch {
        ScmpArch::X8664 => (0xc000_003e, 0),
        ScmpArch::X86 => (0x4000_0003, 0),
        ScmpArch::X32 => (0xc000_003e, X32),
        ScmpArch::Aarch64 => (0xc000_00b7, 0),
        ScmpArch::Arm => (0x4000_0028, 0),
        _ => return None,
    })
}

fn note_newest(newest: &mut BTreeMap<u32, u32>, name: &str, arches: &[ScmpArch]) {
    let native = [ScmpArch::Native];
    let arches = if arches.is_empty() { &native[..] } else { arches };
    for arch in arches {
        let arch = if *arch == ScmpArch::Native { ScmpArch::native() } else { *arch };
        // x32 numbers share the top of x86_64's, so one limit serves both.
        let Some((audit, 0)) = audit(arch) else { continue };
        let Ok(call) = ScmpSyscall::from_name_by_arch(name, arch) else { continue };
        let Ok(number) = u32::try_from(call.as_raw_syscall()) else { continue };
        let most = newest.entry(audit).or_insert(number);
        *most = number.max(*most);
    }
}

/// Instructions that answer ENOSYS for calls above the newest that the profile
/// names, since programs fall back on ENOSYS and give up on EPERM (runc does
/// the same). They fall through to the program that follows.
fn unknown_is_enosys(newest: &BTreeMap<u32, u32>) -> Vec<u8> {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const JUMP_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
    const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let mut program = Vec::new();
    let mut emit = |code: u16, yes: u8, no: u8, value: u32| {
        program.extend(code.to_ne_bytes());
        program.extend([yes, no]);
        program.extend(value.to_ne_bytes());
    };
    for (audit, most) in newest {
        emit(LOAD, 0, 0, 4); // seccomp_data.arch
        emit(JUMP_EQUAL, 0, 4, *audit);
        emit(LOAD, 0, 0, 0); // seccomp_data.nr
        emit(AND, 0, 0, !X32);
        emit(JUMP_GREATER, 0, 1, *most);
        emit(RETURN, 0, 0, SECCOMP_RET_ERRNO | ENOSYS);
    }
    program
}
