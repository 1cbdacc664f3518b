use super::*;
use crate::runtime::capabilities;

/// A BPF machine with the instructions that libseccomp uses.
fn run(program: &[u8], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(arch.to_le_bytes());
    data.extend(0_u64.to_le_bytes());
    arguments.iter().for_each(|argument| data.extend(argument.to_le_bytes()));
    let word = |at: usize| u32::from_le_bytes(data[at..at + 4].try_into().unwrap());
    let (mut accumulator, mut at) = (0_u32, 0_usize);
    loop {
        let instruction = &program[at * 8..at * 8 + 8];
        let code = u16::from_le_bytes(instruction[..2].try_into().unwrap());
        let (yes, no) = (usize::from(instruction[2]), usize::from(instruction[3]));
        let value = u32::from_le_bytes(instruction[4..].try_into().unwrap());
        at += 1;
        match code {
            0x20 => accumulator = word(value as usize),
            0x54 => accumulator &= value,
            0x05 => at += value as usize,
            0x15 => at += if accumulator == value { yes } else { no },
            0x25 => at += if accumulator > value { yes } else { no },
            0x35 => at += if accumulator >= value { yes } else { no },
            0x45 => at += if accumulator & value != 0 { yes } else { no },
            0x06 => return value,
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

fn program(policy: &Policy, set: Set) -> Vec<u8> {
    let text = Programs::default().get(policy, set).unwrap().unwrap();
    STANDARD.decode(text.as_bytes()).unwrap()
}

fn with(names: &[&str]) -> Set {
    let added = names.iter().map(|name| capabilities::number(name).unwrap());
    added.fold(capabilities::DOCKER, Set::with)
}

fn call(name: &str) -> u32 {
    let call = libseccomp::ScmpSyscall::from_name(name).unwrap();
    u32::try_from(call.as_raw_syscall()).unwrap()
}

#[test]
fn the_default_policy_allows_what_programs_need_and_refuses_what_harms() {
    let program = program(&Policy::Default, capabilities::DOCKER);
    let answer = |name: &str, first: u64| run(&program, X86_64, call(name), [first, 0, 0, 0, 0, 0]);
    for name in ["read", "openat", "execve", "ptrace", "chroot", "arch_prctl"] {
        assert_eq!(answer(name, 0), ALLOW, "{name}");
    }
    for name in ["mount", "setns", "unshare", "bpf", "reboot", "keyctl", "add_key", "kexec_load"] {
        assert_eq!(answer(name, 0), EPERM, "{name}");
    }
    assert_eq!(answer("clone3", 0), ENOSYS);
    assert_eq!(answer("clone", 0x11), ALLOW);
    assert_eq!(answer("clone", 0x1000_0000), EPERM, "CLONE_NEWUSER");
    assert_eq!(answer("socket", 2), ALLOW);
    assert_eq!(answer("socket", 40), EPERM, "AF_VSOCK");
    assert_eq!(answer("personality", 0x0002_0008), ALLOW);
    assert_eq!(answer("personality", 0x0004_0000), EPERM, "ADDR_NO_RANDOMIZE");
}

#[test]
fn a_capability_opens_the_calls_that_it_is_for() {
    let admin = program(&Policy::Default, with(&["CAP_SYS_ADMIN"]));
    for name in ["mount", "setns", "unshare", "bpf", "clone3"] {
        assert_eq!(run(&admin, X86_64, call(name), [0x1000_0000, 0, 0, 0, 0, 0]), ALLOW, "{name}");
    }
    let time = program(&Policy::Default, with(&["CAP_SYS_TIME"]));
    assert_eq!(run(&time, X86_64, call("settimeofday"), [0; 6]), ALLOW);
    assert_eq!(run(&time, X86_64, call("mount"), [0; 6]), EPERM);
    let none = program(&Policy::Default, Set::NONE);
    assert_eq!(run(&none, X86_64, call("chroot"), [0; 6]), EPERM);
}

#[test]
fn calls_newer_than_the_policy_do_not_exist() {
    let program = program(&Policy::Default, capabilities::DOCKER);
    assert_eq!(run(&program, X86_64, 900, [0; 6]), ENOSYS);
    assert_eq!(run(&program, X86_64, 900 | 0x4000_0000, [0; 6]), ENOSYS);
    assert_eq!(run(&program, I386, 900, [0; 6]), ENOSYS);
    assert_eq!(run(&program, I386, 21, [0; 6]), EPERM, "mount of i386");
    assert_ne!(run(&program, 0xdead, 0, [0; 6]), ALLOW, "an unknown architecture");
}

#[test]
fn a_profile_of_the_user_is_taken_at_its_word() {
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {"name":"mkdir","action":"SCMP_ACT_ERRNO","errnoRet":13},
        {"names":["nosuchcall","chmod"],"action":"SCMP_ACT_KILL"}]}"#;
    let program = program(&Policy::Custom(text.into()), capabilities::DOCKER);
    assert_eq!(run(&program, X86_64, call("mkdir"), [0; 6]), 0x0005_000d);
    assert_eq!(run(&program, X86_64, call("chmod"), [0; 6]), 0);
    assert_eq!(run(&program, X86_64, call("mount"), [0; 6]), ALLOW);
    assert_eq!(run(&program, X86_64, 900, [0; 6]), ALLOW);
}

#[test]
fn a_profile_that_cannot_be_meant_is_refused_in_dockers_words() {
    for (text, words) in [
        ("{", "Decoding seccomp profile failed: "),
        (r#"{"defaultAction":7}"#, "Decoding seccomp profile failed: "),
        (r#"{"defaultAction":"SCMP_ACT_FOO"}"#, "string SCMP_ACT_FOO is not a valid action"),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],
                "archMap":[{"architecture":"SCMP_ARCH_X86"}]}"#,
            "both 'architectures' and 'archMap' are specified",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
                {"name":"a","names":["b"],"action":"SCMP_ACT_ERRNO"}]}"#,
            "both 'name' and 'names' are specified",
        ),
    ] {
        let refused = Profile::parse(text).unwrap_err().to_string();
        assert!(refused.starts_with(words), "{refused}");
    }
}

#[test]
fn unconfined_is_no_program_and_a_program_is_compiled_once() {
    let programs = Programs::default();
    assert_eq!(programs.get(&Policy::Unconfined, Set::NONE).unwrap(), None);
    let first = programs.get(&Policy::Default, Set::NONE).unwrap().unwrap();
    let again = programs.get(&Policy::Default, Set::NONE).unwrap().unwrap();
    assert!(Arc::ptr_eq(&first, &again));
}
