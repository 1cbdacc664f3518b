//! No packet sockets for those who did not ask for raw sockets.
//!
//! The guard's control-group hook sees internet sockets only
//! (`BPF_CGROUP_RUN_PROG_INET_SOCK`, net/ipv4/af_inet.c); where the kernel
//! takes no BPF LSM program, this filter is what refuses `AF_PACKET`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::sync::LazyLock;

/// In base64, to be installed before any other.
pub(in super::super) static NO_PACKET_SOCKETS: LazyLock<String> =
    LazyLock::new(|| STANDARD.encode(program()));

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

const ALLOW: u32 = 0x7fff_0000; // SECCOMP_RET_ALLOW
const EPERM: u32 = 0x0005_0001; // SECCOMP_RET_ERRNO | EPERM

const AUDIT_X86_64: u32 = 0xc000_003e;
const AUDIT_I386: u32 = 0x4000_0003;
const AUDIT_AARCH64: u32 = 0xc000_00b7;
const AF_PACKET: u32 = 17;
/// `SYS_SOCKET` of linux/net.h: what `socketcall` of i386 makes sockets with.
/// Its arguments lie in memory, where no filter can look: refused altogether.
const SYS_SOCKET: u32 = 1;

/// `struct sock_filter`s (linux/filter.h) over `struct seccomp_data`:
/// nr at 0, arch at 4, the low half of the first argument at 16.
fn program() -> Vec<u8> {
    let instructions: [(u16, u8, u8, u32); 18] = [
        (LOAD, 0, 0, 4),
        (JUMP_EQUAL, 2, 0, AUDIT_X86_64),
        (JUMP_EQUAL, 4, 0, AUDIT_AARCH64),
        (JUMP_EQUAL, 5, 13, AUDIT_I386),
        // x86_64; x32 has the same numbers with a bit set.
        (LOAD, 0, 0, 0),
        (AND, 0, 0, 0xbfff_ffff),
        (JUMP_EQUAL, 5, 10, 41),
        // aarch64
        (LOAD, 0, 0, 0),
        (JUMP_EQUAL, 3, 8, 198),
        // i386
        (LOAD, 0, 0, 0),
        (JUMP_EQUAL, 1, 0, 359),
        (JUMP_EQUAL, 2, 5, 102),
        // socket(family, …)
        (LOAD, 0, 0, 16),
        (JUMP_EQUAL, 2, 3, AF_PACKET),
        // socketcall(call, …)
        (LOAD, 0, 0, 16),
        (JUMP_EQUAL, 0, 1, SYS_SOCKET),
        // The two ends.
        (RETURN, 0, 0, EPERM),
        (RETURN, 0, 0, ALLOW),
    ];
    let bytes = instructions.into_iter().flat_map(|(code, yes, no, k)| {
        let [a, b] = code.to_le_bytes();
        let [c, d, e, f] = k.to_le_bytes();
        [a, b, yes, no, c, d, e, f]
    });
    bytes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter answers: a small machine of just these instructions.
    fn verdict(arch: u32, nr: u32, argument: u32) -> u32 {
        let program = program();
        let (mut at, mut register) = (0, 0);
        loop {
            let raw = &program[at * 8..at * 8 + 8];
            let k = u32::from_le_bytes([raw[4], raw[5], raw[6], raw[7]]);
            at += 1;
            match u16::from_le_bytes([raw[0], raw[1]]) {
                LOAD => {
                    register = [(0, nr), (4, arch), (16, argument)]
                        .into_iter()
                        .find(|(at, _)| *at == k)
                        .unwrap()
                        .1
                }
                AND => register &= k,
                JUMP_EQUAL => at += usize::from(if register == k { raw[2] } else { raw[3] }),
                RETURN => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn packet_sockets_are_refused_and_all_else_is_let_through() {
        for (arch, socket) in [
            (AUDIT_X86_64, 41),
            (AUDIT_X86_64, 41 | 0x4000_0000),
            (AUDIT_AARCH64, 198),
            (AUDIT_I386, 359),
        ] {
            assert_eq!(verdict(arch, socket, AF_PACKET), EPERM, "{arch:#x}");
            for family in [1, 2, 10, 16, 40] {
                assert_eq!(verdict(arch, socket, family), ALLOW, "{arch:#x} {family}");
            }
            assert_eq!(verdict(arch, socket - 1, AF_PACKET), ALLOW, "{arch:#x}");
        }
        assert_eq!(verdict(AUDIT_I386, 102, SYS_SOCKET), EPERM);
        assert_eq!(verdict(AUDIT_I386, 102, 3), ALLOW);
        assert_eq!(verdict(0x1234, 41, AF_PACKET), ALLOW);
    }
}
