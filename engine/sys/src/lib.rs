//! The system-call fence: what nix and rustix lack, made safe.
//!
//! # What is unsafe here, and why it is all
//!
//! Everything that a safe crate offers is called there; only these remain:
//!
//! - [`bpf`][]: the `bpf(2)` commands that aya lacks.
//! - [`clone`][]: `clone3(2)` straight into a control group, with a pidfd.
//! - [`seccomp`][]: handing the kernel a filter program.
//! - [`mount`][]: `mount_setattr(2)`.
//! - [`fd`][]: `close_range(2)` as a fresh child needs it.
//! - [`signal`][]: setting every disposition back to its default; any signal by pidfd.
//! - [`link`][]: switching a network interface on.
//! - [`bpf`][]: linking a program to a control group, and pinning the link.
//! - [`memory`][]: keeping few pages.
//! - [`socket`][]: what the other end has not read yet; which network namespace it is in.
//!
//! What must stay true: a function here takes and returns owned or borrowed
//! descriptors, makes one system call, and is safe because it checks its
//! condition, not because its caller promises it.
//!
//! Who may use it: `runtime` and `network` of the engine, the connections of its API, the
//! supervisor, and probes.
#![warn(missing_docs)]

pub mod bpf;
pub mod clone;
pub mod fd;
pub mod link;
pub mod memory;
pub mod mount;
pub mod seccomp;
pub mod signal;
pub mod socket;

/// What a system call that answers -1 on failure has said.
fn checked(result: libc::c_long) -> std::io::Result<libc::c_long> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}
