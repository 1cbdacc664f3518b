//! `seccomp(2)`: handing the kernel a filter.

use std::io;

/// One instruction of classic BPF: `struct sock_filter` of linux/filter.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if true.
    pub jump_true: u8,
    /// Instructions to skip if false.
    pub jump_false: u8,
    /// Operand.
    pub operand: u32,
}
const _: () = assert!(size_of::<Instruction>() == 8);

/// Reads a program as the kernel's headers lay it out, in little-endian order.
/// `None` if the bytes are not a whole number of instructions.
pub fn program_from(bytes: &[u8]) -> Option<Vec<Instruction>> {
    let (instructions, rest) = bytes.as_chunks::<8>();
    rest.is_empty().then(|| {
        instructions
            .iter()
            .map(|b| Instruction {
                code: u16::from_le_bytes([b[0], b[1]]),
                jump_true: b[2],
                jump_false: b[3],
                operand: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
            })
            .collect()
    })
}

/// Puts `program` in force for this thread and all that it starts, for ever.
///
/// # Errors
///
/// `EACCES` without `no_new_privs` and without `CAP_SYS_ADMIN`; `EINVAL` for a
/// program that is empty, longer than 4096 instructions, or not sound.
pub fn install(program: &[Instruction]) -> io::Result<()> {
    let len =
        u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let filter =
        libc::sock_fprog { len, filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut() };
    // SAFETY: `filter` points to `len` instructions that live until the call
    // returns; `Instruction` has the layout of `sock_filter` (asserted to be
    // 8 bytes: u16, u8, u8, u32 in this order without padding). The kernel
    // copies them and writes nothing: the cast to mutable is the header's.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0_u64, &raw const filter)
    };
    crate::checked(result).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_an_instruction_is_no_program() {
        assert_eq!(program_from(&[0; 12]), None);
        let allow = Instruction { code: 6, jump_true: 0, jump_false: 0, operand: 0x7fff_0000 };
        assert_eq!(program_from(&[6, 0, 0, 0, 0, 0, 0xff, 0x7f]), Some(vec![allow]));
    }
}
