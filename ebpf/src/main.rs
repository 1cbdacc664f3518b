//! The programs that run in the kernel: the guard's fences and the trace's counters.
//!
//! One question per file, every map in `maps.rs`. Offsets into kernel structs
//! are read from BTF by the loader and stand in read-only globals, so the verifier
//! sees constants and a wrong one fails at load. Unsafe is thin: the helpers
//! are wrapped once, in `kernel.rs`; logic that can be tested on the host is in `common`.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

mod connection;
mod denial;
mod device;
mod exec;
mod headers;
mod kernel;
mod maps;
mod names;
mod network;
mod pacing;
mod ptrace;
mod socket;
mod sysctl;
mod tenant;
mod trace;
mod traffic;
mod wire;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// For the host this is compiled only to be read by clippy.
#[cfg(not(target_arch = "bpf"))]
fn main() {}

// Helpers such as bpf_ktime_get_ns are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
