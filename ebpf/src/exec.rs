//! May this container execute this file?
//!
//! Refused are the files the tenant's list names by device and inode (a path
//! would be relative to the container's root, and a bind mount would defeat it), and
//! files that have no name any more: a memfd, or what was unlinked after it was opened.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use tritium_common::guard::{ExecKey, rule};

use crate::{
    denial::{self, Detail},
    kernel::read,
    maps::{
        EXEC_DENIED, FILE__F_INODE, INODE__I_INO, INODE__I_NLINK, INODE__I_SB, LINUX_BINPRM__FILE,
        SUPER_BLOCK__S_DEV,
    },
    socket::guarded,
    tenant,
};

const EPERM: i32 = -1;

#[lsm(hook = "bprm_check_security")]
pub(crate) fn lsm_exec(ctx: LsmContext) -> i32 {
    if !guarded() {
        return 0;
    }
    let (cgroup, entry) = tenant::current();
    if let Some(entry) = entry {
        let file = file_of(ctx.arg(0));
        // What cannot be read is refused as well.
        if let Some((device, inode, links)) = file {
            let key = ExecKey { tenant: entry.tenant, inode, device: u64::from(device) };
            // SAFETY: values are plain numbers, replaced as a whole.
            if links > 0 && unsafe { EXEC_DENIED.get(key) }.is_none() {
                return 0;
            }
        }
    }
    denial::count(cgroup, rule::EXEC, &Detail::numbers([0; 4]));
    EPERM
}

/// Device, inode and link count of the file in a `linux_binprm`.
#[inline(always)]
fn file_of(bprm: *const u8) -> Option<(u32, u64, u32)> {
    // SAFETY: all of these are integers or addresses, which any bytes make.
    unsafe {
        let file: *const u8 = read(bprm, &LINUX_BINPRM__FILE)?;
        let inode: *const u8 = read(file, &FILE__F_INODE)?;
        let filesystem: *const u8 = read(inode, &INODE__I_SB)?;
        Some((
            read(filesystem, &SUPER_BLOCK__S_DEV)?,
            read(inode, &INODE__I_INO)?,
            read(inode, &INODE__I_NLINK)?,
        ))
    }
}
